use crate::convert::{detached, matrix, to_py1, to_py2, value_error, vector};
use crate::evaluation::{all_parts, loss_parts, ArrowSchur, Evaluation};
use crate::layout::SaeRowLayout;
use crate::rho::SaeManifoldRho;
use crate::rows::{check_read, Rows};
use crate::specs;
use numpy::{PyArray1, PyArray2, PyReadonlyArray2, PyReadonlyArray3, PyReadonlyArrayDyn};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use sae_core::{Elimination, EvaluationOptions, Plan, Problem, SaeManifoldTerm as Core, Shape, ShapeError, State};
use std::sync::Arc;

/// A dictionary at a state: immutable, cheap to copy; evaluating it gives a new one.
#[pyclass(frozen, module = "sae_rs._core")]
#[derive(Clone)]
pub struct SaeManifoldTerm {
    pub core: Core,
}

fn elimination(name: &str) -> PyResult<Option<Elimination>> {
    match name {
        "auto" => Ok(None),
        "primal" => Ok(Some(Elimination::Primal)),
        "dual" => Ok(Some(Elimination::Dual)),
        "complement" => Ok(Some(Elimination::Complement)),
        "stochastic" => Ok(Some(Elimination::Stochastic)),
        other => Err(PyValueError::new_err(format!(
            "elimination must be \"auto\", \"primal\", \"dual\", \"complement\" or \"stochastic\", got {other:?}"
        ))),
    }
}

fn planned(py: Python<'_>, plan: Plan) -> PyResult<Bound<'_, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("elimination", plan.elimination.name())?;
    let method = if plan.elimination == Elimination::Stochastic { "stochastic" } else { "dense" };
    out.set_item("method", method)?;
    out.set_item("dense_size", plan.dense_size)?;
    out.set_item("keep_rows", plan.keeps_rows)?;
    out.set_item("chunk_rows", plan.chunk_rows)?;
    out.set_item("bytes", plan.bytes)?;
    Ok(out)
}

/// What a fit of a shape will do and hold; the same function as `SaeManifoldTerm.plan`, before there is a term.
#[pyfunction]
#[pyo3(signature = (n_rows, n_outputs, *, atom_widths, atom_dims, atom_ambients, free_logits, active, tied, compact=false, copies=1, memory_budget=None))]
#[allow(clippy::too_many_arguments)]
pub fn plan<'py>(
    py: Python<'py>,
    n_rows: usize,
    n_outputs: usize,
    atom_widths: Vec<usize>,
    atom_dims: Vec<usize>,
    atom_ambients: Vec<usize>,
    free_logits: usize,
    active: f64,
    tied: bool,
    compact: bool,
    copies: usize,
    memory_budget: Option<usize>,
) -> PyResult<Bound<'py, PyDict>> {
    let n_atoms = atom_widths.len();
    if atom_dims.len() != n_atoms || atom_ambients.len() != n_atoms || !(0.0..=n_atoms as f64).contains(&active) {
        return Err(PyValueError::new_err(format!(
            "each of {n_atoms} atoms has one entry, and a row uses 0 to {n_atoms}"
        )));
    }
    // what an atom of the dictionary has on average, times the atoms of all rows
    let of_rows = |sizes: &[usize]| {
        let mean = sizes.iter().sum::<usize>() as f64 / n_atoms.max(1) as f64;
        (n_rows as f64 * active * mean).round() as usize
    };
    let shape = Shape {
        n_rows,
        n_outputs,
        n_atoms,
        free_logits,
        ambient: atom_ambients.iter().sum(),
        active_atoms: of_rows(&vec![1; n_atoms]),
        active_coords: of_rows(&atom_dims),
        active_basis: of_rows(&atom_widths),
        coupled_logits: if tied || compact {
            (n_rows as f64 * active.min(free_logits as f64)).round() as usize
        } else {
            0
        },
        compact,
        group_widths: if tied { vec![atom_widths.iter().sum()] } else { atom_widths },
        copies,
        forced: None,
    };
    planned(py, shape.plan(memory_budget))
}

fn with_metric(problem: Problem, metric: Option<&PyReadonlyArray3<'_, f64>>) -> PyResult<Problem> {
    match metric {
        None => Ok(problem),
        Some(factors) => problem.with_metric(&factors.as_array().to_owned()).map_err(value_error),
    }
}

fn support_lists(support: &PyReadonlyArray2<'_, bool>, n: usize, k: usize) -> PyResult<Vec<Vec<u32>>> {
    let mask = support.as_array();
    if mask.shape() != [n, k] {
        return Err(PyValueError::new_err(format!("support has shape {:?}, expected [{n}, {k}]", mask.shape())));
    }
    let list =
        |row: ndarray::ArrayView1<'_, bool>| row.iter().zip(0..).filter(|(on, _)| **on).map(|(_, k)| k).collect();
    Ok(mask.rows().into_iter().map(list).collect())
}

impl SaeManifoldTerm {
    /// The result of some work over the rows; an error of reading them comes before any it has led to.
    fn read<T>(&self, work: impl FnOnce() -> Result<T, ShapeError>) -> PyResult<T> {
        let result = work();
        check_read(&self.core.problem)?;
        result.map_err(value_error)
    }
}

#[pymethods]
impl SaeManifoldTerm {
    #[new]
    #[pyo3(signature = (X, atoms, gate, logits, coords, decoders, *, support=None, weights=None, center=true, evidence="laplace", arc_length=false, metric=None, keep_rows=true, exchange=None))]
    #[allow(non_snake_case, clippy::too_many_arguments)]
    fn new(
        X: Rows<'_>,
        atoms: Vec<Bound<'_, PyDict>>,
        gate: &Bound<'_, PyDict>,
        logits: PyReadonlyArray2<'_, f64>,
        coords: Vec<PyReadonlyArray2<'_, f64>>,
        decoders: Vec<PyReadonlyArray2<'_, f64>>,
        support: Option<PyReadonlyArray2<'_, bool>>,
        weights: Option<PyReadonlyArrayDyn<'_, f64>>,
        center: bool,
        evidence: &str,
        arc_length: bool,
        metric: Option<PyReadonlyArray3<'_, f64>>,
        keep_rows: bool,
        exchange: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let mode = specs::evidence(evidence)?;
        let atoms = specs::atoms(&atoms)?;
        let gate = specs::gate(gate, atoms.len())?;
        let ((n, p), k) = (X.dim(), atoms.len());
        let lists = support.map(|s| support_lists(&s, n, k)).transpose()?;
        if decoders.len() != k {
            return Err(PyValueError::new_err(format!("decoders has {} entries, expected {k}", decoders.len())));
        }
        for (i, (block, atom)) in decoders.iter().zip(&atoms).enumerate() {
            let (found, expected) = (block.as_array().dim(), (atom.width(), p));
            if found != expected {
                return Err(PyValueError::new_err(format!("decoders[{i}] has shape {found:?}, expected {expected:?}")));
            }
        }
        let views: Vec<_> = decoders.iter().map(|b| b.as_array()).collect();
        let stacked =
            ndarray::concatenate(ndarray::Axis(0), &views).map_err(|e| PyValueError::new_err(e.to_string()))?;
        let problem =
            Problem::new(X.source()?, weights.map(|w| vector(&w)), atoms, gate, center).map_err(value_error)?;
        let problem = with_metric(problem.with_mode(mode).with_arc_length(arc_length), metric.as_ref())?
            .with_rows_kept(keep_rows)
            .with_team(crate::exchange::team(exchange)?);
        let coords = coords.iter().map(matrix).collect();
        let state = State::new(&problem, matrix(&logits), coords, stacked, lists).map_err(value_error)?;
        Ok(Self { core: Core::new(Arc::new(problem), state) })
    }

    /// First guesses for a problem, most promising first: a list of (term, rho).
    #[staticmethod]
    #[pyo3(signature = (X, atoms, gate, *, weights=None, center=true, evidence="laplace", arc_length=false, metric=None, n_init=4, random_state=0, routing=None, threads=None, exchange=None))]
    #[allow(non_snake_case, clippy::too_many_arguments)]
    fn seeds(
        py: Python<'_>,
        X: Rows<'_>,
        atoms: Vec<Bound<'_, PyDict>>,
        gate: &Bound<'_, PyDict>,
        weights: Option<PyReadonlyArrayDyn<'_, f64>>,
        center: bool,
        evidence: &str,
        arc_length: bool,
        metric: Option<PyReadonlyArray3<'_, f64>>,
        n_init: usize,
        random_state: u64,
        routing: Option<PyReadonlyArray2<'_, f64>>,
        threads: Option<usize>,
        exchange: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Vec<(Self, SaeManifoldRho)>> {
        let routing = routing.map(|r| matrix(&r));
        let atoms = specs::atoms(&atoms)?;
        let gate = specs::gate(gate, atoms.len())?;
        let problem =
            Problem::new(X.source()?, weights.map(|w| vector(&w)), atoms, gate, center).map_err(value_error)?;
        let problem = problem.with_mode(specs::evidence(evidence)?).with_arc_length(arc_length);
        let problem = with_metric(problem, metric.as_ref())?.with_team(crate::exchange::team(exchange)?);
        let problem = Arc::new(problem);
        let seeds = detached(py, threads, problem.team(), |interrupted| {
            Core::seeds(problem.clone(), n_init, random_state, routing.as_ref(), interrupted)
        })?;
        check_read(&problem)?;
        let wrap = |(core, rho)| (Self { core }, SaeManifoldRho { core: rho });
        Ok(seeds.map_err(value_error)?.into_iter().map(wrap).collect())
    }

    /// This term with decoders of the given ranks, in the span of their leading right singular vectors; None leaves a
    /// decoder as it is. What lies outside is dropped.
    fn with_decoder_ranks(&self, ranks: Vec<Option<usize>>) -> PyResult<Self> {
        let state = self.core.state.clone().with_ranks(&self.core.problem, &ranks).map_err(value_error)?;
        Ok(Self { core: Core::new(self.core.problem.clone(), state) })
    }

    /// Per atom the rank of its decoder's frame; None where it has all output channels.
    #[getter]
    fn decoder_ranks(&self) -> Vec<Option<usize>> {
        self.core.state.ranks(&self.core.problem)
    }

    /// This term with every row re-encoded by its own decoders, and the number of rows that changed.
    #[pyo3(signature = (rho, *, threads=None))]
    fn refreshed(&self, py: Python<'_>, rho: &SaeManifoldRho, threads: Option<usize>) -> PyResult<(Self, usize)> {
        let refreshed =
            detached(py, threads, self.core.problem.team(), |interrupted| self.core.refreshed(&rho.core, interrupted))?;
        check_read(&self.core.problem)?;
        // a `None` comes with a pending signal, which `detached` has raised
        let (core, changed) = refreshed.map_err(value_error)?.unwrap_or_else(|| (self.core.clone(), 0));
        Ok((Self { core }, changed))
    }

    /// The smallest `log_lambda_sparse` between `lower` and `upper` at which rows that use one atom alone still do; None
    /// when there are none.
    fn sparsity_floor(&self, rho: &SaeManifoldRho, lower: f64, upper: f64) -> PyResult<Option<f64>> {
        self.read(|| self.core.sparsity_floor(&rho.core, (lower, upper)))
    }

    #[getter]
    fn n_rows(&self) -> usize {
        self.core.problem.n_rows()
    }
    #[getter]
    fn n_outputs(&self) -> usize {
        self.core.problem.n_outputs()
    }
    #[getter]
    fn n_atoms(&self) -> usize {
        self.core.problem.n_atoms()
    }
    /// Which criterion the term's V is.
    #[getter]
    fn evidence(&self) -> &'static str {
        self.core.problem.mode().name()
    }
    #[getter]
    fn mean<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        PyArray1::from_array(py, self.core.problem.mean())
    }
    #[getter]
    fn logits<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray2<f64>> {
        to_py2(py, &self.core.state.logits(&self.core.problem))
    }
    #[getter]
    fn coords<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyArray2<f64>>> {
        let points = |k| to_py2(py, &self.core.state.points(&self.core.problem, k));
        (0..self.core.problem.n_atoms()).map(points).collect()
    }
    #[getter]
    fn decoders<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyArray2<f64>>> {
        let decoder = |k| to_py2(py, &self.core.state.decoder(&self.core.problem, k).to_owned());
        (0..self.core.problem.n_atoms()).map(decoder).collect()
    }
    /// Roughness Grams S_k, weighted where the term weighs them.
    #[getter]
    fn roughness<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyArray2<f64>>> {
        let gram = |k| to_py2(py, &self.core.state.roughness(&self.core.problem, k));
        (0..self.core.problem.n_atoms()).map(gram).collect()
    }
    #[getter]
    fn gates<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray2<f64>> {
        to_py2(py, &self.core.state.gates(&self.core.problem))
    }
    /// What a unit of each column's mass costs at these strengths; empty where the gate has no prior on columns.
    fn column_scores<'py>(&self, py: Python<'py>, rho: &SaeManifoldRho) -> PyResult<Bound<'py, PyArray1<f64>>> {
        Ok(to_py1(py, &self.read(|| self.core.column_scores(&rho.core))?))
    }
    #[getter]
    fn support<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray2<bool>> {
        let mut mask = ndarray::Array2::from_elem((self.n_rows(), self.n_atoms()), false);
        for i in 0..self.n_rows() {
            self.core.state.support(i).iter().for_each(|&k| mask[[i, k as usize]] = true);
        }
        PyArray2::from_array(py, &mask)
    }

    fn loss<'py>(&self, py: Python<'py>, rho: &SaeManifoldRho) -> PyResult<Bound<'py, PyDict>> {
        let loss = self.read(|| self.core.loss(&rho.core))?;
        let out = loss_parts(py, &loss)?;
        out.set_item("total", loss.total())?;
        Ok(out)
    }

    #[pyo3(signature = (rho, *, tol=1e-10, max_inner=200, elimination="auto", gradient=true, traces=false, threads=None))]
    #[allow(clippy::too_many_arguments)]
    fn evaluate(
        &self,
        py: Python<'_>,
        rho: &SaeManifoldRho,
        tol: f64,
        max_inner: usize,
        elimination: &str,
        gradient: bool,
        traces: bool,
        threads: Option<usize>,
    ) -> PyResult<Evaluation> {
        let elimination = self::elimination(elimination)?;
        let options = EvaluationOptions { tolerance: tol, max_inner, elimination, gradient, traces };
        let core = detached(py, threads, self.core.problem.team(), |interrupted| {
            self.core.evaluate(&rho.core, &options, interrupted)
        })?;
        check_read(&self.core.problem)?;
        Ok(Evaluation { core: core.map_err(value_error)? })
    }

    /// The evidence V at converged inner variables.
    fn reml_criterion(&self, py: Python<'_>, rho: &SaeManifoldRho) -> PyResult<f64> {
        Ok(self.evaluate(py, rho, 1e-10, 200, "auto", false, false, None)?.core.value)
    }

    fn criterion_as_atoms<'py>(&self, py: Python<'py>, rho: &SaeManifoldRho) -> PyResult<Bound<'py, PyDict>> {
        let (loss, parts) = self.read(|| self.core.criterion_as_atoms(&rho.core))?;
        all_parts(py, &loss, &parts)
    }

    fn analytic_outer_rho_gradient<'py>(
        &self,
        py: Python<'py>,
        rho: &SaeManifoldRho,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        Ok(to_py1(py, &self.read(|| self.core.analytic_outer_rho_gradient(&rho.core))?))
    }

    /// Derivative of V - L in the inner variables: rows' variables, then the border.
    fn logdet_theta_adjoint<'py>(&self, py: Python<'py>, rho: &SaeManifoldRho) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let step = self.read(|| self.core.logdet_theta_adjoint(&rho.core))?;
        let mut out = step.local;
        out.extend(step.border.iter());
        Ok(to_py1(py, &out))
    }

    #[pyo3(signature = (rho, layout=None))]
    fn assemble_arrow_schur(&self, rho: &SaeManifoldRho, layout: Option<&SaeRowLayout>) -> PyResult<ArrowSchur> {
        let core = self.read(|| self.core.assemble_arrow_schur(&rho.core, layout.map(|l| &l.core)))?;
        Ok(ArrowSchur { core })
    }

    /// Elimination, the size of its largest dense system, whether linearised rows are kept, rows of a chunk, and the estimated
    /// peak in bytes.
    #[pyo3(signature = (memory_budget=None))]
    fn plan<'py>(&self, py: Python<'py>, memory_budget: Option<usize>) -> PyResult<Bound<'py, PyDict>> {
        let plan = self.core.shape(None).plan(memory_budget);
        if let Some(budget) = memory_budget.filter(|&b| b < plan.bytes) {
            return Err(PyValueError::new_err(format!(
                "the problem needs about {} bytes, more than the memory budget of {budget} bytes",
                plan.bytes
            )));
        }
        planned(py, plan)
    }

    fn __copy__(&self) -> Self {
        self.clone()
    }
    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> Self {
        self.clone()
    }
    fn __repr__(&self) -> String {
        format!("SaeManifoldTerm(n_rows={}, n_outputs={}, n_atoms={})", self.n_rows(), self.n_outputs(), self.n_atoms())
    }
}
