//! The inner solve: inner variables at fixed strengths.
//!
//! Newton with the exact Hessian of L by conjugate gradients, preconditioned by the factor of the positive definite
//! `H + UU'`, and near an optimum by that of the exact Hessian itself, inside a trust region in that metric. The metric is
//! affine-invariant, so no learning rate is needed; negative curvature is followed to the boundary; near the solution steps
//! are full Newton steps. The gauge is fixed by `UU'`, so steps never drift along an orbit.
//!
//! One step length for all rows is the length that the most curved row allows. Where a step disappoints, rows are
//! therefore first minimised on their own with the decoders held, each at its own pace, and the decoders solved again; both
//! can only lower L.

use crate::arrow::{conjugate_gradients, steps_exactly, Elimination, Ending, Enough, Factored, Step, System};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::row::{Columns, RowSolver};
use crate::state::State;
use ndarray::ArrayView1;
use rayon::prelude::*;
use std::ops::Range;

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
    /// Bound on the Newton decrement relative to sqrt(n p), both in nats^1/2.
    pub tolerance: f64,
    pub max_iterations: usize,
    pub elimination: Elimination,
    /// Whether steps near an optimum may be made with a factor of the exact Hessian in place of the elimination's.
    pub exact: bool,
}

/// The end of an inner solve.
#[derive(Debug)]
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
/// First radius of the trust region, in decrements: the length of a step of the preconditioner alone is one.
const FIRST_RADIUS: f64 = 4.0;
/// A trust-region step is taken when it brings this part of the predicted descent.
const ACCEPT: f64 = 1e-4;
/// Decoders are solved again in closed form when that brings at least this part of what the step brought.
const POLISH: f64 = 0.1;

/// The decoders of a step that brings less than this part of what was predicted are solved again before it is judged.
///
/// Rows that the decoders fit closely, such as outliers, leave L a narrow bent valley: along it first changes of coordinates
/// and of decoders cancel in the residual, and their product does not. A straight step climbs its wall, however well the
/// valley descends; for the coordinates that the step leads to, the best decoders lie in the valley again.
const CORRECT: f64 = 0.25;

/// Below this decrement the exact Hessian is factored, until a step speaks against it, and below this root mean square of the
/// decrements of single rows: of many rows each is near its own minimum long before all of them are together.
const NEAR: f64 = 1.0;
const NEAR_ROWS: f64 = 0.1;

/// Steps with the exact Hessian that disappoint one after the other before the stiffened curvature is taken again.
const REFUSALS: usize = 3;

/// Rows are relaxed only while the decrement is above this: below it they are at their minima to a fraction of a nat.
const RELAX_ABOVE: f64 = 0.1;

/// Rows are not relaxed again in a solve once that has brought less than this part of what the gradient promises.
const RELAX_PAYS: f64 = 0.5;

/// Minimises L over the inner variables from a state.
pub fn solve(
    problem: &Problem,
    state: State,
    rho: &SaeManifoldRho,
    options: &InnerOptions,
    interrupted: &dyn Fn() -> bool,
) -> Inner {
    let solver = Solver { problem, rho, elimination: options.elimination, interrupted };
    let state = state.with_lambda(rho.lambda_sparse());
    let mut inner = Inner {
        factored: solver.factored_at(&state, false),
        state,
        status: Status::IterationLimit,
        iterations: 0,
        cg_iterations: 0,
        decrement: f64::INFINITY,
    };
    let mut radius: Option<f64> = None;
    let can_be_exact =
        options.exact && options.elimination != Elimination::Dual && steps_exactly(problem, &inner.state);
    let mut exact = false;
    let near_from = NEAR.max(NEAR_ROWS * (problem.n_rows() as f64).sqrt());
    // whether the exact Hessian is worth factoring, and whether the last step spoke against it
    let (mut misled, mut refused) = (false, 0);
    // what a chi-squared of all entries is typically of; unlike |L| it does not move with the data's unit
    let scale = ((problem.n_rows() * problem.n_outputs()) as f64).sqrt();
    // rows far from their own minima show in the first decrement; after that, a disappointing step shows them
    let mut relax = true;
    let mut relaxing = true;
    loop {
        let Some(factored) = inner.factored.take() else {
            inner.status = Status::Infeasible;
            return inner;
        };
        let loss = factored.system.lin.loss.total();
        if std::mem::replace(&mut exact, factored.is_exact()) != factored.is_exact() {
            // a length in another metric says nothing in this one
            radius = None;
        }
        let gradient = factored.system.gradient();
        let downhill = factored.solve(problem, &inner.state, rho, &gradient);
        inner.decrement = gradient.dot(&downhill).max(0.0).sqrt();
        let mut near = can_be_exact && (factored.is_exact() || inner.decrement <= near_from) && !misled;
        if near && !factored.is_exact() {
            let Factored { system, .. } = factored;
            inner.factored = solver.factor(&inner.state, system, true);
            misled = !inner.factored.as_ref().is_some_and(Factored::is_exact);
            continue;
        }
        let converged = inner.decrement <= options.tolerance * scale;
        if converged && inner.iterations < options.max_iterations && !interrupted() {
            // what is held at a wall is no variable: it is looked at once the others are at their minimum
            let leaves = factored.system.lin.leaves;
            if let Some((state, factored)) = solver.let_go(&inner.state, loss, leaves, near, options.tolerance * scale)
            {
                inner.iterations += 1;
                inner.state = state;
                inner.factored = Some(factored);
                continue;
            }
        }
        let ending = if converged {
            Some(Status::Converged)
        } else if inner.iterations == options.max_iterations {
            Some(Status::IterationLimit)
        } else if interrupted() {
            Some(Status::Interrupted)
        } else {
            None
        };
        if let Some(status) = ending {
            inner.status = status;
            inner.factored = Some(factored);
            return inner;
        }
        inner.iterations += 1;

        // rows near their minima, by the measure for the exact Hessian, are left to steps until one disappoints
        let far = if inner.iterations == 1 { near_from } else { RELAX_ABOVE };
        if std::mem::take(&mut relax) && relaxing && inner.decrement > far {
            drop(factored);
            let promised = 0.5 * inner.decrement * inner.decrement;
            if let Some((state, factored)) = solver.relaxed(&inner.state, loss, near) {
                // where rows are at their minima already, relaxing them again is a slow descent in place of a fast one
                relaxing = loss - factored.system.lin.loss.total() > RELAX_PAYS * promised;
                inner.state = state;
                inner.factored = Some(factored);
            } else {
                relaxing = false;
                inner.factored = solver.factored_at(&inner.state, near);
            }
            continue;
        }

        // below this a difference of two values of L is rounding: the gradient decides, and no region is needed
        let rounding = 64.0 * f64::EPSILON * (1.0 + loss.abs());
        let tiny = 0.5 * inner.decrement * inner.decrement <= rounding;
        let bound = if tiny { f64::INFINITY } else { radius.unwrap_or(FIRST_RADIUS * inner.decrement) };
        let mut descent = gradient;
        descent.scale(-1.0);
        let step = conjugate_gradients(
            |x| factored.system.apply_exact(problem, &inner.state, rho, x),
            |x| factored.solve(problem, &inner.state, rho, x),
            &descent,
            // no further than the next step needs, and than the solve is to go
            Enough::part((inner.decrement / scale).clamp(1e-12, 0.1)).or(0.1 * options.tolerance * scale),
            MAX_CG,
            bound,
            interrupted,
        );
        inner.cg_iterations += step.iterations;
        if step.ending == Ending::Interrupted {
            inner.status = Status::Interrupted;
            inner.factored = Some(factored);
            return inner;
        }
        let predicted = descent.dot(&step.x) - 0.5 * step.x.dot(&step.ax);
        let factored_exactly = factored.is_exact();
        // one linearisation at a time: a rejected step, which is rare, makes this one again
        drop(factored);
        let trial = inner.state.stepped(problem, &step.x.local, flat(&step.x), 1.0);
        let mut trial = solver.system(&trial).map(|system| (trial, system));
        if tiny || predicted <= rounding {
            match trial.and_then(|(state, system)| solver.refined(state, system, inner.decrement, near)) {
                Some((state, factored)) => {
                    inner.state = state;
                    inner.factored = Some(factored);
                    continue;
                }
                None => {
                    inner.status = Status::RoundingLimit;
                    inner.factored = solver.factored_at(&inner.state, near);
                    return inner;
                }
            }
        }
        let brought = |trial: &Option<(State, System)>| {
            trial.as_ref().map_or(f64::NEG_INFINITY, |(_, system)| loss - system.lin.loss.total())
        };
        let mut actual = brought(&trial);
        if actual < CORRECT * predicted {
            let least_gain = (ACCEPT * predicted - actual).max(POLISH * actual);
            trial = trial.and_then(|(state, system)| solver.polished(state, system, least_gain));
            actual = brought(&trial);
        }
        let ratio = actual / predicted;
        if ratio > 0.75 && step.length > 0.99 * bound {
            // where L is what its expansion says, a region that started too small is left soon
            radius = Some(if (ratio - 1.0).abs() < 0.01 { 10.0 } else { 3.0 } * bound);
        } else if ratio < 0.25 {
            radius = Some(0.25 * step.length);
        }
        let inside = matches!(step.ending, Ending::Converged | Ending::IterationLimit);
        let sound = inside && ratio > 0.75;
        refused = if factored_exactly && ratio < 0.25 { refused + 1 } else { 0 };
        misled = !sound && (misled || refused == REFUSALS || step.ending == Ending::NegativeCurvature);
        near &= !misled;
        relax = ratio < 0.25 || step.ending == Ending::NegativeCurvature;
        let accepted =
            trial.filter(|_| ratio > ACCEPT).and_then(|(state, system)| solver.accept(state, system, actual, near));
        match accepted {
            Some((state, factored)) => {
                inner.state = state;
                inner.factored = Some(factored);
            }
            None => {
                inner.factored = solver.factored_at(&inner.state, near);
                // a radius at rounding of the state: no step of any length descends
                if radius.is_none_or(|r| r <= f64::EPSILON * inner.decrement.min(1.0)) {
                    inner.status = Status::RoundingLimit;
                    return inner;
                }
            }
        }
    }
}

fn flat(step: &Step) -> &[f64] {
    step.border.as_slice().expect("standard layout")
}

/// What stays the same during a solve.
struct Solver<'a> {
    problem: &'a Problem,
    rho: &'a SaeManifoldRho,
    elimination: Elimination,
    interrupted: &'a dyn Fn() -> bool,
}

impl Solver<'_> {
    fn system(&self, state: &State) -> Option<System> {
        System::new(self.problem, state, self.rho, self.elimination.frame(self.problem, state))
    }

    /// What steps from a state are made with; the exact Hessian only near an optimum.
    fn factor(&self, state: &State, system: System, near: bool) -> Option<Factored> {
        Factored::to_step_with(self.problem, state, self.rho, self.elimination, near, system)
    }

    /// A lower L from rows whose held logits would rather rise, or where a held coordinate would rather leave its end; `None`
    /// where there are none, or where that brings no more than what a decrement at its bound leaves.
    fn let_go(&self, state: &State, loss: f64, leaves: bool, near: bool, bound: f64) -> Option<(State, Factored)> {
        let &Self { problem, .. } = self;
        let held =
            |i: usize| state.support(i).iter().any(|&k| problem.gate().held(k as usize, state.logit(i, k as usize)));
        if !leaves && !(0..problem.n_rows()).any(held) {
            return None;
        }
        let rounding = 64.0 * f64::EPSILON * (1.0 + loss.abs());
        // rows are polished at their own pace and decoders solved again: a slow descent, which is not there to be gone to its end
        self.relaxed(state, loss - rounding.max(0.5 * bound * bound), near)
    }

    /// Every row at its own minimum for the decoders as they are, then the decoders solved again. `None` when that does not
    /// lower L.
    fn relaxed(&self, state: &State, loss: f64, near: bool) -> Option<(State, Factored)> {
        let &Self { problem, rho, .. } = self;
        let gate = problem.shared_gate().clone();
        let scores = Columns::new(problem, state, rho).scores();
        let with =
            |decoders| RowSolver::new(problem.atoms().to_vec(), gate.clone(), rho.clone(), scores.clone(), decoders);
        let polish = |solver: &RowSolver, z: ArrayView1<'_, f64>, i: usize| {
            let row = solver.polish(&solver.target(z, problem.weight(i)), state.row(problem, i), false);
            solver.part(&row, state.atoms_of(i))
        };
        let polished = |rows: Range<usize>| -> Option<Vec<(Vec<f64>, Vec<f64>)>> {
            let rows = rows.into_par_iter();
            match problem.metric() {
                None => {
                    let solver = with(state.decoders.clone()).ok()?;
                    Some(rows.map(|i| polish(&solver, problem.rows(i..i + 1).row(0), i)).collect())
                }
                // a row in a metric is a plain row of whitened decoders
                Some(metric) => rows
                    .map(|i| {
                        let solver = with(metric.whiten(i, state.decoders.view())).ok()?;
                        let z = metric.whiten(i, problem.rows(i..i + 1).view());
                        Some(polish(&solver, z.row(0), i))
                    })
                    .collect(),
            }
        };
        let rows: Vec<Vec<_>> = problem.shared_out(polished).into_iter().collect::<Option<_>>()?;
        let mut next = state.clone();
        rows.iter().flatten().enumerate().for_each(|(i, (logits, points))| next.set_row(i, (logits, points)));
        let system = self.system(&next)?;
        let (next, system) = self.polished(next, system, 0.0)?;
        (system.lin.loss.total() < loss).then_some(())?;
        let factored = self.factor(&next, system, near)?;
        Some((next, factored))
    }

    fn factored_at(&self, state: &State, near: bool) -> Option<Factored> {
        let system = self.system(state)?;
        self.factor(state, system, near)
    }

    /// A step too short for L to tell: taken when it at least halves the decrement.
    fn refined(&self, trial: State, system: System, decrement: f64, near: bool) -> Option<(State, Factored)> {
        let &Self { problem, rho, .. } = self;
        let factored = self.factor(&trial, system, near)?;
        let gradient = factored.system.gradient();
        let next = gradient.dot(&factored.solve(problem, &trial, rho, &gradient)).max(0.0).sqrt();
        (next < 0.5 * decrement).then_some((trial, factored))
    }

    /// Factors an accepted step's system, after solving its decoders again where that pays.
    fn accept(&self, trial: State, system: System, actual: f64, near: bool) -> Option<(State, Factored)> {
        let (trial, system) = self.polished(trial, system, POLISH * actual)?;
        let factored = self.factor(&trial, system, near)?;
        Some((trial, factored))
    }

    /// For fixed logits and coordinates L is quadratic in the decoders, with Hessian `G (x) I`: one solve minimises it, and
    /// its gain `1/2 <g, G^-1 g>` is known before it is taken. Taken when it is at least `least_gain`.
    fn polished(&self, mut state: State, system: System, least_gain: f64) -> Option<(State, System)> {
        let &Self { problem, rho, interrupted, .. } = self;
        // with a metric, or in frames of their own, decoders are not one linear system for all channels
        if problem.metric().is_some() || (!state.frames.is_empty() && problem.n_atoms() > 1) {
            return Some((state, system));
        }
        let step = system.decoder_step(problem, &state, rho, interrupted)?;
        let gain = 0.5 * step.iter().zip(&system.lin.border_gradient).map(|(s, g)| s * g).sum::<f64>();
        if gain.is_nan() || gain < least_gain {
            return Some((state, system));
        }
        drop(system);
        state.decoders -= &step;
        let system = self.system(&state)?;
        Some((state, system))
    }
}
