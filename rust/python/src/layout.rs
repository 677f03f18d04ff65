use crate::convert::{to_py1, value_error, vector};
use numpy::{PyArray1, PyReadonlyArray2, PyReadonlyArrayDyn};
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use sae_core::SaeRowLayout as Core;

/// Which variables each row really has: logits of its active atoms first, then their coordinates.
#[pyclass(frozen, module = "sae_rs._core")]
pub struct SaeRowLayout {
    pub core: Core,
}

impl SaeRowLayout {
    fn row(&self, i: usize) -> PyResult<usize> {
        match i < self.core.n_rows() {
            true => Ok(i),
            false => Err(PyIndexError::new_err(format!("row {i} is out of range for {} rows", self.core.n_rows()))),
        }
    }
}

#[pymethods]
impl SaeRowLayout {
    /// Per row the `cap` largest `|a|` that exceed `cutoff` times the row's own peak.
    #[staticmethod]
    #[pyo3(signature = (a, cap, cutoff, coord_dims, coord_offsets_full=None))]
    fn from_dense_weights(
        a: PyReadonlyArray2<'_, f64>,
        cap: usize,
        cutoff: f64,
        coord_dims: Vec<usize>,
        coord_offsets_full: Option<Vec<usize>>,
    ) -> PyResult<Self> {
        let core = Core::from_dense_weights(a.as_array(), cap, cutoff, coord_dims, coord_offsets_full);
        Ok(Self { core: core.map_err(value_error)? })
    }

    /// Per row all open gates, and the closed ones whose prior's gradient exceeds `cutoff` times the row's largest.
    #[staticmethod]
    #[pyo3(signature = (logits, contribution, threshold, temperature, cap, cutoff, coord_dims, coord_offsets_full=None))]
    #[allow(clippy::too_many_arguments)]
    fn from_jumprelu(
        logits: PyReadonlyArray2<'_, f64>,
        contribution: PyReadonlyArray2<'_, f64>,
        threshold: f64,
        temperature: f64,
        cap: usize,
        cutoff: f64,
        coord_dims: Vec<usize>,
        coord_offsets_full: Option<Vec<usize>>,
    ) -> PyResult<Self> {
        let (logits, contribution) = (logits.as_array(), contribution.as_array());
        let gate = (threshold, temperature);
        let core = Core::from_jumprelu(logits, contribution, gate, cap, cutoff, coord_dims, coord_offsets_full);
        Ok(Self { core: core.map_err(value_error)? })
    }

    /// A layout from the active atoms of each row.
    #[staticmethod]
    #[pyo3(signature = (lists, coord_dims, coord_offsets_full=None))]
    fn from_active_atoms(
        lists: Vec<Vec<u32>>,
        coord_dims: Vec<usize>,
        coord_offsets_full: Option<Vec<usize>>,
    ) -> PyResult<Self> {
        // without offsets: one logit per atom, then the coordinates of all atoms
        let offsets = coord_offsets_full.unwrap_or_else(|| Core::default_offsets(coord_dims.len(), &coord_dims));
        let core = Core::from_active_atoms(lists, coord_dims, offsets);
        Ok(Self { core: core.map_err(value_error)? })
    }

    #[getter]
    fn n_rows(&self) -> usize {
        self.core.n_rows()
    }
    #[getter]
    fn active_atoms(&self) -> Vec<Vec<u32>> {
        (0..self.core.n_rows()).map(|i| self.core.active_atoms(i).to_vec()).collect()
    }
    #[getter]
    fn coord_starts(&self) -> Vec<Vec<u32>> {
        (0..self.core.n_rows()).map(|i| self.core.coord_starts(i).to_vec()).collect()
    }
    #[getter]
    fn coord_dims(&self) -> Vec<usize> {
        self.core.coord_dims().to_vec()
    }
    #[getter]
    fn coord_offsets_full(&self) -> Vec<usize> {
        self.core.coord_offsets_full().to_vec()
    }
    fn row_q_active(&self, i: usize) -> PyResult<usize> {
        Ok(self.core.row_q_active(self.row(i)?))
    }
    fn expand_row<'py>(
        &self,
        py: Python<'py>,
        i: usize,
        v: PyReadonlyArrayDyn<'_, f64>,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let mut out = vec![0.0; self.core.full_len()];
        self.core.expand_row(self.row(i)?, &vector(&v), &mut out).map_err(value_error)?;
        Ok(to_py1(py, &out))
    }
}
