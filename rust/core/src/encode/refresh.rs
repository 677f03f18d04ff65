//! Keeping a fit's rows in agreement with how the same rows would be encoded.

use super::{Encoder, Encoding};
use crate::errors::ShapeError;
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::row::Columns;
use crate::state::State;
use ndarray::Array1;
use std::ops::Range;

/// The smallest sparsity strength (logarithm, within `bounds`) at which rows that leave atoms out still do.
///
/// Logits of a row that uses one atom alone, or of a closed gate, feel their prior only. Below the floor that prior lifts
/// them over the cutoff, so the row's support would no longer agree with its gates. `None` when no row leaves atoms out in
/// that way, or where the strength has no say in it.
pub fn sparsity_floor(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    bounds: (f64, f64),
) -> Result<Option<f64>, ShapeError> {
    /// Bisections: more than enough for the floor to be exact to rounding of the cutoff.
    const BISECTIONS: usize = 40;
    if problem.n_free() == 0 || problem.gate().columns().is_some() {
        return Ok(None);
    }
    let mut alone = vec![false; problem.n_atoms()];
    for row in 0..problem.n_rows() {
        if !problem.gate().shares() {
            (0..alone.len()).filter(|&k| !state.support(row).contains(&(k as u32))).for_each(|k| alone[k] = true);
        } else if let [k] = state.support(row) {
            alone[*k as usize] = true;
        }
    }
    if !alone.contains(&true) {
        return Ok(None);
    }
    let stays = |log_sparse: f64| -> Result<bool, ShapeError> {
        let mut rho = rho.clone();
        rho.log_lambda_sparse = log_sparse;
        let gate = problem.shared_gate().clone();
        let encoder = Encoder::new(problem.atoms().to_vec(), gate, rho, Vec::new(), state.decoders.clone())?;
        Ok(encoder.stays_sparse(&alone))
    };
    let (mut low, mut high) = bounds;
    for _ in 0..BISECTIONS {
        let middle = 0.5 * (low + high);
        if stays(middle)? {
            high = middle;
        } else {
            low = middle;
        }
    }
    Ok(Some(high))
}

/// Re-encodes every row of a state with its own decoders: supports that no longer agree with the gates are refreshed, and
/// a row that fits better elsewhere moves there. Returns the number of rows that changed, or `None` when interrupted.
pub fn refresh(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    interrupted: &dyn Fn() -> bool,
) -> Result<Option<(State, usize)>, ShapeError> {
    let gate = problem.shared_gate().clone();
    let scores = Columns::new(problem, state, rho).scores();
    let with = |decoders| Encoder::new(problem.atoms().to_vec(), gate.clone(), rho.clone(), scores.clone(), decoders);
    let current = |i: usize| Some(state.row(i));
    let weight = |i: usize| problem.weight(i);
    // `None` when interrupted
    let encoded = |own: Range<usize>| -> Result<Option<Encoding>, ShapeError> {
        let Some(metric) = problem.metric() else {
            let zero = Array1::zeros(problem.n_outputs());
            let encoder = with(state.decoders.clone())?;
            let from = own.start;
            let rows = |part: Range<usize>| problem.rows(from + part.start..from + part.end);
            let (current, weight) = (|i: usize| current(from + i), |i: usize| weight(from + i));
            return Ok(encoder.encode_from(own.len(), rows, zero.view(), current, weight, interrupted));
        };
        // a row in a metric is a plain row of whitened decoders
        let zero = Array1::zeros(metric.rank());
        let mut all = Encoding::empty(problem.atoms());
        for i in own {
            if interrupted() {
                return Ok(None);
            }
            let encoder = with(metric.whiten(i, state.decoders.view()))?;
            let z = metric.whiten(i, problem.rows(i..i + 1).view());
            let row =
                encoder.encode_from(1, |_| z.view().into(), zero.view(), |_| current(i), |_| weight(i), &|| false);
            match row {
                Some(row) => all.append(row),
                None => return Ok(None),
            }
        }
        Ok(Some(all))
    };
    let mut parts = problem.shared_out(encoded).into_iter();
    let mut encoded = parts.next().transpose()?.flatten();
    for part in parts {
        match (part?, &mut encoded) {
            (Some(part), Some(all)) => all.append(part),
            _ => encoded = None,
        }
    }
    let Some(encoded) = encoded else { return Ok(None) };
    let mut changed = 0;
    let mut next = state.clone().with_lambda(rho.lambda_sparse());
    /// A gate, or a basis row, that moves by less than this has stayed in its basin.
    const SAME_BASIN: f64 = 1e-3;
    let gates = next.gates(problem);
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for i in 0..problem.n_rows() {
        let mut far = |k: usize| {
            let atom = &problem.atoms()[k];
            for (t, phi) in [(&state.coords[k], &mut here), (&encoded.coords[k], &mut there)] {
                phi.resize(atom.width(), 0.0);
                atom.basis(t.row(i).as_slice().expect("standard layout"), phi);
            }
            let apart = here.iter().zip(&there).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
            (encoded.gates[[i, k]] - gates[[i, k]]).abs() > SAME_BASIN || apart > SAME_BASIN
        };
        let moved = encoded.supports[i].iter().any(|&k| far(k as usize));
        if encoded.supports[i] == state.support(i) && !moved {
            continue;
        }
        changed += 1;
        next.logits.row_mut(i).assign(&encoded.logits.row(i));
        for (block, from) in next.coords.iter_mut().zip(&encoded.coords) {
            block.row_mut(i).assign(&from.row(i));
        }
    }
    if changed == 0 {
        return Ok(Some((next, 0)));
    }
    let next = next.with_support(problem, encoded.supports)?;
    Ok(Some((next, changed)))
}
