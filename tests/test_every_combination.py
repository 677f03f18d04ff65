"""Every atom kind with every gate in both evidence modes, with full and with partial support.

At random states L, its gradient, H, ln|H|, its adjoint and V against the dense reference; at optima dV/drho against
converged differences of V. Optima are the core's own here; ``test_core_against_reference`` compares them.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from differences import slopes
from reference import Variables, curvature, gradient_theta, log_det
from reference.objective import data_gradient, held_logits
from strategies import GATES, KINDS, Evidence, Recipe, recipes
from test_core_against_reference import (
    DETERMINED,
    DIFFERENCES,
    EXACT,
    INNER_TOL,
    agrees,
    assert_adjoint,
    assert_evidence,
    clear,
    core_rho,
    core_term,
    determined,
    deterministic,
    gradient_addends,
    kinks,
    relative_error,
    state_of,
)

SUPPORTS = pytest.mark.parametrize("full_support", [True, False], ids=["dense", "compact"])
COMBINATIONS = [(kind, gate) for kind in KINDS for gate in GATES]

UNBOUNDED = ("line", "patch", "duchon")
"""Without a prior on the null space of S their scale slides from coordinates to decoders: L of the classic mode has no
minimum."""
SATURATING = ("threshold", "ibp")
"""Without the logits' Gaussian open gates drift up for ever, so few drawn problems have a clear minimum."""
CLASSIC = [
    (kind, gate)
    for kind, gate in COMBINATIONS
    if kind not in UNBOUNDED and (gate not in SATURATING or kind in ("circle", "klein_bottle"))
]


@pytest.mark.parametrize("mode", ["laplace", "quasi_laplace"])
@SUPPORTS
@pytest.mark.parametrize(("kind", "gate"), COMBINATIONS)
@deterministic(2)
@given(data=st.data())
def test_states(kind: str, gate: str, full_support: bool, mode: Evidence, data: st.DataObject) -> None:
    """The same numbers as the dense reference at a random state."""
    draws = recipes(
        kinds=(kind,), gate_kinds=(gate,), evidences=(mode,), max_atoms=2, max_rows=8, max_outputs=4,
        held=True, full_support=full_support,
    )  # fmt: skip
    problem, state, rho = data.draw(draws).build()
    variables = Variables(problem, state.support)
    term = core_term(problem, state)
    system = term.assemble_arrow_schur(core_rho(rho))
    rows = [np.asarray(system.gt(i)) for i in range(problem.n_rows)]
    slope = np.concatenate([*rows, np.asarray(system.gb).ravel()])
    expected_slope, addend = gradient_theta(problem, state, rho), data_gradient(problem, state, rho)
    assert relative_error(slope, expected_slope, addend) < EXACT
    matrix, expected = np.asarray(system.dense()), curvature(problem, state, rho)
    assert relative_error(matrix, expected) < EXACT
    rounding = determined(problem, state, rho)
    if not problem.classic:
        actual, bound = log_det(matrix), rounding.log_det_bound
        assert agrees(rounding, DETERMINED, lambda: bound, actual, log_det(expected), float(variables.size))
    assert_evidence(rounding, term.criterion_as_atoms(core_rho(rho)), problem, state, rho)
    assert_adjoint(rounding, term, problem, state, rho)


def check_slopes(recipe: Recipe) -> None:
    """dV/drho against differences of fourth order, each value of V with an inner solve of its own."""
    problem, start, rho = recipe.build()
    assume(start.support.all() == recipe.full_support)
    found = core_term(problem, start).evaluate(core_rho(rho), tol=INNER_TOL, max_inner=1000, gradient=False)
    assume(found.inner.status == "converged")
    state = state_of(found.term)
    clear(problem, state, rho, held=True)
    walls = held_logits(problem, state)
    term, flat = core_term(problem, state), rho.to_flat()
    signs = kinks(problem, state, rho)

    def value(at: NDArray[np.float64]) -> float:
        result = term.evaluate(core_rho(rho.from_flat(at)), tol=INNER_TOL, gradient=False)
        there = state_of(result.term)
        assume(result.inner.status == "converged" and kinks(problem, there, rho) == signs)
        assume((held_logits(problem, there) == walls).all())
        return float(result.value)

    slope = slopes(value, flat)
    gradient = np.asarray(term.evaluate(core_rho(rho), tol=INNER_TOL).gradient)
    assert relative_error(gradient, slope, *gradient_addends(problem, state, rho)) < DIFFERENCES


@SUPPORTS
@pytest.mark.parametrize(
    ("kind", "gate", "mode"),
    [(*pair, "laplace") for pair in COMBINATIONS] + [(*pair, "quasi_laplace") for pair in CLASSIC],
)
@deterministic(1)
@given(data=st.data())
def test_slopes(kind: str, gate: str, full_support: bool, mode: Evidence, data: st.DataObject) -> None:
    """dV/drho against differences of fourth order, each value of V with an inner solve of its own."""
    draws = recipes(
        kinds=(kind,), gate_kinds=(gate,), evidences=(mode,), max_atoms=2, min_rows=12, max_rows=16,
        min_outputs=6, max_outputs=8, log_lambda_sparse=(-3.0, 0.0), planted=True, full_support=full_support,
    )  # fmt: skip
    problem, start, rho = data.draw(draws).build()
    found = core_term(problem, start).evaluate(core_rho(rho), tol=INNER_TOL, max_inner=1000, gradient=False)
    assume(found.inner.status == "converged")
    state = state_of(found.term)
    clear(problem, state, rho, held=True)
    walls = held_logits(problem, state)
    term, flat = core_term(problem, state), rho.to_flat()
    signs = kinks(problem, state, rho)

    def value(at: NDArray[np.float64]) -> float:
        result = term.evaluate(core_rho(rho.from_flat(at)), tol=INNER_TOL, gradient=False)
        there = state_of(result.term)
        assume(result.inner.status == "converged" and kinks(problem, there, rho) == signs)
        assume((held_logits(problem, there) == walls).all())
        return float(result.value)

    slope = slopes(value, flat)
    gradient = np.asarray(term.evaluate(core_rho(rho), tol=INNER_TOL).gradient)
    assert relative_error(gradient, slope, *gradient_addends(problem, state, rho)) < DIFFERENCES
