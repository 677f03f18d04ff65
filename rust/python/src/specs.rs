//! Atoms and gates from their Python descriptions: dictionaries with a `kind`.

use ndarray::Array2;
use numpy::PyReadonlyArray2;
use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use sae_core::{
    Atom, Circle, ColumnEnergy, Cylinder, Duchon, EntropyNodes, EvidenceMode, FiniteSet, FrozenRouting, Gate, Ibp,
    KleinBottle, Line, Mobius, Patch, Poincare, Precomputed, ProjectivePlane, Segment, SigmoidNodes, Softmax, Sphere,
    ThresholdGate, Torus,
};
use std::sync::Arc;

use crate::convert::value_error;

fn entry<'py>(spec: &Bound<'py, PyDict>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    spec.get_item(name)?.ok_or_else(|| PyKeyError::new_err(format!("the description has no {name:?}")))
}

fn optional<'py, T: for<'a> FromPyObject<'a, 'py>>(spec: &Bound<'py, PyDict>, name: &str) -> PyResult<Option<T>> {
    match spec.get_item(name)? {
        Some(value) if !value.is_none() => value.extract().map(Some).map_err(Into::into),
        _ => Ok(None),
    }
}

/// The atoms without a gate, which must be atoms of the dictionary.
fn ungated(spec: &Bound<'_, PyDict>, n_atoms: usize) -> PyResult<Vec<usize>> {
    let atoms: Vec<usize> = optional(spec, "ungated")?.unwrap_or_default();
    match atoms.iter().find(|&&k| k >= n_atoms) {
        Some(k) => Err(PyValueError::new_err(format!("ungated names atom {k}, but there are {n_atoms} atoms"))),
        None => Ok(atoms),
    }
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
        "mobius" => Ok(Arc::new(Mobius::new(size("harmonics")?, size("degree")?).map_err(value_error)?)),
        "patch" => Ok(Arc::new(Patch::new(size("dim")?, size("degree")?).map_err(value_error)?)),
        "poincare" => Ok(Arc::new(Poincare::new(size("dim")?).map_err(value_error)?)),
        "precomputed" => {
            let knots: Vec<Vec<f64>> = entry(spec, "knots")?.extract()?;
            let periods = entry(spec, "periods")?.extract()?;
            let bounded: Vec<bool> = optional(spec, "bounded")?.unwrap_or_else(|| vec![false; knots.len()]);
            let coefficients = entry(spec, "coefficients")?.extract()?;
            let gram = table(spec, "gram")?;
            Ok(Arc::new(Precomputed::new(knots, periods, &bounded, coefficients, gram.view()).map_err(value_error)?))
        }
        "projective_plane" => Ok(Arc::new(ProjectivePlane::new(size("degree")?).map_err(value_error)?)),
        "segment" => Ok(Arc::new(Segment::new(size("degree")?).map_err(value_error)?)),
        "sphere" => Ok(Arc::new(Sphere::new(size("degree")?).map_err(value_error)?)),
        "torus" => Ok(Arc::new(Torus::new(size("harmonics")?).map_err(value_error)?)),
        other => Err(PyValueError::new_err(format!("unknown atom kind {other:?}"))),
    }
}

pub fn atoms(specs: &[Bound<'_, PyDict>]) -> PyResult<Vec<Arc<dyn Atom>>> {
    specs.iter().map(atom).collect()
}

pub fn evidence(name: &str) -> PyResult<EvidenceMode> {
    let known = [EvidenceMode::Laplace, EvidenceMode::QuasiLaplace];
    known.into_iter().find(|mode| mode.name() == name).ok_or_else(|| {
        PyValueError::new_err(format!("evidence must be \"laplace\" or \"quasi_laplace\", got {name:?}"))
    })
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
            let top_k: Option<usize> = optional(spec, "top_k")?;
            Ok(Arc::new(Softmax::new(temperature, precision, top_k, nodes).map_err(value_error)?))
        }
        "threshold" => {
            let threshold: f64 = entry(spec, "threshold")?.extract()?;
            let temperature: f64 = entry(spec, "temperature")?.extract()?;
            let precision: f64 = entry(spec, "logit_precision")?.extract()?;
            let logits: Vec<f64> = entry(spec, "node_logits")?.extract()?;
            let weights: Vec<f64> = entry(spec, "node_weights")?.extract()?;
            let nodes = SigmoidNodes::new(&logits, &weights, threshold, temperature).map_err(value_error)?;
            let ungated = ungated(spec, n_atoms)?;
            let gate = ThresholdGate::new(threshold, temperature, precision, &ungated, nodes);
            Ok(Arc::new(gate.map_err(value_error)?))
        }
        "ibp" => {
            let energy: String = entry(spec, "energy")?.extract()?;
            let energy = match energy.as_str() {
                "ordered" => ColumnEnergy::Ordered,
                "plug_in" => ColumnEnergy::PlugIn,
                other => {
                    let text = format!("energy must be \"ordered\" or \"plug_in\", got {other:?}");
                    return Err(PyValueError::new_err(text));
                }
            };
            let gate = Ibp::new(
                entry(spec, "alpha")?.extract()?,
                entry(spec, "learnable")?.extract()?,
                energy,
                entry(spec, "temperature")?.extract()?,
                entry(spec, "logit_precision")?.extract()?,
                &ungated(spec, n_atoms)?,
            );
            Ok(Arc::new(gate.map_err(value_error)?))
        }
        "frozen" => Ok(Arc::new(FrozenRouting)),
        other => Err(PyValueError::new_err(format!(
            "unknown gate {other:?}; known: \"softmax\", \"threshold\", \"ibp\", \"frozen\""
        ))),
    }
}
