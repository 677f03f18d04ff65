"""One search over the strengths: evaluations of V, the units and bounds they are searched in, and what moves them.

The compiled core returns V(ρ) with its exact gradient at converged inner variables; `sae_rs.bfgs` and `sae_rs.efs` move
ρ, with the supports of the rows held. What a whole fit makes of searches is in `sae_rs.reml`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from . import _core, bfgs, efs
from .boxes import Box
from .problem import Problem
from .stopping import Stopped, status_of

if TYPE_CHECKING:
    from .checkpoints import Checkpoints

FloatArray = NDArray[np.float64]

# Strengths outside are the same model to rounding: e^12 times the noise pins what it penalises, e^-30 frees it.
SMOOTH_BOUNDS = (-30.0, 30.0)
SPARSITY_BOUNDS = (-6.0, 12.0)
ARD_BOUNDS = (-12.0, 12.0)
# The noise level stays within these factors (logarithms) of the data's mean column variance.
DISPERSION_BOUNDS = (-60.0, 2.0)
# Inner tolerances: while choosing among starts, and while following the gradient. L is off by the square of what is
# left of the decrement, but V by its first power, since V is at no minimum over the inner variables: an error of a
# millionth of a nat hides the descent that the last line searches look for.
COARSE_TOL = 1e-3
FINE_TOL = 1e-11
# Evaluations and inner iterations allowed for each outer iteration, over the whole fit. A search that converges takes
# an evaluation or two of a few inner iterations for each; one that takes these follows a V that jumps between inner
# optima, or comes to none.
EVALUATIONS_PER_ITERATION = 2
INNER_PER_ITERATION = 10
# Conjugate gradients that belong to an inner iteration, and how many beyond cost as much as one.
GRADIENTS_WITHIN, GRADIENTS_BEYOND = 60, 30
# Inner iterations after which a trial is looked at: those of a smooth V are done by then.
TRIAL_INNER = 25
# Searches with a refresh of the supports after each; more than a few mean that rows keep changing places.
MAX_ROUNDS = 16
# Refreshes at one ρ between two searches.
MAX_REFRESHES = 8
# Of an estimated V, descent below this part of its standard error is not looked for, and V is computed to this part of
# that.
RESOLVED = 0.1
ACCURATE = 0.1
# Nearer to the optimum than this, in units in which half the square is about a nat, Fellner-Schall steps lead away from
# it: to their own fixed point, which is no minimum of V.
FAR = 10.0
# While rows find their supports, strengths are followed, and V is, to this many nats an entry of the data.
MOVING = 1e-4


@dataclass(frozen=True)
class FitProgress:
    """Where a fit is.

    Attributes
    ----------
    stage : str
        "start" while starting points are compared, "search" while ρ moves.
    evaluation : int
        Evaluations of V so far.
    value : float
        V at this evaluation, in nats.
    gradient_norm : float
        Largest entry of |∂V| in units of its curvature; nan while starts are compared.
    max_outer : int
        Bound on outer iterations.
    """

    stage: str
    evaluation: int
    value: float
    gradient_norm: float
    max_outer: int


@dataclass(frozen=True, eq=False)
class Point:
    """An evaluated ρ."""

    rho: _core.SaeManifoldRho
    evaluation: _core.Evaluation

    @property
    def flat(self) -> FloatArray:
        return np.asarray(self.rho.to_flat())

    @property
    def is_inner_optimum(self) -> bool:
        """Whether the inner solve has ended at an optimum, as far as rounding lets it."""
        return self.evaluation.inner.status in ("converged", "rounding_limit")

    @property
    def is_led_on(self) -> bool:
        """Whether there is a way on from here: a gradient, or the next Fellner-Schall step."""
        return len(self.evaluation.gradient) > 0 or len(self.evaluation.fellner_schall) > 0


def effort_of(inner: _core.InnerReport) -> int:
    """Inner iterations, with conjugate gradients beyond those that belong to them counted among them."""
    beyond = inner.cg_iterations - GRADIENTS_WITHIN * inner.iterations
    return inner.iterations + max(beyond, 0) // GRADIENTS_BEYOND


class Search:
    """One fit: the evaluations of V with their bookkeeping, and the best point so far."""

    def __init__(
        self,
        problem: Problem,
        *,
        outer: str,
        max_outer: int,
        max_inner: int,
        tol: float,
        threads: int | None,
        progress: Callable[[FitProgress], object] | None,
    ) -> None:
        self.problem = problem
        self.n_rows, self.n_outputs = problem.X.shape
        self.ranks = [int(np.linalg.matrix_rank(atom.roughness())) for atom in problem.atoms]
        self.variance = problem.variance
        self.outer, self.max_outer, self.max_inner, self.tol = outer, max_outer, max_inner, tol
        self.threads, self.progress = threads, progress
        self.inner_tol = FINE_TOL
        # nats that V cannot tell, where a determinant is estimated
        self.resolution = 0.0
        self.max_rounds, self.max_refreshes = MAX_ROUNDS, MAX_REFRESHES
        self.n_evaluations = 0
        # those made at earlier temperatures, which do not count against the budget
        self.n_before = 0
        self.n_iterations = 0
        self.n_rounds = 0
        self.support_changes = 0
        # whether supports have come to where refreshes change little; until then no gradient is looked at
        self.supports_settled = 0
        # whether a whole search has followed the gradient; no steps are taken after it
        self.gradient_followed = 0
        # inner iterations of evaluations that ρ was moved by, and how many a fit may take
        self.n_inner = 0
        self.most_inner = INNER_PER_ITERATION * max_outer
        self.sparsity_floor = SPARSITY_BOUNDS[0]
        # where the normaliser of the gate prior runs out of nodes V has no meaning; seeds are compared at these starts
        trusted = problem.gate.sparsity_ceiling(len(problem.atoms))
        self.sparsity_ceiling = min(SPARSITY_BOUNDS[1], max(trusted, *problem.gate.sparsity_starts))
        self.best: Point | None = None
        # what a fit that is cut off ends with, and below which V another point takes its place
        self.standing: Point | None = None
        self._bar = float("inf")
        # makes a state of this search from that of an earlier one, of fewer rows or at another temperature
        self.earlier: Callable[[Search], object] | None = None
        # where checkpoints are written, and what they call this search
        self.marks: Checkpoints | None = None
        self.stage = "whole"

    def on(self, problem: Problem) -> Search:
        """A fit of another problem with the same settings."""
        return Search(
            problem,
            outer=self.outer,
            max_outer=self.max_outer,
            max_inner=self.max_inner,
            tol=self.tol,
            threads=self.threads,
            progress=self.progress,
        )

    def after(self, earlier: Search) -> Search:
        """This fit with the evaluations of an earlier one counted."""
        self.n_evaluations = self.n_before = earlier.n_evaluations
        return self

    # Units and limits of the search ----------------------------------------------------------------------------------

    def n_ard(self, rho: _core.SaeManifoldRho) -> int:
        """Number of ARD entries in the flat ρ."""
        return len(rho) - 1 - len(self.ranks) - (not rho.fixed_dispersion)

    def curvature(self, rho: _core.SaeManifoldRho) -> FloatArray:
        """Typical curvature of V in each entry of the flat ρ, in nats."""
        # where nothing is rough the strength has no effect: V's gradient in it is exactly zero, and any unit will do
        smooth = [0.5 * self.n_outputs * rank if rank else 1.0 for rank in self.ranks]
        dispersion = [] if rho.fixed_dispersion else [0.5 * self.problem.n_entries]
        # all rows share one sparsity strength, but each logit with a prior of its own says little about it
        n_atoms = len(self.ranks)
        sparse = 0.1 * self.n_rows * (n_atoms if self.problem.gate.closes(n_atoms) else 1)
        return np.array([sparse, *smooth, *[0.5 * self.n_rows] * self.n_ard(rho), *dispersion])

    def bounds(self, rho: _core.SaeManifoldRho) -> tuple[FloatArray, FloatArray]:
        """Least and largest value of each entry of the flat ρ."""
        level = float(np.log(self.variance))
        pairs = [
            (0.0, 0.0) if self.problem.gate.sparsity_held else (self.sparsity_floor, self.sparsity_ceiling),
            *[SMOOTH_BOUNDS] * len(self.ranks),
            *[(0.0, 0.0) if fixed else ARD_BOUNDS for fixed in self._fixed_precisions(rho)],
            *([] if rho.fixed_dispersion else [(level + DISPERSION_BOUNDS[0], level + DISPERSION_BOUNDS[1])]),
        ]
        lower, upper = np.array(pairs).T
        return lower, upper

    def _fixed_precisions(self, rho: _core.SaeManifoldRho) -> list[bool]:
        """For each precision in ρ, whether it is held at one.

        The decoder absorbs the scale of a real coordinate, so of those of a chart only the ratios to the first are
        free.
        """
        firsts = [atom.real_axes[0] if atom.real_axes else None for atom in self.problem.atoms]
        blocks = [[axis == first for axis in range(len(b))] for first, b in zip(firsts, rho.log_ard, strict=True)]
        if rho.ard_sharing == "per_atom":
            return [fixed for block in blocks for fixed in block]
        longest = max(map(len, blocks), default=0)
        return [any(block[axis] for block in blocks if axis < len(block)) for axis in range(longest)]

    def admitted(self, rho: _core.SaeManifoldRho) -> _core.SaeManifoldRho:
        """ρ moved into the bounds of the search, with a dispersion of its own, or held where the criterion holds it."""
        if self.problem.evidence == "quasi_laplace":
            rho = rho.with_fixed_dispersion()
        elif rho.fixed_dispersion:
            rho = _core.SaeManifoldRho(
                rho.log_lambda_sparse,
                list(rho.log_lambda_smooth),
                [list(block) for block in rho.log_ard],
                rho.ard_sharing,
                float(np.log(self.variance)) if rho.log_dispersion is None else rho.log_dispersion,
            )
        flat = np.array(rho.to_flat())
        return rho.from_flat(np.clip(flat, *self.bounds(rho)))

    def projected_gradient(self, point: Point) -> FloatArray:
        """∂V/∂ρ without the entries that push against a bound."""
        gradient, flat = np.asarray(point.evaluation.gradient), point.flat
        lower, upper = self.bounds(point.rho)
        held = ((flat <= lower) & (gradient > 0.0)) | ((flat >= upper) & (gradient < 0.0))
        return np.where(held, 0.0, gradient)

    def at_bounds(self, point: Point) -> tuple[str, ...]:
        """Names of the entries of ρ that lie on a bound and would go further."""
        flat = point.flat
        lower, upper = self.bounds(point.rho)
        names = ["log_lambda_sparse", *[f"log_lambda_smooth[{k}]" for k in range(len(self.ranks))]]
        names += [f"log_ard[{j}]" for j in range(self.n_ard(point.rho))]
        names += [] if point.rho.fixed_dispersion else ["log_dispersion"]
        held = ((flat <= lower) | (flat >= upper)) & (lower < upper)
        return tuple(name for name, at in zip(names, held, strict=True) if at)

    def scaled_norm(self, point: Point) -> float:
        """sqrt(Σ g_j²/c_j) of the projected gradient; infinite without a gradient."""
        if len(point.evaluation.gradient) != len(point.flat):
            return float("inf")
        return float(np.sqrt(np.sum(self.projected_gradient(point) ** 2 / self.curvature(point.rho))))

    @property
    def is_spent(self) -> bool:
        """Whether the inner iterations that this fit may take are used up."""
        return self.n_inner >= self.most_inner

    @property
    def evaluations_left(self) -> int:
        """Evaluations that this fit may still take; those at earlier temperatures are not counted."""
        return EVALUATIONS_PER_ITERATION * self.max_outer + self.n_before - self.n_evaluations

    @property
    def tolerance(self) -> float:
        """Nats of descent that a search may leave: `tol`, or what an estimated V cannot tell."""
        return max(self.tol, self.resolution)

    @property
    def gradient_bound(self) -> float:
        """Scaled gradient norm at which about so many nats of descent are left."""
        return float(np.sqrt(2.0 * self.tolerance))

    @property
    def inner_tolerance(self) -> float:
        """Bound on the inner decrement relative to sqrt(np); it leaves V about np times as much."""
        return max(self.inner_tol, ACCURATE * self.resolution / float(self.n_rows * self.n_outputs))

    # Evaluations -----------------------------------------------------------------------------------------------------

    def settled(self, term: _core.SaeManifoldTerm, rho: _core.SaeManifoldRho, max_inner: int) -> Point:
        """A loosely converged V whose supports suit ρ."""
        term, _ = term.refreshed(rho, threads=self.threads)
        point = self.coarse(term, rho, max_inner)
        term, changed = point.evaluation.term.refreshed(rho, threads=self.threads)
        return self.coarse(term, rho, max_inner) if changed else point

    def coarse(self, term: _core.SaeManifoldTerm, rho: _core.SaeManifoldRho, max_inner: int) -> Point:
        """A loosely converged V, to compare starts."""
        inner = min(max_inner, self.max_inner)
        evaluation = term.evaluate(rho, tol=COARSE_TOL, max_inner=inner, gradient=False, threads=self.threads)
        return self._counted("start", Point(rho, evaluation))

    def fine(self, term: _core.SaeManifoldTerm, rho: _core.SaeManifoldRho) -> Point:
        """V with its gradient."""
        return self._counted("search", Point(rho, self._evaluated(term, rho, self.max_inner)))

    def _evaluated(self, term: _core.SaeManifoldTerm, rho: _core.SaeManifoldRho, max_inner: int) -> _core.Evaluation:
        return term.evaluate(rho, tol=self.inner_tolerance, max_inner=max_inner, threads=self.threads)

    def tried(self, accepted: Point, rho: _core.SaeManifoldRho) -> Point:
        """V with its gradient at a trial, from the state of the accepted point.

        A trial that will be rejected wherever its inner solve ends is left where it stands. At strengths that suit the
        data badly that solve is the longest there is.
        """
        most = min(self.max_inner, TRIAL_INNER)
        evaluation = self._evaluated(accepted.evaluation.term, rho, most)
        inner = evaluation.inner
        left, effort = self.max_inner - inner.iterations, effort_of(inner)
        # were each iteration that is left to lower L by as much as the next one promises
        least = float(evaluation.value) - left * 0.5 * float(inner.decrement) ** 2
        # a state on its way may be one without V
        if inner.status == "infeasible":
            goes_on = inner.iterations >= most
        else:
            goes_on = inner.status == "iteration_limit" and least <= float(accepted.evaluation.value)
        if goes_on and left > 0 and self.n_inner + effort < self.most_inner:
            self.n_inner += effort
            term = evaluation.term
            # of many rows a state is large
            del evaluation
            evaluation = self._evaluated(term, rho, left)
        return self._counted("search", Point(rho, evaluation))

    def begun(self, term: _core.SaeManifoldTerm, rho: _core.SaeManifoldRho) -> Point:
        """V where a search begins, with what its first steps need."""
        if not self.steps_first or self.gradient_followed:
            return self.fine(term, rho)
        return self.traced(term, rho, COARSE_TOL * float(np.sqrt(self.n_rows * self.n_outputs)))

    def traced(self, term: _core.SaeManifoldTerm, rho: _core.SaeManifoldRho, decrement: float) -> Point:
        """V with the traces that Fellner-Schall steps need, without its gradient, at this inner decrement."""
        tol = max(self.inner_tolerance, decrement / float(np.sqrt(self.n_rows * self.n_outputs)))
        evaluation = term.evaluate(
            rho, tol=tol, max_inner=self.max_inner, gradient=False, traces=True, threads=self.threads
        )
        return self._counted("search", Point(rho, evaluation))

    def _counted(self, stage: str, point: Point) -> Point:
        self.n_evaluations += 1
        if stage == "search":
            self.n_inner += effort_of(point.evaluation.inner)
        self.resolution = RESOLVED * (point.evaluation.standard_error or 0.0)
        value = float(point.evaluation.value)
        if value < self._bar:
            self.stand(point)
        norm = self.scaled_norm(point) if stage == "search" else float("nan")
        if self.progress is not None:
            event = FitProgress(stage, self.n_evaluations, value, norm, self.max_outer)
            if self.progress(event):
                raise Stopped
        return point

    def above_floor(self, point: Point) -> Point:
        """Bound the sparsity strength by what the point's supports allow, and move the point up to it."""
        floor = point.evaluation.term.sparsity_floor(point.rho, *SPARSITY_BOUNDS)
        self.sparsity_floor = SPARSITY_BOUNDS[0] if floor is None else min(floor, self.sparsity_ceiling)
        flat = point.flat
        if flat[0] >= self.sparsity_floor:
            return point
        flat[0] = self.sparsity_floor
        return self.begun(point.evaluation.term, point.rho.from_flat(flat))

    def keep(self, point: Point) -> None:
        """Remember the point when it is the best so far."""
        if np.isfinite(point.evaluation.value) and (
            self.best is None or point.evaluation.value < self.best.evaluation.value
        ):
            self.best = point

    # Ends before the end ---------------------------------------------------------------------------------------------

    def stand(self, point: Point) -> None:
        """Be cut off with this point from now on, until one of lower V is evaluated.

        Called where V begins to count other variables, so that what was lower before is no yardstick.
        """
        if np.isfinite(point.evaluation.value):
            self.standing, self._bar = point, float(point.evaluation.value)

    def so_far(self) -> Point | None:
        """The best state of a finite V that this search has come to, or has from an earlier one."""
        # nobody is asked again
        self.progress = None
        if self.standing is None and self.earlier is not None:
            self.earlier(self)
        return self.standing

    def cut_off(self, end: Stopped | KeyboardInterrupt) -> str:
        """End with the best state so far; returns the status.

        Raises
        ------
        KeyboardInterrupt
            When there is no such state yet.
        ValueError
            When there is none and it was the callback that stopped the fit.
        """
        self.best = self.so_far()
        if self.best is not None:
            return status_of(end)
        if isinstance(end, KeyboardInterrupt):
            raise end
        raise ValueError("the fit was stopped before it had a state with a finite evidence")

    # The search ------------------------------------------------------------------------------------------------------

    def search(self, start: Point, max_iterations: int, box: Box | None = None) -> tuple[Point, str]:
        """Minimise V from an evaluated point, supports held; returns the end and why it ended.

        An infeasible trial is rejected, not given a made-up value: the search goes on from the last accepted point in
        a box that keeps the trial out. A search that is taken up again has a `box`. Where V is estimated, supports are
        refreshed from box to box.
        """
        is_far = not self.gradient_followed and self.scaled_norm(start) > FAR
        if box is None and self.steps_first and (self.steps_only or is_far):
            start, status = self._fixed_point(start, max_iterations)
            if self.steps_only or len(start.evaluation.gradient) == 0:
                return start, status
        if box is None and self.gradient_followed and self.is_enough(start, 0.0):
            return start, "converged"
        here, box = start, box or Box()
        while box.is_allowed:
            try:
                here, status = bfgs.descend(self, here, box, max_iterations)
            except bfgs.InfeasibleTrial as trial:
                here, box = trial.accepted, box.narrowed(trial.step)
                continue
            except bfgs.Spent as end:
                return end.accepted, "iteration_limit"
            if status == "segment" and self.marks is not None:
                here = self.marks.passed(self, here, box)
                if len(here.evaluation.gradient) == 0:
                    return here, "infeasible"
                continue
            if status != "box":
                return here, status
            box = box.next()
            if self.resolution > 0.0:
                here = self._with_supports_that_suit(here)
        return here, "infeasible" if box.keeps_out else "iteration_limit"

    def _with_supports_that_suit(self, point: Point) -> Point:
        """An accepted point after a refresh of its rows, where that changes any.

        Far from its end a search that holds supports follows a V that is about to be left: few rows that move may be
        worth more than all that strengths still bring. The minimiser starts anew here anyway.
        """
        term, changed = point.evaluation.term.refreshed(point.rho, threads=self.threads)
        if changed == 0:
            return point
        following = self.fine(term, point.rho)
        if len(following.evaluation.gradient) == 0:
            return point
        # V counts other variables now
        self.stand(following)
        self.best = following
        return following

    @property
    def steps_first(self) -> bool:
        """Whether a search begins with Fellner-Schall steps.

        They need neither the adjoint solve nor a state that is converged to the end, which are most of what an
        evaluation costs where determinants are estimated.
        """
        return self.resolution > 0.0 if self.outer == "auto" else self.outer != "bfgs"

    @property
    def steps_only(self) -> bool:
        """Whether a search is made of Fellner-Schall steps alone."""
        return self.outer == "efs" or self.settling

    @property
    def settling(self) -> bool:
        """Whether supports are still on their way, which a few steps between refreshes take them far along."""
        return not self.supports_settled and self.resolution > 0.0 and self.steps_first

    @property
    def moving(self) -> float:
        """Nats that V falls by in a round while supports are on their way."""
        return max(self.resolution, MOVING * float(self.n_rows * self.n_outputs))

    @property
    def segment(self) -> int | None:
        """Iterations between two checkpoints, None where a search runs through.

        Weights along the arc are renewed with a state that is read back: those fits write between searches, as all do
        while Fellner-Schall steps are taken.
        """
        if self.marks is None or self.problem.arc_length:
            return None
        return self.marks.every

    def _fixed_point(self, start: Point, max_iterations: int) -> tuple[Point, str]:
        """Fellner-Schall steps, to their end or until another method is better.

        The end has a gradient, unless supports are still on their way or V does not exist there.
        """
        left = max(min(max_iterations, self.max_outer - self.n_iterations), 1)
        # estimates: a step that brings less is not worth a third of an evaluation with its gradient
        least_gain = self.moving if self.resolution > 0.0 else 0.0
        if self.settling:
            return efs.descend(self, start, left, float(np.sqrt(2.0 * self.moving)), least_gain=least_gain)
        if self.outer == "efs":
            end, status = efs.descend(self, start, left, self.gradient_bound, least_gain=-np.inf)
        else:
            end, status = efs.descend(self, start, min(left, efs.FIRST_STEPS), efs.CLOSE, least_gain=least_gain)
        if len(end.evaluation.gradient) > 0:
            return end, status
        following = self.fine(end.evaluation.term, end.rho)
        # a state that is on its way to where V does not exist may pass a loose tolerance and not the fine one
        return (following, status) if len(following.evaluation.gradient) > 0 else (end, "infeasible")

    def is_enough(self, point: Point, gain: float = np.inf) -> bool:
        """Whether nothing is left that an estimated V can tell, at a point that an iteration has gained `gain` nats by.

        The minimiser's own test asks for entries of the gradient that are all as small as their root mean square may
        be; where V is exact, and another evaluation cheap, that is what ends a search. In the units of a diagonal
        Hessian the gradient of a thousand atoms promises several times what is left: once it promises less than the
        standard error, iterations are believed that bring less than what V can tell. A search that follows
        another, after a refresh, is not begun where the gradient promises no more than the standard error.
        """
        if self.resolution == 0.0:
            return False
        norm = self.scaled_norm(point)
        spent = gain < self.resolution and RESOLVED * 0.5 * norm**2 <= self.resolution
        return norm <= self.gradient_bound or spent
