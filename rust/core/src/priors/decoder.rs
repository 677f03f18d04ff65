//! The Gaussian prior of decoders: roughness relative to the noise, and a weak unit-information prior on what
//! roughness does not see, so that the prior is proper.

use crate::linalg::Cholesky;
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::state::State;
use ndarray::{s, Array2};
use rayon::prelude::*;

/// Entries that a thread takes at least.
const TOGETHER: usize = 1 << 14;

/// `P_k = lambda_k S_k / phi + N_k / s^2`, the prior precision of every decoder column; in the classic mode without its second
/// part.
#[derive(Clone, Debug)]
pub struct DecoderPrior {
    /// P_k.
    pub precision: Vec<Array2<f64>>,
    /// R_k = lambda_k S_k / phi: the derivative of P_k in `ln lambda_k`, and minus that in `ln phi`.
    pub roughness: Vec<Array2<f64>>,
    /// tr(P_k^-1 R_k), the derivative of `ln |P_k|` in `ln lambda_k`: the rank of S_k.
    pub ln_det_slope: Vec<f64>,
    /// `-p/2 ln|P| + (Mp/2) ln 2 pi`, over the channels p of each decoder; none in the classic mode, which counts the determinant's strengths apart.
    normaliser: f64,
}

impl DecoderPrior {
    /// `None` when some P_k is not positive definite in floating point: an infeasible strength.
    pub fn new(problem: &Problem, state: &State, rho: &SaeManifoldRho) -> Option<Self> {
        let phi = rho.dispersion();
        let mut out = Self { precision: Vec::new(), roughness: Vec::new(), ln_det_slope: Vec::new(), normaliser: 0.0 };
        for k in 0..problem.n_atoms() {
            let roughness = state.roughness(problem, k) * (rho.lambda_smooth(k) / phi);
            if !problem.is_proper() {
                if roughness.iter().any(|v| !v.is_finite()) {
                    return None;
                }
                out.ln_det_slope.push(problem.rank(k) as f64);
                out.precision.push(roughness.clone());
                out.roughness.push(roughness);
                continue;
            }
            let precision = &roughness + &(state.null_projector(problem, k) / problem.mean_column_variance());
            let factor = Cholesky::new(precision.view())?;
            let mut solved = roughness.clone();
            factor.solve(&mut solved.view_mut());
            let p = state.channels(problem, k) as f64;
            out.normaliser += 0.5 * p * (roughness.nrows() as f64 * std::f64::consts::TAU.ln() - factor.log_det());
            out.ln_det_slope.push(solved.diag().sum());
            out.precision.push(precision);
            out.roughness.push(roughness);
        }
        Some(out)
    }

    /// Applies one block-diagonal family of M_k x M_k matrices to stacked decoders.
    fn apply_blocks(problem: &Problem, blocks: &[Array2<f64>], decoders: &Array2<f64>) -> Array2<f64> {
        let mut out = Array2::zeros(decoders.dim());
        let atoms_together = 1 + TOGETHER / (1 + decoders.len() / problem.n_atoms().max(1));
        let own = problem.by_atoms(&mut out).into_par_iter().zip(blocks).enumerate().with_min_len(atoms_together);
        own.for_each(|(k, (mut out, block))| out.assign(&block.dot(&decoders.slice(s![problem.rows_of(k), ..]))));
        out
    }

    /// P B.
    pub fn apply(&self, problem: &Problem, decoders: &Array2<f64>) -> Array2<f64> {
        Self::apply_blocks(problem, &self.precision, decoders)
    }

    /// R B, the derivative of P B in every `ln lambda` (block k belongs to `ln lambda_k`).
    pub fn apply_roughness(&self, problem: &Problem, decoders: &Array2<f64>) -> Array2<f64> {
        Self::apply_blocks(problem, &self.roughness, decoders)
    }

    /// Energy `1/2 tr(B'PB)` with its normaliser, given PB.
    pub fn energy(&self, decoders: &Array2<f64>, applied: &Array2<f64>) -> f64 {
        let quadratic: f64 = decoders.iter().zip(applied).map(|(b, pb)| b * pb).sum();
        0.5 * quadratic + self.normaliser
    }
}
