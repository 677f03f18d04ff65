//! Priors on coordinates and decoders.

mod arc_length;
mod ard;
mod closed;
mod compact;
mod decoder;

pub use arc_length::{arc_length_weights, weighted, weighted_null};
pub use ard::{coordinate_prior, coordinate_priors, AxisStatistics, CoordinatePrior};
pub use closed::{ClosedAxes, ClosedTerm};
pub use compact::{bounded_parts, coordinate_charge, BoundedPart, BoundedTerm, PlacedAtom, Pull};
pub use decoder::DecoderPrior;
