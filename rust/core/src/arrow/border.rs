//! The border's variables when rows go first: decoders in the arrow's frame, in frames of their own, and the channels that no
//! decoder spans.
//!
//! Decoders with a frame of their own (`crate::frames`) have only the variables `V = blockdiag(I (x) W_k)`, W_k being their
//! frame in the arrow's channels, so that the Schur complement is `V'SV` and they have no part in the other channels.

use super::System;
use crate::linalg::Cholesky;
use crate::problem::Problem;
use crate::state::State;
use ndarray::linalg::general_mat_mul;
use ndarray::{s, Array2, ArrayView2, Axis};

/// V of a group, block by block.
#[derive(Debug)]
struct Frames {
    /// Channels of the arrow's frame.
    rank: usize,
    /// Number of decoder rows, and their frame W (rank x r_k), or `None` for decoders that have all the channels.
    blocks: Vec<(usize, Option<Array2<f64>>)>,
}

impl Frames {
    /// For each decoder row its channels, its variables and its frame.
    fn rows(&self) -> impl Iterator<Item = (std::ops::Range<usize>, std::ops::Range<usize>, Option<&Array2<f64>>)> {
        let of_rows = self.blocks.iter().flat_map(|(rows, frame)| std::iter::repeat_n(frame.as_ref(), *rows));
        of_rows.scan((0, 0), |(channel, variable), frame| {
            let (channels, variables) = (*channel, *variable);
            (*channel, *variable) = (channels + self.rank, variables + frame.map_or(self.rank, Array2::ncols));
            Some((channels..*channel, variables..*variable, frame))
        })
    }

    /// V'x.
    fn restrict(&self, x: ArrayView2<f64>) -> Array2<f64> {
        let size = self.rows().last().map_or(0, |(_, variables, _)| variables.end);
        let mut out = Array2::zeros((size, x.ncols()));
        for (channels, variables, frame) in self.rows() {
            let (from, mut to) = (x.slice(s![channels, ..]), out.slice_mut(s![variables, ..]));
            match frame {
                Some(w) => general_mat_mul(1.0, &w.t(), &from, 0.0, &mut to),
                None => to.assign(&from),
            }
        }
        out
    }

    /// Vy.
    fn lift(&self, y: ArrayView2<f64>) -> Array2<f64> {
        let size = self.rows().last().map_or(0, |(channels, _, _)| channels.end);
        let mut out = Array2::zeros((size, y.ncols()));
        for (channels, variables, frame) in self.rows() {
            let (from, mut to) = (y.slice(s![variables, ..]), out.slice_mut(s![channels, ..]));
            match frame {
                Some(w) => general_mat_mul(1.0, w, &from, 0.0, &mut to),
                None => to.assign(&from),
            }
        }
        out
    }
}

/// How the border of one group of atoms is laid out.
#[derive(Debug)]
pub(super) struct Border {
    /// Stacked rows of the group.
    rows: Vec<usize>,
    /// V over the group's rows; `None` when no decoder has a frame of its own.
    own: Option<Frames>,
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
        let block = |&k: &usize| (problem.rows_of(k).len(), state.frames.of(k).map(|own| frame.channels_of(k, own)));
        let blocks = || atoms.iter().map(block).collect();
        let own = (!state.frames.is_empty()).then(|| Frames { rank: frame.rank(), blocks: blocks() });
        Some(Self { rows, own, outside, complement: frame.complement })
    }

    /// The Schur complement over the border's variables.
    pub(super) fn restrict(&self, schur: Array2<f64>) -> Array2<f64> {
        match &self.own {
            None => schur,
            Some(own) => own.restrict(own.restrict(schur.view()).t()),
        }
    }

    /// Its inverse, back over the arrow's frame.
    pub(super) fn lift(&self, inverse: Array2<f64>) -> Array2<f64> {
        match &self.own {
            None => inverse,
            Some(own) => own.lift(own.lift(inverse.view()).t()),
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
        let selected = self.select(inside);
        let shape = selected.raw_dim();
        let mut x = column(selected);
        if let Some(own) = &self.own {
            x = own.restrict(x.view());
        }
        schur.solve_vec(x.as_slice_mut().expect("standard layout"));
        if let Some(own) = &self.own {
            x = own.lift(x.view());
        }
        self.put(&x.into_shape_with_order(shape).expect("a row for each of the group"), inside);
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

/// The entries of a matrix, row after row, as one column.
fn column(of: Array2<f64>) -> Array2<f64> {
    let size = of.len();
    of.into_shape_with_order((size, 1)).expect("standard layout")
}
