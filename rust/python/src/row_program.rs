use crate::convert::{value_error, vector};
use crate::jets::{Order1, Order2, Tower4};
use numpy::{PyReadonlyArray1, PyReadonlyArray2, PyReadonlyArray3, PyReadonlyArrayDyn};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use sae_core::{RowAtom, RowDecoder, RowGate, RowSlots, SaeReconstructionRowProgram as Core};
use std::sync::Arc;

/// One row's reconstruction and its derivatives in the row's logits and coordinates.
///
/// With a basis that is expanded to second order about the row's coordinates, ``Phi_b(u) = phi_b + sum_x d_phi_bx u_x +
/// 1/2 sum_xy d2_phi_bxy u_x u_y``, column c of the reconstruction is ``sum_k a_k(l) sum_b Phi_kb(u_k) B_kbc``. It is
/// differentiated at u = 0 in N primaries: the logits and coordinates that have a slot. Others are held.
///
/// Parameters
/// ----------
/// phi : sequence of arrays (M_k,), float64
///     Basis row of each atom at the row's coordinate. ``basis_jets`` of the core gives it and its derivatives.
/// d_phi : sequence of arrays (M_k, d_k), float64
///     First derivatives of the basis.
/// d2_phi : sequence of arrays (M_k, d_k, d_k), float64
///     Second derivatives of the basis; only their symmetric part counts.
/// decoder : sequence of arrays (M_k, p), float64
///     Decoder of each atom.
/// logits : array (K,), float64
/// gate : {"softmax", "logistic"}
///     ``softmax(l / tau)`` over all K logits, or ``gate_scale_k / (1 + exp(-(l_k - gate_shift_k) / tau))`` for each atom.
/// inverse_temperature : float
///     1/tau, positive.
/// gate_scale, gate_shift : arrays (K,), float64, optional
///     Of the logistic, by default 1 and 0: the prior weight of an atom, 0 for a closed gate; the threshold.
/// logit_slots : sequence of K slots or None, optional
///     Which primary each logit is; None holds it. By default 0 to K - 1.
/// coord_slots : K sequences of d_k slots or None, optional
///     Which primary each coordinate is. By default those that follow the logits, atom by atom.
/// n_primaries : int, optional
///     N, by default one more than the largest slot.
///
/// Raises
/// ------
/// ValueError
///     Arrays that do not fit together or are not finite, a temperature that is not positive, a slot that is out of range
///     or taken twice, an unknown gate.
/// TypeError
///     Arrays of another type than float64 or of another number of axes.
///
/// Notes
/// -----
/// Methods whose name ends in ``_batch4`` take four programs. Rows that are ``aligned`` run side by side in vector
/// registers, others one by one; either way each result has the bits of the row's own method.
#[pyclass(frozen, module = "sae_rs._core")]
pub struct SaeReconstructionRowProgram {
    core: Core,
}

/// The core's slots, by default every logit and then every coordinate, atom by atom.
fn slots(
    dims: &[usize],
    logits: Option<Vec<Option<usize>>>,
    coords: Option<Vec<Vec<Option<usize>>>>,
    primaries: Option<usize>,
) -> RowSlots {
    let mut next = dims.len()..;
    let logits = logits.unwrap_or_else(|| (0..dims.len()).map(Some).collect());
    let coords = coords.unwrap_or_else(|| dims.iter().map(|&d| next.by_ref().take(d).map(Some).collect()).collect());
    let all = logits.iter().chain(coords.iter().flatten()).flatten();
    let primaries = primaries.unwrap_or_else(|| all.max().map_or(0, |slot| slot + 1));
    RowSlots { primaries, logits, coords }
}

fn gate(
    kind: &str,
    n_atoms: usize,
    scale: Option<PyReadonlyArrayDyn<'_, f64>>,
    shift: Option<PyReadonlyArrayDyn<'_, f64>>,
) -> PyResult<RowGate> {
    let [scale, shift] = [(scale, 1.0), (shift, 0.0)]
        .map(|(array, neutral)| array.map_or_else(|| vec![neutral; n_atoms], |array| vector(&array)));
    match kind {
        "logistic" => Ok(RowGate::Logistic { scale, shift }),
        "softmax" => match scale.iter().all(|s| *s == 1.0) && shift.iter().all(|s| *s == 0.0) {
            true => Ok(RowGate::Softmax),
            false => Err(PyValueError::new_err(
                "a softmax has no scale or shift of its own: gate_scale must be all 1 and gate_shift all 0",
            )),
        },
        other => Err(PyValueError::new_err(format!("gate must be \"softmax\" or \"logistic\", got {other:?}"))),
    }
}

fn same_length(name: &str, found: usize, expected: usize) -> PyResult<()> {
    match found == expected {
        true => Ok(()),
        false => Err(PyValueError::new_err(format!("{name} has {found} entries, expected one per atom: {expected}"))),
    }
}

type Program = Py<SaeReconstructionRowProgram>;

/// Exactly four programs.
fn four(rows: &[Program]) -> PyResult<[&Core; 4]> {
    let cores: Vec<&Core> = rows.iter().map(|row| &row.get().core).collect();
    <[&Core; 4]>::try_from(cores)
        .map_err(|rows| PyValueError::new_err(format!("rows has {} programs, expected 4", rows.len())))
}

#[pymethods]
impl SaeReconstructionRowProgram {
    #[new]
    #[pyo3(signature = (phi, d_phi, d2_phi, decoder, logits, *, gate="softmax", inverse_temperature=1.0, gate_scale=None, gate_shift=None, logit_slots=None, coord_slots=None, n_primaries=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        phi: Vec<PyReadonlyArray1<'_, f64>>,
        d_phi: Vec<PyReadonlyArray2<'_, f64>>,
        d2_phi: Vec<PyReadonlyArray3<'_, f64>>,
        decoder: Vec<PyReadonlyArray2<'_, f64>>,
        logits: PyReadonlyArrayDyn<'_, f64>,
        gate: &str,
        inverse_temperature: f64,
        gate_scale: Option<PyReadonlyArrayDyn<'_, f64>>,
        gate_shift: Option<PyReadonlyArrayDyn<'_, f64>>,
        logit_slots: Option<Vec<Option<usize>>>,
        coord_slots: Option<Vec<Vec<Option<usize>>>>,
        n_primaries: Option<usize>,
    ) -> PyResult<Self> {
        let n_atoms = phi.len();
        same_length("d_phi", d_phi.len(), n_atoms)?;
        same_length("d2_phi", d2_phi.len(), n_atoms)?;
        same_length("decoder", decoder.len(), n_atoms)?;
        let dims: Vec<usize> = d_phi.iter().map(|d| d.as_array().ncols()).collect();
        let atoms =
            phi.iter().zip(&d_phi).zip(&d2_phi).zip(&decoder).map(|(((phi, d_phi), d2_phi), decoder)| RowAtom {
                phi: phi.as_array().to_owned(),
                d_phi: d_phi.as_array().to_owned(),
                d2_phi: d2_phi.as_array().to_owned(),
                decoder: Arc::new(RowDecoder::new(decoder.as_array())),
            });
        let gate = self::gate(gate, n_atoms, gate_scale, gate_shift)?;
        let slots = slots(&dims, logit_slots, coord_slots, n_primaries);
        let core = Core::new(atoms.collect(), vector(&logits), gate, inverse_temperature, slots);
        Ok(Self { core: core.map_err(value_error)? })
    }

    /// Number of atoms K.
    #[getter]
    fn n_atoms(&self) -> usize {
        self.core.n_atoms()
    }
    /// Number of output columns p.
    #[getter]
    fn n_outputs(&self) -> usize {
        self.core.n_outputs()
    }
    /// Number of primaries N.
    #[getter]
    fn n_primaries(&self) -> usize {
        self.core.n_primaries()
    }
    /// Every border channel, a pair (atom, basis column), atom by atom.
    #[getter]
    fn channels(&self) -> Vec<(usize, usize)> {
        self.core.channels()
    }

    /// One column of the reconstruction to the fourth order.
    ///
    /// Parameters
    /// ----------
    /// c : int
    ///     The column, below p.
    ///
    /// Returns
    /// -------
    /// Tower4
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     A column that is out of range.
    fn reconstruction_column(&self, py: Python<'_>, c: usize) -> PyResult<Tower4> {
        Ok(py.detach(|| self.core.reconstruction_column(c)).map_err(value_error)?.into())
    }

    /// All columns of the reconstruction to the second order; each equals the lower orders of its ``reconstruction_column``
    /// to the bit.
    ///
    /// Returns
    /// -------
    /// Order2
    ///     Of p columns.
    fn reconstruction_all_columns_packed(&self, py: Python<'_>) -> Order2 {
        py.detach(|| self.core.reconstruction_all_columns_packed()).into()
    }

    /// Border channels ``s_kb = a_k(l) Phi_kb(u_k)``, by which the decoder's entry (k, b, c) multiplies into column c, to the
    /// first order.
    ///
    /// Parameters
    /// ----------
    /// channels : sequence of (atom, basis column), optional
    ///     By default all of them, as in ``channels``.
    ///
    /// Returns
    /// -------
    /// Order1
    ///     Of one column a channel.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     An atom or a basis column that is out of range.
    #[pyo3(signature = (channels=None))]
    fn beta_border_order1_packed(&self, py: Python<'_>, channels: Option<Vec<(usize, usize)>>) -> PyResult<Order1> {
        let channels = channels.unwrap_or_else(|| self.core.channels());
        Ok(py.detach(|| self.core.beta_border_order1_packed(&channels)).map_err(value_error)?.into())
    }

    /// Whether four rows can run side by side: same kind of gate, temperature, slots and shapes.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     Another number of rows than four.
    #[staticmethod]
    fn aligned(rows: Vec<Program>) -> PyResult<bool> {
        Ok(Core::aligned(four(&rows)?))
    }

    /// ``reconstruction_column`` of four rows, a list of four `Tower4`.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     Another number of rows than four, or a column that is out of range for one of them.
    #[staticmethod]
    fn reconstruction_column_batch4(py: Python<'_>, rows: Vec<Program>, c: usize) -> PyResult<Vec<Tower4>> {
        let four = four(&rows)?;
        let towers = py.detach(|| Core::reconstruction_column_batch4(four, c)).map_err(value_error)?;
        Ok(towers.into_iter().map(Tower4::from).collect())
    }

    /// ``reconstruction_all_columns_packed`` of four rows, a list of four `Order2`.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     Another number of rows than four.
    #[staticmethod]
    fn reconstruction_all_columns_packed_batch4(py: Python<'_>, rows: Vec<Program>) -> PyResult<Vec<Order2>> {
        let four = four(&rows)?;
        let batch = py.detach(|| Core::reconstruction_all_columns_packed_batch4(four).into_rows());
        Ok(batch.into_iter().map(Order2::from).collect())
    }

    /// ``beta_border_order1_packed`` of four rows, a list of four `Order1`; by default of all channels of the first row.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     Another number of rows than four, or a channel that is out of range for one of them.
    #[staticmethod]
    #[pyo3(signature = (rows, channels=None))]
    fn beta_border_order1_packed_batch4(
        py: Python<'_>,
        rows: Vec<Program>,
        channels: Option<Vec<(usize, usize)>>,
    ) -> PyResult<Vec<Order1>> {
        let four = four(&rows)?;
        let channels = channels.unwrap_or_else(|| four[0].channels());
        let batch = py.detach(|| Core::beta_border_order1_packed_batch4(four, &channels)).map_err(value_error)?;
        Ok(batch.into_rows().into_iter().map(Order1::from).collect())
    }

    fn __repr__(&self) -> String {
        format!(
            "SaeReconstructionRowProgram(n_atoms={}, n_outputs={}, n_primaries={})",
            self.n_atoms(),
            self.n_outputs(),
            self.n_primaries()
        )
    }
}
