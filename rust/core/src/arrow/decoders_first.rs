//! Decoders first: the border's curvature is a Kronecker product, so its inverse is free.
//!
//! `S_t = A - C (G (x) I + UU')^-1 C'` is a dense system over the rows' coupled variables. With
//! `(G (x) I + UU')^-1 = G^-1 (x) I - Z K^-1 Z'`, `Z = G^-1 U`, `K = I + U'Z`,
//! `S_t[i, j] = A_i delta_ij - (phi_i' G^-1 phi_j)(L_i L_j') w_i w_j/phi^2 + (C_i Z) K^-1 (C_j Z)'`.

use super::factor::{Curvature, RowTraces};
use super::kronecker::Kronecker;
use super::rows_first::decoupled_logits;
use super::spectral::{ln_held, Nulls};
use super::{Step, System};
use crate::linalg::{axpy, dot, product, Cholesky, Op};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::row::{Chunk, RowView};
use crate::state::State;
use ndarray::{s, Array2, Axis};

/// The factor of decoders first.
#[derive(Debug)]
pub struct DecodersFirst {
    /// The border's own curvature in the frame.
    border: Kronecker,
    local: Cholesky,
    /// Where each row's coupled variables begin.
    starts: Vec<usize>,
    pub(super) nulls: Nulls,
    pub(super) log_det: f64,
}

/// The rows' parts laid out over all coupled variables.
struct Stacked {
    starts: Vec<usize>,
    /// (w/phi) L, coupled variables x r.
    jacobian: Array2<f64>,
    /// phi_i of the variable's row, coupled variables x M.
    phi: Array2<f64>,
}

fn stack(problem: &Problem, state: &State, rho: &SaeManifoldRho, system: &System) -> Stacked {
    let (m, r) = (problem.width(), system.lin.frame.rank());
    let mut starts = vec![0];
    let (mut jacobian, mut phi) = (Vec::new(), Vec::new());
    for chunk in system.lin.chunks(problem, state) {
        for (index, view, _) in System::rows_of(problem, state, &chunk) {
            let factor = problem.weight(view.row) / rho.dispersion();
            jacobian.extend(view.jacobian.iter().map(|v| factor * v));
            let row = chunk.phi.row(index);
            (0..view.q).for_each(|_| phi.extend_from_slice(&row));
            starts.push(starts[starts.len() - 1] + view.q);
        }
    }
    let q = starts[starts.len() - 1];
    Stacked {
        starts,
        jacobian: Array2::from_shape_vec((q, r), jacobian).expect("q rows of r"),
        phi: Array2::from_shape_vec((q, m), phi).expect("q rows of M"),
    }
}

/// The coupled variables of a local vector, row by row.
fn gather(problem: &Problem, state: &State, system: &System, local: &[f64]) -> Vec<f64> {
    let layout = state.layout_of_rows();
    let mut out = Vec::new();
    for chunk in system.lin.chunks(problem, state) {
        for (_, view, _) in System::rows_of(problem, state, &chunk) {
            let block = &local[layout.block(view.row)];
            out.extend((0..view.q).map(|u| block[view.position(u)]));
        }
    }
    out
}

impl DecodersFirst {
    pub(super) fn new(
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        curvature: Curvature,
        nulls: Nulls,
        system: &System,
    ) -> Option<Self> {
        let gram = Cholesky::new(system.lin.gram.whole().view())?;
        let rows = stack(problem, state, rho, system);
        let gauge: Vec<Array2<f64>> = system
            .gauge(curvature)
            .columns
            .iter()
            .map(|column| {
                let mut u = Array2::zeros(state.decoders.dim());
                column.add_border(problem, 1.0, &mut u);
                system.lin.frame.split(&u).0
            })
            .collect();
        let border = Kronecker::new(gram, gauge)?;
        let j = border.solved_gauge.len();

        let mut solved_phi = rows.phi.t().as_standard_layout().into_owned();
        border.gram().solve(&mut solved_phi.view_mut());
        let kernel = product((rows.phi.view(), Op::Plain), (solved_phi.view(), Op::Plain));
        let cross = product((rows.jacobian.view(), Op::Plain), (rows.jacobian.view(), Op::Transposed));
        let mut local = -(&kernel * &cross);
        let mut seen = Array2::zeros((local.nrows(), j));
        for (solved, mut seen) in border.solved_gauge.iter().zip(seen.columns_mut()) {
            let through = product((rows.phi.view(), Op::Plain), (solved.view(), Op::Plain));
            seen.assign(&(&through * &rows.jacobian).sum_axis(Axis(1)));
        }
        let mut weighted = seen.t().as_standard_layout().into_owned();
        border.core.solve(&mut weighted.view_mut());
        local += &seen.dot(&weighted);
        for chunk in system.lin.chunks(problem, state) {
            for (_, view, _) in System::rows_of(problem, state, &chunk) {
                let at = rows.starts[view.row];
                let block = curvature.block(problem, &view, &nulls);
                for u in 0..view.q {
                    for v in 0..view.q {
                        local[[at + u, at + v]] += block[u * view.q + v];
                    }
                }
            }
        }
        let local = Cholesky::new(local.view())?;
        let mut log_det =
            problem.n_outputs() as f64 * border.gram().log_det() + border.core.log_det() + local.log_det();
        log_det += decoupled_logits(problem, state, |row| nulls.logits(problem, system, row), ln_held);
        let starts = rows.starts;
        log_det.is_finite().then_some(Self { border, local, starts, nulls, log_det })
    }

    pub(super) fn solve(
        &self,
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        system: &System,
        rhs: &Step,
    ) -> Step {
        let frame = &system.lin.frame;
        let (mut inside, rest) = frame.split(&rhs.border);
        self.border.solve(&mut inside);
        let mut local = rhs.local.clone();
        axpy(-1.0, &system.couple(problem, state, rho, &inside), &mut local);
        let mut coupled = gather(problem, state, system, &local);
        self.local.solve_vec(&mut coupled);
        // logits outside the support are diagonal; the coupled variables overwrite theirs
        let layout = state.layout_of_rows();
        for chunk in system.lin.chunks(problem, state) {
            for (_, view, _) in System::rows_of(problem, state, &chunk) {
                let block = &mut local[layout.block(view.row)];
                let curvature = self.nulls.logits(problem, system, view.row);
                block.iter_mut().zip(curvature).for_each(|(x, c)| *x /= c);
                for u in 0..view.q {
                    block[view.position(u)] = coupled[self.starts[view.row] + u];
                }
            }
        }
        let mut back = system.couple_transposed(problem, state, rho, &local);
        self.border.solve(&mut back);
        inside -= &back;
        let mut border = frame.lift(&inside);
        if let Some(mut rest) = rest {
            self.border.gram().solve(&mut rest.view_mut());
            border += &rest;
        }
        Step { local, border }
    }

    pub(super) fn inverse(
        &self,
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        system: &System,
    ) -> FullInverse {
        let (m, r) = (problem.width(), system.lin.frame.rank());
        let rows = stack(problem, state, rho, system);
        let q = rows.jacobian.nrows();
        // F = C (G (x) I + UU')^-1, one coupled variable a row
        let mut f = Array2::zeros((q, m * r));
        for a in 0..q {
            let mut block = Array2::from_shape_fn((m, r), |(i, c)| rows.phi[[a, i]] * rows.jacobian[[a, c]]);
            self.border.solve(&mut block);
            f.row_mut(a).assign(&ndarray::Array1::from_iter(block.iter().copied()));
        }
        let local = self.local.inverse();
        let cross = -product((local.view(), Op::Plain), (f.view(), Op::Plain));

        // X_bb = (G (x) I + UU')^-1 + F' S_t^-1 F, traced over all p channels
        let gram = self.border.gram().inverse();
        let mut trace = &gram * problem.n_outputs() as f64;
        let core = self.border.core.inverse();
        for (a, za) in self.border.solved_gauge.iter().enumerate() {
            for (b, zb) in self.border.solved_gauge.iter().enumerate() {
                trace.scaled_add(-core[[a, b]], &za.dot(&zb.t()));
            }
        }
        for c in 0..r {
            let pick = |x: &Array2<f64>| x.slice(s![.., c..;r]).as_standard_layout().into_owned();
            trace -= &product((pick(&f).view(), Op::Transposed), (pick(&cross).view(), Op::Plain));
        }
        FullInverse { local, cross, trace, starts: self.starts.clone() }
    }
}

/// The inverse over all coupled variables, and between them and the border.
pub struct FullInverse {
    local: Array2<f64>,
    /// Coupled variables x (M r).
    cross: Array2<f64>,
    pub(super) trace: Array2<f64>,
    starts: Vec<usize>,
}

impl FullInverse {
    pub(super) fn visit_rows(
        &self,
        problem: &Problem,
        state: &State,
        _rho: &SaeManifoldRho,
        system: &System,
        chunk: &Chunk,
        mut visit: impl FnMut(usize, &RowView<'_>, &RowTraces),
    ) {
        let r = system.lin.frame.rank();
        let diagonal = chunk.phi.times(&self.trace);
        let mut traces = RowTraces::default();
        for (index, view, _) in System::rows_of(problem, state, chunk) {
            let (at, q) = (self.starts[view.row], view.q);
            let block = self.local.slice(s![at..at + q, at..at + q]);
            traces.local.clear();
            traces.local.extend(block.iter());
            traces.against_phi.clear();
            traces.against_phi.resize(q * r, 0.0);
            traces.border.clear();
            traces.border.extend(diagonal.row(index));
            let phi = chunk.phi.row(index);
            for u in 0..q {
                let cross = self.cross.row(at + u);
                let cross = cross.as_slice().expect("standard layout");
                let jacobian = &view.jacobian[u * r..(u + 1) * r];
                for (i, block) in cross.chunks_exact(r).enumerate() {
                    axpy(phi[i], block, &mut traces.against_phi[u * r..(u + 1) * r]);
                    traces.border[i] += dot(jacobian, block);
                }
            }
            visit(index, &view, &traces);
        }
    }
}
