//! Atoms and gates from their Python descriptions: dictionaries with a `kind`.

use ndarray::Array2;
use numpy::PyReadonlyArray2;
use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use sae_core::{
    Atom, Circle, Cylinder, Duchon, EntropyNodes, FiniteSet, Gate, KleinBottle, Line, Patch, Poincare, Precomputed,
    ProjectivePlane, Softmax, Sphere, Torus,
};
use std::sync::Arc;

use crate::convert::value_error;

fn entry<'py>(spec: &Bound<'py, PyDict>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    spec.get_item(name)?.ok_or_else(|| PyKeyError::new_err(format!("the description has no {name:?}")))
}

/// A matrix from rows of numbers.
fn table(spec: &Bound<'_, PyDict>, name: &str) -> PyResult<Array2<f64>> {
    let rows: Vec<Vec<f64>> = entry(spec, name)?.extract()?;
    let width = rows.first().map_or(0, Vec::len);
    match rows.iter().position(|row| row.len() != width) {
        Some(i) => Err(PyValueError::new_err(format!(
            "{name} has rows of different lengths: row {i} has {}, row 0 has {width}",
            rows[i].len()
        ))),
        None => Ok(Array2::from_shape_fn((rows.len(), width), |(i, j)| rows[i][j])),
    }
}

pub fn atom(spec: &Bound<'_, PyDict>) -> PyResult<Arc<dyn Atom>> {
    let kind: String = entry(spec, "kind")?.extract()?;
    let size = |name: &str| -> PyResult<usize> { entry(spec, name)?.extract() };
    match kind.as_str() {
        "circle" => Ok(Arc::new(Circle::new(size("harmonics")?).map_err(value_error)?)),
        "cylinder" => Ok(Arc::new(Cylinder::new(size("harmonics")?, size("degree")?).map_err(value_error)?)),
        "duchon" => Ok(Arc::new(Duchon::new(table(spec, "centers")?.view()).map_err(value_error)?)),
        "finite_set" => Ok(Arc::new(FiniteSet::new(size("size")?).map_err(value_error)?)),
        "klein_bottle" => Ok(Arc::new(KleinBottle::new(size("harmonics")?).map_err(value_error)?)),
        "line" => Ok(Arc::new(Line)),
        "patch" => Ok(Arc::new(Patch::new(size("dim")?, size("degree")?).map_err(value_error)?)),
        "poincare" => Ok(Arc::new(Poincare::new(size("dim")?).map_err(value_error)?)),
        "precomputed" => {
            let (knots, periods) = (entry(spec, "knots")?.extract()?, entry(spec, "periods")?.extract()?);
            let coefficients = entry(spec, "coefficients")?.extract()?;
            let gram = table(spec, "gram")?;
            Ok(Arc::new(Precomputed::new(knots, periods, coefficients, gram.view()).map_err(value_error)?))
        }
        "projective_plane" => Ok(Arc::new(ProjectivePlane::new(size("degree")?).map_err(value_error)?)),
        "sphere" => Ok(Arc::new(Sphere::new(size("degree")?).map_err(value_error)?)),
        "torus" => Ok(Arc::new(Torus::new(size("harmonics")?).map_err(value_error)?)),
        other => Err(PyValueError::new_err(format!("unknown atom kind {other:?}"))),
    }
}

pub fn atoms(specs: &[Bound<'_, PyDict>]) -> PyResult<Vec<Arc<dyn Atom>>> {
    specs.iter().map(atom).collect()
}

pub fn gate(spec: &Bound<'_, PyDict>, n_atoms: usize) -> PyResult<Arc<dyn Gate>> {
    let kind: String = entry(spec, "kind")?.extract()?;
    match kind.as_str() {
        "softmax" => {
            let temperature: f64 = entry(spec, "temperature")?.extract()?;
            let precision: f64 = entry(spec, "logit_precision")?.extract()?;
            let nodes: PyReadonlyArray2<'_, f64> = entry(spec, "node_logits")?.extract()?;
            let nodes = nodes.as_array();
            if nodes.ncols() + 1 != n_atoms.max(1) {
                return Err(PyValueError::new_err(format!(
                    "node_logits has {} columns, expected one per free logit: {}",
                    nodes.ncols(),
                    n_atoms.max(1) - 1
                )));
            }
            let nodes = EntropyNodes::new(nodes, temperature).map_err(value_error)?;
            Ok(Arc::new(Softmax::new(temperature, precision, nodes).map_err(value_error)?))
        }
        other => Err(PyValueError::new_err(format!("unknown gate {other:?}; known: \"softmax\""))),
    }
}
