//! Which elimination, what is kept, and how much memory that takes, from the problem's shape alone.

use super::estimated::{probes_together, KRYLOV, PROBES};
use super::Elimination;
use crate::chunks::{accumulators, bytes_with_gram, rows_of_chunk};
use crate::gram::about_entries;
use crate::row::held_whole;

/// States that are alive at once: where a step starts, its trial, and the points that the outer search keeps.
const STATES: usize = 6;
/// Vectors over all inner variables that are alive at once in conjugate gradients and the adjoint.
const VECTORS: usize = 9;

/// Arrays of a chunk's rows in all channels that are alive at once.
const CHUNK_BUFFERS: usize = 3;

/// Border vectors that are kept of each probe of an estimated determinant, for its derivative.
const DIRECTIONS: usize = 8;
/// Border vectors of a probe that are alive during a product, beside its Krylov basis.
const PRODUCTS: usize = 6;
/// A dense system of more variables is not formed: its determinant is estimated.
const EXACT_TO: usize = 8192;

/// What the cost of a fit depends on. Counts of rows' atoms, coordinates and basis columns are totals over the rows' supports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shape {
    pub n_rows: usize,
    pub n_outputs: usize,
    pub n_atoms: usize,
    /// Free logits of a row.
    pub free_logits: usize,
    /// Stored coordinates of a point on every atom.
    pub ambient: usize,
    pub active_atoms: usize,
    pub active_coords: usize,
    pub active_basis: usize,
    /// Free logits of atoms in their row's support.
    pub coupled_logits: usize,
    /// Whether rows have logits and points of the atoms in their support only.
    pub compact: bool,
    /// Stacked basis width of each group of atoms that rows tie together.
    pub group_widths: Vec<usize>,
    /// Copies of the rows in memory; none where passes read them from a file.
    pub copies: usize,
    pub forced: Option<Elimination>,
}

/// What a fit will do and what it will hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub elimination: Elimination,
    /// Border variables in the frame of the largest group of atoms (rows first), or coupled local variables (decoders first).
    pub dense_size: usize,
    /// Whether linearised rows are kept between passes, or made anew in each.
    pub keeps_rows: bool,
    /// Rows that are worked on at a time.
    pub chunk_rows: usize,
    /// Estimated peak bytes.
    pub bytes: usize,
}

impl Shape {
    fn width(&self) -> usize {
        self.group_widths.iter().sum()
    }

    fn chunk_rows(&self) -> usize {
        rows_of_chunk(self.n_rows, self.n_atoms)
    }

    /// Channels of the frame.
    fn rank(&self) -> usize {
        self.group_widths.iter().copied().max().unwrap_or(0).min(self.n_outputs)
    }

    /// The elimination whose dense systems cost less, the size of the largest and the entries of all, with their factors,
    /// inverses and work copies.
    fn elimination(&self) -> (Elimination, usize, usize) {
        let (width, rank, p) = (self.width(), self.rank(), self.n_outputs);
        let coupled = self.coupled_logits + self.active_coords;
        let cube = |size: usize| (size as f64).powi(3);
        let grouped: f64 = self.group_widths.iter().map(|w| cube(w * rank)).sum();
        let elimination =
            self.forced.unwrap_or(match (cube(coupled) < grouped, rank < p || self.group_widths.len() > 1) {
                (true, _) => Elimination::Dual,
                (false, true) => Elimination::Complement,
                (false, false) => Elimination::Primal,
            });
        let square = |size: usize| size.saturating_mul(size);
        let dense = |elimination| match elimination {
            Elimination::Primal => (width * p, 3 * square(width * p)),
            Elimination::Complement => {
                let sizes = self.group_widths.iter().map(|w| w * rank);
                let all: usize = sizes.clone().map(square).sum();
                // factor and inverse, and a copy of the inverse, or before it what segments sum up of S, a quarter of it each
                let quarter = all.div_ceil(4);
                let sums = accumulators(self.n_rows, self.chunk_rows(), 8 * quarter).saturating_mul(quarter);
                (sizes.max().unwrap_or(0), all.saturating_mul(2).saturating_add(all.max(sums)))
            }
            // recurrences, a few at a time, with what is kept of all, and the blocks of single atoms that they are whitened by
            Elimination::Stochastic => {
                let border = width * p;
                let together = probes_together(border);
                let of_atom = width.div_ceil(self.n_atoms.max(1));
                let blocks = self.n_atoms * square(of_atom * of_atom.min(p));
                let sums = accumulators(self.n_rows, self.chunk_rows(), 8 * border * together) * border * together;
                let borders = (together * (KRYLOV + PRODUCTS) + PROBES * DIRECTIONS) * border;
                // what the rows of the chunks in hand see of one of them, and sum up of all for their variables
                let variables = coupled.div_ceil(self.n_rows.max(1));
                let seen = 2 * self.chunk_rows().min(self.n_rows) * p * (1 + variables);
                (border, borders + 3 * blocks + sums + seen)
            }
            Elimination::Dual => {
                let across = coupled.saturating_mul(width * width.min(p));
                (coupled, square(coupled).saturating_mul(5).saturating_add(across.saturating_mul(2)))
            }
        };
        let (size, entries) = dense(elimination);
        if self.forced.is_none() && size > EXACT_TO {
            let (size, entries) = dense(Elimination::Stochastic);
            return (Elimination::Stochastic, size, entries);
        }
        (elimination, size, entries)
    }

    /// Entries of linearised rows that are kept between passes.
    fn tapes(&self) -> usize {
        let n = self.n_rows.max(1);
        let coupled = self.coupled_logits + self.active_coords;
        let basis = self.active_basis + self.active_basis * self.active_coords / self.active_atoms.max(1);
        let gates = self.active_atoms + self.active_atoms * self.coupled_logits / n;
        let blocks = 2 * coupled.saturating_mul(coupled) / n;
        let stacked = match held_whole(n, self.width(), self.active_basis) {
            true => n * self.width(),
            false => self.active_basis + 2 * self.active_atoms,
        };
        // the stacked basis row, its parts, gates, blocks, Jacobians, the residual in the frame, and where they lie
        stacked + n * (self.rank() + 4) + basis + gates + blocks + coupled * self.rank()
    }

    /// Logits that are variables, and entries of the rows' logits and points, which a state has.
    fn of_rows(&self) -> (usize, usize) {
        if self.compact {
            let points = (self.active_atoms * self.ambient).div_ceil(self.n_atoms.max(1));
            return (self.coupled_logits, self.active_atoms + points);
        }
        (self.n_rows * self.free_logits, self.n_rows * (self.n_atoms + self.ambient))
    }

    /// Entries that a fit holds while it moves, however rows are treated.
    fn working(&self) -> usize {
        let n = self.n_rows;
        let coupled = self.coupled_logits + self.active_coords;
        let (logits, rows) = self.of_rows();
        let border = self.width() * self.n_outputs;
        // where rows and their blocks begin, their atoms, and where the points of these lie
        let layout = 2 * n + self.active_atoms * (1 + usize::from(self.compact));
        let factors = coupled.saturating_mul(coupled) / n.max(1);
        // G, and what its rows sum up at once
        let gram = about_entries(self.n_rows, self.n_atoms, self.width(), self.active_atoms, self.group_widths.len());
        let sums = gram + accumulators(n, self.chunk_rows(), bytes_with_gram(border, gram)) * (border + gram);
        // residuals and products of the chunks that threads work on
        let chunks = CHUNK_BUFFERS * n.min(2 * self.chunk_rows()) * self.n_outputs;
        chunks
            + self.copies * n * self.n_outputs
            + STATES * (rows + border)
            + 2 * layout
            + VECTORS * (logits + self.active_coords + border)
            + logits
            + n
            + factors
            + sums
    }

    /// Entries of the motions of orbits, solved.
    fn motions(&self) -> usize {
        // each of an atom's motions, as many as those of a sphere of its dimension, with what it is solved to: places and values over
        // the rows, and the decoders that share its group; an estimate needs none
        let of_atom = self.width().div_ceil(self.n_atoms.max(1)).max(1);
        let dim = self.active_coords.div_ceil(self.active_atoms.max(1));
        let of_rows = 4 * self.active_coords * (dim * (dim + 1) / 2);
        let decoders = self.group_widths.iter().map(|w| w / of_atom * w).sum::<usize>() * self.n_outputs;
        match self.elimination().0 {
            Elimination::Stochastic => 0,
            _ => of_rows + decoders,
        }
    }

    /// Entries of gates, logits and coordinates with their supports, and of what pictures need, as tables over all atoms: made
    /// when a fit has ended.
    fn results(&self) -> usize {
        self.n_rows * (2 * self.n_atoms + self.ambient + self.n_atoms / 4 + 3 * self.n_atoms)
    }

    /// Plans a fit: rows are kept while that stays within a budget of bytes.
    pub fn plan(&self, budget: Option<usize>) -> Plan {
        let (elimination, dense_size, dense) = self.elimination();
        let (working, motions, results) = (self.working(), self.motions(), self.results());
        let with = |beside: usize| working.saturating_add(motions.saturating_add(beside).max(results));
        let least = with(dense);
        let kept = with(dense.saturating_add(self.tapes()));
        let keeps_rows = budget.is_none_or(|budget| kept.saturating_mul(8) <= budget);
        let entries = if keeps_rows { kept } else { least };
        Plan { elimination, dense_size, keeps_rows, chunk_rows: self.chunk_rows(), bytes: entries.saturating_mul(8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_hot(n: usize, k: usize) -> Shape {
        Shape {
            n_rows: n,
            n_outputs: 64,
            n_atoms: k,
            free_logits: k - 1,
            ambient: k,
            active_atoms: n,
            active_coords: n,
            active_basis: 7 * n,
            coupled_logits: 0,
            compact: false,
            group_widths: vec![7; k],
            copies: 1,
            forced: None,
        }
    }

    #[test]
    fn rows_are_kept_while_the_budget_allows() {
        // with many harmonics more is kept of rows than is returned of them
        let shape = Shape { active_basis: 2_100_000, group_widths: vec![21; 8], ..one_hot(100_000, 8) };
        let free = shape.plan(None);
        assert!(free.keeps_rows);
        let tight = shape.plan(Some(free.bytes - 1));
        assert!(!tight.keeps_rows && tight.bytes < free.bytes);
        assert_eq!(shape.plan(Some(free.bytes)), free);
    }

    #[test]
    fn memory_grows_with_the_rows_and_not_with_what_they_do_not_use() {
        let bytes = |n, k| one_hot(n, k).plan(None).bytes as f64;
        assert!((bytes(2_000_000, 8) / bytes(1_000_000, 8) - 2.0).abs() < 0.01);
        let together = Shape { group_widths: vec![56], ..one_hot(1000, 8) };
        assert!(together.plan(None).bytes > one_hot(1000, 8).plan(None).bytes);
    }

    #[test]
    fn a_row_costs_what_it_uses_and_not_what_the_dictionary_has() {
        // four circles of 1,024 a row, in so many rows that any two have met
        let rows = |n: usize, compact| Shape {
            compact,
            free_logits: 1024,
            active_atoms: 4 * n,
            active_coords: 4 * n,
            active_basis: 4 * 7 * n,
            coupled_logits: 4 * n,
            group_widths: vec![7 * 1024],
            ..one_hot(n, 1024)
        };
        let a_row = |compact| {
            let entries = |n| rows(n, compact).working() - n * 64;
            (entries(400_000) - entries(200_000)) / 200_000
        };
        assert!(a_row(true) < 300 && a_row(false) > 20 * 1024, "{} {}", a_row(true), a_row(false));
    }

    #[test]
    fn borders_too_large_to_form_are_estimated_unless_told_otherwise() {
        let tied = |k: usize| Shape {
            coupled_logits: 20_000,
            active_coords: 20_000,
            group_widths: vec![7 * k],
            ..one_hot(4000, k)
        };
        assert_eq!(tied(8).plan(None).elimination, Elimination::Complement);
        let large = tied(64).plan(None);
        assert_eq!((large.elimination, large.dense_size), (Elimination::Stochastic, 64 * 7 * 64));
        let forced = Shape { forced: Some(Elimination::Complement), ..tied(64) }.plan(None);
        assert!(forced.elimination == Elimination::Complement && forced.bytes > 5 * large.bytes);
    }
}
