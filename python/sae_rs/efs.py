"""Fellner-Schall steps: an outer search without line searches and without the adjoint solve.

At each ρ the core returns the strengths at which V would be stationary if its traces stayed and the inner optimum did
not move (`Evaluation.fellner_schall`; derived in docs/fitting.md). Going there crosses orders of magnitude in one step,
which a first step of a quasi-Newton method cannot. The fixed point leaves out how the inner optimum moves with ρ, so it
lies near the minimum of V, not on it: ``outer="efs"`` ends there, ``outer="efs+bfgs"`` goes on from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .search import Point, Search

FloatArray = NDArray[np.float64]

# No strength moves by more than this in one step: a factor of 150.
LONGEST = 5.0
# Steps that a search which goes on by another method begins with, and the length, in units in which half its square is
# about a nat, at which it goes on.
FIRST_STEPS = 12
CLOSE = 1.0
# A step that ends where V does not exist, or higher by this many nats an entry of the data, is halved at most so often.
HALVINGS = 6
UPHILL = 0.01
# A step is lengthened to no more than so many times itself.
STRETCH = 4.0
# Inner decrement at the end of a step, as a part of its length: both count nats by half of their squares.
LOOSE = 0.01


def descend(fit: Search, start: Point, max_steps: int, enough: float, *, least_gain: float) -> tuple[Point, str]:
    """Take steps until the next would be shorter than `enough`; returns the end and why it ended.

    Parameters
    ----------
    fit : Search
        Evaluates V; supports are held.
    start : Point
        An evaluated ρ with traces.
    max_steps : int
        Bound on the steps.
    enough : float
        Length of a step, sqrt(Σ c_j Δ_j²) with c_j the curvature scale of entry j.
    least_gain : float
        End with the first step that lowers V by no more nats than this: the fixed point may lie far above the least V,
        and another method goes on with less.
    """
    here = start
    last: tuple[FloatArray, FloatArray] | None = None
    for _ in range(max_steps):
        step = proposed(fit, here)
        if length(fit, here, step) <= enough:
            return here, "converged"
        if fit.is_spent:
            return here, "iteration_limit"
        # a step that is longer than the one before says that it led astray
        is_shorter = last is not None and length(fit, here, step) < length(fit, here, last[1])
        path = lengthened(fit, here, step, *last) if last is not None and is_shorter else step
        moved = _moved(fit, here, path)
        if moved is None:
            return here, "iteration_limit" if fit.is_spent else "infeasible"
        gain = float(here.evaluation.value) - float(moved.evaluation.value)
        if gain <= min(least_gain, 0.0):
            if path is step:
                return here, "converged"
            last = None
            continue
        last = here.flat, step
        here = moved
        fit.keep(here)
        fit.n_iterations += 1
        if gain <= least_gain:
            return here, "converged"
    return here, "converged" if length(fit, here, proposed(fit, here)) <= enough else "iteration_limit"


def proposed(fit: Search, point: Point) -> FloatArray:
    """The step from a point with traces, within the bounds of the search and `LONGEST`."""
    return within(fit, point, np.asarray(point.evaluation.fellner_schall) - point.flat)


def within(fit: Search, point: Point, step: FloatArray) -> FloatArray:
    """The step without what leads out of the bounds of the search or is longer than `LONGEST`."""
    flat = point.flat
    target = np.clip(flat + step, *fit.bounds(point.rho))
    return np.asarray(np.clip(target - flat, -LONGEST, LONGEST))


def lengthened(fit: Search, point: Point, step: FloatArray, flat: FloatArray, earlier: FloatArray) -> FloatArray:
    """The step from a point after one from `flat`, whose own was `earlier`, by Anderson's rule of depth one.

    Steps shrink by much the same factor r from one to the next, about two thirds in large dictionaries: their fixed
    point is 1/(1 - r) of them away.
    """
    curvature = fit.curvature(point.rho)
    change = step - earlier
    across = float(curvature @ change**2)
    part = float(curvature @ (step * change)) / across if across > 0.0 else 0.0
    longer = step - part * (point.flat - flat + change)
    far, limit = length(fit, point, longer), STRETCH * length(fit, point, step)
    return within(fit, point, longer if far <= limit else longer * (limit / far))


def length(fit: Search, point: Point, step: FloatArray) -> float:
    """Length of a step in the units of the search."""
    return float(np.sqrt(np.sum(fit.curvature(point.rho) * step**2)))


def _moved(fit: Search, here: Point, step: FloatArray) -> Point | None:
    worst = float(here.evaluation.value) + UPHILL * fit.n_rows * fit.n_outputs
    for halving in range(HALVINGS):
        part = step / 2**halving
        trial = fit.traced(here.evaluation.term, here.rho.from_flat(here.flat + part), LOOSE * length(fit, here, part))
        if len(trial.evaluation.fellner_schall) and float(trial.evaluation.value) <= worst:
            return trial
        if fit.is_spent:
            break
    return None
