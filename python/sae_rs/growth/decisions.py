"""Searches of a dictionary as far as a decision about it needs."""

from __future__ import annotations

import numpy as np

from .. import _core
from ..reml import refine
from ..search import Point, Search
from ..starts import COARSE_INNER, GLANCE_OUTER, glance, in_frames
from .moves import State
from .parts import LOCAL_TOL

Candidate = tuple[State, str]
"""The end of a search, and its status."""

# A decision needs V to this many nats, and its search gets at most so many outer and inner iterations, rounds and
# refreshes between.
LOOSE_TOL = 0.02
LOOSE_OUTER, LOOSE_INNER = 25, 400
LOOSE_ROUNDS, LOOSE_REFRESHES = 4, 3
# Beyond this many inner variables of a row for each output V is no longer to be trusted.
MOST_VARIABLES = 1.0 / 3.0
LEAST_VARIABLES = 3.0


def loosen(fit: Search) -> None:
    """Content a search with what a decision needs."""
    fit.inner_tol = LOCAL_TOL
    fit.max_rounds, fit.max_refreshes = LOOSE_ROUNDS, LOOSE_REFRESHES
    fit.tol, fit.max_outer = max(fit.tol, LOOSE_TOL), min(fit.max_outer, LOOSE_OUTER)
    fit.most_inner = min(fit.most_inner, LOOSE_INNER)


def settled(fit: Search, term: _core.SaeManifoldTerm, rho: _core.SaeManifoldRho) -> Point:
    """A loosely converged V that compares: its supports suit its strengths, and these lie above the floor of those."""
    return fit.above_floor(fit.settled(term, rho, COARSE_INNER))


def searched(fit: Search, point: Point) -> Candidate:
    """Search from a point as far as a decision needs."""
    loosen(fit)
    status = refine(fit, point)
    end = point if fit.best is None else fit.best
    if fit.support_changes:
        # the search was cut off between supports: V of the old ones says nothing
        end = settled(fit, end.evaluation.term, end.rho)
    return State(fit, end), status


def glanced(state: State) -> State:
    """A few steps of the search: what is plainly better goes on without its end."""
    fit = state.fit
    point = glance(fit, in_frames(fit, state.point), GLANCE_OUTER)
    point = settled(fit, point.evaluation.term, point.rho)
    return State(fit, point) if point.evaluation.value < state.value else state


def trusted(state: State) -> bool:
    """Whether rows have few enough variables for a Laplace approximation."""
    term, problem = state.term, state.fit.problem
    support = np.asarray(term.support)
    logits = np.maximum(support.sum(axis=1) - problem.gate.exclusive, 0)
    variables = float((support @ np.array([atom.dim for atom in state.atoms]) + logits).mean())
    return bool(variables <= max(MOST_VARIABLES * problem.X.shape[1], LEAST_VARIABLES))
