//! Logits of gates with a threshold: each integrates over the side on which its gate is what it is.
//!
//! A closed gate is zero wherever its logit is, so the logit feels its prior alone, and only below the threshold. An open gate's
//! logit is only above. Gaussians about them, which is what L and `1/2 ln|H|` have of them, reach over the threshold: at weak
//! sparsity half of a closed one lies there, and closing a gate would be free of charge. In their place V has
//!
//! ```text
//! closed   -ln J                              J = integral of N(l; 0, 1/eps) exp(-lambda E(l)) below the threshold
//! open     C(0, h) + 1/2 ln 2 pi - 1/2 ln h   beside 1/2 ln|H|, h the logit's entry of H
//! held     C(g, k)                            slope and curvature at the wall, as if the logit were free
//! ```
//!
//! with C(g, k) the charge of an interval (`crate::interval`) from the wall on. An open logit that comes to the wall has the
//! same term as one that is held there with g = 0, so that V does not jump where logits are held and let go.

use super::adjoint::Adjoint;
use crate::arrow::Factored;
use crate::gates::Wall;
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::row::RowView;
use crate::state::State;
use std::f64::consts::TAU;

/// `ln J` of every atom and its derivative in `ln lambda`; `None` where a gate has no closed logits, or is open on every row.
pub fn closed_masses(problem: &Problem, rho: &SaeManifoldRho) -> Vec<Option<(f64, f64)>> {
    let of_atom = |k: usize| problem.gate().ln_closed(rho.lambda_sparse(), k);
    (0..problem.n_free()).map(|k| of_atom(k).filter(|_| problem.is_proper())).collect()
}

/// Calls `visit(row, k, mass)` for every closed logit that has one.
fn for_each_closed(
    problem: &Problem,
    state: &State,
    masses: &[Option<(f64, f64)>],
    mut visit: impl FnMut(usize, usize, (f64, f64)),
) {
    if masses.iter().all(Option::is_none) {
        return;
    }
    for row in 0..problem.n_rows() {
        let mut open = state.support(row).iter().peekable();
        for (k, mass) in masses.iter().enumerate() {
            let is_open = open.next_if(|&&o| o as usize == k).is_some();
            if let (false, Some(mass)) = (is_open, mass) {
                visit(row, k, *mass);
            }
        }
    }
}

/// What the masses have beyond what L and H have of closed logits.
fn closed_total(problem: &Problem, state: &State, rho: &SaeManifoldRho, factored: &Factored) -> f64 {
    let (lambda, precision) = (rho.lambda_sparse(), problem.gate().logit_precision());
    let nulls = factored.factor.nulls();
    let mut total = 0.0;
    for_each_closed(problem, state, &closed_masses(problem, rho), |row, k, (mass, _)| {
        let logit = state.logits[[row, k]];
        let energy = lambda * problem.gate().logit_energy(k, logit)[0] + 0.5 * precision * logit * logit;
        let curvature = nulls.logits(problem, &factored.system, row)[k];
        total -= mass + energy + 0.5 * (curvature / precision).ln();
    });
    total
}

/// Adds the derivatives in the closed logits, which V does not depend on, and in `ln lambda`.
pub fn add_closed(problem: &Problem, state: &State, rho: &SaeManifoldRho, factored: &Factored, adjoint: &mut Adjoint) {
    let lambda = rho.lambda_sparse();
    let gradient = &factored.system.lin.local_gradient;
    let layout = state.layout_of_rows();
    for_each_closed(problem, state, &closed_masses(problem, rho), |row, k, (_, slope)| {
        let at = layout.block(row).start + k;
        adjoint.theta.local[at] = -gradient[at];
        adjoint.rho[0] -= slope + lambda * problem.gate().logit_energy(k, state.logits[[row, k]])[0];
    });
}

/// What one open logit has beside `1/2 ln|H|`.
pub struct OpenTerm {
    pub value: f64,
    /// Derivative in its entry of H; of a held logit, in its curvature.
    pub by_curvature: f64,
    /// In the logit itself.
    pub by_point: f64,
    /// A held logit: in its slope, and what is known of the wall.
    pub held: Option<(f64, Wall)>,
}

/// Calls `visit(place, term)` for every open logit of a row whose gate has a wall; logits of a support come in its order, ahead
/// of its coordinates.
pub fn for_each_open(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    view: &RowView<'_>,
    mut visit: impl FnMut(usize, &OpenTerm),
) {
    if !problem.is_proper() {
        return;
    }
    let (lambda, precision) = (rho.lambda_sparse(), problem.gate().logit_precision());
    for (u, &k) in view.support.iter().enumerate().take(view.free) {
        let Some(wall) = problem.gate().at_wall(k as usize) else { continue };
        if let Some(pull) = view.pull_at(u) {
            let charge = wall.held((pull.slope, pull.curvature), lambda, precision);
            let held = Some((charge.by_slope, wall));
            visit(u, &OpenTerm { value: charge.value, by_curvature: charge.by_curvature, by_point: 0.0, held });
            continue;
        }
        let h = view.curvature[u * (view.q + 1)];
        let charge = wall.free(state.logits[[view.row, k as usize]], h);
        visit(
            u,
            &OpenTerm {
                value: charge.value + 0.5 * (TAU / h).ln(),
                by_curvature: charge.by_curvature - 0.5 / h,
                by_point: charge.by_point,
                held: None,
            },
        );
    }
}

/// What closed and open logits have on their sides beyond Gaussians about them.
pub fn sides_total(problem: &Problem, state: &State, rho: &SaeManifoldRho, factored: &Factored) -> f64 {
    let lin = &factored.system.lin;
    let closed = closed_total(problem, state, rho, factored);
    if (0..problem.n_free()).all(|k| problem.gate().at_wall(k).is_none()) {
        return closed;
    }
    let parts = lin.plan.map(|chunks| {
        let mut total = 0.0;
        for c in chunks {
            let chunk = lin.chunk(problem, state, c);
            for index in 0..chunk.len() {
                for_each_open(problem, state, rho, &chunk.row(problem, state, index), |_, term| total += term.value);
            }
        }
        total
    });
    closed + parts.into_iter().sum::<f64>()
}
