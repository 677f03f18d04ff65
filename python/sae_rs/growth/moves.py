"""Moves between dictionaries: some atoms of a fitted one are taken out, others, fitted to what is then left, put in.

A birth puts one in, a death takes one out, a split puts two in the place of one, a merge one in the place of two, an
exchange one of another kind. What stays keeps its decoder, and its gates and coordinates on every row; so a move costs
a small fit and an encoding, and its dictionary starts close to where it settles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..atoms import Atom
from ..encoding import decode_atom
from ..gates import Gate
from ..problem import Problem
from ..search import Point, Search
from .parts import Part

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# How far apart logits lie between an atom that a row takes up and the others.
GAP = 4.0
# A row belongs to the atom that has more than this share of it, where gates share out a row.
OWNED = 0.5


@dataclass(frozen=True, eq=False)
class State:
    """A fitted dictionary of at least one atom.

    Attributes
    ----------
    point : Point
        Its state and strengths.
    fit : Search
        The search that it ended.
    """

    fit: Search
    point: Point

    @property
    def atoms(self) -> tuple[Atom, ...]:
        return tuple(self.fit.problem.atoms)

    @property
    def term(self) -> _core.SaeManifoldTerm:
        return self.point.evaluation.term

    @property
    def value(self) -> float:
        return float(self.point.evaluation.value)

    def contribution(self, k: int) -> FloatArray:
        """What atom `k` adds to each row (n, p)."""
        return contribution(self.fit.problem, self.term, k)

    def residual(self) -> FloatArray:
        """Rows less their reconstruction (n, p)."""
        return residual(self.fit.problem, self.term)

    @property
    def explained_variance(self) -> float:
        """Part of the variance of the rows about the mean that is explained."""
        problem = self.fit.problem
        weights = np.ones(len(problem.rows)) if problem.weights is None else problem.weights
        total = weights @ np.square(problem.rows - np.average(problem.rows, axis=0, weights=weights)).sum(axis=1)
        return 1.0 - float(weights @ np.square(self.residual()).sum(axis=1) / total)


def owned(state: State, removed: Sequence[int]) -> tuple[NDArray[np.int_], FloatArray]:
    """The rows that use some atoms, and what each of them would have for others in their place."""
    gates = np.asarray(state.term.gates)[:, list(removed)].sum(axis=1)
    exclusive = state.fit.problem.gate.exclusive
    rows = np.flatnonzero(gates > OWNED if exclusive else gates > 0.0)
    targets = state.residual()[rows]
    for k in removed:
        targets += state.contribution(k)[rows]
    return rows, targets / gates[rows, None] if exclusive else targets


def moved(
    state: State,
    gate: Gate,
    kinds: Sequence[Atom],
    removed: Sequence[int],
    part: Part | None,
    rows: NDArray[np.int_],
) -> tuple[Search, _core.SaeManifoldTerm, _core.SaeManifoldRho]:
    """A dictionary with `part` in the place of the atoms `removed`: its search, and where that starts.

    Parameters
    ----------
    gate : Gate
        Of the new dictionary.
    kinds : sequence of Atom
        Atoms stand in this order, of one kind in the order of their energy: the same dictionary is then the same
        problem whatever way it was found.
    rows : ndarray of shape (m,), int
        The rows of `part`.
    """
    before = state.point.rho
    first = gate.exclusive and len(state.atoms) == 1
    sparsity = gate.sparsity_starts[0] if first else before.log_lambda_sparse
    columns = _columns(state, removed, part, rows)
    fit, term, rho = _assembled(state.fit, gate, kinds, columns, sparsity)
    return fit, term, fit.admitted(rho)


def joined(
    like: Search, gate: Gate, kinds: Sequence[Atom], parts: Sequence[Part]
) -> tuple[Search, _core.SaeManifoldTerm, _core.SaeManifoldRho]:
    """A dictionary of some parts, each with the state of all rows: its search, and where that starts.

    For gates that do not share out a row.
    """
    n_rows = len(like.problem.rows)
    rows = np.arange(n_rows)
    columns = [column for part in parts for column in _new_columns(part, rows, np.zeros((n_rows, 0)), False)]
    fit, term, rho = _assembled(like, gate, kinds, columns, 0.0)
    flat = np.array(rho.to_flat())
    flat[0] = gate.sparsity_start(np.asarray(term.logits), np.asarray(term.support))
    return fit, term, fit.admitted(rho.from_flat(flat))


def _assembled(
    like: Search, gate: Gate, kinds: Sequence[Atom], columns: list[_Column], log_sparsity: float
) -> tuple[Search, _core.SaeManifoldTerm, _core.SaeManifoldRho]:
    """A dictionary of some atoms with their states, and strengths that suit it."""
    place = {kind: j for j, kind in enumerate(kinds)}
    columns = sorted(columns, key=lambda column: (place[column.atom], -column.energy))
    problem = replace(like.problem, atoms=tuple(column.atom for column in columns), gate=gate.settled)
    logits = np.column_stack([column.logits for column in columns])
    support = np.column_stack([column.support for column in columns])
    if gate.exclusive:
        lost = np.flatnonzero(~support.any(axis=1))
        support[lost, logits[lost].argmax(axis=1)] = True
        logits = logits - logits[:, -1:]
    term = problem.at_state(
        np.ascontiguousarray(logits),
        [column.coords for column in columns],
        [column.decoder for column in columns],
        support,
    )
    level = float(np.log(np.square(residual(problem, term)).mean()))
    rho = _core.SaeManifoldRho(
        log_sparsity,
        # the prior of a decoder stays where it was while the noise level moves
        [column.log_stiffness + level for column in columns],
        [column.precisions for column in columns],
        "per_atom",
        level,
    )
    return like.on(problem).after(like), term, rho


@dataclass(frozen=True, eq=False)
class _Column:
    """One atom of a dictionary in the making, with its state on every row."""

    atom: Atom
    decoder: FloatArray
    coords: FloatArray
    logits: FloatArray
    support: BoolArray
    energy: float
    # ln λ/φ
    log_stiffness: float
    precisions: list[float]


def _columns(state: State, removed: Sequence[int], part: Part | None, rows: NDArray[np.int_]) -> list[_Column]:
    term, rho, exclusive = state.term, state.point.rho, state.fit.problem.gate.exclusive
    logits, support = np.array(term.logits), np.array(term.support)
    taken = np.zeros(len(logits), dtype=bool)
    if part is not None and exclusive:
        taken[rows] = True
    columns = [
        _Column(
            atom,
            np.array(term.decoders[k]),
            np.array(term.coords[k]),
            logits[:, k],
            # where a row is shared out it goes over to the new atoms whole
            support[:, k] & ~taken,
            float(np.square(state.contribution(k)).sum()),
            float(rho.log_lambda_smooth[k] - np.log(rho.dispersion())),
            list(rho.log_ard[k]),
        )
        for k, atom in enumerate(state.atoms)
        if k not in removed
    ]
    return columns if part is None else [*columns, *_new_columns(part, rows, logits, exclusive)]


def _new_columns(part: Part, rows: NDArray[np.int_], logits: FloatArray, exclusive: bool) -> list[_Column]:
    """The atoms of a part on all rows, of which it has seen some; `logits` (n, K) are those of the other atoms."""
    columns = []
    for j, atom in enumerate(part.atoms):
        coords = np.tile(part.coords[j][:1], (len(logits), 1))
        coords[rows] = part.coords[j]
        own = np.zeros(len(logits), dtype=bool)
        own[rows] = part.support[:, j]
        if exclusive:
            top = logits.max(axis=1)
            column = top - GAP
            column[rows] = top[rows] + GAP + part.logits[:, j] - part.logits.max(axis=1)
        else:
            closed = part.logits[:, j][~part.support[:, j]]
            column = np.full(
                len(logits), float(np.median(closed)) if len(closed) else float(part.logits[:, j].min()) - GAP
            )
            column[rows] = part.logits[:, j]
        columns.append(
            _Column(
                atom,
                part.decoders[j],
                coords,
                column,
                own,
                part.energies[j] * len(rows),
                part.log_stiffness[j],
                part.precisions[j],
            )
        )
    return columns


def residual(problem: Problem, term: _core.SaeManifoldTerm) -> FloatArray:
    """Rows less their reconstruction (n, p)."""
    out: FloatArray = problem.rows - np.asarray(term.mean)
    for k in range(len(problem.atoms)):
        out -= contribution(problem, term, k)
    return out


def contribution(problem: Problem, term: _core.SaeManifoldTerm, k: int) -> FloatArray:
    """What atom `k` adds to each row (n, p)."""
    gates = np.asarray(term.gates)[:, k]
    out = np.zeros(problem.rows.shape)
    used = np.flatnonzero(gates)
    out[used] = gates[used, None] * decode_atom(problem.atoms[k], term.decoders[k], np.asarray(term.coords[k])[used])
    return out
