//! The border's variables when rows go first: decoders in the arrow's frame, in frames of their own, and the channels that no
//! decoder spans.
//!
//! Decoders with a frame of their own (`crate::frames`) have only the variables `V = blockdiag(I (x) W_k)`, W_k being their
//! frame in the arrow's channels, so that the Schur complement is `V'SV` and they have no part in the other channels.

use super::frame::Group;
use super::System;
use crate::linalg::{Cholesky, Op};
use crate::problem::Problem;
use crate::state::State;
use ndarray::linalg::general_mat_mul;
use ndarray::{s, Array2, ArrayView2, Axis};
use std::ops::Range;
use std::sync::Arc;

/// V of a group: a block for each decoder row.
#[derive(Debug)]
struct Blocks(Vec<Block>);

#[derive(Debug)]
struct Block {
    channels: Range<usize>,
    variables: Range<usize>,
    /// W (channels x variables), `None` where they are the same.
    frame: Option<Arc<Array2<f64>>>,
}

impl Blocks {
    /// From the channels of the arrow's frame and, for each atom, the number of its decoder rows and W.
    fn new(rank: usize, atoms: impl Iterator<Item = (usize, Option<Array2<f64>>)>) -> Self {
        let (mut blocks, mut channel, mut variable) = (Vec::new(), 0, 0);
        for (count, frame) in atoms {
            let frame = frame.map(Arc::new);
            let width = frame.as_ref().map_or(rank, |w| w.ncols());
            for _ in 0..count {
                let (channels, variables) = (channel..channel + rank, variable..variable + width);
                (channel, variable) = (channels.end, variables.end);
                blocks.push(Block { channels, variables, frame: frame.clone() });
            }
        }
        Self(blocks)
    }

    /// Vx, or V'x.
    fn times(&self, op: Op, x: ArrayView2<f64>) -> Array2<f64> {
        let ends = |block: &Block| match op {
            Op::Plain => (block.variables.clone(), block.channels.clone()),
            Op::Transposed => (block.channels.clone(), block.variables.clone()),
        };
        let size = self.0.last().map_or(0, |block| ends(block).1.end);
        let mut out = Array2::zeros((size, x.ncols()));
        for block in &self.0 {
            let (from, to) = ends(block);
            let (from, mut to) = (x.slice(s![from, ..]), out.slice_mut(s![to, ..]));
            match (&block.frame, op) {
                (Some(w), Op::Plain) => general_mat_mul(1.0, &**w, &from, 0.0, &mut to),
                (Some(w), Op::Transposed) => general_mat_mul(1.0, &w.t(), &from, 0.0, &mut to),
                (None, _) => to.assign(&from),
            }
        }
        out
    }
}

/// How the border of one group of atoms is laid out.
#[derive(Debug)]
pub(super) struct Border {
    pub(super) group: Group,
    /// V over the group's rows; `None` when no decoder has a frame of its own.
    own: Option<Blocks>,
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
        let atoms: Vec<usize> = (0..problem.n_atoms()).filter(|&k| frame.group_of(k) == group).collect();
        let group = frame.groups()[group].clone();
        let free = atoms.iter().filter(|&&k| state.frames.of(k).is_none());
        let full: Vec<usize> = free.flat_map(|&k| problem.rows_of(k)).collect();
        let outside = if full.is_empty() || frame.complement == 0 {
            None
        } else {
            let factor = Cholesky::new(gram.among(&full).view())?;
            Some((group.places(&full), factor))
        };
        let block = |&k: &usize| (problem.rows_of(k).len(), state.frames.of(k).map(|own| frame.channels_of(k, own)));
        let own = (!state.frames.is_empty()).then(|| Blocks::new(frame.rank(), atoms.iter().map(block)));
        Some(Self { group, own, outside, complement: frame.complement })
    }

    /// The Schur complement over the border's variables.
    pub(super) fn restrict(&self, schur: Array2<f64>) -> Array2<f64> {
        match &self.own {
            None => schur,
            Some(own) => own.times(Op::Transposed, own.times(Op::Transposed, schur.view()).t()),
        }
    }

    /// Its inverse, back over the arrow's frame.
    pub(super) fn lift(&self, inverse: Array2<f64>) -> Array2<f64> {
        match &self.own {
            None => inverse,
            Some(own) => own.times(Op::Plain, own.times(Op::Plain, inverse.view()).t()),
        }
    }

    /// Solves with the restricted Schur complement, in place over the group's rows of a border vector in the frame (M x r).
    pub(super) fn solve_inside(&self, schur: &Cholesky, inside: &mut Array2<f64>) {
        let selected = self.group.select(inside);
        let shape = selected.raw_dim();
        let mut x = column(selected);
        if let Some(own) = &self.own {
            x = own.times(Op::Transposed, x.view());
        }
        schur.solve_vec(x.as_slice_mut().expect("standard layout"));
        if let Some(own) = &self.own {
            x = own.times(Op::Plain, x.view());
        }
        self.group.put(&x.into_shape_with_order(shape).expect("a row for each of the group"), inside);
    }

    /// ln of the determinant over the channels outside the frame.
    pub(super) fn log_det(&self) -> f64 {
        self.outside.as_ref().map_or(0.0, |(_, gram)| self.complement as f64 * gram.log_det())
    }

    /// Adds the solution over the channels outside the frame.
    pub(super) fn add_rest(&self, rest: &Array2<f64>, border: &mut Array2<f64>) {
        if let Some((places, gram)) = &self.outside {
            let rows: Vec<usize> = places.iter().map(|&i| self.group.rows[i]).collect();
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
                    trace[[self.group.rows[i], self.group.rows[j]]] += value;
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
