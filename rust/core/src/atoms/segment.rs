//! The segment: a polynomial curve with two ends.

use super::{along_an_arc, Atom, BasisJet, ChartFactor};
use crate::errors::ShapeError;
use crate::special::gauss_legendre;
use ndarray::{Array1, Array2, ArrayView1, Axis};
use std::f64::consts::LN_2;

/// Above this the Gram of second derivatives spans more digits than there are.
const MAX_DEGREE: usize = 64;
/// First guesses end here: a coordinate that starts at an end starts held.
const INSIDE: f64 = 0.98;

/// Legendre polynomials of one coordinate in [-1, 1], to a degree.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    degree: usize,
}

impl Segment {
    pub fn new(degree: usize) -> Result<Self, ShapeError> {
        if degree == 0 || degree > MAX_DEGREE {
            return Err(ShapeError::value(format!("a segment has a degree from 1 to {MAX_DEGREE}, got {degree}")));
        }
        Ok(Self { degree })
    }

    /// Every polynomial with its first three derivatives, by Bonnet's recurrence, differentiated.
    fn table(&self, t: f64) -> Vec<[f64; 4]> {
        let mut out = vec![[1.0, 0.0, 0.0, 0.0], [t, 1.0, 0.0, 0.0]];
        for n in 1..self.degree {
            let (n_f, one, two) = (n as f64, out[n], out[n - 1]);
            let at = |r: usize| {
                let lower = if r > 0 { r as f64 * one[r - 1] } else { 0.0 };
                ((2.0 * n_f + 1.0) * (t * one[r] + lower) - n_f * two[r]) / (n_f + 1.0)
            };
            out.push([at(0), at(1), at(2), at(3)]);
        }
        out
    }

    fn write(&self, t: f64, order: usize, out: &mut [f64]) {
        out.iter_mut().zip(self.table(t)).for_each(|(o, row)| *o = row[order]);
    }
}

/// Values scaled to the middle of [-1, 1]; zero where they do not vary.
fn to_range(values: ArrayView1<'_, f64>) -> Array1<f64> {
    let (least, largest) =
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)));
    let (middle, half) = (0.5 * (least + largest), 0.5 * (largest - least));
    values.mapv(|v| if half > 0.0 { (INSIDE * (v - middle) / half).clamp(-INSIDE, INSIDE) } else { 0.0 })
}

impl Atom for Segment {
    fn kind(&self) -> &'static str {
        "segment"
    }
    fn key(&self) -> String {
        format!("segment:{}", self.degree)
    }
    fn width(&self) -> usize {
        self.degree + 1
    }
    fn factors(&self) -> &[ChartFactor] {
        &[ChartFactor::Interval { lo: -1.0, hi: 1.0 }]
    }
    fn basis(&self, t: &[f64], phi: &mut [f64]) {
        self.write(t[0], 0, phi);
    }
    fn jet(&self, t: &[f64], out: &mut BasisJet) {
        for (m, row) in self.table(t[0]).iter().enumerate() {
            (out.phi[m], out.d1[m], out.d2[m]) = (row[0], row[1], row[2]);
        }
    }
    fn third(&self, t: &[f64], d3: &mut [f64]) {
        self.write(t[0], 3, d3);
    }
    /// Mean squared second derivative over the uniform law; the quadrature is exact.
    fn roughness(&self) -> Array2<f64> {
        let m = self.width();
        let mut out = Array2::zeros((m, m));
        for (t, w) in gauss_legendre(self.degree.max(2)) {
            let table = self.table(t);
            for a in 0..m {
                (0..m).for_each(|b| out[[a, b]] += 0.5 * w * table[a][2] * table[b][2]);
            }
        }
        // a product of an even and an odd polynomial has no mean
        Array2::from_shape_fn((m, m), |(a, b)| if (a + b) % 2 == 0 { out[[a, b]] } else { 0.0 })
    }
    /// The constant and the linear function.
    fn null_projector(&self) -> Array2<f64> {
        Array2::from_shape_fn((self.width(), self.width()), |(a, b)| f64::from(u8::from(a == b && a < 2)))
    }
    fn advance(&self, t: &mut [f64], step: &[f64]) {
        t[0] = (t[0] + step[0]).clamp(-1.0, 1.0);
    }
    /// None: the ends pin origin and scale.
    fn generators(&self) -> Vec<Array2<f64>> {
        Vec::new()
    }
    fn velocity(&self, _: usize, _: &[f64], _: &mut [f64], _: &mut [f64]) {}
    fn ln_group_volume(&self) -> f64 {
        0.0
    }
    /// The reflection t -> -t.
    fn ln_symmetries(&self, _: bool) -> f64 {
        LN_2
    }
    fn seed_components(&self) -> usize {
        1
    }
    /// A uniform coordinate has a standard deviation of 1 / sqrt 3.
    fn seed(&self, scores: &[f64], t: &mut [f64]) {
        t[0] = (scores[0] / 3f64.sqrt()).clamp(-INSIDE, INSIDE);
    }
    /// Scores as they are; a curve may also bend round in a plane.
    fn seed_blocks(&self) -> Vec<Vec<usize>> {
        vec![vec![1], vec![2]]
    }
    fn seed_rows(&self, scores: &Array2<f64>) -> Array2<f64> {
        let along = if scores.ncols() == 1 { scores.column(0).to_owned() } else { along_an_arc(scores) };
        to_range(along.view()).insert_axis(Axis(1))
    }
    /// The middles of equal pieces: a search that starts at an end starts held.
    fn search_grid(&self) -> Array2<f64> {
        /// Pieces per degree: the squared distance to the curve has at most 2D - 1 minima.
        const PIECES_PER_DEGREE: usize = 8;
        let n = PIECES_PER_DEGREE * self.degree.max(2);
        Array2::from_shape_fn((n, 1), |(j, _)| (2 * j + 1) as f64 / n as f64 - 1.0)
    }
    fn origin(&self, t: &mut [f64]) {
        t[0] = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::checks;
    use super::super::laws::{nodes, obeys, Axis};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn obeys_the_laws_of_atoms() {
        for degree in [1, 2, 3, 7] {
            obeys(&Segment::new(degree).unwrap(), &nodes(&[Axis::Ends]), &|d2| vec![d2.to_vec()]);
        }
    }

    proptest! {
        #[test]
        fn chart(degree in 1usize..8, t in -0.99f64..0.99) {
            checks::chart(&Segment::new(degree).unwrap(), &[t]);
        }
    }

    #[test]
    fn gauge() {
        [1, 3, 8].into_iter().for_each(|degree| checks::gauge(&Segment::new(degree).unwrap()));
    }

    #[test]
    fn columns_are_legendre_polynomials() {
        let segment = Segment::new(4).unwrap();
        let mut phi = vec![0.0; 5];
        for t in [-1.0, -0.3, 0.6, 1.0f64] {
            segment.basis(&[t], &mut phi);
            let (s, q) = (t * t, t.powi(4));
            let expected = [1.0, t, 1.5 * s - 0.5, t * (2.5 * s - 1.5), (35.0 * q - 30.0 * s + 3.0) / 8.0];
            assert!(phi.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-14));
        }
    }

    #[test]
    fn steps_stop_at_the_ends_and_seeds_start_inside() {
        let segment = Segment::new(3).unwrap();
        let mut t = [0.8];
        segment.advance(&mut t, &[0.5]);
        assert_eq!(t, [1.0]);
        segment.advance(&mut t, &[-4.0]);
        assert_eq!(t, [-1.0]);
        let seeds = segment.seed_rows(&Array2::from_shape_fn((9, 1), |(i, _)| 3.0 * i as f64 - 7.0));
        assert_eq!((seeds[[0, 0]], seeds[[8, 0]]), (-INSIDE, INSIDE));
        assert!(segment.search_grid().iter().all(|t| t.abs() < 1.0));
    }

    #[test]
    fn impossible_degrees_are_refused() {
        assert!(Segment::new(0).is_err() && Segment::new(MAX_DEGREE + 1).is_err());
    }
}
