//! Coordinates read off a few directions of the data.
//!
//! A kind says in which shapes its atoms may lie in a few whitened directions, each as parts that belong together: a circle
//! in the plane of two, a torus in two planes. Which directions make which part is tried in three ways: as the
//! components come, as the directions of equal spread of squared length, and as the split under which the squared length
//! of a part is as constant as it can be, which it is exactly for a circle. Everything is a closed form that follows the
//! rows through rotations and permutations.

use crate::atoms::Atom;
use crate::linalg::{product, symmetric_eigen, Op};
use ndarray::{concatenate, s, Array1, Array2, ArrayView2, Axis};

/// Stored coordinates of all rows, in several guesses. `scores` (n x r) are whitened over the rows of `sample`, the only
/// ones that shapes are found from.
pub fn charts(atom: &dyn Atom, scores: &Array2<f64>, sample: &[usize]) -> Vec<Array2<f64>> {
    let mut out = Vec::new();
    for blocks in atom.seed_blocks() {
        let size: usize = blocks.iter().sum();
        for frame in frames(scores, sample, &blocks, size) {
            let picked = product((scores.view(), Op::Plain), (frame.view(), Op::Plain));
            out.push(atom.seed_rows(&picked));
        }
    }
    out
}

/// Orthonormal columns (r x size), the parts one after the other.
fn frames(scores: &Array2<f64>, sample: &[usize], blocks: &[usize], size: usize) -> Vec<Array2<f64>> {
    let r = scores.ncols();
    let mut out = Vec::new();
    for choice in choices(r, size) {
        for deal in deals(&choice, blocks) {
            out.push(columns(r, size, &deal));
        }
    }
    if blocks.len() == 2 && r >= size {
        let rows = Array2::from_shape_fn((sample.len(), size), |(i, j)| scores[[sample[i], j]]);
        for vectors in [by_length(rows.view()), by_roundness(rows.view(), false), by_roundness(rows.view(), true)] {
            for first in [0, size - blocks[0]] {
                let split = split(&vectors, first, blocks[0]);
                let mut frame = Array2::zeros((r, size));
                frame.slice_mut(s![..size, ..]).assign(&split);
                out.push(frame);
            }
        }
    }
    out
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

/// All ways to deal components out to one or two parts, each part's in their order.
fn deals(choice: &[Option<usize>], blocks: &[usize]) -> Vec<Vec<Option<usize>>> {
    if blocks.len() < 2 {
        return vec![choice.to_vec()];
    }
    choices(choice.len(), blocks[0])
        .into_iter()
        .map(|first| {
            let first: Vec<usize> = first.into_iter().flatten().collect();
            let rest = (0..choice.len()).filter(|j| !first.contains(j));
            first.iter().copied().chain(rest).map(|j| choice[j]).collect()
        })
        .collect()
}

fn columns(r: usize, size: usize, deal: &[Option<usize>]) -> Array2<f64> {
    let mut out = Array2::zeros((r, size));
    for (c, j) in deal.iter().enumerate() {
        if let Some(j) = j {
            out[[*j, c]] = 1.0;
        }
    }
    out
}

/// Principal directions of `E |x|^2 x x'`: parts that differ in how their length varies with that of the rest.
fn by_length(rows: ArrayView2<'_, f64>) -> Array2<f64> {
    let lengths = rows.rows().into_iter().map(|x| x.dot(&x));
    let mut scaled = rows.to_owned();
    scaled.rows_mut().into_iter().zip(lengths).for_each(|(mut x, length)| x *= length);
    let moment = product((scaled.view(), Op::Transposed), (rows, Op::Plain));
    symmetric_eigen(((&moment + &moment.t()) * 0.5).view()).1
}

/// Principal directions of the symmetric M of unit norm for which `x'Mx` varies least; with `traceless`, of the M without a
/// trace, which is the one to ask for when the whole length is constant too.
fn by_roundness(rows: ArrayView2<'_, f64>, traceless: bool) -> Array2<f64> {
    let (n, r) = rows.dim();
    let pairs: Vec<(usize, usize)> = (0..r).flat_map(|a| (a..r).map(move |b| (a, b))).collect();
    // off the diagonal an entry of M occurs twice
    let unit = |(a, b): (usize, usize)| if a == b { 1.0 } else { std::f64::consts::SQRT_2 };
    let mut squares = Array2::from_shape_fn((n, pairs.len()), |(i, c)| {
        let (a, b) = pairs[c];
        unit(pairs[c]) * rows[[i, a]] * rows[[i, b]]
    });
    let mean = squares.mean_axis(Axis(0)).unwrap_or_else(|| Array1::zeros(pairs.len()));
    squares -= &mean;
    let mut spread = product((squares.view(), Op::Transposed), (squares.view(), Op::Plain));
    if traceless {
        // a spread along the identity larger than any other puts it last
        let identity = Array1::from_iter(pairs.iter().map(|(a, b)| f64::from(u8::from(a == b)) / (r as f64).sqrt()));
        let along = spread.dot(&identity);
        let largest = spread.diag().sum();
        let own = identity.dot(&along);
        for a in 0..pairs.len() {
            for b in 0..pairs.len() {
                spread[[a, b]] +=
                    (own + largest) * identity[a] * identity[b] - identity[a] * along[b] - along[a] * identity[b];
            }
        }
    }
    let (_, vectors) = symmetric_eigen(spread.view());
    let mut form = Array2::zeros((r, r));
    for (c, &(a, b)) in pairs.iter().enumerate() {
        form[[a, b]] = vectors[[c, 0]] / unit((a, b));
        form[[b, a]] = form[[a, b]];
    }
    symmetric_eigen(form.view()).1
}

/// A part of `size` consecutive columns from `first` on, then the others.
fn split(vectors: &Array2<f64>, first: usize, size: usize) -> Array2<f64> {
    let r = vectors.nrows();
    let part: Vec<usize> = (first..first + size).collect();
    let rest: Vec<usize> = (0..r).filter(|j| !part.contains(j)).collect();
    let parts = [part, rest].map(|part| settled(&vectors.select(Axis(1), &part)));
    concatenate(Axis(1), &[parts[0].view(), parts[1].view()]).expect("as many rows")
}

/// The orthonormal basis of a subspace (r x d) that leans on as few components as it can: eigenvectors of equal eigenvalues
/// come in no order of their own.
fn settled(vectors: &Array2<f64>) -> Array2<f64> {
    let mut left = vectors.dot(&vectors.t());
    let mut out = Array2::zeros(vectors.dim());
    for mut column in out.columns_mut() {
        let lengths = left.diag().to_owned();
        let pivot = (0..lengths.len()).rev().max_by(|&a, &b| lengths[a].total_cmp(&lengths[b])).expect("components");
        let direction = left.column(pivot).to_owned() / lengths[pivot].sqrt();
        column.assign(&direction);
        for a in 0..lengths.len() {
            left.row_mut(a).scaled_add(-direction[a], &direction);
        }
    }
    out
}
