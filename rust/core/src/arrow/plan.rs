//! Which elimination, from the problem's shape alone.

use super::Elimination;

/// What a factorisation will do and what it will hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub elimination: Elimination,
    /// Border variables in the frame (rows first), or coupled local variables (decoders first).
    pub dense_size: usize,
    /// Estimated peak bytes, the data included.
    pub bytes: usize,
}

/// Chooses the elimination whose dense system is smaller, and estimates its memory.
///
/// `n` rows, `p` outputs, `coupled` local variables of all rows together, `width` the stacked basis width M.
pub fn plan(n: usize, p: usize, coupled: usize, width: usize, forced: Option<Elimination>) -> Plan {
    let rank = width.min(p);
    let border = width * rank;
    let elimination = forced.unwrap_or(match (coupled < border, width < p) {
        (true, _) => Elimination::Dual,
        (false, true) => Elimination::Complement,
        (false, false) => Elimination::Primal,
    });
    let (channels, dense_size) = match elimination {
        Elimination::Primal => (p, width * p),
        Elimination::Complement => (rank, border),
        Elimination::Dual => (rank, coupled),
    };
    // data; two tapes (a state and its trial); a dense factor, its inverse and a work copy; a few local vectors
    let q = coupled / n.max(1) + 1;
    let tape = n * (3 * width + 2 * q * q + q * channels) + n * q * q;
    let dense = 3 * dense_size * dense_size;
    let extra = if elimination == Elimination::Dual { coupled * border + 2 * coupled * coupled } else { 0 };
    let vectors = 12 * (coupled + width * p);
    Plan { elimination, dense_size, bytes: 8 * (n * p + 2 * tape + dense + extra + vectors) }
}
