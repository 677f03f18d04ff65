//! A positive definite matrix near a Schur complement, with a factor that is cheap to apply.
//!
//! `P = (L (x) I) D (L (x) I)'` with `LL' = G`, the border's own curvature, and D the identity but for a block of each atom over
//! the channels that its decoder spans. What rows take from the border, `sum_i (phi_i phi_i') (x) K_i`, becomes
//! `sum_i (psi_i psi_i') (x) K_i` with `psi_i = L^-1 phi_i`, so that an atom's block is a sum over rows of small Kronecker
//! products. The coordinates of an atom's rows are told by its own channels: there the complement is far below G, elsewhere
//! near it.

use super::Absorbed;
use crate::arrow::substitution::solve_block;
use crate::arrow::{Gauge, System};
use crate::linalg::{axpy, product, row_space, small_backward, small_cholesky, small_forward, Op};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::state::State;
use ndarray::{s, Array2};
use std::ops::Range;

/// The factor `R = (L (x) I) C` of `P = RR'`, over stacked decoders (M x p).
#[derive(Debug)]
pub struct Whitening {
    /// L, M x M, row-major.
    lower: Vec<f64>,
    blocks: Vec<Block>,
    n_outputs: usize,
    /// Scales of U's columns. An exact determinant does not depend on them, an estimate does.
    scales: Vec<f64>,
    pub(super) log_det: f64,
}

/// An atom's block of D.
#[derive(Debug)]
struct Block {
    rows: Range<usize>,
    /// Its channels, p x r.
    basis: Array2<f64>,
    /// Cholesky factor over (row, channel), m r x m r.
    lower: Vec<f64>,
}

impl Block {
    /// In place over the block's part of stacked columns (M x p b): `solve` gets m r numbers.
    fn visit(&self, n_outputs: usize, x: &mut Array2<f64>, solve: impl Fn(&[f64], usize, &mut [f64])) {
        let size = self.rows.len() * self.basis.ncols();
        for from in (0..x.ncols()).step_by(n_outputs) {
            let mut own = x.slice_mut(s![self.rows.clone(), from..from + n_outputs]);
            let inside = own.dot(&self.basis).as_standard_layout().into_owned();
            let mut solved: Vec<f64> = inside.iter().copied().collect();
            solve(&self.lower, size, &mut solved);
            let solved = Array2::from_shape_vec(inside.dim(), solved).expect("as many entries");
            own += &product(((solved - inside).view(), Op::Plain), (self.basis.view(), Op::Transposed));
        }
    }
}

impl Whitening {
    /// `blocks` are the Cholesky factors of the rows' blocks, per chunk. `None` where G is not positive definite in floating
    /// point.
    pub(super) fn new(
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        system: &System,
        blocks: &[Vec<f64>],
        absorbed: &[Absorbed],
    ) -> Option<Self> {
        let (m, p) = state.decoders.dim();
        let mut lower: Vec<f64> = system.lin.border_gram(problem).iter().copied().collect();
        if !small_cholesky(&mut lower, m) {
            return None;
        }
        let bases: Vec<Array2<f64>> =
            (0..problem.n_atoms()).map(|k| row_space(state.decoder(problem, k).view())).collect();
        let taken = taken(problem, state, rho, system, (blocks, &lower), &bases);
        let mut log_det = 2.0 * p as f64 * (0..m).map(|a| lower[a * m + a].ln()).sum::<f64>();
        let mut out = Vec::new();
        for (k, (basis, taken)) in bases.into_iter().zip(taken).enumerate() {
            let rows = problem.rows_of(k);
            let size = rows.len() * basis.ncols();
            let mut block: Vec<f64> = taken.iter().map(|v| -v).collect();
            (0..size).for_each(|a| block[a * size + a] += 1.0);
            for (sign, column) in pinned(problem, system, absorbed, k) {
                // of L^-1 u the part over the atom's own rows
                let mut own: Vec<f64> = column.dot(&basis).iter().copied().collect();
                let diagonal = Array2::from_shape_fn((rows.len(), rows.len()), |(a, b)| {
                    lower[(rows.start + a) * m + rows.start + b]
                });
                let diagonal: Vec<f64> = diagonal.iter().copied().collect();
                small_forward(&diagonal, rows.len(), &mut own, basis.ncols());
                for (a, &value) in own.iter().enumerate() {
                    axpy(sign * value, &own, &mut block[a * size..(a + 1) * size]);
                }
            }
            // a block that rounding leaves indefinite says nothing
            if size == 0 || !small_cholesky(&mut block, size) {
                continue;
            }
            log_det += 2.0 * (0..size).map(|a| block[a * size + a].ln()).sum::<f64>();
            out.push(Block { rows, basis, lower: block });
        }
        let scales = system.gauge.columns.iter().map(|column| column.scale).collect();
        Some(Self { lower, blocks: out, n_outputs: p, scales, log_det })
    }

    /// Gives U's columns the scales that they had when this was made.
    pub(in crate::arrow) fn rescale(&self, gauge: &mut Gauge) {
        gauge.columns.iter_mut().zip(&self.scales).for_each(|(column, scale)| column.scale = *scale);
    }

    /// `R^-1 x` in place, for stacked columns side by side (M x p b).
    pub(super) fn whiten(&self, x: &mut Array2<f64>) {
        let (m, width) = x.dim();
        small_forward(&self.lower, m, x.as_slice_mut().expect("standard layout"), width);
        for block in &self.blocks {
            block.visit(self.n_outputs, x, |l, size, v| small_forward(l, size, v, 1));
        }
    }

    /// `R'^-1 x` in place.
    pub(super) fn color(&self, x: &mut Array2<f64>) {
        let (m, width) = x.dim();
        for block in &self.blocks {
            block.visit(self.n_outputs, x, |l, size, v| small_backward(l, size, v, 1));
        }
        small_backward(&self.lower, m, x.as_slice_mut().expect("standard layout"), width);
    }
}

/// U's columns of an atom, and those that are taken from H in the form `-E T^-1 E'`, each with its sign.
fn pinned(problem: &Problem, system: &System, absorbed: &[Absorbed], atom: usize) -> Vec<(f64, Array2<f64>)> {
    let own = system.gauge.columns.iter().filter(|column| column.atom == atom);
    let mut out: Vec<(f64, Array2<f64>)> = own.map(|column| (1.0, &column.border * column.scale)).collect();
    if let Some(absorbed) = absorbed.iter().find(|a| problem.rows_of(atom) == a.rows) {
        out.extend(absorbed.whitened().into_iter().map(|column| (-1.0, column)));
    }
    out
}

/// `sum_i psi_ik psi_ik' (x) Q_k' K_i Q_k` for every atom.
fn taken(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    system: &System,
    (blocks, lower): (&[Vec<f64>], &[f64]),
    bases: &[Array2<f64>],
) -> Vec<Array2<f64>> {
    let m = problem.width();
    let sizes: Vec<usize> = bases.iter().enumerate().map(|(k, q)| problem.rows_of(k).len() * q.ncols()).collect();
    let zeros = || -> Vec<Array2<f64>> { sizes.iter().map(|&size| Array2::zeros((size, size))).collect() };
    let views: Vec<_> = bases.iter().map(|basis| basis.view()).collect();
    let all = ndarray::concatenate(ndarray::Axis(1), &views).expect("as many rows as outputs");
    let all = all.as_standard_layout();
    let inverse = 1.0 / rho.dispersion();
    let parts = system.lin.plan.map(|chunks| {
        let mut total = zeros();
        for c in chunks {
            let chunk = system.lin.chunk(problem, state, c);
            let mut psi = chunk.phi.t().as_standard_layout().into_owned();
            let width = psi.ncols();
            small_forward(lower, m, psi.as_slice_mut().expect("standard layout"), width);
            let mut at = 0;
            for (index, view, _) in System::rows_of(problem, state, &chunk) {
                let q = view.q;
                let l = &blocks[c][at..at + q * q];
                at += q * q;
                if q == 0 {
                    continue;
                }
                let factor = problem.weight(view.row) * inverse;
                let jacobian = Array2::from_shape_vec((q, view.jacobian.len() / q), view.jacobian.to_vec());
                let seen =
                    product((jacobian.expect("a row for each variable").view(), Op::Plain), (all.view(), Op::Plain));
                let channels = seen.ncols();
                let mut seen: Vec<f64> = seen.iter().map(|v| factor * v).collect();
                small_forward(l, q, &mut seen, channels);
                let mut from = 0;
                for (k, total) in total.iter_mut().enumerate() {
                    let (rows, r) = (problem.rows_of(k), bases[k].ncols());
                    let own: Vec<f64> = rows.map(|a| psi[[a, index]]).collect();
                    add_row(&own, &seen, (channels, from, r), total);
                    from += r;
                }
            }
        }
        total
    });
    let mut out = zeros();
    for part in parts {
        out.iter_mut().zip(part).for_each(|(sum, part)| *sum += &part);
    }
    out
}

/// Adds `psi psi' (x) W'W` for the columns `from..from + r` of W (q x channels).
fn add_row(psi: &[f64], w: &[f64], (channels, from, r): (usize, usize, usize), total: &mut Array2<f64>) {
    let mut inner = vec![0.0; r * r];
    for row in w.chunks_exact(channels) {
        let row = &row[from..from + r];
        for (c, value) in row.iter().enumerate() {
            axpy(*value, row, &mut inner[c * r..(c + 1) * r]);
        }
    }
    for (a, x) in psi.iter().enumerate() {
        for (b, y) in psi.iter().enumerate() {
            for c in 0..r {
                let mut out = total.slice_mut(s![a * r + c, b * r..(b + 1) * r]);
                let out = out.as_slice_mut().expect("a part of a row");
                axpy(x * y, &inner[c * r..(c + 1) * r], out);
            }
        }
    }
}

/// A row's `(w/phi)^2 J' A^-1 J` against what it sees of some columns, in place (channels of b columns side by side).
pub(super) fn taken_by_row(l: &[f64], q: usize, jacobian: &[f64], factor: f64, seen: &mut [f64]) {
    let p = jacobian.len() / q.max(1);
    let b = seen.len() / p.max(1);
    let mut x = vec![0.0; q * b];
    for u in 0..q {
        for (j, seen) in seen.chunks_exact(p).enumerate() {
            x[u * b + j] = factor * factor * crate::linalg::dot(&jacobian[u * p..(u + 1) * p], seen);
        }
    }
    solve_block(l, q, &mut x, b);
    seen.fill(0.0);
    for u in 0..q {
        for (j, out) in seen.chunks_exact_mut(p).enumerate() {
            axpy(x[u * b + j], &jacobian[u * p..(u + 1) * p], out);
        }
    }
}
