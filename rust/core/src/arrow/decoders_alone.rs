//! Decoders with the rows held: `G^-1` times the border's gradient.

use super::conjugate_gradients::{conjugate_gradients, Enough};
use super::kronecker::GroupCurvature;
use super::{Gauge, Step, System};
use crate::linalg::Cholesky;
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::state::State;
use ndarray::Array2;

/// Relative residual where G is held in blocks: what it leaves of the gain is its square.
const SOLVED: f64 = 1e-6;
/// Bound on the iterations then; any of them descends.
const MAX_ITERATIONS: usize = 200;

impl System {
    /// The step over the decoders (M x p) that L falls most by while logits and coordinates stay; its negative is taken. `None`
    /// where G is not positive definite in floating point.
    pub fn decoder_step(
        &self,
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        interrupted: &dyn Fn() -> bool,
    ) -> Option<Array2<f64>> {
        let gram = &self.lin.gram;
        let mut step = self.lin.border_gradient.clone();
        if gram.blocks().is_none() {
            Cholesky::new(gram.whole().view())?.solve(&mut step.view_mut());
            return Some(step);
        }
        let frame = &self.lin.frame;
        let factors: Vec<GroupCurvature> = (0..frame.groups().len())
            .map(|group| GroupCurvature::new(problem, frame, group, &Gauge::default(), gram))
            .collect::<Option<_>>()?;
        let over_border = |border| Step { local: Vec::new(), border };
        let precondition = |x: &Step| {
            let mut out = x.border.clone();
            for (group, factor) in frame.groups().iter().zip(&factors) {
                let mut own = group.select(&x.border);
                factor.solve(&mut own);
                group.put(&own, &mut out);
            }
            over_border(out)
        };
        let apply = |x: &Step| over_border(self.gram_times(problem, state, rho, &x.border));
        let rhs = over_border(step);
        let found = conjugate_gradients(
            apply,
            precondition,
            &rhs,
            Enough::part(SOLVED),
            MAX_ITERATIONS,
            f64::INFINITY,
            interrupted,
        );
        Some(found.x.border)
    }
}
