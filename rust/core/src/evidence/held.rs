//! What is held in a row, and would be a variable if it were free: its curvature, which is no entry of H, with derivatives.

use crate::linalg::dot;
use crate::problem::Problem;
use crate::row::AtomView;
use ndarray::{s, Array1, Array2, ArrayView1, Axis};

/// A direction in which a row would move if what is held were free: along it the row's point moves by `gate along B`.
pub(super) struct HeldDirection<'a> {
    pub problem: &'a Problem,
    pub decoders: &'a Array2<f64>,
    pub row: usize,
    pub atom: &'a AtomView<'a>,
    pub along: &'a [f64],
    pub gate: f64,
}

/// Its curvature `h = gate^2 |along B|^2 w/phi`, with what its derivatives are made of.
pub(super) struct HeldTangent<'a> {
    direction: HeldDirection<'a>,
    /// `along B w/phi`.
    tangent: Array1<f64>,
    /// B against that.
    seen: Vec<f64>,
}

impl<'a> HeldDirection<'a> {
    pub(super) fn tangent(self, inverse: f64) -> HeldTangent<'a> {
        let block = self.decoders.slice(s![self.atom.rows.clone(), ..]);
        let mut tangent = ArrayView1::from(self.along).dot(&block).insert_axis(Axis(0));
        self.problem.weigh(self.row..self.row + 1, inverse, &mut tangent);
        let tangent = tangent.row(0).to_owned();
        let seen = block.dot(&tangent).to_vec();
        HeldTangent { direction: self, tangent, seen }
    }
}

impl HeldTangent<'_> {
    /// `|along B|^2 w/phi`.
    pub(super) fn length(&self) -> f64 {
        dot(self.direction.along, &self.seen)
    }

    /// `weight` times the derivative of h in a variable that `along` moves with in this way.
    pub(super) fn slope(&self, weight: f64, moves: &[f64]) -> f64 {
        2.0 * weight * self.direction.gate * self.direction.gate * dot(moves, &self.seen)
    }

    /// Adds `weight` times the derivatives of h to those of the border, and returns h.
    pub(super) fn add_border(&self, weight: f64, border: &mut Array2<f64>) -> f64 {
        let HeldDirection { atom, along, gate, .. } = &self.direction;
        for (m, d) in atom.rows.clone().zip(along.iter()) {
            border.row_mut(m).scaled_add(2.0 * weight * gate * gate * d, &self.tangent);
        }
        gate * gate * self.length()
    }
}
