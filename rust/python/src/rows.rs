//! Rows as they are given: an array, or a matrix in a file.

use crate::convert::matrix;
use numpy::PyReadonlyArray2;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use sae_core::{Element, Problem, RowFile as Core, Source};
use std::path::PathBuf;

/// A float32 or float64 matrix in a file, row after row, from a byte on. Nothing is read before a fit asks for rows.
#[pyclass(frozen, module = "sae_rs._core")]
pub struct RowFile {
    path: PathBuf,
    offset: u64,
    element: Element,
    dim: (usize, usize),
}

#[pymethods]
impl RowFile {
    /// `dtype` is a NumPy type string: "<f4", ">f4", "<f8" or ">f8".
    #[new]
    fn new(path: PathBuf, offset: u64, dtype: &str, shape: (usize, usize)) -> PyResult<Self> {
        let element = match dtype {
            "<f4" => Element::F32 { big_endian: false },
            ">f4" => Element::F32 { big_endian: true },
            "<f8" => Element::F64 { big_endian: false },
            ">f8" => Element::F64 { big_endian: true },
            other => {
                return Err(PyValueError::new_err(format!("dtype must be <f4, >f4, <f8 or >f8, got {other:?}")));
            }
        };
        let out = Self { path, offset, element, dim: shape };
        out.open()?;
        Ok(out)
    }

    #[getter]
    fn shape(&self) -> (usize, usize) {
        self.dim
    }
}

impl RowFile {
    fn open(&self) -> PyResult<Core> {
        Core::open(&self.path, self.offset, self.element, self.dim)
            .map_err(|error| PyOSError::new_err(format!("{}: {error}", self.path.display())))
    }
}

/// An argument that is either.
#[derive(FromPyObject)]
pub enum Rows<'py> {
    File(PyRef<'py, RowFile>),
    Array(PyReadonlyArray2<'py, f64>),
}

impl Rows<'_> {
    pub fn dim(&self) -> (usize, usize) {
        match self {
            Self::File(file) => file.dim,
            Self::Array(array) => array.as_array().dim(),
        }
    }

    pub fn source(&self) -> PyResult<Source> {
        Ok(match self {
            Self::File(file) => Source::File(file.open()?),
            Self::Array(array) => matrix(array).into(),
        })
    }
}

/// Raises what went wrong while rows were read.
pub fn check_read(problem: &Problem) -> PyResult<()> {
    match problem.take_read_error() {
        None => Ok(()),
        Some(error) => Err(PyOSError::new_err(format!("the rows could not be read: {error}"))),
    }
}
