"""Plain linear algebra of positive definite matrices in extended precision.

H is flat along the orbits and steep across them, and its inverse is larger than the traces that are made of it by about
its condition number. In double precision, a general inverse of H leaves five to eight digits of such a trace where its
condition is 1e7; what H itself was rounded to leaves more than nine. The matrices come in double precision, everything
made of them is kept in ``np.longdouble`` until the last sum.

Cholesky factors need no scaling: their rounding is that of the matrix with a unit diagonal. So where ``np.longdouble``
is no longer than a double, they are still the better choice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Extended = NDArray[np.longdouble]


class NotPositiveError(ArithmeticError):
    """A pivot is not positive."""


def cholesky(matrix: NDArray[Any]) -> Extended:
    """L (D, D), lower triangular, with LL' = ``matrix``."""
    factor: Extended = np.tril(matrix.astype(np.longdouble))
    for j in range(len(factor)):
        done = factor[j:, :j]
        factor[j:, j] -= done @ done[0]
        pivot = factor[j, j]
        if not pivot > 0:
            raise NotPositiveError(f"pivot {j} is {pivot}")
        factor[j:, j] /= np.sqrt(pivot)
    return factor


def log_det(matrix: NDArray[Any]) -> float:
    """ln |matrix|."""
    return float(2 * np.log(np.diag(cholesky(matrix))).sum())


def inverse(matrix: NDArray[Any]) -> Extended:
    """``matrix``^-1 = (L^-1)'L^-1."""
    factor = cholesky(matrix)
    lower = forward(factor, np.eye(len(factor), dtype=np.longdouble))
    return lower.T @ lower


def solve(matrix: NDArray[Any], right: NDArray[Any]) -> Extended:
    """``matrix``^-1 ``right``, ``right`` (D, ...)."""
    factor = cholesky(matrix)
    # L'x = y, read from its last row to its first, is a lower triangular system
    turned = factor.T[::-1, ::-1]
    return forward(turned, forward(factor, right.astype(np.longdouble))[::-1])[::-1]


def forward(lower: Extended, right: Extended) -> Extended:
    """``lower``^-1 ``right``."""
    out = right.copy()
    for j in range(len(lower)):
        out[j] = (out[j] - lower[j, :j] @ out[:j]) / lower[j, j]
    return out
