//! The evidence V and its exact gradient, from one factorisation.

mod adjoint;
mod border_rows;
mod classic;
mod columns;
mod compact;
mod fellner_schall;
mod followed;
mod gauge_terms;
mod gradient;
mod held;
mod orbit;
mod scale;
mod sides;
mod sparse;
mod value;

pub use adjoint::{evidence_adjoint, log_det_adjoint, Adjoint};
pub use fellner_schall::{fellner_schall, Traces};
pub use gradient::{explicit_gradient, gradient, Gradient};
pub use value::{Evidence, EvidenceParts};
