//! Bessel functions of order zero and one, exponentially scaled, as the von Mises integrals need them, and the logarithm of
//! the gamma function with its derivatives, as the Beta integrals do.

/// Above this the asymptotic series reaches rounding before its terms begin to grow.
const ASYMPTOTIC_FROM: f64 = 30.0;

/// `sqrt(2 pi x) e^{-x} I_order(x)` for large `x`: the series `sum_k (-1)^k a_k(order) / x^k`
/// (Abramowitz and Stegun 9.7.1), with its derivative in `x`.
fn scaled_asymptotic(order: u32, x: f64) -> (f64, f64) {
    let mu = f64::from(4 * order * order);
    let (mut term, mut sum, mut slope) = (1.0, 1.0, 0.0);
    for k in 1..60 {
        let k = f64::from(k);
        let odd = 2.0 * k - 1.0;
        let next = -term * (mu - odd * odd) / (8.0 * k * x);
        if next.abs() >= term.abs() || next.abs() < f64::EPSILON * 1e-2 {
            break;
        }
        term = next;
        sum += term;
        slope -= k * term / x;
    }
    (sum, slope)
}

/// Power series of `I_order(x)`; all its terms are positive, so there is no cancellation.
fn power_series(order: u32, x: f64) -> f64 {
    let quarter = 0.25 * x * x;
    let mut term = if order == 0 { 1.0 } else { 0.5 * x };
    let mut sum = term;
    let mut k = 1.0;
    while term > f64::EPSILON * 1e-2 * sum {
        term *= quarter / (k * (k + f64::from(order)));
        sum += term;
        k += 1.0;
    }
    sum
}

/// `ln I_0(x)` for `x >= 0`, without ever forming `e^x`, and its derivative `I_1(x)/I_0(x)`.
pub fn ln_bessel_i0(x: f64) -> (f64, f64) {
    if x < ASYMPTOTIC_FROM {
        let i0 = power_series(0, x);
        (i0.ln(), power_series(1, x) / i0)
    } else {
        let (s0, _) = scaled_asymptotic(0, x);
        let (s1, _) = scaled_asymptotic(1, x);
        (x - 0.5 * (2.0 * std::f64::consts::PI * x).ln() + s0.ln(), s1 / s0)
    }
}

/// Where a monotone test turns from true to false.
pub fn bisect((mut low, mut high): (f64, f64), holds: impl Fn(f64) -> bool) -> f64 {
    /// Halvings of a range of 24: to a part in 10^12.
    const HALVINGS: usize = 45;
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// The charge of an angle whose density is von Mises with concentration `k` about its mode,
/// `-ln[e^{-k} I_0(k)] - 1/2 ln(2 pi)`, and its derivative.
///
/// It is `1/2 ln k` of a Gaussian for large `k`, and what the whole circle costs at zero. It is analytic: a negative `k`, at a
/// point that is no mode, is no special case.
pub fn circle_charge(k: f64) -> (f64, f64) {
    let half_ln_tau = 0.5 * (2.0 * std::f64::consts::PI).ln();
    if k < ASYMPTOTIC_FROM {
        let (ln_i0, ratio) = ln_bessel_i0(k.abs());
        (k - ln_i0 - half_ln_tau, 1.0 - ratio.copysign(k))
    } else {
        // with s = sqrt(2 pi k) e^{-k} I_0(k), so that nothing cancels
        let (s, ds) = scaled_asymptotic(0, k);
        (0.5 * k.ln() - s.ln(), 0.5 / k - ds / s)
    }
}

/// The charge of a direction whose density is von Mises-Fisher with concentration `k`, `ln k - ln(1 - e^{-2k})`, and its
/// derivative; with `antipodal`, of one on the projective plane, where the same integral runs over half the sphere:
/// `ln k - ln(1 - e^{-k})`.
///
/// `2 pi (1 - e^{-2k}) / k` is the integral of `e^{-k (1 - cos)}` over the sphere, `2 pi / k` its Gaussian. With
/// `y = r k / 2` and r = 2 or 1 the charge is `y - ln r - ln(sinh y / y)`, analytic in k.
pub fn sphere_charge(k: f64, antipodal: bool) -> (f64, f64) {
    /// Below this `coth y - 1/y` cancels, and its series has reached rounding.
    const SERIES_BELOW: f64 = 0.1;
    let rate: f64 = if antipodal { 1.0 } else { 2.0 };
    let y = 0.5 * rate * k;
    let (size, square) = (y.abs(), y * y);
    let (value, slope) = if size < SERIES_BELOW {
        let ln_ratio = square * (1.0 / 6.0 - square * (1.0 / 180.0 - square * (1.0 / 2835.0 - square / 37800.0)));
        (y - ln_ratio, y * (1.0 / 3.0 - square * (1.0 / 45.0 - square * (2.0 / 945.0 - square / 4725.0))))
    } else {
        let left = (-2.0 * size).exp();
        let ln_both = (2.0 * size).ln() - (-left).ln_1p();
        (y - size + ln_both, ((1.0 + left) / (1.0 - left) - 1.0 / size).copysign(y))
    };
    (value - rate.ln(), 0.5 * rate * (1.0 - slope))
}

/// Arguments below this are raised by the recurrence `Gamma(x + 1) = x Gamma(x)` to where the asymptotic series is exact.
const GAMMA_ASYMPTOTIC_FROM: f64 = 16.0;
/// Bernoulli numbers B_2, B_4, ..., B_16.
const BERNOULLI: [f64; 8] =
    [1.0 / 6.0, -1.0 / 30.0, 1.0 / 42.0, -1.0 / 30.0, 5.0 / 66.0, -691.0 / 2730.0, 7.0 / 6.0, -3617.0 / 510.0];

/// Raises `x` to the asymptotic range, with the sum of `term` over the steps taken.
fn raised(mut x: f64, term: impl Fn(f64) -> f64) -> (f64, f64) {
    let mut sum = 0.0;
    while x < GAMMA_ASYMPTOTIC_FROM {
        sum += term(x);
        x += 1.0;
    }
    (x, sum)
}

/// `sum_k B_2k factor(2k) x^-(2k + shift)` (Abramowitz and Stegun 6.1.40 and 6.4.11).
fn gamma_series(x: f64, shift: i32, factor: impl Fn(f64) -> f64) -> f64 {
    let square = 1.0 / (x * x);
    let terms = BERNOULLI.iter().enumerate().rev();
    let sum = terms.fold(0.0, |sum, (i, b)| (sum + b * factor(2.0 * (i as f64 + 1.0))) * square);
    sum * x.powi(-shift)
}

/// `ln Gamma(x)` for `x > 0`.
pub fn ln_gamma(x: f64) -> f64 {
    let (y, sum) = raised(x, f64::ln);
    let series = gamma_series(y, -1, |n| 1.0 / (n * (n - 1.0)));
    (y - 0.5) * y.ln() - y + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - sum
}

/// Its first derivative.
pub fn digamma(x: f64) -> f64 {
    let (y, sum) = raised(x, |x| 1.0 / x);
    y.ln() - 0.5 / y - gamma_series(y, 0, |n| 1.0 / n) - sum
}

/// Its second derivative.
pub fn trigamma(x: f64) -> f64 {
    let (y, sum) = raised(x, |x| 1.0 / (x * x));
    1.0 / y + 0.5 / (y * y) + gamma_series(y, 1, |_| 1.0) + sum
}

/// Its third derivative.
pub fn tetragamma(x: f64) -> f64 {
    let (y, sum) = raised(x, |x| 2.0 / (x * x * x));
    -1.0 / (y * y) - 1.0 / (y * y * y) - gamma_series(y, 2, |n| n + 1.0) - sum
}

/// Nodes and weights of Gauss-Legendre quadrature on [-1, 1].
pub fn gauss_legendre(n: usize) -> Vec<(f64, f64)> {
    let pi = std::f64::consts::PI;
    (0..n)
        .map(|i| {
            let mut x = (pi * (i as f64 + 0.75) / (n as f64 + 0.5)).cos();
            let mut slope = 1.0;
            // Newton from the asymptotic root; quadratic convergence ends in four or five steps
            for _ in 0..10 {
                let (mut before, mut value) = (1.0, x);
                for k in 2..=n {
                    let k = k as f64;
                    (before, value) = (value, ((2.0 * k - 1.0) * x * value - (k - 1.0) * before) / k);
                }
                slope = n as f64 * (x * value - before) / (x * x - 1.0);
                x -= value / slope;
            }
            (x, 2.0 / ((1.0 - x * x) * slope * slope))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHARGES: [fn(f64) -> (f64, f64); 3] =
        [circle_charge, |k| sphere_charge(k, false), |k| sphere_charge(k, true)];

    /// Midpoint rule on the periodic integrand: converges geometrically.
    fn ln_i0_by_quadrature(x: f64) -> f64 {
        let n = 4096;
        let mean = (0..n)
            .map(|j| (x * ((2.0 * std::f64::consts::PI * (f64::from(j) + 0.5) / f64::from(n)).cos() - 1.0)).exp())
            .sum::<f64>()
            / f64::from(n);
        x + mean.ln()
    }

    #[test]
    fn ln_bessel_matches_its_integral_on_both_branches() {
        for x in [0.0, 1e-6, 0.3, 2.0, 12.0, 29.999, 30.0, 30.001, 80.0, 1e3, 1e4] {
            let (value, _) = ln_bessel_i0(x);
            assert!((value - ln_i0_by_quadrature(x)).abs() <= 1e-13 * (1.0 + x), "{x}");
        }
    }

    #[test]
    fn derivatives_match_differences() {
        for x in [1e-3, 0.5, 3.0, 20.0, 31.0, 200.0] {
            let e = 1e-5 * x;
            let bessel = (ln_bessel_i0(x + e).0 - ln_bessel_i0(x - e).0) / (2.0 * e);
            assert!((bessel - ln_bessel_i0(x).1).abs() < 1e-8, "{x}");
            for charge in CHARGES {
                for x in [x, -x] {
                    let (slope, difference) = (charge(x).1, (charge(x + e).0 - charge(x - e).0) / (2.0 * e));
                    assert!((slope - difference).abs() < 1e-7 * slope.abs(), "{x}");
                }
            }
        }
    }

    #[test]
    fn charges_are_continuous_where_their_branches_meet() {
        for charge in CHARGES {
            for at in [ASYMPTOTIC_FROM, 0.1, 0.2, 0.0, -0.1, -0.2, -ASYMPTOTIC_FROM] {
                let (below, above) = (charge(at - 1e-13), charge(at + 1e-13));
                assert!((below.0 - above.0).abs() < 1e-12 && (below.1 - above.1).abs() < 1e-12, "{at}");
            }
        }
    }

    #[test]
    fn charges_of_strong_modes_are_those_of_gaussians() {
        for charge in CHARGES {
            // c = charge - dim/2 ln k vanishes
            let dim = if std::ptr::fn_addr_eq(charge, circle_charge as fn(f64) -> (f64, f64)) { 1.0 } else { 2.0 };
            assert!((charge(1e8).0 - 0.5 * dim * 1e8f64.ln()).abs() < 1e-8);
            assert!((charge(1e8).1 * 1e8 - 0.5 * dim).abs() < 1e-7);
        }
    }

    #[test]
    fn gamma_functions_have_their_known_values_and_derivatives() {
        let half_ln_pi = 0.5 * std::f64::consts::PI.ln();
        assert!((ln_gamma(0.5) - half_ln_pi).abs() < 1e-14 && (ln_gamma(11.0) - 3_628_800f64.ln()).abs() < 1e-13);
        // Euler's constant, pi^2/6 and Apery's constant
        assert!((digamma(1.0) + 0.577_215_664_901_532_9).abs() < 1e-14);
        assert!((trigamma(1.0) - std::f64::consts::PI.powi(2) / 6.0).abs() < 1e-14);
        assert!((tetragamma(1.0) + 2.0 * 1.202_056_903_159_594_3).abs() < 1e-13);
        for x in [0.03, 0.7, 3.0, 15.9, 16.1, 400.0] {
            let e = 1e-5 * x;
            let slope = |f: fn(f64) -> f64| (f(x + e) - f(x - e)) / (2.0 * e);
            for (f, d) in [(ln_gamma as fn(f64) -> f64, digamma(x)), (digamma, trigamma(x)), (trigamma, tetragamma(x))]
            {
                assert!((slope(f) - d).abs() < 1e-7 * (1.0 + d.abs()), "{x}");
            }
        }
    }

    #[test]
    fn charges_are_the_integrals() {
        let tau = 2.0 * std::f64::consts::PI;
        for k in [-3.0, -0.02, 0.02, 1.3, 40.0] {
            let n = 200_000;
            let sum = |range: (f64, f64), f: &dyn Fn(f64) -> f64| {
                // midpoint rule
                let step = (range.1 - range.0) / f64::from(n);
                (0..n).map(|j| f(range.0 + (f64::from(j) + 0.5) * step)).sum::<f64>() * step
            };
            let circle = sum((0.0, tau), &|t| (k * (t.cos() - 1.0)).exp());
            assert!((circle_charge(k).0 + circle.ln() - 0.5 * tau.ln()).abs() < 1e-9, "{k}");
            for (antipodal, least) in [(false, -1.0), (true, 0.0)] {
                // in the cosine of the angle from the mode
                let sphere = tau * sum((least, 1.0), &|z| (k * (z - 1.0)).exp());
                assert!((sphere_charge(k, antipodal).0 + sphere.ln() - tau.ln()).abs() < 1e-7, "{k}");
            }
        }
    }

    #[test]
    fn flat_coordinate_contributes_nothing() {
        // the prior's ln of the volume, the charge, and -1/2 ln 2 pi for each dimension
        let (tau, pi) = (2.0 * std::f64::consts::PI, std::f64::consts::PI);
        assert!((tau.ln() + circle_charge(0.0).0 - 0.5 * tau.ln()).abs() < 1e-15);
        assert!(((4.0 * pi).ln() + sphere_charge(0.0, false).0 - tau.ln()).abs() < 1e-15);
        assert!(((2.0 * pi).ln() + sphere_charge(0.0, true).0 - tau.ln()).abs() < 1e-15);
    }

    #[test]
    fn gauss_legendre_is_exact_for_polynomials() {
        let nodes = gauss_legendre(8);
        for power in 0..16 {
            let found: f64 = nodes.iter().map(|(x, w)| w * x.powi(power)).sum();
            let expected = if power % 2 == 1 { 0.0 } else { 2.0 / f64::from(power + 1) };
            assert!((found - expected).abs() < 1e-14, "{power}");
        }
    }
}
