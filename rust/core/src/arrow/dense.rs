//! The arrow written out, for small problems, tests and teaching.

use super::{Frame, System};
use crate::errors::ShapeError;
use crate::layout::SaeRowLayout;
use crate::problem::{Problem, COMPACT_RIDGE};
use crate::rho::SaeManifoldRho;
use crate::state::State;
use ndarray::{s, Array1, Array2};

/// Dense blocks of H and the gradient of L. Border index: `(row of the stacked decoder) * p + channel`.
#[derive(Clone, Debug)]
pub struct ArrowSchur {
    /// Per row q x q.
    pub htt: Vec<Array2<f64>>,
    /// Per row q.
    pub gt: Vec<Array1<f64>>,
    /// Per row q x (M p).
    pub htbeta: Vec<Array2<f64>>,
    /// (M p) x (M p).
    pub hbb: Array2<f64>,
    /// M p.
    pub gb: Array1<f64>,
    /// Columns that couple all rows: each adds `slope w w'` over the variables of different rows, w given by its entries;
    /// a row's share with itself stands in its own block.
    pub columns: Vec<(f64, Vec<(usize, f64)>)>,
}

impl ArrowSchur {
    /// Assembles H at a state. With a layout, each row keeps the variables that the layout lists.
    pub fn new(
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        layout: Option<&SaeRowLayout>,
    ) -> Result<Self, ShapeError> {
        if let Some(layout) = layout {
            if layout.n_rows() != problem.n_rows() {
                return Err(ShapeError::shape("layout rows", &[layout.n_rows()], &[problem.n_rows()]));
            }
            if layout.coord_dims() != problem.coord_dims() {
                return Err(ShapeError::shape("layout coord_dims", layout.coord_dims(), &problem.coord_dims()));
            }
        }
        let system = System::new(problem, state, rho, Frame::full(problem, &state.decoders))
            .ok_or_else(|| ShapeError::value("the curvature at this state and these strengths is not finite"))?;
        let lin = &system.lin;
        let (m, p) = state.decoders.dim();
        let mut out = Self {
            htt: Vec::new(),
            gt: Vec::new(),
            htbeta: Vec::new(),
            hbb: Array2::zeros((m * p, m * p)),
            gb: Array1::from_iter(lin.border_gradient.iter().copied()),
            columns: lin.columns.terms.iter().map(|t| (t.slope, Vec::new())).collect(),
        };
        let own_border = lin.border_gram(problem);
        let own_border = own_border.whole();
        let mut start = 0;
        for (a, b) in (0..m).flat_map(|a| (0..m).map(move |b| (a, b))) {
            (0..p).for_each(|c| out.hbb[[a * p + c, b * p + c]] = own_border[[a, b]]);
        }
        if let Some(metric) = problem.metric() {
            for chunk in lin.chunks(problem, state) {
                for (index, row) in chunk.rows.clone().enumerate() {
                    let phi = chunk.phi.row(index);
                    let factor = problem.weight(row) / rho.dispersion();
                    for c in 0..p {
                        let mut column = vec![0.0; p];
                        column[c] = factor;
                        metric.apply(row, &mut column);
                        for (a, b) in (0..m).flat_map(|a| (0..m).map(move |b| (a, b))) {
                            (0..p).for_each(|d| out.hbb[[a * p + c, b * p + d]] += phi[a] * phi[b] * column[d]);
                        }
                    }
                }
            }
        }
        let of_state = state.layout_of_rows();
        for chunk in lin.chunks(problem, state) {
            for (index, view, _) in System::rows_of(problem, state, &chunk) {
                let q = of_state.row_q_active(view.row);
                let mut htt = Array2::zeros((q, q));
                let mut htbeta = Array2::zeros((q, m * p));
                for (f, &c) in lin.logit_curvature[lin.logits(view.row)].iter().enumerate() {
                    htt[[f, f]] = c;
                }
                let factor = problem.weight(view.row) / rho.dispersion();
                for u in 0..view.q {
                    let at = view.position(u);
                    for v in 0..view.q {
                        htt[[at, view.position(v)]] = view.curvature[u * view.q + v];
                    }
                    for (b, phi) in chunk.phi.row(index).iter().enumerate() {
                        for c in 0..p {
                            htbeta[[at, b * p + c]] = factor * phi * view.jacobian[u * p + c];
                        }
                    }
                }
                let gt = Array1::from(lin.local_gradient[of_state.block(view.row)].to_vec());
                lin.columns.of_row(problem, state, view.row, |at, k, z| {
                    htt[[at, at]] += lin.columns.terms[k].slope * z[1] * z[1];
                });
                let kept = layout.map(|l| kept_positions(of_state, l, view.row));
                lin.columns.of_row(problem, state, view.row, |at, k, z| {
                    let place = kept.as_ref().map_or(Some(at), |kept| kept.iter().position(|p| *p == Some(at)));
                    out.columns[k].1.extend(place.map(|p| (start + p, z[1])));
                });
                start += kept.as_ref().map_or(q, Vec::len);
                match kept {
                    None => {
                        out.htt.push(htt);
                        out.gt.push(gt);
                        out.htbeta.push(htbeta);
                    }
                    Some(kept) => {
                        let pick = |i: usize, j: usize| match (kept[i], kept[j]) {
                            (Some(a), Some(b)) => htt[[a, b]],
                            _ if i == j => COMPACT_RIDGE,
                            _ => 0.0,
                        };
                        let k = kept.len();
                        out.htt.push(Array2::from_shape_fn((k, k), |(i, j)| pick(i, j)));
                        out.gt.push(kept.iter().map(|a| a.map_or(0.0, |a| gt[a])).collect());
                        out.htbeta
                            .push(Array2::from_shape_fn((k, m * p), |(i, b)| kept[i].map_or(0.0, |a| htbeta[[a, b]])));
                    }
                }
            }
        }
        Ok(out)
    }

    /// H over all variables: rows first, then the border.
    pub fn dense(&self) -> Array2<f64> {
        let local: usize = self.gt.iter().map(|g| g.len()).sum();
        let border = self.gb.len();
        let mut out = Array2::zeros((local + border, local + border));
        out.slice_mut(s![local.., local..]).assign(&self.hbb);
        let mut at = 0;
        for (htt, c) in self.htt.iter().zip(&self.htbeta) {
            let q = htt.nrows();
            out.slice_mut(s![at..at + q, at..at + q]).assign(htt);
            out.slice_mut(s![at..at + q, local..]).assign(c);
            out.slice_mut(s![local.., at..at + q]).assign(&c.t());
            at += q;
        }
        for (slope, entries) in &self.columns {
            for &(i, a) in entries {
                // the diagonal holds each row's own share already
                entries.iter().filter(|e| e.0 != i).for_each(|&(j, b)| out[[i, j]] += slope * a * b);
            }
        }
        out
    }
}

/// For each variable of the layout's row, its position in the state's row; `None` for one the state does not have (a
/// pinned logit, a coordinate outside the support).
fn kept_positions(state: &SaeRowLayout, layout: &SaeRowLayout, row: usize) -> Vec<Option<usize>> {
    let mut kept = vec![None; layout.row_q_active(row)];
    for (atom, slot) in layout.logit_atoms(row).iter().zip(&mut kept) {
        *slot = state.logit_atoms(row).binary_search(atom).ok();
    }
    for (&k, &to) in layout.active_atoms(row).iter().zip(layout.coord_starts(row)) {
        if let Ok(s) = state.active_atoms(row).binary_search(&k) {
            let from = state.coord_starts(row)[s] as usize;
            for j in 0..state.coord_dims()[k as usize] {
                kept[to as usize + j] = Some(from + j);
            }
        }
    }
    kept
}
