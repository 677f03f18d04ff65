//! V = L + 1/2 ln|H| - 1/2 ln det(G'HG) + sum c(h) - ((D - J)/2) ln 2pi - ln vol - ln(symmetries).
//!
//! With E = HG and `H~ = H + UU'` the two determinants are evaluated together,
//! `1/2 ln|H| - 1/2 ln det(G'HG) = 1/2 ln|H~| - ln det(U'G) + 1/2 ln det(I - (G'E)^-1 E'H~^-1 E)`,
//! which stays finite as H flattens along G.

use crate::arrow::{Factored, GaugeColumn, Step};
use crate::atoms::{Atom, Axis};
use crate::linalg::{dot, Cholesky};
use crate::priors::coordinate_prior;
use crate::problem::{Problem, COMPACT_RIDGE};
use crate::rho::SaeManifoldRho;
use crate::special::compact_term;
use crate::state::State;
use ndarray::{s, Array2};
use std::collections::HashMap;
use std::f64::consts::{PI, TAU};
use std::sync::Arc;

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
}

/// V at a state, with what its gradient needs again.
pub struct Evidence {
    pub parts: EvidenceParts,
    /// V.
    pub value: f64,
    /// Y = H~^-1 E, one column per generator.
    pub(super) solved: Vec<Step>,
    /// P_k G_k, the decoder rows of E.
    pub(super) stiff: Vec<Array2<f64>>,
    /// T = G'E, diagonal.
    pub(super) orbit_curvature: Vec<f64>,
    /// Theta = (T - E'H~^-1 E)^-1.
    pub(super) theta: Array2<f64>,
}

impl Evidence {
    /// `None` when the orbit's curvature is not positive in floating point.
    pub fn new(problem: &Problem, state: &State, rho: &SaeManifoldRho, factored: &Factored) -> Option<Self> {
        let system = &factored.system;
        let columns = &system.gauge.columns;
        let j = columns.len();
        let (mut e, mut stiff, mut t, mut ln_w) = (Vec::new(), Vec::new(), Vec::new(), 0.0);
        for column in columns {
            // of H, only the ridge of compact axes and the decoder prior act on a tangent: E = HG
            let mut tangent = tangent_rows(problem, state, column);
            let moved = COMPACT_RIDGE * dot(&tangent, &tangent);
            tangent.iter_mut().for_each(|v| *v *= COMPACT_RIDGE);
            let pg = system.lin.prior.precision[column.atom].dot(&column.border);
            let curvature = moved + pg.iter().zip(&column.border).map(|(a, b)| a * b).sum::<f64>();
            let mut border = Array2::zeros(state.decoders.dim());
            border.slice_mut(s![problem.rows_of(column.atom), ..]).assign(&pg);
            e.push(Step { local: tangent, border });
            stiff.push(pg);
            t.push(curvature);
            ln_w += (column.scale * column.norm_squared()).ln();
        }
        let solved: Vec<Step> = e.iter().map(|e| factored.solve(problem, state, rho, e)).collect();
        let mut reduced = Array2::zeros((j, j));
        for a in 0..j {
            for b in 0..j {
                reduced[[a, b]] = -e[a].dot(&solved[b]);
            }
            reduced[[a, a]] += t[a];
        }
        // symmetric to rounding: the solves are
        let reduced = (&reduced + &reduced.t()) * 0.5;
        let factor = Cholesky::new(reduced.view())?;
        let ln_t: f64 = t.iter().map(|t| t.ln()).sum();

        let ln_2pi = TAU.ln();
        let free = problem.n_free();
        let layout = state.layout_of_rows();
        let dimension = problem.n_rows() * free + layout.n_active_coords() + state.decoders.len();
        let ln_volume: f64 = (0..problem.n_atoms())
            .filter(|k| columns.iter().any(|c| c.atom == *k))
            .map(|k| problem.atoms()[k].ln_group_volume())
            .sum();
        // an atom that no row uses sits at zero, which no symmetry moves
        let used = state.used(problem);
        let in_use = || problem.atoms().iter().zip(&used).filter(|(_, used)| **used).map(|(atom, _)| atom);
        let reflections: f64 = in_use().map(|a| a.ln_reflections()).sum();
        let parts = EvidenceParts {
            log_det: 0.5 * factored.log_det() - ln_w + 0.5 * factor.log_det(),
            orbit: -0.5 * ln_t - ln_volume,
            compact: compact_sum(problem, state, factored),
            unsupported: -system.lin.loss.ard_unsupported,
            constants: -0.5 * (dimension as f64 - j as f64) * ln_2pi - ln_permutations(in_use()) - reflections,
        };
        let value =
            system.lin.loss.total() + parts.log_det + parts.orbit + parts.compact + parts.unsupported + parts.constants;
        let theta = factor.inverse();
        value.is_finite().then_some(Self { parts, value, solved, stiff, orbit_curvature: t, theta })
    }
}

/// The rows' part of a gauge tangent: the atom's speed on every row of its support.
pub(super) fn tangent_rows(problem: &Problem, state: &State, column: &GaugeColumn) -> Vec<f64> {
    let layout = state.layout_of_rows();
    let mut local = vec![0.0; layout.len()];
    for row in 0..problem.n_rows() {
        let Some(at) = layout.active_atoms(row).iter().position(|&k| k as usize == column.atom) else { continue };
        let start = layout.block(row).start + layout.coord_starts(row)[at] as usize;
        local[start..start + column.velocity.len()].copy_from_slice(&column.velocity);
    }
    local
}

/// ln of the number of orders of interchangeable atoms.
fn ln_permutations<'a>(atoms: impl Iterator<Item = &'a Arc<dyn Atom>>) -> f64 {
    let mut counts: HashMap<String, usize> = HashMap::new();
    atoms.for_each(|a| *counts.entry(a.key()).or_default() += 1);
    counts.values().map(|&c| (2..=c).map(|i| (i as f64).ln()).sum::<f64>()).sum()
}

/// c(h) of one axis and its derivative in the raw curvature.
pub(super) fn compact_of(axis: Axis, curvature: f64) -> (f64, f64) {
    let Axis::Periodic { period } = axis;
    let unit = (period / (2.0 * PI)).powi(2);
    let (value, slope) = compact_term(curvature * unit);
    (value, slope * unit)
}

fn compact_sum(problem: &Problem, state: &State, factored: &Factored) -> f64 {
    let mut total = 0.0;
    for chunk in &factored.system.lin.chunks {
        for index in 0..chunk.len() {
            let view = chunk.row(problem, state, index);
            for atom in view.atoms() {
                for (j, axis) in problem.atoms()[atom.atom].axes().iter().enumerate() {
                    let u = atom.slot + j;
                    total += compact_of(*axis, view.curvature[u * view.q + u]).0;
                }
            }
        }
    }
    total
}

/// Sum over supported coordinates of the derivative of their prior energy in each ARD entry of the flat vector.
pub(super) fn ard_slopes(problem: &Problem, state: &State, rho: &SaeManifoldRho, out: &mut [f64]) {
    for (k, atom) in problem.atoms().iter().enumerate() {
        for (j, axis) in atom.axes().iter().enumerate() {
            let Some(alpha) = rho.ard(k, j) else { continue };
            let slot = rho.ard_slot(k, j);
            for row in 0..problem.n_rows() {
                if state.support(row).binary_search(&(k as u32)).is_ok() {
                    out[slot] += coordinate_prior(*axis, Some(alpha), state.coords[k][[row, j]]).d_log_alpha;
                }
            }
        }
    }
}
