"""What comes after a search: refreshes of the rows' supports until none moves, or until they come back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sae_rs import reml


class Rows:
    """Supports that refreshes lead from one to the next, each with its V at converged inner variables.

    Attributes
    ----------
    following : dict of int to int
        Where a refresh leads; to itself where no row moves.
    budget : int or None
        How many states may be evaluated before the budget of inner iterations is spent.
    """

    max_refreshes = 8
    resolution = 0.0

    def __init__(self, following: dict[int, int], values: dict[int, float], budget: int | None = None) -> None:
        self.following, self.values, self.budget = following, values, budget
        self.asked: list[int] = []

    @property
    def is_spent(self) -> bool:
        return self.budget is not None and len(self.asked) >= self.budget

    def point(self, k: int) -> Any:
        return SimpleNamespace(rho=None, evaluation=SimpleNamespace(value=self.values[k], term=self.term(k)))

    def term(self, k: int) -> Any:
        support = np.zeros((3, 4), dtype=bool)
        support[k // 4, k % 4] = True

        def refreshed(rho: object, threads: object) -> tuple[Any, int]:
            return self.term(self.following[k]), int(self.following[k] != k)

        return SimpleNamespace(k=k, support=support, refreshed=refreshed)

    threads = None

    def fine(self, term: Any, rho: object) -> Any:
        self.asked.append(term.k)
        return self.point(term.k)

    def stand(self, point: Any) -> None:
        pass


def resettled(
    following: dict[int, int], values: dict[int, float], budget: int | None = None
) -> tuple[int, str | None, list[int]]:
    """Where refreshes from the searched state 0 end, how, and what was evaluated on the way."""
    fit: Any = Rows(following, values, budget)
    point, ended = reml._resettled(fit, fit.point(0), fit.term(following[0]))
    return point.evaluation.term.k, ended, fit.asked


def test_refreshes_go_on_until_no_row_moves() -> None:
    # whatever V says on the way: rows that have found another basin are to be searched again
    values = {0: 0.0, 1: 5.0, 2: 1.0}
    assert resettled({0: 1, 1: 2, 2: 2}, values) == (2, None, [1, 2])


def test_a_searched_state_that_is_the_best_of_a_cycle_is_the_end() -> None:
    assert resettled({0: 1, 1: 0}, {0: 0.0, 1: 2.5}) == (0, "as it was", [1, 0])


def test_a_better_state_of_a_cycle_is_searched() -> None:
    assert resettled({0: 1, 1: 0}, {0: 0.0, 1: -2.5}) == (1, None, [1, 0])


def test_a_cycle_that_the_searched_state_leads_to() -> None:
    assert resettled({0: 1, 1: 2, 2: 1}, {0: 0.0, 1: 3.0, 2: 1.0}) == (0, "as it was", [1, 2, 1])
    assert resettled({0: 1, 1: 2, 2: 1}, {0: 0.0, 1: 3.0, 2: -1.0}) == (2, None, [1, 2, 1])


def test_no_more_refreshes_than_are_allowed() -> None:
    chain = {k: k + 1 for k in range(11)}
    assert resettled(chain, {k: float(k) for k in range(12)}) == (8, None, list(range(1, 9)))


def test_a_spent_budget_ends_refreshes_where_they_are() -> None:
    values = {0: 0.0, 1: 5.0, 2: 1.0}
    assert resettled({0: 1, 1: 2, 2: 2}, values, budget=1) == (1, None, [1])
    assert resettled({0: 1, 1: 2, 2: 2}, values, budget=0) == (0, None, [])


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_state_without_v_is_not_gone_to(value: float) -> None:
    assert resettled({0: 1, 1: 2, 2: 2}, {0: 0.0, 1: 1.0, 2: value}) == (1, "infeasible", [1, 2])
