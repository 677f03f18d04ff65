//! The charge of a coordinate in an interval: the integral of a Gaussian, or of an exponential, between two ends.

use crate::special::gauss_legendre;
use std::sync::OnceLock;

/// The charge with its derivatives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IntervalCharge {
    /// `-ln of the integral of exp(-g u - k u^2 / 2) over u in [a, b]`.
    pub value: f64,
    /// Derivative in g, the mean of u.
    pub by_slope: f64,
    /// Derivative in k, half the mean of u^2.
    pub by_curvature: f64,
    /// Derivative in the point that a and b are counted from.
    pub by_point: f64,
}

/// Nodes on each side of the mode. With the span below, a pure exponential and a pure Gaussian are exact to rounding.
const NODES: usize = 40;
/// The integral stops where the exponent has fallen by this from its mode: what is left is below rounding.
const DROP: f64 = 40.0;

fn nodes() -> &'static [(f64, f64)] {
    static CELL: OnceLock<Vec<(f64, f64)>> = OnceLock::new();
    CELL.get_or_init(|| gauss_legendre(NODES).into_iter().map(|(x, w)| (0.5 * (1.0 + x), 0.5 * w)).collect())
}

/// The charge of slope `g` and curvature `k >= 0` at a point whose ends lie at `a <= 0 <= b` from it.
pub fn interval_charge(g: f64, k: f64, (a, b): (f64, f64)) -> IntervalCharge {
    if (b - a).is_nan() {
        // a point that is no number
        let value = f64::NAN;
        return IntervalCharge { value, by_slope: value, by_curvature: value, by_point: value };
    }
    let mode = if k > 0.0 {
        (-g / k).clamp(a, b)
    } else if g > 0.0 {
        a
    } else if g < 0.0 {
        b
    } else {
        0.0
    };
    // zero at a mode inside; at an end it points outwards
    let steep = if mode > a && mode < b { 0.0 } else { (g + k * mode).abs() };
    let drop = |x: f64| x * (steep + 0.5 * k * x);
    let reach = 2.0 * DROP / (steep + (steep * steep + 2.0 * DROP * k).sqrt());
    let (mut sum, mut mean, mut square) = (0.0, 0.0, 0.0);
    for (side, room) in [(-1.0, mode - a), (1.0, b - mode)] {
        let length = reach.min(room);
        if length <= 0.0 {
            continue;
        }
        for (x, w) in nodes() {
            let x = length * x;
            let (u, mass) = (mode + side * x, length * w * (-drop(x)).exp());
            sum += mass;
            mean += mass * u;
            square += mass * u * u;
        }
    }
    let end = |at: f64| (-drop((at - mode).abs())).exp();
    IntervalCharge {
        value: mode * (g + 0.5 * k * mode) - sum.ln(),
        by_slope: mean / sum,
        by_curvature: 0.5 * square / sum,
        by_point: (end(b) - end(a)) / sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    const ENDS: [(f64, f64); 4] = [(-0.4, 1.6), (-2.0, 0.0), (0.0, 2.0), (-1e-9, 0.3)];

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12 * (1.0 + expected.abs()), "{found} {expected}");
    }

    #[test]
    fn without_curvature_it_is_an_exponential() {
        for (a, b) in ENDS {
            close(interval_charge(0.0, 0.0, (a, b)).value, -(b - a).ln());
            close(interval_charge(0.0, 0.0, (a, b)).by_slope, 0.5 * (a + b));
            for g in [0.3, -0.3, 40.0, -40.0, 1e5, -1e5f64] {
                // counted from the higher end, so that nothing overflows
                let (top, width) = (if g > 0.0 { a } else { b }, b - a);
                let expected = g * top - (-(-g.abs() * width).exp_m1() / g.abs()).ln();
                close(interval_charge(g, 0.0, (a, b)).value, expected);
            }
        }
    }

    #[test]
    fn a_strong_curvature_between_the_ends_is_a_gaussian() {
        for k in [400.0, 1e6, 1e12f64] {
            let charge = interval_charge(0.0, k, (-0.5, 0.7));
            if k > 1e3 {
                close(charge.value, 0.5 * k.ln() - 0.5 * TAU.ln());
                close(charge.by_curvature * k, 0.5);
            }
            // half of it at an end
            close(interval_charge(0.0, k, (-3.0, 0.0)).value, 0.5 * k.ln() - 0.5 * TAU.ln() + 2f64.ln());
            // completing the square moves the mode
            let moved = interval_charge(0.2 * k, k, (-3.0, 3.0));
            close(moved.value, -0.02 * k + 0.5 * k.ln() - 0.5 * TAU.ln());
            close(moved.by_slope, -0.2);
        }
    }

    #[test]
    fn a_narrow_interval_is_its_series() {
        // -ln w + k E[u^2] / 2 - ..., with u uniform about the middle
        let (w, k) = (1e-3, 2.0);
        let charge = interval_charge(0.0, k, (-0.5 * w, 0.5 * w));
        close(charge.value, -w.ln() + k * w * w / 24.0);
        assert!((charge.by_curvature / (w * w / 24.0) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn it_is_the_integral() {
        let n = 400_000;
        for (a, b) in ENDS {
            for (g, k) in [(0.7, 3.0), (-5.0, 2.0), (9.0, 0.5), (0.0, 7.0), (-1.0, 0.0)] {
                // midpoint rule
                let step = (b - a) / f64::from(n);
                let at = |j: i32| a + (f64::from(j) + 0.5) * step;
                let sum: f64 = (0..n).map(|j| (-at(j) * (g + 0.5 * k * at(j))).exp()).sum::<f64>() * step;
                assert!((interval_charge(g, k, (a, b)).value + sum.ln()).abs() < 1e-9, "{g} {k}");
            }
        }
    }

    #[test]
    fn derivatives_match_differences() {
        let e = 1e-5;
        for (a, b) in ENDS {
            for (g, k) in [(0.7, 3.0), (-5.0, 2.0), (60.0, 0.5), (0.0, 90.0), (-1.0, 1e-4)] {
                let at = |g: f64, k: f64, s: f64| interval_charge(g, k, (a - s, b - s)).value;
                let charge = interval_charge(g, k, (a, b));
                let slope = |f: &dyn Fn(f64) -> f64| (f(e) - f(-e)) / (2.0 * e);
                assert!((slope(&|e| at(g + e, k, 0.0)) - charge.by_slope).abs() < 1e-8);
                assert!((slope(&|e| at(g, k + e, 0.0)) - charge.by_curvature).abs() < 1e-8);
                // moving the point moves both ends, and slope and curvature are held where it is
                let moved = slope(&|e| at(g, k, e));
                assert!((moved - charge.by_point).abs() < 1e-5 * (1.0 + moved.abs()), "{moved} {}", charge.by_point);
            }
        }
    }
}
