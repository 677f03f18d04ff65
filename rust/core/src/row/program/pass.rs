//! Gates and bases of a row over any jet, for one row or four, and the choice of the jet.

use super::assembly::Assembly;
use super::packed::PackedJets;
use super::{Group, SaeReconstructionRowProgram};
use crate::gates::RowGate;
use crate::jets::{F64x4, HeapOrder1, HeapOrder2, HeapTower4, Jet, Number, Order1, Order2, Tower4};
use std::marker::PhantomData;
use std::ops::Range;

/// Rows that run together, one in each of the `L` lanes of `V`. They are aligned: what the first says of gate kind,
/// temperature, slots and shapes holds for all.
pub(super) struct Pass<'a, V, const L: usize> {
    pub rows: [&'a SaeReconstructionRowProgram; L],
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
    pub fn shape(&self) -> &'a SaeReconstructionRowProgram {
        self.rows[0]
    }

    #[inline(always)]
    fn gather(&self, of_row: impl Fn(&SaeReconstructionRowProgram) -> f64) -> V {
        V::gather(|lane| of_row(self.rows[lane]))
    }

    /// Gates of a group, over the free logits that they share.
    #[inline(always)]
    pub fn gates<J: Jet<Value = V>>(&self, space: J::Space, group: &Group) -> Vec<J> {
        let inverse_temperature = V::splat(self.shape().inverse_temperature);
        let exponent = |k: usize, origin: V| -> J {
            let logit = self.gather(|row| row.logits[k]);
            let jet = match group.logits[k - group.atoms.start] {
                Some(position) => J::variable(space, logit, position),
                None => J::constant(space, logit),
            };
            jet.shift(-origin).scale(inverse_temperature)
        };
        match &self.shape().gate {
            // one denominator for all: K exponentials and one reciprocal
            RowGate::Softmax => {
                // a common shift of the logits changes nothing, and with the largest at zero nothing overflows
                let top = self.gather(|row| row.logits.iter().copied().fold(f64::NEG_INFINITY, f64::max));
                let mut gates: Vec<J> = group.atoms.clone().map(|k| exponent(k, top).exp()).collect();
                let total = gates[1..].iter().fold(gates[0].clone(), |sum, e| sum.add(e));
                let inverse = total.recip();
                gates.iter_mut().for_each(|e| *e = e.mul(&inverse));
                gates
            }
            RowGate::Logistic { .. } => {
                let gate = |k: usize| {
                    let [scale, shift] = [0, 1].map(|i| self.gather(|row| row.gate.scale_and_shift(k)[i]));
                    exponent(k, shift).sigmoid().scale(scale)
                };
                group.atoms.clone().map(gate).collect()
            }
        }
    }

    /// Appends what atom k's basis is made of: value, gradient and Hessian of one column after the other.
    #[inline(always)]
    pub fn push_basis(&self, k: usize, basis: &mut Vec<V>) {
        let axes = &self.shape().curves[k].axes;
        for b in 0..self.shape().atoms[k].phi.len() {
            basis.push(self.gather(|row| row.atoms[k].phi[b]));
            for &x in axes {
                basis.push(self.gather(|row| row.atoms[k].d_phi[[b, x]]));
            }
            for &x in axes {
                for &y in axes {
                    let d2 = |row: &SaeReconstructionRowProgram, x, y| 0.5 * row.atoms[k].d2_phi[[b, x, y]];
                    basis.push(self.gather(|row| d2(row, x, y) + d2(row, y, x)));
                }
            }
        }
    }
}

/// Something to compute with jets that have room for the logits of a gate.
pub(super) trait Task {
    type Value: Number;

    fn run<J: Jet<Value = Self::Value>>(self, space: J::Space, out: &mut PackedJets<Self::Value>);
}

/// A task over one jet, compiled for the machine's vector registers where it has wide ones. That changes how many numbers
/// an instruction takes and not what is computed.
struct Vectorised<'o, J: Jet, T> {
    space: J::Space,
    task: T,
    out: &'o mut PackedJets<J::Value>,
}

impl<J: Jet, T: Task<Value = J::Value>> pulp::WithSimd for Vectorised<'_, J, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        self.task.run::<J>(self.space, self.out);
    }
}

fn run<J: Jet, T: Task<Value = J::Value>>(space: J::Space, task: T, out: &mut PackedJets<T::Value>) {
    pulp::Arch::new().dispatch(Vectorised::<J, T> { space, task, out });
}

/// Runs a task over first-order jets: on the stack up to 32 logits, on the heap above.
pub(super) fn order1<T: Task>(logits: usize, task: T, out: &mut PackedJets<T::Value>) {
    match logits {
        0..=1 => run::<Order1<1, T::Value>, T>((), task, out),
        2..=4 => run::<Order1<4, T::Value>, T>((), task, out),
        5..=8 => run::<Order1<8, T::Value>, T>((), task, out),
        9..=16 => run::<Order1<16, T::Value>, T>((), task, out),
        17..=32 => run::<Order1<32, T::Value>, T>((), task, out),
        n => run::<HeapOrder1<T::Value>, T>(n, task, out),
    }
}

/// Runs a task over second-order jets.
pub(super) fn order2<T: Task>(logits: usize, task: T, out: &mut PackedJets<T::Value>) {
    match logits {
        0..=1 => run::<Order2<1, T::Value>, T>((), task, out),
        2..=4 => run::<Order2<4, T::Value>, T>((), task, out),
        5..=8 => run::<Order2<8, T::Value>, T>((), task, out),
        9..=16 => run::<Order2<16, T::Value>, T>((), task, out),
        17..=32 => run::<Order2<32, T::Value>, T>((), task, out),
        n => run::<HeapOrder2<T::Value>, T>(n, task, out),
    }
}

/// Runs a task over fourth-order jets, whose `N^4` entries outgrow the stack early.
pub(super) fn tower4<T: Task>(logits: usize, task: T, out: &mut PackedJets<T::Value>) {
    match logits {
        0..=1 => run::<Tower4<1, T::Value>, T>((), task, out),
        2..=4 => run::<Tower4<4, T::Value>, T>((), task, out),
        n => run::<HeapTower4<T::Value>, T>(n, task, out),
    }
}

/// Some columns of the reconstruction, with gates and curves built once.
pub(super) struct Columns<'a, V, const L: usize> {
    pub pass: Pass<'a, V, L>,
    pub columns: Range<usize>,
}

impl<V: Number, const L: usize> Task for Columns<'_, V, L> {
    type Value = V;

    #[inline(always)]
    fn run<J: Jet<Value = V>>(self, space: J::Space, out: &mut PackedJets<V>) {
        let mut assembly = Assembly::<J, L>::new(&self.pass, space);
        out.reset(self.columns.len(), self.pass.shape().n_primaries(), J::ORDER);
        assembly.write(self.columns, out);
    }
}

/// Border channels, with gates and bases built once.
pub(super) struct Border<'a, V, const L: usize> {
    pub pass: Pass<'a, V, L>,
    /// (atom, basis column).
    pub channels: &'a [(usize, usize)],
}

impl<V: Number, const L: usize> Task for Border<'_, V, L> {
    type Value = V;

    #[inline(always)]
    fn run<J: Jet<Value = V>>(self, space: J::Space, out: &mut PackedJets<V>) {
        let shape = self.pass.shape();
        let n = shape.n_primaries();
        let gates: Vec<Vec<J>> = shape.groups.iter().map(|group| self.pass.gates(space, group)).collect();
        out.reset(self.channels.len(), n, J::ORDER);
        for (i, &(k, b)) in self.channels.iter().enumerate() {
            let g = shape.groups.iter().position(|group| group.atoms.contains(&k)).expect("every atom has a gate");
            let (group, curve) = (&shape.groups[g], &shape.curves[k]);
            let gate = &gates[g][k - group.atoms.start];
            let phi = self.pass.gather(|row| row.atoms[k].phi[b]);
            out.columns_mut(0, i..i + 1)[0] = gate.value() * phi;
            let gradient = out.columns_mut(1, i..i + 1);
            gradient.fill(V::default());
            for (u, &slot) in group.slots.iter().enumerate() {
                gradient[slot] = gate.gradient(u) * phi;
            }
            for (&axis, &slot) in curve.axes.iter().zip(&curve.slots) {
                gradient[slot] = gate.value() * self.pass.gather(|row| row.atoms[k].d_phi[[b, axis]]);
            }
        }
    }
}
