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

/// How the border of one group of atoms is laid out.
#[derive(Debug)]
pub(super) struct Border {
    /// Stacked rows of the group.
    rows: Vec<usize>,
    /// V, (m r) x (sum_k M_k r_k) over the group's m rows; `None` when no decoder has a frame of its own.
    own: Option<Array2<f64>>,
    /// Places within the group of rows that have variables in the channels outside the frame, with the factor of their G; all
    /// rows mostly.
    outside: Option<(Vec<usize>, Cholesky)>,
    /// Number of those channels.
    complement: usize,
}

impl Border {
    /// `None` where G is not positive definite in floating point.
    pub(super) fn new(problem: &Problem, state: &State, system: &System, group: usize) -> Option<Self> {
        let (frame, gram) = (&system.lin.frame, &system.lin.gram);
        let rows = frame.groups()[group].rows.clone();
        let atoms: Vec<usize> = (0..problem.n_atoms()).filter(|&k| frame.group_of(k) == group).collect();
        let free = atoms.iter().filter(|&&k| state.frames.of(k).is_none());
        let full: Vec<usize> = free.flat_map(|&k| problem.rows_of(k)).collect();
        let outside = if full.is_empty() || frame.complement == 0 {
            None
        } else {
            let factor = Cholesky::new(gram.among(&full).view())?;
            let place = |a: &usize| rows.binary_search(a).expect("rows of the group");
            Some((full.iter().map(place).collect(), factor))
        };
        let own = (!state.frames.is_empty()).then(|| {
            let r = frame.rank();
            let variables = |k: &usize| problem.rows_of(*k).len() * state.frames.of(*k).map_or(r, Array2::ncols);
            let mut map = Array2::zeros((rows.len() * r, atoms.iter().map(variables).sum()));
            let (mut row, mut at) = (0, 0);
            for &k in &atoms {
                let inside = match state.frames.of(k) {
                    Some(own) => frame.channels_of(k, own),
                    None => Array2::eye(r),
                };
                for _ in problem.rows_of(k) {
                    let to = at + inside.ncols();
                    map.slice_mut(ndarray::s![row * r..(row + 1) * r, at..to]).assign(&inside);
                    (row, at) = (row + 1, to);
                }
            }
            map
        });
        Some(Self { rows, own, outside, complement: frame.complement })
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

    /// The group's rows of stacked border columns.
    pub(super) fn select(&self, stacked: &Array2<f64>) -> Array2<f64> {
        stacked.select(Axis(0), &self.rows)
    }

    /// Puts them back.
    pub(super) fn put(&self, own: &Array2<f64>, stacked: &mut Array2<f64>) {
        self.rows.iter().zip(own.rows()).for_each(|(&a, row)| stacked.row_mut(a).assign(&row));
    }

    /// Solves with the restricted Schur complement, in place over the group's rows of a border vector in the frame (M x r).
    pub(super) fn solve_inside(&self, schur: &Cholesky, inside: &mut Array2<f64>) {
        let mut x: Vec<f64> = self.select(inside).into_iter().collect();
        match &self.own {
            None => schur.solve_vec(&mut x),
            Some(map) => {
                let mut inner = map.t().dot(&ndarray::ArrayView1::from(&x)).to_vec();
                schur.solve_vec(&mut inner);
                x = map.dot(&ndarray::Array1::from(inner)).to_vec();
            }
        }
        let solved = Array2::from_shape_vec((self.rows.len(), inside.ncols()), x).expect("a row for each of the group");
        self.put(&solved, inside);
    }

    /// ln of the determinant over the channels outside the frame.
    pub(super) fn log_det(&self) -> f64 {
        self.outside.as_ref().map_or(0.0, |(_, gram)| self.complement as f64 * gram.log_det())
    }

    /// Adds the solution over the channels outside the frame.
    pub(super) fn add_rest(&self, rest: &Array2<f64>, border: &mut Array2<f64>) {
        if let Some((places, gram)) = &self.outside {
            let rows: Vec<usize> = places.iter().map(|&i| self.rows[i]).collect();
            let mut part = rest.select(Axis(0), &rows);
            gram.solve(&mut part.view_mut());
            for (row, solved) in rows.iter().zip(part.rows()) {
                let mut out = border.row_mut(*row);
                out += &solved;
            }
        }
    }

    /// Adds the share of the channels outside the frame to the inverse's partial trace (M x M).
    pub(super) fn add_rest_trace(&self, trace: &mut Array2<f64>) {
        if let Some((places, gram)) = &self.outside {
            for (&i, values) in places.iter().zip((gram.inverse() * self.complement as f64).rows()) {
                for (&j, value) in places.iter().zip(values) {
                    trace[[self.rows[i], self.rows[j]]] += value;
                }
            }
        }
    }
}
