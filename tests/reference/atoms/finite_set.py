"""A few points: the basis is one-hot, and each point has a decoder row of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from ..factors import ChoiceFactor, Factor
from .base import Atom, Jets, Symmetry

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FiniteSet(Atom):
    """Separate points. Nothing is rough on them, and no step leads from one to another."""

    size: int = 2
    kind = "finite_set"

    @property
    def factors(self) -> tuple[Factor, ...]:
        return (ChoiceFactor(self.size),)

    @property
    def width(self) -> int:
        return self.size

    def jets(self, t: Array, order: int = 2) -> Jets:
        still = [np.zeros((1,) * r + (self.size,)) for r in (1, 2, 3)]
        return Jets(np.eye(self.size)[int(t[0])], *still[:order])

    def roughness(self) -> Array:
        return np.zeros((self.size, self.size))

    def null_projector(self) -> Array:
        return np.eye(self.size)

    def symmetries(self, free: bool) -> tuple[Symmetry, ...]:
        """Exchanges of the first point with each other one."""
        out = []
        for j in range(1, self.size):
            order = np.arange(self.size)
            order[[0, j]] = j, 0
            out.append(Symmetry(lambda t, order=order: order[t.astype(int)].astype(float), np.eye(self.size)[order]))
        return tuple(out)

    def log_symmetries(self, free: bool) -> float:
        return float(gammaln(self.size + 1))
