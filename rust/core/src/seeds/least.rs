//! Least squares for decoders.

use crate::linalg::{axpy, product, small_backward, small_cholesky, small_forward, Cholesky, Op};
use crate::problem::Problem;
use crate::state::State;
use ndarray::{s, Array2};
use rayon::prelude::*;

/// Relative ridge of a solve that knows no strengths yet.
const RIDGE: f64 = 1e-6;

/// A least-squares solve that knows no strengths yet.
pub(super) struct Least(Cholesky);

impl Least {
    /// `None` when the Gram matrix is not finite.
    pub(super) fn new(mut gram: Array2<f64>) -> Option<Self> {
        let ridge = RIDGE * gram.diag().sum() / gram.nrows() as f64;
        gram.diag_mut().mapv_inplace(|v| v + ridge);
        Cholesky::new(gram.view()).map(Self)
    }

    fn solve(&self, moment: &Array2<f64>) -> Array2<f64> {
        let mut solved = moment.clone();
        self.0.solve(&mut solved.view_mut());
        solved
    }

    /// The part of the squared length that the solution explains.
    pub(super) fn explained(&self, moment: &Array2<f64>) -> f64 {
        self.solve(moment).iter().zip(moment).map(|(a, b)| a * b).sum()
    }
}

/// Decoders (M x p) of least squared error at a state's gates and coordinates, and the part of the squared length of the data that
/// they explain. `None` where that is not finite; when interrupted, those that a few steps have come to.
pub(super) fn decoders(problem: &Problem, state: &State, interrupted: &dyn Fn() -> bool) -> Option<(Array2<f64>, f64)> {
    /// Width of a dictionary beyond which no M x M matrix is made.
    const DENSE: usize = 2048;
    let (solved, moment) = match problem.width() <= DENSE {
        true => of_all_columns(problem, state)?,
        false => of_few_columns(problem, state, interrupted)?,
    };
    let explained = solved.iter().zip(&moment).map(|(a, b)| a * b).sum();
    Some((solved, explained))
}

/// The solution and the right-hand side, by the Gram matrix of all columns.
fn of_all_columns(problem: &Problem, state: &State) -> Option<(Array2<f64>, Array2<f64>)> {
    let (n, p, m) = (problem.n_rows(), problem.n_outputs(), problem.width());
    let mut gates = Vec::new();
    let (mut gram, mut moment) = (Array2::<f64>::zeros((m, m)), Array2::<f64>::zeros((m, p)));
    let rows_at_once = 1024;
    for from in (0..n).step_by(rows_at_once) {
        let to = (from + rows_at_once).min(n);
        let mut phi = Array2::zeros((to - from, m));
        for i in from..to {
            state.gates_of(problem, i, &mut gates);
            for (&k, gate) in state.support(i).iter().zip(&gates) {
                let k = k as usize;
                let mut row = phi.slice_mut(s![i - from, problem.rows_of(k)]);
                let row = row.as_slice_mut().expect("standard layout");
                problem.atoms()[k].basis(state.point(k, i), row);
                row.iter_mut().for_each(|v| *v *= gate * problem.weight(i).sqrt());
            }
        }
        gram += &product((phi.view(), Op::Transposed), (phi.view(), Op::Plain));
        (from..to).for_each(|i| phi.row_mut(i - from).mapv_inplace(|v| v * problem.weight(i).sqrt()));
        moment += &product((phi.view(), Op::Transposed), (problem.rows(from..to).view(), Op::Plain));
    }
    let solved = Least::new(gram)?.solve(&moment);
    Some((solved, moment))
}

/// The same by conjugate gradients, whose steps cost rows no more than the columns of their atoms do.
fn of_few_columns(
    problem: &Problem,
    state: &State,
    interrupted: &dyn Fn() -> bool,
) -> Option<(Array2<f64>, Array2<f64>)> {
    /// Bound on steps, and the relative residual that ends them: far below what a first guess is off by.
    const STEPS: usize = 100;
    const SMALL: f64 = 1e-6;
    let design = Design::new(problem, state);
    let weighted = {
        let mut data = problem.rows(0..problem.n_rows()).into_owned();
        data.rows_mut().into_iter().enumerate().for_each(|(i, mut row)| row *= problem.weight(i).sqrt());
        data
    };
    let moment = design.pulled(&weighted);
    drop(weighted);
    let blocks = design.blocks()?;
    let mut solved = Array2::zeros(moment.dim());
    let mut left = moment.clone();
    let mut scaled = design.scaled(&blocks, &left);
    let mut direction = scaled.clone();
    let inner = |a: &Array2<f64>, b: &Array2<f64>| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let mut size = inner(&left, &scaled);
    let small = SMALL * SMALL * size;
    for _ in 0..STEPS {
        // columns of the decoders have one matrix, and share their steps
        if !(size.is_finite() && size > small) || interrupted() {
            break;
        }
        let mut through = design.pulled(&design.pushed(&direction));
        through.scaled_add(design.ridge, &direction);
        let step = size / inner(&direction, &through);
        solved.scaled_add(step, &direction);
        left.scaled_add(-step, &through);
        scaled = design.scaled(&blocks, &left);
        let next = inner(&left, &scaled);
        direction *= next / size;
        direction += &scaled;
        size = next;
    }
    size.is_finite().then_some((solved, moment))
}

/// Basis rows of the atoms that rows use, times gates and roots of weights.
struct Design<'a> {
    problem: &'a Problem,
    /// Of each row its atoms, and where their values are.
    rows: Vec<Vec<(u32, usize)>>,
    /// Of each atom its rows, and where their values are.
    atoms: Vec<Vec<(usize, usize)>>,
    values: Vec<f64>,
    ridge: f64,
}

impl<'a> Design<'a> {
    fn new(problem: &'a Problem, state: &State) -> Self {
        let (mut rows, mut atoms) = (Vec::new(), vec![Vec::new(); problem.n_atoms()]);
        let (mut values, mut gates): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
        for i in 0..problem.n_rows() {
            let support = state.support(i);
            state.gates_of(problem, i, &mut gates);
            let mut own = Vec::with_capacity(support.len());
            for (&k, gate) in support.iter().zip(&gates) {
                let (atom, from) = (&problem.atoms()[k as usize], values.len());
                values.resize(from + atom.width(), 0.0);
                atom.basis(state.point(k as usize, i), &mut values[from..]);
                let factor = gate * problem.weight(i).sqrt();
                values[from..].iter_mut().for_each(|v| *v *= factor);
                own.push((k, from));
                atoms[k as usize].push((i, from));
            }
            rows.push(own);
        }
        let ridge = RIDGE * values.iter().map(|v| v * v).sum::<f64>() / problem.width() as f64;
        Self { problem, rows, atoms, values, ridge }
    }

    fn width(&self, k: usize) -> usize {
        self.problem.rows_of(k).len()
    }

    /// A x (n x p) for decoders x.
    fn pushed(&self, x: &Array2<f64>) -> Array2<f64> {
        let p = x.ncols();
        let table = x.as_slice().expect("standard layout");
        let mut out = Array2::zeros((self.rows.len(), p));
        out.as_slice_mut().expect("standard layout").par_chunks_mut(p).zip(&self.rows).for_each(|(out, row)| {
            for &(k, from) in row {
                let own = self.problem.rows_of(k as usize);
                for (value, b) in self.values[from..from + own.len()].iter().zip(table[own.start * p..].chunks_exact(p))
                {
                    axpy(*value, b, out);
                }
            }
        });
        out
    }

    /// A' y (M x p) for rows y.
    fn pulled(&self, y: &Array2<f64>) -> Array2<f64> {
        let p = y.ncols();
        let table = y.as_slice().expect("standard layout");
        let mut out = Array2::zeros((self.problem.width(), p));
        self.each(&mut out, |k, out| {
            for &(i, from) in &self.atoms[k] {
                let y = &table[i * p..(i + 1) * p];
                for (value, out) in self.values[from..from + self.width(k)].iter().zip(out.chunks_exact_mut(p)) {
                    axpy(*value, y, out);
                }
            }
        });
        out
    }

    /// Cholesky factors of the atoms' own blocks; `None` where one is not finite.
    fn blocks(&self) -> Option<Vec<Vec<f64>>> {
        let of = |k: usize| {
            let width = self.width(k);
            let mut block = vec![0.0; width * width];
            for &(_, from) in &self.atoms[k] {
                let own = &self.values[from..from + width];
                for (a, line) in own.iter().zip(block.chunks_exact_mut(width)) {
                    axpy(*a, own, line);
                }
            }
            (0..width).for_each(|u| block[u * (width + 1)] += self.ridge);
            small_cholesky(&mut block, width).then_some(block)
        };
        (0..self.atoms.len()).into_par_iter().map(of).collect()
    }

    /// The blocks' inverses times decoders.
    fn scaled(&self, blocks: &[Vec<f64>], x: &Array2<f64>) -> Array2<f64> {
        let mut out = x.clone();
        let p = x.ncols();
        self.each(&mut out, |k, out| {
            small_forward(&blocks[k], self.width(k), out, p);
            small_backward(&blocks[k], self.width(k), out, p);
        });
        out
    }

    /// Runs `work` on every atom's rows of decoders.
    fn each(&self, out: &mut Array2<f64>, work: impl Fn(usize, &mut [f64]) + Sync) {
        let p = out.ncols();
        let mut rest = out.as_slice_mut().expect("standard layout");
        let mut parts = Vec::with_capacity(self.atoms.len());
        for k in 0..self.atoms.len() {
            let (own, next) = rest.split_at_mut(self.width(k) * p);
            parts.push(own);
            rest = next;
        }
        parts.into_par_iter().enumerate().for_each(|(k, out)| work(k, out));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atoms::{Atom, Circle};
    use crate::gates::{SigmoidNodes, ThresholdGate};
    use std::sync::Arc;

    #[test]
    fn conjugate_gradients_find_the_least_squares_of_all_columns() {
        let (n, p, k) = (120, 5, 4);
        let nodes = SigmoidNodes::new(&[-1.0, 1.0], &[0.5, 0.5], 0.0, 1.0).unwrap();
        let gate = Arc::new(ThresholdGate::new(0.0, 1.0, 0.04, &[], nodes).unwrap());
        let atoms = (0..k).map(|h| Arc::new(Circle::new(1 + h % 2).unwrap()) as Arc<dyn Atom>).collect();
        let data = Array2::from_shape_fn((n, p), |(i, c)| ((i * (c + 2)) as f64 + 0.1 * (i * i) as f64).sin());
        let weights = (0..n).map(|i| 0.5 + (i % 3) as f64).collect();
        let problem = Problem::new(data, Some(weights), atoms, gate, true).unwrap();
        let logits = Array2::from_shape_fn((n, k), |(i, a)| 0.2 + ((i + 3 * a) as f64).cos().abs());
        let coords =
            (0..k).map(|a| Array2::from_shape_fn((n, 1), |(i, _)| (1.7 * (i * (a + 1)) as f64) % 6.0)).collect();
        let support = (0..n as u32).map(|i| (0..k as u32).filter(|a| (i + a) % 3 > 0).collect()).collect();
        let zeros = Array2::zeros((problem.width(), p));
        let state = State::new(&problem, logits, coords, zeros, Some(support)).unwrap();
        let (all, moment) = of_all_columns(&problem, &state).unwrap();
        let (few, again) = of_few_columns(&problem, &state, &|| false).unwrap();
        let near = |a: &Array2<f64>, b: &Array2<f64>, by: f64| (a - b).iter().all(|v| v.abs() < by);
        assert!(near(&moment, &again, 1e-10));
        assert!(near(&all, &few, 1e-4), "{:?}", &all - &few);
        let explained = |x: &Array2<f64>| x.iter().zip(&moment).map(|(a, b)| a * b).sum::<f64>();
        assert!((explained(&all) / explained(&few) - 1.0).abs() < 1e-8);
    }
}
