"""The finite set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .base import Atom, FloatArray
from .factors import Choice

# Above this every row would look at more points than a dictionary has columns.
MAX_SIZE = 1024


@dataclass(frozen=True)
class FiniteSet(Atom):
    """A few separate points: a row that uses the atom lies at one of them.

    The basis is one-hot, so a row of the decoder is a point. The coordinate is the number of the point, counted from
    0; which
    one a row takes costs ln(size) nats a priori. There is no roughness, and a smoothness strength has no effect.

    Parameters
    ----------
    size : int, default 2
        Number of points.

    Raises
    ------
    ValueError
        When `size` is not an integer between 2 and 1024.
    """

    size: int = 2
    kind: ClassVar[str] = "finite_set"

    def __post_init__(self) -> None:
        self._check_whole("size", 2, MAX_SIZE)

    @property
    def factors(self) -> tuple[Choice, ...]:
        return (Choice(self.size),)

    @property
    def width(self) -> int:
        return self.size

    def wrap(self, coords: FloatArray) -> FloatArray:
        """The numbers (m, 1) of the points."""
        return np.clip(np.round(coords), 0.0, self.size - 1.0)

    def grid(self, n_points: int) -> FloatArray:
        """The points (n_points, 1) in turn."""
        return (np.arange(n_points, dtype=np.float64) % self.size).reshape(-1, 1)

    def roughness(self) -> FloatArray:
        """Zero."""
        return np.zeros((self.size, self.size))

    def energy(self, decoder: FloatArray) -> dict[str, float]:
        """Variance of the points."""
        return {"points": float(decoder.var(axis=0).sum())}
