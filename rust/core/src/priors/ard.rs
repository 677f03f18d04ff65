//! Automatic relevance determination of coordinates.
//!
//! On a periodic axis of period P, with kappa = 2 pi / P and eta = alpha / kappa^2, the prior is von Mises:
//! energy `eta (1 - cos kappa t) - eta + ln I_0(eta) + ln P`, which integrates to one over the axis. Without
//! ARD it is uniform.

use crate::atoms::Axis;
use crate::special::ln_bessel_i0;

/// Energy of one coordinate on one axis, with what its derivatives are made of.
#[derive(Clone, Copy, Debug)]
pub struct CoordinatePrior {
    /// Energy with its normaliser.
    pub energy: f64,
    pub gradient: f64,
    /// Exact second derivative.
    pub curvature: f64,
    /// The part of it that enters H, `max(curvature, 0)`, and that part's derivative in t.
    pub majoriser: f64,
    pub d_majoriser: f64,
    /// Derivative of the energy in `ln alpha`.
    pub d_log_alpha: f64,
}

/// The prior of coordinate `t`; `alpha` is `None` where ARD is off.
pub fn coordinate_prior(axis: Axis, alpha: Option<f64>, t: f64) -> CoordinatePrior {
    let Axis::Periodic { period } = axis;
    let kappa = 2.0 * std::f64::consts::PI / period;
    let Some(alpha) = alpha else {
        let energy = period.ln();
        return CoordinatePrior {
            energy,
            gradient: 0.0,
            curvature: 0.0,
            majoriser: 0.0,
            d_majoriser: 0.0,
            d_log_alpha: 0.0,
        };
    };
    let eta = alpha / (kappa * kappa);
    let (sin, cos) = (kappa * t).sin_cos();
    let (ln_i0, ratio) = ln_bessel_i0(eta);
    let curvature = alpha * cos;
    CoordinatePrior {
        energy: -eta * cos + ln_i0 + period.ln(),
        gradient: alpha / kappa * sin,
        curvature,
        majoriser: curvature.max(0.0),
        d_majoriser: if curvature > 0.0 { -alpha * kappa * sin } else { 0.0 },
        d_log_alpha: eta * (ratio - cos),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_density_integrates_to_one_and_derivatives_match() {
        for (period, alpha) in [(std::f64::consts::TAU, 0.7), (std::f64::consts::TAU, 25.0), (3.0, 4.0)] {
            let axis = Axis::Periodic { period };
            let n = 2000;
            let at = |t: f64| coordinate_prior(axis, Some(alpha), t);
            let mass: f64 =
                (0..n).map(|j| (-at(period * j as f64 / n as f64).energy).exp()).sum::<f64>() * period / n as f64;
            assert!((mass - 1.0).abs() < 1e-12);
            let (t, e) = (0.3, 1e-6);
            assert!(((at(t + e).energy - at(t - e).energy) / (2.0 * e) - at(t).gradient).abs() < 1e-7);
            assert!(((at(t + e).gradient - at(t - e).gradient) / (2.0 * e) - at(t).curvature).abs() < 1e-6);
            assert!(((at(t + e).majoriser - at(t - e).majoriser) / (2.0 * e) - at(t).d_majoriser).abs() < 1e-5);
            let shifted = |s: f64| coordinate_prior(axis, Some(alpha * s.exp()), t).energy;
            assert!(((shifted(e) - shifted(-e)) / (2.0 * e) - at(t).d_log_alpha).abs() < 1e-7);
        }
    }
}
