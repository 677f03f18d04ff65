"""Every atom kind with every gate in both evidence modes, with full and with partial support.

At random states L, its gradient, H, ln|H|, its adjoint and V against the dense reference; at optima dV/drho against
converged differences of V. Optima are the core's own here; ``test_core_against_reference`` compares them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from differences import slopes
from reference import Variables, curvature, gradient_theta, log_det, loss_rho
from reference.atoms import (
    Atom,
    Circle,
    Cylinder,
    FiniteSet,
    KleinBottle,
    Mobius,
    Patch,
    Poincare,
    ProjectivePlane,
    Segment,
    Sphere,
    Torus,
)
from reference.gates import IBP, Frozen, Gate, Softmax, Threshold
from reference.objective import data_gradient, held_logits
from strategies import GATES, KINDS, Evidence, Recipe, duchon, recipes
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
    total,
)

SUPPORTS = pytest.mark.parametrize("full_support", [True, False], ids=["dense", "compact"])
COMBINATIONS = [(kind, gate) for kind in KINDS for gate in GATES]

DRAWN = [(*pair, "laplace") for pair in COMBINATIONS] + [
    (kind, gate, "quasi_laplace")
    for kind, gate in COMBINATIONS
    if kind not in ("line", "patch", "duchon")
    and gate in ("softmax", "frozen")
    and (kind, gate) != ("cylinder", "softmax")
]
"""Kinds, gates and modes of which enough draws have a clear minimum.

In the classic mode the scale of flat kinds is held by the roughness of what is not flat alone, and gates under a prior
that does not hold them against roughness go on for ever: those optima are chosen, below.
"""


def classic(
    atom: Atom, gate: Gate, seed: int, sparse: float, smooth: float, *, full: bool, beside: bool = False, **options: Any
) -> Recipe:
    """A dictionary for the classic mode, alone or beside a circle."""
    atoms = (atom, Circle(1)) if beside else (atom,)
    strengths = {"log_lambda_sparse": sparse, "log_lambda_smooth": smooth}
    rows = {"n": 14, "p": 7, "log_noise": -3.0, **options}
    return Recipe(atoms, gate, full_support=full, seed=seed, evidence="quasi_laplace", **strengths, **rows)


OPEN, WARM, COLD = IBP(ungated=(0,)), IBP(temperature=1.7), IBP(temperature=0.6, ungated=(0,))
NARROW, WIDE = duchon(4, 1), duchon(5, 1)
LOUD = {"n": 24, "log_noise": -2.0}
DENSE, COMPACT = {"full": True}, {"full": False}
BESIDE = {"beside": True}

CLASSIC = (
    # some gates at their wall, some between it and one
    classic(Circle(1), Threshold(), 0, 3.0, -5.0, **DENSE),
    classic(Circle(1), Threshold(), 0, 4.0, -4.0, **COMPACT),
    classic(Torus(1), Threshold(), 0, 3.0, -5.0, **DENSE),
    classic(Torus(1), Threshold(), 0, 3.0, -5.0, **COMPACT),
    classic(Sphere(1), Threshold(), 0, 3.0, -5.0, **DENSE),
    classic(Sphere(1), Threshold(), 0, 3.0, -5.0, **COMPACT),
    classic(ProjectivePlane(2), Threshold(), 1, 3.0, -5.0, **DENSE),
    classic(ProjectivePlane(2), Threshold(), 4, 4.0, -4.0, **COMPACT, **BESIDE),
    classic(Cylinder(1, 2), Threshold(), 0, 3.0, -5.0, **DENSE),
    classic(Cylinder(1, 2), Threshold(), 0, 3.0, -5.0, **COMPACT, **BESIDE),
    classic(Poincare(2), Threshold(), 0, 3.0, -5.0, **DENSE),
    classic(Poincare(2), Threshold(), 0, 3.0, -5.0, **COMPACT),
    classic(KleinBottle(2), Threshold(), 0, 3.0, -5.0, **DENSE),
    classic(KleinBottle(2), Threshold(), 0, 3.0, -4.0, **COMPACT, **BESIDE),
    classic(Mobius(2, 1), Threshold(), 0, 4.0, -4.0, **DENSE),
    classic(Mobius(2, 1), Threshold(), 0, 3.0, -5.0, **COMPACT),
    classic(FiniteSet(2), Threshold(), 2, 3.0, -5.0, **DENSE),
    classic(FiniteSet(2), Threshold(), 7, 4.0, -4.0, **COMPACT),
    classic(Segment(3), Threshold(), 0, 3.0, -5.0, **DENSE),
    classic(Segment(3), Threshold(), 4, 3.0, -5.0, **COMPACT),
    classic(Patch(1, 2), Threshold(), 0, 3.0, -5.0, **DENSE),
    classic(Patch(1, 2), Threshold(), 0, 3.0, -5.0, **COMPACT),
    classic(NARROW, Threshold(ungated=(0,)), 0, 0.0, -2.0, **DENSE, **LOUD),
    classic(WIDE, Threshold(), 5, 5.0, -2.0, **COMPACT),
    # a roughness so weak that the prior of a column holds its gates
    classic(Circle(1), IBP(), 0, 0.0, -9.0, **DENSE),
    classic(Circle(1), IBP(), 2, 0.0, -8.0, **COMPACT, **BESIDE),
    classic(Torus(1), IBP(), 19, 0.0, -7.0, **DENSE),
    classic(Torus(1), IBP(), 0, 0.0, -8.0, **COMPACT),
    classic(Sphere(1), OPEN, 5, 0.0, -8.0, **DENSE, **BESIDE),
    classic(Sphere(1), IBP(), 2, 0.0, -9.0, **COMPACT),
    classic(ProjectivePlane(2), WARM, 2, 2.0, -9.0, **DENSE, **BESIDE, n=32),
    classic(ProjectivePlane(2), IBP(), 165, 0.0, -6.0, **COMPACT, **BESIDE),
    classic(Cylinder(1, 2), IBP(), 48, 0.0, -9.0, **DENSE),
    classic(Cylinder(1, 2), IBP(), 7, 0.0, -9.0, **COMPACT),
    classic(Poincare(2), OPEN, 0, 0.0, -2.0, **DENSE),
    classic(Poincare(2), IBP(), 11, 0.0, -9.0, **COMPACT),
    classic(KleinBottle(2), IBP(), 7, 0.0, -7.0, **DENSE),
    classic(KleinBottle(2), IBP(), 0, 0.0, -9.0, **COMPACT),
    classic(Mobius(2, 1), IBP(), 1, 0.0, -8.0, **DENSE),
    classic(Mobius(2, 1), IBP(), 9, 0.0, -9.0, **COMPACT),
    classic(FiniteSet(2), OPEN, 0, 0.0, -8.0, **DENSE, **BESIDE),
    classic(FiniteSet(2), OPEN, 0, 0.0, -7.0, **COMPACT, **BESIDE),
    classic(Segment(3), COLD, 38, 0.0, -9.0, **DENSE, **BESIDE, n=32),
    classic(Segment(3), IBP(), 6, 0.0, -9.0, **COMPACT, **BESIDE),
    classic(Patch(1, 2), IBP(), 5, 0.0, -7.0, **DENSE),
    classic(Patch(1, 2), IBP(), 0, 0.0, -8.0, **COMPACT),
    classic(NARROW, OPEN, 0, 0.0, -2.0, **DENSE, **LOUD),
    classic(WIDE, IBP(), 42, 0.0, -5.0, **COMPACT, n=28, log_noise=-2.0),
    # flat functions whose scale the rest holds
    classic(Cylinder(1, 1), Softmax(), 1, -1.0, -1.0, **DENSE, **BESIDE),
    classic(Cylinder(1, 1), Softmax(), 10, -1.0, -2.0, **COMPACT, **BESIDE),
    classic(Patch(1, 2), Softmax(), 1, -1.0, -2.0, **DENSE, **BESIDE),
    classic(Patch(1, 2), Softmax(), 1, -1.0, -2.0, **COMPACT, **BESIDE),
    classic(Patch(1, 2), Frozen(), 0, -1.0, -2.0, **DENSE, **BESIDE),
    classic(Patch(1, 2), Frozen(), 0, -1.0, -2.0, **COMPACT, **BESIDE),
    classic(WIDE, Softmax(), 9, -1.0, -1.0, **DENSE, **BESIDE),
    classic(WIDE, Softmax(), 14, -1.0, -2.0, **COMPACT, **BESIDE),
    classic(WIDE, Frozen(), 3, 0.0, 1.0, **DENSE, **LOUD),
    classic(WIDE, Frozen(), 0, 0.0, 0.0, **COMPACT, **LOUD),
)
"""Optima of the classic mode for the combinations that are not drawn."""


def combination(recipe: Recipe) -> tuple[str, str, bool]:
    return recipe.atoms[0].kind, recipe.gate.kind, recipe.full_support


@pytest.mark.parametrize("mode", ["laplace", "quasi_laplace"])
@SUPPORTS
@pytest.mark.parametrize(("kind", "gate"), COMBINATIONS)
@deterministic(2)
@given(data=st.data())
def test_states(kind: str, gate: str, full_support: bool, mode: Evidence, data: st.DataObject) -> None:
    """The same numbers as the dense reference at a random state."""
    # the coupling of the IBP gate makes H indefinite where neither a Gaussian nor the data outweigh it
    coupled = (gate, mode) == ("ibp", "quasi_laplace")
    outputs = (6, 8) if coupled else (3, 4)
    draws = recipes(
        kinds=(kind,), gate_kinds=(gate,), evidences=(mode,), max_atoms=2, max_rows=8, min_outputs=outputs[0],
        max_outputs=outputs[1], held=True, full_support=full_support, min_atoms=1 if full_support or coupled else 2,
    )  # fmt: skip
    problem, state, rho = data.draw(draws).build()
    assume(state.support.all() == full_support)
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

    gradient, addends = (
        np.asarray(term.evaluate(core_rho(rho), tol=INNER_TOL).gradient),
        gradient_addends(problem, state, rho),
    )
    slope = slopes(value, flat, scale=max(float(np.abs(v).max()) for v in (gradient, *addends)))
    assert relative_error(gradient, slope, *addends) < DIFFERENCES


@SUPPORTS
@pytest.mark.parametrize(("kind", "gate", "mode"), DRAWN)
@deterministic(1)
@given(data=st.data())
def test_slopes(kind: str, gate: str, full_support: bool, mode: Evidence, data: st.DataObject) -> None:
    draws = recipes(
        kinds=(kind,), gate_kinds=(gate,), evidences=(mode,), min_atoms=1 if full_support else 2, max_atoms=2,
        min_rows=12, max_rows=16, min_outputs=6, max_outputs=8, log_lambda_sparse=(-3.0, 0.0), planted=True,
        full_support=full_support,
    )  # fmt: skip
    check_slopes(data.draw(draws))


@pytest.mark.parametrize("recipe", CLASSIC, ids=lambda recipe: "{}-{}-{}".format(*combination(recipe)))
@deterministic(1)
@given(nothing=st.none())
def test_classic_slopes(recipe: Recipe, nothing: None) -> None:
    """An optimum that is not clear is an error here: it leaves nothing to compare."""
    check_slopes(recipe)


@SUPPORTS
@pytest.mark.parametrize("gate", GATES)
@deterministic(1)
@given(data=st.data())
def test_explicit_slopes_of_lines(gate: str, full_support: bool, data: st.DataObject) -> None:
    """Nothing holds the scale of a line in the classic mode, so that L has no minimum and V no gradient along one. The
    derivative of V at fixed variables is compared instead. It is at states with some gates at their wall: where all are
    free, scaling them costs nothing either, and H is singular."""
    draws = recipes(
        kinds=("line",), gate_kinds=(gate,), evidences=("quasi_laplace",),
        min_atoms=2 if gate == "softmax" and not full_support else 1,
        max_atoms=2, min_rows=6, max_rows=16, min_outputs=6, max_outputs=8, full_support=full_support, held=True,
    )  # fmt: skip
    problem, state, rho = data.draw(draws).build()
    assume(state.support.all() == full_support)
    assume(determined(problem, state, rho).allows(DETERMINED))
    term = core_term(problem, state)

    def value(at: NDArray[np.float64]) -> float:
        return total(term.criterion_as_atoms(core_rho(rho.from_flat(at))))

    slope = np.asarray(term.evaluate(core_rho(rho), max_inner=0).explicit_gradient)
    addend = loss_rho(problem, state, rho)
    numeric = slopes(value, rho.to_flat(), scale=float(np.abs([slope, addend]).max()))
    assert relative_error(slope, numeric, addend) < DIFFERENCES


def test_every_combination_has_slopes() -> None:
    drawn = {(kind, gate, full) for kind, gate, mode in DRAWN if mode == "quasi_laplace" for full in (True, False)}
    chosen = [combination(recipe) for recipe in CLASSIC]
    assert len(set(chosen)) == len(chosen)
    assert not drawn & set(chosen)
    every = {(kind, gate, full) for kind, gate in COMBINATIONS for full in (True, False)}
    assert every - drawn - set(chosen) - {("line", gate, full) for gate in GATES for full in (True, False)} == set()
