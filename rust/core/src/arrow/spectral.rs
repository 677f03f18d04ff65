//! Near-null directions of the rows' blocks in the classic mode.
//!
//! The classic criterion gives them no weight: an eigenvalue of a row's block (its logits and coordinates together) that is
//! below [`NULL_FLOOR`] of the row's largest, or not positive, is replaced by one and contributes `ln 1 = 0`. One that is
//! above one stays: lowered, it could leave H indefinite. With `A = V diag(l) V'` and `A~ = V diag(l~) V'` the derivative of that map is Daleckii and Krein's,
//!
//! ```text
//!     dA~ = V (F o V' dA V) V',    F_ij = (l~_i - l~_j) / (l_i - l_j),    F_ii = 1 kept, 0 replaced,
//! ```
//!
//! and since F is symmetric, `tr(X dA~) = tr(pull(X) dA)` with `pull(X) = V (F o V' X V) V'`.
//!
//! A step's blocks are left as they are unless their Cholesky factorisation fails; where it does, the step is projected off
//! the replaced directions, since unit stiffness says nothing about how far to go along them.

use super::{Curvature, System};
use crate::linalg::{axpy, dot, small_backward, small_cholesky, small_forward};
use crate::problem::Problem;
use crate::row::RowView;
use crate::state::State;
use std::collections::HashMap;

/// Eigenvalues below this part of a row's largest, and below one, are replaced. Raising it drops more of the weakly determined variables
/// from the criterion.
pub const NULL_FLOOR: f64 = 1e-8;

/// The eigenvalues of one row's block, and which of them are replaced by one.
#[derive(Debug)]
pub struct Spectrum {
    /// Where the block's variables lie among all local variables.
    positions: Vec<usize>,
    values: Vec<f64>,
    /// One eigenvector a row.
    vectors: Vec<f64>,
    replaced: Vec<bool>,
}

impl Spectrum {
    fn conditioned(&self, i: usize) -> f64 {
        if self.replaced[i] {
            1.0
        } else {
            self.values[i]
        }
    }

    fn vector(&self, i: usize) -> &[f64] {
        let q = self.values.len();
        &self.vectors[i * q..(i + 1) * q]
    }

    /// The block with its eigenvalues replaced.
    pub(super) fn rebuild(&self, block: &mut [f64]) {
        let q = self.values.len();
        block.fill(0.0);
        for i in 0..q {
            let v = self.vector(i);
            for u in 0..q {
                axpy(self.conditioned(i) * v[u], v, &mut block[u * q..(u + 1) * q]);
            }
        }
    }

    /// Replaces X (q x q) by `V (F o V' X V) V'`.
    pub fn pull(&self, x: &mut [f64]) {
        let q = self.values.len();
        let mut inner = vec![0.0; q * q];
        for i in 0..q {
            let xv: Vec<f64> = x.chunks_exact(q).map(|row| dot(row, self.vector(i))).collect();
            for j in 0..q {
                let slope = match (self.replaced[i], self.replaced[j]) {
                    (false, false) => 1.0,
                    (true, true) => 0.0,
                    _ => (self.conditioned(i) - self.conditioned(j)) / (self.values[i] - self.values[j]),
                };
                inner[i * q + j] = slope * dot(&xv, self.vector(j));
            }
        }
        x.fill(0.0);
        for i in 0..q {
            for j in 0..q {
                for u in 0..q {
                    axpy(inner[i * q + j] * self.vector(i)[u], self.vector(j), &mut x[u * q..(u + 1) * q]);
                }
            }
        }
    }

    /// Takes the replaced directions out of a vector over all local variables.
    fn project(&self, local: &mut [f64]) {
        for i in (0..self.values.len()).filter(|&i| self.replaced[i]) {
            let along: f64 = self.positions.iter().zip(self.vector(i)).map(|(&at, v)| local[at] * v).sum();
            self.positions.iter().zip(self.vector(i)).for_each(|(&at, v)| local[at] -= along * v);
        }
    }
}

/// What one factorisation replaces.
#[derive(Debug, Default)]
pub struct Nulls {
    rows: HashMap<usize, Spectrum>,
    /// Curvature of all free logits as it is used; `None` for that of the system.
    logits: Option<Vec<f64>>,
    /// Whether solutions are projected off the replaced directions.
    project: bool,
}

impl Nulls {
    pub(super) fn new(problem: &Problem, state: &State, system: &System, curvature: Curvature) -> Self {
        if problem.is_proper() {
            return Self::default();
        }
        let parts = system.lin.plan.map(|chunks| {
            let (mut rows, mut logits) = (Vec::new(), Vec::new());
            for c in chunks {
                for (_, view, _) in System::rows_of(problem, state, &system.lin.chunks[c]) {
                    let spectrum = of_row(problem, state, system, curvature, &view, &mut logits);
                    rows.extend(spectrum.map(|spectrum| (view.row, spectrum)));
                }
            }
            (rows, logits)
        });
        let (mut rows, mut logits) = (HashMap::new(), Vec::new());
        for (of_part, part) in parts {
            rows.extend(of_part);
            logits.extend(part);
        }
        Self { rows, logits: Some(logits), project: curvature == Curvature::Stiffened }
    }

    /// Weight of a free logit outside the support in traces: the inverse of its curvature, zero where that is replaced.
    pub fn logit_weight(&self, problem: &Problem, system: &System, row: usize, k: usize) -> f64 {
        let (raw, used) =
            (system.lin.logit_curvature[row * problem.n_free() + k], self.logits(problem, system, row)[k]);
        if raw == used {
            1.0 / raw
        } else {
            0.0
        }
    }

    /// The row's spectrum, when some of it is replaced.
    pub fn of(&self, row: usize) -> Option<&Spectrum> {
        self.rows.get(&row)
    }

    /// Curvature of a row's free logits; infinite where a step may not move one.
    pub fn logits<'a>(&'a self, problem: &Problem, system: &'a System, row: usize) -> &'a [f64] {
        let free = problem.n_free();
        &self.logits.as_ref().unwrap_or(&system.lin.logit_curvature)[row * free..(row + 1) * free]
    }

    /// Whether [`Self::project`] does anything.
    pub(super) fn projects(&self) -> bool {
        self.project && !self.rows.is_empty()
    }

    pub(super) fn project(&self, local: &mut [f64]) {
        self.rows.values().for_each(|spectrum| spectrum.project(local));
    }
}

/// The replaced part of one row. Appends the curvature of its free logits to `logits`; entries inside the support stay as
/// they are, since the block holds them.
fn of_row(
    problem: &Problem,
    state: &State,
    system: &System,
    curvature: Curvature,
    view: &RowView<'_>,
    logits: &mut Vec<f64>,
) -> Option<Spectrum> {
    let (q, free) = (view.q, problem.n_free());
    let own = &system.lin.logit_curvature[view.row * free..(view.row + 1) * free];
    let from = logits.len();
    logits.extend_from_slice(own);
    let block = curvature.raw_block(problem, view);
    let outside = |k: usize| !view.support.contains(&(k as u32));
    if curvature == Curvature::Stiffened {
        for k in (0..free).filter(|&k| outside(k) && own[k] <= 0.0) {
            logits[from + k] = f64::INFINITY;
        }
        return (!small_cholesky(&mut block.clone(), q)).then(|| spectrum(state, view, block, 0.0));
    }
    let largest = (0..free).filter(|&k| outside(k)).map(|k| own[k]).fold(0.0f64, f64::max);
    let least = (0..free).filter(|&k| outside(k)).map(|k| own[k]).fold(f64::INFINITY, f64::min);
    // the largest eigenvalue is at most this
    let bound = (0..q).map(|u| block[u * q + u]).sum::<f64>().max(largest);
    if least > NULL_FLOOR * bound && least_eigenvalue_bound(&block, q) > NULL_FLOOR * bound {
        return None;
    }
    let found = spectrum(state, view, block, largest);
    let floor = floor(&found.values, largest);
    for k in (0..free).filter(|&k| outside(k) && is_null(own[k], floor)) {
        logits[from + k] = 1.0;
    }
    found.replaced.contains(&true).then_some(found)
}

/// ln of a logit's curvature, zero for one that a step holds.
pub(super) fn ln_held(curvature: f64) -> f64 {
    if curvature < f64::INFINITY {
        curvature.ln()
    } else {
        0.0
    }
}

/// What an eigenvalue must reach to be kept, in a row whose other eigenvalues go up to `largest`.
fn floor(values: &[f64], largest: f64) -> f64 {
    (NULL_FLOOR * values.iter().fold(largest, |m, v| m.max(v.abs()))).min(1.0)
}

fn is_null(value: f64, floor: f64) -> bool {
    value < floor || value <= 0.0
}

/// A lower bound on the least eigenvalue, zero where the block has no Cholesky factor: `1 / tr(A^-1)`.
fn least_eigenvalue_bound(block: &[f64], q: usize) -> f64 {
    let mut factor = block.to_vec();
    if !small_cholesky(&mut factor, q) {
        return 0.0;
    }
    let mut inverse = vec![0.0; q * q];
    (0..q).for_each(|u| inverse[u * (q + 1)] = 1.0);
    small_forward(&factor, q, &mut inverse, q);
    small_backward(&factor, q, &mut inverse, q);
    1.0 / (0..q).map(|u| inverse[u * (q + 1)]).sum::<f64>()
}

/// The spectrum of a block whose row has other eigenvalues up to `largest`.
fn spectrum(state: &State, view: &RowView<'_>, mut block: Vec<f64>, largest: f64) -> Spectrum {
    let q = view.q;
    let vectors = jacobi(&mut block, q);
    let values: Vec<f64> = (0..q).map(|u| block[u * (q + 1)]).collect();
    let floor = floor(&values, largest);
    let replaced = values.iter().map(|&value| is_null(value, floor)).collect();
    let start = state.layout_of_rows().block(view.row).start;
    let positions = (0..q).map(|u| start + view.position(u)).collect();
    Spectrum { positions, values, vectors, replaced }
}

/// Diagonalises a small symmetric matrix in place by cyclic Jacobi rotations, which find the small eigenvalues of a graded
/// positive matrix to their own relative accuracy. Returns the eigenvectors, one a row.
fn jacobi(a: &mut [f64], q: usize) -> Vec<f64> {
    /// Sweeps converge quadratically; a handful is enough for any size that a row has.
    const MAX_SWEEPS: usize = 60;
    let mut vectors = vec![0.0; q * q];
    (0..q).for_each(|u| vectors[u * (q + 1)] = 1.0);
    for _ in 0..MAX_SWEEPS {
        let mut rotated = false;
        for u in 0..q {
            for v in 0..u {
                let (off, au, av) = (a[u * q + v], a[u * q + u], a[v * q + v]);
                // an entry this small changes neither eigenvalue in its last digit
                if off == 0.0 || off.abs() <= f64::EPSILON * (au.abs() * av.abs()).sqrt() {
                    continue;
                }
                rotated = true;
                let theta = (av - au) / (2.0 * off);
                let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
                let c = 1.0 / t.hypot(1.0);
                let s = t * c;
                for k in 0..q {
                    let (x, y) = (a[k * q + u], a[k * q + v]);
                    (a[k * q + u], a[k * q + v]) = (c * x - s * y, s * x + c * y);
                }
                for k in 0..q {
                    let (x, y) = (a[u * q + k], a[v * q + k]);
                    (a[u * q + k], a[v * q + k]) = (c * x - s * y, s * x + c * y);
                    let (x, y) = (vectors[u * q + k], vectors[v * q + k]);
                    (vectors[u * q + k], vectors[v * q + k]) = (c * x - s * y, s * x + c * y);
                }
                (a[u * q + v], a[v * q + u]) = (0.0, 0.0);
            }
        }
        if !rotated {
            break;
        }
    }
    vectors
}
