//! Stacked rows of a chunk (rows x M) that are zero off their supports: basis rows, their motions, what meets them.

use crate::linalg::{add_scaled, axpy, gemm, inner, product, vectorised, Op};
use ndarray::{s, Array2, ArrayView2, ArrayViewMut2};
use std::ops::Range;
use std::sync::Arc;

/// A matrix over the rows of a chunk and the columns of all atoms, zero where a row does not use an atom.
///
/// Where rows use few of the atoms only their own parts are held, and products cost no more than these. Where they use many,
/// all entries are, since products of whole matrices are faster.
#[derive(Clone, Debug)]
pub struct Stacked {
    pattern: Arc<Pattern>,
    values: Vec<f64>,
}

#[derive(Debug)]
struct Pattern {
    width: usize,
    whole: bool,
    parts: Vec<Part>,
    /// Where each row's parts begin among all; one more than there are rows.
    rows: Vec<u32>,
    /// All parts with their rows, those of one atom after those of another.
    by_atom: Vec<(u32, Part)>,
}

/// One atom of one row: its columns, and where their entries lie.
#[derive(Clone, Copy, Debug)]
struct Part {
    column: u32,
    len: u32,
    at: u32,
}

impl Part {
    fn columns(self) -> Range<usize> {
        self.column as usize..(self.column + self.len) as usize
    }

    fn entries(self) -> Range<usize> {
        self.at as usize..(self.at + self.len) as usize
    }
}

impl Pattern {
    fn len(&self) -> usize {
        self.rows.len() - 1
    }

    fn row(&self, index: usize) -> &[Part] {
        &self.parts[self.rows[index] as usize..self.rows[index + 1] as usize]
    }

    /// For each atom the rows that use it, in order, with their parts.
    fn atoms(&self) -> impl Iterator<Item = &[(u32, Part)]> {
        self.by_atom.chunk_by(|(_, one), (_, next)| one.column == next.column)
    }
}

/// Whether rows of a width are held whole: from a third of their entries on products of whole matrices are as fast.
pub fn held_whole(n_rows: usize, width: usize, entries: usize) -> bool {
    3 * entries >= n_rows * width
}

/// Columns that the loops below take at a time, in registers.
const LANES: usize = 16;

/// `out += sum values rows`, for the first rows of a table, `stride` apart: several at a time, since each time `out` is read and
/// written.
#[inline(always)]
fn add_combined(values: &[f64], table: &[f64], stride: usize, out: &mut [f64]) {
    let mut sixes = values.chunks_exact(6);
    let mut rest = table;
    for six in &mut sixes {
        add_rows::<6>(six, rest, stride, out);
        rest = rest.get(6 * stride..).unwrap_or(&[]);
    }
    let mut threes = sixes.remainder().chunks_exact(3);
    for three in &mut threes {
        add_rows::<3>(three, rest, stride, out);
        rest = rest.get(3 * stride..).unwrap_or(&[]);
    }
    for one in threes.remainder() {
        add_scaled(*one, &rest[..out.len()], out);
        rest = rest.get(stride..).unwrap_or(&[]);
    }
}

/// `out += sum values rows` of N rows, a multiple of three, each three of them added up first.
#[inline(always)]
fn add_rows<const N: usize>(values: &[f64], table: &[f64], stride: usize, out: &mut [f64]) {
    let n = out.len();
    let rows: [&[f64]; N] = std::array::from_fn(|i| &table[i * stride..][..n]);
    let values: [f64; N] = std::array::from_fn(|i| values[i]);
    for (c, out) in out.iter_mut().enumerate() {
        for i in (0..N).step_by(3) {
            *out += values[i] * rows[i][c] + values[i + 1] * rows[i + 1][c] + values[i + 2] * rows[i + 2][c];
        }
    }
}

/// Adds to every row of `sum`, `stride` apart, three rows, the first times its first value and then the next: sums as one after
/// the other, with the rows read once for all of `sum`. `values` are of the three rows, each with one for every row of `sum`.
#[inline(always)]
fn add_three(values: [&[f64]; 3], rows: [&[f64]; 3], sum: &mut [f64], stride: usize) {
    let n = rows[0].len();
    let whole = n - n % LANES;
    for from in (0..whole).step_by(LANES) {
        let [x, y, z]: [[f64; LANES]; 3] = rows.map(|row| std::array::from_fn(|lane| row[from + lane]));
        for (b, ((u, v), w)) in values[0].iter().zip(values[1]).zip(values[2]).enumerate() {
            let sum = &mut sum[b * stride + from..][..LANES];
            for lane in 0..LANES {
                sum[lane] = ((sum[lane] + u * x[lane]) + v * y[lane]) + w * z[lane];
            }
        }
    }
    for c in whole..n {
        for (b, ((u, v), w)) in values[0].iter().zip(values[1]).zip(values[2]).enumerate() {
            let sum = &mut sum[b * stride + c];
            *sum = ((*sum + u * rows[0][c]) + v * rows[1][c]) + w * rows[2][c];
        }
    }
}

fn narrow(value: usize) -> u32 {
    u32::try_from(value).expect("a chunk has fewer than 2^32 entries")
}

impl Stacked {
    /// Zeros, for rows that use these atoms; `columns` are an atom's among all `width`.
    pub fn zeros<'a>(
        width: usize,
        supports: impl Iterator<Item = &'a [u32]>,
        columns: impl Fn(usize) -> Range<usize>,
    ) -> Self {
        let (mut parts, mut rows, mut at) = (Vec::new(), vec![0], 0);
        for support in supports {
            for &k in support {
                let own = columns(k as usize);
                parts.push(Part { column: narrow(own.start), len: narrow(own.len()), at: narrow(at) });
                at += own.len();
            }
            rows.push(narrow(parts.len()));
        }
        let n_rows = rows.len() - 1;
        let whole = held_whole(n_rows, width, at);
        if whole {
            for index in 0..n_rows {
                let own = rows[index] as usize..rows[index + 1] as usize;
                parts[own].iter_mut().for_each(|part| part.at = narrow(index * width) + part.column);
            }
        }
        let entries = if whole { n_rows * width } else { at };
        let mut by_atom = Vec::new();
        if !whole {
            let of_row = |index: usize| &parts[rows[index] as usize..rows[index + 1] as usize];
            by_atom.extend((0..n_rows).flat_map(|i| of_row(i).iter().map(move |part| (narrow(i), *part))));
            by_atom.sort_by_key(|(_, part)| part.column);
        }
        Self { pattern: Arc::new(Pattern { width, whole, parts, rows, by_atom }), values: vec![0.0; entries] }
    }

    /// Zeros for the same rows.
    pub fn zeros_like(&self) -> Self {
        Self { pattern: self.pattern.clone(), values: vec![0.0; self.values.len()] }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.pattern.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The columns of the s-th atom of a row.
    pub fn part(&self, index: usize, s: usize) -> &[f64] {
        &self.values[self.pattern.row(index)[s].entries()]
    }

    pub fn part_mut(&mut self, index: usize, s: usize) -> &mut [f64] {
        let entries = self.pattern.row(index)[s].entries();
        &mut self.values[entries]
    }

    /// All columns of a row.
    pub fn row(&self, index: usize) -> Vec<f64> {
        let mut out = vec![0.0; self.pattern.width];
        for part in self.pattern.row(index) {
            out[part.columns()].copy_from_slice(&self.values[part.entries()]);
        }
        out
    }

    /// The columns of a row's own atoms, one after the other.
    pub fn own(&self, index: usize) -> Vec<f64> {
        self.pattern.row(index).iter().flat_map(|part| &self.values[part.entries()]).copied().collect()
    }

    pub fn scale_row(&mut self, index: usize, factor: f64) {
        for part in self.pattern.row(index) {
            self.values[part.entries()].iter_mut().for_each(|v| *v *= factor);
        }
    }

    fn whole(&self) -> Option<ArrayView2<'_, f64>> {
        let shape = (self.len(), self.pattern.width);
        self.pattern.whole.then(|| ArrayView2::from_shape(shape, &self.values).expect("entries of all rows"))
    }

    /// Zeros where rows do not use an atom, after a product of whole matrices.
    fn clear_unused(&mut self) {
        let width = self.pattern.width;
        for index in 0..self.len() {
            let mut from = 0;
            for part in self.pattern.row(index) {
                self.values[index * width + from..index * width + part.columns().start].fill(0.0);
                from = part.columns().end;
            }
            self.values[index * width + from..(index + 1) * width].fill(0.0);
        }
    }

    /// Times a matrix over all columns (M x c).
    ///
    /// An atom's rows of it are read in one piece, which the processor fetches ahead. In tiles of a few columns, for which the
    /// result would stay in the cache, they are short pieces far apart: three times as slow for a thousand atoms, and for few
    /// no faster.
    pub fn times(&self, x: &Array2<f64>) -> Array2<f64> {
        if let Some(whole) = self.whole() {
            return product((whole, Op::Plain), (x.view(), Op::Plain));
        }
        let c = x.ncols();
        let mut out = vec![0.0; self.len() * c];
        let table = x.as_slice().expect("standard layout");
        vectorised(
            #[inline(always)]
            || {
                for &(index, part) in &self.pattern.by_atom {
                    let out = &mut out[index as usize * c..][..c];
                    add_combined(&self.values[part.entries()], &table[part.columns().start * c..], c, out);
                }
            },
        );
        Array2::from_shape_vec((self.len(), c), out).expect("as many rows")
    }

    /// Times a matrix over all columns (M x c) of which only some rows are not zero.
    pub fn times_rows<'a>(&self, x: impl Fn(usize) -> Option<&'a [f64]>, c: usize) -> Array2<f64> {
        let mut out = Array2::zeros((self.len(), c));
        for (index, mut out) in out.rows_mut().into_iter().enumerate() {
            let out = out.as_slice_mut().expect("standard layout");
            for part in self.pattern.row(index) {
                for (v, a) in self.values[part.entries()].iter().zip(part.columns()) {
                    if let Some(row) = x(a) {
                        axpy(*v, row, out);
                    }
                }
            }
        }
        out
    }

    /// `sum += self' y`, for y over the rows (rows x c).
    pub fn add_transposed(&self, y: ArrayView2<'_, f64>, mut sum: ArrayViewMut2<'_, f64>) {
        if let Some(whole) = self.whole() {
            gemm(&mut sum, true, 1.0, (whole, Op::Transposed), (y, Op::Plain));
            return;
        }
        let c = y.ncols();
        let (y, sum) = (y.to_slice().expect("standard layout"), sum.as_slice_mut().expect("standard layout"));
        if c == 0 {
            return;
        }
        vectorised(
            #[inline(always)]
            || {
                let seen = |(index, _): (u32, Part)| &y[index as usize * c..][..c];
                let values = |(_, part): (u32, Part)| &self.values[part.entries()];
                for users in self.pattern.atoms() {
                    let own = users[0].1.columns();
                    let sum = &mut sum[own.start * c..own.end * c];
                    let mut threes = users.chunks_exact(3);
                    for three in &mut threes {
                        let three = [three[0], three[1], three[2]];
                        add_three(three.map(values), three.map(seen), sum, c);
                    }
                    for &one in threes.remainder() {
                        let seen = seen(one);
                        for (value, sum) in values(one).iter().zip(sum.chunks_exact_mut(c)) {
                            add_scaled(*value, seen, sum);
                        }
                    }
                }
            },
        );
    }

    /// `sum += self' other` (M x M), for another matrix of the same rows.
    pub fn add_crossed(&self, other: &Self, mut sum: ArrayViewMut2<'_, f64>) {
        if let (Some(whole), Some(other)) = (self.whole(), other.whole()) {
            gemm(&mut sum, true, 1.0, (whole, Op::Transposed), (other, Op::Plain));
            return;
        }
        for index in 0..self.len() {
            for part in self.pattern.row(index) {
                for (v, a) in self.values[part.entries()].iter().zip(part.columns()) {
                    let row = sum.row_mut(a).into_slice().expect("rows in one piece");
                    for with in self.pattern.row(index) {
                        axpy(*v, &other.values[with.entries()], &mut row[with.columns()]);
                    }
                }
            }
        }
    }

    /// `y x'` where rows use atoms, for y over the rows (rows x c) and x over all columns (M x c).
    pub fn meeting(&self, y: &Array2<f64>, x: &Array2<f64>) -> Self {
        let mut out = self.zeros_like();
        out.add_meeting(1.0, y.view(), x);
        out
    }

    /// `self += factor y x'` where rows use atoms.
    pub fn add_meeting(&mut self, factor: f64, y: ArrayView2<'_, f64>, x: &Array2<f64>) {
        let shape = (self.len(), self.pattern.width);
        if self.pattern.whole {
            let mut whole = ArrayViewMut2::from_shape(shape, &mut self.values).expect("entries of all rows");
            gemm(&mut whole, true, factor, (y, Op::Plain), (x.view(), Op::Transposed));
            self.clear_unused();
            return;
        }
        let c = x.ncols();
        let table = x.as_slice().expect("standard layout");
        vectorised(
            #[inline(always)]
            || {
                for &(index, part) in &self.pattern.by_atom {
                    let y = y.row(index as usize).to_slice().expect("standard layout");
                    let rows = table[part.columns().start * c..part.columns().end * c].chunks_exact(c.max(1));
                    self.values[part.entries()].iter_mut().zip(rows).for_each(|(v, x)| *v += factor * inner(y, x));
                }
            },
        );
    }

    /// `self += other a` where rows use atoms, for a square matrix over all columns (M x M).
    pub fn add_times(&mut self, other: &Self, a: &Array2<f64>) {
        if self.pattern.whole {
            let shape = (self.len(), self.pattern.width);
            let mut whole = ArrayViewMut2::from_shape(shape, &mut self.values).expect("entries of all rows");
            let other = other.whole().expect("the same rows");
            gemm(&mut whole, true, 1.0, (other, Op::Plain), (a.view(), Op::Plain));
            self.clear_unused();
            return;
        }
        for index in 0..self.len() {
            let parts = self.pattern.row(index);
            for part in parts {
                for (v, row) in other.values[part.entries()].iter().zip(part.columns()) {
                    for to in parts {
                        let row = a.slice(s![row, to.columns()]);
                        axpy(*v, row.as_slice().expect("rows in one piece"), &mut self.values[to.entries()]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Rows that use few of eight atoms of three columns, or most of two, with random values.
    fn drawn(n_atoms: usize, seed: u64) -> (Stacked, Array2<f64>) {
        rows_drawn(9, n_atoms, seed)
    }

    fn rows_drawn(n: usize, n_atoms: usize, seed: u64) -> (Stacked, Array2<f64>) {
        let mut state = seed.wrapping_mul(2) + 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let supports: Vec<Vec<u32>> =
            (0..n).map(|_| (0..n_atoms as u32).filter(|_| next() < 1.6 / n_atoms as f64).collect()).collect();
        let mut out = Stacked::zeros(3 * n_atoms, supports.iter().map(|s| &s[..]), |k| 3 * k..3 * k + 3);
        let mut dense = Array2::zeros((supports.len(), 3 * n_atoms));
        for (index, support) in supports.iter().enumerate() {
            for (s, &k) in support.iter().enumerate() {
                for j in 0..3 {
                    let value = next() - 0.5;
                    out.part_mut(index, s)[j] = value;
                    dense[[index, 3 * k as usize + j]] = value;
                }
            }
        }
        (out, dense)
    }

    fn close(a: &Array2<f64>, b: &Array2<f64>) {
        assert_eq!(a.dim(), b.dim());
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-13), "{a} {b}");
    }

    #[test]
    fn products_of_many_rows_and_columns_are_those_of_the_whole_matrix() {
        let (n, c) = (2048, 2 * LANES + 5);
        let (phi, dense) = rows_drawn(n, 8, 3);
        assert!(!phi.pattern.whole);
        let x = Array2::from_shape_fn((24, c), |(a, c)| ((3 * a + c) as f64).sin());
        let y = Array2::from_shape_fn((n, c), |(i, c)| ((5 * i + c) as f64).cos());
        close(&phi.times(&x), &dense.dot(&x));
        let mut sum = Array2::ones((24, c));
        phi.add_transposed(y.view(), sum.view_mut());
        let expected = dense.t().dot(&y) + 1.0;
        assert!(sum.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-11));
    }

    proptest! {
        #[test]
        fn products_are_those_of_the_whole_matrix(seed in 0u64..1_000_000, n_atoms in prop::sample::select(vec![2usize, 8])) {
            let (phi, dense) = drawn(n_atoms, seed);
            let (other, dense_other) = {
                let mut other = phi.zeros_like();
                other.add_times(&phi, &Array2::from_shape_fn((dense.ncols(), dense.ncols()), |(a, b)| (a + 2 * b) as f64 * 0.1));
                let whole = Array2::from_shape_fn(dense.dim(), |(i, a)| other.row(i)[a]);
                (other, whole)
            };
            let m = dense.ncols();
            let x = Array2::from_shape_fn((m, 4), |(a, c)| ((3 * a + c) as f64).sin());
            let y = Array2::from_shape_fn((dense.nrows(), 4), |(i, c)| ((5 * i + c) as f64).cos());
            close(&phi.times(&x), &dense.dot(&x));
            let rows: Vec<Vec<f64>> = x.rows().into_iter().map(|row| row.to_vec()).collect();
            let some = |a: usize| (a % 3 != 0).then(|| &rows[a][..]);
            let mut thinned = x.clone();
            (0..m).step_by(3).for_each(|a| thinned.row_mut(a).fill(0.0));
            close(&phi.times_rows(some, 4), &dense.dot(&thinned));
            let mut sum = Array2::ones((m, 4));
            phi.add_transposed(y.view(), sum.view_mut());
            close(&sum, &(dense.t().dot(&y) + 1.0));
            let mut sum = Array2::ones((m, m));
            phi.add_crossed(&other, sum.view_mut());
            close(&sum, &(dense.t().dot(&dense_other) + 1.0));
            let met = phi.meeting(&y, &x);
            let all = y.dot(&x.t());
            let own = |i: usize, a: usize| dense[[i, a]] != 0.0;
            let square = Array2::from_shape_fn((m, m), |(a, b)| (a + 2 * b) as f64 * 0.1);
            let turned = dense.dot(&square);
            for (i, a) in (0..dense.nrows()).flat_map(|i| (0..m).map(move |a| (i, a))).filter(|&(i, a)| own(i, a)) {
                prop_assert!((met.row(i)[a] - all[[i, a]]).abs() < 1e-13);
                prop_assert!((other.row(i)[a] - turned[[i, a]]).abs() < 1e-12);
            }
        }

        #[test]
        fn few_atoms_a_row_are_held_alone(seed in 0u64..1000) {
            let (sparse, _) = drawn(8, seed);
            let entries: usize = (0..sparse.len()).map(|i| sparse.own(i).len()).sum();
            if !held_whole(9, 24, entries) {
                prop_assert_eq!(sparse.values.len(), entries);
            }
        }
    }
}
