//! One fit by several processes: each does all that a single one would, but works on rows of its own alone.
//!
//! What a pass makes of single rows is gathered; what it sums over the rows is handed from process to process, of which each
//! adds what it has, segment by segment, in the order in which one alone would have added it. So all go on with the same bits
//! as one. All have the whole state; linearised rows and factors of rows stay where they were made.
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

    /// Everyone's bytes in the order of ranks, once all have given theirs; the reason when that cannot be. This process's own
    /// entry is not read.
    fn all_gather(&self, mine: Vec<u8>) -> Result<Vec<Vec<u8>>, String>;

    /// What the process before this one, which is not the first, hands on.
    fn take(&self) -> Result<Vec<u8>, String>;

    /// Hands on to the next process; returns what the last one of all hands on, which on that one is not read.
    fn hand_on(&self, mine: Vec<u8>) -> Result<Vec<u8>, String>;

    /// The reason why work that is under way is to end, if there is one.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
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

    /// The reason why work that is under way is to end, if there is one.
    pub fn check(&self) -> Result<(), ExchangeError> {
        self.exchange.check().map_err(ExchangeError)
    }

    /// This process's share of things that lie in order; shares are as even as they can be.
    pub fn share(&self, count: usize) -> Range<usize> {
        let (rank, size) = (self.exchange.rank(), self.exchange.size());
        rank * count / size..(rank + 1) * count / size
    }

    /// Everyone's value in the order of ranks; this process's own is the one it gave.
    ///
    /// Unwinds with an [`ExchangeError`] when they cannot be had, as all that follows does.
    pub fn gather<T: Wire>(&self, mine: T) -> Vec<T> {
        let label = self.label::<T>();
        let all = self.exchange.all_gather(label.written(&mine)).unwrap_or_else(|reason| fail(reason));
        if all.len() != self.exchange.size() {
            fail(format!("{} processes answered, expected {}", all.len(), self.exchange.size()));
        }
        let mut mine = Some(mine);
        let of = |(rank, bytes): (usize, &Vec<u8>)| match rank == self.exchange.rank() {
            true => mine.take().expect("each rank once"),
            false => label.read(bytes),
        };
        all.iter().enumerate().map(of).collect()
    }

    /// A value to which all processes in the order of their ranks do what `add` does.
    pub fn in_turn<T: Wire>(&self, start: T, add: impl FnOnce(&mut T)) -> T {
        let label = self.label::<T>();
        let mut value = match self.exchange.rank() {
            0 => start,
            _ => label.read(&self.exchange.take().unwrap_or_else(|reason| fail(reason))),
        };
        add(&mut value);
        let last = self.exchange.hand_on(label.written(&value)).unwrap_or_else(|reason| fail(reason));
        match self.exchange.rank() + 1 == self.exchange.size() {
            true => value,
            false => label.read(&last),
        }
    }

    fn label<T>(&self) -> Label {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        Label(Digest::default().text(std::any::type_name::<T>()).word(call).0)
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

/// Says of which exchange some bytes are.
#[derive(Clone, Copy)]
struct Label(u64);

impl Label {
    fn written(self, value: &impl Wire) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.put(&mut bytes);
        value.put(&mut bytes);
        bytes
    }

    fn read<T: Wire>(self, mut bytes: &[u8]) -> T {
        if u64::get(&mut bytes) != Some(self.0) {
            fail(apart());
        }
        T::get(&mut bytes).filter(|_| bytes.is_empty()).unwrap_or_else(|| fail(apart()))
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

#[cfg(test)]
mod tests;
