//! Atom kinds: one file a kind, behind one trait.
//!
//! An atom is a basis on a manifold. The rest of the crate knows it only through [`Atom`]: it names no kind.
//!
//! A point of the manifold is stored in `ambient` numbers; a row's variables are `dim` local coordinates u about it, with
//! `advance(t, u)` the point they stand for. All jets are derivatives of `u -> Phi(advance(t, u))` at u = 0. On a flat chart
//! that is the ordinary derivative; on a curved one, with u the tangent coordinates of a geodesic, second derivatives are the
//! covariant ones, and no other part of the crate needs to know that the chart is curved.

#[cfg(test)]
mod checks;
mod circle;
mod cylinder;
mod duchon;
mod factor;
mod finite_set;
mod grid;
mod harmonics;
mod klein_bottle;
#[cfg(test)]
mod laws;
mod line;
mod mobius;
mod patch;
mod poincare;
mod precomputed;
mod products;
mod projective_plane;
mod segment;
mod series;
mod sphere;
mod torus;

pub use circle::Circle;
pub use cylinder::Cylinder;
pub use duchon::Duchon;
pub use factor::{hold, hold_axis, places, walls, ChartFactor, Place};
pub use finite_set::FiniteSet;
pub use klein_bottle::KleinBottle;
pub use line::Line;
pub use mobius::Mobius;
pub use patch::Patch;
pub use poincare::Poincare;
pub use precomputed::Precomputed;
pub use projective_plane::ProjectivePlane;
pub use segment::Segment;
pub use sphere::Sphere;
pub use torus::Torus;

use ndarray::{Array1, Array2, ArrayView1};
use std::f64::consts::TAU;
use std::sync::Arc;

/// The basis row of one coordinate with its first two derivatives, each stored axis-major.
#[derive(Clone, Debug, Default)]
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
    /// Number of local coordinates.
    fn dim(&self) -> usize {
        self.factors().iter().map(|f| f.dim()).sum()
    }
    /// Number of stored coordinates.
    fn ambient(&self) -> usize {
        self.factors().iter().map(|f| f.ambient()).sum()
    }
    /// Number of basis columns M.
    fn width(&self) -> usize;
    /// The factors of the chart, in the order of its coordinates.
    fn factors(&self) -> &[ChartFactor];
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
    /// Moves a point by local coordinates and brings it to its canonical form.
    fn advance(&self, t: &mut [f64], step: &[f64]);
    /// Motions that leave every fit unchanged, each by its action Q on the basis (M x M): the coordinate moves with a
    /// velocity v and the decoder with `-Q B`, where `dPhi . v = Phi Q`.
    fn generators(&self) -> Vec<Array2<f64>>;
    /// Writes the velocity (d) of one of the generators at a point, and its covariant derivative (`d x d`, entry (a, u) that
    /// of component a along coordinate u).
    fn velocity(&self, generator: usize, t: &[f64], v: &mut [f64], dv: &mut [f64]);
    /// Log-volume of the group of these motions.
    fn ln_group_volume(&self) -> f64;
    /// Log of the number of discrete symmetries of the chart that change no fit: with `gauged`, beyond the motions of the
    /// group; without, where precisions of the axes break those motions.
    fn ln_symmetries(&self, gauged: bool) -> f64;
    /// The degree of each basis column in the line coordinates of the chart, where all columns are homogeneous in them: then
    /// the scale of these coordinates can be absorbed by the decoder. `None` elsewhere, and where there is no line.
    fn degrees(&self) -> Option<Vec<u32>> {
        None
    }
    /// Number of leading principal components that a first guess of the coordinate needs.
    fn seed_components(&self) -> usize;
    /// The shapes that the atom may have in a few components: for each, the sizes of one or two parts that belong together,
    /// as the plane of an angle does. Guesses are given components dealt out to the parts of each shape in turn.
    fn seed_blocks(&self) -> Vec<Vec<usize>> {
        vec![vec![self.seed_components()]]
    }
    /// A first guess of the stored coordinate from that many principal-component scores.
    fn seed(&self, scores: &[f64], t: &mut [f64]);
    /// First guesses for many rows at once, one a row of scores: for kinds that see more in all rows than in each.
    fn seed_rows(&self, scores: &Array2<f64>) -> Array2<f64> {
        each_seed(self, scores)
    }
    /// A grid of stored points (points x ambient) from which the nearest point of any curve is found by descent.
    fn search_grid(&self) -> Array2<f64>;
    /// Writes some point of the chart: where a coordinate that no row uses is held.
    fn origin(&self, t: &mut [f64]) {
        t.copy_from_slice(self.search_grid().row(0).as_slice().expect("standard layout"));
    }
}

/// First guesses row by row.
fn each_seed<A: Atom + ?Sized>(atom: &A, scores: &Array2<f64>) -> Array2<f64> {
    let mut out = Array2::zeros((scores.nrows(), atom.ambient()));
    for (mut t, row) in out.rows_mut().into_iter().zip(scores.rows()) {
        atom.seed(&row.to_vec(), t.as_slice_mut().expect("standard layout"));
    }
    out
}

/// Values less their mean, in units of their standard deviation; zero where they do not vary.
pub(crate) fn standardised(values: ArrayView1<'_, f64>) -> Array1<f64> {
    let n = values.len().max(1) as f64;
    let centred = &values - values.sum() / n;
    let deviation = (centred.dot(&centred) / n).sqrt();
    centred * if deviation > 0.0 { 1.0 / deviation } else { 0.0 }
}

/// The angle of each row in a plane, counted from the middle of the widest gap.
fn along_an_arc(scores: &Array2<f64>) -> Array1<f64> {
    let angles: Vec<f64> = scores.rows().into_iter().map(|x| series::wrap(x[1].atan2(x[0]), TAU)).collect();
    let mut order = angles.clone();
    order.sort_by(f64::total_cmp);
    let gap = |i: usize| match order.get(i + 1) {
        Some(next) => next - order[i],
        None => order[0] + TAU - order[i],
    };
    let widest = (0..order.len()).max_by(|&i, &j| gap(i).total_cmp(&gap(j))).unwrap_or(0);
    let cut = order.get(widest).map_or(0.0, |angle| angle + 0.5 * gap(widest));
    angles.iter().map(|angle| series::wrap(angle - cut, TAU)).collect()
}

/// A stored point of every atom, one after the other, and where each begins; one more than there are atoms.
pub fn origins(atoms: &[Arc<dyn Atom>]) -> (Vec<f64>, Vec<usize>) {
    let (mut points, mut offsets) = (Vec::new(), vec![0]);
    for atom in atoms {
        let from = points.len();
        points.resize(from + atom.ambient(), 0.0);
        atom.origin(&mut points[from..]);
        offsets.push(points.len());
    }
    (points, offsets)
}
