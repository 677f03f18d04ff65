//! Columns that couple all rows: `H = H_0 + W D W'`, one column of W for each atom with a prior on its mass.
//!
//! Column k of W holds the slopes z' of the indicators in its logits' places, and D_k is the second derivative of the prior in
//! the mass, which may be negative. With `X = W' H_0^-1 W = L L'` and `S = I + L' D L`,
//! `ln|H| = ln|H_0| + ln|S|` and `H^-1 = H_0^-1 - Z core Z'`, `Z = H_0^-1 W`, `core = D - D L S^-1 L' D`.
//! H is positive definite exactly when S is.

use super::{Step, System};
use crate::linalg::{product, Cholesky, Op};
use crate::problem::Problem;
use crate::state::State;
use ndarray::Array2;

/// One logit's place in a column of W.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Position among all local variables.
    pub at: usize,
    /// The indicator with its derivatives.
    pub z: [f64; 4],
}

/// The correction of a factorisation for its columns.
#[derive(Debug)]
pub struct Coupling {
    /// Atom of each column.
    pub atoms: Vec<usize>,
    pub columns: Vec<Vec<Entry>>,
    /// Z.
    pub solved: Vec<Step>,
    pub core: Array2<f64>,
    pub log_det: f64,
}

/// The columns of W that are not empty.
fn columns(problem: &Problem, state: &State, system: &System) -> (Vec<usize>, Vec<Vec<Entry>>) {
    let terms = &system.lin.columns;
    let layout = state.layout_of_rows();
    let mut all: Vec<Vec<Entry>> = vec![Vec::new(); terms.terms.len()];
    for row in 0..problem.n_rows() {
        let start = layout.block(row).start;
        terms.of_row(problem, state, row, |at, k, z| {
            if !problem.gate().always_on(k) {
                all[k].push(Entry { at: start + at, z });
            }
        });
    }
    all.into_iter().enumerate().filter(|(_, column)| !column.is_empty()).unzip()
}

/// Inner product of a column of W with a local vector.
pub fn along(column: &[Entry], local: &[f64]) -> f64 {
    column.iter().map(|e| e.z[1] * local[e.at]).sum()
}

impl Coupling {
    /// From solves with H_0. `None` when H is not positive definite in floating point.
    pub fn new(problem: &Problem, state: &State, system: &System, solve: impl Fn(&Step) -> Step) -> Option<Self> {
        let (atoms, columns) = columns(problem, state, system);
        let zero = Step { local: vec![0.0; state.layout_of_rows().len()], border: Array2::zeros(state.decoders.dim()) };
        let mut solved = Vec::with_capacity(columns.len());
        for column in &columns {
            let mut w = zero.clone();
            column.iter().for_each(|e| w.local[e.at] = e.z[1]);
            solved.push(solve(&w));
        }
        let j = columns.len();
        let x = Array2::from_shape_fn((j, j), |(a, b)| along(&columns[a], &solved[b].local));
        let l = Cholesky::new(((&x + &x.t()) * 0.5).view())?.lower();
        let d: Vec<f64> = atoms.iter().map(|&k| system.lin.columns.terms[k].slope).collect();
        let dl = Array2::from_shape_fn((j, j), |(a, b)| d[a] * l[[a, b]]);
        let mut s = product((l.view(), Op::Transposed), (dl.view(), Op::Plain));
        s.diag_mut().mapv_inplace(|v| 1.0 + v);
        let factor = Cholesky::new(s.view())?;
        let mut right = dl.t().as_standard_layout().into_owned();
        factor.solve(&mut right.view_mut());
        let mut core = -product((dl.view(), Op::Plain), (right.view(), Op::Plain));
        (0..j).for_each(|a| core[[a, a]] += d[a]);
        Some(Self { atoms, columns, solved, core, log_det: factor.log_det() })
    }

    /// Turns a solution with H_0 into one with H.
    pub fn correct(&self, x: &mut Step) {
        let seen: Vec<f64> = self.columns.iter().map(|c| along(c, &x.local)).collect();
        for (a, z) in self.solved.iter().enumerate() {
            let share: f64 = seen.iter().enumerate().map(|(b, v)| self.core[[a, b]] * v).sum();
            x.add(-share, z);
        }
    }
}
