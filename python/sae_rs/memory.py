"""Memory budget: refuse a fit that cannot fit before anything is allocated for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from numbers import Integral

from .atoms import Atom

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def parse_memory_budget(budget: object) -> int | None:
    """Turn a memory budget into bytes: None, a positive integer, or text such as "500MB" or "2GiB"."""
    if budget is None:
        return None
    if isinstance(budget, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?\s*", budget, flags=re.IGNORECASE)
        size = int(float(match[1]) * UNITS[(match[2] or "").upper()]) if match else 0
    elif isinstance(budget, Integral) and not isinstance(budget, bool):
        size = int(budget)
    else:
        size = 0
    if size < 1:
        raise ValueError(f'memory_budget must be None, a number of bytes or text such as "2GiB", got {budget!r}')
    return size


def estimate_bytes(n_rows: int, n_columns: int, atoms: Sequence[Atom]) -> int:
    """Estimate the peak memory of a fit in bytes, from shapes alone.

    Counted are the data with a copy, what is kept about each row (two states: one and its trial), and a dense matrix
    with its factor and inverse over the decoders or over the rows' variables, whichever are fewer. Decoders count in
    the frame that they span, which has no more directions than there are columns or basis functions. Every row is
    taken to use every atom, so the estimate errs on the side of refusing.
    """
    q = max(len(atoms) - 1, 0) + sum(atom.dim for atom in atoms)
    width = sum(atom.width for atom in atoms)
    rank = min(width, n_columns)
    data = 2 * n_rows * n_columns
    rows = n_rows * (3 * width + 3 * q * q + q * rank)
    dense = min(width * rank, n_rows * q)
    vectors = 12 * (n_rows * q + width * n_columns)
    return 8 * (data + 2 * rows + 3 * dense**2 + vectors)


def check_memory(budget: object, n_rows: int, n_columns: int, atoms: Sequence[Atom]) -> None:
    """Refuse a fit whose estimate exceeds the budget, before anything is allocated for it."""
    size = parse_memory_budget(budget)
    if size is None:
        return
    estimate = estimate_bytes(n_rows, n_columns, atoms)
    if estimate > size:
        raise ValueError(
            f"the fit of {n_rows} x {n_columns} values by {len(atoms)} atoms needs about {format_bytes(estimate)},"
            f" over memory_budget={budget!r} ({format_bytes(size)})"
        )


def format_bytes(size: int) -> str:
    """Write a number of bytes in the largest binary unit that keeps it above one."""
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024.0 and len(units) > 1:
        value /= 1024.0
        units.pop(0)
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.1f} {units[0]}"
