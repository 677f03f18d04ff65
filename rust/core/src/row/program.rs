//! One row's reconstruction, written once over any jet.
//!
//! `z_c = sum_k a_k(l) sum_b Phi_b(t_k) B_bc`: gates are built once, the basis jets of an atom once, and every column is
//! assembled from them. A column on its own, all columns together and four rows at a time run the same text, so they
//! agree to the last bit.
//!
//! A gate depends on logits and a curve on coordinates. Their jets are told which slots those are and pass over the
//! others, whose derivatives are zero.

use super::packed::PackedJets;
use super::pass::{order1, order2, tower4, AllColumns, Border, Column, Pass};
use crate::errors::ShapeError;
use crate::jets::HeapTower4;
use ndarray::{Array1, Array2, Array3, Dimension};
use std::sync::Arc;

/// How a row's logits become gates.
#[derive(Clone, Debug, PartialEq)]
pub enum RowGate {
    /// `exp(l_k / tau) / sum_j exp(l_j / tau)`.
    Softmax,
    /// `scale_k / (1 + exp(-(l_k - shift_k) / tau))`, one scale and one shift an atom.
    Logistic { scale: Vec<f64>, shift: Vec<f64> },
}

/// One atom of a row: its basis at the row's coordinate, with derivatives there, and its decoder.
#[derive(Clone, Debug)]
pub struct RowAtom {
    /// Basis row, length M.
    pub phi: Array1<f64>,
    /// First derivatives, M x d.
    pub d_phi: Array2<f64>,
    /// Second derivatives, M x d x d.
    pub d2_phi: Array3<f64>,
    /// M x p. Rows that share it are faster in a batch.
    pub decoder: Arc<Array2<f64>>,
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
    pub(super) atoms: Vec<RowAtom>,
    pub(super) logits: Vec<f64>,
    pub(super) gate: RowGate,
    pub(super) inverse_temperature: f64,
    pub(super) slots: RowSlots,
    n_outputs: usize,
    /// Sorted slots that each gate depends on.
    pub(super) gate_slots: Vec<Vec<usize>>,
    /// Sorted slots that each curve depends on.
    pub(super) curve_slots: Vec<Vec<usize>>,
}

fn sorted(slots: impl Iterator<Item = Option<usize>>) -> Vec<usize> {
    let mut out: Vec<usize> = slots.flatten().collect();
    out.sort_unstable();
    out
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
    fn check(&self, k: usize, n_outputs: usize) -> Result<(), ShapeError> {
        let (m, d) = self.d_phi.dim();
        let name = |field: &str| format!("{field}[{k}]");
        check_shape(name("phi"), self.phi.shape(), &[m])?;
        check_shape(name("d2_phi"), self.d2_phi.shape(), &[m, d, d])?;
        check_shape(name("decoder"), self.decoder.shape(), &[m, n_outputs])?;
        check_finite(&name("phi"), self.phi.view().into_dyn())?;
        check_finite(&name("d_phi"), self.d_phi.view().into_dyn())?;
        check_finite(&name("d2_phi"), self.d2_phi.view().into_dyn())?;
        check_finite(&name("decoder"), self.decoder.view().into_dyn())
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
        mut atoms: Vec<RowAtom>,
        logits: Vec<f64>,
        gate: RowGate,
        inverse_temperature: f64,
        slots: RowSlots,
    ) -> Result<Self, ShapeError> {
        let Some(first) = atoms.first() else {
            return Err(ShapeError::value("a row program needs at least one atom, found 0"));
        };
        let (n_atoms, n_outputs) = (atoms.len(), first.decoder.ncols());
        for (k, atom) in atoms.iter_mut().enumerate() {
            atom.check(k, n_outputs)?;
            if !atom.decoder.is_standard_layout() {
                atom.decoder = Arc::new(atom.decoder.as_standard_layout().into_owned());
            }
        }
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
        let all = sorted(slots.logits.iter().copied());
        let gate_slots = slots
            .logits
            .iter()
            .map(|own| match gate {
                RowGate::Softmax => all.clone(),
                RowGate::Logistic { .. } => own.iter().copied().collect(),
            })
            .collect();
        let curve_slots = slots.coords.iter().map(|axes| sorted(axes.iter().copied())).collect();
        Ok(Self { atoms, logits, gate, inverse_temperature, slots, n_outputs, gate_slots, curve_slots })
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
        let [tower] = tower4(self.n_primaries(), Column { pass: Pass::one(self), c });
        Ok(tower.into_tower())
    }

    /// Column c of four rows; each result is that of [`Self::reconstruction_column`] on its row, to the bit.
    pub fn reconstruction_column_batch4(rows: [&Self; 4], c: usize) -> Result<[HeapTower4; 4], ShapeError> {
        rows.iter().try_for_each(|row| row.check_column(c))?;
        let towers = match Self::aligned(rows) {
            true => tower4(rows[0].n_primaries(), Column { pass: Pass::four(rows), c }),
            false => rows.map(|row| {
                let [tower] = tower4(row.n_primaries(), Column { pass: Pass::one(row), c });
                tower
            }),
        };
        Ok(towers.map(PackedJets::into_tower))
    }

    /// All columns of the reconstruction to the second order.
    pub fn reconstruction_all_columns_packed(&self) -> PackedJets {
        let [packed] = order2(self.n_primaries(), AllColumns { pass: Pass::one(self) });
        packed
    }

    /// All columns of four rows; each result is that of [`Self::reconstruction_all_columns_packed`] on its row, to the bit.
    pub fn reconstruction_all_columns_packed_batch4(rows: [&Self; 4]) -> [PackedJets; 4] {
        match Self::aligned(rows) {
            true => order2(rows[0].n_primaries(), AllColumns { pass: Pass::four(rows) }),
            false => rows.map(Self::reconstruction_all_columns_packed),
        }
    }

    /// Border channels `s_kb = a_k(l) Phi_b(t_k)` to the first order, for some (atom, basis column).
    pub fn beta_border_order1_packed(&self, channels: &[(usize, usize)]) -> Result<PackedJets, ShapeError> {
        self.check_channels(channels)?;
        let [packed] = order1(self.n_primaries(), Border { pass: Pass::one(self), channels });
        Ok(packed)
    }

    /// Border channels of four rows; each result is that of [`Self::beta_border_order1_packed`] on its row, to the bit.
    pub fn beta_border_order1_packed_batch4(
        rows: [&Self; 4],
        channels: &[(usize, usize)],
    ) -> Result<[PackedJets; 4], ShapeError> {
        rows.iter().try_for_each(|row| row.check_channels(channels))?;
        Ok(match Self::aligned(rows) {
            true => order1(rows[0].n_primaries(), Border { pass: Pass::four(rows), channels }),
            false => rows.map(|row| {
                let [packed] = order1(row.n_primaries(), Border { pass: Pass::one(row), channels });
                packed
            }),
        })
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
