"""A patch of hyperbolic space."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from .. import _core
from .base import FloatArray
from .factors import Real
from .flat import FlatAtom
from .patch import Patch

# Above this a row has more coordinates than its outputs identify.
MAX_DIM = 6


@dataclass(frozen=True)
class Poincare(FlatAtom):
    """A surface of d real coordinates that is penalised as if it lay in hyperbolic space.

    The coordinates are a tangent vector at the origin of the Poincaré ball, with a standard normal prior. The basis
    is their
    monomials to degree two, ``1, t_1, ..., t_d, t_1 t_1, t_1 t_2, ...``; the roughness is the Dirichlet energy in the
    metric of
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

    # a field here; other kinds derive it from their factors
    dim: int = field(default=2)
    kind: ClassVar[str] = "poincare"

    def __post_init__(self) -> None:
        self._check_whole("dim", 1, MAX_DIM)

    @property
    def factors(self) -> tuple[Real, ...]:
        return (Real(),) * self.dim

    @property
    def width(self) -> int:
        return (self.dim + 1) * (self.dim + 2) // 2

    def roughness(self) -> FloatArray:
        """Dirichlet energy in the hyperbolic metric, its mean over coordinates uniform on the unit ball."""
        return _core.roughness(self.spec())

    def energy(self, decoder: FloatArray) -> dict[str, float]:
        """Mean squared norm of the linear and of the quadratic part over N(0, I), without its own mean."""
        return Patch(self.dim, 2).energy(decoder)
