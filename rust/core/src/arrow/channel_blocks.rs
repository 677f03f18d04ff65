//! The decoders' curvature with the rows held, for one metric in place of each row's own: their mean.
//!
//! It couples channels only by that metric, in whose eigenvectors it falls into one system of the basis for each. What couples
//! atoms that have frames of their own, or that G does not hold together, is left out. Conjugate gradients over the decoders
//! are preconditioned with it, and steps where a Schur complement would be too large to form.

use super::{Frame, System};
use crate::linalg::{product, symmetric_eigen, Cholesky, Op};
use crate::problem::Problem;
use crate::state::State;
use ndarray::{s, Array2, ArrayView2};
use std::ops::Range;

/// `D (x) Q + P (x) I`, its diagonal blocks where it is not held whole.
#[derive(Debug)]
pub(super) struct ChannelBlocks(Vec<Block>);

impl ChannelBlocks {
    /// At a system's state, in the channels of the frame, or in all of them as they are. `None` where it is not positive definite
    /// in floating point.
    pub(super) fn new(problem: &Problem, state: &State, system: &System, frame: Option<&Frame>) -> Option<Self> {
        let (gram, precision) = (&system.lin.gram, &system.lin.prior.precision);
        let mean = problem.metric().map(|metric| metric.mean());
        if state.frames.is_empty() && gram.blocks().is_none() {
            let mut prior = gram.zeros_like();
            prior.add_blocks(precision);
            let rows = 0..problem.width();
            return Some(Self(vec![Block::new(rows, gram.whole().view(), prior.whole().view(), None, mean)?]));
        }
        let of_atom = |k: usize| {
            let own = state.frames.of(k).map(|own| match frame {
                None => own.clone(),
                Some(frame) => frame.channels_of(k, own),
            });
            Block::new(problem.rows_of(k), gram.own(k), precision[k].view(), own, mean)
        };
        (0..problem.n_atoms()).map(of_atom).collect::<Option<_>>().map(Self)
    }

    /// The solution for stacked decoders, in the channels that it is held in.
    pub(super) fn solve(&self, x: &Array2<f64>) -> Array2<f64> {
        let mut out = Array2::zeros(x.dim());
        self.0.iter().for_each(|block| block.solve(x, &mut out));
        out
    }
}

/// `D (x) Q + P (x) I` over some stacked rows and channels, with D the data's share of G and Q the mean metric in the
/// channels: in the eigenvectors of Q it falls into one system for each.
#[derive(Debug)]
struct Block {
    rows: Range<usize>,
    /// Orthonormal channels, p by their number; `None` for all as they are.
    channels: Option<Array2<f64>>,
    /// One for each channel, or one for all.
    factors: Vec<Cholesky>,
}

impl Block {
    /// From `gram = D + P`. `None` where it is not positive definite in floating point.
    fn new(
        rows: Range<usize>,
        gram: ArrayView2<'_, f64>,
        prior: ArrayView2<'_, f64>,
        frame: Option<Array2<f64>>,
        metric: Option<&Array2<f64>>,
    ) -> Option<Self> {
        let Some(metric) = metric else {
            return Some(Self { rows, channels: frame, factors: vec![Cholesky::new(gram)?] });
        };
        let inside = match &frame {
            None => metric.clone(),
            Some(frame) => frame.t().dot(metric).dot(frame),
        };
        let (values, vectors) = symmetric_eigen(inside.view());
        let channels = match frame {
            None => vectors,
            Some(frame) => product((frame.view(), Op::Plain), (vectors.view(), Op::Plain)),
        };
        let data = &gram - &prior;
        let factors =
            values.iter().map(|value| Cholesky::new((&data * value.max(0.0) + prior).view())).collect::<Option<_>>()?;
        Some(Self { rows, channels: Some(channels), factors })
    }

    /// Its part of a solution, from stacked decoders.
    fn solve(&self, x: &Array2<f64>, out: &mut Array2<f64>) {
        let own = x.slice(s![self.rows.clone(), ..]);
        // channels in rows: each is one right-hand side
        let mut inside = match &self.channels {
            None => own.t().as_standard_layout().into_owned(),
            Some(channels) => product((channels.view(), Op::Transposed), (own, Op::Transposed)),
        };
        for (c, mut channel) in inside.rows_mut().into_iter().enumerate() {
            let factor = self.factors.get(c).unwrap_or(&self.factors[0]);
            factor.solve_vec(channel.as_slice_mut().expect("standard layout"));
        }
        let solved = match &self.channels {
            None => inside.reversed_axes(),
            Some(channels) => product((inside.view(), Op::Transposed), (channels.view(), Op::Transposed)),
        };
        out.slice_mut(s![self.rows.clone(), ..]).assign(&solved);
    }
}
