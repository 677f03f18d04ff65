//! The patch: a polynomial curve, surface or solid.

use super::products::{Products, MAX_DIM};
use super::{along_an_arc, each_seed, grid, standardised, Atom, BasisJet, ChartFactor};
use crate::errors::ShapeError;
use ndarray::{Array2, Axis};
use std::f64::consts::{LN_2, PI};

/// Polynomials of `dim` real coordinates to a total degree.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    degree: usize,
    factors: Vec<ChartFactor>,
    products: Products,
}

impl Patch {
    pub fn new(dim: usize, degree: usize) -> Result<Self, ShapeError> {
        if dim == 0 || dim > MAX_DIM {
            return Err(ShapeError::value(format!("a patch has between 1 and {MAX_DIM} coordinates, got {dim}")));
        }
        if degree == 0 {
            return Err(ShapeError::value("a patch needs a degree of at least 1, got 0"));
        }
        Ok(Self { degree, factors: vec![ChartFactor::Line; dim], products: Products::monomials(dim, degree)? })
    }

    /// Pairs of coordinates a < b, each with a rotation.
    fn pairs(&self) -> Vec<(usize, usize)> {
        let d = self.dim();
        (0..d).flat_map(|a| (a + 1..d).map(move |b| (a, b))).collect()
    }
}

impl Atom for Patch {
    fn kind(&self) -> &'static str {
        "patch"
    }
    fn key(&self) -> String {
        format!("patch:{}:{}", self.dim(), self.degree)
    }
    fn width(&self) -> usize {
        self.products.width()
    }
    fn factors(&self) -> &[ChartFactor] {
        &self.factors
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
    /// Mean squared Hessian over the standard normal distribution, which no rotation of the coordinates changes.
    fn roughness(&self) -> Array2<f64> {
        self.products.bending()
    }
    /// Affine functions.
    fn null_projector(&self) -> Array2<f64> {
        self.products.projector(|powers| powers.iter().sum::<usize>() <= 1)
    }
    fn advance(&self, t: &mut [f64], step: &[f64]) {
        t.iter_mut().zip(step).for_each(|(t, s)| *t += s);
    }
    /// Rotations of two coordinates; the prior of the coordinates pins origin and scale.
    fn generators(&self) -> Vec<Array2<f64>> {
        self.pairs().into_iter().map(|(a, b)| self.products.rotation(a, b)).collect()
    }
    fn velocity(&self, generator: usize, t: &[f64], v: &mut [f64], dv: &mut [f64]) {
        let (a, b) = self.pairs()[generator];
        v.fill(0.0);
        dv.fill(0.0);
        (v[a], v[b]) = (t[b], -t[a]);
        (dv[a * self.dim() + b], dv[b * self.dim() + a]) = (1.0, -1.0);
    }
    /// SO(d): the product of the volumes of the spheres of dimension 1 to d - 1.
    fn ln_group_volume(&self) -> f64 {
        let sphere = |j: usize| LN_2 + 0.5 * j as f64 * PI.ln() - ln_gamma_of_half(j);
        (2..=self.dim()).map(sphere).sum()
    }
    fn degrees(&self) -> Option<Vec<u32>> {
        Some(self.products.degrees())
    }
    /// One reflection beside the rotations; with precisions of the axes, the reflection of each axis.
    fn ln_symmetries(&self, gauged: bool) -> f64 {
        LN_2 * if gauged { 1.0 } else { self.dim() as f64 }
    }
    fn seed_components(&self) -> usize {
        self.dim()
    }
    fn seed(&self, scores: &[f64], t: &mut [f64]) {
        t.copy_from_slice(scores);
    }
    /// Scores as they are; a curve may also bend round in a plane.
    fn seed_blocks(&self) -> Vec<Vec<usize>> {
        let flat = vec![self.dim()];
        if self.dim() == 1 {
            vec![flat, vec![2]]
        } else {
            vec![flat]
        }
    }
    fn seed_rows(&self, scores: &Array2<f64>) -> Array2<f64> {
        if scores.ncols() == self.dim() {
            each_seed(self, scores)
        } else {
            standardised(along_an_arc(scores).view()).insert_axis(Axis(1))
        }
    }
    fn search_grid(&self) -> Array2<f64> {
        grid::product(&vec![grid::reals(self.degree, self.dim()); self.dim()])
    }
    fn origin(&self, t: &mut [f64]) {
        t.fill(0.0);
    }
}

/// ln Gamma(j / 2).
fn ln_gamma_of_half(j: usize) -> f64 {
    // Gamma(x + 1) = x Gamma(x), down to Gamma(1) = 1 or Gamma(1/2) = sqrt(pi)
    let steps = (1..j).rev().skip(1).step_by(2).map(|twice| (0.5 * twice as f64).ln()).sum::<f64>();
    steps + if j % 2 == 1 { 0.5 * PI.ln() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{nodes, obeys, Axis};
    use super::*;

    #[test]
    fn obeys_the_laws_of_atoms() {
        for (dim, degree) in [(1, 1), (1, 2), (1, 4), (2, 1), (2, 3), (3, 2)] {
            let patch = Patch::new(dim, degree).unwrap();
            let width = patch.width();
            let axes: Vec<Axis> = (0..dim).map(|_| Axis::Normal).collect();
            obeys(&patch, &nodes(&axes), &|d2| d2.chunks_exact(width).map(<[f64]>::to_vec).collect());
        }
    }

    #[test]
    fn columns_are_graded_monomials() {
        let patch = Patch::new(2, 3).unwrap();
        let mut phi = vec![0.0; patch.width()];
        patch.basis(&[2.0, 3.0], &mut phi);
        assert_eq!(phi, [1.0, 2.0, 3.0, 4.0, 6.0, 9.0, 8.0, 12.0, 18.0, 27.0]);
    }

    #[test]
    fn volumes_of_rotation_groups() {
        let volume = |dim| Patch::new(dim, 1).unwrap().ln_group_volume().exp();
        for (dim, expected) in [(1, 1.0), (2, 2.0 * PI), (3, 8.0 * PI * PI), (4, 16.0 * PI.powi(4))] {
            assert!((volume(dim) / expected - 1.0).abs() < 1e-14, "{dim}");
        }
    }

    #[test]
    fn impossible_fields_are_refused() {
        for (dim, degree) in [(0, 2), (9, 1), (1, 0), (8, 12)] {
            assert!(Patch::new(dim, degree).is_err());
        }
    }
}
