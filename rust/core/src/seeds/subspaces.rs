//! Several atoms: K-subspaces clustering, and the coordinates of each cluster's atom.

use super::assignment::cheapest;
use super::charts::charts;
use super::components::{principal_scores, whiten};
use super::least::Least;
use super::Guess;
use crate::atoms::Atom;
use crate::linalg::{product, symmetric_eigen, Op};
use crate::problem::Problem;
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use std::collections::BTreeSet;

/// Share of a row that its cluster's atom gets over any other at the start: logits of plus and minus two temperatures.
const LABEL_SHARE: f64 = 0.982;
/// Restarts of the clustering for each seed that is kept.
const RESTARTS: usize = 8;
/// Bound on its sweeps; it almost always stops before.
const SWEEPS: usize = 40;
/// Rows it sees; more rows only sharpen subspaces that a few thousand determine.
const CLUSTER_ROWS: usize = 4096;

/// A cluster's affine subspace.
#[derive(Clone)]
pub(super) struct Subspace {
    mean: Array1<f64>,
    /// r x d, orthonormal columns.
    basis: Array2<f64>,
}

impl Subspace {
    /// The best affine subspace of dimension `d` through some rows, or linear when `linear` holds.
    pub(super) fn fit(rows: ArrayView2<'_, f64>, d: usize, linear: bool) -> Self {
        let r = rows.ncols();
        let mean = if linear { Array1::zeros(r) } else { rows.mean_axis(ndarray::Axis(0)).expect("rows") };
        let centred = &rows - &mean;
        let gram = product((centred.view(), Op::Transposed), (centred.view(), Op::Plain));
        let (_, vectors) = symmetric_eigen(gram.view());
        let d = d.min(r);
        Self { mean, basis: Array2::from_shape_fn((r, d), |(c, j)| vectors[[c, r - 1 - j]]) }
    }

    /// Squared distances of some rows.
    fn distances(&self, rows: ArrayView2<'_, f64>) -> Vec<f64> {
        let centred = &rows - &self.mean;
        let inside = product((centred.view(), Op::Plain), (self.basis.view(), Op::Plain));
        let apart = |(c, i): (ArrayView1<'_, f64>, ArrayView1<'_, f64>)| (c.dot(&c) - i.dot(&i)).max(0.0);
        centred.rows().into_iter().zip(inside.rows()).map(apart).collect()
    }
}

/// K-subspaces clustering, several restarts, best first; then one guess each.
pub fn clustered(problem: &Problem, n_init: usize, random_state: u64, interrupted: &dyn Fn() -> bool) -> Vec<Guess> {
    let sizes: Vec<usize> = problem.atoms().iter().map(|a| a.seed_components()).collect();
    // clusters live in the leading components; the rest is noise to them
    let rank = sizes.iter().sum::<usize>() * 3 + 2;
    let scores = principal_scores(problem.data().view(), rank);
    let sample = rows_of_all_lengths(&squared_lengths(scores.view()), CLUSTER_ROWS);
    let rows = Array2::from_shape_fn((sample.len(), scores.ncols()), |(i, j)| scores[[sample[i], j]]);

    let mut found: Vec<(f64, Vec<Subspace>)> = Vec::new();
    // a batch between two looks at the interrupt flag
    for batch in 0..n_init.max(1) {
        if interrupted() {
            break;
        }
        let restarts = batch * RESTARTS..(batch + 1) * RESTARTS;
        let run = |restart: usize| {
            let mut rng = ChaCha8Rng::seed_from_u64(random_state.wrapping_add((restart as u64) << 32));
            cluster(rows.view(), &sizes, restart % 2 == 0, &mut rng)
        };
        found.extend(restarts.into_par_iter().map(run).collect::<Vec<_>>());
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    // restarts that ended in the same clustering agree to rounding
    found.dedup_by(|a, b| (a.0 - b.0).abs() <= 1e-9 * (1.0 + b.0.abs()));
    found.truncate(n_init.max(1));
    found.into_iter().map(|(_, subspaces)| guess(problem, &scores, &subspaces)).collect()
}

pub(super) fn squared_lengths(scores: ArrayView2<'_, f64>) -> Vec<f64> {
    scores.rows().into_iter().map(|r| r.dot(&r)).collect()
}

/// Rows in order of their length, the longest first: a draw in this order follows the data when rows move.
pub(super) fn by_length(lengths: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by(|&a, &b| lengths[b].total_cmp(&lengths[a]));
    order
}

/// At most so many rows, as many of every length: rows may come in turns.
pub(super) fn rows_of_all_lengths(lengths: &[f64], most: usize) -> Vec<usize> {
    by_length(lengths).into_iter().step_by(lengths.len().div_ceil(most).max(1)).collect()
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
        for (near, distance) in nearest.iter_mut().zip(subspace.distances(rows)) {
            *near = near.min(distance);
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
    let mut best = vec![(f64::INFINITY, 0); rows.nrows()];
    for (k, subspace) in subspaces.iter().enumerate() {
        for (best, distance) in best.iter_mut().zip(subspace.distances(rows)) {
            if distance < best.0 {
                *best = (distance, k);
            }
        }
    }
    (best.iter().map(|b| b.1).collect(), best.iter().map(|b| b.0).sum())
}

/// Labels and coordinates of every row from the clusters' subspaces.
fn guess(problem: &Problem, scores: &Array2<f64>, subspaces: &[Subspace]) -> Guess {
    let (n, k) = (problem.n_rows(), problem.n_atoms());
    let (labels, _) = assign(scores.view(), subspaces);
    let mut members = vec![Vec::new(); k];
    labels.iter().enumerate().for_each(|(i, &label)| members[label].push(i));
    let read = |slot: usize, cluster: usize| {
        read_cluster(&*problem.atoms()[slot], scores, &subspaces[cluster], &members[cluster])
    };
    let cluster_of = deal_clusters(problem, scores, &members, |slot, cluster| read(slot, cluster).0);
    let coords = cluster_of.iter().enumerate().map(|(slot, &cluster)| read(slot, cluster).1).collect();

    let slot_of: Vec<usize> = (0..k).map(|c| cluster_of.iter().position(|&o| o == c).expect("a permutation")).collect();
    let mut logits = Array2::zeros((n, k));
    let lead = problem.gate().logit_of_share(LABEL_SHARE);
    for (i, &label) in labels.iter().enumerate() {
        logits[[i, slot_of[label]]] = lead;
        if problem.n_free() < k {
            let pinned = logits[[i, k - 1]];
            logits.row_mut(i).mapv_inplace(|l| l - pinned);
        }
    }
    Guess { logits, coords, support: None }
}

/// The cluster of each atom. Only atoms that need subspaces of one dimension may trade clusters: those of different kinds
/// do so for the least squared error, those of one kind stand in the order of their clusters' energies.
fn deal_clusters(
    problem: &Problem,
    scores: &Array2<f64>,
    members: &[Vec<usize>],
    cost: impl Fn(usize, usize) -> f64,
) -> Vec<usize> {
    let k = problem.n_atoms();
    let keys: Vec<String> = problem.atoms().iter().map(|a| a.key()).collect();
    let sizes: Vec<usize> = problem.atoms().iter().map(|a| a.seed_components()).collect();
    let mut out: Vec<usize> = (0..k).collect();
    for size in sizes.iter().copied().collect::<BTreeSet<usize>>() {
        let slots: Vec<usize> = (0..k).filter(|&a| sizes[a] == size).collect();
        let kinds: BTreeSet<&String> = slots.iter().map(|&a| &keys[a]).collect();
        if kinds.len() > 1 {
            let of_kind = |kind: &String| -> Vec<f64> {
                let slot = slots.iter().copied().find(|&a| keys[a] == *kind).expect("one of the kinds");
                slots.iter().map(|&cluster| cost(slot, cluster)).collect()
            };
            let costs: Vec<(&String, Vec<f64>)> = kinds.iter().map(|kind| (*kind, of_kind(kind))).collect();
            let of_slot = |&a: &usize| costs.iter().find(|c| *c.0 == keys[a]).expect("one of the kinds").1.clone();
            let dealt = cheapest(&slots.iter().map(of_slot).collect::<Vec<_>>());
            slots.iter().zip(dealt).for_each(|(&slot, place)| out[slot] = slots[place]);
        }
    }
    let energy = |&c: &usize| members[c].iter().map(|&i| scores.row(i).dot(&scores.row(i))).sum::<f64>();
    for key in keys.iter().collect::<BTreeSet<_>>() {
        let slots: Vec<usize> = (0..k).filter(|&a| keys[a] == *key).collect();
        let mut clusters: Vec<(f64, usize)> = slots.iter().map(|&a| (energy(&out[a]), out[a])).collect();
        clusters.sort_by(|a, b| b.0.total_cmp(&a.0));
        slots.iter().zip(clusters).for_each(|(&slot, (_, cluster))| out[slot] = cluster);
    }
    out
}

/// The best coordinates of all rows on an atom that is to explain a cluster, with their squared error over its members.
pub(super) fn read_cluster(
    atom: &dyn Atom,
    scores: &Array2<f64>,
    subspace: &Subspace,
    members: &[usize],
) -> (f64, Array2<f64>) {
    let mut inside = (scores - &subspace.mean).dot(&subspace.basis);
    for mut column in inside.columns_mut() {
        if members.iter().map(|&i| column[i].powi(3)).sum::<f64>() < 0.0 {
            column.mapv_inplace(|v| -v);
        }
    }
    whiten(&mut inside, members);
    charts(atom, &inside, members)
        .into_iter()
        .map(|coords| (cluster_error(atom, scores, &coords, members), coords))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .expect("every kind offers a guess")
}

/// Squared error of the best decoder over a cluster, inflated for the columns it was free to choose.
fn cluster_error(atom: &dyn Atom, scores: &Array2<f64>, coords: &Array2<f64>, members: &[usize]) -> f64 {
    let own = scores.select(Axis(0), members);
    let energy: f64 = own.iter().map(|v| v * v).sum();
    let (n, m) = (members.len(), atom.width());
    if n <= m {
        return energy;
    }
    let mut phi = Array2::zeros((n, m));
    for (mut row, &i) in phi.rows_mut().into_iter().zip(members) {
        let t = coords.row(i);
        atom.basis(t.as_slice().expect("standard layout"), row.as_slice_mut().expect("standard layout"));
    }
    let gram = product((phi.view(), Op::Transposed), (phi.view(), Op::Plain));
    let moment = product((phi.view(), Op::Transposed), (own.view(), Op::Plain));
    let explained = Least::new(gram).map_or(0.0, |least| least.explained(&moment));
    (energy - explained).max(0.0) * n as f64 / (n - m) as f64
}
