"""Duchon splines."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from .. import _core
from .base import FloatArray
from .factors import Real
from .flat import FlatAtom, lattice


@dataclass(frozen=True, repr=False)
class Duchon(FlatAtom):
    """A curve or surface of d real coordinates: a spline with a knot at every centre.

    The coordinates have a standard normal prior, so centres belong within about two units of the origin. The basis is
    polyharmonic kernels at the centres, C − M₀ combinations that no polynomial sees, and then the M₀ monomials of
    degree below
    m = ⌊d/2⌋ + 2: in one dimension the natural cubic spline, in two the thin plate of third derivatives.

    Parameters
    ----------
    centers : array-like of shape (C, d) or (C,), or int, default 10
        The centres; an integer spreads that many on a line as the prior is.

    Raises
    ------
    ValueError
        For centres that are not finite, coincide, are too few for the polynomials, or lie on a set on which a
        polynomial
        vanishes; and for more than six dimensions.
    """

    centers: tuple[tuple[float, ...], ...] | ArrayLike | int = 10
    kind: ClassVar[str] = "duchon"

    def __post_init__(self) -> None:
        value = self.centers
        if isinstance(value, Integral):
            self._check_whole("centers", 3)
            array = normal_points(int(value), 1)
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
        for name, value in (("n_centers", n_centers), ("dim", dim)):
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
                raise ValueError(f"Duchon: {name} must be an integer of at least 1, got {value!r}")
        return cls(normal_points(n_centers, dim))

    @property
    def _array(self) -> FloatArray:
        return np.array(self.centers, dtype=np.float64)

    @property
    def factors(self) -> tuple[Real, ...]:
        return tuple(Real() for _ in range(self._array.shape[1]))

    @property
    def width(self) -> int:
        return len(self._array)

    def __repr__(self) -> str:
        return f"Duchon(dim={self.dim}, width={self.width})"

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


def normal_points(n_points: int, dim: int) -> FloatArray:
    """Points (n_points, dim) spread as the standard normal distribution is."""
    if dim == 1:
        share = (np.arange(n_points, dtype=np.float64) + 0.5).reshape(-1, 1) / n_points
    else:
        share = lattice(n_points, dim)
    points: FloatArray = ndtri(share)
    return points


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
