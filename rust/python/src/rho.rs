use crate::convert::{to_py1, value_error, vector};
use numpy::{PyArray1, PyReadonlyArrayDyn};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use sae_core::{ArdSharing, SaeManifoldRho as Core};

/// The outer vector `[ln lambda_sparse | ln lambda_1..K | ARD log-precisions | ln phi]`.
#[pyclass(frozen, module = "sae_rs._core", from_py_object)]
#[derive(Clone)]
pub struct SaeManifoldRho {
    pub core: Core,
}

fn sharing(name: &str) -> PyResult<ArdSharing> {
    match name {
        "per_atom" => Ok(ArdSharing::PerAtom),
        "shared" => Ok(ArdSharing::Shared),
        other => Err(PyValueError::new_err(format!("ard_sharing must be \"per_atom\" or \"shared\", got {other:?}"))),
    }
}

#[pymethods]
impl SaeManifoldRho {
    #[new]
    #[pyo3(signature = (log_lambda_sparse=0.0, log_lambda_smooth=Vec::new(), log_ard=None, ard_sharing="per_atom", log_dispersion=None, fixed_dispersion=false))]
    fn new(
        log_lambda_sparse: f64,
        log_lambda_smooth: Vec<f64>,
        log_ard: Option<Vec<Vec<f64>>>,
        ard_sharing: &str,
        log_dispersion: Option<f64>,
        fixed_dispersion: bool,
    ) -> PyResult<Self> {
        let k = log_lambda_smooth.len();
        let log_ard = log_ard.unwrap_or_else(|| vec![Vec::new(); k]);
        if log_ard.len() != k {
            return Err(PyValueError::new_err(format!(
                "log_ard has {} blocks, expected one per atom: {k}",
                log_ard.len()
            )));
        }
        let core = Core {
            log_lambda_sparse,
            log_lambda_smooth,
            log_ard,
            ard_sharing: sharing(ard_sharing)?,
            log_dispersion,
            fixed_dispersion,
        };
        if let Some(i) = core.to_flat().iter().position(|v| !v.is_finite()) {
            return Err(PyValueError::new_err(format!("rho must be finite; entry {i} is {}", core.to_flat()[i])));
        }
        if let Some(value) = log_dispersion.filter(|v| !v.is_finite()) {
            return Err(PyValueError::new_err(format!("log_dispersion must be finite, got {value}")));
        }
        Ok(Self { core })
    }

    /// The same strengths with the dispersion held where it is: no entry of the flat vector.
    fn with_fixed_dispersion(&self) -> Self {
        Self { core: self.core.clone().with_fixed_dispersion() }
    }

    /// One smoothness strength per atom, ARD off.
    #[staticmethod]
    fn with_per_atom_smooth(log_lambda_sparse: f64, log_lambda_smooth: Vec<f64>, log_dispersion: f64) -> Self {
        Self { core: Core::with_per_atom_smooth(log_lambda_sparse, log_lambda_smooth, log_dispersion) }
    }

    /// One ARD precision per axis, shared by all atoms that own the axis.
    #[staticmethod]
    fn new_shared_ard(
        log_lambda_sparse: f64,
        log_lambda_smooth: Vec<f64>,
        log_ard: Vec<f64>,
        coord_dims: Vec<usize>,
        log_dispersion: f64,
    ) -> PyResult<Self> {
        if coord_dims.len() != log_lambda_smooth.len() {
            return Err(PyValueError::new_err(format!(
                "coord_dims has {} entries, expected one per atom: {}",
                coord_dims.len(),
                log_lambda_smooth.len()
            )));
        }
        let longest = coord_dims.iter().copied().max().unwrap_or(0);
        if log_ard.len() != longest {
            return Err(PyValueError::new_err(format!(
                "log_ard has {} entries, expected one per axis of the largest chart: {longest}",
                log_ard.len()
            )));
        }
        let blocks = coord_dims.iter().map(|&d| log_ard[..d].to_vec()).collect();
        Self::new(log_lambda_sparse, log_lambda_smooth, Some(blocks), "shared", Some(log_dispersion), false)
    }

    #[getter]
    fn log_lambda_sparse(&self) -> f64 {
        self.core.log_lambda_sparse
    }
    #[getter]
    fn log_lambda_smooth<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        to_py1(py, &self.core.log_lambda_smooth)
    }
    #[getter]
    fn log_ard<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyArray1<f64>>> {
        self.core.log_ard.iter().map(|b| to_py1(py, b)).collect()
    }
    #[getter]
    fn ard_sharing(&self) -> &'static str {
        match self.core.ard_sharing {
            ArdSharing::PerAtom => "per_atom",
            ArdSharing::Shared => "shared",
        }
    }
    #[getter]
    fn log_dispersion(&self) -> Option<f64> {
        self.core.log_dispersion
    }
    /// Whether the dispersion is held; without a value it is held at one.
    #[getter]
    fn fixed_dispersion(&self) -> bool {
        self.core.dispersion_slot().is_none()
    }

    fn to_flat<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        to_py1(py, &self.core.to_flat())
    }
    // the name is the interface's; it makes a vector of this one's layout
    #[allow(clippy::wrong_self_convention)]
    fn from_flat(&self, flat: PyReadonlyArrayDyn<'_, f64>) -> PyResult<Self> {
        Ok(Self { core: self.core.from_flat(&vector(&flat)).map_err(value_error)? })
    }
    fn seed_scaled_by_dispersion(&self, phi: f64) -> PyResult<Self> {
        Ok(Self { core: self.core.seed_scaled_by_dispersion(phi).map_err(value_error)? })
    }
    #[pyo3(signature = (phi, learnable_alpha=false))]
    fn seed_scaled_by_dispersion_for_assignment(&self, phi: f64, learnable_alpha: bool) -> PyResult<Self> {
        let core = self.core.seed_scaled_by_dispersion_for_assignment(phi, learnable_alpha).map_err(value_error)?;
        Ok(Self { core })
    }
    fn lambda_sparse(&self) -> f64 {
        self.core.lambda_sparse()
    }
    fn lambda_smooth_vec<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f64>> {
        to_py1(py, &self.core.lambda_smooth_vec())
    }
    fn lambda_smooth_for(&self, k: usize) -> PyResult<f64> {
        match k < self.core.n_atoms() {
            true => Ok(self.core.lambda_smooth(k)),
            false => Err(PyValueError::new_err(format!("atom {k} is out of range for {} atoms", self.core.n_atoms()))),
        }
    }
    fn max_ard_axes(&self) -> usize {
        self.core.max_ard_axes()
    }
    fn dispersion(&self) -> f64 {
        self.core.dispersion()
    }
    fn __len__(&self) -> usize {
        self.core.len()
    }
    fn __eq__(&self, other: &Self) -> bool {
        self.core == other.core
    }
    fn __repr__(&self) -> String {
        let c = &self.core;
        let mut dispersion = c.log_dispersion.map_or_else(|| "None".into(), |v| v.to_string());
        if c.fixed_dispersion {
            dispersion += ", fixed_dispersion=True";
        }
        format!(
            "SaeManifoldRho(log_lambda_sparse={}, log_lambda_smooth={:?}, log_ard={:?}, ard_sharing='{}', log_dispersion={dispersion})",
            c.log_lambda_sparse,
            c.log_lambda_smooth,
            c.log_ard,
            self.ard_sharing(),
        )
    }
}
