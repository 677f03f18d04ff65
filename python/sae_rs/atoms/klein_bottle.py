"""The Klein bottle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .base import FloatArray, wrap_angles
from .factors import TURN, Angle
from .flat import FlatAtom, angle_parts, frequencies, harmonic_gram, kronecker, part_energy
from .torus import torus_roughness


@dataclass(frozen=True)
class KleinBottle(FlatAtom):
    """A closed surface with one side: a torus on which (θ, φ) and (θ + π, −φ) are one point.

    The basis holds the torus columns that do not tell the two apart, θ slowest: even harmonics of θ with cosines of φ,
    odd ones with sines. Coordinates are stored with θ in [0, π) and φ in [0, 2π).

    Parameters
    ----------
    harmonics : int, default 2
        H, the highest harmonic of either angle, from 2 (one harmonic draws a sphere) to 63.

    Raises
    ------
    ValueError
        When `harmonics` is not an integer in its range.
    """

    harmonics: int = 2
    kind: ClassVar[str] = "klein_bottle"

    def __post_init__(self) -> None:
        self._check_whole("harmonics", 2, 63)

    @property
    def factors(self) -> tuple[Angle, Angle]:
        """θ counts up to π: the bottle has half the area of the torus."""
        return Angle(0.5 * TURN), Angle()

    @property
    def width(self) -> int:
        even, odd = self.harmonics // 2, (self.harmonics + 1) // 2
        return (1 + 2 * even) * (self.harmonics + 1) + 2 * odd * self.harmonics

    def _columns(self) -> NDArray[np.int_]:
        """Places of the basis functions among those of the torus."""
        frequency = frequencies(self.harmonics)
        sine = (np.arange(len(frequency)) % 2 == 0) & (frequency > 0)
        return np.flatnonzero(((frequency % 2 == 1)[:, None] == sine[None, :]).ravel())

    def wrap(self, coords: FloatArray) -> FloatArray:
        """θ in [0, π) and φ in [0, 2π), with φ → −φ for every half turn that is taken off θ."""
        theta, flipped = half_turned(coords[:, 0])
        return np.column_stack([theta, wrap_angles(np.where(flipped, -coords[:, 1], coords[:, 1]), TURN)])

    def roughness(self) -> FloatArray:
        """Mean squared Laplacian in the flat metric."""
        columns = self._columns()
        return torus_roughness(self.harmonics)[np.ix_(columns, columns)]

    def energy(self, decoder: FloatArray) -> dict[str, float]:
        """Mean squared norm of what depends on either angle alone and on both: "theta", "phi", "both"."""
        own, gram, columns = frequencies(self.harmonics), harmonic_gram(self.harmonics), self._columns()
        first, second = (grid.ravel()[columns] for grid in np.meshgrid(own, own, indexing="ij"))
        kept = kronecker(gram, gram)[np.ix_(columns, columns)]
        return part_energy(decoder, kept, angle_parts(("theta", "phi"), first, second))


def half_turned(theta: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Angles in [0, π), and of which of them an odd number of half turns was taken off."""
    half_turn = 0.5 * TURN
    count = np.floor(theta / half_turn)
    rest = theta - count * half_turn
    # what rounds to a whole half turn is one more of them
    whole = (rest < 0.0) | (rest >= half_turn)
    return np.where(whole, 0.0, rest), np.mod(count + whole, 2.0) == 1.0
