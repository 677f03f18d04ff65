//! Independent components in groups, where neither the number of components nor the number and sizes of groups are known.
//!
//! Rows that each use a few of many factors, whichever the others do, are sums of independent vectors, one a factor, that are
//! zero on most rows. Three questions are answered in turn, each by the distribution of its statistic where there is nothing:
//!
//! * How many components stand out from the noise? Eigenvalues of the covariance of noise stay below an edge whose law is that of
//!   Tracy and Widom (Johnstone, Annals of Statistics 29, 2001); the noise is what the components leave (Kritchman and Nadler,
//!   IEEE Transactions on Signal Processing 57, 2009).
//! * Which components are they? Those of the fixed points of the bounded contrast that tells them best from Gaussian ones.
//! * Which of them belong to one factor? A factor is on or off as a whole, so that its components are small on the same rows. How
//!   far `exp(-a y^2/2)` of two components go together is, times the root of the number of rows, normal with unit variance where
//!   they are independent. Groups are what the pairs above the threshold of all pairs connect. Factors that avoid each other
//!   are no reason to group them: only pairs that go together count.

use super::components::principal_scores;
use super::fixed_point::{components_alone, largest};
use crate::linalg::{product, Op};
use crate::special::bisect;
use ndarray::{Array2, ArrayView2, Axis};

/// Chance that noise makes one component, or that independent components make one pair.
const LEVEL: f64 = 0.01;
/// Quantile of the Tracy-Widom law of real covariances at one less `LEVEL`.
const TRACY_WIDOM: f64 = 2.0234;
/// Components below this part of the largest are rounding.
const ROUNDING: f64 = 1e-10;
/// `a` of the functions by which components are compared: one suits a factor that few rows use, the other one that most use.
const WIDTHS: [f64; 2] = [1.0, 4.0];

/// Components of rows, and which of them go together.
#[derive(Clone, Debug)]
pub struct IndependentGroups {
    /// Rows times this (p x d) are components of unit variance.
    pub unmixing: Array2<f64>,
    /// Components times this (d x p) are the rows less noise.
    pub mixing: Array2<f64>,
    /// The statistic of every pair (d x d), zero on the diagonal.
    pub together: Array2<f64>,
    /// The group of every component, counted from zero in the order of the components.
    pub labels: Vec<usize>,
}

/// Groups of components of rows (n x p, less their mean), of which at most `most` components are looked at. `None` where nothing
/// stands out from the noise, and when interrupted.
pub fn independent_groups(
    rows: ArrayView2<'_, f64>,
    most: usize,
    random_state: u64,
    interrupted: &dyn Fn() -> bool,
) -> Option<IndependentGroups> {
    let (n, p) = rows.dim();
    let scores = principal_scores(rows, n.min(p));
    let squares: Vec<f64> = scores.columns().into_iter().map(|c| c.dot(&c)).collect();
    let d = n_components(&squares, n, p).min(most);
    if d == 0 {
        return None;
    }
    let mut scores = scores.slice(ndarray::s![.., ..d]).to_owned();
    for (mut column, square) in scores.columns_mut().into_iter().zip(&squares) {
        column *= (n as f64 / square).sqrt();
    }
    // the bell that tells most is the one that suits how many rows use the factors
    let (_, y) = largest(components_alone(scores.view(), random_state, interrupted)?)?;
    // scores have unit variance: what takes them to components is orthogonal, and has its transpose for an inverse
    let share = 1.0 / n as f64;
    let mixing = product((y.view(), Op::Plain), (rows, Op::Plain)) * share;
    let turn = product((y.view(), Op::Plain), (scores.view(), Op::Plain)) * share;
    let mut axes = product((rows, Op::Transposed), (scores.view(), Op::Plain)) * share;
    for (mut column, square) in axes.columns_mut().into_iter().zip(&squares) {
        column *= n as f64 / square;
    }
    let unmixing = product((axes.view(), Op::Plain), (turn.view(), Op::Transposed));
    let together = togetherness(&y);
    let labels = connected(&together, threshold(d));
    Some(IndependentGroups { unmixing, mixing, together, labels })
}

/// How many principal components stand out from the noise, given the squared length of each, largest first.
fn n_components(squares: &[f64], n: usize, p: usize) -> usize {
    let rows = (n as f64 - 0.5).sqrt();
    for k in 0..squares.len() {
        let left: f64 = squares[k..].iter().sum();
        // each component takes up its part of the noise
        let noise = left / ((n - k) * (p - k)) as f64;
        let columns = ((p - k) as f64 - 0.5).sqrt();
        let edge = (rows + columns).powi(2) + TRACY_WIDOM * (rows + columns) * (1.0 / rows + 1.0 / columns).cbrt();
        if !(squares[k] > noise * edge && squares[k] > ROUNDING * ROUNDING * squares[0]) {
            return k;
        }
    }
    squares.len()
}

/// The largest over `WIDTHS` of the root of n times the correlation of `exp(-a y^2/2)`, for each pair of components (d x n).
pub(super) fn togetherness(y: &Array2<f64>) -> Array2<f64> {
    let (d, n) = y.dim();
    let mut out = Array2::from_elem((d, d), f64::NEG_INFINITY);
    for a in WIDTHS {
        let mut bells = y.mapv(|v| (-0.5 * a * v * v).exp());
        for mut row in bells.rows_mut() {
            let mean = row.sum() / n as f64;
            row -= mean;
            let length = row.dot(&row).sqrt();
            // a component that is the same on every row goes with nothing
            row.mapv_inplace(|v| if length > 0.0 { v / length } else { 0.0 });
        }
        let own = product((bells.view(), Op::Plain), (bells.view(), Op::Transposed)) * (n as f64).sqrt();
        out.zip_mut_with(&own, |best, v| *best = best.max(*v));
    }
    out.diag_mut().fill(0.0);
    out
}

/// What the largest of all statistics of independent components stays below, but for a chance of `LEVEL`.
///
/// Bonferroni's bound with Mills' `Q(z) <= exp(-z^2/2) / (z sqrt(2 pi))` for the tail.
fn threshold(d: usize) -> f64 {
    let tests = (WIDTHS.len() * (d * d.saturating_sub(1)) / 2).max(1) as f64;
    let log_tail = |z: f64| -0.5 * z * z - (z * std::f64::consts::TAU.sqrt()).ln();
    bisect((1.0, 25.0), |z| log_tail(z) > (LEVEL / tests).ln())
}

/// Labels of the connected parts of the graph whose edges are the entries above a threshold.
fn connected(weights: &Array2<f64>, threshold: f64) -> Vec<usize> {
    let d = weights.len_of(Axis(0));
    let mut labels = vec![usize::MAX; d];
    let mut next = 0;
    for first in 0..d {
        if labels[first] != usize::MAX {
            continue;
        }
        labels[first] = next;
        let mut open = vec![first];
        while let Some(c) = open.pop() {
            for o in 0..d {
                if labels[o] == usize::MAX && weights[[c, o]] > threshold {
                    labels[o] = next;
                    open.push(o);
                }
            }
        }
        next += 1;
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn normal(rng: &mut ChaCha8Rng) -> f64 {
        let (u, v): (f64, f64) = (rng.random(), rng.random());
        (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// Noise in p outputs, and points on spheres of so many dimensions in random directions, each on a share of the rows.
    fn spheres(n: usize, p: usize, sizes: &[usize], share: f64, seed: u64) -> Array2<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut rows = Array2::from_shape_simple_fn((n, p), || 0.05 * normal(&mut rng));
        for &size in sizes {
            let frame = Array2::from_shape_simple_fn((size, p), || normal(&mut rng) / (p as f64).sqrt());
            for mut row in rows.rows_mut() {
                if rng.random::<f64>() < share {
                    let point: Vec<f64> = (0..size).map(|_| normal(&mut rng)).collect();
                    let length = point.iter().map(|v| v * v).sum::<f64>().sqrt();
                    (0..size).for_each(|c| row.scaled_add(point[c] / length, &frame.row(c)));
                }
            }
        }
        rows
    }

    fn sizes(labels: &[usize]) -> Vec<usize> {
        let mut out: Vec<usize> =
            (0..labels.len()).map(|g| labels.iter().filter(|l| **l == g).count()).filter(|s| *s > 0).collect();
        out.sort_unstable();
        out
    }

    #[test]
    fn nothing_stands_out_from_noise() {
        let found = (0..40)
            .filter(|&seed| independent_groups(spheres(300, 20, &[], 0.0, seed).view(), 9, 0, &|| false).is_some());
        assert!(found.count() <= 2);
    }

    #[test]
    fn groups_have_the_sizes_of_the_factors() {
        let rows = spheres(1500, 30, &[1, 1, 2, 2, 3, 4], 0.25, 1);
        let found = independent_groups(rows.view(), 64, 0, &|| false).expect("factors");
        assert_eq!(sizes(&found.labels), [1, 1, 2, 2, 3, 4]);
        let there = product((rows.view(), Op::Plain), (found.unmixing.view(), Op::Plain));
        let square = product((there.view(), Op::Transposed), (there.view(), Op::Plain)) / 1500.0;
        assert!((&square - &Array2::<f64>::eye(13)).iter().all(|v| v.abs() < 1e-9));
        let back = product((found.mixing.view(), Op::Plain), (found.unmixing.view(), Op::Plain));
        assert!((&back - &Array2::<f64>::eye(13)).iter().all(|v| v.abs() < 1e-9));
    }

    #[test]
    fn independent_components_seldom_make_a_pair() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let grouped = (0..100).filter(|_| {
            let y = Array2::from_shape_simple_fn((8, 200), || normal(&mut rng));
            connected(&togetherness(&y), threshold(8)).iter().max() != Some(&7)
        });
        assert!(grouped.count() <= 4);
    }

    #[test]
    fn the_threshold_is_the_tail_of_the_normal_law() {
        // Q(4.417) = 5e-6; Mills' bound is larger by a part in z^2
        assert!((threshold(46) - 4.43).abs() < 0.02, "{}", threshold(46));
    }
}
