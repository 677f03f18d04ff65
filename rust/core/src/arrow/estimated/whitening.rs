//! A positive definite matrix near a Schur complement, with a factor that is cheap to apply.
//!
//! Of the Schur complement S its blocks of single atoms are taken, in the channels that the atom's decoder spans, and outside of
//! these the atom's own `G_kk (x) I`, from which its rows take what other atoms of theirs leave to see:
//!
//! ```text
//!     P = sum_k [ E_k S_kk E_k' + G_kk (x) (1 - e_k e_k') ],     E_k = 1 (x) e_k,  e_k p x r_k
//! ```
//!
//! What is left out is how atoms meet. It takes memory and work in proportion to the atoms. S has the motions' UU' here, and is
//! without what of them is taken from it: both lie in the channels of their atom.

use super::Absorbed;
use crate::arrow::exact::blocks::{Block, Blocks};
use crate::arrow::{Gauge, System};
use crate::chunks::PerChunk;
use crate::linalg::{axpy, product, Cholesky, Op};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::state::State;
use ndarray::{s, Array2, ArrayView2};
use rayon::prelude::*;

/// The factor of `P = RR'`, over stacked decoders (M x p).
#[derive(Debug)]
pub struct Whitening {
    blocks: Blocks,
    factors: Vec<AtomFactor>,
    n_outputs: usize,
    /// Scales of U's columns when this was made. An exact determinant does not depend on them, an estimate does.
    scales: Vec<f64>,
    /// ln |P|.
    pub(super) log_det: f64,
}

/// Inverses of Cholesky factors.
#[derive(Debug)]
struct AtomFactor {
    /// Of S_kk.
    inside: Array2<f64>,
    /// Of G_kk.
    outside: Array2<f64>,
}

impl Whitening {
    /// `rows` are the Cholesky factors of the rows' blocks, per chunk. `None` where some block is not positive definite in
    /// floating point.
    pub(super) fn new(
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        system: &System,
        rows: &PerChunk<Vec<f64>>,
        absorbed: &[Absorbed],
    ) -> Option<Self> {
        let blocks = Blocks::of_atoms(problem, &system.lin.frame);
        let zeros = blocks.zeros();
        let plan = problem.chunks(8 * zeros.iter().map(Array2::len).sum::<usize>());
        let spread = rows.spread(&system.lin.plan, &plan);
        let rows = spread.as_ref().unwrap_or(rows);
        let taken = plan.summed(zeros, |chunks| {
            let mut taken = blocks.zeros();
            for c in chunks {
                let chunk = system.lin.chunk(problem, state, c);
                blocks.take(problem, state, rho, &chunk, &rows[c], &mut taken);
            }
            taken
        });
        let gram = system.lin.border_gram(problem);
        let p = problem.n_outputs();
        let factor = |k: usize| -> Option<(AtomFactor, f64)> {
            let block = &blocks.all[k];
            let mut own = block.kronecker(&gram) - &taken[k];
            let mut add = |factor: f64, column: &Array2<f64>| {
                let inside = block.inside(column.clone());
                let column = inside.as_slice().expect("standard layout");
                for (value, mut row) in column.iter().zip(own.rows_mut()) {
                    axpy(factor * value, column, row.as_slice_mut().expect("standard layout"));
                }
            };
            for column in system.gauge.columns.iter().filter(|column| column.atom == k) {
                add(column.scale * column.scale, &column.border);
            }
            for motions in absorbed.iter().filter(|motions| motions.rows == problem.rows_of(k)) {
                motions.whitened().iter().for_each(|column| add(-1.0, column));
            }
            let (inside, outside) = (Cholesky::new(own.view())?, Cholesky::new(gram.own(k))?);
            let log_det = inside.log_det() + (p - block.channels()) as f64 * outside.log_det();
            Some((AtomFactor { inside: inside.inverse_lower(), outside: outside.inverse_lower() }, log_det))
        };
        let made: Option<Vec<_>> = (0..problem.n_atoms()).into_par_iter().map(factor).collect();
        let (factors, log_dets): (Vec<_>, Vec<f64>) = made?.into_iter().unzip();
        let scales = system.gauge.columns.iter().map(|column| column.scale).collect();
        Some(Self { blocks, factors, n_outputs: p, scales, log_det: log_dets.iter().sum() })
    }

    /// Gives U's columns the scales that they had when this was made.
    pub(super) fn rescale(&self, gauge: &mut Gauge) {
        debug_assert_eq!(gauge.columns.len(), self.scales.len(), "P is made anew where supports change");
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

    fn visit(&self, x: &mut Array2<f64>, op: Op) {
        let p = self.n_outputs;
        let of_atom = |(block, factor): (&Block, &AtomFactor)| {
            let own = x.slice(s![block.rows[0]..block.rows[0] + block.rows.len(), ..]);
            let mut out = Array2::zeros(own.dim());
            for from in (0..own.ncols()).step_by(p) {
                let solved = factor.solved(block, own.slice(s![.., from..from + p]), op);
                out.slice_mut(s![.., from..from + p]).assign(&solved);
            }
            out
        };
        let parts: Vec<Array2<f64>> = self.blocks.all.par_iter().zip(&self.factors).map(of_atom).collect();
        for (block, part) in self.blocks.all.iter().zip(parts) {
            x.slice_mut(s![block.rows[0]..block.rows[0] + block.rows.len(), ..]).assign(&part);
        }
    }
}

impl AtomFactor {
    /// On an atom's rows (M_k x p).
    fn solved(&self, block: &Block, x: ArrayView2<'_, f64>, op: Op) -> Array2<f64> {
        let x = x.as_standard_layout().into_owned();
        let inside = block.inside(x.clone());
        let rest = x - block.outside(inside.clone());
        let shape = inside.dim();
        let column = inside.into_shape_with_order((shape.0 * shape.1, 1)).expect("one column");
        let solved = product((self.inside.view(), op), (column.view(), Op::Plain));
        let solved = solved.into_shape_with_order(shape).expect("as many entries");
        block.outside(solved) + product((self.outside.view(), op), (rest.view(), Op::Plain))
    }
}
