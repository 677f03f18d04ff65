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

/// An `sae_rs.exchange.Exchange`.
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
        self.call(|object| {
            let mine = PyBytes::new(object.py(), &mine);
            let all: Vec<Bound<'_, PyBytes>> = object.call_method1("all_gather", (mine,))?.extract()?;
            let own = |rank: usize| if rank == self.rank { Vec::new() } else { all[rank].as_bytes().to_vec() };
            Ok((0..all.len()).map(own).collect())
        })
    }

    fn check(&self) -> Result<(), String> {
        self.call(|object| object.call_method0("check").map(drop))
    }

    fn take(&self) -> Result<Vec<u8>, String> {
        self.call(|object| bytes(object.call_method0("take")?))
    }

    fn hand_on(&self, mine: Vec<u8>) -> Result<Vec<u8>, String> {
        self.call(|object| bytes(object.call_method1("hand_on", (PyBytes::new(object.py(), &mine),))?))
    }
}

impl Peers {
    fn call<T>(&self, work: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<T>) -> Result<T, String> {
        Python::attach(|py| work(self.object.bind(py))).map_err(|error| error.to_string())
    }
}

fn bytes(value: Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    Ok(value.cast_into::<PyBytes>()?.as_bytes().to_vec())
}

/// `None` for a fit by one process.
pub fn team(object: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Team>> {
    let Some(object) = object else { return Ok(None) };
    let number = |name: &str| object.getattr(name)?.extract::<usize>();
    let peers = Peers { rank: number("rank")?, size: number("size")?, object: object.clone().unbind() };
    Ok(Some(Team::new(Arc::new(peers))))
}
