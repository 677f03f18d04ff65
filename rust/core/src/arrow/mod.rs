//! The arrow system: rows' blocks, a border of decoders, two eliminations and one answer.
//!
//! ```text
//!     | A_1            C_1  |     A_i   q_i x q_i   row i's logits and coordinates
//!     |      A_2       C_2  |     C_i   q_i x M p   w_i L_i (phi_i' (x) I) / phi
//!     |           ...  ...  |     G     M x M       sum_i w_i phi_i phi_i' / phi + P
//!     | C_1' C_2' ...  G(x)I|
//! ```
//!
//! [`System`] holds these blocks at one state; [`Factor`] eliminates rows first or decoders first, and answers a
//! solve, a log-determinant and the traces that the evidence's gradient needs. Nothing here knows an atom kind or a gate.

mod border;
mod channel_blocks;
mod conjugate_gradients;
mod coupling;
mod decoders_alone;
mod decoders_first;
mod dense;
mod estimated;
mod exact;
mod factor;
mod frame;
mod gauge;
mod kronecker;
mod plan;
mod rows_first;
mod spectral;
mod substitution;
mod system;

pub use conjugate_gradients::{conjugate_gradients, Ending, Enough, Solution};
pub use coupling::Coupling;
pub use dense::ArrowSchur;
pub use estimated::{Direction, Estimation, Whitening};
pub use exact::steps_exactly;
pub use factor::{Curvature, Elimination, Factor, Factored, RowTraces, Unlinked};
pub use frame::Frame;
pub use gauge::{Gauge, GaugeColumn};
pub use plan::{Plan, Shape};
pub use rows_first::STEPS_EXACTLY_TO;
pub use system::{Step, System};
