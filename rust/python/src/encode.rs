use crate::convert::{detached, matrix, to_py2, value_error};
use crate::rho::SaeManifoldRho;
use crate::specs;
use numpy::{PyArray1, PyArray2, PyArrayDyn, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use sae_core::{Atom, BasisJet, Encoder};

fn coordinates(atom: &dyn Atom, t: &PyReadonlyArray2<'_, f64>) -> PyResult<ndarray::Array2<f64>> {
    let t = matrix(t);
    match t.ncols() == atom.ambient() {
        true => Ok(t),
        false => Err(PyValueError::new_err(format!("t has {} columns, expected {}", t.ncols(), atom.ambient()))),
    }
}

/// Basis rows of an atom at stored coordinates t (m, ambient): (m, M).
#[pyfunction]
pub fn basis<'py>(
    py: Python<'py>,
    atom: &Bound<'py, PyDict>,
    t: PyReadonlyArray2<'py, f64>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let atom = specs::atom(atom)?;
    let t = coordinates(&*atom, &t)?;
    let mut out = ndarray::Array2::zeros((t.nrows(), atom.width()));
    for (t, mut row) in t.rows().into_iter().zip(out.rows_mut()) {
        atom.basis(t.as_slice().expect("standard layout"), row.as_slice_mut().expect("standard layout"));
    }
    Ok(to_py2(py, &out))
}

/// Roughness Gram of an atom (M, M).
#[pyfunction]
pub fn roughness<'py>(py: Python<'py>, atom: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyArray2<f64>>> {
    Ok(to_py2(py, &specs::atom(atom)?.roughness()))
}

type Jets<'py> = (
    Bound<'py, PyArrayDyn<f64>>,
    Bound<'py, PyArrayDyn<f64>>,
    Bound<'py, PyArrayDyn<f64>>,
    Bound<'py, PyArrayDyn<f64>>,
);

/// Basis rows at stored coordinates with their first three derivatives in local ones: (m, M), (m, M, d), (m, M, d, d), (m, M, d, d, d).
#[pyfunction]
pub fn basis_jets<'py>(
    py: Python<'py>,
    atom: &Bound<'py, PyDict>,
    t: PyReadonlyArray2<'py, f64>,
) -> PyResult<Jets<'py>> {
    let atom = specs::atom(atom)?;
    let t = coordinates(&*atom, &t)?;
    let (n, m, d) = (t.nrows(), atom.width(), atom.dim());
    let mut out: Vec<Vec<f64>> = (0..4).map(|order| Vec::with_capacity(n * m * d.pow(order))).collect();
    let mut jet = BasisJet::new(d, m);
    let mut third = vec![0.0; d * d * d * m];
    // the core stores derivatives axis-major; Python gets the basis column first
    let column_first = |block: &[f64], out: &mut Vec<f64>| {
        let axes = block.len() / m;
        (0..m).for_each(|column| out.extend((0..axes).map(|a| block[a * m + column])));
    };
    for t in t.rows() {
        let t = t.as_slice().expect("standard layout");
        atom.jet(t, &mut jet);
        atom.third(t, &mut third);
        for (block, out) in [&jet.phi, &jet.d1, &jet.d2, &third].into_iter().zip(&mut out) {
            column_first(block, out);
        }
    }
    let shaped = |order: usize, values: Vec<f64>| {
        let mut shape = vec![n, m];
        shape.extend(std::iter::repeat_n(d, order));
        let array = ndarray::ArrayD::from_shape_vec(shape, values).expect("one entry per row, column and axes");
        PyArrayDyn::from_owned_array(py, array)
    };
    let mut orders = out.into_iter();
    let mut next = |order| shaped(order, orders.next().expect("four orders"));
    Ok((next(0), next(1), next(2), next(3)))
}

type Encoded<'py> = (
    Bound<'py, PyArray2<f64>>,
    Vec<Bound<'py, PyArray2<f64>>>,
    Bound<'py, PyArray2<f64>>,
    Bound<'py, PyArray2<bool>>,
    Bound<'py, PyArray1<f64>>,
    Bound<'py, PyArray1<u8>>,
);

/// Encodes rows with frozen decoders and strengths: (gates, coords, logits, support, objective, status); status 0 is
/// converged, 1 the bound on iterations.
#[pyfunction]
#[pyo3(signature = (X, mean, atoms, gate, decoders, rho, *, column_scores=None, evidence="laplace", threads=None))]
#[allow(non_snake_case, clippy::too_many_arguments)]
pub fn encode_rows<'py>(
    py: Python<'py>,
    X: PyReadonlyArray2<'py, f64>,
    mean: PyReadonlyArray1<'py, f64>,
    atoms: Vec<Bound<'py, PyDict>>,
    gate: &Bound<'py, PyDict>,
    decoders: Vec<PyReadonlyArray2<'py, f64>>,
    rho: &SaeManifoldRho,
    column_scores: Option<Vec<f64>>,
    evidence: &str,
    threads: Option<usize>,
) -> PyResult<Encoded<'py>> {
    let atoms = specs::atoms(&atoms)?;
    let gate = specs::evidence(evidence)?.gate(specs::gate(gate, atoms.len())?);
    let p = X.as_array().ncols();
    if mean.len() != p {
        return Err(PyValueError::new_err(format!("mean has length {}, expected {p}", mean.len())));
    }
    for (k, block) in decoders.iter().enumerate() {
        if block.as_array().ncols() != p {
            let found = block.as_array().ncols();
            return Err(PyValueError::new_err(format!("decoders[{k}] has {found} columns, expected {p}")));
        }
    }
    let views: Vec<_> = decoders.iter().map(|b| b.as_array()).collect();
    let stacked = ndarray::concatenate(ndarray::Axis(0), &views).map_err(|e| PyValueError::new_err(e.to_string()))?;
    let encoder =
        Encoder::new(atoms, gate, rho.core.clone(), column_scores.unwrap_or_default(), stacked).map_err(value_error)?;
    let (rows, mean) = (X.as_array(), mean.as_array());
    let encoded = detached(py, threads, None, |interrupted| encoder.encode(rows, mean, interrupted))?;
    // a `None` comes with a pending signal, which `detached` has raised
    let encoded = encoded.ok_or_else(|| PyValueError::new_err("encoding was interrupted"))?;
    let (gates, coords, logits) = encoder.dense(&encoded);
    let mut support = ndarray::Array2::from_elem(gates.dim(), false);
    for (i, list) in encoded.supports.iter().enumerate() {
        list.iter().for_each(|&k| support[[i, k as usize]] = true);
    }
    let status: Vec<u8> = encoded.converged.iter().map(|c| u8::from(!c)).collect();
    Ok((
        to_py2(py, &gates),
        coords.iter().map(|c| to_py2(py, c)).collect(),
        to_py2(py, &logits),
        PyArray2::from_array(py, &support),
        PyArray1::from_slice(py, &encoded.objective),
        PyArray1::from_slice(py, &status),
    ))
}
