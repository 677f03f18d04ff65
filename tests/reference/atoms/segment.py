"""The segment: Legendre polynomials on [-1, 1], a curve with two ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import Legendre
from numpy.typing import NDArray

from ..factors import Factor, IntervalFactor
from .base import Atom, Jets, Symmetry, basis_vector_projector, product_jets

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Segment(Atom):
    """P_0(t), ..., P_D(t)."""

    degree: int = 3
    kind = "segment"

    @property
    def factors(self) -> tuple[Factor, ...]:
        return (IntervalFactor(-1.0, 1.0),)

    @property
    def width(self) -> int:
        return self.degree + 1

    @property
    def polynomials(self) -> list[Legendre]:
        return [Legendre.basis(n) for n in range(self.width)]

    def jets(self, t: Array, order: int = 2) -> Jets:
        table = np.array([[(p.deriv(r) if r else p)(t[0]) for p in self.polynomials] for r in range(4)])
        return product_jets([table], order)

    def roughness(self) -> Array:
        """1/2 int P_m'' P_n'' over [-1, 1], through antiderivatives."""
        bends = [p.deriv(2) for p in self.polynomials]
        integrals = [[(a * b).integ() for b in bends] for a in bends]
        return np.array([[0.5 * (f(1.0) - f(-1.0)) for f in row] for row in integrals])

    def null_projector(self) -> Array:
        return basis_vector_projector(self.width, [0, 1])

    def symmetries(self, free: bool) -> tuple[Symmetry, ...]:
        return (Symmetry(lambda t: -t, np.diag((-1.0) ** np.arange(self.width))),)

    def log_symmetries(self, free: bool) -> float:
        return float(np.log(2))
