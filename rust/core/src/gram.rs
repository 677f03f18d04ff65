//! The curvature of the decoders that is the same in every output channel: `G = sum_i w_i phi_i phi_i' / phi + P`, M x M.
//!
//! Two atoms meet in G only where some row uses both. Of a large dictionary only the blocks of such pairs are held, so that
//! memory and work grow with what rows use together; of a small one all of G is, since products of whole matrices are faster.

use crate::layout::SaeRowLayout;
use crate::linalg::{axpy, product, Op};
use crate::problem::Problem;
use crate::row::Stacked;
use ndarray::{s, Array2, ArrayView2, ArrayViewMut2, CowArray, Ix2};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Up to so many columns of all atoms G is held whole; in the classic mode always, which pins its null directions in it.
const WHOLE_TO: usize = 1024;

/// About how many entries are held, for so many atoms of about one width in groups of about one size, of which rows use some in
/// all.
pub fn about_entries(n_rows: usize, n_atoms: usize, width: usize, active_atoms: usize, groups: usize) -> usize {
    if width <= WHOLE_TO {
        return width * width;
    }
    let own = n_atoms.max(1);
    let (of_atom, of_row) = (width.div_ceil(own), active_atoms.div_ceil(n_rows.max(1)));
    let of_rows = n_rows.saturating_mul(of_row * of_row.saturating_sub(1) / 2);
    let of_groups = own.saturating_mul(own.div_ceil(groups.max(1)).saturating_sub(1)) / 2;
    (own + of_rows.min(of_groups)) * of_atom * of_atom
}

/// Which entries are held.
#[derive(Debug)]
pub struct GramShape {
    /// Columns of each atom.
    columns: Vec<Range<usize>>,
    /// Blocks of pairs; `None` where all entries are held.
    pairs: Option<Pairs>,
}

#[derive(Debug)]
struct Pairs {
    /// For each atom the ones it meets, in order, itself among them.
    of: Vec<Vec<Pair>>,
    entries: usize,
}

/// Where the block of two atoms is held: `M_k x M_l` for k >= l, from where the one with l >= k is read transposed.
#[derive(Clone, Copy, Debug)]
struct Pair {
    with: usize,
    at: usize,
}

impl GramShape {
    /// For the atoms of a problem and what rows use together.
    pub fn new(problem: &Problem, layout: &SaeRowLayout) -> Arc<Self> {
        let columns: Vec<Range<usize>> = (0..problem.n_atoms()).map(|k| problem.rows_of(k)).collect();
        let pairs = (problem.is_proper() && problem.width() > WHOLE_TO).then(|| Pairs::new(&columns, layout.met()));
        Arc::new(Self { columns, pairs })
    }

    fn width(&self) -> usize {
        self.columns.last().map_or(0, |last| last.end)
    }

    /// Zeros for what is held: M x M, or all blocks end to end in one row.
    pub fn zeros(&self) -> Array2<f64> {
        let width = self.width();
        Array2::zeros(self.pairs.as_ref().map_or((width, width), |pairs| (1, pairs.entries)))
    }

    /// Number of entries held.
    pub fn entries(&self) -> usize {
        self.pairs.as_ref().map_or(self.width() * self.width(), |pairs| pairs.entries)
    }

    /// Adds `sum_i phi_i other_i'` over the rows of a chunk that use these supports; the sum is symmetric.
    pub fn add_rows<'a>(
        &self,
        supports: impl Iterator<Item = &'a [u32]>,
        phi: &Stacked,
        other: &Stacked,
        sum: &mut Array2<f64>,
    ) {
        let Some(pairs) = &self.pairs else {
            phi.add_crossed(other, sum.view_mut());
            return;
        };
        let held = sum.as_slice_mut().expect("one row");
        for (index, support) in supports.enumerate() {
            for (s, &k) in support.iter().enumerate() {
                let left = phi.part(index, s);
                for (t, &l) in support[..=s].iter().enumerate() {
                    let right = other.part(index, t);
                    let at = pairs.pair(k as usize, l as usize).expect("rows use what they meet").at;
                    for (value, row) in left.iter().zip(held[at..].chunks_exact_mut(right.len())) {
                        axpy(*value, right, row);
                    }
                }
            }
        }
    }
}

impl Pairs {
    /// `met` has for each atom the ones before it that some row uses with it, in order.
    fn new(columns: &[Range<usize>], met: &[Vec<u32>]) -> Self {
        let mut of: Vec<Vec<Pair>> = vec![Vec::new(); columns.len()];
        let mut at = 0;
        for (k, earlier) in met.iter().enumerate() {
            for l in earlier.iter().map(|&l| l as usize).chain([k]) {
                of[k].push(Pair { with: l, at });
                if l != k {
                    of[l].push(Pair { with: k, at });
                }
                at += columns[k].len() * columns[l].len();
            }
        }
        Self { of, entries: at }
    }

    fn pair(&self, k: usize, l: usize) -> Option<Pair> {
        let own = &self.of[k];
        own.binary_search_by_key(&l, |pair| pair.with).ok().map(|place| own[place])
    }
}

/// G.
#[derive(Clone, Debug)]
pub struct Gram {
    shape: Arc<GramShape>,
    held: Array2<f64>,
}

impl Gram {
    /// From what its rows have summed up.
    pub fn new(shape: Arc<GramShape>, held: Array2<f64>) -> Self {
        Self { shape, held }
    }

    /// The same entries, all zero.
    pub fn zeros_like(&self) -> Self {
        Self { shape: self.shape.clone(), held: self.shape.zeros() }
    }

    /// Adds a matrix for each atom to the diagonal blocks.
    pub fn add_blocks(&mut self, blocks: &[Array2<f64>]) {
        for (k, block) in blocks.iter().enumerate() {
            let mut own = self.own_mut(k);
            own += block;
        }
    }

    /// Entries held in all, where they are not all of them.
    pub fn blocks(&self) -> Option<usize> {
        self.shape.pairs.as_ref().map(|pairs| pairs.entries)
    }

    /// All entries.
    pub fn whole(&self) -> CowArray<'_, f64, Ix2> {
        match &self.shape.pairs {
            None => CowArray::from(self.held.view()),
            Some(_) => CowArray::from(self.among(&(0..self.shape.width()).collect::<Vec<_>>())),
        }
    }

    /// All entries, to be changed, where they are held; `None` where only blocks are.
    pub fn whole_mut(&mut self) -> Option<&mut Array2<f64>> {
        self.shape.pairs.is_none().then_some(&mut self.held)
    }

    fn block(&self, k: usize, pair: Pair) -> ArrayView2<'_, f64> {
        let (own, other) = (self.shape.columns[k].len(), self.shape.columns[pair.with].len());
        let held = self.held.as_slice().expect("one row");
        let part = &held[pair.at..pair.at + own * other];
        match k >= pair.with {
            true => ArrayView2::from_shape((own, other), part).expect("a block of two atoms"),
            false => ArrayView2::from_shape((other, own), part).expect("a block of two atoms").reversed_axes(),
        }
    }

    /// An atom's own block.
    pub fn own(&self, k: usize) -> ArrayView2<'_, f64> {
        match &self.shape.pairs {
            None => self.held.slice(s![self.shape.columns[k].clone(), self.shape.columns[k].clone()]),
            Some(pairs) => self.block(k, pairs.pair(k, k).expect("an atom meets itself")),
        }
    }

    fn own_mut(&mut self, k: usize) -> ArrayViewMut2<'_, f64> {
        let columns = self.shape.columns[k].clone();
        match &self.shape.pairs {
            None => self.held.slice_mut(s![columns.clone(), columns]),
            Some(pairs) => {
                let (at, own) = (pairs.pair(k, k).expect("an atom meets itself").at, columns.len());
                let held = self.held.as_slice_mut().expect("one row");
                ArrayViewMut2::from_shape((own, own), &mut held[at..at + own * own]).expect("an atom's own block")
            }
        }
    }

    /// Entries among some columns, in order, which are all those of the atoms they belong to.
    pub fn among(&self, columns: &[usize]) -> Array2<f64> {
        let Some(pairs) = &self.shape.pairs else {
            return self.held.select(ndarray::Axis(0), columns).select(ndarray::Axis(1), columns);
        };
        let mut out = Array2::zeros((columns.len(), columns.len()));
        let place = |k: usize| columns.binary_search(&self.shape.columns[k].start).ok();
        let first = |k: usize| place(k).map(|at| at..at + self.shape.columns[k].len());
        for (k, rows) in (0..pairs.of.len()).filter_map(|k| first(k).map(|rows| (k, rows))) {
            for pair in &pairs.of[k] {
                if let Some(to) = first(pair.with) {
                    out.slice_mut(s![rows.clone(), to]).assign(&self.block(k, *pair));
                }
            }
        }
        out
    }

    /// `G x` for stacked columns (M x c).
    pub fn times(&self, x: &Array2<f64>) -> Array2<f64> {
        let Some(pairs) = &self.shape.pairs else {
            return product((self.held.view(), Op::Plain), (x.view(), Op::Plain));
        };
        let columns = &self.shape.columns;
        let of_atom = |k: usize| {
            let mut out = Array2::zeros((columns[k].len(), x.ncols()));
            for pair in &pairs.of[k] {
                let with = x.slice(s![columns[pair.with].clone(), ..]);
                for (mut out, factors) in out.rows_mut().into_iter().zip(self.block(k, *pair).rows()) {
                    let out = out.as_slice_mut().expect("standard layout");
                    for (factor, row) in factors.iter().zip(with.rows()) {
                        axpy(*factor, row.to_slice().expect("standard layout"), out);
                    }
                }
            }
            out
        };
        let parts: Vec<Array2<f64>> = (0..columns.len()).into_par_iter().map(of_atom).collect();
        let views: Vec<ArrayView2<'_, f64>> = parts.iter().map(|part| part.view()).collect();
        ndarray::concatenate(ndarray::Axis(0), &views).expect("as many columns")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Supports of rows, columns of atoms, and G both ways.
    fn both(supports: &[Vec<u32>], widths: &[usize], seed: u64) -> (Gram, Gram) {
        let mut columns = Vec::new();
        for &width in widths {
            let from = columns.last().map_or(0, |last: &Range<usize>| last.end);
            columns.push(from..from + width);
        }
        let layout = SaeRowLayout::with_independent_logits(supports.iter().cloned(), 0, vec![1; widths.len()]).unwrap();
        let whole = Arc::new(GramShape { columns: columns.clone(), pairs: None });
        let pairs = Some(Pairs::new(&columns, layout.met()));
        let blocks = Arc::new(GramShape { columns: columns.clone(), pairs });
        let width = whole.width();
        let mut phi = Stacked::zeros(width, supports.iter().map(Vec::as_slice), |k| columns[k].clone());
        for (index, support) in supports.iter().enumerate() {
            for s in 0..support.len() {
                let part = phi.part_mut(index, s);
                part.iter_mut().enumerate().for_each(|(j, v)| {
                    *v = ((seed as f64 + 3.0 * index as f64 + 7.0 * s as f64 + 11.0 * j as f64) * 0.37).sin();
                });
            }
        }
        let made = |shape: Arc<GramShape>| {
            let mut sum = shape.zeros();
            shape.add_rows(supports.iter().map(Vec::as_slice), &phi, &phi, &mut sum);
            let mut gram = Gram::new(shape, sum);
            let prior: Vec<Array2<f64>> = widths.iter().map(|&w| Array2::eye(w) * 0.5).collect();
            gram.add_blocks(&prior);
            gram
        };
        (made(whole), made(blocks))
    }

    proptest! {
        #[test]
        fn blocks_are_those_of_the_whole_matrix(
            supports in prop::collection::vec(prop::collection::btree_set(0u32..5, 0..4), 1..12), seed in 0u64..1000
        ) {
            let supports: Vec<Vec<u32>> = supports.into_iter().map(|s| s.into_iter().collect()).collect();
            let widths = [3, 1, 4, 2, 3];
            let (whole, blocks) = both(&supports, &widths, seed);
            let close = |a: ArrayView2<'_, f64>, b: ArrayView2<'_, f64>| {
                a.dim() == b.dim() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12)
            };
            prop_assert!(close(whole.whole().view(), blocks.whole().view()));
            prop_assert!(blocks.blocks().unwrap() <= 13 * 13);
            for k in 0..5 {
                prop_assert!(close(whole.own(k), blocks.own(k)));
            }
            let some = [0, 1, 2, 8, 9];
            prop_assert!(close(whole.among(&some).view(), blocks.among(&some).view()));
            let x = Array2::from_shape_fn((13, 3), |(a, c)| ((a + 5 * c) as f64).cos());
            prop_assert!(close(whole.times(&x).view(), blocks.times(&x).view()));
        }
    }
}
