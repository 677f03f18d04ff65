"""The common face of atom kinds."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .factors import Angle, Bounded, Factor, Real

FloatArray = NDArray[np.float64]

# How far a grid of real coordinates reaches, in standard deviations of their prior.
REACH = 2.0


class Atom(ABC):
    """Common face of all atom kinds; subclasses are frozen dataclasses whose fields define the basis."""

    kind: ClassVar[str]

    @property
    def factors(self) -> tuple[Factor, ...]:
        """What the chart is a product of, in the order of its coordinates."""
        return ()

    @property
    def dim(self) -> int:
        """Dimension d of the chart: how many degrees of freedom a row has on this atom."""
        return sum(factor.dim for factor in self.factors)

    @property
    def ambient(self) -> int:
        """How many numbers store a point of the chart: d, or more on a curved chart (3 for a unit vector)."""
        return sum(factor.ambient for factor in self.factors)

    @property
    @abstractmethod
    def width(self) -> int:
        """Number M of basis functions, the number of rows of the decoder."""

    @property
    def real_axes(self) -> tuple[int, ...]:
        """Stored coordinates that are real numbers: their prior alone fixes origin and scale."""
        return tuple(axis for axis, factor in self._axes() if isinstance(factor, Real))

    @property
    def has_precisions(self) -> bool:
        """Whether the priors of the coordinates can have precisions (`rho.log_ard`)."""
        return all(isinstance(factor, (Angle, Real)) for factor in self.factors)

    @property
    def is_closed(self) -> bool:
        """Whether every coordinate is an angle, so that a curve over it has no ends."""
        return all(isinstance(factor, Angle) for factor in self.factors)

    def _axes(self) -> list[tuple[int, Factor]]:
        """Each factor with the place of its first stored coordinate."""
        out, axis = [], 0
        for factor in self.factors:
            out.append((axis, factor))
            axis += factor.ambient
        return out

    def wrap(self, coords: FloatArray) -> FloatArray:
        """Bring coordinates (m, ambient) to their canonical range; the decoded points do not change."""
        wrapped = coords.copy()
        for axis, factor in self._axes():
            if isinstance(factor, Angle):
                wrapped[:, axis] = wrap_angles(coords[:, axis], factor.period)
            elif isinstance(factor, Bounded):
                wrapped[:, axis] = np.clip(coords[:, axis], factor.lower, factor.upper)
        return wrapped

    @abstractmethod
    def grid(self, n_points: int) -> FloatArray:
        """Coordinates (n_points, ambient) that cover the atom evenly."""

    def grid_over(self, n_points: int, coords: FloatArray) -> FloatArray:
        """As `grid`, with the real coordinates between the least and the largest of some rows (m, ambient)."""
        grid = self.grid(n_points)
        for axis in self.real_axes if len(coords) else ():
            low, high = grid[:, axis].min(), grid[:, axis].max()
            least, largest = coords[:, axis].min(), coords[:, axis].max()
            share = (grid[:, axis] - low) / (high - low) if high > low else np.full(n_points, 0.5)
            grid[:, axis] = least + share * (largest - least)
        return grid

    def wires(self, coords: FloatArray) -> list[FloatArray]:
        """Lines to draw the atom by, each as coordinates (points, ambient) over the range of some rows (m, ambient).

        Empty where a picture has to do with the points of a grid.
        """
        return []

    @abstractmethod
    def roughness(self) -> FloatArray:
        """Roughness Gram S (M, M): ``tr(B.T @ S @ B)`` is the roughness of the decoder B. Positive semi-definite."""

    @abstractmethod
    def energy(self, decoder: FloatArray) -> dict[str, float]:
        """Mean squared norm of each named part of the decoded set, the constant left out."""

    def spec(self) -> dict[str, Any]:
        """Plain description for the compiled module and for files: the kind and the fields."""
        return {"kind": self.kind, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}}  # type: ignore[arg-type]

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Atom:
        """Rebuild an atom from the fields that `spec` lists."""
        return cls(**fields)

    def _check_whole(self, field: str, least: int, largest: int | None = None) -> None:
        """Refuse a field that is not a whole number in its range; keep it as a plain int.

        A NumPy integer is a fine argument but not a JSON number, and the spec goes into files.
        """
        value: object = getattr(self, field)
        ok = isinstance(value, Integral) and not isinstance(value, bool)
        if not ok or value < least or (largest is not None and value > largest):  # type: ignore[operator]
            bound = f"of at least {least}" if largest is None else f"from {least} to {largest}"
            raise ValueError(f"{type(self).__name__}: {field} must be an integer {bound}, got {value!r}")
        object.__setattr__(self, field, int(value))  # type: ignore[call-overload]


def wrap_angles(angles: FloatArray, period: float) -> FloatArray:
    """Angles in [0, period)."""
    wrapped = np.mod(angles, period)
    # The remainder of a tiny negative angle rounds up to the period itself, which is outside the half-open range.
    wrapped[wrapped >= period] = 0.0
    return wrapped
