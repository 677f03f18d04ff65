"""The projective plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Atom, FloatArray
from .factors import Direction
from .sphere import MAX_DEGREE, degree_energy, degree_roughness, globe, lattice, unit_vectors


@dataclass(frozen=True)
class ProjectivePlane(Atom):
    """A surface of undirected axes: the decoded point is an even polynomial of a unit vector, the same at t and −t.

    The basis is the spherical harmonics of even degree 0, 2, ..., L, as `Sphere` has them. A coordinate is stored as
    the one
    of its two unit vectors with z > 0.

    Parameters
    ----------
    degree : int, default 2
        L, even. Degree two draws a linear image of the Veronese surface, which needs five dimensions.

    Raises
    ------
    ValueError
        When `degree` is not an even integer between 2 and 32.
    """

    degree: int = 2
    kind: ClassVar[str] = "projective_plane"

    def __post_init__(self) -> None:
        self._check_whole("degree", 2, MAX_DEGREE)
        if self.degree % 2:
            raise ValueError(f"ProjectivePlane: degree must be even, got {self.degree}")

    @property
    def factors(self) -> tuple[Direction, ...]:
        return (Direction(antipodal=True),)

    @property
    def _degrees(self) -> range:
        return range(0, self.degree + 1, 2)

    @property
    def width(self) -> int:
        return (self.degree + 1) * (self.degree + 2) // 2

    def wrap(self, coords: FloatArray) -> FloatArray:
        """Unit vectors (m, 3): of t and −t the one with z > 0, on the equator with y > 0, and then with x > 0."""
        wrapped = unit_vectors(coords)
        x, y, z = wrapped.T
        leading = np.where(z != 0.0, z, np.where(y != 0.0, y, x))
        return np.where(leading[:, None] < 0.0, -wrapped, wrapped)

    def grid(self, n_points: int) -> FloatArray:
        """Unit vectors (n_points, 3) with z > 0 at even distances, on a Fibonacci lattice."""
        return lattice(n_points, 0.0)

    def wires(self, coords: FloatArray) -> list[FloatArray]:
        """Circles of longitude and latitude of the half with z > 0."""
        return globe(0.5 * np.pi)

    def roughness(self) -> FloatArray:
        """Mean squared Laplacian: (l (l + 1))² on each column of degree l."""
        return np.diag(np.repeat(*degree_roughness(self._degrees)))

    def energy(self, decoder: FloatArray) -> dict[str, float]:
        """Mean squared norm of each degree, keyed "l2", "l4", ..."""
        return degree_energy(self._degrees, decoder)
