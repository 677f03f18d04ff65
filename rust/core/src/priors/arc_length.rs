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
//!
//! On a circle these weights depend on where the angle has its zero, which means nothing: frozen, they would break the
//! rotation that the evidence integrates over, and turn the circle by a quarter each time they are renewed. There w is the
//! mean over all rotations, which is the same for the cosine and the sine of a harmonic, to the last bit, so the rotation
//! stays exact.

use crate::atoms::{Atom, BasisJet};
use crate::linalg::dot;
use crate::problem::Problem;
use crate::state::State;
use ndarray::{s, Array2};
use std::f64::consts::TAU;

/// Range of the relative squared speed: beyond it a weight says that a basis function has no rows.
const CLIP: (f64, f64) = (1e-6, 1e6);
/// Speeds that differ by less than this part of the largest are one speed.
const CONSTANT: f64 = 1e-10;
/// Rotations of the mean over a circle. A prime: no harmonic beats with it.
const ROTATIONS: usize = 257;

/// A row that uses the atom: its coordinate, its weight, and its squared speed.
struct Passing {
    at: Vec<f64>,
    weight: f64,
    speed: f64,
}

/// Weights of atom k's basis functions; `None` where they are one: a chart of more than one dimension, an S without a null
/// space, no speed, or a constant speed.
pub fn arc_length_weights(problem: &Problem, state: &State, k: usize) -> Option<Vec<f64>> {
    let atom = &*problem.atoms()[k];
    let nullity = atom.width() - problem.rank(k);
    if atom.dim() != 1 || nullity == 0 {
        return None;
    }
    let mut passing = passing(problem, state, k);
    let slowest = passing.iter().fold(f64::INFINITY, |m, row| m.min(row.speed));
    let fastest = passing.iter().fold(0.0f64, |m, row| m.max(row.speed));
    if !(fastest > 0.0 && fastest.is_finite()) || fastest - slowest <= CONSTANT * fastest {
        return None;
    }
    let power = 0.5 - nullity as f64;
    let rotations = if atom.generators().is_empty() { 1 } else { ROTATIONS };
    let mut mean = vec![0.0; atom.width()];
    for _ in 0..rotations {
        for (m, speed) in mean.iter_mut().zip(relative_speeds(atom, &passing)) {
            *m += speed.clamp(CLIP.0, CLIP.1).powf(power) / rotations as f64;
        }
        passing.iter_mut().for_each(|row| atom.advance(&mut row.at, &[TAU / rotations as f64]));
    }
    // where rows lie close together the sum is off, for the members of a harmonic each in its own way
    for map in atom.generators() {
        for ((a, b), _) in map.indexed_iter().filter(|(_, turned)| **turned != 0.0) {
            let both = 0.5 * (mean[a] + mean[b]);
            (mean[a], mean[b]) = (both, both);
        }
    }
    Some(mean)
}

fn passing(problem: &Problem, state: &State, k: usize) -> Vec<Passing> {
    let atom = &*problem.atoms()[k];
    let decoder = state.decoder(problem, k);
    let gram = decoder.dot(&decoder.t());
    let mut jet = BasisJet::new(1, atom.width());
    let rows = (0..problem.n_rows()).filter(|&row| state.support(row).binary_search(&(k as u32)).is_ok());
    rows.filter(|&row| problem.weight(row) > 0.0)
        .map(|row| {
            atom.jet(state.point(k, row), &mut jet);
            let through = gram.rows().into_iter().map(|g| dot(g.as_slice().expect("standard layout"), &jet.d1));
            let speed = through.zip(&jet.d1).map(|(b, d)| b * d).sum();
            Passing { at: state.point(k, row).to_vec(), weight: problem.weight(row), speed }
        })
        .collect()
}

/// `s_mu / c`; one for a basis function that vanishes on every row.
fn relative_speeds(atom: &dyn Atom, passing: &[Passing]) -> Vec<f64> {
    let width = atom.width();
    let (mut phi, mut seen, mut moved) = (vec![0.0; width], vec![0.0; width], vec![0.0; width]);
    for row in passing {
        atom.basis(&row.at, &mut phi);
        for (mu, value) in phi.iter().enumerate() {
            let square = row.weight * value * value;
            seen[mu] += square;
            moved[mu] += square * row.speed;
        }
    }
    let speeds: Vec<f64> = moved.iter().zip(&seen).map(|(m, s)| m / s).collect();
    let logs: Vec<f64> = speeds.iter().filter(|v| **v > 0.0 && v.is_finite()).map(|v| v.ln()).collect();
    let centre = (logs.iter().sum::<f64>() / logs.len() as f64).exp();
    speeds.iter().map(|v| if v.is_nan() { 1.0 } else { v / centre }).collect()
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
