//! Gates as formulas of logits, for code that differentiates them to any order.

use super::RowLogits;

/// How a row's logits become gates.
#[derive(Clone, Debug, PartialEq)]
pub enum RowGate {
    /// `exp(l_k / tau) / sum_j exp(l_j / tau)`.
    Softmax,
    /// `scale_k / (1 + exp(-(l_k - shift_k) / tau))`, one scale and one shift an atom.
    Logistic { scale: Vec<f64>, shift: Vec<f64> },
}

/// The gates of one row's support.
#[derive(Clone, Debug)]
pub struct RowFormula {
    pub gate: RowGate,
    pub inverse_temperature: f64,
    /// One for each atom of the support.
    pub logits: Vec<f64>,
    /// Whether the atom's gate moves with its own logit where that is free.
    pub moves: Vec<bool>,
}

impl RowFormula {
    /// Independent gates `scale / (1 + exp(-(l - shift)/tau))` of a support; a gate that does not move has its value as scale.
    pub(super) fn logistic(
        inverse_temperature: f64,
        logits: RowLogits<'_>,
        support: &[u32],
        of_atom: impl Fn(usize) -> LogisticAtom,
    ) -> Self {
        let (mut scale, mut shift) = (Vec::new(), Vec::new());
        let (mut own, mut moves) = (Vec::new(), Vec::new());
        for &k in support {
            let logit = logits[k as usize];
            let atom = of_atom(k as usize);
            own.push(logit);
            moves.push(matches!(atom, LogisticAtom::Moves { .. }));
            let (a, b) = match atom {
                LogisticAtom::Moves { scale, shift } => (scale, shift),
                // half of twice the value, whatever the logit
                LogisticAtom::Still(value) => (2.0 * value, logit),
            };
            scale.push(a);
            shift.push(b);
        }
        Self { gate: RowGate::Logistic { scale, shift }, inverse_temperature, logits: own, moves }
    }
}

/// One independent gate.
pub(super) enum LogisticAtom {
    Moves { scale: f64, shift: f64 },
    Still(f64),
}
