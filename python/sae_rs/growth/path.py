"""The dictionaries that were tried, and which of them the next step goes on from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..atoms import Atom
from ..reml import FitResult
from .decisions import Candidate, trusted
from .moves import State


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
    action : {"start", "grouping", "birth", "death", "merge", "exchange"}
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


class Path:
    """The steps and the best dictionary on them.

    Attributes
    ----------
    empty : FitResult
        The model without atoms, from which the path starts.
    state : State or None
        The dictionary kept last; None while that is the one without atoms.
    polished : bool
        Whether the search of `state` came to its end.
    history : list of (State, int)
        All states that were kept, each with the number of kept steps up to it.
    steps : list of GrowthStep
        All dictionaries that were tried.
    """

    def __init__(self, empty: FitResult) -> None:
        self.empty = empty
        self.state: State | None = None
        self.polished = True
        self.history: list[tuple[State, int]] = []
        self.steps = [GrowthStep((), float(empty.value), True, True, "start", 0.0)]

    @property
    def value(self) -> float:
        """V of the dictionary kept last."""
        return self.empty.value if self.state is None else self.state.value

    @property
    def before(self) -> float:
        """V of the dictionary kept before the last one."""
        return self.history[-2][0].value if len(self.history) > 1 else self.empty.value

    @property
    def atoms(self) -> tuple[Atom, ...]:
        """Atoms of the dictionary kept last."""
        return () if self.state is None else self.state.atoms

    def n_kept(self, action: str) -> int:
        """How many steps of one action were kept."""
        return sum(step.kept and step.action == action for step in self.steps)

    def offer(self, action: str, candidates: Sequence[Candidate]) -> bool:
        """Keep the best of some candidates when it is better than the dictionary before."""
        state, status = min(candidates, key=lambda candidate: (not trusted(candidate[0]), candidate[0].value))
        for own, end in candidates:
            if own is not state:
                self.record(own, action, end == "converged")
        better = bool(state.value < self.value) and trusted(state)
        if better:
            self.keep(state, action, status == "converged", polished=True)
        else:
            self.record(state, action, status == "converged")
        return better

    def keep(self, state: State, action: str, converged: bool, *, polished: bool) -> None:
        """Go on from a dictionary."""
        self.record(state, action, converged, kept=True)
        self.state, self.polished = state, polished
        self.history.append((state, sum(step.kept for step in self.steps)))

    def record(self, state: State, action: str, converged: bool, *, kept: bool = False, at: int | None = None) -> None:
        """Note a dictionary that was tried, as the last one or as step `at`."""
        kinds = tuple(atom.kind for atom in state.atoms)
        step = GrowthStep(kinds, state.value, converged, kept, action, state.explained_variance)
        self.steps.insert(len(self.steps) if at is None else at, step)

    def correct(self, evidence: float, converged: bool) -> None:
        """Note where a further search of the dictionary kept last has ended."""
        last = max(j for j, step in enumerate(self.steps) if step.kept)
        self.steps[last] = replace(self.steps[last], evidence=evidence, converged=converged)

    def polish(self, state: State, converged: bool) -> None:
        """Put the end of a further search in the place of the dictionary kept last."""
        self.correct(state.value, converged)
        self.state = state
        self.history[-1] = (state, self.history[-1][1])

    def go_back(self) -> None:
        """To the dictionary kept before the last one."""
        self.history.pop()
        self.state, n_kept = self.history[-1] if self.history else (None, 1)
        kept = [j for j, step in enumerate(self.steps) if step.kept]
        self.polished = self.state is None or self.steps[kept[n_kept - 1]].converged
        for j in kept[n_kept:]:
            self.steps[j] = replace(self.steps[j], kept=False)
