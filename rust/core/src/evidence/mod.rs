//! The evidence V and its exact gradient, from one factorisation.

mod adjoint;
mod classic;
mod gradient;
mod orbit;
mod value;

pub use adjoint::{evidence_adjoint, log_det_adjoint, Adjoint};
pub use gradient::{gradient, Gradient};
pub use value::{Evidence, EvidenceParts};
