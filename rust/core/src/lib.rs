//! Sparse dictionaries of curved atoms, chosen by marginal likelihood.
//!
//! A row of activations is explained as `sum_k a_k gamma_k(t_k)`: a gate says how much of atom k the row uses, a
//! coordinate says where on it. The rooms, from the ground up:
//!
//! * `jets`: truncated Taylor values, so that a program written once yields its derivatives.
//! * `atoms`: one file a kind of curve or surface. `gates`: one file a gate with its prior. `priors`: coordinates, decoders.
//! * `rho`: the outer vector of log-strengths. `layout`: which variables a row has. `problem`: what is fixed.
//!   `state`: what moves.
//! * `row`: the one place where a row is linearised.
//! * `exchange`: how several processes share the rows; `wire`: what they send.
//! * `arrow`: the system of rows and decoders, its eliminations, solves and traces.
//! * `newton`: the inner solve. `evidence`: V and its exact gradient. `seeds` and `encode`: where a fit starts and what it
//!   is for.

#![deny(unsafe_code)]
// indices are those of the formulas, and several arrays share them
#![allow(clippy::needless_range_loop)]

mod arrow;
mod atoms;
mod chunks;
mod encode;
mod errors;
mod evidence;
mod exchange;
mod frames;
mod gates;
mod gram;
mod interval;
mod jets;
mod layout;
mod linalg;
mod metric;
mod newton;
mod priors;
mod problem;
mod rho;
mod row;
mod seeds;
mod source;
mod special;
mod state;
mod term;
mod wire;

pub use arrow::{ArrowSchur, Curvature, Elimination, Ending, Factor, Factored, Frame, Plan, Shape, Step, System};
pub use atoms::{
    places, Atom, BasisJet, ChartFactor, Circle, Cylinder, Duchon, FiniteSet, KleinBottle, Line, Mobius, Patch, Place,
    Poincare, Precomputed, ProjectivePlane, Segment, Sphere, Torus,
};
pub use encode::{refresh, sparsity_floor, Encoder, Encoding};
pub use errors::ShapeError;
pub use evidence::{
    evidence_adjoint, explicit_gradient, fellner_schall, gradient, log_det_adjoint, Adjoint, Evidence, EvidenceParts,
    Gradient, Traces,
};
pub use exchange::{Exchange, ExchangeError, Team};
pub use gates::{
    ColumnEnergy, ColumnPrior, ColumnTerm, EntropyNodes, FrozenRouting, Gate, GatePrior, GateRow, Ibp, RowGate,
    RowLogits, SigmoidNodes, Softmax, ThresholdGate,
};
pub use jets::{F64x4, HeapOrder1, HeapOrder2, HeapTower4, Jet, Laned, Lanes4, Number, Order1, Order2, Stack, Tower4};
pub use layout::SaeRowLayout;
pub use linalg::{product, symmetric_eigen, Op};
pub use newton::{solve, Inner, InnerOptions, Status};
pub use priors::{coordinate_prior, coordinate_priors, CoordinatePrior, DecoderPrior};
pub use problem::{EvidenceMode, Problem, COMPACT_RIDGE};
pub use rho::{ArdSharing, SaeManifoldRho};
pub use row::{
    AtomView, Chunk, Columns, Linearised, LossParts, PackedBatch4, PackedJets, RowAtom, RowDecoder, RowSlots,
    RowSolver, RowState, RowView, SaeReconstructionRowProgram,
};
pub use seeds::{independent_groups, seeds, IndependentGroups, Seed};
pub use source::{Element, RowFile, Source};
pub use special::{circle_charge, digamma, ln_bessel_i0, ln_gamma, sphere_charge, tetragamma, trigamma};
pub use state::{RowVariables, State, SUPPORT_CUTOFF};
pub use term::{Evaluation, EvaluationOptions, SaeManifoldTerm};
