//! Weighted moments of rows against several directions at once, and the leading subspaces of them.

use super::super::components::orthonormal;
use crate::linalg::{gemm, product, symmetric_eigen, Op};
use ndarray::{concatenate, s, Array2, ArrayView1, ArrayView2, Axis};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Rows that are in cache between the two products of a moment.
const BLOCK: usize = 256;
/// Subspaces that share more of their dimensions are one.
pub(super) const SAME: f64 = 0.8;
/// Steps to a leading subspace.
const STEPS: usize = 10;
/// Rows that a subspace around a direction is found among, those farthest along it: at least so many, so many for each column, and
/// one of so many.
const LEAST_SEEN: usize = 1024;
const SEEN_A_COLUMN: usize = 4;
const SEEN: usize = 32;

/// `sum_i w(z_i B') z_i` for directions B in rows: `weigh` turns what row i is along all of them into its weights.
pub(super) fn moment(
    z: ArrayView2<'_, f64>,
    directions: ArrayView2<'_, f64>,
    mut weigh: impl FnMut(usize, &mut [f64]),
) -> Array2<f64> {
    let mut out = Array2::zeros(directions.dim());
    for from in (0..z.nrows()).step_by(BLOCK) {
        let own = z.slice(s![from..z.nrows().min(from + BLOCK), ..]);
        let mut along = product((own, Op::Plain), (directions, Op::Transposed));
        for (i, mut row) in along.rows_mut().into_iter().enumerate() {
            weigh(from + i, row.as_slice_mut().expect("standard layout"));
        }
        gemm(&mut out.view_mut(), true, 1.0, (along.view(), Op::Transposed), (own, Op::Plain));
    }
    out
}

/// The d leading eigenvectors, in rows, of `sum_i w_i z_i z_i' - C`, where `less` takes `x C` off what it is given beside x; `None`
/// where floating point gives none. Steps start at a direction and at random.
pub(super) fn leading(
    z: ArrayView2<'_, f64>,
    u: ArrayView1<'_, f64>,
    weights: ArrayView1<'_, f64>,
    d: usize,
    seed: u64,
    less: impl Fn(ArrayView2<'_, f64>, &mut Array2<f64>),
) -> Option<Array2<f64>> {
    // one more than wanted: the last converge slowly
    let m = d + 1;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut basis = Array2::from_shape_simple_fn((m, z.ncols()), || rng.random::<f64>() - 0.5);
    basis.row_mut(0).assign(&u);
    for _ in 0..STEPS {
        basis = orthonormal(basis)?;
        let mut next = moment(z, basis.view(), |i, along| along.iter_mut().for_each(|c| *c *= weights[i]));
        less(basis.view(), &mut next);
        let inner = product((next.view(), Op::Plain), (basis.view(), Op::Transposed));
        let (_, vectors) = symmetric_eigen(inner.view());
        basis = product((vectors.view(), Op::Transposed), (next.view(), Op::Plain));
    }
    // eigenvalues ascend
    orthonormal(basis.slice(s![1.., ..]).to_owned())
}

/// The rows that are farthest along a direction of so many columns, in order: the others say nothing of a subspace around it, and of
/// many rows they are most.
pub(super) fn farthest(along: ArrayView1<'_, f64>, columns: usize) -> Vec<usize> {
    let n = along.len();
    let most = LEAST_SEEN.max(SEEN_A_COLUMN * columns).max(n / SEEN);
    let mut seen: Vec<usize> = (0..n).collect();
    if most < n {
        seen.select_nth_unstable_by(most, |&a, &b| along[b].abs().total_cmp(&along[a].abs()).then(a.cmp(&b)));
        seen.truncate(most);
        seen.sort_unstable();
    }
    seen
}

/// Positions of subspaces (orthonormal rows, all of one size) that differ from all before them that do.
pub(super) fn distinct(subspaces: &[&Array2<f64>]) -> Vec<usize> {
    /// Subspaces whose inner products with those before them are made at once.
    const BLOCK: usize = 128;
    let mut taken: Vec<usize> = Vec::new();
    for from in (0..subspaces.len()).step_by(BLOCK) {
        let block = from..subspaces.len().min(from + BLOCK);
        let own = stacked(block.clone().map(|at| subspaces[at]));
        let (before, d) = (taken.len(), subspaces[from].nrows());
        let others = stacked(taken.iter().copied().chain(block.clone()).map(|at| subspaces[at]));
        let met = product((own.view(), Op::Plain), (others.view(), Op::Transposed));
        let mut places: Vec<usize> = (0..before).collect();
        for at in block {
            let place = at - from;
            let same = |other: usize| {
                let block = met.slice(s![place * d..(place + 1) * d, other * d..(other + 1) * d]);
                block.iter().map(|v| v * v).sum::<f64>() > SAME * d as f64
            };
            if !places.iter().any(|&other| same(other)) {
                places.push(before + place);
                taken.push(at);
            }
        }
    }
    taken
}

/// Subspaces one under the other.
pub(super) fn stacked<'a>(parts: impl Iterator<Item = &'a Array2<f64>>) -> Array2<f64> {
    let views: Vec<_> = parts.map(|own| own.view()).collect();
    concatenate(Axis(0), &views).expect("subspaces of one space")
}

pub(super) fn unit_rows(u: &mut Array2<f64>) {
    for mut row in u.rows_mut() {
        let length = row.dot(&row).sqrt();
        if length > 0.0 {
            row /= length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::array;

    #[test]
    fn subspaces_that_come_again_are_passed_over() {
        let line = |t: f64| array![[t.cos(), t.sin(), 0.0]];
        // more than a block of them: every second one is near the one before it
        let all: Vec<Array2<f64>> = (0..4).map(|j| line(0.8 * j as f64)).collect();
        let listed: Vec<&Array2<f64>> = (0..400).map(|at| &all[at / 2 % 4]).collect();
        assert_eq!(distinct(&listed), [0, 2, 4, 6]);
        assert_eq!(distinct(&[]), [0usize; 0]);
        let near = line(0.1);
        assert_eq!(distinct(&[&near, &all[0], &all[2]]), [0, 2]);
    }
}
