//! Encoding rows with frozen decoders: each row on its own, deterministic, in parallel.
//!
//! Candidates come from a grid on every chart and from the gate's own optima; each is polished by Newton steps and the best
//! wins.

use crate::atoms::{Atom, BasisJet};
use crate::errors::ShapeError;
use crate::gates::Gate;
use crate::linalg::{dot, small_backward, small_cholesky, small_forward};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::row::{RowSolver, RowState, Target};
use crate::state::{State, SUPPORT_CUTOFF};
use ndarray::{s, Array2, ArrayView1, ArrayView2};
use rayon::prelude::*;
use std::sync::Arc;

/// Newton steps that bring a grid's best point to the nearest point of its curve.
const MAX_STEPS: usize = 60;
/// Atoms tried alone, and as partners of the best.
const ALONE: usize = 3;
/// A candidate replaces the state a row is in when its objective is lower by this part: below it is rounding.
const BETTER: f64 = 1e-9;

/// What a supported coordinate must earn in nats. A gate near zero lets its coordinate turn to whatever noise the row
/// has in the atom's plane, for a gain below this that the marginal likelihood, which averages over the coordinate, does
/// not see; a coordinate that the data do identify earns many times as much.
const COORDINATE_PRICE: f64 = 1.0;

/// Encoded rows.
#[derive(Clone, Debug)]
pub struct Encoding {
    /// m x K, exactly zero off the support.
    pub gates: Array2<f64>,
    /// Per atom m x d_k.
    pub coords: Vec<Array2<f64>>,
    pub logits: Array2<f64>,
    pub supports: Vec<Vec<u32>>,
    pub objective: Vec<f64>,
    pub converged: Vec<bool>,
}

/// A chart's grid with its basis rows and the squared lengths of its decoded points.
#[derive(Debug)]
struct Grid {
    points: Array2<f64>,
    basis: Array2<f64>,
    lengths: Vec<f64>,
}

/// Frozen decoders and strengths.
#[derive(Debug)]
pub struct Encoder {
    rows: RowSolver,
    grids: Vec<Grid>,
    /// Per atom, the logits of a row that uses it alone, at their prior's optimum, and the support they imply.
    alone: Vec<(Vec<f64>, Vec<u32>)>,
}

impl Encoder {
    /// `decoders` stacked M x p.
    pub fn new(
        atoms: Vec<Arc<dyn Atom>>,
        gate: Arc<dyn Gate>,
        rho: SaeManifoldRho,
        decoders: Array2<f64>,
    ) -> Result<Self, ShapeError> {
        let rows = RowSolver::new(atoms, gate, rho, decoders)?;
        let (atoms, offsets, gram) = (&rows.atoms, &rows.offsets, &rows.gram);
        let grids = atoms
            .iter()
            .enumerate()
            .map(|(k, atom)| {
                let points = atom.search_grid();
                let mut basis = Array2::zeros((points.nrows(), atom.width()));
                for (t, mut row) in points.rows().into_iter().zip(basis.rows_mut()) {
                    atom.basis(&t.to_vec(), row.as_slice_mut().expect("standard layout"));
                }
                let block = gram.slice(s![offsets[k]..offsets[k + 1], offsets[k]..offsets[k + 1]]);
                let lengths = basis.rows().into_iter().map(|b| b.dot(&block.dot(&b))).collect();
                Grid { points, basis, lengths }
            })
            .collect();
        let mut out = Self { rows, grids, alone: Vec::new() };
        out.alone = (0..out.rows.atoms.len()).map(|k| out.settle_alone(k)).collect();
        Ok(out)
    }

    /// Logits of a row whose data do not see them, from a start that favours atom k.
    fn settle_alone(&self, k: usize) -> (Vec<f64>, Vec<u32>) {
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
        let target = Target { against: vec![0.0; self.rows.offsets[n]], length: 0.0, weight: 0.0 };
        let start = RowState {
            logits,
            coords: vec![0.0; self.rows.coord_offsets[n]],
            support: vec![k as u32],
            objective: f64::INFINITY,
            converged: false,
        };
        let settled = self.rows.polish(&target, start, true);
        let mut support = Vec::new();
        self.rows.gate.significant(&settled.logits, SUPPORT_CUTOFF, &mut support);
        if !support.contains(&(k as u32)) {
            support.push(k as u32);
            support.sort_unstable();
        }
        (settled.logits, support)
    }

    /// Encodes centred rows (m x p).
    pub fn encode(&self, rows: ArrayView2<'_, f64>, interrupted: &dyn Fn() -> bool) -> Option<Encoding> {
        self.encode_from(rows, |_| None, |_| 1.0, interrupted)
    }

    /// Encodes rows with the state each is in as one more candidate. `None` when interrupted.
    fn encode_from(
        &self,
        rows: ArrayView2<'_, f64>,
        current: impl Fn(usize) -> Option<RowState> + Sync,
        weight: impl Fn(usize) -> f64 + Sync,
        interrupted: &dyn Fn() -> bool,
    ) -> Option<Encoding> {
        /// Rows between two looks at the interrupt flag.
        const BATCH: usize = 4096;
        let (m, k) = (rows.nrows(), self.rows.atoms.len());
        let mut out = Encoding {
            gates: Array2::zeros((m, k)),
            coords: self.rows.atoms.iter().map(|a| Array2::zeros((m, a.dim()))).collect(),
            logits: Array2::zeros((m, k)),
            supports: Vec::with_capacity(m),
            objective: Vec::with_capacity(m),
            converged: Vec::with_capacity(m),
        };
        let mut a = Vec::new();
        for start in (0..m).step_by(BATCH) {
            if interrupted() {
                return None;
            }
            let end = (start + BATCH).min(m);
            let encoded: Vec<RowState> = (start..end)
                .into_par_iter()
                .map(|i| {
                    let target = self.rows.target(rows.row(i), weight(i));
                    self.best(&target, current(i))
                })
                .collect();
            for (i, row) in (start..end).zip(encoded) {
                self.rows.gate.values(&row.logits, &row.support, &mut a);
                row.support.iter().zip(&a).for_each(|(&k, v)| out.gates[[i, k as usize]] = *v);
                for (k, block) in out.coords.iter_mut().enumerate() {
                    let t = &row.coords[self.rows.coord_offsets[k]..self.rows.coord_offsets[k + 1]];
                    block.row_mut(i).iter_mut().zip(t).for_each(|(o, t)| *o = *t);
                }
                out.logits.row_mut(i).iter_mut().zip(&row.logits).for_each(|(o, l)| *o = *l);
                out.supports.push(row.support);
                out.objective.push(row.objective);
                out.converged.push(row.converged);
            }
        }
        Some(out)
    }

    /// The best candidate of one row.
    fn best(&self, target: &Target, current: Option<RowState>) -> RowState {
        let n = self.rows.atoms.len();
        let origin: Vec<f64> = vec![0.0; self.rows.offsets[n]];
        // best coordinate of each atom alone, and how well it explains the row
        let mut coords = vec![0.0; self.rows.coord_offsets[n]];
        let mut order: Vec<(f64, usize)> = Vec::with_capacity(n);
        for k in 0..n {
            let cost = self.project(target, &origin, k, 1.0, &mut coords);
            order.push((cost, k));
        }
        order.sort_by(|a, b| a.0.total_cmp(&b.0));

        let mut found: Option<RowState> = current.map(|row| self.settled(target, row));
        let mut consider = |candidate: RowState| {
            let better = found.as_ref().is_none_or(|f| {
                self.score(&candidate) < self.score(f) - BETTER * (1.0 + f.objective.abs())
            });
            if better {
                found = Some(candidate);
            }
        };
        for &(_, k) in order.iter().take(ALONE) {
            consider(self.candidate(target, &coords, self.alone[k].0.clone(), self.alone[k].1.clone(), k));
            if n == 1 {
                // a closed curve can pass a row twice: the second-best basin is a candidate as well
                if let Some(second) = self.second_basin(target, &coords) {
                    consider(second);
                }
            }
        }
        for &(_, k) in order.iter().skip(1).take(ALONE - 1) {
            consider(self.pair(target, &coords, order[0].1, k));
        }
        found.expect("at least one candidate")
    }

    /// What candidates are compared by.
    fn score(&self, row: &RowState) -> f64 {
        let coordinates: usize = row.support.iter().map(|&k| self.rows.atoms[k as usize].dim()).sum();
        row.objective + COORDINATE_PRICE * coordinates as f64
    }

    /// A candidate that starts at given logits, with the main atom at its own best coordinate and the other atoms
    /// of the support where they best explain what it leaves.
    fn candidate(&self, target: &Target, alone: &[f64], logits: Vec<f64>, support: Vec<u32>, main: usize) -> RowState {
        let mut row =
            RowState { logits, coords: alone.to_vec(), support, objective: f64::INFINITY, converged: false };
        if row.support.len() > 1 {
            let fitted = self.rows.stacked(&row, &[main as u32]);
            for &k in row.support.clone().iter().filter(|&&k| k as usize != main) {
                self.project(target, &fitted, k as usize, 0.0, &mut row.coords);
            }
        }
        self.settled(target, row)
    }

    /// Two atoms in equal parts.
    fn pair(&self, target: &Target, alone: &[f64], first: usize, second: usize) -> RowState {
        /// Logit lead of the two over the rest.
        const LEAD: f64 = 4.0;
        let free = self.rows.n_free();
        let mut logits = vec![-LEAD; self.rows.atoms.len()];
        (logits[first], logits[second]) = (0.0, 0.0);
        let pinned = if free < logits.len() { logits[free] } else { 0.0 };
        logits.iter_mut().for_each(|l| *l -= pinned);
        let mut support = Vec::new();
        self.rows.gate.significant(&logits, SUPPORT_CUTOFF, &mut support);
        self.candidate(target, alone, logits, support, first)
    }

    /// For one atom: the best start outside the basin of the given coordinate.
    fn second_basin(&self, target: &Target, coords: &[f64]) -> Option<RowState> {
        let grid = &self.grids[0];
        let cost: Vec<f64> = (0..grid.lengths.len())
            .map(|g| grid.lengths[g] - 2.0 * dot(grid.basis.row(g).as_slice().expect("standard"), &target.against))
            .collect();
        let n = cost.len();
        let local_minimum = |g: usize| cost[g] <= cost[(g + 1) % n] && cost[g] <= cost[(g + n - 1) % n];
        let mut minima: Vec<usize> = (0..n).filter(|&g| local_minimum(g)).collect();
        minima.sort_by(|&a, &b| cost[a].total_cmp(&cost[b]));
        let &second = minima.get(1)?;
        let row = RowState {
            logits: self.alone[0].0.clone(),
            coords: grid.points.row(second).to_vec(),
            support: vec![0],
            objective: f64::INFINITY,
            converged: false,
        };
        let row = self.settled(target, row);
        (row.coords != coords).then_some(row)
    }

    /// Sets atom k's coordinate to where its curve best explains the row less `fitted` (a stacked basis row), from the
    /// grid and a few Newton steps; returns the cost there. `length` weighs the curve's own squared length: 1 for an atom
    /// at full strength, 0 for one at vanishing strength, where only the direction matters.
    fn project(&self, target: &Target, fitted: &[f64], k: usize, length: f64, coords: &mut [f64]) -> f64 {
        let grid = &self.grids[k];
        let rows = self.rows.offsets[k]..self.rows.offsets[k + 1];
        let atom = &self.rows.atoms[k];
        let (width, dim) = (atom.width(), atom.dim());
        let mut against: Vec<f64> = target.against[rows.clone()].to_vec();
        for (a, m) in against.iter_mut().zip(rows.clone()) {
            *a -= dot(self.rows.gram.row(m).as_slice().expect("standard layout"), fitted);
        }
        let cost = |g: usize| {
            let basis = grid.basis.row(g);
            length * grid.lengths[g] - 2.0 * dot(basis.as_slice().expect("standard layout"), &against)
        };
        let best = (0..grid.lengths.len()).min_by(|&a, &b| cost(a).total_cmp(&cost(b))).expect("a grid has points");
        let t = &mut coords[self.rows.coord_offsets[k]..self.rows.coord_offsets[k + 1]];
        t.copy_from_slice(grid.points.row(best).as_slice().expect("standard layout"));
        if length == 0.0 {
            return cost(best);
        }
        // Newton on 1/2 Phi Q Phi' - Phi b, as long as it descends
        let block = self.rows.gram.slice(s![rows.clone(), rows]);
        let mut jet = BasisJet::new(dim, width);
        let mut value = f64::INFINITY;
        for _ in 0..MAX_STEPS {
            atom.jet(t, &mut jet);
            let phi = ArrayView1::from(&jet.phi);
            let curve = block.dot(&phi);
            let now = phi.dot(&curve) - 2.0 * dot(&jet.phi, &against);
            let slope: Vec<f64> = curve.iter().zip(&against).map(|(c, a)| c - a).collect();
            if now >= value {
                break;
            }
            value = now;
            let mut gradient: Vec<f64> = jet.d1.chunks_exact(width).map(|d| dot(d, &slope)).collect();
            let mut hessian = vec![0.0; dim * dim];
            for a in 0..dim {
                let da = block.dot(&ArrayView1::from(&jet.d1[a * width..(a + 1) * width]));
                for b in 0..dim {
                    let at = (a * dim + b) * width;
                    hessian[a * dim + b] = dot(da.as_slice().expect("contiguous"), &jet.d1[b * width..(b + 1) * width])
                        + dot(&jet.d2[at..at + width], &slope);
                }
            }
            if !small_cholesky(&mut hessian, dim) {
                break;
            }
            small_forward(&hessian, dim, &mut gradient, 1);
            small_backward(&hessian, dim, &mut gradient, 1);
            t.iter_mut().zip(&gradient).for_each(|(t, s)| *t -= s);
            atom.retract(t);
        }
        value
    }

    /// Polishes a row and makes its support agree with its gates: atoms that come above the cutoff enter, atoms below it
    /// leave if the row stays settled without them.
    fn settled(&self, target: &Target, row: RowState) -> RowState {
        let mut row = self.rows.polish(target, row, false);
        let mut wanted = Vec::new();
        // every round adds an atom or is the last but one
        for _ in 0..=self.rows.atoms.len() {
            self.rows.gate.significant(&row.logits, SUPPORT_CUTOFF, &mut wanted);
            let entering: Vec<u32> = wanted.iter().copied().filter(|k| !row.support.contains(k)).collect();
            if !entering.is_empty() {
                let fitted = self.weighted(&row);
                for &k in &entering {
                    self.project(target, &fitted, k as usize, 0.0, &mut row.coords);
                }
                row.support.extend(entering);
                row.support.sort_unstable();
                row = self.rows.polish(target, row, false);
                continue;
            }
            if wanted.len() == row.support.len() {
                break;
            }
            let mut smaller = row.clone();
            smaller.support.clone_from(&wanted);
            let smaller = self.rows.polish(target, smaller, false);
            self.rows.gate.significant(&smaller.logits, SUPPORT_CUTOFF, &mut wanted);
            if wanted.iter().any(|k| !smaller.support.contains(k)) {
                break;
            }
            row = smaller;
        }
        row
    }

    /// The row's reconstruction as a stacked basis row.
    fn weighted(&self, row: &RowState) -> Vec<f64> {
        let mut a = Vec::new();
        self.rows.gate.values(&row.logits, &row.support, &mut a);
        let mut out = self.rows.stacked(row, &row.support);
        for (&k, a) in row.support.iter().zip(&a) {
            out[self.rows.offsets[k as usize]..self.rows.offsets[k as usize + 1]].iter_mut().for_each(|v| *v *= a);
        }
        out
    }

}

/// The smallest sparsity strength (logarithm, within `bounds`) at which rows that use one atom alone still do.
///
/// Such a row's logits feel their prior only. Below the floor that prior lifts the other gates over the cutoff, so the
/// row's support would no longer agree with its gates. `None` when no row uses one of several atoms alone.
pub fn sparsity_floor(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    bounds: (f64, f64),
) -> Result<Option<f64>, ShapeError> {
    /// Bisections: more than enough for the floor to be exact to rounding of the cutoff.
    const BISECTIONS: usize = 40;
    if problem.n_free() == 0 {
        return Ok(None);
    }
    let mut alone = vec![false; problem.n_atoms()];
    for row in 0..problem.n_rows() {
        if let [k] = state.support(row) {
            alone[*k as usize] = true;
        }
    }
    if !alone.contains(&true) {
        return Ok(None);
    }
    let stays = |log_sparse: f64| -> Result<bool, ShapeError> {
        let mut rho = rho.clone();
        rho.log_lambda_sparse = log_sparse;
        let gate = problem.shared_gate().clone();
        let encoder = Encoder::new(problem.atoms().to_vec(), gate, rho, state.decoders.clone())?;
        Ok(encoder.alone.iter().zip(&alone).all(|((_, support), used)| !used || support.len() == 1))
    };
    let (mut low, mut high) = bounds;
    for _ in 0..BISECTIONS {
        let middle = 0.5 * (low + high);
        if stays(middle)? {
            high = middle;
        } else {
            low = middle;
        }
    }
    Ok(Some(high))
}

/// Re-encodes every row of a state with its own decoders: supports that no longer agree with the gates are refreshed, and
/// a row that fits better elsewhere moves there. Returns the number of rows that changed, or `None` when interrupted.
pub fn refresh(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    interrupted: &dyn Fn() -> bool,
) -> Result<Option<(State, usize)>, ShapeError> {
    let gate = problem.shared_gate().clone();
    let encoder = Encoder::new(problem.atoms().to_vec(), gate, rho.clone(), state.decoders.clone())?;
    let current = |i: usize| Some(state.row(i));
    let weight = |i: usize| problem.weight(i);
    let Some(encoded) = encoder.encode_from(problem.data(), current, weight, interrupted) else { return Ok(None) };
    let mut changed = 0;
    let mut next = state.clone();
    /// A coordinate or gate that moves by less than this has stayed in its basin.
    const SAME_BASIN: f64 = 1e-3;
    let gates = state.gates(problem);
    for i in 0..problem.n_rows() {
        let far = |k: usize| {
            let moved: f64 = (0..encoded.coords[k].ncols())
                .map(|j| (encoded.coords[k][[i, j]] - state.coords[k][[i, j]]).sin().abs())
                .fold(0.0, f64::max);
            (encoded.gates[[i, k]] - gates[[i, k]]).abs() > SAME_BASIN || moved > SAME_BASIN
        };
        let moved = encoded.supports[i].iter().any(|&k| far(k as usize));
        if encoded.supports[i] == state.support(i) && !moved {
            continue;
        }
        changed += 1;
        next.logits.row_mut(i).assign(&encoded.logits.row(i));
        for (block, from) in next.coords.iter_mut().zip(&encoded.coords) {
            block.row_mut(i).assign(&from.row(i));
        }
    }
    if changed == 0 {
        return Ok(Some((next, 0)));
    }
    let next = next.with_support(problem, encoded.supports)?;
    Ok(Some((next, changed)))
}
