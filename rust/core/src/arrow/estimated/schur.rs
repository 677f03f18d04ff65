//! Products with the Schur complement: `S x = (G (x) I) x - sum_i phi_i (x) K_i (x' phi_i) + UU'x - E T^-1 E'x`.

use super::Absorbed;
use crate::arrow::substitution::solve_block;
use crate::arrow::System;
use crate::chunks::PerChunk;
use crate::linalg::{axpy, dot};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::state::State;
use ndarray::{s, Array2};

/// What such a product needs.
pub(super) struct Schur<'a> {
    pub(super) problem: &'a Problem,
    pub(super) state: &'a State,
    pub(super) rho: &'a SaeManifoldRho,
    pub(super) system: &'a System,
    /// Cholesky factors of the rows' blocks, per chunk.
    pub(super) blocks: &'a PerChunk<Vec<f64>>,
    pub(super) absorbed: &'a [Absorbed],
}

impl Schur<'_> {
    /// For stacked columns side by side (M x p b).
    pub(super) fn apply(&self, x: &Array2<f64>) -> Array2<f64> {
        let (problem, state, system) = (self.problem, self.state, self.system);
        let inverse = 1.0 / self.rho.dispersion();
        let by_rows = system.is_by_rows(state, problem);
        let taken = system.sum_rows(problem, state, x.dim(), |chunk, sum| {
            let mut seen = chunk.phi.times(x);
            // what the rows add to G x goes with what they take
            let added = by_rows.then(|| seen.clone());
            let (factors, mut at) = (&self.blocks[chunk.index], 0);
            for (index, view, _) in System::rows_of(problem, state, chunk) {
                let l = &factors[at..at + view.q * view.q];
                at += view.q * view.q;
                let factor = problem.weight(view.row) * inverse;
                let mut row = seen.row_mut(index);
                let row = row.as_slice_mut().expect("standard layout");
                match view.q {
                    0 => row.fill(0.0),
                    q => taken_by_row(l, q, view.jacobian, factor, row),
                }
                if let Some(added) = &added {
                    axpy(-factor, added.row(index).to_slice().expect("standard layout"), row);
                }
            }
            chunk.phi.add_transposed(seen.view(), sum.view_mut());
        });
        let mut out = match by_rows {
            true => system.lin.prior.apply(problem, x),
            false => system.lin.border_gram(problem).times(x),
        };
        out -= &taken;
        let p = problem.n_outputs();
        for from in (0..x.ncols()).step_by(p) {
            for column in &system.gauge.columns {
                let rows = s![problem.rows_of(column.atom), from..from + p];
                let seen: f64 = column.border.iter().zip(x.slice(rows)).map(|(a, b)| a * b).sum();
                out.slice_mut(rows).scaled_add(column.scale * column.scale * seen, &column.border);
            }
            for own in self.absorbed {
                let rows = s![own.rows.clone(), from..from + p];
                for column in own.whitened() {
                    let seen: f64 = column.iter().zip(x.slice(rows)).map(|(a, b)| a * b).sum();
                    out.slice_mut(rows).scaled_add(-seen, &column);
                }
            }
        }
        out
    }
}

/// A row's `(w/phi)^2 J'A^-1 J` against what it sees of some columns, in place (channels of all columns side by side).
fn taken_by_row(l: &[f64], q: usize, jacobian: &[f64], factor: f64, seen: &mut [f64]) {
    let p = jacobian.len() / q;
    let b = seen.len() / p;
    let mut x = vec![0.0; q * b];
    for (u, jacobian) in jacobian.chunks_exact(p).enumerate() {
        for (j, seen) in seen.chunks_exact(p).enumerate() {
            x[u * b + j] = factor * factor * dot(jacobian, seen);
        }
    }
    solve_block(l, q, &mut x, b);
    seen.fill(0.0);
    for (u, jacobian) in jacobian.chunks_exact(p).enumerate() {
        for (j, out) in seen.chunks_exact_mut(p).enumerate() {
            axpy(x[u * b + j], jacobian, out);
        }
    }
}
