"""The line: 1, t, a linear direction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..factors import Factor, LineFactor
from .base import Atom, Jets, Symmetry, power_table, product_jets

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Line(Atom):
    """A straight line. Nothing is rough on it, so both coefficients have the weak prior of the null space."""

    kind = "line"

    @property
    def factors(self) -> tuple[Factor, ...]:
        return (LineFactor(),)

    @property
    def width(self) -> int:
        return 2

    def jets(self, t: Array, order: int = 2) -> Jets:
        return product_jets([power_table(t[0], 1)], order)

    def roughness(self) -> Array:
        return np.zeros((2, 2))

    def null_projector(self) -> Array:
        return np.eye(2)

    def symmetries(self, free: bool) -> tuple[Symmetry, ...]:
        return (Symmetry(lambda t: -t, np.diag([1.0, -1.0])),)

    def log_symmetries(self, free: bool) -> float:
        return float(np.log(2))
