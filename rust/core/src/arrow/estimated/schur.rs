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
use rayon::prelude::*;
use std::borrow::Cow;

/// What such a product needs.
pub(super) struct Schur<'a> {
    pub(super) problem: &'a Problem,
    pub(super) state: &'a State,
    pub(super) rho: &'a SaeManifoldRho,
    pub(super) system: &'a System,
    /// Cholesky factors of the rows' blocks, per chunk.
    pub(super) blocks: &'a PerChunk<Vec<f64>>,
    /// Per atom the terms `weight v v'` over its decoder (M_k x p) that its motions have: UU', and what is taken of it.
    motions: Vec<Vec<(f64, Cow<'a, Array2<f64>>)>>,
}

impl<'a> Schur<'a> {
    pub(super) fn new(
        (problem, state, rho): (&'a Problem, &'a State, &'a SaeManifoldRho),
        system: &'a System,
        blocks: &'a PerChunk<Vec<f64>>,
        absorbed: &[Absorbed],
    ) -> Self {
        let mut motions = vec![Vec::new(); problem.n_atoms()];
        for column in &system.gauge.columns {
            motions[column.atom].push((column.scale * column.scale, Cow::Borrowed(&column.border)));
        }
        for own in absorbed {
            motions[own.atom].extend(own.whitened().into_iter().map(|column| (-1.0, Cow::Owned(column))));
        }
        Self { problem, state, rho, system, blocks, motions }
    }

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
        problem.by_atoms(&mut out).into_par_iter().enumerate().for_each(|(k, mut out)| {
            let rows = problem.rows_of(k);
            out -= &taken.slice(s![rows.clone(), ..]);
            for from in (0..x.ncols()).step_by(problem.n_outputs()) {
                let channels = from..from + problem.n_outputs();
                let own = x.slice(s![rows.clone(), channels.clone()]);
                let mut out = out.slice_mut(s![.., channels]);
                for (weight, column) in &self.motions[k] {
                    let seen: f64 = column.rows().into_iter().zip(own.rows()).map(|(a, b)| a.dot(&b)).sum();
                    out.scaled_add(weight * seen, &**column);
                }
            }
        });
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
