//! Threads in place of processes, each with a channel to every other.

use super::*;
use crate::atoms::{Atom, Circle};
use crate::chunks::{Chunks, PerChunk, CHUNK_ROWS};
use crate::gates::{ColumnEnergy, Ibp};
use crate::{EvaluationOptions, Problem, SaeManifoldRho, SaeManifoldTerm};
use ndarray::Array2;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Mutex;

struct Channels {
    rank: usize,
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Mutex<Receiver<Vec<u8>>>>,
}

impl Channels {
    fn all(size: usize) -> Vec<Self> {
        let mut all: Vec<Self> = (0..size).map(|rank| Self { rank, to: Vec::new(), from: Vec::new() }).collect();
        for to in 0..size {
            for from in 0..size {
                let (sender, receiver) = channel();
                all[from].to.push(sender);
                all[to].from.push(Mutex::new(receiver));
            }
        }
        all
    }

    fn send(&self, to: usize, bytes: &[u8]) -> Result<(), String> {
        self.to[to].send(bytes.to_vec()).map_err(|_| format!("process {to} is gone"))
    }

    fn receive(&self, from: usize) -> Result<Vec<u8>, String> {
        self.from[from].lock().unwrap().recv().map_err(|_| format!("process {from} is gone"))
    }
}

impl Exchange for Channels {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn all_gather(&self, mine: Vec<u8>) -> Result<Vec<Vec<u8>>, String> {
        (0..self.size()).try_for_each(|to| self.send(to, &mine))?;
        (0..self.size()).map(|from| self.receive(from)).collect()
    }

    fn take(&self) -> Result<Vec<u8>, String> {
        self.receive(self.rank - 1)
    }

    fn hand_on(&self, mine: Vec<u8>) -> Result<Vec<u8>, String> {
        let last = self.size() - 1;
        if self.rank < last {
            self.send(self.rank + 1, &mine)?;
            return self.receive(last);
        }
        (0..last).try_for_each(|to| self.send(to, &mine))?;
        Ok(mine)
    }
}

/// What each of some processes comes to.
fn together<T: Send>(size: usize, work: impl Fn(Team) -> T + Sync) -> Vec<Result<T, ExchangeError>> {
    let one = |own: Channels| {
        let team = Team::new(Arc::new(own));
        catch_unwind(AssertUnwindSafe(|| work(team))).map_err(|error| *error.downcast().expect("an exchange error"))
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = Channels::all(size).into_iter().map(|own| scope.spawn(|| one(own))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

const N: usize = 5 * CHUNK_ROWS + 17;

/// Rows near two circles in planes of their own; every third row is near both.
fn data() -> Array2<f64> {
    Array2::from_shape_fn((N, 5), |(i, c)| {
        let (angle, noise) = (2.399_963 * i as f64, 0.05 * (12.9898 * (5 * i + c) as f64).sin());
        let on = [i % 3 != 1, i % 3 != 0][usize::from(c > 1)];
        noise + f64::from(u8::from(on && c < 4)) * if c % 2 == 0 { angle.cos() } else { (1.7 * angle).sin() }
    })
}

/// V with its gradient, and the state after a refresh, bit by bit.
fn bits(team: Option<Team>, log_sparse: f64) -> Vec<u64> {
    let circle = || Arc::new(Circle::new(1).unwrap()) as Arc<dyn Atom>;
    let gate = Arc::new(Ibp::new(1.0, false, ColumnEnergy::Ordered, 0.8, 0.04, &[]).unwrap());
    let problem = Problem::new(data(), None, vec![circle(), circle()], gate, true).unwrap().with_team(team);
    let seeds = SaeManifoldTerm::seeds(Arc::new(problem), 1, 0, None, &|| false).unwrap();
    let (term, rho) = seeds.into_iter().next().unwrap();
    let rho = SaeManifoldRho { log_lambda_sparse: log_sparse, ..rho };
    let found = term.evaluate(&rho, &EvaluationOptions { max_inner: 10, ..Default::default() }, &|| false).unwrap();
    assert!(found.value.is_finite() && !found.gradient.is_empty());
    let (after, changed) = found.term.refreshed(&rho, &|| false).unwrap().unwrap();
    let mut out = vec![found.value.to_bits(), changed as u64];
    out.extend(found.gradient.iter().map(|v| v.to_bits()));
    for state in [&found.term.state, &after.state] {
        out.extend(state.values().map(|v| v.to_bits()));
    }
    out
}

#[test]
fn processes_change_no_bit() {
    let alone = bits(None, 0.5);
    for size in [1, 2, 3, 7] {
        for found in together(size, |team| bits(Some(team), 0.5)) {
            assert!(found.unwrap() == alone, "{size} processes");
        }
    }
}

#[test]
fn processes_that_come_apart_say_so() {
    // strengths that differ in their last bits
    let found = together(2, |team| {
        let log_sparse = 0.5 + 1e-16 * 2.0 * f64::from(u8::from(team.share(2).start == 1));
        bits(Some(team), log_sparse)
    });
    for error in found {
        assert!(error.unwrap_err().0.contains("different numbers"));
    }
}

#[test]
fn a_process_that_is_gone_ends_the_others() {
    let found = together(3, |team| match team.share(3).start {
        1 => Vec::new(),
        _ => bits(Some(team), 0.5),
    });
    assert_eq!(found[1], Ok(Vec::new()));
    for rank in [0, 2] {
        assert!(found[rank].as_ref().unwrap_err().0.ends_with("is gone"));
    }
}

#[test]
fn passes_of_other_exchanges_are_told_apart() {
    for found in together(2, |team| match team.share(2).start {
        0 => team.gather(1.0f64).len(),
        _ => team.gather(1u64).len(),
    }) {
        assert!(found.unwrap_err().0.contains("different numbers"));
    }
}

#[test]
fn sums_are_those_of_one_process() {
    let n = 40 * CHUNK_ROWS;
    let sums = |team: Option<&Team>| {
        let plan = Chunks::new(n, CHUNK_ROWS, 0, team);
        let of = |chunks: Range<usize>| Array2::from_elem((1, 2), chunks.map(|c| (c as f64).sqrt()).sum::<f64>());
        plan.map_summed(Array2::from_elem((1, 2), 1e6), |chunks| (chunks.start, of(chunks)))
    };
    let alone = sums(None);
    for found in together(3, |team| sums(Some(&team))) {
        assert_eq!(found.unwrap(), alone);
    }
}

/// Plans of large accumulators have fewer segments, which lie across those of others.
#[test]
fn what_is_kept_of_chunks_is_had_under_other_plans() {
    let n = 40 * CHUNK_ROWS;
    for found in together(3, |team| {
        let few = Chunks::new(n, CHUNK_ROWS, 50 << 20, Some(&team));
        let many = Chunks::new(n, CHUNK_ROWS, 0, Some(&team));
        assert!(few.segments().len() < many.segments().len());
        let own = few.segments()[team.share(few.segments().len())].iter().flat_map(Range::clone).collect();
        let kept = PerChunk::new(&few, own);
        let held = |kept: &PerChunk<usize>| (0..40).filter(|c| kept.get(*c) == Some(c)).count();
        assert!(held(&kept) < 40);
        assert!(kept.spread(&few, &few).is_none());
        held(&kept.known_under(&few, &many))
    }) {
        assert_eq!(found.unwrap(), 40);
    }
}
