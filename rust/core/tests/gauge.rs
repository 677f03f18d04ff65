//! The evidence on charts with several generators: its derivatives against differences, its invariance along orbits.

use ndarray::{s, Array2};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sae_core::{
    evidence_adjoint, log_det_adjoint, Atom, Circle, Curvature, Duchon, Elimination, EntropyNodes, Evidence, Factored,
    Poincare, Problem, ProjectivePlane, SaeManifoldRho, Softmax, Sphere, State, Step,
};
use std::sync::Arc;

struct Case {
    problem: Problem,
    state: State,
    rho: SaeManifoldRho,
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (a, b): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

/// A random state far from any optimum, with a few rows that do without an atom.
fn case(atoms: Vec<Arc<dyn Atom>>, n: usize, p: usize, seed: u64) -> Case {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let k = atoms.len();
    let free = k.saturating_sub(1);
    let nodes = Array2::from_shape_fn((16, free), |_| 5.0 * normal(&mut rng));
    let gate = Softmax::new(0.8, 0.04, None, EntropyNodes::new(nodes.view(), 0.8).unwrap()).unwrap();
    let data = Array2::from_shape_fn((n, p), |_| normal(&mut rng));
    let weights = (0..n).map(|i| 0.5 + i as f64 / n as f64).collect();
    let mut logits = Array2::from_shape_fn((n, k), |_| normal(&mut rng));
    logits.slice_mut(s![.., free..]).fill(0.0);
    let coords = atoms
        .iter()
        .map(|atom| {
            let mut block = Array2::zeros((n, atom.ambient()));
            for mut t in block.rows_mut() {
                let scores: Vec<f64> = (0..atom.seed_components()).map(|_| normal(&mut rng)).collect();
                atom.seed(&scores, t.as_slice_mut().unwrap());
            }
            block
        })
        .collect();
    let width: usize = atoms.iter().map(|a| a.width()).sum();
    let decoders = Array2::from_shape_fn((width, p), |_| normal(&mut rng));
    let smooth = (0..k).map(|k| -1.0 + 0.3 * k as f64).collect();
    let problem = Problem::new(data, Some(weights), atoms, Arc::new(gate), true).unwrap();
    let support = (0..n).map(|i| (0..k as u32).filter(|&a| k == 1 || i % (k + 1) != a as usize).collect()).collect();
    let state = State::new(&problem, logits, coords, decoders, Some(support)).unwrap();
    Case { problem, state, rho: SaeManifoldRho::with_per_atom_smooth(0.2, smooth, -0.7) }
}

fn cases() -> Vec<(&'static str, Case)> {
    let sphere = |degree| Arc::new(Sphere::new(degree).unwrap()) as Arc<dyn Atom>;
    let circle = Arc::new(Circle::new(2).unwrap()) as Arc<dyn Atom>;
    let plane = Arc::new(ProjectivePlane::new(2).unwrap()) as Arc<dyn Atom>;
    let poincare = |dim| Arc::new(Poincare::new(dim).unwrap()) as Arc<dyn Atom>;
    let centers = Array2::from_shape_fn((6, 1), |(i, _)| i as f64 - 2.5 + 0.1 * (i as f64).sin());
    let spline = Arc::new(Duchon::new(centers.view()).unwrap()) as Arc<dyn Atom>;
    vec![
        ("sphere", case(vec![sphere(2)], 7, 5, 0)),
        ("projective plane", case(vec![plane.clone()], 7, 6, 1)),
        ("poincare 2", case(vec![poincare(2)], 7, 5, 2)),
        ("poincare 3", case(vec![poincare(3)], 7, 5, 3)),
        ("spline", case(vec![spline.clone()], 9, 4, 4)),
        ("two spheres", case(vec![sphere(1), sphere(2)], 7, 6, 5)),
        ("mixed", case(vec![sphere(1), circle, poincare(2), plane, spline], 9, 7, 6)),
    ]
}

const ELIMINATIONS: [Elimination; 3] = [Elimination::Primal, Elimination::Complement, Elimination::Dual];

/// E = V - L, and ln|H| in which V holds it.
fn evidence(case: &Case, state: &State, rho: &SaeManifoldRho, elimination: Elimination) -> (f64, f64) {
    let factored = Factored::new(&case.problem, state, rho, elimination, Curvature::Evidence).unwrap();
    let evidence = Evidence::new(&case.problem, state, rho, &factored).unwrap();
    (evidence.value - factored.system.lin.loss.total(), 2.0 * evidence.parts.log_det)
}

/// Central difference of the fourth order.
fn slope(f: impl Fn(f64) -> f64, h: f64) -> f64 {
    (f(-2.0 * h) - f(2.0 * h) + 8.0 * (f(h) - f(-h))) / (12.0 * h)
}

#[test]
fn derivatives_in_every_inner_variable_match_differences() {
    for (name, case) in cases() {
        let (state, rho) = (&case.state, &case.rho);
        let factored = Factored::new(&case.problem, state, rho, Elimination::Primal, Curvature::Evidence).unwrap();
        let at = Evidence::new(&case.problem, state, rho, &factored).unwrap();
        let adjoint = evidence_adjoint(&case.problem, state, rho, &factored, &at);
        let gamma = log_det_adjoint(&case.problem, state, rho, &factored, &at);
        let locals = adjoint.theta.local.len();
        let size = locals + adjoint.theta.border.len();
        let entry = |step: &Step, at: usize| {
            if at < locals {
                step.local[at]
            } else {
                *step.border.iter().nth(at - locals).unwrap()
            }
        };
        let scale = (0..size).fold(1.0f64, |m, at| m.max(entry(&adjoint.theta, at).abs()));
        for index in 0..size {
            let moved = |s: f64| {
                let (mut local, mut border) = (vec![0.0; locals], vec![0.0; size - locals]);
                if index < locals {
                    local[index] = s
                } else {
                    border[index - locals] = s
                }
                evidence(&case, &state.stepped(&case.problem, &local, &border, 1.0), rho, Elimination::Primal)
            };
            let (of_evidence, of_determinant) = (slope(|s| moved(s).0, 1e-3), slope(|s| moved(s).1, 1e-3));
            let (e, g) = (entry(&adjoint.theta, index), entry(&gamma, index));
            assert!((of_evidence - e).abs() < 1e-6 * scale, "{name}, E, {index} of {locals}: {of_evidence} {e}");
            assert!(
                (of_determinant - g).abs() < 2e-6 * scale,
                "{name}, ln|H|, {index} of {locals}: {of_determinant} {g}"
            );
        }
        let flat = rho.to_flat();
        for slot in 0..flat.len() {
            let moved = |s: f64| {
                let mut flat = flat.clone();
                flat[slot] += s;
                evidence(&case, state, &rho.from_flat(&flat).unwrap(), Elimination::Primal).0
            };
            let (found, expected) = (slope(moved, 1e-3), adjoint.rho[slot]);
            assert!((found - expected).abs() < 1e-7 * (1.0 + expected.abs()), "{name}, rho {slot}: {found} {expected}");
        }
    }
}

#[test]
fn eliminations_agree() {
    for (name, case) in cases() {
        let values = ELIMINATIONS.map(|e| evidence(&case, &case.state, &case.rho, e).0);
        assert!(values.iter().all(|v| (v - values[0]).abs() < 1e-8 * values[0].abs()), "{name}: {values:?}");
        let adjoints = ELIMINATIONS.map(|e| {
            let factored = Factored::new(&case.problem, &case.state, &case.rho, e, Curvature::Evidence).unwrap();
            let at = Evidence::new(&case.problem, &case.state, &case.rho, &factored).unwrap();
            evidence_adjoint(&case.problem, &case.state, &case.rho, &factored, &at)
        });
        let scale = adjoints[0].theta.dot(&adjoints[0].theta).sqrt();
        for other in &adjoints[1..] {
            let mut apart = other.theta.clone();
            apart.add(-1.0, &adjoints[0].theta);
            assert!(apart.dot(&apart).sqrt() < 1e-8 * scale, "{name}");
            assert!(
                other.rho.iter().zip(&adjoints[0].rho).all(|(a, b)| (a - b).abs() < 1e-8 * (1.0 + b.abs())),
                "{name}"
            );
        }
    }
}
