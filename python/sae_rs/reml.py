"""The outer loop: strengths by marginal likelihood.

The compiled core returns V(ρ) with its exact gradient at converged inner variables; here `scipy.optimize` moves ρ. What
is particular to the problem is stated once each:

* **Scale.** V's curvature in ln φ is about np/2 and in ln λ_k about p·rank(S_k)/2, thousands of times that in other
  entries, so ρ is searched in units in which that curvature is one.
* **Warm starts.** A trial starts from the inner state of the last accepted ρ, never from that of a rejected trial.
* **Supports.** Which atoms a row uses is held during one search, where V is smooth, and refreshed after it; the search
  is repeated until a refresh changes nothing, or leads away only to come back.
* **Honesty.** A search that ends elsewhere than at a small projected gradient returns its best state and says so.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from . import _core
from .checkpoints import Checkpoints, Saved
from .gates import Gate
from .memory import SAMPLE_ABOVE, SAMPLE_ROWS, is_crowded, plan_rows, refuse_over, sample_scale
from .metrics import whitened_squares
from .problem import Problem
from .rows import FileRows, blocks, column_mean
from .search import FitProgress, Point, Search
from .starts import COARSE_INNER, annealed, in_frames, value_at
from .stopping import EARLY_ENDS, say_rows_follow

__all__ = ["Certificate", "FitProgress", "FitResult", "fit_dictionary"]

FloatArray = NDArray[np.float64]

# Two evaluations at the same strengths whose V agrees to so many nats, with the same supports, are of the same state.
SAME_V = 1e-4


@dataclass(frozen=True)
class Certificate:
    """What is known about the end of a fit.

    Attributes
    ----------
    converged : bool
        Whether every test was passed: inner decrement, adjoint solve, projected gradient, and supports that a refresh
        leaves as they are, or from which refreshes lead back to them by way of higher evidences only.
    status : str
        "converged", or why not: "iteration_limit", "line_search", "inner_<status>", "adjoint", "supports",
        "infeasible", "stopped" (by the callback), "interrupted" (by Ctrl-C). With ``outer="efs"`` a search has
        converged where its steps end, which is near a zero of the gradient, not at it; with an estimated V also where
        the gradient promises less than its standard error and an iteration brings less than a tenth of that.
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
        Rows that the last refresh changed; not zero in a fit that has converged where a refresh, which judges every row
        by itself, would have them in a state of higher V, from which further refreshes lead back.
    at_bounds : tuple of str
        Entries of ρ that ended at a bound, such as "log_lambda_sparse" at the least sparsity that the supports allow.
    log_det : str
        How log-determinants were computed: "exact", or "stochastic" where the Schur complement is too large to form.
    standard_error : float or None
        Of V in nats, where a log-determinant was estimated.
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
    standard_error: float | None = None


@dataclass(frozen=True, eq=False)
class FitResult:
    """The best state of a fit; `term` is None for the mean-only model."""

    term: _core.SaeManifoldTerm | None
    rho: _core.SaeManifoldRho
    value: float
    gradient: FloatArray
    parts: dict[str, float]
    # per atom, what is left to the data of its p·rank(S_k) rough directions; None when no gradient was taken
    edf: FloatArray | None
    converged: bool
    status: str
    certificate: Certificate

    def cut_off(self, status: str) -> FitResult:
        """The same state as the end of a fit that was left before its end."""
        certificate = replace(self.certificate, converged=False, status=status)
        return replace(self, converged=False, status=status, certificate=certificate)


def fit_dictionary(
    fit: Search,
    gate: Gate,
    rho: _core.SaeManifoldRho | None,
    n_init: int,
    random_state: int,
    marks: Checkpoints | None,
) -> FitResult:
    """Fit decoders, gates, coordinates and strengths to rows.

    Parameters
    ----------
    fit : Search
        The problem, of at least one atom, and the settings of its search.
    gate : Gate
        Its gate with the schedule that its temperature goes through.
    rho : SaeManifoldRho or None
        Where the search starts; from the seeds when None.
    n_init, random_state : int
        Seeds that are tried, and what they are drawn from.
    marks : Checkpoints or None
        Where the fit writes where it stands, and goes on from.

    Returns
    -------
    FitResult
        Always the best state found; `converged` says whether it passed every test. Ctrl-C ends a fit as the listener
        of the search does.

    Raises
    ------
    KeyboardInterrupt
        At a Ctrl-C before there is a state with a finite evidence, and at a second one.
    """
    try:
        saved = None if marks is None else marks.resumed
        if saved is not None and saved.stage == "whole":
            status = refine(fit, None, marks)
        else:
            status = refine(fit, begin(fit, gate, rho, n_init, random_state, marks), marks)
    except EARLY_ENDS as end:
        status = fit.cut_off(end)
    return result_of(fit, status)


def begin(
    fit: Search,
    gate: Gate,
    rho: _core.SaeManifoldRho | None,
    n_init: int,
    random_state: int,
    marks: Checkpoints | None = None,
) -> Point:
    """A first point, loosely converged; of many rows a sample finds it, and its decoders encode the others."""
    problem = fit.problem
    scale = sample_scale(len(problem.atoms))
    drawn = (
        problem.sample(scale * SAMPLE_ROWS, random_state)
        if len(problem.X) > scale * SAMPLE_ABOVE and problem.gate.routing is None
        else None
    )
    if drawn is None:
        start = annealed(fit, gate, rho, n_init, random_state)
        if is_crowded(fit.n_outputs, problem.atoms, problem.gate):
            fit.problem = _planned(problem, start.evaluation.term)
            if fit.problem.keep_rows != problem.keep_rows:
                term = start.evaluation.term
                held = fit.problem.at_state(term.logits, term.coords, term.decoders, term.support)
                start = fit.coarse(held, start.rho, COARSE_INNER)
        return in_frames(fit, start)
    sample = fit.on(drawn)
    sample.stage = "sample"
    fit.earlier = partial(_from_sample, sample)
    saved = None if marks is None else marks.resumed
    if saved is not None and saved.stage == "sample":
        refine(sample, None, marks)
    else:
        refine(sample, in_frames(sample, annealed(sample, gate, rho, n_init, random_state)), marks)
    assert sample.best is not None
    return _on_all_rows(fit, sample, sample.best, COARSE_INNER)


def _from_sample(sample: Search, fit: Search) -> None:
    """What a sample that was cut off had come to, seen on all rows as they are encoded: somebody waits for it."""
    best = sample.so_far()
    if best is not None:
        say_rows_follow(len(fit.problem.X))
        _on_all_rows(fit, sample, best, 0)


def _on_all_rows(fit: Search, sample: Search, end: Point, max_inner: int) -> Point:
    """All rows encoded by the decoders of a point of a sample, and so many inner iterations."""
    term = end.evaluation.term
    fit.n_evaluations, fit.n_inner = sample.n_evaluations, sample.n_inner
    fit.problem = _planned(fit.problem, term)
    encoded = fit.problem.encoded(term, end.rho, fit.threads)
    return fit.coarse(encoded.with_decoder_ranks(term.decoder_ranks), end.rho, max_inner)


def _planned(problem: Problem, term: _core.SaeManifoldTerm) -> Problem:
    """The problem of all rows with its memory planned anew: a term of a sample shows how many atoms a row uses."""
    if problem.memory_budget is None:
        return problem
    n_rows, n_columns = problem.X.shape
    uses = np.asarray(term.support).sum(axis=1)
    plan = plan_rows(
        n_rows,
        n_columns,
        problem.atoms,
        problem.gate,
        active=float(uses.mean()),
        tied=bool((uses > 1).any()),
        copies=0 if isinstance(problem.X, FileRows) else 1,
        budget=problem.memory_budget,
        evidence=problem.evidence,
    )
    refuse_over(problem.memory_budget, plan, n_rows, n_columns, len(problem.atoms))
    return replace(problem, keep_rows=plan.keep_rows)


def refine(fit: Search, point: Point | None, marks: Checkpoints | None = None) -> str:
    """Search and refresh until nothing changes, from a point or, without one, from where it was saved.

    Returns the status.
    """
    # what is searched before, to compare starts, leaves no checkpoints
    fit.marks = marks
    saved: Saved | None = None
    if point is None:
        assert marks is not None
        assert marks.resumed is not None
        saved = marks.resumed
        point = saved.restored(fit)
    else:
        if not np.isfinite(point.evaluation.value):
            fit.best = point
            return "infeasible"
        # what is returned where no gradient exists
        loose, point = point, fit.begun(point.evaluation.term, point.rho)
        fit.stand(point)
        if not np.isfinite(point.evaluation.value):
            fit.best = loose
            return "infeasible"
        # of many rows a state is large: none is held for longer than it may be wanted
        del loose
    while True:
        if saved is not None and saved.box is not None:
            point, status = fit.search(point, fit.max_outer, saved.box)
        else:
            if marks is not None and saved is None:
                point = marks.passed(fit, point, None)
            start, point = point, fit.above_floor(point)
            fit.stand(point)
            fit.keep(point)
            if not point.is_led_on:
                fit.best = start if fit.best is None else fit.best
                return "infeasible"
            del start
            point, status = fit.search(point, fit.max_outer)
        saved = None
        fit.n_rounds += 1
        term, fit.support_changes = point.evaluation.term.refreshed(point.rho, threads=fit.threads)
        if fit.is_spent and status == "converged" and (fit.settling or fit.support_changes > 0):
            status = "iteration_limit"
        if fit.settling and not fit.is_spent:
            point = _moved_on(fit, point, term)
            continue
        fit.gradient_followed = int(not fit.steps_only)
        if fit.support_changes == 0:
            # what was judged is what is returned
            fit.best = point
            return status
        if fit.is_spent or status == "iteration_limit" or fit.n_rounds == fit.max_rounds:
            return status if status != "converged" else "supports"
        if status == "inner_iteration_limit" or (status == "line_search" and not point.is_inner_optimum):
            # where inner solves are cut off V is no function of ρ, and another search fails in the same way
            return status
        point, ended = _resettled(fit, point, term)
        if ended is not None:
            fit.best = point
            return status if ended == "as it was" else ended
        del term
        # V counts other variables now: what was best under the old supports is no yardstick
        fit.best = None


def _moved_on(fit: Search, point: Point, term: _core.SaeManifoldTerm) -> Point:
    """Where to search next, while supports are on their way: after a refresh, loosely converged.

    Where a refresh brings nothing that counts, they have arrived, and the point itself is the place.
    """
    if fit.support_changes > 0 and fit.n_iterations < fit.max_outer and 2 * fit.n_rounds < fit.max_rounds:
        following = fit.begun(term, point.rho)
        gain = value_at(point) - value_at(following)
        if gain > fit.moving:
            fit.stand(following)
            fit.best = None
            return following
    fit.supports_settled = 1
    return point


def _resettled(fit: Search, point: Point, term: _core.SaeManifoldTerm) -> tuple[Point, str | None]:
    """Refresh a searched point's rows until none moves, at its strengths: rows that move bend the decoders, which moves
    more rows.

    A refresh judges rows one by one, V all of them with their decoders. Where the two disagree about a row, refreshes
    lead back to supports that they came from; then the point of least V is the end, and "as it was" when that is the
    one that was searched.

    Returns
    -------
    point : Point
        Where to search next, or the end.
    ended : str or None
        None when there is more to search.
    """
    searched = lowest = point
    seen = [(_supports(point), value_at(point))]
    for _ in range(fit.max_refreshes):
        if fit.is_spent:
            break
        settled, point = point, fit.fine(term, point.rho)
        fit.stand(point)
        value = value_at(point)
        if not np.isfinite(value):
            return settled, "infeasible"
        del settled
        same = max(SAME_V, fit.resolution)
        if value < value_at(lowest) - same:
            lowest = point
        supports = _supports(point)
        if any(known == supports and abs(value - other) <= same for known, other in seen):
            return lowest, "as it was" if lowest is searched else None
        seen.append((supports, value))
        term, changed = point.evaluation.term.refreshed(point.rho, threads=fit.threads)
        if changed == 0:
            break
    return point, None


def _supports(point: Point) -> bytes:
    """What tells the supports of a point's rows from others."""
    bits = np.packbits(np.asarray(point.evaluation.term.support))
    return hashlib.blake2b(bits.tobytes(), digest_size=16).digest()


def result_of(fit: Search, status: str) -> FitResult:
    """What a search has come to, with the certificate of its end."""
    point = fit.best
    assert point is not None
    evaluation = point.evaluation
    inner = evaluation.inner
    scaled = fit.scaled_norm(point)
    if status in ("converged", "line_search", "iteration_limit") and not point.is_inner_optimum:
        status = f"inner_{inner.status}"
    elif status == "converged" and not evaluation.gradient_exact:
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
        log_det="exact" if evaluation.standard_error is None else "stochastic",
        elimination=evaluation.elimination,
        standard_error=evaluation.standard_error,
    )
    return FitResult(
        term=evaluation.term,
        rho=point.rho,
        value=float(evaluation.value),
        gradient=gradient,
        parts=dict(evaluation.parts),
        edf=fit.n_outputs * np.array(fit.ranks) - np.asarray(evaluation.edf) if len(evaluation.edf) else None,
        converged=certificate.converged,
        status=status,
        certificate=certificate,
    )


def mean_only(
    X: FloatArray | FileRows,
    weights: FloatArray | None,
    center: bool,
    evidence: str,
    rho: _core.SaeManifoldRho | None,
    metric: FloatArray | None,
) -> FitResult:
    """The model without atoms: every entry N(mean, φ), φ at its maximum likelihood or, classic, as given."""
    n, p = X.shape
    mean = column_mean(X) if center else np.zeros(p)
    w = np.ones(n) if weights is None else weights / np.mean(weights)
    total = 0.0
    for rows in blocks(X.shape):
        left = X[rows] - mean
        squares = np.square(left).sum(axis=1) if metric is None else whitened_squares(left, metric[rows])
        total += float(w[rows] @ squares)
    if not total > 0.0:
        raise ValueError("the rows with positive weight do not vary; the mean-only model needs a positive variance")
    if evidence == "quasi_laplace":
        held = _core.SaeManifoldRho(0.0, [], [], "per_atom", None if rho is None else rho.log_dispersion, True)
        return _without_atoms(held, 0.5 * total / held.dispersion())
    entries = n * (p if metric is None else metric.shape[2])
    phi = total / entries
    value = 0.5 * entries * (np.log(2.0 * np.pi * phi) + 1.0)
    return _without_atoms(_core.SaeManifoldRho(0.0, [], [], "per_atom", float(np.log(phi))), value)


def _without_atoms(rho: _core.SaeManifoldRho, value: float) -> FitResult:
    certificate = Certificate(True, "converged", 0.0, 0.0, 0.0, 1, 0, 0, (), "exact", "none")
    parts = {"data_fit": value}
    return FitResult(None, rho, value, np.zeros(len(rho)), parts, np.zeros(0), True, "converged", certificate)
