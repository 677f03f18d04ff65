"""The projective plane: spherical harmonics of even degree, for which t and -t are one point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..factors import Factor, SphereFactor
from .base import Atom, Generator, Jets, basis_vector_projector, exponents
from .sphere import degrees, harmonic_polynomials, polynomial_jets, rotation_generators, rotation_maps

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ProjectivePlane(Atom):
    """Directions without a sign. The antipodal map moves no point, so no discrete symmetry is left."""

    degree: int = 2
    kind = "projective_plane"
    log_group_volume = float(np.log(8 * np.pi**2))

    @property
    def factors(self) -> tuple[Factor, ...]:
        return (SphereFactor(antipodal=True),)

    @property
    def columns(self) -> NDArray[np.int_]:
        """Places of the even degrees among the harmonics."""
        return np.flatnonzero(degrees(self.degree) % 2 == 0)

    @property
    def width(self) -> int:
        return len(self.columns)

    def jets(self, t: Array, order: int = 2) -> Jets:
        coefficients = harmonic_polynomials(self.degree)[:, self.columns]
        return polynomial_jets(t, exponents(3, self.degree), coefficients, order)

    def roughness(self) -> Array:
        level = degrees(self.degree)[self.columns].astype(float)
        return np.diag((level * (level + 1)) ** 2)

    def null_projector(self) -> Array:
        return basis_vector_projector(self.width, [0])

    def generators(self) -> tuple[Generator, ...]:
        kept = np.ix_(range(3), self.columns, self.columns)
        return rotation_generators(rotation_maps(self.degree)[kept])
