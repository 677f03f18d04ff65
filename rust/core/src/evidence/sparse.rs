//! Vectors over all inner variables whose local part is mostly zero: a motion of one atom, or what it is solved to, moves the
//! coordinates of the rows that use the atom or share its group, and the decoders of that group.

use super::border_rows::BorderRows;
use crate::arrow::Step;
use ndarray::Array2;
use std::ops::Range;

/// A step with its local entries that are not zero.
#[derive(Clone, Debug)]
pub struct SparseStep {
    /// Positions among all local variables, in order.
    at: Vec<usize>,
    values: Vec<f64>,
    pub border: BorderRows,
}

impl SparseStep {
    /// From entries in the order of their positions.
    pub fn new(entries: impl Iterator<Item = (usize, f64)>, border: BorderRows) -> Self {
        // of many rows these are large: no more room than they need
        let most = entries.size_hint().1.unwrap_or(0);
        let (mut at, mut values) = (Vec::with_capacity(most), Vec::with_capacity(most));
        for (position, value) in entries.filter(|(_, v)| *v != 0.0) {
            at.push(position);
            values.push(value);
        }
        at.shrink_to_fit();
        values.shrink_to_fit();
        Self { at, values, border }
    }

    /// The whole vector, over so many local variables and stacked decoders of a shape.
    pub fn dense(&self, len: usize, shape: (usize, usize)) -> Step {
        let mut local = vec![0.0; len];
        self.entries().for_each(|(at, v)| local[at] = v);
        let mut border = Array2::zeros(shape);
        self.border.add_to(1.0, 0, &mut border);
        Step { local, border }
    }

    /// Whether all of it is zero.
    pub fn is_zero(&self) -> bool {
        self.at.is_empty() && self.border.is_empty()
    }

    pub fn entries(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        self.at.iter().copied().zip(self.values.iter().copied())
    }

    /// The entries within a range of positions.
    pub fn within(&self, range: Range<usize>) -> impl Iterator<Item = (usize, f64)> + '_ {
        let (from, to) = (self.at.partition_point(|a| *a < range.start), self.at.partition_point(|a| *a < range.end));
        self.at[from..to].iter().copied().zip(self.values[from..to].iter().copied())
    }

    /// One local entry.
    pub fn local(&self, position: usize) -> f64 {
        self.at.binary_search(&position).map_or(0.0, |place| self.values[place])
    }

    /// Inner product of the local parts.
    pub fn dot_local(&self, other: &Self) -> f64 {
        let (few, many) = if self.at.len() < other.at.len() { (self, other) } else { (other, self) };
        let mut from = 0;
        let mut total = 0.0;
        for (at, v) in few.entries() {
            from += many.at[from..].partition_point(|a| *a < at);
            if many.at.get(from) == Some(&at) {
                total += v * many.values[from];
            }
        }
        total
    }

    pub fn dot(&self, other: &Self) -> f64 {
        self.dot_local(other) + self.border.dot(&other.border)
    }

    /// `self - other`, for stacked decoders of a shape.
    pub fn minus(&self, other: &Self, shape: (usize, usize)) -> Self {
        let (mut left, mut right) = (self.entries().peekable(), other.entries().peekable());
        let mut entries = Vec::with_capacity(self.at.len() + other.at.len());
        while let Some(at) = [left.peek(), right.peek()].into_iter().flatten().map(|e| e.0).min() {
            let own = left.next_if(|e| e.0 == at).map_or(0.0, |e| e.1);
            let theirs = right.next_if(|e| e.0 == at).map_or(0.0, |e| e.1);
            entries.push((at, own - theirs));
        }
        Self::new(entries.into_iter(), self.border.minus(&other.border, shape))
    }
}

impl From<&Step> for SparseStep {
    fn from(step: &Step) -> Self {
        Self::new(step.local.iter().copied().enumerate(), BorderRows::trimmed(&step.border))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_vectors_are_the_dense_ones() {
        let shape = (1, 2);
        let border = BorderRows::new(0, Array2::from_elem(shape, 0.5));
        let a = SparseStep::new([(1, 2.0), (4, -1.0), (5, 0.0), (9, 3.0)].into_iter(), border.clone());
        let b = SparseStep::new([(0, 1.0), (4, 2.0), (9, 1.0)].into_iter(), border);
        let (x, y) = (a.dense(10, shape), b.dense(10, shape));
        assert_eq!(a.dot(&b), x.dot(&y));
        assert_eq!((a.local(4), a.local(5), a.local(8)), (-1.0, 0.0, 0.0));
        assert_eq!(a.within(2..9).collect::<Vec<_>>(), [(4, -1.0)]);
        let mut difference = x.clone();
        difference.add(-1.0, &y);
        assert_eq!(a.minus(&b, shape).dense(10, shape).local, difference.local);
        assert_eq!(SparseStep::from(&x).dense(10, shape).local, x.local);
    }
}
