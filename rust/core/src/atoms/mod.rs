//! Atom kinds: one file a kind, behind one trait.
//!
//! An atom is a basis on a manifold. The rest of the crate knows it only through [`Atom`]: it names no kind.

mod circle;

pub use circle::Circle;

use ndarray::Array2;

/// One axis of a chart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Axis {
    /// An angle in radians; its prior is uniform, or von Mises when ARD is on.
    Periodic { period: f64 },
}

/// A one-parameter family of motions that leaves every fit unchanged: the coordinate moves with `velocity`
/// and the decoder with `dB = -basis_map * B`, where `dPhi . velocity = Phi * basis_map`.
#[derive(Clone, Debug)]
pub struct Generator {
    /// Speed of each coordinate axis (constant over the chart).
    pub velocity: Vec<f64>,
    /// The action on the basis (M x M).
    pub basis_map: Array2<f64>,
}

/// The basis row of one coordinate with its first two derivatives, each stored axis-major.
#[derive(Clone, Debug)]
pub struct BasisJet {
    /// Length M.
    pub phi: Vec<f64>,
    /// `d x M`.
    pub d1: Vec<f64>,
    /// `d x d x M`.
    pub d2: Vec<f64>,
}

impl BasisJet {
    pub fn new(dim: usize, width: usize) -> Self {
        Self { phi: vec![0.0; width], d1: vec![0.0; dim * width], d2: vec![0.0; dim * dim * width] }
    }
}

/// A basis with analytic jets on a manifold of its own.
pub trait Atom: Send + Sync + std::fmt::Debug {
    /// The kind's name, as users write it.
    fn kind(&self) -> &'static str;
    /// Two atoms with equal keys are interchangeable (they count in the K! of identical atoms).
    fn key(&self) -> String;
    /// Number of coordinates.
    fn dim(&self) -> usize;
    /// Number of basis columns M.
    fn width(&self) -> usize;
    /// The axes of the chart.
    fn axes(&self) -> &[Axis];
    /// Writes the basis row alone.
    fn basis(&self, t: &[f64], phi: &mut [f64]);
    /// Writes the basis row and its first two derivatives.
    fn jet(&self, t: &[f64], out: &mut BasisJet);
    /// Writes the third derivatives (`d x d x d x M`).
    fn third(&self, t: &[f64], d3: &mut [f64]);
    /// Roughness Gram S (M x M), positive semi-definite.
    fn roughness(&self) -> Array2<f64>;
    /// Projector on the null space of S.
    fn null_projector(&self) -> Array2<f64>;
    /// Brings a coordinate back on the manifold, in place.
    fn retract(&self, t: &mut [f64]);
    /// Motions that change no fit, with the log of their group's volume in total.
    fn generators(&self) -> Vec<Generator>;
    fn ln_group_volume(&self) -> f64;
    /// Log of the number of reflections of the chart that change no fit.
    fn ln_reflections(&self) -> f64;
    /// Log-volume of the manifold: the energy of the uniform coordinate prior.
    fn ln_volume(&self) -> f64;
    /// Number of leading principal components that a first guess of the coordinate needs.
    fn seed_components(&self) -> usize;
    /// A first guess of the coordinate from that many principal-component scores.
    fn seed(&self, scores: &[f64], t: &mut [f64]);
    /// A grid on the chart (points x dim) from which the nearest point of any curve is found by descent.
    fn search_grid(&self) -> Array2<f64>;
}
