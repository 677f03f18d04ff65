"""The circle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import FloatArray
from .factors import TURN, Angle
from .flat import FlatAtom, harmonic_gram


@dataclass(frozen=True)
class Circle(FlatAtom):
    """A closed curve: the decoded point is a trigonometric polynomial of one angle.

    The basis is ``1, cos t, sin t, ..., cos Ht, sin Ht`` with t in radians, period 2π.

    Parameters
    ----------
    harmonics : int, default 3
        H, the highest harmonic. One harmonic draws an ellipse; more let the curve bend out of its plane.

    Raises
    ------
    ValueError
        When `harmonics` is not an integer of at least 1.
    """

    harmonics: int = 3
    kind: ClassVar[str] = "circle"

    def __post_init__(self) -> None:
        self._check_whole("harmonics", 1)

    @property
    def factors(self) -> tuple[Angle]:
        return (Angle(),)

    @property
    def width(self) -> int:
        return 1 + 2 * self.harmonics

    def grid(self, n_points: int) -> FloatArray:
        """Evenly spaced angles (n_points, 1) in [0, 2π); the end is left out because it is the start."""
        return np.linspace(0.0, TURN, n_points, endpoint=False).reshape(-1, 1)

    def roughness(self) -> FloatArray:
        """Mean squared second derivative over the circle: diag(0, h⁴/2, h⁴/2 for each harmonic h)."""
        return harmonic_gram(self.harmonics, 2)

    def energy(self, decoder: FloatArray) -> dict[str, float]:
        """Mean squared norm of each harmonic over the circle, keyed "h1", "h2", ..."""
        rows = 0.5 * np.einsum("mp,mp->m", decoder[1:], decoder[1:])
        return {f"h{h}": float(rows[2 * h - 2] + rows[2 * h - 1]) for h in range(1, self.harmonics + 1)}
