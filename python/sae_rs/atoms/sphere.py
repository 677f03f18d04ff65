"""The sphere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Atom, FloatArray
from .factors import Direction

# Above this a dictionary has a thousand columns an atom, more than any data support.
MAX_DEGREE = 32
# Lines from pole to pole that the surface is drawn by, and points on each.
MERIDIANS, WIRE_POINTS = 24, 121


@dataclass(frozen=True)
class Sphere(Atom):
    """A closed surface: the decoded point is a polynomial of a unit vector in three dimensions.

    The basis is the real spherical harmonics of degree 0 to L, in the order of the degree l and then m = −l..l,
    scaled to
    mean square one over the sphere; degree one is √3 (y, z, x). A coordinate is stored as its unit vector (x, y, z)
    and has
    two degrees of freedom, so there are no poles.

    Parameters
    ----------
    degree : int, default 2
        L. Degree one draws an ellipsoid; more let the surface bend out of its three dimensions.

    Raises
    ------
    ValueError
        When `degree` is not an integer between 1 and 32.
    """

    degree: int = 2
    kind: ClassVar[str] = "sphere"

    def __post_init__(self) -> None:
        self._check_whole("degree", 1, MAX_DEGREE)

    @property
    def factors(self) -> tuple[Direction, ...]:
        return (Direction(),)

    @property
    def width(self) -> int:
        return (self.degree + 1) ** 2

    def wrap(self, coords: FloatArray) -> FloatArray:
        """Unit vectors (m, 3); zero becomes the pole."""
        return unit_vectors(coords)

    def grid(self, n_points: int) -> FloatArray:
        """Unit vectors (n_points, 3) at even distances, on a Fibonacci lattice."""
        return lattice(n_points, -1.0)

    def wires(self, coords: FloatArray) -> list[FloatArray]:
        """Circles of longitude and latitude."""
        return globe(np.pi)

    def roughness(self) -> FloatArray:
        """Mean squared Laplacian over the sphere: (l (l + 1))² on each column of degree l."""
        return np.diag(np.repeat(*degree_roughness(range(self.degree + 1))))

    def energy(self, decoder: FloatArray) -> dict[str, float]:
        """Mean squared norm of each degree over the sphere, keyed "l1", "l2", ..."""
        return degree_energy(range(self.degree + 1), decoder)


def unit_vectors(coords: FloatArray) -> FloatArray:
    """Vectors (m, 3) scaled to length one; zero becomes the pole."""
    length = np.linalg.norm(coords, axis=1, keepdims=True)
    # a vector that has length one to rounding is left as it is, so that bringing one to its form twice changes nothing
    scaled = np.where(
        np.abs(length - 1.0) <= 4.0 * np.finfo(np.float64).eps, coords, coords / np.maximum(length, 1e-300)
    )
    return np.where(length > 0.0, scaled, [0.0, 0.0, 1.0])


def lattice(n_points: int, bottom: float) -> FloatArray:
    """Unit vectors (n_points, 3) with z between `bottom` and 1, evenly spread."""
    i = np.arange(n_points)
    z = 1.0 - (1.0 - bottom) * (i + 0.5) / n_points
    angle = np.pi * (3.0 - np.sqrt(5.0)) * i
    radius = np.sqrt(1.0 - z**2)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle), z])


def globe(deepest: float) -> list[FloatArray]:
    """Meridians and parallels as unit vectors (points, 3), down to an angle `deepest` from the pole."""
    along = np.linspace(0.0, 1.0, WIRE_POINTS)

    def line(colatitude: FloatArray | float, longitude: FloatArray | float) -> FloatArray:
        theta, phi = np.broadcast_arrays(colatitude, longitude)
        return np.column_stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])

    meridians = [line(deepest * along, phi) for phi in np.linspace(0.0, 2.0 * np.pi, MERIDIANS, endpoint=False)]
    steps = round(deepest / np.pi * MERIDIANS / 2)
    parallels = [
        line(deepest * k / steps, 2.0 * np.pi * along) for k in range(1, steps if deepest == np.pi else steps + 1)
    ]
    return meridians + parallels


def degree_roughness(degrees: range) -> tuple[FloatArray, list[int]]:
    """The roughness of a column of each degree, and how many columns it has."""
    order = np.array(degrees, dtype=np.float64)
    return (order * (order + 1.0)) ** 2, [2 * degree + 1 for degree in degrees]


def degree_energy(degrees: range, decoder: FloatArray) -> dict[str, float]:
    """Sum of squares of the decoder's rows of each degree but zero: the columns have mean square one."""
    rows = np.einsum("mp,mp->m", decoder, decoder)
    ends = np.cumsum([2 * degree + 1 for degree in degrees])
    return {
        f"l{degree}": float(rows[end - 2 * degree - 1 : end].sum())
        for degree, end in zip(degrees, ends, strict=True)
        if degree
    }
