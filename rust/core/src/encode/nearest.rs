//! The point of an atom's curve nearest to a row.

use crate::atoms::{hold_axis, walls, BasisJet, ChartFactor};
use crate::linalg::{dot, small_backward, small_cholesky, small_forward};
use crate::priors::coordinate_priors;
use crate::row::RowSolver;
use ndarray::{Array2, ArrayView1, ArrayView2};

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
    /// The least of the energies.
    pub least: f64,
    /// The atom's block of Q = BB', row by row.
    gram: Vec<f64>,
    /// How far a decoded point of the chart is from that of some grid point, at most; infinite where that is not known.
    reach: f64,
}

/// Buffers of a descent, reused from row to row.
#[derive(Default)]
pub struct Scratch {
    jet: BasisJet,
    slope: Vec<f64>,
    through: Vec<f64>,
    step: Vec<f64>,
    scaled: Vec<f64>,
    gauss_newton: Vec<f64>,
    exact: Vec<f64>,
    from: Vec<f64>,
    cost: Vec<f64>,
}

/// What a row is to an atom: its decoder against the row, the row's squared length, and w/phi.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub against: &'a [f64],
    pub length: f64,
    pub factor: f64,
}

impl Grid {
    pub fn new(rows: &RowSolver, k: usize) -> Self {
        let atom = &*rows.atoms[k];
        let points = atom.search_grid();
        let mut basis = Array2::zeros((points.nrows(), atom.width()));
        for (t, mut row) in points.rows().into_iter().zip(basis.rows_mut()) {
            atom.basis(&t.to_vec(), row.as_slice_mut().expect("standard layout"));
        }
        let width = atom.width();
        let block = ArrayView2::from_shape((width, width), rows.products.own(k)).expect("a block of the atom's width");
        let lengths: Vec<f64> = basis.rows().into_iter().map(|b| b.dot(&block.dot(&b))).collect();
        let energy = |t: ArrayView1<'_, f64>| rows.coordinate_energy(k, t.as_slice().expect("standard layout"));
        let energies: Vec<f64> = points.rows().into_iter().map(energy).collect();
        let apart = |i: usize, j: usize| {
            let difference = &basis.row(i) - &basis.row(j);
            difference.dot(&block.dot(&difference)).max(0.0).sqrt()
        };
        let last = points.nrows() - 1;
        let along = (0..last).map(|i| apart(i, i + 1)).fold(0.0, f64::max);
        // grids of one coordinate run along it: a point of the curve between two of the grid is nearer to one of them than
        // these are to each other
        let reach = match atom.factors() {
            [ChartFactor::Circle { .. }] => along.max(apart(last, 0)),
            [ChartFactor::Interval { .. }] => along,
            [ChartFactor::Choice { .. }] => 0.0,
            _ => f64::INFINITY,
        };
        let least = energies.iter().copied().fold(f64::INFINITY, f64::min);
        Self { points, lengths, energies, least, gram: block.iter().copied().collect(), reach, basis }
    }

    /// Q x over the atom's columns.
    fn gram_times(&self, x: &[f64], out: &mut Vec<f64>) {
        out.clear();
        out.extend(self.gram.chunks_exact(x.len()).map(|row| dot(row, x)));
    }

    /// The objective at every grid point, without its constant.
    fn costs(&self, row: Seen<'_>, out: &mut Vec<f64>) {
        let basis = self.basis.as_slice().expect("standard layout").chunks_exact(row.against.len());
        let grid = self.lengths.iter().zip(basis).zip(&self.energies);
        out.clear();
        out.extend(
            grid.map(|((length, basis), energy)| row.factor * (0.5 * length - dot(basis, row.against)) + energy),
        );
    }

    /// What no point about a grid point falls below.
    fn floor(&self, row: Seen<'_>, g: usize, cost: f64) -> f64 {
        if !self.reach.is_finite() {
            return f64::NEG_INFINITY;
        }
        // priors of such charts are constants, or von Mises: not below their least value on the grid by more than rounding
        let distance = (row.length + 2.0 * (cost - self.energies[g]) / row.factor).max(0.0).sqrt();
        let nearer = (distance - self.reach).max(0.0);
        0.5 * row.factor * (nearer * nearer - row.length) + self.least
    }

    /// The best grid point, and what no point of the chart falls below.
    pub fn glance(&self, row: Seen<'_>, scratch: &mut Scratch) -> (usize, f64) {
        self.costs(row, &mut scratch.cost);
        let first = lowest(&scratch.cost, |_| true).expect("a grid has points");
        (first, self.floor(row, first, scratch.cost[first]))
    }

    fn point(&self, g: usize) -> &[f64] {
        self.points.row(g).to_slice().expect("standard layout")
    }

    /// Minimises `(factor/2)(Phi Q Phi' - 2 Phi b)` plus the coordinate's prior over the chart, b = `against`; writes the
    /// coordinate and returns the minimum.
    ///
    /// Descends from the best grid point and from the best one apart from it, since a curve may pass a row twice.
    pub fn nearest(&self, rows: &RowSolver, k: usize, row: Seen<'_>, t: &mut [f64], scratch: &mut Scratch) -> f64 {
        self.costs(row, &mut scratch.cost);
        let first = lowest(&scratch.cost, |_| true).expect("a grid has points");
        t.copy_from_slice(self.point(first));
        let cost = std::mem::take(&mut scratch.cost);
        let value = self.descend(rows, k, row, t, scratch);
        let basis = |g: usize| self.basis.row(g).to_slice().expect("standard layout");
        let apart = |g: usize| basis(g).iter().zip(basis(first)).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() > APART;
        let second = lowest(&cost, |g| self.floor(row, g, cost[g]) < value && apart(g));
        scratch.cost = cost;
        let Some(second) = second else { return value };
        let mut other = self.point(second).to_vec();
        let other_value = self.descend(rows, k, row, &mut other, scratch);
        if other_value < value {
            t.copy_from_slice(&other);
            return other_value;
        }
        value
    }

    /// The objective at the jet's point; leaves its slope over the basis row.
    fn value(&self, rows: &RowSolver, k: usize, row: Seen<'_>, t: &[f64], jet: &BasisJet, slope: &mut Vec<f64>) -> f64 {
        self.gram_times(&jet.phi, slope);
        let data = 0.5 * dot(slope, &jet.phi) - dot(&jet.phi, row.against);
        slope.iter_mut().zip(row.against).for_each(|(c, a)| *c = row.factor * (*c - a));
        row.factor * data + rows.coordinate_energy(k, t)
    }

    /// Newton with the exact Hessian where that is positive definite, Gauss-Newton where not. Steps end where the chart does,
    /// and a coordinate at an end of its interval is held there while it would rather leave.
    fn descend(&self, rows: &RowSolver, k: usize, row: Seen<'_>, t: &mut [f64], scratch: &mut Scratch) -> f64 {
        let atom = &*rows.atoms[k];
        let (width, dim) = (atom.width(), atom.dim());
        let Scratch { jet, slope, through, step, scaled, gauss_newton, exact, from, .. } = scratch;
        if (jet.phi.len(), jet.d1.len()) != (width, width * dim) {
            *jet = BasisJet::new(dim, width);
        }
        atom.jet(t, jet);
        let mut value = self.value(rows, k, row, t, jet, slope);
        for _ in 0..MAX_STEPS {
            for wall in walls(atom.factors(), t) {
                let along = dot(&jet.d1[wall.axis * width..(wall.axis + 1) * width], slope);
                // one that is let go keeps the prior's unit curvature for this step, which damps it
                if wall.inward * along >= 0.0 {
                    hold_axis(jet, wall.axis);
                }
            }
            let tangent = |j: usize| &jet.d1[j * width..(j + 1) * width];
            step.clear();
            step.extend((0..dim).map(|j| -dot(tangent(j), slope)));
            gauss_newton.clear();
            exact.clear();
            for a in 0..dim {
                self.gram_times(tangent(a), through);
                for b in 0..dim {
                    let at = (a * dim + b) * width;
                    let inner = row.factor * dot(through, tangent(b));
                    gauss_newton.push(inner);
                    exact.push(inner + dot(&jet.d2[at..at + width], slope));
                }
            }
            coordinate_priors(atom, &rows.rho, k, t, |a, term| {
                step[a] -= term.gradient;
                gauss_newton[a * (dim + 1)] += term.majoriser;
                exact[a * (dim + 1)] += term.curvature;
            });
            let factored: &[f64] = if small_cholesky(exact, dim) {
                exact
            } else if small_cholesky(gauss_newton, dim) {
                gauss_newton
            } else {
                break;
            };
            small_forward(factored, dim, step, 1);
            small_backward(factored, dim, step, 1);
            let length = step.iter().fold(0.0f64, |m, s| m.max(s.abs()));
            let rounding = 8.0 * f64::EPSILON * (value.abs() + row.factor * dot(&jet.phi, row.against).abs());
            from.clear();
            from.extend_from_slice(t);
            let mut scale = 1.0;
            let mut moved = false;
            for _ in 0..MAX_HALVINGS {
                t.copy_from_slice(from);
                scaled.clear();
                scaled.extend(step.iter().map(|s| scale * s));
                atom.advance(t, scaled);
                atom.jet(t, jet);
                let next = self.value(rows, k, row, t, jet, slope);
                if next <= value + rounding {
                    value = next;
                    moved = true;
                    break;
                }
                scale *= 0.5;
            }
            if !moved {
                t.copy_from_slice(from);
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
}

fn lowest(cost: &[f64], admitted: impl Fn(usize) -> bool) -> Option<usize> {
    let mut best: Option<usize> = None;
    for g in 0..cost.len() {
        if best.is_none_or(|b| cost[g].total_cmp(&cost[b]).is_lt()) && admitted(g) {
            best = Some(g);
        }
    }
    best
}
