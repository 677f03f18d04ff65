//! Half the traces of X against the derivatives of a prior that couples the rows of a column.
//!
//! On column k, H has the diagonal `max(score z'', 0)` and the rank-one part `slope z' z'^T`; score and slope move with every
//! logit of the column through its mass.

use super::adjoint::Inverse;
use crate::arrow::Factored;
use crate::problem::Problem;
use crate::state::State;

/// Adds them to the derivatives in the rows' variables and in `ln lambda`. `logits` holds the diagonal of X on the free logits
/// of every row.
pub(super) fn add_column_traces(
    problem: &Problem,
    state: &State,
    factored: &Factored,
    inverse: &Inverse<'_>,
    logits: &[f64],
    local: &mut [f64],
    by_strength: &mut f64,
) {
    let Some(coupling) = &factored.coupling else { return };
    // solves with these columns see all of H: an estimate's directions stand for no more than its trace
    let solved = &inverse.columns[..inverse.solved];
    let (layout, free) = (state.layout_of_rows(), problem.n_free());
    // where each local variable of a row lies among the free logits of all rows
    let mut place = vec![0; local.len()];
    for row in 0..problem.n_rows() {
        (0..free).for_each(|f| place[layout.block(row).start + f] = row * free + f);
    }
    for (c, column) in coupling.columns.iter().enumerate() {
        let term = factored.system.lin.columns.terms[coupling.atoms[c]];
        // X W_k on the column's logits
        let seen: Vec<f64> = solved.iter().map(|y| column.iter().map(|e| e.z[1] * y.local(e.at)).sum()).collect();
        let weights: Vec<f64> =
            (0..seen.len()).map(|g| seen.iter().enumerate().map(|(h, s)| inverse.theta[[g, h]] * s).sum()).collect();
        let through = |at: usize| {
            let base = coupling.solved[c].local[at];
            base + solved.iter().zip(&weights).map(|(y, w)| w * y.local(at)).sum::<f64>()
        };
        let reach: Vec<f64> = column.iter().map(|e| through(e.at)).collect();
        let quadratic: f64 = column.iter().zip(&reach).map(|(e, v)| e.z[1] * v).sum();
        let mut diagonal = 0.0;
        for e in column.iter().filter(|e| term.score * e.z[2] > 0.0) {
            let half = 0.5 * logits[place[e.at]];
            diagonal += half * e.z[2];
            local[e.at] += half * term.score * e.z[3];
        }
        for (e, v) in column.iter().zip(&reach) {
            let by_mass = term.slope * diagonal + 0.5 * term.bend * quadratic;
            local[e.at] += by_mass * e.z[1] + term.slope * v * e.z[2];
        }
        *by_strength += term.score_by_strength * diagonal + 0.5 * term.slope_by_strength * quadratic;
    }
}
