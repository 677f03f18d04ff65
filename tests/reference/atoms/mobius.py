"""The Moebius band: the cylinder columns that do not change under (theta, w) -> (theta + pi, -w)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..factors import LN_2PI, CircleFactor, Factor, LineFactor
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
    power_table,
    product_jets,
    shift_generator,
)
from .cylinder import kronecker_roughness

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Mobius(Atom):
    """An angle and a width. The rotation by pi is the reflection of the width, as on the Klein bottle."""

    harmonics: int = 2
    degree: int = 2
    kind = "mobius"
    log_group_volume = LN_2PI

    @property
    def factors(self) -> tuple[Factor, ...]:
        return (CircleFactor(np.pi), LineFactor())

    @property
    def columns(self) -> NDArray[np.int_]:
        """Places of the kept columns in the cylinder basis: frequency and power both even or both odd."""
        k, m = circle_frequencies(self.harmonics), np.arange(self.degree + 1)
        return np.flatnonzero(((k[:, None] + m[None, :]) % 2 == 0).ravel())

    @property
    def width(self) -> int:
        return len(self.columns)

    def jets(self, t: Array, order: int = 2) -> Jets:
        tables = [circle_table(t[0], self.harmonics), power_table(t[1], self.degree)]
        return product_jets(tables, order, self.columns)

    def roughness(self) -> Array:
        return kronecker_roughness(self.harmonics, self.degree)[np.ix_(self.columns, self.columns)]

    def null_projector(self) -> Array:
        return basis_vector_projector(self.width, [0])

    def _kept(self, theta_map: Array) -> Array:
        return np.kron(theta_map, np.eye(self.degree + 1))[np.ix_(self.columns, self.columns)]

    def generators(self) -> tuple[Generator, ...]:
        return (shift_generator(0, 2, self._kept(circle_rotation(self.harmonics))),)

    def symmetries(self, free: bool) -> tuple[Symmetry, ...]:
        """With precisions the reflection of the width is no longer a free turn, and counts."""
        along = Symmetry(lambda t: t * [-1, 1], self._kept(circle_reflection(self.harmonics)))
        signs = np.tile((-1.0) ** np.arange(self.degree + 1), 2 * self.harmonics + 1)[self.columns]
        across = Symmetry(lambda t: t * [1, -1], np.diag(signs))
        return (along,) if free else (along, across)

    def log_symmetries(self, free: bool) -> float:
        return float(np.log(2 if free else 4))
