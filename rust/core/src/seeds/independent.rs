//! First guesses for gates that do not depend on each other.

use super::charts::charts;
use super::components::{principal_scores, whiten};
use super::overcomplete;
use super::overlapping::{self, Component};
use super::subspaces::{read_cluster, Subspace};
use super::Guess;
use crate::problem::Problem;
use ndarray::{Array2, ArrayView1};
use rayon::prelude::*;
use std::borrow::Borrow;

/// Open gates start at this part of what they can be: there is room to either side.
const OPEN: f64 = 0.75;

/// A value that an open gate of an atom can take, at a part of its range from zero.
fn gate_value(problem: &Problem, atom: usize, part: f64) -> f64 {
    /// Logits are finite this far inside of the range.
    const INSIDE: f64 = 0.02;
    let (least, most) = problem.gate().range(1.0, atom);
    let room = INSIDE * (most - least);
    (part * most).clamp(least + room, most - room)
}

/// Turns a guess of hard labels into one for independent gates: a row uses its own atom, and those without a gate.
pub(super) fn opened(problem: &Problem, guess: &mut Guess) {
    let gate = problem.gate();
    let labels: Vec<usize> = guess
        .logits
        .rows()
        .into_iter()
        .map(|row| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).expect("at least one atom"))
        .collect();
    let used = |label: usize, k: usize| label == k || gate.always_on(k);
    for (mut row, &label) in guess.logits.rows_mut().into_iter().zip(&labels) {
        for (k, logit) in row.iter_mut().enumerate() {
            let open = used(label, k) && !gate.always_on(k);
            *logit = if open { gate.logit_of_value(1.0, k, gate_value(problem, k, OPEN)) } else { 0.0 };
        }
    }
    let atoms = problem.n_atoms();
    guess.support =
        Some(labels.iter().map(|&label| (0..atoms).filter(|&k| used(label, k)).map(|k| k as u32).collect()).collect());
}

/// Whether atoms need too many components to look at them pair by pair.
pub(super) fn are_many(problem: &Problem) -> bool {
    overlapping::are_many(problem.n_rows(), &problem.atoms().iter().map(|a| a.seed_components()).collect::<Vec<_>>())
}

/// Guesses from subspaces that single rows lead to, which are not sure to be the atoms', and from independent components; and whether
/// the data have as many of those as the atoms need.
pub(super) fn independent(problem: &Problem, random_state: u64, interrupted: &dyn Fn() -> bool) -> (Vec<Guess>, bool) {
    let sizes: Vec<usize> = problem.atoms().iter().map(|a| a.seed_components()).collect();
    let rank = sizes.iter().sum();
    let unscaled = principal_scores(problem.data().view(), rank);
    let mut scores = unscaled.clone();
    let all: Vec<usize> = (0..problem.n_rows()).collect();
    whiten(&mut scores, &all);
    // components that are rounding of others cannot be told apart
    let told_apart = |column: ArrayView1<'_, f64>| column.iter().any(|v| *v != 0.0);
    let complete = scores.ncols() == rank && scores.columns().into_iter().all(told_apart);
    // how many dimensions a subspace has is not told by the rows that lead to it
    let size = Some(sizes[0]).filter(|d| sizes.iter().all(|other| other == d));
    let found = size.and_then(|d| overcomplete::components(&unscaled, (sizes.len(), d), random_state, interrupted));
    let guess = |found: &overcomplete::Components| {
        from_components(problem, |k| found.rows(k).len(), |k| found.component(k), interrupted)
    };
    let mut guesses: Vec<Guess> = found.iter().filter_map(guess).collect();
    if complete {
        let sets = overlapping::components(scores.view(), &sizes, random_state, interrupted);
        let mass = |c: &Component| c.active.iter().filter(|a| **a).count();
        let guess = |set: &Vec<Component>| from_components(problem, |k| mass(&set[k]), |k| &set[k], interrupted);
        guesses.extend(sets.iter().filter_map(guess));
    }
    (guesses, complete)
}

/// A guess for gates that are given (n x K): each atom's subspace is that of the rows which use it most.
pub(super) fn routed(problem: &Problem, routing: &Array2<f64>) -> Guess {
    let (n, k) = (problem.n_rows(), problem.n_atoms());
    let sizes: Vec<usize> = problem.atoms().iter().map(|a| a.seed_components()).collect();
    let scores = principal_scores(problem.data().view(), sizes.iter().sum::<usize>() + 2);
    let used = |i: usize, atom: usize| routing[[i, atom]] != 0.0;
    let leads = |i: usize, atom: usize| (0..k).all(|o| routing[[i, o]].abs() <= routing[[i, atom]].abs());
    let coords = (0..k)
        .map(|atom| {
            let all: Vec<usize> = (0..n).filter(|&i| used(i, atom)).collect();
            let leading: Vec<usize> = all.iter().copied().filter(|&i| leads(i, atom)).collect();
            let members = if leading.len() > 2 * sizes[atom] { leading } else { all };
            let members = if members.is_empty() { (0..n).collect() } else { members };
            let own = scores.select(ndarray::Axis(0), &members);
            let subspace = Subspace::fit(own.view(), sizes[atom], false);
            read_cluster(&*problem.atoms()[atom], &scores, &subspace, &members).1
        })
        .collect();
    let support = (0..n).map(|i| (0..k).filter(|&a| used(i, a)).map(|a| a as u32).collect()).collect();
    Guess { logits: routing.clone(), coords, support: Some(support) }
}

/// Coordinates of all rows, and the rows that use the atom with their logits.
type OfAtom = (Array2<f64>, Vec<(usize, f64)>);

/// A guess from one set of components, as many as atoms, of which so many rows use each; atoms of one kind in order of the rows
/// that use them. `None` when interrupted.
fn from_components<C: Borrow<Component>>(
    problem: &Problem,
    mass: impl Fn(usize) -> usize,
    component: impl Fn(usize) -> C + Sync,
    interrupted: &dyn Fn() -> bool,
) -> Option<Guess> {
    /// Atoms between two questions for an interrupt.
    const BATCH: usize = 64;
    let (n, k) = (problem.n_rows(), problem.n_atoms());
    let keys: Vec<String> = problem.atoms().iter().map(|a| a.key()).collect();
    let place = within_kinds(&keys, |a, b| mass(b).cmp(&mass(a)));
    let gate = problem.gate();
    let read = |(atom, &from): (usize, &usize)| {
        let (component, kind) = (component(from), &*problem.atoms()[atom]);
        let component = component.borrow();
        let active: Vec<usize> = (0..n).filter(|&i| component.active[i]).collect();
        // the first of a kind's shapes is the one that needs no search among directions
        let guess = charts(kind, &component.scores, &active).into_iter().next();
        let always = gate.always_on(atom);
        let logit = |i: usize| match always {
            true => 0.0,
            false => gate.logit_of_value(1.0, atom, gate_value(problem, atom, OPEN * component.radius[i])),
        };
        let using: Vec<(usize, f64)> =
            (0..n).filter(|&i| component.active[i] || always).map(|i| (i, logit(i))).collect();
        (guess.expect("every kind offers a guess"), using)
    };
    let mut made: Vec<OfAtom> = Vec::with_capacity(k);
    for from in (0..k).step_by(BATCH) {
        // what is there already is used where it takes no time to read it
        if k > BATCH && interrupted() {
            return None;
        }
        let batch = &place[from..k.min(from + BATCH)];
        made.extend(batch.par_iter().enumerate().map(|(at, own)| read((from + at, own))).collect::<Vec<OfAtom>>());
    }
    let mut support: Vec<Vec<u32>> = vec![Vec::new(); n];
    let (mut logits, mut coords) = (Array2::zeros((n, k)), Vec::new());
    for (atom, (points, using)) in made.into_iter().enumerate() {
        coords.push(points);
        for (i, logit) in using {
            support[i].push(atom as u32);
            logits[[i, atom]] = logit;
        }
    }
    Some(Guess { logits, coords, support: Some(support) })
}

/// For each place the entry put there: entries trade places among equal keys only, in the given order.
fn within_kinds(keys: &[String], order: impl Fn(usize, usize) -> std::cmp::Ordering) -> Vec<usize> {
    let mut place: Vec<usize> = (0..keys.len()).collect();
    for key in keys.iter().collect::<std::collections::BTreeSet<_>>() {
        let slots: Vec<usize> = (0..keys.len()).filter(|&a| keys[a] == *key).collect();
        let mut sorted = slots.clone();
        sorted.sort_by(|&a, &b| order(a, b));
        slots.iter().zip(sorted).for_each(|(&slot, entry)| place[slot] = entry);
    }
    place
}
