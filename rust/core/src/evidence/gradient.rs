//! dV/drho_j = dL/drho_j + dE/drho_j - (dE/dtheta)' (A + UU')^-1 d2L/dtheta drho_j.

use super::adjoint::{evidence_adjoint, Adjoint};
use super::value::{ard_slopes, Evidence};
use crate::arrow::{conjugate_gradients, Ending, Enough, Factor, Factored, Solution, System};
use crate::gates::GatePrior;
use crate::linalg::{axpy, dot};
use crate::priors::coordinate_priors;
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::row::held;
use crate::state::State;
use ndarray::{s, Array2};

/// Relative residual of the adjoint solve at which only rounding is left.
const ADJOINT_TOLERANCE: f64 = 1e-12;
/// Bound on its iterations.
const MAX_ADJOINT: usize = 1000;

/// The gradient of V with how its one linear solve ended.
pub struct Gradient {
    /// In the flat vector of strengths.
    pub value: Vec<f64>,
    pub ending: Ending,
    pub iterations: usize,
}

/// dV/drho at fixed inner variables, with the derivatives of E it came from.
pub fn explicit_gradient(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    factored: &Factored,
    evidence: &Evidence,
) -> (Vec<f64>, Adjoint) {
    let adjoint = evidence_adjoint(problem, state, rho, factored, evidence);
    let mut value = adjoint.rho.clone();
    axpy(1.0, &explicit_loss(problem, state, rho, factored), &mut value);
    (value, adjoint)
}

/// The exact gradient of V at a converged state, from its explicit part and a factor, with its system, that
/// preconditions the adjoint solve.
///
/// `leaves` is how long that solve's residual may be in the norm of the inverse, in nats^1/2: the gradient, in units of L's own
/// curvature in the strengths, is off by about as much. With zero it goes on to rounding.
pub fn gradient(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    (factored, (factor, system)): (&Factored, (&Factor, &System)),
    (mut value, adjoint): (Vec<f64>, &Adjoint),
    leaves: f64,
    interrupted: &dyn Fn() -> bool,
) -> Gradient {
    let solution = conjugate_gradients(
        |x| factored.system.apply_exact(problem, state, rho, x),
        |x| factor.solve(problem, state, rho, system, x),
        &adjoint.theta,
        Enough::part(ADJOINT_TOLERANCE).or(leaves),
        MAX_ADJOINT,
        f64::INFINITY,
        interrupted,
    );
    axpy(-1.0, &mixed(problem, state, rho, factored, &solution), &mut value);
    Gradient { value, ending: solution.ending, iterations: solution.iterations }
}

/// dL/drho at fixed inner variables, without the coordinates whose prior V integrates out.
fn explicit_loss(problem: &Problem, state: &State, rho: &SaeManifoldRho, factored: &Factored) -> Vec<f64> {
    let lin = &factored.system.lin;
    let mut out = vec![0.0; rho.len()];
    let n = problem.n_rows() as f64;
    if problem.n_free() > 0 {
        let (ln_z, slope) = problem.gate().ln_normaliser(rho.lambda_sparse(), problem.n_atoms());
        out[0] = (lin.loss.sparsity - n * ln_z) + n * slope;
    }
    if !lin.columns.terms.is_empty() {
        out[0] = lin.columns.terms.iter().map(|t| t.energy_by_strength).sum();
    }
    out[0] += follow(problem, rho, &state.decoders, &data_gradient(problem, state, factored));
    let rough = lin.prior.apply_roughness(problem, &state.decoders);
    let mut roughness = 0.0;
    // the classic mode has no normalisers, and its Occam term no dispersion
    let proper = f64::from(u8::from(problem.is_proper()));
    for k in 0..problem.n_atoms() {
        let rows = s![problem.rows_of(k), ..];
        let quadratic: f64 = rough.slice(rows).iter().zip(state.decoders.slice(rows)).map(|(a, b)| a * b).sum();
        let occam = 0.5 * state.channels(problem, k) as f64 * lin.prior.ln_det_slope[k];
        out[1 + k] = 0.5 * quadratic - occam;
        roughness += 0.5 * quadratic - proper * occam;
    }
    ard_slopes(problem, state, rho, &mut out);
    if let Some(slot) = rho.dispersion_slot() {
        out[slot] = proper * 0.5 * problem.n_entries() as f64 - 0.5 * lin.loss.residual / rho.dispersion() - roughness;
    }
    out
}

/// Products of `d2L/dtheta drho_j` with one vector, for every j.
fn mixed(problem: &Problem, state: &State, rho: &SaeManifoldRho, factored: &Factored, solution: &Solution) -> Vec<f64> {
    let (lin, y) = (&factored.system.lin, &solution.x);
    let mut out = vec![0.0; rho.len()];
    let rough = lin.prior.apply_roughness(problem, &state.decoders);
    let mut roughness = 0.0;
    for k in 0..problem.n_atoms() {
        let rows = s![problem.rows_of(k), ..];
        out[1 + k] = rough.slice(rows).iter().zip(y.border.slice(rows)).map(|(a, b)| a * b).sum();
        roughness += out[1 + k];
    }
    let stiff = lin.prior.apply(problem, &state.decoders);
    let border = |a: &ndarray::Array2<f64>| a.iter().zip(&y.border).map(|(a, b)| a * b).sum::<f64>();
    // the data's share of the gradient is what its priors leave
    let mut data = border(&lin.border_gradient) - border(&stiff) + dot(&lin.local_gradient, &y.local);

    let layout = state.layout_of_rows();
    let (lambda, precision) = (rho.lambda_sparse(), problem.gate().logit_precision());
    let mut prior = GatePrior::default();
    for row in 0..problem.n_rows() {
        let y = &y.local[layout.block(row)];
        let atoms = layout.logit_atoms(row);
        if !atoms.is_empty() {
            let logits = state.logits_of(row);
            problem.gate().prior(logits, &mut prior);
            let sparse = lambda * dot(&prior.gradient, &y[..atoms.len()]);
            out[0] += sparse;
            data -= sparse;
            for ((k, logit), y) in logits.iter().zip(&y[..atoms.len()]) {
                if !held(problem, state, row, k) {
                    data -= precision * logit * y;
                }
            }
            lin.columns.of_row(problem, state, row, |at, k, z| {
                out[0] += lin.columns.terms[k].score_by_strength * z[1] * y[at];
                data -= lin.columns.terms[k].score * z[1] * y[at];
            });
        }
        for (&k, &start) in layout.active_atoms(row).iter().zip(layout.coord_starts(row)) {
            let (k, start) = (k as usize, start as usize);
            coordinate_priors(&*problem.atoms()[k], rho, k, state.point(k, row), |j, term| {
                let pull = term.gradient * y[start + j];
                if rho.ard(k, j).is_some() {
                    out[rho.ard_slot(k, j)] += pull;
                }
                data -= pull;
            });
        }
    }
    if let Some(slot) = rho.dispersion_slot() {
        out[slot] = -data - roughness;
    }
    out[0] += follow(problem, rho, &y.border, &data_gradient(problem, state, factored));
    // of the product with A + UU', what the decoders' priors and U leave is the data's
    let mut applied = &solution.ax.border - &lin.prior.apply(problem, &y.border);
    let mut pinned = ndarray::Array2::zeros(applied.dim());
    factored.system.pins.apply(problem, &y.border, &mut pinned);
    applied -= &pinned;
    out[0] += follow(problem, rho, &state.decoders, &applied);
    out
}

/// The data's share of the gradient over the decoders.
fn data_gradient(problem: &Problem, state: &State, factored: &Factored) -> Array2<f64> {
    let lin = &factored.system.lin;
    &lin.border_gradient - &lin.prior.apply(problem, &state.decoders)
}

/// `sum_k c_k <a_k, b_k>` with `c_k = d ln a_k / d ln lambda`: the data see a decoder only times its gate's scale, so moving
/// that scale is moving the decoder.
fn follow(problem: &Problem, rho: &SaeManifoldRho, a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    (0..problem.n_atoms())
        .map(|k| {
            let slope = problem.gate().value_slope(rho.lambda_sparse(), k);
            let rows = s![problem.rows_of(k), ..];
            if slope == 0.0 {
                return 0.0;
            }
            slope * a.slice(rows).iter().zip(b.slice(rows)).map(|(x, y)| x * y).sum::<f64>()
        })
        .sum()
}
