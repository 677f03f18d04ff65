//! The torus: products of harmonics of two angles.

use super::products::Products;
use super::series::{wrap, Series};
use super::{each_seed, grid, standardised, Atom, BasisJet, ChartFactor};
use crate::errors::ShapeError;
use ndarray::{Array2, Axis};
use std::f64::consts::TAU;

const FACTORS: [ChartFactor; 2] = [ChartFactor::Circle { period: TAU }; 2];

/// Surfaces with a column for every product of a column of one circle with a column of another, the first angle slowest.
#[derive(Clone, Debug, PartialEq)]
pub struct Torus {
    harmonics: usize,
    products: Products,
}

impl Torus {
    pub fn new(harmonics: usize) -> Result<Self, ShapeError> {
        if harmonics == 0 {
            return Err(ShapeError::value("a torus needs at least 1 harmonic, got 0"));
        }
        Ok(Self { harmonics, products: Products::of_two([Series::Harmonics(harmonics); 2], |_, _| true)? })
    }
}

impl Atom for Torus {
    fn kind(&self) -> &'static str {
        "torus"
    }
    fn key(&self) -> String {
        format!("torus:{}", self.harmonics)
    }
    fn width(&self) -> usize {
        self.products.width()
    }
    fn factors(&self) -> &[ChartFactor] {
        &FACTORS
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
    /// Mean squared Laplacian of the flat torus.
    fn roughness(&self) -> Array2<f64> {
        self.products.bending()
    }
    fn null_projector(&self) -> Array2<f64> {
        self.products.projector(|frequencies| frequencies == [0, 0])
    }
    fn advance(&self, t: &mut [f64], step: &[f64]) {
        t.iter_mut().zip(step).for_each(|(t, s)| *t = wrap(*t + s, TAU));
    }
    /// Rotations of either angle.
    fn generators(&self) -> Vec<Array2<f64>> {
        vec![self.products.shift(0), self.products.shift(1)]
    }
    fn velocity(&self, generator: usize, _: &[f64], v: &mut [f64], dv: &mut [f64]) {
        v.fill(0.0);
        dv.fill(0.0);
        v[generator] = 1.0;
    }
    fn ln_group_volume(&self) -> f64 {
        2.0 * TAU.ln()
    }
    /// Reflections of either angle; and their exchange, unless their precisions differ.
    fn ln_symmetries(&self, gauged: bool) -> f64 {
        if gauged { 8.0f64 } else { 4.0 }.ln()
    }
    fn seed_components(&self) -> usize {
        4
    }
    /// Two planes, or a ring in space.
    fn seed_blocks(&self) -> Vec<Vec<usize>> {
        vec![vec![2, 2], vec![2, 1]]
    }
    fn seed(&self, scores: &[f64], t: &mut [f64]) {
        t[0] = wrap(scores[1].atan2(scores[0]), TAU);
        t[1] = wrap(scores[3].atan2(scores[2]), TAU);
    }
    fn seed_rows(&self, scores: &Array2<f64>) -> Array2<f64> {
        match scores.ncols() {
            3 => ring(scores),
            _ => each_seed(self, scores),
        }
    }
    fn search_grid(&self) -> Array2<f64> {
        grid::product(&vec![grid::angles(self.harmonics, TAU); 2])
    }
}

/// Angles on a ring `((R + r cos v) (cos, sin) u, r sin v)`: v from how far out and how far up a row lies.
fn ring(scores: &Array2<f64>) -> Array2<f64> {
    let radius = scores.map_axis(Axis(1), |x| x[0].hypot(x[1]));
    let out = standardised(radius.view());
    let up = standardised(scores.column(2));
    Array2::from_shape_fn((scores.nrows(), 2), |(i, a)| match a {
        0 => wrap(scores[[i, 1]].atan2(scores[[i, 0]]), TAU),
        _ => wrap(up[i].atan2(out[i]), TAU),
    })
}

#[cfg(test)]
mod tests {
    use super::super::laws::{nodes, obeys, Axis};
    use super::*;

    #[test]
    fn obeys_the_laws_of_atoms() {
        for harmonics in [1, 2] {
            let torus = Torus::new(harmonics).unwrap();
            let m = torus.width();
            let laplacian = |d2: &[f64]| vec![(0..m).map(|c| d2[c] + d2[3 * m + c]).collect()];
            obeys(&torus, &nodes(&[Axis::Angle(TAU), Axis::Angle(TAU)]), &laplacian);
        }
    }

    #[test]
    fn impossible_fields_are_refused() {
        assert!(Torus::new(0).is_err() && Torus::new(1000).is_err());
    }
}
