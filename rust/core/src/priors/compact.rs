//! Compact coordinates: the integral over the whole factor in place of a Gaussian one over all of space.
//!
//! A Gaussian of small curvature spreads over more than there is. The charge of a von Mises or von Mises-Fisher density has
//! the right limits at both ends, so that a coordinate which the data do not see contributes exactly nothing together with
//! its prior. Its concentration is the exact curvature h + s of the row's objective, s being what the Gauss-Newton block h
//! of H leaves out: the residual against second derivatives. Where h is strong, s is small beside it. Where an atom is weak,
//! its point goes wherever the row's noise is, and only s knows: with one harmonic the density of the point *is* von Mises
//! with that concentration.
//!
//! Angles and directions go together, of all atoms that a row uses ([`ClosedAxes`]). On an interval the integral is that
//! of a Gaussian, or of nothing, between the ends. At an end the objective has a slope as well, and the coordinate is held: it
//! has an entry of one in H, which says nothing, and a term of its own slope and curvature.

use super::ClosedAxes;
use crate::atoms::{places, ChartFactor};
use crate::interval::interval_charge;
use crate::linalg::small_cholesky;
use crate::problem::COMPACT_RIDGE;
use std::f64::consts::TAU;

/// A local coordinate of a chart whose integral is bounded by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoundedPart {
    /// Local coordinate of the atom.
    pub axis: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
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

impl BoundedPart {
    /// The part's term at a stored point of its atom, where its entry of H is `h` and of the exact curvature `h + s`; `None`
    /// where h is not positive. A held coordinate has its `pull` instead.
    pub fn term(&self, h: f64, s: f64, point: &[f64], pull: Option<&Pull>) -> Option<BoundedTerm> {
        let half_ln_tau = 0.5 * TAU.ln();
        let Kind::Interval { lo, hi, stored } = self.kind else {
            // its curvature is one, and its point is a point
            return Some(BoundedTerm { value: half_ln_tau, ..BoundedTerm::default() });
        };
        let (t, unit) = (point[stored], 2.0 / (hi - lo));
        let ends = (lo - t, hi - t);
        if let Some(pull) = pull {
            let exact = pull.curvature + pull.second + COMPACT_RIDGE * unit * unit;
            let charge = interval_charge(pull.slope, exact.max(0.0), ends);
            return Some(BoundedTerm {
                value: charge.value + half_ln_tau,
                by_second: if exact > 0.0 { charge.by_curvature } else { 0.0 },
                by_slope: charge.by_slope,
                ..BoundedTerm::default()
            });
        }
        if h <= 0.0 {
            return None;
        }
        let exact = h + s;
        let charge = interval_charge(0.0, exact.max(0.0), ends);
        let by_second = if exact > 0.0 { charge.by_curvature } else { 0.0 };
        Some(BoundedTerm {
            value: charge.value + half_ln_tau - 0.5 * h.ln(),
            by_curvature: by_second - 0.5 / h,
            by_second,
            by_point: charge.by_point,
            by_slope: 0.0,
        })
    }
}

/// The intervals and choices of a chart.
pub fn bounded_parts(factors: &[ChartFactor]) -> impl Iterator<Item = BoundedPart> + '_ {
    places(factors).filter_map(|place| {
        let kind = match place.factor {
            ChartFactor::Interval { lo, hi } => Kind::Interval { lo, hi, stored: place.stored },
            ChartFactor::Choice { .. } => Kind::Choice,
            ChartFactor::Circle { .. } | ChartFactor::Sphere { .. } | ChartFactor::Line => return None,
        };
        Some(BoundedPart { axis: place.local, kind })
    })
}

/// What a bounded part adds to the evidence beside `1/2 ln h`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BoundedTerm {
    /// The charge of h + s, less `1/2 ln h`.
    pub value: f64,
    /// Derivative in h at fixed s.
    pub by_curvature: f64,
    /// Derivative in s.
    pub by_second: f64,
    /// Derivative in the coordinate itself.
    pub by_point: f64,
    /// A held coordinate: derivative in its slope. `by_second` is then that in its whole curvature.
    pub by_slope: f64,
}

/// An atom of a row: where its coordinates begin among all of the row's, and where the row lies on it.
pub struct PlacedAtom<'a> {
    pub first: usize,
    pub factors: &'a [ChartFactor],
    pub point: &'a [f64],
    /// Those of held axes.
    pub pulls: Vec<(usize, Pull)>,
}

/// What the coordinates of a row's atoms cost in the evidence beside their energy, `1/2 ln|h| - (d/2) ln 2 pi` and the compact
/// terms, where their curvature is h (d x d) and the exact one h + s. Infinite where h is not positive definite. No closed
/// direction costs less than `least`, nor do the other coordinates on average.
pub fn coordinate_charge(atoms: &[PlacedAtom<'_>], (h, s): (&[f64], &[f64]), d: usize, least: f64) -> f64 {
    let closed = ClosedAxes::new(atoms.iter().map(|atom| (atom.first, atom.factors)));
    let block = closed.block(h, d);
    let price = closed.price(&block, &closed.block(s, d), least);
    let others = d - closed.count();
    if others == 0 {
        return price;
    }
    let half_ln_det = |mut matrix: Vec<f64>, n: usize| {
        small_cholesky(&mut matrix, n).then(|| (0..n).map(|u| matrix[u * n + u].ln()).sum::<f64>())
    };
    let (Some(all), Some(own)) = (half_ln_det(h.to_vec(), d), half_ln_det(block, closed.count())) else {
        return f64::INFINITY;
    };
    let mut rest = all - own - 0.5 * others as f64 * TAU.ln();
    for atom in atoms {
        for part in bounded_parts(atom.factors) {
            let at = (atom.first + part.axis) * (d + 1);
            let pull = atom.pulls.iter().find(|(axis, _)| *axis == part.axis).map(|(_, pull)| pull);
            rest += part.term(h[at], s[at], atom.point, pull).map_or(f64::INFINITY, |term| term.value);
        }
    }
    price + rest.max(least * others as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: ChartFactor = ChartFactor::Interval { lo: -1.0, hi: 2.0 };

    fn part() -> BoundedPart {
        bounded_parts(&[INTERVAL]).next().unwrap()
    }

    #[test]
    fn slopes_of_an_interval_match_differences() {
        let (part, e) = (part(), 1e-6);
        let difference = |f: &dyn Fn(f64) -> f64| (f(e) - f(-e)) / (2.0 * e);
        let free = |h: f64, s: f64, t: f64| part.term(h, s, &[t], None).unwrap();
        let term = free(2.0, -0.3, 0.4);
        assert!((difference(&|e| free(2.0 + e, -0.3, 0.4).value) - term.by_curvature).abs() < 1e-8);
        assert!((difference(&|e| free(2.0, -0.3 + e, 0.4).value) - term.by_second).abs() < 1e-8);
        assert!((difference(&|e| free(2.0, -0.3, 0.4 + e).value) - term.by_point).abs() < 1e-7);
        for (t, slope) in [(2.0, -3.0), (-1.0, 3.0), (2.0, 0.4)] {
            let at = |g: f64, h: f64, s: f64| {
                part.term(1.0, 0.0, &[t], Some(&Pull { slope: slope + g, curvature: 2.0 + h, second: s })).unwrap()
            };
            let term = at(0.0, 0.0, -0.5);
            assert!((difference(&|e| at(e, 0.0, -0.5).value) - term.by_slope).abs() < 1e-8);
            assert!((difference(&|e| at(0.0, e, -0.5).value) - term.by_second).abs() < 1e-8);
            assert!((difference(&|e| at(0.0, 0.0, -0.5 + e).value) - term.by_second).abs() < 1e-8);
            assert_eq!((term.by_curvature, term.by_point), (0.0, 0.0));
        }
    }

    #[test]
    fn a_coordinate_is_held_where_a_free_one_would_cost_the_same() {
        // at an end without a slope: a free coordinate's 1/2 ln h is in ln|H|, a held one's entry of H is one
        let part = part();
        for (h, s) in [(2.0, 0.7), (40.0, -3.0), (1e-6, 0.0)] {
            let ridge = COMPACT_RIDGE * (2.0f64 / 3.0).powi(2);
            let free = part.term(h + ridge, s, &[2.0], None).unwrap().value + 0.5 * (h + ridge).ln();
            let pull = Pull { slope: 0.0, curvature: h, second: s };
            let held = part.term(1.0, 0.0, &[2.0], Some(&pull)).unwrap().value;
            assert!((free - held).abs() < 1e-12, "{free} {held}");
        }
    }

    #[test]
    fn coordinates_that_nothing_sees_cost_nothing_and_no_less_than_their_price() {
        let factors = [ChartFactor::Circle { period: 3.0 }, INTERVAL];
        let atom = |first| PlacedAtom { first, factors: &factors, point: &[0.4; 2], pulls: Vec::new() };
        let h: Vec<f64> = (0..16).map(|i| if i % 5 == 0 { 1e-9 } else { 0.0 }).collect();
        let cost = |least| coordinate_charge(&[atom(0), atom(2)], (&h, &[0.0; 16]), 4, least);
        let energy: f64 = 2.0 * factors.iter().map(|f| f.ln_volume().unwrap()).sum::<f64>();
        assert!((energy + cost(f64::NEG_INFINITY)).abs() < 1e-6);
        assert_eq!(cost(1.0), 4.0);
    }
}
