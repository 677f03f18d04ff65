"""A damped Newton method with the exact Hessian for the inner optimum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from .curvature import exact_hessian, pin_orbits
from .objective import gradient_theta, loss
from .problem import Problem, Rho, State, variables_of

Array = NDArray[np.float64]

QUADRATIC_REGION = 1e-5
"""Below this decrement a step changes L by less than its rounding error, so the decrement judges progress, not L."""


@dataclass(frozen=True)
class Solution:
    """``state`` at the optimum, ``decrement`` sqrt(g' A^-1 g) there, ``iterations``, ``converged``."""

    state: State
    decrement: float
    iterations: int
    converged: bool


def solve(problem: Problem, state: State, rho: Rho, tol: float = 1e-12, max_iter: int = 1000) -> Solution:
    """Minimise L over theta at fixed rho and fixed support.

    The damping grows until A + UU' + damping I is positive definite and the step lowers L (U pins the gauge). Near the
    optimum full Newton steps are taken until the decrement is below ``tol`` or stops falling; the second end is
    rounding error and counts as converged when the decrement is small.
    """
    variables = variables_of(problem, state)
    damping, value, best = 1e-3, loss(problem, state, rho), np.inf
    for iteration in range(max_iter):
        slope = gradient_theta(problem, state, rho)
        system = pin_orbits(problem, state, rho, exact_hessian(problem, state, rho))
        decrement = _decrement(system, slope)
        if decrement < tol or (decrement < QUADRATIC_REGION and decrement > 0.9 * best):
            return Solution(state, decrement, iteration, decrement < max(1e3 * tol, 1e-8))
        if decrement < QUADRATIC_REGION:
            best = decrement
            state = variables.move(state, -np.linalg.solve(system, slope))
            continue
        while damping < 1e16:
            try:
                factor = cho_factor(system + damping * np.eye(variables.size))
            except LinAlgError:
                damping *= 8
                continue
            trial = variables.move(state, -cho_solve(factor, slope))
            trial_value = loss(problem, trial, rho)
            if trial_value < value:
                state, value, damping = trial, trial_value, 0.1 * damping
                break
            damping *= 8
        else:
            return Solution(state, decrement, iteration, False)
    return Solution(state, decrement, max_iter, False)


def _decrement(system: Array, slope: Array) -> float:
    """sqrt(g' A^-1 g), infinite where A is not positive definite."""
    try:
        return float(np.sqrt(slope @ cho_solve(cho_factor(system), slope)))
    except LinAlgError:
        return np.inf
