//! What is kept of each row between linearising it and solving with it.

use super::stacked::Stacked;
use crate::gates::GateRow;
use crate::priors::Pull;
use crate::problem::Problem;
use crate::state::State;
use ndarray::Array2;
use std::ops::Range;

/// The linearisation of the rows of one chunk.
#[derive(Debug)]
pub struct Chunk {
    /// Position among the chunks.
    pub index: usize,
    pub rows: Range<usize>,
    /// Stacked basis rows phi_i (rows x M), zero off the support.
    pub phi: Stacked,
    /// Residuals times w/phi in the frame's channels (rows x r), where steps are exact; without columns elsewhere.
    pub(super) residual: Array2<f64>,
    tapes: Vec<RowTape>,
    basis: Vec<f64>,
    basis_d1: Vec<f64>,
    gate: Vec<f64>,
    gate_d1: Vec<f64>,
    blocks: Vec<f64>,
    jacobians: Vec<f64>,
    /// Held coordinates, row by row.
    held: Vec<HeldAxis>,
}

/// A coordinate that is held at an end of its interval.
#[derive(Clone, Copy, Debug)]
pub struct HeldAxis {
    /// Position of its row in the chunk.
    pub index: usize,
    /// Its place among the row's coupled variables.
    pub slot: usize,
    pub pull: Pull,
}

/// Where one row's parts lie in its chunk.
#[derive(Clone, Debug)]
struct RowTape {
    basis: u32,
    basis_d1: u32,
    gate: u32,
    gate_d1: u32,
    blocks: u32,
    jacobian: u32,
    free: u16,
    q: u16,
}

/// Offsets within a chunk fit a `u32` by far.
fn offset(len: usize) -> u32 {
    u32::try_from(len).expect("a chunk's parts stay below 2^32 entries")
}

/// Local variables of a row fit a `u16`.
fn count(len: usize) -> u16 {
    u16::try_from(len).expect("a row has fewer than 65,536 coupled variables")
}

/// One linearised row.
#[derive(Clone, Copy)]
pub struct RowView<'a> {
    problem: &'a Problem,
    pub row: usize,
    pub support: &'a [u32],
    /// Whether the layout has the logits of its support only.
    compact: bool,
    pub coord_starts: &'a [u32],
    /// Number of free logits in the support.
    pub free: usize,
    /// Number of coupled local variables.
    pub q: usize,
    basis: &'a [f64],
    basis_d1: &'a [f64],
    gate: &'a [f64],
    gate_d1: &'a [f64],
    /// Curvature block A_i of H over the coupled variables (q x q).
    pub curvature: &'a [f64],
    /// Local Jacobian L_i = D_i B in the frame's channels (q x r); L_i P_i where rows have a metric.
    pub jacobian: &'a [f64],
    /// Second derivatives of the reconstruction against the residual, times w/phi (q x q).
    pub second: &'a [f64],
    /// Residual times w/phi in the frame's channels (r), where steps are exact.
    pub residual: &'a [f64],
    /// Its held coordinates: nothing else of the row has a derivative along them.
    pub held: &'a [HeldAxis],
}

impl Chunk {
    pub(super) fn new(problem: &Problem, state: &State, index: usize, rows: Range<usize>) -> Self {
        let len = rows.len();
        let supports = rows.clone().map(|row| state.support(row));
        let phi = Stacked::zeros(problem.width(), supports, |k| problem.rows_of(k));
        Self {
            index,
            rows,
            phi,
            residual: Array2::zeros((len, 0)),
            tapes: Vec::with_capacity(len),
            basis: Vec::new(),
            basis_d1: Vec::new(),
            gate: Vec::new(),
            gate_d1: Vec::new(),
            blocks: Vec::new(),
            jacobians: Vec::new(),
            held: Vec::new(),
        }
    }

    /// Appends a row: its gate, and the basis rows of its support laid end to end. Its blocks are set later.
    pub(super) fn push(&mut self, gate: &GateRow, basis: &[f64], basis_d1: &[f64], q: usize, rank: usize) {
        self.tapes.push(RowTape {
            basis: offset(self.basis.len()),
            basis_d1: offset(self.basis_d1.len()),
            gate: offset(self.gate.len()),
            gate_d1: offset(self.gate_d1.len()),
            blocks: offset(self.blocks.len()),
            jacobian: offset(self.jacobians.len()),
            free: count(gate.free),
            q: count(q),
        });
        self.basis.extend_from_slice(basis);
        self.basis_d1.extend_from_slice(basis_d1);
        self.gate.extend_from_slice(&gate.a);
        self.gate_d1.extend_from_slice(&gate.da);
        self.blocks.resize(self.blocks.len() + 2 * q * q, 0.0);
        self.jacobians.resize(self.jacobians.len() + q * rank, 0.0);
    }

    pub(super) fn set_blocks(&mut self, index: usize, curvature: &[f64], second: &[f64]) {
        let at = self.tapes[index].blocks as usize;
        let size = curvature.len();
        self.blocks[at..at + size].copy_from_slice(curvature);
        self.blocks[at + size..at + 2 * size].copy_from_slice(second);
    }

    pub(super) fn set_jacobian(&mut self, index: usize, jacobian: &[f64]) {
        let at = self.tapes[index].jacobian as usize;
        self.jacobians[at..at + jacobian.len()].copy_from_slice(jacobian);
    }

    /// Appends a held coordinate; rows come in their order.
    pub(super) fn push_held(&mut self, axis: HeldAxis) {
        self.held.push(axis);
    }

    /// Gives back what the buffers have grown beyond their content.
    pub(super) fn shrink(&mut self) {
        for buffer in [
            &mut self.basis,
            &mut self.basis_d1,
            &mut self.gate,
            &mut self.gate_d1,
            &mut self.blocks,
            &mut self.jacobians,
        ] {
            buffer.shrink_to_fit();
        }
        self.held.shrink_to_fit();
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// `sum_i x_i rho_i'` added to a border in the frame (M x r), for stacked vectors x.
    pub fn add_against_residual(&self, x: &Stacked, border: &mut Array2<f64>) {
        x.add_transposed(self.residual.view(), border.view_mut());
    }

    /// `y rho_i` for the atoms of every row, for a border y in the frame (M x r).
    pub fn residual_against(&self, y: &Array2<f64>) -> Stacked {
        self.phi.meeting(&self.residual, y)
    }

    /// The linearised row at position `index` of the chunk.
    pub fn row<'a>(&'a self, problem: &'a Problem, state: &'a State, index: usize) -> RowView<'a> {
        let tape = &self.tapes[index];
        let row = self.rows.start + index;
        let support = state.support(row);
        let (s, q, free) = (support.len(), usize::from(tape.q), usize::from(tape.free));
        let part = |values: &'a [f64], from: u32, len: usize| &values[from as usize..from as usize + len];
        let next = self.tapes.get(index + 1);
        let upto = |values: &'a [f64], from: u32, end: Option<u32>| {
            &values[from as usize..end.map_or(values.len(), |e| e as usize)]
        };
        let blocks = part(&self.blocks, tape.blocks, 2 * q * q);
        let first = self.held.partition_point(|axis| axis.index < index);
        let held = self.held[first..].partition_point(|axis| axis.index == index);
        RowView {
            problem,
            row,
            support,
            compact: state.layout_of_rows().is_compact(),
            coord_starts: state.layout_of_rows().coord_starts(row),
            free,
            q,
            basis: upto(&self.basis, tape.basis, next.map(|t| t.basis)),
            basis_d1: upto(&self.basis_d1, tape.basis_d1, next.map(|t| t.basis_d1)),
            gate: part(&self.gate, tape.gate, s),
            gate_d1: part(&self.gate_d1, tape.gate_d1, s * free),
            curvature: &blocks[..q * q],
            second: &blocks[q * q..],
            jacobian: upto(&self.jacobians, tape.jacobian, next.map(|t| t.jacobian)),
            residual: self.residual.row(index).to_slice().expect("standard layout"),
            held: &self.held[first..first + held],
        }
    }
}

/// One atom of a row's support.
pub struct AtomView<'a> {
    /// Position of the atom in the dictionary.
    pub atom: usize,
    /// Its rows in the stacked decoder.
    pub rows: Range<usize>,
    pub gate: f64,
    /// Derivatives of the gate over the row's free logits.
    pub gate_d1: &'a [f64],
    pub phi: &'a [f64],
    /// `d x M`.
    pub phi_d1: &'a [f64],
    /// Where its coordinates begin among the coupled variables.
    pub slot: usize,
}

impl<'a> RowView<'a> {
    /// The atoms of the support, in order.
    pub fn atoms(self) -> impl Iterator<Item = AtomView<'a>> {
        let (mut basis, mut d1, mut slot) = (0, 0, self.free);
        self.support.iter().enumerate().map(move |(s, &k)| {
            let k = k as usize;
            let atom = &self.problem.atoms()[k];
            let (width, dim) = (atom.width(), atom.dim());
            let view = AtomView {
                atom: k,
                rows: self.problem.rows_of(k),
                gate: self.gate[s],
                gate_d1: &self.gate_d1[s * self.free..(s + 1) * self.free],
                phi: &self.basis[basis..basis + width],
                phi_d1: &self.basis_d1[d1..d1 + width * dim],
                slot,
            };
            basis += width;
            d1 += width * dim;
            slot += dim;
            view
        })
    }

    /// What the row's objective would do along coupled variable `u`, where that is a held coordinate.
    pub fn pull_at(&self, u: usize) -> Option<&'a Pull> {
        self.held.iter().find(|axis| axis.slot == u).map(|axis| &axis.pull)
    }

    /// Position of coupled variable `u` in the row's block of the layout.
    pub fn position(&self, u: usize) -> usize {
        if u < self.free {
            // free logits of a sorted support come in order, and so do those of the layout: of the support, or of all free atoms
            return if self.compact { u } else { self.support[u] as usize };
        }
        let mut slot = self.free;
        for (&k, &start) in self.support.iter().zip(self.coord_starts) {
            let dim = self.problem.atoms()[k as usize].dim();
            if u < slot + dim {
                return start as usize + (u - slot);
            }
            slot += dim;
        }
        unreachable!("coupled variables are the free logits and the coordinates of the support")
    }

    /// `out[u] += factor * D_u . x` for a row x of stacked vectors: local derivatives against it.
    pub fn pull(&self, x: &Stacked, index: usize, factor: f64, out: &mut [f64]) {
        self.pull_parts(|s, _| x.part(index, s), factor, out);
    }

    /// The same for a vector over all columns.
    pub fn pull_whole(&self, x: &[f64], factor: f64, out: &mut [f64]) {
        self.pull_parts(|_, rows| &x[rows], factor, out);
    }

    fn pull_parts<'b>(&self, part: impl Fn(usize, Range<usize>) -> &'b [f64], factor: f64, out: &mut [f64]) {
        for (s, atom) in self.atoms().enumerate() {
            let x = part(s, atom.rows.clone());
            let value = factor * crate::linalg::dot(atom.phi, x);
            for (o, da) in out.iter_mut().zip(atom.gate_d1) {
                *o += da * value;
            }
            for (j, d1) in atom.phi_d1.chunks_exact(x.len()).enumerate() {
                out[atom.slot + j] += factor * atom.gate * crate::linalg::dot(d1, x);
            }
        }
    }

    /// `x += factor * sum_u v_u D_u` for a row x of stacked vectors: the basis row's motion under a local step.
    pub fn push(&self, v: &[f64], factor: f64, x: &mut Stacked, index: usize) {
        for (s, atom) in self.atoms().enumerate() {
            let x = x.part_mut(index, s);
            let gate = factor * crate::linalg::dot(atom.gate_d1, &v[..self.free]);
            crate::linalg::axpy(gate, atom.phi, x);
            for (j, d1) in atom.phi_d1.chunks_exact(x.len()).enumerate() {
                crate::linalg::axpy(factor * atom.gate * v[atom.slot + j], d1, x);
            }
        }
    }

    /// Writes `L = D B` (q x r) for a decoder of any number of columns.
    pub fn write_jacobian(&self, decoders: &Array2<f64>, out: &mut [f64]) {
        let r = decoders.ncols();
        out[..self.q * r].fill(0.0);
        let table = decoders.as_slice().expect("standard layout");
        let mut point = vec![0.0; r];
        for atom in self.atoms() {
            let block = &table[atom.rows.start * r..atom.rows.end * r];
            if self.free > 0 {
                point.fill(0.0);
                for (phi, b) in atom.phi.iter().zip(block.chunks_exact(r)) {
                    crate::linalg::axpy(*phi, b, &mut point);
                }
                for (u, da) in atom.gate_d1.iter().enumerate() {
                    crate::linalg::axpy(*da, &point, &mut out[u * r..(u + 1) * r]);
                }
            }
            for (j, d1) in atom.phi_d1.chunks_exact(atom.phi.len()).enumerate() {
                let row = &mut out[(atom.slot + j) * r..(atom.slot + j + 1) * r];
                for (d, b) in d1.iter().zip(block.chunks_exact(r)) {
                    crate::linalg::axpy(atom.gate * d, b, row);
                }
            }
        }
    }
}
