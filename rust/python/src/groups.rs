use crate::convert::{detached, matrix, to_py2};
use numpy::{PyArray1, PyArray2, PyReadonlyArray2};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

type Groups<'py> =
    (Bound<'py, PyArray2<f64>>, Bound<'py, PyArray2<f64>>, Bound<'py, PyArray2<f64>>, Bound<'py, PyArray1<i64>>);

/// Independent components of rows (n, p) less their mean, in groups that are active together: (unmixing (p, d), mixing (d, p),
/// the statistic of every pair (d, d), the group of every component (d,)); `None` where nothing stands out from the noise.
#[pyfunction]
#[pyo3(signature = (rows, *, most, random_state=0, threads=None))]
pub fn independent_groups<'py>(
    py: Python<'py>,
    rows: PyReadonlyArray2<'py, f64>,
    most: usize,
    random_state: u64,
    threads: Option<usize>,
) -> PyResult<Option<Groups<'py>>> {
    let rows = matrix(&rows);
    if rows.is_empty() || rows.iter().any(|v| !v.is_finite()) {
        return Err(PyValueError::new_err("rows must be a matrix of finite numbers with at least one entry"));
    }
    let found = detached(py, threads, None, |interrupted| {
        sae_core::independent_groups(rows.view(), most, random_state, interrupted)
    })?;
    Ok(found.map(|found| {
        let labels: Vec<i64> = found.labels.iter().map(|&label| label as i64).collect();
        (
            to_py2(py, &found.unmixing),
            to_py2(py, &found.mixing),
            to_py2(py, &found.together),
            PyArray1::from_vec(py, labels),
        )
    }))
}
