//! Real spherical harmonics as polynomials of a unit vector: what charts on the sphere share.
//!
//! With w = x + iy and P_l^(m) the m-th derivative of the Legendre polynomial, the columns of degree l are
//! `Y_lm = N_lm P_l^(|m|)(z) { Re w^m, m >= 0; Im w^|m|, m < 0 }`, m = -l..l. They are polynomials, so nothing happens at a pole,
//! and their mean square over the sphere is one.

use super::BasisJet;
use ndarray::{Array1, Array2};
use std::f64::consts::PI;

/// Above this a dictionary has a thousand columns an atom, more than any data support.
pub const MAX_DEGREE: usize = 32;

/// Grid points per squared degree in a search: as dense as the circle's.
const GRID_PER_SQUARED_DEGREE: usize = 48;

/// Harmonics of some degrees, in increasing order.
#[derive(Clone, Debug, PartialEq)]
pub struct Harmonics {
    columns: Vec<Column>,
    degree: usize,
}

/// One harmonic.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Column {
    degree: usize,
    /// |m|.
    order: usize,
    /// Re w^m or Im w^m.
    imaginary: bool,
    norm: f64,
}

/// What all harmonics at one point are made of.
struct Tables {
    /// `legendre[l][m]` is P_l^(m)(z), zero for m > l.
    legendre: Vec<Vec<f64>>,
    /// w^k as (Re, Im).
    powers: Vec<(f64, f64)>,
}

impl Tables {
    fn new(degree: usize, t: &[f64]) -> Self {
        let z = t[2];
        // three orders more than the degree: derivatives in z raise the order
        let mut legendre = vec![vec![0.0; degree + 4]; degree + 1];
        let mut diagonal = 1.0;
        for m in 0..=degree {
            legendre[m][m] = diagonal;
            diagonal *= (2 * m + 1) as f64;
            for l in m + 1..=degree {
                let before = if l >= m + 2 { legendre[l - 2][m] } else { 0.0 };
                let sum = (2 * l - 1) as f64 * z * legendre[l - 1][m] - (l + m - 1) as f64 * before;
                legendre[l][m] = sum / (l - m) as f64;
            }
        }
        let next = |&(re, im): &(f64, f64)| Some((re * t[0] - im * t[1], re * t[1] + im * t[0]));
        let powers = std::iter::successors(Some((1.0, 0.0)), next).take(degree + 1).collect();
        Self { legendre, powers }
    }

    /// A harmonic's polynomial differentiated once in each of the listed axes of space.
    fn derivative(&self, column: &Column, axes: &[usize]) -> f64 {
        let count = |axis: usize| axes.iter().filter(|&&a| a == axis).count();
        let (along_y, in_plane) = (count(1), count(0) + count(1));
        if in_plane > column.order {
            return 0.0;
        }
        let falling: f64 = (column.order - in_plane + 1..=column.order).map(|k| k as f64).product();
        let (re, im) = self.powers[column.order - in_plane];
        // d/dx w^m = m w^(m-1) and d/dy w^m = i m w^(m-1)
        let (re, im) = match along_y {
            0 => (re, im),
            1 => (-im, re),
            2 => (-re, -im),
            _ => (im, -re),
        };
        let part = if column.imaginary { im } else { re };
        column.norm * falling * self.legendre[column.degree][column.order + count(2)] * part
    }
}

/// Orthonormal tangents at a unit vector, after Duff et al. (2017): exact at both poles, right-handed with t.
pub(super) fn frame(t: &[f64]) -> [[f64; 3]; 2] {
    let (x, y, z) = (t[0], t[1], t[2]);
    let s = if z >= 0.0 { 1.0 } else { -1.0 };
    let a = -1.0 / (s + z);
    let b = x * y * a;
    [[1.0 + s * x * x * a, s * b, -s * x], [b, s + y * y * a, -y]]
}

/// The geodesic from a unit vector with tangent coordinates u, followed for unit time.
pub(super) fn exponential(t: &mut [f64], u: &[f64]) {
    let e = frame(t);
    let length = u[0].hypot(u[1]);
    let (sin, cos) = length.sin_cos();
    let along = if length > 0.0 { sin / length } else { 1.0 };
    for i in 0..3 {
        t[i] = cos * t[i] + along * (u[0] * e[0][i] + u[1] * e[1][i]);
    }
    let norm = t.iter().map(|v| v * v).sum::<f64>().sqrt();
    t.iter_mut().for_each(|v| *v /= norm);
}

/// Unit vectors at even distances, `n` of them: a Fibonacci lattice of the sphere, or of the half of it with z > 0.
pub(super) fn lattice(n: usize, half: bool) -> Array2<f64> {
    let turn = PI * (3.0 - 5f64.sqrt());
    let height = if half { 1.0 } else { 2.0 };
    let mut out = Array2::zeros((n, 3));
    for (i, mut row) in out.rows_mut().into_iter().enumerate() {
        let z = 1.0 - height * (i as f64 + 0.5) / n as f64;
        let (sin, cos) = (turn * i as f64).sin_cos();
        let radius = (1.0 - z * z).sqrt();
        (row[0], row[1], row[2]) = (radius * cos, radius * sin, z);
    }
    out
}

/// Velocity of the rotation about one axis of space in the frame at t, and its covariant derivative (2 x 2).
pub(super) fn rotation_velocity(axis: usize, t: &[f64], v: &mut [f64], dv: &mut [f64]) {
    let [first, second] = frame(t);
    // E_1 . (e x t) = e . E_2 and E_2 . (e x t) = -e . E_1, the frame being right-handed
    (v[0], v[1]) = (second[axis], -first[axis]);
    // E_a . (e x E_b) = -(e . t) eps_ab
    (dv[0], dv[1], dv[2], dv[3]) = (0.0, -t[axis], t[axis], 0.0);
}

impl Harmonics {
    /// Degrees 0, step, 2 step, ... up to `degree`.
    pub fn new(degree: usize, step: usize) -> Self {
        let column = |l: usize, m: i64| {
            let order = m.unsigned_abs() as usize;
            let ratio: f64 = (l - order + 1..=l + order).map(|k| k as f64).product();
            let twice = if m == 0 { 1.0 } else { 2.0 };
            Column { degree: l, order, imaginary: m < 0, norm: ((2 * l + 1) as f64 * twice / ratio).sqrt() }
        };
        let of_degree = |l: usize| (-(l as i64)..=l as i64).map(move |m| column(l, m));
        Self { columns: (0..=degree).step_by(step).flat_map(of_degree).collect(), degree }
    }

    pub fn width(&self) -> usize {
        self.columns.len()
    }

    pub fn degree(&self) -> usize {
        self.degree
    }

    pub fn basis(&self, t: &[f64], phi: &mut [f64]) {
        let tables = Tables::new(self.degree, t);
        phi.iter_mut().zip(&self.columns).for_each(|(o, column)| *o = tables.derivative(column, &[]));
    }

    /// In the exponential chart, with F_a = E_a . grad F and so on: first derivatives F_a, second
    /// `F_ab - delta_ab (t . grad F)`.
    pub fn jet(&self, t: &[f64], out: &mut BasisJet) {
        let tables = Tables::new(self.degree, t);
        let (e, m) = (frame(t), self.width());
        for (at, column) in self.columns.iter().enumerate() {
            let gradient = self::gradient(&tables, column);
            let hessian = self::hessian(&tables, column);
            let radial = dot(&gradient, t);
            out.phi[at] = tables.derivative(column, &[]);
            for a in 0..2 {
                out.d1[a * m + at] = dot(&gradient, &e[a]);
                let through = times(&hessian, &e[a]);
                for b in 0..2 {
                    let bend = if a == b { radial } else { 0.0 };
                    out.d2[(2 * a + b) * m + at] = dot(&through, &e[b]) - bend;
                }
            }
        }
    }

    /// Third derivatives `F_abc - [delta_ab F_tc + cyc] - 1/3 [delta_ab F_c + cyc]`.
    pub fn third(&self, t: &[f64], d3: &mut [f64]) {
        let tables = Tables::new(self.degree, t);
        let (e, m) = (frame(t), self.width());
        for (at, column) in self.columns.iter().enumerate() {
            let gradient = self::gradient(&tables, column);
            let radial = times(&self::hessian(&tables, column), t);
            // what a pair of equal axes leaves for the third
            let rest: Vec<f64> = e.iter().map(|e| dot(&radial, e) + dot(&gradient, e) / 3.0).collect();
            for (index, out) in d3.iter_mut().skip(at).step_by(m).enumerate() {
                let [a, b, c] = [index / 4, index / 2 % 2, index % 2];
                let mut value = 0.0;
                for (i, j, k) in triples() {
                    value += tables.derivative(column, &[i, j, k]) * e[a][i] * e[b][j] * e[c][k];
                }
                for (pair, third) in [((a, b), c), ((b, c), a), ((c, a), b)] {
                    value -= if pair.0 == pair.1 { rest[third] } else { 0.0 };
                }
                *out = value;
            }
        }
    }

    /// Mean squared Laplacian over the sphere: (l (l + 1))^2.
    pub fn roughness(&self) -> Array2<f64> {
        let value = |column: &Column| ((column.degree * (column.degree + 1)) as f64).powi(2);
        Array2::from_diag(&self.columns.iter().map(value).collect::<Array1<f64>>())
    }

    /// Projector on the constant.
    pub fn null_projector(&self) -> Array2<f64> {
        let mut n = Array2::zeros((self.width(), self.width()));
        n[[0, 0]] = 1.0;
        n
    }

    /// Actions of the rotations about x, y and z.
    ///
    /// With f_m = P^(m)(z) w^m, m >= 0, on the sphere: the rotation about z turns f_m into i m f_m; of the others, D_x and D_y,
    /// `D_y - i D_x` turns f_m into -f_(m+1), and `D_y + i D_x` into (l + m)(l - m + 1) f_(m-1) (Legendre's equation).
    pub fn rotations(&self) -> Vec<Array2<f64>> {
        let mut maps = vec![Array2::zeros((self.width(), self.width())); 3];
        for (at, column) in self.columns.iter().enumerate() {
            let (l, m) = (column.degree, column.order);
            let mut add = |axis: usize, order: usize, imaginary: bool, value: f64| {
                let image = |c: &Column| (c.degree, c.order, c.imaginary) == (l, order, imaginary);
                // Im w^0 and orders above the degree are zero
                if let Some(row) = self.columns.iter().position(image) {
                    maps[axis][[row, at]] += value * column.norm / self.columns[row].norm;
                }
            };
            let sign = if column.imaginary { 1.0 } else { -1.0 };
            if m == 0 {
                add(0, 1, true, 1.0);
                add(1, 1, false, -1.0);
                continue;
            }
            let down = ((l + m) * (l - m + 1)) as f64;
            add(2, m, !column.imaginary, sign * m as f64);
            add(0, m - 1, !column.imaginary, -sign * 0.5 * down);
            add(0, m + 1, !column.imaginary, -sign * 0.5);
            add(1, m - 1, column.imaginary, 0.5 * down);
            add(1, m + 1, column.imaginary, -0.5);
        }
        maps
    }

    /// Points of a search, on the half of the sphere with z > 0 alone when antipodes are one.
    pub fn grid(&self, half: bool) -> Array2<f64> {
        let points = GRID_PER_SQUARED_DEGREE * self.degree.max(2).pow(2);
        lattice(if half { points / 2 } else { points }, half)
    }
}

fn gradient(tables: &Tables, column: &Column) -> [f64; 3] {
    [0, 1, 2].map(|i| tables.derivative(column, &[i]))
}

fn hessian(tables: &Tables, column: &Column) -> [[f64; 3]; 3] {
    [0, 1, 2].map(|i| [0, 1, 2].map(|j| tables.derivative(column, &[i, j])))
}

fn times(matrix: &[[f64; 3]; 3], x: &[f64]) -> [f64; 3] {
    [0, 1, 2].map(|i| dot(&matrix[i], x))
}

fn dot(a: &[f64; 3], b: &[f64]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn triples() -> impl Iterator<Item = (usize, usize, usize)> {
    (0..27).map(|i| (i / 9, i / 3 % 3, i % 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_orthonormal_in_the_mean() {
        let harmonics = Harmonics::new(4, 1);
        let m = harmonics.width();
        let nodes = 200_000;
        let mut gram = Array2::<f64>::zeros((m, m));
        let mut phi = vec![0.0; m];
        for t in lattice(nodes, false).rows() {
            harmonics.basis(t.as_slice().unwrap(), &mut phi);
            for a in 0..m {
                for b in 0..m {
                    gram[[a, b]] += phi[a] * phi[b] / nodes as f64;
                }
            }
        }
        assert!(gram.indexed_iter().all(|((a, b), g)| (g - f64::from(u8::from(a == b))).abs() < 1e-6));
    }

    #[test]
    fn the_first_degree_is_the_vector_itself() {
        let mut phi = [0.0; 4];
        Harmonics::new(1, 1).basis(&[0.6, 0.0, 0.8], &mut phi);
        let expected = [1.0, 0.0, 0.8 * 3f64.sqrt(), 0.6 * 3f64.sqrt()];
        assert!(phi.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15));
    }

    #[test]
    fn the_addition_theorem_holds_at_the_largest_degree() {
        // sum_m Y_lm(t)^2 = 2l + 1 everywhere, poles and equator included
        let harmonics = Harmonics::new(MAX_DEGREE, 1);
        let mut phi = vec![0.0; harmonics.width()];
        for t in [[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.48, 0.6, 0.64], [0.6, -0.8, 0.0]] {
            harmonics.basis(&t, &mut phi);
            for l in 0..=MAX_DEGREE {
                let sum: f64 = phi[l * l..(l + 1) * (l + 1)].iter().map(|v| v * v).sum();
                assert!((sum / (2 * l + 1) as f64 - 1.0).abs() < 1e-11, "{l} {t:?} {sum}");
            }
        }
    }

    #[test]
    fn frames_are_orthonormal_everywhere() {
        for t in lattice(500, false).rows().into_iter().map(|t| t.to_vec()).chain([
            vec![0.0, 0.0, 1.0],
            vec![0.0, 0.0, -1.0],
            vec![1.0, 0.0, -0.0],
            vec![0.0, -1.0, 0.0],
        ]) {
            let [a, b] = frame(&t);
            let cross = [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
            assert!(
                (dot(&a, &a) - 1.0).abs() < 1e-14 && (dot(&b, &b) - 1.0).abs() < 1e-14 && dot(&a, &b).abs() < 1e-14
            );
            assert!(cross.iter().zip(&t).all(|(c, t)| (c - t).abs() < 1e-14), "{t:?}");
        }
    }
}
