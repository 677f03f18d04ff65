//! Rows whose gates do not depend on each other: atoms are added while they explain more than they cost, and dropped when
//! they no longer do.

use super::{Encoder, COORDINATE_PRICE, MAX_MIXED};
use crate::linalg::{dot, small_cholesky, small_forward, small_inverse};
use crate::row::{RowState, SupportGram, Target, CONVERGED};
use crate::state::SUPPORT_CUTOFF;

/// Nats^½ that are left to the optimum of a row on its way to a candidate: what it is given or loses next earns or costs many
/// times as much.
const ON_THE_WAY: f64 = 0.1;

/// What a point of an atom's grid promises, and the gate that it does so with.
struct Gain {
    gain: f64,
    atom: usize,
    point: usize,
    value: f64,
}

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
        let mut consider = |row: RowState| self.consider(target, &mut found, self.kept(CONVERGED, target, row));
        if let Some(row) = current {
            let kept = self.pruned(target, self.kept(ON_THE_WAY, target, row));
            consider(self.grown(target, kept));
        }
        let grown = self.grown(target, self.kept(ON_THE_WAY, target, self.empty()));
        consider(self.pruned(target, grown));
        if self.rows.atoms.len() <= MAX_MIXED {
            // atoms that explain a row only together are not found one at a time
            consider(self.pruned(target, self.kept(ON_THE_WAY, target, self.full(target))));
        }
        found.expect("at least one candidate").row
    }

    /// A row with all atoms, each where it best explains what those before it leave.
    fn full(&self, target: &Target) -> RowState {
        let mut row = self.empty();
        for k in (0..self.rows.atoms.len()).filter(|&k| !self.rows.gate.always_on(k)) {
            let fitted = self.rows.fitted(&row);
            self.place(target, (&row.support, &fitted), k, &mut row.coords);
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
            coords: self.rows.origins.clone(),
            support: always.collect(),
            objective: f64::INFINITY,
            converged: false,
        }
    }

    /// Polishes a row to so many nats^½; gates that are no longer open leave the support.
    fn kept(&self, enough: f64, target: &Target, row: RowState) -> RowState {
        let mut row = self.rows.polish_to(enough, target, row, false);
        let mut open = Vec::new();
        loop {
            self.rows.gate.significant(&row.logits, &row.support, SUPPORT_CUTOFF, &mut open);
            if open.len() == row.support.len() {
                return row;
            }
            let closed: Vec<u32> = row.support.iter().copied().filter(|k| !open.contains(k)).collect();
            row = self.rows.polish_to(enough, target, self.without(row, &closed), false);
        }
    }

    /// The row with some of its atoms dropped.
    fn without(&self, mut row: RowState, atoms: &[u32]) -> RowState {
        for &k in atoms {
            row.logits[k as usize] = self.rows.rest[k as usize];
        }
        row.support.retain(|k| !atoms.contains(k));
        row
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

    /// Drops atoms that cost more than they explain: all at once of which each does, where that is better than the best of them
    /// alone, and else that one.
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
            let mut best: Option<(f64, RowState)> = None;
            let mut cheaper = Vec::new();
            for (&k, _) in droppable {
                let candidate = self.kept(ON_THE_WAY, target, self.without(row.clone(), &[k]));
                let own = self.score(target, &candidate);
                if own < score {
                    cheaper.push(k);
                    if best.as_ref().is_none_or(|(least, _)| own < *least) {
                        best = Some((own, candidate));
                    }
                }
            }
            let Some((least, candidate)) = best else { return row };
            if cheaper.len() > 1 {
                let all = self.kept(ON_THE_WAY, target, self.without(row, &cheaper));
                row = if self.score(target, &all) < least { all } else { candidate };
            } else {
                row = candidate;
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
        let SupportGram { starts, mut gram, against } = self.rows.products.gram(target, &row.support);
        let m = against.len();
        let largest = (0..m).map(|u| gram[u * (m + 1)]).fold(f64::MIN_POSITIVE, f64::max);
        (0..m).for_each(|u| gram[u * (m + 1)] += RIDGE * largest);
        if !small_cholesky(&mut gram, m) {
            return vec![f64::NEG_INFINITY; row.support.len()];
        }
        let inverse = small_inverse(&gram, m);
        let solved: Vec<f64> = inverse.chunks_exact(m).map(|line| dot(line, &against)).collect();
        let outside = target.length - dot(&against, &solved);
        let half = 0.5 * target.weight * self.rows.inverse_dispersion;
        let least = |k: u32| self.grids[k as usize].least.min(0.0);
        let priors = self.all_closed + row.support.iter().map(|&k| least(k)).sum::<f64>();
        let of_atom = |place: usize| {
            let (from, width) = (starts[place], starts[place + 1] - starts[place]);
            let mut block: Vec<f64> =
                (0..width).flat_map(|u| inverse[(from + u) * m + from..][..width].iter().copied()).collect();
            let mut along = solved[from..from + width].to_vec();
            if !small_cholesky(&mut block, width) {
                return f64::NEG_INFINITY;
            }
            small_forward(&block, width, &mut along, 1);
            half * (outside + dot(&along, &along)) + priors
        };
        (0..row.support.len()).map(of_atom).collect()
    }

    /// What the priors of all logits cost at least.
    pub(super) fn least_of_logits(&self) -> f64 {
        let least = |k: usize| self.rows.closed[k].min(self.rows.logit_energy(k, self.rows.rest[k]));
        (0..self.rows.n_free()).map(least).sum()
    }

    /// The row with up to so many more atoms, polished, and their number; `None` when none promises what a coordinate costs.
    fn with_more(&self, target: &Target, row: &RowState, most: usize) -> Option<(RowState, usize)> {
        let mut next = row.clone();
        let mut added = 0;
        while added < most && self.add_best(target, &mut next) {
            added += 1;
        }
        (added > 0).then(|| (self.kept(ON_THE_WAY, target, next), added))
    }

    /// Adds the atom, gate and grid point that lower a row's data term most; whether one promises what a coordinate costs.
    ///
    /// Adding `a gamma` changes the data term by `-a <gamma, residual> + a^2 |gamma|^2 / 2` (over phi), smallest at a in closed
    /// form. Grids are scanned in the order of what no point of theirs exceeds, while that is more than the best gain so far.
    fn add_best(&self, target: &Target, row: &mut RowState) -> bool {
        let factor = target.weight * self.rows.inverse_dispersion;
        let fitted = self.rows.fitted(row);
        let residual = self.rows.products.residual(target, &row.support, &fitted);
        let mut waiting = Vec::new();
        self.screen.bounds(&residual, target.length, factor, |k, bound| {
            // a bound that is no number says nothing
            if (bound.is_nan() || bound >= COORDINATE_PRICE) && !row.support.contains(&(k as u32)) {
                waiting.push((bound, k));
            }
        });
        waiting.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut best: Option<Gain> = None;
        for (bound, k) in waiting {
            if best.as_ref().is_some_and(|best| bound < best.gain) {
                continue;
            }
            let left = self.rows.products.left(target, k, (&row.support, &fitted), &residual);
            let found = self.best_of_grid(k, factor, &left);
            // of equal gains that of the first atom counts
            let better = |best: &Gain| found.gain > best.gain || (found.gain == best.gain && k < best.atom);
            if best.as_ref().is_none_or(better) {
                best = Some(found);
            }
        }
        let Some(Gain { atom: k, point, value, .. }) = best.filter(|best| best.gain >= COORDINATE_PRICE) else {
            return false;
        };
        row.coords[self.rows.coord_offsets[k]..self.rows.coord_offsets[k + 1]]
            .copy_from_slice(self.grids[k].points.row(point).as_slice().expect("standard layout"));
        row.logits[k] = self.logit_inside(k, value);
        row.support.push(k as u32);
        row.support.sort_unstable();
        true
    }

    /// The gate and grid point of an atom that lower the data term most, `left` being its decoder against the residual.
    fn best_of_grid(&self, k: usize, factor: f64, left: &[f64]) -> Gain {
        let (least, most) = self.rows.gate.range(self.rows.rho.lambda_sparse(), k);
        let grid = &self.grids[k];
        let mut best: Option<Gain> = None;
        for point in 0..grid.lengths.len() {
            let along = dot(grid.basis.row(point).as_slice().expect("standard layout"), left);
            let value = (along / grid.lengths[point].max(f64::MIN_POSITIVE)).clamp(least, most);
            let gain = factor * value * (along - 0.5 * value * grid.lengths[point]) - grid.energies[point];
            if best.as_ref().is_none_or(|best| gain > best.gain) {
                best = Some(Gain { gain, atom: k, point, value });
            }
        }
        best.expect("a grid has points")
    }

    /// Sets an atom's coordinate to the grid point whose direction best explains what other atoms leave.
    fn place(&self, target: &Target, others: (&[u32], &[f64]), k: usize, coords: &mut [f64]) {
        let residual = self.rows.products.residual(target, others.0, others.1);
        let left = self.rows.products.left(target, k, others, &residual);
        self.point_at(&left, k, coords);
    }

    /// The row with every coordinate where it best explains what the other atoms leave, polished.
    fn placed_again(&self, target: &Target, mut row: RowState) -> RowState {
        for k in row.support.clone() {
            let mut others = row.clone();
            others.support.retain(|&o| o != k);
            let fitted = self.rows.fitted(&others);
            self.place(target, (&others.support, &fitted), k as usize, &mut row.coords);
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

    #[test]
    fn of_two_copies_of_an_atom_one_stays() {
        // each copy costs more than it explains beside the other, and both together do not
        let n_atoms = 6;
        let decoders = Array2::from_shape_fn((3 * n_atoms, 12), |(row, c)| {
            let (k, of_atom) = (row / 3, row % 3);
            f64::from(u8::from(of_atom > 0 && c == 2 * (k / 2) + of_atom - 1))
        });
        let encoder = encoder(decoders.clone());
        let mut z = Array1::zeros(12);
        for (k, t) in [(0, 0.4f64), (2, 2.9)] {
            z.scaled_add(GATE * t.cos(), &decoders.row(3 * k + 1));
            z.scaled_add(GATE * t.sin(), &decoders.row(3 * k + 2));
        }
        let target = encoder.rows.target(z.view(), 1.0);
        let both = RowState { support: vec![0, 1, 2, 3], ..encoder.full(&target) };
        let found = encoder.pruned(&target, encoder.rows.polish(&target, both, false));
        assert_eq!(found.support.len(), 2);
        assert!(found.support[0] < 2 && (2..4).contains(&found.support[1]), "{:?}", found.support);
    }

    /// The best gain of all atoms outside of a row's support by a look at every grid: the atom, the grid point and the gate.
    fn best_of_all(encoder: &Encoder, target: &Target, row: &RowState) -> Option<(usize, usize, f64)> {
        let factor = target.weight * encoder.rows.inverse_dispersion;
        let fitted = encoder.rows.fitted(row);
        let residual = encoder.rows.products.residual(target, &row.support, &fitted);
        let mut best: Option<Gain> = None;
        for k in (0..encoder.rows.atoms.len()).filter(|&k| !row.support.contains(&(k as u32))) {
            let left = encoder.rows.products.left(target, k, (&row.support, &fitted), &residual);
            let found = encoder.best_of_grid(k, factor, &left);
            if best.as_ref().is_none_or(|best| found.gain > best.gain) {
                best = Some(found);
            }
        }
        best.filter(|best| best.gain >= COORDINATE_PRICE).map(|best| (best.atom, best.point, best.value))
    }

    /// Decoders of so many atoms, drawn from a list of numbers over and over.
    fn drawn(n_atoms: usize, p: usize, entries: &[f64]) -> Array2<f64> {
        let mut at = 0;
        Array2::from_shape_simple_fn((3 * n_atoms, p), || {
            // a step prime to the list's length, with a shift a round
            at += 7919;
            entries[(at + at / entries.len()) % entries.len()]
        })
    }

    #[test]
    fn a_wide_dictionary_is_encoded_as_well() {
        let n_atoms = 400;
        let decoders =
            Array2::from_shape_fn((3 * n_atoms, 64), |(m, c)| ((m * m + 1) as f64 * (c + 1) as f64).sin() / 6.0);
        let encoder = encoder(decoders.clone());
        for on in [[3usize, 200], [17, 399]] {
            let mut z = Array1::zeros(64);
            for (at, &k) in on.iter().enumerate() {
                let t = 0.7 + 2.0 * at as f64;
                for (row, value) in [1.0, t.cos(), t.sin()].into_iter().enumerate() {
                    z.scaled_add(GATE * value, &decoders.row(3 * k + row));
                }
            }
            let found = encoder.best_independent(&encoder.rows.target(z.view(), 1.0), None);
            assert_eq!(found.support, on.map(|k| k as u32));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn no_point_of_a_grid_gains_more_than_its_bound(
            entries in prop::collection::vec(-1.0f64..1.0, 211),
            size in -3.0f64..1.0,
            flat in 0.0f64..1.0,
            data in prop::collection::vec(-1.0f64..1.0, 14),
            length in -3.0f64..2.0,
            weight in 0.0f64..3.0,
            angle in 0.0..TAU,
            wide in proptest::bool::ANY,
        ) {
            let n_atoms = if wide { 350 } else { 5 };
            let mut decoders = drawn(n_atoms, 14, &entries) * 10f64.powf(size);
            // some atoms have directions with little in them
            decoders.rows_mut().into_iter().skip(2).step_by(6).for_each(|mut row| row *= flat.powi(9));
            let encoder = encoder(decoders);
            let z = Array1::from(data) * 10f64.powf(length);
            let target = encoder.rows.target(z.view(), weight);
            let mut row = encoder.empty();
            for _ in 0..3 {
                let factor = target.weight * encoder.rows.inverse_dispersion;
                let fitted = encoder.rows.fitted(&row);
                let residual = encoder.rows.products.residual(&target, &row.support, &fitted);
                let mut bounds = vec![0.0; n_atoms];
                encoder.screen.bounds(&residual, target.length, factor, |k, bound| bounds[k] = bound);
                for (k, bound) in bounds.into_iter().enumerate() {
                    let left = encoder.rows.products.left(&target, k, (&row.support, &fitted), &residual);
                    let gain = encoder.best_of_grid(k, factor, &left).gain;
                    prop_assert!(gain <= bound, "{k}: {gain} {bound}");
                }
                // what is added is what a look at everything would add
                let expected = best_of_all(&encoder, &target, &row);
                let mut next = row.clone();
                let added = encoder.add_best(&target, &mut next);
                prop_assert_eq!(added, expected.is_some());
                if let Some((k, point, value)) = expected {
                    prop_assert!(next.support.contains(&(k as u32)) && next.support.len() == row.support.len() + 1);
                    prop_assert_eq!(next.coords[k], encoder.grids[k].points[[point, 0]]);
                    prop_assert_eq!(next.logits[k], encoder.logit_inside(k, value));
                } else {
                    // any row will do for the next residual
                    next.support.push(0);
                    next.support.sort_unstable();
                    next.support.dedup();
                    next.coords[0] = angle;
                    next.logits[0] = 0.5;
                }
                row = next;
            }
        }

        #[test]
        fn no_row_without_an_atom_falls_below_its_floor(
            entries in prop::collection::vec(-1.0f64..1.0, 4 * 3 * 14),
            angles in prop::collection::vec(0.0..TAU, 4),
            starts in prop::collection::vec(0.0..TAU, 3 * 4),
        ) {
            let decoders = Array2::from_shape_vec((12, 14), entries).unwrap();
            let encoder = encoder(decoders.clone());
            let target = encoder.rows.target(mixed(&decoders, &angles).view(), 1.0);
            let all = encoder.kept(CONVERGED, &target, encoder.full(&target));
            let floors = encoder.floors_without(&target, &all);
            prop_assert_eq!(floors.len(), all.support.len());
            for (&k, floor) in all.support.iter().zip(floors) {
                for start in starts.chunks_exact(4) {
                    let mut row = all.clone();
                    row.coords.iter_mut().zip(start).for_each(|(t, start)| *t = *start);
                    let without = encoder.rows.polish(&target, encoder.without(row, &[k]), false);
                    prop_assert!(without.objective >= floor - 1e-6 * floor.abs(), "{} {floor}", without.objective);
                }
            }
        }
    }
}
