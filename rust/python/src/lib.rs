//! Python bindings of `sae-core`: conversion only, one file a Python class.

#![deny(unsafe_code)]

mod convert;
mod encode;
mod evaluation;
mod exchange;
mod groups;
mod jets;
mod layout;
mod rho;
mod row_program;
mod rows;
mod specs;
mod term;

use pyo3::prelude::*;

#[pymodule]
mod _core {
    #[pymodule_export]
    use crate::encode::{basis, basis_jets, encode_rows, roughness};
    #[pymodule_export]
    use crate::evaluation::{ArrowSchur, Evaluation, InnerReport};
    #[pymodule_export]
    use crate::exchange::ExchangeError;
    #[pymodule_export]
    use crate::groups::independent_groups;
    #[pymodule_export]
    use crate::jets::{Order1, Order2, Tower4};
    #[pymodule_export]
    use crate::layout::SaeRowLayout;
    #[pymodule_export]
    use crate::rho::SaeManifoldRho;
    #[pymodule_export]
    use crate::row_program::SaeReconstructionRowProgram;
    #[pymodule_export]
    use crate::rows::RowFile;
    #[pymodule_export]
    use crate::term::{plan, SaeManifoldTerm};
}
