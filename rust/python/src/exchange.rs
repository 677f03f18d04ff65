//! The processes of a fit, reached through a Python object.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sae_core::{Exchange, Team};
use std::sync::Arc;

pyo3::create_exception!(
    sae_rs._core,
    ExchangeError,
    pyo3::exceptions::PyRuntimeError,
    "Processes that share a fit could not go on together."
);

/// An object with `rank`, `size` and `all_gather(bytes) -> list of bytes`, this process's own entry among them.
struct Peers {
    object: Py<PyAny>,
    rank: usize,
    size: usize,
}

impl Exchange for Peers {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_gather(&self, mine: Vec<u8>) -> Result<Vec<Vec<u8>>, String> {
        Python::attach(|py| {
            let mine = PyBytes::new(py, &mine);
            let all: Vec<Bound<'_, PyBytes>> = self.object.bind(py).call_method1("all_gather", (mine,))?.extract()?;
            Ok(all.iter().map(|bytes| bytes.as_bytes().to_vec()).collect())
        })
        .map_err(|error: PyErr| error.to_string())
    }
}

/// `None` for a fit by one process.
pub fn team(object: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Team>> {
    let Some(object) = object else { return Ok(None) };
    let number = |name: &str| object.getattr(name)?.extract::<usize>();
    let peers = Peers { rank: number("rank")?, size: number("size")?, object: object.clone().unbind() };
    Ok(Some(Team::new(Arc::new(peers))))
}
