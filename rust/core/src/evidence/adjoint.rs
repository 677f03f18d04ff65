//! The log-determinant adjoint: derivatives of E = V - L in the inner variables, and its explicit ones in rho.
//!
//! With `X = H~^-1 + Y Theta Y'` every determinant of V moves as `1/2 tr(X dH)` plus terms of the decoder's gauge
//! tangents, and the compact terms add twice their derivatives in h to X's diagonal. The data part of H is `sum_i J_i'J_i w/phi` with
//! `J_i = [L_i' | phi_i' (x) I]`, so `1/2 tr(X dH) = sum_i w/phi <dJ_i, J_i X>`: a row needs `K_i = (X J_i')` over its
//! local variables (q x r) and the partial trace kappa_i over channels of its border part (M).

use super::border_rows::BorderRows;
use super::columns::add_column_traces;
use super::compact::{add_second_terms, closed_term, for_each_bounded, SecondSums};
use super::followed::Followed;
use super::gauge_terms::{add_gauge_terms, add_orbit_roughness, add_velocity_terms, Orbit};
use super::orbit::tangent_rows;
use super::scale::add_scales;
use super::sides::{closed_slope, for_each_open};
use super::sparse::SparseStep;
use super::value::Evidence;
use crate::arrow::{Direction, Factored, GaugeColumn, RowTraces, Step};
use crate::gates::GatePrior;
use crate::linalg::{axpy, dot};
use crate::priors::coordinate_priors;
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::row::{row_program, AtomView, Chunk, PackedJets, RowView};
use crate::state::State;
use crate::wire::wired;
use ndarray::{s, Array1, Array2, ArrayView2};
use std::borrow::Cow;
use std::ops::Range;

/// Derivatives of E.
pub struct Adjoint {
    /// In the inner variables.
    pub theta: Step,
    /// Explicit, in the flat vector of strengths.
    pub rho: Vec<f64>,
    /// `tr X H_data`.
    pub data: f64,
}

/// What one segment sums.
struct Sums {
    local: Vec<f64>,
    /// Border part in the frame, M x r.
    border: Array2<f64>,
    /// Border part outside it as well, M x p, where the residual itself is seen.
    full: Array2<f64>,
    data_trace: f64,
    rho: Vec<f64>,
    /// Diagonal of X on the rows' free logits, where a prior couples their columns.
    logits: Vec<f64>,
}

wired!(Sums { local, data_trace, rho, logits; border, full });

/// The inverse whose traces are taken: `X = H~^-1 + columns * theta * columns'`.
pub(super) struct Inverse<'a> {
    pub(super) columns: Vec<Cow<'a, SparseStep>>,
    pub(super) theta: Array2<f64>,
    /// How many of the columns come from solves; the others are an estimate's directions.
    pub(super) solved: usize,
    /// Those of solves that are not zero.
    moving: Vec<usize>,
    /// The columns' border parts, in the frame.
    pub(super) border: Vec<BorderRows>,
    /// Whether the compact terms' 2 c'(h) is added to its diagonal.
    compact: bool,
}

impl<'a> Inverse<'a> {
    fn new(
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        factored: &'a Factored,
        columns: &'a [SparseStep],
        theta: &Array2<f64>,
    ) -> Self {
        let mut columns: Vec<Cow<'a, SparseStep>> = columns.iter().map(Cow::Borrowed).collect();
        let mut theta = theta.clone();
        if let Some(coupling) = &factored.coupling {
            // the columns that couple all rows correct the inverse in the same form
            columns.extend(coupling.solved.iter().map(|y| Cow::Owned(SparseStep::from(y))));
            theta = beside(&theta, &-&coupling.core);
        }
        let solved = columns.len();
        if let Some(estimate) = factored.estimated() {
            let directions = estimate.directions();
            let followed = |d: &Direction| {
                let local = estimate.followed(problem, state, rho, &factored.system, &d.border);
                SparseStep::new(local.into_iter().enumerate(), BorderRows::all(d.border.clone()))
            };
            columns.extend(directions.iter().map(|d| Cow::Owned(followed(d))));
            theta = beside(&theta, &Array2::from_diag(&directions.iter().map(|d| d.weight).collect::<Array1<f64>>()));
        }
        let frame = &factored.system.lin.frame;
        let in_frame = |y: &Cow<'_, SparseStep>| match frame.is_full() || y.border.is_empty() {
            true => y.border.clone(),
            false => {
                let mut whole = Array2::zeros(state.decoders.dim());
                y.border.add_to(1.0, 0, &mut whole);
                BorderRows::trimmed(&frame.split(&whole).0)
            }
        };
        let border = columns.iter().map(in_frame).collect();
        let moving = (0..solved).filter(|&g| !columns[g].is_zero()).collect();
        Self { columns, theta, solved, moving, border, compact: false }
    }
}

impl Inverse<'_> {
    /// The low-rank part of X between some stacked rows, against a vector over them: all of X over the border where its
    /// determinant is an estimate.
    pub(super) fn over(&self, rows: Range<usize>, x: &Array2<f64>) -> Array2<f64> {
        let seen: Array1<f64> = self.border.iter().map(|y| y.dot_rows(rows.start, x.view())).collect();
        let mut out = Array2::zeros(x.dim());
        for (y, factor) in self.border.iter().zip(&self.theta.dot(&seen)) {
            y.add_to(*factor, rows.start, &mut out);
        }
        out
    }
}

/// A block diagonal matrix.
fn beside(a: &Array2<f64>, b: &Array2<f64>) -> Array2<f64> {
    let (j, more) = (a.nrows(), b.nrows());
    let mut out = Array2::zeros((j + more, j + more));
    out.slice_mut(s![..j, ..j]).assign(a);
    out.slice_mut(s![j.., j..]).assign(b);
    out
}

/// Half the traces of X against the derivatives of H.
struct HalfTraces {
    theta: Step,
    /// Explicit in the strengths of the rows' priors (logits and coordinates).
    rho: Vec<f64>,
    /// Against the data part of H.
    data: f64,
    /// Against R_k, per atom.
    roughness: Vec<f64>,
}

/// Gamma of chapter 2: `tr(H^-1 dH/dtheta)`, with `H^-1 = H~^-1 + (G - Y) Theta (G - Y)'`.
pub fn log_det_adjoint(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    factored: &Factored,
    evidence: &Evidence,
) -> Step {
    let mut columns = tangents(problem, state, factored);
    columns.iter_mut().zip(&evidence.solved).for_each(|(g, y)| *g = g.minus(y, state.decoders.dim()));
    let inverse = Inverse::new(problem, state, rho, factored, &columns, &evidence.theta);
    let mut theta = half_traces(problem, state, rho, factored, &inverse).theta;
    theta.scale(2.0);
    state.frames.project(problem, &mut theta.border);
    theta
}

/// The gauge tangents G over all variables.
fn tangents(problem: &Problem, state: &State, factored: &Factored) -> Vec<SparseStep> {
    let tangent = |column: &GaugeColumn| {
        let border = BorderRows::new(problem.rows_of(column.atom).start, column.border.clone());
        SparseStep::new(tangent_rows(problem, state, column).into_iter(), border)
    };
    factored.system.gauge.columns.iter().map(tangent).collect()
}

/// Differentiates E at the factored state.
pub fn evidence_adjoint(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    factored: &Factored,
    evidence: &Evidence,
) -> Adjoint {
    let inverse = Inverse::new(problem, state, rho, factored, &evidence.solved, &evidence.theta);
    let inverse = Inverse { compact: problem.is_proper(), ..inverse };
    let traces = half_traces(problem, state, rho, factored, &inverse);
    let HalfTraces { mut theta, rho: mut by_rho, data, mut roughness } = traces;
    let orbit = Orbit::new(problem, factored, evidence, &inverse);
    add_gauge_terms(problem, factored, evidence, &orbit, &mut theta.border);
    add_velocity_terms(problem, state, rho, factored, evidence, &mut theta.local);
    add_orbit_roughness(problem, factored, &orbit, &mut roughness);
    add_scales(problem, state, rho, factored, &evidence.scales, &mut theta, &mut by_rho, &mut roughness);
    state.frames.project(problem, &mut theta.border);
    for (k, trace) in roughness.iter().enumerate() {
        by_rho[1 + k] += trace;
    }
    if let Some(slot) = rho.dispersion_slot() {
        by_rho[slot] -= data + roughness.iter().sum::<f64>();
    }
    let mut adjoint = Adjoint { theta, rho: by_rho, data: 2.0 * data };
    if problem.is_proper() {
        adjoint.rho[0] += closed_slope(problem, state, rho);
    }
    adjoint
}

/// Half the traces of X against dH, by one pass over the rows.
fn half_traces(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    factored: &Factored,
    inverse: &Inverse<'_>,
) -> HalfTraces {
    let system = &factored.system;
    let frame = &system.lin.frame;
    let (m, r) = (problem.width(), frame.rank());
    let selected = factored.inverse(problem, state, rho);
    let follows_strength = (0..problem.n_atoms()).any(|k| problem.gate().value_slope(rho.lambda_sparse(), k) != 0.0);
    let full = if inverse.compact { state.decoders.dim() } else { (0, 0) };
    let start = (Array2::zeros((m, r)), Array2::zeros(full));
    let (parts, (border, outside)) = system.lin.plan.map_summed(start, |chunks| {
        let mut sums = Sums {
            local: Vec::new(),
            border: Array2::zeros((m, r)),
            full: Array2::zeros(full),
            data_trace: 0.0,
            rho: vec![0.0; rho.len()],
            logits: Vec::new(),
        };
        for c in chunks {
            let chunk = &*system.lin.chunk(problem, state, c);
            let seen = |&g: &usize| {
                let y = &inverse.border[g];
                if y.is_empty() {
                    return None;
                }
                let mut seen = match y.as_all(m) {
                    Some(all) => chunk.phi.times(all),
                    None => chunk.phi.times_rows(|a| y.row(a), r),
                };
                if let Some(metric) = problem.metric() {
                    for (mut row, i) in seen.rows_mut().into_iter().zip(chunk.rows.clone()) {
                        metric.apply(i, row.as_slice_mut().expect("standard layout"));
                    }
                }
                Some(seen)
            };
            let moved: Vec<Option<Array2<f64>>> = inverse.moving.iter().map(seen).collect();
            let followed = Followed::new(problem, state, chunk, inverse, r);
            let mut work = RowWork {
                problem,
                state,
                rho,
                inverse_dispersion: 1.0 / rho.dispersion(),
                factored,
                inverse,
                chunk,
                moved,
                followed,
                follows_strength,
                scratch: Scratch::default(),
            };
            let begin = sums.local.len();
            selected.visit_rows(problem, state, rho, factored, chunk, |index, view, traces| {
                work.row(index, view, traces, &mut sums);
            });
            if inverse.compact {
                let Sums { local, full, rho: by_rho, data_trace, .. } = &mut sums;
                let mut data = 0.0;
                let out = SecondSums { local: &mut local[begin..], border: full, rho: by_rho, data: &mut data };
                add_second_terms(problem, state, rho, chunk, out);
                // these are whole derivatives, the traces are halved below
                *data_trace += 2.0 * data;
            }
        }
        let over_border = (std::mem::take(&mut sums.border), std::mem::take(&mut sums.full));
        (sums, over_border)
    });
    let mut local = Vec::with_capacity(state.layout_of_rows().len());
    let (mut data_trace, mut by_rho) = (0.0, vec![0.0; rho.len()]);
    let mut logits = Vec::new();
    for part in parts {
        local.extend(part.local);
        data_trace += part.data_trace;
        logits.extend(part.logits);
        axpy(1.0, &part.rho, &mut by_rho);
    }
    add_column_traces(problem, state, factored, inverse, &logits, &mut local, &mut by_rho[0]);
    let mut border = frame.lift(&border);
    if inverse.compact {
        border += &outside;
    }
    HalfTraces {
        theta: Step { local, border },
        rho: by_rho,
        data: 0.5 * data_trace,
        roughness: roughness_traces(problem, factored, inverse, selected.border_trace()),
    }
}

/// One chunk's rows being differentiated.
struct RowWork<'a> {
    problem: &'a Problem,
    state: &'a State,
    rho: &'a SaeManifoldRho,
    inverse_dispersion: f64,
    factored: &'a Factored,
    inverse: &'a Inverse<'a>,
    chunk: &'a Chunk,
    /// phi_i against the generators' solved columns that are not zero, times P_i where rows have a metric: per generator,
    /// rows x r, where it is not zero.
    moved: Vec<Option<Array2<f64>>>,
    followed: Option<Followed>,
    /// Whether the sparsity strength sets the scale of any gate.
    follows_strength: bool,
    scratch: Scratch,
}

#[derive(Default)]
struct Scratch {
    packed: PackedJets,
    prior: GatePrior,
    x: Vec<f64>,
    k: Vec<f64>,
    plain: Vec<f64>,
    kappa: Vec<f64>,
    gradient: Vec<f64>,
    weights: Vec<f64>,
}

impl RowWork<'_> {
    fn row(&mut self, index: usize, view: &RowView<'_>, traces: &RowTraces, sums: &mut Sums) {
        let r = self.factored.system.lin.frame.rank();
        let factor = self.problem.weight(view.row) * self.inverse_dispersion;
        self.effective_inverse(index, view, traces, r);
        let scratch = &mut self.scratch;
        // K has the metric already
        scratch.plain.clear();
        match self.problem.metric() {
            None => scratch.plain.extend_from_slice(view.jacobian),
            Some(_) => {
                scratch.plain.resize(view.q * r, 0.0);
                view.write_jacobian(&self.factored.system.lin.frame.reduced, &mut scratch.plain);
            }
        }
        let jacobian = &scratch.plain;
        let phi = &self.chunk.phi;
        let kappa = &scratch.kappa;
        let seen = |(s, atom): (usize, AtomView<'_>)| dot(&kappa[atom.rows], phi.part(index, s));
        sums.data_trace += factor * (dot(&scratch.k, jacobian) + view.atoms().enumerate().map(seen).sum::<f64>());
        if self.follows_strength {
            // every Jacobian column of an atom carries its gate's scale once
            let lambda = self.rho.lambda_sparse();
            for (s, atom) in view.atoms().enumerate() {
                let own = |u: usize| dot(&scratch.k[u * r..(u + 1) * r], &jacobian[u * r..(u + 1) * r]);
                let coordinates = atom.slot..atom.slot + self.problem.atoms()[atom.atom].dim();
                let border = dot(&kappa[atom.rows.clone()], phi.part(index, s));
                let trace = border + own(s) + coordinates.map(own).sum::<f64>();
                sums.rho[0] += self.problem.gate().value_slope(lambda, atom.atom) * factor * trace;
            }
        }

        scratch.gradient.clear();
        scratch.gradient.resize(view.q, 0.0);
        view.pull_whole(&scratch.kappa, factor, &mut scratch.gradient);
        self.second_derivatives(view, factor, r);
        self.border(view, factor, r, &mut sums.border);

        let block = sums.local.len();
        sums.local.resize(block + self.state.layout_of_rows().row_q_active(view.row), 0.0);
        let out = &mut sums.local[block..];
        for (u, g) in self.scratch.gradient.iter().enumerate() {
            out[view.position(u)] += g;
        }
        self.priors(view, out, &mut sums.rho, &mut sums.logits);
    }

    /// Fills x = X with the compact terms on its diagonal (q x q), K = X J' (q x r) and kappa (M).
    fn effective_inverse(&mut self, index: usize, view: &RowView<'_>, traces: &RowTraces, r: usize) {
        let q = view.q;
        let Scratch { x, k, kappa, .. } = &mut self.scratch;
        // motions that an estimate has taken from H leave columns of zeros
        let moving = &self.inverse.moving;
        let theta = |g: usize, h: usize| self.inverse.theta[[moving[g], moving[h]]];
        let j = moving.len();
        let layout = self.state.layout_of_rows();
        let block = layout.block(view.row);
        // the generators' solved columns over this row's coupled variables, and J_i against them
        let positions: Vec<usize> = (0..q).map(|u| block.start + view.position(u)).collect();
        let mut local = vec![0.0; j * q];
        for (&g, own) in moving.iter().zip(local.chunks_exact_mut(q.max(1))) {
            for (at, v) in self.inverse.columns[g].within(block.clone()) {
                if let Some(u) = positions.iter().position(|p| *p == at) {
                    own[u] = v;
                }
            }
        }
        let y = |g: usize, u: usize| local[g * q + u];
        x.clear();
        x.extend_from_slice(&traces.local);
        k.clear();
        k.extend_from_slice(&traces.against_phi);
        kappa.clear();
        kappa.extend_from_slice(&traces.border);
        if let Some(followed) = &self.followed {
            followed.add_row(index, x, k);
            view.atoms().enumerate().for_each(|(s, atom)| followed.add_atom(index, s, atom.rows, kappa));
        }
        // columns of other groups of atoms do not reach this row
        let none = vec![0.0; r];
        let moved = |g: usize| match &self.moved[g] {
            Some(moved) => moved.row(index).to_slice().expect("standard layout"),
            None => &none,
        };
        let reaches = |g: &usize| {
            let borders = self.moved[*g].is_some() && moved(*g).iter().any(|v| *v != 0.0);
            borders || (0..q).any(|u| y(*g, u) != 0.0)
        };
        let reaching: Vec<usize> = (0..j).filter(reaches).collect();
        let (mut of_local, mut of_border) = (vec![0.0; q], vec![0.0; r]);
        for &g in &reaching {
            // with W = sum_h Theta_gh Y_h over the row: its variables, and phi_i against its border
            of_local.fill(0.0);
            of_border.fill(0.0);
            for &h in &reaching {
                let t = theta(g, h);
                if t == 0.0 {
                    continue;
                }
                (0..q).for_each(|v| of_local[v] += t * y(h, v));
                axpy(t, moved(h), &mut of_border);
            }
            for u in 0..q {
                axpy(y(g, u), &of_local, &mut x[u * q..(u + 1) * q]);
                axpy(y(g, u), &of_border, &mut k[u * r..(u + 1) * r]);
            }
            for (u, v) in of_local.iter().enumerate() {
                axpy(*v, &view.jacobian[u * r..(u + 1) * r], &mut of_border);
            }
            for a in view.atoms().flat_map(|atom| atom.rows) {
                if let Some(row) = self.inverse.border[moving[g]].row(a) {
                    kappa[a] += dot(row, &of_border);
                }
            }
        }
        if let Some(spectrum) = self.factored.factor.nulls().of(view.row) {
            spectrum.pull(x);
        }
        if self.inverse.compact {
            for_each_open(self.problem, self.state, self.rho, view, |u, term| {
                if term.held.is_none() {
                    x[u * q + u] += 2.0 * term.by_curvature;
                }
            });
            if let Some((axes, term)) = closed_term(self.problem, self.state, self.rho, view) {
                let pairs = axes.slots().flat_map(|u| axes.slots().map(move |v| u * q + v));
                pairs.zip(&term.by_curvature).for_each(|(at, slope)| x[at] += 2.0 * slope);
            }
            for_each_bounded(self.problem, self.state, self.rho, view, |atom, part, term| {
                x[(atom.slot + part.axis) * (q + 1)] += 2.0 * term.by_curvature;
            });
        }
        for u in 0..q {
            for v in 0..q {
                axpy(x[u * q + v], &view.jacobian[v * r..(v + 1) * r], &mut k[u * r..(u + 1) * r]);
            }
        }
    }

    /// Adds `w/phi sum_a <d2 x_i / da du, K_a>` over local pairs, x_i being the reconstruction.
    ///
    /// Seen along K_a the reconstruction is one output column, whose decoder is `B K_a`: a row program of q columns has all
    /// the second derivatives that are asked for.
    fn second_derivatives(&mut self, view: &RowView<'_>, factor: f64, r: usize) {
        let q = view.q;
        if q == 0 {
            return;
        }
        let frame = &self.factored.system.lin.frame;
        let along = ArrayView2::from_shape((q, r), &self.scratch.k).expect("K has a row for each variable");
        let program = row_program(self.problem, self.state, self.rho, view, |rows| {
            frame.reduced.slice(s![rows, ..]).dot(&along.t())
        });
        program.reconstruction_all_columns_packed_into(&mut self.scratch.packed);
        let hessians = self.scratch.packed.derivatives(2);
        for (a, hessian) in hessians.chunks_exact(q * q).enumerate() {
            axpy(factor, &hessian[a * q..(a + 1) * q], &mut self.scratch.gradient);
        }
    }

    /// Adds `w/phi D_i' K_i` to the border's derivative in the frame.
    fn border(&self, view: &RowView<'_>, factor: f64, r: usize, border: &mut Array2<f64>) {
        let k = &self.scratch.k;
        let mut of_gate = vec![0.0; r];
        for atom in view.atoms() {
            let width = atom.phi.len();
            of_gate.fill(0.0);
            for (u, da) in atom.gate_d1.iter().enumerate() {
                axpy(*da, &k[u * r..(u + 1) * r], &mut of_gate);
            }
            for (m, row) in atom.rows.clone().enumerate() {
                let mut out = border.row_mut(row);
                let out = out.as_slice_mut().expect("standard layout");
                axpy(factor * atom.phi[m], &of_gate, out);
                for (j, d1) in atom.phi_d1.chunks_exact(width).enumerate() {
                    let u = atom.slot + j;
                    axpy(factor * atom.gate * d1[m], &k[u * r..(u + 1) * r], out);
                }
            }
        }
    }

    /// Derivatives of the priors' curvature, in the row's variables and in the strengths.
    fn priors(&mut self, view: &RowView<'_>, out: &mut [f64], by_rho: &mut [f64], diagonal: &mut Vec<f64>) {
        let Scratch { x, prior, weights, .. } = &mut self.scratch;
        let q = view.q;
        let atoms = self.state.layout_of_rows().logit_atoms(view.row);
        if !atoms.is_empty() {
            let (nulls, system) = (self.factored.factor.nulls(), &self.factored.system);
            weights.clear();
            weights.extend((0..atoms.len()).map(|f| nulls.logit_weight(self.problem, system, view.row, f)));
            for u in 0..view.free {
                weights[view.position(u)] = x[u * q + u];
            }
            let logits = self.state.logits_of(view.row);
            let half = 0.5 * self.rho.lambda_sparse();
            self.problem.gate().majoriser_adjoint(logits, half, weights, &mut out[..atoms.len()]);
            self.problem.gate().prior(logits, prior);
            by_rho[0] += half * dot(weights, &prior.majoriser);
            if self.factored.coupling.is_some() {
                diagonal.extend_from_slice(weights);
            }
        }
        for atom in view.atoms() {
            let point = self.state.point(atom.atom, view.row);
            coordinate_priors(&*self.problem.atoms()[atom.atom], self.rho, atom.atom, point, |j, term| {
                let u = atom.slot + j;
                let half = 0.5 * x[u * q + u];
                out[view.position(u)] += half * term.d_majoriser;
                if self.rho.ard(atom.atom, j).is_some() {
                    by_rho[self.rho.ard_slot(atom.atom, j)] += half * term.majoriser;
                }
            });
        }
    }
}

/// `1/2 tr(X (R_k (x) I))` for every atom.
fn roughness_traces(
    problem: &Problem,
    factored: &Factored,
    inverse: &Inverse<'_>,
    border_trace: Option<&Array2<f64>>,
) -> Vec<f64> {
    let pairs: Vec<(usize, usize, f64)> =
        inverse.theta.indexed_iter().filter(|(_, t)| **t != 0.0).map(|((a, b), t)| (a, b, *t)).collect();
    (0..problem.n_atoms())
        .map(|k| {
            let rows = problem.rows_of(k);
            let roughness = &factored.system.lin.prior.roughness[k];
            let own: Vec<Option<Array2<f64>>> = inverse.border.iter().map(|y| y.over(rows.clone())).collect();
            let rough: Vec<Option<Array2<f64>>> = own.iter().map(|y| y.as_ref().map(|y| roughness.dot(y))).collect();
            let against = |(a, b, t): &(usize, usize, f64)| match (&own[*a], &rough[*b]) {
                (Some(own), Some(rough)) => t * own.iter().zip(rough).map(|(x, y)| x * y).sum::<f64>(),
                _ => 0.0,
            };
            let exact = border_trace.map_or(0.0, |trace| {
                let block = trace.slice(s![rows.clone(), rows]);
                block.iter().zip(&roughness.t()).map(|(t, r)| t * r).sum::<f64>()
            });
            0.5 * (exact + pairs.iter().map(against).sum::<f64>())
        })
        .collect()
}
