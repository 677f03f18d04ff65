//! Families of functions of one variable, with the derivatives and means that kinds of atoms share.

/// Below this no basis of products is refused for its size; above, its Gram alone takes gigabytes.
pub(super) const MAX_WIDTH: usize = 8192;

/// Above this the recurrence for the harmonics loses digits and no data support that many.
pub(super) const MAX_HARMONICS: usize = 4096;

/// An angle in [0, period).
pub(super) fn wrap(t: f64, period: f64) -> f64 {
    let wrapped = t.rem_euclid(period);
    // the remainder of a tiny negative angle rounds up to the period itself
    if wrapped >= period {
        0.0
    } else {
        wrapped
    }
}

/// Calls `f(h, cos ht, sin ht)` for every harmonic up to the highest, by rotation from the one before.
pub(super) fn each_harmonic(highest: usize, t: f64, mut f: impl FnMut(usize, f64, f64)) {
    let (s1, c1) = t.sin_cos();
    let (mut c, mut s) = (c1, s1);
    for h in 1..=highest {
        f(h, c, s);
        (c, s) = (c * c1 - s * s1, s * c1 + c * s1);
    }
}

/// One family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Series {
    /// `1, cos t, sin t, ..., cos Ht, sin Ht`; means are over the circle.
    Harmonics(usize),
    /// `1, t, ..., t^D`; means are over the standard normal distribution.
    Powers(usize),
}

impl Series {
    pub fn len(self) -> usize {
        match self {
            Self::Harmonics(h) => 2 * h + 1,
            Self::Powers(d) => d + 1,
        }
    }

    /// The order of a member: its frequency, or its power.
    pub fn order(self, member: usize) -> usize {
        match self {
            Self::Harmonics(_) => member.div_ceil(2),
            Self::Powers(_) => member,
        }
    }

    /// Whether a member changes sign with t: a sine, or an odd power.
    pub fn is_odd(self, member: usize) -> bool {
        match self {
            Self::Harmonics(_) => member > 0 && member % 2 == 0,
            Self::Powers(_) => member % 2 == 1,
        }
    }

    /// Every member's value and first three derivatives at t.
    pub fn table(self, t: f64) -> Vec<[f64; 4]> {
        let mut out = vec![[1.0, 0.0, 0.0, 0.0]; self.len()];
        match self {
            Self::Harmonics(highest) => each_harmonic(highest, t, |h, c, s| {
                let w = h as f64;
                out[2 * h - 1] = [c, -w * s, -w * w * c, w * w * w * s];
                out[2 * h] = [s, w * c, -w * w * s, -w * w * w * c];
            }),
            Self::Powers(degree) => {
                for j in 1..=degree {
                    let [p0, p1, p2, p3] = out[j - 1];
                    // the product rule for t * t^(j-1)
                    out[j] = [t * p0, t * p1 + p0, t * p2 + 2.0 * p1, t * p3 + 3.0 * p2];
                }
            }
        }
        out
    }

    /// Mean of the product of the r-th derivatives of two members.
    pub fn mean_product(self, r: usize, i: usize, j: usize) -> f64 {
        match self {
            Self::Harmonics(_) if i != j => 0.0,
            Self::Harmonics(_) if i == 0 => f64::from(u8::from(r == 0)),
            Self::Harmonics(_) => 0.5 * (self.order(i) as f64).powi(2 * r as i32),
            Self::Powers(_) if i < r || j < r => 0.0,
            Self::Powers(_) => falling(i, r) * falling(j, r) * normal_moment(i + j - 2 * r),
        }
    }

    /// The derivative as a map Q of the family into itself, `f_m' = sum_j f_j Q_jm`, as entries (j, m, value).
    pub fn shift(self) -> Vec<(usize, usize, f64)> {
        match self {
            Self::Harmonics(highest) => (1..=highest)
                .flat_map(|h| {
                    let w = h as f64;
                    [(2 * h, 2 * h - 1, -w), (2 * h - 1, 2 * h, w)]
                })
                .collect(),
            Self::Powers(degree) => (1..=degree).map(|j| (j - 1, j, j as f64)).collect(),
        }
    }
}

/// `j (j-1) ... (j-r+1)`, the factor of the r-th derivative of t^j.
fn falling(j: usize, r: usize) -> f64 {
    (0..r).map(|i| j as f64 - i as f64).product()
}

/// The mean of t^power over the standard normal distribution.
fn normal_moment(power: usize) -> f64 {
    match power % 2 {
        0 => (1..power).step_by(2).map(|i| i as f64).product(),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    #[test]
    fn means_match_quadrature() {
        for series in [Series::Harmonics(3), Series::Powers(4)] {
            // the trapezoidal rule is exact for harmonics, and to rounding for powers under a Gaussian
            let nodes: Vec<(f64, f64)> = match series {
                Series::Harmonics(_) => (0..64).map(|j| (TAU * f64::from(j) / 64.0, 1.0 / 64.0)).collect(),
                Series::Powers(_) => (-2400..=2400)
                    .map(|j| (f64::from(j) * 0.005, 0.005 * (-0.5 * (f64::from(j) * 0.005).powi(2)).exp() / TAU.sqrt()))
                    .collect(),
            };
            for r in 0..3 {
                for i in 0..series.len() {
                    for j in 0..series.len() {
                        let mean: f64 = nodes
                            .iter()
                            .map(|&(t, w)| {
                                let table = series.table(t);
                                w * table[i][r] * table[j][r]
                            })
                            .sum();
                        let error = (mean - series.mean_product(r, i, j)).abs();
                        assert!(error < 1e-9 * (1.0 + mean.abs()), "{series:?} {r} {i} {j}: {error}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_wrapped_tiny_negative_angle_stays_below_the_period() {
        assert!(wrap(-1e-20, TAU) < TAU);
    }
}
