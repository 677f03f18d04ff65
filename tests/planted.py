"""Small planted circles, and models fitted to them once for all tests that only read them."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from sae_rs import Circle, ManifoldSAE

NOISE = 0.05


def one_circle(n: int = 60, width: int = 6, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows (n, width) near one circle off the origin, and their angles (n,)."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0.0, 2.0 * np.pi, n)
    plane = np.linalg.qr(rng.standard_normal((width, 2)))[0].T
    rows = np.column_stack([np.cos(angle), np.sin(angle)]) @ plane
    return rows + 0.3 + NOISE * rng.standard_normal((n, width)), angle


def two_circles(n: int = 120, width: int = 8, seed: int = 1) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Rows (n, width), each near one of two circles in orthogonal planes, and the index (n,) of that circle."""
    rng = np.random.default_rng(seed)
    angle, which = rng.uniform(0.0, 2.0 * np.pi, n), np.arange(n) % 2
    planes = np.linalg.qr(rng.standard_normal((width, 4)))[0].T.reshape(2, 2, width)
    rows = np.einsum("nd,ndp->np", np.column_stack([np.cos(angle), np.sin(angle)]), planes[which])
    return rows + NOISE * rng.standard_normal((n, width)), which


@functools.cache
def fitted_one() -> ManifoldSAE:
    """One circle, fitted; not to be changed."""
    return ManifoldSAE(n_atoms=1, atom=Circle(harmonics=1)).fit(one_circle()[0])


@functools.cache
def fitted_two() -> ManifoldSAE:
    """Two circles, fitted; not to be changed."""
    return ManifoldSAE(n_atoms=2, atom=Circle(harmonics=1)).fit(two_circles()[0])


@functools.cache
def fitted_mean() -> ManifoldSAE:
    """The mean-only model of one circle, fitted; not to be changed."""
    return ManifoldSAE(n_atoms=0).fit(one_circle()[0])
