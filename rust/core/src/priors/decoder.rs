//! The Gaussian prior of decoders: roughness relative to the noise, and a weak unit-information prior on what
//! roughness does not see, so that the prior is proper.

use crate::linalg::Cholesky;
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use ndarray::{s, Array2};

/// `P_k = lambda_k S_k / phi + N_k / s^2`, the prior precision of every decoder column.
#[derive(Clone, Debug)]
pub struct DecoderPrior {
    /// P_k.
    pub precision: Vec<Array2<f64>>,
    /// R_k = lambda_k S_k / phi: the derivative of P_k in `ln lambda_k`, and minus that in `ln phi`.
    pub roughness: Vec<Array2<f64>>,
    /// ln |P_k|.
    pub ln_det: Vec<f64>,
    /// tr(P_k^-1 R_k), the derivative of `ln |P_k|` in `ln lambda_k`.
    pub ln_det_slope: Vec<f64>,
}

impl DecoderPrior {
    /// `None` when some P_k is not positive definite in floating point: an infeasible strength.
    pub fn new(problem: &Problem, rho: &SaeManifoldRho) -> Option<Self> {
        let phi = rho.dispersion();
        let mut out =
            Self { precision: Vec::new(), roughness: Vec::new(), ln_det: Vec::new(), ln_det_slope: Vec::new() };
        for (k, atom) in problem.atoms().iter().enumerate() {
            let roughness = atom.roughness() * (rho.lambda_smooth(k) / phi);
            let precision = &roughness + &(atom.null_projector() / problem.mean_column_variance());
            let factor = Cholesky::new(precision.view())?;
            let mut solved = roughness.clone();
            factor.solve(&mut solved.view_mut());
            out.ln_det.push(factor.log_det());
            out.ln_det_slope.push(solved.diag().sum());
            out.precision.push(precision);
            out.roughness.push(roughness);
        }
        Some(out)
    }

    /// Applies one block-diagonal family of M_k x M_k matrices to stacked decoders.
    fn apply_blocks(problem: &Problem, blocks: &[Array2<f64>], decoders: &Array2<f64>) -> Array2<f64> {
        let mut out = Array2::zeros(decoders.dim());
        for (k, block) in blocks.iter().enumerate() {
            let rows = problem.rows_of(k);
            out.slice_mut(s![rows.clone(), ..]).assign(&block.dot(&decoders.slice(s![rows, ..])));
        }
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

    /// Adds P to a stacked M x M matrix.
    pub fn add_to(&self, problem: &Problem, gram: &mut Array2<f64>) {
        for (k, block) in self.precision.iter().enumerate() {
            let rows = problem.rows_of(k);
            let mut part = gram.slice_mut(s![rows.clone(), rows]);
            part += block;
        }
    }

    /// Energy `1/2 tr(B'PB) - p/2 ln|P| + (Mp/2) ln 2 pi`, given PB.
    pub fn energy(&self, decoders: &Array2<f64>, applied: &Array2<f64>) -> f64 {
        let (m, p) = decoders.dim();
        let quadratic: f64 = decoders.iter().zip(applied).map(|(b, pb)| b * pb).sum();
        let ln_det: f64 = self.ln_det.iter().sum();
        0.5 * quadratic - 0.5 * p as f64 * ln_det + 0.5 * (m * p) as f64 * (2.0 * std::f64::consts::PI).ln()
    }
}
