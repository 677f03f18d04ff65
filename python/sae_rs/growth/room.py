"""Which kinds have room in the directions that rows take up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..atoms import Atom
from ..atoms.factors import Angle, Direction

FloatArray = NDArray[np.float64]

# Columns for each direction of a set from which on those that are left are enough to tell noise from it.
NOISE_SHARE = 2


def directions(kind: Atom) -> int:
    """How many directions a set of a kind takes up at least: one more than it has dimensions where it has no end."""
    endless = all(isinstance(factor, (Angle, Direction)) for factor in kind.factors)
    return kind.dim + endless


def roomy(kinds: Sequence[Atom], rows: FloatArray, threads: int | None) -> list[Atom]:
    """Those kinds that the directions in which rows (m, p) stand out from noise have room for.

    All of them where rows have too few columns to show what is noise, none where there are no rows.
    """
    if len(rows) == 0:
        return []
    most = max(directions(kind) for kind in kinds)
    if rows.shape[1] < NOISE_SHARE * most:
        return list(kinds)
    found = _core.independent_groups(np.ascontiguousarray(rows), most=most, threads=threads)
    there = 0 if found is None else len(found[1])
    return [kind for kind in kinds if directions(kind) <= there]
