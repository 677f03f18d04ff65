"""Slopes by differences that have converged."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STEPS = (1e-3, 1e-4, 1e-5)
"""Tried in turn; a value of V is exact to about 1e-12 of its terms."""
CONVERGED = 1e-7
"""Part of the scale that the truncation of a slope may be."""


def slopes(value: Callable[[Array], float], at: Array, scale: float | None = None) -> Array:
    """The gradient of ``value`` at a point by central differences of sixth order.

    They are those of fourth order at a step and at twice the step, extrapolated: a fifteenth of their difference is the
    truncation of the first, and must be within ``CONVERGED`` of ``scale``, by default of the largest slope.
    """
    for step in STEPS:
        out, truncation = np.zeros(len(at)), np.zeros(len(at))
        for j, move in enumerate(step * np.eye(len(at))):
            one, two, four = (value(at + reach * move) - value(at - reach * move) for reach in (1, 2, 4))
            narrow, wide = (8 * one - two) / (12 * step), (8 * two - four) / (24 * step)
            truncation[j] = (narrow - wide) / 15
            out[j] = narrow + truncation[j]
        size = float(np.max(np.abs(out), initial=0.0)) if scale is None else scale
        if np.max(np.abs(truncation), initial=0.0) <= CONVERGED * size:
            return out
    raise AssertionError(f"differences do not converge: {truncation} at a scale of {size}")
