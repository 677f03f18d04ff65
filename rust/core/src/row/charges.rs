//! What a row's variables cost in the evidence beside their energy: the determinant of the row's own block of H, with the
//! terms that stand in for a Gaussian where there is none.

use super::products::{SupportGram, Target};
use super::solver::{RowSolver, RowState};
use crate::atoms::{hold, walls, BasisJet};
use crate::gates::{GatePrior, GateRow};
use crate::linalg::{dot, small_cholesky, small_forward};
use crate::priors::{coordinate_charge, coordinate_priors, PlacedAtom, Pull};
use std::f64::consts::TAU;

/// A row's support expanded at its state.
struct Expanded<'a> {
    gram: SupportGram,
    gates: GateRow,
    jets: Vec<BasisJet>,
    atoms: Vec<PlacedAtom<'a>>,
    /// Of each coordinate, the place of its atom and how that one's part of the stacked row moves.
    motions: Vec<(usize, Vec<f64>)>,
    /// The coordinates' block of H (d x d), and what the exact Hessian has beyond.
    h: Vec<f64>,
    second: Vec<f64>,
    /// B times the residual.
    residual: Vec<f64>,
}

impl Expanded<'_> {
    fn coordinate_charge(&self, least: f64) -> f64 {
        coordinate_charge(&self.atoms, (&self.h, &self.second), self.motions.len(), least)
    }
}

impl RowSolver {
    /// What a row's coordinates and logits cost in the evidence beside their energy, at least `least` nats for each local
    /// coordinate.
    ///
    /// Logits that share a row are charged by the determinant of their block of H given the coordinates, relative to that
    /// of their Gaussian prior: with more atoms in a row the data hold more of them. The block has the prior's majoriser,
    /// as V's has. Independent logits are charged one by one.
    pub fn charges(&self, target: &Target, row: &RowState, least: f64) -> f64 {
        let factor = target.weight * self.inverse_dispersion;
        let expanded = self.expanded(target, row, factor);
        let of_logits = if self.n_free() == 0 {
            0.0
        } else if self.gate.shares() {
            self.shared_logits_charge(row, &expanded, factor)
        } else {
            let Expanded { gram, gates, jets, residual, .. } = &expanded;
            let of_one = |(s, (&k, jet)): (usize, (&u32, &BasisJet))| {
                let length = factor * gram.between((s, &jet.phi), (s, &jet.phi));
                let data = (length, factor, dot(&jet.phi, &residual[gram.columns(s)]));
                self.logit_charge(data, (k as usize, row.logits[k as usize]), gates.da[s * gates.free + s])
            };
            row.support.iter().zip(jets).enumerate().map(of_one).sum()
        };
        expanded.coordinate_charge(least) + of_logits
    }

    /// What a row's coordinates alone cost, at least `least` nats for each.
    pub fn coordinate_charges(&self, target: &Target, row: &RowState, least: f64) -> f64 {
        self.expanded(target, row, target.weight * self.inverse_dispersion).coordinate_charge(least)
    }

    /// What logits cost that the data do not see, as those of a row that uses one atom alone. Nothing where they have no
    /// Gaussian prior: there is no determinant to compare with, and V leaves such directions out.
    pub fn idle_logits_charge(&self, logits: &[f64]) -> f64 {
        self.relative_stiffness(logits).map_or(0.0, |stiffness| half_ln_product(&stiffness))
    }

    /// Of each free logit, the curvature of its priors over that of the Gaussian one, where there is one.
    fn relative_stiffness(&self, logits: &[f64]) -> Option<Vec<f64>> {
        if self.gate.logit_precision() == 0.0 {
            return None;
        }
        let mut prior = GatePrior::default();
        self.gate.prior(logits.into(), &mut prior);
        let unit = self.rho.lambda_sparse() / self.gate.logit_precision();
        Some(prior.majoriser.iter().map(|bend| 1.0 + unit * bend).collect())
    }

    fn expanded<'a>(&'a self, target: &Target, row: &'a RowState, factor: f64) -> Expanded<'a> {
        let gram = self.products.gram(target, &row.support);
        let residual = gram.against_residual(&self.fitted(row));
        let mut gates = GateRow::default();
        self.gate.row(self.rho.lambda_sparse(), (&row.logits).into(), &row.support, &mut gates);
        let d: usize = row.support.iter().map(|&k| self.atoms[k as usize].dim()).sum();
        let (mut h, mut second) = (vec![0.0; d * d], vec![0.0; d * d]);
        let mut motions: Vec<(usize, Vec<f64>)> = Vec::with_capacity(d);
        let (mut atoms, mut jets) = (Vec::with_capacity(row.support.len()), Vec::with_capacity(row.support.len()));
        for (s, &k) in row.support.iter().enumerate() {
            let (k, a, first) = (k as usize, gates.a[s], motions.len());
            let atom = &*self.atoms[k];
            let (dim, width) = (atom.dim(), atom.width());
            let point = &row.coords[self.coord_offsets[k]..self.coord_offsets[k + 1]];
            let mut jet = BasisJet::new(dim, width);
            atom.jet(point, &mut jet);
            let against = &residual[gram.columns(s)];
            let pull = |axis: usize| {
                let part = |block: &[f64], at: usize| block[at * width..(at + 1) * width].to_vec();
                let (d1, d2) = (part(&jet.d1, axis), part(&jet.d2, axis * dim + axis));
                Pull {
                    slope: factor * a * dot(&d1, against),
                    curvature: factor * a * a * gram.between((s, &d1), (s, &d1)),
                    second: factor * a * dot(&d2, against),
                }
            };
            let pulls = walls(atom.factors(), point).map(|wall| (wall.axis, pull(wall.axis))).collect();
            hold(atom.factors(), point, &mut jet);
            for (pair, d2) in jet.d2.chunks_exact(width).enumerate() {
                second[(first + pair / dim) * d + first + pair % dim] = factor * a * dot(d2, against);
            }
            motions.extend(jet.d1.chunks_exact(width).map(|d1| (s, d1.iter().map(|v| a * v).collect())));
            coordinate_priors(atom, &self.rho, k, point, |u, term| {
                h[(first + u) * (d + 1)] += term.stiffness();
                second[(first + u) * (d + 1)] += term.beyond();
            });
            atoms.push(PlacedAtom { first, factors: atom.factors(), point, pulls });
            jets.push(jet);
        }
        for u in 0..d {
            for v in 0..=u {
                let inner = factor * gram.between((motions[u].0, &motions[u].1), (motions[v].0, &motions[v].1));
                h[u * d + v] += inner;
                if u != v {
                    h[v * d + u] += inner;
                }
            }
        }
        Expanded { gram, gates, jets, atoms, motions, h, second, residual }
    }

    /// The logits' share of `1/2 ln|H_i|` given the coordinates, less that of their Gaussian prior. Infinite where the
    /// coordinates' block is not positive definite.
    fn shared_logits_charge(&self, row: &RowState, expanded: &Expanded<'_>, factor: f64) -> f64 {
        let Expanded { gram, gates, jets, motions, h, .. } = expanded;
        let Some(stiffness) = self.relative_stiffness(&row.logits) else { return 0.0 };
        let idle = half_ln_product(&stiffness);
        // one atom alone has all of the row whatever the logits
        if row.support.len() < 2 {
            return idle;
        }
        let (n, free, d) = (row.support.len(), gates.free, motions.len());
        // in units of the standard deviation that priors leave, the determinant is that of one more than what data see
        let unit = |f: usize| (self.gate.logit_precision() * stiffness[row.support[f] as usize]).sqrt().recip();
        let mut slopes = gates.da.clone();
        for line in slopes.chunks_exact_mut(free.max(1)) {
            line.iter_mut().enumerate().for_each(|(f, slope)| *slope *= unit(f));
        }
        // what decoded points, and motions of coordinates, have along the points
        let points = |s: usize, x: &[f64]| (0..n).map(|t| factor * gram.between((s, x), (t, &jets[t].phi))).collect();
        let among: Vec<Vec<f64>> = jets.iter().enumerate().map(|(s, jet)| points(s, &jet.phi)).collect();
        let moved: Vec<Vec<f64>> = motions.iter().map(|(s, x)| points(*s, x)).collect();
        // times the slopes of the gates
        let through = |products: &[Vec<f64>]| -> Vec<f64> {
            let entry = |line: &[f64], f: usize| (0..n).map(|t| line[t] * slopes[t * free + f]).sum::<f64>();
            products.iter().flat_map(|line| (0..free).map(move |f| entry(line, f))).collect()
        };
        let (among, mut links) = (through(&among), through(&moved));
        let mut factored = h.clone();
        if !small_cholesky(&mut factored, d) {
            return f64::INFINITY;
        }
        small_forward(&factored, d, &mut links, free);
        let mut block = vec![0.0; free * free];
        for f in 0..free {
            for g in 0..=f {
                let seen: f64 = (0..n).map(|s| slopes[s * free + f] * among[s * free + g]).sum();
                let explained: f64 = (0..d).map(|u| links[u * free + f] * links[u * free + g]).sum();
                block[f * free + g] = f64::from(u8::from(f == g)) + seen - explained;
            }
        }
        if !small_cholesky(&mut block, free) {
            return f64::INFINITY;
        }
        idle + (0..free).map(|f| block[f * (free + 1)].ln()).sum::<f64>()
    }

    /// What an open logit of an independent gate costs beside its energy: `slope` is that of its gate, `length` the squared length
    /// of the atom's point over the dispersion, and `factor` times `along` the data's slope along it.
    fn logit_charge(&self, (length, factor, along): (f64, f64, f64), (k, logit): (usize, f64), slope: f64) -> f64 {
        let precision = self.gate.logit_precision();
        let Some(wall) = self.gate.at_wall(k) else {
            // an improper gate's closed logits have unit stiffness
            let unit = if precision > 0.0 { precision } else { 1.0 };
            return 0.5 * (slope * slope * length / unit).ln_1p();
        };
        let lambda = self.rho.lambda_sparse();
        let charge = if self.gate.held(k, logit) {
            wall.held((factor * wall.gate * along, wall.gate * wall.gate * length), lambda, precision)
        } else {
            let [_, _, bend, _] = self.gate.logit_energy(k, logit);
            wall.free(logit, slope * slope * length + precision + lambda * bend.max(0.0))
        };
        charge.value + 0.5 * (TAU / precision).ln()
    }
}

fn half_ln_product(values: &[f64]) -> f64 {
    0.5 * values.iter().map(|value| value.ln()).sum::<f64>()
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
    const OUTPUTS: usize = 5;
    const PRECISION: f64 = 0.04;

    /// Half the logarithm of a determinant, by elimination.
    fn half_ln_det(mut a: Array2<f64>) -> f64 {
        let mut sum = 0.0;
        for j in 0..a.nrows() {
            sum += 0.5 * a[[j, j]].ln();
            for i in j + 1..a.nrows() {
                let factor = a[[i, j]] / a[[j, j]];
                for k in j..a.nrows() {
                    a[[i, k]] -= factor * a[[j, k]];
                }
            }
        }
        sum
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Against the whole block of H, its Jacobian by differences of the reconstruction.
        #[test]
        fn shared_logits_cost_what_their_block_of_h_has(
            entries in prop::collection::vec(-1.0f64..1.0, 3 * ATOMS * OUTPUTS),
            data in prop::collection::vec(-1.5f64..1.5, OUTPUTS),
            logits in prop::collection::vec(-3.0f64..3.0, ATOMS),
            angles in prop::collection::vec(0.0..TAU, ATOMS),
            used in 1usize..(1 << ATOMS),
            ln_lambda in -2.0f64..2.0,
            weight in 0.1f64..2.0,
        ) {
            let nodes = EntropyNodes::new(Array2::zeros((1, ATOMS - 1)).view(), 1.0).unwrap();
            let gate = Arc::new(Softmax::new(1.0, PRECISION, None, nodes).unwrap());
            let atoms: Vec<Arc<dyn Atom>> = (0..ATOMS).map(|_| Arc::new(Circle::new(1).unwrap()) as Arc<dyn Atom>).collect();
            let rho = SaeManifoldRho::with_per_atom_smooth(ln_lambda, vec![0.0; ATOMS], 2.0 * 0.3f64.ln());
            let decoders = Array2::from_shape_vec((3 * ATOMS, OUTPUTS), entries).unwrap();
            let solver = RowSolver::new(atoms, gate, rho, Vec::new(), decoders.clone()).unwrap();
            let target = solver.target(Array1::from(data).view(), weight);
            let support: Vec<u32> = (0..ATOMS as u32).filter(|k| used >> k & 1 == 1).collect();
            let logits: Vec<f64> = logits.iter().map(|l| l - logits[ATOMS - 1]).collect();
            let row = RowState { logits, coords: angles, support: support.clone(), objective: 0.0, converged: false };
            let factor = weight * solver.inverse_dispersion;

            let point = |row: &RowState| {
                let (mut a, mut x) = (Vec::new(), Array1::<f64>::zeros(OUTPUTS));
                solver.gate.values(solver.rho.lambda_sparse(), (&row.logits).into(), &support, &mut a);
                for (a, &k) in a.iter().zip(&support) {
                    let (k, t) = (k as usize, row.coords[k as usize]);
                    for (m, phi) in [1.0, t.cos(), t.sin()].into_iter().enumerate() {
                        x.scaled_add(a * phi, &decoders.row(3 * k + m));
                    }
                }
                x
            };
            // logits first, then coordinates
            let n = ATOMS - 1 + support.len();
            let slope = |u: usize| {
                let moved = |by: f64| {
                    let mut other = row.clone();
                    match u.checked_sub(ATOMS - 1) {
                        None => other.logits[u] += by,
                        Some(s) => other.coords[support[s] as usize] += by,
                    }
                    point(&other)
                };
                (moved(1e-5) - moved(-1e-5)) / 2e-5
            };
            let slopes: Vec<Array1<f64>> = (0..n).map(slope).collect();
            let mut h = Array2::from_shape_fn((n, n), |(u, v)| factor * slopes[u].dot(&slopes[v]));
            let mut prior = GatePrior::default();
            solver.gate.prior((&row.logits).into(), &mut prior);
            for (k, bend) in prior.majoriser.iter().enumerate() {
                h[[k, k]] += PRECISION + solver.rho.lambda_sparse() * bend;
            }
            for (s, &k) in support.iter().enumerate() {
                coordinate_priors(&*solver.atoms[k as usize], &solver.rho, k as usize, &row.coords[k as usize..], |_, term| {
                    h[[ATOMS - 1 + s, ATOMS - 1 + s]] += term.stiffness();
                });
            }
            let of_coordinates = half_ln_det(h.slice(ndarray::s![ATOMS - 1.., ATOMS - 1..]).to_owned());
            let unit = 0.5 * (ATOMS - 1) as f64 * PRECISION.ln();
            let expected = half_ln_det(h) - of_coordinates - unit;

            let expanded = solver.expanded(&target, &row, factor);
            let found = solver.shared_logits_charge(&row, &expanded, factor);
            prop_assert!((found - expected).abs() < 1e-5 * (1.0 + expected.abs()), "{found} {expected}");
            let (both, coordinates) = (solver.charges(&target, &row, 0.0), solver.coordinate_charges(&target, &row, 0.0));
            prop_assert!((both - coordinates - found).abs() < 1e-9 * (1.0 + both.abs()));
            if support.len() == 1 {
                prop_assert!((solver.idle_logits_charge(&row.logits) - found).abs() < 1e-12 * (1.0 + found));
            }
        }
    }
}
