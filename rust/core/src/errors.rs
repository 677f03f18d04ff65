//! Misuse: what a caller handed in that cannot be worked with. Numerical outcomes are not errors, see [`crate::Status`].

use crate::wire::Wire;
use thiserror::Error;

/// A problem, state or layout that does not fit together.
#[derive(Debug, Error, Clone, PartialEq)]
pub enum ShapeError {
    #[error("{what} has shape {found:?}, expected {expected:?}")]
    Shape { what: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("{what} must be finite; entry {index:?} is {value}")]
    NotFinite { what: String, index: Vec<usize>, value: f64 },
    #[error("row {row} has an empty support; every row needs at least one atom")]
    EmptySupport { row: usize },
    #[error("atom index {atom} in row {row} is out of range for {n_atoms} atoms")]
    AtomOutOfRange { atom: usize, row: usize, n_atoms: usize },
    #[error("{what} is slot {slot}, expected one below the number of primaries, {primaries}")]
    SlotOutOfRange { what: String, slot: usize, primaries: usize },
    #[error("{what} is slot {slot}, which {other} has already; expected a slot of its own")]
    SlotTaken { what: String, other: String, slot: usize },
    #[error("{what} is {index}, expected one below {size}")]
    IndexOutOfRange { what: String, index: usize, size: usize },
    #[error("{0}")]
    Value(String),
}

/// Of an error another process gets the message.
impl Wire for ShapeError {
    fn put(&self, out: &mut Vec<u8>) {
        self.to_string().put(out);
    }

    fn get(from: &mut &[u8]) -> Option<Self> {
        String::get(from).map(Self::Value)
    }
}

impl ShapeError {
    pub(crate) fn shape(what: impl Into<String>, found: &[usize], expected: &[usize]) -> Self {
        Self::Shape { what: what.into(), found: found.to_vec(), expected: expected.to_vec() }
    }

    pub(crate) fn value(text: impl Into<String>) -> Self {
        Self::Value(text.into())
    }
}

/// Checks that every entry of a matrix is finite and names the first that is not.
pub(crate) fn check_finite(what: &str, array: ndarray::ArrayView2<'_, f64>) -> Result<(), ShapeError> {
    match array.indexed_iter().find(|(_, v)| !v.is_finite()) {
        Some(((i, j), &value)) => Err(ShapeError::NotFinite { what: what.into(), index: vec![i, j], value }),
        None => Ok(()),
    }
}
