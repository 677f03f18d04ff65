//! The contrast of independent subspaces by their mean radii.
//!
//! The mean radius of a circle that a part of the rows uses is `sqrt(activity)` of its root mean square: that of a Gaussian plane
//! at an activity of pi/4, where the fourth moment tells them apart.

use super::overlapping::{best_angle, rotate};
use super::subspaces::rows_of_all_lengths;
use crate::special::ln_gamma;

/// `(E |y| - its Gaussian value)^2` of one group.
pub(super) fn radial_contrast(y: &[Vec<f64>]) -> f64 {
    let n = y[0].len();
    let mean = (0..n).map(|i| y.iter().map(|c| c[i] * c[i]).sum::<f64>().sqrt()).sum::<f64>() / n as f64;
    (mean - gaussian_radius(y.len())).powi(2)
}

/// `E |y|` of d independent normal numbers: `sqrt 2 Gamma((d + 1)/2) / Gamma(d/2)`.
fn gaussian_radius(d: usize) -> f64 {
    let half = 0.5 * d as f64;
    std::f64::consts::SQRT_2 * (ln_gamma(half + 0.5) - ln_gamma(half)).exp()
}

/// Sweeps of plane rotations between groups by their mean radii, until they settle.
pub(super) fn separate_radii(y: &mut [Vec<f64>], group: &[usize], sizes: &[usize]) {
    /// A mean has no closed form in the angle: rows enough for it to show the optimum, no more.
    const ROWS: usize = 1024;
    /// Each sweep costs as many passes over the rows as angles are tried.
    const RADIAL_SWEEPS: usize = 24;
    let lengths: Vec<f64> = (0..y[0].len()).map(|i| y.iter().map(|c| c[i] * c[i]).sum()).collect();
    let rows = rows_of_all_lengths(&lengths, ROWS);
    for _ in 0..RADIAL_SWEEPS {
        let mut largest = 0.0f64;
        for a in 0..y.len() {
            for b in a + 1..y.len() {
                if group[a] != group[b] {
                    let d = [sizes[group[a]], sizes[group[b]]];
                    let angle = Radii::new(y, group, (a, b), &rows).best_angle(d);
                    rotate(y, a, b, angle);
                    largest = largest.max(angle.abs());
                }
            }
        }
        // about what a mean over so many rows tells
        if largest < 1e-2 {
            return;
        }
    }
}

/// What the mean radii of two groups depend on when a component of each is rotated into that of the other.
struct Radii {
    /// The two components.
    pair: Vec<[f64; 2]>,
    /// Squared radius of the rest of either group.
    rest: Vec<[f64; 2]>,
}

impl Radii {
    fn new(y: &[Vec<f64>], group: &[usize], (a, b): (usize, usize), rows: &[usize]) -> Self {
        let rest = |own: usize, i: usize| -> f64 {
            let others = (0..y.len()).filter(|&c| c != own && group[c] == group[own]);
            others.map(|c| y[c][i] * y[c][i]).sum()
        };
        Self {
            pair: rows.iter().map(|&i| [y[a][i], y[b][i]]).collect(),
            rest: rows.iter().map(|&i| [rest(a, i), rest(b, i)]).collect(),
        }
    }

    fn contrast(&self, angle: f64, d: [usize; 2]) -> f64 {
        let (sin, cos) = angle.sin_cos();
        let mut mean = [0.0; 2];
        for ([u, v], rest) in self.pair.iter().zip(&self.rest) {
            let (first, second) = (cos * u + sin * v, cos * v - sin * u);
            mean[0] += (first * first + rest[0]).sqrt();
            mean[1] += (second * second + rest[1]).sqrt();
        }
        let n = self.pair.len() as f64;
        (0..2).map(|side| (mean[side] / n - gaussian_radius(d[side])).powi(2)).sum()
    }

    /// The best of a coarse grid over half a turn, then sections.
    fn best_angle(&self, d: [usize; 2]) -> f64 {
        best_angle(|angle| self.contrast(angle, d), 16, 12)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn circles_that_come_in_turns_are_told_apart() {
        // of every fourth row, all on one circle, nothing could be told
        let (n, mut rng) = (4096, ChaCha8Rng::seed_from_u64(3));
        let mut y = vec![vec![0.0; n]; 4];
        for i in 0..n {
            let (sin, cos) = (rng.random::<f64>() * std::f64::consts::TAU).sin_cos();
            y.iter_mut().for_each(|c| c[i] = 0.1 * (rng.random::<f64>() - 0.5));
            y[2 * (i % 2)][i] += 2.0 * cos;
            y[2 * (i % 2) + 1][i] += 2.0 * sin;
        }
        let planted = |y: &[Vec<f64>]| radial_contrast(&y[..2]) + radial_contrast(&y[2..]);
        let expected = planted(&y);
        rotate(&mut y, 0, 2, 0.5);
        assert!(planted(&y) < 0.9 * expected);
        separate_radii(&mut y, &[0, 0, 1, 1], &[2, 2]);
        assert!(planted(&y) > 0.98 * expected, "{} {expected}", planted(&y));
    }
}
