//! Priors on coordinates and decoders.

mod arc_length;
mod ard;
mod compact;
mod decoder;

pub use arc_length::{arc_length_weights, weighted, weighted_null};
pub use ard::{coordinate_prior, coordinate_priors, AxisStatistics, CoordinatePrior};
pub use compact::{block_of, compact_parts, coordinate_charge, CompactPart, CompactTerm, Pull};
pub use decoder::DecoderPrior;
