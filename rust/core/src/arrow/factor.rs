//! One factorisation of `H + UU'`, by whichever elimination.

use super::decoders_first::DecodersFirst;
use super::estimated::{Estimated, Estimation};
use super::exact::ExactFactor;
use super::rows_first::RowsFirst;
use super::spectral::Nulls;
use super::{Coupling, Frame, Step, System};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::row::{Chunk, RowView};
use crate::state::State;
use ndarray::Array2;

/// Which variables go first, and in which channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elimination {
    /// Rows first, with a border of all p channels.
    Primal,
    /// Rows first, with a border of the channels that the decoders span.
    Complement,
    /// Decoders first.
    Dual,
    /// Rows first, with a border of all p channels whose determinant is estimated from products with it.
    Stochastic,
}

impl Elimination {
    pub fn name(self) -> &'static str {
        match self {
            Self::Primal => "primal",
            Self::Complement => "complement",
            Self::Dual => "dual",
            Self::Stochastic => "stochastic",
        }
    }

    /// The channels it works in.
    pub fn frame(self, problem: &Problem, state: &State) -> Frame {
        match self {
            Self::Primal | Self::Stochastic => Frame::full(problem, &state.decoders),
            Self::Complement => Frame::span(problem, state, true),
            Self::Dual => Frame::span(problem, state, false),
        }
    }
}

/// Which curvature is factored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curvature {
    /// H: what the evidence's determinants are of.
    Evidence,
    /// H with the size of each coordinate's second derivative against the residual added to its diagonal: closer to the exact
    /// Hessian where a weak gate leaves a coordinate to the residual, so it preconditions better; and where that curves
    /// downwards, a step of unit length goes no further than L is what its expansion says. The classic mode keeps to its
    /// positive part, and adds the size of each logit's, which has no Gaussian there.
    Stiffened,
}

impl Curvature {
    /// The row's block as it is factored, q x q.
    pub(super) fn block(self, problem: &Problem, view: &RowView<'_>, nulls: &Nulls) -> Vec<f64> {
        let mut block = self.raw_block(problem, view);
        if let Some(spectrum) = nulls.of(view.row) {
            spectrum.rebuild(&mut block);
        }
        block
    }

    /// The row's block before any of its directions is replaced.
    pub(super) fn raw_block(self, problem: &Problem, view: &RowView<'_>) -> Vec<f64> {
        let mut block = view.curvature.to_vec();
        if self == Self::Stiffened {
            // a logit has its Gaussian's curvature, but for the classic mode: a saturated one has the square of an exponential
            // here, and the second derivative its first power
            let first = if problem.is_proper() { view.free } else { 0 };
            for u in first..view.q {
                let second = view.second[u * view.q + u];
                // the classic mode leaves coordinates without curvature out of its steps, which size would hide
                let sized = problem.is_proper() || u < view.free;
                block[u * view.q + u] += if sized { second.abs() } else { second.max(0.0) };
            }
        }
        block
    }
}

/// The parts of `X = (H + UU')^-1` that a row's traces need, in the frame's channels.
#[derive(Clone, Debug, Default)]
pub struct RowTraces {
    /// X over the row's coupled variables, q x q.
    pub local: Vec<f64>,
    /// X between the row's coupled variables and the border, against phi_i: q x r.
    pub against_phi: Vec<f64>,
    /// The partial trace `sum_c [X J_i'](m c, c)` over the border's channels, from all of J_i: length M.
    pub border: Vec<f64>,
}

/// A factorisation.
#[derive(Debug)]
pub enum Factor {
    RowsFirst(RowsFirst),
    DecodersFirst(DecodersFirst),
    /// Of the evidence's curvature, with an estimate of its determinant.
    Estimated(Estimated),
    /// Of the exact Hessian, to step and to precondition with; it has no determinant.
    Exact(ExactFactor),
}

impl Factor {
    /// `None` when the curvature is not positive definite in floating point.
    pub fn new(
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        elimination: Elimination,
        curvature: Curvature,
        system: &System,
    ) -> Option<Self> {
        let nulls = Nulls::new(problem, state, system, curvature);
        Some(match elimination {
            Elimination::Primal | Elimination::Complement | Elimination::Stochastic => {
                Self::RowsFirst(RowsFirst::new(problem, state, rho, curvature, nulls, system)?)
            }
            Elimination::Dual => {
                Self::DecodersFirst(DecodersFirst::new(problem, state, rho, curvature, nulls, system)?)
            }
        })
    }

    /// What this factorisation replaces.
    pub fn nulls(&self) -> &Nulls {
        match self {
            Self::RowsFirst(f) => &f.nulls,
            Self::DecodersFirst(f) => &f.nulls,
            Self::Estimated(f) => &f.nulls,
            Self::Exact(f) => f.nulls(),
        }
    }

    fn is_exact(&self) -> bool {
        matches!(self, Self::Exact(_))
    }

    fn log_det(&self) -> f64 {
        match self {
            Self::RowsFirst(f) => f.log_det,
            Self::DecodersFirst(f) => f.log_det,
            Self::Estimated(f) => f.log_det,
            Self::Exact(_) => unreachable!("determinants are taken of the evidence's curvature"),
        }
    }

    pub fn solve(&self, problem: &Problem, state: &State, rho: &SaeManifoldRho, system: &System, rhs: &Step) -> Step {
        let nulls = self.nulls();
        if nulls.projects() {
            let mut projected = rhs.clone();
            nulls.project(&mut projected.local);
            let mut x = self.solve_all(problem, state, rho, system, &projected);
            nulls.project(&mut x.local);
            return x;
        }
        self.solve_all(problem, state, rho, system, rhs)
    }

    fn solve_all(&self, problem: &Problem, state: &State, rho: &SaeManifoldRho, system: &System, rhs: &Step) -> Step {
        match self {
            Self::RowsFirst(f) => f.solve(problem, state, rho, system, rhs),
            Self::DecodersFirst(f) => f.solve(problem, state, rho, system, rhs),
            Self::Estimated(f) => f.solve(problem, state, rho, system, rhs),
            Self::Exact(f) => f.solve(problem, state, rho, system, rhs),
        }
    }
}

/// A system with its factorisation.
#[derive(Debug)]
pub struct Factored {
    pub system: System,
    pub factor: Factor,
    /// The columns that couple all rows, where the curvature is the evidence's and the gate has them.
    pub coupling: Option<Coupling>,
}

/// A factorisation whose system, the larger part of the two where rows are many, has been let go.
#[derive(Debug)]
pub struct Unlinked {
    factor: Factor,
    coupling: Option<Coupling>,
}

impl Unlinked {
    pub fn is_exact(&self) -> bool {
        self.factor.is_exact()
    }

    /// With the system at the same state, made again.
    pub fn with_system(self, system: System) -> Factored {
        Factored { system, factor: self.factor, coupling: self.coupling }
    }
}

impl Factored {
    pub fn without_system(self) -> Unlinked {
        Unlinked { factor: self.factor, coupling: self.coupling }
    }

    /// Linearises and factors at a state. `None` when the curvature is not positive definite in floating point.
    pub fn new(
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        elimination: Elimination,
        curvature: Curvature,
    ) -> Option<Self> {
        let system = System::new(problem, state, rho, elimination.frame(problem, state))?;
        Self::from_system(problem, state, rho, elimination, curvature, system, Estimation::default())
    }

    /// `estimation` says how the determinant is estimated, where it is.
    pub fn from_system(
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        elimination: Elimination,
        curvature: Curvature,
        mut system: System,
        estimation: Estimation,
    ) -> Option<Self> {
        let factor = match (elimination, curvature) {
            (Elimination::Stochastic, Curvature::Evidence) => {
                let nulls = Nulls::new(problem, state, &system, curvature);
                Factor::Estimated(Estimated::new(problem, state, rho, nulls, &mut system, estimation)?)
            }
            _ => Factor::new(problem, state, rho, elimination, curvature, &system)?,
        };
        let coupled = curvature == Curvature::Evidence && !system.lin.columns.terms.is_empty();
        let coupling = if coupled {
            Some(Coupling::new(problem, state, &system, |b| factor.solve(problem, state, rho, &system, b))?)
        } else {
            None
        };
        Some(Self { system, factor, coupling })
    }

    /// Factors what steps are made with: near an optimum the exact Hessian where it is positive definite, otherwise the
    /// stiffened curvature.
    pub fn to_step_with(
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        elimination: Elimination,
        near: bool,
        system: System,
    ) -> Option<Self> {
        if near {
            if let Some(factor) = ExactFactor::new(problem, state, rho, &system) {
                return Some(Self { system, factor: Factor::Exact(factor), coupling: None });
            }
        }
        Self::from_system(problem, state, rho, elimination, Curvature::Stiffened, system, Estimation::default())
    }

    /// The factor whose determinant is an estimate, if it is one.
    pub fn estimated(&self) -> Option<&Estimated> {
        match &self.factor {
            Factor::Estimated(f) => Some(f),
            _ => None,
        }
    }

    /// Whether steps are made with the exact Hessian.
    pub fn is_exact(&self) -> bool {
        self.factor.is_exact()
    }

    /// `ln |H + UU'|`.
    pub fn log_det(&self) -> f64 {
        self.factor.log_det() + self.coupling.as_ref().map_or(0.0, |c| c.log_det)
    }

    /// Solves with `H + UU'`.
    pub fn solve(&self, problem: &Problem, state: &State, rho: &SaeManifoldRho, rhs: &Step) -> Step {
        let mut x = self.factor.solve(problem, state, rho, &self.system, rhs);
        if let Some(coupling) = &self.coupling {
            coupling.correct(&mut x);
        }
        x
    }

    /// What the traces need beyond the factors themselves; the coupling of columns is left to its own low-rank terms.
    pub fn inverse(&self, problem: &Problem, state: &State, rho: &SaeManifoldRho) -> SelectedInverse {
        match &self.factor {
            Factor::RowsFirst(f) => SelectedInverse::RowsFirst(f.inverse(problem, &self.system)),
            Factor::DecodersFirst(f) => SelectedInverse::DecodersFirst(f.inverse(problem, state, rho, &self.system)),
            Factor::Estimated(_) => SelectedInverse::Estimated,
            Factor::Exact(_) => unreachable!("traces are taken of the evidence's curvature"),
        }
    }
}

/// Selected entries of `(H + UU')^-1`.
pub enum SelectedInverse {
    RowsFirst(super::rows_first::BorderInverse),
    DecodersFirst(super::decoders_first::FullInverse),
    /// Nothing over the border: what is known of it are the estimate's directions, a low-rank term like others.
    Estimated,
}

impl SelectedInverse {
    /// The partial trace over channels of the border block, `T[m, m'] = sum_c X[(m c), (m' c)]`, all p channels; `None` where
    /// nothing of it is known.
    pub fn border_trace(&self) -> Option<&Array2<f64>> {
        match self {
            Self::RowsFirst(x) => Some(&x.trace),
            Self::DecodersFirst(x) => Some(&x.trace),
            Self::Estimated => None,
        }
    }

    /// Calls `visit` for every row of a chunk with its traces.
    pub fn visit_rows(
        &self,
        problem: &Problem,
        state: &State,
        rho: &SaeManifoldRho,
        factored: &Factored,
        chunk: &Chunk,
        visit: impl FnMut(usize, &RowView<'_>, &RowTraces),
    ) {
        match (self, &factored.factor) {
            (Self::RowsFirst(x), Factor::RowsFirst(f)) => {
                x.visit_rows(problem, state, rho, &factored.system, f, chunk, visit);
            }
            (Self::DecodersFirst(x), _) => x.visit_rows(problem, state, rho, &factored.system, chunk, visit),
            (Self::Estimated, Factor::Estimated(f)) => {
                f.visit_rows(problem, state, &factored.system, chunk, visit);
            }
            (Self::RowsFirst(_) | Self::Estimated, _) => {
                unreachable!("a selected inverse belongs to the factor that made it")
            }
        }
    }
}
