//! Rows whose gates are shares of one whole: an atom alone, then mixtures.
//!
//! Every atom is tried alone, at the point of its curve nearest to the row; then atoms are added while a mixture promises
//! more than a coordinate costs. What cannot be solved in closed form is polished by Newton steps.

use super::nearest::{Scratch, Seen};
use super::{Encoder, Scored, COORDINATE_PRICE, MAX_MIXED};
use crate::linalg::dot;
use crate::row::{RowState, Target};
use crate::state::SUPPORT_CUTOFF;
use std::cmp::Ordering;

/// Atoms that explain a row better alone than one does with others: with so many, that one is not tried.
const NEARER: usize = 3;

/// A row that uses one atom: its logits at their prior's optimum.
#[derive(Debug)]
pub(super) struct Alone {
    logits: Vec<f64>,
    /// What these logits imply.
    pub(super) support: Vec<u32>,
    /// Energy of the logits' priors.
    energy: f64,
    /// What the logits cost beside it.
    charge: f64,
}

/// A row with a share of one more atom, at a point of that one's grid.
struct Mixture {
    /// What the data term falls by, in nats.
    gain: f64,
    atom: usize,
    point: usize,
    share: f64,
}

impl Encoder {
    /// Logits of a row whose data do not see them, from a start that favours atom k.
    pub(super) fn settle_alone(&self, k: usize) -> Alone {
        /// Logit lead of the favoured atom at the start: past the entropy's hump, where its pull is towards one atom.
        const LEAD: f64 = 6.0;
        let n = self.rows.atoms.len();
        let free = self.rows.n_free();
        let mut logits = vec![0.0; n];
        if k < free {
            logits[k] = LEAD;
        } else {
            logits[..free].fill(-LEAD);
        }
        let target = self.rows.products.nothing();
        let start = RowState {
            logits,
            coords: self.rows.origins.clone(),
            support: vec![k as u32],
            objective: f64::INFINITY,
            converged: false,
        };
        let settled = self.rows.polish(&target, start, true);
        let mut support = Vec::new();
        self.rows.gate.significant(&settled.logits, &settled.support, SUPPORT_CUTOFF, &mut support);
        if !support.contains(&(k as u32)) {
            support.truncate(self.rows.gate.cap() - 1);
            support.push(k as u32);
            support.sort_unstable();
        }
        // a row of weight zero has no data term: what is left beside the coordinate's prior is the logits'
        let own = &settled.coords[self.rows.coord_offsets[k]..self.rows.coord_offsets[k + 1]];
        let energy = settled.objective - self.rows.coordinate_energy(k, own);
        let charge = self.rows.idle_logits_charge(&settled.logits);
        Alone { logits: settled.logits, support, energy, charge }
    }

    /// The best candidate of one row.
    pub(super) fn best_shares(&self, target: &Target, current: Option<RowState>, scratch: &mut Scratch) -> RowState {
        let n = self.rows.atoms.len();
        let mut coords = vec![0.0; self.rows.coord_offsets[n]];
        let factor = target.weight * self.rows.inverse_dispersion;
        let seen = |k: usize| {
            let against = &target.against[self.rows.offsets[k]..self.rows.offsets[k + 1]];
            Seen { against, length: target.length, factor }
        };
        // atoms in the order of what they cannot fall below
        let mut waiting: Vec<(f64, usize)> = Vec::with_capacity(n);
        for k in 0..n {
            let (first, floor) = self.grids[k].glance(seen(k), scratch);
            coords[self.rows.coord_offsets[k]..self.rows.coord_offsets[k + 1]]
                .copy_from_slice(self.grids[k].points.row(first).as_slice().expect("standard layout"));
            waiting.push((floor, k));
        }
        waiting.sort_by(|a, b| a.0.total_cmp(&b.0));

        let mut found: Option<Scored> = None;
        let constant = 0.5 * factor * target.length;
        let (mut singles, mut least) = (Vec::with_capacity(n), None::<(f64, usize)>);
        for (floor, k) in waiting {
            let alone = &self.alone[k];
            let single = alone.support.len() == 1;
            let price = COORDINATE_PRICE * self.rows.atoms[k].dim() as f64;
            let hopeless = match (single, &found) {
                (true, Some(found)) => floor + alone.energy + alone.charge + constant + price >= found.score,
                (false, _) => least.is_some_and(|(value, _)| floor >= value),
                (true, None) => false,
            };
            if hopeless {
                continue;
            }
            let t = &mut coords[self.rows.coord_offsets[k]..self.rows.coord_offsets[k + 1]];
            let cost = self.grids[k].nearest(&self.rows, k, seen(k), t, scratch);
            if single {
                // the logits feel their prior alone, and the coordinate is at its best: nothing to polish
                let objective = alone.energy + cost + constant;
                singles.push(cost);
                let row = self.used_alone(k, &coords);
                let charge = self.rows.coordinate_charges(target, &row, COORDINATE_PRICE) + alone.charge;
                let row = RowState { objective, converged: objective.is_finite(), ..row };
                self.prefer(&mut found, Scored { score: objective + charge, row });
            } else if least.is_none_or(|(value, _)| cost < value) {
                least = Some((cost, k));
            }
        }
        let score = |found: &Option<Scored>| found.as_ref().map_or(f64::INFINITY, |found| found.score);
        if let Some(row) = current.and_then(|row| self.settled(target, row, score(&found))) {
            // stays unless another is better by more than rounding
            let mut stays = Some(self.scored(target, row));
            if let Some(other) = found {
                self.prefer(&mut stays, other);
            }
            found = stays;
        }
        // of atoms whose prior leaves others in the row, the nearest, unless some that it leaves alone are nearer
        let near = |cost: f64| singles.iter().filter(|single| **single < cost).count() < NEARER;
        if let Some((_, k)) = least.filter(|(cost, _)| near(*cost)) {
            let row = self.placed(target, self.used_alone(k, &coords), k);
            if let Some(row) = self.settled(target, row, score(&found)) {
                self.consider(target, &mut found, row);
            }
        }
        let mut best = found.unwrap_or_else(|| {
            let (_, k) = least.expect("an atom whose prior leaves others in the row, since none is alone");
            self.scored(target, self.rows.polish(target, self.used_alone(k, &coords), false))
        });
        for _ in best.row.support.len()..MAX_MIXED.min(self.rows.gate.cap()) {
            let Some(richer) = self.richer(target, &best) else { break };
            let before = best.score;
            let mut found = Some(best);
            self.consider(target, &mut found, richer);
            best = found.expect("just put there");
            if best.score >= before {
                break;
            }
        }
        // of single atoms all have been tried
        if self.is_capped() && best.row.support.len() == self.rows.gate.cap().max(2) {
            for _ in 0..n {
                let Some(other) = self.exchanged(target, &best) else { break };
                let before = best.score;
                let mut found = Some(best);
                self.prefer(&mut found, other);
                best = found.expect("just put there");
                // nor where it has no score
                if best.score.partial_cmp(&before) != Some(Ordering::Less) {
                    break;
                }
            }
        }
        best.row
    }

    /// Whether a row may not use all atoms.
    fn is_capped(&self) -> bool {
        self.rows.gate.cap() < self.rows.atoms.len()
    }

    /// A row that uses an atom alone, as far as its prior has it so.
    fn used_alone(&self, k: usize, coords: &[f64]) -> RowState {
        let alone = &self.alone[k];
        RowState {
            logits: alone.logits.clone(),
            coords: coords.to_vec(),
            // those that explain most enter where not all can
            support: if self.is_capped() { vec![k as u32] } else { alone.support.clone() },
            objective: f64::INFINITY,
            converged: false,
        }
    }

    /// Puts every atom of the support but the main one where it best explains what the main one leaves.
    fn placed(&self, target: &Target, mut row: RowState, main: usize) -> RowState {
        let main = main as u32;
        let left = self.left(target, &[main], &self.rows.stacked(&row, &[main]));
        for k in row.support.clone().into_iter().filter(|&k| k != main) {
            self.point_at(self.rows.of_atom(&left, k as usize), k as usize, &mut row.coords);
        }
        row
    }

    /// The row with one more atom, polished from the best mixture with it; `None` when no mixture promises what a
    /// coordinate costs.
    fn richer(&self, target: &Target, best: &Scored) -> Option<RowState> {
        let row = &best.row;
        let mixture = self.best_mixture(target, row, |k| !row.support.contains(&k))?;
        // the gate prior charges for mixing about its entropy
        let share = mixture.share;
        let entropy = -share * share.ln() - (1.0 - share) * (1.0 - share).ln();
        if mixture.gain < COORDINATE_PRICE + self.rows.rho.lambda_sparse() * entropy {
            return None;
        }
        self.settled(target, self.joined(row.clone(), &mixture), best.score)
    }

    /// The row with another atom in the place of one that it uses, the best of such.
    ///
    /// Where a row may use so many atoms only, nothing else leads from a full support to another.
    fn exchanged(&self, target: &Target, best: &Scored) -> Option<Scored> {
        let mut found = None;
        for &out in &best.row.support {
            let mut row = best.row.clone();
            row.support.retain(|&k| k != out);
            let mixture = self.best_mixture(target, &row, |k| !best.row.support.contains(&k));
            let Some(mixture) = mixture.filter(|mixture| mixture.gain > 0.0) else { continue };
            // the prior sees all logits: that of the atom that leaves is where the other's has been
            row.logits[out as usize] = row.logits[mixture.atom];
            if let Some(row) = self.settled(target, self.joined(row, &mixture), best.score) {
                self.consider(target, &mut found, row);
            }
        }
        found
    }

    /// The mixture of a row with one of some atoms, at a point of its grid, that lowers the data term most.
    ///
    /// Moving a part a of the row from its fit to the point gamma changes the data term by
    /// `a <gamma - fit, residual> + a^2 |gamma - fit|^2 / 2` (over phi), smallest at a in closed form.
    fn best_mixture(&self, target: &Target, row: &RowState, among: impl Fn(u32) -> bool) -> Option<Mixture> {
        /// A mixture with less than this of an atom is noise in its plane; with more, the new atom would be the main one.
        const SHARES: (f64, f64) = (0.02, 0.9);
        let factor = target.weight * self.rows.inverse_dispersion;
        let fitted = self.weighted(row);
        let curve = self.rows.products.gram_times(&row.support, &fitted);
        let (fit_length, fit_data) = (dot(&fitted, &curve), dot(&fitted, &target.against));
        let mut most: Option<Mixture> = None;
        for k in (0..self.rows.atoms.len()).filter(|&k| among(k as u32)) {
            let rows = self.rows.offsets[k]..self.rows.offsets[k + 1];
            let grid = &self.grids[k];
            for point in 0..grid.lengths.len() {
                let basis = grid.basis.row(point);
                let basis = basis.as_slice().expect("standard layout");
                let (with_fit, with_data) =
                    (dot(basis, &curve[rows.clone()]), dot(basis, &target.against[rows.clone()]));
                let slope = (with_fit - with_data) - (fit_length - fit_data);
                let bend = grid.lengths[point] - 2.0 * with_fit + fit_length;
                let share = (-slope / bend).clamp(SHARES.0, SHARES.1);
                let gain = -factor * share * (slope + 0.5 * share * bend);
                // a point that is the row's own fit makes no mixture
                if !gain.is_nan() && most.as_ref().is_none_or(|m| gain > m.gain) {
                    most = Some(Mixture { gain, atom: k, point, share });
                }
            }
        }
        most
    }

    /// The row with the new atom of a mixture.
    fn joined(&self, mut row: RowState, &Mixture { atom, point, share, .. }: &Mixture) -> RowState {
        row.coords[self.rows.coord_offsets[atom]..self.rows.coord_offsets[atom + 1]]
            .copy_from_slice(self.grids[atom].points.row(point).as_slice().expect("standard layout"));
        let mut gates = Vec::new();
        self.rows.gate.values(self.rows.rho.lambda_sparse(), (&row.logits).into(), &row.support, &mut gates);
        let (main, gate) =
            row.support.iter().zip(gates).max_by(|a, b| a.1.total_cmp(&b.1)).expect("a row uses an atom");
        // of the new atom and the main one
        let ratio = share / ((1.0 - share) * gate);
        row.logits[atom] = row.logits[*main as usize] + self.rows.gate.logit_of_share(ratio / (1.0 + ratio));
        if self.rows.n_free() < row.logits.len() {
            let pinned = row.logits[self.rows.n_free()];
            row.logits.iter_mut().for_each(|l| *l -= pinned);
        }
        row.support.push(atom as u32);
        row.support.sort_unstable();
        row
    }

    /// What no row of a support scores less than: its data fitted exactly, its logits where a row's prior is least, and its
    /// coordinates at their price.
    fn least_score(&self, support: &[u32]) -> f64 {
        let of_logits = self.alone.iter().map(|alone| alone.energy).fold(self.even, f64::min);
        let of_atom =
            |&k: &u32| self.grids[k as usize].least + COORDINATE_PRICE * self.rows.atoms[k as usize].dim() as f64;
        of_logits + support.iter().map(of_atom).sum::<f64>()
    }

    /// Whether no row of a support scores less than a candidate does, if there is one.
    fn is_hopeless(&self, support: &[u32], ceiling: f64) -> bool {
        ceiling < f64::INFINITY && self.least_score(support) >= ceiling
    }

    /// Polishes a row and makes its support agree with its gates: atoms that come above the cutoff enter, atoms below it
    /// leave if the row stays settled without them. `None` where the support has become so large that its row cannot score
    /// less than `ceiling`: near the least strength a mixture of two lets all others in.
    fn settled(&self, target: &Target, row: RowState, ceiling: f64) -> Option<RowState> {
        if self.is_hopeless(&row.support, ceiling) {
            return None;
        }
        if self.is_capped() {
            return self.settled_within(target, row, ceiling);
        }
        let mut row = self.rows.polish(target, row, false);
        let mut wanted = Vec::new();
        // every round but the last adds an atom
        for _ in 0..=self.rows.atoms.len() {
            self.rows.gate.significant(&row.logits, &row.support, SUPPORT_CUTOFF, &mut wanted);
            let entering: Vec<u32> = wanted.iter().copied().filter(|k| !row.support.contains(k)).collect();
            if entering.is_empty() {
                break;
            }
            let left = self.left(target, &row.support, &self.weighted(&row));
            for &k in &entering {
                self.point_at(self.rows.of_atom(&left, k as usize), k as usize, &mut row.coords);
            }
            row.support.extend(entering);
            row.support.sort_unstable();
            if self.is_hopeless(&row.support, ceiling) {
                return None;
            }
            row = self.rows.polish(target, row, false);
        }
        Some(self.without_closed(target, row))
    }

    /// The same for rows that may not use all atoms: as long as there is room for some of those that the prior would let in,
    /// the one that explains most enters; those that a row uses keep their places. `None` as well where an atom that the
    /// row does not use overshadows those that it does: the prior then sees a row of one atom, whatever these share.
    fn settled_within(&self, target: &Target, mut row: RowState, ceiling: f64) -> Option<RowState> {
        let mut wanted = Vec::new();
        if row.support.len() > self.rows.gate.cap() {
            self.rows.gate.significant(&row.logits, &row.support, SUPPORT_CUTOFF, &mut wanted);
            row.support.clone_from(&wanted);
        }
        row = self.rows.polish(target, row, false);
        while row.support.len() < self.rows.gate.cap() {
            self.rows.gate.significant(&row.logits, &row.support, SUPPORT_CUTOFF, &mut wanted);
            if wanted.iter().all(|k| row.support.contains(k)) {
                break;
            }
            let Some(mixture) = self.best_mixture(target, &row, |k| !row.support.contains(&k)) else { break };
            row = self.joined(row, &mixture);
            if self.is_hopeless(&row.support, ceiling) {
                return None;
            }
            row = self.rows.polish(target, row, false);
        }
        Some(self.without_closed(target, row)).filter(|row| !self.is_overshadowed(row))
    }

    /// Whether an atom that a row does not use has a logit well above those of all that it uses.
    fn is_overshadowed(&self, row: &RowState) -> bool {
        /// Of an atom beside the largest of the support. Where the data hold nothing but differences all logits lie near
        /// zero, and one may be the larger by as much as the prior makes of it.
        const SHADOW: f64 = 0.9;
        let largest = |used: bool| {
            let of_kind = |(k, logit): (usize, &f64)| (row.support.contains(&(k as u32)) == used).then_some(*logit);
            row.logits.iter().enumerate().filter_map(of_kind).fold(f64::NEG_INFINITY, f64::max)
        };
        largest(false) > largest(true) + self.rows.gate.logit_of_share(SHADOW)
    }

    /// The row without atoms below the cutoff, if it stays settled without them.
    fn without_closed(&self, target: &Target, row: RowState) -> RowState {
        let mut wanted = Vec::new();
        self.rows.gate.significant(&row.logits, &row.support, SUPPORT_CUTOFF, &mut wanted);
        if wanted.len() == row.support.len() || wanted.iter().any(|k| !row.support.contains(k)) {
            return row;
        }
        let mut smaller = row.clone();
        smaller.support.clone_from(&wanted);
        let smaller = self.rows.polish(target, smaller, false);
        self.rows.gate.significant(&smaller.logits, &smaller.support, SUPPORT_CUTOFF, &mut wanted);
        match wanted.iter().any(|k| !smaller.support.contains(k)) {
            true => row,
            false => self.without_closed(target, smaller),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atoms::{Atom, Circle};
    use crate::gates::{EntropyNodes, Softmax};
    use crate::rho::SaeManifoldRho;
    use ndarray::{Array1, Array2};
    use proptest::prelude::*;
    use std::f64::consts::TAU;
    use std::sync::Arc;

    const ATOMS: usize = 4;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A row that is polished from anywhere, on whichever support, with data or without.
        #[test]
        fn no_row_scores_less_than_its_support_allows(
            entries in prop::collection::vec(-1.0f64..1.0, 3 * ATOMS * 6),
            data in prop::collection::vec(-1.5f64..1.5, 6),
            logits in prop::collection::vec(-6.0f64..6.0, ATOMS),
            angles in prop::collection::vec(0.0..TAU, ATOMS),
            used in 1usize..(1 << ATOMS),
            ln_lambda in -2.0f64..4.0,
            weight in 0.0f64..2.0,
        ) {
            let nodes = EntropyNodes::new(Array2::zeros((1, ATOMS - 1)).view(), 1.0).unwrap();
            let gate = Arc::new(Softmax::new(1.0, 0.04, None, nodes).unwrap());
            let atoms = (0..ATOMS).map(|_| Arc::new(Circle::new(1).unwrap()) as Arc<dyn Atom>).collect();
            let rho = SaeManifoldRho::with_per_atom_smooth(ln_lambda, vec![0.0; ATOMS], 2.0 * 0.1f64.ln());
            let decoders = Array2::from_shape_vec((3 * ATOMS, 6), entries).unwrap();
            let encoder = Encoder::new(atoms, gate, rho, Vec::new(), decoders).unwrap();
            let target = encoder.rows.target(Array1::from(data).view(), weight);
            let support: Vec<u32> = (0..ATOMS as u32).filter(|k| used >> k & 1 == 1).collect();
            let logits = logits.iter().map(|l| l - logits[ATOMS - 1]).collect();
            let start = RowState { logits, coords: angles, support, objective: f64::INFINITY, converged: false };
            let row = encoder.rows.polish(&target, start, false);
            prop_assert!(encoder.score(&target, &row) >= encoder.least_score(&row.support) - 1e-9);
        }
    }
}
