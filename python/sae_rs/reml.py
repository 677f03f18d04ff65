"""The outer loop: strengths by marginal likelihood.

The compiled core returns V(ρ) with its exact gradient at converged inner variables; here `scipy.optimize` moves ρ. What
is particular to the problem is stated once each:

* **Scale.** V's curvature in ln φ is about np/2 and in ln λ_k about p·rank(S_k)/2, thousands of times that in other
  entries, so ρ is searched in units in which that curvature is one.
* **Warm starts.** A trial starts from the inner state of the last accepted ρ, never from that of a rejected trial.
* **Supports.** Which atoms a row uses is held during one search, where V is smooth, and refreshed after it; the search
  is repeated until a refresh changes nothing.
* **Honesty.** A search that ends elsewhere than at a small projected gradient returns its best state and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from . import _core
from .atoms import Atom
from .gates import Gate

FloatArray = NDArray[np.float64]

# V has local optima in the sparsity strength: the search starts from the best of these.
SPARSITY_STARTS = (4.0, 2.0, 0.0)
# Strengths outside are the same model to rounding: e^12 times the noise pins what it penalises, e^-30 frees it.
SMOOTH_BOUNDS = (-30.0, 30.0)
SPARSITY_BOUNDS = (-6.0, 12.0)
ARD_BOUNDS = (-12.0, 12.0)
# The noise level stays within these factors (logarithms) of the data's mean column variance.
DISPERSION_BOUNDS = (-60.0, 2.0)
# Inner tolerances: while choosing among starts, and while following the gradient.
COARSE_TOL = 1e-3
FINE_TOL = 1e-9
# With more rows than this a sample of the next size is fitted first: it finds the atoms and their strengths, and what
# is left for all rows is a few evaluations.
SAMPLE_ABOVE = 16384
SAMPLE_ROWS = 4096
# Inner iterations that a seed gets before the best one goes on, and that a weaker sparsity gets to look better.
COARSE_INNER = 15
GLANCE_INNER = 5
# Outer iterations that each start gets before the best goes on.
GLANCE_OUTER = 3
# A start is given up when its V is behind by this many nats an entry of the data: the noise level would have to be off by
# half to explain it.
HOPELESS = 0.1
# Half-width of the box in ρ that one run of the minimiser may cross: a factor of 20 in any strength.
BOX = 3.0
# Boxes of one search; an infeasible trial quarters the box.
MAX_BOXES = 12
# Evaluations allowed for each outer iteration, over the whole fit.
EVALUATIONS_PER_ITERATION = 2
# Evaluations of one line search; a smooth V needs two or three, and where an inner optimum vanishes no number helps.
MAX_LINE_SEARCH = 8
# A search has stalled when an iteration lowers V by less than this part of the tolerance.
STALLED = 1e-2
# Searches with a refresh of the supports after each; more than a few mean that rows keep changing places.
MAX_ROUNDS = 8


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


@dataclass(frozen=True)
class Certificate:
    """What is known about the end of a fit.

    Attributes
    ----------
    converged : bool
        Whether every test was passed: inner decrement, adjoint solve, projected gradient, and supports that a refresh
        leaves as they are.
    status : str
        "converged", or why not: "iteration_limit", "line_search", "inner_<status>", "adjoint", "supports", "stopped".
    gradient_norm : float
        Largest entry of the projected gradient |∂V/∂ρ|.
    scaled_gradient : float
        sqrt(Σ g_j²/c_j) with c_j the curvature scale of entry j: half its square is about the descent in nats left.
    inner_decrement : float
        Newton decrement of the inner solve, in nats^½.
    n_evaluations : int
        Evaluations of V in all.
    n_rounds : int
        Searches, each followed by a refresh of the supports.
    support_changes : int
        Rows that the last refresh changed.
    at_bounds : tuple of str
        Entries of ρ that ended at a bound, such as "log_lambda_sparse" at the least sparsity that the supports allow.
    log_det : str
        How log-determinants were computed.
    elimination : str
        Which variables were eliminated first.
    """

    converged: bool
    status: str
    gradient_norm: float
    scaled_gradient: float
    inner_decrement: float
    n_evaluations: int
    n_rounds: int
    support_changes: int
    at_bounds: tuple[str, ...]
    log_det: str
    elimination: str


@dataclass(frozen=True, eq=False)
class FitResult:
    """The best state of a fit; `term` is None for the mean-only model."""

    term: _core.SaeManifoldTerm | None
    rho: _core.SaeManifoldRho
    value: float
    gradient: FloatArray
    parts: dict[str, float]
    converged: bool
    status: str
    certificate: Certificate


class _Stopped(Exception):
    """The listener asked for an end."""


class _InfeasibleTrial(Exception):
    """A trial ρ has no V; carries where the search stood and how far the trial was from there."""

    def __init__(self, accepted: _Point, step: float) -> None:
        super().__init__(step)
        self.accepted, self.step = accepted, step


@dataclass(frozen=True, eq=False)
class _Point:
    """An evaluated ρ."""

    rho: _core.SaeManifoldRho
    evaluation: _core.Evaluation

    @property
    def flat(self) -> FloatArray:
        return np.asarray(self.rho.to_flat())


@dataclass(frozen=True, eq=False)
class _Problem:
    """What is fitted: rows, atoms, gate and weights."""

    X: FloatArray
    atoms: Sequence[Atom]
    gate: Gate
    weights: FloatArray | None
    center: bool

    def seeds(
        self, n_init: int, random_state: int, threads: int | None
    ) -> list[tuple[_core.SaeManifoldTerm, _core.SaeManifoldRho]]:
        return _core.SaeManifoldTerm.seeds(
            self.X,
            [atom.spec() for atom in self.atoms],
            self.gate.spec(len(self.atoms)),
            weights=self.weights,
            center=self.center,
            n_init=n_init,
            random_state=random_state,
            threads=threads,
        )

    def sample(self, size: int, random_state: int) -> _Problem:
        """Some of the rows, drawn in the order of their length, so that the draw follows the data when rows move."""
        lengths = np.concatenate([np.square(self.X[i : i + 4096] - self.mean).sum(axis=1) for i in _blocks(self.X)])
        order = np.argsort(lengths, kind="stable")
        rows = order[np.sort(np.random.default_rng(random_state).choice(len(order), size, replace=False))]
        weights = None if self.weights is None else self.weights[rows]
        return _Problem(self.X[rows], self.atoms, self.gate, weights, self.center)

    @property
    def mean(self) -> FloatArray:
        return self.X.mean(axis=0)

    def encoded(
        self, term: _core.SaeManifoldTerm, rho: _core.SaeManifoldRho, threads: int | None
    ) -> _core.SaeManifoldTerm:
        """All rows, encoded by the decoders of a term that has seen some of them."""
        specs, gate = [atom.spec() for atom in self.atoms], self.gate.spec(len(self.atoms))
        _, coords, logits, support, _, _ = _core.encode_rows(
            self.X, term.mean, specs, gate, term.decoders, rho, threads=threads
        )
        return _core.SaeManifoldTerm(
            self.X,
            specs,
            gate,
            logits,
            coords,
            term.decoders,
            support=support,
            weights=self.weights,
            center=self.center,
        )


def _blocks(X: FloatArray) -> range:
    """Starts of blocks of 4096 rows: passes over the rows make no copy of them all."""
    return range(0, len(X), 4096)


class _Fit:
    """One fit: the evaluations of V with their bookkeeping, and the best point so far."""

    def __init__(
        self,
        problem: _Problem,
        *,
        max_outer: int,
        max_inner: int,
        tol: float,
        threads: int | None,
        progress: Callable[[FitProgress], object] | None,
    ) -> None:
        self.problem = problem
        self.n_rows, self.n_outputs = problem.X.shape
        self.ranks = [int(np.linalg.matrix_rank(atom.roughness())) for atom in problem.atoms]
        self.variance = _column_variance(problem.X)
        self.max_outer, self.max_inner, self.tol = max_outer, max_inner, tol
        self.threads, self.progress = threads, progress
        self.n_evaluations = 0
        self.n_iterations = 0
        self.n_rounds = 0
        self.support_changes = 0
        self.sparsity_floor = SPARSITY_BOUNDS[0]
        self.best: _Point | None = None

    def on(self, problem: _Problem) -> _Fit:
        """A fit of another problem with the same settings."""
        return _Fit(
            problem,
            max_outer=self.max_outer,
            max_inner=self.max_inner,
            tol=self.tol,
            threads=self.threads,
            progress=self.progress,
        )

    # Units and limits of the search ----------------------------------------------------------------------------------

    def curvature(self, size: int) -> FloatArray:
        """Typical curvature of V in each of the `size` entries of ρ, in nats."""
        smooth = [0.5 * self.n_outputs * rank for rank in self.ranks]
        n_ard = size - 2 - len(smooth)
        # all rows share one sparsity strength, but each says little about it
        return np.array([0.1 * self.n_rows, *smooth, *[0.5 * self.n_rows] * n_ard, 0.5 * self.n_rows * self.n_outputs])

    def bounds(self, size: int) -> tuple[FloatArray, FloatArray]:
        n_ard = size - 2 - len(self.ranks)
        level = float(np.log(self.variance))
        pairs = [
            (self.sparsity_floor, SPARSITY_BOUNDS[1]),
            *[SMOOTH_BOUNDS] * len(self.ranks),
            *[ARD_BOUNDS] * n_ard,
            (level + DISPERSION_BOUNDS[0], level + DISPERSION_BOUNDS[1]),
        ]
        lower, upper = np.array(pairs).T
        return lower, upper

    def projected_gradient(self, point: _Point) -> FloatArray:
        """∂V/∂ρ without the entries that push against a bound."""
        gradient, flat = np.asarray(point.evaluation.gradient), point.flat
        lower, upper = self.bounds(len(flat))
        held = ((flat <= lower) & (gradient > 0.0)) | ((flat >= upper) & (gradient < 0.0))
        return np.where(held, 0.0, gradient)

    def at_bounds(self, point: _Point) -> tuple[str, ...]:
        """Names of the entries of ρ that lie on a bound and would go further."""
        flat = point.flat
        lower, upper = self.bounds(len(flat))
        n_ard = len(flat) - 2 - len(self.ranks)
        names = ["log_lambda_sparse", *[f"log_lambda_smooth[{k}]" for k in range(len(self.ranks))]]
        names += [f"log_ard[{j}]" for j in range(n_ard)] + ["log_dispersion"]
        held = (flat <= lower) | (flat >= upper)
        return tuple(name for name, at in zip(names, held, strict=True) if at)

    def scaled_norm(self, point: _Point) -> float:
        """sqrt(Σ g_j²/c_j) of the projected gradient; infinite without a gradient."""
        if len(point.evaluation.gradient) != len(point.flat):
            return float("inf")
        return float(np.sqrt(np.sum(self.projected_gradient(point) ** 2 / self.curvature(len(point.flat)))))

    @property
    def gradient_bound(self) -> float:
        """Scaled gradient norm at which about `tol` nats of descent are left."""
        return float(np.sqrt(2.0 * self.tol))

    # Evaluations -----------------------------------------------------------------------------------------------------

    def settled(self, term: _core.SaeManifoldTerm, rho: _core.SaeManifoldRho, max_inner: int) -> _Point:
        """A loosely converged V whose supports suit ρ."""
        term, _ = term.refreshed(rho, threads=self.threads)
        point = self.coarse(term, rho, max_inner)
        term, changed = point.evaluation.term.refreshed(rho, threads=self.threads)
        return self.coarse(term, rho, max_inner) if changed else point

    def coarse(self, term: _core.SaeManifoldTerm, rho: _core.SaeManifoldRho, max_inner: int) -> _Point:
        """A loosely converged V, to compare starts."""
        inner = min(max_inner, self.max_inner)
        evaluation = term.evaluate(rho, tol=COARSE_TOL, max_inner=inner, gradient=False, threads=self.threads)
        return self._counted("start", _Point(rho, evaluation))

    def fine(self, term: _core.SaeManifoldTerm, rho: _core.SaeManifoldRho) -> _Point:
        """V with its gradient."""
        evaluation = term.evaluate(rho, tol=FINE_TOL, max_inner=self.max_inner, threads=self.threads)
        point = _Point(rho, evaluation)
        return self._counted("search", point)

    def _counted(self, stage: str, point: _Point) -> _Point:
        self.n_evaluations += 1
        value = float(point.evaluation.value)
        norm = self.scaled_norm(point) if stage == "search" else float("nan")
        if self.progress is not None:
            event = FitProgress(stage, self.n_evaluations, value, norm, self.max_outer)
            if self.progress(event) is True:
                self.keep(point)
                raise _Stopped
        return point

    def above_floor(self, point: _Point) -> _Point:
        """Bound the sparsity strength by what the point's supports allow, and move the point up to it."""
        floor = point.evaluation.term.sparsity_floor(point.rho, *SPARSITY_BOUNDS)
        self.sparsity_floor = SPARSITY_BOUNDS[0] if floor is None else floor
        flat = point.flat
        if flat[0] >= self.sparsity_floor:
            return point
        flat[0] = self.sparsity_floor
        return self.fine(point.evaluation.term, point.rho.from_flat(flat))

    def keep(self, point: _Point) -> None:
        """Remember the point when it is the best so far."""
        if np.isfinite(point.evaluation.value) and (
            self.best is None or point.evaluation.value < self.best.evaluation.value
        ):
            self.best = point

    # The search ------------------------------------------------------------------------------------------------------

    def search(self, start: _Point, max_iterations: int) -> tuple[_Point, str]:
        """Minimise V from an evaluated point, supports held; returns the end and why it ended.

        The search runs in boxes, each around the end of the last, since a first step says little about a distant ρ. An
        infeasible trial is rejected, not given a made-up value: the search goes on from the last accepted point in a box
        that keeps the trial out.
        """
        here, width = start, BOX
        for _ in range(MAX_BOXES):
            try:
                here, status = self._minimise(here, width, max_iterations)
            except _InfeasibleTrial as trial:
                here, width = trial.accepted, 0.25 * trial.step
                continue
            if status != "box":
                return here, status
        return here, "infeasible" if width < BOX else "iteration_limit"

    def _minimise(self, start: _Point, width: float, max_iterations: int) -> tuple[_Point, str]:
        flat, curvature = start.flat, self.curvature(len(start.flat))
        lower, upper = self.bounds(len(flat))
        lower, upper = np.maximum(lower, flat - width), np.minimum(upper, flat + width)
        # In units x = ρ sqrt(c/σ) the objective V/σ has a Hessian near one, and with σ the largest curvature a first
        # step of length one, which is what the minimiser tries, moves ρ by about one.
        sigma = float(np.max(curvature))
        unit = np.sqrt(curvature / sigma)
        accepted = start
        trials: dict[bytes, _Point] = {(flat * unit).tobytes(): start}

        def objective(x: FloatArray) -> tuple[float, FloatArray]:
            point = trials.get(x.tobytes())
            if point is None:
                rho = start.rho.from_flat(np.clip(x / unit, lower, upper))
                point = self.fine(accepted.evaluation.term, rho)
                if len(point.evaluation.gradient) != len(flat):
                    raise _InfeasibleTrial(accepted, float(np.max(np.abs(point.flat - accepted.flat))))
                # the minimiser ends a line search at its best trial; two are enough to have it at hand
                while len(trials) > 2:
                    del trials[max(trials, key=lambda key: float(trials[key].evaluation.value))]
                trials[x.tobytes()] = point
            evaluation = point.evaluation
            return float(evaluation.value) / sigma, np.asarray(evaluation.gradient) / (unit * sigma)

        def on_iteration(x: FloatArray) -> None:
            nonlocal accepted, trials
            accepted = trials[x.tobytes()]
            trials = {x.tobytes(): accepted}
            self.keep(accepted)
            self.n_iterations += 1

        result = minimize(
            objective,
            flat * unit,
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(lower * unit, upper * unit, strict=True)),
            callback=on_iteration,
            options={
                "maxiter": max(min(max_iterations, self.max_outer - self.n_iterations), 1),
                "maxfun": max(EVALUATIONS_PER_ITERATION * self.max_outer - self.n_evaluations, 1),
                # the projected gradient decides; this only ends a search that no longer gets anywhere
                "maxls": MAX_LINE_SEARCH,
                "ftol": STALLED * self.tol / max(abs(float(start.evaluation.value)), sigma),
                "gtol": self.gradient_bound / np.sqrt(sigma * len(flat)),
            },
        )
        if self.scaled_norm(accepted) <= self.gradient_bound:
            return accepted, "converged"
        outer_lower, outer_upper = self.bounds(len(flat))
        end = accepted.flat
        at_box = ((end <= lower) & (lower > outer_lower)) | ((end >= upper) & (upper < outer_upper))
        if np.any(at_box) and width == BOX:
            return accepted, "box"
        return accepted, "iteration_limit" if result.status == 1 else "line_search"


def fit_dictionary(
    X: FloatArray,
    atoms: Sequence[Atom],
    gate: Gate,
    *,
    weights: FloatArray | None = None,
    rho: _core.SaeManifoldRho | None = None,
    n_init: int = 4,
    max_outer: int = 100,
    max_inner: int = 200,
    tol: float = 1e-6,
    center: bool = True,
    random_state: int = 0,
    threads: int | None = None,
    progress: Callable[[FitProgress], object] | None = None,
) -> FitResult:
    """Fit decoders, gates, coordinates and strengths to rows.

    Parameters
    ----------
    X : ndarray of shape (n, p), float64, C order
        Rows; checked by the caller.
    atoms : sequence of K Atom
        K = 0 gives the mean-only model.
    weights : ndarray of shape (n,), optional
    rho : SaeManifoldRho, optional
        Where the search starts; from the seeds when None.
    tol : float
        The search has converged when about this many nats of descent are left.
    progress : callable, optional
        Called after each evaluation; returning True stops the fit with its best state.

    Returns
    -------
    FitResult
        Always the best state found; `converged` says whether it passed every test.
    """
    if not atoms:
        return _mean_only(X, weights, center)
    problem = _Problem(X, atoms, gate, weights, center)
    fit = _Fit(problem, max_outer=max_outer, max_inner=max_inner, tol=tol, threads=threads, progress=progress)
    try:
        status = _refine(fit, _begin(fit, rho, n_init, random_state))
    except _Stopped:
        status = "stopped"
    return _result(fit, status)


def _begin(fit: _Fit, rho: _core.SaeManifoldRho | None, n_init: int, random_state: int) -> _Point:
    """A first point, loosely converged; of many rows a sample finds it, and its decoders encode the others."""
    problem = fit.problem
    if len(problem.X) <= SAMPLE_ABOVE:
        return _start(fit, problem.seeds(n_init, random_state, fit.threads), rho)
    sample = fit.on(problem.sample(SAMPLE_ROWS, random_state))
    stopped = False
    try:
        _refine(sample, _start(sample, sample.problem.seeds(n_init, random_state, fit.threads), rho))
    except _Stopped:
        stopped = True
    best = sample.best
    if best is None:
        raise _Stopped
    fit.n_evaluations = sample.n_evaluations
    term = problem.encoded(best.evaluation.term, best.rho, fit.threads)
    if stopped:
        # the sample's end, seen on all rows: nobody is asked again
        fit.progress = None
        fit.keep(fit.coarse(term, best.rho, COARSE_INNER))
        raise _Stopped
    return fit.coarse(term, best.rho, COARSE_INNER)


def _refine(fit: _Fit, point: _Point) -> str:
    """Search and refresh until nothing changes; returns the status."""
    if not np.isfinite(point.evaluation.value):
        fit.best = point
        return "infeasible"
    point = fit.fine(point.evaluation.term, point.rho)
    while True:
        point = fit.above_floor(point)
        fit.keep(point)
        if len(point.evaluation.gradient) == 0:
            return "infeasible"
        point, status = fit.search(point, fit.max_outer)
        fit.n_rounds += 1
        term, fit.support_changes = point.evaluation.term.refreshed(point.rho, threads=fit.threads)
        if fit.support_changes == 0:
            return status
        if status == "iteration_limit" or fit.n_rounds == MAX_ROUNDS:
            return status if status != "converged" else "supports"
        # V counts other variables now: what was best under the old supports is no yardstick
        point = fit.fine(term, point.rho)
        fit.best = None


def _start(
    fit: _Fit, seeds: list[tuple[_core.SaeManifoldTerm, _core.SaeManifoldRho]], rho: _core.SaeManifoldRho | None
) -> _Point:
    """The best of the seeds, each converged loosely at strengths that suit it, then of the sparsity strengths."""
    if rho is not None:
        return min((fit.settled(term, rho, COARSE_INNER) for term, _ in seeds), key=_value)
    if seeds[0][0].n_atoms == 1:
        return min((fit.coarse(term, own, COARSE_INNER) for term, own in seeds), key=_value)
    # seeds are hard clusterings: they are compared where gates are sparse, which is also where rows are cheapest
    sparsest, *others = SPARSITY_STARTS
    found = [fit.settled(term, _with_sparsity(own, sparsest), COARSE_INNER) for term, own in seeds]
    tried = [_promising(fit, sorted(found, key=_value))]
    for log_sparse in others:
        best = tried[0]
        tried.append(fit.settled(best.evaluation.term, _with_sparsity(best.rho, log_sparse), GLANCE_INNER))
    return min(tried, key=_value)


def _promising(fit: _Fit, found: list[_Point]) -> _Point:
    """The best of some starts after a few steps of the search, since a start's own strengths say little about it.

    A start that lies so far behind that no strengths bring it back gets none.
    """
    hopeless = HOPELESS * fit.n_rows * fit.n_outputs
    best: _Point | None = None
    for start in found:
        if best is not None and not _value(start) < _value(best) + hopeless:
            continue
        point = fit.above_floor(fit.fine(start.evaluation.term, start.rho)) if len(found) > 1 else start
        if len(point.evaluation.gradient):
            point, _ = fit.search(point, GLANCE_OUTER)
        if best is None or _value(point) < _value(best):
            best = point
    assert best is not None
    fit.best, fit.n_iterations = None, 0
    return best


def _value(point: _Point) -> float:
    return float(point.evaluation.value)


def _with_sparsity(rho: _core.SaeManifoldRho, log_sparse: float) -> _core.SaeManifoldRho:
    flat = np.array(rho.to_flat())
    flat[0] = log_sparse
    return rho.from_flat(flat)


def _result(fit: _Fit, status: str) -> FitResult:
    point = fit.best
    if point is None:
        raise ValueError("the fit was stopped before its first evaluation")
    evaluation = point.evaluation
    inner = evaluation.inner
    scaled = fit.scaled_norm(point)
    if status == "converged":
        if inner.status not in ("converged", "rounding_limit"):
            status = f"inner_{inner.status}"
        elif not evaluation.gradient_exact:
            status = "adjoint"
    gradient = np.asarray(evaluation.gradient)
    has_gradient = len(gradient) == len(point.flat)
    certificate = Certificate(
        converged=status == "converged",
        status=status,
        gradient_norm=float(np.max(np.abs(fit.projected_gradient(point)))) if has_gradient else float("inf"),
        scaled_gradient=scaled,
        inner_decrement=float(inner.decrement),
        n_evaluations=fit.n_evaluations,
        n_rounds=fit.n_rounds,
        support_changes=fit.support_changes,
        at_bounds=fit.at_bounds(point),
        log_det="exact",
        elimination=evaluation.elimination,
    )
    return FitResult(
        term=evaluation.term,
        rho=point.rho,
        value=float(evaluation.value),
        gradient=gradient,
        parts=dict(evaluation.parts),
        converged=certificate.converged,
        status=status,
        certificate=certificate,
    )


def _column_variance(X: FloatArray) -> float:
    """Mean variance of the columns, in one pass over chunks of rows."""
    mean = X.mean(axis=0)
    total = sum(float(np.square(X[i : i + 4096] - mean).sum()) for i in _blocks(X))
    return total / X.size


def _mean_only(X: FloatArray, weights: FloatArray | None, center: bool) -> FitResult:
    """The model without atoms: every entry N(mean, φ), φ at its maximum likelihood."""
    n, p = X.shape
    mean = X.mean(axis=0) if center else np.zeros(p)
    w = np.ones(n) if weights is None else weights / np.mean(weights)
    phi = sum(float(w[i : i + 4096] @ np.square(X[i : i + 4096] - mean).sum(axis=1)) for i in _blocks(X)) / X.size
    value = 0.5 * n * p * (np.log(2.0 * np.pi * phi) + 1.0)
    certificate = Certificate(True, "converged", 0.0, 0.0, 0.0, 1, 0, 0, (), "exact", "none")
    rho = _core.SaeManifoldRho(0.0, [], [], "per_atom", float(np.log(phi)))
    return FitResult(None, rho, value, np.zeros(2), {"data_fit": value}, True, "converged", certificate)
