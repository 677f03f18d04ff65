//! A metric of the residual that differs from row to row.
//!
//! With `P_i = U_i U_i'`, U_i a p x m factor, row i enters the likelihood as `|U_i' r_i|^2 / (2 phi)`: what U_i does not span
//! is not modelled, and a factor of an inverse noise covariance whitens noise that is not the same in all directions. So U_i'
//! stands on the residual, on the local Jacobian and on the basis row. The border of the arrow is no Kronecker product then.

use crate::errors::ShapeError;
use crate::linalg::{axpy, dot, product, Op};
use ndarray::{Array2, Array3, ArrayView2, Axis};

/// The factors U_i of all rows.
#[derive(Clone, Debug)]
pub struct RowMetric {
    /// n x m x p: the columns of each factor, one after the other.
    columns: Array3<f64>,
    /// The mean of all P_i, p x p.
    mean: Array2<f64>,
}

impl RowMetric {
    /// Takes factors n x p x m.
    pub fn new(factors: &Array3<f64>, n: usize, p: usize) -> Result<Self, ShapeError> {
        let (rows, outputs, rank) = factors.dim();
        if (rows, outputs) != (n, p) || rank == 0 {
            return Err(ShapeError::shape("metric factors", factors.shape(), &[n, p, rank.max(1)]));
        }
        if factors.iter().any(|v| !v.is_finite()) {
            return Err(ShapeError::value("metric factors must be finite"));
        }
        let columns = factors.view().permuted_axes([0, 2, 1]).as_standard_layout().into_owned();
        let stacked = columns.to_shape((n * rank, p)).expect("standard layout");
        let mean = product((stacked.view(), Op::Transposed), (stacked.view(), Op::Plain)) / n as f64;
        Ok(Self { columns, mean })
    }

    /// m, the dimension of a row's whitened residual.
    pub fn rank(&self) -> usize {
        self.columns.len_of(Axis(1))
    }

    /// The mean of all P_i (p x p).
    pub fn mean(&self) -> &Array2<f64> {
        &self.mean
    }

    /// The columns of U_i as rows (m x p).
    fn of(&self, row: usize) -> ArrayView2<'_, f64> {
        self.columns.index_axis(Axis(0), row)
    }

    /// `v <- P_i v`; returns `|U_i' v|^2`.
    pub fn apply(&self, row: usize, v: &mut [f64]) -> f64 {
        let columns = self.of(row);
        let seen: Vec<f64> =
            columns.rows().into_iter().map(|u| dot(u.as_slice().expect("standard layout"), v)).collect();
        v.fill(0.0);
        for (u, s) in columns.rows().into_iter().zip(&seen) {
            axpy(*s, u.as_slice().expect("standard layout"), v);
        }
        dot(&seen, &seen)
    }

    /// `a U_i` for a matrix of p columns.
    pub fn whiten(&self, row: usize, a: ArrayView2<'_, f64>) -> Array2<f64> {
        a.dot(&self.of(row).t())
    }
}
