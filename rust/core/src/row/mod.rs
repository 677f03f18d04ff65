//! The one place where a row is linearised.
//!
//! A row's reconstruction is `phi_i B` with `phi_i` the stacked basis rows of its atoms, each times its gate. So
//! everything the arrow system needs of a row is `phi_i` with its derivatives over the row's local variables, `D_i`
//! (first) and the contraction of the second with the residual: `L_i = D_i B`.
//!
//! Local variables that the data see ("coupled") are ordered: free logits of the support, then coordinates of the
//! support. The free logits of atoms outside the support feel their prior alone.

mod charges;
mod columns;
mod linearise;
mod objective;
mod priors;
mod production;
mod products;
mod program;
mod second;
mod solver;
mod stacked;
mod tape;

pub use columns::Columns;
pub use linearise::{linearise, Linearised};
pub use priors::{held, held_curvature, LossParts};
pub use production::row_program;
pub use products::{SupportGram, Target};
pub use program::{PackedBatch4, PackedJets, RowAtom, RowDecoder, RowSlots, SaeReconstructionRowProgram};
pub use solver::{RowSolver, RowState, CONVERGED};
pub use stacked::{held_whole, Stacked};
pub use tape::{AtomView, Chunk, RowView};
