"""Points spread evenly in any number of dimensions."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from .base import FloatArray


def fractions(n_points: int, dim: int) -> FloatArray:
    """Points (n_points, dim) of the open unit cube: equally spaced in one dimension, a Kronecker lattice in more.

    The lattice follows the powers of the generalised golden ratio, the root of x^(d+1) = x + 1.
    """
    i = np.arange(n_points)
    if dim == 1:
        return ((i + 0.5) / n_points)[:, None]
    ratio = 2.0
    for _ in range(64):
        ratio = (1.0 + ratio) ** (1.0 / (dim + 1))
    return np.mod(0.5 + (i[:, None] + 1) * ratio ** -np.arange(1.0, dim + 1), 1.0)


def uniform_points(n_points: int, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Points (n_points, d) spread over a box; in one dimension with both of its ends."""
    if len(lower) == 1:
        return np.linspace(lower, upper, n_points)
    return lower + (upper - lower) * fractions(n_points, len(lower))


def normal_points(n_points: int, dim: int) -> FloatArray:
    """Points (n_points, dim) spread as the standard normal distribution is."""
    points: FloatArray = ndtri(fractions(n_points, dim))
    return points
