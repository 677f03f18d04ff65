//! Under a threshold gate a row takes the memory of what it uses, whatever the dictionary has beside.

use ndarray::Array2;
use sae_core::{
    Atom, EvaluationOptions, Line, Problem, SaeManifoldRho, SaeManifoldTerm, SigmoidNodes, State, ThresholdGate,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// The system's allocator, which counts what is alive and the most that has been.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: memory is the system allocator's; beside that, numbers are counted
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        System.alloc(layout)
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        System.dealloc(at, layout);
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ATOMS: usize = 256;
const OUTPUTS: usize = 4;

/// Rows on one of many lines each.
fn term(n: usize) -> SaeManifoldTerm {
    let nodes = SigmoidNodes::new(&[-1.0, 1.0], &[0.5, 0.5], 0.0, 1.0).unwrap();
    let gate = Arc::new(ThresholdGate::new(0.0, 1.0, 0.04, &[], nodes).unwrap());
    let atoms = (0..ATOMS).map(|_| Arc::new(Line) as Arc<dyn Atom>).collect();
    let wave = |a: usize, b: usize| (1.3 * a as f64 + 2.1 * (a % 7 * b) as f64 + b as f64).sin();
    let problem = Problem::new(Array2::from_shape_fn((n, OUTPUTS), |(i, c)| wave(i, c)), None, atoms, gate, true);
    let problem = Arc::new(problem.unwrap().with_rows_kept(false));
    let logits = Array2::from_elem((n, ATOMS), 1.0);
    let coords = (0..ATOMS).map(|k| Array2::from_shape_fn((n, 1), |(i, _)| wave(k, i))).collect();
    let decoders = Array2::from_shape_fn((problem.width(), OUTPUTS), |(m, c)| wave(c + 3, m));
    let support = (0..n).map(|i| vec![(i % ATOMS) as u32]).collect();
    let state = State::new(&problem, logits, coords, decoders, Some(support)).unwrap();
    SaeManifoldTerm::new(problem, state)
}

/// Bytes that a step, V and its gradient take beyond what is there before, with one thread.
fn taken(n: usize) -> usize {
    let term = term(n);
    let rho = SaeManifoldRho::with_per_atom_smooth(0.0, vec![0.0; ATOMS], -1.0);
    let options = EvaluationOptions { max_inner: 1, ..Default::default() };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let found = pool.install(|| term.evaluate(&rho, &options, &|| false)).unwrap();
    assert!(found.value.is_finite() && !found.gradient.is_empty());
    let refreshed = pool.install(|| found.term.refreshed(&rho, &|| false)).unwrap();
    assert!(refreshed.is_some());
    PEAK.load(Ordering::Relaxed) - before
}

#[test]
fn no_table_over_rows_and_atoms_is_held() {
    let (few, many) = (16384, 20480);
    let a_row = (taken(many) as f64 - taken(few) as f64) / (many - few) as f64;
    // a number for each atom would take this and half as much again; so many rows have all accumulators of sums already
    assert!(a_row < 8.0 * ATOMS as f64 / 1.5, "{a_row} bytes");
}
