//! The rows' part of gauge tangents: the velocities at which a motion carries the coordinates of an atom's rows.

use crate::arrow::GaugeColumn;
use crate::priors::coordinate_priors;
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::state::State;

/// Calls `visit(row, start, v, dv)` for every row that uses the column's atom: where its coordinates begin among all local
/// variables, the velocity (d) and its covariant derivative (d x d).
pub(super) fn for_each_velocity(
    problem: &Problem,
    state: &State,
    column: &GaugeColumn,
    mut visit: impl FnMut(usize, usize, &[f64], &[f64]),
) {
    let layout = state.layout_of_rows();
    let atom = &problem.atoms()[column.atom];
    let (mut v, mut dv) = (vec![0.0; atom.dim()], vec![0.0; atom.dim() * atom.dim()]);
    for (row, start) in layout.users(column.atom) {
        atom.velocity(column.generator, state.point(column.atom, row), &mut v, &mut dv);
        visit(row, start, &v, &dv);
    }
}

/// The entries of the tangent over all local variables.
pub(super) fn tangent_rows(problem: &Problem, state: &State, column: &GaugeColumn) -> Vec<(usize, f64)> {
    let mut entries = Vec::new();
    for_each_velocity(problem, state, column, |_, start, v, _| {
        entries.extend(v.iter().enumerate().map(|(j, v)| (start + j, *v)));
    });
    entries
}

/// Those of H times the tangent: the data part annihilates it, so the coordinate priors are left.
pub(super) fn stiff_tangent(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    column: &GaugeColumn,
) -> Vec<(usize, f64)> {
    let mut entries = Vec::new();
    for_each_velocity(problem, state, column, |row, start, v, _| {
        let atom = &*problem.atoms()[column.atom];
        coordinate_priors(atom, rho, column.atom, state.point(column.atom, row), |j, term| {
            entries.push((start + j, v[j] * term.stiffness()));
        });
    });
    entries
}
