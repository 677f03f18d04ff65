//! What an inner solve does at a state beside stepping: factoring, and minimising over rows or decoders alone.

use super::POLISH;
use crate::arrow::{Elimination, Factored, System, Unlinked};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::row::{Columns, RowSolver, CONVERGED};
use crate::state::State;
use ndarray::ArrayView1;
use rayon::prelude::*;
use std::ops::Range;

/// What a step may leave of the decrement where differences of L are rounding. The Newton step of a saturating logit has the
/// length of one temperature, and its share falls by e^-1/2.
const REFINED: f64 = 0.75;
/// Rows are relaxed only while the decrement is above this: below it they are at their minima to a fraction of a nat.
pub(super) const RELAX_ABOVE: f64 = 0.1;

/// What stays the same during a solve.
pub(super) struct Moves<'a> {
    pub problem: &'a Problem,
    pub rho: &'a SaeManifoldRho,
    pub elimination: Elimination,
    pub interrupted: &'a dyn Fn() -> bool,
}

impl Moves<'_> {
    pub fn system(&self, state: &State) -> Option<System> {
        System::new(self.problem, state, self.rho, self.elimination.frame(self.problem, state))
    }

    /// What steps from a state are made with; the exact Hessian only near an optimum.
    pub fn factor(&self, state: &State, system: System, near: bool) -> Option<Factored> {
        Factored::to_step_with(self.problem, state, self.rho, self.elimination, near, system)
    }

    /// A lower L from rows whose held logits would rather rise, or where a held coordinate would rather leave its end; `None`
    /// where there are none, or where that brings no more than what a decrement at its bound leaves.
    pub fn let_go(&self, state: &State, loss: f64, leaves: bool, near: bool, bound: f64) -> Option<(State, Factored)> {
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

    /// A lower L at [`Self::to_row_minima`]; `None` where it is not below this one.
    pub fn relaxed(&self, state: &State, loss: f64, near: bool) -> Option<(State, Factored)> {
        let (next, system) = self.to_row_minima(state, 0.0)?;
        (system.lin.loss.total() < loss).then_some(())?;
        let factored = self.factor(&next, system, near)?;
        Some((next, factored))
    }

    /// Every row at its own minimum for the decoders as they are, to so many nats for all rows together, then the decoders
    /// solved again.
    pub fn to_row_minima(&self, state: &State, left: f64) -> Option<(State, System)> {
        let &Self { problem, rho, .. } = self;
        let enough = (2.0 * left / problem.n_rows() as f64).sqrt().max(CONVERGED);
        let gate = problem.shared_gate().clone();
        let scores = Columns::new(problem, state, rho).scores();
        let with =
            |decoders| RowSolver::new(problem.atoms().to_vec(), gate.clone(), rho.clone(), scores.clone(), decoders);
        let polish = |solver: &RowSolver, z: ArrayView1<'_, f64>, i: usize| {
            let row = solver.polish_to(enough, &solver.target(z, problem.weight(i)), state.row(problem, i), false);
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
        // gone before rows are linearised
        rows.into_iter().flatten().enumerate().for_each(|(i, (logits, points))| next.set_row(i, (&logits, &points)));
        let system = self.system(&next)?;
        self.polished(next, system, 0.0)
    }

    pub fn factored_at(&self, state: &State, near: bool) -> Option<Factored> {
        let system = self.system(state)?;
        self.factor(state, system, near)
    }

    /// A factor at the state that it was made at, linearised again; made anew where the other curvature is wanted.
    pub fn relinked(&self, state: &State, unlinked: Unlinked, near: bool) -> Option<Factored> {
        let system = self.system(state)?;
        match unlinked.is_exact() == near {
            true => Some(unlinked.with_system(system)),
            false => {
                drop(unlinked);
                self.factor(state, system, near)
            }
        }
    }

    /// A step too short for L to tell: taken when the decrement falls as it does where only a gate saturates.
    pub fn refined(&self, trial: State, system: System, decrement: f64, near: bool) -> Option<(State, Factored)> {
        let &Self { problem, rho, .. } = self;
        let factored = self.factor(&trial, system, near)?;
        let gradient = factored.system.gradient();
        let next = gradient.dot(&factored.solve(problem, &trial, rho, &gradient)).max(0.0).sqrt();
        (next < REFINED * decrement).then_some((trial, factored))
    }

    /// Factors an accepted step's system, after solving its decoders again where that pays.
    pub fn accept(&self, trial: State, system: System, actual: f64, near: bool) -> Option<(State, Factored)> {
        let (trial, system) = self.polished(trial, system, POLISH * actual)?;
        let factored = self.factor(&trial, system, near)?;
        Some((trial, factored))
    }

    /// For fixed logits and coordinates L is quadratic in the decoders: one linear system has its minimum, and half the
    /// product of the step and the gradient is its gain, known before it is taken. Taken when it is at least `least_gain`.
    pub fn polished(&self, mut state: State, system: System, least_gain: f64) -> Option<(State, System)> {
        let &Self { problem, rho, interrupted, .. } = self;
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
