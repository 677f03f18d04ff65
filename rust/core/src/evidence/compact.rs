//! The compact terms of V over the rows, and their derivatives.
//!
//! A term depends on the block h of H over a row's closed axes, or on the entry of a coordinate with ends, and on s, the rest of
//! the exact curvature: `a <gamma_ab, r> w/phi` within an atom, nothing between two, and what the coordinates' priors have beyond
//! their part of H. With eta the derivative in s of all terms of a row, symmetric in a, b,
//!
//! ```text
//! sum eta_ab ds_ab = w/phi [ <Psi dB, r> + <Psi B, dx> + sum_k da_k eta_ab <gamma_ab, r> + a_k eta_ab <d gamma_ab, r> ]
//! Psi = sum_k a_k eta_ab (Phi_k)_ab   over the stacked columns,      dx = D du B + phi dB
//! ```
//!
//! so the border's derivative is two products of a chunk, and a row's are pulls of stacked vectors.
//!
//! A coordinate j that is held has a term of its slope g = a <gamma_j, r> w/phi as well, which joins Psi as
//! `C_g (Phi_k)_j`, and of h = a^2 |gamma_j|^2 w/phi, which is no entry of H and is differentiated here. It does not move. Nor
//! does a logit that is held at the wall of its gate, whose slope is a' <gamma, r> w/phi beside its prior's (`super::sides`).

use super::held::HeldDirection;
use super::sides::for_each_open;
use crate::arrow::Factored;
use crate::atoms::BasisJet;
use crate::linalg::{axpy, dot};
use crate::priors::{bounded_parts, coordinate_priors, BoundedPart, BoundedTerm, ClosedAxes, ClosedTerm};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::row::{AtomView, Chunk, RowView};
use crate::state::State;
use ndarray::Array2;

/// The closed axes of a row's atoms with their term; `None` where their block of H is not positive definite in floating point,
/// so that V does not exist.
pub(super) fn closed_term(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    view: &RowView<'_>,
) -> Option<(ClosedAxes, ClosedTerm)> {
    let factors = |atom: AtomView<'_>| (atom.slot, problem.atoms()[atom.atom].factors());
    let axes = ClosedAxes::new(view.atoms().map(factors));
    let mut second = axes.block(view.second, view.q);
    for atom in view.atoms() {
        let point = state.point(atom.atom, view.row);
        coordinate_priors(&*problem.atoms()[atom.atom], rho, atom.atom, point, |j, prior| {
            if let Some(a) = axes.slots().position(|slot| slot == atom.slot + j) {
                second[a * (axes.count() + 1)] += prior.beyond();
            }
        });
    }
    let term = axes.term(&axes.block(view.curvature, view.q), &second)?;
    Some((axes, term))
}

/// Calls `visit` with every coordinate of a row that has ends or is a choice, and its term.
pub(super) fn for_each_bounded(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    view: &RowView<'_>,
    mut visit: impl FnMut(&AtomView<'_>, &BoundedPart, &BoundedTerm),
) {
    for atom in view.atoms() {
        let kind = &*problem.atoms()[atom.atom];
        let point = state.point(atom.atom, view.row);
        for part in bounded_parts(kind.factors()) {
            let at = (atom.slot + part.axis) * (view.q + 1);
            let mut second = view.second[at];
            coordinate_priors(kind, rho, atom.atom, point, |j, prior| {
                if j == part.axis {
                    second += prior.beyond();
                }
            });
            if let Some(term) = part.term(view.curvature[at], second, point, view.pull_at(atom.slot + part.axis)) {
                visit(&atom, &part, &term);
            }
        }
    }
}

/// The sum of all compact terms; `None` where a row has none.
pub(super) fn compact_total(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    factored: &Factored,
) -> Option<f64> {
    let lin = &factored.system.lin;
    let parts = lin.plan.map(|chunks| {
        let mut total = 0.0;
        for c in chunks {
            let chunk = lin.chunk(problem, state, c);
            for index in 0..chunk.len() {
                let view = chunk.row(problem, state, index);
                total += closed_term(problem, state, rho, &view)?.1.value;
                for_each_bounded(problem, state, rho, &view, |_, _, term| total += term.value);
            }
        }
        Some(total)
    });
    parts.into_iter().sum()
}

/// What the derivatives of compact terms through s are added to.
pub(super) struct SecondSums<'a> {
    /// The blocks of the chunk's rows, end to end.
    pub local: &'a mut [f64],
    /// M x p.
    pub border: &'a mut Array2<f64>,
    pub rho: &'a mut [f64],
    /// Minus the derivative in ln phi of the data's part: the trace of eta against that of s, and what held coordinates add.
    pub data: &'a mut f64,
}

/// What the terms of a row have of one atom's s, and of its point.
struct Bend<'a> {
    atom: AtomView<'a>,
    /// Of the atom in the row's support.
    place: usize,
    /// Local coordinates of the atom.
    axes: Vec<usize>,
    /// Derivative in s, over pairs of them.
    eta: Vec<f64>,
    /// Places among the axes of the first of a sphere's two.
    spheres: Vec<usize>,
    /// A coordinate with ends, alone.
    bounded: Option<BoundedTerm>,
}

/// All of a row.
fn bends_of<'a>(problem: &'a Problem, state: &State, rho: &SaeManifoldRho, view: RowView<'a>) -> Vec<Bend<'a>> {
    let mut out = Vec::new();
    if let Some((closed, term)) = closed_term(problem, state, rho, &view) {
        let slots: Vec<usize> = closed.slots().collect();
        for (place, atom) in view.atoms().enumerate() {
            let dim = problem.atoms()[atom.atom].dim();
            let own: Vec<usize> =
                (0..slots.len()).filter(|&a| (atom.slot..atom.slot + dim).contains(&slots[a])).collect();
            if own.is_empty() {
                continue;
            }
            let axes = own.iter().map(|&a| slots[a] - atom.slot).collect();
            let pairs = own.iter().flat_map(|&a| own.iter().map(move |&b| (a, b)));
            let eta = pairs.map(|(a, b)| term.by_second[a * slots.len() + b]).collect();
            let directions: Vec<usize> = (0..own.len()).filter(|&a| closed.is_direction(own[a])).collect();
            let spheres = directions.into_iter().step_by(2).collect();
            out.push(Bend { atom, place, axes, eta, spheres, bounded: None });
        }
    }
    for_each_bounded(problem, state, rho, &view, |atom, part, term| {
        let place = view.support.binary_search(&(atom.atom as u32)).expect("an atom of the support");
        let atom = view.atoms().nth(place).expect("an atom of the support");
        let (axes, eta) = (vec![part.axis], vec![term.by_second]);
        out.push(Bend { atom, place, axes, eta, spheres: Vec::new(), bounded: Some(*term) });
    });
    out
}

/// Adds the derivatives of a chunk's compact terms through s, through points between ends, and of what is held.
pub(super) fn add_second_terms(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    chunk: &Chunk,
    sums: SecondSums<'_>,
) {
    let SecondSums { local, border, rho: by_rho, data } = sums;
    let decoders = &state.decoders;
    let inverse = 1.0 / rho.dispersion();
    let layout = state.layout_of_rows();
    let origin = layout.block(chunk.rows.start).start;

    let mut residual = chunk.phi.times(decoders);
    residual -= &problem.rows(chunk.rows.clone());
    let scaled = |mut rows: Array2<f64>| {
        problem.weigh(chunk.rows.clone(), inverse, &mut rows);
        rows
    };
    let residual = scaled(residual);
    let against = chunk.phi.meeting(&residual, decoders);

    // Psi, and what a row's own variables move at once
    let mut bends = chunk.phi.zeros_like();
    let mut jet = BasisJet::new(0, 0);
    let mut third = Vec::new();
    for index in 0..chunk.len() {
        let view = chunk.row(problem, state, index);
        let out = &mut local[layout.block(view.row).start - origin..layout.block(view.row).end - origin];
        for Bend { atom, place, axes, eta, spheres, bounded } in bends_of(problem, state, rho, view) {
            let kind = &*problem.atoms()[atom.atom];
            let (dim, width) = (kind.dim(), kind.width());
            let point = state.point(atom.atom, view.row);
            if (jet.phi.len(), jet.d1.len()) != (width, width * dim) {
                jet = BasisJet::new(dim, width);
            }
            kind.jet(point, &mut jet);
            third.clear();
            third.resize(dim * dim * dim * width, 0.0);
            kind.third(point, &mut third);
            let against = against.part(index, place);
            let n = axes.len();
            let mut bend = vec![0.0; width];
            let moves: Vec<usize> = (0..dim).filter(|c| view.pull_at(atom.slot + c).is_none()).collect();
            let j = axes[0];
            let (by_slope, by_point) = bounded.map_or((0.0, 0.0), |term| (term.by_slope, term.by_point));
            if !moves.contains(&j) {
                axpy(by_slope, &jet.d1[j * width..(j + 1) * width], &mut bend);
                for &c in &moves {
                    let at = (j * dim + c) * width;
                    out[view.position(atom.slot + c)] += atom.gate * by_slope * dot(&jet.d2[at..at + width], against);
                }
                let along = &jet.d1[j * width..(j + 1) * width];
                let axis = HeldDirection { problem, decoders, row: view.row, atom: &atom, along, gate: atom.gate };
                let tangent = axis.tangent(inverse);
                let strength = problem.gate().value_slope(rho.lambda_sparse(), atom.atom);
                let curvature = tangent.add_border(eta[0], border);
                for (u, da) in atom.gate_d1.iter().enumerate() {
                    out[view.position(u)] += 2.0 * eta[0] * atom.gate * da * tangent.length();
                }
                for &c in &moves {
                    let at = (j * dim + c) * width;
                    out[view.position(atom.slot + c)] += tangent.slope(eta[0], &jet.d2[at..at + width]);
                }
                *data += eta[0] * curvature;
                by_rho[0] += 2.0 * strength * eta[0] * curvature;
            } else {
                out[view.position(atom.slot + j)] += by_point;
            }
            for (i, weight) in eta.iter().enumerate() {
                let pair = axes[i / n] * dim + axes[i % n];
                axpy(*weight, &jet.d2[pair * width..(pair + 1) * width], &mut bend);
                for &c in &moves {
                    let at = (pair * dim + c) * width;
                    out[view.position(atom.slot + c)] += atom.gate * weight * dot(&third[at..at + width], against);
                }
            }
            for first in spheres {
                // `third` is symmetric; carrying second derivatives along the unit sphere has a curvature term beside it,
                // -1/3 [2 delta_ab F_c - delta_bc F_a - delta_ca F_b]
                let own = [first, first + 1];
                let slope = |a: usize| 2.0 / 3.0 * atom.gate * dot(&jet.d1[axes[a] * width..][..width], against);
                let slopes = own.map(slope);
                let trace: f64 = own.iter().map(|a| eta[a * (n + 1)]).sum();
                for (c, slope) in own.iter().zip(slopes) {
                    let turned: f64 = own.iter().zip(slopes).map(|(a, slope)| eta[c * n + a] * slope).sum();
                    out[view.position(atom.slot + axes[*c])] += turned - trace * slope;
                }
            }
            let by_gate = dot(&bend, against);
            for (u, da) in atom.gate_d1.iter().enumerate() {
                out[view.position(u)] += da * by_gate;
            }
            *data += atom.gate * by_gate;
            by_rho[0] += problem.gate().value_slope(rho.lambda_sparse(), atom.atom) * atom.gate * by_gate;
            coordinate_priors(kind, rho, atom.atom, point, |j, prior| {
                if let Some(a) = axes.iter().position(|axis| *axis == j) {
                    let weight = eta[a * (n + 1)];
                    out[view.position(atom.slot + j)] += weight * (prior.d_curvature - prior.d_majoriser);
                    if rho.ard(atom.atom, j).is_some() {
                        by_rho[rho.ard_slot(atom.atom, j)] += weight * prior.beyond();
                    }
                }
            });
            axpy(atom.gate, &bend, bends.part_mut(index, place));
        }
    }

    for index in 0..chunk.len() {
        let view = chunk.row(problem, state, index);
        let out = &mut local[layout.block(view.row).start - origin..layout.block(view.row).end - origin];
        for_each_open(problem, state, rho, &view, |u, term| {
            out[view.position(u)] += term.by_point;
            let Some((by_slope, wall)) = term.held else { return };
            let atom = view.atoms().nth(u).expect("an atom of the support");
            let against = against.part(index, u);
            let pull = by_slope * wall.gate;
            for (c, d1) in atom.phi_d1.chunks_exact(atom.phi.len()).enumerate() {
                out[view.position(atom.slot + c)] += pull * dot(d1, against);
            }
            axpy(pull, atom.phi, bends.part_mut(index, u));
            let axis =
                HeldDirection { problem, decoders, row: view.row, atom: &atom, along: atom.phi, gate: wall.gate };
            let tangent = axis.tangent(inverse);
            let curvature = tangent.add_border(term.by_curvature, border);
            for (c, d1) in atom.phi_d1.chunks_exact(atom.phi.len()).enumerate() {
                out[view.position(atom.slot + c)] += tangent.slope(term.by_curvature, d1);
            }
            *data += pull * dot(atom.phi, against) + term.by_curvature * curvature;
            by_rho[0] += rho.lambda_sparse() * (by_slope * wall.energy + term.by_curvature * wall.bend.max(0.0));
        });
    }

    // the residual moves with everything
    let carried = scaled(bends.times(decoders));
    bends.add_transposed(residual.view(), border.view_mut());
    chunk.phi.add_transposed(carried.view(), border.view_mut());
    let pulled = chunk.phi.meeting(&carried, decoders);
    let mut gradient = Vec::new();
    for index in 0..chunk.len() {
        let view = chunk.row(problem, state, index);
        gradient.clear();
        gradient.resize(view.q, 0.0);
        view.pull(&pulled, index, 1.0, &mut gradient);
        let start = layout.block(view.row).start - origin;
        for (u, g) in gradient.iter().enumerate() {
            local[start + view.position(u)] += g;
        }
        for (s, atom) in view.atoms().enumerate() {
            let slope = problem.gate().value_slope(rho.lambda_sparse(), atom.atom);
            if slope != 0.0 {
                by_rho[0] += slope * atom.gate * dot(atom.phi, pulled.part(index, s));
            }
        }
    }
}
