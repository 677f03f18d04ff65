use super::*;
use crate::jets::{Jet, Order1, Order2, Tower4};
use crate::{Atom, Circle};
use proptest::prelude::*;

/// The size of a row: coordinates of each atom, their basis widths, outputs.
#[derive(Clone, Debug)]
struct Shape {
    dims: Vec<usize>,
    widths: Vec<usize>,
    outputs: usize,
    softmax: bool,
    temperature: f64,
}

/// A source of numbers between -1 and 1 that needs no state beyond its own.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

impl Shape {
    fn n_atoms(&self) -> usize {
        self.dims.len()
    }

    /// All variables free, coordinates before logits and backwards, so that no slot is where a default would put it.
    fn slots(&self) -> RowSlots {
        let total: usize = self.n_atoms() + self.dims.iter().sum::<usize>();
        let mut next = (0..total).rev();
        let mut coords: Vec<Vec<Option<usize>>> =
            self.dims.iter().map(|&d| next.by_ref().take(d).map(Some).collect()).collect();
        coords.iter_mut().for_each(|axes| axes.reverse());
        RowSlots { primaries: total, logits: next.map(Some).collect(), coords }
    }

    fn row(&self, slots: RowSlots, seed: u64, shared: Option<&[Arc<RowDecoder>]>) -> SaeReconstructionRowProgram {
        let mut numbers = Numbers(seed);
        let atoms = self.dims.iter().zip(&self.widths).enumerate().map(|(k, (&d, &m))| {
            let mut next = || numbers.next();
            let phi = Array1::from_shape_simple_fn(m, &mut next);
            let d_phi = Array2::from_shape_simple_fn((m, d), &mut next);
            let half = Array3::from_shape_simple_fn((m, d, d), &mut next);
            let d2_phi = Array3::from_shape_fn((m, d, d), |(b, x, y)| half[[b, x, y]] + half[[b, y, x]]);
            let own = Array2::from_shape_simple_fn((m, self.outputs), &mut next);
            let decoder = shared.map_or_else(|| Arc::new(RowDecoder::new(own.view())), |all| all[k].clone());
            RowAtom { phi, d_phi, d2_phi, decoder }
        });
        let atoms = atoms.collect();
        let mut many = |scale: f64| (0..self.n_atoms()).map(|_| scale * numbers.next()).collect::<Vec<_>>();
        let logits = many(2.0);
        let gate = match self.softmax {
            true => RowGate::Softmax,
            false => RowGate::Logistic { scale: many(1.0), shift: many(0.5) },
        };
        SaeReconstructionRowProgram::new(atoms, logits, gate, 1.0 / self.temperature, slots).unwrap()
    }

    fn decoders(&self, seed: u64) -> Vec<Arc<RowDecoder>> {
        let mut numbers = Numbers(seed);
        let mut decoder = |m| Array2::from_shape_simple_fn((m, self.outputs), || numbers.next());
        self.widths.iter().map(|&m| Arc::new(RowDecoder::new(decoder(m).view()))).collect()
    }
}

fn shape() -> impl Strategy<Value = Shape> {
    let atoms = prop::collection::vec((0usize..3, 1usize..5), 1..4);
    (atoms, 1usize..4, any::<bool>(), prop::sample::select(vec![0.5, 1.0, 2.0])).prop_map(
        |(atoms, outputs, softmax, temperature)| {
            let (dims, widths) = atoms.into_iter().unzip();
            Shape { dims, widths, outputs, softmax, temperature }
        },
    )
}

/// Column c with its primaries moved by `u`, in plain numbers: gates from their definitions and curves from the local model.
fn plain(row: &SaeReconstructionRowProgram, c: usize, u: &[f64]) -> f64 {
    let moved = |slot: &Option<usize>| slot.map_or(0.0, |s| u[s]);
    let exponent = |k: usize| row.inverse_temperature * (row.logits[k] + moved(&row.slots.logits[k]));
    let total: f64 = (0..row.n_atoms()).map(|j| exponent(j).exp()).sum();
    let gate = |k: usize| match &row.gate {
        RowGate::Softmax => exponent(k).exp() / total,
        RowGate::Logistic { scale, shift } => {
            scale[k] / (1.0 + (row.inverse_temperature * shift[k] - exponent(k)).exp())
        }
    };
    let curve = |k: usize| {
        let (atom, t): (_, Vec<f64>) = (&row.atoms[k], row.slots.coords[k].iter().map(moved).collect());
        let basis = |b: usize| {
            let mut phi = atom.phi[b];
            for x in 0..t.len() {
                phi += atom.d_phi[[b, x]] * t[x];
                phi += (0..t.len()).map(|y| 0.5 * atom.d2_phi[[b, x, y]] * t[x] * t[y]).sum::<f64>();
            }
            phi
        };
        (0..atom.phi.len()).map(|b| basis(b) * atom.decoder.column(c)[b]).sum::<f64>()
    };
    (0..row.n_atoms()).map(|k| gate(k) * curve(k)).sum()
}

/// The same column by sums and products of jets that know nothing of which factor depends on what.
fn textbook<J: Jet<Value = f64>>(row: &SaeReconstructionRowProgram, space: J::Space, c: usize) -> J {
    let seed = |value: f64, slot: &Option<usize>| match slot {
        Some(slot) => J::variable(space, value, *slot),
        None => J::constant(space, value),
    };
    let top = row.logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let logit = |k: usize| seed(row.logits[k], &row.slots.logits[k]);
    let exponentials: Vec<J> =
        (0..row.n_atoms()).map(|k| logit(k).shift(-top).scale(row.inverse_temperature).exp()).collect();
    let total = exponentials[1..].iter().fold(exponentials[0].clone(), |sum, e| sum.add(e));
    let gate = |k: usize| match &row.gate {
        RowGate::Softmax => exponentials[k].mul(&total.recip()),
        RowGate::Logistic { scale, shift } => {
            logit(k).shift(-shift[k]).scale(row.inverse_temperature).sigmoid().scale(scale[k])
        }
    };
    let mut out = J::constant(space, 0.0);
    for (k, atom) in row.atoms.iter().enumerate() {
        let t: Vec<J> = row.slots.coords[k].iter().map(|slot| seed(0.0, slot)).collect();
        let mut curve = J::constant(space, 0.0);
        for b in 0..atom.phi.len() {
            let mut phi = J::constant(space, atom.phi[b]);
            for x in 0..t.len() {
                phi = phi.add(&t[x].scale(atom.d_phi[[b, x]]));
                for y in 0..t.len() {
                    phi = phi.add(&t[x].mul(&t[y]).scale(0.5 * atom.d2_phi[[b, x, y]]));
                }
            }
            curve = curve.add(&phi.scale(atom.decoder.column(c)[b]));
        }
        out = out.add(&gate(k).mul(&curve));
    }
    out
}

/// A mixed derivative by central differences of the plain column, extrapolated once: the error is of fourth order in e.
fn difference(row: &SaeReconstructionRowProgram, c: usize, slots: &[usize], e: f64) -> f64 {
    (4.0 * central(row, c, slots, e) - central(row, c, slots, 2.0 * e)) / 3.0
}

fn central(row: &SaeReconstructionRowProgram, c: usize, slots: &[usize], e: f64) -> f64 {
    let signs = 0..1u32 << slots.len();
    let total: f64 = signs
        .map(|bits| {
            let (mut u, mut sign) = (vec![0.0; row.n_primaries()], 1.0);
            for (i, &slot) in slots.iter().enumerate() {
                let s = if bits >> i & 1 == 1 { 1.0 } else { -1.0 };
                u[slot] += s * e;
                sign *= s;
            }
            sign * plain(row, c, &u)
        })
        .sum();
    total / (2.0 * e).powi(slots.len() as i32)
}

/// All index tuples of a tensor over n slots, in row-major order.
fn indices(n: usize, order: u32) -> impl Iterator<Item = Vec<usize>> {
    (0..n.pow(order)).map(move |i| (0..order).rev().map(|o| i / n.pow(o) % n).collect())
}

/// The largest distance between a tensor and its differences, relative to the tensor's largest entry.
fn distance(row: &SaeReconstructionRowProgram, c: usize, order: u32, e: f64, tensor: &[f64]) -> f64 {
    let scale = tensor.iter().fold(1e-2, |m: f64, value| m.max(value.abs()));
    let slopes = indices(row.n_primaries(), order).map(|slots| difference(row, c, &slots, e));
    slopes.zip(tensor).fold(0.0, |m: f64, (slope, value)| m.max((value - slope).abs())) / scale
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Derivatives of one column of a packing.
fn column(packed: &PackedJets, order: usize, c: usize) -> &[f64] {
    let size = packed.primaries().pow(order as u32);
    &packed.derivatives(order)[c * size..(c + 1) * size]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_order_matches_differences_of_the_plain_row(shape in shape(), seed in any::<u64>()) {
        let row = shape.row(shape.slots(), seed, None);
        let c = shape.outputs - 1;
        let tower = row.reconstruction_column(c).unwrap();
        // in units of the temperature, on which gates vary
        let e = |e: f64| e * shape.temperature.min(1.0);
        prop_assert!((tower.low.value - plain(&row, c, &vec![0.0; row.n_primaries()])).abs() < 1e-13);
        prop_assert!(distance(&row, c, 1, e(1e-3), &tower.low.gradient) < 1e-8);
        prop_assert!(distance(&row, c, 2, e(1e-3), &tower.low.hessian) < 1e-6);
        prop_assert!(distance(&row, c, 3, e(1e-2), &tower.t3) < 1e-5);
        prop_assert!(distance(&row, c, 4, e(2e-2), &tower.t4) < 1e-4);
    }

    #[test]
    fn all_columns_are_the_columns_to_the_bit(shape in shape(), seed in any::<u64>()) {
        let row = shape.row(shape.slots(), seed, None);
        let packed = row.reconstruction_all_columns_packed();
        prop_assert_eq!((packed.columns(), packed.primaries(), packed.order()), (shape.outputs, row.n_primaries(), 2));
        for c in 0..shape.outputs {
            let tower = row.reconstruction_column(c).unwrap();
            prop_assert_eq!(packed.derivatives(0)[c].to_bits(), tower.low.value.to_bits());
            prop_assert_eq!(bits(column(&packed, 1, c)), bits(&tower.low.gradient));
            prop_assert_eq!(bits(column(&packed, 2, c)), bits(&tower.low.hessian));
        }
    }

    #[test]
    fn columns_are_those_of_plain_jet_arithmetic(shape in shape(), seed in any::<u64>()) {
        let row = shape.row(shape.slots(), seed, None);
        let n = row.n_primaries();
        for c in 0..shape.outputs {
            let tower = row.reconstruction_column(c).unwrap();
            let expected: HeapTower4 = textbook(&row, n, c);
            let scale = |values: &[f64]| values.iter().fold(1.0, |m: f64, x| m.max(x.abs()));
            let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(x, y)| (x - y).abs() <= 1e-14 * scale(b));
            prop_assert!(close(&[tower.low.value], &[expected.low.value]));
            prop_assert!(close(&tower.low.gradient, &expected.low.gradient));
            prop_assert!(close(&tower.low.hessian, &expected.low.hessian));
            prop_assert!(close(&tower.t3, &expected.t3));
            prop_assert!(close(&tower.t4, &expected.t4));
        }
    }

    #[test]
    fn border_channels_are_gates_times_basis_columns(shape in shape(), seed in any::<u64>()) {
        // a decoder that picks out basis column b of atom k makes the reconstruction that channel
        let row = shape.row(shape.slots(), seed, None);
        let channels = row.channels();
        let packed = row.beta_border_order1_packed(&channels).unwrap();
        prop_assert_eq!((packed.columns(), packed.order()), (shape.widths.iter().sum::<usize>(), 1));
        for (i, &(k, b)) in channels.iter().enumerate() {
            let mut picked = row.clone();
            for (j, atom) in picked.atoms.iter_mut().enumerate() {
                let one = |m: usize| if (j, m) == (k, b) { 1.0 } else { 0.0 };
                let decoder = Array2::from_shape_fn((atom.phi.len(), 1), |(m, _)| one(m));
                atom.decoder = Arc::new(RowDecoder::new(decoder.view()));
            }
            let slots = row.slots.clone();
            let gate = row.gate.clone();
            let picked =
                SaeReconstructionRowProgram::new(picked.atoms, row.logits.clone(), gate, row.inverse_temperature, slots)
                    .unwrap()
                    .reconstruction_all_columns_packed();
            prop_assert_eq!(packed.derivatives(0)[i], picked.derivatives(0)[0]);
            prop_assert_eq!(column(&packed, 1, i), picked.derivatives(1));
        }
    }

    #[test]
    fn rows_that_are_not_aligned_run_one_by_one(shape in shape(), seed in any::<u64>(), odd in 0u64..4, what in 0usize..4) {
        let mut other = shape.clone();
        let mut slots = shape.slots();
        match what {
            0 => other.softmax = !shape.softmax,
            1 => other.temperature = 3.0,
            2 => slots.logits[0] = None,
            _ => other.widths[0] += 1,
        }
        let rows: Vec<_> = (0..4)
            .map(|i| if i == odd { other.row(slots.clone(), seed ^ i, None) } else { shape.row(shape.slots(), seed ^ i, None) })
            .collect();
        let four = [&rows[0], &rows[1], &rows[2], &rows[3]];
        prop_assert!(!SaeReconstructionRowProgram::aligned(four));
        let batch = SaeReconstructionRowProgram::reconstruction_all_columns_packed_batch4(four);
        prop_assert!(matches!(batch, PackedBatch4::Rows(_)));
        for (packed, row) in batch.into_rows().into_iter().zip(&rows) {
            prop_assert_eq!(packed, row.reconstruction_all_columns_packed());
        }
        let channels = [(0, 0)];
        let border = SaeReconstructionRowProgram::beta_border_order1_packed_batch4(four, &channels).unwrap();
        for (packed, row) in border.into_rows().into_iter().zip(&rows) {
            prop_assert_eq!(packed, row.beta_border_order1_packed(&channels).unwrap());
        }
        let towers = SaeReconstructionRowProgram::reconstruction_column_batch4(four, 0).unwrap();
        for (tower, row) in towers.into_iter().zip(&rows) {
            prop_assert_eq!(tower, row.reconstruction_column(0).unwrap());
        }
    }
}

#[test]
fn a_lane_has_the_bits_of_its_row() {
    let mut compared = 0;
    let mut same = |lanes: PackedBatch4, rows: Vec<PackedJets>| {
        assert!(matches!(lanes, PackedBatch4::Lanes(_)));
        for (lane, row) in lanes.into_rows().iter().zip(&rows) {
            for order in 0..=row.order() {
                assert_eq!(bits(lane.derivatives(order)), bits(row.derivatives(order)));
            }
            compared += row.columns();
        }
    };
    for case in 0..40u64 {
        let shape = Shape {
            dims: vec![1, (case % 3) as usize, 2],
            widths: vec![3, 1 + (case % 5) as usize, 7],
            outputs: 17,
            softmax: case % 2 == 0,
            temperature: [0.5, 1.0, 2.0][(case % 3) as usize],
        };
        let decoders = shape.decoders(case);
        let shared = (case % 4 < 2).then_some(&decoders[..]);
        let rows: Vec<_> = (0..4).map(|i| shape.row(shape.slots(), 1000 * case + i, shared)).collect();
        let four = [&rows[0], &rows[1], &rows[2], &rows[3]];
        let one_by_one = rows.iter().map(SaeReconstructionRowProgram::reconstruction_all_columns_packed);
        same(SaeReconstructionRowProgram::reconstruction_all_columns_packed_batch4(four), one_by_one.collect());
        let channels = rows[0].channels();
        let one_by_one = rows.iter().map(|row| row.beta_border_order1_packed(&channels).unwrap());
        same(
            SaeReconstructionRowProgram::beta_border_order1_packed_batch4(four, &channels).unwrap(),
            one_by_one.collect(),
        );
        let towers = SaeReconstructionRowProgram::reconstruction_column_batch4(four, 5).unwrap();
        for (tower, row) in towers.iter().zip(&rows) {
            let expected = row.reconstruction_column(5).unwrap();
            assert_eq!(tower.low.value.to_bits(), expected.low.value.to_bits());
            assert_eq!(bits(&tower.low.gradient), bits(&expected.low.gradient));
            assert_eq!(bits(&tower.low.hessian), bits(&expected.low.hessian));
            assert_eq!(bits(&tower.t3), bits(&expected.t3));
            assert_eq!(bits(&tower.t4), bits(&expected.t4));
        }
    }
    assert!(compared >= 2000, "{compared} channels");
}

#[test]
fn results_do_not_depend_on_what_was_in_the_arrays() {
    let shape =
        |softmax, dims: Vec<usize>| Shape { widths: vec![3; dims.len()], dims, outputs: 9, softmax, temperature: 1.0 };
    let mut out = PackedJets::default();
    let mut batch = PackedBatch4::default();
    for (softmax, dims) in [(true, vec![2, 1, 1]), (false, vec![2, 1, 1]), (true, vec![1]), (false, vec![1, 1])] {
        let shape = shape(softmax, dims);
        let row = shape.row(shape.slots(), 3, None);
        row.reconstruction_all_columns_packed_into(&mut out);
        assert_eq!(out, row.reconstruction_all_columns_packed());
        SaeReconstructionRowProgram::reconstruction_all_columns_packed_batch4_into([&row; 4], &mut batch);
        assert_eq!(batch.clone().into_rows()[2], out);
    }
}

/// First and second derivatives of every column by hand, over (logits, coordinates of one a circle): with `g_k` the curve,
/// `z` the column and `tau` the temperature, the softmax has
///
///     d/dl_j          a_j (g_j - z) / tau
///     d2/dl_j dl_k    a_j [delta_jk (g_j - z) - a_k (g_j + g_k - 2 z)] / tau^2
///     d2/dl_j dt_k    a_k (delta_jk - a_j) g_k' / tau
///     d2/dt_k dt_k    a_k g_k''
///
/// and the logistic `a'_k g_k / tau`, `a''_k g_k / tau^2` and `a'_k g_k' / tau` on its own slots alone.
fn by_hand(row: &SaeReconstructionRowProgram, c: usize) -> (Vec<f64>, Vec<f64>) {
    let (n_atoms, it) = (row.n_atoms(), row.inverse_temperature);
    let n = 2 * n_atoms;
    let mut curves = Vec::new();
    for atom in &row.atoms {
        let against = |values: Vec<f64>| values.iter().zip(atom.decoder.column(c)).map(|(x, b)| x * b).sum::<f64>();
        let m = atom.phi.len();
        curves.push([
            against(atom.phi.to_vec()),
            against((0..m).map(|b| atom.d_phi[[b, 0]]).collect()),
            against((0..m).map(|b| atom.d2_phi[[b, 0, 0]]).collect()),
        ]);
    }
    let exponents: Vec<f64> = row.logits.iter().map(|l| it * l).collect();
    let (mut first, mut second) = (vec![0.0; n], vec![0.0; n * n]);
    match &row.gate {
        RowGate::Softmax => {
            let total: f64 = exponents.iter().map(|x| x.exp()).sum();
            let a: Vec<f64> = exponents.iter().map(|x| x.exp() / total).collect();
            let z: f64 = a.iter().zip(&curves).map(|(a, g)| a * g[0]).sum();
            for j in 0..n_atoms {
                first[j] = it * a[j] * (curves[j][0] - z);
                first[n_atoms + j] = a[j] * curves[j][1];
                second[(n_atoms + j) * n + n_atoms + j] = a[j] * curves[j][2];
                for k in 0..n_atoms {
                    let own = if j == k { 1.0 } else { 0.0 };
                    let pair = curves[j][0] + curves[k][0] - 2.0 * z;
                    second[j * n + k] = it * it * a[j] * (own * (curves[j][0] - z) - a[k] * pair);
                    let mixed = it * a[k] * (own - a[j]) * curves[k][1];
                    second[j * n + n_atoms + k] = mixed;
                    second[(n_atoms + k) * n + j] = mixed;
                }
            }
        }
        RowGate::Logistic { scale, shift } => {
            for k in 0..n_atoms {
                let s = 1.0 / (1.0 + (it * shift[k] - exponents[k]).exp());
                let (d1, d2) = (it * s * (1.0 - s), it * it * s * (1.0 - s) * (1.0 - 2.0 * s));
                first[k] = scale[k] * d1 * curves[k][0];
                first[n_atoms + k] = scale[k] * s * curves[k][1];
                second[k * n + k] = scale[k] * d2 * curves[k][0];
                second[k * n + n_atoms + k] = scale[k] * d1 * curves[k][1];
                second[(n_atoms + k) * n + k] = scale[k] * d1 * curves[k][1];
                second[(n_atoms + k) * n + n_atoms + k] = scale[k] * s * curves[k][2];
            }
        }
    }
    (first, second)
}

#[test]
fn circles_match_a_derivation_by_hand_that_would_see_a_flipped_sign() {
    let circle = Circle::new(2).unwrap();
    let (n_atoms, p) = (3, 4);
    for (softmax, temperature) in [(true, 0.5), (true, 1.0), (true, 2.0), (false, 0.5), (false, 2.0)] {
        let shape = Shape { dims: vec![1; 3], widths: vec![5; 3], outputs: p, softmax, temperature };
        let slots = RowSlots {
            primaries: 2 * n_atoms,
            logits: (0..n_atoms).map(Some).collect(),
            coords: (n_atoms..2 * n_atoms).map(|s| vec![Some(s)]).collect(),
        };
        let mut row = shape.row(slots.clone(), 17, None);
        for (k, atom) in row.atoms.iter_mut().enumerate() {
            let mut jet = BasisJet::new(1, 5);
            circle.jet(&[0.3 + 1.7 * k as f64], &mut jet);
            *atom = RowAtom::from_jet(&jet, atom.decoder.clone());
        }
        let row = SaeReconstructionRowProgram::new(row.atoms, row.logits, row.gate, 1.0 / temperature, slots).unwrap();
        let packed = row.reconstruction_all_columns_packed();
        let agree = |found: &[f64], expected: &[f64]| found.iter().zip(expected).all(|(x, y)| (x - y).abs() < 1e-13);
        for c in 0..p {
            let (first, second) = by_hand(&row, c);
            assert!(agree(column(&packed, 1, c), &first));
            assert!(agree(column(&packed, 2, c), &second));
            for (order, by_hand) in [(1, &first), (2, &second)] {
                for i in (0..by_hand.len()).filter(|&i| by_hand[i].abs() > 1e-12) {
                    let mut flipped = column(&packed, order, c).to_vec();
                    flipped[i] = -flipped[i];
                    assert!(!agree(&flipped, by_hand));
                }
            }
        }
    }
}

#[test]
fn a_flipped_sign_in_a_high_order_is_seen() {
    let shape = Shape { dims: vec![1, 2], widths: vec![3, 4], outputs: 2, softmax: true, temperature: 0.5 };
    let row = shape.row(shape.slots(), 5, None);
    let tower = row.reconstruction_column(1).unwrap();
    let largest =
        |tensor: &[f64]| (0..tensor.len()).max_by(|&i, &j| tensor[i].abs().total_cmp(&tensor[j].abs())).unwrap();
    for (order, e, tolerance, tensor) in [(3, 1e-3, 5e-5, &tower.t3), (4, 5e-3, 5e-4, &tower.t4)] {
        assert!(distance(&row, 1, order, e, tensor) < tolerance);
        let mut flipped = tensor.clone();
        let at = largest(tensor);
        flipped[at] = -flipped[at];
        assert!(distance(&row, 1, order, e, &flipped) > 1.0);
    }
}

#[test]
fn any_number_of_primaries_works() {
    // within each compiled size, at its edge and above the last
    for n_atoms in [1, 2, 4, 5, 9, 16, 17, 33] {
        for softmax in [true, false] {
            let shape =
                Shape { dims: vec![1; n_atoms], widths: vec![2; n_atoms], outputs: 2, softmax, temperature: 1.0 };
            let rows: Vec<_> = (0..4).map(|i| shape.row(shape.slots(), i, None)).collect();
            let packed = rows[0].reconstruction_all_columns_packed();
            let n = 2 * n_atoms;
            let expected: crate::HeapOrder2 = textbook(&rows[0], n, 1);
            let agree = |x: &[f64], y: &[f64]| x.iter().zip(y).all(|(x, y)| (x - y).abs() < 1e-13);
            assert!(agree(column(&packed, 1, 1), &expected.gradient));
            assert!(agree(column(&packed, 2, 1), &expected.hessian));
            let four = [&rows[0], &rows[1], &rows[2], &rows[3]];
            let batch = SaeReconstructionRowProgram::reconstruction_all_columns_packed_batch4(four).into_rows();
            assert_eq!(bits(batch[0].derivatives(2)), bits(packed.derivatives(2)));
        }
    }
    // the oracle on the heap, at the size where its tensors have a million entries
    let shape = Shape { dims: vec![1; 16], widths: vec![2; 16], outputs: 1, softmax: true, temperature: 1.0 };
    let row = shape.row(shape.slots(), 2, None);
    let tower = row.reconstruction_column(0).unwrap();
    let at = |slots: &[usize]| slots.iter().fold(0, |at, s| at * 32 + s);
    for slots in [[0, 1, 2], [3, 3, 20], [15, 4, 4]] {
        assert!((tower.t3[at(&slots)] - difference(&row, 0, &slots, 3e-3)).abs() < 1e-5);
    }
    for slots in [[0, 1, 2, 3], [3, 3, 20, 1], [15, 4, 4, 15], [7, 7, 7, 7]] {
        assert!((tower.t4[at(&slots)] - difference(&row, 0, &slots, 1e-2)).abs() < 1e-4);
    }
}

#[test]
fn held_variables_are_constants() {
    let shape = Shape { dims: vec![2, 1], widths: vec![3, 3], outputs: 2, softmax: true, temperature: 1.0 };
    // of five variables: the first logit and the second axis of atom 0, with a slot between them that nothing has
    let slots = RowSlots { primaries: 3, logits: vec![Some(2), None], coords: vec![vec![None, Some(0)], vec![None]] };
    let row = shape.row(slots, 9, None);
    let tower = row.reconstruction_column(0).unwrap();
    assert!(distance(&row, 0, 1, 1e-4, &tower.low.gradient) < 1e-6);
    assert!(distance(&row, 0, 2, 1e-3, &tower.low.hessian) < 1e-5);
    assert_eq!(tower.low.gradient[1], 0.0);
    let none = RowSlots { primaries: 0, logits: vec![None; 2], coords: vec![vec![None; 2], vec![None]] };
    let held = shape.row(none, 9, None);
    let packed = held.reconstruction_all_columns_packed();
    assert_eq!(packed.derivatives(0)[0].to_bits(), tower.low.value.to_bits());
    assert!(packed.derivatives(1).is_empty() && packed.derivatives(2).is_empty());
    assert!(held.reconstruction_column(1).unwrap().t4.is_empty());
}

#[test]
fn gates_survive_logits_of_any_size() {
    let shape = Shape { dims: vec![1, 1], widths: vec![2, 2], outputs: 1, softmax: true, temperature: 1e-3 };
    for softmax in [true, false] {
        let shape = Shape { softmax, ..shape.clone() };
        for logits in [[800.0, -800.0], [-1e300, 1e300], [1e308, 1e308]] {
            let row = shape.row(shape.slots(), 1, None);
            let row = SaeReconstructionRowProgram::new(row.atoms, logits.to_vec(), row.gate, 1e3, row.slots).unwrap();
            let tower = row.reconstruction_column(0).unwrap();
            let all = [&tower.low.gradient, &tower.low.hessian, &tower.t3, &tower.t4];
            assert!(tower.low.value.is_finite() && all.iter().all(|x| x.iter().all(|v| v.is_finite())), "{logits:?}");
        }
    }
}

#[test]
fn a_closed_gate_and_an_open_one() {
    // scale 0 closes a threshold gate whatever its logit; scale 1 leaves the logistic
    let shape = Shape { dims: vec![1, 1], widths: vec![2, 2], outputs: 1, softmax: false, temperature: 1.0 };
    let row = shape.row(shape.slots(), 4, None);
    let gate = RowGate::Logistic { scale: vec![0.0, 1.0], shift: vec![0.1, 0.2] };
    let row = SaeReconstructionRowProgram::new(row.atoms, vec![3.0, -0.5], gate, 1.0, row.slots).unwrap();
    let border = row.beta_border_order1_packed(&[(0, 1), (1, 1)]).unwrap();
    assert!(border.derivatives(0)[0] == 0.0 && column(&border, 1, 0).iter().all(|x| *x == 0.0));
    let open = 1.0 / (1.0 + 0.7f64.exp()) * row.atoms[1].phi[1];
    assert!((border.derivatives(0)[1] - open).abs() < 1e-15);
}

#[test]
fn bad_input_is_refused_and_named() {
    let shape = Shape { dims: vec![1, 2], widths: vec![3, 4], outputs: 2, softmax: false, temperature: 1.0 };
    let good = shape.row(shape.slots(), 1, None);
    type Parts = (Vec<RowAtom>, Vec<f64>, RowGate, f64, RowSlots);
    let refused = |change: &dyn Fn(&mut Parts), part: &str| {
        let mut parts =
            (good.atoms.clone(), good.logits.clone(), good.gate.clone(), good.inverse_temperature, good.slots.clone());
        change(&mut parts);
        let (atoms, logits, gate, inverse_temperature, slots) = parts;
        let error = SaeReconstructionRowProgram::new(atoms, logits, gate, inverse_temperature, slots).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    };
    let decoder = |m, p| Arc::new(RowDecoder::new(Array2::zeros((m, p)).view()));
    refused(&|p| p.0.clear(), "at least one atom, found 0");
    refused(&|p| p.0[1].phi = Array1::zeros(5), "phi[1] has shape [5], expected [4]");
    refused(&|p| p.0[1].d2_phi = Array3::zeros((4, 2, 1)), "d2_phi[1] has shape [4, 2, 1], expected [4, 2, 2]");
    refused(&|p| p.0[1].decoder = decoder(4, 3), "decoder[1] has shape [4, 3], expected [4, 2]");
    refused(&|p| p.0[0].decoder = decoder(2, 2), "decoder[0] has shape [2, 2], expected [3, 2]");
    refused(&|p| p.0[0].d_phi[[2, 0]] = f64::NAN, "d_phi[0] must be finite; entry [2, 0] is NaN");
    refused(&|p| p.1.push(0.0), "logits has shape [3], expected [2]");
    refused(&|p| p.1[1] = f64::INFINITY, "logits must be finite; entry [1] is inf");
    refused(
        &|p| p.2 = RowGate::Logistic { scale: vec![1.0], shift: vec![0.0; 2] },
        "gate_scale has shape [1], expected [2]",
    );
    refused(
        &|p| p.2 = RowGate::Logistic { scale: vec![1.0; 2], shift: vec![] },
        "gate_shift has shape [0], expected [2]",
    );
    refused(&|p| p.3 = 0.0, "inverse_temperature must be positive and finite, found 0");
    refused(&|p| p.4.logits = vec![None], "logit_slots has shape [1], expected [2]");
    refused(&|p| p.4.coords[1] = vec![None], "coord_slots has shape [1, 1], expected [1, 2]");
    refused(&|p| p.4.logits[0] = Some(5), "logit_slots[0] is slot 5, expected one below the number of primaries, 5");
    refused(&|p| p.4.coords[1][0] = p.4.logits[1], "coord_slots[1][0] is slot 0, which logit_slots[1] has already");

    let index = |error: ShapeError| error.to_string();
    assert_eq!(index(good.reconstruction_column(2).unwrap_err()), "column is 2, expected one below 2");
    let error = good.beta_border_order1_packed(&[(0, 0), (2, 0)]).unwrap_err();
    assert_eq!(index(error), "channels[1]: atom is 2, expected one below 2");
    let error = SaeReconstructionRowProgram::beta_border_order1_packed_batch4([&good; 4], &[(1, 4)]).unwrap_err();
    assert_eq!(index(error), "channels[0]: basis column is 4, expected one below 4");
}

#[test]
fn orders_one_two_and_four_start_alike() {
    let shape = Shape { dims: vec![1, 1], widths: vec![2, 3], outputs: 1, softmax: true, temperature: 0.7 };
    let row = shape.row(shape.slots(), 8, None);
    let (one, two, four): (Order1<4>, Order2<4>, Tower4<4>) =
        (textbook(&row, (), 0), textbook(&row, (), 0), textbook(&row, (), 0));
    assert_eq!(one.value.to_bits(), two.value.to_bits());
    assert_eq!(bits(&one.gradient), bits(&two.gradient));
    assert_eq!(four.low, two);
}
