"""The flat torus: the tensor product of two circle bases, the first angle slowest."""

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
    circle_means,
    circle_reflection,
    circle_rotation,
    circle_table,
    product_jets,
    shift_generator,
)

Array = NDArray[np.float64]


def torus_roughness(harmonics: int) -> Array:
    """Diagonal of S: the Laplacian of a product of frequencies (k, l) is -(k^2 + l^2) times it."""
    k, w = circle_frequencies(harmonics).astype(float), circle_means(harmonics)
    return ((k[:, None] ** 2 + k[None, :] ** 2) ** 2 * w[:, None] * w[None, :]).ravel()


@dataclass(frozen=True)
class Torus(Atom):
    """Two angles."""

    harmonics: int = 2
    kind = "torus"
    log_group_volume = 2 * LN_2PI

    @property
    def factors(self) -> tuple[Factor, ...]:
        return (CircleFactor(), CircleFactor())

    @property
    def width(self) -> int:
        return (2 * self.harmonics + 1) ** 2

    def jets(self, t: Array, order: int = 2) -> Jets:
        return product_jets([circle_table(v, self.harmonics) for v in t], order)

    def roughness(self) -> Array:
        """Mean squared Laplacian in the flat metric."""
        return np.diag(torus_roughness(self.harmonics))

    def null_projector(self) -> Array:
        return basis_vector_projector(self.width, [0])

    def generators(self) -> tuple[Generator, ...]:
        turn, one = circle_rotation(self.harmonics), np.eye(2 * self.harmonics + 1)
        return shift_generator(0, 2, np.kron(turn, one)), shift_generator(1, 2, np.kron(one, turn))

    def symmetries(self, free: bool) -> tuple[Symmetry, ...]:
        flip, one = circle_reflection(self.harmonics), np.eye(2 * self.harmonics + 1)
        side = 2 * self.harmonics + 1
        # Column (a, b) of the exchanged basis is column (b, a).
        swap = np.eye(side * side)[:, np.arange(side * side).reshape(side, side).T.ravel()]
        reflections = (
            Symmetry(lambda t: t * [-1, 1], np.kron(flip, one)),
            Symmetry(lambda t: t * [1, -1], np.kron(one, flip)),
        )
        return (*reflections, Symmetry(lambda t: t[::-1], swap)) if free else reflections

    def log_symmetries(self, free: bool) -> float:
        """Reflections of the angles and their exchange generate the symmetries of a square."""
        return float(np.log(8 if free else 4))
