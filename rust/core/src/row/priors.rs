//! What the priors add to the rows: the terms of L with their normalisers, and each row's share of gradient and curvature.

use super::columns::Columns;
use crate::gates::GatePrior;
use crate::linalg::{product, row_space, symmetric_eigen, Cholesky, Op};
use crate::priors::coordinate_priors;
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::state::State;
use crate::wire::wired;
use ndarray::Array2;

/// The terms of the penalised objective L, each with its normaliser.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossParts {
    pub data_fit: f64,
    pub smoothness: f64,
    pub sparsity: f64,
    pub logit_prior: f64,
    /// Coordinate prior.
    pub ard: f64,
    /// The part of `ard` that belongs to coordinates outside their row's support.
    pub ard_unsupported: f64,
    /// Weighted sum of squared residuals.
    pub residual: f64,
}

wired!(LossParts { data_fit, smoothness, sparsity, logit_prior, ard, ard_unsupported, residual });

impl LossParts {
    /// L.
    pub fn total(&self) -> f64 {
        self.data_fit + self.smoothness + self.sparsity + self.logit_prior + self.ard
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.data_fit += other.data_fit;
        self.smoothness += other.smoothness;
        self.sparsity += other.sparsity;
        self.logit_prior += other.logit_prior;
        self.ard += other.ard;
        self.ard_unsupported += other.ard_unsupported;
        self.residual += other.residual;
    }
}

/// The classic mode counts no volumes: takes what the coordinates' priors have of them out.
pub(super) fn drop_coordinate_constants(problem: &Problem, state: &State, loss: &mut LossParts) {
    let mut of_row = 0.0;
    for (k, atom) in problem.atoms().iter().enumerate() {
        let constant: f64 = atom.factors().iter().map(|f| f.prior_constant()).sum();
        let supported = (0..problem.n_rows()).filter(|&i| state.support(i).binary_search(&(k as u32)).is_ok()).count();
        loss.ard_unsupported -= constant * (problem.n_rows() - supported) as f64;
        of_row += constant;
    }
    loss.ard -= of_row * problem.n_rows() as f64;
}

/// Directions of the decoders that neither roughness nor any row sees get unit stiffness, so that each counts ln 1 = 0.
///
/// They lie in the null space of every S_k, so they are the same at all strengths: the constant of an atom that no row uses, or
/// columns of the null spaces that are dependent on the rows. `gram` is the data's share of G.
pub(super) fn pin_unseen(problem: &Problem, state: &State, gram: &mut Array2<f64>) {
    /// Part of the largest diagonal entry below which a direction is unseen. A direction is either seen or not, so this is
    /// rounding of a sum over rows, not the floor of the rows' spectra.
    const UNSEEN: f64 = 1e-12;
    let mut null = Vec::new();
    for k in 0..problem.n_atoms() {
        let basis = row_space(state.null_projector(problem, k).view());
        for column in basis.columns() {
            let mut of_all = vec![0.0; problem.width()];
            problem.rows_of(k).zip(column).for_each(|(m, v)| of_all[m] = *v);
            null.extend(of_all);
        }
    }
    let count = null.len() / problem.width();
    let null = Array2::from_shape_vec((count, problem.width()), null).expect("rows of one width");
    let scale = gram.diag().iter().fold(0.0f64, |m, v| m.max(*v));
    let seen = product((null.view(), Op::Plain), (gram.view(), Op::Plain));
    let seen = product((seen.view(), Op::Plain), (null.view(), Op::Transposed));
    let floor = UNSEEN * scale;
    let all_seen = Cholesky::new((&seen - &(Array2::<f64>::eye(count) * floor)).view()).is_some();
    if all_seen || !floor.is_finite() {
        return;
    }
    let (values, vectors) = symmetric_eigen(seen.view());
    for (_, vector) in values.iter().zip(vectors.columns()).filter(|(v, _)| **v <= floor) {
        let unseen = vector.dot(&null);
        for (a, mut row) in gram.rows_mut().into_iter().enumerate() {
            row.scaled_add(unseen[a], &unseen);
        }
    }
}

/// The parts of L that no inner variable enters.
pub(super) fn add_normalisers(problem: &Problem, state: &State, rho: &SaeManifoldRho, loss: &mut LossParts) {
    let ln_2pi = (2.0 * std::f64::consts::PI).ln();
    let n = problem.n_rows() as f64;
    let logits = state.layout_of_rows().n_logits() as f64;
    loss.data_fit += 0.5 * problem.n_entries() as f64 * (ln_2pi + rho.dispersion().ln());
    if problem.n_free() > 0 {
        loss.sparsity += n * problem.gate().ln_normaliser(rho.lambda_sparse(), problem.n_atoms()).0;
        loss.logit_prior -= 0.5 * logits * (problem.gate().logit_precision().ln() - ln_2pi);
    }
}

/// A held logit is no variable: at this curvature it contributes nothing to a determinant with its share of the constants,
/// which the classic mode does not count.
pub fn held_curvature(problem: &Problem) -> f64 {
    if problem.is_proper() {
        2.0 * std::f64::consts::PI
    } else {
        1.0
    }
}

/// Whether the free logit `f` of a row is held at the wall of an open gate.
pub fn held(problem: &Problem, state: &State, row: usize, f: usize) -> bool {
    state.support(row).contains(&(f as u32)) && problem.gate().held(f, state.logit(row, f))
}

/// Priors of one row: energies, gradients over the row's block, and the curvature of its logits.
#[allow(clippy::too_many_arguments)]
pub(super) fn prior_terms(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    columns: &Columns,
    row: usize,
    gradient: &mut [f64],
    loss: &mut LossParts,
    logit_curvature: &mut Vec<f64>,
    prior: &mut GatePrior,
) {
    let layout = state.layout_of_rows();
    let atoms = layout.logit_atoms(row);
    if !atoms.is_empty() {
        let (lambda, precision) = (rho.lambda_sparse(), problem.gate().logit_precision());
        let logits = state.logits_of(row);
        problem.gate().prior(logits, prior);
        loss.sparsity += lambda * prior.energy;
        for (f, (k, logit)) in logits.iter().take(atoms.len()).enumerate() {
            loss.logit_prior += 0.5 * precision * logit * logit;
            if held(problem, state, row, k) {
                logit_curvature.push(held_curvature(problem));
                continue;
            }
            gradient[f] += lambda * prior.gradient[f] + precision * logit;
            logit_curvature.push(lambda * prior.majoriser[f] + precision);
        }
        let from = logit_curvature.len() - atoms.len();
        columns.of_row(problem, state, row, |at, k, z| {
            gradient[at] += columns.terms[k].score * z[1];
            logit_curvature[from + at] += (columns.terms[k].score * z[2]).max(0.0);
        });
        // a logit outside the support that no prior sees is no variable either
        for (k, curvature) in atoms.iter().zip(&mut logit_curvature[from..]) {
            if *curvature <= 0.0 && !state.support(row).contains(k) {
                *curvature = held_curvature(problem);
            }
        }
    }
    let mut active = layout.active_atoms(row).iter().zip(layout.coord_starts(row)).peekable();
    for &k in state.atoms_of(row) {
        let k = k as usize;
        let atom = &problem.atoms()[k];
        let start = active.next_if(|(&a, _)| a as usize == k).map(|(_, &start)| start as usize);
        coordinate_priors(&**atom, rho, k, state.point(k, row), |j, term| {
            loss.ard += term.energy;
            match start {
                Some(start) => gradient[start + j] += term.gradient,
                None => loss.ard_unsupported += term.energy,
            }
        });
    }
}
