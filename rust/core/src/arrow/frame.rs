//! The exact complement split.
//!
//! Local Jacobians `L_i = D_i B` lie in the span of the decoder's rows. In an orthonormal basis of that span (p x r)
//! the border of the arrow has M r variables instead of M p; in its complement the Schur complement is
//! `G_lambda` on each of the p - r remaining channels, exactly.

use crate::linalg::{product, row_space, Op};
use crate::problem::Problem;
use crate::state::State;
use ndarray::{Array2, Axis};

/// Output channels in which the arrow is eliminated.
#[derive(Clone, Debug)]
pub struct Frame {
    /// p x r, `None` for all channels as they are.
    basis: Option<Array2<f64>>,
    /// Decoders in those channels, M x r.
    pub reduced: Array2<f64>,
    /// Number of channels left over.
    pub complement: usize,
}

impl Frame {
    /// All channels.
    pub fn full(decoders: &Array2<f64>) -> Self {
        Self { basis: None, reduced: decoders.clone(), complement: 0 }
    }

    /// The span of the decoder's rows; of a decoder with a frame of its own, all that it may move in.
    pub fn span(problem: &Problem, state: &State) -> Self {
        let decoders = &state.decoders;
        if problem.metric().is_some() {
            // a metric mixes all channels
            return Self::full(decoders);
        }
        let (framed, full): (Vec<usize>, Vec<usize>) =
            (0..problem.n_atoms()).partition(|&k| state.frames.of(k).is_some());
        let mut rows = Array2::zeros((0, decoders.ncols()));
        for k in framed {
            let frame = state.frames.of(k).expect("framed atoms have one");
            rows.append(Axis(0), frame.t()).expect("as many columns as outputs");
        }
        for k in full {
            rows.append(Axis(0), state.decoder(problem, k)).expect("as many columns as outputs");
        }
        let basis = row_space(rows.view());
        if basis.ncols() == decoders.ncols() || basis.ncols() == 0 {
            return Self::full(decoders);
        }
        let complement = decoders.ncols() - basis.ncols();
        let reduced = product((decoders.view(), Op::Plain), (basis.view(), Op::Plain));
        Self { basis: Some(basis), reduced, complement }
    }

    /// Number of channels r.
    pub fn rank(&self) -> usize {
        self.reduced.ncols()
    }

    /// Directions of the output space (p x k) in the frame's channels (r x k).
    pub fn channels_of(&self, directions: &Array2<f64>) -> Array2<f64> {
        match &self.basis {
            None => directions.clone(),
            Some(basis) => product((basis.view(), Op::Transposed), (directions.view(), Op::Plain)),
        }
    }

    /// Splits stacked border columns (M x p) into their part in the frame (M x r) and the rest (M x p).
    pub fn split(&self, border: &Array2<f64>) -> (Array2<f64>, Option<Array2<f64>>) {
        match &self.basis {
            None => (border.clone(), None),
            Some(basis) => {
                let inside = product((border.view(), Op::Plain), (basis.view(), Op::Plain));
                let rest = border - &product((inside.view(), Op::Plain), (basis.view(), Op::Transposed));
                (inside, Some(rest))
            }
        }
    }

    /// Back from the frame to all channels.
    pub fn lift(&self, inside: &Array2<f64>) -> Array2<f64> {
        match &self.basis {
            None => inside.clone(),
            Some(basis) => product((inside.view(), Op::Plain), (basis.view(), Op::Transposed)),
        }
    }
}
