"""The common face of atom kinds."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class Atom(ABC):
    """Common face of all atom kinds; subclasses are frozen dataclasses whose fields define the basis."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def dim(self) -> int:
        """Dimension d of the chart: how many degrees of freedom a row has on this atom."""

    @property
    def ambient(self) -> int:
        """How many numbers store a point of the chart: d, or more on a curved chart (3 for a unit vector)."""
        return self.dim

    @property
    @abstractmethod
    def width(self) -> int:
        """Number M of basis functions, the number of rows of the decoder."""

    @abstractmethod
    def wrap(self, coords: FloatArray) -> FloatArray:
        """Bring coordinates (m, ambient) to their canonical range; the decoded points do not change."""

    @abstractmethod
    def grid(self, n_points: int) -> FloatArray:
        """Coordinates (n_points, ambient) that cover the atom evenly."""

    @abstractmethod
    def roughness(self) -> FloatArray:
        """Roughness Gram S (M, M): ``tr(B.T @ S @ B)`` is the roughness of the decoder B. Positive semi-definite."""

    @abstractmethod
    def energy(self, decoder: FloatArray) -> dict[str, float]:
        """Mean squared norm of each named part of the decoded set, the constant left out."""

    def spec(self) -> dict[str, Any]:
        """Plain description for the compiled module and for files: the kind and the fields."""
        return {"kind": self.kind, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}}  # type: ignore[arg-type]
