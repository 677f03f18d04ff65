//! Values, gradients and curvature of all rows in one pass over the data.

use super::columns::Columns;
use super::priors::{add_normalisers, drop_coordinate_constants, held, pin_unseen, prior_terms, LossParts};
use super::second::{add_second, SecondAtom};
use super::stacked::Stacked;
use super::tape::{Chunk, HeldAxis};
use crate::arrow::{steps_exactly, Frame};
use crate::atoms::{hold_axis, walls, BasisJet};
use crate::chunks::{bytes_with_gram, Chunks, PerChunk};
use crate::gates::{GatePrior, GateRow};
use crate::gram::{Gram, GramShape};
use crate::linalg::{axpy, dot};
use crate::priors::{coordinate_priors, DecoderPrior, Pull};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::state::State;
use crate::wire::wired;
use ndarray::Array2;
use std::borrow::Cow;
use std::ops::{Deref, Range};

/// The objective at a state, with its gradient and the parts of its curvature.
#[derive(Debug)]
pub struct Linearised {
    /// The linearised rows of this process; `None` where each pass makes them anew.
    kept: Option<PerChunk<Chunk>>,
    pub plan: Chunks,
    rho: SaeManifoldRho,
    pub loss: LossParts,
    /// Gradient over the rows' variables, in the order of the state's layout.
    pub local_gradient: Vec<f64>,
    /// Gradient over the stacked decoders, M x p.
    pub border_gradient: Array2<f64>,
    /// `G_lambda = sum_i w_i phi_i phi_i' / phi + P`.
    pub gram: Gram,
    pub prior: DecoderPrior,
    /// Prior curvature of the rows' logits (strength times majoriser plus the Gaussian's precision), in the order of the state's
    /// layout.
    pub logit_curvature: Vec<f64>,
    /// Where each row's logits lie among all.
    logits: Vec<usize>,
    /// Whether some held coordinate would rather be inside of its interval.
    pub leaves: bool,
    /// Terms of the columns' prior, where the gate has one.
    pub columns: Columns,
    pub frame: Frame,
}

/// One segment's sums.
#[derive(Default)]
struct Sums {
    chunks: Vec<Chunk>,
    loss: LossParts,
    local_gradient: Vec<f64>,
    border_gradient: Array2<f64>,
    gram: Array2<f64>,
    logit_curvature: Vec<f64>,
    leaves: bool,
}

wired!(Sums { loss, local_gradient, logit_curvature, leaves; chunks, border_gradient, gram });

/// A chunk that is kept, or one made for a pass.
pub enum ChunkRef<'a> {
    Kept(&'a Chunk),
    Made(Box<Chunk>),
}

impl Deref for ChunkRef<'_> {
    type Target = Chunk;

    fn deref(&self) -> &Chunk {
        match self {
            Self::Kept(chunk) => chunk,
            Self::Made(chunk) => chunk,
        }
    }
}

impl Linearised {
    /// The linearised rows of one chunk, at the state and strengths that this is of.
    pub fn chunk(&self, problem: &Problem, state: &State, index: usize) -> ChunkRef<'_> {
        if let Some(kept) = self.kept.as_ref().and_then(|kept| kept.get(index)) {
            return ChunkRef::Kept(kept);
        }
        let at = At {
            problem,
            state,
            rho: &self.rho,
            columns: &self.columns,
            frame: &self.frame,
            sums: Wanted::No(&self.logit_curvature),
        };
        let mut sums = Sums::default();
        ChunkRef::Made(Box::new(linearise_chunk(
            &at,
            (index, self.plan.rows(index)),
            &mut sums,
            &mut Scratch::default(),
        )))
    }

    /// Where a row's logits lie among those of all rows.
    pub fn logits(&self, row: usize) -> Range<usize> {
        self.logits[row]..self.logits[row + 1]
    }

    /// All chunks in order.
    pub fn chunks<'a>(&'a self, problem: &'a Problem, state: &'a State) -> impl Iterator<Item = ChunkRef<'a>> {
        (0..self.plan.len()).map(move |index| self.chunk(problem, state, index))
    }

    /// The part of the border that is the same in every channel (M x M): `G = sum w phi phi' / phi_0 + P`, or P alone where
    /// rows have a metric.
    pub fn border_gram(&self, problem: &Problem) -> Cow<'_, Gram> {
        if problem.metric().is_none() {
            return Cow::Borrowed(&self.gram);
        }
        let mut prior = self.gram.zeros_like();
        prior.add_blocks(&self.prior.precision);
        Cow::Owned(prior)
    }
}

/// What rows are linearised at.
struct At<'a> {
    problem: &'a Problem,
    state: &'a State,
    rho: &'a SaeManifoldRho,
    columns: &'a Columns,
    frame: &'a Frame,
    sums: Wanted<'a>,
}

/// Whether the sums over rows are wanted.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    /// With the entries of G that are held.
    Sums(&'a GramShape),
    /// Rows are linearised once more: it is they alone that are wanted. Curvature of their logits' priors.
    No(&'a [f64]),
}

/// Buffers of a pass over one chunk, reused from chunk to chunk.
#[derive(Default)]
struct Scratch {
    gates: Vec<GateRow>,
    second_basis: Vec<f64>,
    second_start: Vec<usize>,
    basis: Vec<f64>,
    basis_d1: Vec<f64>,
    jacobian: Vec<f64>,
    curvature: Vec<f64>,
    second: Vec<f64>,
    local: Vec<f64>,
    prior: GatePrior,
    held: Vec<HeldJet>,
}

/// What is known of a held coordinate, or of a logit that is held at its wall, before the residual is.
struct HeldJet {
    /// Position of its row in the chunk.
    index: usize,
    atom: usize,
    /// Of the atom in the row's support.
    place: usize,
    gate: f64,
    slot: usize,
    inward: f64,
    /// Derivatives of the basis row along it, as if it were free.
    d1: Vec<f64>,
    d2: Vec<f64>,
}

/// Linearises every row. `None` when the decoder prior is not positive definite in floating point.
pub fn linearise(problem: &Problem, state: &State, rho: &SaeManifoldRho, frame: Frame) -> Option<Linearised> {
    let prior = DecoderPrior::new(problem, state, rho)?;
    let (m, p) = (problem.width(), problem.n_outputs());
    let shape = GramShape::new(problem, state.layout_of_rows());
    let plan = problem.chunks(bytes_with_gram(m * p, shape.entries()));
    let columns = Columns::new(problem, state, rho);
    let at = At { problem, state, rho, columns: &columns, frame: &frame, sums: Wanted::Sums(&shape) };
    let mut loss = LossParts { sparsity: columns.energy(), ..LossParts::default() };
    let border_gradient = prior.apply(problem, &state.decoders);
    loss.smoothness = prior.energy(&state.decoders, &border_gradient);
    let start = (border_gradient, shape.zeros());
    let (sums, (border_gradient, gram)) = plan.map_summed(start, |chunks| {
        let mut sums = Sums { border_gradient: Array2::zeros((m, p)), gram: shape.zeros(), ..Sums::default() };
        let mut scratch = Scratch::default();
        for c in chunks {
            let chunk = linearise_chunk(&at, (c, plan.rows(c)), &mut sums, &mut scratch);
            if problem.keeps_rows() {
                sums.chunks.push(chunk);
            }
        }
        let over_border = (std::mem::take(&mut sums.border_gradient), std::mem::take(&mut sums.gram));
        (sums, over_border)
    });

    let mut out = Linearised {
        kept: None,
        plan,
        rho: rho.clone(),
        loss,
        local_gradient: Vec::with_capacity(state.layout_of_rows().len()),
        border_gradient,
        gram: Gram::new(shape, gram),
        prior,
        logit_curvature: Vec::with_capacity(state.layout_of_rows().n_logits()),
        logits: std::iter::once(0)
            .chain((0..problem.n_rows()).map(|row| state.layout_of_rows().logits(row).end))
            .collect(),
        leaves: false,
        columns,
        frame,
    };
    let mut kept = Vec::new();
    for sum in sums {
        out.loss.add(&sum.loss);
        out.local_gradient.extend(sum.local_gradient);
        out.logit_curvature.extend(sum.logit_curvature);
        out.leaves |= sum.leaves;
        kept.extend(sum.chunks);
    }
    out.kept = problem.keeps_rows().then(|| PerChunk::new(&out.plan, kept));
    if problem.is_proper() {
        add_normalisers(problem, state, rho, &mut out.loss);
    } else {
        drop_coordinate_constants(problem, state, &mut out.loss);
        pin_unseen(problem, state, out.gram.whole_mut().expect("the classic mode holds all entries"));
    }
    out.gram.add_blocks(&out.prior.precision);
    Some(out)
}

/// Linearises the rows of a chunk, and adds what they sum up to where that is wanted.
fn linearise_chunk(
    &At { problem, state, rho, columns, frame, sums: wanted }: &At<'_>,
    (index, rows): (usize, Range<usize>),
    sums: &mut Sums,
    scratch: &mut Scratch,
) -> Chunk {
    let phi_inverse = 1.0 / rho.dispersion();
    let mut chunk = Chunk::new(problem, state, index, rows.clone());
    evaluate_bases(problem, state, rho, frame.rank(), &mut chunk, scratch);

    // residuals, their norms, and both contractions that touch the p channels
    let mut residual = chunk.phi.times(&state.decoders);
    residual -= &problem.rows(rows.clone());
    let mut scaled_phi = chunk.phi.clone();
    for (index, row) in rows.clone().enumerate() {
        let w = problem.weight(row);
        let mut r = residual.row_mut(index);
        sums.loss.residual += w * match problem.metric() {
            None => r.dot(&r),
            Some(metric) => metric.apply(row, r.as_slice_mut().expect("standard layout")),
        };
        r *= w * phi_inverse;
        scaled_phi.scale_row(index, w * phi_inverse);
    }
    if steps_exactly(problem, state) {
        let supports: Vec<&[u32]> = rows.clone().map(|row| state.support(row)).collect();
        chunk.residual = frame.inside(&supports, &residual);
    }
    let against = chunk.phi.meeting(&residual, &state.decoders);
    if let Wanted::Sums(shape) = wanted {
        chunk.phi.add_transposed(residual.view(), sums.border_gradient.view_mut());
        shape.add_rows(rows.clone().map(|row| state.support(row)), &chunk.phi, &scaled_phi, &mut sums.gram);
    }

    for (index, row) in rows.enumerate() {
        sums.leaves |= row_terms(problem, state, frame, &mut chunk, index, phi_inverse, &against, scratch);
        let block = sums.local_gradient.len();
        sums.local_gradient.resize(block + state.layout_of_rows().row_q_active(row), 0.0);
        let view = chunk.row(problem, state, index);
        let gradient = &mut sums.local_gradient[block..];
        for (u, g) in scratch.local.iter().enumerate() {
            gradient[view.position(u)] += g;
        }
        let logits = state.layout_of_rows().logits(row);
        let of_logits = match wanted {
            Wanted::No(known) => &known[logits],
            Wanted::Sums(_) => {
                let (loss, curvature) = (&mut sums.loss, &mut sums.logit_curvature);
                prior_terms(problem, state, rho, columns, row, gradient, loss, curvature, &mut scratch.prior);
                &sums.logit_curvature[sums.logit_curvature.len() - logits.len()..]
            }
        };
        add_prior_curvature(problem, state, rho, &mut chunk, index, of_logits, scratch);
    }
    sums.loss.data_fit = 0.5 * phi_inverse * sums.loss.residual;
    chunk.shrink();
    chunk
}

/// Gates and bases of every row of the chunk, and its stacked rows phi_i.
fn evaluate_bases(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    rank: usize,
    chunk: &mut Chunk,
    scratch: &mut Scratch,
) {
    let len = chunk.rows.len();
    scratch.gates.resize_with(len, GateRow::default);
    scratch.second_basis.clear();
    scratch.second_start.clear();
    scratch.held.clear();
    let mut jet = BasisJet::new(0, 0);
    for index in 0..len {
        let row = chunk.rows.start + index;
        let support = state.support(row);
        let gate = &mut scratch.gates[index];
        problem.gate().row(rho.lambda_sparse(), state.logits_of(row), support, gate);
        scratch.basis.clear();
        scratch.basis_d1.clear();
        scratch.second_start.push(scratch.second_basis.len());
        let mut q = gate.free;
        for (s, &k) in support.iter().enumerate() {
            let k = k as usize;
            let atom = &problem.atoms()[k];
            if (jet.phi.len(), jet.d1.len()) != (atom.width(), atom.width() * atom.dim()) {
                jet = BasisJet::new(atom.dim(), atom.width());
            }
            let point = state.point(k, row);
            atom.jet(point, &mut jet);
            for wall in walls(atom.factors(), point) {
                let (width, pair) = (atom.width(), wall.axis * atom.dim() + wall.axis);
                let part = |block: &[f64], at: usize| block[at * width..(at + 1) * width].to_vec();
                let (d1, d2) = (part(&jet.d1, wall.axis), part(&jet.d2, pair));
                let slot = q + wall.axis;
                let (gate, inward) = (gate.a[s], wall.inward);
                scratch.held.push(HeldJet { index, atom: k, place: s, gate, slot, inward, d1, d2 });
                hold_axis(&mut jet, wall.axis);
            }
            let wall = problem.gate().at_wall(k).filter(|_| problem.is_proper() && held(problem, state, row, k));
            if let Some(wall) = wall {
                // the logit of a held gate moves the row along the atom's point; at the wall a logistic function does not bend
                let (d1, d2) = (jet.phi.clone(), vec![0.0; atom.width()]);
                scratch.held.push(HeldJet { index, atom: k, place: s, gate: wall.gate, slot: s, inward: 0.0, d1, d2 });
            }
            chunk.phi.part_mut(index, s).iter_mut().zip(&jet.phi).for_each(|(phi, value)| *phi = gate.a[s] * value);
            scratch.basis.extend_from_slice(&jet.phi);
            scratch.basis_d1.extend_from_slice(&jet.d1);
            scratch.second_basis.extend_from_slice(&jet.d2);
            q += atom.dim();
        }
        chunk.push(&scratch.gates[index], &scratch.basis, &scratch.basis_d1, q, rank);
    }
}

/// Data parts of one row: its local gradient (left in `scratch.local`), its two curvature blocks and its held coordinates, of
/// which it returns whether one would rather be inside.
#[allow(clippy::too_many_arguments)]
fn row_terms(
    problem: &Problem,
    state: &State,
    frame: &Frame,
    chunk: &mut Chunk,
    index: usize,
    phi_inverse: f64,
    against: &Stacked,
    scratch: &mut Scratch,
) -> bool {
    let view = chunk.row(problem, state, index);
    let (q, r) = (view.q, frame.rank());
    scratch.local.clear();
    scratch.local.resize(q, 0.0);
    view.pull(against, index, 1.0, &mut scratch.local);

    scratch.jacobian.clear();
    scratch.jacobian.resize(q * r, 0.0);
    view.write_jacobian(&frame.reduced, &mut scratch.jacobian);
    let metric = problem.metric();
    let plain = metric.map(|_| scratch.jacobian.clone());
    if let Some(metric) = metric {
        scratch.jacobian.chunks_exact_mut(r).for_each(|l| {
            metric.apply(view.row, l);
        });
    }
    let plain = plain.as_deref().unwrap_or(&scratch.jacobian);
    let factor = problem.weight(view.row) * phi_inverse;
    scratch.curvature.clear();
    scratch.curvature.resize(q * q, 0.0);
    for u in 0..q {
        for v in 0..=u {
            let inner = factor * dot(&plain[u * r..(u + 1) * r], &scratch.jacobian[v * r..(v + 1) * r]);
            scratch.curvature[u * q + v] = inner;
            scratch.curvature[v * q + u] = inner;
        }
    }

    // second derivatives of sum_k a_k(l) psi_k(t_k), psi_k the basis row against the scaled residual
    scratch.second.clear();
    scratch.second.resize(q * q, 0.0);
    let mut from = scratch.second_start[index];
    let second_basis = &scratch.second_basis;
    let atoms = view.atoms().enumerate().map(|(s, atom)| {
        let len = atom.phi_d1.len() * (atom.phi_d1.len() / atom.phi.len());
        let d2 = &second_basis[from..from + len];
        from += len;
        SecondAtom { phi: atom.phi, d1: atom.phi_d1, d2, against: against.part(index, s), slot: atom.slot }
    });
    add_second(&scratch.gates[index], |u| u, atoms, q, &mut scratch.second);
    let row = view.row;
    chunk.set_jacobian(index, &scratch.jacobian);
    push_held(problem, frame, chunk, (index, row), factor, against, &scratch.held)
}

/// What the row's objective would do along each of its held coordinates, and whether one of them would rather be inside.
fn push_held(
    problem: &Problem,
    frame: &Frame,
    chunk: &mut Chunk,
    (index, row): (usize, usize),
    factor: f64,
    against: &Stacked,
    held: &[HeldJet],
) -> bool {
    let r = frame.rank();
    let mut leaves = false;
    let table = frame.reduced.as_slice().expect("standard layout");
    let first = held.partition_point(|held| held.index < index);
    for held in held[first..].iter().take_while(|held| held.index == index) {
        let rows = problem.rows_of(held.atom);
        let mut tangent = vec![0.0; r];
        for (d, b) in held.d1.iter().zip(table[rows.start * r..rows.end * r].chunks_exact(r)) {
            axpy(*d, b, &mut tangent);
        }
        let length = match problem.metric() {
            None => dot(&tangent, &tangent),
            Some(metric) => metric.apply(row, &mut tangent),
        };
        let (gate, against) = (held.gate, against.part(index, held.place));
        let pull = Pull {
            slope: gate * dot(&held.d1, against),
            curvature: factor * gate * gate * length,
            second: gate * dot(&held.d2, against),
        };
        leaves |= held.inward * pull.slope < 0.0;
        chunk.push_held(HeldAxis { index, slot: held.slot, pull });
    }
    leaves
}

/// Puts the priors' curvature on the diagonal of the row's block of H.
fn add_prior_curvature(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    chunk: &mut Chunk,
    index: usize,
    of_logits: &[f64],
    scratch: &mut Scratch,
) {
    let view = chunk.row(problem, state, index);
    let q = view.q;
    for u in 0..view.free {
        scratch.curvature[u * q + u] += of_logits[view.position(u)];
    }
    for atom in view.atoms() {
        let point = state.point(atom.atom, view.row);
        coordinate_priors(&*problem.atoms()[atom.atom], rho, atom.atom, point, |j, term| {
            scratch.curvature[(atom.slot + j) * (q + 1)] += term.stiffness();
        });
    }
    chunk.set_blocks(index, &scratch.curvature, &scratch.second);
}
