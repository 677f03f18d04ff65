//! Compact coordinates: the integral over the whole factor in place of a Gaussian one over all of space.
//!
//! A Gaussian of small curvature spreads over more than there is. The charge of a von Mises or von Mises-Fisher density has
//! the right limits at both ends, so that a coordinate which the data do not see contributes exactly nothing together with
//! its prior. Its concentration is the exact curvature h + s of the row's objective, s being what the Gauss-Newton block h
//! of H leaves out: the residual against second derivatives. Where h is strong, s is small beside it. Where an atom is weak,
//! its point goes wherever the row's noise is, and only s knows: with one harmonic the density of the point *is* von Mises
//! with that concentration.
//!
//! On an interval the integral is that of a Gaussian, or of nothing, between the ends. At an end the objective has a slope as
//! well, and the coordinate is held: it has an entry of one in H, which says nothing, and a term of its own slope and curvature.

use crate::atoms::{places, ChartFactor};
use crate::interval::interval_charge;
use crate::linalg::{small_cholesky, small_inverse, symmetric_eigen};
use crate::problem::COMPACT_RIDGE;
use crate::special::{circle_charge, sphere_charge};
use ndarray::ArrayView2;
use std::f64::consts::TAU;

/// Local coordinates of a chart whose integral is bounded together.
#[derive(Clone, Debug, PartialEq)]
pub struct CompactPart {
    /// Local coordinates of the atom.
    pub axes: Vec<usize>,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// Angles, by what one radian is in each coordinate's units.
    Angles(Vec<f64>),
    Sphere {
        antipodal: bool,
    },
    Choice,
    /// By where its coordinate is stored.
    Interval {
        lo: f64,
        hi: f64,
        stored: usize,
    },
}

/// What a row's objective would do along a held coordinate if it were free, without the ridge.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pull {
    pub slope: f64,
    /// Gauss-Newton's curvature, and what the exact one has beyond.
    pub curvature: f64,
    pub second: f64,
}

impl CompactPart {
    /// Whether the axes are an orthonormal frame of a unit sphere.
    pub fn is_sphere(&self) -> bool {
        matches!(self.kind, Kind::Sphere { .. })
    }

    /// The part's term at a stored point of its atom, where its block of H is `h` and its exact block `h + s` (n x n);
    /// `None` where h is not positive definite. A held coordinate has its `pull` instead.
    pub fn term(&self, h: &[f64], s: &[f64], point: &[f64], pull: Option<&Pull>) -> Option<CompactTerm> {
        let n = self.axes.len();
        let half_ln_tau = 0.5 * TAU.ln();
        match self.kind {
            // its curvature is one, and its point is a point
            Kind::Choice => return Some(CompactTerm { value: half_ln_tau, ..CompactTerm::still() }),
            Kind::Interval { lo, hi, stored } => {
                let (t, unit) = (point[stored], 2.0 / (hi - lo));
                let ends = (lo - t, hi - t);
                if let Some(pull) = pull {
                    let exact = pull.curvature + pull.second + COMPACT_RIDGE * unit * unit;
                    let charge = interval_charge(pull.slope, exact.max(0.0), ends);
                    return Some(CompactTerm {
                        value: charge.value + half_ln_tau,
                        by_second: vec![if exact > 0.0 { charge.by_curvature } else { 0.0 }],
                        by_slope: charge.by_slope,
                        ..CompactTerm::still()
                    });
                }
                if h[0] <= 0.0 {
                    return None;
                }
                let exact = h[0] + s[0];
                let charge = interval_charge(0.0, exact.max(0.0), ends);
                let by_second = if exact > 0.0 { charge.by_curvature } else { 0.0 };
                return Some(CompactTerm {
                    value: charge.value + half_ln_tau - 0.5 * h[0].ln(),
                    by_curvature: vec![by_second - 0.5 / h[0]],
                    by_second: vec![by_second],
                    by_point: charge.by_point,
                    by_slope: 0.0,
                });
            }
            Kind::Angles(_) | Kind::Sphere { .. } => {}
        }
        let mut factor = h.to_vec();
        if !small_cholesky(&mut factor, n) {
            return None;
        }
        let half_ln_det: f64 = (0..n).map(|a| factor[a * n + a].ln()).sum();
        let exact: Vec<f64> = h.iter().zip(s).map(|(h, s)| h + s).collect();
        let (charge, by_second) = match &self.kind {
            Kind::Angles(units) => {
                let per_radian = |i: usize| units[i / n] * units[i % n];
                let scaled: Vec<f64> = exact.iter().enumerate().map(|(i, k)| k * per_radian(i)).collect();
                let (charge, slope) = spectral(&scaled, n, circle_charge);
                let slope = slope.iter().enumerate().map(|(i, v)| v * per_radian(i)).collect();
                (charge - units.iter().map(|u| u.ln()).sum::<f64>(), slope)
            }
            Kind::Sphere { antipodal } => spectral(&exact, n, |k| {
                let (value, slope) = sphere_charge(k, *antipodal);
                (0.5 * value, 0.5 * slope)
            }),
            Kind::Choice | Kind::Interval { .. } => unreachable!("returned above"),
        };
        let mut by_curvature = small_inverse(&factor, n);
        by_curvature.iter_mut().zip(&by_second).for_each(|(inverse, slope)| *inverse = slope - 0.5 * *inverse);
        Some(CompactTerm { value: charge - half_ln_det, by_curvature, by_second, by_point: 0.0, by_slope: 0.0 })
    }
}

/// The compact parts of a chart: its angles together, each interval, each sphere and each choice.
///
/// Angles go together because a row may hold one combination of them and leave another free: then h is nearly singular, and no
/// entry of its diagonal shows it.
pub fn compact_parts(factors: &[ChartFactor]) -> Vec<CompactPart> {
    let (mut angles, mut units, mut out) = (Vec::new(), Vec::new(), Vec::new());
    for place in places(factors) {
        match place.factor {
            ChartFactor::Circle { period } => {
                angles.push(place.local);
                units.push(period / TAU);
            }
            ChartFactor::Line => {}
            ChartFactor::Interval { lo, hi } => {
                out.push(CompactPart {
                    axes: vec![place.local],
                    kind: Kind::Interval { lo, hi, stored: place.stored },
                });
            }
            ChartFactor::Sphere { antipodal } => {
                let axes = vec![place.local, place.local + 1];
                out.push(CompactPart { axes, kind: Kind::Sphere { antipodal } });
            }
            ChartFactor::Choice { .. } => out.push(CompactPart { axes: vec![place.local], kind: Kind::Choice }),
        }
    }
    if !angles.is_empty() {
        out.push(CompactPart { axes: angles, kind: Kind::Angles(units) });
    }
    out
}

/// What a compact part adds to the evidence beside `1/2 ln|h|`.
#[derive(Clone, Debug, PartialEq)]
pub struct CompactTerm {
    /// The charge of h + s, less `1/2 ln|h|`.
    pub value: f64,
    /// Derivative in h at fixed s (n x n).
    pub by_curvature: Vec<f64>,
    /// Derivative in s.
    pub by_second: Vec<f64>,
    /// Derivative in the coordinate itself, where the integral has ends.
    pub by_point: f64,
    /// A held coordinate: derivative in its slope. `by_second` is then that in its whole curvature.
    pub by_slope: f64,
}

impl CompactTerm {
    /// Of one coordinate that is no variable.
    fn still() -> Self {
        Self { value: 0.0, by_curvature: vec![0.0], by_second: vec![0.0], by_point: 0.0, by_slope: 0.0 }
    }
}

/// Sum of a function over the eigenvalues of a symmetric matrix, and its derivative in the matrix.
fn spectral(k: &[f64], n: usize, f: impl Fn(f64) -> (f64, f64)) -> (f64, Vec<f64>) {
    match n {
        1 => {
            let (value, slope) = f(k[0]);
            (value, vec![slope])
        }
        2 => {
            let (middle, half, off) = (0.5 * (k[0] + k[3]), 0.5 * (k[0] - k[3]), 0.5 * (k[1] + k[2]));
            let spread = half.hypot(off);
            let ((high, d_high), (low, d_low)) = (f(middle + spread), f(middle - spread));
            let (mean, difference) = (0.5 * (d_high + d_low), 0.5 * (d_high - d_low));
            // twice the direction of the larger eigenvalue; where the two agree there is none, and the derivatives agree too
            let (cos, sin) = if spread > 0.0 { (half / spread, off / spread) } else { (1.0, 0.0) };
            let across = difference * sin;
            (high + low, vec![mean + difference * cos, across, across, mean - difference * cos])
        }
        _ => {
            let matrix = ArrayView2::from_shape((n, n), k).expect("a square block");
            let (values, vectors) = symmetric_eigen(matrix);
            let mut out = (0.0, vec![0.0; n * n]);
            for (value, vector) in values.iter().zip(vectors.columns()) {
                let (value, slope) = f(*value);
                out.0 += value;
                for a in 0..n {
                    (0..n).for_each(|b| out.1[a * n + b] += slope * vector[a] * vector[b]);
                }
            }
            out
        }
    }
}

/// The block of some coordinates in a matrix (q x q); they count from `slot`.
pub fn block_of(axes: &[usize], matrix: &[f64], q: usize, slot: usize) -> Vec<f64> {
    axes.iter().flat_map(|a| axes.iter().map(move |b| matrix[(slot + a) * q + slot + b])).collect()
}

/// What a coordinate of curvature h (d x d) and exact curvature h + s at a stored point costs in the evidence beside its
/// energy: `1/2 ln|h| - (d/2) ln 2 pi` and the compact terms. Infinite where h is not positive definite. `pulls` are those of
/// held axes.
pub fn coordinate_charge(
    factors: &[ChartFactor],
    (h, s): (&[f64], &[f64]),
    d: usize,
    point: &[f64],
    pulls: &[(usize, Pull)],
) -> f64 {
    let mut factor = h.to_vec();
    if !small_cholesky(&mut factor, d) {
        return f64::INFINITY;
    }
    let half_ln_det: f64 = (0..d).map(|u| factor[u * d + u].ln()).sum();
    let charge = |part: CompactPart| {
        let pull = pulls.iter().find(|(axis, _)| part.axes == [*axis]).map(|(_, pull)| pull);
        let term = part.term(&block_of(&part.axes, h, d, 0), &block_of(&part.axes, s, d, 0), point, pull);
        term.map_or(f64::INFINITY, |term| term.value)
    };
    half_ln_det - 0.5 * d as f64 * TAU.ln() + compact_parts(factors).into_iter().map(charge).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CIRCLE: ChartFactor = ChartFactor::Circle { period: 3.0 };
    const INTERVAL: ChartFactor = ChartFactor::Interval { lo: -1.0, hi: 2.0 };
    const POINT: [f64; 3] = [0.4; 3];
    const CHARTS: [&[ChartFactor]; 6] = [
        &[INTERVAL],
        &[CIRCLE],
        &[ChartFactor::Sphere { antipodal: false }],
        &[ChartFactor::Sphere { antipodal: true }],
        &[CIRCLE, ChartFactor::Circle { period: 5.0 }],
        &[CIRCLE, ChartFactor::Circle { period: 5.0 }, ChartFactor::Circle { period: 2.0 }],
    ];

    fn part(factors: &[ChartFactor]) -> CompactPart {
        compact_parts(factors).pop().unwrap()
    }

    /// A diagonal and what is beside it.
    fn matrix(n: usize, diagonal: [f64; 3], beside: f64) -> Vec<f64> {
        (0..n * n).map(|i| if i % (n + 1) == 0 { diagonal[i / n] } else { beside }).collect()
    }

    #[test]
    fn slopes_match_differences() {
        let e = 1e-6;
        for factors in CHARTS {
            let (part, point) = (part(factors), POINT);
            let n = part.axes.len();
            let (h, s) = (matrix(n, [2.0, 0.9, 1.4], 0.4), matrix(n, [-0.7, 1.1, 0.3], 0.3));
            let term = part.term(&h, &s, &point, None).unwrap();
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
                    let by_curvature = slope(&|e| part.term(&moved(&h, e), &s, &point, None).unwrap().value);
                    let by_second = slope(&|e| part.term(&h, &moved(&s, e), &point, None).unwrap().value);
                    assert!((by_curvature - total(&term.by_curvature)).abs() < 1e-8, "{factors:?} {a}{b}");
                    assert!((by_second - total(&term.by_second)).abs() < 1e-8, "{factors:?} {a}{b}");
                }
            }
        }
    }

    #[test]
    fn a_flat_coordinate_contributes_nothing() {
        for factors in CHARTS {
            let d = part(factors).axes.len();
            let energy: f64 = factors.iter().map(|f| f.ln_volume().unwrap()).sum();
            let cost = coordinate_charge(factors, (&matrix(d, [1e-8; 3], 0.0), &vec![0.0; d * d]), d, &POINT, &[]);
            assert!((energy + cost).abs() < 1e-6, "{factors:?}");
        }
    }

    #[test]
    fn a_combination_of_angles_that_nothing_holds_has_the_volume_it_has() {
        // two angles of which only the sum is seen: half of a torus' volume is free, the rest a circle's integral
        let (k, tiny) = (200.0, 1e-8);
        let (torus, h) = ([ChartFactor::Circle { period: TAU }; 2], [k + tiny, k, k, k + tiny]);
        let cost = coordinate_charge(&torus, (&h, &[0.0; 4]), 2, &POINT, &[]) + 2.0 * TAU.ln();
        let expected = circle_charge(2.0 * k).0 - 0.5 * TAU.ln() + TAU.ln();
        assert!((cost - expected).abs() < 1e-6, "{cost} {expected}");
    }

    #[test]
    fn the_term_vanishes_where_the_curvature_is_strong_and_exact() {
        for factors in CHARTS {
            let part = part(factors);
            let n = part.axes.len();
            let term = part.term(&matrix(n, [4e8, 2e8, 5e8], 1e8), &vec![0.0; n * n], &POINT, None).unwrap();
            assert!(term.value.abs() < 1e-7, "{factors:?} {}", term.value);
        }
    }

    #[test]
    fn slopes_of_an_interval_match_differences() {
        let (part, e) = (part(&[INTERVAL]), 1e-6);
        let free = |t: f64| part.term(&[2.0], &[-0.3], &[t], None).unwrap();
        assert!(((free(0.4 + e).value - free(0.4 - e).value) / (2.0 * e) - free(0.4).by_point).abs() < 1e-7);
        for (t, slope) in [(2.0, -3.0), (-1.0, 3.0), (2.0, 0.4)] {
            let at = |g: f64, h: f64, s: f64| {
                part.term(&[1.0], &[0.0], &[t], Some(&Pull { slope: slope + g, curvature: 2.0 + h, second: s }))
                    .unwrap()
            };
            let term = at(0.0, 0.0, -0.5);
            let difference = |f: &dyn Fn(f64) -> f64| (f(e) - f(-e)) / (2.0 * e);
            assert!((difference(&|e| at(e, 0.0, -0.5).value) - term.by_slope).abs() < 1e-8);
            assert!((difference(&|e| at(0.0, e, -0.5).value) - term.by_second[0]).abs() < 1e-8);
            assert!((difference(&|e| at(0.0, 0.0, -0.5 + e).value) - term.by_second[0]).abs() < 1e-8);
            assert_eq!((term.by_curvature[0], term.by_point), (0.0, 0.0));
        }
    }

    #[test]
    fn a_coordinate_is_held_where_a_free_one_would_cost_the_same() {
        // at an end without a slope: a free coordinate's 1/2 ln h is in ln|H|, a held one's entry of H is one
        let part = part(&[INTERVAL]);
        for (h, s) in [(2.0, 0.7), (40.0, -3.0), (1e-6, 0.0)] {
            let ridge = COMPACT_RIDGE * (2.0f64 / 3.0).powi(2);
            let free = part.term(&[h + ridge], &[s], &[2.0], None).unwrap().value + 0.5 * (h + ridge).ln();
            let pull = Pull { slope: 0.0, curvature: h, second: s };
            let held = part.term(&[1.0], &[0.0], &[2.0], Some(&pull)).unwrap().value;
            assert!((free - held).abs() < 1e-12, "{free} {held}");
        }
    }
}
