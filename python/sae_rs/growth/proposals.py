"""Which moves of a dictionary are worth a trial.

What is cheap to see in a fitted dictionary decides: rows that nothing explains, atoms whose use goes with what is left
over, pairs that draw the same points, atoms that are hardly used, kinds that suit an atom's own rows better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import permutations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ..atoms import Atom
from ..encoding import decode_atom
from .moves import State, owned
from .parts import Local
from .room import roomy
from .starts import Starts

FloatArray = NDArray[np.float64]
Proposal = Callable[[], State | None]
"""Makes the start of a move; None where it cannot be made."""

# A birth is fitted to the rows whose residual is so many deviations above the noise, or where those are too few to the
# rows that hold this part of the residual.
OUTLYING = 5.0
LEAST_ROWS = 30
WORST_SHARE = 0.5
# An atom may be dropped when its use is below this part of the mean; so many are tried at a time.
WEAK_SHARE = 0.3
MAX_DEATHS = 3
# Atoms that are fitted anew together with one that is born, where rows use several.
MAX_MIXED = 1
# Two atoms draw the same set when points of one lie within this part of their variance of the other.
SAME = 0.05
COMPARED_ROWS, GRID_POINTS, FURTHER = 200, 1000, 3.0


@dataclass(frozen=True, eq=False)
class Proposals:
    """Moves from a fitted dictionary."""

    starts: Starts

    def births(self, state: State) -> Sequence[Proposal]:
        """Births from the residual of a dictionary, and new atoms together with one that they may be mixed up with."""
        return self._shared_births(state) if state.fit.problem.gate.exclusive else self._overlapping_births(state)

    def _overlapping_births(self, state: State) -> Sequence[Proposal]:
        """An atom on the residual of all rows; or two, on what it and the atom most mixed with it have to explain."""
        rules = self.starts.rules
        left = state.residual()
        rows = np.arange(len(left))
        out: list[Proposal] = [partial(self._born, state, (kind,), rows, left) for kind in rules.kinds]
        for k in mixed(state, np.square(left).sum(axis=1))[:MAX_MIXED]:
            both = left + state.contribution(k)
            pairs = dict.fromkeys(rules.arranged((state.atoms[k], kind)) for kind in rules.kinds)
            alone = cache(partial(self.starts.standing, state, k, both))
            out += [partial(self._born_beside, state, k, alone, pair, rows, both) for pair in pairs]
        return out

    def _born(self, state: State, atoms: tuple[Atom, ...], rows: NDArray[np.int_], targets: FloatArray) -> State | None:
        """A dictionary with one atom more, if a sample of the rows speaks for it."""
        found = self.starts.local(atoms, rows, targets)
        if found is None or not found.gain > 0.0:
            return None
        return self.starts.moved(state, (), found.part(targets), rows)

    def _born_beside(
        self,
        state: State,
        k: int,
        alone: Callable[[], Local | None],
        pair: tuple[Atom, ...],
        rows: NDArray[np.int_],
        targets: FloatArray,
    ) -> State | None:
        """A dictionary with two atoms in the place of one, if a sample of the rows speaks for the second."""
        found, bar = self.starts.local(pair, rows, targets), alone()
        if found is None or (bar is not None and not found.value < bar.value):
            return None
        return self.starts.moved(state, (k,), found.part(targets), rows)

    def _shared_births(self, state: State) -> Sequence[Proposal]:
        """An atom on the rows that none explains; or two, on the rows of the atom that leaves most."""
        rules = self.starts.rules
        energy = np.square(state.residual()).sum(axis=1)
        owner = np.asarray(state.term.gates).argmax(axis=1)
        rows, worst = unexplained(energy, owner, len(state.atoms))
        targets = (state.fit.problem.rows - np.asarray(state.term.mean))[rows]
        out = [partial(self.starts.replaced, state, (), (kind,), rows, targets) for kind in rules.kinds]
        theirs, parts = owned(state, [worst])
        pairs = dict.fromkeys(rules.arranged((state.atoms[worst], kind)) for kind in rules.kinds)
        return [*out, *(partial(self.starts.replaced, state, (worst,), pair, theirs, parts) for pair in pairs)]

    def merges(self, state: State) -> Sequence[Proposal]:
        """One atom in the place of two that draw the same set."""
        return [
            partial(self.starts.replaced, state, pair, (state.atoms[pair[0]],), *owned(state, pair))
            for pair in duplicates(state)
        ]

    def deaths(self, state: State) -> Sequence[Proposal]:
        """The dictionary less one of those atoms that it may be better off without."""
        return [partial(self.starts.without, state, k) for k in weak(state)] if len(state.atoms) > 1 else []

    def exchanges(self, state: State, k: int) -> Sequence[Proposal]:
        """Other kinds in the place of an atom, those that its own rows speak for, the best first."""
        rows, targets = owned(state, [k])
        others = [kind for kind in self.starts.rules.kinds if kind != state.atoms[k]]
        others = roomy(others, targets, self.starts.like.threads)
        if not others:
            return []
        found = {kind: self.starts.local((kind,), rows, targets) for kind in (state.atoms[k], *others)}
        bar = found[state.atoms[k]]
        better = [
            local
            for kind, local in found.items()
            if local is not None and kind != state.atoms[k] and (bar is None or local.value < bar.value)
        ]
        better.sort(key=lambda local: local.value)
        return [partial(self._exchanged, state, k, local, rows, targets) for local in better]

    def _exchanged(
        self, state: State, k: int, local: Local, rows: NDArray[np.int_], targets: FloatArray
    ) -> State | None:
        return self.starts.moved(state, (k,), local.part(targets), rows)


def weak(state: State) -> list[int]:
    """Atoms that carry so little that the model may be better off without."""
    energy = np.array([np.square(state.contribution(k)).sum() for k in range(len(state.atoms))])
    rows = np.asarray(state.term.support).sum(axis=0)
    few = rows < WEAK_SHARE * rows.sum() / len(rows)
    return [
        int(k)
        for k in np.argsort(energy, kind="stable")[:MAX_DEATHS]
        if few[k] or energy[k] < WEAK_SHARE * energy.mean()
    ]


def unexplained(energy: FloatArray, owner: NDArray[np.int_], n_atoms: int) -> tuple[NDArray[np.int_], int]:
    """Rows that no atom explains, and the atom whose rows have most left over.

    What is noise is read off the atom that explains its rows best.

    Parameters
    ----------
    energy : ndarray of shape (n,)
        Squared residual of each row.
    owner : ndarray of shape (n,), int
        The atom that each row belongs to.
    """
    count = np.bincount(owner, minlength=n_atoms)
    median = np.array([np.median(energy[owner == k]) if count[k] >= LEAST_ROWS else np.inf for k in range(n_atoms)])
    best = int(median.argmin())
    floor = float(median[best]) if np.isfinite(median[best]) else float(np.median(energy))
    own = energy[owner == best] if np.isfinite(median[best]) else energy
    width = 1.5 * float(np.median(np.abs(own - floor)))
    worst = int(np.bincount(owner, weights=energy - floor, minlength=n_atoms).argmax())
    rows = np.flatnonzero(energy > floor + OUTLYING * width)
    if len(rows) < LEAST_ROWS:
        order = np.argsort(-energy, kind="stable")
        enough = int(np.searchsorted(np.cumsum(energy[order]), WORST_SHARE * energy.sum()))
        rows = np.sort(order[: max(enough, min(LEAST_ROWS, len(order) // 2))])
    return rows, worst


def mixed(state: State, energy: FloatArray) -> list[int]:
    """Atoms in the order in which their energies go with what rows have left over.

    An atom that draws parts of several sets leaves most where it is used most, or least where the others are.
    """
    own = [np.square(state.contribution(k)).sum(axis=1) for k in range(len(state.atoms))]
    ties = [abs(float(np.corrcoef(part, energy)[0, 1])) if np.ptp(part) > 0.0 else 0.0 for part in own]
    return [int(k) for k in np.argsort(ties, kind="stable")[::-1]]


def duplicates(state: State) -> list[tuple[int, int]]:
    """Pairs of atoms of one kind, of which one draws the points that rows have on the other."""
    found = []
    term, atoms = state.term, state.atoms
    for i, j in permutations(range(len(atoms)), 2):
        if atoms[i] != atoms[j] or (j, i) in found:
            continue
        rows = np.flatnonzero(np.asarray(term.support)[:, j])
        rows = rows[:: max(1, len(rows) // COMPARED_ROWS)]
        if len(rows) < 2:
            continue
        points = decode_atom(atoms[j], term.decoders[j], np.asarray(term.coords[j])[rows])
        # a line is drawn as far as the rows of both need it
        used = np.asarray(term.coords[i])[np.asarray(term.support)[:, i]]
        grid = atoms[i].grid_over(GRID_POINTS, FURTHER * used)
        drawn = decode_atom(atoms[i], term.decoders[i], grid)
        nearest = cKDTree(drawn).query(points)[0]
        spread = np.square(points - points.mean(axis=0)).sum(axis=1).mean()
        if np.square(nearest).mean() < SAME * spread:
            found.append((i, j))
    return found
