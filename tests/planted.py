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


def mixture(kinds: list[str], p: int, n: int, used: tuple[int, int], seed: int) -> NDArray[np.float64]:
    """Rows (n, p) that are each a sum of points of some factors, at least and at most so many, with noise."""
    rng = np.random.default_rng(seed)
    active = np.zeros((n, len(kinds)), dtype=bool)
    for row in active:
        row[rng.choice(len(kinds), rng.integers(used[0], used[1] + 1), replace=False)] = True
    rows = NOISE * rng.standard_normal((n, p))
    for k, kind in enumerate(kinds):
        points = points_of(kind, n, rng)
        directions = rng.standard_normal((points.shape[1], p))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        rows += active[:, k, None] * (points @ directions)
    return rows


def points_of(kind: str, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Points (n, d) of a kind about the origin, of length about one."""
    if kind == "line":
        return rng.choice([-1.0, 1.0], (n, 1)) * rng.uniform(0.5, 1.4, (n, 1))
    if kind == "sphere":
        x = rng.standard_normal((n, 3))
        return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))
    angles = rng.uniform(0.0, 2.0 * np.pi, (n, 1 if kind == "circle" else 2))
    return np.asarray(np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / np.sqrt(angles.shape[1]))


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
