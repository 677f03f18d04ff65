//! One fit by several processes: each does all that a single one would, but works on rows of its own alone.
//!
//! What a pass over the rows makes of each segment of them is exchanged before it is folded, so every process folds what one
//! alone would have folded, in the same order, and goes on with the same bits. All have the whole state; linearised rows and
//! factors of rows stay where they were made.
//!
//! Processes keep in step because everything else is deterministic. What they exchange is labelled, and they compare their
//! states at every evaluation: those that have come apart, as on processors that round differently, end the fit.

use crate::wire::Wire;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

/// How processes reach each other.
pub trait Exchange: Send + Sync {
    /// This process's place among them, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Everyone's bytes in the order of ranks, once all have given theirs; the reason when that cannot be.
    fn all_gather(&self, mine: Vec<u8>) -> Result<Vec<Vec<u8>>, String>;
}

/// Why a pass could not be shared. It unwinds out of the core, since no pass has a result then; whoever started the work
/// catches it (`std::panic::catch_unwind`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeError(pub String);

/// The processes of a fit.
#[derive(Clone)]
pub struct Team {
    exchange: Arc<dyn Exchange>,
    /// Exchanges so far, which all have to agree on.
    calls: Arc<AtomicU64>,
}

impl fmt::Debug for Team {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Team({} of {})", self.exchange.rank(), self.exchange.size())
    }
}

impl Team {
    pub fn new(exchange: Arc<dyn Exchange>) -> Self {
        Self { exchange, calls: Arc::default() }
    }

    /// This process's share of things that lie in order; shares are as even as they can be.
    pub fn share(&self, count: usize) -> Range<usize> {
        let (rank, size) = (self.exchange.rank(), self.exchange.size());
        rank * count / size..(rank + 1) * count / size
    }

    /// Everyone's value in the order of ranks; this process's own is the one it gave.
    ///
    /// Unwinds with an [`ExchangeError`] when they cannot be had.
    pub fn gather<T: Wire>(&self, mine: T) -> Vec<T> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let label = Digest::default().text(std::any::type_name::<T>()).word(call).0;
        let mut bytes = Vec::new();
        label.put(&mut bytes);
        mine.put(&mut bytes);
        let all = match self.exchange.all_gather(bytes) {
            Ok(all) => all,
            Err(reason) => fail(reason),
        };
        if all.len() != self.exchange.size() {
            fail(format!("{} processes answered, expected {}", all.len(), self.exchange.size()));
        }
        let mut mine = Some(mine);
        all.iter()
            .enumerate()
            .map(|(rank, bytes)| {
                if rank == self.exchange.rank() {
                    return mine.take().expect("each rank once");
                }
                let mut left = &bytes[..];
                let theirs = u64::get(&mut left);
                if theirs != Some(label) {
                    fail(apart());
                }
                T::get(&mut left).filter(|_| left.is_empty()).unwrap_or_else(|| fail(apart()))
            })
            .collect()
    }

    /// Everyone's values, one after the other.
    pub fn concatenated<T: Wire>(&self, mine: Vec<T>) -> Vec<T> {
        self.gather(mine).into_iter().flatten().collect()
    }

    /// Unwinds unless all processes have the same digest.
    pub fn agree(&self, digest: &Digest) {
        if self.gather(digest.0).iter().any(|theirs| *theirs != digest.0) {
            fail(apart());
        }
    }
}

fn fail(reason: String) -> ! {
    // not a panic: nothing is wrong in this process, and no message is printed
    std::panic::resume_unwind(Box::new(ExchangeError(reason)))
}

fn apart() -> String {
    "the processes have come to different numbers: they need the same libraries on like processors".into()
}

/// A digest of numbers, equal where all their bits are (FNV-1a over words).
#[derive(Clone, Debug)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    pub fn word(mut self, word: u64) -> Self {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        // multiplication carries upwards only
        self.0 ^= self.0 >> 32;
        self
    }

    pub fn text(self, text: &str) -> Self {
        text.bytes().fold(self, |digest, byte| digest.word(u64::from(byte)))
    }

    pub fn numbers<'a>(self, values: impl IntoIterator<Item = &'a f64>) -> Self {
        values.into_iter().fold(self, |digest, value| digest.word(value.to_bits()))
    }
}
