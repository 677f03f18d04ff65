//! Gates: one file a gate, behind one trait.

mod columns;
mod formula;
mod frozen;
mod ibp;
mod logistic;
mod logits;
mod softmax;
mod threshold;

pub use columns::{ColumnEnergy, ColumnPrior, ColumnTerm};
pub use formula::{RowFormula, RowGate};
pub use frozen::FrozenRouting;
pub use ibp::Ibp;
pub use logits::RowLogits;
pub use softmax::{EntropyNodes, Softmax};
pub use threshold::{SigmoidNodes, ThresholdGate};

use crate::errors::ShapeError;
use crate::interval::{interval_charge, IntervalCharge};
use crate::special::bisect;
use std::collections::HashMap;

use std::sync::Arc;

/// Gate values of one row with their derivatives over the row's free logits in the support.
#[derive(Clone, Debug, Default)]
pub struct GateRow {
    /// Value per atom of the support (s).
    pub a: Vec<f64>,
    /// `s x f`.
    pub da: Vec<f64>,
    /// `s x f x f`.
    pub d2a: Vec<f64>,
    /// Number of free logits in the support.
    pub free: usize,
}

impl GateRow {
    fn clear(&mut self, free: usize) {
        self.a.clear();
        self.da.clear();
        self.d2a.clear();
        self.free = free;
    }
}

/// The gate prior of one row at unit strength.
#[derive(Clone, Debug, Default)]
pub struct GatePrior {
    pub energy: f64,
    /// Gradient over the free logits.
    pub gradient: Vec<f64>,
    /// Diagonal positive semi-definite majoriser of the Hessian over the free logits.
    pub majoriser: Vec<f64>,
}

impl GatePrior {
    fn clear(&mut self) {
        self.energy = 0.0;
        self.gradient.clear();
        self.majoriser.clear();
    }
}

/// The least open gate: its logit, and derivatives in it as if it were free.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wall {
    pub logit: f64,
    /// Of the gate's value.
    pub gate: f64,
    /// First and second of the prior's energy at unit strength.
    pub energy: f64,
    pub bend: f64,
}

impl Wall {
    /// The charge of a logit above the wall, whose curvature is `h`.
    pub fn free(&self, logit: f64, h: f64) -> IntervalCharge {
        interval_charge(0.0, h, (self.logit - logit, f64::INFINITY))
    }

    /// The charge of a logit that is held at the wall, by what the data have of slope and curvature there.
    pub fn held(&self, data: (f64, f64), lambda: f64, precision: f64) -> IntervalCharge {
        let slope = data.0 + lambda * self.energy + precision * self.logit;
        let curvature = data.1 + precision + lambda * self.bend.max(0.0);
        interval_charge(slope, curvature, (0.0, f64::INFINITY))
    }
}

/// A gate: how logits become the weights of atoms, and the prior that makes them sparse.
///
/// Logits `0..n_free(K)` are free, and every one of them has a Gaussian prior of precision `logit_precision`. The weights
/// that enter the reconstruction are those of the row's support, a sorted list of atoms, and exactly zero elsewhere.
/// `lambda` is the sparsity strength; a gate whose values it sets (a learnable concentration) reads it from there.
pub trait Gate: Send + Sync + std::fmt::Debug {
    fn kind(&self) -> &'static str;
    fn n_free(&self, n_atoms: usize) -> usize;
    /// Whether the weights of a row are shares of one whole, so that a row uses at least one atom.
    fn shares(&self) -> bool;
    /// Equal atoms of one label may trade places: the gate does not tell them apart.
    fn label(&self, _atom: usize) -> usize {
        0
    }
    /// Largest number of atoms in a support.
    fn cap(&self) -> usize {
        usize::MAX
    }
    /// Values over the support, without derivatives.
    fn values(&self, lambda: f64, logits: RowLogits<'_>, support: &[u32], a: &mut Vec<f64>);
    /// Values over the support with first and second derivatives.
    fn row(&self, lambda: f64, logits: RowLogits<'_>, support: &[u32], out: &mut GateRow);
    /// The same as a formula of the logits of the support.
    fn formula(&self, lambda: f64, logits: RowLogits<'_>, support: &[u32]) -> RowFormula;
    /// Derivative of `ln a_k` in `ln lambda`.
    fn value_slope(&self, _lambda: f64, _atom: usize) -> f64 {
        0.0
    }
    /// Whether the atom is in every support.
    fn always_on(&self, _atom: usize) -> bool {
        false
    }
    /// The least logit of an open gate, where it has one. A logit that is exactly there is held: it wants to go further down,
    /// its gate is constant, and it is no variable.
    fn wall(&self, _atom: usize) -> Option<f64> {
        None
    }
    /// Whether a logit is held at its wall.
    fn held(&self, atom: usize, logit: f64) -> bool {
        self.wall(atom) == Some(logit)
    }
    /// The atoms that the logits of a row imply, where it uses those of `current`. For shares those whose weight among all K
    /// exceeds `cutoff` times the largest (never empty), up to the cap, before others those of `current`; otherwise
    /// those of `current` that are still open.
    fn significant(&self, logits: &[f64], current: &[u32], cutoff: f64, support: &mut Vec<u32>);
    /// Shares: how far above a row's leading logit another must lie to take this share of the row from it (negative below
    /// 1/2).
    fn logit_of_share(&self, share: f64) -> f64;
    /// Independent weights: the values that an open gate can take, and the logit of one of them.
    fn range(&self, lambda: f64, atom: usize) -> (f64, f64);
    fn logit_of_value(&self, lambda: f64, atom: usize, value: f64) -> f64;
    /// Independent weights: the energy of one logit at unit strength, and its first three derivatives.
    fn logit_energy(&self, _atom: usize, _logit: f64) -> [f64; 4] {
        [0.0; 4]
    }
    /// Energy, gradient and majoriser at unit strength of the prior on the logits of a row: on all of them, or, where each has
    /// its own, on some.
    fn prior(&self, logits: RowLogits<'_>, out: &mut GatePrior) {
        out.clear();
        for (k, l) in logits.iter() {
            let [energy, d1, d2, _] = self.logit_energy(k, l);
            out.energy += energy;
            out.gradient.push(d1);
            out.majoriser.push(d2.max(0.0));
        }
    }
    /// `out += factor * Hessian * v` over the free logits, at unit strength.
    fn prior_hessian_apply(&self, logits: RowLogits<'_>, factor: f64, v: &[f64], out: &mut [f64]) {
        for (((k, l), v), out) in logits.iter().zip(v).zip(out) {
            *out += factor * self.logit_energy(k, l)[2] * v;
        }
    }
    /// `out += factor * Hessian` over the free logits, at unit strength; rows of `out` are `stride` apart.
    fn add_prior_hessian(&self, logits: RowLogits<'_>, factor: f64, out: &mut [f64], stride: usize) {
        for (at, (k, l)) in logits.iter().enumerate() {
            out[at * (stride + 1)] += factor * self.logit_energy(k, l)[2];
        }
    }
    /// `out[w] += factor * sum_k weights[k] d majoriser[k] / d logit[w]`, at unit strength.
    fn majoriser_adjoint(&self, logits: RowLogits<'_>, factor: f64, weights: &[f64], out: &mut [f64]) {
        for (((k, l), weight), out) in logits.iter().zip(weights).zip(out) {
            let [_, _, d2, d3] = self.logit_energy(k, l);
            if d2 > 0.0 {
                *out += factor * weight * d3;
            }
        }
    }
    /// Independent gates that are closed below a threshold: the logarithm of the integral of `N(l; 0, 1/precision)
    /// exp(-lambda E(l))` over the logits of a closed gate, and its derivative in `ln lambda`; `None` for a gate that is open
    /// everywhere, or has no Gaussian.
    fn ln_closed(&self, _lambda: f64, _atom: usize) -> Option<(f64, f64)> {
        None
    }
    /// What is known of a gate at its wall, for those gates.
    fn at_wall(&self, _atom: usize) -> Option<Wall> {
        None
    }
    /// Whether there are such gates among so many atoms. What the data see of a row is then in the logits and coordinates of its
    /// support, and so is all that moves.
    fn closes(&self, n_atoms: usize) -> bool {
        (0..self.n_free(n_atoms)).any(|k| self.at_wall(k).is_some())
    }
    /// Log-normaliser of one row's prior at strength `lambda` and its derivative in `ln lambda`.
    fn ln_normaliser(&self, lambda: f64, n_atoms: usize) -> (f64, f64);
    /// Precision of the proper Gaussian prior on each free logit; zero for an improper gate.
    fn logit_precision(&self) -> f64;
    /// The gate without the Gaussian on its logits and without a normaliser.
    fn improper(&self) -> Arc<dyn Gate>;
    /// A prior that couples all rows of a column, where the gate has one.
    fn columns(&self) -> Option<&dyn ColumnPrior> {
        None
    }
}

/// The logit of a closed gate that feels its prior alone: the energy of its gate and its Gaussian.
pub fn resting_logit(gate: &dyn Gate, lambda: f64, atom: usize) -> f64 {
    /// Where it starts: below zero, on the side to which the energies of gates pull.
    const START: f64 = -1.0;
    let rises = |logit: f64| lambda * gate.logit_energy(atom, logit)[1] + gate.logit_precision() * logit > 0.0;
    if gate.logit_energy(atom, 0.0)[1] == 0.0 {
        return 0.0;
    }
    let (mut low, mut high) = (START, 0.0);
    while rises(low) {
        (low, high) = (2.0 * low, low);
    }
    bisect((low, high), |logit| !rises(logit))
}

/// What `of_atom` says of every atom, asked once for those that the gate does not tell apart.
pub fn by_label<T: Clone>(gate: &dyn Gate, n_atoms: usize, of_atom: impl Fn(usize) -> T) -> Vec<T> {
    let mut known = HashMap::new();
    (0..n_atoms).map(|k| known.entry(gate.label(k)).or_insert_with(|| of_atom(k)).clone()).collect()
}

fn check_positive(name: &str, value: f64) -> Result<(), ShapeError> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(ShapeError::value(format!("{name} must be positive and finite, got {value}")))
}
