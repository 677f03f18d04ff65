//! Fellner-Schall steps: strengths at which V would be stationary if nothing else moved.
//!
//! Each strength enters V explicitly through one prior and through the trace of H's inverse against that prior's curvature.
//! With the traces held, and the motion of the inner optimum left out, every strength has a closed form or a monotone equation
//! of its own:
//!
//! ```text
//!     phi         <- sum w |r|^2 / (np - tr X H_data)
//!     lambda_k    <- phi (p rank S_k - edf_k) / <B_k, S_k B_k>
//!     alpha       <- n / (sum t^2 + tr X_axis)                     line; on a circle the same equation in Bessel functions
//!     lambda_sp   <- where the prior's mean energy is (energy of the rows + 1/2 tr X D) / n
//! ```
//!
//! The dispersion is the one at which V is stationary with every lambda_k / phi held, which is what its update leaves free.

use super::adjoint::Adjoint;
use crate::arrow::Factored;
use crate::priors::AxisStatistics;
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::special::bisect;
use crate::state::State;
use ndarray::s;

/// What the steps are made of: traces of X, the inverse that the explicit derivatives of V are taken with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traces {
    /// Per atom `tr X (lambda_k S_k / phi (x) I)`: of its p rank(S_k) rough directions, those that the prior holds.
    pub edf: Vec<f64>,
    /// Per ARD entry of the flat vector, the sum of X over its coordinates, each times the part of the prior's curvature that
    /// is in H: one on a line, max(cos, 0) on a circle.
    pub axis_variances: Vec<f64>,
    /// `tr X H_data`: directions that the data determine.
    pub data: f64,
    /// `tr X D` over the free logits, D the majoriser at unit strength.
    pub logits: f64,
    /// `<B_k, S_k B_k>`.
    pub roughness: Vec<f64>,
}

impl Traces {
    pub fn new(problem: &Problem, state: &State, rho: &SaeManifoldRho, factored: &Factored, adjoint: &Adjoint) -> Self {
        let k = problem.n_atoms();
        let rough = factored.system.lin.prior.apply_roughness(problem, &state.decoders);
        let of_atom = |k: usize| {
            let rows = s![problem.rows_of(k), ..];
            let energy: f64 = rough.slice(rows).iter().zip(state.decoders.slice(rows)).map(|(a, b)| a * b).sum();
            energy * rho.dispersion() / rho.lambda_smooth(k)
        };
        Self {
            edf: adjoint.rho[1..1 + k].iter().map(|half| 2.0 * half).collect(),
            axis_variances: rho.ard_entries().map(|(slot, alpha)| 2.0 * adjoint.rho[slot] / alpha).collect(),
            data: adjoint.data,
            logits: 2.0 * adjoint.rho[0] / rho.lambda_sparse(),
            roughness: (0..k).map(of_atom).collect(),
        }
    }
}

/// The flat vector that one step proposes; entries that have no equation, or none with a solution, stay.
pub fn fellner_schall(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    factored: &Factored,
    traces: &Traces,
) -> Vec<f64> {
    let mut flat = rho.to_flat();
    let n = problem.n_rows() as f64;
    let loss = &factored.system.lin.loss;
    let mut dispersion = rho.dispersion();
    // the classic criterion falls without bound as the dispersion grows: it has none of its own
    if let Some(slot) = rho.dispersion_slot().filter(|_| problem.is_proper()) {
        let proposed = loss.residual / (problem.n_entries() as f64 - traces.data);
        if proposed > 0.0 && proposed.is_finite() {
            dispersion = proposed;
            flat[slot] = proposed.ln();
        }
    }
    for k in 0..problem.n_atoms() {
        let proposed =
            dispersion * ((state.channels(problem, k) * problem.rank(k)) as f64 - traces.edf[k]) / traces.roughness[k];
        if proposed > 0.0 && proposed.is_finite() {
            flat[1 + k] = proposed.ln();
        }
    }
    for ((slot, _), variance) in rho.ard_entries().zip(&traces.axis_variances) {
        flat[slot] = AxisStatistics::of_entry(problem, state, rho, slot).stationary(*variance);
    }
    if problem.n_free() > 0 && problem.is_proper() {
        let ln_z = n * problem.gate().ln_normaliser(rho.lambda_sparse(), problem.n_atoms()).0;
        let energy = (loss.sparsity - ln_z) / rho.lambda_sparse() + 0.5 * traces.logits;
        if let Some(proposed) = matched_sparsity(problem, energy / n) {
            flat[0] = proposed;
        }
    }
    flat
}

/// The ln lambda at which the gate prior's mean energy is this; the nearer end of a wide range where there is none.
fn matched_sparsity(problem: &Problem, energy: f64) -> Option<f64> {
    const RANGE: (f64, f64) = (-12.0, 12.0);
    // -d ln Z / d lambda, which falls as the strength grows
    let mean = |log: f64| -problem.gate().ln_normaliser(log.exp(), problem.n_atoms()).1 / log.exp();
    (mean(0.0) > 0.0).then(|| bisect(RANGE, |log| mean(log) > energy))
}
