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
from ..starts import COARSE_INNER, glance

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# Rows that the atoms of a move are fitted to: a sample of those that they are for.
LOCAL_ROWS = 400
# Seeds and outer iterations of such a fit.
LOCAL_INIT = 2
LOCAL_OUTER = 3
# Inner tolerance of it, and of all that only decides about a move.
LOCAL_TOL = 1e-5
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


@dataclass(frozen=True, eq=False)
class Part:
    """Atoms fitted to some rows, each with what the rows look like to it.

    Attributes
    ----------
    point : Point
        The fit of the sample; its strengths are those of the new atoms.
    coords, logits, support
        State of the rows that the atoms are for.
    """

    atoms: tuple[Atom, ...]
    point: Point
    coords: list[FloatArray]
    logits: FloatArray
    support: BoolArray


def fitted_part(
    like: Search,
    gate: Gate,
    atoms: tuple[Atom, ...],
    rows: NDArray[np.int_],
    targets: FloatArray,
    random_state: int,
    n_init: int = LOCAL_INIT,
) -> Part | None:
    """Fit atoms to what some rows have for them.

    Parameters
    ----------
    like : Search
        Settings, weights and metrics of all rows.
    rows : ndarray of shape (m,), int
        Which of them.
    targets : ndarray of shape (m, p)
        What each of these has for the atoms.

    Returns
    -------
    Part or None
        None when the rows are too few or no start of theirs has a V.
    """
    problem = like.problem
    if problem.weights is not None:
        heavy = problem.weights[rows] > 0.0
        rows, targets = rows[heavy], targets[heavy]
    if len(rows) <= 2 + sum(atom.width for atom in atoms):
        return None
    drawn = np.arange(len(rows))
    if len(rows) > LOCAL_ROWS:
        # in the order of their length, so that the draw follows the data when rows move
        order = np.argsort(np.square(targets).sum(axis=1), kind="stable")
        drawn = order[np.sort(np.random.default_rng(random_state).choice(len(rows), LOCAL_ROWS, replace=False))]
    sample = np.ascontiguousarray(targets[drawn])
    if not np.ptp(sample, axis=0).any():
        return None
    local = replace(
        problem,
        X=sample,
        atoms=atoms,
        gate=gate,
        weights=None if problem.weights is None else problem.weights[rows[drawn]] / problem.weights[rows[drawn]].mean(),
        metric=None if problem.metric is None else np.ascontiguousarray(problem.metric[rows[drawn]]),
        center=False,
    )
    fit = like.on(local).after(like)
    point = quick_start(fit, gate, n_init, random_state)
    like.n_evaluations = fit.n_evaluations
    if not np.isfinite(point.evaluation.value):
        return None
    term = point.evaluation.term
    _, coords, logits, support, _, _ = _core.encode_rows(
        np.ascontiguousarray(targets),
        np.zeros(targets.shape[1]),
        [atom.spec() for atom in atoms],
        gate.spec(len(atoms)),
        term.decoders,
        point.rho,
        evidence=local.evidence,
        column_scores=term.column_scores(point.rho),
        threads=fit.threads,
    )
    return Part(atoms, point, list(coords), np.asarray(logits), np.asarray(support))


def quick_start(fit: Search, gate: Gate, n_init: int, random_state: int) -> Point:
    """The best of the seeds at the strengths they come with, after a few steps of the search.

    The full comparison of starts (`sae_rs.starts.chosen_start`) searches from each; here what it would tell is told by
    the dictionary that a start becomes part of.
    """
    fit.inner_tol = LOCAL_TOL
    found = []
    for term, rho in fit.problem.seeds(n_init, random_state, fit.threads):
        flat = np.array(rho.to_flat())
        if gate.free_logits(len(fit.problem.atoms)):
            flat[0] = gate.sparsity_start(np.asarray(term.logits), np.asarray(term.support))
        found.append(fit.settled(term, fit.admitted(rho.from_flat(flat)), COARSE_INNER))
    best = min(found, key=lambda point: value if np.isfinite(value := float(point.evaluation.value)) else np.inf)
    return glance(fit, best, LOCAL_OUTER)


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
    columns = _columns(state, removed, part, rows)
    place = {kind: j for j, kind in enumerate(kinds)}
    columns.sort(key=lambda column: (place[column.atom], -column.energy))
    problem = replace(state.fit.problem, atoms=tuple(column.atom for column in columns), gate=gate.settled)
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
    before = state.point.rho
    level = float(np.log(np.square(residual(problem, term)).mean()))
    first = gate.exclusive and len(state.atoms) == 1
    rho = _core.SaeManifoldRho(
        gate.sparsity_starts[0] if first else before.log_lambda_sparse,
        # the prior of a decoder stays where it was while the noise level moves
        [column.log_stiffness + level for column in columns],
        [column.precisions for column in columns],
        "per_atom",
        level,
    )
    fit = state.fit.on(problem).after(state.fit)
    return fit, term, fit.admitted(rho)


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
    if part is None:
        return columns
    fitted, strengths = part.point.evaluation.term, part.point.rho
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
        gates = np.asarray(fitted.gates)[:, j]
        points = gates[:, None] * decode_atom(atom, fitted.decoders[j], np.asarray(fitted.coords[j]))
        columns.append(
            _Column(
                atom,
                np.array(fitted.decoders[j]),
                coords,
                column,
                own,
                float(np.square(points).sum(axis=1).mean() * len(rows)),
                float(strengths.log_lambda_smooth[j] - np.log(strengths.dispersion())),
                list(strengths.log_ard[j]),
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
