"""A patch of hyperbolic space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .. import _core
from .base import Atom, FloatArray
from .fields import whole_number
from .spread import uniform_points

# Above this a search grid is sparse and a row has more coordinates than its outputs identify.
MAX_DIM = 6
# Half-width of the box that a grid covers, in standard deviations of the coordinates' prior.
REACH = 2.5


@dataclass(frozen=True)
class Poincare(Atom):
    """A surface of d real coordinates that is penalised as if it lay in hyperbolic space.

    The coordinates are a tangent vector at the origin of the Poincaré ball, with a standard normal prior. The basis is their
    monomials to degree two, ``1, t_1, ..., t_d, t_1 t_1, t_1 t_2, ...``; the roughness is the Dirichlet energy in the metric of
    curvature −1, so that it grows with the hyperbolic volume around the origin.

    Parameters
    ----------
    dim : int, default 2
        d.

    Raises
    ------
    ValueError
        When `dim` is not an integer between 1 and 6.
    """

    dim: int = 2
    kind: ClassVar[str] = "poincare"

    def __post_init__(self) -> None:
        object.__setattr__(self, "dim", whole_number("Poincare", "dim", self.dim, 1, MAX_DIM))

    @property
    def width(self) -> int:
        return (self.dim + 1) * (self.dim + 2) // 2

    def wrap(self, coords: FloatArray) -> FloatArray:
        """Coordinates (m, d) as they are."""
        return coords

    def grid(self, n_points: int) -> FloatArray:
        """Points (n_points, d) spread evenly over a box two and a half standard deviations to each side."""
        return uniform_points(n_points, np.full(self.dim, -REACH), np.full(self.dim, REACH))

    def roughness(self) -> FloatArray:
        """Dirichlet energy in the hyperbolic metric, its mean over coordinates uniform on the unit ball."""
        return _core.roughness(self.spec())

    def energy(self, decoder: FloatArray) -> dict[str, float]:
        """Variance of the linear and of the quadratic part over standard normal coordinates."""
        rows = np.einsum("mp,mp->m", decoder, decoder)
        # the variance of t_a t_a is 2, of t_a t_b it is 1
        squares = np.array([2.0 if a == b else 1.0 for a in range(self.dim) for b in range(a, self.dim)])
        linear, quadratic = rows[1 : 1 + self.dim], rows[1 + self.dim :]
        return {"linear": float(linear.sum()), "quadratic": float(squares @ quadratic)}
