//! The compact terms of V over the rows, and their derivatives.
//!
//! A term depends on a compact part's block h of H and on s, the rest of the exact curvature: `a <gamma_ab, r> w/phi` and what the
//! coordinates' priors have beyond their part of H. With eta the derivative in s of all terms of a row, symmetric in a, b,
//!
//! ```text
//! sum eta_ab ds_ab = w/phi [ <Psi dB, r> + <Psi B, dx> + sum_k da_k eta_ab <gamma_ab, r> + a_k eta_ab <d gamma_ab, r> ]
//! Psi = sum_k a_k eta_ab (Phi_k)_ab   over the stacked columns,      dx = D du B + phi dB
//! ```
//!
//! so the border's derivative is two products of a chunk, and a row's are pulls of stacked vectors.
//!
//! A coordinate j that is held has a term of its slope g = a <gamma_j, r> w/phi as well, which joins Psi as
//! `C_g (Phi_k)_j`, and of h = a^2 |gamma_j|^2 w/phi, which is no entry of H and is differentiated here. It does not move.

use crate::arrow::Factored;
use crate::atoms::BasisJet;
use crate::linalg::{axpy, dot};
use crate::priors::{block_of, compact_parts, coordinate_priors, CompactPart, CompactTerm};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::row::{AtomView, Chunk, RowView};
use crate::state::State;
use ndarray::Array2;

/// Calls `visit` with every compact part of a row's atoms, and its term.
pub(super) fn for_each_compact(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    view: &RowView<'_>,
    mut visit: impl FnMut(&AtomView<'_>, &CompactPart, &CompactTerm),
) {
    for atom in view.atoms() {
        let kind = &*problem.atoms()[atom.atom];
        for part in compact_parts(kind.factors()) {
            let n = part.axes.len();
            let h = block_of(&part.axes, view.curvature, view.q, atom.slot);
            let mut second = block_of(&part.axes, view.second, view.q, atom.slot);
            coordinate_priors(kind, rho, atom.atom, state.point(atom.atom, view.row), |j, prior| {
                if let Some(a) = part.axes.iter().position(|axis| *axis == j) {
                    second[a * (n + 1)] += prior.beyond();
                }
            });
            let point = state.point(atom.atom, view.row);
            let pull = if part.axes.len() == 1 { view.pull_at(atom.slot + part.axes[0]) } else { None };
            // H was factored, so its blocks are positive definite
            if let Some(term) = part.term(&h, &second, point, pull) {
                visit(&atom, &part, &term);
            }
        }
    }
}

/// The sum of all compact terms.
pub(super) fn compact_total(problem: &Problem, state: &State, rho: &SaeManifoldRho, factored: &Factored) -> f64 {
    let lin = &factored.system.lin;
    let parts = lin.plan.map(|chunks| {
        let mut total = 0.0;
        for c in chunks {
            let chunk = lin.chunk(problem, state, c);
            for index in 0..chunk.len() {
                let view = chunk.row(problem, state, index);
                for_each_compact(problem, state, rho, &view, |_, _, term| total += term.value);
            }
        }
        total
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

/// Adds the derivatives of a chunk's compact terms through s, through points between ends, and of held coordinates.
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
        for_each_compact(problem, state, rho, &view, |atom, part, term| {
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
            let place = view.support.binary_search(&(atom.atom as u32)).expect("an atom of the support");
            let against = against.part(index, place);
            let (n, eta) = (part.axes.len(), &term.by_second);
            let mut bend = vec![0.0; width];
            let moves: Vec<usize> = (0..dim).filter(|c| view.pull_at(atom.slot + c).is_none()).collect();
            let held = n == 1 && !moves.contains(&part.axes[0]);
            if held {
                let j = part.axes[0];
                axpy(term.by_slope, &jet.d1[j * width..(j + 1) * width], &mut bend);
                for &c in &moves {
                    let at = (j * dim + c) * width;
                    out[view.position(atom.slot + c)] +=
                        atom.gate * term.by_slope * dot(&jet.d2[at..at + width], against);
                }
                let pull = PulledAxis { problem, decoders, view: &view, atom, jet: &jet, axis: j, moves: &moves };
                let strength = problem.gate().value_slope(rho.lambda_sparse(), atom.atom);
                let curvature = pull.add_curvature_terms(eta[0], inverse, out, border);
                *data += eta[0] * curvature;
                by_rho[0] += 2.0 * strength * eta[0] * curvature;
            } else {
                out[view.position(atom.slot + part.axes[0])] += term.by_point;
            }
            for (i, weight) in eta.iter().enumerate() {
                let pair = part.axes[i / n] * dim + part.axes[i % n];
                axpy(*weight, &jet.d2[pair * width..(pair + 1) * width], &mut bend);
                for &c in &moves {
                    let at = (pair * dim + c) * width;
                    out[view.position(atom.slot + c)] += atom.gate * weight * dot(&third[at..at + width], against);
                }
            }
            if part.is_sphere() {
                // `third` is symmetric; carrying second derivatives along the unit sphere has a curvature term beside it,
                // -1/3 [2 delta_ab F_c - delta_bc F_a - delta_ca F_b]
                let slope = |a: &usize| 2.0 / 3.0 * atom.gate * dot(&jet.d1[a * width..(a + 1) * width], against);
                let slopes: Vec<f64> = part.axes.iter().map(slope).collect();
                for (c, axis) in part.axes.iter().enumerate() {
                    let turned = dot(&eta[c * n..(c + 1) * n], &slopes);
                    out[view.position(atom.slot + axis)] += turned - (eta[0] + eta[3]) * slopes[c];
                }
            }
            let by_gate = dot(&bend, against);
            for (u, da) in atom.gate_d1.iter().enumerate() {
                out[view.position(u)] += da * by_gate;
            }
            *data += atom.gate * by_gate;
            by_rho[0] += problem.gate().value_slope(rho.lambda_sparse(), atom.atom) * atom.gate * by_gate;
            coordinate_priors(kind, rho, atom.atom, point, |j, prior| {
                if let Some(a) = part.axes.iter().position(|axis| *axis == j) {
                    let weight = eta[a * (n + 1)];
                    out[view.position(atom.slot + j)] += weight * (prior.d_curvature - prior.d_majoriser);
                    if rho.ard(atom.atom, j).is_some() {
                        by_rho[rho.ard_slot(atom.atom, j)] += weight * prior.beyond();
                    }
                }
            });
            axpy(atom.gate, &bend, bends.part_mut(index, place));
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

/// A held coordinate of a row.
struct PulledAxis<'a> {
    problem: &'a Problem,
    decoders: &'a Array2<f64>,
    view: &'a RowView<'a>,
    atom: &'a AtomView<'a>,
    /// As if nothing were held.
    jet: &'a BasisJet,
    axis: usize,
    /// Coordinates of the atom that are not held.
    moves: &'a [usize],
}

impl PulledAxis<'_> {
    /// Adds `weight` times the derivatives of `h = a^2 |gamma_j|^2 w/phi` to those of the row and of the border, and returns h.
    fn add_curvature_terms(&self, weight: f64, inverse: f64, out: &mut [f64], border: &mut Array2<f64>) -> f64 {
        let (atom, width) = (self.atom, self.jet.phi.len());
        let dim = self.jet.d1.len() / width;
        let d1 = &self.jet.d1[self.axis * width..(self.axis + 1) * width];
        let block = self.decoders.slice(ndarray::s![atom.rows.clone(), ..]);
        let mut tangent = ndarray::ArrayView1::from(d1).dot(&block).insert_axis(ndarray::Axis(0));
        self.problem.weigh(self.view.row..self.view.row + 1, inverse, &mut tangent);
        let tangent = tangent.row(0);
        let seen = block.dot(&tangent).to_vec();
        let length = dot(d1, &seen);
        for (u, da) in atom.gate_d1.iter().enumerate() {
            out[self.view.position(u)] += 2.0 * weight * atom.gate * da * length;
        }
        let twice = 2.0 * weight * atom.gate * atom.gate;
        for c in self.moves {
            let at = (self.axis * dim + c) * width;
            out[self.view.position(atom.slot + c)] += twice * dot(&self.jet.d2[at..at + width], &seen);
        }
        for (m, d) in atom.rows.clone().zip(d1) {
            border.row_mut(m).scaled_add(twice * d, &tangent);
        }
        atom.gate * atom.gate * length
    }
}
