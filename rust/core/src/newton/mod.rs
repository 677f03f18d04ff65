//! The inner solve: inner variables at fixed strengths.
//!
//! Newton with the exact Hessian of L by conjugate gradients, preconditioned by the factor of the positive definite
//! `H + UU'`, and near an optimum by that of the exact Hessian itself, inside a trust region in that metric. The metric is
//! affine-invariant, so no learning rate is needed; negative curvature is followed to the boundary; near the solution steps
//! are full Newton steps. The gauge is fixed by `UU'`, so steps never drift along an orbit.
//!
//! One step length for all rows is the length that the most curved row allows. Where a step disappoints, rows are
//! therefore first minimised on their own with the decoders held, each at its own pace, and the decoders solved again; both
//! can only lower L. Where steps go on disappointing, it is what they lead to that is taken so far down before it is judged:
//! rows that are fitted closely leave L a bent valley, and this is how it is followed.

mod moves;

use crate::arrow::{conjugate_gradients, steps_exactly, Elimination, Ending, Enough, Factored, Step, System};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::state::State;
use moves::{Moves, RELAX_ABOVE};

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

/// Conjugate gradients of a Newton step are cut here; what is left is done by the next step.
const MAX_CG: usize = 60;
/// The cut is doubled up to here while steps that meet it are what L's expansion says: to begin anew loses what the iterations
/// have learnt about the matrix, and the next matrix is the same. All steps together take no more than without that.
const MOST_CG: usize = 960;
/// How far a step's descent may be from what was predicted, as a part of that, for the expansion to be trusted so.
const TRUSTED: f64 = 0.1;
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

/// A step that ends at the boundary and brings less than this part of what was predicted leaves no room for a longer one.
const SOUND: f64 = 0.75;

/// So many steps of a solve may disappoint before the rows that a disappointing step leads to are minimised too, as its
/// decoders are: along a valley that one row's gate and coordinate leave, amplitude against position, decoders alone cannot
/// follow. It costs about a step, and few solves come to it.
const FOLLOW_AFTER: usize = 4;

/// The part of what a step was to bring that its rows may be above their minima by when it is judged.
const UNFOLLOWED: f64 = 0.01;

/// Below this decrement the exact Hessian is factored, until a step speaks against it, and below this root mean square of the
/// decrements of single rows: of many rows each is near its own minimum long before all of them are together.
const NEAR: f64 = 1.0;
const NEAR_ROWS: f64 = 0.1;

/// Steps with the exact Hessian that disappoint one after the other before the stiffened curvature is taken again.
const REFUSALS: usize = 3;

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
    let moves = Moves { problem, rho, elimination: options.elimination, interrupted };
    let state = state.with_lambda(rho.lambda_sparse());
    let mut inner = Inner {
        factored: moves.factored_at(&state, false),
        state,
        status: Status::IterationLimit,
        iterations: 0,
        cg_iterations: 0,
        decrement: f64::INFINITY,
    };
    let mut radius: Option<f64> = None;
    let (mut most_cg, all_cg) = (MAX_CG, MAX_CG.saturating_mul(options.max_iterations));
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
    let mut disappointments = 0;
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
            inner.factored = moves.factor(&inner.state, system, true);
            misled = !inner.factored.as_ref().is_some_and(Factored::is_exact);
            continue;
        }
        let converged = inner.decrement <= options.tolerance * scale;
        if converged && inner.iterations < options.max_iterations && !interrupted() {
            // what is held at a wall is no variable: it is looked at once the others are at their minimum
            let leaves = factored.system.lin.leaves;
            if let Some((state, factored)) = moves.let_go(&inner.state, loss, leaves, near, options.tolerance * scale) {
                inner.iterations += 1;
                inner.state = state;
                inner.factored = Some(factored);
                continue;
            }
        }
        let ending = if converged {
            Some(Status::Converged)
        } else if inner.iterations == options.max_iterations || inner.cg_iterations >= all_cg {
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
            if let Some((state, factored)) = moves.relaxed(&inner.state, loss, near) {
                // where rows are at their minima already, relaxing them again is a slow descent in place of a fast one
                relaxing = loss - factored.system.lin.loss.total() > RELAX_PAYS * promised;
                inner.state = state;
                inner.factored = Some(factored);
            } else {
                relaxing = false;
                inner.factored = moves.factored_at(&inner.state, near);
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
            most_cg.min(all_cg - inner.cg_iterations),
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
        // one linearisation at a time: a rejected step makes this one again, and keeps its factor
        let unlinked = factored.without_system();
        let trial = inner.state.stepped(problem, &step.x.local, flat(&step.x), 1.0);
        let mut trial = moves.system(&trial).map(|system| (trial, system));
        if tiny || predicted <= rounding {
            drop(unlinked);
            match trial.and_then(|(state, system)| moves.refined(state, system, inner.decrement, near)) {
                Some((state, factored)) => {
                    inner.state = state;
                    inner.factored = Some(factored);
                    continue;
                }
                None => {
                    inner.status = Status::RoundingLimit;
                    inner.factored = moves.factored_at(&inner.state, near);
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
            trial = trial.and_then(|(state, system)| moves.polished(state, system, least_gain));
            actual = brought(&trial);
        }
        if actual < CORRECT * predicted || (actual < SOUND * predicted && step.length > 0.99 * bound) {
            disappointments += 1;
            if disappointments > FOLLOW_AFTER {
                // the classic mode leaves directions out of its steps, and only rows on their own go to the end along them
                let left = if problem.is_proper() { UNFOLLOWED * predicted } else { 0.0 };
                // one linearisation at a time here too
                let reached = trial.map(|(state, _)| state);
                let followed = reached.as_ref().and_then(|state| moves.to_row_minima(state, left));
                if brought(&followed) > actual {
                    actual = brought(&followed);
                    trial = followed;
                } else {
                    drop(followed);
                    trial = reached.and_then(|state| moves.system(&state).map(|system| (state, system)));
                }
            }
        }
        let ratio = actual / predicted;
        if ratio > SOUND && step.length > 0.99 * bound {
            // where L is what its expansion says, a region that started too small is left soon
            radius = Some(if (ratio - 1.0).abs() < 0.01 { 10.0 } else { 3.0 } * bound);
        } else if ratio < CORRECT {
            radius = Some(0.25 * step.length);
        }
        most_cg = next_cut(most_cg, ratio, step.ending);
        let inside = matches!(step.ending, Ending::Converged | Ending::IterationLimit);
        let sound = inside && ratio > SOUND;
        refused = if factored_exactly && ratio < CORRECT { refused + 1 } else { 0 };
        misled = !sound && (misled || refused == REFUSALS || step.ending == Ending::NegativeCurvature);
        near &= !misled;
        relax = ratio < CORRECT || step.ending == Ending::NegativeCurvature;
        let taken = trial.filter(|_| ratio > ACCEPT);
        // not two factors at a time either
        let unlinked = taken.is_none().then_some(unlinked);
        let accepted = taken.and_then(|(state, system)| moves.accept(state, system, actual, near));
        match accepted {
            Some((state, factored)) => {
                inner.state = state;
                inner.factored = Some(factored);
            }
            None => {
                // a state whose curvature has no factor is left as one where L is higher
                radius = Some(0.25 * step.length);
                inner.factored = match unlinked {
                    Some(unlinked) => moves.relinked(&inner.state, unlinked, near),
                    None => moves.factored_at(&inner.state, near),
                };
                // a radius at rounding of the state: no step of any length descends
                if radius.is_none_or(|r| r <= f64::EPSILON * inner.decrement.min(1.0)) {
                    inner.status = Status::RoundingLimit;
                    return inner;
                }
            }
        }
    }
}

/// Where conjugate gradients of the next step are cut.
fn next_cut(most_cg: usize, ratio: f64, ending: Ending) -> usize {
    match ((ratio - 1.0).abs() < TRUSTED, ending) {
        (true, Ending::IterationLimit) => (2 * most_cg).min(MOST_CG),
        (true, _) => most_cg,
        (false, _) => MAX_CG,
    }
}

fn flat(step: &Step) -> &[f64] {
    step.border.as_slice().expect("standard layout")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cut_grows_while_steps_that_meet_it_are_what_was_expected() {
        let cuts = [(1.0, Ending::IterationLimit), (0.95, Ending::IterationLimit), (1.02, Ending::Converged)];
        let grown = cuts.iter().fold(MAX_CG, |most, &(ratio, ending)| next_cut(most, ratio, ending));
        assert_eq!(grown, 4 * MAX_CG);
        assert_eq!(next_cut(MOST_CG, 1.0, Ending::IterationLimit), MOST_CG);
        for ratio in [0.5, 1.5, -1.0, f64::NEG_INFINITY, f64::NAN] {
            assert_eq!(next_cut(grown, ratio, Ending::IterationLimit), MAX_CG, "{ratio}");
        }
    }
}
