//! The factor that steps and adjoint solves are preconditioned with: the exact Hessian of L, as nearly as one pass over the
//! rows can have it.
//!
//! Beside what H has, a row's block has its second derivatives against the residual and all of its coordinates' priors, and
//! with rho_i the residual times w/phi in the frame, its coupling to the border gains a term:
//!
//! ```text
//!     C_i = w/phi L_i (phi_i' (x) I) + D_i (x) rho_i'        D_i = d phi_i / d u,  q x M
//! ```
//!
//! Left out are the residual outside the frame, and what priors couple among logits. Directions that H sees and L hardly
//! does, such as a curve that is traced at another pace, are those in which H and the exact Hessian differ most; many rows
//! leave many conjugate gradients to a factor of H there.
//!
//! The Schur complement S of a group of atoms with a small border is factored whole. Of a larger one only its diagonal blocks
//! are, each in the channels that its atom's decoder spans, and what they say is added to what the border's own curvature
//! `K = G (x) I + UU'` says:
//!
//! ```text
//!     S^-1  ~  K^-1 + sum_k E_k (S_kk^-1 - K_kk^-1) E_k'
//! ```
//!
//! S is K less what the rows explain, so every term is positive semidefinite; atoms that no row uses together make it exact.
//! Where a group is so large that a factor of its K would be, the blocks of its atoms stand for K: what is left then is S's own
//! blocks, and K's in the channels outside them.

pub(super) mod blocks;

use super::border::Border;
use super::kronecker::GroupCurvature;
use super::spectral::Nulls;
use super::substitution::Substitution;
use super::{Step, System};
use crate::chunks::PerChunk;
use crate::linalg::{axpy, Cholesky};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::state::State;
use crate::wire::Here;
use blocks::{Blocks, Eliminated};
use ndarray::{s, Array1, Array2, Axis};

/// Whether steps are made with the exact Hessian: not in the classic mode, which conditions its own, nor where a metric or
/// decoders with frames of their own tie all channels.
pub fn steps_exactly(problem: &Problem, state: &State) -> bool {
    problem.is_proper() && problem.metric().is_none() && state.frames.is_empty()
}

/// The factor.
#[derive(Debug)]
pub struct ExactFactor {
    /// Cholesky factors of the rows' blocks, laid end to end per chunk.
    factors: PerChunk<Vec<f64>>,
    /// Which rows are exact ones.
    exact: PerChunk<Vec<bool>>,
    blocks: Blocks,
    groups: Vec<(Border, Reduced)>,
    nulls: Nulls,
}

/// What the border of one group is solved with.
#[derive(Debug)]
enum Reduced {
    /// The factor of its Schur complement.
    Whole(Cholesky),
    /// `G (x) I + UU'`, or its blocks of single atoms, with what the exact blocks of single atoms say beyond it.
    Corrected(GroupCurvature, Vec<Correction>),
}

/// What one block of S says beyond the border's own curvature.
#[derive(Debug)]
struct Correction {
    block: usize,
    /// Places of its rows within the group.
    places: Vec<usize>,
    /// `S_kk^-1 - K_kk^-1`.
    inverse: Array2<f64>,
}

impl ExactFactor {
    /// `None` where a group's Schur complement is not positive definite, as it may be far from an optimum.
    pub(super) fn new(problem: &Problem, state: &State, rho: &SaeManifoldRho, system: &System) -> Option<Self> {
        let frame = &system.lin.frame;
        let blocks = Blocks::new(problem, frame);
        let zeros = blocks.zeros();
        let entries: usize = zeros.iter().map(Array2::len).sum();
        let plan = problem.chunks(8 * entries);
        let (parts, taken) = plan.map_summed(zeros, |mut chunks| {
            let (mut taken, mut rows) = (blocks.zeros(), Eliminated::default());
            let eliminated = chunks.try_for_each(|c| {
                let chunk = system.lin.chunk(problem, state, c);
                blocks.eliminate(problem, state, rho, &chunk, &mut rows, &mut taken)
            });
            (eliminated.map(|()| Here::new(rows)), taken)
        });
        let mut rows = Eliminated::default();
        for part in parts {
            part?.0.into_iter().for_each(|own| rows.append(own));
        }
        let factors = PerChunk::new(&plan, rows.factors).known_under(&plan, &system.lin.plan);
        let exact = PerChunk::new(&plan, rows.exact).known_under(&plan, &system.lin.plan);

        let gram = system.lin.border_gram(problem);
        let mut groups: Vec<(Border, Reduced)> = Vec::with_capacity(frame.groups().len());
        for group in 0..frame.groups().len() {
            let border = Border::new(problem, state, system, group)?;
            groups.push((
                border,
                Reduced::Corrected(GroupCurvature::new(problem, frame, group, &system.pins, &gram)?, Vec::new()),
            ));
        }
        for (index, (block, taken)) in blocks.all.iter().zip(taken).enumerate() {
            let mut own = block.kronecker(&gram);
            for (place, u) in system.pins.within(problem, &frame.groups()[block.group], &block.rows) {
                let mut column = Array2::zeros((block.rows.len(), frame.rank()));
                column.slice_mut(s![place..place + u.nrows(), ..]).assign(&u);
                let column = Array1::from_iter(block.inside(column));
                let column = column.as_slice().expect("contiguous");
                for (value, mut row) in column.iter().zip(own.rows_mut()) {
                    axpy(*value, column, row.as_slice_mut().expect("standard layout"));
                }
            }
            let schur = Cholesky::new((&own - &taken).view());
            let reduced = &mut groups[block.group].1;
            match (block.is_whole(), reduced) {
                (true, reduced) => *reduced = Reduced::Whole(schur?),
                (false, Reduced::Corrected(_, corrections)) => {
                    // a block that is not positive definite says nothing
                    let Some(schur) = schur else { continue };
                    let inverse = schur.inverse() - Cholesky::new(own.view())?.inverse();
                    let places = frame.groups()[block.group].places(&block.rows);
                    corrections.push(Correction { block: index, places, inverse });
                }
                (false, Reduced::Whole(_)) => unreachable!("a group is factored whole or by its atoms"),
            }
        }
        Some(Self { factors, exact, blocks, groups, nulls: Nulls::default() })
    }

    pub(super) fn nulls(&self) -> &Nulls {
        &self.nulls
    }

    pub(super) fn solve(
        &self,
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        system: &System,
        rhs: &Step,
    ) -> Step {
        let rows = Substitution { factors: &self.factors, exact: &self.exact, nulls: &self.nulls };
        let reduce = |inside: &mut Array2<f64>| {
            self.groups.iter().for_each(|(border, reduced)| self.solve_group(border, reduced, inside));
        };
        let borders = self.groups.iter().map(|(border, _)| border);
        rows.solve(problem, state, rho, system, rhs, (borders, reduce))
    }

    fn solve_group(&self, border: &Border, reduced: &Reduced, inside: &mut Array2<f64>) {
        match reduced {
            Reduced::Whole(schur) => border.solve_inside(schur, inside),
            Reduced::Corrected(own, corrections) => {
                let rhs = border.group.select(inside);
                let mut out = rhs.clone();
                own.solve(&mut out);
                for correction in corrections {
                    let block = &self.blocks.all[correction.block];
                    let seen = block.inside(rhs.select(Axis(0), &correction.places));
                    let shape = seen.dim();
                    let solved = correction.inverse.dot(&Array1::from_iter(seen));
                    let solved = block.outside(solved.into_shape_with_order(shape).expect("as many entries"));
                    for (&place, row) in correction.places.iter().zip(solved.rows()) {
                        let mut out = out.row_mut(place);
                        out += &row;
                    }
                }
                border.group.put(&out, inside);
            }
        }
    }
}
