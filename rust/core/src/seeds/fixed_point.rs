//! Independent components of many dimensions, by fixed points of a bounded contrast.
//!
//! Fourth moments of n rows have spurious optima in d dimensions once n is not far above d^2: a few long rows make one. The mean of
//! the bell `exp(-a y^2/2)` has no such rows. Its fixed point `w <- E[x g(w'x)] - E[g'(w'x)] w`, with `g = y exp(-a y^2/2)`, for all
//! components at once, made orthogonal again after each step, is Hyvarinen's FastICA (IEEE Transactions on Neural Networks 10,
//! 1999).

use super::components::orthonormal;
use super::subspaces::{rows_of_all_lengths, squared_lengths};
use crate::linalg::{product, Op};
use ndarray::{Array2, ArrayView2, Axis};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// `a` of the bells: a wide one bears more noise, a narrow one tells components that half of the rows have from Gaussian ones.
const BELLS: [f64; 3] = [1.0, 4.0, 16.0];

/// Bound on steps; a few dozen settle what can be told apart.
const STEPS: usize = 200;
/// A step that turns no component by more than about a degree is the last.
const SETTLED: f64 = 1e-4;
/// Bounds on random starts, and rows times squared components of all of them.
const STARTS: (usize, usize) = (2, 128);
const WORK: usize = 8_000_000;
/// Starts that are made at once, and starts that come to within a part of the largest contrast before it counts as found. Of four
/// lines, one a row, one start in seven finds them, and the others turn them to where every component is on every row.
const TOGETHER: usize = 4;
const AGREEING: usize = 32;
const NEAR: f64 = 0.02;
/// Starts after which nothing more is looked for where none has come to more than noise does.
const GLANCE: usize = 16;
/// Rows that starts look at, at least, and for each component.
const ROWS: usize = 1024;
const ROWS_A_COMPONENT: usize = 64;

/// For each bell, widest first, components (d x n) of rows of unit variance (n x d), each as far from Gaussian as that bell can tell,
/// and how far. `None` when interrupted.
pub(super) fn components_alone(
    whitened: ArrayView2<'_, f64>,
    random_state: u64,
    interrupted: &dyn Fn() -> bool,
) -> Option<Vec<(f64, Array2<f64>)>> {
    let some = rows_of_all_lengths(&squared_lengths(whitened), ROWS.max(ROWS_A_COMPONENT * whitened.ncols()));
    let some = whitened.select(Axis(0), &some);
    let mut directions: Vec<(f64, Array2<f64>)> = Vec::new();
    for a in BELLS {
        let wider = directions.last().map(|(_, w)| w);
        directions.push(best_start(some.view(), a, wider, random_state, interrupted)?);
    }
    let of = |w: Array2<f64>| product((w.view(), Op::Plain), (whitened, Op::Transposed));
    Some(directions.into_iter().map(|(contrast, w)| (contrast, of(w))).collect())
}

/// Of equal ones the first.
pub(super) fn largest(found: Vec<(f64, Array2<f64>)>) -> Option<(f64, Array2<f64>)> {
    found.into_iter().reduce(|best, other| if other.0 > best.0 { other } else { best })
}

/// Of what a wider bell has found and some random starts, that of the largest contrast: what is seen well by a narrow bell is often
/// found by a wide one only, which has fewer optima.
fn best_start(
    rows: ArrayView2<'_, f64>,
    a: f64,
    wider: Option<&Array2<f64>>,
    random_state: u64,
    interrupted: &dyn Fn() -> bool,
) -> Option<(f64, Array2<f64>)> {
    let d = rows.ncols();
    let starts = (WORK / (rows.nrows() * d * d).max(1)).clamp(STARTS.0, STARTS.1);
    let mut found: Vec<(f64, Array2<f64>)> = Vec::new();
    for from in (0..starts).step_by(TOGETHER) {
        if interrupted() {
            return None;
        }
        let of_start = |start: usize| match wider {
            Some(wider) if start == 0 => fixed_point(rows, a, wider.clone()),
            _ => fixed_point(rows, a, random_rotation(d, random_state.wrapping_add((start as u64) << 40))),
        };
        found.par_extend((from..starts.min(from + TOGETHER)).into_par_iter().map(of_start));
        let largest = found.iter().map(|own| own.0).fold(0.0, f64::max);
        let agreeing = found.iter().filter(|own| own.0 >= (1.0 - NEAR) * largest).count();
        if agreeing >= AGREEING || (found.len() >= GLANCE && largest < of_noise(rows.dim())) {
            break;
        }
    }
    largest(found)
}

fn random_rotation(d: usize, seed: u64) -> Array2<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let start = Array2::from_shape_simple_fn((d, d), || rng.random::<f64>() - 0.5);
    orthonormal(start).unwrap_or_else(|| Array2::eye(d))
}

/// About the contrast that n rows of noise in d dimensions come to: the mean of a bell is off by `1/sqrt n` of its deviation in a
/// given direction, by `sqrt d` times that in the worst of a sphere, and a little more in the worst of d.
fn of_noise((n, d): (usize, usize)) -> f64 {
    let d = d as f64;
    d * (d.sqrt() + (2.0 * d.ln()).sqrt()).powi(2) / n as f64
}

/// Directions (in rows) of components, and the sum over them of the squared distance of `E exp(-a y^2/2)` from a Gaussian's, in
/// units of its variance there, `(1 + 2a)^-1/2 - 1/(1 + a)`.
fn fixed_point(rows: ArrayView2<'_, f64>, a: f64, mut w: Array2<f64>) -> (f64, Array2<f64>) {
    let (n, d) = rows.dim();
    let gaussian = (1.0 + a).sqrt().recip();
    let variance = (1.0 + 2.0 * a).sqrt().recip() - gaussian * gaussian;
    let mut contrast = 0.0;
    for _ in 0..STEPS {
        let mut y = product((rows, Op::Plain), (w.view(), Op::Transposed));
        let (mut slopes, mut bells) = (vec![0.0; d], vec![0.0; d]);
        for mut row in y.rows_mut() {
            for ((v, slope), sum) in row.iter_mut().zip(&mut slopes).zip(&mut bells) {
                let square = a * *v * *v;
                let bell = (-0.5 * square).exp();
                *sum += bell;
                *slope += (1.0 - square) * bell;
                *v *= bell;
            }
        }
        contrast = bells.iter().map(|sum| (sum / n as f64 - gaussian).powi(2) / variance).sum();
        let mut next = product((y.view(), Op::Transposed), (rows, Op::Plain));
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
    (contrast, w)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unit circles in the planes of two columns each, of which every row uses half, whichever, turned at random; and noise.
    fn circles(n: usize, k: usize) -> Array2<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut rows = Array2::from_shape_simple_fn((n, 2 * k), || 0.1 * (rng.random::<f64>() - 0.5));
        for mut row in rows.rows_mut() {
            let mut left: Vec<usize> = (0..k).collect();
            for _ in 0..k / 2 {
                let own = left.swap_remove(rng.random_range(0..left.len()));
                let (sin, cos) = (rng.random::<f64>() * std::f64::consts::TAU).sin_cos();
                row[2 * own] += 2.0 * cos;
                row[2 * own + 1] += 2.0 * sin;
            }
        }
        let turn = orthonormal(Array2::from_shape_simple_fn((2 * k, 2 * k), || rng.random::<f64>() - 0.5)).unwrap();
        product((rows.view(), Op::Plain), (turn.view(), Op::Plain))
    }

    #[test]
    fn a_narrow_bell_tells_circles_that_half_of_the_rows_use() {
        let rows = circles(300, 4);
        let found = components_alone(rows.view(), 0, &|| false).unwrap();
        // q = 1/2: 1 - q + q exp(-a) I_0(a) of every component, exp(-16) I_0(16) = 0.10054
        let (gaussian, off) = (17.0f64.sqrt().recip(), 0.5 + 0.5 * 0.10054);
        let expected = 8.0 * (off - gaussian).powi(2) / (33.0f64.sqrt().recip() - 1.0 / 17.0);
        let (wide, narrow) = (found[0].0, found[2].0);
        assert!((narrow / expected - 1.0).abs() < 0.15, "{narrow} {expected}");
        assert!(wide < 0.1 * narrow);
    }

    #[test]
    fn components_are_a_rotation_of_the_rows_and_the_same_on_any_number_of_threads() {
        let rows = circles(300, 3);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| components_alone(rows.view(), 0, &|| false).unwrap().remove(1).1)
        };
        let y = on(1);
        let square = |y: ArrayView2<'_, f64>| y.iter().map(|v| v * v).sum::<f64>();
        assert!((square(y.view()) / square(rows.view()) - 1.0).abs() < 1e-12);
        assert_eq!(y, on(3));
    }

    #[test]
    fn rows_that_come_in_turns_are_all_seen() {
        // of every other row only one of two circles would be left, and two components would be nothing at all
        let (n, mut rng) = (4 * ROWS, ChaCha8Rng::seed_from_u64(6));
        let mut rows = Array2::from_shape_simple_fn((n, 4), || 0.1 * (rng.random::<f64>() - 0.5));
        for (i, mut row) in rows.rows_mut().into_iter().enumerate() {
            let (sin, cos) = (rng.random::<f64>() * std::f64::consts::TAU).sin_cos();
            row[2 * (i % 2)] += 2.0 * cos;
            row[2 * (i % 2) + 1] += 2.0 * sin;
        }
        let mixed: Vec<usize> = (0..n).map(|i| (i * 1021) % n).collect();
        let contrasts = |rows: &Array2<f64>| components_alone(rows.view(), 0, &|| false).unwrap();
        let (in_turns, mixed) = (contrasts(&rows), contrasts(&rows.select(Axis(0), &mixed)));
        for ((in_turns, _), (mixed, _)) in in_turns.iter().zip(&mixed) {
            // a mean over 1,024 rows is known to a twentieth of its distance from a Gaussian's, the square to a tenth
            assert!((in_turns / mixed - 1.0).abs() < 0.3, "{in_turns} {mixed}");
        }
    }

    #[test]
    fn noise_stays_below_what_is_expected_of_it_and_circles_do_not() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let mut normal = || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
        for (n, d) in [(100, 4), (400, 12)] {
            let noise = Array2::from_shape_simple_fn((n, d), &mut normal);
            for (found, _) in components_alone(noise.view(), 0, &|| false).unwrap() {
                assert!(found < of_noise((n, d)), "{found} at {n} x {d}");
            }
        }
        let (found, _) = components_alone(circles(300, 3).view(), 0, &|| false).unwrap().remove(2);
        assert!(found > of_noise((300, 6)), "{found}");
    }

    #[test]
    fn an_interrupt_ends_the_starts() {
        assert!(components_alone(circles(100, 2).view(), 0, &|| true).is_none());
    }
}
