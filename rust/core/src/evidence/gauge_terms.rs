//! What the motion of the gauge tangents adds to the derivatives of E.

use super::adjoint::Inverse;
use super::border_rows::BorderRows;
use super::orbit::{for_each_velocity, tangent_rows};
use super::sparse::SparseStep;
use super::value::Evidence;
use crate::arrow::{Factored, GaugeColumn};
use crate::linalg::axpy;
use crate::priors::coordinate_priors;
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::state::State;
use ndarray::{s, Array2};

/// What the derivatives of the orbit's terms are made of, for all motions g with tangent G_g and `E = HG`, T = G'E.
pub(super) struct Orbit {
    /// `Psi = Theta - T^-1`, which is `T^-1 E'XE T^-1`.
    psi: Array2<f64>,
    /// The decoder rows, over the motion's own atom, of `X E T^-1`, which is `sum_h Theta_gh Y_h`.
    pulled: Vec<Array2<f64>>,
    /// Those of `X U`: with `XU (U'G) = G` they are `sum_h (U'G)^-1_hg G_h`, unless X is an estimate.
    pinned: Vec<Array2<f64>>,
}

impl Orbit {
    pub(super) fn new(problem: &Problem, factored: &Factored, evidence: &Evidence, inverse: &Inverse<'_>) -> Self {
        let columns = &factored.system.gauge.columns;
        let mut psi = &evidence.theta - &evidence.orbit_inverse;
        let mut pulled: Vec<Array2<f64>> = columns.iter().map(|column| Array2::zeros(column.border.dim())).collect();
        for (g, pulled) in pulled.iter_mut().enumerate() {
            for (h, y) in evidence.solved.iter().enumerate() {
                y.border.add_to(evidence.theta[[g, h]], problem.rows_of(columns[g].atom).start, pulled);
            }
        }
        let pinned = match factored.estimated() {
            None => (0..columns.len()).map(|g| pinned(columns, evidence, g)).collect(),
            Some(estimate) => {
                estimate.for_each_absorbed(
                    |rows, e| inverse.over(rows, e),
                    |from, own, own_psi| {
                        let to = from + own.len();
                        let mut block = psi.slice_mut(s![from..to, from..to]);
                        block += &own_psi;
                        own.iter().zip(&mut pulled[from..to]).for_each(|(own, pulled)| *pulled += own);
                    },
                );
                columns.iter().map(|c| inverse.over(problem.rows_of(c.atom), &(&c.border * c.scale))).collect()
            }
        };
        Self { psi, pulled, pinned }
    }
}

/// `X U_g` over the motion's own decoder rows.
fn pinned(columns: &[GaugeColumn], evidence: &Evidence, g: usize) -> Array2<f64> {
    let mut out = Array2::zeros(columns[g].border.dim());
    for (h, other) in partners(columns, &columns[g]) {
        out.scaled_add(evidence.border_inverse[[h, g]] / columns[g].scale, &other.border);
    }
    out
}

/// Terms of the decoders' gauge tangents G_k = -J_k B_k: `tr(U'X dU) - d ln det(U'G)` and the motion of E and of G'E.
pub(super) fn add_gauge_terms(
    problem: &Problem,
    factored: &Factored,
    evidence: &Evidence,
    orbit: &Orbit,
    border: &mut Array2<f64>,
) {
    let system = &factored.system;
    for (g, column) in system.gauge.columns.iter().enumerate() {
        let mut by_tangent = &orbit.pinned[g] * column.scale;
        for (h, other) in partners(&system.gauge.columns, column) {
            by_tangent.scaled_add(-2.0 * evidence.border_inverse[[g, h]], &other.border);
            by_tangent.scaled_add(orbit.psi[[g, h]], &evidence.stiff[h]);
        }
        by_tangent -= &system.lin.prior.precision[column.atom].dot(&orbit.pulled[g]);
        let mut out = border.slice_mut(s![problem.rows_of(column.atom), ..]);
        out -= &column.basis_map.t().dot(&by_tangent);
    }
}

/// The generators of one column's atom, itself among them.
fn partners<'a>(columns: &'a [GaugeColumn], of: &GaugeColumn) -> impl Iterator<Item = (usize, &'a GaugeColumn)> {
    let atom = of.atom;
    columns.iter().enumerate().filter(move |(_, other)| other.atom == atom)
}

/// Terms of the rows' part of the tangents, which moves where velocities differ from point to point: with D the stiffness of
/// the coordinate priors and `Psi = Theta - T^-1`, the derivative against the velocity v_g of a row is
/// `D (sum_h Psi_gh v_h - sum_h Theta_gh Y_h)`.
pub(super) fn add_velocity_terms(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    factored: &Factored,
    evidence: &Evidence,
    local: &mut [f64],
) {
    let columns = &factored.system.gauge.columns;
    let tangent = |column| SparseStep::new(tangent_rows(problem, state, column).into_iter(), BorderRows::none());
    let tangents: Vec<SparseStep> = columns.iter().map(tangent).collect();
    let moving: Vec<usize> = (0..columns.len()).filter(|&h| !evidence.solved[h].is_zero()).collect();
    for (g, column) in columns.iter().enumerate() {
        let atom = &*problem.atoms()[column.atom];
        let d = atom.dim();
        let mut against = vec![0.0; d];
        for_each_velocity(problem, state, column, |row, start, _, dv| {
            coordinate_priors(atom, rho, column.atom, state.point(column.atom, row), |a, term| {
                let mut value = 0.0;
                for (h, _) in partners(columns, column) {
                    value += (evidence.theta[[g, h]] - evidence.orbit_inverse[[g, h]]) * tangents[h].local(start + a);
                }
                for &h in &moving {
                    value -= evidence.theta[[g, h]] * evidence.solved[h].local(start + a);
                }
                against[a] = term.stiffness() * value;
            });
            for (a, c) in against.iter().enumerate() {
                axpy(*c, &dv[a * d..(a + 1) * d], &mut local[start..start + d]);
            }
        });
    }
}

/// The orbit's share of the derivative in each ln lambda_k: the motion of E and of G'E with R_k.
pub(super) fn add_orbit_roughness(problem: &Problem, factored: &Factored, orbit: &Orbit, out: &mut [f64]) {
    debug_assert_eq!(out.len(), problem.n_atoms());
    let columns = &factored.system.gauge.columns;
    for (g, column) in columns.iter().enumerate() {
        let rough = factored.system.lin.prior.roughness[column.atom].dot(&column.border);
        let inner = |a: &Array2<f64>| a.iter().zip(&rough).map(|(x, y)| x * y).sum::<f64>();
        for (h, other) in partners(columns, column) {
            out[column.atom] += 0.5 * orbit.psi[[g, h]] * inner(&other.border);
        }
        out[column.atom] -= inner(&orbit.pulled[g]);
    }
}
