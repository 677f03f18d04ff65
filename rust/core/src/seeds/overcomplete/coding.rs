//! Rows as sums of points in few subspaces, and the subspaces that fit them.
//!
//! A row takes subspaces one after the other, each time the one that explains most of what is left, while that is more than a
//! projection of noise onto d dimensions is with a probability of 1/K, with K subspaces at that time (`chi^2_d` exceeds `d + 2 sqrt(d x) + 2 x` with a probability of
//! at most e^-x: Laurent and Massart, Annals of Statistics 28, 2000). All its parts are solved again each time. A subspace is then
//! turned into the leading one of what the others leave of its rows.

use super::super::components::orthonormal;
use super::super::overlapping::Component;
use crate::linalg::{axpy, dot, product, small_backward, small_cholesky, small_forward, symmetric_eigen, Op};
use ndarray::{concatenate, s, Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

/// Rows that are coded together.
const CHUNK: usize = 256;
/// Steps to the leading subspace of a sweep, from where it was: sweeps do the rest.
const TURNS: usize = 4;
/// Least noise of rows of unit mean square: below it is rounding.
const LEAST_NOISE: f64 = 1e-12;

/// Subspaces, and the variance of what they do not explain in each channel.
pub(super) struct Dictionary {
    /// Orthonormal rows, d x r.
    subspaces: Vec<Array2<f64>>,
    d: usize,
    pub(super) noise: f64,
}

/// What each row uses.
pub(super) struct Code {
    rows: Vec<RowCode>,
    /// What they leave, n x r.
    left: Array2<f64>,
    /// What each subspace explains beyond what noise would have it explain.
    gain: Vec<f64>,
}

#[derive(Clone, Default)]
struct RowCode {
    used: Vec<usize>,
    /// Of all that are used, one after the other.
    values: Vec<f64>,
}

impl Dictionary {
    pub(super) fn new(subspaces: Vec<Array2<f64>>, d: usize, noise: f64) -> Self {
        Self { subspaces, d, noise }
    }

    pub(super) fn len(&self) -> usize {
        self.subspaces.len()
    }

    /// What a subspace must explain of a row.
    fn least(&self) -> f64 {
        let (d, x) = (self.d as f64, (self.subspaces.len() as f64).ln());
        self.noise * (d + 2.0 * (d * x).sqrt() + 2.0 * x)
    }

    fn stacked(&self) -> Array2<f64> {
        let views: Vec<_> = self.subspaces.iter().map(|own| own.view()).collect();
        concatenate(Axis(0), &views).expect("subspaces of one space")
    }

    /// Codes rows (n x r).
    pub(super) fn code(&self, rows: ArrayView2<'_, f64>) -> Code {
        if self.subspaces.is_empty() {
            return Code { rows: vec![RowCode::default(); rows.nrows()], left: rows.to_owned(), gain: Vec::new() };
        }
        let stacked = self.stacked();
        let starts: Vec<usize> = (0..rows.nrows()).step_by(CHUNK).collect();
        let of_chunk = |&from: &usize| {
            let rows = rows.slice(s![from..rows.nrows().min(from + CHUNK), ..]);
            self.code_chunk(rows, &stacked)
        };
        let (coded, left): (Vec<Vec<RowCode>>, Vec<Array2<f64>>) = starts.par_iter().map(of_chunk).unzip();
        let rows: Vec<RowCode> = coded.into_iter().flatten().collect();
        let left: Vec<ArrayView2<'_, f64>> = left.iter().map(|left| left.view()).collect();
        let gain = self.gain(&rows);
        Code { rows, left: concatenate(Axis(0), &left).expect("rows of one space"), gain }
    }

    /// Codes some rows, and what they leave of them; all that still take something do so at once.
    fn code_chunk(&self, rows: ArrayView2<'_, f64>, stacked: &Array2<f64>) -> (Vec<RowCode>, Array2<f64>) {
        let mut code = vec![RowCode::default(); rows.nrows()];
        let mut left = rows.to_owned();
        let mut live: Vec<usize> = (0..rows.nrows()).collect();
        while !live.is_empty() {
            let seen = product((left.select(Axis(0), &live).view(), Op::Plain), (stacked.view(), Op::Transposed));
            let mut still = Vec::new();
            for (seen, &i) in seen.rows().into_iter().zip(&live) {
                let next = self.next(seen.to_slice().expect("standard layout"), &code[i]);
                let row = rows.row(i).to_slice().expect("standard layout");
                let refitted = next.and_then(|next| refit(row, stacked, self.d, &code[i].used, next));
                if let Some((with, rest)) = refitted {
                    code[i] = with;
                    left.row_mut(i).iter_mut().zip(rest).for_each(|(l, v)| *l = v);
                    still.push(i);
                }
            }
            live = still;
        }
        (code, left)
    }

    /// The subspace that explains most of what a row has left, if it is enough.
    fn next(&self, seen: &[f64], code: &RowCode) -> Option<usize> {
        // more parts than half of the channels explain anything
        if 2 * (code.values.len() + self.d) > self.subspaces[0].ncols() {
            return None;
        }
        let (mut best, mut most) = (None, self.least());
        for (k, own) in seen.chunks_exact(self.d).enumerate() {
            let explained = dot(own, own);
            if explained > most && !code.used.contains(&k) {
                (best, most) = (Some(k), explained);
            }
        }
        best
    }

    fn gain(&self, rows: &[RowCode]) -> Vec<f64> {
        let mut gain = vec![0.0; self.subspaces.len()];
        for (k, values) in rows.iter().flat_map(|code| code.parts(self.d)) {
            gain[k] += dot(values, values) - self.least();
        }
        gain
    }

    /// Turns every subspace to what the others leave of its rows, one after the other, and estimates the noise again.
    pub(super) fn fit(&mut self, code: &mut Code) {
        let mut members: Vec<Vec<(usize, usize)>> = vec![Vec::new(); self.subspaces.len()];
        for (i, row) in code.rows.iter().enumerate() {
            row.used.iter().enumerate().for_each(|(at, &k)| members[k].push((i, at * self.d)));
        }
        for (k, members) in members.iter().enumerate() {
            let d = self.d;
            if members.len() <= d {
                continue;
            }
            let indices: Vec<usize> = members.iter().map(|m| m.0).collect();
            let mut own = code.left.select(Axis(0), &indices);
            let values = Array2::from_shape_fn((members.len(), d), |(m, j)| {
                let (i, from) = members[m];
                code.rows[i].values[from + j]
            });
            own += &product((values.view(), Op::Plain), (self.subspaces[k].view(), Op::Plain));
            for _ in 0..TURNS {
                let seen = product((own.view(), Op::Plain), (self.subspaces[k].view(), Op::Transposed));
                match orthonormal(product((seen.view(), Op::Transposed), (own.view(), Op::Plain))) {
                    Some(turned) => self.subspaces[k] = turned,
                    None => break,
                }
            }
            let values = product((own.view(), Op::Plain), (self.subspaces[k].view(), Op::Transposed));
            own -= &product((values.view(), Op::Plain), (self.subspaces[k].view(), Op::Plain));
            for ((&(i, from), values), left) in members.iter().zip(values.rows()).zip(own.rows()) {
                code.rows[i].values[from..from + d].iter_mut().zip(values).for_each(|(to, v)| *to = *v);
                code.left.row_mut(i).assign(&left);
            }
        }
        let explained: usize = code.rows.iter().map(|row| row.values.len()).sum();
        let rest: f64 = code.left.iter().map(|v| v * v).sum();
        self.noise = (rest / (code.left.len() - explained) as f64).max(LEAST_NOISE);
        code.gain = self.gain(&code.rows);
    }

    /// In order of what they explain.
    fn by_gain(&self, code: &Code) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.subspaces.len()).collect();
        order.sort_by(|&a, &b| code.gain[b].total_cmp(&code.gain[a]));
        order
    }

    /// Only so many, those that explain most.
    pub(super) fn keep(&mut self, code: &Code, count: usize) {
        let kept = self.by_gain(code).into_iter().take(count);
        self.subspaces = kept.map(|k| self.subspaces[k].clone()).collect();
    }

    /// New subspaces up to `count` of them: around the rows that are explained worst, of what is left of all.
    pub(super) fn fill(&mut self, code: &Code, count: usize) {
        let mut worst: Vec<(f64, usize)> = code.left.rows().into_iter().map(|row| row.dot(&row)).zip(0..).collect();
        worst.sort_by(|a, b| b.0.total_cmp(&a.0));
        let wanting = count.saturating_sub(self.subspaces.len());
        self.subspaces.extend(worst.into_iter().filter_map(|(_, i)| around(&code.left, i, self.d)).take(wanting));
    }

    /// Components of all rows (n x r), those that explain most first. One that no row uses gets the row that would most.
    pub(super) fn read(&self, rows: &Array2<f64>) -> Vec<Component> {
        let code = self.code(rows.view());
        let of = |k: usize| {
            // rows without it have what they would use it for
            let mut scores = product((code.left.view(), Op::Plain), (self.subspaces[k].view(), Op::Transposed));
            let mut active = vec![false; rows.nrows()];
            for (i, row) in code.rows.iter().enumerate() {
                for (_, values) in row.parts(self.d).filter(|(used, _)| *used == k) {
                    scores.row_mut(i).iter_mut().zip(values).for_each(|(to, v)| *to = *v);
                    active[i] = true;
                }
            }
            if !active.contains(&true) {
                let length = |i: usize| scores.row(i).dot(&scores.row(i));
                let nearest = (0..active.len()).max_by(|&a, &b| length(a).total_cmp(&length(b)))?;
                active[nearest] = true;
            }
            Component::new(scores.view(), active)
        };
        self.by_gain(&code).into_iter().filter_map(of).collect()
    }
}

impl RowCode {
    /// What a row uses, with the values.
    fn parts(&self, d: usize) -> impl Iterator<Item = (usize, &[f64])> {
        self.used.iter().copied().zip(self.values.chunks_exact(d))
    }
}

/// A row with one more subspace, all its parts solved again, and what they leave of it; `None` where they are dependent.
fn refit(row: &[f64], stacked: &Array2<f64>, d: usize, used: &[usize], next: usize) -> Option<(RowCode, Vec<f64>)> {
    let used: Vec<usize> = used.iter().copied().chain([next]).collect();
    let own = |&k: &usize| (k * d..(k + 1) * d).map(|c| stacked.row(c).to_slice().expect("standard layout"));
    let directions: Vec<&[f64]> = used.iter().flat_map(own).collect();
    let q = directions.len();
    let mut gram = vec![0.0; q * q];
    for (u, a) in directions.iter().enumerate() {
        for (v, b) in directions[..=u].iter().enumerate() {
            gram[u * q + v] = dot(a, b);
        }
    }
    if !small_cholesky(&mut gram, q) {
        return None;
    }
    let mut values: Vec<f64> = directions.iter().map(|a| dot(a, row)).collect();
    small_forward(&gram, q, &mut values, 1);
    small_backward(&gram, q, &mut values, 1);
    let mut left = row.to_vec();
    directions.iter().zip(&values).for_each(|(a, v)| axpy(-v, a, &mut left));
    Some((RowCode { used, values }, left))
}

/// The subspace of d dimensions around what row i has left: the leading one of all rows by how far they lie along it.
fn around(left: &Array2<f64>, i: usize, d: usize) -> Option<Array2<f64>> {
    let own: ArrayView1<'_, f64> = left.row(i);
    let mut weighted = left.clone();
    for mut row in weighted.rows_mut() {
        let along = row.dot(&own);
        row *= along;
    }
    let (_, vectors) = symmetric_eigen(product((weighted.view(), Op::Transposed), (weighted.view(), Op::Plain)).view());
    let r = left.ncols();
    orthonormal(Array2::from_shape_fn((d, r), |(j, c)| vectors[[c, r - 1 - j]]))
}
