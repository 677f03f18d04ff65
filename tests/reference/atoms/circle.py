"""The circle: 1, cos t, sin t, ..., cos Ht, sin Ht."""

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


@dataclass(frozen=True)
class Circle(Atom):
    """A closed curve."""

    harmonics: int = 3
    kind = "circle"
    log_group_volume = LN_2PI

    @property
    def factors(self) -> tuple[Factor, ...]:
        return (CircleFactor(),)

    @property
    def width(self) -> int:
        return 2 * self.harmonics + 1

    def jets(self, t: Array, order: int = 2) -> Jets:
        return product_jets([circle_table(t[0], self.harmonics)], order)

    def roughness(self) -> Array:
        """Mean squared second derivative: (cos ht)'' has mean square h^4 / 2, different harmonics are orthogonal."""
        return np.diag(circle_means(self.harmonics) * circle_frequencies(self.harmonics) ** 4.0)

    def null_projector(self) -> Array:
        return basis_vector_projector(self.width, [0])

    def generators(self) -> tuple[Generator, ...]:
        return (shift_generator(0, 1, circle_rotation(self.harmonics)),)

    def symmetries(self, free: bool) -> tuple[Symmetry, ...]:
        return (Symmetry(lambda t: -t, circle_reflection(self.harmonics)),)

    def log_symmetries(self, free: bool) -> float:
        return float(np.log(2))
