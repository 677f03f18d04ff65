//! Subspaces that single rows lead to, by fourth moments.
//!
//! In whitened rows z the map `u <- E[(u'z)^3 z] - 3 u`, started at a row, climbs the fourth moment of one direction; it ends in
//! the subspace of an atom that the row uses, and any direction of a circle's plane is as good as any other. The rows that lie along
//! u are those that use the atom, so `E[(u'z)^2 z z'] - 2/3 E[(u'z)^4] u u' - I` has eigenvalues of one size in its subspace, if it has no
//! preferred direction there, and is zero in others where rows are Gaussian. They are a start for sparse coding: the fourth
//! moment of all d directions at once has its optima farther from the atoms', or none near some of them.

use super::super::components::{orthonormal, whiten};
use super::shorten;
use crate::linalg::{product, symmetric_eigen, Op};
use ndarray::{s, Array2, ArrayView2, Axis};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Rows that are started from, for each atom.
const STARTS_AN_ATOM: usize = 12;
/// Starts that share their passes over the rows.
const TOGETHER: usize = 16;
/// Bounds on steps of one direction, and of the directions around it.
const ALONE: usize = 12;
const AROUND: usize = 10;
/// A step that turns no direction by more than about a degree is the last.
const SETTLED: f64 = 1e-4;
/// Subspaces that share more of their dimensions are one.
const SAME: f64 = 0.8;

/// Distinct subspaces (orthonormal rows, d x r), the most pronounced first, where `count` are wanted; `None` when interrupted.
pub(super) fn candidates(
    rows: &Array2<f64>,
    (count, d): (usize, usize),
    random_state: u64,
    interrupted: &dyn Fn() -> bool,
) -> Option<Vec<Array2<f64>>> {
    let z = whitened(rows);
    let stride = rows.nrows().div_ceil(STARTS_AN_ATOM * count);
    let starts: Vec<usize> = (0..rows.nrows()).step_by(stride).collect();
    let search = Search { z: z.view(), rows: rows.view(), d };
    let mut found: Vec<Found> = Vec::new();
    // a batch of starts between two looks at the interrupt flag
    for batch in starts.chunks(TOGETHER * rayon::current_num_threads().max(4)) {
        if interrupted() {
            return None;
        }
        let of_batch: Vec<Vec<Found>> =
            batch.par_chunks(TOGETHER).map(|starts| search.led_to(starts, random_state)).collect();
        found.extend(of_batch.into_iter().flatten());
    }
    found.sort_by(|a, b| b.contrast.total_cmp(&a.contrast));
    let mut distinct: Vec<Array2<f64>> = Vec::new();
    for Found { basis, .. } in found {
        if !distinct.iter().any(|other| shared(&basis, other) > SAME) {
            distinct.push(basis);
        }
    }
    Some(distinct)
}

/// The part of their dimensions that two subspaces share.
fn shared(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    let inner = product((a.view(), Op::Plain), (b.view(), Op::Transposed));
    inner.iter().map(|v| v * v).sum::<f64>() / a.nrows() as f64
}

/// Principal scores of unit variance, long rows shortened.
fn whitened(rows: &Array2<f64>) -> Array2<f64> {
    let all: Vec<usize> = (0..rows.nrows()).collect();
    let mut z = rows.clone();
    whiten(&mut z, &all);
    shorten(&mut z);
    z
}

struct Found {
    /// In the channels of the rows.
    basis: Array2<f64>,
    /// Relative excess of the fourth moment over a Gaussian's.
    contrast: f64,
}

struct Search<'a> {
    /// Whitened rows, n x q, and the rows themselves.
    z: ArrayView2<'a, f64>,
    rows: ArrayView2<'a, f64>,
    /// Dimensions of a subspace.
    d: usize,
}

impl Search<'_> {
    /// One subspace for each start, but where floating point gives none.
    fn led_to(&self, starts: &[usize], random_state: u64) -> Vec<Found> {
        let directions = self.directions(self.z.select(Axis(0), starts));
        let of = |(u, start): (ArrayView2<'_, f64>, &usize)| {
            let mut rng = ChaCha8Rng::seed_from_u64(random_state.wrapping_add((*start as u64) << 32));
            self.read(&self.around(u, &mut rng)?)
        };
        directions.axis_chunks_iter(Axis(0), 1).zip(starts).filter_map(of).collect()
    }

    /// Fixed points of single directions, in rows.
    fn directions(&self, mut u: Array2<f64>) -> Array2<f64> {
        unit_rows(&mut u);
        let n = self.z.nrows() as f64;
        for _ in 0..ALONE {
            let mut along = product((self.z, Op::Plain), (u.view(), Op::Transposed));
            along.mapv_inplace(|c| c * c * c / n);
            let mut next = product((along.view(), Op::Transposed), (self.z, Op::Plain));
            next.scaled_add(-3.0, &u);
            unit_rows(&mut next);
            let turned = next.rows().into_iter().zip(u.rows()).map(|(a, b)| 1.0 - a.dot(&b).abs()).fold(0.0, f64::max);
            u = next;
            if turned < SETTLED {
                break;
            }
        }
        u
    }

    /// The subspace around a direction.
    fn around(&self, u: ArrayView2<'_, f64>, rng: &mut ChaCha8Rng) -> Option<Array2<f64>> {
        let (n, q) = self.z.dim();
        // one more than wanted: the last converge slowly
        let m = self.d + 1;
        let along = product((self.z, Op::Plain), (u, Op::Transposed));
        let fourth = along.iter().map(|c| c.powi(4)).sum::<f64>() / n as f64;
        let mut basis = Array2::from_shape_simple_fn((m, q), || rng.random::<f64>() - 0.5);
        basis.row_mut(0).assign(&u.row(0));
        for _ in 0..AROUND {
            basis = orthonormal(basis)?;
            let seen = product((self.z, Op::Plain), (basis.view(), Op::Transposed));
            let mut weighted = seen.clone();
            for (mut row, c) in weighted.rows_mut().into_iter().zip(&along) {
                row *= c * c / n as f64;
            }
            let mut next = product((weighted.view(), Op::Transposed), (self.z, Op::Plain));
            next -= &basis;
            let own = product((basis.view(), Op::Plain), (u, Op::Transposed));
            next -= &(product((own.view(), Op::Plain), (u, Op::Plain)) * (2.0 / 3.0 * fourth));
            let inner = product((next.view(), Op::Plain), (basis.view(), Op::Transposed));
            let (_, vectors) = symmetric_eigen(inner.view());
            basis = product((vectors.view(), Op::Transposed), (next.view(), Op::Plain));
        }
        // eigenvalues ascend
        orthonormal(basis.slice(s![1.., ..]).to_owned())
    }

    /// A subspace of whitened rows in the channels of the rows themselves.
    fn read(&self, basis: &Array2<f64>) -> Option<Found> {
        let (n, d) = (self.z.nrows() as f64, basis.nrows() as f64);
        let mut pulled = product((self.z, Op::Plain), (basis.view(), Op::Transposed));
        let mut fourth = 0.0;
        for mut row in pulled.rows_mut() {
            let square = row.dot(&row);
            fourth += square * square / n;
            row *= square / n;
        }
        let basis = orthonormal(product((pulled.view(), Op::Transposed), (self.rows, Op::Plain)))?;
        Some(Found { basis, contrast: fourth / (d * (d + 2.0)) - 1.0 })
    }
}

fn unit_rows(u: &mut Array2<f64>) {
    for mut row in u.rows_mut() {
        let length = row.dot(&row).sqrt();
        if length > 0.0 {
            row /= length;
        }
    }
}
