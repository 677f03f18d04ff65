//! The sphere: harmonics of a unit vector.

use super::harmonics::{exponential, rotation_velocity, Harmonics, MAX_DEGREE};
use super::{Atom, BasisJet, ChartFactor};
use crate::errors::ShapeError;
use ndarray::Array2;
use std::f64::consts::{LN_2, PI};

/// Closed surfaces: spherical harmonics to a degree of a point stored as a unit 3-vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Sphere {
    harmonics: Harmonics,
}

impl Sphere {
    pub fn new(degree: usize) -> Result<Self, ShapeError> {
        if degree == 0 || degree > MAX_DEGREE {
            return Err(ShapeError::value(format!("a sphere needs a degree between 1 and {MAX_DEGREE}, got {degree}")));
        }
        Ok(Self { harmonics: Harmonics::new(degree, 1) })
    }
}

impl Atom for Sphere {
    fn kind(&self) -> &'static str {
        "sphere"
    }
    fn key(&self) -> String {
        format!("sphere:{}", self.harmonics.degree())
    }
    fn width(&self) -> usize {
        self.harmonics.width()
    }
    fn factors(&self) -> &[ChartFactor] {
        &[ChartFactor::Sphere { antipodal: false }]
    }
    fn basis(&self, t: &[f64], phi: &mut [f64]) {
        self.harmonics.basis(t, phi);
    }
    fn jet(&self, t: &[f64], out: &mut BasisJet) {
        self.harmonics.jet(t, out);
    }
    fn third(&self, t: &[f64], d3: &mut [f64]) {
        self.harmonics.third(t, d3);
    }
    fn roughness(&self) -> Array2<f64> {
        self.harmonics.roughness()
    }
    fn null_projector(&self) -> Array2<f64> {
        self.harmonics.null_projector()
    }
    fn advance(&self, t: &mut [f64], step: &[f64]) {
        exponential(t, step);
    }
    fn generators(&self) -> Vec<Array2<f64>> {
        self.harmonics.rotations()
    }
    fn velocity(&self, generator: usize, t: &[f64], v: &mut [f64], dv: &mut [f64]) {
        rotation_velocity(generator, t, v, dv);
    }
    fn ln_group_volume(&self) -> f64 {
        (8.0 * PI * PI).ln()
    }
    /// The reflection t -> -t.
    fn ln_symmetries(&self, _: bool) -> f64 {
        LN_2
    }
    fn seed_components(&self) -> usize {
        3
    }
    fn seed(&self, scores: &[f64], t: &mut [f64]) {
        direction(scores, t);
    }
    fn search_grid(&self) -> Array2<f64> {
        self.harmonics.grid(false)
    }
    fn origin(&self, t: &mut [f64]) {
        t.copy_from_slice(&[0.0, 0.0, 1.0]);
    }
}

/// The unit vector along some scores; the pole when they have no direction.
fn direction(scores: &[f64], t: &mut [f64]) {
    let norm = scores.iter().map(|v| v * v).sum::<f64>().sqrt();
    if norm > 0.0 {
        t.iter_mut().zip(scores).for_each(|(t, s)| *t = s / norm);
    } else {
        t.copy_from_slice(&[0.0, 0.0, 1.0]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::checks;
    use super::*;
    use proptest::prelude::*;

    fn points() -> impl Strategy<Value = Vec<f64>> {
        proptest::array::uniform3(-1.0f64..1.0)
            .prop_filter("a direction", |v| v.iter().map(|v| v * v).sum::<f64>() > 0.01)
            .prop_map(|v| {
                let mut t = vec![0.0; 3];
                direction(&v, &mut t);
                t
            })
    }

    proptest! {
        #[test]
        fn chart(degree in 1usize..6, t in points()) {
            checks::chart(&Sphere::new(degree).unwrap(), &t);
        }
    }

    #[test]
    fn chart_at_the_poles_and_on_the_equator() {
        for t in [[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]] {
            checks::chart(&Sphere::new(3).unwrap(), &t);
        }
    }

    #[test]
    fn gauge() {
        (1..=8).for_each(|degree| checks::gauge(&Sphere::new(degree).unwrap()));
    }

    #[test]
    fn roughness_is_the_mean_squared_laplacian() {
        let sphere = Sphere::new(3).unwrap();
        let m = sphere.width();
        let (n, mut gram) = (100_000, Array2::<f64>::zeros((m, m)));
        let mut jet = BasisJet::new(2, m);
        for t in super::super::harmonics::lattice(n, false).rows() {
            sphere.jet(t.as_slice().unwrap(), &mut jet);
            let laplacian: Vec<f64> = (0..m).map(|c| jet.d2[c] + jet.d2[3 * m + c]).collect();
            for a in 0..m {
                for b in 0..m {
                    gram[[a, b]] += laplacian[a] * laplacian[b] / n as f64;
                }
            }
        }
        assert!(gram.iter().zip(sphere.roughness().iter()).all(|(a, b)| (a - b).abs() < 1e-3));
    }

    #[test]
    fn a_long_way_round_ends_where_it_began() {
        let sphere = Sphere::new(1).unwrap();
        let mut t = [0.6, 0.0, -0.8];
        sphere.advance(&mut t, &[0.6 * 2.0 * PI, 0.8 * 2.0 * PI]);
        assert!(t.iter().zip([0.6, 0.0, -0.8]).all(|(a, b)| (a - b).abs() < 1e-14));
    }
}
