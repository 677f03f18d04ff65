"""Memory budget: refuse a fit that cannot fit before anything is allocated for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any

from . import _core
from .atoms import Atom
from .gates import Gate, Softmax

# With more rows than this a sample of the next size is fitted first: it finds the atoms and their strengths, and what
# is left for all rows is a few evaluations.
SAMPLE_ABOVE = 16384
SAMPLE_ROWS = 4096
# Both are of dictionaries of up to so many atoms, each of which then has 64 rows to itself; larger ones take as many
# times more.
SAMPLED_ATOMS = 64
# What a fit takes whatever its size: stacks of threads, buffers of the libraries.
LIBRARY_BYTES = 6 << 20
# Arrays smaller than this are cut from memory that allocators keep when they are freed, and that has gaps: so much more
# than what is alive at once is then resident.
RETURNED_FROM = 32 << 20
RETAINED = 1.25
# Squares of the smaller side of the rows that their principal directions take: moments, eigenvectors, work.
SEED_SQUARES = 5

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


def sample_scale(n_atoms: int) -> int:
    """By what `SAMPLE_ROWS` and `SAMPLE_ABOVE` are multiplied for so many atoms."""
    return max(1, -(-n_atoms // SAMPLED_ATOMS))


def is_crowded(n_columns: int, atoms: Sequence[Atom], gate: Gate) -> bool:
    """Whether a row cannot use most of the atoms, under a gate that can be closed.

    The columns cannot tell even half of them, each with its coordinates and its gate, or there are more than
    `SAMPLED_ATOMS`, where one look at rows of all takes longer than a search. Weak sparsity, where rows use as many
    atoms as they can, is not tried then.
    """
    if not gate.closes(len(atoms)):
        return False
    return len(atoms) > SAMPLED_ATOMS or sum(atom.dim + 1 for atom in atoms) > 2 * n_columns


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


@dataclass(frozen=True)
class MemoryPlan:
    """What a fit will hold.

    Attributes
    ----------
    keep_rows : bool
        Whether linearised rows are kept between passes, or made anew in each to save memory.
    bytes : int
        Estimated peak beyond the caller's own data.
    """

    keep_rows: bool
    bytes: int


def plan_rows(
    n_rows: int,
    n_columns: int,
    atoms: Sequence[Atom],
    gate: Gate,
    *,
    active: float,
    tied: bool,
    copies: int = 1,
    budget: int | None = None,
    evidence: str = "laplace",
) -> MemoryPlan:
    """Plan a fit of rows of which each uses so many atoms on average.

    Parameters
    ----------
    active : float
        Atoms that a row uses.
    tied : bool
        Whether rows use atoms together, so that all decoders are eliminated as one.
    copies : int
        Copies of the rows that the fit makes; 0 where they stay in a file.
    budget : int or None
        Bytes that may be used.
    evidence : str
        The criterion.
    """
    compact = evidence == "laplace" and gate.closes(len(atoms))
    # what a row has of its logits is the widest of the arrays that are made again and again
    factor = RETAINED if 8 * n_rows * (active if compact else len(atoms)) < RETURNED_FROM else 1.0
    data = 8 * copies * n_rows * n_columns
    held = data if data >= RETURNED_FROM else 0
    plan = partial(
        _core.plan,
        n_rows,
        n_columns,
        atom_widths=[atom.width for atom in atoms],
        atom_dims=[atom.dim for atom in atoms],
        atom_ambients=[atom.ambient for atom in atoms],
        free_logits=gate.free_logits(len(atoms)),
        active=active,
        tied=tied,
        compact=compact,
        copies=copies,
    )
    held += _returned_with_systems(plan())
    found = plan(memory_budget=None if budget is None else max(int((budget - LIBRARY_BYTES - held) / factor) + held, 0))
    core = int(found["bytes"])
    return MemoryPlan(bool(found["keep_rows"]), LIBRARY_BYTES + held + int(factor * (core - held)))


def _returned_with_systems(found: dict[str, Any]) -> int:
    """Bytes of the dense system of a plan, its factor and its inverse, where they are returned when they are freed."""
    system = 8 * int(found["dense_size"]) ** 2
    return 3 * system if found["elimination"] != "stochastic" and system >= RETURNED_FROM else 0


def seed_bytes(n_rows: int, n_columns: int, copies: int) -> int:
    """Estimate the peak memory of the seeds, which look at the principal directions of centred rows."""
    squares = SEED_SQUARES * min(n_rows, n_columns) ** 2
    return LIBRARY_BYTES + 8 * ((copies + 1) * n_rows * n_columns + squares)


def plan_fit(
    n_rows: int,
    n_columns: int,
    atoms: Sequence[Atom],
    gate: Gate,
    *,
    copies: int = 1,
    budget: int | None = None,
    evidence: str = "laplace",
) -> MemoryPlan:
    """Plan a fit from shapes alone.

    Up to `SAMPLE_ABOVE` rows, more of many atoms, weak sparsity is tried on all of them, where every row uses as many
    atoms as the gate allows. Of more rows a sample is fitted in that way, and all of them are planned again when it has
    shown how many atoms a row uses: here with one. So are rows of a crowded dictionary, by their start.
    """
    crowded = is_crowded(n_columns, atoms, gate)
    most = 1.0 if crowded else float(gate.most_active(len(atoms)))
    plan = partial(plan_rows, n_columns=n_columns, atoms=atoms, gate=gate, budget=budget, evidence=evidence)
    scale = sample_scale(len(atoms))
    if n_rows <= scale * SAMPLE_ABOVE:
        whole = plan(n_rows, active=most, tied=crowded or most > 1.0, copies=copies)
        return MemoryPlan(whole.keep_rows, max(whole.bytes, seed_bytes(n_rows, n_columns, copies)))
    sample = plan(scale * SAMPLE_ROWS, active=most, tied=crowded or most > 1.0, copies=2)
    whole = plan(n_rows, active=min(most, 1.0), tied=crowded, copies=copies)
    # the core copies all rows when the sample has been fitted; what is not float64 has been widened by then
    beside = max(copies - 1, 0) * 8 * n_rows * n_columns
    seeds = seed_bytes(scale * SAMPLE_ROWS, n_columns, 2)
    return MemoryPlan(whole.keep_rows, max(max(sample.bytes, seeds) + beside, whole.bytes))


def estimate_bytes(n_rows: int, n_columns: int, atoms: Sequence[Atom], gate: Gate | None = None) -> int:
    """Estimate the peak memory of a fit in bytes beyond the caller's data, from shapes alone."""
    return plan_fit(n_rows, n_columns, atoms, Softmax() if gate is None else gate).bytes


def check_memory(
    budget: object,
    n_rows: int,
    n_columns: int,
    atoms: Sequence[Atom],
    gate: Gate | None = None,
    *,
    copies: int = 1,
    evidence: str = "laplace",
) -> MemoryPlan:
    """Plan a fit within a budget; refuse one that exceeds it, before anything is allocated for it."""
    size = parse_memory_budget(budget)
    gate = Softmax() if gate is None else gate
    plan = plan_fit(n_rows, n_columns, atoms, gate, copies=copies, budget=size, evidence=evidence)
    refuse_over(budget, plan, n_rows, n_columns, len(atoms))
    return plan


def refuse_over(budget: object, plan: MemoryPlan, n_rows: int, n_columns: int, n_atoms: int) -> None:
    """Refuse a plan whose bytes exceed the budget."""
    size = parse_memory_budget(budget)
    if size is not None and plan.bytes > size:
        raise ValueError(
            f"the fit of {n_rows} x {n_columns} values by {n_atoms} atoms needs about {format_bytes(plan.bytes)},"
            f" over memory_budget={budget!r} ({format_bytes(size)})"
        )


def format_bytes(size: int) -> str:
    """Write a number of bytes in the largest binary unit that keeps it above one."""
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024.0 and len(units) > 1:
        value /= 1024.0
        units.pop(0)
    return f"{value:.0f} B" if units[0] == "B" else f"{value:.1f} {units[0]}"
