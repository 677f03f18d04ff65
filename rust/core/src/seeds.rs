//! Where a fit starts: several first guesses, all deterministic in the seed.
//!
//! One atom: its coordinate from pairs of leading principal components. Several: K-subspaces clustering gives hard labels,
//! each cluster's own components give its atom's coordinate, and one joint least-squares solve gives all decoders. Signs
//! and random draws are fixed by the data's own shape (skewness of scores, rows in order of their length), so seeds follow
//! the data through rotations, rescalings and permutations.

use crate::errors::ShapeError;
use crate::linalg::{product, symmetric_eigen, Cholesky, Op};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::state::State;
use ndarray::{s, Array1, Array2, ArrayView2};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Principal components searched for the plane of a single atom.
const LEADING: usize = 4;
/// Share of a row that its cluster's atom gets over any other at the start: logits of plus and minus two temperatures.
const LABEL_SHARE: f64 = 0.982;
/// Restarts of the clustering for each seed that is kept.
const RESTARTS: usize = 8;
/// Bound on its sweeps; it almost always stops before.
const SWEEPS: usize = 40;
/// Rows it sees; more rows only sharpen subspaces that a few thousand determine.
const CLUSTER_ROWS: usize = 4096;

/// A state with strengths that suit it.
#[derive(Clone, Debug)]
pub struct Seed {
    pub state: State,
    pub rho: SaeManifoldRho,
}

/// Scores (n x r) on the leading principal components.
fn principal_scores(data: ArrayView2<'_, f64>, r: usize) -> Array2<f64> {
    let (n, p) = data.dim();
    let r = r.min(n).min(p);
    let mut scores = if p <= n {
        let gram = product((data, Op::Transposed), (data, Op::Plain));
        let (_, vectors) = symmetric_eigen(gram.view());
        let leading = Array2::from_shape_fn((p, r), |(c, j)| vectors[[c, p - 1 - j]]);
        product((data, Op::Plain), (leading.view(), Op::Plain))
    } else {
        let gram = product((data, Op::Plain), (data, Op::Transposed));
        let (values, vectors) = symmetric_eigen(gram.view());
        Array2::from_shape_fn((n, r), |(i, j)| vectors[[i, n - 1 - j]] * values[n - 1 - j].max(0.0).sqrt())
    };
    for mut column in scores.columns_mut() {
        if column.iter().map(|v| v * v * v).sum::<f64>() < 0.0 {
            column.mapv_inplace(|v| -v);
        }
    }
    scores
}

/// At most `n_init` seeds, most promising first; fewer, or none, when interrupted.
pub fn seeds(
    problem: &Problem,
    n_init: usize,
    random_state: u64,
    interrupted: &dyn Fn() -> bool,
) -> Result<Vec<Seed>, ShapeError> {
    let guesses =
        if problem.n_atoms() == 1 { single(problem) } else { clustered(problem, n_init, random_state, interrupted) };
    let mut out = Vec::new();
    for (logits, coords) in guesses {
        out.push(start(problem, logits, coords)?);
    }
    out.sort_by(|a: &(f64, Seed), b| a.0.total_cmp(&b.0));
    Ok(out.into_iter().map(|(_, seed)| seed).take(n_init.max(1)).collect())
}

type Guess = (Array2<f64>, Vec<Array2<f64>>);

/// Coordinates from every choice of leading components, in their order.
fn single(problem: &Problem) -> Vec<Guess> {
    let n = problem.n_rows();
    let atom = &problem.atoms()[0];
    let mut scores = principal_scores(problem.data(), LEADING.max(atom.seed_components()));
    whiten(&mut scores);
    choices(scores.ncols(), atom.seed_components())
        .into_iter()
        .map(|choice| {
            let picked = Array2::from_shape_fn((n, choice.len()), |(i, c)| choice[c].map_or(0.0, |j| scores[[i, j]]));
            (Array2::zeros((n, 1)), vec![atom.seed_rows(&picked)])
        })
        .collect()
}

/// Increasing choices of `size` out of `from` components; short data fill up with none.
fn choices(from: usize, size: usize) -> Vec<Vec<Option<usize>>> {
    if from <= size {
        return vec![(0..size).map(|j| (j < from).then_some(j)).collect()];
    }
    let mut out = vec![Vec::new()];
    for _ in 0..size {
        out = out
            .into_iter()
            .flat_map(|c: Vec<usize>| {
                let first = c.last().map_or(0, |l| l + 1);
                (first..from).map(move |j| [c.clone(), vec![j]].concat()).collect::<Vec<_>>()
            })
            .collect();
    }
    out.into_iter().map(|c| c.into_iter().map(Some).collect()).collect()
}

/// Scales every column to unit root mean square.
fn whiten(scores: &mut Array2<f64>) {
    for mut column in scores.columns_mut() {
        let rms = (column.dot(&column) / column.len() as f64).sqrt();
        if rms > 0.0 {
            column /= rms;
        }
    }
}

/// A cluster's affine subspace.
#[derive(Clone)]
struct Subspace {
    mean: Array1<f64>,
    /// r x d, orthonormal columns.
    basis: Array2<f64>,
}

impl Subspace {
    /// The best affine subspace of dimension `d` through some rows, or linear when `linear` holds.
    fn fit(rows: ArrayView2<'_, f64>, d: usize, linear: bool) -> Self {
        let r = rows.ncols();
        let mean = if linear { Array1::zeros(r) } else { rows.mean_axis(ndarray::Axis(0)).expect("rows") };
        let centred = &rows - &mean;
        let gram = product((centred.view(), Op::Transposed), (centred.view(), Op::Plain));
        let (_, vectors) = symmetric_eigen(gram.view());
        let d = d.min(r);
        Self { mean, basis: Array2::from_shape_fn((r, d), |(c, j)| vectors[[c, r - 1 - j]]) }
    }

    fn distance(&self, row: ndarray::ArrayView1<'_, f64>) -> f64 {
        let centred = &row - &self.mean;
        let inside = self.basis.t().dot(&centred);
        (centred.dot(&centred) - inside.dot(&inside)).max(0.0)
    }
}

/// K-subspaces clustering, several restarts, best first; then one guess each.
fn clustered(problem: &Problem, n_init: usize, random_state: u64, interrupted: &dyn Fn() -> bool) -> Vec<Guess> {
    let (n, k) = (problem.n_rows(), problem.n_atoms());
    let sizes: Vec<usize> = problem.atoms().iter().map(|a| a.seed_components()).collect();
    // clusters live in the leading components; the rest is noise to them
    let rank = sizes.iter().sum::<usize>() * 3 + 2;
    let scores = principal_scores(problem.data(), rank);
    let order = rows_by_length(&scores);
    let stride = n.div_ceil(CLUSTER_ROWS);
    let sample: Vec<usize> = order.iter().copied().step_by(stride).collect();
    let rows = Array2::from_shape_fn((sample.len(), scores.ncols()), |(i, j)| scores[[sample[i], j]]);

    let mut found: Vec<(f64, Vec<Subspace>)> = (0..RESTARTS * n_init.max(1))
        .take_while(|_| !interrupted())
        .map(|restart| {
            let mut rng = ChaCha8Rng::seed_from_u64(random_state.wrapping_add((restart as u64) << 32));
            cluster(rows.view(), &sizes, restart % 2 == 0, &mut rng)
        })
        .collect();
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    // restarts that ended in the same clustering agree to rounding
    found.dedup_by(|a, b| (a.0 - b.0).abs() <= 1e-9 * (1.0 + b.0.abs()));
    found.truncate(n_init.max(1));
    found.into_iter().map(|(_, subspaces)| guess(problem, &scores, k, &subspaces)).collect()
}

fn rows_by_length(scores: &Array2<f64>) -> Vec<usize> {
    let lengths: Vec<f64> = scores.rows().into_iter().map(|r| r.dot(&r)).collect();
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by(|&a, &b| lengths[b].total_cmp(&lengths[a]));
    order
}

/// One restart: subspaces through neighbourhoods of rows that the earlier ones explain badly, then Lloyd's sweeps.
fn cluster(rows: ArrayView2<'_, f64>, sizes: &[usize], linear: bool, rng: &mut ChaCha8Rng) -> (f64, Vec<Subspace>) {
    let n = rows.nrows();
    let mut subspaces: Vec<Subspace> = Vec::new();
    let mut nearest: Vec<f64> = rows.rows().into_iter().map(|r| r.dot(&r)).collect();
    for &d in sizes {
        let total: f64 = nearest.iter().sum();
        let mut draw = rng.random::<f64>() * total;
        let centre = nearest.iter().position(|w| {
            draw -= w;
            draw <= 0.0
        });
        let centre = centre.unwrap_or(n - 1);
        // a neighbourhood of a curved set spans its point and its tangents
        let mut by_distance: Vec<(f64, usize)> = rows
            .rows()
            .into_iter()
            .enumerate()
            .map(|(i, r)| {
                let apart = &r - &rows.row(centre);
                (apart.dot(&apart), i)
            })
            .collect();
        by_distance.sort_by(|a, b| a.0.total_cmp(&b.0));
        let neighbours = (2 * d + 4).max(n / (8 * sizes.len())).min(n);
        let picked = Array2::from_shape_fn((neighbours, rows.ncols()), |(i, j)| rows[[by_distance[i].1, j]]);
        let subspace = Subspace::fit(picked.view(), d, linear);
        for (near, row) in nearest.iter_mut().zip(rows.rows()) {
            *near = near.min(subspace.distance(row));
        }
        subspaces.push(subspace);
    }
    let mut labels = vec![usize::MAX; n];
    let mut cost = f64::INFINITY;
    for _ in 0..SWEEPS {
        let (next, total) = assign(rows, &subspaces);
        cost = total;
        if next == labels {
            break;
        }
        labels = next;
        for (k, subspace) in subspaces.iter_mut().enumerate() {
            let members: Vec<usize> = (0..n).filter(|&i| labels[i] == k).collect();
            if members.len() > sizes[k] + 1 {
                let own = Array2::from_shape_fn((members.len(), rows.ncols()), |(i, j)| rows[[members[i], j]]);
                *subspace = Subspace::fit(own.view(), sizes[k], false);
            }
        }
    }
    (cost, subspaces)
}

fn assign(rows: ArrayView2<'_, f64>, subspaces: &[Subspace]) -> (Vec<usize>, f64) {
    let mut total = 0.0;
    let labels = rows
        .rows()
        .into_iter()
        .map(|row| {
            let best = subspaces
                .iter()
                .enumerate()
                .map(|(k, s)| (s.distance(row), k))
                .min_by(|a, b| a.0.total_cmp(&b.0))
                .expect("at least one subspace");
            total += best.0;
            best.1
        })
        .collect();
    (labels, total)
}

/// Labels and coordinates of every row from the clusters' subspaces; clusters in order of their energy.
fn guess(problem: &Problem, scores: &Array2<f64>, k: usize, subspaces: &[Subspace]) -> Guess {
    let n = problem.n_rows();
    let (labels, _) = assign(scores.view(), subspaces);
    let mut energy = vec![0.0; k];
    for (row, &label) in scores.rows().into_iter().zip(&labels) {
        energy[label] += row.dot(&row);
    }
    // only atoms of one kind may trade places
    let mut rank: Vec<usize> = (0..k).collect();
    let keys: Vec<String> = problem.atoms().iter().map(|a| a.key()).collect();
    for key in keys.iter().collect::<std::collections::BTreeSet<_>>() {
        let slots: Vec<usize> = (0..k).filter(|&a| keys[a] == *key).collect();
        let mut sorted = slots.clone();
        sorted.sort_by(|&a, &b| energy[b].total_cmp(&energy[a]));
        slots.iter().zip(sorted).for_each(|(&slot, cluster)| rank[slot] = cluster);
    }
    let mut coords = Vec::new();
    for (slot, &cluster) in rank.iter().enumerate() {
        let (atom, subspace) = (&problem.atoms()[slot], &subspaces[cluster]);
        let mut inside = (scores - &subspace.mean).dot(&subspace.basis);
        for mut column in inside.columns_mut() {
            let own = |f: &dyn Fn(f64) -> f64| -> f64 {
                column.iter().zip(&labels).filter(|(_, &l)| l == cluster).map(|(v, _)| f(*v)).sum()
            };
            let (square, cube) = (own(&|v| v * v), own(&|v| v * v * v));
            let rms = (square / n as f64).sqrt();
            if rms > 0.0 {
                column.mapv_inplace(|v| v / if cube < 0.0 { -rms } else { rms });
            }
        }
        let present = inside.ncols();
        let picked =
            Array2::from_shape_fn((n, atom.seed_components()), |(i, c)| if c < present { inside[[i, c]] } else { 0.0 });
        coords.push(atom.seed_rows(&picked));
    }
    let slot_of: Vec<usize> = (0..k).map(|c| rank.iter().position(|&r| r == c).expect("a permutation")).collect();
    let mut logits = Array2::zeros((n, k));
    let lead = problem.gate().logit_of_share(LABEL_SHARE);
    for (i, &label) in labels.iter().enumerate() {
        for a in 0..k {
            logits[[i, a]] = if a == slot_of[label] { lead } else { 0.0 };
        }
        if problem.n_free() < k {
            let pinned = logits[[i, k - 1]];
            logits.row_mut(i).mapv_inplace(|l| l - pinned);
        }
    }
    (logits, coords)
}

/// Decoders by least squares at a guess, with strengths that suit them; returned with the residual per entry.
fn start(problem: &Problem, logits: Array2<f64>, coords: Vec<Array2<f64>>) -> Result<(f64, Seed), ShapeError> {
    /// Relative ridge of the first least-squares solve, which knows no strengths yet.
    const RIDGE: f64 = 1e-6;
    /// Residuals below this part of the data's variance are rounding, and no start for the noise level.
    const RELATIVE_FLOOR: f64 = 1e-12;
    let (n, p, m) = (problem.n_rows(), problem.n_outputs(), problem.width());
    let decoders = Array2::zeros((m, p));
    let mut state = State::new(problem, logits, coords, decoders, None)?;
    let gates = state.gates(problem);
    let (mut gram, mut moment) = (Array2::<f64>::zeros((m, m)), Array2::<f64>::zeros((m, p)));
    let rows_at_once = 1024;
    for from in (0..n).step_by(rows_at_once) {
        let to = (from + rows_at_once).min(n);
        let mut phi = Array2::zeros((to - from, m));
        for i in from..to {
            for (k, atom) in problem.atoms().iter().enumerate() {
                let mut row = phi.slice_mut(s![i - from, problem.rows_of(k)]);
                let row = row.as_slice_mut().expect("standard layout");
                atom.basis(state.coords[k].row(i).as_slice().expect("standard layout"), row);
                row.iter_mut().for_each(|v| *v *= gates[[i, k]] * problem.weight(i).sqrt());
            }
        }
        gram += &product((phi.view(), Op::Transposed), (phi.view(), Op::Plain));
        (from..to).for_each(|i| phi.row_mut(i - from).mapv_inplace(|v| v * problem.weight(i).sqrt()));
        moment += &product((phi.view(), Op::Transposed), (problem.rows(from..to), Op::Plain));
    }
    let ridge = RIDGE * gram.diag().sum() / m as f64;
    gram.diag_mut().mapv_inplace(|v| v + ridge);
    let factor = Cholesky::new(gram.view())
        .ok_or_else(|| ShapeError::value("the data are too ill-conditioned for a first least-squares solve"))?;
    let square: f64 =
        (0..n).map(|i| problem.weight(i) * problem.rows(i..i + 1).iter().map(|v| v * v).sum::<f64>()).sum();
    let mut solved = moment.clone();
    factor.solve(&mut solved.view_mut());
    let explained: f64 = solved.iter().zip(&moment).map(|(a, b)| a * b).sum();
    let floor = RELATIVE_FLOOR * problem.mean_column_variance();
    let dispersion = ((square - explained) / (n * p) as f64).max(floor);
    state.decoders = solved;

    // the strength at which the prior expects the roughness that the decoder has
    let log_smooth = problem
        .atoms()
        .iter()
        .enumerate()
        .map(|(k, atom)| {
            let b = state.decoder(problem, k);
            let roughness = atom.roughness();
            let energy: f64 = roughness.dot(&b).iter().zip(b.iter()).map(|(a, b)| a * b).sum();
            let rank = atom.width() as f64 - atom.null_projector().diag().sum();
            (dispersion * p as f64 * rank / energy.max(floor)).max(f64::MIN_POSITIVE).ln()
        })
        .collect();
    let rho = SaeManifoldRho::with_per_atom_smooth(0.0, log_smooth, dispersion.ln());
    Ok((dispersion, Seed { state, rho }))
}
