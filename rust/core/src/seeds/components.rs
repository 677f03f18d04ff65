//! Principal components, and orthonormal rows: what every first guess is read from.

use crate::linalg::{product, symmetric_eigen, Op};
use ndarray::{Array2, ArrayView2};

/// Scores (n x r) on the leading principal components, each with the sign that makes its skewness positive.
pub fn principal_scores(data: ArrayView2<'_, f64>, r: usize) -> Array2<f64> {
    let (n, p) = data.dim();
    let r = r.min(n).min(p);
    let mut scores = if p <= n {
        let gram = product((data, Op::Transposed), (data, Op::Plain));
        let (_, vectors) = symmetric_eigen(gram.view());
        let leading = Array2::from_shape_fn((p, r), |(c, j)| vectors[[c, p - 1 - j]]);
        product((data, Op::Plain), (leading.view(), Op::Plain))
    } else {
        let gram = product((data, Op::Plain), (data, Op::Transposed));
        let (values, vectors) = symmetric_eigen(gram.view());
        Array2::from_shape_fn((n, r), |(i, j)| vectors[[i, n - 1 - j]] * values[n - 1 - j].max(0.0).sqrt())
    };
    for mut column in scores.columns_mut() {
        if column.iter().map(|v| v * v * v).sum::<f64>() < 0.0 {
            column.mapv_inplace(|v| -v);
        }
    }
    scores
}

/// Scales every column to unit root mean square over some rows.
pub fn whiten(scores: &mut Array2<f64>, rows: &[usize]) {
    /// Columns whose scale is below this part of the largest are rounding: they say nothing.
    const ROUNDING: f64 = 1e-10;
    let scale: Vec<f64> = scores
        .columns()
        .into_iter()
        .map(|column| (rows.iter().map(|&i| column[i] * column[i]).sum::<f64>() / rows.len().max(1) as f64).sqrt())
        .collect();
    let largest = scale.iter().copied().fold(0.0, f64::max);
    for (mut column, scale) in scores.columns_mut().into_iter().zip(scale) {
        let factor = if scale > ROUNDING * largest { 1.0 / scale } else { 0.0 };
        column.mapv_inplace(|v| v * factor);
    }
}

/// The orthonormal rows nearest to some rows; `None` where these are dependent to rounding.
pub fn orthonormal(rows: Array2<f64>) -> Option<Array2<f64>> {
    /// Relative size of a square that is rounding.
    const DEPENDENT: f64 = 1e-14;
    let square = product((rows.view(), Op::Plain), (rows.view(), Op::Transposed));
    let (values, vectors) = symmetric_eigen(square.view());
    let largest = values.iter().copied().fold(0.0, f64::max);
    if !(largest > 0.0 && largest.is_finite()) || values.iter().any(|v| *v <= DEPENDENT * largest) {
        return None;
    }
    let mut scaled = vectors.clone();
    for (mut column, value) in scaled.columns_mut().into_iter().zip(&values) {
        column /= value.sqrt();
    }
    let root = product((scaled.view(), Op::Plain), (vectors.view(), Op::Transposed));
    Some(product((root.view(), Op::Plain), (rows.view(), Op::Plain)))
}
