//! Rows per second of the row program, one row at a time and four at a time; `benchmarks/jets.py` runs it.

use sae_core::{Atom, BasisJet, Circle, RowAtom, RowGate, RowSlots, SaeReconstructionRowProgram};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// Atoms K, each with one logit and one coordinate: 2 K = 8 primaries.
const ATOMS: usize = 4;
/// Output columns p.
const OUTPUTS: usize = 64;
/// Rows of one timing.
const ROWS: usize = 32;
/// Timings of each path, taken alternately; the shortest counts.
const REPEATS: usize = 1000;

/// Numbers between -1 and 1 that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

fn rows(shared: bool) -> Vec<SaeReconstructionRowProgram> {
    let circle = Circle::new(3).expect("three harmonics");
    let mut numbers = Numbers(7);
    let mut decoder = || Arc::new(ndarray::Array2::from_shape_simple_fn((circle.width(), OUTPUTS), || numbers.next()));
    let common: Vec<_> = (0..ATOMS).map(|_| decoder()).collect();
    let mut numbers = Numbers(11);
    let mut row = || {
        let atoms = (0..ATOMS)
            .map(|k| {
                let (m, mut jet) = (circle.width(), BasisJet::new(1, circle.width()));
                circle.jet(&[3.0 * numbers.next()], &mut jet);
                let decoder = if shared { common[k].clone() } else { Arc::new((*common[k]).clone()) };
                RowAtom {
                    phi: jet.phi.into(),
                    d_phi: ndarray::Array2::from_shape_vec((m, 1), jet.d1).expect("d x M"),
                    d2_phi: ndarray::Array3::from_shape_vec((m, 1, 1), jet.d2).expect("d x d x M"),
                    decoder,
                }
            })
            .collect();
        let logits = (0..ATOMS).map(|_| 2.0 * numbers.next()).collect();
        let slots = RowSlots {
            primaries: 2 * ATOMS,
            logits: (0..ATOMS).map(Some).collect(),
            coords: (0..ATOMS).map(|k| vec![Some(ATOMS + k)]).collect(),
        };
        SaeReconstructionRowProgram::new(atoms, logits, RowGate::Softmax, 1.0, slots).expect("a well-formed row")
    };
    (0..ROWS).map(|_| row()).collect()
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn main() {
    for shared in [true, false] {
        let rows = rows(shared);
        let (mut scalar, mut lanes) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..REPEATS {
            scalar = scalar.min(seconds(|| {
                for row in &rows {
                    black_box(row.reconstruction_all_columns_packed());
                }
            }));
            lanes = lanes.min(seconds(|| {
                for four in rows.chunks_exact(4) {
                    let four = [&four[0], &four[1], &four[2], &four[3]];
                    black_box(SaeReconstructionRowProgram::reconstruction_all_columns_packed_batch4(four));
                }
            }));
        }
        let [scalar, lanes] = [scalar, lanes].map(|s| ROWS as f64 / s);
        println!("{} {scalar:.0} {lanes:.0} {:.2}", if shared { "shared" } else { "own" }, lanes / scalar);
    }
}
