//! Logits of gates with a threshold: each integrates over the side on which its gate is what it is.
//!
//! A closed gate is zero wherever its logit is, so the logit feels its prior alone, and only below the threshold. An open gate's
//! logit is only above. Gaussians about them reach over the threshold: at weak sparsity half of a closed one lies there, and closing
//! a gate would be free of charge. So a closed logit, of which nothing else is known, is no variable of L and H, and has its mass in
//! V; in place of a Gaussian about an open one V has what is above:
//!
//! ```text
//! closed   -ln J                              J = integral of N(l; 0, 1/eps) exp(-lambda E(l)) below the threshold
//! open     C(0, h) + 1/2 ln 2 pi - 1/2 ln h   beside 1/2 ln|H|, h the logit's entry of H
//! held     C(g, k)                            slope and curvature at the wall, as if the logit were free
//! ```
//!
//! with C(g, k) the charge of an interval (`crate::interval`) from the wall on. An open logit that comes to the wall has the
//! same term as one that is held there with g = 0, so that V does not jump where logits are held and let go.

use crate::arrow::Factored;
use crate::gates::{by_label, Wall};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::row::RowView;
use crate::state::State;
use std::f64::consts::TAU;

/// `ln J` of every atom and its derivative in `ln lambda`, with the number of rows that do not use it.
fn closed_masses(problem: &Problem, state: &State, rho: &SaeManifoldRho) -> Vec<((f64, f64), f64)> {
    if !problem.compact_rows() {
        return Vec::new();
    }
    let (gate, n) = (problem.gate(), problem.n_rows());
    let masses = by_label(gate, problem.n_free(), |k| gate.ln_closed(rho.lambda_sparse(), k));
    let closed = state.uses(problem).into_iter().map(|uses| (n - uses) as f64);
    masses.into_iter().zip(closed).filter_map(|(mass, rows)| mass.map(|mass| (mass, rows))).collect()
}

/// What V has of all closed logits. They are no variables: L and H have nothing of them.
fn closed_total(problem: &Problem, state: &State, rho: &SaeManifoldRho) -> f64 {
    -closed_masses(problem, state, rho).iter().map(|((mass, _), rows)| rows * mass).sum::<f64>()
}

/// Its derivative in `ln lambda`.
pub fn closed_slope(problem: &Problem, state: &State, rho: &SaeManifoldRho) -> f64 {
    -closed_masses(problem, state, rho).iter().map(|((_, slope), rows)| rows * slope).sum::<f64>()
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
        let charge = wall.free(state.logit(view.row, k as usize), h);
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

/// What closed logits have, and open ones on their side beyond Gaussians about them.
pub fn sides_total(problem: &Problem, state: &State, rho: &SaeManifoldRho, factored: &Factored) -> f64 {
    let lin = &factored.system.lin;
    let closed = closed_total(problem, state, rho);
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
