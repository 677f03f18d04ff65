//! Values with their derivatives, as a row program returns them.

use numpy::PyArrayDyn;
use pyo3::exceptions::{PyIndexError, PyTypeError};
use pyo3::prelude::*;
use sae_core::{HeapTower4, PackedJets};

/// The arrays of all orders, with or without an axis of columns in front.
#[derive(PartialEq)]
struct Jets {
    /// `None` for a single column.
    columns: Option<usize>,
    primaries: usize,
    orders: Vec<Vec<f64>>,
}

impl Jets {
    fn packed(jets: PackedJets) -> Self {
        Self { columns: Some(jets.columns()), primaries: jets.primaries(), orders: jets.into_orders() }
    }

    fn array<'py>(&self, py: Python<'py>, order: usize) -> Bound<'py, PyArrayDyn<f64>> {
        let mut shape: Vec<usize> = self.columns.into_iter().collect();
        shape.extend(std::iter::repeat_n(self.primaries, order));
        let array = ndarray::ArrayD::from_shape_vec(shape, self.orders[order].clone());
        PyArrayDyn::from_owned_array(py, array.expect("one entry per column and primaries"))
    }

    fn len(&self) -> PyResult<usize> {
        self.columns.ok_or_else(|| PyTypeError::new_err("a single column has no length"))
    }

    fn column(&self, i: isize) -> PyResult<Self> {
        let columns = self.len()?;
        let at = if i < 0 { i + columns as isize } else { i };
        let Some(at) = usize::try_from(at).ok().filter(|&at| at < columns) else {
            return Err(PyIndexError::new_err(format!("column {i} is out of range for {columns} columns")));
        };
        let one = |values: &Vec<f64>| values[at * values.len() / columns..(at + 1) * values.len() / columns].to_vec();
        Ok(Self { columns: None, primaries: self.primaries, orders: self.orders.iter().map(one).collect() })
    }

    fn describe(&self, name: &str) -> String {
        let columns = self.columns.map_or_else(String::new, |n| format!("columns={n}, "));
        format!("{name}({columns}primaries={})", self.primaries)
    }
}

/// Value and gradient over N primaries, of several columns or of one.
///
/// Arrays are float64. `len` is the number of columns C, and an index takes one column of them, whose arrays lack the first
/// axis.
///
/// Attributes
/// ----------
/// value : array (C,)
/// gradient : array (C, N)
#[pyclass(frozen, sequence, module = "sae_rs._core")]
pub struct Order1(Jets);

impl From<PackedJets> for Order1 {
    fn from(jets: PackedJets) -> Self {
        Self(Jets::packed(jets))
    }
}

#[pymethods]
impl Order1 {
    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> Bound<'py, PyArrayDyn<f64>> {
        self.0.array(py, 0)
    }
    #[getter]
    fn gradient<'py>(&self, py: Python<'py>) -> Bound<'py, PyArrayDyn<f64>> {
        self.0.array(py, 1)
    }
    fn __len__(&self) -> PyResult<usize> {
        self.0.len()
    }
    fn __getitem__(&self, i: isize) -> PyResult<Self> {
        Ok(Self(self.0.column(i)?))
    }
    fn __eq__(&self, other: &Self) -> bool {
        self.0 == other.0
    }
    fn __repr__(&self) -> String {
        self.0.describe("Order1")
    }
}

/// Value, gradient and Hessian over N primaries, of several columns or of one.
///
/// Arrays are float64. `len` is the number of columns C, and an index takes one column of them, whose arrays lack the first
/// axis.
///
/// Attributes
/// ----------
/// value : array (C,)
/// gradient : array (C, N)
/// hessian : array (C, N, N)
#[pyclass(frozen, sequence, module = "sae_rs._core")]
pub struct Order2(Jets);

impl From<PackedJets> for Order2 {
    fn from(jets: PackedJets) -> Self {
        Self(Jets::packed(jets))
    }
}

#[pymethods]
impl Order2 {
    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> Bound<'py, PyArrayDyn<f64>> {
        self.0.array(py, 0)
    }
    #[getter]
    fn gradient<'py>(&self, py: Python<'py>) -> Bound<'py, PyArrayDyn<f64>> {
        self.0.array(py, 1)
    }
    #[getter]
    fn hessian<'py>(&self, py: Python<'py>) -> Bound<'py, PyArrayDyn<f64>> {
        self.0.array(py, 2)
    }
    fn __len__(&self) -> PyResult<usize> {
        self.0.len()
    }
    fn __getitem__(&self, i: isize) -> PyResult<Self> {
        Ok(Self(self.0.column(i)?))
    }
    fn __eq__(&self, other: &Self) -> bool {
        self.0 == other.0
    }
    fn __repr__(&self) -> String {
        self.0.describe("Order2")
    }
}

/// Value and all derivatives to the fourth order over N primaries, of one column.
///
/// Arrays are float64, and those of derivatives are symmetric.
///
/// Attributes
/// ----------
/// value : array ()
/// gradient : array (N,)
/// hessian : array (N, N)
/// t3 : array (N, N, N)
/// t4 : array (N, N, N, N)
#[pyclass(frozen, module = "sae_rs._core")]
pub struct Tower4(Jets);

impl From<HeapTower4> for Tower4 {
    fn from(tower: HeapTower4) -> Self {
        let HeapTower4 { low, t3, t4 } = tower;
        let primaries = low.gradient.len();
        Self(Jets { columns: None, primaries, orders: vec![vec![low.value], low.gradient, low.hessian, t3, t4] })
    }
}

#[pymethods]
impl Tower4 {
    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> Bound<'py, PyArrayDyn<f64>> {
        self.0.array(py, 0)
    }
    #[getter]
    fn gradient<'py>(&self, py: Python<'py>) -> Bound<'py, PyArrayDyn<f64>> {
        self.0.array(py, 1)
    }
    #[getter]
    fn hessian<'py>(&self, py: Python<'py>) -> Bound<'py, PyArrayDyn<f64>> {
        self.0.array(py, 2)
    }
    #[getter]
    fn t3<'py>(&self, py: Python<'py>) -> Bound<'py, PyArrayDyn<f64>> {
        self.0.array(py, 3)
    }
    #[getter]
    fn t4<'py>(&self, py: Python<'py>) -> Bound<'py, PyArrayDyn<f64>> {
        self.0.array(py, 4)
    }
    fn __eq__(&self, other: &Self) -> bool {
        self.0 == other.0
    }
    fn __repr__(&self) -> String {
        self.0.describe("Tower4")
    }
}
