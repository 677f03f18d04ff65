//! Quadrature by Lanczos' recurrence: `z' ln(M) z` and its derivative in M.
//!
//! In an orthonormal basis V of a Krylov space, `V'MV = T = W mu W'` and `z' ln(M) z = |z|^2 e_1' ln(T) e_1`, which converges as
//! fast as Gauss' quadrature (Ubaru, Chen, Saad, SIAM Journal on Matrix Analysis 38, 2017). The derivative of the quadratic form
//! is `tr(V F V' dM)` with F the divided differences of the logarithm (Daleckii-Krein):
//! `F = |z|^2 W [w_1a w_1b (ln mu_a - ln mu_b)/(mu_a - mu_b)] W'`, positive definite and of low numerical rank.

use crate::linalg::{axpy, dot, symmetric_eigen};
use ndarray::Array2;
use rayon::prelude::*;

/// Relative change of the quadratic form over some steps that is rounding.
const CONVERGED: f64 = 1e-13;
/// Steps between two looks.
const LOOK: usize = 2;
/// Entries of a vector that are orthogonalised at a time: few enough to stay in the cache while the basis goes by.
const PIECE: usize = 1 << 15;
/// Eigenvalues of F below this part of the largest are rounding.
const RANK: f64 = 1e-13;

/// One start vector's recurrence.
pub(super) struct Run {
    length: f64,
    /// What the quadratic form may be off by.
    unseen: f64,
    basis: Vec<Vec<f64>>,
    alpha: Vec<f64>,
    beta: Vec<f64>,
    last: f64,
    pub(super) done: bool,
}

/// What a finished recurrence says.
pub(super) struct Quadrature {
    /// `z' ln(M) z`.
    pub(super) value: f64,
    /// Its derivative in M, as a sum of `weight y y'`.
    pub(super) derivative: Vec<(f64, Vec<f64>)>,
}

impl Run {
    /// Of `z' ln(M) z` to within `unseen`, or to rounding.
    pub(super) fn new(z: Vec<f64>, unseen: f64) -> Self {
        let length = dot(&z, &z).sqrt();
        let basis = vec![z.iter().map(|v| v / length).collect()];
        Self { length, unseen, basis, alpha: Vec::new(), beta: Vec::new(), last: f64::NAN, done: false }
    }

    /// The vector whose product with M comes next.
    pub(super) fn next(&self) -> &[f64] {
        self.basis.last().expect("a first vector")
    }

    pub(super) fn steps(&self) -> usize {
        self.alpha.len()
    }

    /// Takes that product. `None` when M is seen not to be positive definite.
    pub(super) fn step(&mut self, mut product: Vec<f64>) -> Option<()> {
        self.alpha.push(dot(self.next(), &product));
        // twice: orthogonal to rounding
        for _ in 0..2 {
            take_projection(&self.basis, &mut product);
        }
        let beta = dot(&product, &product).sqrt();
        let scale = self.alpha.iter().fold(0.0f64, |m, a| m.max(a.abs()));
        let exhausted = beta <= f64::EPSILON * scale * (product.len() as f64).sqrt() || self.steps() == product.len();
        if exhausted || self.steps() % LOOK == 0 {
            let (values, vectors) = self.spectrum();
            if values[0] <= 0.0 {
                return None;
            }
            let value: f64 = values.iter().enumerate().map(|(a, mu)| vectors[[0, a]].powi(2) * mu.ln()).sum();
            let moments: f64 = values.iter().enumerate().map(|(a, mu)| vectors[[0, a]].powi(2) * mu.ln().abs()).sum();
            let small = (CONVERGED * moments).max(self.unseen / (self.length * self.length));
            self.done = exhausted || (value - self.last).abs() <= small;
            self.last = value;
        }
        if !self.done {
            product.iter_mut().for_each(|v| *v /= beta);
            self.basis.push(product);
            self.beta.push(beta);
        }
        Some(())
    }

    fn spectrum(&self) -> (ndarray::Array1<f64>, Array2<f64>) {
        let n = self.steps();
        let mut t = Array2::zeros((n, n));
        for i in 0..n {
            t[[i, i]] = self.alpha[i];
            if i + 1 < n {
                t[[i, i + 1]] = self.beta[i];
                t[[i + 1, i]] = self.beta[i];
            }
        }
        symmetric_eigen(t.view())
    }

    pub(super) fn finish(self) -> Quadrature {
        let (values, w) = self.spectrum();
        let n = values.len();
        let square = self.length * self.length;
        let value = square * (0..n).map(|a| w[[0, a]].powi(2) * values[a].ln()).sum::<f64>();
        let inner = Array2::from_shape_fn((n, n), |(a, b)| {
            w[[0, a]] * w[[0, b]] * logarithmic_difference(values[a], values[b])
        });
        let (weights, directions) = symmetric_eigen(inner.view());
        let largest = weights.iter().fold(0.0f64, |m, v| m.max(*v));
        // a term's weight is what it moves by when all of M grows by one part: less is not seen
        let least = (RANK * largest).max(self.unseen / square);
        let in_basis = w.dot(&directions);
        let derivative = (0..n).into_par_iter().filter(|&j| weights[j] > least).map(|j| {
            let mut y = vec![0.0; self.basis[0].len()];
            self.basis.iter().take(n).enumerate().for_each(|(i, own)| axpy(in_basis[[i, j]], own, &mut y));
            (square * weights[j], y)
        });
        Quadrature { value, derivative: derivative.collect() }
    }
}

/// `x -= V V'x` for an orthonormal basis V. The pieces of x are the same on any number of threads, and so are their sums.
fn take_projection(basis: &[Vec<f64>], x: &mut [f64]) {
    let of_piece = |(piece, x): (usize, &[f64])| -> Vec<f64> {
        basis.iter().map(|own| dot(&own[piece * PIECE..][..x.len()], x)).collect()
    };
    let parts: Vec<Vec<f64>> = x.par_chunks(PIECE).enumerate().map(of_piece).collect();
    let seen: Vec<f64> = (0..basis.len()).map(|j| parts.iter().map(|part| part[j]).sum()).collect();
    x.par_chunks_mut(PIECE).enumerate().for_each(|(piece, x)| {
        basis.iter().zip(&seen).for_each(|(own, c)| axpy(-c, &own[piece * PIECE..][..x.len()], x));
    });
}

/// `(ln a - ln b)/(a - b)`, and 1/a where they meet.
fn logarithmic_difference(a: f64, b: f64) -> f64 {
    let x = (a - b) / b;
    if x == 0.0 {
        1.0 / b
    } else {
        x.ln_1p() / (a - b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(n: usize, shift: f64) -> Array2<f64> {
        let a = Array2::from_shape_fn((n, n), |(i, j)| ((3 * i + 7 * j) as f64 * 0.37 + shift).sin());
        a.dot(&a.t()) / n as f64 + Array2::<f64>::eye(n)
    }

    fn quadrature(m: &Array2<f64>, z: &[f64]) -> Quadrature {
        quadrature_to(m, z, 0.0).0
    }

    /// The quadrature to within so much, and how many steps it took.
    fn quadrature_to(m: &Array2<f64>, z: &[f64], unseen: f64) -> (Quadrature, usize) {
        let mut run = Run::new(z.to_vec(), unseen);
        while !run.done {
            let next = ndarray::ArrayView1::from(run.next());
            let product = m.dot(&next).to_vec();
            run.step(product).unwrap();
        }
        let steps = run.steps();
        (run.finish(), steps)
    }

    #[test]
    fn the_form_and_its_derivative_are_those_of_the_logarithm() {
        let n = 12;
        let z: Vec<f64> = (0..n).map(|i| if i % 3 == 0 { 1.0 } else { -1.0 }).collect();
        let m = matrix(n, 0.0);
        let found = quadrature(&m, &z);
        let (values, vectors) = symmetric_eigen(m.view());
        let seen = vectors.t().dot(&ndarray::ArrayView1::from(&z));
        let expected: f64 = seen.iter().zip(&values).map(|(c, v)| c * c * v.ln()).sum();
        assert!((found.value - expected).abs() < 1e-11 * expected.abs());
        let e = 1e-4;
        let (low, high) = (matrix(n, -e), matrix(n, e));
        let slope = (quadrature(&high, &z).value - quadrature(&low, &z).value) / (2.0 * e);
        let motion = (high - low) / (2.0 * e);
        let along = |y: &[f64]| ndarray::ArrayView1::from(y).dot(&motion.dot(&ndarray::ArrayView1::from(y)));
        let by_derivative: f64 = found.derivative.iter().map(|(weight, y)| weight * along(y)).sum();
        assert!((slope - by_derivative).abs() < 1e-6 * by_derivative.abs(), "{slope} {by_derivative}");
    }

    #[test]
    fn a_recurrence_ends_where_nobody_looks() {
        let n = 60;
        let z: Vec<f64> = (0..n).map(|i| if i % 7 < 3 { 1.0 } else { -1.0 }).collect();
        let m = matrix(n, 0.0) * Array2::from_shape_fn((n, n), |(i, j)| 1.0 + ((i * j) as f64).cos().abs() / 9.0);
        let m = (&m + &m.t()) * 0.5 + Array2::from_diag(&ndarray::Array1::from_shape_fn(n, |i| 0.3 * i as f64));
        let (all, most) = quadrature_to(&m, &z, 0.0);
        let mut before = most;
        for unseen in [1e-8, 1e-5, 1e-2] {
            let (found, steps) = quadrature_to(&m, &z, unseen);
            assert!(steps < before, "{unseen}: {steps} {before}");
            before = steps;
            assert!((found.value - all.value).abs() <= unseen);
            assert!(found.derivative.len() < all.derivative.len());
            assert!(found.derivative.iter().all(|(weight, _)| *weight > unseen));
        }
    }

    #[test]
    fn projections_are_taken_in_all_pieces() {
        let n = 2 * PIECE + 17;
        let wave = |k: usize| -> Vec<f64> { (0..n).map(|i| ((k + 1) as f64 * 0.71 * i as f64).sin()).collect() };
        let mut basis: Vec<Vec<f64>> = Vec::new();
        for k in 0..3 {
            let mut next = wave(k);
            (0..2).for_each(|_| take_projection(&basis, &mut next));
            let length = next.iter().map(|v| v * v).sum::<f64>().sqrt();
            basis.push(next.iter().map(|v| v / length).collect());
        }
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        for (i, j) in (0..3).flat_map(|i| (0..3).map(move |j| (i, j))) {
            let expected = f64::from(u8::from(i == j));
            assert!((product(&basis[i], &basis[j]) - expected).abs() < 1e-13);
        }
        let mut left: Vec<f64> = (0..n).map(|i| basis[0][i] - 2.0 * basis[2][i]).collect();
        take_projection(&basis, &mut left);
        assert!(left.iter().all(|v| v.abs() < 1e-13));
    }

    #[test]
    fn an_indefinite_matrix_is_seen() {
        let mut m = Array2::<f64>::eye(6);
        m[[2, 2]] = -1.0;
        let mut run = Run::new(vec![1.0; 6], 0.0);
        let product = m.dot(&ndarray::ArrayView1::from(run.next())).to_vec();
        run.step(product).unwrap();
        let product = m.dot(&ndarray::ArrayView1::from(run.next())).to_vec();
        assert!(run.step(product).is_none());
    }
}
