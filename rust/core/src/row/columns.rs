//! Terms of a prior that couples the rows of a column, at one state.

use crate::gates::ColumnTerm;
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::state::State;

/// One term for each atom; none where the gate has no such prior.
#[derive(Clone, Debug, Default)]
pub struct Columns {
    pub terms: Vec<ColumnTerm>,
}

impl Columns {
    /// Masses of all columns first, then each column's term.
    pub fn new(problem: &Problem, state: &State, rho: &SaeManifoldRho) -> Self {
        let Some(prior) = problem.gate().columns() else { return Self::default() };
        let (n, n_atoms) = (problem.n_rows(), problem.n_atoms());
        let mut masses = vec![0.0; n_atoms];
        for i in 0..n {
            for &k in state.support(i) {
                masses[k as usize] += prior.indicator(state.logit(i, k as usize))[0];
            }
        }
        let term = |(k, mass): (usize, &f64)| prior.term(rho.lambda_sparse(), k, n_atoms, *mass, n as f64);
        Self { terms: masses.iter().enumerate().map(term).collect() }
    }

    /// What a unit of each column's mass costs.
    pub fn scores(&self) -> Vec<f64> {
        self.terms.iter().map(|t| t.score).collect()
    }

    pub fn energy(&self) -> f64 {
        self.terms.iter().map(|t| t.energy).sum()
    }

    /// Calls `visit(position, atom, indicator)` for every logit of a row that belongs to a column's mass; positions count
    /// among the row's free logits.
    pub fn of_row(&self, problem: &Problem, state: &State, row: usize, mut visit: impl FnMut(usize, usize, [f64; 4])) {
        let Some(prior) = problem.gate().columns() else { return };
        for &k in state.support(row) {
            let k = k as usize;
            visit(k, k, prior.indicator(state.logit(row, k)));
        }
    }

    /// `out += sum_k slope_k z'_k (z'_k . x)`: the part of the exact Hessian that couples different rows.
    pub fn apply_coupling(&self, problem: &Problem, state: &State, x: &[f64], out: &mut [f64]) {
        if self.terms.is_empty() {
            return;
        }
        let layout = state.layout_of_rows();
        let mut seen = vec![0.0; self.terms.len()];
        for row in 0..problem.n_rows() {
            let start = layout.block(row).start;
            self.of_row(problem, state, row, |at, k, z| seen[k] += z[1] * x[start + at]);
        }
        for row in 0..problem.n_rows() {
            let start = layout.block(row).start;
            self.of_row(problem, state, row, |at, k, z| out[start + at] += self.terms[k].slope * seen[k] * z[1]);
        }
    }
}
