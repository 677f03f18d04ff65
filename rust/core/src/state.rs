//! What moves during a fit: logits, coordinates, decoders, and which atoms each row uses.

use crate::atoms::{places, ChartFactor};
use crate::errors::{check_finite, ShapeError};
use crate::exchange::Digest;
use crate::frames::DecoderFrames;
use crate::layout::SaeRowLayout;
use crate::priors::{arc_length_weights, weighted, weighted_null};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::row::RowState;
use ndarray::{s, Array1, Array2};
use std::sync::Arc;

/// An atom stays in a row's support while its gate exceeds this part of the row's largest. Below it a coordinate is
/// not identified; raising it makes rows sparser and the reconstruction coarser by the same relative amount.
pub const SUPPORT_CUTOFF: f64 = 1e-3;

/// The inner variables.
#[derive(Clone, Debug)]
pub struct State {
    /// n x K; entries of logits that are not free are fixed.
    pub logits: Array2<f64>,
    /// Per atom n x ambient_k: stored points of its manifold.
    pub coords: Vec<Array2<f64>>,
    /// Stacked decoders, M x p.
    pub decoders: Array2<f64>,
    /// The sparsity strength under which gates are read: that of the last solve.
    pub lambda: f64,
    support: Arc<SaeRowLayout>,
    pub(crate) frames: Arc<DecoderFrames>,
    /// Per atom, the weights of its roughness; `None` where it counts as it is.
    roughness_weights: Arc<Vec<Option<Vec<f64>>>>,
}

impl State {
    /// A state with the given supports (every atom in every row when `None`).
    pub fn new(
        problem: &Problem,
        logits: Array2<f64>,
        coords: Vec<Array2<f64>>,
        decoders: Array2<f64>,
        support: Option<Vec<Vec<u32>>>,
    ) -> Result<Self, ShapeError> {
        let (n, k) = (problem.n_rows(), problem.n_atoms());
        let expect = |what: &str, found: &[usize], expected: &[usize]| {
            if found == expected {
                Ok(())
            } else {
                Err(ShapeError::shape(what, found, expected))
            }
        };
        expect("logits", logits.shape(), &[n, k])?;
        expect("coords", &[coords.len()], &[k])?;
        expect("decoders", decoders.shape(), &[problem.width(), problem.n_outputs()])?;
        check_finite("logits", logits.view())?;
        check_finite("decoders", decoders.view())?;
        for (a, block) in coords.iter().enumerate() {
            expect(&format!("coords[{a}]"), block.shape(), &[n, problem.atoms()[a].ambient()])?;
            check_finite(&format!("coords[{a}]"), block.view())?;
        }
        let all: Vec<u32> = (0..k as u32).collect();
        let lists = support.unwrap_or_else(|| vec![all; n]);
        expect("support", &[lists.len()], &[n])?;
        let support = Self::layout(problem, lists)?;
        let standard = |a: Array2<f64>| if a.is_standard_layout() { a } else { a.as_standard_layout().into_owned() };
        let mut coords: Vec<Array2<f64>> = coords.into_iter().map(standard).collect();
        for (block, atom) in coords.iter_mut().zip(problem.atoms()) {
            for place in places(atom.factors()) {
                if let ChartFactor::Interval { lo, hi } = place.factor {
                    block.column_mut(place.stored).mapv_inplace(|t| t.clamp(lo, hi));
                }
            }
        }
        let roughness_weights = Arc::new(vec![None; k]);
        let state = Self {
            logits: standard(logits),
            coords,
            decoders: standard(decoders),
            lambda: 1.0,
            support,
            frames: Arc::default(),
            roughness_weights,
        };
        Ok(state.reweighted(problem))
    }

    /// The same variables with the roughness of curves weighted by the speed that the state gives them, when asked for.
    pub fn reweighted(mut self, problem: &Problem) -> Self {
        if problem.arc_length() {
            self.roughness_weights =
                Arc::new((0..problem.n_atoms()).map(|k| arc_length_weights(problem, &self, k)).collect());
        }
        self
    }

    /// Ends a fit whose processes have come to different states or strengths.
    pub fn agree(&self, problem: &Problem, rho: &SaeManifoldRho) {
        if let Some(team) = problem.team() {
            let values = self.coords.iter().flatten().chain(&self.logits).chain(&self.decoders);
            team.agree(&Digest::default().numbers(&rho.to_flat()).numbers(values));
        }
    }

    /// Weights of atom k's roughness.
    pub fn roughness_weights(&self, k: usize) -> Option<&[f64]> {
        self.roughness_weights[k].as_deref()
    }

    /// The roughness Gram of atom k as this state weighs it.
    pub fn roughness(&self, problem: &Problem, k: usize) -> Array2<f64> {
        let roughness = problem.atoms()[k].roughness();
        match self.roughness_weights(k) {
            Some(weights) => weighted(roughness, weights),
            None => roughness,
        }
    }

    /// The projector on its null space.
    pub fn null_projector(&self, problem: &Problem, k: usize) -> Array2<f64> {
        let projector = problem.atoms()[k].null_projector();
        match self.roughness_weights(k) {
            Some(weights) => weighted_null(&projector, weights),
            None => projector,
        }
    }

    /// The largest relative change of any roughness weight from another state of the same problem.
    pub fn weight_change(&self, other: &Self, problem: &Problem) -> f64 {
        let of = |state: &Self, k: usize, m: usize| state.roughness_weights(k).map_or(1.0, |w| w[m]);
        let change = |k: usize, m: usize| (of(self, k, m) / of(other, k, m) - 1.0).abs();
        let all = (0..problem.n_atoms()).flat_map(|k| (0..problem.atoms()[k].width()).map(move |m| (k, m)));
        all.map(|(k, m)| change(k, m)).fold(0.0, f64::max)
    }

    fn layout(problem: &Problem, lists: Vec<Vec<u32>>) -> Result<Arc<SaeRowLayout>, ShapeError> {
        let dims = problem.coord_dims();
        let layout = if problem.gate().shares() {
            SaeRowLayout::with_dense_logits(lists.into_iter(), problem.n_free(), dims)?
        } else {
            SaeRowLayout::with_independent_logits(lists.into_iter(), problem.n_free(), dims)?
        };
        Ok(Arc::new(layout))
    }

    /// The same variables with other supports.
    pub fn with_support(mut self, problem: &Problem, lists: Vec<Vec<u32>>) -> Result<Self, ShapeError> {
        self.support = Self::layout(problem, lists)?;
        Ok(self)
    }

    /// The same variables with gates read under another sparsity strength.
    pub fn with_lambda(mut self, lambda: f64) -> Self {
        self.lambda = lambda;
        self
    }

    /// The row layout: free logits, then the coordinates of the atoms in the row's support.
    pub fn layout_of_rows(&self) -> &SaeRowLayout {
        &self.support
    }

    pub fn support(&self, row: usize) -> &[u32] {
        self.support.active_atoms(row)
    }

    /// Where a row lies on an atom: a stored point.
    pub fn point(&self, k: usize, row: usize) -> &[f64] {
        let block = &self.coords[k];
        let width = block.ncols();
        &block.as_slice().expect("standard layout")[row * width..(row + 1) * width]
    }

    /// One row's variables.
    pub fn row(&self, i: usize) -> RowState {
        RowState {
            logits: self.logits.row(i).to_vec(),
            coords: self.coords.iter().flat_map(|c| c.row(i).to_vec()).collect(),
            support: self.support(i).to_vec(),
            objective: f64::INFINITY,
            converged: false,
        }
    }

    /// Replaces one row's logits and coordinates.
    pub fn set_row(&mut self, i: usize, row: &RowState) {
        self.logits.row_mut(i).iter_mut().zip(&row.logits).for_each(|(o, l)| *o = *l);
        let mut rest = &row.coords[..];
        for block in &mut self.coords {
            let (own, next) = rest.split_at(block.ncols());
            block.row_mut(i).iter_mut().zip(own).for_each(|(o, t)| *o = *t);
            rest = next;
        }
    }

    /// Whether any row's support has the atom.
    pub fn used(&self, problem: &Problem) -> Vec<bool> {
        let mut used = vec![false; problem.n_atoms()];
        for i in 0..problem.n_rows() {
            self.support(i).iter().for_each(|&k| used[k as usize] = true);
        }
        used
    }

    /// Gate values, n x K, exactly zero off the support.
    pub fn gates(&self, problem: &Problem) -> Array2<f64> {
        let mut out = Array2::zeros(self.logits.dim());
        let mut a = Vec::new();
        for i in 0..problem.n_rows() {
            let logits = self.logits.row(i);
            problem.gate().values(self.lambda, logits.as_slice().expect("standard layout"), self.support(i), &mut a);
            for (&k, &value) in self.support(i).iter().zip(&a) {
                out[[i, k as usize]] = value;
            }
        }
        out
    }

    /// The state after a step: `local` in the order of the layout, `border` (M x p). Coordinates stay on their manifolds.
    pub fn stepped(&self, problem: &Problem, local: &[f64], border: &[f64], scale: f64) -> Self {
        let mut out = self.clone();
        let free = problem.n_free();
        let mut moved = Vec::new();
        for i in 0..problem.n_rows() {
            let block = &local[self.support.block(i)];
            for (l, d) in out.logits.row_mut(i).iter_mut().take(free).zip(block) {
                *l += scale * d;
            }
            for &k in self.support.active_atoms(i) {
                if let Some(wall) = problem.gate().wall(k as usize) {
                    let logit = &mut out.logits[[i, k as usize]];
                    *logit = logit.max(wall);
                }
            }
            for (&k, &start) in self.support.active_atoms(i).iter().zip(self.support.coord_starts(i)) {
                let k = k as usize;
                let atom = &problem.atoms()[k];
                moved.clear();
                moved.extend(block[start as usize..start as usize + atom.dim()].iter().map(|d| scale * d));
                let mut t = out.coords[k].row_mut(i);
                atom.advance(t.as_slice_mut().expect("standard layout"), &moved);
            }
        }
        out.decoders.iter_mut().zip(border).for_each(|(b, d)| *b += scale * d);
        out
    }

    /// Decoder of one atom, M_k x p.
    pub fn decoder(&self, problem: &Problem, k: usize) -> ndarray::ArrayView2<'_, f64> {
        self.decoders.slice(s![problem.rows_of(k), ..])
    }

    /// Reconstruction of the centred rows.
    pub fn reconstruct(&self, problem: &Problem) -> Array2<f64> {
        let mut out = Array2::zeros((problem.n_rows(), problem.n_outputs()));
        let gates = self.gates(problem);
        let mut phi = vec![0.0; problem.width()];
        for i in 0..problem.n_rows() {
            let mut row: ndarray::ArrayViewMut1<'_, f64> = out.row_mut(i);
            for &k in self.support(i) {
                let k = k as usize;
                let width = problem.atoms()[k].width();
                problem.atoms()[k].basis(self.point(k, i), &mut phi[..width]);
                let basis = Array1::from_iter(phi[..width].iter().map(|v| v * gates[[i, k]]));
                row += &basis.dot(&self.decoder(problem, k));
            }
        }
        out
    }
}
