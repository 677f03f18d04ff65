"""How well found coordinates agree with true ones, up to the motions of a chart that change no fit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

FloatArray = NDArray[np.float64]

# An axis has two signs, so the best rotation of axes is found by turns from several starts.
STARTS, TURNS = 40, 30


def turned(found: FloatArray, true: FloatArray) -> float:
    """R² of the points on the unit circle, after the best rotation and perhaps a reflection."""
    return 2.0 * max(abs(np.exp(1j * (found - true)).mean()), abs(np.exp(1j * (found + true)).mean())) - 1.0


def unsided(found: FloatArray, true: FloatArray) -> list[float]:
    """R² of θ and of φ on a Klein bottle, where (θ + π, −φ) is (θ, φ) and φ has no side and two origins."""
    first = turned(2.0 * found[:, 0], 2.0 * true[:, 0])
    second = -1.0
    for theta in (found[:, 0], -found[:, 0]):
        shift = 0.5 * np.angle(np.exp(2j * (true[:, 0] - theta)).mean())
        half_turns = np.round((theta + shift - true[:, 0]) / np.pi)
        phi = np.where(half_turns % 2.0 == 1.0, -found[:, 1], found[:, 1])
        # the other origin is half a turn away
        second = max(second, *(2.0 * abs(np.cos(s * phi - true[:, 1]).mean()) - 1.0 for s in (1.0, -1.0)))
    return [first, second]


def affine(found: FloatArray, true: FloatArray) -> float:
    """R² of the best affine map from found to true coordinates."""
    design = np.column_stack([np.ones(len(found)), found])
    residual = true - design @ np.linalg.lstsq(design, true, rcond=None)[0]
    return float(1.0 - np.square(residual).sum() / np.square(true - true.mean(axis=0)).sum())


def rotated(found: FloatArray, true: FloatArray) -> float:
    """R² of unit vectors after the best rotation and perhaps a reflection (Procrustes)."""
    residual = found @ _procrustes(found, true) - true
    return float(1.0 - np.square(residual).sum() / len(true))


def conformal(found: FloatArray, true: FloatArray) -> float:
    """As `rotated`, after the best conformal map of the sphere.

    A boost by a small v moves t by v − (v·t) t, which degree two of a decoder makes up for to first order: no noise is
    needed to let a sphere of degree two choose its boost, and its roughness holds it only weakly.
    """

    def boosted(v: FloatArray) -> FloatArray:
        apart = found + v
        return v + (1.0 - v @ v) * apart / np.square(apart).sum(axis=1, keepdims=True)

    best = minimize(lambda v: 1.0 - rotated(boosted(v), true), np.zeros(3), method="Nelder-Mead")
    return float(1.0 - best.fun)


def rotated_axes(found: FloatArray, true: FloatArray) -> float:
    """As `rotated`, where t and −t are one point."""
    rng = np.random.default_rng(0)
    best = -np.inf
    for _ in range(STARTS):
        turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
        for _ in range(TURNS):
            signed = np.where(np.sum(found @ turn * true, axis=1) < 0.0, -1.0, 1.0)[:, None] * found
            turn = _procrustes(signed, true)
        best = max(best, rotated(signed, true))
    return best


def _procrustes(found: FloatArray, true: FloatArray) -> FloatArray:
    """The orthogonal matrix that brings `found` closest to `true`."""
    left, _, right = np.linalg.svd(found.T @ true)
    turn: FloatArray = left @ right
    return turn
