"""The circle basis 1, cos t, sin t, ..., cos Ht, sin Ht (chapter 1.6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def circle_basis(t: float, harmonics: int) -> tuple[Array, Array, Array]:
    """Basis row and its first two derivatives in t, each (2H + 1,)."""
    phi, d1, d2 = np.zeros((3, 2 * harmonics + 1))
    phi[0] = 1.0
    for h in range(1, harmonics + 1):
        c, s = np.cos(h * t), np.sin(h * t)
        phi[2 * h - 1], phi[2 * h] = c, s
        d1[2 * h - 1], d1[2 * h] = -h * s, h * c
        d2[2 * h - 1], d2[2 * h] = -h * h * c, -h * h * s
    return phi, d1, d2


def roughness(harmonics: int) -> Array:
    """S (M, M): the mean over the circle of the squared second derivative.

    The second derivative of cos ht is -h^2 cos ht, its mean square is h^4 / 2, and different harmonics are orthogonal.
    """
    diagonal = np.zeros(2 * harmonics + 1)
    for h in range(1, harmonics + 1):
        diagonal[2 * h - 1] = diagonal[2 * h] = h**4 / 2
    return np.diag(diagonal)


def null_projector(harmonics: int) -> Array:
    """N (M, M): projector on the null space of S, the constant function."""
    projector = np.zeros((2 * harmonics + 1, 2 * harmonics + 1))
    projector[0, 0] = 1.0
    return projector


def rotation_generator(harmonics: int) -> Array:
    """R (M, M) with Phi(t + s) exp(s R) = Phi(t): turning the angle by s is undone by turning each harmonic pair back.

    Differentiating at s = 0 gives Phi'(t) + Phi(t) R = 0. With c = cos ht, s = sin ht and pair rows (b_c, b_s),
    -h s b_c + h c b_s + c db_c + s db_s = 0 for all t gives db_c = -h b_s and db_s = h b_c.
    """
    generator = np.zeros((2 * harmonics + 1, 2 * harmonics + 1))
    for h in range(1, harmonics + 1):
        generator[2 * h - 1, 2 * h] = -h
        generator[2 * h, 2 * h - 1] = h
    return generator
