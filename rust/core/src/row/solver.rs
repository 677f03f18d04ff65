//! One row on its own: its share of L with decoders held, and its minimisation.
//!
//! With `Q = BB'` and `b = Bz` the data part of a row's objective is `(phi' Q phi - 2 phi' b + |z|^2) / 2 phi_0`, so a row
//! costs products of the basis width, not of the output width (`products`).

use super::objective::{Expansion, RowObjective};
use super::products::{Products, Target};
use crate::atoms::{origins, walls, Atom};
use crate::errors::ShapeError;
use crate::gates::{by_label, resting_logit, Gate};
use crate::linalg::{dot, small_backward, small_cholesky, small_forward};
use crate::priors::coordinate_priors;
use crate::rho::SaeManifoldRho;
use crate::wire::wired;
use ndarray::{Array2, ArrayView1};
use std::sync::Arc;

/// Bound on Newton steps of one candidate.
const MAX_STEPS: usize = 60;
/// A candidate is converged when one more step would lower its objective by less than half this squared, in nats.
pub const CONVERGED: f64 = 1e-11;
/// One row's variables.
#[derive(Clone, Debug)]
pub struct RowState {
    /// K logits.
    pub logits: Vec<f64>,
    /// Stored coordinates of all atoms, one after the other.
    pub coords: Vec<f64>,
    pub support: Vec<u32>,
    pub objective: f64,
    pub converged: bool,
}

wired!(RowState { logits, coords, support, objective, converged });

/// Frozen decoders and strengths, and rows solved with them.
#[derive(Debug)]
pub struct RowSolver {
    pub atoms: Vec<Arc<dyn Atom>>,
    pub gate: Arc<dyn Gate>,
    pub rho: SaeManifoldRho,
    /// Per atom, what a unit of its column's mass costs; empty where the gate has no prior on columns.
    pub scores: Vec<f64>,
    /// 1/phi.
    pub inverse_dispersion: f64,
    /// The stacked decoders and their inner products.
    pub products: Products,
    /// Rows of each atom in the stacked decoder.
    pub offsets: Vec<usize>,
    /// Stored coordinates of each atom in a row's coordinates.
    pub coord_offsets: Vec<usize>,
    /// A stored point of every atom, one after the other.
    pub origins: Vec<f64>,
    /// Independent gates: the logit of every closed gate, at its prior's optimum; empty where gates share a row.
    pub rest: Vec<f64>,
    /// What every closed gate costs a row: by its mass where it has one, at rest where not.
    pub closed: Vec<f64>,
}

impl RowSolver {
    pub fn new(
        atoms: Vec<Arc<dyn Atom>>,
        gate: Arc<dyn Gate>,
        rho: SaeManifoldRho,
        scores: Vec<f64>,
        decoders: Array2<f64>,
    ) -> Result<Self, ShapeError> {
        if gate.columns().is_some() && scores.len() != atoms.len() {
            return Err(ShapeError::shape("column_scores", &[scores.len()], &[atoms.len()]));
        }
        let dims: Vec<usize> = atoms.iter().map(|a| a.dim()).collect();
        rho.check(&dims)?;
        let running = |sizes: Vec<usize>| {
            let mut out = vec![0];
            sizes.iter().for_each(|s| out.push(out[out.len() - 1] + s));
            out
        };
        let offsets = running(atoms.iter().map(|a| a.width()).collect());
        let (origins, coord_offsets) = origins(&atoms);
        if decoders.nrows() != offsets[atoms.len()] {
            return Err(ShapeError::shape("decoders", &[decoders.nrows()], &[offsets[atoms.len()]]));
        }
        let n_atoms = atoms.len();
        let products = Products::new(decoders, &offsets, gate.shares());
        let mut out = Self {
            atoms,
            gate,
            inverse_dispersion: 1.0 / rho.dispersion(),
            rho,
            scores,
            products,
            offsets,
            coord_offsets,
            origins,
            rest: Vec::new(),
            closed: vec![0.0; n_atoms],
        };
        if !out.gate.shares() {
            let lambda = out.rho.lambda_sparse();
            out.rest = match out.gate.closes(n_atoms) {
                true => by_label(&*out.gate, n_atoms, |k| resting_logit(&*out.gate, lambda, k)),
                false => out.settle_rest(),
            };
            let masses = by_label(&*out.gate, out.n_free(), |k| out.gate.ln_closed(lambda, k));
            let cost = |(k, mass): (usize, &Option<(f64, f64)>)| {
                mass.map(|(mass, _)| -mass).unwrap_or(out.logit_energy(k, out.rest[k]))
            };
            out.closed = masses.iter().enumerate().map(cost).collect();
        }
        Ok(out)
    }

    /// Logits of a row that uses no atom: they feel their prior alone, each its own.
    fn settle_rest(&self) -> Vec<f64> {
        /// Where they start: below zero, on the side to which every gate's prior pulls.
        const START: f64 = -1.0;
        let n = self.atoms.len();
        let target = self.products.nothing();
        let mut row = RowState {
            logits: vec![if self.n_free() == 0 { 0.0 } else { START }; n],
            coords: self.origins.clone(),
            support: Vec::new(),
            objective: f64::INFINITY,
            converged: false,
        };
        for k in 0..self.n_free() {
            row = self.settled(CONVERGED, &target, row, vec![k], true);
        }
        row.logits
    }

    /// Energy of an independent logit's prior.
    pub fn logit_energy(&self, k: usize, logit: f64) -> f64 {
        let of_gate = self.rho.lambda_sparse() * self.gate.logit_energy(k, logit)[0];
        of_gate + 0.5 * self.gate.logit_precision() * logit * logit
    }

    pub fn n_free(&self) -> usize {
        self.gate.n_free(self.atoms.len())
    }

    /// An atom's part of a stacked vector.
    pub fn of_atom<'a>(&self, stacked: &'a [f64], k: usize) -> &'a [f64] {
        &stacked[self.offsets[k]..self.offsets[k + 1]]
    }

    pub fn target(&self, z: ArrayView1<'_, f64>, weight: f64) -> Target {
        self.products.target(z, weight)
    }

    /// The stacked basis row of some atoms at full strength, at the row's coordinates.
    pub fn stacked(&self, row: &RowState, atoms: &[u32]) -> Vec<f64> {
        let mut out = vec![0.0; self.offsets[self.atoms.len()]];
        for &k in atoms {
            let k = k as usize;
            let t = &row.coords[self.coord_offsets[k]..self.coord_offsets[k + 1]];
            self.atoms[k].basis(t, &mut out[self.offsets[k]..self.offsets[k + 1]]);
        }
        out
    }

    /// The row's reconstruction as basis rows of its support, one after the other.
    pub fn fitted(&self, row: &RowState) -> Vec<f64> {
        let mut gates = Vec::new();
        self.gate.values(self.rho.lambda_sparse(), (&row.logits).into(), &row.support, &mut gates);
        let mut out = Vec::new();
        for (a, &k) in gates.iter().zip(&row.support) {
            let (k, from) = (k as usize, out.len());
            out.resize(from + self.atoms[k].width(), 0.0);
            self.atoms[k].basis(&row.coords[self.coord_offsets[k]..self.coord_offsets[k + 1]], &mut out[from..]);
            out[from..].iter_mut().for_each(|v| *v *= a);
        }
        out
    }

    /// Energy of the priors of one atom's coordinate.
    pub fn coordinate_energy(&self, k: usize, point: &[f64]) -> f64 {
        let mut energy = 0.0;
        coordinate_priors(&*self.atoms[k], &self.rho, k, point, |_, term| energy += term.energy);
        energy
    }

    /// The logits and points of some atoms, one after the other.
    pub fn part(&self, row: &RowState, atoms: &[u32]) -> (Vec<f64>, Vec<f64>) {
        let points = atoms.iter().flat_map(|&k| self.coord_offsets[k as usize]..self.coord_offsets[k as usize + 1]);
        (atoms.iter().map(|&k| row.logits[k as usize]).collect(), points.map(|at| row.coords[at]).collect())
    }

    /// Damped Newton on the row's objective, its support held. `logits_only` leaves coordinates alone. Closed independent
    /// gates, which no data see, come to rest.
    pub fn polish(&self, target: &Target, row: RowState, logits_only: bool) -> RowState {
        self.polish_to(CONVERGED, target, row, logits_only)
    }

    /// The same, until a step would lower the objective by less than half the square of `enough`, in nats.
    pub fn polish_to(&self, enough: f64, target: &Target, mut row: RowState, logits_only: bool) -> RowState {
        let logits = if self.gate.shares() {
            (0..self.n_free()).collect()
        } else if self.n_free() == 0 {
            Vec::new()
        } else {
            let mut closed = self.rest.clone();
            row.support.iter().for_each(|&k| closed[k as usize] = row.logits[k as usize]);
            row.logits = closed;
            row.support.iter().map(|&k| k as usize).collect()
        };
        self.settled(enough, target, row, logits, logits_only)
    }

    /// Damped Newton on some of the row's logits, in their order, and the coordinates of its support.
    fn settled(&self, enough: f64, target: &Target, row: RowState, logits: Vec<usize>, logits_only: bool) -> RowState {
        let mut objective = RowObjective::new(self, target, &row, logits);
        let (mut here, mut there) = (Expansion::default(), Expansion::default());
        let mut row = self.descend(&mut objective, (&mut here, &mut there), row, (enough, logits_only));
        // what is held at a wall and would rather leave it is let go, and may come back once
        let most = row.support.iter().map(|&k| 1 + self.atoms[k as usize].dim()).sum::<usize>();
        for _ in 0..most {
            let Some(released) = self.released(&mut objective, &mut there, &row, logits_only) else { break };
            let next = self.descend(&mut objective, (&mut here, &mut there), released, (enough, logits_only));
            if next.objective >= row.objective {
                break;
            }
            row = next;
        }
        row
    }

    /// The row with those logits just above their walls, and those coordinates just inside the ends of their intervals,
    /// whose objective falls from there; `None` when none does.
    fn released(
        &self,
        objective: &mut RowObjective<'_>,
        there: &mut Expansion,
        row: &RowState,
        logits_only: bool,
    ) -> Option<RowState> {
        let held = |k: &&u32| self.gate.held(**k as usize, row.logits[**k as usize]);
        let ends = if logits_only { Vec::new() } else { self.ends(row, objective.logits().len()) };
        if ends.is_empty() && !row.support.iter().any(|k| held(&k)) {
            return None;
        }
        let mut inside = row.clone();
        row.support.iter().filter(held).for_each(|&k| inside.logits[k as usize] = inside.logits[k as usize].next_up());
        for &(_, at, inward) in &ends {
            let t = &mut inside.coords[at];
            *t = if inward > 0.0 { t.next_up() } else { t.next_down() };
        }
        objective.expand(&inside, there);
        let slopes = &there.gradient;
        let mut out = row.clone();
        let mut any = false;
        for &k in row.support.iter().filter(held).filter(|&&k| slopes[objective.place(k)] < 0.0) {
            out.logits[k as usize] = inside.logits[k as usize];
            any = true;
        }
        for &(_, at, _) in ends.iter().filter(|&&(u, _, inward)| inward * slopes[u] < 0.0) {
            out.coords[at] = inside.coords[at];
            any = true;
        }
        any.then_some(out)
    }

    /// Coordinates of the support, from variable `slot` on, at an end of their interval: the variable, where it is stored, and
    /// which way is inside.
    fn ends(&self, row: &RowState, mut slot: usize) -> Vec<(usize, usize, f64)> {
        let mut out = Vec::new();
        for &k in &row.support {
            let (atom, at) = (&self.atoms[k as usize], self.coord_offsets[k as usize]);
            let point = &row.coords[at..self.coord_offsets[k as usize + 1]];
            out.extend(walls(atom.factors(), point).map(|wall| (slot + wall.axis, at + wall.stored, wall.inward)));
            slot += atom.dim();
        }
        out
    }

    fn descend(
        &self,
        objective: &mut RowObjective<'_>,
        (here, there): (&mut Expansion, &mut Expansion),
        mut row: RowState,
        (enough, logits_only): (f64, bool),
    ) -> RowState {
        objective.expand(&row, here);
        let n = here.gradient.len();
        let q = if logits_only { objective.logits().len() } else { n };
        let (mut step, mut matrix, mut next) = (Vec::new(), Vec::new(), row.clone());
        let mut damping = 0.0f64;
        row.converged = false;
        for _ in 0..MAX_STEPS {
            // the smallest damping that makes the Hessian positive definite
            loop {
                matrix.clear();
                for u in 0..q {
                    matrix.extend_from_slice(&here.hessian[u * n..u * n + q]);
                    matrix[u * q + u] += damping * here.scale[u];
                }
                step.clear();
                step.extend(here.gradient[..q].iter().map(|g| -g));
                if small_cholesky(&mut matrix, q) {
                    small_forward(&matrix, q, &mut step, 1);
                    small_backward(&matrix, q, &mut step, 1);
                    break;
                }
                damping = (4.0 * damping).max(1e-3);
                // overflow somewhere upstream: no damping repairs that
                if !damping.is_finite() || !here.value.is_finite() {
                    row.objective = here.value;
                    return row;
                }
            }
            let decrement = -dot(&step, &here.gradient[..q]);
            if decrement <= enough * enough {
                row.converged = true;
                break;
            }
            self.step(&row, objective.logits(), &step, &mut next);
            objective.expand(&next, there);
            let rounding = 64.0 * f64::EPSILON * (1.0 + here.value.abs() + objective.size());
            if there.value < here.value || (decrement < rounding && there.value <= here.value + rounding) {
                let shrunk =
                    dot(&there.gradient[..q], &there.gradient[..q]) < dot(&here.gradient[..q], &here.gradient[..q]);
                if decrement < rounding && !shrunk {
                    row.converged = true;
                    break;
                }
                std::mem::swap(&mut row, &mut next);
                std::mem::swap(here, there);
                damping = if damping > 1e-6 { damping / 8.0 } else { 0.0 };
            } else if decrement < rounding {
                row.converged = true;
                break;
            } else {
                damping = (4.0 * damping).max(1e-3);
            }
        }
        row.objective = here.value;
        row
    }

    /// The row after a step, in place of `next`, which has its support.
    fn step(&self, row: &RowState, logits: &[usize], step: &[f64], next: &mut RowState) {
        next.logits.copy_from_slice(&row.logits);
        next.coords.copy_from_slice(&row.coords);
        logits.iter().zip(step).for_each(|(&k, d)| next.logits[k] += d);
        for &k in &row.support {
            if let Some(wall) = self.gate.wall(k as usize) {
                next.logits[k as usize] = next.logits[k as usize].max(wall);
            }
        }
        let mut u = logits.len();
        for &k in &row.support {
            let k = k as usize;
            let dim = self.atoms[k].dim();
            if u + dim > step.len() {
                break;
            }
            let t = &mut next.coords[self.coord_offsets[k]..self.coord_offsets[k + 1]];
            self.atoms[k].advance(t, &step[u..u + dim]);
            u += dim;
        }
    }
}
