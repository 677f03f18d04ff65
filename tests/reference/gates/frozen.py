"""Frozen routing: the gates are given, and nothing about them is free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Gate, Mask

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Frozen(Gate):
    """The logits of a state hold the gates themselves."""

    kind = "frozen"

    def n_free(self, n_atoms: int) -> int:
        return 0

    def labels(self, n_atoms: int) -> list[int]:
        """Given gates say which atom is which."""
        return list(range(n_atoms))

    def jets(self, logits: Array, support: Mask, log_strength: float) -> tuple[Array, Array, Array]:
        n_atoms = len(logits)
        return logits * support, np.zeros((n_atoms, 0)), np.zeros((n_atoms, 0, 0))

    def spec(self, n_atoms: int) -> dict[str, Any]:
        return {"kind": self.kind}
