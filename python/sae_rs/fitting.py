"""One fit from its settings and data: the model without atoms, a dictionary of a given size, or one that grows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .atoms import Atom
from .checkpoints import Checkpoints
from .exchange import Exchange
from .fit_data import FitData
from .gates import Gate
from .growth import GrowthRules, GrowthStep, grow
from .memory import parse_memory_budget
from .problem import Problem
from .reml import FitResult, fit_dictionary, mean_only
from .search import FitProgress, Search
from .settings import FitSettings

Listener = Callable[[FitProgress], object]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a fit has come to.

    Attributes
    ----------
    result : FitResult
        Its best state.
    atoms : tuple of Atom
        The dictionary.
    gate : Gate
        Its gate, at the last temperature of a schedule.
    path : tuple of GrowthStep
        The dictionaries that were tried; empty for a given number of atoms.
    """

    result: FitResult
    atoms: tuple[Atom, ...]
    gate: Gate
    path: tuple[GrowthStep, ...] = ()

    def cut_off(self, status: str) -> Outcome:
        """The same as the end of a fit that was left before its end."""
        return replace(self, result=self.result.cut_off(status))


def run(
    settings: FitSettings,
    data: FitData,
    marks: Checkpoints | None,
    listener: Listener | None,
    exchange: Exchange | None = None,
) -> Outcome:
    """Fit; Ctrl-C and the listener's True end it with its best state so far.

    With an `exchange` this is one of the processes of a fit: each is given the same, and comes to the same end.

    Raises
    ------
    KeyboardInterrupt
        At a Ctrl-C before there is such a state, and at a second one.
    """
    if settings.n_atoms is None:
        return _grown(settings, data, listener, exchange)
    if not settings.atoms:
        fitted = data.fitted
        result = mean_only(
            fitted.values, fitted.weights, settings.center, settings.evidence, settings.rho, data.whitening
        )
        return Outcome(result, (), settings.gate.settled)
    problem = replace(
        _problem(settings, data, settings.atoms, settings.gate, exchange),
        keep_rows=data.keep_rows,
        memory_budget=parse_memory_budget(settings.memory_budget),
    )
    result = fit_dictionary(
        _search(settings, problem, listener),
        settings.gate,
        settings.rho,
        settings.n_init,
        # a seed that was drawn is part of a fit that goes on
        settings.seed if marks is None else marks.identity.seed,
        marks,
    )
    return Outcome(result, settings.atoms, settings.gate.settled)


def _grown(settings: FitSettings, data: FitData, listener: Listener | None, exchange: Exchange | None) -> Outcome:
    """A dictionary whose number of atoms the evidence chooses."""
    none = _problem(settings, data, (), settings.gate.sized(1), exchange)
    rules = GrowthRules(
        gate=settings.gate,
        kinds=settings.atoms,
        admitted=lambda atoms: data.admits(atoms, settings),
        max_atoms=settings.max_atoms,
        n_init=settings.n_init,
        random_state=settings.seed,
    )
    grown = grow(_search(settings, none, listener), rules)
    return Outcome(grown.result, grown.atoms, settings.gate.sized(len(grown.atoms)).settled, grown.path)


def _problem(
    settings: FitSettings, data: FitData, atoms: tuple[Atom, ...], gate: Gate, exchange: Exchange | None
) -> Problem:
    return Problem(
        data.fitted.values,
        atoms,
        gate.settled,
        data.fitted.weights,
        settings.center,
        settings.evidence,
        settings.arc_length,
        settings.decoder_rank,
        data.whitening,
        exchange=exchange,
    )


def _search(settings: FitSettings, problem: Problem, listener: Listener | None) -> Search:
    return Search(
        problem,
        outer=settings.outer,
        max_outer=settings.max_outer,
        max_inner=settings.max_inner,
        tol=settings.tol,
        threads=settings.threads,
        progress=listener,
    )
