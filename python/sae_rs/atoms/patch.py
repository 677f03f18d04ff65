"""The patch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement
from math import comb
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .base import FloatArray
from .factors import Real
from .flat import DEGREES, FlatAtom, part_energy, power_gram

MAX_DIM = 8
# A wider basis would have a Gram of gigabytes.
MAX_WIDTH = 8192


@dataclass(frozen=True)
class Patch(FlatAtom):
    """A curve, surface or solid: the decoded point is a polynomial of a few real coordinates.

    The basis holds the monomials to a total degree: ``1; t1, .., td; t1·t1, t1·t2, ..``. Coordinates are standard
    normal a priori; rotations of them change nothing.

    Parameters
    ----------
    dim : int, default 1
        Number d of coordinates, at most 8: 1 draws an arc, 2 a sheet.
    degree : int, default 2
        Highest total degree. Degree 1 is flat, and its smoothness strength has no effect.

    Raises
    ------
    ValueError
        When a field is not an integer in its range, or the basis would have more than 8192 functions.
    """

    # a field here; other kinds derive it from their factors
    dim: int = 1
    degree: int = 2
    kind: ClassVar[str] = "patch"

    def __post_init__(self) -> None:
        self._check_whole("dim", 1, MAX_DIM)
        self._check_whole("degree", 1)
        if self.width > MAX_WIDTH:
            raise ValueError(f"Patch: {self} would have {self.width} basis functions, more than {MAX_WIDTH}")

    @property
    def factors(self) -> tuple[Real, ...]:
        return (Real(),) * self.dim

    @property
    def width(self) -> int:
        return comb(self.dim + self.degree, self.dim)

    def _exponents(self) -> NDArray[np.int_]:
        """Power of each coordinate in each basis function, (M, d)."""
        axes = range(self.dim)
        sequences = [s for total in range(self.degree + 1) for s in combinations_with_replacement(axes, total)]
        return np.array([[s.count(axis) for axis in axes] for s in sequences])

    def _gram(self, orders: NDArray[np.int_]) -> FloatArray:
        """Mean products over N(0, I) of basis functions differentiated `orders[a]` times in each coordinate a."""
        powers = self._exponents()
        gram = np.ones((self.width, self.width))
        for axis, order in enumerate(orders):
            own = powers[:, axis]
            gram *= power_gram(self.degree, int(order))[np.ix_(own, own)]
        return gram

    def roughness(self) -> FloatArray:
        """Mean squared Hessian over N(0, I): ``Σ_ab E (∂_a ∂_b f)²``. Affine functions have none."""
        unit = np.eye(self.dim, dtype=np.int_)
        total = np.zeros((self.width, self.width))
        for a in range(self.dim):
            for b in range(self.dim):
                total += self._gram(unit[a] + unit[b])
        return total

    def energy(self, decoder: FloatArray) -> dict[str, float]:
        """Mean squared norm over N(0, I) of each degree, without its own mean, keyed "linear", "quadratic", ..."""
        degrees = self._exponents().sum(axis=1)
        names = [*DEGREES[: self.degree], *(f"degree {d}" for d in range(len(DEGREES) + 1, self.degree + 1))]
        parts = {name: np.flatnonzero(degrees == d).tolist() for d, name in enumerate(names, start=1)}
        return part_energy(decoder, self._gram(np.zeros(self.dim, dtype=np.int_)), parts)
