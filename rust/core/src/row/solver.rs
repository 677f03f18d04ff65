//! One row on its own: its share of L with decoders held, and its minimisation.
//!
//! With `Q = BB'` and `b = Bz` the data part of a row's objective is `(phi' Q phi - 2 phi' b + |z|^2) / 2 phi_0`, so a row
//! costs products of the basis width, not of the output width.

use super::second::{add_second, SecondAtom};
use crate::atoms::{hold, walls, Atom, BasisJet};
use crate::errors::ShapeError;
use crate::gates::{Gate, GatePrior, GateRow};
use crate::linalg::{axpy, dot, product, small_backward, small_cholesky, small_forward, Op};
use crate::priors::{coordinate_charge, coordinate_priors, Pull};
use crate::rho::SaeManifoldRho;
use ndarray::{Array2, ArrayView1};
use std::sync::Arc;

/// Bound on Newton steps of one candidate.
const MAX_STEPS: usize = 60;
/// A candidate is converged when one more step would lower its objective by less than half this squared, in nats.
const DECREMENT: f64 = 1e-11;
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

/// What a row's data enter through.
pub struct Target {
    /// B z.
    pub against: Vec<f64>,
    /// |z|^2.
    pub length: f64,
    pub weight: f64,
}

/// Value, gradient and curvature of a row's objective over its free logits and the coordinates of its support.
struct Local {
    value: f64,
    gradient: Vec<f64>,
    /// Exact Hessian, row-major.
    hessian: Vec<f64>,
    /// Positive diagonal that damps steps.
    scale: Vec<f64>,
}

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
    /// Stacked, M x p.
    pub decoders: Array2<f64>,
    /// Q = BB'.
    pub gram: Array2<f64>,
    /// Rows of each atom in the stacked decoder.
    pub offsets: Vec<usize>,
    /// Stored coordinates of each atom in a row's coordinates.
    pub coord_offsets: Vec<usize>,
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
        let coord_offsets = running(atoms.iter().map(|a| a.ambient()).collect());
        if decoders.nrows() != offsets[atoms.len()] {
            return Err(ShapeError::shape("decoders", &[decoders.nrows()], &[offsets[atoms.len()]]));
        }
        let decoders = decoders.as_standard_layout().into_owned();
        let gram = product((decoders.view(), Op::Plain), (decoders.view(), Op::Transposed));
        Ok(Self {
            atoms,
            gate,
            inverse_dispersion: 1.0 / rho.dispersion(),
            rho,
            scores,
            decoders,
            gram,
            offsets,
            coord_offsets,
        })
    }

    pub fn n_free(&self) -> usize {
        self.gate.n_free(self.atoms.len())
    }

    pub fn target(&self, z: ArrayView1<'_, f64>, weight: f64) -> Target {
        Target { against: self.decoders.dot(&z).to_vec(), length: z.dot(&z), weight }
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

    /// B times the row's residual.
    fn against_residual(&self, target: &Target, row: &RowState) -> Vec<f64> {
        let mut gates = Vec::new();
        self.gate.values(self.rho.lambda_sparse(), &row.logits, &row.support, &mut gates);
        let mut stacked = self.stacked(row, &row.support);
        for (a, &k) in gates.iter().zip(&row.support) {
            stacked[self.offsets[k as usize]..self.offsets[k as usize + 1]].iter_mut().for_each(|v| *v *= a);
        }
        let mut out = self.gram_of(&row.support, &stacked);
        axpy(-1.0, &target.against, &mut out);
        out
    }

    /// Q times a stacked vector that is zero off a support.
    pub fn gram_of(&self, support: &[u32], stacked: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; stacked.len()];
        for m in support.iter().flat_map(|&k| self.offsets[k as usize]..self.offsets[k as usize + 1]) {
            // Q is symmetric, so its rows are its columns
            axpy(stacked[m], self.gram.row(m).to_slice().expect("standard layout"), &mut out);
        }
        out
    }

    /// What the coordinates of a row's support, and its gates where they are independent, cost in the evidence beside their
    /// energy; at least `least` nats for each local coordinate.
    pub fn coordinate_charges(&self, target: &Target, row: &RowState, least: f64) -> f64 {
        let factor = target.weight * self.inverse_dispersion;
        let residual = self.against_residual(target, row);
        let mut gates = GateRow::default();
        self.gate.row(self.rho.lambda_sparse(), &row.logits, &row.support, &mut gates);
        let mut total = 0.0;
        for (s, &k) in row.support.iter().enumerate() {
            let (k, a) = (k as usize, gates.a[s]);
            let atom = &*self.atoms[k];
            let (d, width) = (atom.dim(), atom.width());
            let point = &row.coords[self.coord_offsets[k]..self.coord_offsets[k + 1]];
            let mut jet = BasisJet::new(d, width);
            atom.jet(point, &mut jet);
            let own = self.offsets[k]..self.offsets[k + 1];
            let pull = |axis: usize| {
                let part = |block: &[f64], at: usize| block[at * width..(at + 1) * width].to_vec();
                let (d1, d2) = (part(&jet.d1, axis), part(&jet.d2, axis * d + axis));
                let length = dot(&self.own_gram_times(k, &d1), &d1);
                let against = &residual[own.clone()];
                Pull {
                    slope: factor * a * dot(&d1, against),
                    curvature: factor * a * a * length,
                    second: factor * a * dot(&d2, against),
                }
            };
            let pulls: Vec<(usize, Pull)> =
                walls(atom.factors(), point).map(|wall| (wall.axis, pull(wall.axis))).collect();
            hold(atom.factors(), point, &mut jet);
            let mut h = vec![0.0; d * d];
            for u in 0..d {
                let through = self.own_gram_times(k, &jet.d1[u * width..(u + 1) * width]);
                for v in 0..d {
                    h[u * d + v] = factor * a * a * dot(&through, &jet.d1[v * width..(v + 1) * width]);
                }
            }
            let bend =
                |pair: usize| factor * a * dot(&jet.d2[pair * width..(pair + 1) * width], &residual[own.clone()]);
            let mut second: Vec<f64> = (0..d * d).map(bend).collect();
            coordinate_priors(atom, &self.rho, k, point, |u, term| {
                h[u * (d + 1)] += term.stiffness();
                second[u * (d + 1)] += term.beyond();
            });
            let charge = coordinate_charge(atom.factors(), (&h, &second), d, point, &pulls);
            total += charge.max(least * d as f64);
            if !self.gate.shares() && self.n_free() > 0 {
                let curve = self.own_gram_times(k, &jet.phi);
                let slope = gates.da[s * gates.free + s];
                let seen = factor * slope * slope * dot(&curve, &jet.phi);
                // an improper gate's closed logits have unit stiffness
                let precision = self.gate.logit_precision();
                total += 0.5 * (seen / if precision > 0.0 { precision } else { 1.0 }).ln_1p();
            }
        }
        total
    }

    /// Energy of the priors of one atom's coordinate.
    pub fn coordinate_energy(&self, k: usize, point: &[f64]) -> f64 {
        let mut energy = 0.0;
        coordinate_priors(&*self.atoms[k], &self.rho, k, point, |_, term| energy += term.energy);
        energy
    }

    /// A stored point of every atom, one after the other.
    pub fn origins(&self) -> Vec<f64> {
        let mut coords = vec![0.0; self.coord_offsets[self.atoms.len()]];
        for (k, atom) in self.atoms.iter().enumerate() {
            atom.origin(&mut coords[self.coord_offsets[k]..self.coord_offsets[k + 1]]);
        }
        coords
    }

    /// Damped Newton on the row's objective, its support held. `logits_only` leaves coordinates alone.
    pub fn polish(&self, target: &Target, row: RowState, logits_only: bool) -> RowState {
        let mut row = self.descend(target, row, logits_only);
        // what is held at a wall and would rather leave it is let go, and may come back once
        let most = row.support.iter().map(|&k| 1 + self.atoms[k as usize].dim()).sum::<usize>();
        for _ in 0..most {
            let Some(released) = self.released(target, &row, logits_only) else { break };
            let next = self.descend(target, released, logits_only);
            if next.objective >= row.objective {
                break;
            }
            row = next;
        }
        row
    }

    /// The row with those logits just above their walls, and those coordinates just inside the ends of their intervals,
    /// whose objective falls from there; `None` when none does.
    fn released(&self, target: &Target, row: &RowState, logits_only: bool) -> Option<RowState> {
        let held = |k: &&u32| self.gate.held(**k as usize, row.logits[**k as usize]);
        let ends = if logits_only { Vec::new() } else { self.ends(row) };
        if ends.is_empty() && !row.support.iter().any(|k| held(&k)) {
            return None;
        }
        let mut inside = row.clone();
        row.support.iter().filter(held).for_each(|&k| inside.logits[k as usize] = inside.logits[k as usize].next_up());
        for &(_, at, inward) in &ends {
            let t = &mut inside.coords[at];
            *t = if inward > 0.0 { t.next_up() } else { t.next_down() };
        }
        let slopes = self.local(target, &inside).gradient;
        let mut out = row.clone();
        let mut any = false;
        for &k in row.support.iter().filter(held).filter(|&&k| slopes[k as usize] < 0.0) {
            out.logits[k as usize] = inside.logits[k as usize];
            any = true;
        }
        for &(_, at, _) in ends.iter().filter(|&&(u, _, inward)| inward * slopes[u] < 0.0) {
            out.coords[at] = inside.coords[at];
            any = true;
        }
        any.then_some(out)
    }

    /// Coordinates of the support at an end of their interval: the variable, where it is stored, and which way is inside.
    fn ends(&self, row: &RowState) -> Vec<(usize, usize, f64)> {
        let mut slot = self.n_free();
        let mut out = Vec::new();
        for &k in &row.support {
            let (atom, at) = (&self.atoms[k as usize], self.coord_offsets[k as usize]);
            let point = &row.coords[at..self.coord_offsets[k as usize + 1]];
            out.extend(walls(atom.factors(), point).map(|wall| (slot + wall.axis, at + wall.stored, wall.inward)));
            slot += atom.dim();
        }
        out
    }

    fn descend(&self, target: &Target, mut row: RowState, logits_only: bool) -> RowState {
        let free = self.n_free();
        let mut here = self.local(target, &row);
        let mut damping = 0.0f64;
        row.converged = false;
        for _ in 0..MAX_STEPS {
            let q = if logits_only { free } else { here.gradient.len() };
            let mut step = Vec::new();
            // the smallest damping that makes the Hessian positive definite
            loop {
                let n = here.gradient.len();
                let mut matrix = vec![0.0; q * q];
                for u in 0..q {
                    matrix[u * q..(u + 1) * q].copy_from_slice(&here.hessian[u * n..u * n + q]);
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
            if decrement <= DECREMENT * DECREMENT {
                row.converged = true;
                break;
            }
            let next = self.moved(&row, &step);
            let there = self.local(target, &next);
            let rounding = 64.0
                * f64::EPSILON
                * (1.0 + here.value.abs() + 0.5 * target.weight * target.length * self.inverse_dispersion);
            if there.value < here.value || (decrement < rounding && there.value <= here.value + rounding) {
                let shrunk =
                    dot(&there.gradient[..q], &there.gradient[..q]) < dot(&here.gradient[..q], &here.gradient[..q]);
                if decrement < rounding && !shrunk {
                    row.converged = true;
                    break;
                }
                (row, here) = (next, there);
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

    fn moved(&self, row: &RowState, step: &[f64]) -> RowState {
        let free = self.n_free();
        let mut next = row.clone();
        next.logits[..free].iter_mut().zip(step).for_each(|(l, d)| *l += d);
        for &k in &row.support {
            if let Some(wall) = self.gate.wall(k as usize) {
                next.logits[k as usize] = next.logits[k as usize].max(wall);
            }
        }
        let mut u = free;
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
        next
    }

    /// The row's objective with its derivatives.
    fn local(&self, target: &Target, row: &RowState) -> Local {
        let free = self.n_free();
        let m = self.offsets[self.atoms.len()];
        let factor = target.weight * self.inverse_dispersion;
        let q = free + row.support.iter().map(|&k| self.atoms[k as usize].dim()).sum::<usize>();
        let mut gate = GateRow::default();
        self.gate.row(self.rho.lambda_sparse(), &row.logits, &row.support, &mut gate);
        // columns of Q through each atom's basis row and its derivatives: all of Q D' is sums of these
        let mut phi = vec![0.0; m];
        let mut d = vec![0.0; q * m];
        let mut through = vec![0.0; q * m];
        let mut jets = Vec::with_capacity(row.support.len());
        let mut slot = free;
        for (s, &k) in row.support.iter().enumerate() {
            let k = k as usize;
            let (atom, rows) = (&self.atoms[k], self.offsets[k]..self.offsets[k + 1]);
            let mut jet = BasisJet::new(atom.dim(), atom.width());
            let point = &row.coords[self.coord_offsets[k]..self.coord_offsets[k + 1]];
            atom.jet(point, &mut jet);
            hold(atom.factors(), point, &mut jet);
            axpy(gate.a[s], &jet.phi, &mut phi[rows.clone()]);
            if gate.free > 0 {
                let seen = self.gram_times(k, &jet.phi);
                for f in 0..gate.free {
                    // free logits of the support have their place among all free logits
                    let u = row.support[f] as usize;
                    let da = gate.da[s * gate.free + f];
                    axpy(da, &jet.phi, &mut d[u * m + rows.start..u * m + rows.end]);
                    axpy(da, &seen, &mut through[u * m..(u + 1) * m]);
                }
            }
            for j in 0..atom.dim() {
                let u = slot + j;
                let d1 = &jet.d1[j * atom.width()..(j + 1) * atom.width()];
                axpy(gate.a[s], d1, &mut d[u * m + rows.start..u * m + rows.end]);
                axpy(gate.a[s], &self.gram_times(k, d1), &mut through[u * m..(u + 1) * m]);
            }
            slot += atom.dim();
            jets.push(jet);
        }
        let mut curve = vec![0.0; m];
        for (s, &k) in row.support.iter().enumerate() {
            axpy(gate.a[s], &self.gram_times(k as usize, &jets[s].phi), &mut curve);
        }
        let mut value = 0.5 * factor * (dot(&phi, &curve) - 2.0 * dot(&phi, &target.against) + target.length);
        let slope: Vec<f64> = curve.iter().zip(&target.against).map(|(c, b)| factor * (c - b)).collect();
        let mut out = Local { value, gradient: vec![0.0; q], hessian: vec![0.0; q * q], scale: vec![0.0; q] };
        for u in 0..q {
            out.gradient[u] = dot(&d[u * m..(u + 1) * m], &slope);
            for v in 0..=u {
                let inner = factor * dot(&through[u * m..(u + 1) * m], &d[v * m..(v + 1) * m]);
                out.hessian[u * q + v] = inner;
                out.hessian[v * q + u] = inner;
            }
            out.scale[u] = out.hessian[u * q + u];
        }
        self.add_second(row, &gate, &jets, &slope, &mut out);
        value += self.add_priors(row, &mut out);
        out.value = value;
        out
    }

    /// Atom k's block of Q times x.
    fn own_gram_times(&self, k: usize, x: &[f64]) -> Vec<f64> {
        let own = self.offsets[k]..self.offsets[k + 1];
        own.clone().map(|m| dot(&self.gram.row(m).to_slice().expect("standard layout")[own.clone()], x)).collect()
    }

    /// Q times a stacked vector that is `x` on atom k's rows and zero elsewhere.
    fn gram_times(&self, k: usize, x: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; self.gram.nrows()];
        for (value, m) in x.iter().zip(self.offsets[k]..) {
            // Q is symmetric, so its rows are its columns
            axpy(*value, self.gram.row(m).as_slice().expect("standard layout"), &mut out);
        }
        out
    }

    /// Second derivatives of the stacked basis row against `slope`.
    fn add_second(&self, row: &RowState, gate: &GateRow, jets: &[BasisJet], slope: &[f64], out: &mut Local) {
        let mut slot = self.n_free();
        let atoms = row.support.iter().zip(jets).map(|(&k, jet)| {
            let k = k as usize;
            let against = &slope[self.offsets[k]..self.offsets[k + 1]];
            let atom = SecondAtom { phi: &jet.phi, d1: &jet.d1, d2: &jet.d2, against, slot };
            slot += self.atoms[k].dim();
            atom
        });
        // free logits of the support have their place among all free logits
        add_second(gate, |a| row.support[a] as usize, atoms, out.gradient.len(), &mut out.hessian);
    }

    /// Adds the priors' gradient and curvature; returns their energy. A coordinate outside the support integrates to one
    /// and has none.
    fn add_priors(&self, row: &RowState, out: &mut Local) -> f64 {
        let (q, free) = (out.gradient.len(), self.n_free());
        let mut energy = 0.0;
        if free > 0 {
            let (lambda, precision) = (self.rho.lambda_sparse(), self.gate.logit_precision());
            let mut prior = GatePrior::default();
            self.gate.prior(&row.logits, &mut prior);
            energy += lambda * prior.energy;
            let mut unit = vec![0.0; free];
            let mut column = vec![0.0; free];
            for u in 0..free {
                let l = row.logits[u];
                energy += 0.5 * precision * l * l;
                if self.gate.held(u, l) && row.support.contains(&(u as u32)) {
                    out.hessian[u * (q + 1)] += precision;
                    out.scale[u] += precision;
                    continue;
                }
                out.gradient[u] += lambda * prior.gradient[u] + precision * l;
                out.scale[u] += lambda * prior.majoriser[u] + precision;
                (unit[u], column) = (1.0, vec![0.0; free]);
                self.gate.prior_hessian_apply(&row.logits, lambda, &unit, &mut column);
                unit[u] = 0.0;
                column[u] += precision;
                (0..free).for_each(|v| out.hessian[v * q + u] += column[v]);
            }
            if let Some(prior) = self.gate.columns() {
                // one row moves its columns' masses by little: their prices stay
                for &k in &row.support {
                    let k = k as usize;
                    let (score, z) = (self.scores[k], prior.indicator(row.logits[k]));
                    energy += score * z[0];
                    out.gradient[k] += score * z[1];
                    out.hessian[k * (q + 1)] += score * z[2];
                    out.scale[k] += (score * z[2]).max(0.0);
                }
            }
        }
        let mut slot = free;
        for (k, atom) in self.atoms.iter().enumerate() {
            let supported = row.support.contains(&(k as u32));
            if !supported {
                continue;
            }
            let point = &row.coords[self.coord_offsets[k]..self.coord_offsets[k + 1]];
            coordinate_priors(&**atom, &self.rho, k, point, |j, term| {
                energy += term.energy;
                out.gradient[slot + j] += term.gradient;
                out.hessian[(slot + j) * q + slot + j] += term.curvature;
                // a flat coordinate still needs a scale for its damping
                out.scale[slot + j] += term.stiffness();
            });
            slot += atom.dim();
        }
        energy
    }
}
