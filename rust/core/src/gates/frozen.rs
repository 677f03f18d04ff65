//! Frozen routing: every gate keeps the value it was given.

use super::formula::LogisticAtom;
use super::{Gate, GateRow, RowFormula, RowLogits};
use std::sync::Arc;

/// Which atoms a list names, as a mask that ends with the last of them.
pub(super) fn mask(atoms: &[usize]) -> Vec<bool> {
    let mut out = vec![false; atoms.iter().max().map_or(0, |m| m + 1)];
    atoms.iter().for_each(|&k| out[k] = true);
    out
}

/// Gates that do not move: the slot of a row's logit holds the gate itself, no logit is free, and there is no prior.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrozenRouting;

impl Gate for FrozenRouting {
    fn kind(&self) -> &'static str {
        "frozen"
    }

    fn n_free(&self, _: usize) -> usize {
        0
    }

    fn shares(&self) -> bool {
        false
    }

    /// Given gates say which atom is which.
    fn label(&self, atom: usize) -> usize {
        atom
    }

    fn values(&self, _: f64, logits: RowLogits<'_>, support: &[u32], a: &mut Vec<f64>) {
        a.clear();
        a.extend(support.iter().map(|&k| logits[k as usize]));
    }

    fn row(&self, lambda: f64, logits: RowLogits<'_>, support: &[u32], out: &mut GateRow) {
        out.clear(0);
        self.values(lambda, logits, support, &mut out.a);
    }

    fn formula(&self, _: f64, logits: RowLogits<'_>, support: &[u32]) -> RowFormula {
        RowFormula::logistic(1.0, logits, support, |k| LogisticAtom::Still(logits[k]))
    }

    fn significant(&self, logits: &[f64], _: &[u32], _: f64, support: &mut Vec<u32>) {
        support.clear();
        support.extend((0..logits.len() as u32).filter(|&k| logits[k as usize] != 0.0));
    }

    fn logit_of_share(&self, _: f64) -> f64 {
        0.0
    }

    fn range(&self, _: f64, _: usize) -> (f64, f64) {
        (0.0, f64::INFINITY)
    }

    fn logit_of_value(&self, _: f64, _: usize, value: f64) -> f64 {
        value
    }

    fn ln_normaliser(&self, _: f64, _: usize) -> (f64, f64) {
        (0.0, 0.0)
    }

    fn logit_precision(&self) -> f64 {
        1.0
    }

    fn improper(&self) -> Arc<dyn Gate> {
        Arc::new(*self)
    }
}
