//! The Indian-buffet gate: independent gates that shrink with the atom's position, and a price on each column's mass.
//!
//! `a_k = s(l / tau) pi_k` on the support with `pi_k = (alpha / (alpha + 1))^(k + 1)`, k from 0. The indicator of a row that
//! uses the atom is `z = s(l / tau)`; a row that does not use it has a gate of exactly zero and no mass. With a learnable
//! concentration `ln lambda` is its offset: `alpha = alpha_0 lambda`, and the column energies have strength one; with a fixed
//! one they have strength lambda.

use super::formula::LogisticAtom;
use super::logistic::{independent_row, logistic};
use super::{check_positive, ColumnEnergy, ColumnPrior, ColumnTerm, Gate, GateRow, RowFormula, RowLogits};
use crate::errors::ShapeError;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Ibp {
    alpha: f64,
    learnable: bool,
    energy: ColumnEnergy,
    inverse_temperature: f64,
    logit_precision: f64,
    ungated: Vec<bool>,
}

impl Ibp {
    /// `ungated` names the atoms whose gate is one on every row.
    pub fn new(
        alpha: f64,
        learnable: bool,
        energy: ColumnEnergy,
        temperature: f64,
        logit_precision: f64,
        ungated: &[usize],
    ) -> Result<Self, ShapeError> {
        check_positive("alpha", alpha)?;
        check_positive("temperature", temperature)?;
        check_positive("logit_precision", logit_precision)?;
        let inverse_temperature = 1.0 / temperature;
        Ok(Self {
            alpha,
            learnable,
            energy,
            inverse_temperature,
            logit_precision,
            ungated: super::frozen::mask(ungated),
        })
    }

    fn concentration(&self, lambda: f64) -> f64 {
        if self.learnable {
            self.alpha * lambda
        } else {
            self.alpha
        }
    }

    /// pi_k.
    fn shrinkage(&self, lambda: f64, atom: usize) -> f64 {
        let alpha = self.concentration(lambda);
        (-(atom as f64 + 1.0) * (1.0 / alpha).ln_1p()).exp().max(f64::MIN_POSITIVE)
    }
}

impl ColumnPrior for Ibp {
    fn indicator(&self, logit: f64) -> [f64; 4] {
        let t = self.inverse_temperature;
        let [z, d1, d2, d3] = logistic(logit * t);
        [z, t * d1, t * t * d2, t * t * t * d3]
    }

    fn term(&self, lambda: f64, atom: usize, n_atoms: usize, mass: f64, n_rows: f64) -> ColumnTerm {
        if self.always_on(atom) {
            return ColumnTerm::default();
        }
        let unit = self.energy.term(self.concentration(lambda), atom, n_atoms, mass, n_rows);
        if self.learnable {
            return unit;
        }
        ColumnTerm {
            energy: lambda * unit.energy,
            score: lambda * unit.score,
            slope: lambda * unit.slope,
            bend: lambda * unit.bend,
            energy_by_strength: lambda * unit.energy,
            score_by_strength: lambda * unit.score,
            slope_by_strength: lambda * unit.slope,
        }
    }
}

impl Gate for Ibp {
    fn kind(&self) -> &'static str {
        "ibp"
    }

    fn n_free(&self, n_atoms: usize) -> usize {
        n_atoms
    }

    fn shares(&self) -> bool {
        false
    }

    /// The prior tells atoms apart by their position, but for those without a gate.
    fn label(&self, atom: usize) -> usize {
        if self.always_on(atom) {
            usize::MAX
        } else {
            atom
        }
    }

    fn values(&self, lambda: f64, logits: RowLogits<'_>, support: &[u32], a: &mut Vec<f64>) {
        a.clear();
        a.extend(support.iter().map(|&k| {
            let k = k as usize;
            match self.always_on(k) {
                true => 1.0,
                false => self.indicator(logits[k])[0] * self.shrinkage(lambda, k),
            }
        }));
    }

    fn row(&self, lambda: f64, logits: RowLogits<'_>, support: &[u32], out: &mut GateRow) {
        let jets = |k: usize| match self.always_on(k) {
            true => [1.0, 0.0, 0.0],
            false => {
                let (pi, z) = (self.shrinkage(lambda, k), self.indicator(logits[k]));
                [pi * z[0], pi * z[1], pi * z[2]]
            }
        };
        independent_row(support, jets, out);
    }

    /// `d ln pi_k / d ln alpha = (k + 1) / (alpha + 1)`.
    fn value_slope(&self, lambda: f64, atom: usize) -> f64 {
        if !self.learnable || self.always_on(atom) {
            return 0.0;
        }
        (atom as f64 + 1.0) / (self.concentration(lambda) + 1.0)
    }

    fn always_on(&self, atom: usize) -> bool {
        self.ungated.get(atom).copied().unwrap_or(false)
    }

    fn formula(&self, lambda: f64, logits: RowLogits<'_>, support: &[u32]) -> RowFormula {
        RowFormula::logistic(self.inverse_temperature, logits, support, |k| match self.always_on(k) {
            true => LogisticAtom::Still(1.0),
            false => LogisticAtom::Moves { scale: self.shrinkage(lambda, k), shift: 0.0 },
        })
    }

    fn significant(&self, logits: &[f64], current: &[u32], cutoff: f64, support: &mut Vec<u32>) {
        support.clear();
        let open = |k: &u32| self.always_on(*k as usize) || self.indicator(logits[*k as usize])[0] > cutoff;
        support.extend(current.iter().copied().filter(open));
    }

    fn logit_of_share(&self, share: f64) -> f64 {
        (share / (1.0 - share)).ln() / self.inverse_temperature
    }

    fn range(&self, lambda: f64, atom: usize) -> (f64, f64) {
        if self.always_on(atom) {
            (1.0, 1.0)
        } else {
            (0.0, self.shrinkage(lambda, atom))
        }
    }

    fn logit_of_value(&self, lambda: f64, atom: usize, value: f64) -> f64 {
        self.logit_of_share(value / self.shrinkage(lambda, atom))
    }

    /// The column energies are not normalised over logits: V then ranks strengths, not numbers of atoms.
    fn ln_normaliser(&self, _: f64, _: usize) -> (f64, f64) {
        (0.0, 0.0)
    }

    fn logit_precision(&self) -> f64 {
        self.logit_precision
    }

    fn improper(&self) -> Arc<dyn Gate> {
        Arc::new(Self { logit_precision: 0.0, ..self.clone() })
    }

    fn columns(&self) -> Option<&dyn ColumnPrior> {
        Some(self)
    }
}
