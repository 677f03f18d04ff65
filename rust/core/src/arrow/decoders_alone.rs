//! Decoders with the rows held: L is quadratic in them, and one linear system has its minimum.
//!
//! Its matrix is `G (x) I` where rows weigh all channels alike and every decoder has all of them. With a metric it is
//! `sum_i w_i/phi phi_i phi_i' (x) P_i + P (x) I`, and where decoders have frames of their own it is what these leave of it:
//! conjugate gradients then, or where G is held in blocks.

use super::channel_blocks::ChannelBlocks;
use super::conjugate_gradients::{conjugate_gradients, Enough};
use super::kronecker::GroupCurvature;
use super::{Gauge, Step, System};
use crate::linalg::Cholesky;
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::state::State;
use ndarray::Array2;

/// Relative residual of conjugate gradients: what it leaves of the gain is its square.
const SOLVED: f64 = 1e-2;
/// Bound on the iterations then; any of them descends.
const MAX_ITERATIONS: usize = 200;

impl System {
    /// The step over the decoders (M x p) that L falls most by while logits and coordinates stay; its negative is taken. `None`
    /// where its matrix is not positive definite in floating point.
    pub fn decoder_step(
        &self,
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        interrupted: &dyn Fn() -> bool,
    ) -> Option<Array2<f64>> {
        let gram = &self.lin.gram;
        // the frame of a single atom is left as it is by G^-1 (x) I
        let framed = !state.frames.is_empty() && problem.n_atoms() > 1;
        if framed || problem.metric().is_some() {
            let blocks = ChannelBlocks::new(problem, state, self, None)?;
            return Some(self.solved_for(problem, state, rho, |x| blocks.solve(x), interrupted));
        }
        if gram.blocks().is_none() {
            let mut step = self.lin.border_gradient.clone();
            Cholesky::new(gram.whole().view())?.solve(&mut step.view_mut());
            return Some(step);
        }
        let frame = &self.lin.frame;
        let factors: Vec<GroupCurvature> = (0..frame.groups().len())
            .map(|group| GroupCurvature::new(problem, frame, group, &Gauge::default(), gram))
            .collect::<Option<_>>()?;
        let precondition = |x: &Array2<f64>| {
            let mut out = x.clone();
            for (group, factor) in frame.groups().iter().zip(&factors) {
                let mut own = group.select(x);
                factor.solve(&mut own);
                group.put(&own, &mut out);
            }
            out
        };
        Some(self.solved_for(problem, state, rho, precondition, interrupted))
    }

    /// The system with the border's gradient on the right, by conjugate gradients.
    fn solved_for(
        &self,
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        precondition: impl Fn(&Array2<f64>) -> Array2<f64>,
        interrupted: &dyn Fn() -> bool,
    ) -> Array2<f64> {
        let over_border = |border| Step { local: Vec::new(), border };
        let found = conjugate_gradients(
            |x| over_border(self.decoders_times(problem, state, rho, &x.border)),
            |x| over_border(precondition(&x.border)),
            &over_border(self.lin.border_gradient.clone()),
            Enough::part(SOLVED),
            MAX_ITERATIONS,
            f64::INFINITY,
            interrupted,
        );
        found.x.border
    }

    /// The product with the curvature of the decoders that rows leave when they are held. What it has outside the frames no
    /// preconditioned residual has, so iterates stay within.
    fn decoders_times(&self, problem: &Problem, state: &State, rho: &SaeManifoldRho, x: &Array2<f64>) -> Array2<f64> {
        match problem.metric() {
            None => self.gram_times(problem, state, rho, x),
            Some(_) => self.times_by_rows(problem, state, rho, x),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrow::Frame;
    use crate::atoms::{Atom, Circle};
    use crate::gates::{SigmoidNodes, ThresholdGate};
    use ndarray::Array3;
    use std::sync::Arc;

    const N: usize = 40;
    const P: usize = 5;

    fn problem(metric: bool) -> Problem {
        let nodes = SigmoidNodes::new(&[-1.0, 1.0], &[0.5, 0.5], 0.0, 1.0).unwrap();
        let gate = Arc::new(ThresholdGate::new(0.0, 1.0, 0.04, &[], nodes).unwrap());
        let atoms = (0..3).map(|h| Arc::new(Circle::new(1 + h % 2).unwrap()) as Arc<dyn Atom>).collect();
        let data = Array2::from_shape_fn((N, P), |(i, c)| ((i * (c + 2)) as f64 + 0.1 * (i * i) as f64).sin());
        let weights = (0..N).map(|i| 0.5 + (i % 3) as f64).collect();
        let problem = Problem::new(data, Some(weights), atoms, gate, true).unwrap();
        if !metric {
            return problem;
        }
        // rows of rank three that differ, in a frame that is not the output's
        let factors = Array3::from_shape_fn((N, P, 3), |(i, c, m)| {
            f64::from(u8::from(c % 3 == m)) + 0.4 * ((i + 2 * c + 5 * m) as f64).sin()
        });
        problem.with_metric(&factors).unwrap()
    }

    fn state(problem: &Problem, ranks: &[Option<usize>]) -> State {
        let logits = Array2::from_shape_fn((N, 3), |(i, a)| 0.2 + ((i + 3 * a) as f64).cos().abs());
        let coords =
            (0..3).map(|a| Array2::from_shape_fn((N, 1), |(i, _)| (1.7 * (i * (a + 1)) as f64) % 6.0)).collect();
        let support = (0..N as u32).map(|i| (0..3).filter(|a| (i + a) % 3 > 0).collect()).collect();
        let decoders =
            Array2::from_shape_fn((problem.width(), P), |(m, c)| ((3 * m + 7 * c) as f64).sin() + 0.1 * m as f64);
        State::new(problem, logits, coords, decoders, Some(support)).unwrap().with_ranks(problem, ranks).unwrap()
    }

    /// Each step brings what it says, and where they end nothing is left of the gradient, whatever couples channels and atoms.
    #[test]
    fn decoder_steps_lead_to_where_no_gradient_is_left() {
        for metric in [false, true] {
            for ranks in [[None; 3], [Some(2), None, Some(1)], [Some(1); 3]] {
                let problem = problem(metric);
                let mut state = state(&problem, &ranks);
                let rho = SaeManifoldRho::with_per_atom_smooth(0.3, vec![0.7, 1.1, 0.4], -1.0);
                let norm = |a: &Array2<f64>| a.iter().map(|v| v * v).sum::<f64>().sqrt();
                let at =
                    |state: &State| System::new(&problem, state, &rho, Frame::full(&problem, &state.decoders)).unwrap();
                let mut system = at(&state);
                let first = norm(&system.lin.border_gradient);
                for nth in 0..8 {
                    let step = system.decoder_step(&problem, &state, &rho, &|| false).unwrap();
                    let gain = 0.5 * step.iter().zip(&system.lin.border_gradient).map(|(s, g)| s * g).sum::<f64>();
                    state.decoders -= &step;
                    let next = at(&state);
                    let actual = system.lin.loss.total() - next.lin.loss.total();
                    assert!(nth > 0 || (gain / actual - 1.0).abs() < 1e-8, "{metric} {ranks:?}: {gain} {actual}");
                    system = next;
                }
                let last = norm(&system.lin.border_gradient);
                assert!(last < 1e-10 * first, "{metric} {ranks:?}: {last} of {first}");
            }
        }
    }
}
