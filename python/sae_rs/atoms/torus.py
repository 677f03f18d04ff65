"""The torus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import FloatArray
from .factors import Angle
from .flat import FlatAtom, angle_parts, frequencies, harmonic_gram, kronecker, part_energy


@dataclass(frozen=True)
class Torus(FlatAtom):
    """A surface closed in two directions: the decoded point is a trigonometric polynomial of two angles.

    The basis holds every product of a function of the first angle with one of the second, each of ``1, cos t, sin t,
    ..., cos Ht, sin Ht``, the first angle slowest.

    Parameters
    ----------
    harmonics : int, default 2
        H, the highest harmonic of either angle, at most 44.

    Raises
    ------
    ValueError
        When `harmonics` is not an integer in its range.
    """

    harmonics: int = 2
    kind: ClassVar[str] = "torus"

    def __post_init__(self) -> None:
        self._check_whole("harmonics", 1, 44)

    @property
    def factors(self) -> tuple[Angle, Angle]:
        return Angle(), Angle()

    @property
    def width(self) -> int:
        return (1 + 2 * self.harmonics) ** 2

    def roughness(self) -> FloatArray:
        """Mean squared Laplacian of the flat torus: ``(k² + l²)²`` times the mean square, for frequencies k and l."""
        return torus_roughness(self.harmonics)

    def energy(self, decoder: FloatArray) -> dict[str, float]:
        """Mean squared norm of what depends on either angle alone and on both: "first", "second", "both"."""
        own, gram = frequencies(self.harmonics), harmonic_gram(self.harmonics)
        first, second = (grid.ravel() for grid in np.meshgrid(own, own, indexing="ij"))
        return part_energy(decoder, kronecker(gram, gram), angle_parts(("first", "second"), first, second))


def torus_roughness(harmonics: int) -> FloatArray:
    """Mean squared Laplacian: ``E (∂₁² f)² + 2 E (∂₁ ∂₂ f)² + E (∂₂² f)²``."""
    plain, once, twice = (harmonic_gram(harmonics, order) for order in range(3))
    return kronecker(twice, plain) + 2.0 * kronecker(once, once) + kronecker(plain, twice)
