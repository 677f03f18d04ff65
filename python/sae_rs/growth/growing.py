"""The path of a growing dictionary, from no atoms to where no move lowers the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..atoms import Atom
from ..memory import SAMPLE_ABOVE, SAMPLE_ROWS
from ..reml import FitResult, mean_only, refine, result_of
from ..search import Search
from ..starts import in_frames
from ..stopping import EARLY_ENDS, say_rows_follow, status_of
from .decisions import Candidate, glanced, searched, trusted
from .first import first_dictionary
from .moves import State
from .path import GrowthStep, Path
from .proposals import Proposal, Proposals
from .rules import GrowthRules
from .starts import Starts

# Fits from seeds compete up to this many atoms.
COLD_ATOMS = 3
# Starts of one step from which a search is made, and by how many nats an entry of the data they may lie behind.
MAX_SEARCHED = 2
REACH = 0.01
# A start that is better by this many nats an entry is kept after a few steps of its search.
SURE = 0.002
# Rounds of births and exchanges; exchanges for each atom there can be.
MAX_CYCLES = 3
MAX_EXCHANGES = 2


@dataclass(frozen=True, eq=False)
class Grown:
    """The dictionary of least evidence on the path, with its atoms and the path."""

    result: FitResult
    atoms: tuple[Atom, ...]
    path: tuple[GrowthStep, ...]


def grow(like: Search, rules: GrowthRules) -> Grown:
    """Let a dictionary grow from no atoms by moves that lower the evidence.

    Ctrl-C and the listener's True end it with the best dictionary so far.

    Parameters
    ----------
    like : Search
        A search of the dictionary without atoms: the rows and all settings.
    rules : GrowthRules
        What the dictionary may become.

    Raises
    ------
    KeyboardInterrupt
        At a Ctrl-C before the model without atoms is fitted, and at a second one.
    """
    problem = like.problem
    growth = Growing(like, rules)
    drawn = problem.sample(SAMPLE_ROWS, rules.random_state) if len(problem.X) > SAMPLE_ABOVE else None
    if drawn is not None:
        small = Growing(like.on(drawn), rules)
        small.run()
        growth.take_over(small)
    if growth.ended is None:
        growth.run()
    return growth.finished()


class Growing:
    """A path in the making.

    Attributes
    ----------
    like : Search
        A search of the dictionary without atoms, which counts the evaluations of all.
    path : Path
        The dictionaries that were tried, and the one kept last.
    hasty : bool
        Whether steps are still taken before a search came to its end.
    ended : str or None
        How the path was cut off; None while it was not.
    under_way : str or None
        The action that is tried.
    tried : list of State
        The starts of its moves that nothing is decided about yet.
    """

    def __init__(self, like: Search, rules: GrowthRules) -> None:
        self.like, self.rules = like, rules
        self.starts = Starts(like, rules)
        self.proposals = Proposals(self.starts)
        problem = like.problem
        self.path = Path(mean_only(problem.X, problem.weights, problem.center, problem.evidence, None, problem.metric))
        self.hasty = True
        self.ended: str | None = None
        self.under_way: str | None = None
        self.tried: list[State] = []

    def run(self) -> None:
        """A first dictionary; births while they help; exchanges and deaths, and births again where these changed it."""
        try:
            if self._first():
                self.tidy()
            for _ in range(MAX_CYCLES):
                while self._birth() or self._polish():
                    self.tidy()
                self._polish()
                if not self._exchange():
                    break
                self.tidy()
        except EARLY_ENDS as end:
            self.ended = status_of(end)
            self._offer_unfinished()

    def take_over(self, small: Growing) -> None:
        """Go on with all rows from the dictionary that a sample of them has grown."""
        self.ended, self.like.n_evaluations = small.ended, small.like.n_evaluations
        if small.path.state is None:
            self.path.steps += small.path.steps[1:]
            return
        # its values are of the sample: they do not compare with those of all rows
        self.path.steps = [*small.path.steps]
        start: State | None = None
        if self.ended is None:
            try:
                start = self.starts.on_all_rows(small.path.state)
                self.path.offer("start", [self._searched(start)])
                return
            except EARLY_ENDS as end:
                self.ended = status_of(end)
        # nobody is asked again
        self.like.progress = None
        if start is None:
            say_rows_follow(len(self.like.problem.X))
            start = self.starts.on_all_rows(small.path.state)
        end_point = start.fit.so_far() or start.point
        self.path.offer("start", [(State(start.fit, end_point), self.ended)])

    def finished(self) -> Grown:
        """The best dictionary, searched to the tolerance of the fit unless the path was cut off."""
        path = self.path
        while path.state is not None:
            state = path.state
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
            path.correct(float(result.value), result.converged)
            if self.ended is not None or result.value < path.before:
                return Grown(result, state.atoms, tuple(path.steps))
            # the loose end of a search had hidden that this dictionary is none better
            path.go_back()
        result = path.empty if self.ended is None else path.empty.cut_off(self.ended)
        return Grown(result, (), tuple(path.steps))

    # Moves -----------------------------------------------------------------------------------------------------------

    def _first(self) -> bool:
        """Try a dictionary of all groups of independent components, where rows may use several atoms."""
        if self.path.state is not None or self.rules.gate.exclusive or self.rules.max_atoms == 0:
            return False
        return self._attempt("grouping", [partial(first_dictionary, self.starts)])

    def _birth(self) -> bool:
        """Try one atom more, in every way and of every kind."""
        path, rules = self.path, self.rules
        if len(path.atoms) >= rules.max_atoms:
            return False
        larger = [rules.arranged((*path.atoms, kind)) for kind in rules.kinds]
        larger = [atoms for atoms in larger if rules.admitted(atoms)]
        if not larger:
            return False
        if path.state is None:
            return self._attempt("birth", [partial(self.starts.first, atoms) for atoms in larger])
        if self._attempt("birth", self.proposals.births(path.state)):
            if not rules.gate.exclusive and len(path.atoms) <= COLD_ATOMS:
                # what shares a row with others is seldom one atom at first: seeds of all of them may do better
                self._attempt("birth", [partial(self.starts.seeded, path.atoms)], hasty=False)
            return True
        if not path.polished or len(path.atoms) >= COLD_ATOMS:
            return False
        # seeds see what no single birth shows: atoms that help only together with another arrangement of the others
        return self._attempt("birth", [partial(self.starts.seeded, atoms) for atoms in larger], hasty=False)

    def tidy(self) -> bool:
        """Merge atoms that draw the same set, and drop those that are hardly used, while that lowers the evidence."""
        changed = False
        while (state := self.path.state) is not None:
            if not (
                self._attempt("merge", self.proposals.merges(state))
                or self._attempt("death", self.proposals.deaths(state))
            ):
                break
            changed = True
        return changed

    def _exchange(self) -> bool:
        """Try other kinds in the place of every atom."""
        changed = False
        k = 0
        while (state := self.path.state) is not None and len(self.rules.kinds) > 1 and k < len(state.atoms):
            if not self._attempt("exchange", self.proposals.exchanges(state, k)):
                k += 1
                continue
            # atoms of the new dictionary stand in another order
            changed, k = True, 0
            if self.path.n_kept("exchange") > MAX_EXCHANGES * self.rules.max_atoms:
                break
        return changed

    # Decisions -------------------------------------------------------------------------------------------------------

    def _attempt(self, action: str, proposals: Sequence[Proposal], hasty: bool = True) -> bool:
        """Try some moves; returns whether one was kept."""
        self.under_way = action
        kept = self._decide(action, proposals, hasty)
        # not when that ends early: what is under way then may be better than what was kept
        self.under_way, self.tried = None, []
        return kept

    def _offer_unfinished(self) -> None:
        """Keep the best start of the moves under way when it is better than what was kept before."""
        if self.under_way is None:
            return
        found, fit = list(self.tried), self.starts.making
        if fit is not None and fit.standing is not None and all(state.fit is not fit for state in found):
            found.append(State(fit, fit.standing))
        found = [state for state in found if np.isfinite(state.value) and trusted(state)]
        if found:
            self.path.offer(self.under_way, [(state, "") for state in found])

    def _decide(self, action: str, proposals: Sequence[Proposal], hasty: bool) -> bool:
        """Make the starts of some moves, search from the best of them, and keep its end when V has fallen."""
        path = self.path
        starts = self._trusted_starts(action, proposals)
        entries = self.like.n_rows * self.like.n_outputs
        if action == "birth" and hasty and self.hasty and starts and starts[0].value < path.value - SURE * entries:
            best = self._glanced(starts[0])
            for state in starts[1:]:
                path.record(state, action, False)
            path.keep(best, action, False, polished=False)
            return True
        reach = path.value + REACH * entries
        if not path.polished and hasty and starts and starts[0].value < reach:
            # what is neither plainly better nor worse is weighed against the dictionary at its best
            return False
        within = [state for state in starts[:MAX_SEARCHED] if state.value < reach]
        for state in starts[len(within) :]:
            path.record(state, action, False)
        for j, state in enumerate(within):
            self.tried = within[j:]
            state.fit.after(self.like)
            if path.offer(action, [self._searched(State(state.fit, in_frames(state.fit, state.point)))]):
                for other in within[j + 1 :]:
                    path.record(other, action, False, at=len(path.steps) - 1)
                return True
        return False

    def _trusted_starts(self, action: str, proposals: Sequence[Proposal]) -> list[State]:
        """The starts of those moves that can be made and compared, the best first."""
        for proposal in proposals:
            start = proposal()
            if start is None:
                continue
            if trusted(start):
                self.tried.append(start)
            else:
                self.path.record(start, action, False)
        self.starts.making = None
        return sorted(self.tried, key=lambda state: state.value if np.isfinite(state.value) else np.inf)

    def _polish(self) -> bool:
        """Search to the end of what was kept without; False when that was done before."""
        path = self.path
        if path.polished or path.state is None:
            return False
        fit = self.like.on(path.state.fit.problem).after(self.like)
        path.polished = True
        state, status = self._searched(State(fit, path.state.point))
        path.polish(state, status == "converged")
        if not state.value < path.before:
            # what was plainly better in passing may be none better in the end
            self.hasty = False
            path.go_back()
        return True

    def _searched(self, state: State) -> Candidate:
        found = searched(state.fit, state.point)
        self.like.n_evaluations = state.fit.n_evaluations
        return found

    def _glanced(self, state: State) -> State:
        state.fit.after(self.like)
        found = glanced(state)
        self.like.n_evaluations = state.fit.n_evaluations
        return found
