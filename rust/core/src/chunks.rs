//! The division of rows into chunks, of chunks into segments, and of segments among the processes of a fit.

use crate::exchange::Team;
use crate::wire::Wire;
use ndarray::Array2;
use rayon::prelude::*;
use std::ops::{Index, Range};
use std::sync::{Arc, Mutex};

/// Rows of a chunk: enough for its matrix products to run at speed, few enough to stay in cache.
pub const CHUNK_ROWS: usize = 128;
/// Dictionaries of up to so many atoms have chunks of that size. Of more, rows that use few lie far apart in the decoders, which
/// no cache holds: chunks then have as many times more rows, so that what is read of an atom is for several of them.
const CHUNKED_ATOMS: usize = 64;
/// Up to so many times more, and as long as there are that many chunks.
const LONGEST: usize = 8;
/// Chunks are shared out in at most this many segments, each with accumulators of its own. Fixed, so that sums fold
/// in the same order on any number of threads and processes.
const MAX_SEGMENTS: usize = 32;

/// Rows of a chunk where so many atoms share out so many rows.
pub fn rows_of_chunk(n_rows: usize, n_atoms: usize) -> usize {
    let longest = (n_rows / (LONGEST * CHUNK_ROWS)).clamp(1, LONGEST);
    CHUNK_ROWS * (n_atoms / CHUNKED_ATOMS).clamp(1, longest)
}

/// Bytes that segments are counted with where each sums a border vector and once, in the first pass of many, G beside it: with
/// all of G these would be few for the other passes, with none of it the first would take many times its memory.
pub fn bytes_with_gram(border: usize, gram: usize) -> usize {
    8 * border.max(gram / 4)
}

/// Number of segments that rows are shared out in, each with accumulators of so many bytes.
pub fn accumulators(n_rows: usize, chunk_rows: usize, bytes: usize) -> usize {
    /// Accumulators of all segments together stay below this.
    const BUDGET: usize = 128 << 20;
    let affordable = (BUDGET / bytes.max(1)).max(1);
    n_rows.div_ceil(chunk_rows).clamp(1, MAX_SEGMENTS).min(affordable)
}

/// The fixed division of rows into chunks and of chunks into segments.
#[derive(Clone, Debug)]
pub struct Chunks {
    n: usize,
    chunk_rows: usize,
    segments: Vec<Range<usize>>,
    /// The processes that segments are shared out among; `None` where one has them all.
    team: Option<Team>,
    accumulators: Arc<Accumulators>,
}

impl Chunks {
    /// `accumulator_bytes` is the size of one segment's accumulators; large ones mean fewer segments.
    pub fn new(n: usize, chunk_rows: usize, accumulator_bytes: usize, team: Option<&Team>) -> Self {
        let n_chunks = n.div_ceil(chunk_rows).max(1);
        let count = accumulators(n, chunk_rows, accumulator_bytes);
        let segments = (0..count).map(|s| s * n_chunks / count..(s + 1) * n_chunks / count).collect();
        Self { n, chunk_rows, segments, team: team.cloned(), accumulators: Arc::default() }
    }

    /// Number of chunks.
    pub fn len(&self) -> usize {
        self.segments.last().map_or(0, |s| s.end)
    }

    pub fn rows(&self, chunk: usize) -> Range<usize> {
        chunk * self.chunk_rows..((chunk + 1) * self.chunk_rows).min(self.n)
    }

    /// The segments of this process.
    fn own(&self) -> &[Range<usize>] {
        match &self.team {
            None => &self.segments,
            Some(team) => &self.segments[team.share(self.segments.len())],
        }
    }

    /// Runs `work` on every segment in parallel; results come back in order. Where several processes share the segments, each
    /// works on its own, and gets the results of the others.
    pub fn map<T: Send + Wire>(&self, work: impl Fn(Range<usize>) -> T + Sync) -> Vec<T> {
        self.everyones(self.own().par_iter().map(|s| work(s.clone())).collect())
    }

    /// The same with what segments sum: theirs are added to `sum` in order.
    pub fn map_summed<T: Send + Wire, S: Sum>(
        &self,
        sum: S,
        work: impl Fn(Range<usize>) -> (T, S) + Sync,
    ) -> (Vec<T>, S) {
        let (own, parts): (Vec<T>, Vec<S>) = self.own().par_iter().map(|s| work(s.clone())).unzip();
        let sum = self.folded(sum, &parts);
        (self.everyones(own), sum)
    }

    /// What each process's segments sum, added to `sum` in order.
    fn folded<S: Sum>(&self, mut sum: S, parts: &[S]) -> S {
        let add = |sum: &mut S| parts.iter().for_each(|part| sum.add(part));
        match &self.team {
            None => {
                add(&mut sum);
                sum
            }
            Some(team) => team.in_turn(sum, add),
        }
    }

    /// The sums of all segments, added to `sum` in order.
    pub fn summed<S: Sum>(&self, sum: S, work: impl Fn(Range<usize>) -> S + Sync) -> S {
        self.map_summed(sum, |chunks| ((), work(chunks))).1
    }

    /// Runs `work` on every segment with an accumulator of its own; returns its results and the sum of the accumulators, added
    /// in order.
    pub fn accumulated<T: Send + Wire>(
        &self,
        shape: (usize, usize),
        work: impl Fn(Range<usize>, &mut Array2<f64>) -> T + Sync,
    ) -> (Vec<T>, Array2<f64>) {
        let of_segment = |segment: &Range<usize>| {
            let mut own = self.accumulators.zeros(shape);
            (work(segment.clone(), &mut own), own)
        };
        let (own, parts): (Vec<T>, Vec<Array2<f64>>) = self.own().par_iter().map(of_segment).unzip();
        let sum = self.folded(Array2::zeros(shape), &parts);
        self.accumulators.put_back(parts);
        (self.everyones(own), sum)
    }

    fn everyones<T: Wire>(&self, own: Vec<T>) -> Vec<T> {
        match &self.team {
            None => own,
            Some(team) if T::SENT => team.concatenated(own),
            Some(team) => {
                let (mine, mut own) = (team.share(self.segments.len()), own.into_iter());
                let elsewhere = || T::get(&mut &[][..]).expect("nothing is sent");
                let of = |s| if mine.contains(&s) { own.next().expect("one a segment") } else { elsewhere() };
                (0..self.segments.len()).map(of).collect()
            }
        }
    }

    /// The segments, each a range of chunks.
    pub fn segments(&self) -> &[Range<usize>] {
        &self.segments
    }
}

/// Accumulators of one length that are not in use. An iteration makes a pass after the other: fresh memory for each of them
/// takes the system as long as the pass.
#[derive(Debug, Default)]
struct Accumulators(Mutex<Vec<Vec<f64>>>);

impl Accumulators {
    fn zeros(&self, shape: (usize, usize)) -> Array2<f64> {
        let len = shape.0 * shape.1;
        let kept = self.0.lock().expect("no pass panics here").pop().filter(|kept| kept.len() == len);
        let Some(mut kept) = kept else { return Array2::zeros(shape) };
        kept.fill(0.0);
        Array2::from_shape_vec(shape, kept).expect("as many entries")
    }

    fn put_back(&self, parts: Vec<Array2<f64>>) {
        let parts = parts.into_iter().map(|part| part.into_raw_vec_and_offset().0);
        *self.0.lock().expect("no pass panics here") = parts.collect();
    }
}

/// What segments sum.
pub trait Sum: Wire + Send {
    fn add(&mut self, other: &Self);
}

impl Sum for Array2<f64> {
    fn add(&mut self, other: &Self) {
        *self += other;
    }
}

impl Sum for Vec<Array2<f64>> {
    fn add(&mut self, other: &Self) {
        self.iter_mut().zip(other).for_each(|(sum, other)| *sum += other);
    }
}

impl<A: Sum, B: Sum> Sum for (A, B) {
    fn add(&mut self, other: &Self) {
        self.0.add(&other.0);
        self.1.add(&other.1);
    }
}

/// What a pass has made of each chunk that this process works on.
#[derive(Debug)]
pub struct PerChunk<T> {
    first: usize,
    of: Vec<T>,
}

impl<T> Default for PerChunk<T> {
    fn default() -> Self {
        Self { first: 0, of: Vec::new() }
    }
}

impl<T> PerChunk<T> {
    /// `of` are those of this process's chunks under a plan, in their order.
    pub fn new(plan: &Chunks, of: Vec<T>) -> Self {
        Self { first: plan.own().first().map_or(0, |s| s.start), of }
    }

    /// `None` for a chunk of another process.
    pub fn get(&self, chunk: usize) -> Option<&T> {
        chunk.checked_sub(self.first).and_then(|at| self.of.get(at))
    }
}

impl<T: Wire + Clone> PerChunk<T> {
    /// Those of all chunks, for a pass under a plan that shares chunks out differently from the one that these were made under;
    /// `None` where it does not.
    pub fn spread(&self, made: &Chunks, used: &Chunks) -> Option<Self> {
        let team = made.team.as_ref().filter(|_| made.segments != used.segments)?;
        Some(Self { first: 0, of: team.concatenated(self.of.clone()) })
    }

    /// What a pass under another plan needs of these.
    pub fn known_under(self, made: &Chunks, used: &Chunks) -> Self {
        self.spread(made, used).unwrap_or(self)
    }
}

impl<T> Index<usize> for PerChunk<T> {
    type Output = T;

    /// Panics for a chunk of another process.
    fn index(&self, chunk: usize) -> &T {
        self.get(chunk).expect("a pass works on chunks of its own process")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_row_is_in_one_chunk_of_one_segment(
            n in 1usize..20_000, n_atoms in 1usize..2000, bytes in 0usize..(200 << 20)
        ) {
            let chunk_rows = rows_of_chunk(n, n_atoms);
            let plan = Chunks::new(n, chunk_rows, bytes, None);
            let rows: Vec<usize> = plan.segments().iter().flat_map(|s| s.clone().flat_map(|c| plan.rows(c))).collect();
            prop_assert_eq!(rows, (0..n).collect::<Vec<_>>());
            prop_assert_eq!(plan.segments().len(), accumulators(n, chunk_rows, bytes));
        }
    }

    #[test]
    fn accumulators_are_used_again_from_zero_and_for_other_shapes() {
        let n = 40 * CHUNK_ROWS;
        let plan = Chunks::new(n, CHUNK_ROWS, 0, None);
        let pass = |shape: (usize, usize)| {
            let add = |chunks: Range<usize>, sum: &mut Array2<f64>| {
                chunks.for_each(|c| *sum += plan.rows(c).len() as f64);
            };
            plan.accumulated(shape, add).1
        };
        for shape in [(2, 3), (2, 3), (3, 2), (4, 5), (2, 3)] {
            assert_eq!(pass(shape), Array2::from_elem(shape, n as f64));
        }
    }
}
