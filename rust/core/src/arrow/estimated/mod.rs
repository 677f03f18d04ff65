//! The determinant of a Schur complement that is too large to form, estimated from products with it.
//!
//! `ln|S| = ln|P| + tr ln(R^-1 S R'^-1)` with `P = RR'` near S (`whitening`), and the trace is the mean of `z' ln(.) z` over
//! random signs z (Hutchinson), each by Lanczos' recurrence (`lanczos`). P and the signs stay the same while a search moves the
//! strengths, so that the estimate is a smooth function of them and its exact derivative is `tr(X dS)` with X of low rank, made
//! of the same recurrences: `X = sum_j weight_j y_j y_j'`.
//!
//! Motions of an atom that only its decoder's prior sees, `E = HG` with no part over the rows, are taken from H with the
//! determinant: `ln|H + UU'| + ln det(G'E - E'(H + UU')^-1 E) - ln det(G'E) = ln|H + UU' - E (G'E)^-1 E'|`, which needs no
//! solve.

mod lanczos;
mod schur;
mod whitening;

use super::conjugate_gradients::{conjugate_gradients, Enough};
use super::factor::{Curvature, RowTraces};
use super::spectral::{ln_held, Nulls};
use super::substitution::{solve_block, Substitution};
use super::{Step, System};
use crate::chunks::PerChunk;
use crate::linalg::{small_cholesky, Cholesky};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::row::{Chunk, RowView};
use crate::state::State;
use crate::wire::Here;
use lanczos::Run;
use ndarray::Array2;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use schur::Schur;
use std::ops::Range;
use std::sync::Arc;
pub use whitening::Whitening;

/// Vectors of random signs.
pub(super) const PROBES: usize = 8;
/// Entries of Krylov bases of a typical length that are alive at once: as many probes as these are enough for share each pass
/// over the rows.
const KRYLOV_ENTRIES: usize = 1 << 27;
/// Typical length of a recurrence.
pub(super) const KRYLOV: usize = 24;
/// Bound on the steps of a recurrence; a few dozen are enough where P is near S.
const MAX_STEPS: usize = 256;
/// Relative residual of solves.
const SOLVED: f64 = 1e-13;
/// Bound on their iterations.
const MAX_SOLVE: usize = 1000;

/// How a determinant is estimated.
#[derive(Clone, Debug, Default)]
pub struct Estimation {
    /// P as it was where a search began; made anew when `None`.
    pub whitening: Option<Arc<Whitening>>,
    /// Nats that nobody looks at: recurrences end where no step of theirs moves the estimate by more, and its derivative has
    /// no term that is less. With 0 they go on to rounding.
    pub unseen: f64,
}

/// The rows' factors, and what is known of the border.
#[derive(Debug)]
pub struct Estimated {
    /// Cholesky factors of the rows' blocks, laid end to end per chunk.
    blocks: PerChunk<Vec<f64>>,
    pub(super) nulls: Nulls,
    whitening: Arc<Whitening>,
    absorbed: Vec<Absorbed>,
    pub(super) log_det: f64,
    /// Standard error of the determinant's logarithm.
    standard_error: f64,
    directions: Vec<Direction>,
}

/// A term `weight y y'` of X over the border, y stacked decoders (M x p).
#[derive(Debug)]
pub struct Direction {
    pub weight: f64,
    pub border: Arc<Array2<f64>>,
}

/// Motions of one atom that are taken from H with the determinant.
#[derive(Debug)]
pub(super) struct Absorbed {
    atom: usize,
    /// Its stacked rows.
    rows: Range<usize>,
    /// Their places among all motions.
    columns: Range<usize>,
    /// `P_k G_k`, each M_k x p.
    stiff: Vec<Array2<f64>>,
    /// `T^-1`, T = G'E.
    inverse: Array2<f64>,
    /// L with `LL' = T`.
    lower: Array2<f64>,
}

impl Absorbed {
    /// Those of all atoms. `None` where the orbit's curvature is not positive in floating point.
    fn all(problem: &Problem, system: &System) -> Option<Vec<Self>> {
        let all = &system.gauge.columns;
        let mut out: Vec<Self> = Vec::new();
        let mut from = 0;
        while from < all.len() {
            let atom = all[from].atom;
            let columns = from..from + all[from..].iter().take_while(|column| column.atom == atom).count();
            from = columns.end;
            // the prior of a coordinate without bounds sees motions along it
            if problem.atoms()[atom].factors().iter().any(|factor| factor.ln_volume().is_none()) {
                continue;
            }
            let precision = &system.lin.prior.precision[atom];
            let stiff: Vec<Array2<f64>> = all[columns.clone()].iter().map(|c| precision.dot(&c.border)).collect();
            let entry = |(g, h): (usize, usize)| inner(&all[columns.start + g].border, &stiff[h]);
            let factor = Cholesky::new(Array2::from_shape_fn((stiff.len(), stiff.len()), entry).view())?;
            let (inverse, lower) = (factor.inverse(), factor.lower());
            out.push(Self { atom, rows: problem.rows_of(atom), columns, stiff, inverse, lower });
        }
        Some(out)
    }

    /// Columns V with `VV' = E T^-1 E'`.
    fn whitened(&self) -> Vec<Array2<f64>> {
        let mut out: Vec<Array2<f64>> = Vec::with_capacity(self.stiff.len());
        for g in 0..self.stiff.len() {
            let mut column = self.stiff[g].clone();
            out.iter().enumerate().for_each(|(h, own)| column.scaled_add(-self.lower[[g, h]], own));
            out.push(column / self.lower[[g, g]]);
        }
        out
    }
}

fn inner(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

impl Estimated {
    /// `None` when the curvature is not positive definite in floating point.
    pub(super) fn new(
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        nulls: Nulls,
        system: &mut System,
        Estimation { whitening, unseen }: Estimation,
    ) -> Option<Self> {
        let (blocks, mut log_det) = eliminated(problem, state, &nulls, system)?;
        log_det +=
            super::rows_first::decoupled_logits(problem, state, |row| nulls.logits(problem, system, row), ln_held);
        let absorbed = Absorbed::all(problem, system)?;
        let whitening = match whitening {
            Some(whitening) => whitening,
            None => Arc::new(Whitening::new(problem, state, rho, system, &blocks, &absorbed)?),
        };
        whitening.rescale(&mut system.gauge);
        let schur = Schur::new((problem, state, rho), system, &blocks, &absorbed);
        let (found, directions) = estimate(&schur, &whitening, unseen)?;
        let n = found.len() as f64;
        let mean = found.iter().sum::<f64>() / n;
        let variance = found.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
        log_det += whitening.log_det + mean;
        let standard_error = (variance / n).sqrt();
        let made = Self { blocks, nulls, whitening, absorbed, log_det, standard_error, directions };
        log_det.is_finite().then_some(made)
    }

    pub fn whitening(&self) -> &Arc<Whitening> {
        &self.whitening
    }

    pub fn standard_error(&self) -> f64 {
        self.standard_error
    }

    /// Terms of X over the border.
    pub fn directions(&self) -> &[Direction] {
        &self.directions
    }

    /// Whether a motion is taken from H with the determinant.
    pub fn absorbs(&self, column: usize) -> bool {
        self.absorbed.iter().any(|own| own.columns.contains(&column))
    }

    /// `X E T^-1` of an atom's motions, over its own decoder rows (M_k x p each), with `T^-1 E'X E T^-1`; `inverse` is X over
    /// some stacked rows and `visit` gets the place of the first motion among all.
    pub fn for_each_absorbed(
        &self,
        inverse: impl Fn(Range<usize>, &Array2<f64>) -> Array2<f64>,
        mut visit: impl FnMut(usize, Vec<Array2<f64>>, Array2<f64>),
    ) {
        for own in &self.absorbed {
            let j = own.stiff.len();
            let solved: Vec<Array2<f64>> = own.stiff.iter().map(|e| inverse(own.rows.clone(), e)).collect();
            let mut pulled: Vec<Array2<f64>> = own.stiff.iter().map(|e| Array2::zeros(e.dim())).collect();
            for (g, pulled) in pulled.iter_mut().enumerate() {
                solved.iter().enumerate().for_each(|(h, x)| pulled.scaled_add(own.inverse[[h, g]], x));
            }
            let seen = Array2::from_shape_fn((j, j), |(g, h)| inner(&own.stiff[g], &pulled[h]));
            visit(own.columns.start, pulled, own.inverse.dot(&seen));
        }
    }

    pub(super) fn solve(
        &self,
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        system: &System,
        rhs: &Step,
    ) -> Step {
        let rows = Substitution { factors: &self.blocks, exact: &PerChunk::default(), nulls: &self.nulls };
        let schur = Schur::new((problem, state, rho), system, &self.blocks, &self.absorbed);
        let reduce = |inside: &mut Array2<f64>| *inside = self.solve_border(&schur, inside);
        rows.solve(problem, state, rho, system, rhs, (std::iter::empty(), reduce))
    }

    /// The rows' part of a border vector's motion: they follow by `-A^-1 C y`.
    pub fn followed(
        &self,
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        system: &System,
        border: &Array2<f64>,
    ) -> Vec<f64> {
        let rows = Substitution { factors: &self.blocks, exact: &PerChunk::default(), nulls: &self.nulls };
        let zero = vec![0.0; state.layout_of_rows().len()];
        rows.backward(problem, state, rho, system, &zero, border)
    }

    /// Conjugate gradients, preconditioned by P.
    fn solve_border(&self, schur: &Schur<'_>, rhs: &Array2<f64>) -> Array2<f64> {
        let over_border = |border| Step { local: Vec::new(), border };
        let apply = |x: &Step| over_border(schur.apply(&x.border));
        let precondition = |x: &Step| {
            let mut out = x.border.clone();
            self.whitening.whiten(&mut out);
            self.whitening.color(&mut out);
            over_border(out)
        };
        let rhs = over_border(rhs.clone());
        conjugate_gradients(apply, precondition, &rhs, Enough::part(SOLVED), MAX_SOLVE, f64::INFINITY, &|| false)
            .x
            .border
    }

    /// Calls `visit` for every row of a chunk with the part of its traces that its own block has.
    pub(super) fn visit_rows(
        &self,
        problem: &Problem,
        state: &State,
        system: &System,
        chunk: &Chunk,
        mut visit: impl FnMut(usize, &RowView<'_>, &RowTraces),
    ) {
        let r = system.lin.frame.rank();
        let mut traces = RowTraces { border: vec![0.0; problem.width()], ..RowTraces::default() };
        let (factors, mut at) = (&self.blocks[chunk.index], 0);
        for (index, view, _) in System::rows_of(problem, state, chunk) {
            let q = view.q;
            traces.local.clear();
            traces.local.resize(q * q, 0.0);
            (0..q).for_each(|u| traces.local[u * q + u] = 1.0);
            solve_block(&factors[at..at + q * q], q, &mut traces.local, q);
            traces.against_phi.clear();
            traces.against_phi.resize(q * r, 0.0);
            at += q * q;
            visit(index, &view, &traces);
        }
    }
}

/// `R^-1 S R'^-1 x`.
fn whitened_product(schur: &Schur<'_>, whitening: &Whitening, mut x: Array2<f64>) -> Array2<f64> {
    whitening.color(&mut x);
    let mut out = schur.apply(&x);
    whitening.whiten(&mut out);
    out
}

/// The rows' factors, and the logarithm of their determinants.
fn eliminated(problem: &Problem, state: &State, nulls: &Nulls, system: &System) -> Option<(PerChunk<Vec<f64>>, f64)> {
    let parts = system.lin.plan.map(|chunks| {
        let (mut blocks, mut ln) = (Vec::with_capacity(chunks.len()), 0.0);
        for c in chunks {
            let chunk = system.lin.chunk(problem, state, c);
            let mut factors = Vec::new();
            for (_, view, _) in System::rows_of(problem, state, &chunk) {
                let at = factors.len();
                factors.extend(Curvature::Evidence.block(problem, &view, nulls));
                let l = &mut factors[at..];
                small_cholesky(l, view.q).then_some(())?;
                ln += 2.0 * (0..view.q).map(|u| l[u * view.q + u].ln()).sum::<f64>();
            }
            blocks.push(factors);
        }
        Some((Here::new(blocks), ln))
    });
    let (mut blocks, mut log_det) = (Vec::new(), 0.0);
    for part in parts {
        let (own, ln) = part?;
        blocks.extend(own.0.into_iter().flatten());
        log_det += ln;
    }
    Some((PerChunk::new(&system.lin.plan, blocks), log_det))
}

/// How many probes share a pass over the rows, for borders of so many variables.
pub(super) fn probes_together(border: usize) -> usize {
    (KRYLOV_ENTRIES / (KRYLOV * border.max(1))).clamp(1, PROBES)
}

/// `z' ln(R^-1 S R'^-1) z` for every probe, and the derivative of their mean in S, but for so many nats.
fn estimate(schur: &Schur<'_>, whitening: &Whitening, unseen: f64) -> Option<(Vec<f64>, Vec<Direction>)> {
    let (m, p) = schur.state.decoders.dim();
    let (mut values, mut directions) = (Vec::with_capacity(PROBES), Vec::new());
    let together = probes_together(m * p);
    for first in (0..PROBES).step_by(together) {
        let mut runs: Vec<Run> =
            (first..PROBES.min(first + together)).map(|probe| Run::new(signs(m * p, probe), unseen)).collect();
        for _ in 0..MAX_STEPS {
            let active: Vec<usize> = (0..runs.len()).filter(|&j| !runs[j].done).collect();
            if active.is_empty() {
                break;
            }
            let next: Vec<&[f64]> = active.iter().map(|&j| runs[j].next()).collect();
            let found = apart(&whitened_product(schur, whitening, side_by_side(&next, (m, p))), p);
            for (&j, product) in active.iter().zip(found) {
                runs[j].step(product)?;
            }
        }
        // far from where P was made: such strengths have no estimate
        if runs.iter().any(|run| !run.done) {
            return None;
        }
        for run in runs {
            let quadrature = run.finish();
            values.push(quadrature.value);
            for (weight, y) in quadrature.derivative {
                let mut border = Array2::from_shape_vec((m, p), y).expect("stacked decoders");
                whitening.color(&mut border);
                directions.push(Direction { weight: weight / PROBES as f64, border: Arc::new(border) });
            }
        }
    }
    Some((values, directions))
}

/// Stacked decoders (each M x p) side by side.
fn side_by_side(all: &[&[f64]], (m, p): (usize, usize)) -> Array2<f64> {
    let mut out = vec![0.0; m * p * all.len()];
    out.par_chunks_mut(p * all.len()).enumerate().for_each(|(a, row)| {
        row.chunks_exact_mut(p).zip(all).for_each(|(to, own)| to.copy_from_slice(&own[a * p..(a + 1) * p]));
    });
    Array2::from_shape_vec((m, p * all.len()), out).expect("side by side")
}

/// What lies side by side, one after the other.
fn apart(all: &Array2<f64>, p: usize) -> Vec<Vec<f64>> {
    let rows = all.as_slice().expect("standard layout").chunks_exact(all.ncols());
    let own = |from: usize| {
        let mut own = Vec::with_capacity(p * all.nrows());
        rows.clone().for_each(|row| own.extend_from_slice(&row[from..from + p]));
        own
    };
    (0..all.ncols()).into_par_iter().step_by(p).map(own).collect()
}

/// Random signs, the same in every evaluation.
fn signs(len: usize, probe: usize) -> Vec<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(probe as u64);
    (0..len).map(|_| if rng.random::<bool>() { 1.0 } else { -1.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_laid_side_by_side_comes_apart() {
        let (m, p) = (3, 2);
        let all: Vec<Vec<f64>> = (0..4).map(|j| (0..m * p).map(|i| (10 * j + i) as f64).collect()).collect();
        let views: Vec<&[f64]> = all.iter().map(|own| &own[..]).collect();
        let wide = side_by_side(&views, (m, p));
        assert_eq!(wide.dim(), (m, 4 * p));
        assert_eq!(wide[[1, 2 * p + 1]], 23.0);
        assert_eq!(apart(&wide, p), all);
    }
}
