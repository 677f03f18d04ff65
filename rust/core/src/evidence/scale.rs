//! The scale of a chart on lines, integrated instead of expanded.
//!
//! Where every basis column of an atom is homogeneous in its line coordinates, of degree d_m, the motion `t -> e^-s t`,
//! `B_m -> e^(d_m s) B_m` changes no fit: the data part of H annihilates its tangent. Only the priors see it,
//!
//! ```text
//!     f(s) = 1/2 T e^-2s + 1/2 sum_e beta_e e^(e s),    T = sum alpha t^2,    beta_e = sum_(d + d' = e) <B_d, P B_d'>,
//! ```
//!
//! and it stretches space by `e^(kappa s)`, `kappa = p sum_m d_m - (line coordinates of all rows)`. The minimum of L lies where
//! f' = 0, the mass where f' = kappa: with many rows those are far apart, and a Gaussian about the first misses most of the
//! second. So, as for an orbit, the Gaussian along the tangent is divided out, and the true integral put in:
//!
//! ```text
//!     -1/2 ln(G'HG) + 1/2 ln 2 pi - ln I,    I = int e^(f(0) - f(s) + kappa s) ds,    G'HG = T + sum d d' <B_d, P B_d'>.
//! ```

use crate::arrow::{Factored, Step};
use crate::atoms::{places, ChartFactor};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::state::State;
use ndarray::{s, Array2};
use std::f64::consts::TAU;

/// One atom's integral over its scale, with its derivatives.
pub struct Scale {
    atom: usize,
    /// What it adds to V.
    pub value: f64,
    /// Its derivative in T.
    by_square: f64,
    /// Its derivatives in the entries of `P_mm' <B_m, B_m'>`.
    by_product: Array2<f64>,
}

/// Where the line coordinates of an atom lie: local and stored positions with their precisions.
fn lines(problem: &Problem, rho: &SaeManifoldRho, k: usize) -> Vec<(usize, usize, f64)> {
    places(problem.atoms()[k].factors())
        .filter(|place| place.factor == ChartFactor::Line)
        .map(|place| (place.local, place.stored, rho.ard(k, place.local).unwrap_or(1.0)))
        .collect()
}

/// Calls `visit(start, point)` for every row that uses atom k: where its coordinates begin among all local variables.
fn for_each_row(state: &State, k: usize, mut visit: impl FnMut(usize, &[f64])) {
    state.layout_of_rows().users(k).for_each(|(row, start)| visit(start, state.point(k, row)));
}

/// `f` with its first two derivatives, from T and beta.
fn priors(square: f64, beta: &[f64], s: f64) -> [f64; 3] {
    let shrunk = square * (-2.0 * s).exp();
    let mut f = [0.5 * shrunk, -shrunk, 2.0 * shrunk];
    for (e, value) in beta.iter().enumerate().skip(1) {
        let (e, grown) = (e as f64, 0.5 * value * (e as f64 * s).exp());
        f[0] += grown;
        f[1] += e * grown;
        f[2] += e * e * grown;
    }
    f
}

/// Where to look for the mode from: here, or where one exponential alone would have the slope kappa, which is far from here where
/// an atom has all but collapsed.
fn near_mode(square: f64, beta: &[f64], kappa: f64) -> f64 {
    let grown = |(e, v): (usize, &f64)| (2.0 * kappa / (e as f64 * v)).ln() / e as f64;
    let there = match kappa > 0.0 {
        true => beta.iter().enumerate().skip(1).map(grown).filter(|s| s.is_finite()).fold(f64::INFINITY, f64::min),
        false => 0.5 * (square / -kappa).ln(),
    };
    let off = |s: f64| (priors(square, beta, s)[1] - kappa).abs();
    if off(there) < off(0.0) {
        there
    } else {
        0.0
    }
}

/// `I` about the mode of its integrand, looked for from `start`, and the means of `e^(q s)` under it for each of the `powers`.
/// `None` where it is not found, or they are no finite numbers.
fn integral(f: impl Fn(f64) -> [f64; 3], kappa: f64, start: f64, powers: &[f64]) -> Option<(f64, Vec<f64>)> {
    /// Newton steps to the mode of a convex function; they double its digits.
    const STEPS: usize = 200;
    /// Nodes of the trapezoidal rule, which converges geometrically, over this many standard deviations to either side.
    const NODES: i32 = 200;
    const WIDTH: f64 = 12.0;
    let mut at = start;
    let mut found = false;
    for _ in 0..STEPS {
        let [_, d1, d2] = f(at);
        // the exponentials double within ln 2 / 2: longer steps overshoot
        let step = ((kappa - d1) / d2).clamp(-0.5, 0.5);
        at += step;
        found = step.abs() < 1e-14 * (1.0 + at.abs());
        if found {
            break;
        }
    }
    found.then_some(())?;
    let [top, _, bend] = f(at);
    let spacing = WIDTH / f64::from(NODES) / bend.sqrt();
    let origin = f(0.0)[0];
    let (mut total, mut moments) = (0.0, vec![0.0; powers.len()]);
    for j in -NODES..=NODES {
        let s = at + spacing * f64::from(j);
        let weight = (top - f(s)[0] + kappa * (s - at)).exp();
        total += weight;
        moments.iter_mut().zip(powers).for_each(|(m, q)| *m += weight * (q * s).exp());
    }
    let ln_integral = (total * spacing).ln() + origin - top + kappa * at;
    moments.iter_mut().for_each(|m| *m /= total);
    (ln_integral.is_finite() && moments.iter().all(|m| m.is_finite())).then_some((ln_integral, moments))
}

/// The integrals of every atom that some row uses and that has a scale. `None` when one has no meaning in floating point.
pub fn scales(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    factored: &Factored,
    used: &[bool],
) -> Option<Vec<Scale>> {
    let mut out = Vec::new();
    for (k, atom) in problem.atoms().iter().enumerate().filter(|(k, _)| used[*k]) {
        let Some(degrees) = atom.degrees() else { continue };
        let lines = lines(problem, rho, k);
        let (mut square, mut rows) = (0.0, 0usize);
        for_each_row(state, k, |_, t| {
            rows += 1;
            square += lines.iter().map(|(_, at, alpha)| alpha * t[*at] * t[*at]).sum::<f64>();
        });
        let b = state.decoder(problem, k);
        let products = &factored.system.lin.prior.precision[k] * &b.dot(&b.t());
        let most = 2 * degrees.iter().copied().max().unwrap_or(0) as usize;
        let mut beta = vec![0.0; most + 1];
        let mut stretch = square;
        for ((i, j), value) in products.indexed_iter() {
            beta[(degrees[i] + degrees[j]) as usize] += value;
            stretch += f64::from(degrees[i] * degrees[j]) * value;
        }
        let total: u32 = degrees.iter().sum();
        let kappa = f64::from(total) * state.channels(problem, k) as f64 - (rows * lines.len()) as f64;
        let f = |s: f64| priors(square, &beta, s);
        let powers: Vec<f64> = std::iter::once(-2.0).chain((0..=most).map(|e| e as f64)).collect();
        let (ln_integral, means) = integral(f, kappa, near_mode(square, &beta, kappa), &powers)?;
        let by_product = Array2::from_shape_fn(products.dim(), |(i, j)| {
            let grown = means[1 + (degrees[i] + degrees[j]) as usize] - 1.0;
            0.5 * grown - 0.5 * f64::from(degrees[i] * degrees[j]) / stretch
        });
        out.push(Scale {
            atom: k,
            value: 0.5 * (TAU / stretch).ln() - ln_integral,
            by_square: 0.5 * (means[0] - 1.0) - 0.5 / stretch,
            by_product,
        });
    }
    Some(out)
}

/// Adds the derivatives in the inner variables, in `ln alpha` and, per atom, in `ln lambda`.
#[allow(clippy::too_many_arguments)]
pub fn add_scales(
    problem: &Problem,
    state: &State,
    rho: &SaeManifoldRho,
    factored: &Factored,
    scales: &[Scale],
    theta: &mut Step,
    by_rho: &mut [f64],
    roughness: &mut [f64],
) {
    for scale in scales {
        let k = scale.atom;
        let prior = &factored.system.lin.prior;
        let b = state.decoder(problem, k);
        let mut rows = theta.border.slice_mut(s![problem.rows_of(k), ..]);
        rows += &((&scale.by_product * &prior.precision[k]).dot(&b) * 2.0);
        let rough = &prior.roughness[k] * &b.dot(&b.t());
        roughness[k] += (&scale.by_product * &rough).sum();
        for (local, stored, alpha) in lines(problem, rho, k) {
            for_each_row(state, k, |start, t| {
                theta.local[start + local] += 2.0 * scale.by_square * alpha * t[stored];
                if rho.ard(k, local).is_some() {
                    by_rho[rho.ard_slot(k, local)] += scale.by_square * alpha * t[stored] * t[stored];
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scale is a place to count from: from elsewhere the integral and its means are the same to known factors.
    #[test]
    fn the_integral_is_found_from_any_scale() {
        let (square, beta, powers) = (3.0, [0.0, 0.2, 1.7], [-2.0, 0.0, 1.0, 2.0]);
        for kappa in [26.0, -41.0, 0.3] {
            let at = |u: f64| {
                let beta: Vec<f64> = beta.iter().enumerate().map(|(e, v)| v * (e as f64 * u).exp()).collect();
                let square = square * (-2.0 * u).exp();
                let start = near_mode(square, &beta, kappa);
                integral(|s| priors(square, &beta, s), kappa, start, &powers).unwrap()
            };
            let (ln_here, here) = at(0.0);
            for u in [-60.0, -7.0, 5.0, 80.0] {
                let (ln_there, there) = at(u);
                let known = priors(square, &beta, u)[0] - priors(square, &beta, 0.0)[0] - kappa * u;
                assert!((ln_there - ln_here - known).abs() < 1e-9 * (1.0 + known.abs()), "{kappa} {u}");
                for ((q, a), b) in powers.iter().zip(&here).zip(&there) {
                    assert!((b * (q * u).exp() / a - 1.0).abs() < 1e-9, "{kappa} {u} {q}");
                }
            }
        }
    }

    /// With one exponential left it is a gamma function.
    #[test]
    fn an_atom_that_has_all_but_collapsed_has_a_scale() {
        let ln_factorial: f64 = (1..13).map(|i| f64::from(i).ln()).sum();
        for small in [1.0, 1e-88, 1e-150] {
            let beta = [0.0, 0.0, small];
            let f = |s: f64| priors(1e-3 * small * small, &beta, s);
            let (ln_integral, means) = integral(f, 26.0, near_mode(1e-3 * small * small, &beta, 26.0), &[2.0]).unwrap();
            let expected = -2.0f64.ln() + ln_factorial + 13.0 * (2.0 / small).ln() + 0.5 * small;
            assert!((ln_integral - expected).abs() < 1e-3, "{ln_integral} {expected}");
            assert!((means[0] * small / 26.0 - 1.0).abs() < 1e-3);
        }
    }
}
