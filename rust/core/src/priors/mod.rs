//! Priors on coordinates and decoders.

mod ard;
mod decoder;

pub use ard::{coordinate_prior, CoordinatePrior};
pub use decoder::DecoderPrior;
