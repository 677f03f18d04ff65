//! The projective plane: even harmonics of a unit vector, which cannot tell t from -t.

use super::harmonics::{exponential, rotation_velocity, Harmonics, MAX_DEGREE};
use super::{Atom, BasisJet, ChartFactor};
use crate::errors::ShapeError;
use crate::linalg::{symmetric_eigen, Cholesky};
use ndarray::{Array1, Array2, ArrayView1};
use std::f64::consts::PI;

/// Surfaces of lines through the origin: harmonics of even degree of a point stored as one of its two unit vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct ProjectivePlane {
    harmonics: Harmonics,
}

impl ProjectivePlane {
    pub fn new(degree: usize) -> Result<Self, ShapeError> {
        if degree == 0 || degree % 2 == 1 || degree > MAX_DEGREE {
            return Err(ShapeError::value(format!(
                "a projective plane needs an even degree between 2 and {MAX_DEGREE}, got {degree}"
            )));
        }
        Ok(Self { harmonics: Harmonics::new(degree, 2) })
    }
}

/// The one of t and -t with z > 0; on the equator with y > 0; then with x > 0.
fn canonical(t: &mut [f64]) {
    if t.iter().rev().find(|v| **v != 0.0).is_some_and(|v| *v < 0.0) {
        t.iter_mut().for_each(|v| *v = -*v);
    }
}

impl Atom for ProjectivePlane {
    fn kind(&self) -> &'static str {
        "projective_plane"
    }
    fn key(&self) -> String {
        format!("projective_plane:{}", self.harmonics.degree())
    }
    fn width(&self) -> usize {
        self.harmonics.width()
    }
    fn factors(&self) -> &[ChartFactor] {
        &[ChartFactor::Sphere { antipodal: true }]
    }
    fn basis(&self, t: &[f64], phi: &mut [f64]) {
        self.harmonics.basis(t, phi);
    }
    fn jet(&self, t: &[f64], out: &mut BasisJet) {
        self.harmonics.jet(t, out);
    }
    fn third(&self, t: &[f64], d3: &mut [f64]) {
        self.harmonics.third(t, d3);
    }
    fn roughness(&self) -> Array2<f64> {
        self.harmonics.roughness()
    }
    fn null_projector(&self) -> Array2<f64> {
        self.harmonics.null_projector()
    }
    fn advance(&self, t: &mut [f64], step: &[f64]) {
        exponential(t, step);
        canonical(t);
    }
    fn generators(&self) -> Vec<Array2<f64>> {
        self.harmonics.rotations()
    }
    fn velocity(&self, generator: usize, t: &[f64], v: &mut [f64], dv: &mut [f64]) {
        rotation_velocity(generator, t, v, dv);
    }
    fn ln_group_volume(&self) -> f64 {
        (8.0 * PI * PI).ln()
    }
    /// None: t -> -t moves no point.
    fn ln_symmetries(&self, _: bool) -> f64 {
        0.0
    }
    fn seed_components(&self) -> usize {
        SEED_COMPONENTS
    }
    /// A single row says nothing of which combination of squares each score is; see `seed_rows`.
    fn seed(&self, scores: &[f64], t: &mut [f64]) {
        t.copy_from_slice(&scores[..3]);
        let norm = t.iter().map(|v| v * v).sum::<f64>().sqrt();
        if norm > 0.0 {
            t.iter_mut().for_each(|v| *v /= norm);
        } else {
            self.origin(t);
        }
        canonical(t);
    }
    fn seed_rows(&self, scores: &Array2<f64>) -> Array2<f64> {
        lines(scores)
    }
    fn search_grid(&self) -> Array2<f64> {
        self.harmonics.grid(true)
    }
    fn origin(&self, t: &mut [f64]) {
        t.copy_from_slice(&[0.0, 0.0, 1.0]);
    }
}

/// Harmonics of degree two: what the leading components of rows on the surface span.
const SEED_COMPONENTS: usize = 5;
/// Rows among which the reference points are chosen: a few hundred cover the plane.
const REFERENCE_ROWS: usize = 512;
/// Rounds of least squares between the lines and the map of the scores to their squares.
const REFINEMENTS: usize = 8;

/// Lines from whitened scores (n x 5), up to a rotation and a reflection of all.
///
/// Where lines are spread evenly, whitened scores are the harmonics of degree two up to an orthogonal map, and by the addition
/// theorem `s_i . s_j = 5 P_2(t_i . t_j)`: the squared cosines between all lines are known. Seven of the rows, near the axes,
/// the diagonals between them and the diagonal of space, fix a frame; what their matrices tt' are of their scores then extends
/// to all rows, and is refined over them.
fn lines(scores: &Array2<f64>) -> Array2<f64> {
    let n = scores.nrows();
    let stride = n.div_ceil(REFERENCE_ROWS);
    let sample: Vec<usize> = (0..n).step_by(stride).collect();
    let cosine = |i: usize, j: usize| {
        let inner = scores.row(sample[i]).dot(&scores.row(sample[j]));
        ((2.0 * inner / SEED_COMPONENTS as f64 + 1.0) / 3.0).clamp(0.0, 1.0)
    };
    let best = |score: &dyn Fn(usize) -> f64| {
        (0..sample.len()).min_by(|&i, &j| score(i).total_cmp(&score(j))).expect("data have rows")
    };
    // a row whose length is that of a point of the surface
    let x = best(&|i| (scores.row(sample[i]).dot(&scores.row(sample[i])) - SEED_COMPONENTS as f64).abs());
    let y = best(&|i| cosine(i, x));
    let z = best(&|i| cosine(i, x) + cosine(i, y));
    let axes = [x, y, z];
    let squares = |i: usize| axes.map(|a| cosine(i, a));
    let near = |target: [f64; 3]| best(&|i| squares(i).iter().zip(target).map(|(a, b)| (a - b) * (a - b)).sum::<f64>());
    let diagonals = [near([0.0, 0.5, 0.5]), near([0.5, 0.0, 0.5]), near([0.5, 0.5, 0.0])];
    let centre = near([1.0 / 3.0; 3]);
    let place = |i: usize| squares(i).map(f64::sqrt);
    let unit = |i: usize| {
        let v = place(i);
        let norm = v.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        v.map(|v| v / norm)
    };
    // the diagonal of space may be called (+, +, +); each other diagonal is on its side, or across
    let middle = unit(centre);
    let mut references: Vec<(usize, [f64; 3])> = axes.iter().map(|&a| (a, unit(a))).collect();
    references.push((centre, middle));
    for (flipped, &row) in diagonals.iter().enumerate() {
        let turned = |sign: f64| {
            let mut v = unit(row);
            v[(flipped + 1) % 3] *= sign;
            v
        };
        let miss = |v: [f64; 3]| ((0..3).map(|a| v[a] * middle[a]).sum::<f64>().powi(2) - cosine(row, centre)).abs();
        let (same, across) = (turned(1.0), turned(-1.0));
        references.push((row, if miss(same) <= miss(across) { same } else { across }));
    }
    let rows: Vec<(ArrayView1<'_, f64>, [f64; 3])> =
        references.into_iter().map(|(i, t)| (scores.row(sample[i]), t)).collect();
    let mut out = Array2::zeros((n, 3));
    let mut map = squares_from_scores(rows.into_iter());
    for _ in 0..REFINEMENTS {
        for (mut t, row) in out.rows_mut().into_iter().zip(scores.rows()) {
            t.assign(&main_line(&map, row));
        }
        let rows = scores.rows().into_iter().zip(out.rows()).map(|(s, t)| (s, [t[0], t[1], t[2]]));
        map = squares_from_scores(rows);
    }
    for (mut t, row) in out.rows_mut().into_iter().zip(scores.rows()) {
        t.assign(&main_line(&map, row));
        canonical(t.as_slice_mut().expect("standard layout"));
    }
    out
}

/// Affine least squares of tt' (as nine entries) on scores: (1 + r) x 9.
fn squares_from_scores<'a>(rows: impl Iterator<Item = (ArrayView1<'a, f64>, [f64; 3])>) -> Array2<f64> {
    /// Relative ridge: fewer than five components leave directions without data.
    const RIDGE: f64 = 1e-6;
    let design = |s: ArrayView1<'_, f64>| -> Array1<f64> { std::iter::once(1.0).chain(s.iter().copied()).collect() };
    let (mut gram, mut moment) = (Array2::<f64>::zeros((0, 0)), Array2::<f64>::zeros((0, 9)));
    for (s, t) in rows {
        let x = design(s);
        if gram.is_empty() {
            gram = Array2::zeros((x.len(), x.len()));
            moment = Array2::zeros((x.len(), 9));
        }
        for a in 0..x.len() {
            (0..x.len()).for_each(|b| gram[[a, b]] += x[a] * x[b]);
            (0..9).for_each(|e| moment[[a, e]] += x[a] * t[e / 3] * t[e % 3]);
        }
    }
    let ridge = RIDGE * gram.diag().sum();
    gram.diag_mut().mapv_inplace(|v| v + ridge);
    if let Some(factor) = Cholesky::new(gram.view()) {
        factor.solve(&mut moment.view_mut());
    }
    moment
}

/// The eigenvector of the largest eigenvalue of the matrix that a row's scores stand for.
fn main_line(map: &Array2<f64>, scores: ArrayView1<'_, f64>) -> Array1<f64> {
    let entries = &map.row(0) + &scores.dot(&map.slice(ndarray::s![1.., ..]));
    let matrix = Array2::from_shape_fn((3, 3), |(a, b)| 0.5 * (entries[3 * a + b] + entries[3 * b + a]));
    symmetric_eigen(matrix.view()).1.column(2).to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::{checks, harmonics::lattice};
    use super::*;

    #[test]
    fn chart_everywhere() {
        let plane = ProjectivePlane::new(4).unwrap();
        for t in lattice(40, true).rows() {
            checks::chart(&plane, t.as_slice().unwrap());
        }
        checks::chart(&plane, &[0.0, 1.0, 0.0]);
    }

    #[test]
    fn gauge() {
        [2, 4, 6].into_iter().for_each(|degree| checks::gauge(&ProjectivePlane::new(degree).unwrap()));
    }

    #[test]
    fn antipodes_are_one_point() {
        let plane = ProjectivePlane::new(4).unwrap();
        let (mut a, mut b) = (vec![0.0; plane.width()], vec![0.0; plane.width()]);
        plane.basis(&[0.48, 0.6, 0.64], &mut a);
        plane.basis(&[-0.48, -0.6, -0.64], &mut b);
        assert_eq!(a, b);
        let mut t = [0.0, 0.6, -0.8];
        plane.advance(&mut t, &[0.0, 0.0]);
        assert_eq!(t, [-0.0, -0.6, 0.8]);
    }

    #[test]
    fn lines_are_found_from_mixed_squares() {
        // an orthogonal mixture of the harmonics of degree two, at a lattice of lines
        let plane = ProjectivePlane::new(2).unwrap();
        let points = lattice(300, true);
        let mixing = {
            let seed = Array2::from_shape_fn((5, 5), |(a, b)| ((3 * a + 5 * b + a * b) as f64).sin());
            symmetric_eigen((&seed + &seed.t()).view()).1
        };
        let mut phi = vec![0.0; 6];
        let mut scores = Array2::zeros((300, 5));
        for (t, mut s) in points.rows().into_iter().zip(scores.rows_mut()) {
            plane.basis(t.as_slice().unwrap(), &mut phi);
            s.assign(&Array1::from(phi[1..].to_vec()).dot(&mixing));
        }
        let found = plane.seed_rows(&scores);
        for i in 0..300 {
            for j in 0..300 {
                let (a, b) = (found.row(i).dot(&found.row(j)), points.row(i).dot(&points.row(j)));
                assert!((a * a - b * b).abs() < 1e-3, "{i} {j}");
            }
        }
    }
}
