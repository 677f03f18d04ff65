//! One row's objective with its derivatives, its support held.
//!
//! Everything the data say of a row is in `Q = BB'` and `b = Bz` over the columns of its support, which are gathered once: an
//! expansion costs nothing of the dictionary's width.

use super::products::{SupportGram, Target};
use super::second::{add_second, SecondAtom};
use super::solver::{RowSolver, RowState};
use crate::atoms::{hold, BasisJet};
use crate::gates::{GatePrior, GateRow};
use crate::linalg::{add_scaled, axpy, dot, inner, vectorised};
use crate::priors::coordinate_priors;
use std::ops::Range;

/// Value, gradient and curvature over the logits that move and the coordinates of the support.
#[derive(Debug, Default)]
pub(super) struct Expansion {
    pub(super) value: f64,
    pub(super) gradient: Vec<f64>,
    /// Exact Hessian, row-major.
    pub(super) hessian: Vec<f64>,
    /// Positive diagonal that damps steps.
    pub(super) scale: Vec<f64>,
}

/// The objective of one row.
pub(super) struct RowObjective<'a> {
    solver: &'a RowSolver,
    target: &'a Target,
    support: Vec<u32>,
    /// The logits that are variables, and the energy of the others' priors.
    logits: Vec<usize>,
    idle: f64,
    /// Where each atom's columns begin among those of the support.
    starts: Vec<usize>,
    /// Q and b over the support's columns.
    gram: Vec<f64>,
    against: Vec<f64>,
    /// Number of variables.
    q: usize,
    jets: Vec<BasisJet>,
    gate: GateRow,
    /// The basis row, Q times it, and the data's slope against it.
    phi: Vec<f64>,
    curve: Vec<f64>,
    slope: Vec<f64>,
    /// Its derivatives in the variables that the data see, what Q makes of them, and which variables these are.
    d: Vec<f64>,
    through: Vec<f64>,
    seen: Vec<usize>,
    /// The columns of the basis row that each of them moves.
    reach: Vec<Range<usize>>,
    prior: GatePrior,
}

impl<'a> RowObjective<'a> {
    /// Of a row whose other logits stay where they are: their priors' energy is a constant.
    pub(super) fn new(solver: &'a RowSolver, target: &'a Target, row: &RowState, logits: Vec<usize>) -> Self {
        let mut jets = Vec::new();
        let support = &row.support[..];
        let mut q = logits.len();
        for &k in support {
            let k = k as usize;
            let atom = &solver.atoms[k];
            jets.push(BasisJet::new(atom.dim(), atom.width()));
            q += atom.dim();
        }
        let SupportGram { starts, gram, against } = solver.products.gram(target, support);
        let zeros = vec![0.0; against.len()];
        let mut moving = logits.iter().copied().peekable();
        let still = (0..solver.n_free()).filter(|k| moving.next_if_eq(k).is_none());
        let idle = still.map(|k| solver.closed[k]).sum();
        Self {
            solver,
            target,
            support: support.to_vec(),
            logits,
            idle,
            starts,
            gram,
            against,
            q,
            jets,
            gate: GateRow::default(),
            phi: zeros.clone(),
            curve: zeros.clone(),
            slope: zeros,
            d: Vec::new(),
            through: Vec::new(),
            seen: Vec::new(),
            reach: Vec::new(),
            prior: GatePrior::default(),
        }
    }

    /// The logits that are variables, in their order.
    pub(super) fn logits(&self) -> &[usize] {
        &self.logits
    }

    /// Where the logit of an atom of the support stands among the variables.
    pub(super) fn place(&self, atom: u32) -> usize {
        place(&self.logits, atom)
    }

    /// How large the data's share may be: what its rounding is measured by.
    pub(super) fn size(&self) -> f64 {
        0.5 * self.target.weight * self.target.length * self.solver.inverse_dispersion
    }

    /// Expands at a state of the row, whose support is this one's.
    pub(super) fn expand(&mut self, row: &RowState, out: &mut Expansion) {
        let (q, m, factor) = (self.q, self.phi.len(), self.target.weight * self.solver.inverse_dispersion);
        self.differentiate(row);
        self.through.resize(self.d.len(), 0.0);
        self.multiply();
        for (slope, (c, b)) in self.slope.iter_mut().zip(self.curve.iter().zip(&self.against)) {
            *slope = factor * (c - b);
        }
        let fit = dot(&self.phi, &self.curve) - 2.0 * dot(&self.phi, &self.against) + self.target.length;
        out.value = 0.5 * factor * fit;
        for (values, len) in [(&mut out.gradient, q), (&mut out.hessian, q * q), (&mut out.scale, q)] {
            values.clear();
            values.resize(len, 0.0);
        }
        self.contract(m, factor, out);
        self.add_second(out);
        out.value += self.add_logit_priors(row, out) + self.add_coordinate_priors(row, out);
    }

    /// Q times the basis row and times each of its derivatives. Q is symmetric, so its rows are its columns.
    fn multiply(&mut self) {
        let Self { gram, phi, curve, d, through, reach, .. } = self;
        // a row without atoms has neither
        let m = phi.len().max(1);
        curve.fill(0.0);
        through.fill(0.0);
        vectorised(
            #[inline(always)]
            || {
                phi.iter().zip(gram.chunks_exact(m)).for_each(|(value, line)| add_scaled(*value, line, curve));
                let of_each = reach.iter().zip(d.chunks_exact(m)).zip(through.chunks_exact_mut(m));
                for ((reach, d), through) in of_each {
                    for c in reach.clone() {
                        add_scaled(d[c], &gram[c * m..(c + 1) * m], through);
                    }
                }
            },
        );
    }

    /// The data's gradient, and their curvature with the basis row held, from what `multiply` has made.
    fn contract(&self, m: usize, factor: f64, out: &mut Expansion) {
        let q = self.q;
        vectorised(
            #[inline(always)]
            || {
                for (i, &u) in self.seen.iter().enumerate() {
                    let reach = self.reach[i].clone();
                    let d = &self.d[i * m..][reach.clone()];
                    out.gradient[u] = inner(d, &self.slope[reach.clone()]);
                    for (j, &v) in self.seen[..=i].iter().enumerate() {
                        let product = factor * inner(d, &self.through[j * m..][reach.clone()]);
                        out.hessian[u * q + v] = product;
                        out.hessian[v * q + u] = product;
                    }
                    out.scale[u] = out.hessian[u * (q + 1)];
                }
            },
        );
    }

    /// The basis row and its derivatives.
    fn differentiate(&mut self, row: &RowState) {
        let solver = self.solver;
        solver.gate.row(solver.rho.lambda_sparse(), (&row.logits).into(), &row.support, &mut self.gate);
        let (free, m) = (self.gate.free, self.phi.len());
        self.seen.clear();
        self.seen.extend(self.support[..free].iter().map(|&k| place(&self.logits, k)));
        self.seen.extend(self.logits.len()..self.q);
        self.d.clear();
        self.d.resize(self.seen.len() * m, 0.0);
        self.reach.clear();
        let shares = solver.gate.shares();
        self.reach.extend((0..free).map(|s| if shares { 0..m } else { self.starts[s]..self.starts[s + 1] }));
        let mut slot = free;
        for (s, &k) in self.support.iter().enumerate() {
            let k = k as usize;
            let (atom, jet, a) = (&solver.atoms[k], &mut self.jets[s], self.gate.a[s]);
            let own = self.starts[s]..self.starts[s + 1];
            let point = &row.coords[solver.coord_offsets[k]..solver.coord_offsets[k + 1]];
            atom.jet(point, jet);
            hold(atom.factors(), point, jet);
            self.phi[own.clone()].iter_mut().zip(&jet.phi).for_each(|(o, v)| *o = a * v);
            for f in 0..free {
                axpy(self.gate.da[s * free + f], &jet.phi, &mut self.d[f * m + own.start..f * m + own.end]);
            }
            for d1 in jet.d1.chunks_exact(own.len().max(1)) {
                axpy(a, d1, &mut self.d[slot * m + own.start..slot * m + own.end]);
                self.reach.push(own.clone());
                slot += 1;
            }
        }
    }

    /// Second derivatives of the basis row against the slope.
    fn add_second(&self, out: &mut Expansion) {
        let mut slot = self.logits.len();
        let atoms = self.support.iter().zip(&self.jets).enumerate().map(|(s, (&k, jet))| {
            let against = &self.slope[self.starts[s]..self.starts[s + 1]];
            let atom = SecondAtom { phi: &jet.phi, d1: &jet.d1, d2: &jet.d2, against, slot };
            slot += self.solver.atoms[k as usize].dim();
            atom
        });
        add_second(&self.gate, |a| place(&self.logits, self.support[a]), atoms, self.q, &mut out.hessian);
    }

    /// Adds the gradient and curvature of the gates' priors; returns their energy.
    fn add_logit_priors(&mut self, row: &RowState, out: &mut Expansion) -> f64 {
        let (q, solver) = (self.q, self.solver);
        let (lambda, precision) = (solver.rho.lambda_sparse(), solver.gate.logit_precision());
        let mut energy = self.idle;
        let shares = solver.gate.shares();
        if shares {
            solver.gate.prior((&row.logits).into(), &mut self.prior);
            energy += lambda * self.prior.energy;
        }
        for (u, &k) in self.logits.iter().enumerate() {
            let l = row.logits[k];
            energy += 0.5 * precision * l * l;
            let [own, slope, bend] = match shares {
                true => [0.0, self.prior.gradient[k], self.prior.majoriser[k]],
                false => {
                    let [own, slope, bend, _] = solver.gate.logit_energy(k, l);
                    [own, slope, bend]
                }
            };
            energy += lambda * own;
            out.scale[u] += precision;
            if solver.gate.held(k, l) && self.support.contains(&(k as u32)) {
                out.hessian[u * (q + 1)] += precision;
                continue;
            }
            out.gradient[u] += lambda * slope + precision * l;
            out.scale[u] += lambda * bend.max(0.0);
            out.hessian[u * (q + 1)] += precision;
            if !shares {
                out.hessian[u * (q + 1)] += lambda * bend;
            }
        }
        if shares {
            // all free logits are variables here, in their order
            solver.gate.add_prior_hessian((&row.logits).into(), lambda, &mut out.hessian, q);
        }
        if let Some(prior) = solver.gate.columns() {
            // one row moves its columns' masses by little: their prices stay
            for &k in &self.support {
                let (u, k) = (place(&self.logits, k), k as usize);
                let (score, z) = (solver.scores[k], prior.indicator(row.logits[k]));
                energy += score * z[0];
                out.gradient[u] += score * z[1];
                out.hessian[u * (q + 1)] += score * z[2];
                out.scale[u] += (score * z[2]).max(0.0);
            }
        }
        energy
    }

    /// Adds the gradient and curvature of the coordinates' priors; returns their energy. A coordinate outside the support
    /// integrates to one and has none.
    fn add_coordinate_priors(&self, row: &RowState, out: &mut Expansion) -> f64 {
        let (q, solver) = (self.q, self.solver);
        let (mut energy, mut slot) = (0.0, self.logits.len());
        for &k in &self.support {
            let k = k as usize;
            let atom = &*solver.atoms[k];
            let point = &row.coords[solver.coord_offsets[k]..solver.coord_offsets[k + 1]];
            coordinate_priors(atom, &solver.rho, k, point, |j, term| {
                energy += term.energy;
                out.gradient[slot + j] += term.gradient;
                out.hessian[(slot + j) * (q + 1)] += term.curvature;
                // a flat coordinate still needs a scale for its damping
                out.scale[slot + j] += term.stiffness();
            });
            slot += atom.dim();
        }
        energy
    }
}

/// Where an atom's logit stands among those that are variables.
fn place(logits: &[usize], atom: u32) -> usize {
    logits.binary_search(&(atom as usize)).expect("logits of a support are variables")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atoms::{Atom, Circle};
    use crate::gates::{EntropyNodes, Gate, SigmoidNodes, Softmax, ThresholdGate};
    use crate::rho::SaeManifoldRho;
    use ndarray::{Array1, Array2};
    use proptest::prelude::*;
    use std::sync::Arc;

    const N_ATOMS: usize = 3;
    const N_OUTPUTS: usize = 8;
    const STEP: f64 = 1e-3;

    fn solver(gate: Arc<dyn Gate>, decoders: Array2<f64>) -> RowSolver {
        let atoms = (0..N_ATOMS).map(|_| Arc::new(Circle::new(2).unwrap()) as Arc<dyn Atom>).collect();
        let rho = SaeManifoldRho::with_per_atom_smooth(0.3, vec![0.0; N_ATOMS], 2.0 * 0.2f64.ln());
        RowSolver::new(atoms, gate, rho, Vec::new(), decoders).unwrap()
    }

    /// Value and gradient with one variable moved: logits come first, then coordinates.
    fn at(objective: &mut RowObjective<'_>, row: &RowState, variable: usize, by: f64) -> (f64, Vec<f64>) {
        let (mut moved, mut out) = (row.clone(), Expansion::default());
        match objective.logits().get(variable).copied() {
            Some(k) => moved.logits[k] += by,
            None => {
                let k = row.support[variable - objective.logits().len()] as usize;
                moved.coords[k] += by;
            }
        }
        objective.expand(&moved, &mut out);
        (out.value, out.gradient)
    }

    /// Fourth-order difference from values two steps to either side.
    fn slope(far_below: f64, below: f64, above: f64, far_above: f64) -> f64 {
        (8.0 * (above - below) - (far_above - far_below)) / (12.0 * STEP)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn derivatives_are_those_of_the_value(
            shares in any::<bool>(),
            entries in prop::collection::vec(-1.0f64..1.0, 5 * N_ATOMS * N_OUTPUTS + N_OUTPUTS),
            logits in prop::collection::vec(0.3f64..1.5, N_ATOMS),
            coords in prop::collection::vec(0.0f64..6.0, N_ATOMS),
        ) {
            let (decoders, z) = entries.split_at(5 * N_ATOMS * N_OUTPUTS);
            let decoders = Array2::from_shape_vec((5 * N_ATOMS, N_OUTPUTS), decoders.to_vec()).unwrap();
            let gate: Arc<dyn Gate> = if shares {
                let nodes = Array2::from_shape_fn((8, N_ATOMS - 1), |(i, k)| ((2 * i + k) as f64).sin());
                Arc::new(Softmax::new(1.0, 0.04, None, EntropyNodes::new(nodes.view(), 1.0).unwrap()).unwrap())
            } else {
                let nodes = SigmoidNodes::new(&[-1.0, 1.0], &[0.5, 0.5], 0.0, 1.0).unwrap();
                Arc::new(ThresholdGate::new(0.0, 1.0, 0.04, &[], nodes).unwrap())
            };
            let solver = solver(gate, decoders);
            let target = solver.target(Array1::from(z.to_vec()).view(), 0.7);
            let support = (0..N_ATOMS as u32).collect();
            let row = RowState { logits, coords, support, objective: f64::INFINITY, converged: false };
            let mut objective = RowObjective::new(&solver, &target, &row, (0..solver.n_free()).collect());
            let mut here = Expansion::default();
            objective.expand(&row, &mut here);
            let q = here.gradient.len();
            let size = here.hessian.iter().fold(1.0f64, |most, v| most.max(v.abs()));
            for v in 0..q {
                let points = [-2.0, -1.0, 1.0, 2.0].map(|by| at(&mut objective, &row, v, by * STEP));
                let [a, b, c, d] = &points;
                let expected = slope(a.0, b.0, c.0, d.0);
                prop_assert!((here.gradient[v] - expected).abs() < 1e-7 * size, "{v}: {} {expected}", here.gradient[v]);
                for u in 0..q {
                    let (found, expected) = (here.hessian[u * q + v], slope(a.1[u], b.1[u], c.1[u], d.1[u]));
                    prop_assert!((found - expected).abs() < 1e-7 * size, "{u}, {v}: {found} {expected}");
                }
            }
        }
    }
}
