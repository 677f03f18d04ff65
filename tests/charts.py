"""Charts written a second time, for the tests that look at curved atoms from outside: frames, geodesics and motions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sae_rs import _core
from sae_rs.atoms import Atom

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Motion:
    """A one-parameter group of motions of a chart: its velocity in local coordinates, and the motion itself."""

    velocity: Callable[[FloatArray], FloatArray]
    flow: Callable[[FloatArray, float], FloatArray]


def frame(t: FloatArray) -> FloatArray:
    """Orthonormal tangents (m, 3, 2) at unit vectors (m, 3): the frame that local coordinates refer to."""
    x, y, z = t.T
    s = np.where(z >= 0.0, 1.0, -1.0)
    a = -1.0 / (s + z)
    b = x * y * a
    first = np.stack([1.0 + s * x**2 * a, s * b, -s * x], axis=1)
    second = np.stack([b, s + y**2 * a, -y], axis=1)
    return np.stack([first, second], axis=2)


def on_sphere(atom: Atom) -> bool:
    return atom.ambient == 3 and atom.dim == 2


def advance(atom: Atom, t: FloatArray, u: FloatArray) -> FloatArray:
    """Points (m, ambient) reached from t along geodesics with local velocities u (m, d)."""
    if not on_sphere(atom):
        return atom.wrap(t + u)
    v = np.einsum("mia,ma->mi", frame(t), u)
    length = np.linalg.norm(v, axis=1, keepdims=True)
    return atom.wrap(np.cos(length) * t + np.sinc(length / np.pi) * v)


def cross_matrix(axis: FloatArray) -> FloatArray:
    return np.cross(np.eye(3), axis).T * -1.0


def rotation(axis: FloatArray, angle: float) -> FloatArray:
    """The rotation (3, 3) by an angle about a unit axis (Rodrigues)."""
    k = cross_matrix(axis)
    matrix: FloatArray = np.eye(3) + np.sin(angle) * k + (1.0 - np.cos(angle)) * k @ k
    return matrix


def motions(atom: Atom) -> list[Motion]:
    """Generators of the motions that change no fit, in the order of the compiled core."""
    if on_sphere(atom):

        def about(e: FloatArray) -> Motion:
            return Motion(
                lambda t: np.einsum("mia,mi->ma", frame(t), np.cross(e, t)), lambda t, s: t @ rotation(e, s).T
            )

        return [about(e) for e in np.eye(3)]
    if atom.kind == "circle":
        return [Motion(np.ones_like, lambda t, s: t + s)]
    if atom.kind != "poincare":
        return []

    def in_plane(a: int, b: int) -> Motion:
        turn = np.zeros((atom.dim, atom.dim))
        turn[a, b], turn[b, a] = 1.0, -1.0

        def flow(t: FloatArray, s: float) -> FloatArray:
            plane = np.eye(atom.dim) + (np.cos(s) - 1.0) * np.abs(turn @ turn) + np.sin(s) * turn
            return t @ plane.T

        return Motion(lambda t: t @ turn.T, flow)

    return [in_plane(a, b) for a in range(atom.dim) for b in range(a + 1, atom.dim)]


def points(atom: Atom, n: int, rng: np.random.Generator) -> FloatArray:
    """Random points (n, ambient) of a chart."""
    return atom.wrap(rng.standard_normal((n, atom.ambient)))


def basis_map(atom: Atom, move: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """R (M, M) with ``Phi(move(t)) = Phi(t) R`` at all t, by least squares over many points."""
    t = points(atom, 20 * atom.width, np.random.default_rng(0))
    matrix: FloatArray = np.linalg.lstsq(_core.basis(atom.spec(), t), _core.basis(atom.spec(), move(t)), rcond=None)[0]
    return matrix


def generator_map(atom: Atom, motion: Motion) -> FloatArray:
    """Q (M, M) with ``dPhi . v = Phi Q``, by least squares over many points."""
    t = points(atom, 20 * atom.width, np.random.default_rng(0))
    phi, first, _, _ = _core.basis_jets(atom.spec(), t)
    matrix: FloatArray = np.linalg.lstsq(phi, np.einsum("mca,ma->mc", first, motion.velocity(t)), rcond=None)[0]
    return matrix
