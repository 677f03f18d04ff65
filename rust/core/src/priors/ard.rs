//! Priors of coordinates, with automatic relevance determination.
//!
//! On a circle of period P, with kappa = 2 pi / P and eta = alpha / kappa^2, the prior is von Mises: energy
//! `eta (1 - cos kappa t) - eta + ln I_0(eta) + ln P`, which integrates to one over the circle; without a precision it is
//! uniform. On a line it is Gaussian, `alpha t^2 / 2 - ln(alpha) / 2 + ln(2 pi) / 2`, with alpha = 1 where no precision is
//! given: some prior has to fix the scale of a coordinate that its decoder could absorb. On an interval and on a sphere it is
//! uniform.

use crate::atoms::{places, Atom, ChartFactor};
use crate::problem::{Problem, COMPACT_RIDGE};
use crate::rho::SaeManifoldRho;
use crate::special::{bisect, ln_bessel_i0};
use crate::state::State;
use std::f64::consts::TAU;

/// Energy of one coordinate, with what its derivatives are made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct CoordinatePrior {
    /// Energy with its normaliser.
    pub energy: f64,
    pub gradient: f64,
    /// Exact second derivative, and its derivative in t.
    pub curvature: f64,
    pub d_curvature: f64,
    /// The part of it that enters H, `max(curvature, 0)`, and that part's derivative in t.
    pub majoriser: f64,
    pub d_majoriser: f64,
    /// What a compact coordinate adds to H beside it.
    pub ridge: f64,
    /// Derivative of the energy in `ln alpha`; zero where no precision is given.
    pub d_log_alpha: f64,
}

impl CoordinatePrior {
    /// What the prior puts on the diagonal of H.
    pub fn stiffness(&self) -> f64 {
        self.majoriser + self.ridge
    }

    /// What its exact second derivative has beyond its part of H; never positive.
    pub fn beyond(&self) -> f64 {
        self.curvature - self.majoriser
    }
}

/// The prior of a coordinate `t` on a factor of one dimension; `alpha` is `None` where no precision is given.
pub fn coordinate_prior(factor: ChartFactor, alpha: Option<f64>, t: f64) -> CoordinatePrior {
    match factor {
        ChartFactor::Circle { period } => on_circle(period, alpha, t),
        ChartFactor::Line => on_line(alpha, t),
        ChartFactor::Interval { lo, hi } => {
            let energy = factor.ln_volume().expect("an interval is bounded");
            if factor.inward(t).is_some() {
                return still(energy);
            }
            let unit = 2.0 / (hi - lo);
            CoordinatePrior { energy, ridge: COMPACT_RIDGE * unit * unit, ..CoordinatePrior::default() }
        }
        ChartFactor::Sphere { .. } => uniform(factor.ln_volume().expect("a sphere is compact")),
        ChartFactor::Choice { .. } => still(factor.ln_volume().expect("a choice is finite")),
    }
}

/// A coordinate that is no variable, held by a curvature whose Gaussian the compact term takes off again.
fn still(energy: f64) -> CoordinatePrior {
    CoordinatePrior { energy, curvature: 1.0, majoriser: 1.0, ..CoordinatePrior::default() }
}

fn uniform(ln_volume: f64) -> CoordinatePrior {
    CoordinatePrior { energy: ln_volume, ridge: COMPACT_RIDGE, ..CoordinatePrior::default() }
}

fn on_circle(period: f64, alpha: Option<f64>, t: f64) -> CoordinatePrior {
    let Some(alpha) = alpha else { return uniform(period.ln()) };
    let kappa = TAU / period;
    let eta = alpha / (kappa * kappa);
    let (sin, cos) = (kappa * t).sin_cos();
    let (ln_i0, ratio) = ln_bessel_i0(eta);
    let curvature = alpha * cos;
    CoordinatePrior {
        energy: -eta * cos + ln_i0 + period.ln(),
        gradient: alpha / kappa * sin,
        curvature,
        d_curvature: -alpha * kappa * sin,
        majoriser: curvature.max(0.0),
        d_majoriser: if curvature > 0.0 { -alpha * kappa * sin } else { 0.0 },
        ridge: COMPACT_RIDGE,
        d_log_alpha: eta * (ratio - cos),
    }
}

fn on_line(alpha: Option<f64>, t: f64) -> CoordinatePrior {
    let precision = alpha.unwrap_or(1.0);
    let square = precision * t * t;
    CoordinatePrior {
        energy: 0.5 * (square - precision.ln() + TAU.ln()),
        gradient: precision * t,
        curvature: precision,
        majoriser: precision,
        d_log_alpha: if alpha.is_some() { 0.5 * (square - 1.0) } else { 0.0 },
        ..CoordinatePrior::default()
    }
}

/// Calls `visit` with the prior of every local coordinate of atom k at a stored point; a factor of more than one dimension
/// has its energy on its first coordinate.
pub fn coordinate_priors(
    atom: &dyn Atom,
    rho: &SaeManifoldRho,
    k: usize,
    t: &[f64],
    mut visit: impl FnMut(usize, CoordinatePrior),
) {
    for place in places(atom.factors()) {
        let mut term = coordinate_prior(place.factor, rho.ard(k, place.local), t[place.stored]);
        for j in place.local..place.local + place.factor.dim() {
            visit(j, term);
            term.energy = 0.0;
        }
    }
}

/// What the coordinates that one precision governs say about it.
#[derive(Clone, Debug, Default)]
pub struct AxisStatistics {
    /// Per circle: 1/kappa^2, the number of rows, and the sum of cos kappa t.
    circles: Vec<(f64, f64, f64)>,
    /// Rows on lines and the sum of t^2.
    line: (f64, f64),
}

impl AxisStatistics {
    /// Of the supported coordinates behind an ARD entry of the flat vector.
    pub fn of_entry(problem: &Problem, state: &State, rho: &SaeManifoldRho, slot: usize) -> Self {
        let mut out = Self::default();
        for (k, atom) in problem.atoms().iter().enumerate().filter(|(k, _)| !rho.log_ard[*k].is_empty()) {
            let rows = || state.layout_of_rows().users(k).map(|(row, _)| row);
            for place in places(atom.factors()).filter(|place| rho.ard_slot(k, place.local) == slot) {
                let points = rows().map(|i| state.point(k, i)[place.stored]);
                match place.factor {
                    ChartFactor::Circle { period } => {
                        let kappa = TAU / period;
                        let (mut n, mut cosines) = (0.0, 0.0);
                        points.for_each(|t| (n, cosines) = (n + 1.0, cosines + (kappa * t).cos()));
                        out.circles.push((1.0 / (kappa * kappa), n, cosines));
                    }
                    ChartFactor::Line => points.for_each(|t| out.line = (out.line.0 + 1.0, out.line.1 + t * t)),
                    ChartFactor::Interval { .. } | ChartFactor::Sphere { .. } | ChartFactor::Choice { .. } => {}
                }
            }
        }
        out
    }

    /// The `ln alpha` in a wide range at which these coordinates' energy with half of `alpha * variance`, the trace against
    /// the prior's curvature, is stationary.
    pub fn stationary(&self, variance: f64) -> f64 {
        const RANGE: (f64, f64) = (-12.0, 12.0);
        // the derivative over alpha itself, which grows with alpha
        bisect(RANGE, |log_alpha| {
            let alpha = log_alpha.exp();
            let (n, square) = self.line;
            let line = 0.5 * (square - n / alpha);
            let circle = |&(unit, n, cosines): &(f64, f64, f64)| unit * (n * ln_bessel_i0(alpha * unit).1 - cosines);
            line + self.circles.iter().map(circle).sum::<f64>() + 0.5 * variance < 0.0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stationary_precision_makes_the_slope_vanish() {
        let both = AxisStatistics { circles: vec![(0.25, 30.0, 21.0)], line: (40.0, 7.0) };
        for variance in [0.0, 1.5] {
            let alpha = both.stationary(variance).exp();
            let line = 0.5 * (alpha * 7.0 - 40.0);
            let eta = 0.25 * alpha;
            let circle = eta * (30.0 * ln_bessel_i0(eta).1 - 21.0);
            assert!((line + circle + 0.5 * alpha * variance).abs() < 1e-8 * 40.0);
        }
        let line = AxisStatistics { circles: Vec::new(), line: (40.0, 7.0) };
        assert!((line.stationary(1.0) - (40.0f64 / 8.0).ln()).abs() < 1e-10);
    }

    fn derivatives_match(factor: ChartFactor, alpha: f64) {
        let at = |t: f64| coordinate_prior(factor, Some(alpha), t);
        let (t, e) = (0.3, 1e-6);
        assert!(((at(t + e).energy - at(t - e).energy) / (2.0 * e) - at(t).gradient).abs() < 1e-7);
        assert!(((at(t + e).gradient - at(t - e).gradient) / (2.0 * e) - at(t).curvature).abs() < 1e-6);
        assert!(((at(t + e).majoriser - at(t - e).majoriser) / (2.0 * e) - at(t).d_majoriser).abs() < 1e-5);
        let shifted = |s: f64| coordinate_prior(factor, Some(alpha * s.exp()), t).energy;
        assert!(((shifted(e) - shifted(-e)) / (2.0 * e) - at(t).d_log_alpha).abs() < 1e-7);
    }

    #[test]
    fn the_circle_density_integrates_to_one_and_derivatives_match() {
        for (period, alpha) in [(TAU, 0.7), (TAU, 25.0), (3.0, 4.0)] {
            let factor = ChartFactor::Circle { period };
            let n = 2000;
            let at = |t: f64| coordinate_prior(factor, Some(alpha), t);
            let mass: f64 =
                (0..n).map(|j| (-at(period * j as f64 / n as f64).energy).exp()).sum::<f64>() * period / n as f64;
            assert!((mass - 1.0).abs() < 1e-12);
            derivatives_match(factor, alpha);
        }
    }

    #[test]
    fn the_line_density_integrates_to_one_and_derivatives_match() {
        for alpha in [None, Some(0.3), Some(7.0)] {
            let step = 1e-3;
            let mass: f64 = (-40_000..40_000)
                .map(|j| (-coordinate_prior(ChartFactor::Line, alpha, f64::from(j) * step).energy).exp())
                .sum();
            assert!((mass * step - 1.0).abs() < 1e-10, "{alpha:?}");
        }
        derivatives_match(ChartFactor::Line, 2.5);
    }
}
