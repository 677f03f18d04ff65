//! The Moebius band: a cylinder whose points are glued in pairs, with a flip.

use super::klein_bottle::{aligned, half_turned};
use super::products::Products;
use super::series::Series;
use super::{each_seed, grid, standardised, Atom, BasisJet, ChartFactor};
use crate::errors::ShapeError;
use ndarray::{s, Array1, Array2};
use std::f64::consts::{PI, SQRT_2, TAU};

/// Surfaces with the columns of a cylinder that do not tell `(theta, w)` from `(theta + pi, -w)`, theta slowest: even
/// harmonics of theta go with even powers of w, odd ones with odd powers.
///
/// The band has half the area of the cylinder, so theta counts up to pi.
#[derive(Clone, Debug, PartialEq)]
pub struct Mobius {
    harmonics: usize,
    degree: usize,
    products: Products,
}

impl Mobius {
    pub fn new(harmonics: usize, degree: usize) -> Result<Self, ShapeError> {
        if harmonics < 2 || degree == 0 {
            // with one harmonic the middle of the band, w = 0, is a point
            return Err(ShapeError::value(format!(
                "a Moebius band needs at least 2 harmonics and a degree of at least 1, got {harmonics} and {degree}"
            )));
        }
        let (angle, width) = (Series::Harmonics(harmonics), Series::Powers(degree));
        let keep = |i: usize, j: usize| angle.order(i) % 2 == width.order(j) % 2;
        Ok(Self { harmonics, degree, products: Products::of_two([angle, width], keep)? })
    }
}

/// The pair that stands for a point: theta in [0, pi).
fn canonical(theta: f64, w: f64) -> [f64; 2] {
    let (theta, flipped) = half_turned(theta);
    [theta, if flipped { -w } else { w }]
}

impl Atom for Mobius {
    fn kind(&self) -> &'static str {
        "mobius"
    }
    fn key(&self) -> String {
        format!("mobius:{}:{}", self.harmonics, self.degree)
    }
    fn width(&self) -> usize {
        self.products.width()
    }
    fn factors(&self) -> &[ChartFactor] {
        &[ChartFactor::Circle { period: PI }, ChartFactor::Line]
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
    /// Mean squared second derivatives in each coordinate, over the circle and the standard normal distribution.
    fn roughness(&self) -> Array2<f64> {
        self.products.own_bending()
    }
    /// The constant: the width itself is no function on the band.
    fn null_projector(&self) -> Array2<f64> {
        self.products.projector(|orders| orders == [0, 0])
    }
    fn advance(&self, t: &mut [f64], step: &[f64]) {
        t.copy_from_slice(&canonical(t[0] + step[0], t[1] + step[1]));
    }
    /// Rotation of theta; the prior of the width pins its scale.
    fn generators(&self) -> Vec<Array2<f64>> {
        vec![self.products.shift(0)]
    }
    fn velocity(&self, _: usize, _: &[f64], v: &mut [f64], dv: &mut [f64]) {
        v.copy_from_slice(&[1.0, 0.0]);
        dv.fill(0.0);
    }
    /// A decoder comes back after a whole turn; half a turn is the reflection of the width.
    fn ln_group_volume(&self) -> f64 {
        TAU.ln()
    }
    fn degrees(&self) -> Option<Vec<u32>> {
        Some(self.products.degrees())
    }
    /// The reflection of theta; with precisions, which fix its origin, that of the width is no rotation any more.
    fn ln_symmetries(&self, gauged: bool) -> f64 {
        (if gauged { 2.0f64 } else { 4.0 }).ln()
    }
    fn seed_components(&self) -> usize {
        4
    }
    /// A strip in four dimensions, or the twisted strip of paper in three.
    fn seed_blocks(&self) -> Vec<Vec<usize>> {
        vec![vec![2, 2], vec![2, 1]]
    }
    /// On the strip `((cos, sin) 2 theta, w (cos, sin) theta)`.
    fn seed(&self, scores: &[f64], t: &mut [f64]) {
        let theta = 0.5 * scores[1].atan2(scores[0]);
        let (sin, cos) = theta.sin_cos();
        // scores have unit variance: the second pair's mean square length, that of w, is 2
        t.copy_from_slice(&canonical(theta, (cos * scores[2] + sin * scores[3]) / SQRT_2));
    }
    fn seed_rows(&self, scores: &Array2<f64>) -> Array2<f64> {
        match scores.ncols() {
            4 => each_seed(self, &aligned(scores)),
            _ => each_seed(self, &aligned(&unrolled(scores))),
        }
    }
    fn search_grid(&self) -> Array2<f64> {
        grid::product(&[grid::angles(self.harmonics, PI), grid::reals(self.degree, 1)])
    }
    fn origin(&self, t: &mut [f64]) {
        t.fill(0.0);
    }
}

/// Scores on the strip in four dimensions from those on a twisted strip of paper, `((R + w cos theta) (cos, sin) 2 theta,
/// w sin theta)`: the distance from the axis and the height make the second pair.
fn unrolled(scores: &Array2<f64>) -> Array2<f64> {
    let distance: Array1<f64> = scores.rows().into_iter().map(|x| x[0].hypot(x[1])).collect();
    let mut out = Array2::zeros((scores.nrows(), 4));
    out.slice_mut(s![.., ..2]).assign(&scores.slice(s![.., ..2]));
    out.column_mut(2).assign(&standardised(distance.view()));
    out.column_mut(3).assign(&standardised(scores.column(2)));
    out
}

#[cfg(test)]
mod tests {
    use super::super::laws::{nodes, obeys, Axis};
    use super::*;

    fn row(band: &Mobius, t: &[f64]) -> Vec<f64> {
        let mut phi = vec![0.0; band.width()];
        band.basis(t, &mut phi);
        phi
    }

    #[test]
    fn obeys_the_laws_of_atoms() {
        for (harmonics, degree) in [(2, 1), (3, 2), (2, 3)] {
            let band = Mobius::new(harmonics, degree).unwrap();
            let m = band.width();
            let own = |d2: &[f64]| vec![d2[..m].to_vec(), d2[3 * m..].to_vec()];
            obeys(&band, &nodes(&[Axis::Angle(TAU), Axis::Normal]), &own);
        }
    }

    #[test]
    fn glued_points_are_one() {
        let band = Mobius::new(3, 2).unwrap();
        let (one, other) = (row(&band, &[0.4, 1.1]), row(&band, &[0.4 + PI, -1.1]));
        assert!(one.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-14));
        // 1, cos 2 theta, sin 2 theta by 1, w^2 and four odd harmonics by w
        assert_eq!(band.width(), 10);
    }

    #[test]
    fn canonical_points_keep_their_place() {
        let band = Mobius::new(3, 2).unwrap();
        for (theta, w) in [(-1e-20, 0.7), (PI, 0.7), (-PI, 0.7), (7.0, -3.0), (-12.3, 4.0), (PI - 1e-16, 2.0)] {
            let at = canonical(theta, w);
            assert!((0.0..PI).contains(&at[0]));
            let (one, other) = (row(&band, &[theta, w]), row(&band, &at));
            assert!(one.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-12 * (1.0 + a.abs())), "{theta} {w}");
        }
    }

    /// How well the coordinates of whitened rows on an embedding are found, the first part turned and the last reflected.
    fn seeded(embed: impl Fn(f64, f64) -> Vec<f64>) -> f64 {
        let points: Vec<[f64; 2]> = (0..900)
            .map(|i| [PI * (f64::from(i) + 0.5) / 900.0, 2.0 * (0.618_034 * f64::from(i)).fract() - 1.0])
            .collect();
        let rows: Vec<Vec<f64>> = points.iter().map(|t| embed(t[0], t[1])).collect();
        let mut scores = Array2::from_shape_fn((rows.len(), rows[0].len()), |(i, c)| rows[i][c]);
        for mut column in scores.columns_mut() {
            let unit = standardised(column.view());
            column.assign(&unit);
        }
        let (sin, cos) = 0.9f64.sin_cos();
        for mut x in scores.rows_mut() {
            (x[0], x[1]) = (cos * x[0] - sin * x[1], sin * x[0] + cos * x[1]);
            let last = x.len() - 1;
            x[last] *= -1.0;
        }
        let found = Mobius::new(3, 2).unwrap().seed_rows(&scores);
        // 2 theta, up to a turn and a reflection
        let along = |sign: f64| {
            let turns = points.iter().zip(found.rows()).map(|(t, f)| 2.0 * (f[0] - sign * t[0]));
            let (re, im) = turns.fold((0.0, 0.0), |(re, im), a| (re + a.cos(), im + a.sin()));
            re.hypot(im) / points.len() as f64
        };
        // |w| in units of its deviation, which no symmetry changes
        let deviation = (1.0f64 / 3.0).sqrt();
        let across = points.iter().zip(found.rows()).map(|(t, f)| (t[1].abs() / deviation - f[1].abs()).abs());
        along(1.0).max(along(-1.0)) - across.sum::<f64>() / points.len() as f64
    }

    #[test]
    fn seeds_find_both_embeddings() {
        let strip =
            |theta: f64, w: f64| vec![(2.0 * theta).cos(), (2.0 * theta).sin(), w * theta.cos(), w * theta.sin()];
        let paper = |theta: f64, w: f64| {
            let out = 1.0 + 0.3 * w * theta.cos();
            vec![out * (2.0 * theta).cos(), out * (2.0 * theta).sin(), w * theta.sin()]
        };
        assert!(seeded(strip) > 0.99, "{}", seeded(strip));
        assert!(seeded(paper) > 0.9, "{}", seeded(paper));
    }

    #[test]
    fn impossible_fields_are_refused() {
        assert!(Mobius::new(1, 1).is_err() && Mobius::new(2, 0).is_err() && Mobius::new(4000, 5).is_err());
    }
}
