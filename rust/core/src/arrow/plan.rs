//! Which elimination, from the problem's shape alone.

use super::Elimination;

/// What a factorisation will do and what it will hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub elimination: Elimination,
    /// Border variables in the frame of the largest group of atoms (rows first), or coupled local variables (decoders first).
    pub dense_size: usize,
    /// Estimated bytes of the dense systems.
    pub bytes: usize,
}

/// Chooses the elimination whose dense systems cost less, and estimates their memory.
///
/// `p` outputs, `coupled` local variables of all rows together, and the stacked basis width of each group of atoms.
pub fn plan(p: usize, coupled: usize, widths: &[usize], forced: Option<Elimination>) -> Plan {
    let width: usize = widths.iter().sum();
    let rank = widths.iter().copied().max().unwrap_or(0).min(p);
    let cube = |size: usize| (size as f64).powi(3);
    let grouped: f64 = widths.iter().map(|w| cube(w * rank)).sum();
    let elimination = forced.unwrap_or(match (cube(coupled) < grouped, rank < p || widths.len() > 1) {
        (true, _) => Elimination::Dual,
        (false, true) => Elimination::Complement,
        (false, false) => Elimination::Primal,
    });
    let square = |size: usize| size.saturating_mul(size);
    // a factor, its inverse and a work copy
    let (dense_size, entries) = match elimination {
        Elimination::Primal => (width * p, 3 * square(width * p)),
        Elimination::Complement => {
            let sizes = widths.iter().map(|w| w * rank);
            (sizes.clone().max().unwrap_or(0), 3 * sizes.map(square).sum::<usize>())
        }
        Elimination::Dual => (coupled, 5 * square(coupled) + coupled.saturating_mul(width * width.min(p))),
    };
    Plan { elimination, dense_size, bytes: entries.saturating_mul(8) }
}
