//! The cylinder: harmonics of an angle times powers of a real coordinate.

use super::products::Products;
use super::series::{wrap, Series};
use super::{grid, Atom, BasisJet, ChartFactor};
use crate::errors::ShapeError;
use ndarray::Array2;
use std::f64::consts::TAU;

/// Surfaces with a column for every product of a column of a circle with a power of a real coordinate, the angle slowest.
#[derive(Clone, Debug, PartialEq)]
pub struct Cylinder {
    harmonics: usize,
    degree: usize,
    products: Products,
}

impl Cylinder {
    pub fn new(harmonics: usize, degree: usize) -> Result<Self, ShapeError> {
        if harmonics == 0 || degree == 0 {
            return Err(ShapeError::value(format!(
                "a cylinder needs at least 1 harmonic and a degree of at least 1, got {harmonics} and {degree}"
            )));
        }
        let series = [Series::Harmonics(harmonics), Series::Powers(degree)];
        Ok(Self { harmonics, degree, products: Products::of_two(series, |_, _| true)? })
    }
}

impl Atom for Cylinder {
    fn kind(&self) -> &'static str {
        "cylinder"
    }
    fn key(&self) -> String {
        format!("cylinder:{}:{}", self.harmonics, self.degree)
    }
    fn width(&self) -> usize {
        self.products.width()
    }
    fn factors(&self) -> &[ChartFactor] {
        &[ChartFactor::Circle { period: TAU }, ChartFactor::Line]
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
    /// Mean squared second derivatives in each coordinate, over the circle and the standard normal distribution.
    fn roughness(&self) -> Array2<f64> {
        self.products.own_bending()
    }
    /// The functions 1 and s.
    fn null_projector(&self) -> Array2<f64> {
        self.products.projector(|orders| orders[0] == 0 && orders[1] <= 1)
    }
    fn advance(&self, t: &mut [f64], step: &[f64]) {
        t[0] = wrap(t[0] + step[0], TAU);
        t[1] += step[1];
    }
    /// Rotation of the angle; the prior of the other coordinate pins its origin and scale.
    fn generators(&self) -> Vec<Array2<f64>> {
        vec![self.products.shift(0)]
    }
    fn velocity(&self, _: usize, _: &[f64], v: &mut [f64], dv: &mut [f64]) {
        v.copy_from_slice(&[1.0, 0.0]);
        dv.fill(0.0);
    }
    fn ln_group_volume(&self) -> f64 {
        TAU.ln()
    }
    fn degrees(&self) -> Option<Vec<u32>> {
        Some(self.products.degrees())
    }
    /// Reflections of either coordinate.
    fn ln_symmetries(&self, _: bool) -> f64 {
        4.0f64.ln()
    }
    fn seed_components(&self) -> usize {
        3
    }
    fn seed_blocks(&self) -> Vec<Vec<usize>> {
        vec![vec![2, 1]]
    }
    fn seed(&self, scores: &[f64], t: &mut [f64]) {
        t[0] = wrap(scores[1].atan2(scores[0]), TAU);
        t[1] = scores[2];
    }
    fn search_grid(&self) -> Array2<f64> {
        grid::product(&[grid::angles(self.harmonics, TAU), grid::reals(self.degree, 1)])
    }
    fn origin(&self, t: &mut [f64]) {
        t.fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{nodes, obeys, Axis};
    use super::*;

    #[test]
    fn obeys_the_laws_of_atoms() {
        for (harmonics, degree) in [(1, 1), (2, 1), (1, 3)] {
            let cylinder = Cylinder::new(harmonics, degree).unwrap();
            let m = cylinder.width();
            let own = |d2: &[f64]| vec![d2[..m].to_vec(), d2[3 * m..].to_vec()];
            obeys(&cylinder, &nodes(&[Axis::Angle(TAU), Axis::Normal]), &own);
        }
    }

    #[test]
    fn impossible_fields_are_refused() {
        assert!(Cylinder::new(0, 1).is_err() && Cylinder::new(1, 0).is_err() && Cylinder::new(4000, 4).is_err());
    }
}
