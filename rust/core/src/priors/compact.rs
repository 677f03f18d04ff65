//! Compact coordinates: the integral over the whole factor in place of a Gaussian one over all of space.
//!
//! A Gaussian of small curvature spreads over more than there is. The charge of a von Mises or von Mises-Fisher density has
//! the right limits at both ends, so that a coordinate which the data do not see contributes exactly nothing together with
//! its prior. Its concentration is the exact curvature h + s of the row's objective, s being what the Gauss-Newton block h
//! of H leaves out: the residual against second derivatives. Where h is strong, s is small beside it. Where an atom is weak,
//! its point goes wherever the row's noise is, and only s knows: with one harmonic the density of the point *is* von Mises
//! with that concentration.

use crate::atoms::{places, ChartFactor};
use crate::linalg::{small_cholesky, small_inverse, symmetric_eigen};
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
}

impl CompactPart {
    /// Whether the axes are an orthonormal frame of a unit sphere.
    pub fn is_sphere(&self) -> bool {
        matches!(self.kind, Kind::Sphere { .. })
    }

    /// The part's term, where its block of H is `h` and its exact block `h + s` (n x n); `None` where h is not positive definite.
    pub fn term(&self, h: &[f64], s: &[f64]) -> Option<CompactTerm> {
        let n = self.axes.len();
        if let Kind::Choice = self.kind {
            // its curvature is one, and its point is a point
            return Some(CompactTerm { value: 0.5 * TAU.ln(), by_curvature: vec![0.0], by_second: vec![0.0] });
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
            Kind::Choice => unreachable!("returned above"),
        };
        let mut by_curvature = small_inverse(&factor, n);
        by_curvature.iter_mut().zip(&by_second).for_each(|(inverse, slope)| *inverse = slope - 0.5 * *inverse);
        Some(CompactTerm { value: charge - half_ln_det, by_curvature, by_second })
    }
}

/// The compact parts of a chart: its angles together, each sphere and each choice.
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

/// What a coordinate of curvature h (d x d) and exact curvature h + s costs in the evidence beside its energy:
/// `1/2 ln|h| - (d/2) ln 2 pi` and the compact terms. Infinite where h is not positive definite.
pub fn coordinate_charge(factors: &[ChartFactor], h: &[f64], s: &[f64], d: usize) -> f64 {
    let mut factor = h.to_vec();
    if !small_cholesky(&mut factor, d) {
        return f64::INFINITY;
    }
    let half_ln_det: f64 = (0..d).map(|u| factor[u * d + u].ln()).sum();
    let charge = |part: CompactPart| {
        let term = part.term(&block_of(&part.axes, h, d, 0), &block_of(&part.axes, s, d, 0));
        term.map_or(f64::INFINITY, |term| term.value)
    };
    half_ln_det - 0.5 * d as f64 * TAU.ln() + compact_parts(factors).into_iter().map(charge).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CIRCLE: ChartFactor = ChartFactor::Circle { period: 3.0 };
    const CHARTS: [&[ChartFactor]; 5] = [
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
            let part = part(factors);
            let n = part.axes.len();
            let (h, s) = (matrix(n, [2.0, 0.9, 1.4], 0.4), matrix(n, [-0.7, 1.1, 0.3], 0.3));
            let term = part.term(&h, &s).unwrap();
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
                    let by_curvature = slope(&|e| part.term(&moved(&h, e), &s).unwrap().value);
                    let by_second = slope(&|e| part.term(&h, &moved(&s, e)).unwrap().value);
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
            let cost = coordinate_charge(factors, &matrix(d, [1e-8; 3], 0.0), &vec![0.0; d * d], d);
            assert!((energy + cost).abs() < 1e-6, "{factors:?}");
        }
    }

    #[test]
    fn a_combination_of_angles_that_nothing_holds_has_the_volume_it_has() {
        // two angles of which only the sum is seen: half of a torus' volume is free, the rest a circle's integral
        let (k, tiny) = (200.0, 1e-8);
        let (torus, h) = ([ChartFactor::Circle { period: TAU }; 2], [k + tiny, k, k, k + tiny]);
        let cost = coordinate_charge(&torus, &h, &[0.0; 4], 2) + 2.0 * TAU.ln();
        let expected = circle_charge(2.0 * k).0 - 0.5 * TAU.ln() + TAU.ln();
        assert!((cost - expected).abs() < 1e-6, "{cost} {expected}");
    }

    #[test]
    fn the_term_vanishes_where_the_curvature_is_strong_and_exact() {
        for factors in CHARTS {
            let part = part(factors);
            let n = part.axes.len();
            let term = part.term(&matrix(n, [4e8, 2e8, 5e8], 1e8), &vec![0.0; n * n]).unwrap();
            assert!(term.value.abs() < 1e-7, "{factors:?} {}", term.value);
        }
    }
}
