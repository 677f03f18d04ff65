//! Border curvature that is a Kronecker product but for the gauge: `G (x) I + UU'`, whose inverse is nearly free.
//!
//! `(G (x) I + UU')^-1 = G^-1 (x) I - Z K^-1 Z'`, `Z = G^-1 U`, `K = I + U'Z`.

use super::{Frame, Gauge};
use crate::gram::Gram;
use crate::linalg::Cholesky;
use crate::problem::Problem;
use ndarray::{s, Array2, ArrayView2};
use std::ops::Range;

/// The factor over some channels.
#[derive(Debug)]
pub(super) struct Kronecker {
    gram: Cholesky,
    /// Z columns, each m x r.
    pub(super) solved_gauge: Vec<Array2<f64>>,
    /// U columns: the place of their first row that is not zero, and the rows from there to the last.
    gauge: Vec<(usize, Array2<f64>)>,
    pub(super) core: Cholesky,
}

fn inner((from, u): &(usize, Array2<f64>), b: &Array2<f64>) -> f64 {
    u.iter().zip(b.slice(s![*from..from + u.nrows(), ..])).map(|(x, y)| x * y).sum()
}

/// A column moves the decoder of one atom.
fn trimmed(u: &Array2<f64>) -> (usize, Array2<f64>) {
    let moved = |row: &usize| u.row(*row).iter().any(|v| *v != 0.0);
    let from = (0..u.nrows()).find(moved).unwrap_or(0);
    let to = (from..u.nrows()).rev().find(moved).map_or(from, |last| last + 1);
    (from, u.slice(s![from..to, ..]).to_owned())
}

impl Kronecker {
    /// `None` where G is not positive definite in floating point.
    pub(super) fn new(gram: Cholesky, gauge: Vec<Array2<f64>>) -> Option<Self> {
        let solved = |u: &Array2<f64>| {
            let mut z = u.clone();
            gram.solve(&mut z.view_mut());
            z
        };
        let solved_gauge: Vec<Array2<f64>> = gauge.iter().map(solved).collect();
        let j = gauge.len();
        let gauge: Vec<_> = gauge.iter().map(trimmed).collect();
        let entry = |(a, b)| f64::from(u8::from(a == b)) + inner(&gauge[a], &solved_gauge[b]);
        let core = Cholesky::new(Array2::from_shape_fn((j, j), entry).view())?;
        Some(Self { gram, solved_gauge, gauge, core })
    }

    /// Over some stacked rows of a group, in the frame's channels, from their part of G.
    fn of_rows(
        problem: &Problem,
        frame: &Frame,
        (index, rows): (usize, &[usize]),
        gauge: &Gauge,
        gram: ArrayView2<'_, f64>,
    ) -> Option<Self> {
        let group = &frame.groups()[index];
        let columns = gauge.within(problem, group, rows).into_iter().map(|(place, u)| {
            let mut column = Array2::zeros((rows.len(), frame.rank()));
            column.slice_mut(s![place..place + u.nrows(), ..]).assign(&u);
            column
        });
        Self::new(Cholesky::new(gram)?, columns.collect())
    }

    pub(super) fn gram(&self) -> &Cholesky {
        &self.gram
    }

    /// Solves in place for a border vector (m x r).
    pub(super) fn solve(&self, border: &mut Array2<f64>) {
        self.gram.solve(&mut border.view_mut());
        let mut seen: Vec<f64> = self.gauge.iter().map(|u| inner(u, border)).collect();
        if !seen.is_empty() {
            self.core.solve_vec(&mut seen);
        }
        for (z, s) in self.solved_gauge.iter().zip(&seen) {
            border.scaled_add(-s, z);
        }
    }
}

/// Larger groups of atoms are taken atom by atom: a factor of all of their G would be dense, and its products would cost more
/// than the rows'.
const WHOLE_TO: usize = 1024;

/// The border's own curvature for one group of atoms, to step and to precondition with: `G (x) I + UU'`, or its blocks of single
/// atoms where the group is large.
#[derive(Debug)]
pub(super) struct GroupCurvature {
    /// Places among the group's rows, with their factor.
    parts: Vec<(Range<usize>, Kronecker)>,
}

impl GroupCurvature {
    /// `None` where G is not positive definite in floating point.
    pub(super) fn new(problem: &Problem, frame: &Frame, index: usize, gauge: &Gauge, gram: &Gram) -> Option<Self> {
        let rows = &frame.groups()[index].rows;
        if rows.len() <= WHOLE_TO {
            let whole = Kronecker::of_rows(problem, frame, (index, rows), gauge, gram.among(rows).view())?;
            return Some(Self { parts: vec![(0..rows.len(), whole)] });
        }
        let (mut parts, mut at) = (Vec::new(), 0);
        for k in (0..problem.n_atoms()).filter(|&k| frame.group_of(k) == index) {
            let own: Vec<usize> = problem.rows_of(k).collect();
            let factor = Kronecker::of_rows(problem, frame, (index, &own), gauge, gram.own(k))?;
            parts.push((at..at + own.len(), factor));
            at += own.len();
        }
        Some(Self { parts })
    }

    /// Solves in place for a border vector of the group (m x r).
    pub(super) fn solve(&self, border: &mut Array2<f64>) {
        if let [(_, whole)] = &self.parts[..] {
            whole.solve(border);
            return;
        }
        for (rows, factor) in &self.parts {
            let mut own = border.slice(s![rows.clone(), ..]).to_owned();
            factor.solve(&mut own);
            border.slice_mut(s![rows.clone(), ..]).assign(&own);
        }
    }
}
