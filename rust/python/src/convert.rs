//! Errors, arrays and interruption across the boundary.

use numpy::{PyArray1, PyArray2, PyReadonlyArray2, PyReadonlyArrayDyn};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use sae_core::ShapeError;
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

/// Misuse becomes a `ValueError` with the core's message.
pub fn value_error(error: ShapeError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// A float64 matrix from any array of that type, in any memory order.
pub fn matrix(array: &PyReadonlyArray2<'_, f64>) -> ndarray::Array2<f64> {
    array.as_array().as_standard_layout().into_owned()
}

/// A vector from any array-like of floats.
pub fn vector(array: &PyReadonlyArrayDyn<'_, f64>) -> Vec<f64> {
    array.as_array().iter().copied().collect()
}

pub fn to_py2<'py>(py: Python<'py>, array: &ndarray::Array2<f64>) -> Bound<'py, PyArray2<f64>> {
    PyArray2::from_array(py, array)
}

pub fn to_py1<'py>(py: Python<'py>, values: &[f64]) -> Bound<'py, PyArray1<f64>> {
    PyArray1::from_slice(py, values)
}

/// How often a running computation asks Python whether Ctrl-C was pressed.
const POLL: Duration = Duration::from_millis(50);

/// Runs core work without the GIL, polling for signals; a pending signal is raised when the work returns.
///
/// `threads` runs it in a pool of that size, `None` in the global one.
pub fn detached<T: Send>(
    py: Python<'_>,
    threads: Option<usize>,
    work: impl FnOnce(&dyn Fn() -> bool) -> T + Send,
) -> PyResult<T> {
    let pool = threads
        .map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build())
        .transpose()
        .map_err(|e| PyValueError::new_err(format!("threads: {e}")))?;
    let (result, raised) = py.detach(|| {
        let last = Cell::new(Instant::now());
        let raised: RefCell<Option<PyErr>> = RefCell::new(None);
        let interrupted = || {
            if raised.borrow().is_some() {
                return true;
            }
            if last.get().elapsed() < POLL {
                return false;
            }
            last.set(Instant::now());
            if let Err(error) = Python::attach(|py| py.check_signals()) {
                *raised.borrow_mut() = Some(error);
                return true;
            }
            false
        };
        let _ = &pool;
        let result = work(&interrupted);
        (result, raised.into_inner())
    });
    match raised {
        Some(error) => Err(error),
        None => Ok(result),
    }
}
