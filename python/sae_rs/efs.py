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
    for _ in range(max_steps):
        step = proposed(fit, here)
        if length(fit, here, step) <= enough:
            return here, "converged"
        moved = _moved(fit, here, step)
        if moved is None:
            return here, "infeasible"
        gain = float(here.evaluation.value) - float(moved.evaluation.value)
        if gain <= min(least_gain, 0.0):
            return here, "converged"
        here = moved
        fit.keep(here)
        fit.n_iterations += 1
        if gain <= least_gain:
            return here, "converged"
    return here, "converged" if length(fit, here, proposed(fit, here)) <= enough else "iteration_limit"


def proposed(fit: Search, point: Point) -> FloatArray:
    """The step from a point with traces, within the bounds of the search and `LONGEST`."""
    flat = point.flat
    target = np.clip(np.asarray(point.evaluation.fellner_schall), *fit.bounds(point.rho))
    return np.asarray(np.clip(target - flat, -LONGEST, LONGEST))


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
    return None
