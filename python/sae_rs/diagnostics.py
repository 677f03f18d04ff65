"""A check that anyone can run: the analytic gradient of the evidence against converged finite differences."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._core import SaeManifoldRho, SaeManifoldTerm
from .model import ManifoldSAE
from .validation import check_positive

FloatArray = NDArray[np.float64]

# At the fitted strengths the gradient is zero and its relative error says nothing: a model is checked this far off, in
# every log strength.
OFFSET = 0.5
# Halvings of the step. Each adds one order to the extrapolation; more only reach the rounding noise of the evidence.
LEVELS = 5


@dataclass(frozen=True, eq=False)
class GradientCheck:
    """Result of `check_gradient`; arrays are in the order of ``rho.to_flat()``.

    Attributes
    ----------
    rho : ndarray of shape (r,)
        Log strengths at which the gradients were taken.
    analytic, numerical : ndarray of shape (r,)
        Both gradients, in nats per unit of log strength.
    numerical_error : ndarray of shape (r,)
        Estimate of the error of each finite difference: how far its last extrapolations disagree.
    relative_error : float
        Largest absolute difference, relative to the largest entry of either gradient.
    """

    rho: FloatArray
    analytic: FloatArray
    numerical: FloatArray
    numerical_error: FloatArray
    relative_error: float


def check_gradient(
    model: ManifoldSAE | SaeManifoldTerm,
    rho: SaeManifoldRho | None = None,
    *,
    step: float = 0.1,
    tol: float = 1e-10,
    elimination: str = "auto",
) -> GradientCheck:
    """Compare the analytic gradient of the evidence V with central differences, extrapolated until they agree.

    Parameters
    ----------
    model : ManifoldSAE or SaeManifoldTerm
        A fitted model, or a term together with `rho`.
    rho : SaeManifoldRho, optional
        Where to compare; for a model the default is half a unit off the fitted log strengths, because at the optimum
        the gradient is zero.
    step : float, default 0.1
        Largest step in log strength; it is halved from there.
    tol : float, default 1e-10
        Tolerance of each inner solve.
    elimination : str, default "auto"
        Elimination of the arrow system that the analytic gradient uses: "auto", "primal", "dual" or "complement".

    Raises
    ------
    ValueError
        When a term comes without `rho`, or an option is out of range.
    """
    step, tol = check_positive(step, "step"), check_positive(tol, "tol")
    if isinstance(model, ManifoldSAE):
        term = model.term_
        if rho is None:
            rho = model.rho_.from_flat(np.asarray(model.rho_.to_flat()) + OFFSET)
    else:
        term = model
    if rho is None:
        raise ValueError("check_gradient needs rho when it is given a term")
    flat = np.array(rho.to_flat(), dtype=np.float64)
    centre = term.evaluate(rho, tol=tol, elimination=elimination)
    # All differences start from the same inner optimum, so that none of them strays to another one.
    start = centre.term

    def difference(axis: int, h: float) -> float:
        ends = []
        for offset in (h, -h):
            moved = flat.copy()
            moved[axis] += offset
            ends.append(start.evaluate(rho.from_flat(moved), tol=tol, elimination=elimination, gradient=False).value)
        return (ends[0] - ends[1]) / (2.0 * h)

    pairs = np.array([_extrapolated(functools.partial(difference, axis), step) for axis in range(len(flat))])
    analytic, numerical = np.array(centre.gradient, dtype=np.float64), pairs[:, 0]
    scale = max(float(np.abs(analytic).max()), float(np.abs(numerical).max()), float(np.finfo(np.float64).tiny))
    relative_error = float(np.abs(analytic - numerical).max()) / scale
    return GradientCheck(flat, analytic, numerical, pairs[:, 1], relative_error)


def _extrapolated(difference: Callable[[float], float], step: float) -> tuple[float, float]:
    """Limit of a central difference for a step that goes to zero, with an error estimate.

    Richardson's table: the step is halved line by line and each column removes one more even power of it. The entry
    that agrees best with both entries it came from is kept, because beyond it rounding takes over.
    """
    best, error = float("nan"), float("inf")
    coarse: list[float] = []
    for level in range(LEVELS):
        line = [difference(step / 2**level)]
        for order, before in enumerate(coarse, start=1):
            line.append(line[-1] + (line[-1] - before) / (4.0**order - 1.0))
            spread = max(abs(line[-1] - line[-2]), abs(line[-1] - before))
            if spread <= error:
                best, error = line[-1], spread
        coarse = line
    return best, error
