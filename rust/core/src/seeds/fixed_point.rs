//! Independent components of many dimensions, by fixed points of a bounded contrast.
//!
//! Fourth moments of n rows have spurious optima in d dimensions once n is not far above d^2: a few long rows make one. The mean of
//! `-exp(-y^2/2)` has no such rows. Its fixed point `w <- E[x g(w'x)] - E[g'(w'x)] w` for all components at once, made orthogonal
//! again after each step, is Hyvarinen's FastICA (IEEE Transactions on Neural Networks 10, 1999).

use super::components::orthonormal;
use crate::linalg::{product, Op};
use ndarray::{Array2, ArrayView2};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Bound on steps; a few dozen settle what can be told apart.
const STEPS: usize = 200;
/// A step that turns no component by more than about a degree is the last.
const SETTLED: f64 = 1e-4;

/// Components (in rows, contiguous) of rows of unit variance (n x d), each as far from Gaussian as the contrast can tell.
pub(super) fn components_alone(whitened: ArrayView2<'_, f64>, random_state: u64) -> Vec<Vec<f64>> {
    let (n, d) = whitened.dim();
    let mut rng = ChaCha8Rng::seed_from_u64(random_state);
    let start = Array2::from_shape_simple_fn((d, d), || rng.random::<f64>() - 0.5);
    let mut w = orthonormal(start).unwrap_or_else(|| Array2::eye(d));
    for _ in 0..STEPS {
        let mut y = product((whitened, Op::Plain), (w.view(), Op::Transposed));
        let mut slopes = vec![0.0; d];
        for mut row in y.rows_mut() {
            for (v, slope) in row.iter_mut().zip(&mut slopes) {
                let bell = (-0.5 * *v * *v).exp();
                *slope += (1.0 - *v * *v) * bell;
                *v *= bell;
            }
        }
        let mut next = product((y.view(), Op::Transposed), (whitened, Op::Plain));
        for ((mut row, own), slope) in next.rows_mut().into_iter().zip(w.rows()).zip(&slopes) {
            row.scaled_add(-slope, &own);
        }
        let Some(next) = orthonormal(next) else { break };
        let turned = next.rows().into_iter().zip(w.rows()).map(|(a, b)| 1.0 - a.dot(&b).abs()).fold(0.0, f64::max);
        w = next;
        if turned < SETTLED {
            break;
        }
    }
    let y = product((w.view(), Op::Plain), (whitened, Op::Transposed));
    debug_assert_eq!(y.dim(), (d, n));
    y.rows().into_iter().map(|row| row.to_vec()).collect()
}
