//! Grids of points from which the nearest point of an atom is found by descent.

use ndarray::Array2;
use std::f64::consts::TAU;

/// Angles per harmonic of a surface: the squared distance to it has at most 2H minima along each angle, and this many
/// points put several in the basin of each.
const ANGLES_PER_HARMONIC: usize = 8;
/// Values per degree of a real coordinate, and how far they reach in standard deviations of its prior.
const REALS_PER_DEGREE: usize = 8;
const REACH: f64 = 3.0;
/// Most points over the real coordinates of a chart; every row looks at all of them.
const MAX_REALS: usize = 1024;

/// Angles in [0, period) for harmonics of an angle of period 2 pi.
pub(super) fn angles(harmonics: usize, period: f64) -> Vec<f64> {
    let points = ANGLES_PER_HARMONIC * harmonics.max(2);
    let points = (points as f64 * period / TAU).ceil() as usize;
    (0..points).map(|j| period * j as f64 / points as f64).collect()
}

/// Values of each of `dim` real coordinates.
pub(super) fn reals(degree: usize, dim: usize) -> Vec<f64> {
    let most = (1..).take_while(|&points: &usize| points.pow(dim as u32) <= MAX_REALS).last().unwrap_or(1);
    let points = (REALS_PER_DEGREE * degree + 1).min(most).max(2);
    (0..points).map(|j| REACH * (2.0 * j as f64 / (points - 1) as f64 - 1.0)).collect()
}

/// All combinations, the first axis slowest.
pub(super) fn product(axes: &[Vec<f64>]) -> Array2<f64> {
    let total = axes.iter().map(Vec::len).product();
    let mut stride = total;
    let mut out = Array2::zeros((total, axes.len()));
    for (a, axis) in axes.iter().enumerate() {
        stride /= axis.len();
        for row in 0..total {
            out[[row, a]] = axis[row / stride % axis.len()];
        }
    }
    out
}
