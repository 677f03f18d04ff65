//! A fit's rows as row programs.

use super::program::{RowAtom, RowDecoder, RowSlots, SaeReconstructionRowProgram};
use super::tape::RowView;
use crate::atoms::{hold, BasisJet};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::state::State;
use ndarray::Array2;
use std::ops::Range;
use std::sync::Arc;

/// The program of a row that uses some atom, over its coupled variables in their order; `decoder` gives the decoder of the atom
/// with these stacked rows.
pub fn row_program(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    view: &RowView<'_>,
    decoder: impl Fn(Range<usize>) -> Array2<f64>,
) -> SaeReconstructionRowProgram {
    let formula = problem.gate().formula(rho.lambda_sparse(), state.logits_of(view.row), view.support);
    let mut slots = RowSlots { primaries: view.q, logits: Vec::new(), coords: Vec::new() };
    let mut atoms = Vec::with_capacity(view.support.len());
    for (s, atom) in view.atoms().enumerate() {
        let kind = &problem.atoms()[atom.atom];
        let mut jet = BasisJet::new(kind.dim(), kind.width());
        let point = state.point(atom.atom, view.row);
        kind.jet(point, &mut jet);
        hold(kind.factors(), point, &mut jet);
        atoms.push(RowAtom::from_jet(&jet, Arc::new(RowDecoder::new(decoder(atom.rows.clone()).view()))));
        // free logits come first, in the order of the support
        slots.logits.push((s < view.free && formula.moves[s]).then_some(s));
        slots.coords.push((atom.slot..atom.slot + kind.dim()).map(Some).collect());
    }
    SaeReconstructionRowProgram::from_checked(atoms, formula.logits, formula.gate, formula.inverse_temperature, slots)
}
