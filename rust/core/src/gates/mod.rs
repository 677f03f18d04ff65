//! Gates: one file a gate, behind one trait.

mod softmax;

pub use softmax::{EntropyNodes, Softmax};

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

/// The gate prior of one row at unit strength.
#[derive(Clone, Debug, Default)]
pub struct GatePrior {
    pub energy: f64,
    /// Gradient over the free logits.
    pub gradient: Vec<f64>,
    /// Diagonal positive semi-definite majoriser of the Hessian over the free logits.
    pub majoriser: Vec<f64>,
}

/// A gate: how logits become the weights of atoms, and the prior that makes them sparse.
///
/// Logits `0..n_free(K)` are free. The prior acts on all logits of a row; the weights that enter the
/// reconstruction are those of the row's support, a sorted list of atoms.
pub trait Gate: Send + Sync + std::fmt::Debug {
    fn kind(&self) -> &'static str;
    fn n_free(&self, n_atoms: usize) -> usize;
    /// Values over the support, without derivatives.
    fn values(&self, logits: &[f64], support: &[u32], a: &mut Vec<f64>);
    /// Values over the support with first and second derivatives.
    fn row(&self, logits: &[f64], support: &[u32], out: &mut GateRow);
    /// Atoms whose weight among all K exceeds `cutoff` times the largest (never empty).
    fn significant(&self, logits: &[f64], cutoff: f64, support: &mut Vec<u32>);
    /// How far above a row's leading logit another must lie to take this share of the row from it (negative below 1/2).
    fn logit_of_share(&self, share: f64) -> f64;
    /// Energy, gradient and majoriser at unit strength.
    fn prior(&self, logits: &[f64], out: &mut GatePrior);
    /// `out += factor * Hessian * v` over the free logits, at unit strength.
    fn prior_hessian_apply(&self, logits: &[f64], factor: f64, v: &[f64], out: &mut [f64]);
    /// `out[w] += factor * sum_k weights[k] d majoriser[k] / d logit[w]`, at unit strength.
    fn majoriser_adjoint(&self, logits: &[f64], factor: f64, weights: &[f64], out: &mut [f64]);
    /// Log-normaliser of one row's prior at strength `lambda` and its derivative in `ln lambda`.
    fn ln_normaliser(&self, lambda: f64) -> (f64, f64);
    /// Precision of the proper Gaussian prior on each free logit; zero for an improper gate.
    fn logit_precision(&self) -> f64;
    /// The gate without the Gaussian on its logits and without a normaliser.
    fn improper(&self) -> Arc<dyn Gate>;
}
