"""The circle."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar

import numpy as np

from .base import Atom, FloatArray


@dataclass(frozen=True)
class Circle(Atom):
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
        value: object = self.harmonics
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise ValueError(f"Circle: harmonics must be an integer of at least 1, got {value!r}")
        # A NumPy integer is a fine argument but not a JSON number, and the spec goes into files.
        object.__setattr__(self, "harmonics", int(value))

    @property
    def dim(self) -> int:
        return 1

    @property
    def width(self) -> int:
        return 1 + 2 * self.harmonics

    def wrap(self, coords: FloatArray) -> FloatArray:
        """Angles (m, 1) in [0, 2π)."""
        wrapped = np.mod(coords, 2.0 * np.pi)
        # The remainder of a tiny negative angle rounds up to the period itself, which is outside the half-open range.
        wrapped[wrapped >= 2.0 * np.pi] = 0.0
        return wrapped

    def grid(self, n_points: int) -> FloatArray:
        """Evenly spaced angles (n_points, 1) in [0, 2π); the end is left out because it is the start."""
        return np.linspace(0.0, 2.0 * np.pi, n_points, endpoint=False).reshape(-1, 1)

    def roughness(self) -> FloatArray:
        """Mean squared second derivative over the circle: diag(0, h⁴/2, h⁴/2 for each harmonic h)."""
        order = np.arange(1, self.harmonics + 1, dtype=np.float64)
        return np.diag(np.concatenate([[0.0], np.repeat(0.5 * order**4, 2)]))

    def energy(self, decoder: FloatArray) -> dict[str, float]:
        """Mean squared norm of each harmonic over the circle, keyed "h1", "h2", ..."""
        rows = 0.5 * np.einsum("mp,mp->m", decoder[1:], decoder[1:])
        return {f"h{h}": float(rows[2 * h - 2] + rows[2 * h - 1]) for h in range(1, self.harmonics + 1)}
