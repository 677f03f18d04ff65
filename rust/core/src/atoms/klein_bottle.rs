//! The Klein bottle: a torus whose points are glued in pairs, with a flip.

use super::products::Products;
use super::series::{wrap, Series};
use super::{each_seed, grid, Atom, BasisJet, ChartFactor};
use crate::errors::ShapeError;
use crate::linalg::symmetric_eigen;
use ndarray::{s, Array2};
use std::f64::consts::{PI, SQRT_2, TAU};

/// Surfaces with the columns of a torus that do not tell `(theta, phi)` from `(theta + pi, -phi)`, theta slowest: even
/// harmonics of theta go with cosines of phi, odd ones with sines.
///
/// The bottle has half the area of the torus, so theta counts up to pi.
#[derive(Clone, Debug, PartialEq)]
pub struct KleinBottle {
    harmonics: usize,
    products: Products,
}

impl KleinBottle {
    pub fn new(harmonics: usize) -> Result<Self, ShapeError> {
        if harmonics < 2 {
            // with one, `1, cos phi, sin phi (cos, sin) theta` is a sphere
            return Err(ShapeError::value(format!("a Klein bottle needs at least 2 harmonics, got {harmonics}")));
        }
        let series = Series::Harmonics(harmonics);
        let keep = |i: usize, j: usize| (series.order(i) % 2 == 1) == series.is_odd(j);
        Ok(Self { harmonics, products: Products::of_two([series; 2], keep)? })
    }
}

/// An angle in [0, pi), and whether an odd number of half turns was taken off.
pub(super) fn half_turned(theta: f64) -> (f64, bool) {
    let half_turns = (theta / PI).floor();
    let rest = theta - half_turns * PI;
    // what rounds to a whole half turn is one more of them
    let (half_turns, rest) = if (0.0..PI).contains(&rest) { (half_turns, rest) } else { (half_turns + 1.0, 0.0) };
    (rest, half_turns.rem_euclid(2.0) == 1.0)
}

/// The pair of angles that stands for a point: theta in [0, pi), phi in [0, 2 pi).
fn canonical(theta: f64, phi: f64) -> [f64; 2] {
    let (theta, flipped) = half_turned(theta);
    [theta, wrap(if flipped { -phi } else { phi }, TAU)]
}

impl Atom for KleinBottle {
    fn kind(&self) -> &'static str {
        "klein_bottle"
    }
    fn key(&self) -> String {
        format!("klein_bottle:{}", self.harmonics)
    }
    fn width(&self) -> usize {
        self.products.width()
    }
    fn factors(&self) -> &[ChartFactor] {
        &[ChartFactor::Circle { period: PI }, ChartFactor::Circle { period: TAU }]
    }
    fn basis(&self, t: &[f64], phi: &mut [f64]) {
        self.products.basis(t, phi);
    }
    fn jet(&self, t: &[f64], out: &mut BasisJet) {
        self.products.jet(t, out);
    }
    fn third(&self, t: &[f64], d3: &mut [f64]) {
        self.products.third(t, d3);
    }
    /// Mean squared Laplacian in the flat metric.
    fn roughness(&self) -> Array2<f64> {
        self.products.bending()
    }
    fn null_projector(&self) -> Array2<f64> {
        self.products.projector(|frequencies| frequencies == [0, 0])
    }
    fn advance(&self, t: &mut [f64], step: &[f64]) {
        t.copy_from_slice(&canonical(t[0] + step[0], t[1] + step[1]));
    }
    /// Rotation of theta.
    fn generators(&self) -> Vec<Array2<f64>> {
        vec![self.products.shift(0)]
    }
    fn velocity(&self, _: usize, _: &[f64], v: &mut [f64], dv: &mut [f64]) {
        v.copy_from_slice(&[1.0, 0.0]);
        dv.fill(0.0);
    }
    /// A decoder comes back after a whole turn; half a turn is the reflection of phi.
    fn ln_group_volume(&self) -> f64 {
        TAU.ln()
    }
    /// The reflection of theta and the half turn of phi; with precisions, which fix both origins, the reflections of theta
    /// and of phi.
    fn ln_symmetries(&self, _: bool) -> f64 {
        4.0f64.ln()
    }
    fn seed_components(&self) -> usize {
        4
    }
    /// A tube that meets itself, or a circle of linear and quadratic forms of two variables.
    fn seed_blocks(&self) -> Vec<Vec<usize>> {
        vec![vec![2, 2], vec![2, 3]]
    }
    /// On the tube `((R + r cos phi) (cos, sin) 2 theta, r sin phi (cos, sin) theta)`; R and r are guessed, and their ratio
    /// hardly matters.
    fn seed(&self, scores: &[f64], t: &mut [f64]) {
        /// r / R.
        const THICKNESS: f64 = 0.5;
        let theta = 0.5 * scores[1].atan2(scores[0]);
        let (sin, cos) = theta.sin_cos();
        // scores have unit variance: a pair's mean square length is 2
        let radius = SQRT_2 / (1.0 + 0.5 * THICKNESS * THICKNESS).sqrt();
        let out = (scores[0].hypot(scores[1]) / radius - 1.0) / THICKNESS;
        let up = 0.5 * (cos * scores[2] + sin * scores[3]);
        t.copy_from_slice(&canonical(theta, up.atan2(out)));
    }
    fn seed_rows(&self, scores: &Array2<f64>) -> Array2<f64> {
        match scores.ncols() {
            4 => each_seed(self, &aligned(scores)),
            _ => forms(scores),
        }
    }
    fn search_grid(&self) -> Array2<f64> {
        grid::product(&[grid::angles(self.harmonics, PI), grid::angles(self.harmonics, TAU)])
    }
}

/// Scores on a tube with the second pair turned, and reflected if need be, so that its angle is half that of the first: with
/// both as complex numbers, `E second^2 / first` then is positive.
pub(super) fn aligned(scores: &Array2<f64>) -> Array2<f64> {
    let moment = |sign: f64| {
        let (mut re, mut im) = (0.0, 0.0);
        for x in scores.rows() {
            let (a, b, c, d) = (x[0], x[1], x[2], sign * x[3]);
            let (square_re, square_im) = (c * c - d * d, 2.0 * c * d);
            re += square_re * a + square_im * b;
            im += square_im * a - square_re * b;
        }
        (re, im)
    };
    let (plain, reflected) = (moment(1.0), moment(-1.0));
    let sign = if reflected.0.hypot(reflected.1) > plain.0.hypot(plain.1) { -1.0 } else { 1.0 };
    let (re, im) = if sign < 0.0 { reflected } else { plain };
    let (sin, cos) = (-0.5 * im.atan2(re)).sin_cos();
    let mut out = scores.clone();
    for mut x in out.rows_mut() {
        let (c, d) = (x[2], sign * x[3]);
        (x[2], x[3]) = (cos * c - sin * d, sin * c + cos * d);
    }
    out
}

/// Angles on `(sin phi (cos, sin) theta, cos phi (1, cos 2 theta, sin 2 theta))`, which is how edges and ridges at all
/// orientations look to the low-degree polynomials of a picture.
///
/// The pair gives theta and sin phi. With q the other three, `E q q' e^(2 i theta) = w0 w' + w w0'` for the direction w0 of
/// `cos phi` and a complex w at right angles to it: w0 is the leading eigenvector of `E E*`.
fn forms(scores: &Array2<f64>) -> Array2<f64> {
    let theta: Vec<f64> = scores.rows().into_iter().map(|x| x[1].atan2(x[0])).collect();
    let (mut re, mut im) = (Array2::<f64>::zeros((3, 3)), Array2::<f64>::zeros((3, 3)));
    for (x, theta) in scores.rows().into_iter().zip(&theta) {
        let (sin, cos) = (2.0 * theta).sin_cos();
        for a in 0..3 {
            for b in 0..3 {
                re[[a, b]] += cos * x[2 + a] * x[2 + b];
                im[[a, b]] += sin * x[2 + a] * x[2 + b];
            }
        }
    }
    let (_, vectors) = symmetric_eigen((re.dot(&re) + im.dot(&im)).view());
    let leading = vectors.column(2);
    let across: Vec<f64> = scores.rows().into_iter().map(|x| leading.dot(&x.slice(s![2..]))).collect();
    Array2::from_shape_fn((scores.nrows(), 2), |(i, a)| {
        // mean squares: 1 for cos phi's, 2 for the pair's length
        let phi = (scores[[i, 0]].hypot(scores[[i, 1]]) / SQRT_2).atan2(across[i]);
        canonical(theta[i], phi)[a]
    })
}

#[cfg(test)]
mod tests {
    use super::super::laws::{nodes, obeys, Axis};
    use super::*;

    fn row(bottle: &KleinBottle, t: &[f64]) -> Vec<f64> {
        let mut phi = vec![0.0; bottle.width()];
        bottle.basis(t, &mut phi);
        phi
    }

    #[test]
    fn obeys_the_laws_of_atoms() {
        for harmonics in [2, 3] {
            let bottle = KleinBottle::new(harmonics).unwrap();
            let m = bottle.width();
            let laplacian = |d2: &[f64]| vec![(0..m).map(|c| d2[c] + d2[3 * m + c]).collect()];
            obeys(&bottle, &nodes(&[Axis::Angle(TAU), Axis::Angle(TAU)]), &laplacian);
        }
    }

    #[test]
    fn glued_points_are_one() {
        let bottle = KleinBottle::new(3).unwrap();
        let (one, other) = (row(&bottle, &[0.4, 1.1]), row(&bottle, &[0.4 + PI, -1.1]));
        assert!(one.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-14));
        assert_eq!(bottle.width(), 24);
    }

    #[test]
    fn canonical_points_keep_their_place() {
        let bottle = KleinBottle::new(2).unwrap();
        for (theta, phi) in [(-1e-20, 0.7), (PI, 0.7), (-PI, 0.7), (7.0, -3.0), (-12.3, 40.0), (PI - 1e-16, 2.0)] {
            let at = canonical(theta, phi);
            assert!((0.0..PI).contains(&at[0]) && (0.0..TAU).contains(&at[1]));
            let (one, other) = (row(&bottle, &[theta, phi]), row(&bottle, &at));
            assert!(one.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-12), "{theta} {phi}");
        }
    }

    /// Scores of unit variance on an embedding, their parts turned and reflected by arbitrary amounts.
    fn seeded(embed: impl Fn(f64, f64) -> Vec<f64>) -> f64 {
        let points: Vec<[f64; 2]> =
            (0..900).map(|i| [PI * (f64::from(i) + 0.5) / 900.0, (TAU * 0.618_034 * f64::from(i)) % TAU]).collect();
        let mut rows: Vec<Vec<f64>> = points.iter().map(|t| embed(t[0], t[1])).collect();
        for c in 0..rows[0].len() {
            let rms = (rows.iter().map(|x| x[c] * x[c]).sum::<f64>() / rows.len() as f64).sqrt();
            rows.iter_mut().for_each(|x| x[c] /= rms);
        }
        let scores = Array2::from_shape_fn((rows.len(), rows[0].len()), |(i, c)| {
            let x = &rows[i];
            let turned = |a: f64, b: f64, by: f64| (by.cos() * a - by.sin() * b, by.sin() * a + by.cos() * b);
            match c {
                0 => turned(x[0], x[1], 0.9).0,
                1 => turned(x[0], x[1], 0.9).1,
                2 => turned(x[2], x[3], 2.1).0,
                3 => -turned(x[2], x[3], 2.1).1,
                _ => x[c],
            }
        });
        let found = KleinBottle::new(2).unwrap().seed_rows(&scores);
        // 2 theta, up to a turn and a reflection
        let along = |sign: f64| {
            let turns = points.iter().zip(found.rows()).map(|(t, f)| 2.0 * (f[0] - sign * t[0]));
            let (re, im) = turns.fold((0.0, 0.0), |(re, im), a| (re + a.cos(), im + a.sin()));
            re.hypot(im) / points.len() as f64
        };
        // cos^2 phi, which no symmetry changes
        let across = points.iter().zip(found.rows()).map(|(t, f)| (t[1].cos().powi(2) - f[1].cos().powi(2)).abs());
        let worst = across.sum::<f64>() / points.len() as f64;
        along(1.0).max(along(-1.0)) - worst
    }

    #[test]
    fn seeds_find_both_embeddings() {
        let tube = |theta: f64, phi: f64| {
            let (out, up) = (1.0 + 0.4 * phi.cos(), 0.4 * phi.sin());
            vec![out * (2.0 * theta).cos(), out * (2.0 * theta).sin(), up * theta.cos(), up * theta.sin()]
        };
        let forms = |theta: f64, phi: f64| {
            let (s, c) = phi.sin_cos();
            vec![s * theta.cos(), s * theta.sin(), c, c * (2.0 * theta).cos(), c * (2.0 * theta).sin()]
        };
        assert!(seeded(tube) > 0.9, "{}", seeded(tube));
        assert!(seeded(forms) > 0.98, "{}", seeded(forms));
    }

    #[test]
    fn impossible_fields_are_refused() {
        assert!(KleinBottle::new(1).is_err() && KleinBottle::new(500).is_err());
    }
}
