//! V = L + 1/2 ln|H| - 1/2 ln det(G'HG) + sum c(h) - ((D - J)/2) ln 2pi - ln vol - ln(symmetries).
//!
//! With E = HG and `H~ = H + UU'` the two determinants are evaluated together,
//! `1/2 ln|H| - 1/2 ln det(G'HG) = 1/2 ln|H~| - ln det(U'G) + 1/2 ln det(I - (G'E)^-1 E'H~^-1 E)`,
//! which stays finite as H flattens along G.

use super::border_rows::BorderRows;
use super::classic;
use super::compact::compact_total;
use super::orbit::{stiff_tangent, tangent_rows};
use super::scale::{scales, Scale};
use super::sides::sides_total;
use super::sparse::SparseStep;
use crate::arrow::Factored;
use crate::linalg::Cholesky;
use crate::priors::coordinate_priors;
use crate::problem::{EvidenceMode, Problem};
use crate::rho::SaeManifoldRho;
use crate::state::State;
use ndarray::Array2;
use std::collections::BTreeMap;
use std::f64::consts::TAU;

/// The named terms of V beyond those of L.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EvidenceParts {
    /// 1/2 ln|H|.
    pub log_det: f64,
    /// -1/2 ln det(G'HG) - ln vol(gauge group).
    pub orbit: f64,
    /// Sum of c(h) over compact coordinates.
    pub compact: f64,
    /// Coordinates outside their row's support integrate to one: minus their prior energy.
    pub unsupported: f64,
    /// -((D - J)/2) ln 2pi - ln(discrete symmetries).
    pub constants: f64,
    /// The strengths' share of the decoder prior's determinant, where L has no normalisers (classic mode).
    pub occam: f64,
    /// Integrals over the scales of charts on lines, in place of the Gaussians along them.
    pub scale: f64,
    /// Integrals of logits over the side of their threshold, in place of the Gaussians about them.
    pub sides: f64,
}

impl EvidenceParts {
    fn total(&self) -> f64 {
        self.log_det
            + self.orbit
            + self.compact
            + self.scale
            + self.sides
            + self.unsupported
            + self.constants
            + self.occam
    }
}

/// V at a state, with what its gradient needs again.
pub struct Evidence {
    pub parts: EvidenceParts,
    /// V.
    pub value: f64,
    /// Y = H~^-1 E, one column per generator.
    pub(super) solved: Vec<SparseStep>,
    /// P_k G_k, the decoder rows of E.
    pub(super) stiff: Vec<Array2<f64>>,
    /// T^-1 with T = G'E.
    pub(super) orbit_inverse: Array2<f64>,
    /// (G_b'G_b)^-1 of the tangents' decoder rows.
    pub(super) border_inverse: Array2<f64>,
    /// Theta = (T - E'H~^-1 E)^-1.
    pub(super) theta: Array2<f64>,
    /// Integrals over the scales of charts on lines.
    pub(super) scales: Vec<Scale>,
}

impl Evidence {
    /// `None` when the orbit's curvature is not positive in floating point.
    pub fn new(problem: &Problem, state: &State, rho: &SaeManifoldRho, factored: &Factored) -> Option<Self> {
        let system = &factored.system;
        let columns = &system.gauge.columns;
        let j = columns.len();
        let (mut e, mut stiff) = (Vec::new(), Vec::new());
        for column in columns {
            // of H, only the priors of coordinates and decoders act on a tangent: E = HG
            let pg = system.lin.prior.precision[column.atom].dot(&column.border);
            let border = BorderRows::new(problem.rows_of(column.atom).start, pg.clone());
            e.push(SparseStep::new(stiff_tangent(problem, state, rho, column).into_iter(), border));
            stiff.push(pg);
        }
        let tangent = |column| SparseStep::new(tangent_rows(problem, state, column).into_iter(), BorderRows::none());
        let tangents: Vec<SparseStep> = columns.iter().map(tangent).collect();
        // tangents of different atoms move different variables, so both matrices are block diagonal
        let (mut t, mut inner) = (Array2::zeros((j, j)), Array2::zeros((j, j)));
        for (g, column) in columns.iter().enumerate() {
            for (h, other) in columns.iter().enumerate().filter(|(_, other)| other.atom == column.atom) {
                let border: f64 = other.border.iter().zip(&stiff[g]).map(|(a, b)| a * b).sum();
                t[[g, h]] = tangents[h].dot_local(&e[g]) + border;
                inner[[g, h]] = column.dot(other);
            }
        }
        drop(tangents);
        let (t_factor, inner_factor) = (Cholesky::new(t.view())?, Cholesky::new(inner.view())?);
        let ln_w = inner_factor.log_det() + columns.iter().map(|c| c.scale.ln()).sum::<f64>();
        let len = state.layout_of_rows().len();
        // motions that an estimated determinant has without them leave nothing to solve for
        let absorbed = |g: usize| factored.estimated().is_some_and(|estimate| estimate.absorbs(g));
        let solve = |(g, e): (usize, &SparseStep)| match absorbed(g) {
            true => SparseStep::new(std::iter::empty(), BorderRows::none()),
            false => SparseStep::from(&factored.solve(problem, state, rho, &e.dense(len, state.decoders.dim()))),
        };
        let solved: Vec<SparseStep> = e.iter().enumerate().map(solve).collect();
        let mut reduced = t.clone();
        for (b, solved) in solved.iter().enumerate().filter(|(_, solved)| !solved.is_zero()) {
            for (a, e) in e.iter().enumerate() {
                reduced[[a, b]] -= e.dot(solved);
            }
        }
        drop(e);
        // symmetric to rounding: the solves are
        let reduced = (&reduced + &reduced.t()) * 0.5;
        let factor = Cholesky::new(reduced.view())?;

        let ln_2pi = TAU.ln();
        let layout = state.layout_of_rows();
        let dimension = layout.n_logits() + layout.n_active_coords() + state.n_decoder_variables(problem);
        let ln_volume: f64 = (0..problem.n_atoms())
            .filter(|k| columns.iter().any(|c| c.atom == *k))
            .map(|k| problem.atoms()[k].ln_group_volume())
            .sum();
        // an atom that no row uses sits at zero, which no symmetry moves
        let used = state.used(problem);
        let symmetries: f64 = (0..problem.n_atoms())
            .filter(|&k| used[k])
            .map(|k| problem.atoms()[k].ln_symmetries(rho.log_ard[k].is_empty()))
            .sum();
        let scales = if problem.is_proper() { scales(problem, state, rho, factored, &used)? } else { Vec::new() };
        let permutations = ln_permutations(problem, &used);
        let compact = if problem.is_proper() { compact_total(problem, state, rho, factored)? } else { 0.0 };
        let proper = || EvidenceParts {
            log_det: 0.5 * factored.log_det() - ln_w + 0.5 * factor.log_det(),
            orbit: -0.5 * t_factor.log_det() - ln_volume,
            compact,
            unsupported: -system.lin.loss.ard_unsupported,
            constants: -0.5 * (dimension as f64 - j as f64) * ln_2pi - permutations - symmetries,
            scale: scales.iter().map(|s| s.value).sum(),
            sides: sides_total(problem, state, rho, factored),
            occam: 0.0,
        };
        let parts = match problem.mode() {
            EvidenceMode::Laplace => proper(),
            EvidenceMode::QuasiLaplace => {
                classic::parts(problem, state, rho, factored.log_det(), system.lin.loss.ard_unsupported)
            }
        };
        let value = system.lin.loss.total() + parts.total();
        let theta = factor.inverse();
        let (orbit_inverse, border_inverse) = (t_factor.inverse(), inner_factor.inverse());
        value.is_finite().then_some(Self { parts, value, solved, stiff, orbit_inverse, border_inverse, theta, scales })
    }
}

/// ln of the number of orders of interchangeable atoms: of one kind and one label.
fn ln_permutations(problem: &Problem, used: &[bool]) -> f64 {
    // in order: a sum of logarithms is to have the same bits in every process
    let mut counts: BTreeMap<(String, usize), usize> = BTreeMap::new();
    for (k, atom) in problem.atoms().iter().enumerate().filter(|(k, _)| used[*k]) {
        *counts.entry((atom.key(), problem.gate().label(k))).or_default() += 1;
    }
    counts.values().map(|&c| (2..=c).map(|i| (i as f64).ln()).sum::<f64>()).sum()
}

/// Sum over supported coordinates of the derivative of their prior energy in each ARD entry of the flat vector.
pub(super) fn ard_slopes(problem: &Problem, state: &State, rho: &SaeManifoldRho, out: &mut [f64]) {
    for (k, atom) in problem.atoms().iter().enumerate().filter(|(k, _)| !rho.log_ard[*k].is_empty()) {
        for (row, _) in state.layout_of_rows().users(k) {
            coordinate_priors(&**atom, rho, k, state.point(k, row), |j, term| {
                out[rho.ard_slot(k, j)] += term.d_log_alpha;
            });
        }
    }
}
