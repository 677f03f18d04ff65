//! Inner products of the decoders' rows with each other and with a row's data.
//!
//! Of a dictionary that is not wide all of Q = BB' is made once, and of every row all of Bz. Of a wide one, where a row uses few of the
//! atoms, they are made for the atoms that a row is tried with, and kept while it is: Q alone would be M x M numbers.

use crate::linalg::{axpy, dot, product, Op};
use ndarray::{s, Array2, ArrayView1};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

/// Width of a dictionary beyond which products are made for the atoms that a row is tried with.
const WIDE: usize = 1024;

/// The stacked decoders (M x p), and what of their inner products is made beforehand.
#[derive(Debug)]
pub struct Products {
    pub decoders: Array2<f64>,
    /// Rows of each atom.
    offsets: Vec<usize>,
    /// Q; `None` for a wide dictionary.
    gram: Option<Array2<f64>>,
    /// Each atom's block of Q.
    own: Vec<Vec<f64>>,
    /// Whether all of Bz is made for every row.
    whole: bool,
}

/// What a row's data enter through.
pub struct Target {
    z: Vec<f64>,
    /// B z, where all of it is made.
    pub against: Vec<f64>,
    /// |z|^2.
    pub length: f64,
    pub weight: f64,
    /// Blocks of Q between the atoms that the row was tried with, the earlier one's rows first.
    met: RefCell<BTreeMap<(u32, u32), Vec<f64>>>,
}

/// Q and b = Bz over the columns of a support.
pub struct SupportGram {
    /// Where each atom's columns begin among those of the support, and where the last one's end.
    pub starts: Vec<usize>,
    /// Row-major, with as many rows as columns.
    pub gram: Vec<f64>,
    pub against: Vec<f64>,
}

impl Products {
    /// `shares` says that a row is tried with every atom.
    pub fn new(decoders: Array2<f64>, offsets: &[usize], shares: bool) -> Self {
        let wide = decoders.nrows() > WIDE;
        Self::made(decoders, offsets, shares, wide)
    }

    fn made(decoders: Array2<f64>, offsets: &[usize], shares: bool, wide: bool) -> Self {
        let decoders = decoders.as_standard_layout().into_owned();
        let gram = (!wide).then(|| product((decoders.view(), Op::Plain), (decoders.view(), Op::Transposed)));
        let own = |rows: &[usize]| -> Vec<f64> {
            let own = rows[0]..rows[1];
            match &gram {
                Some(gram) => gram.slice(s![own.clone(), own]).iter().copied().collect(),
                None => between(&decoders, own.clone(), own),
            }
        };
        let own = offsets.windows(2).map(own).collect();
        let whole = shares || gram.is_some();
        Self { decoders, offsets: offsets.to_vec(), gram, own, whole }
    }

    fn rows(&self, k: usize) -> Range<usize> {
        self.offsets[k]..self.offsets[k + 1]
    }

    pub fn target(&self, z: ArrayView1<'_, f64>, weight: f64) -> Target {
        let against = if self.whole { self.decoders.dot(&z).to_vec() } else { Vec::new() };
        Target { z: z.to_vec(), against, length: z.dot(&z), weight, met: RefCell::default() }
    }

    /// A row without data.
    pub fn nothing(&self) -> Target {
        let against = if self.whole { vec![0.0; self.decoders.nrows()] } else { Vec::new() };
        Target { z: vec![0.0; self.decoders.ncols()], against, length: 0.0, weight: 0.0, met: RefCell::default() }
    }

    /// An atom's block of Q, row by row.
    pub fn own(&self, k: usize) -> &[f64] {
        &self.own[k]
    }

    /// Q and b over the columns of a support.
    pub fn gram(&self, target: &Target, support: &[u32]) -> SupportGram {
        let mut starts = vec![0];
        support.iter().for_each(|&k| starts.push(starts[starts.len() - 1] + self.rows(k as usize).len()));
        let m = starts[support.len()];
        let mut against = Vec::with_capacity(m);
        support.iter().for_each(|&k| self.add_against(target, k as usize, &mut against));
        let mut gram = Vec::with_capacity(m * m);
        if let Some(all) = &self.gram {
            for a in support.iter().flat_map(|&k| self.rows(k as usize)) {
                let row = all.row(a).to_slice().expect("standard layout");
                support.iter().for_each(|&k| gram.extend_from_slice(&row[self.rows(k as usize)]));
            }
            return SupportGram { starts, gram, against };
        }
        gram.resize(m * m, 0.0);
        let mut met = target.met.borrow_mut();
        for (s, &k) in support.iter().enumerate() {
            for (t, &l) in support[..=s].iter().enumerate() {
                let block: &[f64] = match s == t {
                    true => &self.own[k as usize],
                    false => met
                        .entry((l, k))
                        .or_insert_with(|| between(&self.decoders, self.rows(l as usize), self.rows(k as usize))),
                };
                let width = starts[s + 1] - starts[s];
                for (u, row) in block.chunks_exact(width).enumerate() {
                    for (v, value) in row.iter().enumerate() {
                        gram[(starts[t] + u) * m + starts[s] + v] = *value;
                        gram[(starts[s] + v) * m + starts[t] + u] = *value;
                    }
                }
            }
        }
        SupportGram { starts, gram, against }
    }

    /// Adds an atom's part of Bz to a list.
    fn add_against(&self, target: &Target, k: usize, out: &mut Vec<f64>) {
        if self.whole {
            out.extend_from_slice(&target.against[self.rows(k)]);
        } else {
            out.extend(self.rows(k).map(|m| dot(self.line(m), &target.z)));
        }
    }

    fn line(&self, m: usize) -> &[f64] {
        self.decoders.row(m).to_slice().expect("standard layout")
    }

    /// What `fitted`, basis rows of a support one after the other, leave of the data.
    pub fn residual(&self, target: &Target, support: &[u32], fitted: &[f64]) -> Vec<f64> {
        let mut out = target.z.clone();
        let columns = support.iter().flat_map(|&k| self.rows(k as usize));
        columns.zip(fitted).for_each(|(m, value)| axpy(-value, self.line(m), &mut out));
        out
    }

    /// An atom's decoder against what `fitted` leaves of the data, which is `residual`.
    pub fn left(&self, target: &Target, k: usize, (support, fitted): (&[u32], &[f64]), residual: &[f64]) -> Vec<f64> {
        let own = self.rows(k);
        let Some(gram) = &self.gram else { return own.map(|m| dot(self.line(m), residual)).collect() };
        let mut explained = vec![0.0; own.len()];
        for (m, value) in support.iter().flat_map(|&k| self.rows(k as usize)).zip(fitted) {
            // Q is symmetric, so its rows are its columns
            axpy(*value, &gram.row(m).to_slice().expect("standard layout")[own.clone()], &mut explained);
        }
        target.against[own].iter().zip(&explained).map(|(data, fit)| data - fit).collect()
    }

    /// Q times a stacked vector that is zero off a support.
    pub fn gram_times(&self, support: &[u32], stacked: &[f64]) -> Vec<f64> {
        let columns = support.iter().flat_map(|&k| self.rows(k as usize));
        if let Some(gram) = &self.gram {
            let mut out = vec![0.0; stacked.len()];
            // Q is symmetric, so its rows are its columns
            columns.for_each(|m| axpy(stacked[m], gram.row(m).to_slice().expect("standard layout"), &mut out));
            return out;
        }
        let mut point = vec![0.0; self.decoders.ncols()];
        columns.for_each(|m| axpy(stacked[m], self.line(m), &mut point));
        (0..stacked.len()).map(|m| dot(self.line(m), &point)).collect()
    }
}

/// Inner products of some rows of the decoders (in rows) with others (in columns).
fn between(decoders: &Array2<f64>, a: Range<usize>, b: Range<usize>) -> Vec<f64> {
    let line = |m: usize| decoders.row(m).to_slice().expect("standard layout");
    a.flat_map(|u| b.clone().map(move |v| dot(line(u), line(v)))).collect()
}

impl SupportGram {
    /// The columns of the atom at a place of the support.
    pub fn columns(&self, place: usize) -> Range<usize> {
        self.starts[place]..self.starts[place + 1]
    }

    /// B times the residual of a reconstruction, over the columns.
    pub fn against_residual(&self, fitted: &[f64]) -> Vec<f64> {
        let m = self.against.len();
        let mut out = vec![0.0; m];
        for (value, line) in fitted.iter().zip(self.gram.chunks_exact(m.max(1))) {
            axpy(*value, line, &mut out);
        }
        axpy(-1.0, &self.against, &mut out);
        out
    }

    /// Inner product of the row's motions when the atoms at places s and t have these basis rows: `x' Q_st y`.
    pub fn between(&self, (s, x): (usize, &[f64]), (t, y): (usize, &[f64])) -> f64 {
        let (m, own) = (self.against.len(), self.columns(t));
        let seen = |u: usize| dot(&self.gram[u * m..(u + 1) * m][own.clone()], y);
        self.columns(s).zip(x).map(|(u, x)| x * seen(u)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array1;

    #[test]
    fn products_that_are_made_when_needed_are_those_made_beforehand() {
        let offsets = [0, 3, 5, 9, 10];
        let decoders = Array2::from_shape_fn((10, 7), |(m, c)| ((3 * m + 5 * c * c) as f64).sin());
        let z = Array1::from_shape_fn(7, |c| (c as f64).cos());
        let near = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-13);
        let [all, few] = [false, true].map(|wide| Products::made(decoders.clone(), &offsets, false, wide));
        let (of_all, of_few) = (all.target(z.view(), 1.0), few.target(z.view(), 1.0));
        assert!(near(all.own(2), few.own(2)));
        for support in [&[][..], &[2], &[0, 2, 3], &[1, 3], &[0, 1, 2, 3]] {
            let (a, b) = (all.gram(&of_all, support), few.gram(&of_few, support));
            assert_eq!(a.starts, b.starts);
            assert!(near(&a.gram, &b.gram) && near(&a.against, &b.against));
            let fitted: Vec<f64> = (0..a.against.len()).map(|u| 0.3 * u as f64 - 0.5).collect();
            let [left, again] = [(&all, &of_all), (&few, &of_few)].map(|(products, target)| {
                let residual = products.residual(target, support, &fitted);
                products.left(target, 1, (support, &fitted), &residual)
            });
            assert!(near(&left, &again));
            let mut stacked = vec![0.0; 10];
            let columns = support.iter().flat_map(|&k| offsets[k as usize]..offsets[k as usize + 1]);
            columns.zip(&fitted).for_each(|(m, v)| stacked[m] = *v);
            assert!(near(&all.gram_times(support, &stacked), &few.gram_times(support, &stacked)));
        }
    }
}
