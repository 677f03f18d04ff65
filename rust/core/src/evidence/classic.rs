//! What the classic criterion has in place of the terms that make V a marginal likelihood.
//!
//! `V = l_pen + 1/2 ln|H| - 1/2 p sum_k rank(S_k) ln lambda_k` at a fixed dispersion: no orbit, no compact terms, no constants.
//! Of H, near-null directions of the rows are left out (`arrow/spectral.rs`), and directions of the decoders that nothing sees
//! (`row/linearise.rs`). What is shared with the marginal likelihood is computed by the same code.

use super::value::EvidenceParts;
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::state::State;

/// `-1/2 sum_k p_k rank(S_k) ln lambda_k`, p_k being the channels of decoder k.
fn occam(problem: &Problem, state: &State, rho: &SaeManifoldRho) -> f64 {
    let of_atom = |k: usize| (state.channels(problem, k) * problem.rank(k)) as f64 * rho.lambda_smooth(k).ln();
    -0.5 * (0..problem.n_atoms()).map(of_atom).sum::<f64>()
}

/// The terms of V beyond those of L, from ln|H| and the energy of unsupported coordinates.
pub(super) fn parts(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    ln_det: f64,
    ard_unsupported: f64,
) -> EvidenceParts {
    EvidenceParts {
        log_det: 0.5 * ln_det,
        unsupported: -ard_unsupported,
        occam: occam(problem, state, rho),
        ..EvidenceParts::default()
    }
}
