//! The point of an atom's curve nearest to a row.

use crate::atoms::{hold_axis, walls, BasisJet};
use crate::linalg::{dot, small_backward, small_cholesky, small_forward};
use crate::priors::coordinate_priors;
use crate::row::RowSolver;
use ndarray::{s, Array2, ArrayView1};

/// Newton steps from a grid point; five or six reach rounding.
const MAX_STEPS: usize = 40;
/// Halvings of a step that does not descend.
const MAX_HALVINGS: usize = 30;
/// Squared distance of two basis rows above which their grid points may lie in different basins.
const APART: f64 = 1.0;

/// A chart's grid with its basis rows, the squared lengths of its decoded points and the energies of their priors.
#[derive(Debug)]
pub struct Grid {
    pub points: Array2<f64>,
    pub basis: Array2<f64>,
    pub lengths: Vec<f64>,
    pub energies: Vec<f64>,
}

impl Grid {
    pub fn new(rows: &RowSolver, k: usize) -> Self {
        let atom = &rows.atoms[k];
        let points = atom.search_grid();
        let mut basis = Array2::zeros((points.nrows(), atom.width()));
        for (t, mut row) in points.rows().into_iter().zip(basis.rows_mut()) {
            atom.basis(&t.to_vec(), row.as_slice_mut().expect("standard layout"));
        }
        let own = rows.offsets[k]..rows.offsets[k + 1];
        let block = rows.gram.slice(s![own.clone(), own]);
        let lengths = basis.rows().into_iter().map(|b| b.dot(&block.dot(&b))).collect();
        let energy = |t: ArrayView1<'_, f64>| rows.coordinate_energy(k, t.as_slice().expect("standard layout"));
        let energies = points.rows().into_iter().map(energy).collect();
        Self { points, basis, lengths, energies }
    }
}

/// Minimises `(factor/2)(Phi Q Phi' - 2 Phi b)` plus the coordinate's prior over atom k's chart, b = `against`; writes the
/// coordinate and returns the minimum.
///
/// Descends from the best grid point and from the best one apart from it, since a curve may pass a row twice.
pub fn nearest(rows: &RowSolver, grid: &Grid, k: usize, factor: f64, against: &[f64], t: &mut [f64]) -> f64 {
    let cost: Vec<f64> = grid
        .lengths
        .iter()
        .zip(grid.basis.rows())
        .zip(&grid.energies)
        .map(|((length, basis), energy)| {
            factor * (0.5 * length - dot(basis.as_slice().expect("standard layout"), against)) + energy
        })
        .collect();
    let first = lowest(&cost, |_| true).expect("a grid has points");
    t.copy_from_slice(grid.points.row(first).as_slice().expect("standard layout"));
    let value = descend(rows, k, factor, against, t);
    let origin = grid.basis.row(first);
    let apart = |g: usize| {
        let difference = &grid.basis.row(g) - &origin;
        difference.dot(&difference) > APART
    };
    let Some(second) = lowest(&cost, apart) else { return value };
    let mut other = grid.points.row(second).to_vec();
    let other_value = descend(rows, k, factor, against, &mut other);
    if other_value < value {
        t.copy_from_slice(&other);
        return other_value;
    }
    value
}

fn lowest(cost: &[f64], admitted: impl Fn(usize) -> bool) -> Option<usize> {
    (0..cost.len()).filter(|&g| admitted(g)).min_by(|&a, &b| cost[a].total_cmp(&cost[b]))
}

/// Newton with the exact Hessian where that is positive definite, Gauss-Newton where not. Steps end where the chart does, and
/// a coordinate at an end of its interval is held there while it would rather leave.
fn descend(rows: &RowSolver, k: usize, factor: f64, against: &[f64], t: &mut [f64]) -> f64 {
    let atom = &*rows.atoms[k];
    let (width, dim) = (atom.width(), atom.dim());
    let own = rows.offsets[k]..rows.offsets[k + 1];
    let block = rows.gram.slice(s![own.clone(), own]);
    let mut jet = BasisJet::new(dim, width);
    let value_at = |jet: &BasisJet, t: &[f64]| {
        let curve = block.dot(&ArrayView1::from(&jet.phi));
        let data = 0.5 * dot(curve.as_slice().expect("contiguous"), &jet.phi) - dot(&jet.phi, against);
        let slope: Vec<f64> = curve.iter().zip(against).map(|(c, a)| factor * (c - a)).collect();
        (factor * data + rows.coordinate_energy(k, t), slope)
    };
    atom.jet(t, &mut jet);
    let (mut value, mut slope) = value_at(&jet, t);
    for _ in 0..MAX_STEPS {
        for wall in walls(atom.factors(), t) {
            let along = dot(&jet.d1[wall.axis * width..(wall.axis + 1) * width], &slope);
            // one that is let go keeps the prior's unit curvature for this step, which damps it
            if wall.inward * along >= 0.0 {
                hold_axis(&mut jet, wall.axis);
            }
        }
        let tangent = |j: usize| &jet.d1[j * width..(j + 1) * width];
        let mut step: Vec<f64> = (0..dim).map(|j| -dot(tangent(j), &slope)).collect();
        let mut gauss_newton = vec![0.0; dim * dim];
        let mut exact = vec![0.0; dim * dim];
        for a in 0..dim {
            let through = block.dot(&ArrayView1::from(tangent(a)));
            for b in 0..dim {
                let at = (a * dim + b) * width;
                gauss_newton[a * dim + b] = factor * dot(through.as_slice().expect("contiguous"), tangent(b));
                exact[a * dim + b] = gauss_newton[a * dim + b] + dot(&jet.d2[at..at + width], &slope);
            }
        }
        coordinate_priors(atom, &rows.rho, k, t, |a, term| {
            step[a] -= term.gradient;
            gauss_newton[a * (dim + 1)] += term.majoriser;
            exact[a * (dim + 1)] += term.curvature;
        });
        let factored = if small_cholesky(&mut exact, dim) {
            exact
        } else if small_cholesky(&mut gauss_newton, dim) {
            gauss_newton
        } else {
            break;
        };
        small_forward(&factored, dim, &mut step, 1);
        small_backward(&factored, dim, &mut step, 1);
        let length = step.iter().fold(0.0f64, |m, s| m.max(s.abs()));
        let rounding = 8.0 * f64::EPSILON * (value.abs() + factor * dot(&jet.phi, against).abs());
        let from = t.to_vec();
        let mut scale = 1.0;
        let mut moved = false;
        for _ in 0..MAX_HALVINGS {
            t.copy_from_slice(&from);
            let scaled: Vec<f64> = step.iter().map(|s| scale * s).collect();
            atom.advance(t, &scaled);
            atom.jet(t, &mut jet);
            let (next, next_slope) = value_at(&jet, t);
            if next <= value + rounding {
                (value, slope) = (next, next_slope);
                moved = true;
                break;
            }
            scale *= 0.5;
        }
        if !moved {
            t.copy_from_slice(&from);
            break;
        }
        /// Steps this short are rounding in any unit a chart uses.
        const SHORT: f64 = 1e-13;
        if length * scale <= SHORT {
            break;
        }
    }
    value
}
