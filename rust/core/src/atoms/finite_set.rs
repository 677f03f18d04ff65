//! A finite set: a few points, each with a row of the decoder of its own.

use super::{Atom, BasisJet, ChartFactor};
use crate::errors::ShapeError;
use ndarray::Array2;

/// Separate points; the coordinate of a row, stored as a number, says which.
#[derive(Clone, Debug, PartialEq)]
pub struct FiniteSet {
    factor: [ChartFactor; 1],
    size: usize,
}

/// Above this every row would look at more points than a dictionary has columns.
const MAX_SIZE: usize = 1024;
/// Components in which the points of a first guess are sought.
const MAX_COMPONENTS: usize = 8;
/// Bound on the sweeps of a first guess; it almost always stops before.
const SWEEPS: usize = 40;

impl FiniteSet {
    pub fn new(size: usize) -> Result<Self, ShapeError> {
        if !(2..=MAX_SIZE).contains(&size) {
            return Err(ShapeError::value(format!("a finite set needs between 2 and {MAX_SIZE} points, got {size}")));
        }
        Ok(Self { factor: [ChartFactor::Choice { size }], size })
    }

    /// Which point a stored coordinate is.
    fn index(&self, t: f64) -> usize {
        t.round().clamp(0.0, (self.size - 1) as f64) as usize
    }
}

impl Atom for FiniteSet {
    fn kind(&self) -> &'static str {
        "finite_set"
    }
    fn key(&self) -> String {
        format!("finite_set:{}", self.size)
    }
    fn width(&self) -> usize {
        self.size
    }
    fn factors(&self) -> &[ChartFactor] {
        &self.factor
    }
    /// One-hot.
    fn basis(&self, t: &[f64], phi: &mut [f64]) {
        phi.fill(0.0);
        phi[self.index(t[0])] = 1.0;
    }
    /// No step leads from one point to another.
    fn jet(&self, t: &[f64], out: &mut BasisJet) {
        self.basis(t, &mut out.phi);
        out.d1.fill(0.0);
        out.d2.fill(0.0);
    }
    fn third(&self, _: &[f64], d3: &mut [f64]) {
        d3.fill(0.0);
    }
    fn roughness(&self) -> Array2<f64> {
        Array2::zeros((self.size, self.size))
    }
    fn null_projector(&self) -> Array2<f64> {
        Array2::eye(self.size)
    }
    fn advance(&self, t: &mut [f64], _: &[f64]) {
        t[0] = self.index(t[0]) as f64;
    }
    fn generators(&self) -> Vec<Array2<f64>> {
        Vec::new()
    }
    fn velocity(&self, _: usize, _: &[f64], _: &mut [f64], _: &mut [f64]) {
        unreachable!("no generators")
    }
    fn ln_group_volume(&self) -> f64 {
        0.0
    }
    /// The points' orders.
    fn ln_symmetries(&self, _: bool) -> f64 {
        (2..=self.size).map(|i| (i as f64).ln()).sum()
    }
    fn seed_components(&self) -> usize {
        (self.size - 1).min(MAX_COMPONENTS)
    }
    /// A single row says nothing of where the points are; see `seed_rows`.
    fn seed(&self, _: &[f64], t: &mut [f64]) {
        t[0] = 0.0;
    }
    /// Lloyd's sweeps from rows far apart.
    fn seed_rows(&self, scores: &Array2<f64>) -> Array2<f64> {
        let n = scores.nrows();
        let apart = |i: usize, center: &[f64]| -> f64 {
            scores.row(i).iter().zip(center).map(|(a, b)| (a - b) * (a - b)).sum()
        };
        let mut centers = vec![vec![0.0; scores.ncols()]];
        let mut nearest: Vec<f64> = (0..n).map(|i| apart(i, &centers[0])).collect();
        while centers.len() <= self.size {
            let next = (0..n).max_by(|&i, &j| nearest[i].total_cmp(&nearest[j])).unwrap_or(0);
            centers.push(scores.row(next).to_vec());
            (0..n).for_each(|i| nearest[i] = nearest[i].min(apart(i, &centers[centers.len() - 1])));
        }
        // the mean was there to start from
        centers.remove(0);
        let mut labels = vec![usize::MAX; n];
        for _ in 0..SWEEPS {
            let closest = |i: usize| {
                let near = |c: &usize| apart(i, &centers[*c]);
                (0..self.size).min_by(|a, b| near(a).total_cmp(&near(b))).unwrap_or(0)
            };
            let next: Vec<usize> = (0..n).map(closest).collect();
            if next == labels {
                break;
            }
            labels = next;
            for (c, center) in centers.iter_mut().enumerate() {
                let own: Vec<usize> = (0..n).filter(|&i| labels[i] == c).collect();
                if !own.is_empty() {
                    let mean = |a: usize| own.iter().map(|&i| scores[[i, a]]).sum::<f64>() / own.len() as f64;
                    *center = (0..scores.ncols()).map(mean).collect();
                }
            }
        }
        Array2::from_shape_fn((n, 1), |(i, _)| labels[i] as f64)
    }
    fn search_grid(&self) -> Array2<f64> {
        Array2::from_shape_fn((self.size, 1), |(i, _)| i as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_has_its_column() {
        let set = FiniteSet::new(3).unwrap();
        let mut phi = [0.0; 3];
        for (t, column) in [(-4.0, 0), (0.2, 0), (1.4, 1), (9.0, 2)] {
            set.basis(&[t], &mut phi);
            assert!(phi.iter().enumerate().all(|(j, v)| *v == f64::from(u8::from(j == column))));
            let mut at = [t];
            set.advance(&mut at, &[0.7]);
            assert_eq!(at[0], column as f64);
        }
        super::super::checks::gauge(&set);
    }

    #[test]
    fn clusters_are_told_apart() {
        let set = FiniteSet::new(3).unwrap();
        let scores = Array2::from_shape_fn((60, 2), |(i, a)| {
            let center = [[0.0, 2.0], [1.5, -1.0], [-1.5, -1.0]][i % 3][a];
            center + 0.1 * ((7 * i + a) as f64).sin()
        });
        let found = set.seed_rows(&scores);
        assert!((0..60).all(|i| (0..60).all(|j| (found[[i, 0]] == found[[j, 0]]) == (i % 3 == j % 3))));
    }

    #[test]
    fn sizes_are_checked() {
        assert!(FiniteSet::new(1).is_err() && FiniteSet::new(MAX_SIZE + 1).is_err());
    }
}
