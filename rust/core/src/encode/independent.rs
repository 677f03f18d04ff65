//! Rows whose gates do not depend on each other: atoms are added while they explain more than they cost, and dropped when
//! they no longer do.

use super::{Encoder, COORDINATE_PRICE, MAX_MIXED};
use crate::linalg::dot;
use crate::row::{RowState, Target};
use crate::state::SUPPORT_CUTOFF;

impl Encoder {
    /// The best candidate of one row: the state it is in, what grows from nothing, and what is left of everything.
    pub(super) fn best_independent(&self, target: &Target, current: Option<RowState>) -> RowState {
        let mut found = None;
        if self.rows.n_free() == 0 {
            // gates are given: only coordinates can be somewhere else
            let row = self.rows.polish(target, current.unwrap_or_else(|| self.empty()), false);
            let again = self.placed_again(target, row.clone());
            self.consider(target, &mut found, row);
            self.consider(target, &mut found, again);
            return found.expect("at least one candidate").row;
        }
        if let Some(row) = current {
            let kept = self.pruned(target, self.kept(target, row));
            self.consider(target, &mut found, self.grown(target, kept));
        }
        let grown = self.grown(target, self.kept(target, self.empty()));
        self.consider(target, &mut found, self.pruned(target, grown));
        if self.rows.atoms.len() <= MAX_MIXED {
            // atoms that explain a row only together are not found one at a time
            let full = self.pruned(target, self.kept(target, self.full(target)));
            self.consider(target, &mut found, full);
        }
        found.expect("at least one candidate").row
    }

    /// A row with all atoms, each where it best explains what those before it leave.
    fn full(&self, target: &Target) -> RowState {
        let mut row = self.empty();
        for k in (0..self.rows.atoms.len()).filter(|&k| !self.rows.gate.always_on(k)) {
            let left = self.left(target, &row.support, &self.weighted(&row));
            self.point_at(&left, k, &mut row.coords);
            row.logits[k] = self.logit_inside(k, 0.5);
            row.support.push(k as u32);
            row.support.sort_unstable();
        }
        row
    }

    /// The logit of a value within what an open gate can be, kept where logits are finite.
    fn logit_inside(&self, k: usize, value: f64) -> f64 {
        /// Part of the range to its ends.
        const INSIDE: f64 = 0.02;
        let lambda = self.rows.rho.lambda_sparse();
        let (least, most) = self.rows.gate.range(lambda, k);
        let room = INSIDE * (most - least);
        self.rows.gate.logit_of_value(lambda, k, value.clamp(least + room, most - room))
    }

    /// A row with the atoms that every row uses.
    fn empty(&self) -> RowState {
        let always = (0..self.rows.atoms.len() as u32).filter(|&k| self.rows.gate.always_on(k as usize));
        RowState {
            logits: self.rows.rest.clone(),
            coords: self.rows.origins(),
            support: always.collect(),
            objective: f64::INFINITY,
            converged: false,
        }
    }

    /// Polishes a row; gates that are no longer open leave the support.
    fn kept(&self, target: &Target, row: RowState) -> RowState {
        let mut row = self.rows.polish(target, row, false);
        let mut open = Vec::new();
        loop {
            self.rows.gate.significant(&row.logits, &row.support, SUPPORT_CUTOFF, &mut open);
            if open.len() == row.support.len() {
                return row;
            }
            let closed: Vec<u32> = row.support.iter().copied().filter(|k| !open.contains(k)).collect();
            row = self.without(target, row, &closed);
        }
    }

    /// The row with some of its atoms dropped, polished.
    fn without(&self, target: &Target, mut row: RowState, atoms: &[u32]) -> RowState {
        for &k in atoms {
            row.logits[k as usize] = self.rows.rest[k as usize];
        }
        row.support.retain(|k| !atoms.contains(k));
        self.rows.polish(target, row, false)
    }

    /// Adds atoms, best first, while each earns its price.
    fn grown(&self, target: &Target, mut row: RowState) -> RowState {
        for _ in row.support.len()..MAX_MIXED.max(row.support.len()) {
            let Some(richer) = self.with_one_more(target, &row) else { break };
            if self.score(target, &richer) >= self.score(target, &row) {
                break;
            }
            row = richer;
        }
        row
    }

    /// Drops atoms that cost more than they explain.
    fn pruned(&self, target: &Target, mut row: RowState) -> RowState {
        loop {
            let score = self.score(target, &row);
            let droppable = row.support.iter().filter(|&&k| !self.rows.gate.always_on(k as usize));
            let candidates = droppable.map(|&k| self.kept(target, self.without(target, row.clone(), &[k])));
            let scored = candidates.map(|c| (self.score(target, &c), c));
            match scored.min_by(|a, b| a.0.total_cmp(&b.0)) {
                Some((better, candidate)) if better < score => row = candidate,
                _ => return row,
            }
        }
    }

    /// The row with the atom, gate and grid point that lower its data term most, polished; `None` when none promises what a
    /// coordinate costs.
    ///
    /// Adding `a gamma` changes the data term by `-a <gamma, residual> + a^2 |gamma|^2 / 2` (over phi), smallest at a in closed
    /// form.
    fn with_one_more(&self, target: &Target, row: &RowState) -> Option<RowState> {
        let factor = target.weight * self.rows.inverse_dispersion;
        let left = self.left(target, &row.support, &self.weighted(row));
        let lambda = self.rows.rho.lambda_sparse();
        let mut best: Option<(f64, usize, usize, f64)> = None;
        for k in (0..self.rows.atoms.len()).filter(|&k| !row.support.contains(&(k as u32))) {
            let left = &left[self.rows.offsets[k]..self.rows.offsets[k + 1]];
            let (least, most) = self.rows.gate.range(lambda, k);
            let grid = &self.grids[k];
            for g in 0..grid.lengths.len() {
                let along = dot(grid.basis.row(g).as_slice().expect("standard layout"), left);
                let value = (along / grid.lengths[g].max(f64::MIN_POSITIVE)).clamp(least, most);
                let gain = factor * value * (along - 0.5 * value * grid.lengths[g]) - grid.energies[g];
                if best.is_none_or(|b| gain > b.0) {
                    best = Some((gain, k, g, value));
                }
            }
        }
        let (gain, k, g, value) = best?;
        if gain < COORDINATE_PRICE {
            return None;
        }
        let mut next = row.clone();
        next.coords[self.rows.coord_offsets[k]..self.rows.coord_offsets[k + 1]]
            .copy_from_slice(self.grids[k].points.row(g).as_slice().expect("standard layout"));
        next.logits[k] = self.logit_inside(k, value);
        next.support.push(k as u32);
        next.support.sort_unstable();
        Some(self.kept(target, next))
    }

    /// The row with every coordinate where it best explains what the other atoms leave, polished.
    fn placed_again(&self, target: &Target, mut row: RowState) -> RowState {
        for k in row.support.clone() {
            let mut others = row.clone();
            others.support.retain(|&o| o != k);
            let left = self.left(target, &others.support, &self.weighted(&others));
            self.point_at(&left, k as usize, &mut row.coords);
        }
        self.rows.polish(target, row, false)
    }
}
