use crate::convert::{to_py1, to_py2};
use crate::term::SaeManifoldTerm;
use numpy::{PyArray1, PyArray2};
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use sae_core::{ArrowSchur as CoreArrow, Evaluation as Core, EvidenceParts, LossParts};

/// How the inner solve ended.
#[pyclass(frozen, get_all, module = "sae_rs._core")]
pub struct InnerReport {
    pub status: String,
    pub iterations: usize,
    pub cg_iterations: usize,
    pub decrement: f64,
}

#[pymethods]
impl InnerReport {
    fn __repr__(&self) -> String {
        format!(
            "InnerReport(status='{}', iterations={}, cg_iterations={}, decrement={:.3e})",
            self.status, self.iterations, self.cg_iterations, self.decrement
        )
    }
}

/// V with its gradient at converged inner variables.
#[pyclass(frozen, module = "sae_rs._core")]
pub struct Evaluation {
    pub core: Core,
}

pub fn loss_parts<'py>(py: Python<'py>, loss: &LossParts) -> PyResult<Bound<'py, PyDict>> {
    let out = PyDict::new(py);
    out.set_item("data_fit", loss.data_fit)?;
    out.set_item("sparsity", loss.sparsity)?;
    out.set_item("smoothness", loss.smoothness)?;
    out.set_item("ard", loss.ard)?;
    out.set_item("logit_prior", loss.logit_prior)?;
    Ok(out)
}

pub fn all_parts<'py>(py: Python<'py>, loss: &LossParts, parts: &EvidenceParts) -> PyResult<Bound<'py, PyDict>> {
    let out = loss_parts(py, loss)?;
    out.set_item("log_det", parts.log_det)?;
    out.set_item("orbit", parts.orbit)?;
    out.set_item("compact", parts.compact)?;
    out.set_item("unsupported", parts.unsupported)?;
    out.set_item("constants", parts.constants)?;
    out.set_item("occam", parts.occam)?;
    out.set_item("scale", parts.scale)?;
    out.set_item("sides", parts.sides)?;
    Ok(out)
}

#[pymethods]
impl Evaluation {
    #[getter]
    fn value(&self) -> f64 {
        self.core.value
    }
    /// Standard error of V in nats where its determinant is an estimate, else None.
    #[getter]
    fn standard_error(&self) -> Option<f64> {
        self.core.standard_error
    }
    #[getter]
    fn gradient<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        to_py1(py, &self.core.gradient)
    }
    /// The gradient without the motion of the inner variables.
    #[getter]
    fn explicit_gradient<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        to_py1(py, &self.core.explicit_gradient)
    }
    /// Where a Fellner-Schall step goes, in the order of the flat vector.
    #[getter]
    fn fellner_schall<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        to_py1(py, &self.core.fellner_schall)
    }
    /// Per atom, the rough directions that the prior holds.
    #[getter]
    fn edf<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        to_py1(py, &self.core.traces.edf)
    }
    /// Per ARD entry of the flat vector, the summed variances of its coordinates.
    #[getter]
    fn axis_variances<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        to_py1(py, &self.core.traces.axis_variances)
    }
    /// Directions that the data determine; none without traces.
    #[getter]
    fn data_edf(&self) -> Option<f64> {
        (!self.core.explicit_gradient.is_empty()).then_some(self.core.traces.data)
    }
    /// Per atom, the roughness of its decoder.
    #[getter]
    fn roughness<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        to_py1(py, &self.core.traces.roughness)
    }
    #[getter]
    fn parts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        all_parts(py, &self.core.loss, &self.core.parts)
    }
    #[getter]
    fn inner(&self) -> InnerReport {
        InnerReport {
            status: self.core.status.name().into(),
            iterations: self.core.iterations,
            cg_iterations: self.core.cg_iterations,
            decrement: self.core.decrement,
        }
    }
    /// Weighted sum of squared residuals.
    #[getter]
    fn residual(&self) -> f64 {
        self.core.loss.residual
    }
    /// Whether the gradient's linear solve reached its tolerance.
    #[getter]
    fn gradient_exact(&self) -> bool {
        self.core.adjoint == Some(sae_core::Ending::Converged)
    }
    #[getter]
    fn elimination(&self) -> &'static str {
        self.core.elimination.name()
    }
    #[getter]
    fn term(&self) -> SaeManifoldTerm {
        SaeManifoldTerm { core: self.core.term.clone() }
    }
}

/// The arrow written out at one state.
#[pyclass(frozen, module = "sae_rs._core")]
pub struct ArrowSchur {
    pub core: CoreArrow,
}

impl ArrowSchur {
    fn row(&self, i: usize) -> PyResult<usize> {
        match i < self.core.gt.len() {
            true => Ok(i),
            false => Err(PyIndexError::new_err(format!("row {i} is out of range for {} rows", self.core.gt.len()))),
        }
    }
}

#[pymethods]
impl ArrowSchur {
    fn htt<'py>(&self, py: Python<'py>, i: usize) -> PyResult<Bound<'py, PyArray2<f64>>> {
        Ok(to_py2(py, &self.core.htt[self.row(i)?]))
    }
    fn gt<'py>(&self, py: Python<'py>, i: usize) -> PyResult<Bound<'py, PyArray1<f64>>> {
        Ok(PyArray1::from_array(py, &self.core.gt[self.row(i)?]))
    }
    fn htbeta<'py>(&self, py: Python<'py>, i: usize) -> PyResult<Bound<'py, PyArray2<f64>>> {
        Ok(to_py2(py, &self.core.htbeta[self.row(i)?]))
    }
    #[getter]
    fn hbb<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray2<f64>> {
        to_py2(py, &self.core.hbb)
    }
    #[getter]
    fn gb<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        PyArray1::from_array(py, &self.core.gb)
    }
    fn dense<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray2<f64>> {
        to_py2(py, &self.core.dense())
    }
}
