//! What every kind has to satisfy, checked by differences.

use super::{Atom, BasisJet};
use ndarray::Array2;

/// Basis values along `s -> advance(t, s u)`.
fn along(atom: &dyn Atom, t: &[f64], u: &[f64], s: f64) -> Vec<f64> {
    let mut at = t.to_vec();
    atom.advance(&mut at, &u.iter().map(|u| s * u).collect::<Vec<_>>());
    let mut phi = vec![0.0; atom.width()];
    atom.basis(&at, &mut phi);
    phi
}

/// Step of the differences along a curve.
const STEP: f64 = 1e-3;
/// The farthest that a coordinate moves in them: three steps along a direction that names one axis three times or, at
/// most, the first two of its parts.
pub const REACH: f64 = 3.0 * 1.7 * STEP;

/// Directions that determine symmetric forms to the third order.
fn directions(dim: usize) -> Vec<Vec<f64>> {
    let mut out = Vec::new();
    for a in 0..dim {
        for b in a..dim {
            for c in b..dim {
                let mut u = vec![0.0; dim];
                [(a, 1.0), (b, 0.7), (c, -0.4)].iter().for_each(|&(axis, v)| u[axis] += v);
                out.push(u);
            }
        }
    }
    out
}

fn jet(atom: &dyn Atom, t: &[f64]) -> BasisJet {
    let mut out = BasisJet::new(atom.dim(), atom.width());
    atom.jet(t, &mut out);
    out
}

/// Contraction of derivatives of some order (axes first) with a direction in every axis.
fn contracted(block: &[f64], u: &[f64], order: usize) -> Vec<f64> {
    let mut block = block.to_vec();
    for _ in 0..order {
        let rest = block.len() / u.len();
        block = (0..rest).map(|i| (0..u.len()).map(|a| u[a] * block[a * rest + i]).sum()).collect();
    }
    block
}

/// Jets against differences of `basis(advance(t, s u))`, symmetry of the jets, and velocities with their derivatives.
pub fn chart(atom: &dyn Atom, t: &[f64]) {
    let (d, m) = (atom.dim(), atom.width());
    let at = jet(atom, t);
    let mut third = vec![0.0; d * d * d * m];
    atom.third(t, &mut third);
    let mut phi = vec![0.0; m];
    atom.basis(t, &mut phi);
    assert_eq!(phi, at.phi);
    let e = STEP;
    for u in directions(d) {
        let [farther_low, far_low, low, high, far_high, farther_high] =
            [-3.0, -2.0, -1.0, 1.0, 2.0, 3.0].map(|s| along(atom, t, &u, s * e));
        let [one, two, three] =
            [(&at.d1, 1), (&at.d2, 2), (&third, 3)].map(|(block, order)| contracted(block, &u, order));
        let largest = |v: &[f64]| v.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        let scale = largest(&three).max(largest(&one)).max(largest(&phi));
        for c in 0..m {
            let first = (far_low[c] - far_high[c] + 8.0 * (high[c] - low[c])) / (12.0 * e);
            let second = (16.0 * (high[c] + low[c]) - far_high[c] - far_low[c] - 30.0 * phi[c]) / (12.0 * e * e);
            let third =
                (farther_low[c] - farther_high[c] + 8.0 * (far_high[c] - far_low[c]) + 13.0 * (low[c] - high[c]))
                    / (8.0 * e * e * e);
            assert!((first - one[c]).abs() < 1e-9 * scale, "first, column {c}: {first} {}", one[c]);
            assert!((second - two[c]).abs() < 1e-6 * scale, "second, column {c}: {second} {}", two[c]);
            assert!((third - three[c]).abs() < 1e-4 * scale, "third, column {c}: {third} {}", three[c]);
        }
    }
    velocities(atom, t, &at);
}

/// Generators close on the basis, and velocities turn in the parallel frame as their derivative says: for a column F,
/// `d/ds (dF . v)` along a geodesic with tangent u is `D2F(u, v) + dF . Dv u`, whatever the frames along it.
fn velocities(atom: &dyn Atom, t: &[f64], at: &BasisJet) {
    let (d, m) = (atom.dim(), atom.width());
    let (mut v, mut dv) = (vec![0.0; d], vec![0.0; d * d]);
    for (g, map) in atom.generators().iter().enumerate() {
        let motion = |t: &[f64]| {
            let (mut v, mut dv) = (vec![0.0; d], vec![0.0; d * d]);
            atom.velocity(g, t, &mut v, &mut dv);
            contracted(&jet(atom, t).d1, &v, 1)
        };
        let largest = at.d1.iter().chain(&at.d2).fold(1.0f64, |m, v| m.max(v.abs()));
        let here = motion(t);
        for c in 0..m {
            let mapped: f64 = (0..m).map(|j| at.phi[j] * map[[j, c]]).sum();
            assert!((mapped - here[c]).abs() < 1e-12 * largest, "generator {g}, column {c}");
        }
        atom.velocity(g, t, &mut v, &mut dv);
        let e = 1e-4;
        for u in 0..d {
            let ends = [-e, e].map(|s| {
                let mut end = t.to_vec();
                let mut step = vec![0.0; d];
                step[u] = s;
                atom.advance(&mut end, &step);
                motion(&end)
            });
            for c in 0..m {
                let found = (ends[1][c] - ends[0][c]) / (2.0 * e);
                let expected: f64 =
                    (0..d).map(|a| at.d2[(u * d + a) * m + c] * v[a] + at.d1[a * m + c] * dv[a * d + u]).sum();
                assert!((found - expected).abs() < 1e-6 * largest, "generator {g}, axis {u}, column {c}");
            }
        }
    }
}

/// The decoder prior does not change along the orbits: `Q'P + PQ = 0` for `P = lambda S + N`. And S, N are what they claim.
pub fn gauge(atom: &dyn Atom) {
    let (s, n) = (atom.roughness(), atom.null_projector());
    let largest = |a: &Array2<f64>| a.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let scale = largest(&s).max(1.0);
    assert!(largest(&(&s - &s.t())) <= 1e-13 * scale);
    assert!(largest(&(n.dot(&n) - &n)) < 1e-10 && largest(&(&n - &n.t())) < 1e-12);
    assert!(largest(&s.dot(&n)) < 1e-10 * scale);
    assert!(crate::linalg::Cholesky::new((&s + &n).view()).is_some());
    for lambda in [1e-2, 1.0, 30.0] {
        let p = lambda * &s + &n;
        for map in atom.generators() {
            assert!(largest(&(map.t().dot(&p) + p.dot(&map))) < 1e-12 * (1.0 + lambda * scale) * largest(&map));
        }
    }
}
