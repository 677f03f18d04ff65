//! What moves during a fit: logits, coordinates, decoders, and which atoms each row uses.

mod rows;

pub use rows::RowVariables;

use crate::atoms::{places, ChartFactor};
use crate::errors::{check_finite, ShapeError};
use crate::exchange::Digest;
use crate::frames::DecoderFrames;
use crate::gates::{resting_logit, RowLogits};
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
    /// Logits, of which those that are not free are fixed, and stored points of the atoms' manifolds.
    rows: RowVariables,
    /// Stacked decoders, M x p.
    pub decoders: Array2<f64>,
    /// The sparsity strength under which gates are read: that of the last solve.
    pub lambda: f64,
    pub(crate) frames: Arc<DecoderFrames>,
    /// Per atom, the weights of its roughness; `None` where it counts as it is.
    roughness_weights: Arc<Vec<Option<Vec<f64>>>>,
}

impl State {
    /// A state with the given supports (every atom in every row when `None`). Where rows have what they use only, nothing else
    /// of `logits` (n x K) and `coords` (per atom n x ambient) is taken.
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
        let rows = RowVariables::from_dense(Self::layout(problem, lists)?, &logits, &coords);
        let mut state = Self {
            rows,
            decoders: decoders.as_standard_layout().into_owned(),
            lambda: 1.0,
            frames: Arc::default(),
            roughness_weights: Arc::new(vec![None; k]),
        };
        state.keep_inside(problem);
        Ok(state.reweighted(problem))
    }

    /// Moves coordinates beyond the ends of their intervals there.
    fn keep_inside(&mut self, problem: &Problem) {
        for (k, atom) in problem.atoms().iter().enumerate() {
            for place in places(atom.factors()) {
                let ChartFactor::Interval { lo, hi } = place.factor else { continue };
                for row in 0..problem.n_rows() {
                    if self.rows.atoms(row).binary_search(&(k as u32)).is_ok() {
                        let t = &mut self.rows.point_mut(row, k)[place.stored];
                        *t = t.clamp(lo, hi);
                    }
                }
            }
        }
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
            team.agree(&Digest::default().numbers(&rho.to_flat()).numbers(self.values()));
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

    fn layout(problem: &Problem, lists: Vec<Vec<u32>>) -> Result<SaeRowLayout, ShapeError> {
        let dims = problem.coord_dims();
        if problem.compact_rows() {
            SaeRowLayout::with_open_logits(lists.into_iter(), dims)
        } else if problem.gate().shares() {
            SaeRowLayout::with_dense_logits(lists.into_iter(), problem.n_free(), dims)
        } else {
            SaeRowLayout::with_independent_logits(lists.into_iter(), problem.n_free(), dims)
        }
    }

    /// The same decoders with other rows: their supports, and what they have then of logits and points, row by row.
    pub fn with_rows(
        mut self,
        problem: &Problem,
        lists: Vec<Vec<u32>>,
        logits: Vec<f64>,
        points: Vec<f64>,
    ) -> Result<Self, ShapeError> {
        let ambients: Vec<usize> = problem.atoms().iter().map(|atom| atom.ambient()).collect();
        self.rows = RowVariables::new(Self::layout(problem, lists)?, &ambients, logits, points);
        Ok(self)
    }

    /// The same variables with gates read under another sparsity strength.
    pub fn with_lambda(mut self, lambda: f64) -> Self {
        self.lambda = lambda;
        self
    }

    /// The row layout: logits that are variables, then the coordinates of the atoms in the row's support.
    pub fn layout_of_rows(&self) -> &SaeRowLayout {
        self.rows.layout()
    }

    pub fn support(&self, row: usize) -> &[u32] {
        self.layout_of_rows().active_atoms(row)
    }

    /// The atoms of which a row has a logit and a point: all, or those of its support.
    pub fn atoms_of(&self, row: usize) -> &[u32] {
        self.rows.atoms(row)
    }

    /// The logits that a row has.
    pub fn logits_of(&self, row: usize) -> RowLogits<'_> {
        self.rows.logits_of(row)
    }

    /// One of them.
    pub fn logit(&self, row: usize, k: usize) -> f64 {
        self.logits_of(row)[k]
    }

    /// Where a row lies on an atom of which it has a point: a stored point.
    pub fn point(&self, k: usize, row: usize) -> &[f64] {
        self.rows.point(row, k)
    }

    /// What a row has of logits and points, one after the other.
    pub fn variables_of(&self, row: usize) -> (&[f64], &[f64]) {
        self.rows.row(row)
    }

    /// All numbers of a state.
    pub fn values(&self) -> impl Iterator<Item = &f64> {
        self.rows.values().chain(&self.decoders)
    }

    /// Logits of all atoms, n x K: where a row has none, as one that feels its prior alone.
    pub fn logits(&self, problem: &Problem) -> Array2<f64> {
        let whole = !self.layout_of_rows().is_compact();
        let rest = |k| if whole { 0.0 } else { resting_logit(problem.gate(), self.lambda, k) };
        self.rows.dense_logits(&(0..problem.n_atoms()).map(rest).collect::<Vec<_>>())
    }

    /// Stored points of all rows on an atom, n x ambient: its origin where a row has none.
    pub fn points(&self, problem: &Problem, k: usize) -> Array2<f64> {
        let atom = &problem.atoms()[k];
        let mut origin = vec![0.0; atom.ambient()];
        atom.origin(&mut origin);
        self.rows.dense_points(k, &origin)
    }

    /// One row's variables over all atoms. Where it does not have those of an atom they are nothing that it depends on.
    pub fn row(&self, problem: &Problem, i: usize) -> RowState {
        let mut out = RowState {
            logits: vec![0.0; problem.n_atoms()],
            coords: problem.origins().to_vec(),
            support: self.support(i).to_vec(),
            objective: f64::INFINITY,
            converged: false,
        };
        for &k in self.atoms_of(i) {
            out.coords[problem.point_of(k as usize)].copy_from_slice(self.point(k as usize, i));
        }
        self.logits_of(i).iter().for_each(|(k, l)| out.logits[k] = l);
        out
    }

    /// Replaces what one row has of logits and points.
    pub fn set_row(&mut self, i: usize, (logits, points): (&[f64], &[f64])) {
        let (own, at) = self.rows.row_mut(i);
        own.copy_from_slice(logits);
        at.copy_from_slice(points);
    }

    /// Number of rows whose support has the atom, for every atom.
    pub fn uses(&self, problem: &Problem) -> Vec<usize> {
        let mut uses = vec![0; problem.n_atoms()];
        for i in 0..problem.n_rows() {
            self.support(i).iter().for_each(|&k| uses[k as usize] += 1);
        }
        uses
    }

    /// Whether any row's support has the atom.
    pub fn used(&self, problem: &Problem) -> Vec<bool> {
        self.uses(problem).iter().map(|uses| *uses > 0).collect()
    }

    /// Gate values of a row's support.
    pub fn gates_of(&self, problem: &Problem, row: usize, a: &mut Vec<f64>) {
        problem.gate().values(self.lambda, self.logits_of(row), self.support(row), a);
    }

    /// Gate values, n x K, exactly zero off the support.
    pub fn gates(&self, problem: &Problem) -> Array2<f64> {
        let mut out = Array2::zeros((problem.n_rows(), problem.n_atoms()));
        let mut a = Vec::new();
        for i in 0..problem.n_rows() {
            self.gates_of(problem, i, &mut a);
            for (&k, &value) in self.support(i).iter().zip(&a) {
                out[[i, k as usize]] = value;
            }
        }
        out
    }

    /// The state after a step: `local` in the order of the layout, `border` (M x p). Coordinates stay on their manifolds.
    pub fn stepped(&self, problem: &Problem, local: &[f64], border: &[f64], scale: f64) -> Self {
        let mut out = self.clone();
        let layout = self.layout_of_rows();
        let mut moved = Vec::new();
        for i in 0..problem.n_rows() {
            let block = &local[layout.block(i)];
            // free logits come first among those of a row
            let free = layout.logit_atoms(i).len();
            for (l, d) in out.rows.row_mut(i).0.iter_mut().take(free).zip(block) {
                *l += scale * d;
            }
            for &k in layout.active_atoms(i) {
                if let Some(wall) = problem.gate().wall(k as usize) {
                    let logit = out.rows.logit_mut(i, k as usize);
                    *logit = logit.max(wall);
                }
            }
            for (&k, &start) in layout.active_atoms(i).iter().zip(layout.coord_starts(i)) {
                let k = k as usize;
                let atom = &problem.atoms()[k];
                moved.clear();
                moved.extend(block[start as usize..start as usize + atom.dim()].iter().map(|d| scale * d));
                atom.advance(out.rows.point_mut(i, k), &moved);
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
        let (mut gates, mut phi) = (Vec::new(), vec![0.0; problem.width()]);
        for i in 0..problem.n_rows() {
            let mut row: ndarray::ArrayViewMut1<'_, f64> = out.row_mut(i);
            self.gates_of(problem, i, &mut gates);
            for (&k, gate) in self.support(i).iter().zip(&gates) {
                let k = k as usize;
                let width = problem.atoms()[k].width();
                problem.atoms()[k].basis(self.point(k, i), &mut phi[..width]);
                let basis = Array1::from_iter(phi[..width].iter().map(|v| v * gate));
                row += &basis.dot(&self.decoder(problem, k));
            }
        }
        out
    }
}
