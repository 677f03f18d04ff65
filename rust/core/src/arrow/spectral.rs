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
use crate::wire::wired;
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

wired!(Spectrum { positions, values, vectors, replaced });

impl Spectrum {
    /// Of a block (q x q) whose row has other eigenvalues up to `largest`.
    fn new(positions: Vec<usize>, mut block: Vec<f64>, largest: f64) -> Self {
        let q = positions.len();
        let vectors = jacobi(&mut block, q);
        let values: Vec<f64> = (0..q).map(|u| block[u * (q + 1)]).collect();
        let floor = floor(&values, largest);
        let replaced = values.iter().map(|&value| is_null(value, floor)).collect();
        Self { positions, values, vectors, replaced }
    }

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
                let chunk = system.lin.chunk(problem, state, c);
                for (_, view, _) in System::rows_of(problem, state, &chunk) {
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

    /// Weight of a logit outside the support in traces: the inverse of its curvature, zero where that is replaced. `f` counts
    /// among the row's logits.
    pub fn logit_weight(&self, problem: &Problem, system: &System, row: usize, f: usize) -> f64 {
        let raw = system.lin.logit_curvature[system.lin.logits(row)][f];
        let used = self.logits(problem, system, row)[f];
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

    /// Curvature of a row's logits; infinite where a step may not move one.
    pub fn logits<'a>(&'a self, _: &Problem, system: &'a System, row: usize) -> &'a [f64] {
        &self.logits.as_ref().unwrap_or(&system.lin.logit_curvature)[system.lin.logits(row)]
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
    let own = &system.lin.logit_curvature[system.lin.logits(view.row)];
    let from = logits.len();
    logits.extend_from_slice(own);
    let block = curvature.raw_block(problem, view);
    let outside = |k: usize| !view.support.contains(&(k as u32));
    if curvature == Curvature::Stiffened {
        for k in (0..free).filter(|&k| outside(k) && own[k] <= 0.0) {
            logits[from + k] = f64::INFINITY;
        }
        return (!small_cholesky(&mut block.clone(), q)).then(|| Spectrum::new(positions(state, view), block, 0.0));
    }
    let largest = (0..free).filter(|&k| outside(k)).map(|k| own[k]).fold(0.0f64, f64::max);
    let least = (0..free).filter(|&k| outside(k)).map(|k| own[k]).fold(f64::INFINITY, f64::min);
    // the largest eigenvalue is at most this
    let bound = (0..q).map(|u| block[u * q + u]).sum::<f64>().max(largest);
    if least > NULL_FLOOR * bound && least_eigenvalue_bound(&block, q) > NULL_FLOOR * bound {
        return None;
    }
    let found = Spectrum::new(positions(state, view), block, largest);
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

/// Where the coupled variables of a row lie among all local variables.
fn positions(state: &State, view: &RowView<'_>) -> Vec<usize> {
    let start = state.layout_of_rows().block(view.row).start;
    (0..view.q).map(|u| start + view.position(u)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A symmetric matrix with given eigenvalues, and a symmetric direction.
    fn blocks() -> impl Strategy<Value = (usize, Vec<f64>, Vec<f64>, Vec<f64>)> {
        (2usize..6).prop_flat_map(|q| {
            let entries = || prop::collection::vec(-1.0f64..1.0, q * q);
            (Just(q), prop::collection::vec(-4.0f64..4.0, q), entries(), entries()).prop_map(
                |(q, logs, basis, change)| {
                    let symmetric =
                        |m: &[f64]| -> Vec<f64> { (0..q * q).map(|i| 0.5 * (m[i] + m[(i % q) * q + i / q])).collect() };
                    let vectors = jacobi(&mut symmetric(&basis), q);
                    let mut block = vec![0.0; q * q];
                    for i in 0..q {
                        // every other eigenvalue far below the floor
                        let value = if i % 2 == 0 { (logs[i]).exp() } else { 1e-13 * (1.0 + i as f64) };
                        for u in 0..q {
                            axpy(
                                value * vectors[i * q + u],
                                &vectors[i * q..(i + 1) * q],
                                &mut block[u * q..(u + 1) * q],
                            );
                        }
                    }
                    let change = symmetric(&change);
                    (q, block, change, symmetric(&basis))
                },
            )
        })
    }

    fn spectrum(q: usize, block: &[f64]) -> Spectrum {
        Spectrum::new((0..q).collect(), block.to_vec(), 0.0)
    }

    fn conditioned(q: usize, block: &[f64]) -> Vec<f64> {
        let mut out = block.to_vec();
        spectrum(q, block).rebuild(&mut out);
        out
    }

    proptest! {
        #[test]
        fn rotations_diagonalise((q, _, change, _) in blocks()) {
            let mut diagonal = change.clone();
            let vectors = jacobi(&mut diagonal, q);
            for i in 0..q {
                let v = &vectors[i * q..(i + 1) * q];
                for u in 0..q {
                    prop_assert!((dot(&change[u * q..(u + 1) * q], v) - diagonal[i * (q + 1)] * v[u]).abs() < 1e-13);
                }
            }
        }

        #[test]
        fn replaced_eigenvalues_are_one((q, block, _, _) in blocks()) {
            let mut diagonal = conditioned(q, &block);
            jacobi(&mut diagonal, q);
            prop_assert!((0..q).all(|u| diagonal[u * (q + 1)] > 1e-9));
            let ones = (0..q).filter(|u| (diagonal[u * (q + 1)] - 1.0).abs() < 1e-12).count();
            prop_assert!(ones >= q / 2);
        }

        /// The adjoint of the map's derivative, along changes that leave the null space as small as it is.
        #[test]
        fn pulling_is_the_adjoint_of_the_derivative((q, block, change, x) in blocks()) {
            // A -> (I + e C) A (I + e C)' moves kept and replaced directions and keeps their number
            let moved = |e: f64| -> Vec<f64> {
                let turn = |a: &[f64]| -> Vec<f64> {
                    (0..q * q).map(|i| a[i] + e * (0..q).map(|k| change[(i / q) * q + k] * a[k * q + i % q]).sum::<f64>())
                        .collect()
                };
                let transposed = |a: &[f64]| -> Vec<f64> { (0..q * q).map(|i| a[(i % q) * q + i / q]).collect() };
                turn(&transposed(&turn(&block)))
            };
            let step = 1e-5;
            let slope: f64 = {
                let (high, low) = (conditioned(q, &moved(step)), conditioned(q, &moved(-step)));
                high.iter().zip(&low).zip(&x).map(|((h, l), x)| x * (h - l)).sum::<f64>() / (2.0 * step)
            };
            let mut pulled = x.clone();
            spectrum(q, &block).pull(&mut pulled);
            let (high, low) = (moved(step), moved(-step));
            let direct: f64 =
                high.iter().zip(&low).zip(&pulled).map(|((h, l), x)| x * (h - l)).sum::<f64>() / (2.0 * step);
            let scale: f64 = block.iter().chain(&[1.0]).fold(0.0, |m, v| m.max(v.abs()));
            // the smallest kept eigenvalue sets how fast a null space turns
            prop_assert!((slope - direct).abs() < 1e-4 * scale, "{slope} {direct}");
        }

        #[test]
        fn a_projected_vector_has_nothing_in_the_replaced_directions((q, block, x, _) in blocks()) {
            let spectrum = spectrum(q, &block);
            let mut projected = x[..q].to_vec();
            spectrum.project(&mut projected);
            for i in 0..q {
                let (before, after) = (dot(&x[..q], spectrum.vector(i)), dot(&projected, spectrum.vector(i)));
                let expected = if spectrum.replaced[i] { 0.0 } else { before };
                prop_assert!((after - expected).abs() < 1e-13);
            }
        }
    }

    #[test]
    fn an_eigenvalue_above_one_is_never_lowered() {
        let kept = spectrum(2, &[1e12, 0.0, 0.0, 5.0]);
        assert!(!kept.replaced.contains(&true));
        let replaced = spectrum(2, &[1e12, 0.0, 0.0, 0.5]);
        assert_eq!(replaced.replaced, vec![false, true]);
        assert_eq!(spectrum(1, &[0.0]).replaced, vec![true]);
    }
}
