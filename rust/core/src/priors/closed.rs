//! Angles and directions: the axes of a row's variables that close upon themselves, charged together.
//!
//! A row may hold one combination of them and leave another free: the two angles of a torus of which it sees the sum, or the
//! points of two atoms whose curves lie in one plane there. Then the block of its curvature is nearly singular, and no entry of
//! the diagonal shows it. So the charge is that of the eigenvalues of the whole block K in radians, each direction being charged
//! as the axes that it is made of:
//!
//! ```text
//! charge(K) = sum_a [f_a(K)]_aa = sum_i sum_a u_ai^2 f_a(kappa_i),    K = sum_i kappa_i u_i u_i'
//! d charge  = sum_ij (sum_a u_ai u_aj F^a_ij) u_i' dK u_j,            F^a_ij = (f_a(kappa_i) - f_a(kappa_j)) / (kappa_i - kappa_j)
//! ```
//!
//! with the divided differences of Daleckii and Krein. Blocks that nothing couples are charged as if each were alone.

use crate::atoms::{places, ChartFactor};
use crate::linalg::{small_cholesky, small_inverse, symmetric_eigen};
use crate::special::{circle_charge, sphere_charge};
use ndarray::ArrayView2;
use std::f64::consts::TAU;

/// What an axis is integrated over.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Measure {
    Angle,
    /// One of the two axes of a sphere, or of half of it.
    Direction {
        antipodal: bool,
    },
}

impl Measure {
    /// The charge of a concentration, and its derivative.
    fn charge(self, k: f64) -> (f64, f64) {
        match self {
            Self::Angle => circle_charge(k),
            Self::Direction { antipodal } => {
                let (value, slope) = sphere_charge(k, antipodal);
                (0.5 * value, 0.5 * slope)
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    /// Among the row's variables.
    slot: usize,
    /// What one radian is.
    unit: f64,
    measure: Measure,
}

/// The closed axes of some atoms of a row, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClosedAxes {
    axes: Vec<Axis>,
}

/// What closed axes add to the evidence beside `1/2 ln|h|`.
#[derive(Clone, Debug, PartialEq)]
pub struct ClosedTerm {
    /// The charge of h + s, less `1/2 ln|h|`.
    pub value: f64,
    /// Derivative in h at fixed s (n x n).
    pub by_curvature: Vec<f64>,
    /// Derivative in s.
    pub by_second: Vec<f64>,
}

impl ClosedAxes {
    /// Of atoms given by where their coordinates begin among the row's variables, and their charts.
    pub fn new<'a>(atoms: impl Iterator<Item = (usize, &'a [ChartFactor])>) -> Self {
        let mut axes = Vec::new();
        for (first, factors) in atoms {
            for place in places(factors) {
                let slot = first + place.local;
                match place.factor {
                    ChartFactor::Circle { period } => {
                        axes.push(Axis { slot, unit: period / TAU, measure: Measure::Angle });
                    }
                    ChartFactor::Sphere { antipodal } => {
                        let measure = Measure::Direction { antipodal };
                        axes.extend([slot, slot + 1].map(|slot| Axis { slot, unit: 1.0, measure }));
                    }
                    ChartFactor::Line | ChartFactor::Interval { .. } | ChartFactor::Choice { .. } => {}
                }
            }
        }
        Self { axes }
    }

    pub fn count(&self) -> usize {
        self.axes.len()
    }

    /// Their places among the row's variables.
    pub fn slots(&self) -> impl Iterator<Item = usize> + '_ {
        self.axes.iter().map(|axis| axis.slot)
    }

    /// Whether an axis is one of a sphere's, which come in pairs.
    pub fn is_direction(&self, index: usize) -> bool {
        matches!(self.axes[index].measure, Measure::Direction { .. })
    }

    /// Their block of a matrix over the row's variables (q x q).
    pub fn block(&self, matrix: &[f64], q: usize) -> Vec<f64> {
        self.slots().flat_map(|a| self.slots().map(move |b| matrix[a * q + b])).collect()
    }

    /// The term where their block of H is `h`, and that of the exact curvature `h + s`; `None` where h is not positive
    /// definite.
    pub fn term(&self, h: &[f64], s: &[f64]) -> Option<ClosedTerm> {
        let n = self.count();
        let mut factor = h.to_vec();
        if !small_cholesky(&mut factor, n) {
            return None;
        }
        let half_ln_det: f64 = (0..n).map(|a| factor[a * n + a].ln()).sum();
        let (charge, mut by_second) = self.spectral(&self.in_radians(h, s));
        for (i, slope) in by_second.iter_mut().enumerate() {
            *slope *= self.axes[i / n].unit * self.axes[i % n].unit;
        }
        let mut by_curvature = small_inverse(&factor, n);
        by_curvature.iter_mut().zip(&by_second).for_each(|(inverse, slope)| *inverse = slope - 0.5 * *inverse);
        let units: f64 = self.axes.iter().map(|axis| axis.unit.ln()).sum();
        Some(ClosedTerm { value: charge - units - half_ln_det, by_curvature, by_second })
    }

    /// What they cost beside their energy, the charge less `(n/2) ln 2 pi`, with no direction below `least`.
    pub fn price(&self, h: &[f64], s: &[f64], least: f64) -> f64 {
        let alone = |axis: &Axis, k: f64| axis.measure.charge(k).0 - axis.unit.ln() - 0.5 * TAU.ln();
        let k = self.in_radians(h, s);
        match &self.axes[..] {
            [] => 0.0,
            [axis] => alone(axis, k[0]).max(least),
            axes => {
                let n = axes.len();
                let (values, vectors) = symmetric_eigen(ArrayView2::from_shape((n, n), &k).expect("a square block"));
                let directions = values.iter().zip(vectors.columns()).map(|(value, vector)| {
                    axes.iter().zip(vector).map(|(axis, u)| u * u * alone(axis, *value)).sum::<f64>()
                });
                directions.map(|cost| cost.max(least)).sum()
            }
        }
    }

    fn in_radians(&self, h: &[f64], s: &[f64]) -> Vec<f64> {
        let n = self.count();
        let unit = |i: usize| self.axes[i / n].unit * self.axes[i % n].unit;
        h.iter().zip(s).enumerate().map(|(i, (h, s))| (h + s) * unit(i)).collect()
    }

    /// The charge of a block in radians, and its derivative.
    fn spectral(&self, k: &[f64]) -> (f64, Vec<f64>) {
        let n = self.count();
        let alike = self.axes.windows(2).all(|pair| pair[0].measure == pair[1].measure);
        match (n, alike) {
            (0, _) => (0.0, Vec::new()),
            (1, _) => {
                let (value, slope) = self.axes[0].measure.charge(k[0]);
                (value, vec![slope])
            }
            (2, true) => of_pair(k, |k| self.axes[0].measure.charge(k)),
            _ => self.of_many(k),
        }
    }

    fn of_many(&self, k: &[f64]) -> (f64, Vec<f64>) {
        let n = self.count();
        let (values, vectors) = symmetric_eigen(ArrayView2::from_shape((n, n), k).expect("a square block"));
        let mut kinds: Vec<Measure> = Vec::new();
        for axis in &self.axes {
            if !kinds.contains(&axis.measure) {
                kinds.push(axis.measure);
            }
        }
        let mut total = 0.0;
        // over pairs of eigenvectors
        let mut weights = vec![0.0; n * n];
        for kind in kinds {
            let own: Vec<usize> = (0..n).filter(|&a| self.axes[a].measure == kind).collect();
            let charges: Vec<(f64, f64)> = values.iter().map(|value| kind.charge(*value)).collect();
            for i in 0..n {
                for j in 0..=i {
                    let share: f64 = own.iter().map(|&a| vectors[[a, i]] * vectors[[a, j]]).sum();
                    let weight = share * divided_difference(kind, (values[i], charges[i]), (values[j], charges[j]));
                    weights[i * n + j] += weight;
                    if i == j {
                        total += share * charges[i].0;
                    } else {
                        weights[j * n + i] += weight;
                    }
                }
            }
        }
        let weights = ArrayView2::from_shape((n, n), &weights).expect("a square table");
        let slope = vectors.dot(&weights).dot(&vectors.t());
        (total, slope.iter().copied().collect())
    }
}

/// `(f(x) - f(y)) / (x - y)` of a charge, from its values and slopes there.
fn divided_difference(kind: Measure, (x, fx): (f64, (f64, f64)), (y, fy): (f64, (f64, f64))) -> f64 {
    /// Nearer than this part of their size, the slope between them is as exact as a difference.
    const NEAR: f64 = 1e-5;
    if (x - y).abs() > NEAR * (1.0 + x.abs().max(y.abs())) {
        (fx.0 - fy.0) / (x - y)
    } else if x == y {
        fx.1
    } else {
        kind.charge(0.5 * (x + y)).1
    }
}

/// Sum of a function over the eigenvalues of a symmetric 2 x 2 matrix, and its derivative in the matrix.
fn of_pair(k: &[f64], f: impl Fn(f64) -> (f64, f64)) -> (f64, Vec<f64>) {
    let (middle, half, off) = (0.5 * (k[0] + k[3]), 0.5 * (k[0] - k[3]), 0.5 * (k[1] + k[2]));
    let spread = half.hypot(off);
    let ((high, d_high), (low, d_low)) = (f(middle + spread), f(middle - spread));
    let (mean, difference) = (0.5 * (d_high + d_low), 0.5 * (d_high - d_low));
    // twice the direction of the larger eigenvalue; where the two agree there is none, and the derivatives agree too
    let (cos, sin) = if spread > 0.0 { (half / spread, off / spread) } else { (1.0, 0.0) };
    let across = difference * sin;
    (high + low, vec![mean + difference * cos, across, across, mean - difference * cos])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CIRCLE: ChartFactor = ChartFactor::Circle { period: 3.0 };
    const SPHERE: ChartFactor = ChartFactor::Sphere { antipodal: false };
    const HALF: ChartFactor = ChartFactor::Sphere { antipodal: true };
    const CHARTS: [&[&[ChartFactor]]; 7] = [
        &[&[CIRCLE]],
        &[&[SPHERE]],
        &[&[HALF]],
        &[&[CIRCLE], &[ChartFactor::Circle { period: 5.0 }]],
        &[&[CIRCLE, ChartFactor::Circle { period: 5.0 }], &[CIRCLE]],
        &[&[CIRCLE, ChartFactor::Line], &[SPHERE], &[HALF]],
        &[&[SPHERE], &[SPHERE]],
    ];

    fn closed(charts: &[&[ChartFactor]]) -> (ClosedAxes, usize) {
        let dims: Vec<usize> = charts.iter().map(|factors| factors.iter().map(|f| f.dim()).sum()).collect();
        let starts = (0..charts.len()).map(|k| dims[..k].iter().sum());
        (ClosedAxes::new(starts.zip(charts.iter().copied())), dims.iter().sum())
    }

    /// A positive definite matrix and a symmetric one.
    fn blocks(n: usize, entries: &[f64], size: f64) -> (Vec<f64>, Vec<f64>) {
        let at = |i: usize, j: usize| entries[(7 * i + j) % entries.len()];
        let product = |i: usize, j: usize| (0..n).map(|k| at(i, k) * at(j, k)).sum::<f64>();
        let over = |f: &dyn Fn(usize, usize) -> f64| (0..n * n).map(|i| size * f(i / n, i % n)).collect();
        let h = over(&|i, j| product(i, j) + f64::from(u8::from(i == j)) * 0.1);
        (h, over(&|i, j| at(i.max(j), i.min(j) + 3)))
    }

    proptest! {
        #[test]
        fn slopes_match_differences(
            entries in prop::collection::vec(-1.0f64..1.0, 50), ln_size in -3.0f64..4.0, chart in 0usize..7
        ) {
            let (axes, _) = closed(CHARTS[chart]);
            let n = axes.count();
            let (h, s) = blocks(n, &entries, ln_size.exp());
            let e = 1e-5 * ln_size.exp();
            let term = axes.term(&h, &s).unwrap();
            for a in 0..n {
                for b in a..n {
                    // a symmetric matrix moves in both of its off-diagonal entries at once
                    let moved = |block: &[f64], e: f64| {
                        let mut block = block.to_vec();
                        block[a * n + b] += e;
                        block[b * n + a] = block[a * n + b];
                        block
                    };
                    let slope = |f: &dyn Fn(f64) -> f64| (f(e) - f(-e)) / (2.0 * e);
                    let total = |by: &[f64]| if a == b { by[a * n + a] } else { by[a * n + b] + by[b * n + a] };
                    let by_curvature = slope(&|e| axes.term(&moved(&h, e), &s).unwrap().value);
                    let by_second = slope(&|e| axes.term(&h, &moved(&s, e)).unwrap().value);
                    let bound = 1e-6 * (1.0 + 1.0 / ln_size.exp());
                    prop_assert!((by_curvature - total(&term.by_curvature)).abs() < bound);
                    prop_assert!((by_second - total(&term.by_second)).abs() < bound);
                }
            }
        }

        /// What a row is charged does not depend on the frames of its spheres, nor on the order of its atoms.
        #[test]
        fn a_turned_frame_is_charged_the_same(entries in prop::collection::vec(-1.0f64..1.0, 50), turn in 0.0f64..6.0) {
            let (axes, _) = closed(&[&[CIRCLE], &[SPHERE]]);
            let (h, s) = blocks(3, &entries, 5.0);
            let (sin, cos) = turn.sin_cos();
            let q = ndarray::array![[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]];
            let turned = |m: &[f64]| -> Vec<f64> {
                let m = ArrayView2::from_shape((3, 3), m).unwrap();
                q.dot(&m).dot(&q.t()).iter().copied().collect()
            };
            let (here, there) = (axes.term(&h, &s).unwrap().value, axes.term(&turned(&h), &turned(&s)).unwrap().value);
            prop_assert!((here - there).abs() < 1e-9);
            let (swapped, _) = closed(&[&[SPHERE], &[CIRCLE]]);
            let order = [1, 2, 0];
            let permuted = |m: &[f64]| -> Vec<f64> { (0..9).map(|i| m[order[i / 3] * 3 + order[i % 3]]).collect() };
            prop_assert!((swapped.term(&permuted(&h), &permuted(&s)).unwrap().value - here).abs() < 1e-9);
        }
    }

    #[test]
    fn atoms_that_nothing_couples_are_charged_alone() {
        let alone: f64 = [(&[CIRCLE][..], 2.0), (&[CIRCLE], 0.3), (&[SPHERE], 7.0)]
            .into_iter()
            .map(|(factors, k)| {
                let (axes, n) = closed(&[factors]);
                let h: Vec<f64> = (0..n * n).map(|i| if i % (n + 1) == 0 { k } else { 0.0 }).collect();
                axes.term(&h, &vec![0.0; n * n]).unwrap().value
            })
            .sum();
        let (axes, n) = closed(&[&[CIRCLE], &[CIRCLE], &[SPHERE]]);
        let mut h = vec![0.0; n * n];
        [2.0, 0.3, 7.0, 7.0].iter().enumerate().for_each(|(a, k)| h[a * (n + 1)] = *k);
        assert!((axes.term(&h, &[0.0; 16]).unwrap().value - alone).abs() < 1e-12);
    }

    #[test]
    fn flat_axes_contribute_nothing() {
        for charts in CHARTS {
            let (axes, d) = closed(charts);
            let n = axes.count();
            let ridge: Vec<f64> = (0..n * n).map(|i| if i % (n + 1) == 0 { 1e-9 } else { 0.0 }).collect();
            let energy: f64 = charts.iter().flat_map(|f| f.iter()).filter_map(|f| f.ln_volume()).sum();
            let cost = axes.price(&ridge, &vec![0.0; n * n], f64::NEG_INFINITY);
            assert!((energy + cost).abs() < 1e-6, "{charts:?}");
            assert_eq!(axes.block(&vec![1.0; d * d], d).len(), n * n);
        }
    }

    #[test]
    fn a_combination_of_angles_that_nothing_holds_has_the_volume_it_has() {
        // two angles of which only the sum is seen: half of a torus' volume is free, the rest a circle's integral
        let (k, tiny) = (200.0, 1e-8);
        let circle = ChartFactor::Circle { period: TAU };
        for charts in [&[&[circle, circle][..]][..], &[&[circle], &[circle]]] {
            let (axes, _) = closed(charts);
            let cost = axes.price(&[k + tiny, k, k, k + tiny], &[0.0; 4], f64::NEG_INFINITY) + 2.0 * TAU.ln();
            let expected = circle_charge(2.0 * k).0 - 0.5 * TAU.ln() + TAU.ln();
            assert!((cost - expected).abs() < 1e-6, "{cost} {expected}");
        }
    }

    /// A weak circle in the plane of a strong one: against the integral over both angles.
    #[test]
    fn a_second_circle_in_the_plane_of_another_has_the_integral_of_both() {
        const NODES: usize = 1000;
        let (strong, weak, noise) = (0.999, 0.001, 0.05);
        let (axes, _) = closed(&[&[ChartFactor::Circle { period: TAU }], &[ChartFactor::Circle { period: TAU }]]);
        let factor = 1.0 / (noise * noise);
        // a row at the angles 0 and 0
        let h = [strong * strong, strong * weak, strong * weak, weak * weak].map(|v| factor * v);
        let h = [h[0] + 1e-8, h[1], h[2], h[3] + 1e-8];
        let cost = axes.price(&h, &[0.0; 4], f64::NEG_INFINITY) + 2.0 * TAU.ln();
        let angle = |i: usize| TAU * i as f64 / NODES as f64;
        let density = |i: usize, j: usize| {
            let ((s, c), (t, d)) = (angle(i).sin_cos(), angle(j).sin_cos());
            let (x, y) = (strong * c + weak * d - 1.0, strong * s + weak * t);
            (-0.5 * factor * (x * x + y * y)).exp()
        };
        let total: f64 = (0..NODES * NODES).map(|i| density(i / NODES, i % NODES)).sum();
        let exact = -(total / (NODES * NODES) as f64).ln();
        assert!((cost - exact).abs() < 2e-3, "{cost} {exact}");
        // one at a time, the angles had a volume that there is not
        let (one, _) = closed(&[&[ChartFactor::Circle { period: TAU }]]);
        let half_ln = |v: f64| 0.5 * v.ln();
        let alone = |k: f64| one.term(&[k], &[0.0]).unwrap().value;
        let determinant = h[0] * h[3] - h[1] * h[2];
        let apart = half_ln(determinant) - TAU.ln() + alone(h[0]) + alone(h[3]) + 2.0 * TAU.ln();
        assert!(apart < exact - 3.0, "{apart} {exact}");
    }

    #[test]
    fn a_row_without_closed_axes_has_no_charge() {
        let (axes, _) = closed(&[&[ChartFactor::Line]]);
        assert_eq!(axes.term(&[], &[]).unwrap().value, 0.0);
        assert_eq!(axes.price(&[], &[], 1.0), 0.0);
    }

    #[test]
    fn a_block_that_is_not_positive_definite_has_no_term() {
        let (axes, _) = closed(&[&[CIRCLE], &[CIRCLE]]);
        assert_eq!(axes.term(&[1.0, 2.0, 2.0, 1.0], &[0.0; 4]), None);
    }

    #[test]
    fn the_term_vanishes_where_the_curvature_is_strong_and_exact() {
        for charts in CHARTS {
            let (axes, _) = closed(charts);
            let n = axes.count();
            let h: Vec<f64> = (0..n * n).map(|i| if i % (n + 1) == 0 { 4e8 } else { 1e8 / n as f64 }).collect();
            let term = axes.term(&h, &vec![0.0; n * n]).unwrap();
            assert!(term.value.abs() < 1e-7, "{charts:?} {}", term.value);
        }
    }
}
