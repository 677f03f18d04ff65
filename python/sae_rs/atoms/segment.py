"""The segment."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
from numpy.polynomial import legendre

from .base import FloatArray
from .factors import Bounded
from .flat import DEGREES, FlatAtom, part_energy

# The Gram of second derivatives spans more digits than there are above it.
MAX_DEGREE = 64


@dataclass(frozen=True)
class Segment(FlatAtom):
    """A curve with two ends: the decoded point is a polynomial of one coordinate in [−1, 1].

    The basis holds the Legendre polynomials P₀ … P_D. The coordinate is uniform a priori, and rows beyond an end lie
    at that end. Where a curve just ends, as a range of years does, this is a better description than a `Patch`, whose
    coordinate is Gaussian and has no ends.

    Parameters
    ----------
    degree : int, default 3
        Highest degree D, from 1 to 64. Degree 1 is straight, and its smoothness strength has no effect.

    Raises
    ------
    ValueError
        When the degree is not an integer in its range.
    """

    degree: int = 3
    kind: ClassVar[str] = "segment"

    def __post_init__(self) -> None:
        self._check_whole("degree", 1, MAX_DEGREE)

    @property
    def factors(self) -> tuple[Bounded, ...]:
        return (Bounded(-1.0, 1.0),)

    @property
    def width(self) -> int:
        return self.degree + 1

    def roughness(self) -> FloatArray:
        """Mean squared second derivative over [−1, 1]: ``½ ∫ P_m″ P_n″``. The constant and the line have none."""
        return _mean_products(self.degree, 2)

    def energy(self, decoder: FloatArray) -> dict[str, float]:
        """Mean squared norm over [−1, 1] of each Legendre polynomial's part, keyed "linear", "quadratic", ..."""
        names = [*DEGREES[: self.degree], *(f"degree {d}" for d in range(len(DEGREES) + 1, self.degree + 1))]
        return part_energy(decoder, _mean_products(self.degree, 0), {name: [d] for d, name in enumerate(names, 1)})


@cache
def _legendre_coefficients(degree: int, order: int) -> FloatArray:
    """Each polynomial to a degree, differentiated, in Legendre polynomials (D + 1, D + 1)."""
    out = np.zeros((degree + 1, degree + 1))
    for row, unit in zip(out, np.eye(degree + 1), strict=True):
        derivative = legendre.legder(unit, order)
        row[: len(derivative)] = derivative
    return out


def _mean_products(degree: int, order: int) -> FloatArray:
    """Means over [−1, 1] of products of derivatives: ``½ ∫ P_n² = 1 / (2n + 1)``."""
    coefficients = _legendre_coefficients(degree, order)
    squares = 1.0 / (2.0 * np.arange(degree + 1) + 1.0)
    return (coefficients * squares) @ coefficients.T
