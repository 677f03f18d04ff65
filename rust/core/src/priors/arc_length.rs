//! Re-weighting of a curve's roughness by the speed at which its rows pass along it.
//!
//! S measures bending in the coordinate, which agrees with bending in arc length only where the curve is traced at constant
//! speed. With `m_n = |Phi'(t_n) B|^2` the squared speed at a row, `s_mu = sum_n Phi_mu^2 m_n / sum_n Phi_mu^2` its mean as
//! basis function mu sees it, and c the geometric mean of the s_mu,
//!
//! ```text
//!     S~ = W^1/2 S W^1/2,    w_mu = clip(s_mu / c)^(1/2 - nullity S).
//! ```
//!
//! W is positive, so S~ has the rank of S and stays positive semi-definite. The weights are frozen while strengths are
//! searched: S~ is then a constant of the problem, and every formula holds with it in place of S.

use crate::atoms::BasisJet;
use crate::linalg::dot;
use crate::problem::Problem;
use crate::state::State;
use ndarray::{s, Array2};

/// Range of the relative squared speed: beyond it a weight says that a basis function has no rows.
const CLIP: (f64, f64) = (1e-6, 1e6);
/// Speeds that differ by less than this part of the largest are one speed.
const CONSTANT: f64 = 1e-10;

/// Weights of atom k's basis functions; `None` where they are one: a chart of more than one dimension, an S without a null
/// space, no speed, or a constant speed.
pub fn arc_length_weights(problem: &Problem, state: &State, k: usize) -> Option<Vec<f64>> {
    let atom = &*problem.atoms()[k];
    let width = atom.width();
    let nullity = width - problem.rank(k);
    if atom.dim() != 1 || nullity == 0 {
        return None;
    }
    let decoder = state.decoder(problem, k);
    let gram = decoder.dot(&decoder.t());
    let mut jet = BasisJet::new(1, width);
    let (mut seen, mut moved) = (vec![0.0; width], vec![0.0; width]);
    let (mut slowest, mut fastest) = (f64::INFINITY, 0.0f64);
    for row in (0..problem.n_rows()).filter(|&row| state.support(row).binary_search(&(k as u32)).is_ok()) {
        let weight = problem.weight(row);
        if weight == 0.0 {
            continue;
        }
        atom.jet(state.point(k, row), &mut jet);
        let through: Vec<f64> =
            gram.rows().into_iter().map(|g| dot(g.as_slice().expect("standard layout"), &jet.d1)).collect();
        let speed = dot(&through, &jet.d1);
        (slowest, fastest) = (slowest.min(speed), fastest.max(speed));
        for (mu, phi) in jet.phi.iter().enumerate() {
            seen[mu] += weight * phi * phi;
            moved[mu] += weight * phi * phi * speed;
        }
    }
    if !(fastest > 0.0 && fastest.is_finite()) || fastest - slowest <= CONSTANT * fastest {
        return None;
    }
    let speeds: Vec<f64> = moved.iter().zip(&seen).map(|(m, s)| m / s).collect();
    let logs: Vec<f64> = speeds.iter().filter(|v| **v > 0.0 && v.is_finite()).map(|v| v.ln()).collect();
    let centre = (logs.iter().sum::<f64>() / logs.len() as f64).exp();
    let power = 0.5 - nullity as f64;
    // a basis function that vanishes on every row has no speed, and keeps its weight
    let weight = |v: &f64| if v.is_nan() { 1.0 } else { (v / centre).clamp(CLIP.0, CLIP.1).powf(power) };
    Some(speeds.iter().map(weight).collect())
}

/// `W^1/2 S W^1/2`.
pub fn weighted(mut roughness: Array2<f64>, weights: &[f64]) -> Array2<f64> {
    for (a, mut row) in roughness.rows_mut().into_iter().enumerate() {
        row.iter_mut().zip(weights).for_each(|(v, w)| *v *= (weights[a] * w).sqrt());
    }
    roughness
}

/// The projector on the null space of `W^1/2 S W^1/2`, from that on the null space of S: it is spanned by `W^-1/2 N`.
pub fn weighted_null(projector: &Array2<f64>, weights: &[f64]) -> Array2<f64> {
    let mut rows = projector.clone();
    for (column, w) in weights.iter().enumerate() {
        rows.slice_mut(s![.., column]).mapv_inplace(|v| v / w.sqrt());
    }
    let basis = crate::linalg::row_space(rows.view());
    basis.dot(&basis.t())
}
