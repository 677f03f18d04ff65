"""More rows than one chunk holds: each counted once, and in one order whatever the number of threads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from differences import slopes
from reference import evidence
from reference.atoms import Atom, Circle, Line, Segment, Sphere
from reference.evidence import evidence_all_terms
from reference.gates import IBP, Frozen, Gate, Softmax, Threshold
from strategies import Recipe
from test_core_against_reference import INNER_TOL, core_rho, relative_error, state_of, total
from test_row_metric import metric_term

Array = NDArray[np.float64]

N_ROWS = 300
"""Two full chunks of 128 rows, and a part of a third."""

CASES: dict[str, tuple[tuple[Atom, ...], Gate, int | None]] = {
    "softmax": ((Circle(1), Line()), Softmax(), None),
    "threshold": ((Sphere(1),), Threshold(0.2, 0.8), None),
    "coupled columns": ((Circle(1), Circle(1)), IBP(logit_precision=0.5), None),
    "segment": ((Segment(3), Circle(1)), Frozen(), None),
    "metric": ((Circle(1), Sphere(1)), Softmax(), 4),
}


def case(name: str) -> tuple[Any, Any, Any, Any]:
    atoms, gate, rank = CASES[name]
    recipe = Recipe(atoms, gate, n=N_ROWS, p=4, weighted=True, full_support=False, log_lambda_sparse=-1.0, seed=3)
    recipe = replace(recipe, held=name == "segment")
    problem, state, rho = recipe.build()
    # of full rank and well conditioned, so that optima are as clear as without it
    noise = np.random.default_rng(1).standard_normal((N_ROWS, 4, 4))
    factors = None if rank is None else np.eye(4) + 0.1 * noise
    return problem, state, rho, metric_term(problem, state, factors)


@pytest.mark.parametrize("name", [name for name, (*_, rank) in CASES.items() if rank is None])
def test_evidence_against_the_reference(name: str) -> None:
    problem, state, rho, term = case(name)
    actual = total(term.criterion_as_atoms(core_rho(rho)))
    terms = evidence_all_terms(problem, state, rho)
    assert relative_error(actual, evidence(problem, state, rho), *terms.values()) < 1e-9


@pytest.mark.parametrize("name", CASES)
def test_gradient_against_differences(name: str) -> None:
    _, _, rho, term = case(name)
    found = term.evaluate(core_rho(rho), tol=INNER_TOL, max_inner=1000)
    assert found.inner.status == "converged"
    flat = rho.to_flat()

    def value(at: Array) -> float:
        return float(found.term.evaluate(core_rho(rho.from_flat(at)), tol=INNER_TOL, gradient=False).value)

    slope = slopes(value, flat)
    np.testing.assert_allclose(found.gradient, slope, atol=1e-6 * np.abs(slope).max())


@pytest.mark.parametrize("name", CASES)
def test_threads_change_no_bit(name: str) -> None:
    _, _, rho, term = case(name)
    one, two = (term.evaluate(core_rho(rho), threads=threads, max_inner=30) for threads in (1, 2))
    assert one.value == two.value
    np.testing.assert_array_equal(one.gradient, two.gradient)
    for mine, theirs in zip(one.term.decoders, two.term.decoders, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(state_of(one.term).logits, state_of(two.term).logits)
    refreshed = [one.term.refreshed(core_rho(rho), threads=threads)[0] for threads in (1, 2)]
    np.testing.assert_array_equal(refreshed[0].logits, refreshed[1].logits)
