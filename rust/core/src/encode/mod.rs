//! Encoding rows with frozen decoders: each row on its own, deterministic, in parallel.
//!
//! Candidates are made differently where gates share a row between them (`shares`) and where they are independent
//! (`independent`); what they are compared by is the same.

mod encoding;
mod independent;
mod nearest;
mod refresh;
mod screen;
mod shares;

pub use encoding::Encoding;
pub use refresh::{refresh, sparsity_floor};

use crate::atoms::Atom;
use crate::errors::ShapeError;
use crate::gates::{Gate, GatePrior};
use crate::linalg::dot;
use crate::rho::SaeManifoldRho;
use crate::row::{RowSolver, RowState, Target};
use crate::state::SUPPORT_CUTOFF;
use ndarray::{s, Array2, ArrayView1, ArrayView2, CowArray, Ix2};
use nearest::{Grid, Scratch};
use rayon::prelude::*;
use screen::Screen;
use shares::Alone;
use std::ops::Range;
use std::sync::Arc;

/// Atoms that shares of a row are given to, one at a time; and with no more than these all at once are tried where gates are
/// independent.
const MAX_MIXED: usize = 8;
/// A candidate replaces the state a row is in when its objective is lower by this part: below it is rounding.
const BETTER: f64 = 1e-9;

/// What a supported coordinate must earn in nats beside its energy, even where the evidence would charge less. A gate near zero lets its coordinate turn to whatever noise the row
/// has in the atom's plane, for a gain below this that the marginal likelihood, which averages over the coordinate, does
/// not see; a coordinate that the data do identify earns many times as much.
const COORDINATE_PRICE: f64 = 1.0;

/// A candidate with what it is compared by.
struct Scored {
    score: f64,
    row: RowState,
}

/// Whether gates of marked atoms are closed at the logits where those of closed ones rest.
fn stay_closed(gate: &dyn Gate, rest: &[f64], marked: &[bool]) -> bool {
    let all: Vec<u32> = (0..marked.len() as u32).collect();
    let mut open = Vec::new();
    gate.significant(rest, &all, SUPPORT_CUTOFF, &mut open);
    !open.iter().any(|&k| marked[k as usize] && !gate.always_on(k as usize))
}

/// Frozen decoders and strengths.
#[derive(Debug)]
pub struct Encoder {
    rows: RowSolver,
    grids: Vec<Grid>,
    /// Independent gates: which atoms a residual may have something of, and what the priors of all logits cost at least.
    screen: Screen,
    all_closed: f64,
    /// Shares: per atom, a row that uses it alone.
    alone: Vec<Alone>,
    /// Shares: energy of the prior of a row whose logits are all zero.
    even: f64,
}

impl Encoder {
    /// `decoders` stacked M x p; `scores` are the prices of the columns' masses, empty where the gate has none.
    pub fn new(
        atoms: Vec<Arc<dyn Atom>>,
        gate: Arc<dyn Gate>,
        rho: SaeManifoldRho,
        scores: Vec<f64>,
        decoders: Array2<f64>,
    ) -> Result<Self, ShapeError> {
        let rows = RowSolver::new(atoms, gate, rho, scores, decoders)?;
        let grids: Vec<Grid> = (0..rows.atoms.len()).map(|k| Grid::new(&rows, k)).collect();
        let screen = if rows.gate.shares() { Screen::default() } else { Screen::new(&rows, &grids) };
        let mut out = Self { rows, grids, screen, all_closed: 0.0, alone: Vec::new(), even: 0.0 };
        if !out.rows.gate.shares() {
            out.all_closed = out.least_of_logits();
        } else {
            let mut even = GatePrior::default();
            out.rows.gate.prior((&vec![0.0; out.rows.atoms.len()]).into(), &mut even);
            out.even = out.rows.rho.lambda_sparse() * even.energy;
            out.alone = (0..out.rows.atoms.len()).map(|k| out.settle_alone(k)).collect();
        }
        Ok(out)
    }

    /// Whether rows that leave atoms out stay as they are, for the marked atoms: those used alone, or those closed.
    fn stays_sparse(&self, marked: &[bool]) -> bool {
        if self.rows.gate.shares() {
            return self.alone.iter().zip(marked).all(|(row, used)| !used || row.support.len() == 1);
        }
        stay_closed(&*self.rows.gate, &self.rows.rest, marked)
    }

    /// Encodes rows (m x p) after subtracting `mean` (p). `None` when interrupted.
    pub fn encode(
        &self,
        rows: ArrayView2<'_, f64>,
        mean: ArrayView1<'_, f64>,
        interrupted: &dyn Fn() -> bool,
    ) -> Option<Encoding> {
        let of = |range: Range<usize>| rows.slice_move(s![range, ..]).into();
        self.encode_from(rows.nrows(), of, mean, |_| None, |_| 1.0, interrupted)
    }

    /// Encodes m rows, given a range at a time, with the state each is in as one more candidate. `None` when interrupted.
    fn encode_from<'a>(
        &self,
        m: usize,
        rows: impl Fn(Range<usize>) -> CowArray<'a, f64, Ix2>,
        mean: ArrayView1<'_, f64>,
        current: impl Fn(usize) -> Option<RowState> + Sync,
        weight: impl Fn(usize) -> f64 + Sync,
        interrupted: &dyn Fn() -> bool,
    ) -> Option<Encoding> {
        /// Rows between two looks at the interrupt flag.
        const BATCH: usize = 256;
        let mut out = Encoding::new(self.is_whole());
        for start in (0..m).step_by(BATCH) {
            if interrupted() {
                return None;
            }
            let end = (start + BATCH).min(m);
            let data = rows(start..end);
            let encoded: Vec<Encoding> = (start..end)
                .into_par_iter()
                .map_init(Scratch::default, |scratch, i| {
                    let target = self.rows.target((&data.row(i - start) - &mean).view(), weight(i));
                    self.encoding_of(match self.rows.gate.shares() {
                        true => self.best_shares(&target, current(i), scratch),
                        false => self.best_independent(&target, current(i)),
                    })
                })
                .collect();
            encoded.into_iter().for_each(|row| out.append(row));
        }
        Some(out)
    }

    /// Whether an encoding has all logits and points of its rows, and not those of their supports only.
    fn is_whole(&self) -> bool {
        !self.rows.gate.closes(self.rows.atoms.len())
    }

    /// What an encoding has of one row.
    fn encoding_of(&self, row: RowState) -> Encoding {
        let mut out = Encoding::new(self.is_whole());
        let lambda = self.rows.rho.lambda_sparse();
        self.rows.gate.values(lambda, (&row.logits).into(), &row.support, &mut out.gates);
        let part = if out.whole { None } else { Some(self.rows.part(&row, &row.support)) };
        (out.logits, out.points) = part.unwrap_or((row.logits, row.coords));
        out.supports.push(row.support);
        out.objective.push(row.objective);
        out.converged.push(row.converged);
        out
    }

    /// What candidates are compared by: the row's share of V, each of its coordinates at its price.
    fn score(&self, target: &Target, row: &RowState) -> f64 {
        row.objective + self.rows.charges(target, row, COORDINATE_PRICE)
    }

    fn scored(&self, target: &Target, row: RowState) -> Scored {
        Scored { score: self.score(target, &row), row }
    }

    fn consider(&self, target: &Target, found: &mut Option<Scored>, candidate: RowState) {
        self.prefer(found, self.scored(target, candidate));
    }

    /// Keeps a candidate that is better by more than rounding.
    fn prefer(&self, found: &mut Option<Scored>, candidate: Scored) {
        let margin = |f: &Scored| BETTER * (1.0 + f.row.objective.abs());
        if found.as_ref().is_none_or(|f| candidate.score < f.score - margin(f)) {
            *found = Some(candidate);
        }
    }

    /// Sets atom k's coordinate to the grid point whose direction best explains what is left, of which `against` is what its decoder
    /// sees.
    fn point_at(&self, against: &[f64], k: usize, coords: &mut [f64]) {
        let grid = &self.grids[k];
        let gain = |g: usize| dot(grid.basis.row(g).as_slice().expect("standard layout"), against);
        let best = (0..grid.lengths.len()).max_by(|&a, &b| gain(a).total_cmp(&gain(b))).expect("a grid has points");
        coords[self.rows.coord_offsets[k]..self.rows.coord_offsets[k + 1]]
            .copy_from_slice(grid.points.row(best).as_slice().expect("standard layout"));
    }

    /// All decoders against what `fitted`, a stacked basis row that is zero off a support, leaves of the data.
    fn left(&self, target: &Target, support: &[u32], fitted: &[f64]) -> Vec<f64> {
        let explained = self.rows.products.gram_times(support, fitted);
        target.against.iter().zip(&explained).map(|(data, fit)| data - fit).collect()
    }

    /// The row's reconstruction as a stacked basis row.
    fn weighted(&self, row: &RowState) -> Vec<f64> {
        let mut a = Vec::new();
        self.rows.gate.values(self.rows.rho.lambda_sparse(), (&row.logits).into(), &row.support, &mut a);
        let mut out = self.rows.stacked(row, &row.support);
        for (&k, a) in row.support.iter().zip(&a) {
            out[self.rows.offsets[k as usize]..self.rows.offsets[k as usize + 1]].iter_mut().for_each(|v| *v *= a);
        }
        out
    }
}
