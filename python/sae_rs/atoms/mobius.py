"""The Möbius band."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .base import FloatArray
from .cylinder import MAX_WIDTH
from .factors import TURN, Angle, Real
from .flat import FlatAtom, angle_parts, frequencies, harmonic_gram, kronecker, part_energy, power_gram
from .klein_bottle import half_turned


@dataclass(frozen=True)
class Mobius(FlatAtom):
    """A band with one side and one edge: a cylinder on which (θ, w) and (θ + π, −w) are one point.

    The basis holds the cylinder's columns that do not tell the two apart, θ slowest: even harmonics of θ with even
    powers of the width w, odd ones with odd powers. Coordinates are stored with θ in [0, π); w is standard normal a
    priori.

    Parameters
    ----------
    harmonics : int, default 3
        H, the highest harmonic of θ, at least 2 (with one the middle of the band is a point). A strip of paper that is
        glued with a half twist has 3.
    degree : int, default 2
        D, the highest power of w.

    Raises
    ------
    ValueError
        When a field is not an integer in its range, or the basis would have more than 8192 functions.
    """

    harmonics: int = 3
    degree: int = 2
    kind: ClassVar[str] = "mobius"

    def __post_init__(self) -> None:
        self._check_whole("harmonics", 2)
        self._check_whole("degree", 1)
        if self.width > MAX_WIDTH:
            raise ValueError(f"Mobius: {self} would have {self.width} basis functions, more than {MAX_WIDTH}")

    @property
    def factors(self) -> tuple[Angle, Real]:
        """θ counts up to π: the band has half the area of the cylinder."""
        return Angle(0.5 * TURN), Real()

    @property
    def width(self) -> int:
        even, odd = self.harmonics // 2, (self.harmonics + 1) // 2
        return (1 + 2 * even) * (self.degree // 2 + 1) + 2 * odd * ((self.degree + 1) // 2)

    def _orders(self) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
        """Frequency and power of every column of the cylinder."""
        first, second = np.meshgrid(frequencies(self.harmonics), np.arange(self.degree + 1), indexing="ij")
        return first.ravel(), second.ravel()

    def _columns(self) -> NDArray[np.int_]:
        """Places of the basis functions among those of the cylinder."""
        frequency, power = self._orders()
        return np.flatnonzero(frequency % 2 == power % 2)

    def wrap(self, coords: FloatArray) -> FloatArray:
        """θ in [0, π), with w → −w for every half turn that is taken off."""
        theta, flipped = half_turned(coords[:, 0])
        return np.column_stack([theta, np.where(flipped, -coords[:, 1], coords[:, 1])])

    def wires(self, coords: FloatArray) -> list[FloatArray]:
        """A net as wide to either side, since (θ + π, −w) is (θ, w): the line at w goes on as that at −w."""
        return super().wires(np.vstack([coords, coords * [1.0, -1.0]]))

    def roughness(self) -> FloatArray:
        """Mean squared second derivatives in each coordinate, over the circle and N(0, 1); the constant has none."""
        around, along, columns = harmonic_gram, power_gram, self._columns()
        bending = kronecker(around(self.harmonics, 2), along(self.degree)) + kronecker(
            around(self.harmonics), along(self.degree, 2)
        )
        return bending[np.ix_(columns, columns)]

    def energy(self, decoder: FloatArray) -> dict[str, float]:
        """Mean squared norm of what depends on one coordinate alone and on both: "angle", "width", "both"."""
        columns = self._columns()
        frequency, power = (orders[columns] for orders in self._orders())
        gram = kronecker(harmonic_gram(self.harmonics), power_gram(self.degree))[np.ix_(columns, columns)]
        return part_energy(decoder, gram, angle_parts(("angle", "width"), frequency, power))
