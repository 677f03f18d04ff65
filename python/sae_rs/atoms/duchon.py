"""Duchon splines."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from .. import _core
from .base import Atom, FloatArray
from .fields import whole_number
from .spread import normal_points, uniform_points


@dataclass(frozen=True)
class Duchon(Atom):
    """A curve or surface of d real coordinates: a spline with a knot at every centre.

    The coordinates have a standard normal prior, so centres belong within about two units of the origin. The basis is
    polyharmonic kernels at the centres, C − M₀ combinations that no polynomial sees, and then the M₀ monomials of degree below
    m = ⌊d/2⌋ + 2: in one dimension the natural cubic spline, in two the thin plate of third derivatives.

    Parameters
    ----------
    centers : array-like of shape (C, d) or (C,), or int, default 10
        The centres; an integer spreads that many on a line as the prior is.

    Raises
    ------
    ValueError
        For centres that are not finite, coincide, are too few for the polynomials, or lie on a set on which a polynomial
        vanishes; and for more than six dimensions.
    """

    centers: tuple[tuple[float, ...], ...] | ArrayLike | int = 10
    kind: ClassVar[str] = "duchon"

    def __post_init__(self) -> None:
        value = self.centers
        if isinstance(value, Integral):
            array = normal_points(whole_number("Duchon", "centers", value, 3), 1)
        else:
            array = _as_centers(value)
        # tuples, so that equal atoms compare and hash alike
        object.__setattr__(self, "centers", tuple(tuple(map(float, row)) for row in array))
        try:
            _core.roughness(self.spec())
        except ValueError as error:
            raise ValueError(f"Duchon: {error}") from None

    @classmethod
    def spread(cls, n_centers: int, dim: int = 1) -> Duchon:
        """A spline with `n_centers` centres in `dim` dimensions, spread as the standard normal prior is."""
        n_centers = whole_number("Duchon", "n_centers", n_centers, 1)
        return cls(normal_points(n_centers, whole_number("Duchon", "dim", dim, 1)))

    @property
    def _array(self) -> FloatArray:
        return np.array(self.centers, dtype=np.float64)

    @property
    def dim(self) -> int:
        return int(self._array.shape[1])

    @property
    def width(self) -> int:
        return len(self._array)

    def wrap(self, coords: FloatArray) -> FloatArray:
        """Coordinates (m, d) as they are."""
        return coords

    def grid(self, n_points: int) -> FloatArray:
        """Points (n_points, d) spread evenly over the box around the centres."""
        return uniform_points(n_points, self._array.min(axis=0), self._array.max(axis=0))

    def roughness(self) -> FloatArray:
        """Energy of the kernels, scaled to a unit mean diagonal; zero on the polynomials."""
        return _core.roughness(self.spec())

    def energy(self, decoder: FloatArray) -> dict[str, float]:
        """Variance over the centres of the part that bends and of the polynomial part."""
        basis = _core.basis(self.spec(), self._array)
        kernels = int(np.linalg.matrix_rank(self.roughness()))
        parts = {"bending": slice(0, kernels), "polynomial": slice(kernels, None)}
        decoded = {name: basis[:, part] @ decoder[part] for name, part in parts.items()}
        return {name: float(points.var(axis=0).sum()) for name, points in decoded.items()}


def _as_centers(value: object) -> FloatArray:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Duchon: centers cannot be read as an array: {error}") from None
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"Duchon: centers must have shape (C, d), got {array.shape}")
    return array
