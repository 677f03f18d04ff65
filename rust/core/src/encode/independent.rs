//! Rows whose gates do not depend on each other: atoms are added while they explain more than they cost, and dropped when
//! they no longer do.

use super::{Encoder, COORDINATE_PRICE, MAX_MIXED};
use crate::linalg::{dot, small_cholesky, small_forward, small_inverse};
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

    /// Adds atoms, best first, while they earn their price: at first as many at once as promise that, then each on its own.
    fn grown(&self, target: &Target, mut row: RowState) -> RowState {
        let mut at_once = usize::MAX;
        loop {
            let Some((richer, added)) = self.with_more(target, &row, at_once) else { return row };
            if self.score(target, &richer) < self.score(target, &row) {
                row = richer;
            } else if added > 1 {
                at_once = 1;
            } else {
                return row;
            }
        }
    }

    /// Drops atoms that cost more than they explain.
    fn pruned(&self, target: &Target, mut row: RowState) -> RowState {
        /// Nats by which the floor of a row may be off: its ridge hides what no bounded gate could reach.
        const MARGIN: f64 = 1.0;
        loop {
            let score = self.score(target, &row);
            let floors = self.floors_without(target, &row);
            let droppable = row.support.iter().zip(floors).filter(|(&k, floor)| {
                let hopeless = *floor > score + MARGIN;
                !self.rows.gate.always_on(k as usize) && !hopeless
            });
            let candidates = droppable.map(|(&k, _)| self.kept(target, self.without(target, row.clone(), &[k])));
            let scored = candidates.map(|c| (self.score(target, &c), c));
            match scored.min_by(|a, b| a.0.total_cmp(&b.0)) {
                Some((better, candidate)) if better < score => row = candidate,
                _ => return row,
            }
        }
    }

    /// For every atom of a row's support, what no row falls below that uses the others only.
    ///
    /// Whatever their gates and coordinates, the atoms that are left lie in the span of their decoders. With G the support's
    /// block of Q, b its part of Bz and `c = G^-1 b`, the squared length of the data outside of all spans is `|z|^2 - b'c`,
    /// and dropping atom k adds `c_k' ([G^-1]_kk)^-1 c_k`. Gates' priors are least where gates are closed.
    fn floors_without(&self, target: &Target, row: &RowState) -> Vec<f64> {
        /// Of the largest squared length of a decoder's row.
        const RIDGE: f64 = 1e-9;
        if !self.rows.scores.is_empty() || row.support.len() < 2 {
            // the price of a column's mass may be negative
            return vec![f64::NEG_INFINITY; row.support.len()];
        }
        let own = |k: u32| self.rows.offsets[k as usize]..self.rows.offsets[k as usize + 1];
        let columns: Vec<usize> = row.support.iter().flat_map(|&k| own(k)).collect();
        let m = columns.len();
        let mut gram: Vec<f64> =
            columns.iter().flat_map(|&a| columns.iter().map(move |&b| self.rows.gram[[a, b]])).collect();
        let largest = (0..m).map(|u| gram[u * (m + 1)]).fold(f64::MIN_POSITIVE, f64::max);
        (0..m).for_each(|u| gram[u * (m + 1)] += RIDGE * largest);
        if !small_cholesky(&mut gram, m) {
            return vec![f64::NEG_INFINITY; row.support.len()];
        }
        let inverse = small_inverse(&gram, m);
        let against: Vec<f64> = columns.iter().map(|&a| target.against[a]).collect();
        let solved: Vec<f64> = inverse.chunks_exact(m).map(|line| dot(line, &against)).collect();
        let outside = target.length - dot(&against, &solved);
        let half = 0.5 * target.weight * self.rows.inverse_dispersion;
        let least_of_logit = |k: usize| self.rows.closed[k].min(self.rows.logit_energy(k, self.rows.rest[k]));
        let closed: f64 = (0..self.rows.n_free()).map(least_of_logit).sum();
        let least = |k: u32| self.grids[k as usize].energies.iter().copied().fold(0.0f64, f64::min);
        let priors = closed + row.support.iter().map(|&k| least(k)).sum::<f64>();
        let mut from = 0;
        let of_atom = |&k: &u32| {
            let width = own(k).len();
            let mut block: Vec<f64> =
                (0..width).flat_map(|u| inverse[(from + u) * m + from..][..width].iter().copied()).collect();
            let mut along = solved[from..from + width].to_vec();
            from += width;
            if !small_cholesky(&mut block, width) {
                return f64::NEG_INFINITY;
            }
            small_forward(&block, width, &mut along, 1);
            half * (outside + dot(&along, &along)) + priors
        };
        row.support.iter().map(of_atom).collect()
    }

    /// The row with up to so many more atoms, polished, and their number; `None` when none promises what a coordinate costs.
    fn with_more(&self, target: &Target, row: &RowState, most: usize) -> Option<(RowState, usize)> {
        let mut next = row.clone();
        let mut added = 0;
        while added < most && self.add_best(target, &mut next) {
            added += 1;
        }
        (added > 0).then(|| (self.kept(target, next), added))
    }

    /// Adds the atom, gate and grid point that lower a row's data term most; whether one promises what a coordinate costs.
    ///
    /// Adding `a gamma` changes the data term by `-a <gamma, residual> + a^2 |gamma|^2 / 2` (over phi), smallest at a in closed
    /// form.
    fn add_best(&self, target: &Target, row: &mut RowState) -> bool {
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
        let Some((_, k, g, value)) = best.filter(|(gain, ..)| *gain >= COORDINATE_PRICE) else { return false };
        row.coords[self.rows.coord_offsets[k]..self.rows.coord_offsets[k + 1]]
            .copy_from_slice(self.grids[k].points.row(g).as_slice().expect("standard layout"));
        row.logits[k] = self.logit_inside(k, value);
        row.support.push(k as u32);
        row.support.sort_unstable();
        true
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atoms::{Atom, Circle};
    use crate::gates::{SigmoidNodes, ThresholdGate};
    use crate::rho::SaeManifoldRho;
    use ndarray::{Array1, Array2};
    use proptest::prelude::*;
    use std::f64::consts::TAU;
    use std::sync::Arc;

    const GATE: f64 = 0.8;

    /// Circles with a threshold gate and a noise of 0.05; decoders stacked, three rows an atom.
    fn encoder(decoders: Array2<f64>) -> Encoder {
        let n_atoms = decoders.nrows() / 3;
        let nodes = SigmoidNodes::new(&[-1.0, 1.0], &[0.5, 0.5], 0.0, 1.0).unwrap();
        let gate = Arc::new(ThresholdGate::new(0.0, 1.0, 0.04, &[], nodes).unwrap());
        let atoms = (0..n_atoms).map(|_| Arc::new(Circle::new(1).unwrap()) as Arc<dyn Atom>).collect();
        let rho = SaeManifoldRho::with_per_atom_smooth(0.0, vec![0.0; n_atoms], 2.0 * 0.05f64.ln());
        Encoder::new(atoms, gate, rho, Vec::new(), decoders).unwrap()
    }

    /// A point of every circle at a common gate.
    fn mixed(decoders: &Array2<f64>, angles: &[f64]) -> Array1<f64> {
        let mut z = Array1::zeros(decoders.ncols());
        for (k, t) in angles.iter().enumerate() {
            for (row, value) in [1.0, t.cos(), t.sin()].into_iter().enumerate() {
                z.scaled_add(GATE * value, &decoders.row(3 * k + row));
            }
        }
        z
    }

    #[test]
    fn a_row_may_use_many_atoms() {
        let n_atoms = 12;
        let decoders = Array2::from_shape_fn((3 * n_atoms, 2 * n_atoms), |(row, c)| {
            let (k, of_atom) = (row / 3, row % 3);
            f64::from(u8::from(of_atom > 0 && c == 2 * k + of_atom - 1))
        });
        let angles: Vec<f64> = (0..n_atoms).map(|k| 2.4 * k as f64 % TAU).collect();
        let encoder = encoder(decoders.clone());
        let found = encoder.best_independent(&encoder.rows.target(mixed(&decoders, &angles).view(), 1.0), None);
        assert_eq!(found.support, (0..n_atoms as u32).collect::<Vec<_>>());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn no_row_without_an_atom_falls_below_its_floor(
            entries in prop::collection::vec(-1.0f64..1.0, 4 * 3 * 14),
            angles in prop::collection::vec(0.0..TAU, 4),
            starts in prop::collection::vec(0.0..TAU, 3 * 4),
        ) {
            let decoders = Array2::from_shape_vec((12, 14), entries).unwrap();
            let encoder = encoder(decoders.clone());
            let target = encoder.rows.target(mixed(&decoders, &angles).view(), 1.0);
            let all = encoder.kept(&target, encoder.full(&target));
            let floors = encoder.floors_without(&target, &all);
            prop_assert_eq!(floors.len(), all.support.len());
            for (&k, floor) in all.support.iter().zip(floors) {
                for start in starts.chunks_exact(4) {
                    let mut row = all.clone();
                    row.coords.iter_mut().zip(start).for_each(|(t, start)| *t = *start);
                    let without = encoder.without(&target, row, &[k]);
                    prop_assert!(without.objective >= floor - 1e-6 * floor.abs(), "{} {floor}", without.objective);
                }
            }
        }
    }
}
