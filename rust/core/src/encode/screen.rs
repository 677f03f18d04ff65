//! Which atoms may explain something of what is left of a row, without a look at their grids.
//!
//! Adding `a gamma` to a row lowers its data term by `f (a <gamma, r> - a^2 |gamma|^2 / 2)`, r what is left of the row and f its weight
//! over the dispersion. Outside of an orthonormal frame U of leading directions of an atom, every point of its grid has at most
//! `tail`, so `<gamma, r> <= |gamma| |U r| + tail |r|`. With `q = a |gamma|`, which lies between bounds that follow from the range of
//! the gate and the lengths on the grid, no gate and no point of the grid gains more than
//!
//! ```text
//! f (q |U r| - q^2 / 2 + a_max tail |r|) - (least energy of the coordinate's prior),    q as near to |U r| as it may be.
//! ```
//!
//! An open gate is at least some part of its atom, and what noise has in the frame is less: the bound leaves few atoms but those
//! that the row does use. Frames are in single precision, which halves what is read for every row; what that hides is added.

use super::nearest::Grid;
use crate::linalg::{row_space, symmetric_eigen, vectorised};
use crate::row::RowSolver;
use ndarray::{Array2, ArrayView2};

/// Frames of all atoms, and what bounds their gains.
#[derive(Debug, Default)]
pub struct Screen {
    /// Directions one after the other, each of as many numbers as there are outputs.
    frames: Vec<f32>,
    outputs: usize,
    atoms: Vec<Bound>,
}

#[derive(Debug)]
struct Bound {
    /// Number of directions.
    frame: usize,
    /// Bounds on the gate's value times the length of a point.
    q: (f64, f64),
    /// The largest value of the gate times what a point has outside of the frame.
    tail: f64,
    least_energy: f64,
}

impl Screen {
    /// Of independent gates.
    pub fn new(rows: &RowSolver, grids: &[Grid]) -> Self {
        let mut out = Self { outputs: rows.products.decoders.ncols(), ..Self::default() };
        (0..grids.len()).for_each(|k| out.add(rows, &grids[k], k));
        out
    }

    fn add(&mut self, rows: &RowSolver, grid: &Grid, k: usize) {
        /// Nats by which what is outside of a frame may loosen the bound, for rows as long as the atom's points.
        const LOOSE: f64 = 0.1;
        /// What rounding of eigenvectors hides of a point, as a part of what it may be: the root of a few units of rounding.
        const HIDDEN: f64 = 1e-6;
        let width = rows.atoms[k].width();
        let own = ArrayView2::from_shape((width, width), rows.products.own(k)).expect("a block of the atom's width");
        let (values, vectors) = symmetric_eigen(own);
        let longest = |lengths: &[f64]| lengths.iter().copied().fold(0.0f64, f64::max).sqrt();
        let largest = longest(&grid.lengths);
        let shortest = grid.lengths.iter().copied().fold(f64::INFINITY, f64::min).max(0.0).sqrt();
        let rounding = {
            let squares: Vec<f64> = grid.basis.rows().into_iter().map(|phi| phi.dot(&phi)).collect();
            HIDDEN * longest(&squares) * values[width - 1].max(0.0).sqrt()
        };
        let (low, high) = rows.gate.range(rows.rho.lambda_sparse(), k);
        let most = low.abs().max(high.abs());
        // directions that all points have little of are left out; eigenvalues ascend
        let (mut outside, mut tail, mut first) = (vec![0.0; grid.lengths.len()], 0.0, 0);
        for j in 0..width {
            for (outside, phi) in outside.iter_mut().zip(grid.basis.rows()) {
                *outside += values[j].max(0.0) * phi.dot(&vectors.column(j)).powi(2);
            }
            let next = longest(&outside);
            // not so where it is no number
            if rows.inverse_dispersion * most * next * largest <= LOOSE {
                (tail, first) = (next, j + 1);
            } else {
                break;
            }
        }
        let mut kept = Array2::zeros((width - first, self.outputs));
        for (mut direction, j) in kept.rows_mut().into_iter().zip((first..width).rev()) {
            let lines = (rows.offsets[k]..rows.offsets[k + 1]).map(|m| rows.products.decoders.row(m));
            lines.enumerate().for_each(|(u, line)| direction.scaled_add(vectors[[u, j]], &line));
        }
        let frame = row_space(kept.view());
        frame.columns().into_iter().for_each(|direction| self.frames.extend(direction.iter().map(|v| *v as f32)));
        self.atoms.push(Bound {
            frame: frame.ncols(),
            q: (low.max(0.0) * shortest, most * largest),
            tail: most * (tail + rounding),
            least_energy: grid.least,
        });
    }

    /// Calls `visit` with every atom and a bound on what it gains, of what is left of a row of squared length `length`.
    pub fn bounds(&self, left: &[f64], length: f64, factor: f64, mut visit: impl FnMut(usize, f64)) {
        /// Relative rounding of gains, which subtract what is explained from the data.
        const ROUNDING: f64 = 1e-9;
        let size = left.iter().map(|v| v * v).sum::<f64>().sqrt();
        // in its own unit, which single precision has room for
        let unit: Vec<f32> = left.iter().map(|v| if size > 0.0 { (v / size) as f32 } else { 0.0 }).collect();
        let hidden = (self.outputs as f64 + 4.0) * f64::from(f32::EPSILON);
        let mut rest = &self.frames[..];
        let p = self.outputs;
        let mut squared = |directions: usize| {
            let (own, next) = rest.split_at(directions * p);
            rest = next;
            vectorised(
                #[inline(always)]
                || {
                    let mut sum = 0.0;
                    // a loop of its own: an adaptor's is not always inlined, and then has narrow vectors
                    for u in own.chunks_exact(p.max(1)) {
                        sum += f64::from(inner(u, &unit)).powi(2);
                    }
                    sum
                },
            )
        };
        for (k, atom) in self.atoms.iter().enumerate() {
            let inside = size * (squared(atom.frame).sqrt() + hidden * (atom.frame as f64).sqrt());
            let q = inside.max(atom.q.0).min(atom.q.1);
            let gain = q * (inside - 0.5 * q) + atom.tail * size;
            let rounding = ROUNDING * atom.q.1 * (atom.q.1 + length.sqrt() + size);
            visit(k, factor * (gain + rounding) - atom.least_energy);
        }
    }
}

/// Inner product in interleaved sums, for loops that run [`vectorised`].
#[inline(always)]
fn inner(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 32;
    let (wide_a, wide_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f32 = wide_a.remainder().iter().zip(wide_b.remainder()).map(|(x, y)| x * y).sum();
    let mut sums = [0.0f32; LANES];
    for (x, y) in wide_a.zip(wide_b) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0] + tail
}
