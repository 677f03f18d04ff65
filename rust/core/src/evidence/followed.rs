//! What the rows of a chunk see of an estimated inverse: its directions `sum_j weight_j y_j y_j'`, each with the rows' variables
//! following its decoders.
//!
//! Directions have the size of all decoders, and no cache holds them together: each goes by all rows of a chunk before the next.

use super::adjoint::Inverse;
use crate::linalg::axpy;
use crate::problem::Problem;
use crate::row::{Chunk, Stacked};
use crate::state::State;
use std::ops::Range;

/// Per row of a chunk the sums over all directions, laid end to end.
pub(super) struct Followed {
    /// Where each row's variables begin, and where their pairs do; one more than there are rows.
    variables: Vec<usize>,
    pairs: Vec<usize>,
    channels: usize,
    /// Of its variables (q x q).
    x: Vec<f64>,
    /// Of its variables with what it sees of the decoders (q x r).
    k: Vec<f64>,
    /// Of its atoms' decoders with what it sees of all variables, the trace over channels.
    kappa: Stacked,
}

impl Followed {
    /// `None` where the inverse is no estimate.
    pub(super) fn new(
        problem: &Problem,
        state: &State,
        chunk: &Chunk,
        inverse: &Inverse<'_>,
        r: usize,
    ) -> Option<Self> {
        let directions = inverse.solved..inverse.columns.len();
        if directions.is_empty() {
            return None;
        }
        let (mut variables, mut pairs) = (vec![0], vec![0]);
        for index in 0..chunk.len() {
            let view = chunk.row(problem, state, index);
            variables.push(variables[index] + view.q);
            pairs.push(pairs[index] + view.q * view.q);
        }
        let (x, k) = (vec![0.0; pairs[chunk.len()]], vec![0.0; variables[chunk.len()] * r]);
        let mut out = Self { variables, pairs, channels: r, x, k, kappa: chunk.phi.zeros_like() };
        directions.for_each(|g| out.add(problem, state, chunk, inverse, g));
        Some(out)
    }

    fn add(&mut self, problem: &Problem, state: &State, chunk: &Chunk, inverse: &Inverse<'_>, direction: usize) {
        let (r, layout) = (self.channels, state.layout_of_rows());
        let weight = inverse.theta[[direction, direction]];
        // rows with a metric, and decoders in frames, have no estimate: its directions are over all channels
        let border = inverse.border[direction].as_all(problem.width()).expect("a direction over all decoders");
        let mut seen = chunk.phi.times(border);
        let mut local = Vec::new();
        for index in 0..chunk.len() {
            let view = chunk.row(problem, state, index);
            let (q, block) = (view.q, layout.block(view.row));
            let mut whole = vec![0.0; block.len()];
            inverse.columns[direction].within(block.clone()).for_each(|(at, v)| whole[at - block.start] = v);
            local.clear();
            local.extend((0..q).map(|u| whole[view.position(u)]));
            let mut seen = seen.row_mut(index);
            let seen = seen.as_slice_mut().expect("standard layout");
            let x = &mut self.x[self.pairs[index]..self.pairs[index + 1]];
            let k = &mut self.k[self.variables[index] * r..self.variables[index + 1] * r];
            for (u, own) in local.iter().enumerate() {
                axpy(weight * own, &local, &mut x[u * q..(u + 1) * q]);
                axpy(weight * own, seen, &mut k[u * r..(u + 1) * r]);
            }
            for (own, jacobian) in local.iter().zip(view.jacobian.chunks_exact(r)) {
                axpy(*own, jacobian, seen);
            }
        }
        self.kappa.add_meeting(weight, seen.view(), border);
    }

    /// Adds a row's to x (q x q) and k (q x r).
    pub(super) fn add_row(&self, index: usize, x: &mut [f64], k: &mut [f64]) {
        let r = self.channels;
        axpy(1.0, &self.x[self.pairs[index]..self.pairs[index + 1]], x);
        axpy(1.0, &self.k[self.variables[index] * r..self.variables[index + 1] * r], k);
    }

    /// Adds a row's to kappa over all columns, of its s-th atom with these.
    pub(super) fn add_atom(&self, index: usize, s: usize, rows: Range<usize>, kappa: &mut [f64]) {
        axpy(1.0, self.kappa.part(index, s), &mut kappa[rows]);
    }
}
