//! The Klein bottle: a torus whose points are glued in pairs, with a flip.

use super::products::Products;
use super::series::{wrap, Series};
use super::{grid, Atom, BasisJet, ChartFactor};
use crate::errors::ShapeError;
use ndarray::Array2;
use std::f64::consts::{PI, SQRT_2, TAU};

/// Surfaces with the columns of a torus that do not tell `(theta, phi)` from `(theta + pi, -phi)`, theta slowest: even
/// harmonics of theta go with cosines of phi, odd ones with sines.
///
/// The bottle has half the area of the torus, so theta counts up to pi.
#[derive(Clone, Debug, PartialEq)]
pub struct KleinBottle {
    harmonics: usize,
    products: Products,
}

impl KleinBottle {
    pub fn new(harmonics: usize) -> Result<Self, ShapeError> {
        if harmonics < 2 {
            // with one, `1, cos phi, sin phi (cos, sin) theta` is a sphere
            return Err(ShapeError::value(format!("a Klein bottle needs at least 2 harmonics, got {harmonics}")));
        }
        let series = Series::Harmonics(harmonics);
        let keep = |i: usize, j: usize| (series.order(i) % 2 == 1) == series.is_odd(j);
        Ok(Self { harmonics, products: Products::of_two([series; 2], keep)? })
    }
}

/// The pair of angles that stands for a point: theta in [0, pi), phi in [0, 2 pi).
fn canonical(theta: f64, phi: f64) -> [f64; 2] {
    let half_turns = (theta / PI).floor();
    let rest = theta - half_turns * PI;
    // what rounds to a whole half turn is one more of them
    let (half_turns, rest) = if (0.0..PI).contains(&rest) { (half_turns, rest) } else { (half_turns + 1.0, 0.0) };
    [rest, wrap(if half_turns.rem_euclid(2.0) == 1.0 { -phi } else { phi }, TAU)]
}

impl Atom for KleinBottle {
    fn kind(&self) -> &'static str {
        "klein_bottle"
    }
    fn key(&self) -> String {
        format!("klein_bottle:{}", self.harmonics)
    }
    fn width(&self) -> usize {
        self.products.width()
    }
    fn factors(&self) -> &[ChartFactor] {
        &[ChartFactor::Circle { period: PI }, ChartFactor::Circle { period: TAU }]
    }
    fn basis(&self, t: &[f64], phi: &mut [f64]) {
        self.products.basis(t, phi);
    }
    fn jet(&self, t: &[f64], out: &mut BasisJet) {
        self.products.jet(t, out);
    }
    fn third(&self, t: &[f64], d3: &mut [f64]) {
        self.products.third(t, d3);
    }
    /// Mean squared Laplacian in the flat metric.
    fn roughness(&self) -> Array2<f64> {
        self.products.bending()
    }
    fn null_projector(&self) -> Array2<f64> {
        self.products.projector(|frequencies| frequencies == [0, 0])
    }
    fn advance(&self, t: &mut [f64], step: &[f64]) {
        t.copy_from_slice(&canonical(t[0] + step[0], t[1] + step[1]));
    }
    /// Rotation of theta.
    fn generators(&self) -> Vec<Array2<f64>> {
        vec![self.products.shift(0)]
    }
    fn velocity(&self, _: usize, _: &[f64], v: &mut [f64], dv: &mut [f64]) {
        v.copy_from_slice(&[1.0, 0.0]);
        dv.fill(0.0);
    }
    /// A decoder comes back after a whole turn; half a turn is the reflection of phi.
    fn ln_group_volume(&self) -> f64 {
        TAU.ln()
    }
    /// The reflection of theta and the half turn of phi; with precisions, which fix both origins, the reflections of theta
    /// and of phi.
    fn ln_symmetries(&self, _: bool) -> f64 {
        4.0f64.ln()
    }
    fn seed_components(&self) -> usize {
        4
    }
    fn seed_blocks(&self) -> Vec<Vec<usize>> {
        vec![vec![2, 2]]
    }
    /// From the embedding `((R + r cos phi) (cos, sin) 2 theta, r sin phi (cos, sin) theta)`, whose pairs are uncorrelated;
    /// R and r are guessed, and their ratio hardly matters.
    fn seed(&self, scores: &[f64], t: &mut [f64]) {
        /// r / R.
        const THICKNESS: f64 = 0.5;
        let theta = 0.5 * scores[1].atan2(scores[0]);
        let (sin, cos) = theta.sin_cos();
        // scores have unit variance: a pair's mean square length is 2
        let radius = SQRT_2 / (1.0 + 0.5 * THICKNESS * THICKNESS).sqrt();
        let out = (scores[0].hypot(scores[1]) / radius - 1.0) / THICKNESS;
        let up = 0.5 * (cos * scores[2] + sin * scores[3]);
        t.copy_from_slice(&canonical(theta, up.atan2(out)));
    }
    fn search_grid(&self) -> Array2<f64> {
        grid::product(&[grid::angles(self.harmonics, PI), grid::angles(self.harmonics, TAU)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{nodes, obeys, Axis};
    use super::*;

    fn row(bottle: &KleinBottle, t: &[f64]) -> Vec<f64> {
        let mut phi = vec![0.0; bottle.width()];
        bottle.basis(t, &mut phi);
        phi
    }

    #[test]
    fn obeys_the_laws_of_atoms() {
        for harmonics in [2, 3] {
            let bottle = KleinBottle::new(harmonics).unwrap();
            let m = bottle.width();
            let laplacian = |d2: &[f64]| vec![(0..m).map(|c| d2[c] + d2[3 * m + c]).collect()];
            obeys(&bottle, &nodes(&[Axis::Angle(TAU), Axis::Angle(TAU)]), &laplacian);
        }
    }

    #[test]
    fn glued_points_are_one() {
        let bottle = KleinBottle::new(3).unwrap();
        let (one, other) = (row(&bottle, &[0.4, 1.1]), row(&bottle, &[0.4 + PI, -1.1]));
        assert!(one.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-14));
        assert_eq!(bottle.width(), 24);
    }

    #[test]
    fn canonical_points_keep_their_place() {
        let bottle = KleinBottle::new(2).unwrap();
        for (theta, phi) in [(-1e-20, 0.7), (PI, 0.7), (-PI, 0.7), (7.0, -3.0), (-12.3, 40.0), (PI - 1e-16, 2.0)] {
            let at = canonical(theta, phi);
            assert!((0.0..PI).contains(&at[0]) && (0.0..TAU).contains(&at[1]));
            let (one, other) = (row(&bottle, &[theta, phi]), row(&bottle, &at));
            assert!(one.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-12), "{theta} {phi}");
        }
    }

    #[test]
    fn impossible_fields_are_refused() {
        assert!(KleinBottle::new(1).is_err() && KleinBottle::new(500).is_err());
    }
}
