//! The border's variables when rows go first: decoders in the arrow's frame, in frames of their own, and the channels that no
//! decoder spans.
//!
//! Decoders with a frame of their own (`crate::frames`) have only the variables `V = blockdiag(I (x) W_k)`, W_k being their
//! frame in the arrow's channels, so that the Schur complement is `V'SV` and they have no part in the other channels.

use super::System;
use crate::linalg::Cholesky;
use crate::problem::Problem;
use crate::state::State;
use ndarray::{Array2, Axis};

/// How the border of one factorisation is laid out.
#[derive(Debug)]
pub(super) struct Border {
    /// V, (M r) x (sum_k M_k r_k); `None` when no decoder has a frame of its own.
    own: Option<Array2<f64>>,
    /// Stacked rows that have variables in the channels outside the frame, with the factor of their G; all rows mostly.
    outside: Option<(Vec<usize>, Cholesky)>,
    /// Number of those channels.
    complement: usize,
}

impl Border {
    /// `None` where G is not positive definite in floating point.
    pub(super) fn new(problem: &Problem, state: &State, system: &System) -> Option<Self> {
        let (frame, gram) = (&system.lin.frame, &system.lin.gram);
        let full: Vec<usize> =
            (0..problem.n_atoms()).filter(|&k| state.frames.of(k).is_none()).flat_map(|k| problem.rows_of(k)).collect();
        let outside = if full.is_empty() {
            None
        } else {
            let part = gram.select(Axis(0), &full).select(Axis(1), &full);
            Some((full, Cholesky::new(part.view())?))
        };
        let own = (!state.frames.is_empty()).then(|| {
            let (m, r) = (problem.width(), frame.rank());
            let mut map = Array2::zeros((m * r, state_variables(problem, state, r)));
            let mut at = 0;
            for k in 0..problem.n_atoms() {
                let inside = match state.frames.of(k) {
                    Some(own) => frame.channels_of(own),
                    None => Array2::eye(r),
                };
                for row in problem.rows_of(k) {
                    let to = at + inside.ncols();
                    map.slice_mut(ndarray::s![row * r..(row + 1) * r, at..to]).assign(&inside);
                    at = to;
                }
            }
            map
        });
        Some(Self { own, outside, complement: frame.complement })
    }

    /// The Schur complement over the border's variables.
    pub(super) fn restrict(&self, schur: Array2<f64>) -> Array2<f64> {
        match &self.own {
            None => schur,
            Some(map) => map.t().dot(&schur.dot(map)),
        }
    }

    /// Its inverse, back over the arrow's frame.
    pub(super) fn lift(&self, inverse: Array2<f64>) -> Array2<f64> {
        match &self.own {
            None => inverse,
            Some(map) => map.dot(&inverse.dot(&map.t())),
        }
    }

    /// Solves with the restricted Schur complement, in place over the arrow's frame (M x r).
    pub(super) fn solve_inside(&self, schur: &Cholesky, inside: &mut Array2<f64>) {
        let flat = inside.as_slice_mut().expect("standard layout");
        match &self.own {
            None => schur.solve_vec(flat),
            Some(map) => {
                let mut x = map.t().dot(&ndarray::ArrayView1::from(&*flat)).to_vec();
                schur.solve_vec(&mut x);
                let lifted = map.dot(&ndarray::Array1::from(x));
                flat.copy_from_slice(lifted.as_slice().expect("standard layout"));
            }
        }
    }

    /// ln of the determinant over the channels outside the frame.
    pub(super) fn log_det(&self) -> f64 {
        self.outside.as_ref().map_or(0.0, |(_, gram)| self.complement as f64 * gram.log_det())
    }

    /// Adds the solution over the channels outside the frame.
    pub(super) fn add_rest(&self, rest: &Array2<f64>, border: &mut Array2<f64>) {
        if let Some((rows, gram)) = &self.outside {
            let mut part = rest.select(Axis(0), rows);
            gram.solve(&mut part.view_mut());
            for (row, solved) in rows.iter().zip(part.rows()) {
                let mut out = border.row_mut(*row);
                out += &solved;
            }
        }
    }

    /// The share of the channels outside the frame in the inverse's partial trace (M x M).
    pub(super) fn rest_trace(&self, m: usize) -> Array2<f64> {
        let mut trace = Array2::zeros((m, m));
        if let Some((rows, gram)) = &self.outside {
            for (a, values) in rows.iter().zip((gram.inverse() * self.complement as f64).rows()) {
                rows.iter().zip(values).for_each(|(b, value)| trace[[*a, *b]] = *value);
            }
        }
        trace
    }
}

/// Border variables in the arrow's frame of rank r.
fn state_variables(problem: &Problem, state: &State, r: usize) -> usize {
    let of_atom = |k: usize| problem.rows_of(k).len() * state.frames.of(k).map_or(r, Array2::ncols);
    (0..problem.n_atoms()).map(of_atom).sum()
}
