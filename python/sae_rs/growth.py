"""Dictionaries whose number of atoms the evidence chooses.

The path starts at no atoms. A birth proposes an atom on what the dictionary so far leaves: on the residual of all rows
where a row may use several atoms, on the rows that are explained worst where gates share out a row. It goes on from
the state of the others, and so do deaths, merges of atoms that draw the same set, and exchanges of an atom's kind. Each
is kept when it lowers V. While the dictionary is small, fits from seeds compete: mixtures of which a single atom is a
bad compromise need them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from . import _core
from .atoms import Atom
from .encoding import decode_atom
from .gates import Gate
from .memory import SAMPLE_ABOVE, SAMPLE_ROWS
from .moves import LOCAL_TOL, Part, State, fitted_part, moved, owned, quick_start
from .problem import Problem
from .reml import (
    COARSE_INNER,
    GLANCE_OUTER,
    FitResult,
    begin,
    glance,
    in_frames,
    mean_only,
    refine,
    result_of,
)
from .search import Point, Search
from .stopping import EARLY_ENDS, status_of

FloatArray = NDArray[np.float64]
_Start = tuple[Search, _core.SaeManifoldTerm, _core.SaeManifoldRho]
Candidate = tuple[State, str]

# Fits from seeds compete up to this many atoms.
COLD_ATOMS = 3
# A decision needs V to this many nats, and its search gets at most so many iterations, rounds and refreshes between.
LOOSE_TOL = 0.02
LOOSE_OUTER = 25
LOOSE_ROUNDS, LOOSE_REFRESHES = 4, 3
# Starts of one step from which a search is made, and by how many nats an entry of the data they may lie behind.
MAX_SEARCHED = 2
REACH = 0.01
# A start that is better by this many nats an entry is kept after a few steps of its search.
SURE = 0.002
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
# Beyond this many inner variables of a row for each output V is no longer to be trusted.
MOST_VARIABLES = 1.0 / 3.0
LEAST_VARIABLES = 3.0
# Rounds of births and exchanges; exchanges for each atom there can be.
MAX_CYCLES = 3
MAX_EXCHANGES = 2
# Two atoms draw the same set when points of one lie within this part of their variance of the other.
SAME = 0.05
COMPARED_ROWS, GRID_POINTS, FURTHER = 200, 1000, 3.0


@dataclass(frozen=True)
class GrowthStep:
    """One dictionary that was tried.

    Attributes
    ----------
    kinds : tuple of str
        Kinds of its atoms.
    evidence : float
        Its V in nats where the decision was made: loosely minimised for one that was not kept.
    converged : bool
        Whether its search ended at a small gradient, at the loose tolerance of the path; what shows itself as worse
        before is not searched.
    kept : bool
        Whether the next step went on from it.
    action : {"start", "birth", "death", "merge", "exchange"}
        How it came from the dictionary kept before it.
    explained_variance : float
        Part of the variance of the rows that it explains.
    """

    kinds: tuple[str, ...]
    evidence: float
    converged: bool
    kept: bool
    action: str = "birth"
    explained_variance: float = float("nan")

    @property
    def n_atoms(self) -> int:
        """Number of its atoms."""
        return len(self.kinds)


@dataclass(frozen=True, eq=False)
class Grown:
    """The dictionary of least evidence on the path, with its atoms and the path."""

    result: FitResult
    atoms: tuple[Atom, ...]
    path: tuple[GrowthStep, ...]


def check_growth(evidence: object, rho: object, gate: Gate) -> None:
    """Refuse what a dictionary of unknown size cannot be combined with."""
    if evidence != "laplace":
        raise ValueError(f"n_atoms='auto' needs evidence='laplace', which compares numbers of atoms, got {evidence!r}")
    if rho is not None:
        raise ValueError("n_atoms='auto' needs rho=None: strengths are of a given number of atoms")
    if not gate.ranks_sizes:
        raise ValueError(
            f"n_atoms='auto' needs a gate whose evidence compares numbers of atoms, which {gate.kind!r} does not"
        )
    if gate.routing is not None:
        raise ValueError("n_atoms='auto' cannot be combined with frozen routing, which says how many atoms there are")


def grow(
    like: Search,
    gate: Gate,
    kinds: Sequence[Atom],
    admitted: Callable[[tuple[Atom, ...]], bool],
    max_atoms: int,
    n_init: int,
    random_state: int,
) -> Grown:
    """Let a dictionary grow from no atoms by moves that lower the evidence.

    Parameters
    ----------
    like : Search
        A search of the dictionary without atoms: the rows and all settings.
    gate : Gate
        Gate of a dictionary of any size.
    kinds : sequence of Atom
        Atoms to choose from.
    admitted : callable
        Whether a dictionary may be fitted, for want of rows or memory.
    max_atoms : int
        No dictionary on the path has more atoms.
    n_init, random_state : int
        Seeds of fits from seeds.
    """
    problem = like.problem
    growth = _Growth(like, gate, kinds, admitted, max_atoms, n_init, random_state)
    drawn = problem.sample(SAMPLE_ROWS, random_state) if len(problem.X) > SAMPLE_ABOVE else None
    if drawn is not None:
        small = _Growth(like.on(drawn), gate, kinds, admitted, max_atoms, n_init, random_state)
        small.run()
        growth.take_over(small)
    if growth.ended is None:
        growth.run()
    return growth.finished()


class _Growth:
    """The path and the best dictionary on it; `state` is None while that is the one without atoms."""

    def __init__(
        self,
        like: Search,
        gate: Gate,
        kinds: Sequence[Atom],
        admitted: Callable[[tuple[Atom, ...]], bool],
        max_atoms: int,
        n_init: int,
        random_state: int,
    ) -> None:
        self.like, self.gate, self.kinds, self.admitted = like, gate, tuple(kinds), admitted
        self.max_atoms, self.n_init, self.random_state = max_atoms, n_init, random_state
        problem = like.problem
        self.empty = mean_only(problem.X, problem.weights, problem.center, problem.evidence, None, problem.metric)
        self.state: State | None = None
        # whether the search of `state` came to its end
        self.polished = True
        # all states that were kept, each with the number of kept steps up to it
        self.history: list[tuple[State, int]] = []
        # whether steps are still taken before a search came to its end
        self.hasty = True
        # whether every start of the last step was far behind, which the end of that search would not change
        self.refused = False
        # how it was cut off, None while it was not
        self.ended: str | None = None
        self.path = [GrowthStep((), float(self.empty.value), True, True, "start", 0.0)]

    @property
    def value(self) -> float:
        return self.empty.value if self.state is None else self.state.value

    @property
    def atoms(self) -> tuple[Atom, ...]:
        return () if self.state is None else self.state.atoms

    def run(self) -> None:
        """Births while they help; then exchanges and deaths, and births again where these changed anything."""
        try:
            for _ in range(MAX_CYCLES):
                while self._birth() or self._polish():
                    self._tidy()
                self._polish()
                if not self._exchange():
                    break
                self._tidy()
        except EARLY_ENDS as end:
            self.ended = status_of(end)

    def take_over(self, small: _Growth) -> None:
        """Go on with all rows from the dictionary that a sample of them has grown."""
        self.ended, self.like.n_evaluations = small.ended, small.like.n_evaluations
        if small.state is None:
            self.path += small.path[1:]
            return
        # its values are of the sample: they do not compare with those of all rows
        self.path = [*small.path]
        start: State | None = None
        if self.ended is None:
            try:
                start = self._on_all_rows(small.state)
                self._offer("start", [self._loosely(start.fit, start.point)])
                return
            except EARLY_ENDS as end:
                self.ended = status_of(end)
        # nobody is asked again
        self.like.progress = None
        best = None if start is None else start.fit.so_far()
        end_of_sample = self._on_all_rows(small.state) if start is None or best is None else State(start.fit, best)
        self._offer("start", [(end_of_sample, self.ended)])

    def _on_all_rows(self, state: State) -> State:
        """The dictionary of a sample with all rows encoded by its decoders, loosely converged."""
        problem = replace(state.fit.problem, **_rows_of(self.like.problem))
        fit = self.like.on(problem).after(self.like)
        term = problem.encoded(state.term, state.point.rho, fit.threads)
        term = term.with_decoder_ranks(state.term.decoder_ranks)
        return State(fit, fit.coarse(term, state.point.rho, COARSE_INNER))

    def finished(self) -> Grown:
        """The best dictionary, searched to the tolerance of the fit unless that was stopped."""
        while self.state is not None:
            state = self.state
            fit = self.like.on(state.fit.problem).after(self.like)
            if self.ended is None:
                fit.stand(state.point)
                try:
                    status = refine(fit, state.point)
                except EARLY_ENDS as end:
                    status = self.ended = fit.cut_off(end)
            else:
                fit.best, status = state.point, self.ended
            self.like.n_evaluations = fit.n_evaluations
            result = result_of(fit, status)
            last = max(j for j, step in enumerate(self.path) if step.kept)
            self.path[last] = replace(self.path[last], evidence=float(result.value), converged=result.converged)
            if self.ended is not None or result.value < self._before:
                return Grown(result, state.atoms, tuple(self.path))
            # the loose end of a search had hidden that this dictionary is none better
            self._go_back()
        result = self.empty if self.ended is None else self.empty.cut_off(self.ended)
        return Grown(result, (), tuple(self.path))

    # Moves -----------------------------------------------------------------------------------------------------------

    def _birth(self) -> bool:
        """Try one atom more, in every way and of every kind."""
        if len(self.atoms) >= self.max_atoms:
            return False
        larger = [self._arranged((*self.atoms, kind)) for kind in self.kinds]
        larger = [atoms for atoms in larger if self.admitted(atoms)]
        if not larger:
            return False
        seeded = [partial(self._seeded, atoms) for atoms in larger]
        if self.state is None:
            return self._settle_and_offer("birth", [partial(self._first, atoms) for atoms in larger])
        if self._settle_and_offer("birth", self._proposals(self.state)):
            if not self.gate.exclusive and len(self.atoms) <= COLD_ATOMS:
                # what shares a row with others is seldom one atom at first: seeds of all of them may do better
                self._settle_and_offer("birth", [partial(self._seeded, self.atoms)], hasty=False)
            return True
        if not self.polished:
            return False
        # seeds see what no single birth shows: atoms that help only together with another arrangement of the others
        return len(self.atoms) < COLD_ATOMS and self._settle_and_offer("birth", seeded, hasty=False)

    def _proposals(self, state: State) -> Sequence[Callable[[], _Start | None]]:
        """Births from the residual of a dictionary, and where gates share out rows also splits of its worst atom."""
        left = state.residual()
        energy = np.square(left).sum(axis=1)
        if not self.gate.exclusive:
            rows = np.arange(len(left))
            out = [partial(self._replaced, state, (), (kind,), rows, left) for kind in self.kinds]
            for k in mixed(state, energy)[:MAX_MIXED]:
                both = left + state.contribution(k)
                pairs = dict.fromkeys(self._arranged((state.atoms[k], kind)) for kind in self.kinds)
                out += [partial(self._replaced, state, (k,), pair, rows, both) for pair in pairs]
            return out
        owner = np.asarray(state.term.gates).argmax(axis=1)
        rows, worst = unexplained(energy, owner, len(state.atoms))
        targets = (state.fit.problem.rows - np.asarray(state.term.mean))[rows]
        out = [partial(self._replaced, state, (), (kind,), rows, targets) for kind in self.kinds]
        theirs, parts = owned(state, [worst])
        pairs = dict.fromkeys(self._arranged((state.atoms[worst], kind)) for kind in self.kinds)
        return [*out, *(partial(self._replaced, state, (worst,), pair, theirs, parts) for pair in pairs)]

    def _tidy(self) -> bool:
        """Merge atoms that draw the same set, and drop those that are hardly used, while that lowers the evidence."""
        changed = False
        while self.state is not None:
            state = self.state
            merges = [
                partial(self._replaced, state, pair, (state.atoms[pair[0]],), *owned(state, pair))
                for pair in duplicates(state)
            ]
            if merges and self._settle_and_offer("merge", merges):
                changed = True
                continue
            weak = self._weak(state) if len(state.atoms) > 1 else []
            if weak and self._settle_and_offer("death", [partial(self._without, state, k) for k in weak]):
                changed = True
                continue
            break
        return changed

    def _weak(self, state: State) -> list[int]:
        """Atoms that carry so little that the model may be better off without."""
        energy = np.array([np.square(state.contribution(k)).sum() for k in range(len(state.atoms))])
        rows = np.asarray(state.term.support).sum(axis=0)
        few = rows < WEAK_SHARE * rows.sum() / len(rows)
        return [
            int(k)
            for k in np.argsort(energy, kind="stable")[:MAX_DEATHS]
            if few[k] or energy[k] < WEAK_SHARE * energy.mean()
        ]

    def _exchange(self) -> bool:
        """Try other kinds in the place of every atom, those that its own rows speak for; deaths of the least."""
        changed = False
        k = 0
        while self.state is not None and len(self.kinds) > 1 and k < len(self.state.atoms):
            state, own = self.state, self.state.atoms[k]
            rows, targets = owned(state, [k])
            found = {kind: self._part((kind,), rows, targets) for kind in self.kinds}
            bar = found[own]
            better = [
                (float(part.point.evaluation.value), part)
                for kind, part in found.items()
                if part is not None
                and kind != own
                and (bar is None or float(part.point.evaluation.value) < float(bar.point.evaluation.value))
            ]
            better.sort(key=lambda pair: pair[0])
            if self._settle_and_offer(
                "exchange", [partial(self._moved, state, (k,), part, rows) for _, part in better]
            ):
                # atoms of the new dictionary stand in another order
                changed, k = True, 0
                if sum(step.action == "exchange" and step.kept for step in self.path) > MAX_EXCHANGES * self.max_atoms:
                    break
                continue
            k += 1
        return changed

    # Candidates ------------------------------------------------------------------------------------------------------

    def _arranged(self, atoms: tuple[Atom, ...]) -> tuple[Atom, ...]:
        return tuple(sorted(atoms, key=self.kinds.index))

    def _part(self, atoms: tuple[Atom, ...], rows: NDArray[np.int_], targets: FloatArray) -> Part | None:
        gate = self.gate.sized(len(atoms)).settled
        return fitted_part(self.like, gate, atoms, rows, targets, self.random_state)

    def _replaced(
        self, state: State, removed: Sequence[int], atoms: tuple[Atom, ...], rows: NDArray[np.int_], targets: FloatArray
    ) -> _Start | None:
        """Fit atoms to what some rows have for them, and put them in the place of others."""
        part = self._part(atoms, rows, targets)
        return None if part is None else self._moved(state, removed, part, rows)

    def _without(self, state: State, k: int) -> _Start | None:
        return self._moved(state, (k,), None, np.zeros(0, dtype=np.int_))

    def _moved(self, state: State, removed: Sequence[int], part: Part | None, rows: NDArray[np.int_]) -> _Start | None:
        n_atoms = len(state.atoms) - len(removed) + (0 if part is None else len(part.atoms))
        atoms = (*(a for k, a in enumerate(state.atoms) if k not in removed), *(part.atoms if part else ()))
        if not self.admitted(atoms):
            return None
        return moved(state, self.gate.sized(n_atoms), self.kinds, removed, part, rows)

    def _seeded(self, atoms: tuple[Atom, ...]) -> State:
        """A dictionary started from seeds."""
        gate = self.gate.sized(len(atoms))
        fit = self.like.on(replace(self.like.problem, atoms=atoms, gate=gate.settled)).after(self.like)
        self._loosen(fit)
        point = begin(fit, gate, None, self.n_init, self.random_state)
        return self._at(fit, settled(fit, point.evaluation.term, point.rho))

    def _first(self, atoms: tuple[Atom, ...]) -> State:
        """One atom from the seeds of all rows."""
        gate = self.gate.sized(len(atoms)).settled
        fit = self.like.on(replace(self.like.problem, atoms=atoms, gate=gate)).after(self.like)
        self._loosen(fit)
        point = quick_start(fit, gate, self.n_init, self.random_state)
        return self._at(fit, settled(fit, point.evaluation.term, point.rho))

    def _settled(self, start: _Start) -> State:
        """The start of a move, its supports refreshed and its inner variables loosely converged."""
        fit, term, rho = start
        self._loosen(fit)
        fit.n_evaluations = fit.n_before = self.like.n_evaluations
        return self._at(fit, settled(fit, term, rho))

    def _at(self, fit: Search, point: Point) -> State:
        self.like.n_evaluations = fit.n_evaluations
        return State(fit, point)

    def _settle_and_offer(
        self, action: str, proposals: Sequence[Callable[[], State | _Start | None]], hasty: bool = True
    ) -> bool:
        """Settle the starts of some moves, search from the best of them, and keep its end when V has fallen."""
        starts: list[State] = []
        for proposal in proposals:
            start = proposal()
            if start is None:
                continue
            starts.append(start if isinstance(start, State) else self._settled(start))
            if not trusted(starts[-1]):
                self._record(starts.pop(), action, False, False)
        starts.sort(key=lambda state: state.value if np.isfinite(state.value) else np.inf)
        plain = self.value - SURE * self.like.n_rows * self.like.n_outputs
        if action == "birth" and hasty and self.hasty and starts and starts[0].value < plain:
            for state in starts[1:]:
                self._record(state, action, False, False)
            self._keep(self._glanced(starts[0]), action, False)
            self.polished = False
            return True
        reach = self.value + REACH * self.like.n_rows * self.like.n_outputs
        if not self.polished and hasty and starts and starts[0].value < reach:
            # what is neither plainly better nor worse is weighed against the dictionary at its best
            return False
        self.refused = not starts or not starts[0].value < reach
        searched = [state for state in starts[:MAX_SEARCHED] if state.value < reach]
        for state in starts[len(searched) :]:
            self._record(state, action, False, False)
        for j, state in enumerate(searched):
            state.fit.n_evaluations = state.fit.n_before = self.like.n_evaluations
            if self._offer(action, [self._loosely(state.fit, in_frames(state.fit, state.point))]):
                for other in searched[j + 1 :]:
                    self._record(other, action, False, False, at=len(self.path) - 1)
                return True
        return False

    def _glanced(self, state: State) -> State:
        """A few steps of the search: what is plainly better goes on without its end."""
        fit = state.fit
        fit.n_evaluations = fit.n_before = self.like.n_evaluations
        point = glance(fit, in_frames(fit, state.point), GLANCE_OUTER)
        point = settled(fit, point.evaluation.term, point.rho)
        self.like.n_evaluations = fit.n_evaluations
        self.refused = False
        return State(fit, point) if point.evaluation.value < state.value else state

    def _polish(self) -> bool:
        """Search to the end of what was kept without; False when that was done before."""
        if self.polished or self.state is None:
            return False
        fit = self.like.on(self.state.fit.problem).after(self.like)
        self.polished = True
        state, status = self._loosely(fit, self.state.point)
        last = max(j for j, step in enumerate(self.path) if step.kept)
        self.path[last] = replace(self.path[last], evidence=state.value, converged=status == "converged")
        self.state = state
        self.history[-1] = (state, self.history[-1][1])
        if not state.value < self._before:
            # what was plainly better in passing may be none better in the end
            self.hasty = False
            self._go_back()
        return True

    @property
    def _before(self) -> float:
        """Value of the dictionary kept before the last one."""
        return self.history[-2][0].value if len(self.history) > 1 else self.empty.value

    def _go_back(self) -> None:
        """To the dictionary kept before the last one."""
        self.history.pop()
        self.state, n_kept = self.history[-1] if self.history else (None, 1)
        kept = [j for j, step in enumerate(self.path) if step.kept]
        self.polished = self.state is None or self.path[kept[n_kept - 1]].converged
        for j in kept[n_kept:]:
            self.path[j] = replace(self.path[j], kept=False)

    def _loosen(self, fit: Search) -> None:
        fit.inner_tol = LOCAL_TOL
        fit.max_rounds, fit.max_refreshes = LOOSE_ROUNDS, LOOSE_REFRESHES
        fit.tol, fit.max_outer = max(fit.tol, LOOSE_TOL), min(fit.max_outer, LOOSE_OUTER)

    def _loosely(self, fit: Search, point: Point) -> Candidate:
        """Search from a point as far as a decision needs."""
        self._loosen(fit)
        status = refine(fit, point)
        end = point if fit.best is None else fit.best
        if fit.support_changes:
            # the search was cut off between supports: V of the old ones says nothing
            end = settled(fit, end.evaluation.term, end.rho)
        self.like.n_evaluations = fit.n_evaluations
        return State(fit, end), status

    def _offer(self, action: str, candidates: list[Candidate]) -> bool:
        """Keep the best of some candidates when it is better than the dictionary before."""
        state, status = min(candidates, key=lambda candidate: (not trusted(candidate[0]), candidate[0].value))
        better = bool(state.value < self.value) and trusted(state)
        for own, end in candidates:
            if own is not state:
                self._record(own, action, end == "converged", False)
        self._record(state, action, status == "converged", better)
        if better:
            self.state, self.polished = state, True
            self.history.append((state, sum(step.kept for step in self.path)))
        return better

    def _keep(self, state: State, action: str, converged: bool) -> None:
        self._record(state, action, converged, True)
        self.state = state
        self.history.append((state, sum(step.kept for step in self.path)))

    def _record(self, state: State, action: str, converged: bool, kept: bool, at: int | None = None) -> None:
        step = GrowthStep(
            tuple(atom.kind for atom in state.atoms),
            state.value,
            converged,
            bool(kept),
            action,
            state.explained_variance,
        )
        self.path.insert(len(self.path) if at is None else at, step)


def _rows_of(problem: Problem) -> dict[str, Any]:
    return {"X": problem.X, "weights": problem.weights, "metric": problem.metric}


def settled(fit: Search, term: _core.SaeManifoldTerm, rho: _core.SaeManifoldRho) -> Point:
    """A loosely converged V that compares: its supports suit its strengths, and these lie above the floor of those."""
    return fit.above_floor(fit.settled(term, rho, COARSE_INNER))


def trusted(state: State) -> bool:
    """Whether rows have few enough variables for a Laplace approximation."""
    term, problem = state.term, state.fit.problem
    support = np.asarray(term.support)
    logits = np.maximum(support.sum(axis=1) - problem.gate.exclusive, 0)
    variables = float((support @ np.array([atom.dim for atom in state.atoms]) + logits).mean())
    return bool(variables <= max(MOST_VARIABLES * problem.X.shape[1], LEAST_VARIABLES))


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
