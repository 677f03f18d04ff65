//! Compact coordinates: the integral over the whole factor in place of a Gaussian one over all of space.
//!
//! A Gaussian of small curvature spreads over more than there is. `c` replaces its integral by one that has the right limits
//! at both ends, so that a coordinate which the data do not see contributes exactly nothing together with its prior.

use crate::atoms::ChartFactor;
use crate::special::{compact_term, sphere_term};
use std::f64::consts::TAU;

/// c of one compact factor and its derivative in the raw curvature block h (d x d); `None` for a line.
pub fn compact_of(factor: ChartFactor, h: [[f64; 2]; 2]) -> Option<(f64, [[f64; 2]; 2])> {
    match factor {
        ChartFactor::Circle { period } => {
            let unit = (period / TAU).powi(2);
            let (value, slope) = compact_term(h[0][0] * unit);
            Some((value, [[slope * unit, 0.0], [0.0, 0.0]]))
        }
        ChartFactor::Line => None,
        // its curvature is one, and its point is a point
        ChartFactor::Choice { .. } => Some((0.5 * TAU.ln(), [[0.0; 2]; 2])),
        ChartFactor::Sphere { antipodal } => {
            // d kappa = kappa/2 tr(h^-1 dh), and h^-1 = adj(h)/kappa^2
            let kappa = (h[0][0] * h[1][1] - h[0][1] * h[1][0]).sqrt();
            let (value, slope) = sphere_term(kappa, antipodal);
            let scale = 0.5 * slope / kappa;
            Some((value, [[scale * h[1][1], -scale * h[0][1]], [-scale * h[1][0], scale * h[0][0]]]))
        }
    }
}

/// The block of a factor's coordinates, which begin at `u`, in a curvature (q x q).
pub fn block_of(factor: ChartFactor, curvature: &[f64], q: usize, u: usize) -> [[f64; 2]; 2] {
    let mut out = [[0.0; 2]; 2];
    for a in 0..factor.dim() {
        for b in 0..factor.dim() {
            out[a][b] = curvature[(u + a) * q + u + b];
        }
    }
    out
}

/// What a coordinate of curvature h (d x d) costs in the evidence beside its energy: `1/2 ln|h| - (d/2) ln 2 pi + c`.
pub fn coordinate_charge(factors: &[ChartFactor], h: &[f64], d: usize) -> f64 {
    let mut factor = h.to_vec();
    if !crate::linalg::small_cholesky(&mut factor, d) {
        return f64::INFINITY;
    }
    let ln_det = 2.0 * (0..d).map(|u| factor[u * d + u].ln()).sum::<f64>();
    let compact: f64 = crate::atoms::places(factors)
        .filter_map(|place| compact_of(place.factor, block_of(place.factor, h, d, place.local)))
        .map(|c| c.0)
        .sum();
    0.5 * (ln_det - d as f64 * TAU.ln()) + compact
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_match_differences() {
        let h = [[2.0, 0.4], [0.4, 0.9]];
        let e = 1e-6;
        for factor in [
            ChartFactor::Circle { period: 3.0 },
            ChartFactor::Sphere { antipodal: false },
            ChartFactor::Sphere { antipodal: true },
        ] {
            let slope = compact_of(factor, h).unwrap().1;
            // a symmetric matrix moves in both of its off-diagonal entries at once
            for (a, b) in [(0, 0), (0, 1), (1, 1)].into_iter().filter(|(_, b)| *b < factor.dim()) {
                let moved = |s: f64| {
                    let mut h = h;
                    h[a][b] += s;
                    h[b][a] = h[a][b];
                    compact_of(factor, h).unwrap().0
                };
                let total = if a == b { slope[a][a] } else { slope[a][b] + slope[b][a] };
                assert!(((moved(e) - moved(-e)) / (2.0 * e) - total).abs() < 1e-8, "{factor:?} {a}{b}");
            }
        }
    }

    #[test]
    fn an_unseen_coordinate_costs_nothing() {
        for factor in [
            ChartFactor::Circle { period: TAU },
            ChartFactor::Sphere { antipodal: false },
            ChartFactor::Sphere { antipodal: true },
        ] {
            let (d, tiny) = (factor.dim(), 1e-8);
            let h: Vec<f64> = (0..d * d).map(|i| if i % (d + 1) == 0 { tiny } else { 0.0 }).collect();
            let cost = coordinate_charge(&[factor], &h, d) + factor.ln_volume().unwrap();
            assert!(cost.abs() < 1e-7, "{factor:?} {cost}");
        }
    }
}
