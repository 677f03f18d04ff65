//! Stacked decoders that are zero outside of some rows in one piece.

use ndarray::{s, Array2, ArrayView2};
use std::ops::Range;
use std::sync::Arc;

/// Rows `from..from + values.nrows()` of stacked decoders; all others are zero. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BorderRows {
    from: usize,
    values: Arc<Array2<f64>>,
}

impl BorderRows {
    pub fn new(from: usize, values: Array2<f64>) -> Self {
        Self { from, values: Arc::new(values) }
    }

    /// No rows at all.
    pub fn none() -> Self {
        Self::new(0, Array2::zeros((0, 0)))
    }

    /// All rows.
    pub fn all(values: Arc<Array2<f64>>) -> Self {
        Self { from: 0, values }
    }

    /// The rows of stacked decoders from the first that is not zero to the last.
    pub fn trimmed(stacked: &Array2<f64>) -> Self {
        let moves = |row: &usize| stacked.row(*row).iter().any(|v| *v != 0.0);
        let Some(first) = (0..stacked.nrows()).find(moves) else { return Self::none() };
        let last = (first..stacked.nrows()).rev().find(moves).expect("the first of them at least");
        Self::new(first, stacked.slice(s![first..=last, ..]).to_owned())
    }

    fn rows(&self) -> Range<usize> {
        self.from..self.from + self.values.nrows()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All of these rows, if they are those of all atoms.
    pub fn as_all(&self, width: usize) -> Option<&Arc<Array2<f64>>> {
        (self.rows() == (0..width)).then_some(&self.values)
    }

    /// One row, where it is not zero.
    pub fn row(&self, stacked: usize) -> Option<&[f64]> {
        let own = self.rows().contains(&stacked).then(|| self.values.row(stacked - self.from))?;
        Some(own.to_slice().expect("standard layout"))
    }

    /// What is held of some rows, and where it begins among them.
    fn within(&self, rows: &Range<usize>) -> Option<(usize, ArrayView2<'_, f64>)> {
        let (first, last) = (self.from.max(rows.start), self.rows().end.min(rows.end));
        (first < last).then(|| (first - rows.start, self.values.slice(s![first - self.from..last - self.from, ..])))
    }

    /// Some rows, where any of them is held.
    pub fn over(&self, rows: Range<usize>) -> Option<Array2<f64>> {
        let (at, held) = self.within(&rows)?;
        let mut out = Array2::zeros((rows.len(), held.ncols()));
        out.slice_mut(s![at..at + held.nrows(), ..]).assign(&held);
        Some(out)
    }

    /// `out += factor * self`, out being stacked decoders from a row on.
    pub fn add_to(&self, factor: f64, from: usize, out: &mut Array2<f64>) {
        if let Some((at, held)) = self.within(&(from..from + out.nrows())) {
            out.slice_mut(s![at..at + held.nrows(), ..]).scaled_add(factor, &held);
        }
    }

    /// Inner product with some stacked rows from one on.
    pub fn dot_rows(&self, from: usize, other: ArrayView2<'_, f64>) -> f64 {
        self.within(&(from..from + other.nrows())).map_or(0.0, |(at, held)| {
            held.iter().zip(other.slice(s![at..at + held.nrows(), ..])).map(|(a, b)| a * b).sum()
        })
    }

    pub fn dot(&self, other: &Self) -> f64 {
        self.dot_rows(other.from, other.values.view())
    }

    /// `self - other`, for stacked decoders of so many rows.
    pub fn minus(&self, other: &Self, shape: (usize, usize)) -> Self {
        let mut out = Array2::zeros(shape);
        self.add_to(1.0, 0, &mut out);
        other.add_to(-1.0, 0, &mut out);
        Self::trimmed(&out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn rows_are_those_of_the_whole() {
        let a = array![[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 2.0], [0.0, 0.0]];
        let b = array![[0.0, 0.0], [0.0, 0.0], [3.0, 1.0], [1.0, 4.0], [5.0, 0.0]];
        let (x, y) = (BorderRows::trimmed(&a), BorderRows::trimmed(&b));
        assert_eq!((x.rows(), y.rows()), (1..4, 2..5));
        assert_eq!(x.dot(&y), 8.0);
        assert_eq!(x.dot_rows(0, b.view()), 8.0);
        assert_eq!(x.over(0..2), Some(array![[0.0, 0.0], [1.0, 0.0]]));
        assert_eq!((x.over(4..5), x.row(0), x.row(3)), (None, None, Some(&[0.0, 2.0][..])));
        let mut out = Array2::ones((2, 2));
        x.add_to(2.0, 3, &mut out);
        assert_eq!(out, array![[1.0, 5.0], [1.0, 1.0]]);
        let difference = x.minus(&y, a.dim());
        assert_eq!(difference.over(0..5), Some(&a - &b));
        assert!(BorderRows::trimmed(&Array2::zeros((3, 2))).is_empty() && BorderRows::none().dot(&x) == 0.0);
        assert!(x.as_all(5).is_none() && BorderRows::new(0, a).as_all(5).is_some());
    }
}
