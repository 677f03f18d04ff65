//! Keeping a fit's rows in agreement with how the same rows would be encoded.

use super::{stay_closed, Encoder, Encoding};
use crate::errors::ShapeError;
use crate::gates::{by_label, resting_logit};
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
    let rows = 0..problem.n_rows();
    let alone: Vec<bool> = if problem.gate().shares() {
        let mut alone = vec![false; problem.n_atoms()];
        for row in rows {
            if let [k] = state.support(row) {
                alone[*k as usize] = true;
            }
        }
        alone
    } else {
        state.uses(problem).iter().map(|uses| *uses < problem.n_rows()).collect()
    };
    if !alone.contains(&true) {
        return Ok(None);
    }
    let stays = |log_sparse: f64| -> Result<bool, ShapeError> {
        let mut rho = rho.clone();
        rho.log_lambda_sparse = log_sparse;
        let gate = problem.shared_gate().clone();
        if gate.closes(problem.n_atoms()) {
            let lambda = rho.lambda_sparse();
            let rest = by_label(&*gate, problem.n_atoms(), |k| resting_logit(&*gate, lambda, k));
            return Ok(stay_closed(&*gate, &rest, &alone));
        }
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
    let current = |i: usize| Some(state.row(problem, i));
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
        let mut all = Encoding::new(!problem.compact_rows());
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
    let next = state.clone().with_lambda(rho.lambda_sparse());
    /// A gate, or a basis row, that moves by less than this has stayed in its basin.
    const SAME_BASIN: f64 = 1e-3;
    let ambients: Vec<usize> = problem.atoms().iter().map(|atom| atom.ambient()).collect();
    let (mut logits, mut points) = (Vec::new(), Vec::new());
    let (mut gates, mut here, mut there) = (Vec::new(), Vec::new(), Vec::new());
    for (i, row) in encoded.rows(&ambients).enumerate() {
        let mut stays = row.support == state.support(i);
        if stays {
            next.gates_of(problem, i, &mut gates);
            let opened = row.gates.iter().zip(&gates).any(|(new, old)| (new - old).abs() > SAME_BASIN);
            let mut far = |k: usize, point: &[f64]| {
                let atom = &problem.atoms()[k];
                for (t, phi) in [(state.point(k, i), &mut here), (point, &mut there)] {
                    phi.resize(atom.width(), 0.0);
                    atom.basis(t, phi);
                }
                here.iter().zip(&there).any(|(a, b)| (a - b).abs() > SAME_BASIN)
            };
            let mut own = row.points(&ambients).filter(|(k, _)| row.support.binary_search(&(*k as u32)).is_ok());
            stays = !opened && !own.any(|(k, point)| far(k, point));
        }
        changed += usize::from(!stays);
        let (own, at) = if stays { state.variables_of(i) } else { (row.logits, row.points) };
        logits.extend_from_slice(own);
        points.extend_from_slice(at);
    }
    if changed == 0 {
        return Ok(Some((next, 0)));
    }
    let next = next.with_rows(problem, encoded.supports, logits, points)?;
    Ok(Some((next, changed)))
}
