"""The Klein bottle: the torus columns that do not change under (theta, phi) -> (theta + pi, -phi).

The identification multiplies a theta-frequency k by (-1)^k and keeps cosines, turns sines of phi. So even k go with
cosines and odd k with sines. A point is stored by one of its two pairs of angles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..factors import LN_2PI, CircleFactor, Factor
from .base import (
    Atom,
    Generator,
    Jets,
    Symmetry,
    basis_vector_projector,
    circle_frequencies,
    circle_reflection,
    circle_rotation,
    circle_table,
    product_jets,
    shift_generator,
)
from .torus import torus_roughness

Array = NDArray[np.float64]


@dataclass(frozen=True)
class KleinBottle(Atom):
    """Two angles, glued with a flip.

    Rotations of theta have period 2 pi; the one by pi maps (theta, phi) to (theta + pi, phi) ~ (theta, -phi), so the
    reflection of phi is among them and is not counted again. What is left are the reflection of theta and the shift of
    phi by pi, together four motions.
    """

    harmonics: int = 2
    kind = "klein_bottle"
    log_group_volume = LN_2PI

    @property
    def factors(self) -> tuple[Factor, ...]:
        """Theta counts up to pi: the area of the bottle is half that of the torus."""
        return (CircleFactor(np.pi), CircleFactor())

    @property
    def columns(self) -> NDArray[np.int_]:
        """Places of the kept columns in the torus basis."""
        k = circle_frequencies(self.harmonics)
        sine = (np.arange(len(k)) % 2 == 0) & (k > 0)
        return np.flatnonzero(((k % 2 == 1)[:, None] == sine[None, :]).ravel())

    @property
    def width(self) -> int:
        return len(self.columns)

    def jets(self, t: Array, order: int = 2) -> Jets:
        return product_jets([circle_table(v, self.harmonics) for v in t], order, self.columns)

    def roughness(self) -> Array:
        """Mean squared Laplacian in the flat metric."""
        return np.diag(torus_roughness(self.harmonics)[self.columns])

    def null_projector(self) -> Array:
        return basis_vector_projector(self.width, [0])

    def _kept(self, theta_map: Array, phi_map: Array) -> Array:
        return np.kron(theta_map, phi_map)[np.ix_(self.columns, self.columns)]

    def generators(self) -> tuple[Generator, ...]:
        turn, one = circle_rotation(self.harmonics), np.eye(2 * self.harmonics + 1)
        return (shift_generator(0, 2, self._kept(turn, one)),)

    def symmetries(self, free: bool) -> tuple[Symmetry, ...]:
        """Precisions tell phi from phi + pi; the reflection of phi is then no longer a free turn, and counts."""
        one, half_turn = np.eye(2 * self.harmonics + 1), np.diag((-1.0) ** circle_frequencies(self.harmonics))
        flip = circle_reflection(self.harmonics)
        shift = Symmetry(lambda t: t + np.array([0, np.pi]), self._kept(one, half_turn))
        mirror = Symmetry(lambda t: t * [1, -1], self._kept(one, flip))
        return Symmetry(lambda t: t * [-1, 1], self._kept(flip, one)), shift if free else mirror

    def log_symmetries(self, free: bool) -> float:
        return float(np.log(4))
