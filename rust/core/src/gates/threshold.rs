//! The threshold gate (JumpReLU): exactly zero below its threshold, a logistic function above.
//!
//! With `x = (l - theta) / tau`, `s = s(x)` and `c = s (1 - s)`, the energy of a logit at unit strength is `s` within the band
//! `x > -36`, open or closed, its gradient `c / tau`, its Hessian `c (1 - 2s) / tau^2`, and `max(., 0)` of that enters H.
//!
//! An open gate is at least 1/2. Its logit has a wall there: without it a common scale could slide from the gates of an atom
//! to its decoder, at a gain of the prior's, until every gate is closed.

use super::formula::LogisticAtom;
use super::logistic::{independent_row, logistic};
use super::{check_positive, Gate, GateRow, RowFormula, RowLogits, Wall};
use crate::errors::ShapeError;
use crate::special::gauss_legendre;
use std::f64::consts::TAU;
use std::sync::Arc;

/// Below this a logistic function is zero to rounding, and so is its pull.
const BAND: f64 = -36.0;

/// Energies at fixed logits with the weights of their Gaussian prior: what the normaliser integrates over.
#[derive(Clone, Debug)]
pub struct SigmoidNodes {
    energies: Vec<f64>,
    weights: Vec<f64>,
}

impl SigmoidNodes {
    /// `logits` with `weights` that sum to one: a quadrature rule of N(0, 1/precision).
    pub fn new(logits: &[f64], weights: &[f64], threshold: f64, temperature: f64) -> Result<Self, ShapeError> {
        check_positive("temperature", temperature)?;
        if logits.is_empty() || logits.len() != weights.len() {
            return Err(ShapeError::shape("node_weights", &[weights.len()], &[logits.len().max(1)]));
        }
        if let Some(i) = logits.iter().chain(weights).position(|v| !v.is_finite()) {
            return Err(ShapeError::value(format!("nodes and weights must be finite; entry {i} is not")));
        }
        let energies = logits.iter().map(|l| energy((l - threshold) / temperature)).collect();
        Ok(Self { energies, weights: weights.to_vec() })
    }
}

fn energy(x: f64) -> f64 {
    if x > BAND {
        logistic(x)[0]
    } else {
        0.0
    }
}

#[derive(Clone, Debug)]
pub struct ThresholdGate {
    threshold: f64,
    inverse_temperature: f64,
    logit_precision: f64,
    /// Per atom; an atom beyond its end is gated.
    ungated: Vec<bool>,
    nodes: SigmoidNodes,
}

impl ThresholdGate {
    /// `ungated` names the atoms whose gate is one on every row.
    pub fn new(
        threshold: f64,
        temperature: f64,
        logit_precision: f64,
        ungated: &[usize],
        nodes: SigmoidNodes,
    ) -> Result<Self, ShapeError> {
        check_positive("temperature", temperature)?;
        check_positive("logit_precision", logit_precision)?;
        if !threshold.is_finite() {
            return Err(ShapeError::value(format!("threshold must be finite, got {threshold}")));
        }
        Ok(Self {
            threshold,
            inverse_temperature: 1.0 / temperature,
            logit_precision,
            ungated: super::frozen::mask(ungated),
            nodes,
        })
    }

    fn scaled(&self, logit: f64) -> f64 {
        (logit - self.threshold) * self.inverse_temperature
    }

    /// `ln` of the integral of `N(l; 0, 1/precision) exp(-lambda E(l))` below the threshold, and its derivative in `ln lambda`,
    /// by Gauss' rule on panels no wider than what the integrand varies over.
    fn below_threshold(&self, lambda: f64) -> (f64, f64) {
        /// Nodes of a panel, and its width in standard deviations of the Gaussian or in temperatures, whichever is less.
        const NODES: usize = 12;
        const WIDTH: (f64, f64) = (0.5, 1.0);
        /// Nats below a value that the integrand reaches at which the integral is cut off.
        const TAIL: f64 = 45.0;
        let deviation = 1.0 / self.logit_precision.sqrt();
        let below = |l: f64| 0.5 * self.logit_precision * l * l + lambda * energy(self.scaled(l));
        // a strong charge is only small where the logistic function is
        let (near, far) = (self.threshold, self.threshold - lambda.ln_1p() / self.inverse_temperature);
        let reached = below(near.min(0.0)).min(below(far.min(0.0)));
        let end = -deviation * (2.0 * (reached + TAIL)).sqrt();
        // nor is there anything of the Gaussian far above, where a high threshold lies
        let (banded, top) = (self.threshold + BAND / self.inverse_temperature, self.threshold.min(-end));
        let rule = gauss_legendre(NODES);
        // nodes with the logarithm of the integrand, and the energy there
        let mut nodes: Vec<(f64, f64, f64)> = Vec::new();
        let mut add = |low: f64, high: f64, width: f64| {
            let panels = ((high - low) / width).ceil().max(1.0);
            let half = 0.5 * (high - low) / panels;
            for panel in 0..panels as usize {
                let middle = low + half * (2 * panel + 1) as f64;
                nodes.extend(rule.iter().map(|(x, weight)| {
                    let logit = middle + half * x;
                    let charge = lambda * energy(self.scaled(logit));
                    (half * weight, -0.5 * self.logit_precision * logit * logit - charge, charge)
                }));
            }
        };
        // far below, the Gaussian falls by e within so much less than its deviation
        let steep = (-self.threshold / deviation).max(1.0);
        let (wide, narrow) = (WIDTH.0 * deviation / steep, WIDTH.1 / self.inverse_temperature);
        if banded > end {
            add(end, banded.min(top), wide);
        }
        if banded < top {
            add(banded.max(end), top, wide.min(narrow));
        }
        let highest = nodes.iter().map(|(_, log, _)| *log).fold(f64::NEG_INFINITY, f64::max);
        let (mut total, mut moment) = (0.0, 0.0);
        for (weight, log, charge) in nodes {
            let mass = weight * (log - highest).exp();
            total += mass;
            moment += mass * charge;
        }
        (total.ln() + highest + 0.5 * (self.logit_precision / TAU).ln(), -moment / total)
    }
}

impl Gate for ThresholdGate {
    fn kind(&self) -> &'static str {
        "threshold"
    }

    fn n_free(&self, n_atoms: usize) -> usize {
        n_atoms
    }

    fn shares(&self) -> bool {
        false
    }

    fn label(&self, atom: usize) -> usize {
        usize::from(self.always_on(atom))
    }

    fn values(&self, _: f64, logits: RowLogits<'_>, support: &[u32], a: &mut Vec<f64>) {
        a.clear();
        a.extend(support.iter().map(|&k| match self.always_on(k as usize) {
            true => 1.0,
            false => logistic(self.scaled(logits[k as usize]))[0],
        }));
    }

    fn row(&self, _: f64, logits: RowLogits<'_>, support: &[u32], out: &mut GateRow) {
        let t = self.inverse_temperature;
        let jets = |k: usize| match self.always_on(k) {
            true => [1.0, 0.0, 0.0],
            false => {
                let [s, d1, d2, _] = logistic(self.scaled(logits[k]));
                let moves = if self.held(k, logits[k]) { 0.0 } else { t };
                [s, moves * d1, moves * t * d2]
            }
        };
        independent_row(support, jets, out);
    }

    fn always_on(&self, atom: usize) -> bool {
        self.ungated.get(atom).copied().unwrap_or(false)
    }

    /// Just above the threshold: below it a gate is closed.
    fn wall(&self, atom: usize) -> Option<f64> {
        (!self.always_on(atom)).then(|| self.threshold.next_up())
    }

    fn formula(&self, _: f64, logits: RowLogits<'_>, support: &[u32]) -> RowFormula {
        RowFormula::logistic(self.inverse_temperature, logits, support, |k| {
            if self.always_on(k) {
                LogisticAtom::Still(1.0)
            } else if self.held(k, logits[k]) {
                LogisticAtom::Still(logistic(self.scaled(logits[k]))[0])
            } else {
                LogisticAtom::Moves { scale: 1.0, shift: self.threshold }
            }
        })
    }

    fn significant(&self, logits: &[f64], current: &[u32], _: f64, support: &mut Vec<u32>) {
        support.clear();
        let open = |k: &u32| self.always_on(*k as usize) || logits[*k as usize] > self.threshold;
        support.extend(current.iter().copied().filter(open));
    }

    /// Zero outside the band and for an atom without a gate.
    fn logit_energy(&self, atom: usize, logit: f64) -> [f64; 4] {
        let x = self.scaled(logit);
        if x <= BAND || self.always_on(atom) {
            return [0.0; 4];
        }
        let (t, jets) = (self.inverse_temperature, logistic(x));
        if self.held(atom, logit) {
            return [jets[0], 0.0, 0.0, 0.0];
        }
        [jets[0], t * jets[1], t * t * jets[2], t * t * t * jets[3]]
    }

    fn logit_of_share(&self, share: f64) -> f64 {
        (share / (1.0 - share)).ln() / self.inverse_temperature
    }

    fn range(&self, _: f64, atom: usize) -> (f64, f64) {
        if self.always_on(atom) {
            (1.0, 1.0)
        } else {
            (0.5, 1.0)
        }
    }

    fn logit_of_value(&self, _: f64, _: usize, value: f64) -> f64 {
        self.threshold + self.logit_of_share(value)
    }

    /// Every gated logit on its own, by quadrature over its Gaussian.
    fn ln_normaliser(&self, lambda: f64, n_atoms: usize) -> (f64, f64) {
        if self.logit_precision == 0.0 {
            return (0.0, 0.0);
        }
        let (mut total, mut moment) = (0.0, 0.0);
        for (e, w) in self.nodes.energies.iter().zip(&self.nodes.weights) {
            let weight = w * (-lambda * e).exp();
            total += weight;
            moment += weight * e;
        }
        let gated = (0..n_atoms).filter(|&k| !self.always_on(k)).count() as f64;
        (gated * total.ln(), -gated * lambda * moment / total)
    }

    fn ln_closed(&self, lambda: f64, atom: usize) -> Option<(f64, f64)> {
        (self.logit_precision > 0.0 && !self.always_on(atom)).then(|| self.below_threshold(lambda))
    }

    fn at_wall(&self, atom: usize) -> Option<Wall> {
        let logit = self.wall(atom).filter(|_| self.logit_precision > 0.0)?;
        let (t, [_, d1, d2, _]) = (self.inverse_temperature, logistic(self.scaled(logit)));
        Some(Wall { logit, gate: t * d1, energy: t * d1, bend: t * t * d2 })
    }

    fn logit_precision(&self) -> f64 {
        self.logit_precision
    }

    fn improper(&self) -> Arc<dyn Gate> {
        Arc::new(Self { logit_precision: 0.0, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gate(threshold: f64, temperature: f64, precision: f64) -> ThresholdGate {
        let nodes = SigmoidNodes::new(&[0.0], &[1.0], threshold, temperature).unwrap();
        ThresholdGate::new(threshold, temperature, precision, &[1], nodes).unwrap()
    }

    #[test]
    fn without_a_charge_a_closed_gate_has_the_mass_of_its_gaussian() {
        // N(0, 1) below 0, 1 and -2 standard deviations
        for (deviations, mass) in [(0.0, 0.5), (1.0, 0.841_344_746_068_543), (-2.0, 0.022_750_131_948_179)] {
            for (temperature, precision) in [(1.0, 0.04), (0.02, 1.0), (30.0, 4.0)] {
                let gate = gate(deviations / f64::sqrt(precision), temperature, precision);
                let (ln_mass, _) = gate.ln_closed(1e-12, 0).unwrap();
                assert!((ln_mass - f64::ln(mass)).abs() < 1e-10, "{ln_mass} {mass}");
            }
        }
    }

    #[test]
    fn a_threshold_far_from_the_gaussian_takes_no_longer() {
        for (temperature, precision) in [(1.0, 0.04), (1e-6, 1.0), (1e5, 1e-3)] {
            assert!(gate(1e9, temperature, precision).ln_closed(1e-12, 0).unwrap().0.abs() < 1e-10);
            // Mills' ratio far below: N(x) / |x|
            let (ln_mass, _) = gate(-1e4 / f64::sqrt(precision), temperature, precision).ln_closed(1e-12, 0).unwrap();
            assert!((ln_mass + 0.5e8 + 0.5 * TAU.ln() + 1e4f64.ln()).abs() < 1e-6, "{ln_mass}");
        }
    }

    #[test]
    fn gates_that_are_always_open_have_no_side() {
        let gate = gate(0.0, 1.0, 0.04);
        assert_eq!((gate.ln_closed(1.0, 1), gate.at_wall(1)), (None, None));
        assert_eq!((gate.improper().ln_closed(1.0, 0), gate.improper().at_wall(0)), (None, None));
    }

    proptest! {
        /// Against the midpoint rule of many cells.
        #[test]
        fn a_closed_mass_is_the_integral_with_its_slope(
            threshold in -3.0f64..3.0,
            temperature in 0.2f64..3.0,
            precision in 0.02f64..2.0,
            log_strength in -6.0f64..8.0,
        ) {
            let gate = gate(threshold, temperature, precision);
            let at = |log: f64| gate.ln_closed(log.exp(), 0).unwrap();
            let (ln_mass, slope) = at(log_strength);
            let e = 1e-4;
            let difference = (at(log_strength + e).0 - at(log_strength - e).0) / (2.0 * e);
            prop_assert!((slope - difference).abs() < 1e-6 * (1.0 + slope.abs()));
            const CELLS: usize = 200_000;
            let lambda = log_strength.exp();
            let cell = (14.0 / precision.sqrt() + temperature * lambda.ln_1p()) / CELLS as f64;
            let density = |i: usize| {
                let l = threshold - cell * (i as f64 + 0.5);
                (-0.5 * precision * l * l - lambda * energy(gate.scaled(l))).exp() * (precision / TAU).sqrt()
            };
            let sum: f64 = (0..CELLS).map(|i| cell * density(i)).sum();
            prop_assert!((ln_mass - sum.ln()).abs() < 1e-6, "{ln_mass} {}", sum.ln());
        }
    }
}
