//! Priors on coordinates and decoders.

mod ard;
mod compact;
mod decoder;

pub use ard::{coordinate_prior, coordinate_priors, CoordinatePrior};
pub use compact::{block_of, compact_of, coordinate_charge};
pub use decoder::DecoderPrior;
