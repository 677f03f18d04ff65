//! Rows as sums of points in few subspaces, and the subspaces that fit them.
//!
//! A row takes subspaces one after the other, each time the one that explains most of what is left, while that is more than a
//! projection of noise onto d dimensions is with a probability of 1/K, with K subspaces at that time (`chi^2_d` exceeds `d + 2 sqrt(d x) + 2 x` with a probability of
//! at most e^-x: Laurent and Massart, Annals of Statistics 28, 2000). All its parts are solved again each time. A subspace is then
//! turned into the leading one of what the others leave of its rows.

use super::super::components::orthonormal;
use super::super::overlapping::Component;
use super::moments::{distinct, farthest, stacked};
use crate::linalg::{axpy, dot, gemm, product, small_backward, small_cholesky, small_forward, symmetric_eigen, Op};
use ndarray::{s, Array2, ArrayView2, Axis};
use rayon::prelude::*;

/// Rows that are coded together, and how many chunks of them between two questions for an interrupt.
const CHUNK: usize = 256;
const CHUNKS: usize = 16;
/// Numbers that inner products of all directions may take: with them a row's next subspace costs no product with the dictionary.
const GRAM: usize = 1 << 25;
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
        stacked(self.subspaces.iter())
    }

    /// Codes rows (n x r); `None` when interrupted.
    pub(super) fn code(&self, rows: ArrayView2<'_, f64>, interrupted: &dyn Fn() -> bool) -> Option<Code> {
        if self.subspaces.is_empty() {
            let code = vec![RowCode::default(); rows.nrows()];
            return Some(Code { rows: code, left: rows.to_owned(), gain: Vec::new() });
        }
        let stacked = self.stacked();
        let gram = gram(&stacked);
        let starts: Vec<usize> = (0..rows.nrows()).step_by(CHUNK).collect();
        let mut code = Vec::with_capacity(rows.nrows());
        let mut left = Array2::zeros(rows.dim());
        for batch in starts.chunks(CHUNKS) {
            if interrupted() {
                return None;
            }
            let own = s![batch[0]..rows.nrows().min(batch[0] + CHUNKS * CHUNK), ..];
            let mut left = left.slice_mut(own);
            let rows = rows.slice(own);
            let parts: Vec<_> =
                left.axis_chunks_iter_mut(Axis(0), CHUNK).zip(rows.axis_chunks_iter(Axis(0), CHUNK)).collect();
            let coded: Vec<Vec<RowCode>> = parts
                .into_par_iter()
                .map(|(mut left, rows)| {
                    let (code, of_chunk) = self.code_chunk(rows, &stacked, gram.as_ref());
                    left.assign(&of_chunk);
                    code
                })
                .collect();
            code.extend(coded.into_iter().flatten());
        }
        let gain = self.gain(&code);
        Some(Code { rows: code, left, gain })
    }

    /// Codes some rows, and what they leave of them; all that still take something do so at once.
    fn code_chunk(
        &self,
        rows: ArrayView2<'_, f64>,
        stacked: &Array2<f64>,
        gram: Option<&Array2<f64>>,
    ) -> (Vec<RowCode>, Array2<f64>) {
        let mut code = vec![RowCode::default(); rows.nrows()];
        let mut left = rows.to_owned();
        let mut live: Vec<usize> = (0..rows.nrows()).collect();
        let mut seen = product((rows, Op::Plain), (stacked.view(), Op::Transposed));
        loop {
            let (mut still, mut places) = (Vec::new(), Vec::new());
            for (place, &i) in live.iter().enumerate() {
                let mut seen = seen.row_mut(place);
                let seen = seen.as_slice_mut().expect("standard layout");
                let Some(next) = self.next(seen, &code[i]) else { continue };
                let row = rows.row(i).to_slice().expect("standard layout");
                let Some((with, rest)) = refit(row, stacked, self.d, &code[i].used, next) else { continue };
                if let Some(gram) = gram {
                    for (at, value) in with.values.iter().enumerate() {
                        let moved = value - code[i].values.get(at).unwrap_or(&0.0);
                        let direction = with.used[at / self.d] * self.d + at % self.d;
                        axpy(-moved, gram.row(direction).to_slice().expect("standard layout"), seen);
                    }
                }
                code[i] = with;
                left.row_mut(i).iter_mut().zip(rest).for_each(|(l, v)| *l = v);
                still.push(i);
                places.push(place);
            }
            live = still;
            if live.is_empty() {
                return (code, left);
            }
            seen = match gram {
                Some(_) => seen.select(Axis(0), &places),
                None => product((left.select(Axis(0), &live).view(), Op::Plain), (stacked.view(), Op::Transposed)),
            };
        }
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

    /// Only so many, those that explain most, in that order.
    pub(super) fn keep(&mut self, code: &Code, count: usize) {
        let kept = self.by_gain(code).into_iter().take(count);
        self.subspaces = kept.map(|k| self.subspaces[k].clone()).collect();
    }

    /// Only those that differ from all before them: subspaces that rows lead to may differ and come to fit the same.
    pub(super) fn keep_distinct(&mut self) {
        let mut kept = distinct(&self.subspaces.iter().collect::<Vec<_>>()).into_iter().peekable();
        let mut at = 0..;
        self.subspaces.retain(|_| kept.next_if_eq(&at.next().expect("a count has no end")).is_some());
    }

    /// New subspaces up to `count` of them: around the rows that are explained worst, of what is left of all. `None` when
    /// interrupted.
    pub(super) fn fill(&mut self, code: &Code, count: usize, interrupted: &dyn Fn() -> bool) -> Option<()> {
        /// Rows between two questions for an interrupt.
        const TOGETHER: usize = 16;
        let worst = code.worst();
        for batch in worst.chunks(TOGETHER) {
            let wanting = count.saturating_sub(self.subspaces.len());
            if wanting == 0 {
                break;
            }
            if interrupted() {
                return None;
            }
            let batch = &batch[..wanting.min(batch.len())];
            let found: Vec<_> = batch.par_iter().map(|&i| around(&code.left, i, self.d)).collect();
            self.subspaces.extend(found.into_iter().flatten());
        }
        Some(())
    }

    /// Components of all rows (n x r), those that explain most first. One that no row uses gets the row that would most. `None`
    /// when interrupted, or where one has nothing.
    pub(super) fn read(self, rows: &Array2<f64>, interrupted: &dyn Fn() -> bool) -> Option<Components> {
        let code = self.code(rows.view(), interrupted)?;
        let order = self.by_gain(&code);
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); self.subspaces.len()];
        let mut values: Vec<Vec<f64>> = vec![Vec::new(); self.subspaces.len()];
        for (i, row) in code.rows.iter().enumerate() {
            for (k, own) in row.parts(self.d) {
                members[k].push(i);
                values[k].extend(own);
            }
        }
        let part = |k: usize| {
            let subspace = self.subspaces[k].clone();
            let mut rows = std::mem::take(&mut members[k]);
            let mut values = std::mem::take(&mut values[k]);
            if rows.is_empty() {
                let seen = product((code.left.view(), Op::Plain), (subspace.view(), Op::Transposed));
                let length = |i: usize| seen.row(i).dot(&seen.row(i));
                let nearest = (0..seen.nrows()).max_by(|&a, &b| length(a).total_cmp(&length(b)))?;
                values = seen.row(nearest).to_vec();
                rows.push(nearest);
            }
            let values = Array2::from_shape_vec((rows.len(), self.d), values).expect("as many values a row");
            Component::new(values.view(), vec![true; rows.len()])?;
            Some(Part { subspace, rows, values })
        };
        let parts = order.into_iter().map(part).collect::<Option<Vec<Part>>>()?;
        Some(Components { parts, left: code.left })
    }
}

/// Components by the rows that use them.
pub struct Components {
    parts: Vec<Part>,
    /// What all of them leave of the rows, n x r.
    left: Array2<f64>,
}

struct Part {
    subspace: Array2<f64>,
    /// The rows that use it, in order, and where they lie in it.
    rows: Vec<usize>,
    values: Array2<f64>,
}

impl Components {
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// The rows that use component k, in order.
    pub fn rows(&self, k: usize) -> &[usize] {
        &self.parts[k].rows
    }

    /// One component over all rows: those without it have what they would use it for.
    pub fn component(&self, k: usize) -> Component {
        let Part { subspace, rows, values } = &self.parts[k];
        let mut scores = product((self.left.view(), Op::Plain), (subspace.view(), Op::Transposed));
        let mut active = vec![false; scores.nrows()];
        for (&i, values) in rows.iter().zip(values.rows()) {
            scores.row_mut(i).assign(&values);
            active[i] = true;
        }
        Component::new(scores.view(), active).expect("a part has rows of some length")
    }
}

impl Code {
    /// What rows leave, n x r.
    pub(super) fn left(&self) -> &Array2<f64> {
        &self.left
    }

    /// Rows in order of how much is left of them, most first.
    pub(super) fn worst(&self) -> Vec<usize> {
        let lengths: Vec<f64> = self.left.rows().into_iter().map(|row| row.dot(&row)).collect();
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by(|&a, &b| lengths[b].total_cmp(&lengths[a]));
        order
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
    let along = left.dot(&left.row(i));
    let seen = farthest(along.view(), left.ncols());
    let mut weighted = left.select(Axis(0), &seen);
    weighted.rows_mut().into_iter().zip(&seen).for_each(|(mut row, &i)| row *= along[i]);
    let (_, vectors) = symmetric_eigen(product((weighted.view(), Op::Transposed), (weighted.view(), Op::Plain)).view());
    let r = left.ncols();
    orthonormal(Array2::from_shape_fn((d, r), |(j, c)| vectors[[c, r - 1 - j]]))
}

/// Inner products of all directions, where they are not too many.
fn gram(stacked: &Array2<f64>) -> Option<Array2<f64>> {
    /// Lines that are made together.
    const LINES: usize = 128;
    let m = stacked.nrows();
    if m * m > GRAM {
        return None;
    }
    let mut out = Array2::zeros((m, m));
    let parts: Vec<_> =
        out.axis_chunks_iter_mut(Axis(0), LINES).zip(stacked.axis_chunks_iter(Axis(0), LINES)).collect();
    parts.into_par_iter().for_each(|(mut out, own)| {
        gemm(&mut out, false, 1.0, (own, Op::Plain), (stacked.view(), Op::Transposed));
    });
    Some(out)
}
