//! Rows first: `S = G (x) I - sum_i C_i' A_i^-1 C_i`.
//!
//! S is block diagonal over groups of atoms (`super::frame`). Each row adds `(phi_i phi_i') (x) K_i w_i^2/phi^2` with `K_i = L_i' A_i^-1 L_i`, so over many rows the sum is one matrix
//! product of packed `phi phi'` against packed `K`. In a frame of r < p channels the other p - r contribute
//! `ln |G|` each.

use super::border::Border;
use super::channel_blocks::ChannelBlocks;
use super::factor::{Curvature, RowTraces};
use super::frame::Group;
use super::kronecker::GroupCurvature;
use super::spectral::{ln_held, Nulls};
use super::substitution::{solve_block, Substitution};
use super::{Frame, Step, System};
use crate::chunks::PerChunk;
use crate::linalg::{axpy, dot, product, small_cholesky, small_forward, Cholesky, Op};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::row::{Chunk, RowView};
use crate::state::State;
use crate::wire::Here;
use ndarray::Array2;
use std::collections::{BTreeMap, HashMap};

/// The factor of rows first.
#[derive(Debug)]
pub struct RowsFirst {
    /// Cholesky factors of the rows' blocks, laid end to end per chunk.
    blocks: PerChunk<Vec<f64>>,
    groups: Vec<(Border, Reduced)>,
    pub(super) nulls: Nulls,
    pub(super) log_det: f64,
}

/// What the border of one group of atoms is solved with once the rows are eliminated.
#[derive(Debug)]
enum Reduced {
    /// The factor of its Schur complement.
    Exact(Cholesky),
    /// The border's own curvature `G (x) I + UU'`, which is above the Schur complement: eigenvalues of the one against the
    /// other lie between 0 and 1, few of them far from 1. Good enough to step and to precondition with, and it needs no
    /// dense matrix over the border. Of large groups the blocks of their atoms stand for it, which are not above: then the
    /// eigenvalues go up to about the number of atoms that a row uses.
    Majorised(GroupCurvature),
    /// Where a metric or decoders with frames of their own tie the channels: that curvature of the decoders with one metric for all
    /// rows and no coupling between frames, which is near the border's own, above or below it.
    InChannels(ChannelBlocks),
}

/// A Schur complement of more variables is not formed to step with.
pub const STEPS_EXACTLY_TO: usize = 1024;

/// Whether a group's Schur complement is left out: another curvature of its border stands for it.
fn is_left_out(problem: &Problem, state: &State, curvature: Curvature, frame: &Frame, group: usize) -> bool {
    let atoms = (0..problem.n_atoms()).filter(|&k| frame.group_of(k) == group);
    let size: usize =
        atoms.map(|k| problem.rows_of(k).len() * state.frames.of(k).map_or(frame.rank(), |own| own.ncols())).sum();
    curvature == Curvature::Stiffened && size > STEPS_EXACTLY_TO
}

impl Reduced {
    fn solve(&self, border: &Border, inside: &mut Array2<f64>) {
        match self {
            Self::Exact(schur) => border.solve_inside(schur, inside),
            Self::Majorised(curvature) => {
                let mut own = border.group.select(inside);
                curvature.solve(&mut own);
                border.group.put(&own, inside);
            }
            Self::InChannels(blocks) => *inside = blocks.solve(inside),
        }
    }
}

fn packed_len(n: usize) -> usize {
    n * (n + 1) / 2
}

/// Position of entry (i, j) of a packed symmetric matrix.
fn packed(i: usize, j: usize) -> usize {
    let (i, j) = if i >= j { (i, j) } else { (j, i) };
    packed_len(i) + j
}

impl RowsFirst {
    pub(super) fn new(
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        curvature: Curvature,
        nulls: Nulls,
        system: &System,
    ) -> Option<Self> {
        let frame = &system.lin.frame;
        let r = frame.rank();
        let shape = |(index, group): (usize, &Group)| match is_left_out(problem, state, curvature, frame, index) {
            true => (0, 0),
            false => (packed_len(group.rows.len()), packed_len(r)),
        };
        let shapes: Vec<(usize, usize)> = frame.groups().iter().enumerate().map(shape).collect();
        let plan = problem.chunks(8 * shapes.iter().map(|(m, r)| m * r).sum::<usize>());
        let zeros = || -> Vec<Array2<f64>> { shapes.iter().map(|&shape| Array2::zeros(shape)).collect() };
        let (parts, total) = plan.map_summed(zeros(), |chunks| {
            let mut total = zeros();
            let mut blocks = Vec::with_capacity(chunks.len());
            let (mut ln, mut feasible) = (0.0, true);
            for c in chunks {
                match eliminate_chunk(
                    problem,
                    state,
                    rho,
                    (curvature, &nulls),
                    system,
                    &system.lin.chunk(problem, state, c),
                    &mut total,
                ) {
                    Some((factors, ln_det)) => {
                        blocks.push(factors);
                        ln += ln_det;
                    }
                    None => feasible = false,
                }
            }
            ((Here::new(blocks), ln, feasible), total)
        });
        let (mut blocks, mut log_det) = (Vec::new(), 0.0);
        for (factors, ln, feasible) in parts {
            if !feasible {
                return None;
            }
            blocks.extend(factors.0.into_iter().flatten());
            log_det += ln;
        }
        let blocks = PerChunk::new(&plan, blocks).known_under(&plan, &system.lin.plan);

        // with a metric the rows' share of the border is among what they have added
        let own_border = system.lin.border_gram(problem);
        let mut groups = Vec::with_capacity(total.len());
        for (index, (group, total)) in frame.groups().iter().zip(total).enumerate() {
            let m = group.rows.len();
            let border = Border::new(problem, state, system, index)?;
            let gauge = system.gauge(curvature);
            if total.is_empty() {
                let is_tied = problem.metric().is_some() || !state.frames.is_empty();
                let own = match is_tied {
                    // all atoms are in one group then
                    true => Reduced::InChannels(ChannelBlocks::new(problem, state, system, Some(frame))?),
                    false => Reduced::Majorised(GroupCurvature::new(problem, frame, index, gauge, &own_border)?),
                };
                groups.push((border, own));
                continue;
            }
            let among = own_border.among(&group.rows);
            let mut schur = Array2::zeros((m * r, m * r));
            for a in 0..m {
                for b in 0..m {
                    let row = total.row(packed(a, b));
                    for c in 0..r {
                        for d in 0..r {
                            schur[[a * r + c, b * r + d]] = -row[packed(c, d)];
                        }
                        schur[[a * r + c, b * r + c]] += among[[a, b]];
                    }
                }
            }
            for (first, u) in gauge.within(problem, group, &group.rows) {
                let u = flat(u);
                for (i, &value) in u.iter().enumerate().filter(|(_, v)| **v != 0.0) {
                    let mut row = schur.row_mut(first * r + i);
                    let row = row.as_slice_mut().expect("standard layout");
                    axpy(value, &u, &mut row[first * r..first * r + u.len()]);
                }
            }
            let schur = Cholesky::new(border.restrict(schur).view())?;
            log_det += schur.log_det() + border.log_det();
            groups.push((border, Reduced::Exact(schur)));
        }
        log_det += decoupled_logits(problem, state, |row| nulls.logits(problem, system, row), ln_held);
        log_det.is_finite().then_some(Self { blocks, groups, nulls, log_det })
    }

    pub(super) fn solve(
        &self,
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        system: &System,
        rhs: &Step,
    ) -> Step {
        let rows = Substitution { factors: &self.blocks, exact: &PerChunk::default(), nulls: &self.nulls };
        let reduce = |inside: &mut Array2<f64>| {
            self.groups.iter().for_each(|(border, reduced)| reduced.solve(border, inside));
        };
        let borders = self.groups.iter().map(|(border, _)| border);
        rows.solve(problem, state, rho, system, rhs, (borders, reduce))
    }

    pub(super) fn inverse(&self, problem: &Problem, system: &System) -> BorderInverse {
        let (m, r) = (problem.width(), system.lin.frame.rank());
        let mut trace = Array2::zeros((m, m));
        let mut schur = Vec::with_capacity(self.groups.len());
        for (group, (border, factor)) in system.lin.frame.groups().iter().zip(&self.groups) {
            let Reduced::Exact(factor) = factor else { unreachable!("the evidence factors every Schur complement") };
            let inverse = border.lift(factor.inverse());
            border.add_rest_trace(&mut trace);
            for (i, &a) in group.rows.iter().enumerate() {
                for (j, &b) in group.rows.iter().enumerate() {
                    trace[[a, b]] += (0..r).map(|c| inverse[[i * r + c, j * r + c]]).sum::<f64>();
                }
            }
            schur.push(inverse);
        }
        BorderInverse { schur, trace }
    }
}

fn flat(a: Array2<f64>) -> Vec<f64> {
    let (v, offset) = a.into_raw_vec_and_offset();
    debug_assert_eq!(offset.unwrap_or(0), 0);
    v
}

/// Sums `f(curvature)` over the logits outside their row's support.
pub(super) fn decoupled_logits<'a>(
    problem: &Problem,
    state: &State,
    curvature: impl Fn(usize) -> &'a [f64],
    f: impl Fn(f64) -> f64,
) -> f64 {
    (0..problem.n_rows())
        .map(|row| {
            let (support, atoms) = (state.support(row), state.layout_of_rows().logit_atoms(row));
            let outside = atoms.iter().zip(curvature(row)).filter(|(k, _)| !support.contains(k));
            outside.map(|(_, c)| f(*c)).sum::<f64>()
        })
        .sum()
}

/// Stacked rows of a support: where its atoms' basis columns lie among all M.
fn columns_of(problem: &Problem, support: &[u32]) -> Vec<usize> {
    support.iter().flat_map(|&k| problem.rows_of(k as usize)).collect()
}

/// Factors the rows of a chunk and adds their share of S. `None` when a block is not positive definite.
fn eliminate_chunk(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    (curvature, nulls): (Curvature, &Nulls),
    system: &System,
    chunk: &Chunk,
    total: &mut [Array2<f64>],
) -> Option<(Vec<f64>, f64)> {
    let r = system.lin.frame.rank();
    let mut inner = Array2::<f64>::zeros((chunk.len(), packed_len(r)));
    let (mut factors, mut ln_det) = (Vec::new(), 0.0);
    let inverse = 1.0 / rho.dispersion();
    let mut whitened = Vec::new();
    let mut groups: BTreeMap<&[u32], Vec<usize>> = BTreeMap::new();
    for (index, view, _) in System::rows_of(problem, state, chunk) {
        let q = view.q;
        let at = factors.len();
        factors.extend(curvature.block(problem, &view, nulls));
        let l = &mut factors[at..];
        if !small_cholesky(l, q) {
            return None;
        }
        ln_det += 2.0 * (0..q).map(|u| l[u * q + u].ln()).sum::<f64>();
        let group = view.support.first().map(|&k| system.lin.frame.group_of(k as usize));
        if group.is_none_or(|group| total[group].is_empty()) {
            continue;
        }
        whitened.clear();
        whitened.extend_from_slice(view.jacobian);
        small_forward(l, q, &mut whitened, r);
        let scale = (problem.weight(view.row) * inverse).powi(2);
        let mut inner = inner.row_mut(index);
        let inner = inner.as_slice_mut().expect("standard layout");
        for w in whitened.chunks_exact(r) {
            for c in 0..r {
                let from = packed_len(c);
                axpy(scale * w[c], &w[..=c], &mut inner[from..=from + c]);
            }
        }
        if let Some(metric) = problem.metric() {
            let factor = problem.weight(view.row) * inverse;
            let mut column = vec![0.0; r];
            for c in 0..r {
                column.fill(0.0);
                column[c] = 1.0;
                metric.apply(view.row, &mut column);
                let from = packed_len(c);
                axpy(-factor, &column[..=c], &mut inner[from..=from + c]);
            }
        }
        groups.entry(view.support).or_default().push(index);
    }
    // rows of one support touch the same columns of the border: one product for each support
    for (support, rows) in groups {
        let columns = columns_of(problem, support);
        let m = columns.len();
        let mut outer = Array2::<f64>::zeros((rows.len(), packed_len(m)));
        let mut of_group = Array2::<f64>::zeros((rows.len(), packed_len(r)));
        for (i, &index) in rows.iter().enumerate() {
            let phi = chunk.phi.own(index);
            let mut outer = outer.row_mut(i);
            let outer = outer.as_slice_mut().expect("standard layout");
            for a in 0..m {
                let from = packed_len(a);
                axpy(phi[a], &phi[..=a], &mut outer[from..=from + a]);
            }
            of_group.row_mut(i).assign(&inner.row(index));
        }
        let Some(&first) = support.first() else { continue };
        let share = product((outer.view(), Op::Transposed), (of_group.view(), Op::Plain));
        let group = system.lin.frame.group_of(first as usize);
        let places = system.lin.frame.groups()[group].places(&columns);
        for a in 0..m {
            for b in 0..=a {
                let mut row = total[group].row_mut(packed(places[a], places[b]));
                row += &share.row(packed(a, b));
            }
        }
    }
    Some((factors, ln_det))
}

/// The border block of the inverse, in the frame, and its partial trace over all channels.
pub struct BorderInverse {
    /// Per group of atoms.
    schur: Vec<Array2<f64>>,
    pub(super) trace: Array2<f64>,
}

/// The block of the inverse that a support sees, laid out for one product with its rows: m' x (c' m c).
struct Rearranged {
    columns: Vec<usize>,
    wide: Array2<f64>,
    /// The partial trace over all channels.
    trace: Array2<f64>,
}

impl BorderInverse {
    fn rearranged(&self, problem: &Problem, frame: &Frame, support: &[u32]) -> Rearranged {
        let columns = columns_of(problem, support);
        let (m, r) = (columns.len(), frame.rank());
        let trace = Array2::from_shape_fn((m, m), |(i, j)| self.trace[[columns[i], columns[j]]]);
        let mut wide = Array2::zeros((m, r * m * r));
        let Some(&first) = support.first() else { return Rearranged { columns, wide, trace } };
        let group = frame.group_of(first as usize);
        let places = frame.groups()[group].places(&columns);
        for (a, mut row) in places.iter().zip(wide.rows_mut()) {
            let row = row.as_slice_mut().expect("standard layout");
            for c in 0..r {
                let from = self.schur[group].row(a * r + c);
                let from = from.as_slice().expect("standard layout");
                for (i, b) in places.iter().enumerate() {
                    let to = (c * m + i) * r;
                    row[to..to + r].copy_from_slice(&from[b * r..(b + 1) * r]);
                }
            }
        }
        Rearranged { columns, wide, trace }
    }

    /// With `R_i[c', (m c)] = sum_m' phi_i[m'] S^-1[(m' c'), (m c)]`, row i's cross block is
    /// `X_i = -(w/phi) A_i^-1 L_i R_i`. Only its contractions with phi_i and with L_i are needed.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn visit_rows(
        &self,
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        system: &System,
        factor: &RowsFirst,
        chunk: &Chunk,
        mut visit: impl FnMut(usize, &RowView<'_>, &RowTraces),
    ) {
        /// Entries of R held at a time: large enough for the product to run at speed, small enough for the cache.
        const BATCH_ENTRIES: usize = 1 << 18;
        /// Entries of blocks that are kept for rows of the same support: rows of few atoms share them, those of many seldom do.
        const KEPT: usize = 1 << 21;
        let r = system.lin.frame.rank();
        let m_all = problem.width();
        let factors = &factor.blocks[chunk.index];
        let mut at = 0;
        let mut traces = RowTraces::default();
        let inverse = 1.0 / rho.dispersion();
        let mut of_support: HashMap<&[u32], Rearranged> = HashMap::new();
        let mut kept = 0;
        // rows that follow each other with one support are gathered by one product
        let mut gathered = (0..0, Array2::<f64>::zeros((0, 0)));
        for (index, view, _) in System::rows_of(problem, state, chunk) {
            if !of_support.contains_key(view.support) {
                let own = self.rearranged(problem, &system.lin.frame, view.support);
                if kept + own.wide.len() > KEPT {
                    of_support.clear();
                    kept = 0;
                }
                kept += own.wide.len();
                of_support.insert(view.support, own);
            }
            let own = &of_support[view.support];
            let m = own.columns.len();
            if m == 0 {
                // a row that uses no atom has no coupled variables
                traces.local.clear();
                traces.against_phi.clear();
                traces.border.clear();
                traces.border.resize(m_all, 0.0);
                visit(index, &view, &traces);
                continue;
            }
            if !gathered.0.contains(&index) {
                let batch = (BATCH_ENTRIES / (r * m * r).max(1)).max(1);
                let same = |i: &usize| state.support(chunk.rows.start + i) == view.support;
                let end = (index..chunk.len().min(index + batch)).take_while(same).last().unwrap_or(index) + 1;
                let phi = (index..end).flat_map(|i| chunk.phi.own(i)).collect();
                let phi = Array2::from_shape_vec((end - index, m), phi).expect("rows of one support");
                gathered = (index..end, product((phi.view(), Op::Plain), (own.wide.view(), Op::Plain)));
            }
            let seen = gathered.1.row(index - gathered.0.start);
            let seen = seen.as_slice().expect("standard layout");
            let phi = chunk.phi.own(index);
            let q = view.q;
            let l = &factors[at..at + q * q];
            at += q * q;
            let factor = problem.weight(view.row) * inverse;

            let mut solved = view.jacobian.to_vec();
            solve_block(l, q, &mut solved, r);

            // F = R phi (r x r), then X_i phi = -(w/phi) A^-1 L F
            let mut f = vec![0.0; r * r];
            for (c, row) in seen.chunks_exact(m * r).enumerate() {
                for (value, block) in phi.iter().zip(row.chunks_exact(r)) {
                    axpy(*value, block, &mut f[c * r..(c + 1) * r]);
                }
            }
            traces.against_phi.clear();
            traces.against_phi.resize(q * r, 0.0);
            for u in 0..q {
                for c in 0..r {
                    let out = &mut traces.against_phi[u * r..(u + 1) * r];
                    axpy(-factor * solved[u * r + c], &f[c * r..(c + 1) * r], out);
                }
            }

            // X_ii = A^-1 - (w/phi) (X_i phi) (A^-1 L)'
            traces.local.clear();
            traces.local.resize(q * q, 0.0);
            (0..q).for_each(|u| traces.local[u * q + u] = 1.0);
            solve_block(l, q, &mut traces.local, q);
            for u in 0..q {
                for v in 0..q {
                    traces.local[u * q + v] -=
                        factor * dot(&traces.against_phi[u * r..(u + 1) * r], &solved[v * r..(v + 1) * r]);
                }
            }

            if let Some(metric) = problem.metric() {
                traces.against_phi.chunks_exact_mut(r).for_each(|row| {
                    metric.apply(view.row, row);
                });
            }

            // K = L' A^-1 L against R, and the border's own part
            let mut k = vec![0.0; r * r];
            for u in 0..q {
                for c in 0..r {
                    axpy(view.jacobian[u * r + c], &solved[u * r..(u + 1) * r], &mut k[c * r..(c + 1) * r]);
                }
            }
            traces.border.clear();
            traces.border.resize(m_all, 0.0);
            for (&a, own) in own.columns.iter().zip(own.trace.rows()) {
                traces.border[a] = dot(own.to_slice().expect("standard layout"), &phi);
            }
            if let Some(metric) = problem.metric() {
                // R's trace against P_i in place of its plain one
                own.columns.iter().for_each(|&a| traces.border[a] = 0.0);
                let mut column = vec![0.0; r];
                for (c, row) in seen.chunks_exact(m * r).enumerate() {
                    column.fill(0.0);
                    column[c] = 1.0;
                    metric.apply(view.row, &mut column);
                    for (&a, block) in own.columns.iter().zip(row.chunks_exact(r)) {
                        traces.border[a] += dot(&column, block);
                    }
                }
            }
            for (c, row) in seen.chunks_exact(m * r).enumerate() {
                let k = &k[c * r..(c + 1) * r];
                for (&a, block) in own.columns.iter().zip(row.chunks_exact(r)) {
                    traces.border[a] -= factor * dot(k, block);
                }
            }
            visit(index, &view, &traces);
        }
    }
}
