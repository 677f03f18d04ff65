//! Errors, arrays and interruption across the boundary.

use numpy::{PyArray1, PyArray2, PyReadonlyArray2, PyReadonlyArrayDyn};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use sae_core::{ExchangeError, ShapeError, Team};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// Misuse becomes a `ValueError` with the core's message.
pub fn value_error(error: ShapeError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn exchange_error(error: ExchangeError) -> PyErr {
    crate::exchange::ExchangeError::new_err(error.0)
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

/// How often Python is asked whether Ctrl-C was pressed while the core works.
const POLL: Duration = Duration::from_millis(50);
/// More threads than any machine has cores for would only cost memory.
const MAX_THREADS: usize = 1024;

/// Runs core work without the GIL on a thread of its own, while this one polls for signals; a pending signal ends the work
/// and is raised.
///
/// `threads` is the size of the pool that the work may use, `None` the global one. The processes that share the work, if there are
/// any, may end it as a signal does.
pub fn detached<T: Send>(
    py: Python<'_>,
    threads: Option<usize>,
    team: Option<&Team>,
    work: impl FnOnce(&dyn Fn() -> bool) -> T + Send,
) -> PyResult<T> {
    if let Some(n) = threads.filter(|n| !(1..=MAX_THREADS).contains(n)) {
        return Err(PyValueError::new_err(format!("threads must lie between 1 and {MAX_THREADS}, got {n}")));
    }
    let pool = threads
        .map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build())
        .transpose()
        .map_err(|e| PyValueError::new_err(format!("threads: {e}")))?;
    let stop = AtomicBool::new(false);
    py.detach(|| {
        std::thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel();
            let (pool, stop) = (&pool, &stop);
            scope.spawn(move || {
                let interrupted = || stop.load(Ordering::Relaxed);
                let work = AssertUnwindSafe(|| match pool {
                    Some(pool) => pool.install(|| work(&interrupted)),
                    None => work(&interrupted),
                });
                let result = catch_unwind(work).or_else(|payload| match payload.downcast::<ExchangeError>() {
                    Ok(error) => Err(exchange_error(*error)),
                    Err(payload) => resume_unwind(payload),
                });
                // the receiver waits until it has the result
                let _ = sender.send(result);
            });
            let mut raised = None;
            loop {
                match receiver.recv_timeout(POLL) {
                    Ok(result) => return raised.map_or(result, Err),
                    Err(mpsc::RecvTimeoutError::Timeout) if raised.is_none() => {
                        let signal = Python::attach(|py| py.check_signals());
                        let ended = || team.map_or(Ok(()), Team::check).map_err(exchange_error);
                        if let Err(error) = signal.and_then(|()| ended()) {
                            raised = Some(error);
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => {
                        return Err(PyRuntimeError::new_err("the core ended without a result"));
                    }
                }
            }
        })
    })
}
