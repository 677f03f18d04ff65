//! Priors that couple all rows of a column through its mass, the sum of the atom's indicators over the rows that use it.

use crate::special::{digamma, ln_gamma, tetragamma, trigamma};

/// What a column's prior is made of at its mass, its strength included.
#[derive(Clone, Copy, Debug, Default)]
pub struct ColumnTerm {
    pub energy: f64,
    /// First, second and third derivatives in the mass.
    pub score: f64,
    pub slope: f64,
    pub bend: f64,
    /// Derivatives of the energy, of its score and of its slope in `ln lambda`.
    pub energy_by_strength: f64,
    pub score_by_strength: f64,
    pub slope_by_strength: f64,
}

/// A prior on the masses of the columns.
pub trait ColumnPrior {
    /// The indicator of one logit with its first three derivatives.
    fn indicator(&self, logit: f64) -> [f64; 4];
    /// The prior of atom k's column at a mass, over `n_rows` rows; zero for an atom without a gate.
    fn term(&self, lambda: f64, atom: usize, n_atoms: usize, mass: f64, n_rows: f64) -> ColumnTerm;
}

/// How a column's mass is priced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnEnergy {
    /// The marginal likelihood of the indicators under a Beta prior whose parameter falls off with the atom's position.
    Ordered,
    /// The likelihood at the posterior mean of one Beta prior for all atoms, with that prior's own energy.
    PlugIn,
}

/// Posterior means are kept this far from zero and one.
const INTERIOR: f64 = 1e-9;

impl ColumnEnergy {
    /// The term at concentration `alpha` and unit strength; derivatives by strength are those in `ln alpha`.
    pub(super) fn term(self, alpha: f64, atom: usize, n_atoms: usize, mass: f64, n: f64) -> ColumnTerm {
        match self {
            Self::Ordered => ordered(alpha, atom, mass, n),
            Self::PlugIn => plug_in(alpha / n_atoms as f64, mass, n),
        }
    }
}

/// `-ln [a B(M + a, N - M + 1)]` with `a = 1 / expm1((k + 1) ln(1 + 1/alpha))`.
fn ordered(alpha: f64, atom: usize, mass: f64, n: f64) -> ColumnTerm {
    let position = atom as f64 + 1.0;
    let a = (1.0 / (position * (1.0 / alpha).ln_1p()).exp_m1()).max(f64::MIN_POSITIVE);
    let da = position * a * (a + 1.0) / (alpha + 1.0);
    let (on, off) = (mass + a, n - mass + 1.0);
    ColumnTerm {
        energy: -a.ln() - ln_gamma(on) - ln_gamma(off) + ln_gamma(n + a + 1.0),
        score: -digamma(on) + digamma(off),
        slope: -trigamma(on) - trigamma(off),
        bend: -tetragamma(on) + tetragamma(off),
        energy_by_strength: (-1.0 / a - digamma(on) + digamma(n + a + 1.0)) * da,
        score_by_strength: -trigamma(on) * da,
        slope_by_strength: -tetragamma(on) * da,
    }
}

/// `-M ln pi - (N - M) ln(1 - pi) - ln a - (a - 1) ln pi` at `pi = (M + a) / (N + a + 1)`.
fn plug_in(a: f64, mass: f64, n: f64) -> ColumnTerm {
    let total = n + a + 1.0;
    let raw = (mass + a) / total;
    let pi = raw.clamp(INTERIOR, 1.0 - INTERIOR);
    let inside = raw > INTERIOR && raw < 1.0 - INTERIOR;
    // pi as a function of the mass and of ln a; constant where it is clipped
    let (by_mass, by_a, by_mass_a) = if inside {
        (1.0 / total, a * (n + 1.0 - mass) / (total * total), -a / (total * total))
    } else {
        (0.0, 0.0, 0.0)
    };
    let (on, off) = (mass + a - 1.0, n - mass);
    let (p1, q1) = (1.0 / pi, 1.0 / (1.0 - pi));
    let (p2, q2, p3, q3) = (p1 * p1, q1 * q1, p1 * p1 * p1, q1 * q1 * q1);
    // F(mass, pi, a): its derivatives in pi and the mass, then the chain rule with pi'' = 0 in the mass
    let f_pi = -on * p1 + off * q1;
    let f_pi2 = on * p2 + off * q2;
    let f_pi3 = -2.0 * on * p3 + 2.0 * off * q3;
    let (f_m, f_m_pi, f_m_pi2) = ((1.0 - pi).ln() - pi.ln(), -p1 - q1, p2 - q2);
    let score = f_m + f_pi * by_mass;
    let slope = 2.0 * f_m_pi * by_mass + f_pi2 * by_mass * by_mass;
    let bend = 3.0 * f_m_pi2 * by_mass * by_mass + f_pi3 * by_mass.powi(3);
    // in ln a: F depends on a beside pi through -ln a - (a - 1) ln pi
    let f_a = -1.0 - a * pi.ln();
    let f_a_pi = -a * p1;
    let f_a_pi2 = a * p2;
    let energy_by = f_a + f_pi * by_a;
    let score_by = f_m_pi * by_a + (f_a_pi + f_pi2 * by_a) * by_mass + f_pi * by_mass_a;
    let slope_by = 2.0 * (f_m_pi2 * by_a * by_mass + f_m_pi * by_mass_a)
        + (f_a_pi2 + f_pi3 * by_a) * by_mass * by_mass
        + 2.0 * f_pi2 * by_mass * by_mass_a;
    ColumnTerm {
        energy: -mass * pi.ln() - off * (1.0 - pi).ln() - a.ln() - (a - 1.0) * pi.ln(),
        score,
        slope,
        bend,
        energy_by_strength: energy_by,
        score_by_strength: score_by,
        slope_by_strength: slope_by,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_match_differences() {
        let n = 50.0;
        for energy in [ColumnEnergy::Ordered, ColumnEnergy::PlugIn] {
            for (alpha, atom, mass) in [(1.3, 0, 20.0), (0.4, 2, 3.3), (6.0, 1, 44.0)] {
                let at = |ln_alpha: f64, mass: f64| energy.term(ln_alpha.exp(), atom, 3, mass, n);
                let (rho, e) = (f64::ln(alpha), 1e-5);
                let here = at(rho, mass);
                let (lo, hi) = (at(rho, mass - e), at(rho, mass + e));
                let close = |a: f64, b: f64, what: &str| {
                    assert!((a - b).abs() < 1e-6 * (1.0 + b.abs()), "{energy:?} {alpha} {what}: {a} {b}");
                };
                close((hi.energy - lo.energy) / (2.0 * e), here.score, "score");
                close((hi.score - lo.score) / (2.0 * e), here.slope, "slope");
                close((hi.slope - lo.slope) / (2.0 * e), here.bend, "bend");
                let (lo, hi) = (at(rho - e, mass), at(rho + e, mass));
                close((hi.energy - lo.energy) / (2.0 * e), here.energy_by_strength, "energy by strength");
                close((hi.score - lo.score) / (2.0 * e), here.score_by_strength, "score by strength");
                close((hi.slope - lo.slope) / (2.0 * e), here.slope_by_strength, "slope by strength");
            }
        }
    }

    #[test]
    fn the_ordered_prior_sums_to_one_over_patterns() {
        // a B(M + a, N - M + 1) is the probability of one pattern with M of N indicators on
        let (n, alpha) = (6usize, 1.7);
        for atom in 0..3 {
            let total: f64 = (0..=n)
                .map(|m| {
                    let patterns = (0..m).fold(1.0, |c, i| c * (n - i) as f64 / (i + 1) as f64);
                    patterns * (-ordered(alpha, atom, m as f64, n as f64).energy).exp()
                })
                .sum();
            assert!((total - 1.0).abs() < 1e-12, "{atom} {total}");
        }
    }
}
