"""The factors that charts are products of, as the rest of the package needs to know them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

TURN = 2.0 * np.pi


@dataclass(frozen=True)
class Angle:
    """An angle in [0, period); uniform, or von Mises where it has a precision."""

    period: float = TURN
    dim: ClassVar[int] = 1
    ambient: ClassVar[int] = 1


@dataclass(frozen=True)
class Real:
    """A real number with a Gaussian prior, the standard one where it has no precision of its own."""

    dim: ClassVar[int] = 1
    ambient: ClassVar[int] = 1


@dataclass(frozen=True)
class Bounded:
    """A number in [lower, upper], uniform."""

    lower: float = -1.0
    upper: float = 1.0
    dim: ClassVar[int] = 1
    ambient: ClassVar[int] = 1


@dataclass(frozen=True)
class Direction:
    """A unit 3-vector, uniform; with `antipodal`, t and −t are one point."""

    antipodal: bool = False
    dim: ClassVar[int] = 2
    ambient: ClassVar[int] = 3


@dataclass(frozen=True)
class Choice:
    """One of a few points, counted from 0; uniform."""

    size: int = 2
    dim: ClassVar[int] = 1
    ambient: ClassVar[int] = 1


Factor = Angle | Real | Bounded | Direction | Choice
