"""Numerical derivatives and comparisons for tests of analytic formulas."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

Array = NDArray[np.float64]

STEP = 1e-4
"""Step of the fourth-order differences: truncation (step^4) and rounding (1e-16 / step) stay near 1e-12 relative."""

STENCIL = ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12))
"""Fourth-order central difference: steps and weights."""


def slope(function: Callable[[float], Array | float], step: float = STEP) -> Array:
    """Derivative of a function of one number at 0."""
    return sum(weight * np.asarray(function(reach * step)) for reach, weight in STENCIL) / step


def differences(function: Callable[[Array], Array | float], at: Array, step: float = STEP) -> Array:
    """Derivatives in each entry of ``at``, on a new last axis."""
    units = np.eye(len(at))
    return np.stack([slope(lambda s, e=e: function(at + s * e), step) for e in units], axis=-1)


def taylor(function: Callable[[float], Array], radius: float, order: int = 3, nodes: int = 24) -> list[Array]:
    """Value and derivatives at 0 of an analytic function of one number, from its Chebyshev interpolant."""
    points = np.cos(np.pi * (np.arange(nodes) + 0.5) / nodes)
    fit = chebyshev.chebfit(points, np.array([function(radius * x) for x in points]), nodes - 1)
    return [chebyshev.chebval(0.0, chebyshev.chebder(fit, r) if r else fit) / radius**r for r in range(order + 1)]


def assert_close(actual: Array | float, expected: Array | float, tol: float) -> None:
    """Largest difference within ``tol`` of the largest expected entry, or of one when all entries are small."""
    scale = max(1.0, float(np.max(np.abs(expected), initial=0.0)))
    assert np.shape(actual) == np.shape(expected)
    assert np.max(np.abs(np.asarray(actual) - np.asarray(expected)), initial=0.0) <= tol * scale
