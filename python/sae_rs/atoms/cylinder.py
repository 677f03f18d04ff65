"""The cylinder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import FloatArray
from .factors import Angle, Real
from .flat import FlatAtom, angle_parts, frequencies, harmonic_gram, kronecker, part_energy, power_gram

# A wider basis would have a Gram of gigabytes.
MAX_WIDTH = 8192


@dataclass(frozen=True)
class Cylinder(FlatAtom):
    """A surface closed in one direction: trigonometric in an angle, polynomial in a height.

    The basis holds every product of one of ``1, cos t, sin t, ..., cos Ht, sin Ht`` with one of ``1, s, ..., s^D``, the
    angle slowest. The height is standard normal a priori.

    Parameters
    ----------
    harmonics : int, default 2
        H, the highest harmonic of the angle.
    degree : int, default 1
        D, the highest power of the height.

    Raises
    ------
    ValueError
        When a field is not an integer of at least 1, or the basis would have more than 8192 functions.
    """

    harmonics: int = 2
    degree: int = 1
    kind: ClassVar[str] = "cylinder"

    def __post_init__(self) -> None:
        self._check_whole("harmonics", 1)
        self._check_whole("degree", 1)
        if self.width > MAX_WIDTH:
            raise ValueError(f"Cylinder: {self} would have {self.width} basis functions, more than {MAX_WIDTH}")

    @property
    def factors(self) -> tuple[Angle, Real]:
        return Angle(), Real()

    @property
    def width(self) -> int:
        return (1 + 2 * self.harmonics) * (1 + self.degree)

    def roughness(self) -> FloatArray:
        """Mean squared second derivatives in each coordinate, over the circle and N(0, 1); 1 and s have none."""
        around, along = harmonic_gram, power_gram
        return kronecker(around(self.harmonics, 2), along(self.degree)) + kronecker(
            around(self.harmonics), along(self.degree, 2)
        )

    def energy(self, decoder: FloatArray) -> dict[str, float]:
        """Mean squared norm of what depends on one coordinate alone and on both: "angle", "height", "both"."""
        orders = np.meshgrid(frequencies(self.harmonics), np.arange(self.degree + 1), indexing="ij")
        gram = kronecker(harmonic_gram(self.harmonics), power_gram(self.degree))
        return part_energy(decoder, gram, angle_parts(("angle", "height"), orders[0].ravel(), orders[1].ravel()))
