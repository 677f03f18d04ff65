"""Frozen routing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from .base import FloatArray, Gate


@dataclass(frozen=True, eq=False)
class FrozenRouting(Gate):
    """Gates that are given and do not move: which atom explains which row is known, its curve is not.

    Parameters
    ----------
    gates : array-like of shape (n, K)
        Gate of every training row on every atom; an atom with gate 0 plays no part in the row.

    Raises
    ------
    ValueError
        When the gates are not a matrix of finite real numbers, or use no atom at all.
    """

    gates: ArrayLike
    kind: ClassVar[str] = "frozen"

    def __post_init__(self) -> None:
        try:
            values: FloatArray = np.array(self.gates, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"FrozenRouting: gates cannot be read as a matrix: {error}") from error
        if values.ndim != 2:
            raise ValueError(f"FrozenRouting: gates must have shape (n, K), got {values.shape}")
        if not np.isfinite(values).all():
            first = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
            raise ValueError(f"FrozenRouting: gates must be finite; entry {first} is {values[first]}")
        unused = np.flatnonzero(~np.any(values != 0.0, axis=0))
        if unused.size:
            raise ValueError(f"FrozenRouting: atom {unused[0]} has gate 0 on every row")
        values.flags.writeable = False
        object.__setattr__(self, "gates", values)

    def fields(self) -> dict[str, Any]:
        """The kind and the gates as lists."""
        return {"kind": self.kind, "gates": self.routing.tolist()}

    def spec(self, n_atoms: int) -> dict[str, Any]:
        """Description for the compiled module, which is given the gates with the first state."""
        return {"kind": self.kind}

    def check(self, n_rows: int, n_atoms: int) -> None:
        """Refuse gates of another shape than the fit's."""
        if self.routing.shape != (n_rows, n_atoms):
            raise ValueError(
                f"FrozenRouting: gates must have shape ({n_rows}, {n_atoms}) for these rows and atoms,"
                f" got {self.routing.shape}"
            )

    @property
    def routing(self) -> FloatArray:
        """The gates."""
        return np.asarray(self.gates, dtype=np.float64)

    def free_logits(self, n_atoms: int) -> int:
        """None."""
        return 0

    @property
    def sparsity_held(self) -> bool:
        """There is no prior for a strength to act on."""
        return True
