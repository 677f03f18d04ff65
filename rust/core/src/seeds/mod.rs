//! Where a fit starts: several first guesses, all deterministic in the seed.
//!
//! One atom: its coordinates from a few leading principal components. Several: K-subspaces clustering gives hard labels,
//! each cluster's own components give its atom's coordinates, and one joint least-squares solve gives all decoders. Signs
//! and random draws are fixed by the data's own shape (skewness of scores, rows in order of their length), so seeds follow
//! the data through rotations, rescalings and permutations.

mod assignment;
mod charts;
mod components;
mod fixed_point;
mod geodesic;
mod grouping;
mod independent;
mod least;
mod overcomplete;
mod overlapping;
mod radii;
mod subspaces;

use crate::atoms::{Atom, ChartFactor};
use crate::errors::ShapeError;
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::state::State;
use charts::charts;
use components::{principal_scores, whiten};
pub use grouping::{independent_groups, IndependentGroups};
use ndarray::Array2;
use subspaces::clustered;

/// Principal components searched for the shape of a single atom, if it needs no more.
const LEADING: usize = 4;

/// Atoms beyond which rows are not clustered where components were found.
const CLUSTERED: usize = 64;

/// Relative difference of two residuals below which the guesses behind them are one.
const SAME_RESIDUAL: f64 = 1e-9;

/// A state with strengths that suit it.
#[derive(Clone, Debug)]
pub struct Seed {
    pub state: State,
    pub rho: SaeManifoldRho,
}

/// At most `n_init` seeds, most promising first; fewer, or none, when interrupted. Gates that are given (`routing`, n x K) leave
/// one.
pub fn seeds(
    problem: &Problem,
    n_init: usize,
    random_state: u64,
    routing: Option<&Array2<f64>>,
    interrupted: &dyn Fn() -> bool,
) -> Result<Vec<Seed>, ShapeError> {
    if let Some(routing) = routing {
        if routing.dim() != (problem.n_rows(), problem.n_atoms()) {
            return Err(ShapeError::shape("routing", routing.shape(), &[problem.n_rows(), problem.n_atoms()]));
        }
        return Ok(vec![start(problem, independent::routed(problem, routing), interrupted)?.1]);
    }
    let shares = problem.gate().shares();
    let (components, complete) = match shares {
        true => (Vec::new(), false),
        false => independent::independent(problem, random_state, interrupted),
    };
    // where components are many enough to be told apart at once, clusters of rows have nothing to add; of many atoms they take an
    // eigenproblem for each atom in every sweep of every restart, which is far more than the subspaces that rows lead to did
    let mut guesses = match problem.n_atoms() {
        1 => single(problem),
        _ if complete && independent::are_many(problem) => Vec::new(),
        many if many > CLUSTERED && !components.is_empty() => Vec::new(),
        _ => clustered(problem, n_init, random_state, interrupted),
    };
    if !shares {
        guesses.iter_mut().for_each(|guess| independent::opened(problem, guess));
        guesses.extend(components);
    }
    let mut out = Vec::new();
    for guess in guesses {
        out.push(start(problem, guess, interrupted)?);
    }
    out.sort_by(|a: &(f64, Seed), b| a.0.total_cmp(&b.0));
    // guesses that differ by a symmetry of their atom leave the same residual, to rounding
    out.dedup_by(|a, b| (a.0 - b.0).abs() <= SAME_RESIDUAL * b.0);
    Ok(out.into_iter().map(|(_, seed)| seed).take(n_init.max(1)).collect())
}

/// A first guess of everything but the decoders.
struct Guess {
    logits: Array2<f64>,
    coords: Vec<Array2<f64>>,
    /// Which atoms each row uses; all of them when `None`.
    support: Option<Vec<Vec<u32>>>,
}

/// Coordinates from the leading components.
fn single(problem: &Problem) -> Vec<Guess> {
    let n = problem.n_rows();
    let atom = &*problem.atoms()[0];
    let largest = atom.seed_blocks().iter().map(|blocks| blocks.iter().sum()).max().unwrap_or(0);
    let mut scores = principal_scores(problem.data().view(), LEADING.max(largest));
    let all: Vec<usize> = (0..n).collect();
    whiten(&mut scores, &all);
    let mut coords = charts(atom, &scores, &all);
    coords.extend(unrolled(problem, atom));
    let guess = |coords| Guess { logits: Array2::zeros((n, 1)), coords: vec![coords], support: None };
    coords.into_iter().map(guess).collect()
}

/// Coordinates of a sheet or curve of real numbers by distances along it, if it can bend at all.
fn unrolled(problem: &Problem, atom: &dyn Atom) -> Option<Array2<f64>> {
    let d = atom.dim();
    let straight = |f: &ChartFactor| matches!(f, ChartFactor::Line | ChartFactor::Interval { .. });
    if atom.width() <= d + 1 || !atom.factors().iter().all(straight) {
        return None;
    }
    // a sheet of d dimensions that bends spans about as many more
    let scores = principal_scores(problem.data().view(), LEADING.max(2 * d + 2));
    let flat = geodesic::embedding(&scores, &subspaces::by_length(&subspaces::squared_lengths(scores.view())), d)?;
    Some(atom.seed_rows(&flat))
}

/// Decoders by least squares at a guess, with strengths that suit them; returned with the residual per entry.
fn start(problem: &Problem, guess: Guess, interrupted: &dyn Fn() -> bool) -> Result<(f64, Seed), ShapeError> {
    /// Residuals below this part of the data's variance are rounding, and no start for the noise level.
    const RELATIVE_FLOOR: f64 = 1e-12;
    let (n, p, m) = (problem.n_rows(), problem.n_outputs(), problem.width());
    let decoders = Array2::zeros((m, p));
    let mut state = State::new(problem, guess.logits, guess.coords, decoders, guess.support)?;
    let (solved, explained) = least::decoders(problem, &state, interrupted)
        .ok_or_else(|| ShapeError::value("the data are too ill-conditioned for a first least-squares solve"))?;
    let square: f64 =
        (0..n).map(|i| problem.weight(i) * problem.rows(i..i + 1).iter().map(|v| v * v).sum::<f64>()).sum();
    let floor = RELATIVE_FLOOR * problem.mean_column_variance();
    let dispersion = ((square - explained) / (n * p) as f64).max(floor);
    state.decoders = solved;
    let state = state.reweighted(problem);

    // the strength at which the prior expects the roughness that the decoder has; the classic criterion is given its noise level
    let noise = if problem.is_proper() { dispersion } else { 1.0 };
    let log_smooth = (0..problem.n_atoms())
        .map(|k| {
            let b = state.decoder(problem, k);
            let roughness = state.roughness(problem, k);
            let energy: f64 = roughness.dot(&b).iter().zip(b.iter()).map(|(a, b)| a * b).sum();
            let rank = problem.rank(k) as f64;
            if rank < 0.5 {
                // nothing on the atom is rough, and its strength has no effect
                return 0.0;
            }
            (noise * p as f64 * rank / energy.max(floor)).max(f64::MIN_POSITIVE).ln()
        })
        .collect();
    let rho = SaeManifoldRho::with_per_atom_smooth(0.0, log_smooth, noise.ln());
    let rho = if problem.is_proper() { rho } else { rho.with_fixed_dispersion() };
    Ok((dispersion, Seed { state, rho }))
}
