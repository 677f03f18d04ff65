//! A positive definite matrix near a Schur complement, with a factor that is cheap to apply.
//!
//! What a row takes from the border, `(phi_i phi_i') (x) K_i`, lies in the channels of its atoms, where its own coordinates and
//! gates explain what it sees. So in channels e_c along the atoms' decoders
//!
//! ```text
//!     P = sum_c G_c (x) e_c e_c',    G_c = G - sum_i (e_c'K_i e_c) phi_i phi_i'
//! ```
//!
//! is the Schur complement but for what couples different channels. Each G_c is positive definite, since `K_i <= w_i/phi`.

use crate::arrow::{Gauge, System};
use crate::chunks::PerChunk;
use crate::linalg::{axpy, product, row_space, small_forward, symmetric_eigen, Cholesky, Op};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::state::State;
use ndarray::{s, Array2, Axis};
use rayon::prelude::*;

/// The factor `R = sum_c L_c (x) e_c e_c'` of `P = RR'`, over stacked decoders (M x p).
#[derive(Debug)]
pub struct Whitening {
    /// e_c, p x p.
    channels: Array2<f64>,
    /// L_c^-1, M x M; those of channels that no decoder spans are the last one. Products with the inverse of a factor, applied
    /// to few columns at a time, are several times faster than substitution.
    inverse: Vec<Array2<f64>>,
    /// Scales of U's columns. An exact determinant does not depend on them, an estimate does.
    scales: Vec<f64>,
    pub(super) log_det: f64,
}

impl Whitening {
    /// `blocks` are the Cholesky factors of the rows' blocks, per chunk. `None` where some G_c is not positive definite in
    /// floating point.
    pub(super) fn new(
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        system: &System,
        blocks: &PerChunk<Vec<f64>>,
    ) -> Option<Self> {
        let (m, p) = state.decoders.dim();
        let (channels, rank) = channels(problem, state);
        let spanned = channels.slice(s![.., ..rank]).as_standard_layout().into_owned();
        let taken = taken(problem, state, rho, system, blocks, &spanned);
        let gram = system.lin.border_gram(problem);
        let factor = |c: usize| -> Option<(Array2<f64>, f64)> {
            let mut own = gram.clone();
            if c < rank {
                for a in 0..m {
                    for b in 0..=a {
                        let value = taken[[packed(a, b), c]];
                        own[[a, b]] -= value;
                        own[[b, a]] = own[[a, b]];
                    }
                }
            }
            let factor = Cholesky::new(own.view())?;
            Some((factor.inverse_lower(), factor.log_det()))
        };
        let kinds = rank + usize::from(rank < p);
        let factors: Option<Vec<(Array2<f64>, f64)>> = (0..kinds).into_par_iter().map(factor).collect();
        let factors = factors?;
        let log_det = (0..p).map(|c| factors[c.min(kinds - 1)].1).sum();
        let inverse = factors.into_iter().map(|(inverse, _)| inverse).collect();
        let mut made = Self { channels, inverse, scales: Vec::new(), log_det };
        made.scales = system
            .gauge
            .columns
            .iter()
            .map(|column| {
                // of length one where P is the identity: S is nearly flat along it
                let mut u = Array2::zeros((m, p));
                u.slice_mut(s![problem.rows_of(column.atom), ..]).assign(&column.border);
                made.whiten(&mut u);
                1.0 / u.iter().map(|v| v * v).sum::<f64>().sqrt()
            })
            .collect();
        Some(made)
    }

    /// Gives U's columns the scales that they had when this was made.
    pub(super) fn rescale(&self, gauge: &mut Gauge) {
        gauge.columns.iter_mut().zip(&self.scales).for_each(|(column, scale)| column.scale = *scale);
    }

    /// `R^-1 x` in place, for stacked columns side by side (M x p b).
    pub(super) fn whiten(&self, x: &mut Array2<f64>) {
        self.visit(x, Op::Plain);
    }

    /// `R'^-1 x` in place.
    pub(super) fn color(&self, x: &mut Array2<f64>) {
        self.visit(x, Op::Transposed);
    }

    /// `L_c^-1` as it is or transposed, on every channel.
    fn visit(&self, x: &mut Array2<f64>, op: Op) {
        let (m, p) = (x.nrows(), self.channels.nrows());
        let width = x.ncols() / p;
        let part = |j: usize| s![.., j * p..(j + 1) * p];
        let turn = |j: usize| {
            let own = x.slice(part(j)).as_standard_layout().into_owned();
            product((own.view(), Op::Plain), (self.channels.view(), Op::Plain))
        };
        let turned: Vec<Array2<f64>> = (0..width).into_par_iter().map(turn).collect();
        // M rows of all columns, one channel after the other
        let solved = |c: usize| {
            let own = Array2::from_shape_fn((m, width), |(a, j)| turned[j][[a, c]]);
            product((self.inverse[c.min(self.inverse.len() - 1)].view(), op), (own.view(), Op::Plain))
        };
        let solved: Vec<Array2<f64>> = (0..p).into_par_iter().map(solved).collect();
        let back = |j: usize| {
            let own = Array2::from_shape_fn((m, p), |(a, c)| solved[c][[a, j]]);
            product((own.view(), Op::Plain), (self.channels.view(), Op::Transposed))
        };
        let back: Vec<Array2<f64>> = (0..width).into_par_iter().map(back).collect();
        back.iter().enumerate().for_each(|(j, own)| x.slice_mut(part(j)).assign(own));
    }
}

/// Position of entry (a, b), b <= a, of a packed symmetric matrix.
fn packed(a: usize, b: usize) -> usize {
    a * (a + 1) / 2 + b
}

/// An orthonormal basis of all channels and how many of them decoders span: each atom's strongest directions first, since those
/// are what its rows explain.
fn channels(problem: &Problem, state: &State) -> (Array2<f64>, usize) {
    let p = problem.n_outputs();
    let mut directions: Vec<(usize, Array2<f64>)> = Vec::new();
    for k in 0..problem.n_atoms() {
        let b = state.decoder(problem, k).to_owned();
        let (values, vectors) = symmetric_eigen(product((b.view(), Op::Plain), (b.view(), Op::Transposed)).view());
        let own = product((vectors.view(), Op::Transposed), (b.view(), Op::Plain));
        for (order, (value, row)) in values.iter().zip(own.rows()).rev().enumerate() {
            if *value > 0.0 {
                directions.push((order, row.insert_axis(Axis(0)).to_owned()));
            }
        }
    }
    directions.sort_by_key(|(order, _)| *order);
    let unit = Array2::<f64>::eye(p);
    let mut rows: Vec<_> = directions.iter().map(|(_, row)| row.view()).collect();
    let spanned = match rows.is_empty() {
        true => 0,
        false => row_space(ndarray::concatenate(Axis(0), &rows).expect("as many columns as outputs").view()).ncols(),
    };
    rows.push(unit.view());
    let all = ndarray::concatenate(Axis(0), &rows).expect("as many columns as outputs");
    (row_space(all.view()), spanned)
}

/// `sum_i (e_c'K_i e_c) phi_i phi_i'` for every channel: packed entries x channels.
fn taken(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    system: &System,
    blocks: &PerChunk<Vec<f64>>,
    channels: &Array2<f64>,
) -> Array2<f64> {
    let (m, rank) = (problem.width(), channels.ncols());
    let shape = (m * (m + 1) / 2, rank);
    let inverse = 1.0 / rho.dispersion();
    let plan = problem.chunks(8 * shape.0 * shape.1);
    let spread = blocks.spread(&system.lin.plan, &plan);
    let blocks = spread.as_ref().unwrap_or(blocks);
    plan.summed(Array2::zeros(shape), |chunks| {
        let mut total = Array2::<f64>::zeros(shape);
        let mut share = vec![0.0; rank];
        for c in chunks {
            let chunk = system.lin.chunk(problem, state, c);
            let mut at = 0;
            for (index, view, _) in System::rows_of(problem, state, &chunk) {
                let q = view.q;
                let l = &blocks[c][at..at + q * q];
                at += q * q;
                if q == 0 {
                    continue;
                }
                let jacobian = Array2::from_shape_vec((q, view.jacobian.len() / q), view.jacobian.to_vec());
                let jacobian = jacobian.expect("a row for each variable");
                let mut seen = product((jacobian.view(), Op::Plain), (channels.view(), Op::Plain));
                small_forward(l, q, seen.as_slice_mut().expect("standard layout"), rank);
                let factor = problem.weight(view.row) * inverse;
                share.fill(0.0);
                for row in seen.rows() {
                    share.iter_mut().zip(row).for_each(|(share, v)| *share += (factor * v).powi(2));
                }
                let columns: Vec<usize> = view.support.iter().flat_map(|&k| problem.rows_of(k as usize)).collect();
                let phi = chunk.phi.own(index);
                for (i, &a) in columns.iter().enumerate() {
                    for (j, &b) in columns[..=i].iter().enumerate() {
                        let value = phi[i] * phi[j];
                        let mut row = total.row_mut(packed(a, b));
                        axpy(value, &share, row.as_slice_mut().expect("standard layout"));
                    }
                }
            }
        }
        total
    })
}
