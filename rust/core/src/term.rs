//! A problem with a state: the value object that the outer loop moves.

use crate::arrow::{
    steps_exactly, ArrowSchur, Curvature, Elimination, Ending, Estimation, Factor, Factored, Frame, Plan, Shape, Step,
    System, Whitening, STEPS_EXACTLY_TO,
};
use crate::errors::ShapeError;
use crate::evidence::{explicit_gradient, fellner_schall, gradient, log_det_adjoint, Evidence, EvidenceParts, Traces};
use crate::layout::SaeRowLayout;
use crate::newton::{solve, InnerOptions, Status};
use crate::problem::Problem;
use crate::rho::SaeManifoldRho;
use crate::row::{linearise, Columns, LossParts};
use crate::state::State;
use ndarray::Array2;
use std::sync::Arc;

/// A dictionary at a state. Cheap to clone; evaluating it gives a new one.
#[derive(Clone, Debug)]
pub struct SaeManifoldTerm {
    pub problem: Arc<Problem>,
    pub state: State,
    /// What an estimated determinant is whitened with, from the first evaluation with a gradient on: as long as it stays, V is
    /// a smooth function of the strengths.
    pub whitening: Option<Arc<Whitening>>,
}

/// Settings of an evaluation.
#[derive(Clone, Copy, Debug)]
pub struct EvaluationOptions {
    /// Bound on the inner decrement relative to sqrt(n p). V is then off by about n p times as much: it moves with the inner
    /// variables by about the root of their number in units of the decrement. An estimated determinant and its derivatives
    /// go no further than this calls for.
    pub tolerance: f64,
    /// Bound on inner iterations; 0 evaluates V at the state as it is.
    pub max_inner: usize,
    /// `None` chooses by the problem's shape, and lets steps be made with a factor of the exact Hessian.
    pub elimination: Option<Elimination>,
    pub gradient: bool,
    /// The explicit part of the gradient with its traces, which the whole gradient brings along.
    pub traces: bool,
}

impl Default for EvaluationOptions {
    fn default() -> Self {
        Self { tolerance: 1e-10, max_inner: 200, elimination: None, gradient: true, traces: false }
    }
}

/// V with its gradient, the converged inner state, and how it was reached.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// V; infinite when the strengths are infeasible.
    pub value: f64,
    /// Of V in nats, where its determinant is an estimate.
    pub standard_error: Option<f64>,
    /// In the order of `rho.to_flat()`; empty when not asked for or infeasible.
    pub gradient: Vec<f64>,
    /// The gradient without the motion of the inner variables; empty when no traces were asked for.
    pub explicit_gradient: Vec<f64>,
    pub traces: Traces,
    /// Where a Fellner-Schall step goes, in the order of `rho.to_flat()`; empty without traces.
    pub fellner_schall: Vec<f64>,
    pub loss: LossParts,
    pub parts: EvidenceParts,
    pub status: Status,
    pub iterations: usize,
    pub cg_iterations: usize,
    pub decrement: f64,
    /// How the adjoint solve ended, when there was one.
    pub adjoint: Option<Ending>,
    pub elimination: Elimination,
    pub term: SaeManifoldTerm,
}

/// An estimate goes on until steps move it by this part of what the inner tolerance leaves of V: where a quadratic form changes
/// by so little, its derivative is as good as V.
const UNSEEN: f64 = 0.01;

/// The slope of an estimate may be off by this part of what V is, in units in which V's curvature is about one: a step of a
/// hundred of these is seen to go up or down as well as two values of V tell.
const SLOPE: f64 = 0.01;

/// The elimination that steps are made by. A determinant needs its dense system once; a step is as good by a factor that has
/// only blocks of it, where there is one.
fn to_step_by(problem: &Problem, state: &State, plan: &Plan) -> Elimination {
    let large = plan.dense_size > STEPS_EXACTLY_TO;
    match plan.elimination {
        Elimination::Dual if large && steps_exactly(problem, state) => Elimination::Complement,
        elimination => elimination,
    }
}

impl SaeManifoldTerm {
    pub fn new(problem: Arc<Problem>, state: State) -> Self {
        Self { problem, state, whitening: None }
    }

    /// The plan for this state's shape.
    pub fn plan(&self, elimination: Option<Elimination>) -> Plan {
        self.shape(elimination).plan(None)
    }

    /// What its cost depends on.
    pub fn shape(&self, elimination: Option<Elimination>) -> Shape {
        let (p, layout) = (&self.problem, self.state.layout_of_rows());
        let coupled_logits: usize = if p.n_free() == 0 {
            0
        } else {
            (0..p.n_rows()).map(|i| self.state.support(i).len().min(p.n_free())).sum()
        };
        // the elimination of decoders first works in all channels
        let framed = (!self.state.frames.is_empty()).then_some(Elimination::Complement);
        let metric = p.metric().map(|_| Elimination::Primal);
        // frames of decoders and a metric tie all atoms together
        let widths = match metric.or(framed) {
            Some(_) => vec![p.width()],
            None => {
                let width = |group: &Vec<usize>| group.iter().map(|&k| p.rows_of(k).len()).sum();
                layout.groups().iter().map(width).collect()
            }
        };
        let supports = (0..p.n_rows()).flat_map(|i| self.state.support(i));
        Shape {
            n_rows: p.n_rows(),
            n_outputs: p.n_outputs(),
            n_atoms: p.n_atoms(),
            free_logits: p.n_free(),
            ambient: p.atoms().iter().map(|atom| atom.ambient()).sum(),
            active_atoms: supports.clone().count(),
            active_coords: layout.n_active_coords(),
            active_basis: supports.map(|&k| p.rows_of(k as usize).len()).sum(),
            coupled_logits,
            compact: layout.is_compact(),
            group_widths: widths,
            copies: usize::from(p.in_memory()),
            forced: metric.or(framed).or(elimination),
        }
    }

    fn check(&self, rho: &SaeManifoldRho) -> Result<(), ShapeError> {
        self.problem.check_strengths(rho)
    }

    /// The named terms of L at this state.
    pub fn loss(&self, rho: &SaeManifoldRho) -> Result<LossParts, ShapeError> {
        self.check(rho)?;
        linearise(&self.problem, &self.state, rho, Frame::span(&self.problem, &self.state, true))
            .map(|lin| lin.loss)
            .ok_or_else(|| ShapeError::value("the decoder prior is not positive definite at these strengths"))
    }

    /// What a unit of each column's mass costs; empty where the gate has no prior on columns.
    pub fn column_scores(&self, rho: &SaeManifoldRho) -> Result<Vec<f64>, ShapeError> {
        self.check(rho)?;
        Ok(Columns::new(&self.problem, &self.state, rho).scores())
    }

    /// Converges the inner variables at `rho` and returns V with its exact gradient.
    pub fn evaluate(
        &self,
        rho: &SaeManifoldRho,
        options: &EvaluationOptions,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Evaluation, ShapeError> {
        self.check(rho)?;
        let problem = &*self.problem;
        self.state.agree(problem, rho);
        let plan = self.plan(options.elimination);
        let elimination = plan.elimination;
        let stepping = match options.elimination {
            None => to_step_by(problem, &self.state, &plan),
            // the plan's: a metric and frames of decoders leave no choice
            Some(_) => elimination,
        };
        let inner_options = InnerOptions {
            tolerance: options.tolerance,
            max_iterations: options.max_inner,
            elimination: stepping,
            exact: options.elimination.is_none(),
        };
        let inner = solve(problem, self.state.clone(), rho, &inner_options, interrupted);
        let mut out = Evaluation {
            value: f64::INFINITY,
            standard_error: None,
            gradient: Vec::new(),
            explicit_gradient: Vec::new(),
            traces: Traces::default(),
            fellner_schall: Vec::new(),
            loss: LossParts::default(),
            parts: EvidenceParts::default(),
            status: inner.status,
            iterations: inner.iterations,
            cg_iterations: inner.cg_iterations,
            decrement: inner.decrement,
            adjoint: None,
            elimination,
            term: Self::new(self.problem.clone(), inner.state),
        };
        let Some(factored) = inner.factored else { return Ok(out) };
        let state = &out.term.state;
        out.loss = factored.system.lin.loss;
        let Factored { system, factor: stiffened, .. } = factored;
        // a factor to step with keeps its own system where the determinant is taken in other channels
        let (system, stepped) = match stepping == elimination {
            true => (Some(system), None),
            false => (System::new(problem, state, rho, elimination.frame(problem, state)), Some(system)),
        };
        let Some(system) = system else {
            out.status = Status::Infeasible;
            return Ok(out);
        };
        let entries = (problem.n_rows() * problem.n_outputs()) as f64;
        let estimation = Estimation { whitening: self.whitening.clone(), unseen: UNSEEN * options.tolerance * entries };
        let found = Factored::from_system(problem, state, rho, elimination, Curvature::Evidence, system, estimation)
            .and_then(|factored| Evidence::new(problem, state, rho, &factored).map(|evidence| (factored, evidence)));
        let Some((factored, evidence)) = found else {
            out.status = Status::Infeasible;
            return Ok(out);
        };
        out.parts = evidence.parts;
        out.value = evidence.value;
        let estimate = factored.estimated();
        out.standard_error = estimate.map(|estimate| 0.5 * estimate.standard_error());
        if options.gradient || options.traces {
            out.term.whitening = estimate.map(|estimate| estimate.whitening().clone());
        }
        let state = &out.term.state;
        if (options.gradient || options.traces) && inner.status != Status::Interrupted {
            let (explicit, adjoint) = explicit_gradient(problem, state, rho, &factored, &evidence);
            out.traces = Traces::new(problem, state, rho, &factored, &adjoint);
            out.fellner_schall = fellner_schall(problem, state, rho, &factored, &out.traces);
            out.explicit_gradient.clone_from(&explicit);
            if !options.gradient {
                return Ok(out);
            }
            let preconditioner = (&stiffened, stepped.as_ref().unwrap_or(&factored.system));
            let leaves = if factored.estimated().is_some() { SLOPE * options.tolerance * entries } else { 0.0 };
            let slope =
                gradient(problem, state, rho, (&factored, preconditioner), (explicit, &adjoint), leaves, interrupted);
            out.gradient = slope.value;
            out.adjoint = Some(slope.ending);
            if slope.ending == Ending::Interrupted {
                out.status = Status::Interrupted;
            }
        }
        Ok(out)
    }

    /// First guesses, most promising first, each with strengths that suit it.
    pub fn seeds(
        problem: Arc<Problem>,
        n_init: usize,
        random_state: u64,
        routing: Option<&Array2<f64>>,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Vec<(Self, SaeManifoldRho)>, ShapeError> {
        let seeds = crate::seeds::seeds(&problem, n_init, random_state, routing, interrupted)?;
        Ok(seeds.into_iter().map(|s| (Self::new(problem.clone(), s.state), s.rho)).collect())
    }

    /// This term with every row re-encoded by its own decoders and the roughness of its curves weighted anew, and the number of
    /// rows that changed basin or support, at least one where a weight changed; `None` when interrupted.
    pub fn refreshed(
        &self,
        rho: &SaeManifoldRho,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Option<(Self, usize)>, ShapeError> {
        self.check(rho)?;
        self.state.agree(&self.problem, rho);
        /// Relative change of a roughness weight that counts as one.
        const SAME_WEIGHT: f64 = 1e-3;
        let refreshed = crate::encode::refresh(&self.problem, &self.state, rho, interrupted)?;
        let Some((state, changed)) = refreshed else { return Ok(None) };
        // where the curvature has no meaning in floating point frames stay as they are: the next evaluation says so
        let (state, turned) = match state.frames.is_empty() {
            true => (state, false),
            false => state.clone().with_refreshed_frames(&self.problem, rho).unwrap_or((state, false)),
        };
        let refreshed = Some((state, changed.max(usize::from(turned))));
        Ok(refreshed.map(|(state, changed)| {
            let weighted = state.clone().reweighted(&self.problem);
            let moved = weighted.weight_change(&state, &self.problem) > SAME_WEIGHT;
            let (state, changed) = if moved { (weighted, changed.max(1)) } else { (state, changed) };
            (Self::new(self.problem.clone(), state), changed)
        }))
    }

    /// The smallest `ln lambda_sparse` within `bounds` at which rows that use one atom alone still do, if there are any.
    pub fn sparsity_floor(&self, rho: &SaeManifoldRho, bounds: (f64, f64)) -> Result<Option<f64>, ShapeError> {
        self.check(rho)?;
        crate::encode::sparsity_floor(&self.problem, &self.state, rho, bounds)
    }

    fn factored_here(&self, rho: &SaeManifoldRho) -> Result<(Factored, Evidence), ShapeError> {
        self.check(rho)?;
        let elimination = self.plan(None).elimination;
        let factored = Factored::new(&self.problem, &self.state, rho, elimination, Curvature::Evidence)
            .ok_or_else(not_positive_definite)?;
        let evidence = Evidence::new(&self.problem, &self.state, rho, &factored).ok_or_else(not_positive_definite)?;
        Ok((factored, evidence))
    }

    /// The named terms of V at this state, without moving it.
    pub fn criterion_as_atoms(&self, rho: &SaeManifoldRho) -> Result<(LossParts, EvidenceParts), ShapeError> {
        let (factored, evidence) = self.factored_here(rho)?;
        Ok((factored.system.lin.loss, evidence.parts))
    }

    /// Gamma of chapter 2.4 at this state: `tr(H^-1 dH/dtheta)`.
    pub fn logdet_theta_adjoint(&self, rho: &SaeManifoldRho) -> Result<Step, ShapeError> {
        let (factored, evidence) = self.factored_here(rho)?;
        if factored.estimated().is_some() {
            return Err(ShapeError::value(
                "the determinant is estimated here: its adjoint in the inner variables is not",
            ));
        }
        Ok(log_det_adjoint(&self.problem, &self.state, rho, &factored, &evidence))
    }

    /// The gradient of V in the strengths, taking this state as converged.
    pub fn analytic_outer_rho_gradient(&self, rho: &SaeManifoldRho) -> Result<Vec<f64>, ShapeError> {
        let (factored, evidence) = self.factored_here(rho)?;
        // residuals in the norm of H say little of the exact Hessian's where a coordinate has hardly any curvature in H
        let (elimination, curvature) = (self.plan(None).elimination, Curvature::Stiffened);
        let stiffened = Factor::new(&self.problem, &self.state, rho, elimination, curvature, &factored.system)
            .ok_or_else(not_positive_definite)?;
        let (explicit, adjoint) = explicit_gradient(&self.problem, &self.state, rho, &factored, &evidence);
        let factors = (&factored, (&stiffened, &factored.system));
        let found = gradient(&self.problem, &self.state, rho, factors, (explicit, &adjoint), 0.0, &|| false);
        match found.ending {
            Ending::Converged => Ok(found.value),
            _ => Err(ShapeError::value("the adjoint solve did not converge: this state is not near an optimum")),
        }
    }

    /// The arrow written out.
    pub fn assemble_arrow_schur(
        &self,
        rho: &SaeManifoldRho,
        layout: Option<&SaeRowLayout>,
    ) -> Result<ArrowSchur, ShapeError> {
        self.check(rho)?;
        ArrowSchur::new(&self.problem, &self.state, rho, layout)
    }
}

fn not_positive_definite() -> ShapeError {
    ShapeError::value("the curvature at this state and these strengths is not positive definite")
}
