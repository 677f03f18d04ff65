//! What every kind's tests check: derivatives against differences, roughness against quadrature, and what motions leave
//! unchanged.

use super::{Atom, BasisJet};
use crate::special::gauss_legendre;
use ndarray::Array2;

/// Nodes and weights of a mean over a chart: the trapezoidal rule converges geometrically on an angle and on a normal
/// coordinate alike.
pub(super) fn nodes(axes: &[Axis]) -> Vec<(Vec<f64>, f64)> {
    let mut out = vec![(Vec::new(), 1.0)];
    for axis in axes {
        let line: Vec<(f64, f64)> = match *axis {
            Axis::Angle(period) => (0..32).map(|j| (period * f64::from(j) / 32.0, 1.0 / 32.0)).collect(),
            Axis::Normal => (-20..=20)
                .map(|j| 0.5 * f64::from(j))
                .map(|t| (t, 0.5 * (-0.5 * t * t).exp() / std::f64::consts::TAU.sqrt()))
                .collect(),
            Axis::Ends => gauss_legendre(16).into_iter().map(|(t, w)| (t, 0.5 * w)).collect(),
        };
        let with = |(t, w): &(Vec<f64>, f64)| -> Vec<(Vec<f64>, f64)> {
            line.iter().map(|(x, v)| ([&t[..], &[*x]].concat(), w * v)).collect()
        };
        out = out.iter().flat_map(with).collect();
    }
    out
}

pub(super) enum Axis {
    Angle(f64),
    Normal,
    /// Uniform between -1 and 1.
    Ends,
}

/// Checks a kind on a flat chart. `bend` lists, from second derivatives (`d x d x M`), the rows whose mean squares the
/// roughness is.
pub(super) fn obeys(atom: &dyn Atom, nodes: &[(Vec<f64>, f64)], bend: &dyn Fn(&[f64]) -> Vec<Vec<f64>>) {
    // points off every grid, a node and a boundary among them
    let mut points: Vec<Vec<f64>> = nodes.iter().step_by(nodes.len() / 7 + 1).map(|n| n.0.clone()).collect();
    points.iter_mut().skip(1).enumerate().for_each(|(i, t)| t.iter_mut().for_each(|t| *t += 0.1 + 0.07 * i as f64));
    for t in &points {
        derivatives_match_differences(atom, t);
        motions_close_on_the_basis(atom, t);
        a_step_of_zero_stays(atom, t);
    }
    roughness_is_what_it_says(atom, nodes, bend);
    the_null_space_is_whole(atom);
    motions_leave_the_decoder_prior(atom);
    let grid = atom.search_grid();
    assert!(grid.ncols() == atom.ambient() && grid.nrows() > 0 && grid.iter().all(|t| t.is_finite()));
}

fn jet(atom: &dyn Atom, t: &[f64]) -> BasisJet {
    let mut out = BasisJet::new(atom.dim(), atom.width());
    atom.jet(t, &mut out);
    out
}

fn derivatives_match_differences(atom: &dyn Atom, t: &[f64]) {
    let (d, m) = (atom.dim(), atom.width());
    let at = jet(atom, t);
    let mut basis = vec![0.0; m];
    atom.basis(t, &mut basis);
    assert_eq!(basis, at.phi);
    let mut third = vec![0.0; d * d * d * m];
    atom.third(t, &mut third);
    let e = 1e-4;
    let close = |difference: f64, derivative: f64| {
        assert!((difference - derivative).abs() < 1e-5 * (1.0 + derivative.abs()), "{t:?} {difference} {derivative}");
    };
    for u in 0..d {
        let moved = |s: f64| {
            let mut t = t.to_vec();
            t[u] += s;
            jet(atom, &t)
        };
        let (lo, hi) = (moved(-e), moved(e));
        for c in 0..m {
            close((hi.phi[c] - lo.phi[c]) / (2.0 * e), at.d1[u * m + c]);
            for a in 0..d {
                close((hi.d1[a * m + c] - lo.d1[a * m + c]) / (2.0 * e), at.d2[(a * d + u) * m + c]);
                for b in 0..d {
                    let k = (a * d + b) * m + c;
                    close((hi.d2[k] - lo.d2[k]) / (2.0 * e), third[((a * d + b) * d + u) * m + c]);
                }
            }
        }
    }
}

/// dPhi . v = Phi Q, and the velocity's derivative.
fn motions_close_on_the_basis(atom: &dyn Atom, t: &[f64]) {
    let (d, m) = (atom.dim(), atom.width());
    let at = jet(atom, t);
    let (mut v, mut dv) = (vec![0.0; d], vec![0.0; d * d]);
    for (g, map) in atom.generators().iter().enumerate() {
        atom.velocity(g, t, &mut v, &mut dv);
        for c in 0..m {
            let along: f64 = (0..d).map(|a| at.d1[a * m + c] * v[a]).sum();
            let mapped: f64 = (0..m).map(|j| at.phi[j] * map[[j, c]]).sum();
            assert!((along - mapped).abs() < 1e-11 * (1.0 + along.abs()), "generator {g}, column {c}");
        }
        let e = 1e-5;
        for u in 0..d {
            let moved = |s: f64| {
                let (mut t, mut v, mut ignored) = (t.to_vec(), vec![0.0; d], vec![0.0; d * d]);
                t[u] += s;
                atom.velocity(g, &t, &mut v, &mut ignored);
                v
            };
            let (lo, hi) = (moved(-e), moved(e));
            for a in 0..d {
                assert!(((hi[a] - lo[a]) / (2.0 * e) - dv[a * d + u]).abs() < 1e-8);
            }
        }
    }
}

fn a_step_of_zero_stays(atom: &dyn Atom, t: &[f64]) {
    let mut at = t.to_vec();
    atom.advance(&mut at, &vec![0.0; atom.dim()]);
    let (one, other) = (jet(atom, t).phi, jet(atom, &at).phi);
    assert!(one.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-12 * (1.0 + a.abs())));
    let canonical = at.clone();
    atom.advance(&mut at, &vec![0.0; atom.dim()]);
    assert_eq!(at, canonical);
}

fn roughness_is_what_it_says(atom: &dyn Atom, nodes: &[(Vec<f64>, f64)], bend: &dyn Fn(&[f64]) -> Vec<Vec<f64>>) {
    let m = atom.width();
    let mut gram = Array2::<f64>::zeros((m, m));
    for (t, weight) in nodes {
        for row in bend(&jet(atom, t).d2) {
            for a in 0..m {
                (0..m).for_each(|b| gram[[a, b]] += weight * row[a] * row[b]);
            }
        }
    }
    let roughness = atom.roughness();
    assert!(gram.iter().zip(&roughness).all(|(a, b)| (a - b).abs() < 1e-10 * (1.0 + b.abs())), "{gram} {roughness}");
}

/// N is the projector on all that S does not see.
fn the_null_space_is_whole(atom: &dyn Atom) {
    let (s, n) = (atom.roughness(), atom.null_projector());
    let zero = |a: Array2<f64>| assert!(a.iter().all(|v| v.abs() < 1e-12));
    zero(s.dot(&n));
    zero(n.dot(&n) - &n);
    let (values, _) = crate::linalg::symmetric_eigen((&s + &n).view());
    assert!(values[0] > 1e-3);
}

/// exp(s Q) keeps tr(B'SB) and tr(B'NB): Q'P + PQ = 0.
fn motions_leave_the_decoder_prior(atom: &dyn Atom) {
    for map in atom.generators() {
        for prior in [atom.roughness(), atom.null_projector()] {
            let change = map.t().dot(&prior) + prior.dot(&map);
            assert!(change.iter().all(|v| v.abs() < 1e-10), "{change}");
        }
    }
}
