//! Columns from gates and curves.
//!
//! A gate depends on logits and a curve on coordinates, so Leibniz' rule for their product has one term for each derivative:
//! every slot goes to the only factor that depends on it. All derivatives of a column up to the second order are then short
//! sums over atoms, listed once and run for every column.

use super::packed::{HighMut, PackedJets};
use super::pass::Pass;
use super::{RowDecoder, SaeReconstructionRowProgram};
use crate::jets::{Jet, Number};
use std::ops::Range;
use std::sync::Arc;

/// Columns whose coefficients and derivatives stay in the fastest cache while they are written.
const BLOCK: usize = 8;

/// One atom's curve `sum_b Phi_b B_bc` with `Phi_b + sum_a d_a Phi_b u_a + 1/2 sum_ab d_ab Phi_b u_a u_b` over the coordinates
/// that are free.
struct Curve<'a, const L: usize> {
    /// Slots of the coordinates.
    slots: &'a [usize],
    /// Number of basis columns M.
    width: usize,
    /// Where its basis begins.
    basis: usize,
    /// Where its gradient and Hessian begin in a row of coefficients; its value is at the atom's number.
    at: usize,
    /// Each row's decoder.
    decoders: [&'a RowDecoder; L],
    /// Whether the rows have one decoder in common.
    shared: bool,
}

impl<const L: usize> Curve<'_, L> {
    /// Number of coefficients: value, gradient and Hessian.
    #[inline(always)]
    fn len(&self) -> usize {
        1 + self.slots.len() * (1 + self.slots.len())
    }
}

/// One derivative of all columns: `sum_i weights[i] * coefficients[i]` over some neighbouring coefficients of a column.
struct Entry {
    weights: Range<usize>,
    coefficient: usize,
    /// Where it goes among a column's derivatives of its order: one place, or two that mirror each other.
    at: [usize; 2],
}

/// The columns of a pass, `sum_k a_k sum_b Phi_b B_bc`: first every column's curves, then derivative by derivative.
pub(super) struct Assembly<'a, J: Jet, const L: usize> {
    shape: &'a SaeReconstructionRowProgram,
    /// The gates of every group.
    gates: Vec<Vec<J>>,
    curves: Vec<Curve<'a, L>>,
    basis: Vec<J::Value>,
    /// The value, the gradient and the Hessian.
    entries: [Vec<Entry>; 3],
    weights: Vec<J::Value>,
    /// Number of coefficients of a column: the values of all curves, then their derivatives, atom by atom.
    stride: usize,
    coefficients: Vec<J::Value>,
}

impl<'a, J: Jet, const L: usize> Assembly<'a, J, L> {
    #[inline(always)]
    pub fn new(pass: &Pass<'a, J::Value, L>, space: J::Space) -> Self {
        let shape = pass.shape();
        let (mut basis, mut stride) = (Vec::new(), shape.n_atoms());
        let curve = |k: usize| {
            let decoders = pass.rows.map(|row| &row.atoms[k].decoder);
            let curve = Curve {
                slots: &shape.curves[k].slots,
                width: shape.atoms[k].phi.len(),
                basis: basis.len(),
                at: stride,
                decoders: decoders.map(|decoder| &**decoder),
                shared: decoders.iter().all(|decoder| Arc::ptr_eq(decoder, decoders[0])),
            };
            pass.push_basis(k, &mut basis);
            stride += curve.len() - 1;
            curve
        };
        let curves: Vec<_> = (0..shape.n_atoms()).map(curve).collect();
        let mut assembly = Self {
            shape,
            gates: shape.groups.iter().map(|group| pass.gates(space, group)).collect(),
            curves,
            basis,
            entries: Default::default(),
            weights: Vec::new(),
            stride,
            coefficients: vec![J::Value::default(); BLOCK * stride],
        };
        assembly.plan();
        assembly
    }

    /// Lists the derivatives up to the second order. Leibniz' rule has one term an atom: each slot goes to its gate or to its
    /// curve.
    #[inline(always)]
    fn plan(&mut self) {
        let n = self.shape.n_primaries();
        let weights = &mut self.weights;
        let [value, gradient, hessian] = &mut self.entries;
        // atoms come in order, so their values are neighbours both here and among the coefficients
        weights.extend(self.gates.iter().flatten().map(J::value));
        value.push(Entry { weights: 0..weights.len(), coefficient: 0, at: [0, 0] });
        let (mut in_gradient, mut in_hessian) = (vec![false; n], vec![false; n * n]);
        let mut first = |a: usize, weights: Range<usize>, coefficient: usize| {
            in_gradient[a] = true;
            gradient.push(Entry { weights, coefficient, at: [a, a] });
        };
        let mut second = |a: usize, b: usize, weights: Range<usize>, coefficient: usize| {
            let at = [a * n + b, b * n + a];
            (in_hessian[at[0]], in_hessian[at[1]]) = (true, true);
            hessian.push(Entry { weights, coefficient, at });
        };
        for (group, gates) in self.shape.groups.iter().zip(&self.gates) {
            for (u, &a) in group.slots.iter().enumerate() {
                let start = weights.len();
                weights.extend(gates.iter().map(|gate| gate.gradient(u)));
                first(a, start..weights.len(), group.atoms.start);
                for (k, curve) in self.curves[group.atoms.clone()].iter().enumerate() {
                    let of_atom = start + k..start + k + 1;
                    curve.slots.iter().enumerate().for_each(|(x, &b)| second(a, b, of_atom.clone(), curve.at + x));
                }
                for (v, &b) in group.slots.iter().enumerate().skip(u) {
                    let start = weights.len();
                    weights.extend(gates.iter().map(|gate| gate.hessian(u, v)));
                    second(a, b, start..weights.len(), group.atoms.start);
                }
            }
        }
        for (k, curve) in self.curves.iter().enumerate() {
            for (x, &a) in curve.slots.iter().enumerate() {
                first(a, k..k + 1, curve.at + x);
                for (y, &b) in curve.slots.iter().enumerate().skip(x) {
                    second(a, b, k..k + 1, curve.at + curve.slots.len() * (1 + x) + y);
                }
            }
        }
        // what nothing touches: a slot that no variable has, or a pair that no product depends on
        let zero = |at: [usize; 2]| Entry { weights: 0..0, coefficient: 0, at };
        gradient.extend((0..n).filter(|&a| !in_gradient[a]).map(|a| zero([a, a])));
        hessian.extend((0..n * n).filter(|&ab| !in_hessian[ab]).map(|ab| zero([ab, ab])));
    }

    /// Writes the coefficients of every curve in some columns.
    #[inline(always)]
    fn combine(&mut self, columns: Range<usize>) {
        for (k, curve) in self.curves.iter().enumerate() {
            let basis = &self.basis[curve.basis..curve.basis + curve.width * curve.len()];
            for (c, out) in columns.clone().zip(self.coefficients.chunks_exact_mut(self.stride)) {
                if curve.shared {
                    let decoder = curve.decoders[0].column(c);
                    combine(basis, decoder.iter().map(|x| J::Value::splat(*x)), k, curve, out);
                } else {
                    let decoders = curve.decoders.map(|decoder| &decoder.column(c)[..curve.width]);
                    let decoder = (0..curve.width).map(|b| J::Value::gather(|lane| decoders[lane][b]));
                    combine(basis, decoder, k, curve, out);
                }
            }
        }
    }

    /// Writes some columns, from the packing's first place on.
    #[inline(always)]
    pub fn write(&mut self, columns: Range<usize>, out: &mut PackedJets<J::Value>) {
        for from in (0..columns.len()).step_by(BLOCK) {
            let start = columns.start + from;
            self.write_block(start..columns.end.min(start + BLOCK), from, out);
        }
    }

    /// Writes at most [`BLOCK`] columns, from the packing's place `from` on.
    #[inline(always)]
    fn write_block(&mut self, columns: Range<usize>, from: usize, out: &mut PackedJets<J::Value>) {
        self.combine(columns.clone());
        let n = self.shape.n_primaries();
        for (order, size) in [1, n, n * n].into_iter().enumerate().take(J::ORDER + 1) {
            let out = out.columns_mut(order, from..from + columns.len());
            for entry in &self.entries[order] {
                let weights = &self.weights[entry.weights.clone()];
                self.write_entry(weights, entry, size, out);
            }
        }
        if J::ORDER > 2 {
            (0..columns.len()).for_each(|c| self.write_high(c, &mut out.high_mut(from + c)));
        }
    }

    #[inline(always)]
    fn write_entry(&self, weights: &[J::Value], entry: &Entry, size: usize, out: &mut [J::Value]) {
        /// A number of weights that the compiler knows: they stay in registers.
        #[inline(always)]
        fn fixed<V: Number, const A: usize>(
            weights: &[V],
            entry: &Entry,
            (coefficients, stride): (&[V], usize),
            (out, size): (&mut [V], usize),
        ) {
            let weights: &[V; A] = weights.try_into().expect("as many as the match says");
            let (mut from, mut to) = (entry.coefficient, 0);
            while to < out.len() {
                let column = &coefficients[from..from + A];
                let mut sum = V::default();
                for i in 0..A {
                    sum += weights[i] * column[i];
                }
                out[to + entry.at[0]] = sum;
                out[to + entry.at[1]] = sum;
                (from, to) = (from + stride, to + size);
            }
        }
        let (from, to) = ((&self.coefficients[..], self.stride), (&mut *out, size));
        match weights.len() {
            0 => fixed::<_, 0>(weights, entry, from, to),
            1 => fixed::<_, 1>(weights, entry, from, to),
            2 => fixed::<_, 2>(weights, entry, from, to),
            3 => fixed::<_, 3>(weights, entry, from, to),
            4 => fixed::<_, 4>(weights, entry, from, to),
            _ => {
                for (column, out) in self.coefficients.chunks_exact(self.stride).zip(out.chunks_exact_mut(size)) {
                    let mut sum = J::Value::default();
                    for (weight, coefficient) in weights.iter().zip(&column[entry.coefficient..]) {
                        sum += *weight * *coefficient;
                    }
                    out[entry.at[0]] = sum;
                    out[entry.at[1]] = sum;
                }
            }
        }
    }

    /// Writes third and fourth derivatives of the column in place `c` of the block.
    fn write_high(&self, c: usize, out: &mut HighMut<'_, J::Value>) {
        let coefficients = &self.coefficients[c * self.stride..(c + 1) * self.stride];
        for (group, gates) in self.shape.groups.iter().zip(&self.gates) {
            for (k, gate) in group.atoms.clone().zip(gates) {
                let curve = &self.curves[k];
                let factors = Factors {
                    gate,
                    logits: group.slots.len(),
                    value: coefficients[k],
                    derivatives: &coefficients[curve.at..],
                    coords: curve.slots.len(),
                };
                out.add(&[&group.slots, curve.slots].concat(), |variables| factors.derivative(variables));
            }
        }
    }
}

/// Writes the coefficients of one curve in one column: its basis columns times the decoder's entries.
#[inline(always)]
fn combine<V: Number, const L: usize>(
    mut basis: &[V],
    decoder: impl Iterator<Item = V>,
    k: usize,
    curve: &Curve<'_, L>,
    out: &mut [V],
) {
    if curve.slots.len() == 1 {
        // the usual curve: its three sums stay in registers
        let [mut value, mut slope, mut bend] = [V::default(); 3];
        for x in decoder {
            let Some((&[v, s, b], rest)) = basis.split_first_chunk() else { break };
            value += v * x;
            slope += s * x;
            bend += b * x;
            basis = rest;
        }
        out[k] = value;
        out[curve.at] = slope;
        out[curve.at + 1] = bend;
        return;
    }
    out[k] = V::default();
    let size = curve.len() - 1;
    out[curve.at..curve.at + size].fill(V::default());
    for x in decoder {
        let Some((value, rest)) = basis.split_first() else { break };
        let (derivatives, rest) = rest.split_at(size);
        out[k] += *value * x;
        out[curve.at..curve.at + size].iter_mut().zip(derivatives).for_each(|(out, d)| *out += *d * x);
        basis = rest;
    }
}

/// A gate and a curve. Their variables are numbered: first the logits, then the coordinates.
struct Factors<'a, J: Jet> {
    gate: &'a J,
    /// Number of logits.
    logits: usize,
    /// The curve's value.
    value: J::Value,
    /// Its gradient and its Hessian.
    derivatives: &'a [J::Value],
    /// Number of coordinates.
    coords: usize,
}

impl<J: Jet> Factors<'_, J> {
    /// The derivative of their product in up to four variables.
    fn derivative(&self, variables: &[usize]) -> J::Value {
        let (mut of_gate, mut of_curve) = ([0; 4], [0; 4]);
        let (mut u, mut v) = (0, 0);
        for &variable in variables {
            if variable < self.logits {
                of_gate[u] = variable;
                u += 1;
            } else {
                of_curve[v] = variable - self.logits;
                v += 1;
            }
        }
        let gate = match of_gate[..u] {
            [] => self.gate.value(),
            [ref leading @ .., last] => self.gate.derivatives(leading)[last],
        };
        let curve = match of_curve[..v] {
            [] => self.value,
            [x] => self.derivatives[x],
            [x, y] => self.derivatives[self.coords * (1 + x) + y],
            // the model of a curve is quadratic
            _ => J::Value::default(),
        };
        gate * curve
    }
}
