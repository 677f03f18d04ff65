"""The common face of gates, and the checks of their parameters."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class Gate(ABC):
    """Common face of all gates; subclasses are frozen dataclasses."""

    kind: ClassVar[str]

    @abstractmethod
    def spec(self, n_atoms: int) -> dict[str, Any]:
        """Description for the compiled module: kind, fields and the arrays that depend on the number of atoms."""

    def fields(self) -> dict[str, Any]:
        """Plain description for files: the kind and the fields."""
        return {"kind": self.kind, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}}  # type: ignore[arg-type]

    def check(self, n_rows: int, n_atoms: int) -> None:
        """Refuse a fit of so many rows and atoms that the gate does not suit; most suit all."""
        self.spec(n_atoms)

    def sized(self, n_atoms: int) -> Gate:
        """The gate of a dictionary of so many atoms, where a larger one was meant."""
        return self

    @property
    def routing(self) -> FloatArray | None:
        """Gates (n, K) that are given; None where they are found."""
        return None

    def stages(self) -> Iterator[Gate]:
        """The gates that the rounds of a fit are made with, the fit's own last; more than one where it is annealed."""
        yield self

    @property
    def settled(self) -> Gate:
        """The gate of the last round."""
        return self

    def carried(self, logits: FloatArray, before: Gate) -> FloatArray:
        """Logits (n, K) with the gates that `logits` have under the gate of the round before."""
        return logits

    def free_logits(self, n_atoms: int) -> int:
        """How many logits of a row are free."""
        return n_atoms

    def closes(self, n_atoms: int) -> bool:
        """Whether a closed gate has a mass, so that a fit holds of a row what it uses."""
        return False

    def most_active(self, n_atoms: int) -> int:
        """How many atoms a row may use."""
        return n_atoms

    @property
    def exclusive(self) -> bool:
        """Whether the gates of a row share it out, so that what one atom takes another has to give."""
        return False

    @property
    def ranks_sizes(self) -> bool:
        """Whether the prior has its normaliser, so that evidences of different numbers of atoms can be compared."""
        return True

    @property
    def sparsity_starts(self) -> tuple[float, ...]:
        """Values of ``log_lambda_sparse`` from which a search may start, the sparsest first."""
        return (0.0,)

    @property
    def sparsity_detours(self) -> tuple[float, ...]:
        """How far from its start V is looked for, nearest first, where it does not exist at the start itself."""
        return ()

    def sparsity_start(self, logits: FloatArray, support: NDArray[np.bool_]) -> float:
        """Value of ``log_lambda_sparse`` at which a search from a seed starts, given its logits and support (n, K)."""
        return self.sparsity_starts[0]

    def sparsity_ceiling(self, n_atoms: int) -> float:
        """The largest ``log_lambda_sparse`` at which the normaliser of the prior can be trusted."""
        return np.inf

    @property
    def sparsity_held(self) -> bool:
        """Whether the sparsity strength is no free entry of a search, because V has no optimum in it."""
        return False


def positive(owner: str, name: str, value: object) -> float:
    """Check a positive finite parameter.

    Raises
    ------
    ValueError
        When it is not one; the message names `owner` and `name`.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0.0 < float(value) < np.inf:
        raise ValueError(f"{owner}: {name} must be a positive finite number, got {value!r}")
    return float(value)


def atom_indices(owner: str, name: str, value: object) -> tuple[int, ...]:
    """Check a collection of different atom indices; whether the dictionary has these atoms shows when it is fitted."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise ValueError(f"{owner}: {name} must be a tuple of atom indices, got {value!r}")
    for k in value:
        if isinstance(k, bool) or not isinstance(k, Integral) or k < 0:
            raise ValueError(f"{owner}: {name} must hold integers of at least 0, got {k!r}")
    indices = tuple(sorted(int(k) for k in value))
    if len(set(indices)) != len(indices):
        raise ValueError(f"{owner}: {name} names an atom twice: {value!r}")
    return indices
