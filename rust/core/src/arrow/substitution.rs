//! Substitution through the rows' blocks, with the border still to be solved between its two halves.

use super::border::Border;
use super::spectral::Nulls;
use super::{Step, System};
use crate::chunks::PerChunk;
use crate::linalg::{axpy, dot, small_backward, small_forward};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::row::Chunk;
use crate::state::State;
use ndarray::Array2;

/// Solves `A x = b` for row-major right-hand sides.
pub(super) fn solve_block(l: &[f64], q: usize, b: &mut [f64], width: usize) {
    small_forward(l, q, b, width);
    small_backward(l, q, b, width);
}

/// The rows' factors.
pub(super) struct Substitution<'a> {
    /// Cholesky factors of the rows' blocks, laid end to end per chunk.
    pub(super) factors: &'a PerChunk<Vec<f64>>,
    /// Per chunk, which rows couple to the border by their residual as well; empty where none does.
    pub(super) exact: &'a PerChunk<Vec<bool>>,
    pub(super) nulls: &'a Nulls,
}

impl Substitution<'_> {
    /// Solves an arrow whose border is solved by `reduce`, in place over border vectors in the frame; `borders` are those of
    /// all groups.
    pub(super) fn solve<'b>(
        &self,
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        system: &System,
        rhs: &Step,
        (borders, reduce): (impl Iterator<Item = &'b Border>, impl Fn(&mut Array2<f64>)),
    ) -> Step {
        let frame = &system.lin.frame;
        let (mut inside, rest) = frame.split(&rhs.border);
        let (local, coupled) = self.forward(problem, state, rho, system, &rhs.local);
        inside -= &coupled;
        reduce(&mut inside);
        let local = self.backward(problem, state, rho, system, &local, &inside);
        let mut border = frame.lift(&inside);
        if let Some(rest) = rest {
            borders.for_each(|own| own.add_rest(&rest, &mut border));
        }
        Step { local, border }
    }

    fn exact_rows(&self, chunk: &Chunk) -> &[bool] {
        self.exact.get(chunk.index).map_or(&[], Vec::as_slice)
    }

    /// `A^-1 b` over this process's local variables, and `C' A^-1 b` in the frame.
    fn forward(
        &self,
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        system: &System,
        b: &[f64],
    ) -> (Vec<f64>, Array2<f64>) {
        let layout = state.layout_of_rows();
        let (r, inverse) = (system.lin.frame.rank(), 1.0 / rho.dispersion());
        system.map_rows_here(problem, state, (problem.width(), r), |chunk, out, sum| {
            let factors = &self.factors[chunk.index];
            let origin = layout.block(chunk.rows.start).start;
            let mut pulled = Array2::<f64>::zeros((chunk.len(), r));
            let exact = self.exact_rows(chunk);
            let mut pushed = (!exact.is_empty()).then(|| chunk.phi.zeros_like());
            let (mut at, mut x) = (0, Vec::new());
            for (index, view, block) in System::rows_of(problem, state, chunk) {
                let rhs = &b[origin + block.start..origin + block.end];
                let out = &mut out[block];
                // logits outside the support are diagonal; those inside are overwritten below
                let curvature = self.nulls.logits(problem, system, view.row);
                for ((o, b), c) in out.iter_mut().zip(rhs).zip(curvature) {
                    *o = b / c;
                }
                x.clear();
                x.extend((0..view.q).map(|u| rhs[view.position(u)]));
                solve_block(&factors[at..at + view.q * view.q], view.q, &mut x, 1);
                let factor = problem.weight(view.row) * inverse;
                let mut row = pulled.row_mut(index);
                let row = row.as_slice_mut().expect("standard layout");
                for (u, v) in x.iter().enumerate() {
                    out[view.position(u)] = *v;
                    axpy(factor * v, &view.jacobian[u * r..(u + 1) * r], row);
                }
                if let Some(pushed) = pushed.as_mut().filter(|_| exact[index]) {
                    view.push(&x, 1.0, pushed, index);
                }
                at += view.q * view.q;
            }
            if let Some(pushed) = &pushed {
                chunk.add_against_residual(pushed, sum);
            }
            chunk.phi.add_transposed(pulled.view(), sum.view_mut());
        })
    }

    /// `x - A^-1 C y` over all local variables, for border columns y in the frame; of x each process reads its own part.
    pub(super) fn backward(
        &self,
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        system: &System,
        x: &[f64],
        y: &Array2<f64>,
    ) -> Vec<f64> {
        let layout = state.layout_of_rows();
        let (r, inverse) = (system.lin.frame.rank(), 1.0 / rho.dispersion());
        system.local_rows(problem, state, |chunk, out| {
            let factors = &self.factors[chunk.index];
            let origin = layout.block(chunk.rows.start).start;
            out.copy_from_slice(&x[origin..origin + out.len()]);
            let seen = chunk.phi.times(y);
            let exact = self.exact_rows(chunk);
            let against = (!exact.is_empty()).then(|| chunk.residual_against(y));
            let (mut at, mut moved) = (0, Vec::new());
            for (index, view, block) in System::rows_of(problem, state, chunk) {
                let factor = problem.weight(view.row) * inverse;
                let seen = seen.row(index);
                let seen = seen.as_slice().expect("standard layout");
                moved.clear();
                moved.extend(view.jacobian.chunks_exact(r).map(|l| factor * dot(l, seen)));
                if let Some(against) = against.as_ref().filter(|_| exact[index]) {
                    view.pull(against, index, 1.0, &mut moved);
                }
                solve_block(&factors[at..at + view.q * view.q], view.q, &mut moved, 1);
                let out = &mut out[block];
                for (u, v) in moved.iter().enumerate() {
                    out[view.position(u)] -= v;
                }
                at += view.q * view.q;
            }
        })
    }
}
