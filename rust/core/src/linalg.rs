//! The few dense kernels the crate needs, as thin calls to faer.
//!
//! Every kernel is sequential: parallelism lives one level up, over rows, where the order of
//! summation is fixed. That is what makes results independent of the number of threads.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt;
use faer::linalg::evd;
use faer::linalg::matmul::matmul;
use faer::linalg::triangular_inverse;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2};

/// Whether an operand enters a product as stored or transposed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Plain,
    Transposed,
}

fn operand<'a>(view: &'a ArrayView2<'_, f64>, op: Op) -> MatRef<'a, f64> {
    let slice = view.as_slice().expect("operands of a product are contiguous");
    let mat = MatRef::from_row_major_slice(slice, view.nrows(), view.ncols());
    match op {
        Op::Plain => mat,
        Op::Transposed => mat.transpose(),
    }
}

/// `out = alpha * op(a) * op(b)`, or `out += ...` when `accumulate` holds.
pub fn gemm(
    out: &mut ArrayViewMut2<'_, f64>,
    accumulate: bool,
    alpha: f64,
    a: (ArrayView2<'_, f64>, Op),
    b: (ArrayView2<'_, f64>, Op),
) {
    if out.is_empty() {
        return;
    }
    let (rows, cols) = out.dim();
    let dst = MatMut::from_row_major_slice_mut(out.as_slice_mut().expect("a product is contiguous"), rows, cols);
    let accum = if accumulate { Accum::Add } else { Accum::Replace };
    matmul(dst, accum, operand(&a.0, a.1), operand(&b.0, b.1), alpha, Par::Seq);
}

/// `op(a) * op(b)` as a new array.
pub fn product(a: (ArrayView2<'_, f64>, Op), b: (ArrayView2<'_, f64>, Op)) -> Array2<f64> {
    let rows = if a.1 == Op::Plain { a.0.nrows() } else { a.0.ncols() };
    let cols = if b.1 == Op::Plain { b.0.ncols() } else { b.0.nrows() };
    let mut out = Array2::zeros((rows, cols));
    gemm(&mut out.view_mut(), false, 1.0, a, b);
    out
}

/// The Cholesky factor of a symmetric positive definite matrix.
#[derive(Clone, Debug)]
pub struct Cholesky {
    lower: Mat<f64>,
}

impl Cholesky {
    /// Factors `a` (its lower triangle is read); `None` when it is not positive definite.
    pub fn new(a: ArrayView2<'_, f64>) -> Option<Self> {
        let n = a.nrows();
        let mut lower = Mat::from_fn(n, n, |i, j| if i >= j { a[[i, j]] } else { 0.0 });
        let req = llt::factor::cholesky_in_place_scratch::<f64>(n, Par::Seq, Default::default());
        let mut buffer = MemBuffer::new(req);
        llt::factor::cholesky_in_place(
            lower.as_mut(),
            Default::default(),
            Par::Seq,
            MemStack::new(&mut buffer),
            Default::default(),
        )
        .ok()?;
        (0..n).all(|i| lower[(i, i)].is_finite()).then_some(Self { lower })
    }

    pub fn dim(&self) -> usize {
        self.lower.nrows()
    }

    /// The factor itself; what the factorisation leaves above its diagonal is no part of it.
    pub fn lower(&self) -> Array2<f64> {
        Array2::from_shape_fn((self.dim(), self.dim()), |(i, j)| if i >= j { self.lower[(i, j)] } else { 0.0 })
    }

    pub fn log_det(&self) -> f64 {
        2.0 * (0..self.dim()).map(|i| self.lower[(i, i)].ln()).sum::<f64>()
    }

    /// Solves in place for the columns of a row-major matrix (`dim` rows).
    pub fn solve(&self, rhs: &mut ArrayViewMut2<'_, f64>) {
        if rhs.is_empty() {
            return;
        }
        let (rows, cols) = rhs.dim();
        let dst = MatMut::from_row_major_slice_mut(rhs.as_slice_mut().expect("contiguous"), rows, cols);
        self.solve_mat(dst);
    }

    /// Solves in place for one right-hand side.
    pub fn solve_vec(&self, rhs: &mut [f64]) {
        let n = rhs.len();
        self.solve_mat(MatMut::from_column_major_slice_mut(rhs, n, 1));
    }

    fn solve_mat(&self, dst: MatMut<'_, f64>) {
        let req = llt::solve::solve_in_place_scratch::<f64>(self.dim(), dst.ncols(), Par::Seq);
        let mut buffer = MemBuffer::new(req);
        llt::solve::solve_in_place(self.lower.as_ref(), dst, Par::Seq, MemStack::new(&mut buffer));
    }

    /// The inverse of the factor, lower triangular.
    pub fn inverse_lower(&self) -> Array2<f64> {
        let n = self.dim();
        let mut out = Mat::<f64>::zeros(n, n);
        triangular_inverse::invert_lower_triangular(out.as_mut(), self.lower.as_ref(), Par::Seq);
        Array2::from_shape_fn((n, n), |(i, j)| if i >= j { out[(i, j)] } else { 0.0 })
    }

    /// The full (symmetric) inverse.
    pub fn inverse(&self) -> Array2<f64> {
        let n = self.dim();
        let mut out = Mat::<f64>::zeros(n, n);
        let req = llt::inverse::inverse_scratch::<f64>(n, Par::Seq);
        let mut buffer = MemBuffer::new(req);
        llt::inverse::inverse(out.as_mut(), self.lower.as_ref(), Par::Seq, MemStack::new(&mut buffer));
        Array2::from_shape_fn((n, n), |(i, j)| if i >= j { out[(i, j)] } else { out[(j, i)] })
    }
}

/// Eigenvalues (ascending) and eigenvectors (columns) of a symmetric matrix, of which the lower triangle is read.
///
/// Iterations square what they are given: matrices whose squares are no normal numbers are scaled, by a power of two.
pub fn symmetric_eigen(a: ArrayView2<'_, f64>) -> (Array1<f64>, Array2<f64>) {
    let n = a.nrows();
    let scale = inward_scale(a.iter().fold(0.0, |most, v| most.max(v.abs())));
    let mat = Mat::from_fn(n, n, |i, j| a[[i, j]] * scale);
    let (mut values, mut vectors) = (Diag::<f64>::zeros(n), Mat::<f64>::zeros(n, n));
    let req = evd::self_adjoint_evd_scratch::<f64>(n, evd::ComputeEigenvectors::Yes, Par::Seq, Default::default());
    let mut buffer = MemBuffer::new(req);
    evd::self_adjoint_evd(
        mat.as_ref(),
        values.as_mut(),
        Some(vectors.as_mut()),
        Par::Seq,
        MemStack::new(&mut buffer),
        Default::default(),
    )
    .expect("the symmetric eigenproblem of finite input converges");
    let values = Array1::from_shape_fn(n, |i| values[i] / scale);
    (values, Array2::from_shape_fn((n, n), |(i, j)| vectors[(i, j)]))
}

/// A power of two that takes numbers of at most this size to where their squares are normal numbers; one where they are.
fn inward_scale(largest: f64) -> f64 {
    const EXPONENTS: std::ops::Range<i32> = -400..400;
    // the least subnormal number has an exponent of -1074, whose opposite is out of range
    let exponent =
        if largest > 0.0 && largest.is_finite() { largest.log2().floor().clamp(-1000.0, 1000.0) as i32 } else { 0 };
    if EXPONENTS.contains(&exponent) {
        return 1.0;
    }
    2.0f64.powi(-exponent)
}

/// An orthonormal basis (columns) of the span of the rows of `rows`, by Gram-Schmidt with
/// re-orthogonalisation; rows that add nothing to the span are passed over.
pub fn row_space(rows: ArrayView2<'_, f64>) -> Array2<f64> {
    /// A row whose remainder is below this part of its norm lies in the span of the others to rounding.
    const DEPENDENT: f64 = 1e-13;
    let p = rows.ncols();
    let mut kept: Vec<Array1<f64>> = Vec::new();
    for row in rows.rows() {
        let norm = row.dot(&row).sqrt();
        let mut v = row.to_owned();
        for _ in 0..2 {
            for q in &kept {
                let c = q.dot(&v);
                v.scaled_add(-c, q);
            }
        }
        let rest = v.dot(&v).sqrt();
        if rest > DEPENDENT * norm && kept.len() < p {
            v /= rest;
            kept.push(v);
        }
    }
    Array2::from_shape_fn((p, kept.len()), |(c, j)| kept[j][c])
}

/// Cholesky of a small dense row block, in place in the lower triangle of a row-major `q x q` slice.
/// Returns `false` when a pivot is not positive.
pub fn small_cholesky(a: &mut [f64], q: usize) -> bool {
    for j in 0..q {
        for i in j..q {
            let dot: f64 = (0..j).map(|k| a[i * q + k] * a[j * q + k]).sum();
            let value = a[i * q + j] - dot;
            if i == j {
                if value.is_nan() || value <= 0.0 {
                    return false;
                }
                a[j * q + j] = value.sqrt();
            } else {
                a[i * q + j] = value / a[j * q + j];
            }
        }
    }
    true
}

/// Solves `L x = b` in place for `width` right-hand sides stored row-major (`q x width`).
pub fn small_forward(l: &[f64], q: usize, b: &mut [f64], width: usize) {
    if width < SHORT {
        return forward(l, q, b, width);
    }
    vectorised(
        #[inline(always)]
        || forward(l, q, b, width),
    );
}

#[inline(always)]
fn forward(l: &[f64], q: usize, b: &mut [f64], width: usize) {
    for i in 0..q {
        let (done, rest) = b.split_at_mut(i * width);
        let row = &mut rest[..width];
        for k in 0..i {
            add_scaled(-l[i * q + k], &done[k * width..(k + 1) * width], row);
        }
        let d = 1.0 / l[i * q + i];
        row.iter_mut().for_each(|x| *x *= d);
    }
}

/// Solves `L^T x = b` in place for `width` right-hand sides stored row-major (`q x width`).
pub fn small_backward(l: &[f64], q: usize, b: &mut [f64], width: usize) {
    if width < SHORT {
        return backward(l, q, b, width);
    }
    vectorised(
        #[inline(always)]
        || backward(l, q, b, width),
    );
}

#[inline(always)]
fn backward(l: &[f64], q: usize, b: &mut [f64], width: usize) {
    for i in (0..q).rev() {
        let (head, tail) = b.split_at_mut((i + 1) * width);
        let row = &mut head[i * width..];
        for k in i + 1..q {
            add_scaled(-l[k * q + i], &tail[(k - i - 1) * width..(k - i) * width], row);
        }
        let d = 1.0 / l[i * q + i];
        row.iter_mut().for_each(|x| *x *= d);
    }
}

/// The inverse of a small matrix (q x q) from its Cholesky factor.
pub fn small_inverse(l: &[f64], q: usize) -> Vec<f64> {
    let mut out: Vec<f64> = (0..q * q).map(|i| if i % (q + 1) == 0 { 1.0 } else { 0.0 }).collect();
    small_forward(l, q, &mut out, q);
    small_backward(l, q, &mut out, q);
    out
}

/// Sums over fewer numbers than this take less time than asking what the processor has.
const SHORT: usize = 24;

/// Runs loops with the widest vectors that the processor has; what is inlined into `work` has them too. Results are the same
/// as without: no sum changes its order.
#[inline(always)]
pub fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// Inner product.
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    if a.len() < SHORT {
        return inner(a, b);
    }
    vectorised(
        #[inline(always)]
        || inner(a, b),
    )
}

/// `y += alpha * x`.
pub fn axpy(alpha: f64, x: &[f64], y: &mut [f64]) {
    if y.len() < SHORT {
        return add_scaled(alpha, x, y);
    }
    vectorised(
        #[inline(always)]
        || add_scaled(alpha, x, y),
    );
}

/// Inner product, in interleaved sums so that the compiler can use vector registers, for loops that run [`vectorised`].
#[inline(always)]
pub fn inner(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 16;
    let n = a.len().min(b.len());
    let (a, b) = (&a[..n], &b[..n]);
    let (wide_a, wide_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a4, b4) = (wide_a.remainder().chunks_exact(4), wide_b.remainder().chunks_exact(4));
    let tail: f64 = a4.remainder().iter().zip(b4.remainder()).map(|(x, y)| x * y).sum();
    let mut sums = [0.0; 4];
    if n >= LANES {
        let mut wide = [0.0; LANES];
        for (x, y) in wide_a.zip(wide_b) {
            for lane in 0..LANES {
                wide[lane] += x[lane] * y[lane];
            }
        }
        (0..4).for_each(|lane| sums[lane] = (wide[lane] + wide[lane + 8]) + (wide[lane + 4] + wide[lane + 12]));
    }
    for (x, y) in a4.zip(b4) {
        for lane in 0..4 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    (sums[0] + sums[2]) + (sums[1] + sums[3]) + tail
}

/// `y += alpha * x`, for loops that run [`vectorised`].
#[inline(always)]
pub fn add_scaled(alpha: f64, x: &[f64], y: &mut [f64]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += alpha * x);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvectors_have_the_same_bits_on_any_number_of_threads() {
        for n in [100, 128, 300] {
            let a = Array2::from_shape_fn((n, n), |(i, j)| ((i * j) as f64).sin() + ((i + j) as f64).cos());
            let on = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let (values, vectors) = pool.install(|| symmetric_eigen(a.view()));
                values.iter().chain(&vectors).map(|v| v.to_bits()).collect::<Vec<_>>()
            };
            assert!(on(1) == on(2) && on(1) == on(3), "{n}");
        }
    }

    #[test]
    fn eigenvalues_of_the_least_and_largest_numbers_are_found() {
        let a = Array2::from_shape_fn((9, 9), |(i, j)| ((i * j) as f64).sin() + ((i + j) as f64).cos());
        let (plain, _) = symmetric_eigen((&a + &a.t()).view());
        for unit in [1e-300, 1e-160, 1e160, 1e300] {
            let (values, vectors) = symmetric_eigen(((&a + &a.t()) * unit).view());
            let far = (&values / unit - &plain).iter().fold(0.0f64, |m, v| m.max(v.abs()));
            assert!(far < 1e-13 && vectors.iter().all(|v| v.is_finite()), "{unit}: {far}");
        }
        // what is left of it below the least normal number
        let (values, _) = symmetric_eigen((&a * 1e-322).view());
        assert!(values.iter().all(|v| v.abs() < 1e-320));
        assert_eq!(symmetric_eigen(Array2::zeros((3, 3)).view()).0, Array1::zeros(3));
    }
}
