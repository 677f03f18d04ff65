//! The circle: harmonics of an angle.

use super::series::{each_harmonic, wrap, MAX_HARMONICS};
use super::{Atom, BasisJet, ChartFactor};
use crate::errors::ShapeError;
use ndarray::Array2;
use std::f64::consts::TAU;

/// Closed curves `1, cos t, sin t, ..., cos Ht, sin Ht` of an angle t in radians.
#[derive(Clone, Debug, PartialEq)]
pub struct Circle {
    harmonics: usize,
}

/// Grid points per harmonic in a search: the squared distance to a curve has at most 2H minima, and this
/// many points put several in the basin of each.
const GRID_PER_HARMONIC: usize = 12;

impl Circle {
    pub fn new(harmonics: usize) -> Result<Self, ShapeError> {
        if harmonics == 0 || harmonics > MAX_HARMONICS {
            return Err(ShapeError::value(format!(
                "a circle needs between 1 and {MAX_HARMONICS} harmonics, got {harmonics}"
            )));
        }
        Ok(Self { harmonics })
    }
}

impl Atom for Circle {
    fn kind(&self) -> &'static str {
        "circle"
    }
    fn key(&self) -> String {
        format!("circle:{}", self.harmonics)
    }
    fn width(&self) -> usize {
        2 * self.harmonics + 1
    }
    fn factors(&self) -> &[ChartFactor] {
        &[ChartFactor::Circle { period: TAU }]
    }
    fn basis(&self, t: &[f64], phi: &mut [f64]) {
        phi[0] = 1.0;
        each_harmonic(self.harmonics, t[0], |h, c, s| {
            phi[2 * h - 1] = c;
            phi[2 * h] = s;
        });
    }
    fn jet(&self, t: &[f64], out: &mut BasisJet) {
        (out.phi[0], out.d1[0], out.d2[0]) = (1.0, 0.0, 0.0);
        each_harmonic(self.harmonics, t[0], |h, c, s| {
            let w = h as f64;
            (out.phi[2 * h - 1], out.phi[2 * h]) = (c, s);
            (out.d1[2 * h - 1], out.d1[2 * h]) = (-w * s, w * c);
            (out.d2[2 * h - 1], out.d2[2 * h]) = (-w * w * c, -w * w * s);
        });
    }
    fn third(&self, t: &[f64], d3: &mut [f64]) {
        d3[0] = 0.0;
        each_harmonic(self.harmonics, t[0], |h, c, s| {
            let w = h as f64;
            (d3[2 * h - 1], d3[2 * h]) = (w * w * w * s, -w * w * w * c);
        });
    }
    /// Mean squared second derivative over the circle: h^4 / 2 on each of the pair.
    fn roughness(&self) -> Array2<f64> {
        let mut s = Array2::zeros((self.width(), self.width()));
        for h in 1..=self.harmonics {
            let value = (h as f64).powi(4) / 2.0;
            s[[2 * h - 1, 2 * h - 1]] = value;
            s[[2 * h, 2 * h]] = value;
        }
        s
    }
    fn null_projector(&self) -> Array2<f64> {
        let mut n = Array2::zeros((self.width(), self.width()));
        n[[0, 0]] = 1.0;
        n
    }
    fn advance(&self, t: &mut [f64], step: &[f64]) {
        t[0] = wrap(t[0] + step[0], TAU);
    }
    /// Rotation of the angle: d/dt cos ht = -h sin ht and d/dt sin ht = h cos ht close on the basis.
    fn generators(&self) -> Vec<Array2<f64>> {
        let mut map = Array2::zeros((self.width(), self.width()));
        for h in 1..=self.harmonics {
            map[[2 * h, 2 * h - 1]] = -(h as f64);
            map[[2 * h - 1, 2 * h]] = h as f64;
        }
        vec![map]
    }
    fn velocity(&self, _: usize, _: &[f64], v: &mut [f64], dv: &mut [f64]) {
        (v[0], dv[0]) = (1.0, 0.0);
    }
    fn ln_group_volume(&self) -> f64 {
        TAU.ln()
    }
    /// The reflection t -> -t.
    fn ln_symmetries(&self, _: bool) -> f64 {
        std::f64::consts::LN_2
    }
    fn seed_components(&self) -> usize {
        2
    }
    fn seed(&self, scores: &[f64], t: &mut [f64]) {
        t[0] = wrap(scores[1].atan2(scores[0]), TAU);
    }
    fn search_grid(&self) -> Array2<f64> {
        let points = GRID_PER_HARMONIC * self.harmonics.max(2);
        Array2::from_shape_fn((points, 1), |(j, _)| TAU * j as f64 / points as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn jet(circle: &Circle, t: f64) -> BasisJet {
        let mut out = BasisJet::new(1, circle.width());
        circle.jet(&[t], &mut out);
        out
    }

    proptest! {
        #[test]
        fn jets_match_differences(h in 1usize..8, t in -10.0f64..10.0) {
            let circle = Circle::new(h).unwrap();
            let e = 1e-4;
            let (lo, at, hi) = (jet(&circle, t - e), jet(&circle, t), jet(&circle, t + e));
            let mut third = vec![0.0; circle.width()];
            circle.third(&[t], &mut third);
            let scale = (h as f64).powi(5) * e * e;
            for m in 0..circle.width() {
                prop_assert!(((hi.phi[m] - lo.phi[m]) / (2.0 * e) - at.d1[m]).abs() < scale);
                prop_assert!(((hi.d1[m] - lo.d1[m]) / (2.0 * e) - at.d2[m]).abs() < scale);
                prop_assert!(((hi.d2[m] - lo.d2[m]) / (2.0 * e) - third[m]).abs() < scale);
            }
        }

        #[test]
        fn the_rotation_closes_on_the_basis(h in 1usize..8, t in -10.0f64..10.0) {
            let circle = Circle::new(h).unwrap();
            let at = jet(&circle, t);
            let g = &circle.generators()[0];
            for m in 0..circle.width() {
                let moved: f64 = (0..circle.width()).map(|j| at.phi[j] * g[[j, m]]).sum();
                prop_assert!((moved - at.d1[m]).abs() < 1e-12);
            }
        }

        #[test]
        fn retraction_lands_on_the_chart(t in -1e6f64..1e6) {
            let mut u = [0.0];
            Circle::new(1).unwrap().advance(&mut u, &[t]);
            prop_assert!((0.0..TAU).contains(&u[0]));
            prop_assert!((u[0].cos() - t.cos()).abs() < 1e-9);
        }
    }

    #[test]
    fn roughness_is_the_mean_squared_second_derivative() {
        let circle = Circle::new(3).unwrap();
        let n = 64;
        let mut gram = Array2::<f64>::zeros((7, 7));
        for j in 0..n {
            let at = jet(&circle, TAU * j as f64 / n as f64);
            for a in 0..7 {
                for b in 0..7 {
                    gram[[a, b]] += at.d2[a] * at.d2[b] / n as f64;
                }
            }
        }
        assert!(gram.iter().zip(circle.roughness().iter()).all(|(a, b)| (a - b).abs() < 1e-11));
    }
}
