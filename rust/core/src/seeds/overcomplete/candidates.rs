//! Subspaces that single rows lead to, by fourth moments.
//!
//! In whitened rows z the map `u <- E[(u'z)^3 z] - 3 u`, started at a row, climbs the fourth moment of one direction; it ends in
//! the subspace of an atom that the row uses, and any direction of a circle's plane is as good as any other. The rows that lie along
//! u are those that use the atom, so `E[(u'z)^2 z z'] - 2/3 E[(u'z)^4] u u' - I` has eigenvalues of one size in its subspace, if it has no
//! preferred direction there, and is zero in others where rows are Gaussian. They are a start for sparse coding: the fourth
//! moment of all d directions at once has its optima farther from the atoms', or none near some of them.
//!
//! Starts are made in rounds. Those of a later round are the rows of which most is left once the subspaces that are there have
//! taken what is theirs, as far as they leave it: a few starts for each atom then do where blind ones, of which each finds any
//! atom, would have to be a dozen.

use super::super::components::{orthonormal, whiten};
use super::coding::Dictionary;
use super::moments::{distinct, farthest, leading, moment, stacked, unit_rows, SAME};
use super::{shorten, FIRST_NOISE};
use crate::linalg::{product, Op};
use ndarray::{concatenate, s, Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

/// Rows that are started from at most, for each atom.
const STARTS_AN_ATOM: usize = 12;
/// Starts of a round, at least; a round of more atoms has one for each.
const ROUND: usize = 256;
/// Starts of a later round for each atom that is still missing.
const STARTS_A_MISSING: usize = 3;
/// Starts that share their passes over the rows, and how many such groups are made between two questions for an interrupt.
const TOGETHER: usize = 16;
const GROUPS: usize = 2;
/// Bound on steps of one direction; one that turns it by no more than about a degree is the last.
const ALONE: usize = 12;
const SETTLED: f64 = 1e-4;
/// A round that adds less than this part of the subspaces wanted is the last.
const WORTHWHILE: f64 = 0.02;

/// Distinct subspaces (orthonormal rows, d x r), the most pronounced first, where `count` are wanted; `None` when interrupted.
pub(super) fn candidates(
    rows: &Array2<f64>,
    (count, d): (usize, usize),
    random_state: u64,
    interrupted: &dyn Fn() -> bool,
) -> Option<Vec<Array2<f64>>> {
    let z = whitened(rows);
    let search = Search { z: z.view(), rows: rows.view(), d, random_state };
    let most = (STARTS_AN_ATOM * count).min(rows.nrows());
    let first = if most <= ROUND.max(count) { most } else { ROUND.max(count) };
    let stride = rows.nrows().div_ceil(first);
    let mut starts: Vec<usize> = (0..rows.nrows()).step_by(stride).collect();
    let mut from = z.select(Axis(0), &starts);
    let mut known: Vec<Found> = Vec::new();
    let mut made = 0;
    loop {
        made += starts.len();
        let found = search.led_to(&starts, from, &known, interrupted)?;
        let before = known.len();
        add_distinct(&mut known, found);
        let added = known.len() - before;
        let missing = count.saturating_sub(known.len());
        let next = (STARTS_A_MISSING * missing).clamp(ROUND, ROUND.max(count)).min(most.saturating_sub(made));
        // what is learnt from twice as many subspaces as wanted drops most of them
        if next == 0 || known.len() >= 2 * count || (added as f64) < WORTHWHILE * count as f64 {
            break;
        }
        let dictionary = Dictionary::new(known.iter().map(|own| own.basis.clone()).collect(), d, FIRST_NOISE);
        let code = dictionary.code(rows.view(), interrupted)?;
        starts = code.worst();
        starts.truncate(next);
        from = code.left().select(Axis(0), &starts);
        whiten_as(&mut from, rows);
    }
    known.sort_by(|a, b| b.contrast.total_cmp(&a.contrast));
    Some(known.into_iter().map(|own| own.basis).collect())
}

/// Adds those that differ from all that are there, the most pronounced first.
fn add_distinct(known: &mut Vec<Found>, mut found: Vec<Found>) {
    found.sort_by(|a, b| b.contrast.total_cmp(&a.contrast));
    known.append(&mut found);
    let mut kept = distinct(&known.iter().map(|own| &own.basis).collect::<Vec<_>>()).into_iter().peekable();
    let mut at = 0..;
    known.retain(|_| kept.next_if_eq(&at.next().expect("a count has no end")).is_some());
}

/// Principal scores of unit variance, long rows shortened.
fn whitened(rows: &Array2<f64>) -> Array2<f64> {
    let all: Vec<usize> = (0..rows.nrows()).collect();
    let mut z = rows.clone();
    whiten(&mut z, &all);
    shorten(&mut z);
    z
}

/// Scales the columns of other scores to what those of the rows would have to be scaled by.
fn whiten_as(scores: &mut Array2<f64>, rows: &Array2<f64>) {
    for (mut column, of_rows) in scores.columns_mut().into_iter().zip(rows.columns()) {
        let square = of_rows.dot(&of_rows) / of_rows.len() as f64;
        column.mapv_inplace(|v| if square > 0.0 { v / square.sqrt() } else { 0.0 });
    }
}

struct Found {
    /// Of the whitened rows.
    whitened: Array2<f64>,
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
    random_state: u64,
}

impl Search<'_> {
    /// One subspace for each start (in rows of `from`), but where floating point gives none, or where it leads to one that is known;
    /// `None` when interrupted.
    fn led_to(
        &self,
        starts: &[usize],
        from: Array2<f64>,
        known: &[Found],
        interrupted: &dyn Fn() -> bool,
    ) -> Option<Vec<Found>> {
        let batch = TOGETHER * GROUPS.max(rayon::current_num_threads());
        let mut directions = Array2::zeros(from.dim());
        for at in (0..starts.len()).step_by(batch) {
            if interrupted() {
                return None;
            }
            let own = s![at..starts.len().min(at + batch), ..];
            let from = from.slice(own);
            let parts: Vec<_> = from.axis_chunks_iter(Axis(0), TOGETHER).collect();
            let climbed: Vec<_> = parts.into_par_iter().map(|from| self.directions(from.to_owned())).collect();
            let climbed: Vec<_> = climbed.iter().map(|own| own.view()).collect();
            directions.slice_mut(own).assign(&concatenate(Axis(0), &climbed).expect("directions of one space"));
        }
        let new = elsewhere(&directions, known);
        let mut found = Vec::new();
        for batch in new.chunks(batch) {
            if interrupted() {
                return None;
            }
            let of_batch: Vec<Option<Found>> = batch
                .par_iter()
                .map(|&at| {
                    let seed = self.random_state.wrapping_add((starts[at] as u64) << 32);
                    self.read(self.around(directions.row(at), seed)?)
                })
                .collect();
            found.extend(of_batch.into_iter().flatten());
        }
        Some(found)
    }

    /// Fixed points of single directions, in rows.
    fn directions(&self, mut u: Array2<f64>) -> Array2<f64> {
        unit_rows(&mut u);
        let n = self.z.nrows() as f64;
        for _ in 0..ALONE {
            let mut next = moment(self.z, u.view(), |_, along| along.iter_mut().for_each(|c| *c *= *c * *c / n));
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
    fn around(&self, u: ArrayView1<'_, f64>, seed: u64) -> Option<Array2<f64>> {
        let along = self.z.dot(&u);
        let n = along.len();
        let seen = farthest(along.view(), u.len());
        let z = self.z.select(Axis(0), &seen);
        let weights = along.select(Axis(0), &seen).mapv(|c| c * c / n as f64);
        let fourth = n as f64 * weights.dot(&weights);
        // of all rows, which have unit variance, the mean square
        let level = if seen.len() < n { weights.sum() } else { 1.0 };
        let cut = |basis: ArrayView2<'_, f64>, next: &mut Array2<f64>| {
            next.scaled_add(-level, &basis);
            for (mut next, basis) in next.rows_mut().into_iter().zip(basis.rows()) {
                next.scaled_add(-2.0 / 3.0 * fourth * basis.dot(&u), &u);
            }
        };
        leading(z.view(), u, weights.view(), self.d, seed, cut)
    }

    /// A subspace of whitened rows in the channels of the rows themselves.
    fn read(&self, whitened: Array2<f64>) -> Option<Found> {
        let (n, d) = (self.z.nrows() as f64, whitened.nrows() as f64);
        let mut pulled = product((self.z, Op::Plain), (whitened.view(), Op::Transposed));
        let mut fourth = 0.0;
        for mut row in pulled.rows_mut() {
            let square = row.dot(&row);
            fourth += square * square / n;
            row *= square / n;
        }
        let basis = orthonormal(product((pulled.view(), Op::Transposed), (self.rows, Op::Plain)))?;
        Some(Found { whitened, basis, contrast: fourth / (d * (d + 2.0)) - 1.0 })
    }
}

/// The directions that lie in none of the known subspaces.
fn elsewhere(directions: &Array2<f64>, known: &[Found]) -> Vec<usize> {
    let all = 0..directions.nrows();
    let Some(d) = known.first().map(|own| own.whitened.nrows()) else { return all.collect() };
    let seen = product(
        (directions.view(), Op::Plain),
        (stacked(known.iter().map(|own| &own.whitened)).view(), Op::Transposed),
    );
    let within = |at: usize| {
        let row = seen.row(at).to_slice().expect("standard layout");
        row.chunks_exact(d).any(|own| own.iter().map(|v| v * v).sum::<f64>() > SAME)
    };
    all.filter(|&at| !within(at)).collect()
}
