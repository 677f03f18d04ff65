//! The text of the row program: gates, bases and columns over any jet, for one row or four.

use super::packed::{write, PackedJets};
use super::program::{RowGate, SaeReconstructionRowProgram};
use crate::jets::{F64x4, HeapOrder1, HeapOrder2, HeapTower4, Jet, Local, Number, Order1, Order2, Tower4};
use std::marker::PhantomData;

/// Rows that run together, one in each of the `L` lanes of `V`. They are aligned: what the first says of gate kind,
/// temperature, slots and shapes holds for all.
pub(super) struct Pass<'a, V, const L: usize> {
    rows: [&'a SaeReconstructionRowProgram; L],
    lanes: PhantomData<V>,
}

impl<'a> Pass<'a, f64, 1> {
    pub fn one(row: &'a SaeReconstructionRowProgram) -> Self {
        Self { rows: [row], lanes: PhantomData }
    }
}

impl<'a> Pass<'a, F64x4, 4> {
    pub fn four(rows: [&'a SaeReconstructionRowProgram; 4]) -> Self {
        Self { rows, lanes: PhantomData }
    }
}

impl<'a, V: Number, const L: usize> Pass<'a, V, L> {
    /// What is the same for all rows.
    #[inline(always)]
    fn shape(&self) -> &'a SaeReconstructionRowProgram {
        self.rows[0]
    }

    #[inline(always)]
    fn gather(&self, of_row: impl Fn(&SaeReconstructionRowProgram) -> f64) -> V {
        V::gather(|lane| of_row(self.rows[lane]))
    }

    #[inline(always)]
    fn logit<J: Jet<Value = V>>(&self, space: J::Space, k: usize) -> J {
        let value = self.gather(|row| row.logits[k]);
        match self.shape().slots.logits[k] {
            Some(slot) => J::variable(space, value, slot),
            None => J::constant(space, value),
        }
    }

    /// Gates of all atoms. The softmax has one denominator for all: K exponentials and one reciprocal.
    #[inline(always)]
    fn gates<J: Jet<Value = V>>(&self, space: J::Space) -> Vec<J> {
        let n_atoms = self.shape().n_atoms();
        let inverse_temperature = V::splat(self.shape().inverse_temperature);
        match self.shape().gate {
            RowGate::Softmax => {
                // a common shift of the logits changes nothing, and with the largest at zero nothing overflows
                let top = self.gather(|row| row.logits.iter().copied().fold(f64::NEG_INFINITY, f64::max));
                let mut gates: Vec<J> = (0..n_atoms)
                    .map(|k| self.logit::<J>(space, k).shift(-top).scale(inverse_temperature).exp())
                    .collect();
                let total = gates[1..].iter().fold(gates[0].clone(), |sum, e| sum.add(e));
                let inverse = total.recip();
                gates.iter_mut().for_each(|e| *e = e.mul(&inverse));
                gates
            }
            RowGate::Logistic { .. } => {
                let scale_and_shift = |row: &SaeReconstructionRowProgram, k: usize| match &row.gate {
                    RowGate::Logistic { scale, shift } => (scale[k], shift[k]),
                    RowGate::Softmax => unreachable!("aligned rows have gates of one kind"),
                };
                (0..n_atoms)
                    .map(|k| {
                        let shift = self.gather(|row| scale_and_shift(row, k).1);
                        let scale = self.gather(|row| scale_and_shift(row, k).0);
                        self.logit::<J>(space, k).shift(-shift).scale(inverse_temperature).sigmoid().scale(scale)
                    })
                    .collect()
            }
        }
    }

    /// Basis jets of one atom: `Phi_b + sum_a d_a Phi_b u_a + 1/2 sum_ab d_ab Phi_b u_a u_b` at u = 0.
    #[inline(always)]
    fn basis<J: Jet<Value = V>>(&self, space: J::Space, k: usize) -> Vec<J> {
        let atom = &self.shape().atoms[k];
        let free = || self.shape().slots.coords[k].iter().enumerate().filter_map(|(axis, slot)| Some((axis, (*slot)?)));
        let mut powers = vec![J::constant(space, V::splat(1.0))];
        powers.extend(free().map(|(_, slot)| J::variable(space, V::default(), slot)));
        for i in 1..=free().count() {
            for j in 1..=free().count() {
                powers.push(powers[i].mul(&powers[j]));
            }
        }
        let mut weights = Vec::with_capacity(powers.len());
        (0..atom.phi.len())
            .map(|b| {
                weights.clear();
                weights.push(self.gather(|row| row.atoms[k].phi[b]));
                weights.extend(free().map(|(x, _)| self.gather(|row| row.atoms[k].d_phi[[b, x]])));
                for (x, _) in free() {
                    weights.extend(free().map(|(y, _)| self.gather(|row| 0.5 * row.atoms[k].d2_phi[[b, x, y]])));
                }
                let mut jet = J::constant(space, V::default());
                jet.combine(&self.shape().curve_slots[k], &weights, powers.iter());
                jet
            })
            .collect()
    }

    /// Column c of atom k's decoder.
    #[inline(always)]
    fn decoder(&self, tables: &[&'a [f64]; L], c: usize, out: &mut Vec<V>) {
        let p = self.shape().n_outputs();
        let width = tables[0].len() / p;
        out.clear();
        out.extend((0..width).map(|b| V::gather(|lane| tables[lane][b * p + c])));
    }

    #[inline(always)]
    fn tables(&self, k: usize) -> [&'a [f64]; L] {
        self.rows.map(|row| row.atoms[k].decoder.as_slice().expect("standard layout"))
    }

    /// Adds atom k's share `a_k sum_b Phi_b B_bc` to a column; `curve` is zero outside the atom's slots.
    #[inline(always)]
    fn add_atom<J: Jet<Value = V>>(&self, k: usize, gate: &J, basis: &[J], weights: &[V], curve: &mut J, out: &mut J) {
        let slots = &self.shape().curve_slots[k];
        curve.combine(slots, weights, basis.iter());
        out.add_product(Local { jet: gate, slots: &self.shape().gate_slots[k] }, Local { jet: curve, slots });
    }
}

/// Something to compute with whichever jet has room for the primaries.
pub(super) trait Task {
    type Value: Number;
    type Out;

    fn run<J: Jet<Value = Self::Value>>(self, space: J::Space) -> Self::Out;
}

/// Runs a task over first-order jets: on the stack up to 32 primaries, on the heap above.
pub(super) fn order1<T: Task>(primaries: usize, task: T) -> T::Out {
    match primaries {
        0..=4 => task.run::<Order1<4, T::Value>>(()),
        5..=8 => task.run::<Order1<8, T::Value>>(()),
        9..=16 => task.run::<Order1<16, T::Value>>(()),
        17..=32 => task.run::<Order1<32, T::Value>>(()),
        n => task.run::<HeapOrder1<T::Value>>(n),
    }
}

/// Runs a task over second-order jets.
pub(super) fn order2<T: Task>(primaries: usize, task: T) -> T::Out {
    match primaries {
        0..=4 => task.run::<Order2<4, T::Value>>(()),
        5..=8 => task.run::<Order2<8, T::Value>>(()),
        9..=16 => task.run::<Order2<16, T::Value>>(()),
        17..=32 => task.run::<Order2<32, T::Value>>(()),
        n => task.run::<HeapOrder2<T::Value>>(n),
    }
}

/// Runs a task over fourth-order jets, whose `N^4` entries outgrow the stack early.
pub(super) fn tower4<T: Task>(primaries: usize, task: T) -> T::Out {
    match primaries {
        0..=4 => task.run::<Tower4<4, T::Value>>(()),
        n => task.run::<HeapTower4<T::Value>>(n),
    }
}

/// One column of the reconstruction.
pub(super) struct Column<'a, V, const L: usize> {
    pub pass: Pass<'a, V, L>,
    pub c: usize,
}

impl<V: Number, const L: usize> Task for Column<'_, V, L> {
    type Value = V;
    type Out = [PackedJets; L];

    #[inline(always)]
    fn run<J: Jet<Value = V>>(self, space: J::Space) -> Self::Out {
        let Self { pass, c } = self;
        let gates = pass.gates::<J>(space);
        let mut out = J::constant(space, V::default());
        let mut weights = Vec::new();
        for (k, gate) in gates.iter().enumerate() {
            let basis = pass.basis::<J>(space, k);
            let mut curve = J::constant(space, V::default());
            pass.decoder(&pass.tables(k), c, &mut weights);
            pass.add_atom(k, gate, &basis, &weights, &mut curve, &mut out);
        }
        let mut packed = std::array::from_fn(|_| PackedJets::zeros(1, pass.shape().n_primaries(), J::ORDER));
        write(&out, 0, &mut packed);
        packed
    }
}

/// All columns, with gates and bases built once.
pub(super) struct AllColumns<'a, V, const L: usize> {
    pub pass: Pass<'a, V, L>,
}

impl<V: Number, const L: usize> Task for AllColumns<'_, V, L> {
    type Value = V;
    type Out = [PackedJets; L];

    #[inline(always)]
    fn run<J: Jet<Value = V>>(self, space: J::Space) -> Self::Out {
        let pass = self.pass;
        let (n_atoms, p) = (pass.shape().n_atoms(), pass.shape().n_outputs());
        let gates = pass.gates::<J>(space);
        let bases: Vec<Vec<J>> = (0..n_atoms).map(|k| pass.basis::<J>(space, k)).collect();
        let zero = J::constant(space, V::default());
        let mut curves = vec![zero.clone(); n_atoms];
        let tables: Vec<_> = (0..n_atoms).map(|k| pass.tables(k)).collect();
        let mut weights = Vec::new();
        let mut packed = std::array::from_fn(|_| PackedJets::zeros(p, pass.shape().n_primaries(), J::ORDER));
        for c in 0..p {
            let mut out = zero.clone();
            for k in 0..n_atoms {
                pass.decoder(&tables[k], c, &mut weights);
                pass.add_atom(k, &gates[k], &bases[k], &weights, &mut curves[k], &mut out);
            }
            write(&out, c, &mut packed);
        }
        packed
    }
}

/// Border channels, with gates built once and each atom's basis once.
pub(super) struct Border<'a, V, const L: usize> {
    pub pass: Pass<'a, V, L>,
    /// (atom, basis column).
    pub channels: &'a [(usize, usize)],
}

impl<V: Number, const L: usize> Task for Border<'_, V, L> {
    type Value = V;
    type Out = [PackedJets; L];

    #[inline(always)]
    fn run<J: Jet<Value = V>>(self, space: J::Space) -> Self::Out {
        let Self { pass, channels } = self;
        let shape = pass.shape();
        let gates = pass.gates::<J>(space);
        let mut bases: Vec<Option<Vec<J>>> = vec![None; shape.n_atoms()];
        let mut packed = std::array::from_fn(|_| PackedJets::zeros(channels.len(), shape.n_primaries(), J::ORDER));
        for (i, &(k, b)) in channels.iter().enumerate() {
            let basis = bases[k].get_or_insert_with(|| pass.basis::<J>(space, k));
            let mut out = J::constant(space, V::default());
            out.add_product(
                Local { jet: &gates[k], slots: &shape.gate_slots[k] },
                Local { jet: &basis[b], slots: &shape.curve_slots[k] },
            );
            write(&out, i, &mut packed);
        }
        packed
    }
}
