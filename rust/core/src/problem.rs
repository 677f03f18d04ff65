//! What is fixed during a fit: data, atoms, gate, weights.

use crate::atoms::{origins, Atom};
use crate::chunks::{rows_of_chunk, Chunks};
use crate::errors::ShapeError;
use crate::exchange::Team;
use crate::gates::Gate;
use crate::metric::RowMetric;
use crate::rho::SaeManifoldRho;
use crate::source::{passes, CentredRows, Source};
use crate::wire::Wire;
use ndarray::{Array1, Array2, Array3, ArrayViewMut2, Axis, CowArray, Ix2};
use std::ops::Range;
use std::sync::Arc;

/// Curvature added to every compact coordinate axis of H, so that a coordinate without data still has a curvature.
pub const COMPACT_RIDGE: f64 = 1e-8;

/// Which criterion the strengths are chosen by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EvidenceMode {
    /// The marginal likelihood: every prior proper, orbits and compact coordinates integrated exactly.
    #[default]
    Laplace,
    /// The classic criterion: a penalised likelihood at a fixed dispersion with half the log-determinant, near-null
    /// directions of the rows left out.
    QuasiLaplace,
}

impl EvidenceMode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Laplace => "laplace",
            Self::QuasiLaplace => "quasi_laplace",
        }
    }

    /// The gate whose prior this mode counts.
    pub fn gate(self, gate: Arc<dyn Gate>) -> Arc<dyn Gate> {
        match self {
            Self::Laplace => gate,
            Self::QuasiLaplace => gate.improper(),
        }
    }
}

/// A dictionary-learning problem. Immutable; shared by every state of a fit.
#[derive(Debug)]
pub struct Problem {
    data: CentredRows,
    weights: Option<Vec<f64>>,
    atoms: Vec<Arc<dyn Atom>>,
    gate: Arc<dyn Gate>,
    offsets: Vec<usize>,
    mean_column_variance: f64,
    ranks: Vec<usize>,
    /// A stored point of every atom, and where each begins.
    origins: Vec<f64>,
    point_offsets: Vec<usize>,
    mode: EvidenceMode,
    arc_length: bool,
    metric: Option<RowMetric>,
    keeps_rows: bool,
    team: Option<Team>,
}

impl Problem {
    /// Takes the data (n x p) and centres them unless `centre` is false. Weights are scaled to mean one.
    pub fn new(
        data: impl Into<Source>,
        weights: Option<Vec<f64>>,
        atoms: Vec<Arc<dyn Atom>>,
        gate: Arc<dyn Gate>,
        centre: bool,
    ) -> Result<Self, ShapeError> {
        let source = data.into();
        let (n, p) = source.dim();
        if n == 0 || p == 0 {
            return Err(ShapeError::value(format!("the data need at least one row and one column, got {n} x {p}")));
        }
        if atoms.is_empty() {
            return Err(ShapeError::value("a dictionary needs at least one atom"));
        }
        let data = CentredRows::new(source, centre)?;
        let weights = weights.map(|w| mean_one(w, n)).transpose()?;
        let mean_column_variance = mean_column_variance(&data);
        if !(mean_column_variance > 0.0 && mean_column_variance.is_finite()) {
            return Err(ShapeError::value(format!(
                "the data need a positive finite variance, got {mean_column_variance}"
            )));
        }
        let mut offsets = vec![0];
        for atom in &atoms {
            offsets.push(offsets[offsets.len() - 1] + atom.width());
        }
        let ranks = atoms.iter().map(|a| a.width() - a.null_projector().diag().sum().round() as usize).collect();
        let (origins, point_offsets) = origins(&atoms);
        let mode = EvidenceMode::Laplace;
        let arc_length = false;
        let (metric, keeps_rows) = (None, true);
        Ok(Self {
            data,
            weights,
            atoms,
            gate,
            offsets,
            mean_column_variance,
            ranks,
            origins,
            point_offsets,
            mode,
            arc_length,
            metric,
            keeps_rows,
            team: None,
        })
    }

    /// The same problem with linearised rows kept between passes, or made anew in each: the same numbers, with less memory and
    /// more time.
    pub fn with_rows_kept(mut self, keeps_rows: bool) -> Self {
        self.keeps_rows = keeps_rows;
        self
    }

    /// Whether linearised rows are kept between passes.
    pub fn keeps_rows(&self) -> bool {
        self.keeps_rows
    }

    /// The same problem with its rows shared out among several processes, of which each has to have all of it.
    pub fn with_team(mut self, team: Option<Team>) -> Self {
        self.team = team;
        self
    }

    /// The division of the rows into chunks, for a pass whose segments have accumulators of so many bytes.
    pub fn chunks(&self, accumulator_bytes: usize) -> Chunks {
        let chunk_rows = rows_of_chunk(self.n_rows(), self.n_atoms());
        Chunks::new(self.n_rows(), chunk_rows, accumulator_bytes, self.team.as_ref())
    }

    /// What `work` makes of this process's rows, then of those of each other process; all rows are one range where there is
    /// one process.
    pub fn shared_out<T: Wire>(&self, work: impl FnOnce(std::ops::Range<usize>) -> T) -> Vec<T> {
        match &self.team {
            None => vec![work(0..self.n_rows())],
            Some(team) => team.gather(work(team.share(self.n_rows()))),
        }
    }

    pub fn team(&self) -> Option<&Team> {
        self.team.as_ref()
    }

    /// The same problem with the roughness of curves measured along them, or in their coordinates.
    pub fn with_arc_length(mut self, arc_length: bool) -> Self {
        self.arc_length = arc_length;
        self
    }

    /// The same problem with factors U_i (n x p x m) on the rows' residuals.
    pub fn with_metric(mut self, factors: &Array3<f64>) -> Result<Self, ShapeError> {
        self.metric = Some(RowMetric::new(factors, self.n_rows(), self.n_outputs())?);
        Ok(self)
    }

    pub fn metric(&self) -> Option<&RowMetric> {
        self.metric.as_ref()
    }

    /// Entries of the data that the likelihood counts: those of the whitened rows where there is a metric.
    pub fn n_entries(&self) -> usize {
        self.n_rows() * self.metric.as_ref().map_or(self.n_outputs(), RowMetric::rank)
    }

    /// Whether states re-weight the roughness of curves by their speed.
    pub fn arc_length(&self) -> bool {
        self.arc_length
    }

    /// The same problem under another criterion.
    pub fn with_mode(mut self, mode: EvidenceMode) -> Self {
        self.gate = mode.gate(self.gate);
        self.mode = mode;
        self
    }

    pub fn mode(&self) -> EvidenceMode {
        self.mode
    }

    /// Whether priors count with their normalisers, and integrals as far as they go.
    pub fn is_proper(&self) -> bool {
        self.mode == EvidenceMode::Laplace
    }

    /// Rank of the roughness Gram S_k.
    pub fn rank(&self, k: usize) -> usize {
        self.ranks[k]
    }

    pub fn n_rows(&self) -> usize {
        self.data.dim().0
    }

    pub fn n_outputs(&self) -> usize {
        self.data.dim().1
    }

    pub fn n_atoms(&self) -> usize {
        self.atoms.len()
    }

    /// Stacked basis width, the sum of all M_k.
    pub fn width(&self) -> usize {
        self.offsets[self.n_atoms()]
    }

    /// A stored point of every atom, one after the other.
    pub fn origins(&self) -> &[f64] {
        &self.origins
    }

    /// Where an atom's points lie among those of all atoms.
    pub fn point_of(&self, k: usize) -> Range<usize> {
        self.point_offsets[k]..self.point_offsets[k + 1]
    }

    /// Rows of atom k in the stacked decoder.
    pub fn rows_of(&self, k: usize) -> std::ops::Range<usize> {
        self.offsets[k]..self.offsets[k + 1]
    }

    /// The rows of every atom in a matrix of stacked ones.
    pub fn by_atoms<'a>(&self, stacked: &'a mut Array2<f64>) -> Vec<ArrayViewMut2<'a, f64>> {
        let (mut rest, mut all) = (stacked.view_mut(), Vec::with_capacity(self.n_atoms()));
        for k in 0..self.n_atoms() {
            let (own, others) = rest.split_at(Axis(0), self.rows_of(k).len());
            all.push(own);
            rest = others;
        }
        all
    }

    pub fn atoms(&self) -> &[Arc<dyn Atom>] {
        &self.atoms
    }

    /// Local coordinates of each atom.
    pub fn coord_dims(&self) -> Vec<usize> {
        self.atoms.iter().map(|a| a.dim()).collect()
    }

    /// Checks that strengths fit the dictionary.
    pub fn check_strengths(&self, rho: &SaeManifoldRho) -> Result<(), ShapeError> {
        rho.check(&self.coord_dims())?;
        for (k, atom) in self.atoms.iter().enumerate() {
            if !rho.log_ard[k].is_empty() && atom.factors().iter().any(|f| !f.has_precision()) {
                return Err(ShapeError::value(format!(
                    "log_ard[{k}] must be empty: the prior on a {} is uniform and has no precision",
                    atom.kind()
                )));
            }
        }
        Ok(())
    }

    pub fn gate(&self) -> &dyn Gate {
        &*self.gate
    }

    pub fn shared_gate(&self) -> &Arc<dyn Gate> {
        &self.gate
    }

    /// Number of free logits of a row.
    pub fn n_free(&self) -> usize {
        self.gate.n_free(self.n_atoms())
    }

    /// Whether rows have variables of the atoms that they use only: V has all others by their masses.
    pub fn compact_rows(&self) -> bool {
        self.is_proper() && self.gate.closes(self.n_atoms())
    }

    /// Centred data of some rows.
    pub fn rows(&self, range: std::ops::Range<usize>) -> CowArray<'_, f64, Ix2> {
        self.data.rows(range)
    }

    /// Centred data of all rows, which seeds need at once.
    pub fn data(&self) -> CowArray<'_, f64, Ix2> {
        self.data.rows(0..self.n_rows())
    }

    /// The first error of reading rows since the last call.
    pub fn take_read_error(&self) -> Option<std::io::Error> {
        self.data.take_error()
    }

    /// Whether the rows are in memory, and not read from a file.
    pub fn in_memory(&self) -> bool {
        self.data.in_memory()
    }

    /// What was subtracted from the data.
    pub fn mean(&self) -> &Array1<f64> {
        self.data.mean()
    }

    pub fn weight(&self, row: usize) -> f64 {
        self.weights.as_ref().map_or(1.0, |w| w[row])
    }

    /// Takes rows r_i of the output space to `P_i r_i w_i` times a factor; without a metric P_i is one.
    pub fn weigh(&self, range: std::ops::Range<usize>, factor: f64, rows: &mut Array2<f64>) {
        for (mut row, i) in rows.rows_mut().into_iter().zip(range) {
            if let Some(metric) = &self.metric {
                metric.apply(i, row.as_slice_mut().expect("standard layout"));
            }
            row *= self.weight(i) * factor;
        }
    }

    pub fn weights(&self) -> Option<&[f64]> {
        self.weights.as_deref()
    }

    /// s^2 of chapter 1: the scale of the weak prior on unpenalised decoder rows.
    pub fn mean_column_variance(&self) -> f64 {
        self.mean_column_variance
    }
}

/// Mean variance of the columns.
fn mean_column_variance(data: &CentredRows) -> f64 {
    let (n, p) = data.dim();
    let mut mean = Array1::<f64>::zeros(p);
    for range in passes((n, p)) {
        data.rows(range).rows().into_iter().for_each(|z| mean += &z);
    }
    mean /= n as f64;
    let square = |z: ndarray::ArrayView1<'_, f64>| (&z - &mean).mapv(|v| v * v).sum();
    let of = |range| data.rows(range).rows().into_iter().map(square).sum::<f64>();
    passes((n, p)).map(of).sum::<f64>() / (n * p) as f64
}

fn mean_one(weights: Vec<f64>, n: usize) -> Result<Vec<f64>, ShapeError> {
    if weights.len() != n {
        return Err(ShapeError::shape("weights", &[weights.len()], &[n]));
    }
    if let Some(i) = weights.iter().position(|w| !(*w >= 0.0 && w.is_finite())) {
        return Err(ShapeError::value(format!("weights must be finite and not negative; entry {i} is {}", weights[i])));
    }
    let mean = weights.iter().sum::<f64>() / n as f64;
    if mean <= 0.0 {
        return Err(ShapeError::value("at least one weight must be positive"));
    }
    Ok(weights.into_iter().map(|w| w / mean).collect())
}
