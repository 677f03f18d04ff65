//! The inner solve: inner variables at fixed strengths.
//!
//! Newton with the exact Hessian of L by conjugate gradients, preconditioned by the factor of the positive definite
//! `H + UU'`, inside a trust region in that metric. The metric is affine-invariant, so no learning rate is needed;
//! negative curvature is followed to the boundary; near the solution steps are full Newton steps. The gauge is fixed by
//! `UU'`, so steps never drift along an orbit.
//!
//! One step length for all rows is the length that the most curved row allows. Where a step disappoints, rows are
//! therefore first minimised on their own with the decoders held, each at its own pace, and the decoders solved again; both
//! can only lower L.

use crate::arrow::{conjugate_gradients, Curvature, Elimination, Ending, Factored, Step, System};
use crate::linalg::Cholesky;
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::row::{RowSolver, RowState};
use crate::state::State;
use rayon::prelude::*;

/// What numerical work can end in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The decrement fell below the tolerance.
    Converged,
    /// Steps no longer change anything in floating point, with the decrement above the tolerance.
    RoundingLimit,
    IterationLimit,
    /// The strengths or the state leave the curvature without a meaning in floating point.
    Infeasible,
    Interrupted,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Self::Converged => "converged",
            Self::RoundingLimit => "rounding_limit",
            Self::IterationLimit => "iteration_limit",
            Self::Infeasible => "infeasible",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Settings of the inner solve.
#[derive(Clone, Copy, Debug)]
pub struct InnerOptions {
    /// Bound on the Newton decrement relative to sqrt(1 + |L|), both in nats.
    pub tolerance: f64,
    pub max_iterations: usize,
    pub elimination: Elimination,
}

/// The end of an inner solve.
#[derive(Clone, Debug)]
pub struct Inner {
    pub state: State,
    /// The stiffened factorisation at the state; `None` when infeasible.
    pub factored: Option<Factored>,
    pub status: Status,
    pub iterations: usize,
    pub cg_iterations: usize,
    /// sqrt(g' (H + UU')^-1 g): half its square is the descent in nats that one more step would bring.
    pub decrement: f64,
}

/// Conjugate gradients of one Newton step are cut here; what is left is done by the next step.
const MAX_CG: usize = 60;
/// A trust-region step is taken when it brings this part of the predicted descent.
const ACCEPT: f64 = 1e-4;
/// Decoders are solved again in closed form when that brings at least this part of what the step brought.
const POLISH: f64 = 0.1;

/// Rows are relaxed only while the decrement is above this: below it they are at their minima to a fraction of a nat.
const RELAX_ABOVE: f64 = 0.1;

/// Minimises L over the inner variables from a state.
pub fn solve(
    problem: &Problem,
    state: State,
    rho: &SaeManifoldRho,
    options: &InnerOptions,
    interrupted: &dyn Fn() -> bool,
) -> Inner {
    let mut inner = Inner {
        factored: Factored::new(problem, &state, rho, options.elimination, Curvature::Stiffened),
        state,
        status: Status::IterationLimit,
        iterations: 0,
        cg_iterations: 0,
        decrement: f64::INFINITY,
    };
    let mut radius: Option<f64> = None;
    // rows far from their own minima show at once; after that, a disappointing step does
    let mut relax = true;
    loop {
        let Some(factored) = &inner.factored else {
            inner.status = Status::Infeasible;
            return inner;
        };
        let loss = factored.system.lin.loss.total();
        let gradient = factored.system.gradient();
        let downhill = factored.solve(problem, &inner.state, rho, &gradient);
        inner.decrement = gradient.dot(&downhill).max(0.0).sqrt();
        let scale = (1.0 + loss.abs()).sqrt();
        if inner.decrement <= options.tolerance * scale {
            inner.status = Status::Converged;
            return inner;
        }
        if inner.iterations == options.max_iterations {
            return inner;
        }
        if interrupted() {
            inner.status = Status::Interrupted;
            return inner;
        }
        inner.iterations += 1;

        if relax {
            relax = false;
            if inner.decrement > RELAX_ABOVE {
                if let Some((state, factored)) = relaxed(problem, &inner.state, factored, rho, options) {
                    inner.state = state;
                    inner.factored = Some(factored);
                    radius = None;
                    continue;
                }
            }
        }

        let mut bound = radius.unwrap_or(2.0 * inner.decrement);
        let mut descent = gradient.clone();
        descent.scale(-1.0);
        let forcing = (inner.decrement / scale).clamp(1e-12, 0.1);
        let accepted = loop {
            let step = conjugate_gradients(
                |x| factored.system.apply_exact(problem, &inner.state, rho, x),
                |x| factored.solve(problem, &inner.state, rho, x),
                &descent,
                forcing,
                MAX_CG,
                bound,
                interrupted,
            );
            inner.cg_iterations += step.iterations;
            if step.ending == Ending::Interrupted {
                inner.status = Status::Interrupted;
                return inner;
            }
            let predicted = descent.dot(&step.x) - 0.5 * step.x.dot(&step.ax);
            let trial = inner.state.stepped(problem, &step.x.local, flat(&step.x), 1.0);
            let system = System::new(problem, &trial, rho, options.elimination.frame(&trial.decoders));
            // below this a difference of two values of L is rounding, and the gradient decides instead
            let rounding = 64.0 * f64::EPSILON * (1.0 + loss.abs());
            if predicted <= rounding {
                break refined(problem, rho, options, trial, system, inner.decrement);
            }
            let actual = system.as_ref().map_or(f64::NEG_INFINITY, |s| loss - s.lin.loss.total());
            let ratio = actual / predicted;
            if ratio > 0.75 && step.length > 0.99 * bound {
                radius = Some(3.0 * bound);
            } else if ratio < 0.25 {
                radius = Some(0.25 * step.length);
            } else if radius.is_some() {
                radius = Some(bound);
            }
            relax |= ratio < 0.25 || step.ending == Ending::NegativeCurvature;
            if let Some(system) = system.filter(|_| ratio > ACCEPT) {
                break accept(problem, rho, options, trial, system, actual);
            }
            bound = 0.25 * step.length;
            if bound.is_nan() || bound <= f64::EPSILON * inner.decrement.min(1.0) {
                break None;
            }
        };
        match accepted {
            Some((state, factored)) => {
                inner.state = state;
                inner.factored = Some(factored);
            }
            None => {
                inner.status = Status::RoundingLimit;
                return inner;
            }
        }
    }
}

/// Every row at its own minimum for the decoders as they are, then the decoders solved again. `None` when that does not
/// lower L.
fn relaxed(
    problem: &Problem,
    state: &State,
    factored: &Factored,
    rho: &SaeManifoldRho,
    options: &InnerOptions,
) -> Option<(State, Factored)> {
    let gate = problem.shared_gate().clone();
    let solver = RowSolver::new(problem.atoms().to_vec(), gate, rho.clone(), state.decoders.clone()).ok()?;
    let rows: Vec<RowState> = (0..problem.n_rows())
        .into_par_iter()
        .map(|i| {
            let target = solver.target(problem.data().row(i), problem.weight(i));
            solver.polish(&target, state.row(i), false)
        })
        .collect();
    let mut next = state.clone();
    rows.iter().enumerate().for_each(|(i, row)| next.set_row(i, row));
    let system = System::new(problem, &next, rho, options.elimination.frame(&next.decoders))?;
    let (next, system) = polished(problem, rho, options, &next, &system, 0.0).unwrap_or((next, system));
    (system.lin.loss.total() < factored.system.lin.loss.total()).then_some(())?;
    let factored = Factored::from_system(problem, &next, rho, options.elimination, Curvature::Stiffened, system)?;
    Some((next, factored))
}

fn flat(step: &Step) -> &[f64] {
    step.border.as_slice().expect("standard layout")
}

/// A step too short for L to tell: taken when it at least halves the decrement.
fn refined(
    problem: &Problem,
    rho: &SaeManifoldRho,
    options: &InnerOptions,
    trial: State,
    system: Option<System>,
    decrement: f64,
) -> Option<(State, Factored)> {
    let factored = Factored::from_system(problem, &trial, rho, options.elimination, Curvature::Stiffened, system?)?;
    let gradient = factored.system.gradient();
    let next = gradient.dot(&factored.solve(problem, &trial, rho, &gradient)).max(0.0).sqrt();
    (next < 0.5 * decrement).then_some((trial, factored))
}

/// Factors an accepted step's system, after solving its decoders again where that pays.
fn accept(
    problem: &Problem,
    rho: &SaeManifoldRho,
    options: &InnerOptions,
    trial: State,
    system: System,
    actual: f64,
) -> Option<(State, Factored)> {
    let (trial, system) = match polished(problem, rho, options, &trial, &system, POLISH * actual) {
        Some(better) => better,
        None => (trial, system),
    };
    let factored = Factored::from_system(problem, &trial, rho, options.elimination, Curvature::Stiffened, system)?;
    Some((trial, factored))
}

/// For fixed logits and coordinates L is quadratic in the decoders, with Hessian `G (x) I`: one solve minimises it, and
/// its gain `1/2 <g, G^-1 g>` is known before it is taken.
fn polished(
    problem: &Problem,
    rho: &SaeManifoldRho,
    options: &InnerOptions,
    state: &State,
    system: &System,
    least_gain: f64,
) -> Option<(State, System)> {
    let gram = Cholesky::new(system.lin.gram.view())?;
    let mut step = system.lin.border_gradient.clone();
    gram.solve(&mut step.view_mut());
    let gain = 0.5 * step.iter().zip(&system.lin.border_gradient).map(|(s, g)| s * g).sum::<f64>();
    if gain.is_nan() || gain < least_gain {
        return None;
    }
    let mut better = state.clone();
    better.decoders -= &step;
    let frame = options.elimination.frame(&better.decoders);
    let system_at = System::new(problem, &better, rho, frame)?;
    (system_at.lin.loss.total() <= system.lin.loss.total()).then_some((better, system_at))
}
