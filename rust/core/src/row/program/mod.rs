//! One row's reconstruction and its derivatives in the row's own variables, written once over any jet.
//!
//! `z_c = sum_k a_k(l) sum_b Phi_b(t_k) B_bc`: the gates are built once, each atom's basis once, and every column is
//! assembled from them. One column to the fourth order, all columns to the second and four rows side by side run the same
//! text, so they agree to the last bit.
//!
//! * `pass`: gates and bases over any jet, and which jet to take. `assembly`: columns from them. `packed`: the results.

mod assembly;
mod packed;
mod pass;

pub use packed::{PackedBatch4, PackedJets};

use crate::atoms::BasisJet;
use crate::errors::ShapeError;
use crate::gates::RowGate;
use crate::jets::HeapTower4;
use ndarray::{Array1, Array2, Array3, ArrayView2, Dimension};
use pass::{order1, order2, tower4, Border, Columns, Pass};
use std::ops::Range;
use std::sync::Arc;

/// One atom of a row: its basis at the row's coordinate, with derivatives there, and its decoder.
#[derive(Clone, Debug)]
pub struct RowAtom {
    /// Basis row, length M.
    pub phi: Array1<f64>,
    /// First derivatives, M x d.
    pub d_phi: Array2<f64>,
    /// Second derivatives, M x d x d.
    pub d2_phi: Array3<f64>,
    /// M x p. Rows of a batch that share it are faster.
    pub decoder: Arc<RowDecoder>,
}

/// A decoder, stored by columns: a column of the reconstruction takes one column of it.
#[derive(Clone, Debug, PartialEq)]
pub struct RowDecoder {
    width: usize,
    n_outputs: usize,
    columns: Vec<f64>,
}

impl RowDecoder {
    /// From an M x p matrix.
    pub fn new(decoder: ArrayView2<'_, f64>) -> Self {
        let (width, n_outputs) = decoder.dim();
        Self { width, n_outputs, columns: decoder.t().iter().copied().collect() }
    }

    /// Number of basis columns M.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of output columns p.
    pub fn n_outputs(&self) -> usize {
        self.n_outputs
    }

    #[inline(always)]
    fn column(&self, c: usize) -> &[f64] {
        &self.columns[c * self.width..(c + 1) * self.width]
    }
}

/// Which primary each variable of a row is; `None` for a variable that is held.
#[derive(Clone, Debug, PartialEq)]
pub struct RowSlots {
    /// Number of primaries.
    pub primaries: usize,
    /// One for each atom.
    pub logits: Vec<Option<usize>>,
    /// One for each axis of each atom.
    pub coords: Vec<Vec<Option<usize>>>,
}

/// One row's reconstruction and its derivatives in any of its variables.
#[derive(Clone, Debug)]
pub struct SaeReconstructionRowProgram {
    atoms: Vec<RowAtom>,
    logits: Vec<f64>,
    gate: RowGate,
    inverse_temperature: f64,
    slots: RowSlots,
    n_outputs: usize,
    /// Atoms whose gates depend on the same logits: all of them, or each on its own.
    groups: Vec<Group>,
    curves: Vec<FreeAxes>,
}

/// Neighbouring atoms whose gates depend on the same logits.
#[derive(Clone, Debug)]
struct Group {
    pub atoms: Range<usize>,
    /// Slots of their free logits.
    pub slots: Vec<usize>,
    /// Where each atom's logit is among those; `None` where it is held.
    pub logits: Vec<Option<usize>>,
}

impl Group {
    fn new(atoms: Range<usize>, logits: &[Option<usize>]) -> Self {
        let slots: Vec<usize> = logits[atoms.clone()].iter().copied().flatten().collect();
        let mut next = 0..slots.len();
        let logits = logits[atoms.clone()].iter().map(|slot| slot.and_then(|_| next.next())).collect();
        Self { atoms, slots, logits }
    }
}

/// The coordinates of an atom that are free.
#[derive(Clone, Debug)]
struct FreeAxes {
    pub axes: Vec<usize>,
    /// Their slots.
    pub slots: Vec<usize>,
}

impl FreeAxes {
    fn new(slots: &[Option<usize>]) -> Self {
        let (axes, slots) = slots.iter().enumerate().filter_map(|(axis, slot)| Some((axis, (*slot)?))).unzip();
        Self { axes, slots }
    }
}

fn check_finite(what: &str, array: ndarray::ArrayViewD<'_, f64>) -> Result<(), ShapeError> {
    match array.indexed_iter().find(|(_, v)| !v.is_finite()) {
        Some((index, &value)) => Err(ShapeError::NotFinite { what: what.into(), index: index.slice().to_vec(), value }),
        None => Ok(()),
    }
}

fn check_shape(what: String, found: &[usize], expected: &[usize]) -> Result<(), ShapeError> {
    match found == expected {
        true => Ok(()),
        false => Err(ShapeError::shape(what, found, expected)),
    }
}

impl RowAtom {
    /// From a basis at the row's coordinate.
    pub fn from_jet(jet: &BasisJet, decoder: Arc<RowDecoder>) -> Self {
        let m = jet.phi.len();
        let d = jet.d1.len() / m;
        Self {
            phi: jet.phi.clone().into(),
            d_phi: Array2::from_shape_fn((m, d), |(b, x)| jet.d1[x * m + b]),
            d2_phi: Array3::from_shape_fn((m, d, d), |(b, x, y)| jet.d2[(x * d + y) * m + b]),
            decoder,
        }
    }

    fn check(&self, k: usize, n_outputs: usize) -> Result<(), ShapeError> {
        let (m, d) = self.d_phi.dim();
        let name = |field: &str| format!("{field}[{k}]");
        check_shape(name("phi"), self.phi.shape(), &[m])?;
        check_shape(name("d2_phi"), self.d2_phi.shape(), &[m, d, d])?;
        check_shape(name("decoder"), &[self.decoder.width, self.decoder.n_outputs], &[m, n_outputs])?;
        check_finite(&name("phi"), self.phi.view().into_dyn())?;
        check_finite(&name("d_phi"), self.d_phi.view().into_dyn())?;
        check_finite(&name("d2_phi"), self.d2_phi.view().into_dyn())?;
        let columns = ArrayView2::from_shape((n_outputs, m), &self.decoder.columns).expect("one column an output");
        check_finite(&name("decoder"), columns.t().into_dyn())
    }
}

impl RowGate {
    fn check(&self, n_atoms: usize) -> Result<(), ShapeError> {
        let Self::Logistic { scale, shift } = self else { return Ok(()) };
        for (name, values) in [("gate_scale", scale), ("gate_shift", shift)] {
            check_shape(name.into(), &[values.len()], &[n_atoms])?;
            check_finite(name, ndarray::ArrayView1::from(values).into_dyn())?;
        }
        Ok(())
    }

    /// The logistic's numbers of atom k.
    fn scale_and_shift(&self, k: usize) -> [f64; 2] {
        match self {
            Self::Softmax => [1.0, 0.0],
            Self::Logistic { scale, shift } => [scale[k], shift[k]],
        }
    }

    fn same_kind(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl RowSlots {
    /// Every slot in range, and no two variables in one.
    fn check(&self, dims: &[usize]) -> Result<(), ShapeError> {
        check_shape("logit_slots".into(), &[self.logits.len()], &[dims.len()])?;
        let found: Vec<usize> = self.coords.iter().map(Vec::len).collect();
        check_shape("coord_slots".into(), &found, dims)?;
        let logits = self.logits.iter().enumerate().map(|(k, s)| (format!("logit_slots[{k}]"), s));
        let coords = self
            .coords
            .iter()
            .enumerate()
            .flat_map(|(k, axes)| axes.iter().enumerate().map(move |(a, s)| (format!("coord_slots[{k}][{a}]"), s)));
        let mut taken: Vec<Option<String>> = vec![None; self.primaries];
        for (what, slot) in logits.chain(coords) {
            let Some(slot) = *slot else { continue };
            match taken.get_mut(slot) {
                None => return Err(ShapeError::SlotOutOfRange { what, slot, primaries: self.primaries }),
                Some(Some(other)) => return Err(ShapeError::SlotTaken { what, other: other.clone(), slot }),
                Some(free) => *free = Some(what),
            }
        }
        Ok(())
    }
}

impl SaeReconstructionRowProgram {
    /// `logits` has one entry for each atom; `inverse_temperature` is 1/tau.
    pub fn new(
        atoms: Vec<RowAtom>,
        logits: Vec<f64>,
        gate: RowGate,
        inverse_temperature: f64,
        slots: RowSlots,
    ) -> Result<Self, ShapeError> {
        let Some(first) = atoms.first() else {
            return Err(ShapeError::value("a row program needs at least one atom, found 0"));
        };
        let (n_atoms, n_outputs) = (atoms.len(), first.decoder.n_outputs);
        atoms.iter().enumerate().try_for_each(|(k, atom)| atom.check(k, n_outputs))?;
        check_shape("logits".into(), &[logits.len()], &[n_atoms])?;
        check_finite("logits", ndarray::ArrayView1::from(&logits).into_dyn())?;
        gate.check(n_atoms)?;
        if !(inverse_temperature > 0.0 && inverse_temperature.is_finite()) {
            return Err(ShapeError::value(format!(
                "inverse_temperature must be positive and finite, found {inverse_temperature}"
            )));
        }
        let dims: Vec<usize> = atoms.iter().map(|a| a.d_phi.ncols()).collect();
        slots.check(&dims)?;
        Ok(Self::from_checked(atoms, logits, gate, inverse_temperature, slots))
    }

    /// The same from parts that fit together; numbers that are not finite go through to the results.
    pub(super) fn from_checked(
        atoms: Vec<RowAtom>,
        logits: Vec<f64>,
        gate: RowGate,
        inverse_temperature: f64,
        slots: RowSlots,
    ) -> Self {
        let (n_atoms, n_outputs) = (atoms.len(), atoms.first().map_or(0, |atom| atom.decoder.n_outputs));
        let groups = match gate {
            RowGate::Softmax => vec![Group::new(0..n_atoms, &slots.logits)],
            RowGate::Logistic { .. } => (0..n_atoms).map(|k| Group::new(k..k + 1, &slots.logits)).collect(),
        };
        let curves = slots.coords.iter().map(|axes| FreeAxes::new(axes)).collect();
        Self { atoms, logits, gate, inverse_temperature, slots, n_outputs, groups, curves }
    }

    /// Number of atoms K.
    pub fn n_atoms(&self) -> usize {
        self.atoms.len()
    }

    /// Number of output columns p.
    pub fn n_outputs(&self) -> usize {
        self.n_outputs
    }

    /// Number of primaries N.
    pub fn n_primaries(&self) -> usize {
        self.slots.primaries
    }

    /// Number of basis columns of each atom.
    pub fn widths(&self) -> Vec<usize> {
        self.atoms.iter().map(|a| a.phi.len()).collect()
    }

    /// Every border channel (atom, basis column), atom by atom.
    pub fn channels(&self) -> Vec<(usize, usize)> {
        self.widths().iter().enumerate().flat_map(|(k, &m)| (0..m).map(move |b| (k, b))).collect()
    }

    /// Whether rows can share one four-row pass: same gate, temperature, slots and shapes.
    pub fn aligned(rows: [&Self; 4]) -> bool {
        let first = rows[0];
        rows[1..].iter().all(|row| {
            row.gate.same_kind(&first.gate)
                && row.inverse_temperature.to_bits() == first.inverse_temperature.to_bits()
                && row.slots == first.slots
                && row.n_outputs == first.n_outputs
                && row.atoms.iter().zip(&first.atoms).all(|(a, b)| a.phi.len() == b.phi.len())
        })
    }

    /// Column c of the reconstruction to the fourth order.
    pub fn reconstruction_column(&self, c: usize) -> Result<HeapTower4, ShapeError> {
        self.check_column(c)?;
        let mut out = PackedJets::default();
        self.column_into(c, &mut out);
        Ok(out.into_tower())
    }

    fn column_into(&self, c: usize, out: &mut PackedJets) {
        tower4(self.gate_logits(), Columns { pass: Pass::one(self), columns: c..c + 1 }, out);
    }

    /// Column c of four rows; each result is that of [`Self::reconstruction_column`] on its row, to the bit.
    pub fn reconstruction_column_batch4(rows: [&Self; 4], c: usize) -> Result<[HeapTower4; 4], ShapeError> {
        rows.iter().try_for_each(|row| row.check_column(c))?;
        let mut out = PackedBatch4::default();
        match Self::aligned(rows) {
            true => {
                tower4(rows[0].gate_logits(), Columns { pass: Pass::four(rows), columns: c..c + 1 }, out.lanes_mut());
            }
            false => out.rows_mut().iter_mut().zip(rows).for_each(|(out, row)| row.column_into(c, out)),
        }
        Ok(out.into_rows().map(PackedJets::into_tower))
    }

    /// All columns of the reconstruction to the second order.
    pub fn reconstruction_all_columns_packed(&self) -> PackedJets {
        let mut out = PackedJets::default();
        self.reconstruction_all_columns_packed_into(&mut out);
        out
    }

    /// [`Self::reconstruction_all_columns_packed`] into arrays that are there already: for many rows, much of the time is
    /// getting memory.
    pub fn reconstruction_all_columns_packed_into(&self, out: &mut PackedJets) {
        order2(self.gate_logits(), Columns { pass: Pass::one(self), columns: 0..self.n_outputs }, out);
    }

    /// All columns of four rows; each result is that of [`Self::reconstruction_all_columns_packed`] on its row, to the bit.
    pub fn reconstruction_all_columns_packed_batch4(rows: [&Self; 4]) -> PackedBatch4 {
        let mut out = PackedBatch4::default();
        Self::reconstruction_all_columns_packed_batch4_into(rows, &mut out);
        out
    }

    /// [`Self::reconstruction_all_columns_packed_batch4`] into arrays that are there already.
    pub fn reconstruction_all_columns_packed_batch4_into(rows: [&Self; 4], out: &mut PackedBatch4) {
        match Self::aligned(rows) {
            true => {
                let task = Columns { pass: Pass::four(rows), columns: 0..rows[0].n_outputs };
                order2(rows[0].gate_logits(), task, out.lanes_mut());
            }
            false => {
                let outs = out.rows_mut().iter_mut();
                outs.zip(rows).for_each(|(out, row)| row.reconstruction_all_columns_packed_into(out));
            }
        }
    }

    /// Border channels `s_kb = a_k(l) Phi_b(t_k)` to the first order, for some (atom, basis column).
    pub fn beta_border_order1_packed(&self, channels: &[(usize, usize)]) -> Result<PackedJets, ShapeError> {
        self.check_channels(channels)?;
        let mut out = PackedJets::default();
        self.border_into(channels, &mut out);
        Ok(out)
    }

    fn border_into(&self, channels: &[(usize, usize)], out: &mut PackedJets) {
        order1(self.gate_logits(), Border { pass: Pass::one(self), channels }, out);
    }

    /// Border channels of four rows; each result is that of [`Self::beta_border_order1_packed`] on its row, to the bit.
    pub fn beta_border_order1_packed_batch4(
        rows: [&Self; 4],
        channels: &[(usize, usize)],
    ) -> Result<PackedBatch4, ShapeError> {
        rows.iter().try_for_each(|row| row.check_channels(channels))?;
        let mut out = PackedBatch4::default();
        match Self::aligned(rows) {
            true => order1(rows[0].gate_logits(), Border { pass: Pass::four(rows), channels }, out.lanes_mut()),
            false => out.rows_mut().iter_mut().zip(rows).for_each(|(out, row)| row.border_into(channels, out)),
        }
        Ok(out)
    }

    /// The most free logits that one gate depends on.
    fn gate_logits(&self) -> usize {
        self.groups.iter().map(|group| group.slots.len()).max().unwrap_or(0)
    }

    fn check_column(&self, c: usize) -> Result<(), ShapeError> {
        check_index("column", c, self.n_outputs)
    }

    fn check_channels(&self, channels: &[(usize, usize)]) -> Result<(), ShapeError> {
        channels.iter().enumerate().try_for_each(|(i, &(k, b))| {
            check_index(&format!("channels[{i}]: atom"), k, self.n_atoms())?;
            check_index(&format!("channels[{i}]: basis column"), b, self.atoms[k].phi.len())
        })
    }
}

fn check_index(what: &str, index: usize, size: usize) -> Result<(), ShapeError> {
    match index < size {
        true => Ok(()),
        false => Err(ShapeError::IndexOutOfRange { what: what.into(), index, size }),
    }
}

#[cfg(test)]
mod tests;
