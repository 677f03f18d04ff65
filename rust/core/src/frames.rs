//! Low-rank decoders: `B_k = C_k U_k'` with an orthonormal frame U_k (p x r_k) that stays as it is during a solve.
//!
//! The decoder's variables are then the entries of C_k. Since U_k is orthonormal, a vector over them is a vector over B_k whose
//! rows lie in the span of U_k: gradients and products with curvatures are projected, and determinants are of `V'HV` with
//! `V = blockdiag(I (x) U_k)`. Between solves a frame moves to where L is least for it.

use crate::errors::ShapeError;
use crate::linalg::{product, symmetric_eigen, Cholesky, Op};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::row::linearise;
use crate::state::State;
use ndarray::{s, Array2, Axis};
use std::sync::Arc;

/// A frame moves by polar factors until the cosines of its turns are this near to one.
const SETTLED: f64 = 1e-10;
/// Bound on polar factors of one refresh.
const MAX_TURNS: usize = 200;
/// Sine of an angle by which a refreshed frame counts as changed.
const SAME_FRAME: f64 = 1e-4;

/// The frames of a dictionary; an atom without one has all output channels.
#[derive(Clone, Debug, Default)]
pub struct DecoderFrames {
    frames: Vec<Option<Array2<f64>>>,
}

impl DecoderFrames {
    pub fn is_empty(&self) -> bool {
        self.frames.iter().all(Option::is_none)
    }

    /// U_k.
    pub fn of(&self, k: usize) -> Option<&Array2<f64>> {
        self.frames.get(k).and_then(Option::as_ref)
    }

    /// Takes of stacked decoders what lies in the frames.
    pub fn project(&self, problem: &Problem, border: &mut Array2<f64>) {
        for (k, frame) in self.frames.iter().enumerate() {
            if let Some(frame) = frame {
                let mut rows = border.slice_mut(s![problem.rows_of(k), ..]);
                let inside = rows.dot(frame).dot(&frame.t());
                rows.assign(&inside);
            }
        }
    }
}

impl State {
    /// The number of channels of atom k's decoder: the rank of its frame, or p.
    pub fn channels(&self, problem: &Problem, k: usize) -> usize {
        self.frames.of(k).map_or(problem.n_outputs(), Array2::ncols)
    }

    /// The ranks of the frames.
    pub fn ranks(&self, problem: &Problem) -> Vec<Option<usize>> {
        (0..problem.n_atoms()).map(|k| self.frames.of(k).map(Array2::ncols)).collect()
    }

    /// Number of decoder variables.
    pub fn n_decoder_variables(&self, problem: &Problem) -> usize {
        (0..problem.n_atoms()).map(|k| problem.rows_of(k).len() * self.channels(problem, k)).sum()
    }

    /// The same state with decoders of the given ranks, `None` for all channels: frames are the leading right singular vectors of
    /// the decoders, which lose what lies outside.
    pub fn with_ranks(mut self, problem: &Problem, ranks: &[Option<usize>]) -> Result<Self, ShapeError> {
        if ranks.len() != problem.n_atoms() {
            return Err(ShapeError::shape("decoder_ranks", &[ranks.len()], &[problem.n_atoms()]));
        }
        let mut frames = Vec::new();
        for (k, rank) in ranks.iter().enumerate() {
            let most = problem.n_outputs().min(problem.rows_of(k).len());
            frames.push(match rank {
                None => None,
                Some(rank) if (1..=most).contains(rank) => {
                    let decoder = self.decoder(problem, k);
                    let (_, vectors) = symmetric_eigen(decoder.t().dot(&decoder).view());
                    // eigenvalues ascend
                    Some(vectors.slice(s![.., vectors.ncols() - rank..]).to_owned())
                }
                Some(rank) => {
                    return Err(ShapeError::value(format!(
                        "the rank of decoder {k} must be between 1 and {most}, got {rank}"
                    )))
                }
            });
        }
        self.frames = Arc::new(DecoderFrames { frames });
        let frames = self.frames.clone();
        frames.project(problem, &mut self.decoders);
        Ok(self)
    }

    /// Every frame turned to where L is least with the rows and the other atoms as they are, and whether any has moved.
    ///
    /// For fixed C_k that is the polar factor of the cross moment `sum_i w_i a_ik e_i (Phi_k C_k)'`, e_i being the row less the
    /// other atoms; for a fixed frame C_k solves a linear system. Each lowers L.
    pub fn with_refreshed_frames(mut self, problem: &Problem, rho: &SaeManifoldRho) -> Option<(Self, bool)> {
        if self.frames.is_empty() {
            return Some((self, false));
        }
        let mut moved = false;
        for k in 0..problem.n_atoms() {
            let Some(old) = self.frames.of(k).cloned() else { continue };
            let lin = linearise(problem, &self, rho, crate::arrow::Frame::span(problem, &self, true))?;
            let rows = problem.rows_of(k);
            let gram = lin.gram.own(k);
            let mut decoder = self.decoder(problem, k).to_owned();
            // what the rows ask of this atom: sum_i w_i/phi phi_i e_i'
            let moment = gram.dot(&decoder) - lin.border_gradient.slice(s![rows.clone(), ..]);
            let factor = Cholesky::new(gram)?;
            let mut frame = old.clone();
            for _ in 0..MAX_TURNS {
                let inside = decoder.dot(&frame);
                let next = polar(&product((moment.view(), Op::Transposed), (inside.view(), Op::Plain)))?;
                let turn = least_cosine(&frame, &next);
                frame = next;
                let mut solved = moment.dot(&frame);
                factor.solve(&mut solved.view_mut());
                decoder = solved.dot(&frame.t());
                if 1.0 - turn < SETTLED {
                    break;
                }
            }
            moved |= least_cosine(&old, &frame) < (1.0 - SAME_FRAME * SAME_FRAME).sqrt();
            self.decoders.slice_mut(s![rows, ..]).assign(&decoder);
            let mut frames = (*self.frames).clone();
            frames.frames[k] = Some(frame);
            self.frames = Arc::new(frames);
        }
        Some((self, moved))
    }
}

/// The orthonormal matrix nearest to a p x r one of full rank: `W (W'W)^-1/2`.
fn polar(w: &Array2<f64>) -> Option<Array2<f64>> {
    let (values, vectors) = symmetric_eigen(w.t().dot(w).view());
    let least = values.iter().fold(f64::INFINITY, |m: f64, v| m.min(*v));
    (least > 0.0).then_some(())?;
    let scaled = &vectors * &values.mapv(|v| 1.0 / v.sqrt()).insert_axis(Axis(0));
    Some(w.dot(&scaled).dot(&vectors.t()))
}

/// The cosine of the largest angle between two frames.
fn least_cosine(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    let across = a.t().dot(b);
    let (values, _) = symmetric_eigen(across.t().dot(&across).view());
    values.iter().fold(f64::INFINITY, |m: f64, v| m.min(*v)).max(0.0).sqrt()
}
