//! The blocks of the arrow at one state, and the products with them.

use super::{steps_exactly, Curvature, Frame, Gauge};
use crate::linalg::{axpy, dot, gemm, product, Op};
use crate::priors::coordinate_priors;
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::row::{held, held_curvature, linearise, Chunk, Columns, Linearised, RowView};
use crate::state::State;
use crate::wire::Here;
use ndarray::Array2;
use std::ops::Range;

/// A vector over all inner variables.
#[derive(Clone, Debug)]
pub struct Step {
    /// Rows' variables in the order of the state's layout.
    pub local: Vec<f64>,
    /// Stacked decoders, M x p.
    pub border: Array2<f64>,
}

impl Step {
    pub fn zeros_like(other: &Self) -> Self {
        Self { local: vec![0.0; other.local.len()], border: Array2::zeros(other.border.dim()) }
    }

    pub fn dot(&self, other: &Self) -> f64 {
        dot(&self.local, &other.local) + dot(slice(&self.border), slice(&other.border))
    }

    /// `self += factor * other`.
    pub fn add(&mut self, factor: f64, other: &Self) {
        axpy(factor, &other.local, &mut self.local);
        self.border.scaled_add(factor, &other.border);
    }

    pub fn scale(&mut self, factor: f64) {
        self.local.iter_mut().for_each(|v| *v *= factor);
        self.border *= factor;
    }
}

fn slice(a: &Array2<f64>) -> &[f64] {
    a.as_slice().expect("standard layout")
}

/// The objective at a state with the blocks of its arrow.
#[derive(Debug)]
pub struct System {
    pub lin: Linearised,
    /// The motions that the evidence divides out; none in the classic mode.
    pub gauge: Gauge,
    /// The motions that steps and adjoint solves are pinned against.
    pub pins: Gauge,
}

impl System {
    /// `None` when the strengths or the state leave some block without a meaning in floating point.
    pub fn new(problem: &Problem, state: &State, rho: &SaeManifoldRho, frame: Frame) -> Option<Self> {
        let mut lin = linearise(problem, state, rho, frame)?;
        state.frames.project(problem, &mut lin.border_gradient);
        let pins = Gauge::new(problem, state, rho, &lin.gram)?;
        let gauge = if problem.is_proper() { pins.clone() } else { Gauge::default() };
        lin.loss.total().is_finite().then_some(Self { lin, gauge, pins })
    }

    /// The motions whose UU' belongs to a curvature.
    pub(super) fn gauge(&self, curvature: Curvature) -> &Gauge {
        match curvature {
            Curvature::Evidence => &self.gauge,
            Curvature::Stiffened => &self.pins,
        }
    }

    /// The gradient of L.
    pub fn gradient(&self) -> Step {
        Step { local: self.lin.local_gradient.clone(), border: self.lin.border_gradient.clone() }
    }

    /// Runs `work` on every chunk with its part of a local vector; returns the new local vector and the sum of the
    /// `shape` accumulators, folded in fixed order.
    pub(super) fn map_rows(
        &self,
        problem: &Problem,
        state: &State,
        shape: (usize, usize),
        work: impl Fn(&Chunk, &mut [f64], &mut Array2<f64>) + Sync,
    ) -> (Vec<f64>, Array2<f64>) {
        let (parts, sum) = self.lin.plan.accumulated(shape, |chunks, sum| {
            self.local_part(problem, state, chunks, |chunk, out| work(chunk, out, sum))
        });
        (parts.concat(), sum)
    }

    /// The same where only this process's part of the local vector is wanted; all else of it is zero.
    pub(super) fn map_rows_here(
        &self,
        problem: &Problem,
        state: &State,
        shape: (usize, usize),
        work: impl Fn(&Chunk, &mut [f64], &mut Array2<f64>) + Sync,
    ) -> (Vec<f64>, Array2<f64>) {
        let plan = &self.lin.plan;
        let (parts, sum) = plan.accumulated(shape, |chunks, sum| {
            Here::new(self.local_part(problem, state, chunks, |chunk, out| work(chunk, out, sum)))
        });
        let layout = state.layout_of_rows();
        let mut local = Vec::with_capacity(layout.len());
        for (segment, part) in plan.segments().iter().zip(parts) {
            match part.0 {
                Some(part) => local.extend(part),
                None => local.resize(layout.block(plan.rows(segment.end - 1).end - 1).end, 0.0),
            }
        }
        (local, sum)
    }

    /// Runs `work` on every chunk with its part of a local vector; returns the new local vector.
    pub(super) fn local_rows(
        &self,
        problem: &Problem,
        state: &State,
        work: impl Fn(&Chunk, &mut [f64]) + Sync,
    ) -> Vec<f64> {
        self.lin.plan.map(|chunks| self.local_part(problem, state, chunks, &work)).concat()
    }

    /// Runs `work` on every chunk; returns the sum of the `shape` accumulators, folded in fixed order.
    pub(super) fn sum_rows(
        &self,
        problem: &Problem,
        state: &State,
        shape: (usize, usize),
        work: impl Fn(&Chunk, &mut Array2<f64>) + Sync,
    ) -> Array2<f64> {
        let over = |chunks: Range<usize>, sum: &mut Array2<f64>| {
            chunks.for_each(|c| work(&self.lin.chunk(problem, state, c), sum));
        };
        self.lin.plan.accumulated(shape, over).1
    }

    /// A segment's part of a local vector.
    fn local_part(
        &self,
        problem: &Problem,
        state: &State,
        chunks: Range<usize>,
        mut work: impl FnMut(&Chunk, &mut [f64]),
    ) -> Vec<f64> {
        let layout = state.layout_of_rows();
        let mut local = Vec::new();
        for c in chunks {
            let rows = self.lin.plan.rows(c);
            let at = local.len();
            let len = if rows.is_empty() { 0 } else { layout.block(rows.end - 1).end - layout.block(rows.start).start };
            local.resize(at + len, 0.0);
            work(&self.lin.chunk(problem, state, c), &mut local[at..]);
        }
        local
    }

    /// The rows of a chunk with where each row's block begins in the chunk's part of a local vector.
    pub(super) fn rows_of<'a>(
        problem: &'a Problem,
        state: &'a State,
        chunk: &'a Chunk,
    ) -> impl Iterator<Item = (usize, RowView<'a>, Range<usize>)> {
        let layout = state.layout_of_rows();
        let origin = layout.block(chunk.rows.start).start;
        (0..chunk.len()).map(move |index| {
            let view = chunk.row(problem, state, index);
            let block = layout.block(view.row);
            (index, view, block.start - origin..block.end - origin)
        })
    }

    /// `C x`: the rows' share of a border vector given in the frame (M x r).
    pub(super) fn couple(
        &self,
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        border: &Array2<f64>,
    ) -> Vec<f64> {
        let (r, inverse) = (self.lin.frame.rank(), 1.0 / rho.dispersion());
        self.local_rows(problem, state, |chunk, out| {
            let seen = chunk.phi.times(border);
            for (index, view, block) in Self::rows_of(problem, state, chunk) {
                let factor = problem.weight(view.row) * inverse;
                let seen = &slice(&seen)[index * r..(index + 1) * r];
                for u in 0..view.q {
                    out[block.start + view.position(u)] = factor * dot(&view.jacobian[u * r..(u + 1) * r], seen);
                }
            }
        })
    }

    /// `C' x`: the border's share of a local vector, in the frame (M x r).
    pub(super) fn couple_transposed(
        &self,
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        local: &[f64],
    ) -> Array2<f64> {
        let (r, inverse) = (self.lin.frame.rank(), 1.0 / rho.dispersion());
        let layout = state.layout_of_rows();
        self.sum_rows(problem, state, (problem.width(), r), |chunk, sum| {
            let origin = layout.block(chunk.rows.start).start;
            let mut pulled = Array2::<f64>::zeros((chunk.len(), r));
            for (index, view, block) in Self::rows_of(problem, state, chunk) {
                let factor = problem.weight(view.row) * inverse;
                let mut row = pulled.row_mut(index);
                let row = row.as_slice_mut().expect("standard layout");
                for u in 0..view.q {
                    let value = factor * local[origin + block.start + view.position(u)];
                    axpy(value, &view.jacobian[u * r..(u + 1) * r], row);
                }
            }
            chunk.phi.add_transposed(pulled.view(), sum.view_mut());
        })
    }

    /// Whether products with G go through the rows: where those use fewer columns than G has entries.
    pub(super) fn is_by_rows(&self, state: &State, problem: &Problem) -> bool {
        let layout = state.layout_of_rows();
        let columns = |k: usize| layout.users(k).len() * problem.rows_of(k).len();
        problem.metric().is_none()
            && self.lin.gram.blocks().is_some_and(|held| (0..problem.n_atoms()).map(columns).sum::<usize>() < held)
    }

    /// `G x` for stacked columns (M x c).
    pub(super) fn gram_times(
        &self,
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        x: &Array2<f64>,
    ) -> Array2<f64> {
        if !self.is_by_rows(state, problem) {
            return self.lin.gram.times(x);
        }
        self.times_by_rows(problem, state, rho, x)
    }

    /// The same by way of the rows, each in its metric if it has one; G itself knows of none.
    pub(super) fn times_by_rows(
        &self,
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        x: &Array2<f64>,
    ) -> Array2<f64> {
        let inverse = 1.0 / rho.dispersion();
        let mut out = self.sum_rows(problem, state, x.dim(), |chunk, sum| {
            let mut seen = chunk.phi.times(x);
            problem.weigh(chunk.rows.clone(), inverse, &mut seen);
            chunk.phi.add_transposed(seen.view(), sum.view_mut());
        });
        out += &self.lin.prior.apply(problem, x);
        out
    }

    /// Product with the exact Hessian of L plus `UU'`.
    ///
    /// With V the border part, E_i = sum_u v_u D_u and Q = BB', the residual enters only against V and E:
    /// rows get `D_i [(BV' + VB') phi_i + Q E_i - V z_i] w/phi` and their second-derivative block; the border gets
    /// `G V + (sum phi_i E_i' + E_i phi_i') B w/phi - sum E_i z_i' w/phi`. Two products with the data in all.
    pub fn apply_exact(&self, problem: &Problem, state: &State, rho: &SaeManifoldRho, x: &Step) -> Step {
        let (m, p) = state.decoders.dim();
        // rows against Q cost 3M a column of theirs, in the channels 5p; the classic mode's pins are in G alone
        if problem.metric().is_some() || (problem.is_proper() && 3 * m > 5 * p) {
            return self.apply_exact_in_channels(problem, state, rho, x);
        }
        let b = &state.decoders;
        let q = product((b.view(), Op::Plain), (b.view(), Op::Transposed));
        let bv = product((b.view(), Op::Plain), (x.border.view(), Op::Transposed));
        let mixed = &bv + &bv.t();
        let inverse = 1.0 / rho.dispersion();
        let layout = state.layout_of_rows();
        let (mut local, sums) = self.map_rows(problem, state, (m, m + p), |chunk, out, sum| {
            let origin = layout.block(chunk.rows.start).start;
            let mut moved = chunk.phi.zeros_like();
            let mut v = Vec::new();
            for (index, view, block) in Self::rows_of(problem, state, chunk) {
                let block = &x.local[origin + block.start..origin + block.end];
                v.clear();
                v.extend((0..view.q).map(|u| block[view.position(u)]));
                view.push(&v, 1.0, &mut moved, index);
            }
            let z = problem.rows(chunk.rows.clone());
            let mut against = chunk.phi.zeros_like();
            against.add_times(&chunk.phi, &mixed);
            against.add_times(&moved, &q);
            against.add_meeting(-1.0, z.view(), &x.border);
            let mut pulled = Vec::new();
            for (index, view, at) in Self::rows_of(problem, state, chunk) {
                let factor = problem.weight(view.row) * inverse;
                let block = &x.local[origin + at.start..origin + at.end];
                let out = &mut out[at];
                v.clear();
                v.extend((0..view.q).map(|u| block[view.position(u)]));
                pulled.clear();
                pulled.resize(view.q, 0.0);
                view.pull(&against, index, factor, &mut pulled);
                for u in 0..view.q {
                    out[view.position(u)] = pulled[u] + dot(&view.second[u * view.q..(u + 1) * view.q], &v);
                }
                apply_row_priors(problem, state, rho, &self.lin.columns, &view, block, out);
                moved.scale_row(index, factor);
            }
            // the two border sums side by side: sum phi E' and sum E z'
            let (mut crossed, mut data) = (Array2::zeros((m, m)), Array2::zeros((m, p)));
            chunk.phi.add_crossed(&moved, crossed.view_mut());
            moved.add_transposed(z.view(), data.view_mut());
            let (mut left, mut right) = sum.view_mut().split_at(ndarray::Axis(1), m);
            left += &crossed;
            right += &data;
        });
        let crossed = sums.slice(ndarray::s![.., ..m]);
        let crossed = &crossed + &crossed.t();
        let mut border = self.lin.gram.times(&x.border);
        gemm(&mut border.view_mut(), true, 1.0, (crossed.view(), Op::Plain), (b.view(), Op::Plain));
        border -= &sums.slice(ndarray::s![.., m..]);
        self.pins.apply(problem, &x.border, &mut border);
        state.frames.project(problem, &mut border);
        self.lin.columns.apply_coupling(problem, state, &x.local, &mut local);
        Step { local, border }
    }

    /// The same product in the output channels, where rows have a metric or atoms are many: with `y_i = P_i (V' phi_i + B' E_i) w/phi` and the residual's
    /// `rho_i = P_i r_i w/phi`, rows get `D_i (B y_i + V rho_i)` and the border `phi_i y_i' + E_i rho_i'`.
    ///
    /// Rows that are linearised in all channels have `D_i B`, their Jacobian, and rho at hand.
    fn apply_exact_in_channels(&self, problem: &Problem, state: &State, rho: &SaeManifoldRho, x: &Step) -> Step {
        let (m, p) = state.decoders.dim();
        let b = &state.decoders;
        let inverse = 1.0 / rho.dispersion();
        let layout = state.layout_of_rows();
        let at_hand = self.lin.frame.is_full() && steps_exactly(problem, state);
        let (mut local, mut border) = self.map_rows(problem, state, (m, p), |chunk, out, sum| {
            let origin = layout.block(chunk.rows.start).start;
            let mut moved = chunk.phi.zeros_like();
            let mut v = Vec::new();
            for (index, view, block) in Self::rows_of(problem, state, chunk) {
                let block = &x.local[origin + block.start..origin + block.end];
                v.clear();
                v.extend((0..view.q).map(|u| block[view.position(u)]));
                view.push(&v, 1.0, &mut moved, index);
            }
            let mut y = chunk.phi.times(&x.border);
            let residual = (!at_hand).then(|| {
                y += &moved.times(b);
                let mut residual = chunk.phi.times(b);
                residual -= &problem.rows(chunk.rows.clone());
                for rows in [&mut y, &mut residual] {
                    problem.weigh(chunk.rows.clone(), inverse, rows);
                }
                residual
            });
            let against = match &residual {
                None => chunk.residual_against(&x.border),
                Some(residual) => {
                    let mut against = chunk.phi.meeting(&y, b);
                    against.add_meeting(1.0, residual.view(), &x.border);
                    against
                }
            };
            let mut pulled = Vec::new();
            for (index, view, at) in Self::rows_of(problem, state, chunk) {
                let block = &x.local[origin + at.start..origin + at.end];
                let out = &mut out[at];
                v.clear();
                v.extend((0..view.q).map(|u| block[view.position(u)]));
                pulled.clear();
                pulled.resize(view.q, 0.0);
                view.pull(&against, index, 1.0, &mut pulled);
                if at_hand {
                    let mut y = y.row_mut(index);
                    let y = y.as_slice_mut().expect("standard layout");
                    v.iter().zip(view.jacobian.chunks_exact(p)).for_each(|(v, motion)| axpy(*v, motion, y));
                    let factor = problem.weight(view.row) * inverse;
                    y.iter_mut().for_each(|y| *y *= factor);
                    pulled
                        .iter_mut()
                        .zip(view.jacobian.chunks_exact(p))
                        .for_each(|(out, motion)| *out += dot(motion, y));
                }
                for u in 0..view.q {
                    out[view.position(u)] = pulled[u] + dot(&view.second[u * view.q..(u + 1) * view.q], &v);
                }
                apply_row_priors(problem, state, rho, &self.lin.columns, &view, block, out);
            }
            chunk.phi.add_transposed(y.view(), sum.view_mut());
            match &residual {
                None => chunk.add_against_residual(&moved, sum),
                Some(residual) => moved.add_transposed(residual.view(), sum.view_mut()),
            }
        });
        border += &self.lin.prior.apply(problem, &x.border);
        self.pins.apply(problem, &x.border, &mut border);
        state.frames.project(problem, &mut border);
        self.lin.columns.apply_coupling(problem, state, &x.local, &mut local);
        Step { local, border }
    }
}

/// Adds the exact Hessian of a row's priors times its block.
fn apply_row_priors(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    columns: &Columns,
    view: &RowView<'_>,
    x: &[f64],
    out: &mut [f64],
) {
    let atoms = state.layout_of_rows().logit_atoms(view.row);
    if !atoms.is_empty() {
        let (logits, free) = (state.logits_of(view.row), atoms.len());
        problem.gate().prior_hessian_apply(logits, rho.lambda_sparse(), &x[..free], &mut out[..free]);
        for (f, &k) in atoms.iter().enumerate() {
            let curvature = if held(problem, state, view.row, k as usize) {
                held_curvature(problem)
            } else {
                problem.gate().logit_precision()
            };
            out[f] += curvature * x[f];
        }
        columns.of_row(problem, state, view.row, |at, k, z| out[at] += columns.terms[k].score * z[2] * x[at]);
    }
    for (&k, &start) in view.support.iter().zip(view.coord_starts) {
        let (k, start) = (k as usize, start as usize);
        coordinate_priors(&*problem.atoms()[k], rho, k, state.point(k, view.row), |j, term| {
            out[start + j] += term.curvature * x[start + j];
        });
    }
}
