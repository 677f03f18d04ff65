//! Seeds and encoding of many circles: what they cost and what they find.
//!
//!     cargo run --release -p sae-core --example many_atoms -- seeds|encode|both ATOMS [OUTPUTS [ROWS [HARMONICS]]]
//!
//! Circles in random planes of the outputs, four on every row, of radius 0.85 to 1.15, with noise 0.05. By default there are a quarter
//! as many outputs as circles, which need eight times as many dimensions, and 39 rows for each circle, so that 156 use it. Prints
//! seconds, of the seeds how many of the planes are found within 0.2 rad, and of the encoding how many rows have the planted support.

use ndarray::{s, Array1, Array2, ArrayView2};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sae_core::{product, seeds, Atom, Circle, Encoder, Op, Problem, SaeManifoldRho, SigmoidNodes, ThresholdGate};
use std::f64::consts::TAU;
use std::sync::Arc;
use std::time::Instant;

/// Circles on a row.
const ACTIVE: usize = 4;
const NOISE: f64 = 0.05;
/// Radians within which a plane counts as found.
const NEAR: f64 = 0.2;
/// Radius of a circle whose gate is one; planted radii are this times gates of 0.65 to 0.88.
const FULL: f64 = 1.3;

struct Planted {
    /// Orthonormal rows, two a circle.
    planes: Array2<f64>,
    rows: Array2<f64>,
    supports: Vec<Vec<u32>>,
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (TAU * v).cos()
}

fn planted(k: usize, p: usize, n: usize) -> Planted {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut planes = Array2::zeros((2 * k, p));
    for own in 0..k {
        let u = Array1::from_shape_simple_fn(p, || normal(&mut rng));
        let u = &u / u.dot(&u).sqrt();
        let mut v = Array1::from_shape_simple_fn(p, || normal(&mut rng));
        let along = u.dot(&v);
        v.scaled_add(-along, &u);
        let length = v.dot(&v).sqrt();
        planes.row_mut(2 * own).assign(&u);
        planes.row_mut(2 * own + 1).assign(&(v / length));
    }
    let mut rows = Array2::from_shape_simple_fn((n, p), || NOISE * normal(&mut rng));
    let mut supports = Vec::with_capacity(n);
    for mut row in rows.rows_mut() {
        let mut support: Vec<u32> = Vec::new();
        while support.len() < ACTIVE.min(k) {
            let next = rng.random_range(0..k as u32);
            if !support.contains(&next) {
                support.push(next);
            }
        }
        support.sort_unstable();
        for &own in &support {
            let (radius, angle) = (0.85 + 0.3 * rng.random::<f64>(), TAU * rng.random::<f64>());
            row.scaled_add(radius * angle.cos(), &planes.row(2 * own as usize));
            row.scaled_add(radius * angle.sin(), &planes.row(2 * own as usize + 1));
        }
        supports.push(support);
    }
    Planted { planes, rows, supports }
}

/// Planted planes that some atom's first harmonic lies in.
fn found(planted: &Array2<f64>, decoders: ArrayView2<'_, f64>, width: usize) -> usize {
    let atoms = decoders.nrows() / width;
    let mut own = Array2::zeros((2 * atoms, decoders.ncols()));
    for k in 0..atoms {
        let (mut u, mut v) = (decoders.row(k * width + 1).to_owned(), decoders.row(k * width + 2).to_owned());
        u /= u.dot(&u).sqrt().max(f64::MIN_POSITIVE);
        let along = u.dot(&v);
        v.scaled_add(-along, &u);
        v /= v.dot(&v).sqrt().max(f64::MIN_POSITIVE);
        own.row_mut(2 * k).assign(&u);
        own.row_mut(2 * k + 1).assign(&v);
    }
    let met = product((planted.view(), Op::Plain), (own.view(), Op::Transposed));
    let near = |a: usize, b: usize| {
        let block = met.slice(s![2 * a..2 * a + 2, 2 * b..2 * b + 2]);
        let square: f64 = block.iter().map(|v| v * v).sum();
        let det = block[[0, 0]] * block[[1, 1]] - block[[0, 1]] * block[[1, 0]];
        // the smaller singular value is the cosine of the larger angle
        let least = 0.5 * (square - (square * square - 4.0 * det * det).max(0.0).sqrt());
        least.max(0.0).sqrt() > NEAR.cos()
    };
    (0..planted.nrows() / 2).filter(|&a| (0..atoms).any(|b| near(a, b))).count()
}

fn gate() -> Arc<ThresholdGate> {
    let nodes = SigmoidNodes::new(&[-5.0, 5.0], &[0.5, 0.5], 0.0, 1.0).expect("two nodes");
    Arc::new(ThresholdGate::new(0.0, 1.0, 0.04, &[], nodes).expect("a threshold gate"))
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| arguments.get(at).map_or(default, |a| a.parse().expect("a number"));
    let what = arguments.first().map_or("both", |a| a.as_str()).to_string();
    let k = number(1, 64);
    let (p, n, harmonics) = (number(2, k / 4), number(3, 39 * k), number(4, 3));
    let Planted { planes, rows, supports } = planted(k, p, n);
    let circle = Circle::new(harmonics).expect("harmonics");
    let width = circle.width();
    let atoms: Vec<Arc<dyn Atom>> = (0..k).map(|_| Arc::new(circle.clone()) as Arc<dyn Atom>).collect();
    if what != "encode" {
        let problem = Problem::new(rows.clone(), None, atoms.clone(), gate(), true).expect("a problem");
        let start = Instant::now();
        let seeds = seeds(&problem, 1, 0, None, &|| false).expect("seeds");
        let seconds = start.elapsed().as_secs_f64();
        let seed = &seeds[0];
        let near = found(&planes, seed.state.decoders.view(), width);
        let right = (0..n).filter(|&i| seed.state.support(i).len() == supports[i].len()).count();
        let noise = seed.rho.dispersion().sqrt();
        println!("seeds   K {k} p {p} n {n}: {seconds:.1} s, {near} planes, {right} rows of the right number of atoms, noise {noise:.4}");
    }
    if what != "seeds" {
        let mut decoders = Array2::zeros((width * k, p));
        for own in 0..k {
            for row in 0..2 {
                let mut to = decoders.row_mut(own * width + 1 + row);
                to.scaled_add(FULL, &planes.row(2 * own + row));
            }
        }
        let rho = SaeManifoldRho::with_per_atom_smooth(0.0, vec![0.0; k], 2.0 * NOISE.ln());
        let start = Instant::now();
        let encoder = Encoder::new(atoms, gate(), rho, Vec::new(), decoders).expect("an encoder");
        let made = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let encoded = encoder.encode(rows.view(), Array1::zeros(p).view(), &|| false).expect("no interrupt");
        let seconds = start.elapsed().as_secs_f64();
        let right = (0..n).filter(|&i| encoded.supports[i] == supports[i]).count();
        let objective: f64 = encoded.objective.iter().sum();
        println!(
            "encode  K {k} p {p} n {n}: {made:.2} s to prepare, {seconds:.2} s ({:.0} rows/s), {right} right supports, objective {objective:.9}",
            n as f64 / seconds
        );
    }
}
