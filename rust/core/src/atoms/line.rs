//! The line: a linear direction.

use super::{grid, Atom, BasisJet, ChartFactor};
use ndarray::Array2;

/// A straight line `1, t`. Nothing on it is rough, so both coefficients have the weak prior of the null space alone.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Line;

impl Atom for Line {
    fn kind(&self) -> &'static str {
        "line"
    }
    fn key(&self) -> String {
        "line".into()
    }
    fn width(&self) -> usize {
        2
    }
    fn factors(&self) -> &[ChartFactor] {
        &[ChartFactor::Line]
    }
    fn basis(&self, t: &[f64], phi: &mut [f64]) {
        phi.copy_from_slice(&[1.0, t[0]]);
    }
    fn jet(&self, t: &[f64], out: &mut BasisJet) {
        out.phi.copy_from_slice(&[1.0, t[0]]);
        out.d1.copy_from_slice(&[0.0, 1.0]);
        out.d2.fill(0.0);
    }
    fn third(&self, _: &[f64], d3: &mut [f64]) {
        d3.fill(0.0);
    }
    fn roughness(&self) -> Array2<f64> {
        Array2::zeros((2, 2))
    }
    fn null_projector(&self) -> Array2<f64> {
        Array2::eye(2)
    }
    fn advance(&self, t: &mut [f64], step: &[f64]) {
        t[0] += step[0];
    }
    /// The prior of the coordinate pins origin and scale.
    fn generators(&self) -> Vec<Array2<f64>> {
        Vec::new()
    }
    fn velocity(&self, _: usize, _: &[f64], _: &mut [f64], _: &mut [f64]) {}
    fn ln_group_volume(&self) -> f64 {
        0.0
    }
    fn degrees(&self) -> Option<Vec<u32>> {
        Some(vec![0, 1])
    }
    /// The reflection t -> -t.
    fn ln_symmetries(&self, _: bool) -> f64 {
        std::f64::consts::LN_2
    }
    fn seed_components(&self) -> usize {
        1
    }
    fn seed(&self, scores: &[f64], t: &mut [f64]) {
        t[0] = scores[0];
    }
    fn search_grid(&self) -> Array2<f64> {
        grid::product(&[grid::reals(1, 1)])
    }
    fn origin(&self, t: &mut [f64]) {
        t[0] = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::laws::{nodes, obeys, Axis};
    use super::*;

    #[test]
    fn obeys_the_laws_of_atoms() {
        obeys(&Line, &nodes(&[Axis::Normal]), &|d2| vec![d2.to_vec()]);
    }
}
