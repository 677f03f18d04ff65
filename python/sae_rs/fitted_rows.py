"""Which of the training rows a fit sees, and how the others come back into its results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from .atoms import Atom
from .encoding import Encoding, wrap_coords
from .gates import Gate
from .rows import FileRows

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FittedRows:
    """The rows of positive weight.

    Attributes
    ----------
    values : ndarray of shape (m, p)
        The rows themselves.
    weights : ndarray of shape (m,) or None
        Their weights, of mean 1; None when all are equal.
    used : ndarray of shape (n,), bool, or None
        Which of all rows they are; None when they are all.
    """

    values: FloatArray | FileRows
    weights: FloatArray | None
    used: NDArray[np.bool_] | None

    @classmethod
    def of(cls, values: FloatArray | FileRows, weights: FloatArray | None, gate: Gate) -> FittedRows:
        """The rows (n, p) that weigh anything; all of them where gates are given row by row."""
        if weights is None or gate.routing is not None or np.all(weights > 0.0):
            return cls(values, weights, None)
        used = weights > 0.0
        own = weights[used] / weights[used].mean()
        return cls(np.ascontiguousarray(values[used]), None if np.all(own == own[0]) else own, used)

    def part(self, values: FloatArray | None) -> FloatArray | None:
        """The entries of an array over all rows that belong to these."""
        return values if values is None or self.used is None else np.ascontiguousarray(values[self.used])

    def all_rows(
        self,
        term: _core.SaeManifoldTerm,
        atoms: Sequence[Atom],
        values: FloatArray | FileRows,
        encode: Callable[[FloatArray], Encoding],
    ) -> tuple[FloatArray, FloatArray, NDArray[np.bool_], list[FloatArray]]:
        """Gates, logits, support and coordinates of all rows: fitted ones from `term`, the others encoded."""
        gates, logits = np.array(term.gates), np.array(term.logits)
        support, coords = np.array(term.support), wrap_coords(atoms, term.coords)
        if self.used is None:
            return gates, logits, support, coords
        others = encode(np.ascontiguousarray(values[~self.used]))

        used = self.used

        def merged(fitted: NDArray[Any], encoded: NDArray[Any]) -> NDArray[Any]:
            out = np.empty((len(values), fitted.shape[1]), dtype=fitted.dtype)
            out[used], out[~used] = fitted, encoded
            return out

        return (
            merged(gates, others.gates),
            merged(logits, others.logits),
            merged(support, others.support),
            [merged(own, other) for own, other in zip(coords, others.coords, strict=True)],
        )
