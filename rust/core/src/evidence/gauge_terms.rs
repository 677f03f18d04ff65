//! What the motion of the gauge tangents adds to the derivatives of E.

use super::orbit::{for_each_velocity, tangent_rows};
use super::sparse::SparseStep;
use super::value::Evidence;
use crate::arrow::{Factored, GaugeColumn, Step};
use crate::linalg::axpy;
use crate::priors::coordinate_priors;
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::state::State;
use ndarray::{s, Array2};

/// Terms of the decoders' gauge tangents G_k = -J_k B_k: `tr(U'X dU) - d ln det(U'G)` and the motion of E and of G'E.
pub(super) fn add_gauge_terms(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    factored: &Factored,
    evidence: &Evidence,
    border: &mut Array2<f64>,
) {
    let system = &factored.system;
    for (g, column) in system.gauge.columns.iter().enumerate() {
        let rows = s![problem.rows_of(column.atom), ..];
        let mut u = Step { local: vec![0.0; state.layout_of_rows().len()], border: Array2::zeros(border.dim()) };
        column.add_border(problem, 1.0, &mut u.border);
        let against: Vec<f64> = evidence.solved.iter().map(|y| y.dot_border(&u.border)).collect();
        let mut xu = factored.solve(problem, state, rho, &u).border;
        for (a, y) in evidence.solved.iter().enumerate() {
            let t: f64 = against.iter().enumerate().map(|(b, v)| evidence.theta[[a, b]] * v).sum();
            xu.scaled_add(t, &y.border);
        }
        let mut by_tangent = xu.slice(rows).to_owned() * column.scale;
        for (h, other) in partners(&system.gauge.columns, column) {
            by_tangent.scaled_add(-2.0 * evidence.border_inverse[[g, h]], &other.border);
            by_tangent.scaled_add(evidence.theta[[g, h]] - evidence.orbit_inverse[[g, h]], &evidence.stiff[h]);
        }
        let mut pulled = Array2::zeros(column.border.dim());
        for (h, y) in evidence.solved.iter().enumerate() {
            pulled.scaled_add(evidence.theta[[g, h]], &y.border.slice(rows));
        }
        by_tangent -= &system.lin.prior.precision[column.atom].dot(&pulled);
        let mut out = border.slice_mut(rows);
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
    let tangent = |column| SparseStep::new(tangent_rows(problem, state, column).into_iter(), Array2::zeros((0, 0)));
    let tangents: Vec<SparseStep> = columns.iter().map(tangent).collect();
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
                for (h, y) in evidence.solved.iter().enumerate() {
                    value -= evidence.theta[[g, h]] * y.local(start + a);
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
pub(super) fn add_orbit_roughness(problem: &Problem, factored: &Factored, evidence: &Evidence, out: &mut [f64]) {
    for (g, column) in factored.system.gauge.columns.iter().enumerate() {
        let rough = factored.system.lin.prior.roughness[column.atom].dot(&column.border);
        let inner = |a: ndarray::ArrayView2<'_, f64>| a.iter().zip(&rough).map(|(x, y)| x * y).sum::<f64>();
        for (h, other) in partners(&factored.system.gauge.columns, column) {
            let weight = evidence.theta[[g, h]] - evidence.orbit_inverse[[g, h]];
            out[column.atom] += 0.5 * weight * inner(other.border.view());
        }
        for (h, y) in evidence.solved.iter().enumerate() {
            let rows = s![problem.rows_of(column.atom), ..];
            out[column.atom] -= evidence.theta[[g, h]] * inner(y.border.slice(rows));
        }
    }
}
