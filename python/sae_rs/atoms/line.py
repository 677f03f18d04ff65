"""The line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import FloatArray
from .factors import Real
from .flat import FlatAtom


@dataclass(frozen=True)
class Line(FlatAtom):
    """A straight line: the decoded point is linear in one real coordinate, as in a linear dictionary.

    The basis is ``1, t`` with t standard normal a priori. Nothing on a line is rough: its smoothness strength has no
    effect.
    """

    kind: ClassVar[str] = "line"

    @property
    def factors(self) -> tuple[Real]:
        return (Real(),)

    @property
    def width(self) -> int:
        return 2

    def roughness(self) -> FloatArray:
        """Zero."""
        return np.zeros((2, 2))

    def energy(self, decoder: FloatArray) -> dict[str, float]:
        """Mean squared norm of the linear part over N(0, 1), keyed "linear"."""
        return {"linear": float(decoder[1] @ decoder[1])}
