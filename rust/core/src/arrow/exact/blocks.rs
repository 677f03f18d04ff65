//! The blocks of the exact Schur complement, and what the rows take from them.

use crate::arrow::factor::Curvature;
use crate::arrow::frame::Frame;
use crate::arrow::spectral::Nulls;
use crate::arrow::System;
use crate::gram::Gram;
use crate::linalg::{axpy, product, row_space, small_cholesky, small_forward, Op};
use crate::priors::coordinate_priors;
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::row::{Chunk, RowView, Stacked};
use crate::state::State;
use ndarray::{s, Array2, Axis};
use std::collections::BTreeMap;

/// Groups whose border has more variables are not factored whole: their rows cost its square.
const WHOLE_TO: usize = 256;

/// Border variables whose exact Schur complement is formed: a group's, or one atom's in the channels it spans.
#[derive(Debug)]
pub(in crate::arrow) struct Block {
    pub(super) group: usize,
    /// Its stacked rows.
    pub(in crate::arrow) rows: Vec<usize>,
    /// Its channels among those of the frame (r x r_b); `None` for all.
    basis: Option<Array2<f64>>,
    channels: usize,
}

impl Block {
    pub(in crate::arrow) fn channels(&self) -> usize {
        self.channels
    }

    fn of_atom(problem: &Problem, frame: &Frame, k: usize) -> Self {
        let rows: Vec<usize> = problem.rows_of(k).collect();
        let basis = row_space(frame.reduced.select(Axis(0), &rows).view());
        Self { group: frame.group_of(k), rows, channels: basis.ncols(), basis: Some(basis) }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.basis.is_none()
    }

    pub(super) fn size(&self) -> usize {
        self.rows.len() * self.channels
    }

    /// Vectors over the frame's channels (rows x r) in its own (rows x r_b).
    pub(in crate::arrow) fn inside(&self, rows: Array2<f64>) -> Array2<f64> {
        match &self.basis {
            None => rows,
            Some(basis) => product((rows.view(), Op::Plain), (basis.view(), Op::Plain)),
        }
    }

    /// The reverse.
    pub(in crate::arrow) fn outside(&self, rows: Array2<f64>) -> Array2<f64> {
        match &self.basis {
            None => rows,
            Some(basis) => product((rows.view(), Op::Plain), (basis.view(), Op::Transposed)),
        }
    }

    /// `G (x) I` over its variables.
    pub(in crate::arrow) fn kronecker(&self, gram: &Gram) -> Array2<f64> {
        let r = self.channels;
        let among = gram.among(&self.rows);
        let mut out = Array2::zeros((self.size(), self.size()));
        for ((i, j), value) in among.indexed_iter() {
            (0..r).for_each(|c| out[[i * r + c, j * r + c]] = *value);
        }
        out
    }
}

/// All of them.
#[derive(Debug)]
pub(in crate::arrow) struct Blocks {
    pub(in crate::arrow) all: Vec<Block>,
    of_atom: Vec<usize>,
}

impl Blocks {
    pub(super) fn new(problem: &Problem, frame: &Frame) -> Self {
        let r = frame.rank();
        let (mut all, mut of_atom) = (Vec::new(), vec![0; problem.n_atoms()]);
        for (group, own) in frame.groups().iter().enumerate() {
            let atoms = (0..problem.n_atoms()).filter(|&k| frame.group_of(k) == group);
            if own.rows.len() * r <= WHOLE_TO {
                atoms.for_each(|k| of_atom[k] = all.len());
                all.push(Block { group, rows: own.rows.clone(), basis: None, channels: r });
                continue;
            }
            for k in atoms {
                of_atom[k] = all.len();
                all.push(Block::of_atom(problem, frame, k));
            }
        }
        Self { all, of_atom }
    }

    /// One for each atom, however small its group.
    pub(in crate::arrow) fn of_atoms(problem: &Problem, frame: &Frame) -> Self {
        let all = (0..problem.n_atoms()).map(|k| Block::of_atom(problem, frame, k)).collect();
        Self { all, of_atom: (0..problem.n_atoms()).collect() }
    }

    /// What the rows take from each block, all zero.
    pub(in crate::arrow) fn zeros(&self) -> Vec<Array2<f64>> {
        self.all.iter().map(|block| Array2::zeros((block.size(), block.size()))).collect()
    }

    /// Those that a row with this support meets.
    fn met_by(&self, support: &[u32]) -> Vec<usize> {
        let mut met: Vec<usize> = support.iter().map(|&k| self.of_atom[k as usize]).collect();
        met.sort_unstable();
        met.dedup();
        met
    }

    /// Factors the rows of a chunk and adds what they take from each block. Rows whose exact block is not positive definite
    /// are stiffened.
    pub(super) fn eliminate(
        &self,
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        chunk: &Chunk,
        out: &mut Eliminated,
        taken: &mut [Array2<f64>],
    ) -> Option<()> {
        let (mut factors, mut are_exact) = (Vec::new(), Vec::new());
        let mut whitened = BySupport::new();
        for (index, view, _) in System::rows_of(problem, state, chunk) {
            let exact = factor(problem, state, rho, &view);
            are_exact.push(exact.is_some());
            let l = match exact {
                Some(l) => l,
                None => {
                    let mut l = Curvature::Stiffened.block(problem, &view, &Nulls::default());
                    small_cholesky(&mut l, view.q).then_some(l)?
                }
            };
            let factor = problem.weight(view.row) / rho.dispersion();
            self.gather(problem, &chunk.phi, (index, &view), &l, factor, are_exact[index], &mut whitened);
            factors.extend(l);
        }
        self.add_shares(whitened, taken);
        out.factors.push(factors);
        out.exact.push(are_exact);
        Some(())
    }

    /// Adds what the rows of a chunk take from each block under H, `factors` being those of their blocks, end to end.
    pub(in crate::arrow) fn take(
        &self,
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        chunk: &Chunk,
        factors: &[f64],
        taken: &mut [Array2<f64>],
    ) {
        let mut whitened = BySupport::new();
        let mut at = 0;
        for (index, view, _) in System::rows_of(problem, state, chunk) {
            let factor = problem.weight(view.row) / rho.dispersion();
            let l = &factors[at..at + view.q * view.q];
            self.gather(problem, &chunk.phi, (index, &view), l, factor, false, &mut whitened);
            at += view.q * view.q;
        }
        self.add_shares(whitened, taken);
    }

    /// Puts a row's whitened couplings with those of the same support.
    #[allow(clippy::too_many_arguments)]
    fn gather<'a>(
        &self,
        problem: &Problem,
        phi: &Stacked,
        (index, view): (usize, &RowView<'a>),
        l: &[f64],
        factor: f64,
        exact: bool,
        whitened: &mut BySupport<'a>,
    ) {
        let stacks = whitened.entry(view.support).or_insert_with(|| {
            let met = self.met_by(view.support).into_iter();
            let columns = |block| self.columns(problem, view.support, block);
            met.map(|block| Stack { block, columns: columns(block), rows: Vec::new() }).collect()
        });
        for Stack { block, rows, .. } in stacks {
            let own = (0..view.support.len()).filter(|&s| self.of_atom[view.support[s] as usize] == *block);
            let phi: Vec<f64> = own.flat_map(|s| phi.part(index, s)).copied().collect();
            self.push_whitened(*block, view, l, factor, &phi, exact, rows);
        }
    }

    fn add_shares(&self, whitened: BySupport<'_>, taken: &mut [Array2<f64>]) {
        for Stack { block, columns, rows } in whitened.into_values().flatten() {
            self.add_share(block, &columns, rows, &mut taken[block]);
        }
    }

    /// Stacked rows of a block that a support touches.
    fn columns(&self, problem: &Problem, support: &[u32], block: usize) -> Vec<usize> {
        let own = support.iter().filter(|&&k| self.of_atom[k as usize] == block);
        own.flat_map(|&k| problem.rows_of(k as usize)).collect()
    }

    /// Appends a row's coupling to a block, `l^-1 C_i` (q x m r_b), `phi` being those rows' part of phi_i.
    #[allow(clippy::too_many_arguments)]
    fn push_whitened(
        &self,
        block: usize,
        view: &RowView<'_>,
        l: &[f64],
        factor: f64,
        phi: &[f64],
        exact: bool,
        out: &mut Vec<f64>,
    ) {
        let (q, m, r) = (view.q, phi.len(), self.all[block].channels);
        if q * m * r == 0 {
            return;
        }
        let channels = view.jacobian.len() / q;
        let within = |rows: &[f64]| {
            let rows = Array2::from_shape_vec((rows.len() / channels, channels), rows.to_vec());
            self.all[block].inside(rows.expect("rows of the frame's channels"))
        };
        let at = out.len();
        out.resize(at + q * m * r, 0.0);
        let rows = &mut out[at..];
        let jacobian = within(view.jacobian);
        for (row, jacobian) in rows.chunks_exact_mut(m * r).zip(jacobian.rows()) {
            for (block, value) in row.chunks_exact_mut(r).zip(phi) {
                axpy(factor * value, jacobian.to_slice().expect("standard layout"), block);
            }
        }
        if exact {
            let residual = within(view.residual);
            let residual = residual.as_slice().expect("standard layout");
            let mut place = 0;
            for atom in view.atoms().filter(|atom| self.of_atom[atom.atom] == block) {
                let width = atom.phi.len();
                let mut add = |u: usize, scale: f64, slope: &[f64]| {
                    let own = &mut rows[(u * m + place) * r..(u * m + place + width) * r];
                    for (block, value) in own.chunks_exact_mut(r).zip(slope) {
                        axpy(scale * value, residual, block);
                    }
                };
                atom.gate_d1.iter().enumerate().for_each(|(u, da)| add(u, *da, atom.phi));
                for (j, d1) in atom.phi_d1.chunks_exact(width).enumerate() {
                    add(atom.slot + j, atom.gate, d1);
                }
                place += width;
            }
        }
        small_forward(l, q, rows, m * r);
    }

    /// Adds `W'W` of stacked rows W at their places in a block.
    fn add_share(&self, block: usize, columns: &[usize], stack: Vec<f64>, total: &mut Array2<f64>) {
        let r = self.all[block].channels;
        let size = columns.len() * r;
        if stack.is_empty() {
            return;
        }
        let stack = Array2::from_shape_vec((stack.len() / size, size), stack).expect("rows of the border's size");
        let share = product((stack.view(), Op::Transposed), (stack.view(), Op::Plain));
        let rows = &self.all[block].rows;
        if rows == columns {
            *total += &share;
            return;
        }
        let places: Vec<usize> = columns.iter().map(|a| rows.binary_search(a).expect("rows of the block")).collect();
        for (from, to) in places.iter().enumerate() {
            for c in 0..r {
                let mut row = total.row_mut(to * r + c);
                for (b, at) in places.iter().enumerate() {
                    let mut part = row.slice_mut(s![at * r..(at + 1) * r]);
                    part += &share.slice(s![from * r + c, b * r..(b + 1) * r]);
                }
            }
        }
    }
}

/// Rows of one support touch the same columns of the border: one product for each.
type BySupport<'a> = BTreeMap<&'a [u32], Vec<Stack>>;

/// Whitened couplings of rows with one support to one block.
struct Stack {
    block: usize,
    /// Stacked rows of the block that they touch.
    columns: Vec<usize>,
    rows: Vec<f64>,
}

/// What the rows leave to solve with, per chunk.
#[derive(Debug, Default)]
pub(super) struct Eliminated {
    /// Cholesky factors of the rows' blocks, laid end to end.
    pub(super) factors: Vec<Vec<f64>>,
    /// Which rows are exact ones.
    pub(super) exact: Vec<Vec<bool>>,
}

impl Eliminated {
    pub(super) fn append(&mut self, other: Self) {
        self.factors.extend(other.factors);
        self.exact.extend(other.exact);
    }
}

/// The Cholesky factor of a row's exact block (q x q); `None` where that is not positive definite.
fn factor(problem: &Problem, state: &State, rho: &SaeManifoldRho, view: &RowView<'_>) -> Option<Vec<f64>> {
    let q = view.q;
    let mut block: Vec<f64> = view.curvature.iter().zip(view.second).map(|(h, s)| h + s).collect();
    for atom in view.atoms() {
        let point = state.point(atom.atom, view.row);
        coordinate_priors(&*problem.atoms()[atom.atom], rho, atom.atom, point, |j, term| {
            block[(atom.slot + j) * (q + 1)] += term.beyond();
        });
    }
    small_cholesky(&mut block, q).then_some(block)
}
