//! Rows per second of the row program, one row at a time and four at a time; `benchmarks/jets.py` runs it.
//!
//! Prints a line for rows that share their decoders, as the rows of a fit do, and one for rows that do not: the name, rows
//! per second one by one, rows per second by four.

use sae_core::{
    Atom, BasisJet, Circle, PackedBatch4, PackedJets, RowAtom, RowDecoder, RowGate, RowSlots,
    SaeReconstructionRowProgram,
};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// Atoms K, each with one logit and one coordinate: 2 K = 8 primaries.
const ATOMS: usize = 4;
/// Output columns p.
const OUTPUTS: usize = 64;
/// Rows of one timing: few, so that most timings fit between two interruptions by whatever else the machine does.
const ROWS: usize = 32;
/// Timings of each path, taken in turns; the shortest counts.
const REPEATS: usize = 2000;

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
    let decoders: Vec<_> = (0..ATOMS)
        .map(|_| ndarray::Array2::from_shape_simple_fn((circle.width(), OUTPUTS), || numbers.next()))
        .map(|decoder| Arc::new(RowDecoder::new(decoder.view())))
        .collect();
    let mut row = || {
        let mut jet = BasisJet::new(1, circle.width());
        let mut atom = |decoder: &Arc<RowDecoder>| {
            circle.jet(&[3.0 * numbers.next()], &mut jet);
            let own = || Arc::new((**decoder).clone());
            RowAtom::from_jet(&jet, if shared { decoder.clone() } else { own() })
        };
        let atoms = decoders.iter().map(&mut atom).collect();
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
    for (name, shared) in [("shared", true), ("own", false)] {
        let rows = rows(shared);
        let (mut one, mut four) = (PackedJets::default(), PackedBatch4::default());
        let (mut scalar, mut lanes) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..REPEATS {
            scalar = scalar.min(seconds(|| {
                for row in &rows {
                    row.reconstruction_all_columns_packed_into(&mut one);
                    black_box(&one);
                }
            }));
            lanes = lanes.min(seconds(|| {
                for rows in rows.chunks_exact(4) {
                    let rows = [&rows[0], &rows[1], &rows[2], &rows[3]];
                    SaeReconstructionRowProgram::reconstruction_all_columns_packed_batch4_into(rows, &mut four);
                    black_box(&four);
                }
            }));
        }
        println!("{name} {:.0} {:.0}", ROWS as f64 / scalar, ROWS as f64 / lanes);
    }
}
