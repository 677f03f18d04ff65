//! The text of the row program: gates, curves and columns over any jet, for one row or four.
//!
//! A gate depends on logits and a curve on coordinates. So gates are jets over logits alone, a curve is the quadratic that it
//! is given as, and Leibniz' rule for their product has one term for each derivative: every slot goes to the only factor
//! that depends on it.

use super::packed::{ColumnMut, PackedJets};
use super::program::{FreeAxes, Group, RowDecoder, RowGate, SaeReconstructionRowProgram};
use crate::jets::{F64x4, HeapOrder1, HeapOrder2, HeapTower4, Jet, Number, Order1, Order2, Tower4};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

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

    /// Gates of a group, over the free logits that they share.
    #[inline(always)]
    fn gates<J: Jet<Value = V>>(&self, space: J::Space, group: &Group) -> Vec<J> {
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

    /// The curve of atom k, as far as all columns share it.
    #[inline(always)]
    fn curve(&self, k: usize) -> Curve<'a, V, L> {
        let shape = self.shape();
        let FreeAxes { axes, slots } = &shape.curves[k];
        let width = shape.atoms[k].phi.len();
        let mut basis = Vec::with_capacity((1 + axes.len() + axes.len() * axes.len()) * width);
        for b in 0..width {
            basis.push(self.gather(|row| row.atoms[k].phi[b]));
            basis.extend(axes.iter().map(|&x| self.gather(|row| row.atoms[k].d_phi[[b, x]])));
            for &x in axes {
                basis.extend(axes.iter().map(|&y| {
                    self.gather(|row| 0.5 * row.atoms[k].d2_phi[[b, x, y]] + 0.5 * row.atoms[k].d2_phi[[b, y, x]])
                }));
            }
        }
        let decoders = self.rows.map(|row| &row.atoms[k].decoder);
        Curve {
            slots,
            width,
            basis,
            decoders: decoders.map(|decoder| &**decoder),
            shared: decoders.iter().all(|decoder| Arc::ptr_eq(decoder, decoders[0])),
        }
    }
}

/// One atom's curve `sum_b Phi_b B_bc` with `Phi_b + sum_a d_a Phi_b u_a + 1/2 sum_ab d_ab Phi_b u_a u_b` over the coordinates
/// that are free. Its coefficients are value, gradient and Hessian, one after the other.
struct Curve<'a, V, const L: usize> {
    /// Slots of the coordinates.
    slots: &'a [usize],
    /// Number of basis columns M.
    width: usize,
    /// The coefficients of each basis column.
    basis: Vec<V>,
    /// Each row's decoder.
    decoders: [&'a RowDecoder; L],
    /// Whether the rows have one decoder in common.
    shared: bool,
}

impl<V: Number, const L: usize> Curve<'_, V, L> {
    /// Number of coefficients.
    #[inline(always)]
    fn len(&self) -> usize {
        1 + self.slots.len() * (1 + self.slots.len())
    }

    /// Writes the coefficients of column c.
    #[inline(always)]
    fn column(&self, c: usize, out: &mut [V]) {
        if self.shared {
            let decoder = self.decoders[0].column(c);
            self.combine(|b| V::splat(decoder[b]), out);
        } else {
            let decoders = self.decoders.map(|decoder| &decoder.column(c)[..self.width]);
            self.combine(|b| V::gather(|lane| decoders[lane][b]), out);
        }
    }

    /// Writes the sum of all basis columns times their weights.
    #[inline(always)]
    fn combine(&self, weight: impl Fn(usize) -> V, out: &mut [V]) {
        /// A number of coefficients that the compiler knows: they stay in registers.
        #[inline(always)]
        fn fixed<V: Number, const E: usize>(basis: &[V], weight: impl Fn(usize) -> V, out: &mut [V]) {
            let mut sums = [V::default(); E];
            for (b, entries) in basis.chunks_exact(E).enumerate() {
                let weight = weight(b);
                for (sum, entry) in sums.iter_mut().zip(entries) {
                    *sum += *entry * weight;
                }
            }
            out.copy_from_slice(&sums);
        }
        match out.len() {
            1 => fixed::<V, 1>(&self.basis, weight, out),
            3 => fixed::<V, 3>(&self.basis, weight, out),
            7 => fixed::<V, 7>(&self.basis, weight, out),
            len => {
                out.fill(V::default());
                for (b, entries) in self.basis.chunks_exact(len).enumerate() {
                    let weight = weight(b);
                    for (sum, entry) in out.iter_mut().zip(entries) {
                        *sum += *entry * weight;
                    }
                }
            }
        }
    }
}

/// Gates that depend on the same logits, with their derivatives laid out for sums over the atoms.
struct Gates<'a, J: Jet> {
    atoms: Range<usize>,
    /// The slots of their logits.
    slots: &'a [usize],
    jets: Vec<J>,
    /// Value of each atom.
    values: Vec<J::Value>,
    /// For each logit, the derivative of each atom.
    gradients: Vec<J::Value>,
    /// For each pair of logits, the second derivative of each atom.
    hessians: Vec<J::Value>,
    /// Where those pairs go in a Hessian, above and below its diagonal.
    pairs: Vec<[usize; 2]>,
    /// Where the pairs of a logit and a coordinate go, atom by atom.
    mixed: Vec<Vec<[usize; 2]>>,
}

impl<'a, J: Jet> Gates<'a, J> {
    #[inline(always)]
    fn new(shape: &'a SaeReconstructionRowProgram, group: &'a Group, jets: Vec<J>) -> Self {
        let (n, primaries) = (group.slots.len(), shape.n_primaries());
        let mut gates = Self {
            atoms: group.atoms.clone(),
            slots: &group.slots,
            values: jets.iter().map(J::value).collect(),
            gradients: (0..n).flat_map(|u| jets.iter().map(move |jet| jet.gradient(u))).collect(),
            hessians: Vec::new(),
            pairs: Vec::new(),
            mixed: Vec::new(),
            jets,
        };
        if J::ORDER < 2 {
            return gates;
        }
        let both = |a: usize, b: usize| [a * primaries + b, b * primaries + a];
        for u in 0..n {
            for v in u..n {
                gates.hessians.extend(gates.jets.iter().map(|jet| jet.hessian(u, v)));
                gates.pairs.push(both(group.slots[u], group.slots[v]));
            }
        }
        for curve in &shape.curves[group.atoms.clone()] {
            let pairs = curve.slots.iter().flat_map(|&b| group.slots.iter().map(move |&a| both(a, b)));
            gates.mixed.push(pairs.collect());
        }
        gates
    }

    /// Writes the derivatives in logits alone to a column: sums over the atoms, `curves` their curves' values.
    #[inline(always)]
    fn write_shared(&self, curves: &[J::Value], out: &mut ColumnMut<'_, J::Value>) {
        let count = curves.len();
        for (slot, of_atoms) in self.slots.iter().zip(self.gradients.chunks_exact(count)) {
            out.gradient[*slot] = dot(of_atoms, curves);
        }
        for ([above, below], of_atoms) in self.pairs.iter().zip(self.hessians.chunks_exact(count)) {
            let value = dot(of_atoms, curves);
            out.hessian[*above] = value;
            out.hessian[*below] = value;
        }
    }

    /// Writes the derivatives in the coordinates of the group's atom at position `k`, `curve` its curve's coefficients.
    #[inline(always)]
    fn write_own(&self, k: usize, slots: &[usize], curve: &[J::Value], out: &mut ColumnMut<'_, J::Value>) {
        let (count, dim, gate) = (self.values.len(), slots.len(), self.values[k]);
        for (x, &slot) in slots.iter().enumerate() {
            let slope = curve[1 + x];
            out.gradient[slot] = gate * slope;
            if J::ORDER < 2 {
                continue;
            }
            let mixed = &self.mixed[k][x * self.slots.len()..(x + 1) * self.slots.len()];
            for ([above, below], of_atoms) in mixed.iter().zip(self.gradients.chunks_exact(count)) {
                let value = of_atoms[k] * slope;
                out.hessian[*above] = value;
                out.hessian[*below] = value;
            }
            for (y, &other) in slots.iter().enumerate() {
                out.hessian[slot * out.n + other] = gate * curve[1 + dim * (1 + x) + y];
            }
        }
    }
}

/// `sum_i x_i y_i`, from the left.
#[inline(always)]
fn dot<V: Number>(x: &[V], y: &[V]) -> V {
    let mut sum = V::default();
    let (x4, y4) = (x.chunks_exact(4), y.chunks_exact(4));
    let rest = x4.remainder().iter().zip(y4.remainder());
    for (x, y) in x4.zip(y4) {
        for i in 0..4 {
            sum += x[i] * y[i];
        }
    }
    for (x, y) in rest {
        sum += *x * *y;
    }
    sum
}

/// Gates and curves of a pass, and room for the numbers between the decoders and a column.
struct Assembly<'a, J: Jet, const L: usize> {
    groups: Vec<Gates<'a, J>>,
    curves: Vec<Curve<'a, J::Value, L>>,
    /// Value of each atom's curve.
    values: Vec<J::Value>,
    /// Coefficients of each atom's curve, one atom after the other.
    coefficients: Vec<J::Value>,
}

impl<'a, J: Jet, const L: usize> Assembly<'a, J, L> {
    #[inline(always)]
    fn new(pass: &Pass<'a, J::Value, L>, space: J::Space) -> Self {
        let shape = pass.shape();
        let groups = shape.groups.iter().map(|group| Gates::new(shape, group, pass.gates(space, group))).collect();
        let curves: Vec<_> = (0..shape.n_atoms()).map(|k| pass.curve(k)).collect();
        let zeros = |len| vec![J::Value::default(); len];
        Self { values: zeros(curves.len()), coefficients: zeros(curves.iter().map(Curve::len).sum()), groups, curves }
    }

    /// Writes `sum_k a_k sum_b Phi_b B_bc` and its derivatives.
    #[inline(always)]
    fn write_column(&mut self, c: usize, out: &mut ColumnMut<'_, J::Value>) {
        let mut rest = &mut self.coefficients[..];
        for (curve, value) in self.curves.iter().zip(&mut self.values) {
            let (own, others) = rest.split_at_mut(curve.len());
            curve.column(c, own);
            *value = own[0];
            rest = others;
        }
        let mut total = J::Value::default();
        let mut rest = &self.coefficients[..];
        for group in &self.groups {
            let values = &self.values[group.atoms.clone()];
            for (gate, value) in group.values.iter().zip(values) {
                total += *gate * *value;
            }
            group.write_shared(values, out);
            for (k, curve) in self.curves[group.atoms.clone()].iter().enumerate() {
                let (own, others) = rest.split_at(curve.len());
                group.write_own(k, curve.slots, own, out);
                rest = others;
            }
        }
        *out.value = total;
        if J::ORDER > 2 {
            self.write_high(out);
        }
    }

    /// Writes `a_k Phi_b` and its derivatives.
    #[inline(always)]
    fn write_channel(&mut self, k: usize, b: usize, out: &mut ColumnMut<'_, J::Value>) {
        let group = self.groups.iter().find(|group| group.atoms.contains(&k)).expect("every atom has a gate");
        let curve = &self.curves[k];
        let phi = &curve.basis[b * curve.len()..(b + 1) * curve.len()];
        let k = k - group.atoms.start;
        *out.value = group.values[k] * phi[0];
        for (slot, of_atoms) in group.slots.iter().zip(group.gradients.chunks_exact(group.atoms.len())) {
            out.gradient[*slot] = of_atoms[k] * phi[0];
        }
        group.write_own(k, curve.slots, phi, out);
    }

    /// Adds third and fourth derivatives, atom by atom.
    fn write_high(&self, out: &mut ColumnMut<'_, J::Value>) {
        let mut rest = &self.coefficients[..];
        for group in &self.groups {
            for (gate, curve) in group.jets.iter().zip(&self.curves[group.atoms.clone()]) {
                let (own, others) = rest.split_at(curve.len());
                let factors = Factors { gate, logits: group.slots, curve: own, coords: curve.slots };
                out.add_high(&[group.slots, curve.slots].concat(), |slots| factors.derivative(slots));
                rest = others;
            }
        }
    }
}

/// A gate and a curve.
struct Factors<'a, J: Jet> {
    gate: &'a J,
    /// Slots of the gate.
    logits: &'a [usize],
    /// Coefficients of the curve.
    curve: &'a [J::Value],
    /// Slots of the curve.
    coords: &'a [usize],
}

impl<J: Jet> Factors<'_, J> {
    /// The derivative of their product in up to four slots.
    fn derivative(&self, slots: &[usize]) -> J::Value {
        let positions = |of: &[usize]| -> Vec<usize> {
            slots.iter().filter_map(|slot| of.iter().position(|other| other == slot)).collect()
        };
        let gate = match *positions(self.logits) {
            [] => self.gate.value(),
            [ref leading @ .., last] => self.gate.derivatives(leading)[last],
        };
        let curve = match *positions(self.coords) {
            [] => self.curve[0],
            [x] => self.curve[1 + x],
            [x, y] => self.curve[1 + self.coords.len() * (1 + x) + y],
            // the model of a curve is quadratic
            _ => J::Value::default(),
        };
        gate * curve
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
        for (i, c) in self.columns.enumerate() {
            assembly.write_column(c, &mut out.column_mut(i));
        }
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
        let mut assembly = Assembly::<J, L>::new(&self.pass, space);
        out.reset(self.channels.len(), self.pass.shape().n_primaries(), J::ORDER);
        for (i, &(k, b)) in self.channels.iter().enumerate() {
            assembly.write_channel(k, b, &mut out.column_mut(i));
        }
    }
}
