"""The dictionaries that moves lead to, where a search of them starts.

Their supports are refreshed and their inner variables loosely converged, so that they compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..atoms import Atom
from ..reml import begin
from ..search import Point, Search
from ..starts import COARSE_INNER
from .decisions import loosen, settled
from .moves import State, joined, moved
from .parts import Local, Part, local_fit, quick_start, standing_fit
from .rules import GrowthRules

FloatArray = NDArray[np.float64]
_NO_ROWS = np.zeros(0, dtype=np.int_)


@dataclass(eq=False)
class Starts:
    """Makes dictionaries from the rows, or from one that is fitted.

    Attributes
    ----------
    like : Search
        A search of the dictionary without atoms: the rows and all settings. It counts the evaluations of all others.
    rules : GrowthRules
        What a dictionary may become.
    making : Search or None
        The search of the dictionary that was made last, or is being made.
    """

    like: Search
    rules: GrowthRules
    making: Search | None = None

    def seeded(self, atoms: tuple[Atom, ...]) -> State:
        """A dictionary started from seeds."""
        gate = self.rules.gate.sized(len(atoms))
        fit = self._search(atoms)
        point = begin(fit, gate, None, self.rules.n_init, self.rules.random_state)
        return self._settled(fit, point)

    def first(self, atoms: tuple[Atom, ...]) -> State:
        """One atom from the seeds of all rows."""
        fit = self._search(atoms)
        point = quick_start(fit, fit.problem.gate, self.rules.n_init, self.rules.random_state)
        return self._settled(fit, point)

    def local(self, atoms: tuple[Atom, ...], rows: NDArray[np.int_], targets: FloatArray) -> Local | None:
        """Atoms fitted to a sample of what some rows have for them."""
        gate = self.rules.gate.sized(len(atoms)).settled
        return local_fit(self.like, gate, atoms, rows, targets, self.rules.random_state)

    def standing(self, state: State, k: int, targets: FloatArray) -> Local | None:
        """An atom of a dictionary by itself, where it stands, on a sample of what all rows have for it."""
        gate = self.rules.gate.sized(1).settled
        return standing_fit(
            self.like, gate, state.atoms[k], state.term, state.point.rho, k, targets, self.rules.random_state
        )

    def part(self, atoms: tuple[Atom, ...], rows: NDArray[np.int_], targets: FloatArray) -> Part | None:
        """Atoms fitted to what some rows have for them, with the state of these rows."""
        found = self.local(atoms, rows, targets)
        return None if found is None else found.part(targets)

    def together(self, parts: Sequence[Part]) -> State | None:
        """The dictionary of some parts, each with the state of all rows; None when it may not be fitted."""
        atoms = tuple(atom for part in parts for atom in part.atoms)
        if not atoms or not self.rules.admitted(atoms):
            return None
        fit, term, rho = joined(self.like, self.rules.gate.sized(len(atoms)), self.rules.kinds, parts)
        loosen(fit)
        self.making = fit
        return self._counted(fit, settled(fit, term, rho))

    def replaced(
        self, state: State, removed: Sequence[int], atoms: tuple[Atom, ...], rows: NDArray[np.int_], targets: FloatArray
    ) -> State | None:
        """A dictionary with atoms, fitted to what some rows have for them, in the place of others."""
        part = self.part(atoms, rows, targets)
        return None if part is None else self.moved(state, removed, part, rows)

    def without(self, state: State, k: int) -> State | None:
        """A dictionary less its atom `k`."""
        return self.moved(state, (k,), None, _NO_ROWS)

    def moved(self, state: State, removed: Sequence[int], part: Part | None, rows: NDArray[np.int_]) -> State | None:
        """A dictionary with the atoms of a part in the place of others; None when it may not be fitted."""
        left = tuple(atom for k, atom in enumerate(state.atoms) if k not in removed)
        atoms = left if part is None else (*left, *part.atoms)
        if not self.rules.admitted(atoms):
            return None
        fit, term, rho = moved(state, self.rules.gate.sized(len(atoms)), self.rules.kinds, removed, part, rows)
        loosen(fit)
        self.making = fit.after(self.like)
        return self._counted(fit, settled(fit, term, rho))

    def on_all_rows(self, state: State) -> State:
        """The dictionary of a sample with all rows encoded by its decoders."""
        whole = self.like.problem
        problem = replace(state.fit.problem, X=whole.X, weights=whole.weights, metric=whole.metric)
        fit = self.like.on(problem).after(self.like)
        term = problem.encoded(state.term, state.point.rho, fit.threads)
        term = term.with_decoder_ranks(state.term.decoder_ranks)
        return State(fit, fit.coarse(term, state.point.rho, COARSE_INNER))

    def _search(self, atoms: tuple[Atom, ...]) -> Search:
        gate = self.rules.gate.sized(len(atoms)).settled
        fit = self.like.on(replace(self.like.problem, atoms=atoms, gate=gate)).after(self.like)
        loosen(fit)
        self.making = fit
        return fit

    def _settled(self, fit: Search, point: Point) -> State:
        return self._counted(fit, settled(fit, point.evaluation.term, point.rho))

    def _counted(self, fit: Search, point: Point) -> State:
        self.like.n_evaluations = fit.n_evaluations
        return State(fit, point)
