"""The quasi-Newton method of the outer search: `scipy.optimize` moves ρ by V and its exact gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

if TYPE_CHECKING:
    from .boxes import Box
    from .search import Point, Search

FloatArray = NDArray[np.float64]

# Evaluations of one line search; a smooth V needs two or three, and where an inner optimum vanishes no number helps.
MAX_LINE_SEARCH = 8
# A run at a face of its box goes on beyond it when an iteration lowers V by less than this part of what the gradient
# promises there.
AT_A_FACE = 1e-3
# A search has stalled when an iteration lowers V by less than this part of the tolerance.
STALLED = 1e-2


class InfeasibleTrial(Exception):
    """A trial ρ has no V; carries where the search stood and how far the trial was from there."""

    def __init__(self, accepted: Point, step: float) -> None:
        super().__init__(step)
        self.accepted, self.step = accepted, step


class Spent(Exception):
    """The inner iterations of a fit are used up; carries where the search has come to."""

    def __init__(self, accepted: Point) -> None:
        super().__init__()
        self.accepted = accepted


def descend(fit: Search, start: Point, box: Box, max_iterations: int) -> tuple[Point, str]:
    """Follow the gradient from an evaluated point within a box; returns the end and why it ended.

    Raises
    ------
    InfeasibleTrial
        When a trial has no V.
    Spent
        When the inner iterations of the fit are used up.
    """
    if fit.is_enough(start):
        return start, "converged"
    flat, curvature = start.flat, fit.curvature(start.rho)
    # In units x = ρ sqrt(c/σ) the objective V/σ has a Hessian near one. The minimiser's first step has length one:
    # with σ the square of the scaled gradient it is the step of that Hessian, unless that moves ρ by more than
    # about one.
    sigma = float(np.clip(fit.scaled_norm(start) ** 2, 2.0 * fit.tolerance, np.max(curvature)))
    unit = np.sqrt(curvature / sigma)
    is_estimated = fit.resolution > 0.0
    faces = box.faces(flat, fit.bounds(start.rho), _first_step(fit, start, unit) if is_estimated else None)
    first, last = faces.lower * unit, faces.upper * unit
    if not np.any(first < last):
        # a trial without V lay nearer than numbers lie to each other
        return start, "infeasible"
    accepted, first_iteration, is_enough, is_left = start, fit.n_iterations, False, False
    trials: dict[bytes, Point] = {(flat * unit).tobytes(): start}

    def objective(x: FloatArray) -> tuple[float, FloatArray]:
        point = trials.get(x.tobytes())
        if point is None:
            # on a bound to the last bit: what pushes against it is told by that
            trial = np.where(x <= first, faces.lower, np.where(x >= last, faces.upper, x / unit))
            point = fit.tried(accepted, start.rho.from_flat(trial))
            has_gradient = len(point.evaluation.gradient) == len(flat)
            if fit.is_spent:
                is_lower = float(point.evaluation.value) < float(accepted.evaluation.value)
                end = point if has_gradient and point.is_inner_optimum and is_lower else accepted
                fit.keep(end)
                raise Spent(end)
            if not has_gradient:
                raise InfeasibleTrial(accepted, float(np.max(np.abs(point.flat - accepted.flat))))
            # the minimiser ends a line search at its best trial; two are enough to have it at hand
            while len(trials) > 2:
                del trials[max(trials, key=lambda key: float(trials[key].evaluation.value))]
            trials[x.tobytes()] = point
        evaluation = point.evaluation
        return float(evaluation.value) / sigma, np.asarray(evaluation.gradient) / (unit * sigma)

    def on_iteration(x: FloatArray) -> None:
        nonlocal accepted, trials, is_enough, is_left
        before, accepted = float(accepted.evaluation.value), trials[x.tobytes()]
        trials = {x.tobytes(): accepted}
        fit.keep(accepted)
        fit.n_iterations += 1
        gain = before - float(accepted.evaluation.value)
        is_enough = fit.is_enough(accepted, gain)
        is_far = is_estimated and 2.0 * float(np.linalg.norm(x - flat * unit)) >= box.reach
        slope = np.asarray(accepted.evaluation.gradient)
        beyond = 0.5 * float(np.sum(np.where(faces.holds_up(accepted.flat, slope), slope**2 / curvature, 0.0)))
        is_left = is_far or gain < AT_A_FACE * beyond
        if is_enough or is_left:
            raise StopIteration

    limit = max(min(max_iterations, fit.max_outer - fit.n_iterations), 1)
    cut = fit.segment is not None and fit.segment < limit
    # the stubs of scipy know no objective that returns value and gradient together with bounds and a callback
    run: Any = minimize
    result = run(
        objective,
        flat * unit,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(first, last, strict=True)),
        callback=on_iteration,
        options={
            "maxiter": fit.segment if cut else limit,
            "maxfun": max(fit.evaluations_left, 1),
            # the projected gradient decides; this only ends a search that no longer gets anywhere
            "maxls": MAX_LINE_SEARCH,
            "ftol": STALLED * fit.tolerance / max(abs(float(start.evaluation.value)), sigma),
            "gtol": fit.gradient_bound / np.sqrt(sigma * len(flat)),
        },
    )
    if is_enough or fit.scaled_norm(accepted) <= fit.gradient_bound:
        return accepted, "converged"
    if is_left or faces.is_left_at(accepted.flat):
        return accepted, "box"
    if cut and result.status == 1 and fit.n_iterations - first_iteration == fit.segment:
        return accepted, "segment"
    return accepted, "iteration_limit" if result.status == 1 else "line_search"


def _first_step(fit: Search, start: Point, unit: FloatArray) -> FloatArray:
    """How far the minimiser's first step goes in each entry of ρ, evenly where that is less; its variables are ρ
    times `unit`.
    """
    # the gradient in those variables, to a factor: the step has its direction and the length one
    slope = np.abs(fit.projected_gradient(start)) / unit
    slope /= np.linalg.norm(slope)
    return np.asarray(np.maximum(slope, len(slope) ** -0.5) / unit)
