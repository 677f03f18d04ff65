"""Slopes by differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STEP = 1e-3
"""Truncation is of the fourth order in it; a value of V is exact to about 1e-12 of its terms."""


def slopes(value: Callable[[Array], float], at: Array) -> Array:
    """The gradient of ``value`` at a point by central differences of fourth order."""
    out = np.zeros(len(at))
    for j, move in enumerate(STEP * np.eye(len(at))):
        narrow, wide = value(at + move) - value(at - move), value(at + 2 * move) - value(at - 2 * move)
        out[j] = (8 * narrow - wide) / (12 * STEP)
    return out
