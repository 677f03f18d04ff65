"""The compiled core against the dense reference: the same numbers at the same state, for V, its parts, its gradient."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, example, given, settings
from numpy.typing import NDArray

from differences import slopes
from reference import (
    Problem,
    Rho,
    State,
    Variables,
    curvature,
    evidence,
    evidence_rho,
    exact_hessian,
    gradient_theta,
    implicit_gradient,
    log_det,
    log_det_adjoint,
    loss_parts,
    loss_rho,
    pin_orbits,
    solve,
)
from reference.atoms import (
    Circle,
    Cylinder,
    FiniteSet,
    KleinBottle,
    Line,
    Mobius,
    Patch,
    Poincare,
    ProjectivePlane,
    Segment,
    Sphere,
    Torus,
)
from reference.compact import held_coordinates
from reference.evidence import evidence_all_terms
from reference.gates import IBP, Frozen, Softmax, Threshold
from reference.gates.base import gated
from reference.gates.softmax import entropy_hessian
from reference.objective import data_gradient, gates, reconstruct
from reference.priors import places
from reference.scale import scale
from rounding import EPS, Rounding
from sae_rs import _core
from strategies import Evidence, Example, Recipe, duchon, recipes

Array = NDArray[np.float64]

KINDS = (
    "circle",
    "torus",
    "sphere",
    "projective_plane",
    "cylinder",
    "line",
    "patch",
    "duchon",
    "poincare",
    "klein_bottle",
    "mobius",
    "finite_set",
    "segment",
)
GATES = ("softmax", "threshold", "ibp", "frozen")
EVIDENCES: tuple[Evidence, ...] = ("laplace", "quasi_laplace")
"""What states are drawn from."""
EXACT = 1e-10
"""Values, gradients of L and curvatures: sums of the same terms in another order."""
ADJOINT = 1e-9
"""Derivatives of ln|H|, and dV/drho, at one state."""
DIFFERENCES = 1e-6
"""Analytic gradient against differences of V, each value with its own inner solve."""
AGREEMENT = 1e-9
"""Different eliminations of the same system."""
DETERMINED = 1e-9
"""ln|H|, per variable, and V."""

INNER_TOL = 1e-12
LEAST_MOTION = 1e-7
"""Part of its size by which an atom's orbits and its scale must move it: one that has collapsed has none."""
LEAST_CURVATURE = 1e-5
"""Optima flatter than this, in units where A has a unit diagonal, amplify rounding beyond ``ADJOINT``: not compared."""

LOSS_PARTS = ("data_fit", "sparsity", "smoothness", "ard", "logit_prior")
ELIMINATIONS = ("primal", "dual", "complement")


SLOW = os.environ.get("SAE_RS_SLOW") == "1"


def deterministic(max_examples: int) -> settings:
    """The same examples in every run; with ``SAE_RS_SLOW=1`` eight times as many, which ``--hypothesis-seed`` chooses.

    Optima take long to find and some draws are turned down: no health checks, and no search for smaller failures.
    """
    return settings(
        derandomize=not SLOW,
        max_examples=8 * max_examples if SLOW else max_examples,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )


any_state = recipes(
    kinds=KINDS, gate_kinds=GATES, evidences=EVIDENCES, max_atoms=2, max_rows=10, max_outputs=5, held=True
)
small_state = recipes(kinds=KINDS, gate_kinds=GATES, evidences=EVIDENCES, max_atoms=2, max_rows=8, max_outputs=4)
near_optimum = recipes(
    kinds=KINDS, gate_kinds=GATES, evidences=EVIDENCES, max_atoms=2, max_rows=10, max_outputs=7, planted=True
)

EVERYTHING_ON = Recipe(
    (Circle(2), Circle(1), Circle(1)),
    Softmax(temperature=1.3),
    n=12,
    p=7,
    weighted=True,
    full_support=False,
    ard=(False, True, False),
    log_lambda_sparse=0.5,
    seed=3,
)
THRESHOLD, OPEN, COUPLED = Threshold(0.2, 0.8), Threshold(ungated=(1,)), IBP(alpha=1.5, logit_precision=0.5)
PLUG_IN = IBP(energy_kind="plug_in", learnable=False, logit_precision=0.5, ungated=(1,))
EXAMPLES = (
    EVERYTHING_ON,
    Recipe((Torus(1),), THRESHOLD, n=14, p=5, log_noise=-3.0, seed=13),
    Recipe((Sphere(1), Line()), OPEN, n=9, p=6, log_noise=-3.0, log_lambda_sparse=-2.0, seed=20),
    Recipe((Cylinder(1, 1), Circle(1)), COUPLED, n=9, p=6, log_noise=-3.0, seed=15),
    Recipe((Patch(2, 2), Line()), PLUG_IN, n=9, p=6, log_noise=-3.0, ard=(False, True), seed=17),
    Recipe((Poincare(2), ProjectivePlane(2)), Frozen(), n=9, p=6, log_noise=-3.0, seed=18),
    Recipe((FiniteSet(2), duchon(5, 1)), Softmax(), n=12, p=6, full_support=False, ard=(False, True), seed=22),
    Recipe((KleinBottle(2),), Frozen(), n=16, p=5, log_noise=-3.0, seed=20),
    Recipe((Mobius(2, 1),), Frozen(), n=12, p=5, log_noise=-3.0, seed=21),
    Recipe((Segment(3), Circle(1)), Frozen(), n=12, p=6, log_noise=-3.0, held=True, seed=24),
)
"""Every kind and every gate, at states that lead to clear optima."""


def on_examples(test: Any) -> Any:
    """The examples before the draws."""
    for recipe in EXAMPLES:
        test = example(recipe)(test)
    return test


# How numbers are compared


def relative_error(actual: Array | float, expected: Array | float, *addends: Array | float) -> float:
    """Largest difference over the largest entry of ``expected`` and of the ``addends`` it is a sum of.

    A sum of terms of both signs carries the rounding error of its largest term, so a sum that nearly cancels (V near 0,
    a gradient near an optimum) is measured against its terms.
    """
    actual, expected = np.asarray(actual, float), np.asarray(expected, float)
    assert actual.shape == expected.shape
    scale = max((float(np.max(np.abs(v), initial=0.0)) for v in (expected, *addends)), default=0.0)
    error = float(np.max(np.abs(actual - expected), initial=0.0))
    return error if scale == 0 else error / scale


# From the reference's objects to the core's


def core_rho(rho: Rho, **options: Any) -> Any:
    return _core.SaeManifoldRho(
        log_lambda_sparse=rho.log_lambda_sparse,
        log_lambda_smooth=rho.log_lambda_smooth.tolist(),
        log_ard=[block.tolist() for block in rho.log_ard],
        log_dispersion=rho.log_dispersion,
        **options,
    )


def core_term(problem: Problem, state: State, *, shift: Array | float = 0.0) -> Any:
    return _core.SaeManifoldTerm(
        np.ascontiguousarray(problem.data + shift),
        [atom.spec() for atom in problem.atoms],
        problem.gate.spec(problem.n_atoms),
        state.logits,
        list(state.coords),
        list(state.decoders),
        support=state.support,
        weights=problem.weights,
        center=True,
        evidence=problem.evidence,
    )


def state_of(term: Any) -> State:
    """The state of a core term; angles are compared through what they do, since the core keeps them in one period."""
    coords, decoders = tuple(np.asarray(t) for t in term.coords), tuple(np.asarray(b) for b in term.decoders)
    return State(np.asarray(term.logits), coords, decoders, np.asarray(term.support))


def total(terms: dict[str, float]) -> float:
    """Sum of named terms; ``total`` is a sum already."""
    return sum(value for name, value in terms.items() if name != "total")


def determined(problem: Problem, state: State, rho: Rho) -> Rounding:
    """What rounding leaves of the determinants, for ``agrees``.

    Turns a draw down that has none: H is not positive definite, which the core must say as well, or an atom has
    collapsed. Where H is singular to rounding the core may decide either way.
    """
    rounding = Rounding.of(problem, state, rho)
    if rounding.positive != "yes":
        assume(not refused(problem, state, rho))
        assert rounding.positive == "unknown"
        assume(rounding.invertible)
    if rounding.generators.shape[1]:
        # An atom that has collapsed, such as a sphere onto a disc, has orbits that do not move.
        stiffness = np.linalg.eigvalsh(rounding.generators.T @ rounding.matrix @ rounding.generators)
        assume(stiffness[0] > LEAST_MOTION * stiffness[-1])
    for k in range(problem.n_atoms):
        # Nor does the scale of one that has collapsed to its middle, such as a band onto a circle: all widths are zero
        # to rounding. Where it has not, a row's adds about one.
        term = scale(problem, state, rho, k)
        assume(term is None or term.stretch > LEAST_MOTION * state.support[:, k].sum())
    return rounding


def refused(problem: Problem, state: State, rho: Rho) -> bool:
    """Whether the core finds that H is not positive definite."""
    try:
        core_term(problem, state).criterion_as_atoms(core_rho(rho))
    except ValueError as error:
        return "not positive definite" in str(error)
    return False


def agrees(
    rounding: Rounding,
    tolerance: float,
    bound: Callable[[], float],
    actual: Array | float,
    expected: Array | float,
    *addends: Array | float,
) -> bool:
    """Whether two numbers agree to a relative tolerance or, where the condition of H does not allow that, to a bound of
    their rounding."""
    error = relative_error(actual, expected, *addends)
    if error < tolerance or rounding.allows(tolerance):
        return error < tolerance
    return float(np.max(np.abs(np.asarray(actual) - np.asarray(expected)))) < bound()


def assert_evidence(rounding: Rounding, actual: dict[str, float], problem: Problem, state: State, rho: Rho) -> None:
    """The named terms of V at a state, and their sum."""
    expected, size = evidence_all_terms(problem, state, rho), float(len(rounding.matrix))

    def bound() -> float:
        return rounding.log_det_bound

    for name in (*LOSS_PARTS, "scale", "constants", "unsupported", "occam"):
        assert relative_error(actual[name], expected.get(name, 0.0), float(problem.n_rows)) < EXACT, name
    # Blocks of H are no flatter than H.
    n = float(problem.n_rows)
    assert agrees(rounding, EXACT, bound, actual["compact"], expected.get("compact", 0.0), n)
    assert agrees(rounding, EXACT, bound, actual["sides"], expected.get("sides", 0.0), n)
    # How the orbit's share is split from ln|H| is the core's business; their sum is not.
    share = expected["log_det"] + expected.get("orbit", 0.0)
    assert agrees(rounding, DETERMINED, bound, actual["log_det"] + actual["orbit"], share, size)
    value = evidence(problem, state, rho)
    assert agrees(rounding, DETERMINED, bound, total(actual), value, *expected.values())


def assert_adjoint(rounding: Rounding, term: Any, problem: Problem, state: State, rho: Rho) -> None:
    """Gamma at a state."""
    actual, expected = np.asarray(term.logdet_theta_adjoint(core_rho(rho))), log_det_adjoint(problem, state, rho)
    assert agrees(rounding, ADJOINT, lambda: rounding.adjoint_bound, actual, expected)


@cache
def optimum(recipe: Recipe) -> Example | None:
    """The recipe's problem at its inner optimum; None when the reference takes long to get there."""
    problem, start, rho = recipe.build()
    solution = solve(problem, start, rho, tol=INNER_TOL, max_iter=150)
    return Example(problem, solution.state, rho) if solution.converged else None


def clear(problem: Problem, state: State, rho: Rho, *, held: bool = False) -> None:
    """Turns an optimum down that is nearly flat, or where an open threshold gate would rather be closed.

    Where V has no nine digits, its differences have no six at a step of a thousandth.

    The core stops such a gate at its wall, and its logit is no variable there: ``held`` lets that pass. A coordinate
    that is held at an end must rather leave its interval: the reference does not let it go, the core does.
    """
    for coordinate in held_coordinates(problem, state, rho):
        low, high = coordinate.place.factor.low, coordinate.place.factor.high  # type: ignore[attr-defined]
        outward = np.sign(coordinate.place.t[0] - 0.5 * (low + high))
        assume(outward * coordinate.slope < 0)
    system = pin_orbits(problem, state, rho, exact_hessian(problem, state, rho))
    unit = 1 / np.sqrt(np.abs(np.diag(system)))
    least = np.linalg.eigvalsh(unit[:, None] * system * unit)[0]
    assume(least > LEAST_CURVATURE)
    rounding = determined(problem, state, rho)
    assume(rounding.allows(DETERMINED))
    if problem.classic:
        # Without proper priors gates may vanish and atoms collapse, on the way to an infimum that no state has.
        values = np.linalg.eigvalsh(rounding.matrix)
        assume(EPS * values[-1] <= DETERMINED * values[0])
    if isinstance(problem.gate, Threshold) and not held:
        is_gated = gated(problem.n_atoms, problem.gate.ungated)
        assume((state.logits > problem.gate.wall)[state.support & is_gated].all())


def clear_optimum(recipe: Recipe) -> Example:
    """The recipe's problem at its inner optimum; draws whose optimum is not clear are turned down."""
    found = optimum(recipe)
    assume(found is not None)
    assert found is not None
    clear(*found)
    return found


def kinks(problem: Problem, state: State, rho: Rho) -> list[bool]:
    """Signs at which V has a kink: those of the gate prior's curvature, of the coordinate priors' and of held ones'."""
    if isinstance(problem.gate, Softmax):
        signs = [bool(v > 0) for row in state.logits for v in entropy_hessian(row, problem.gate.temperature).ravel()]
    else:
        prior = problem.gate.majoriser(state.logits, state.support, rho.log_lambda_sparse)
        ties = problem.gate.coupling(state.logits, state.support, rho.log_lambda_sparse)
        signs = (np.diag(prior) != np.diag(ties)).tolist()
    for place in places(problem, state, rho, supported=True):
        signs += (place.factor.curvature(place.t, place.alpha) > 0).tolist()
    signs += [held.exact > 0 for held in held_coordinates(problem, state, rho)]
    return signs


# At any state


@deterministic(20)
@on_examples
@given(any_state)
def test_state_is_kept(recipe: Recipe) -> None:
    problem, state, rho = recipe.build()
    term = core_term(problem, state)
    assert (term.n_rows, term.n_outputs, term.n_atoms) == (problem.n_rows, problem.n_outputs, problem.n_atoms)
    kept = state_of(term)
    np.testing.assert_array_equal(kept.support, state.support)
    free = problem.free_logits(state.support)
    np.testing.assert_array_equal(kept.logits[:, : problem.n_free][free], state.logits[:, : problem.n_free][free])
    for mine, theirs in zip(kept.decoders, state.decoders, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    # A term does not know the strengths: gates that depend on them are those of strength one.
    unit = replace(rho, log_lambda_sparse=0.0)
    assert relative_error(np.asarray(term.gates), gates(problem, state, unit)) < 1e-13
    assert not np.asarray(term.gates)[~state.support].any()
    assert relative_error(reconstruct(problem, kept, rho), reconstruct(problem, state, rho)) < 1e-13


@deterministic(20)
@on_examples
@given(any_state)
def test_parts_of_the_objective(recipe: Recipe) -> None:
    problem, state, rho = recipe.build()
    expected = loss_parts(problem, state, rho)
    actual = core_term(problem, state).loss(core_rho(rho))
    assert set(actual) == {*LOSS_PARTS, "total"}
    for name in LOSS_PARTS:
        assert relative_error(actual[name], expected[name], float(problem.n_rows)) < EXACT, name
    assert relative_error(actual["total"], sum(expected.values()), *expected.values()) < EXACT


@deterministic(20)
@on_examples
@given(any_state)
def test_gradient_of_the_objective(recipe: Recipe) -> None:
    problem, state, rho = recipe.build()
    variables = Variables(problem, state.support)
    expected, data = gradient_theta(problem, state, rho), data_gradient(problem, state, rho)
    system = core_term(problem, state).assemble_arrow_schur(core_rho(rho))
    rows = [np.asarray(system.gt(i)) for i in range(problem.n_rows)]
    dims = np.array([atom.dim for atom in problem.atoms])
    lengths = problem.free_logits(state.support).sum(axis=1) + state.support @ dims
    assert [len(row) for row in rows] == lengths.tolist()
    actual = np.concatenate([*rows, np.asarray(system.gb).ravel()])
    assert relative_error(actual, expected, data) < EXACT
    # Rows apart, so that a small row is not hidden behind large decoder gradients.
    begin = variables.border_start
    assert relative_error(actual[:begin], expected[:begin], data[:begin]) < EXACT


@deterministic(20)
@on_examples
@given(any_state)
def test_curvature(recipe: Recipe) -> None:
    problem, state, rho = recipe.build()
    variables = Variables(problem, state.support)
    expected = curvature(problem, state, rho)
    system = core_term(problem, state).assemble_arrow_schur(core_rho(rho))
    border = np.arange(variables.border_start, variables.size)
    assert relative_error(np.asarray(system.dense()), expected) < EXACT
    assert relative_error(np.asarray(system.hbb), expected[np.ix_(border, border)]) < EXACT
    for i in range(problem.n_rows):
        own = variables.row(i)[: -len(border)]
        assert relative_error(np.asarray(system.htt(i)), expected[np.ix_(own, own)]) < EXACT
        assert relative_error(np.asarray(system.htbeta(i)), expected[np.ix_(own, border)]) < EXACT
    # What the classic criterion replaces is still in this matrix, which may be singular for it.
    rounding = Rounding.of(problem, state, rho, conditioned=False)
    assume(rounding.positive == "yes")
    actual, size = log_det(np.asarray(system.dense())), float(variables.size)
    assert agrees(rounding, DETERMINED, lambda: rounding.log_det_bound, actual, log_det(expected), size)


@deterministic(20)
@on_examples
@given(any_state)
def test_terms_of_the_evidence(recipe: Recipe) -> None:
    problem, state, rho = recipe.build()
    rounding = determined(problem, state, rho)
    assert_evidence(rounding, core_term(problem, state).criterion_as_atoms(core_rho(rho)), problem, state, rho)


@deterministic(12)
@on_examples
@given(small_state)
def test_log_determinant_adjoint(recipe: Recipe) -> None:
    problem, state, rho = recipe.build()
    rounding = determined(problem, state, rho)
    assert_adjoint(rounding, core_term(problem, state), problem, state, rho)


# At a converged state


def gradient_addends(problem: Problem, state: State, rho: Rho) -> tuple[Array, Array]:
    """Two of the three terms of dV/drho; the third is their difference to the sum."""
    return loss_rho(problem, state, rho), evidence_rho(problem, state, rho)


@deterministic(15)
@on_examples
@given(near_optimum)
def test_gradient_of_the_evidence_at_the_same_state(recipe: Recipe) -> None:
    problem, state, rho = clear_optimum(recipe)
    expected, addends = implicit_gradient(problem, state, rho), gradient_addends(problem, state, rho)
    actual = np.asarray(core_term(problem, state).analytic_outer_rho_gradient(core_rho(rho)))
    assert relative_error(actual, expected, *addends) < ADJOINT
    if problem.n_atoms == 1 and isinstance(problem.gate, Softmax):
        assert actual[0] == 0


@deterministic(12)
@on_examples
@given(near_optimum)
def test_evaluation_stays_at_an_optimum(recipe: Recipe) -> None:
    problem, state, rho = clear_optimum(recipe)
    result = core_term(problem, state).evaluate(core_rho(rho), tol=INNER_TOL)
    expected, terms = evidence(problem, state, rho), evidence_all_terms(problem, state, rho)
    assert relative_error(result.value, expected, *terms.values()) < DETERMINED
    assert relative_error(total(result.parts), result.value, *terms.values()) < 1e-13
    addends = gradient_addends(problem, state, rho)
    assert relative_error(np.asarray(result.gradient), implicit_gradient(problem, state, rho), *addends) < ADJOINT


@deterministic(12)
@on_examples
@given(near_optimum)
def test_evaluation_finds_an_optimum(recipe: Recipe) -> None:
    """From a start that is not converged, the core and the reference agree at the state the core ends in."""
    problem, start, rho = recipe.build()
    result = core_term(problem, start).evaluate(core_rho(rho), tol=INNER_TOL, max_inner=2000)
    assume(result.inner.status == "converged")
    state = state_of(result.term)
    np.testing.assert_array_equal(state.support, start.support)
    rounding = determined(problem, state, rho)
    assert_evidence(rounding, result.parts, problem, state, rho)
    assert sum(loss_parts(problem, state, rho).values()) <= sum(loss_parts(problem, start, rho).values())
    slope, data = gradient_theta(problem, state, rho), data_gradient(problem, start, rho)
    assert relative_error(slope, np.zeros_like(slope), data) < 1e-7


@deterministic(6)
@on_examples
@given(near_optimum)
def test_gradient_of_the_evidence_against_differences(recipe: Recipe) -> None:
    problem, state, rho = clear_optimum(recipe)
    term, flat = core_term(problem, state), rho.to_flat()
    signs = kinks(problem, state, rho)

    def value(at: Array) -> float:
        result = term.evaluate(core_rho(rho.from_flat(at)), tol=INNER_TOL, gradient=False)
        # V has no derivative at a kink of H: a draw with one inside the stencil is turned down.
        assume(kinks(problem, state_of(result.term), rho) == signs)
        return float(result.value)

    gradient, addends = (
        np.asarray(term.evaluate(core_rho(rho), tol=INNER_TOL).gradient),
        gradient_addends(problem, state, rho),
    )
    slope = slopes(value, flat, scale=max(float(np.abs(v).max()) for v in (gradient, *addends)))
    assert relative_error(gradient, slope, *addends) < DIFFERENCES


@deterministic(10)
@on_examples
@given(near_optimum)
def test_eliminations_agree(recipe: Recipe) -> None:
    problem, state, rho = clear_optimum(recipe)
    term, terms = core_term(problem, state), evidence_all_terms(problem, state, rho)
    addends = gradient_addends(problem, state, rho)
    results = [term.evaluate(core_rho(rho), tol=INNER_TOL, elimination=name) for name in ELIMINATIONS]
    for name, result in zip(ELIMINATIONS, results, strict=True):
        assert result.elimination == name
        assert relative_error(result.value, results[0].value, *terms.values()) < AGREEMENT
        assert relative_error(np.asarray(result.gradient), np.asarray(results[0].gradient), *addends) < AGREEMENT


# Single cases


def test_centring_is_the_column_mean() -> None:
    problem, state, rho = EVERYTHING_ON.build()
    shift = np.linspace(-1.0, 2.0, problem.n_outputs)
    term = core_term(problem, state, shift=shift)
    assert relative_error(np.asarray(term.mean), shift) < 1e-13
    terms = evidence_all_terms(problem, state, rho)
    actual = total(term.criterion_as_atoms(core_rho(rho)))
    assert relative_error(actual, evidence(problem, state, rho), *terms.values()) < EXACT


def test_missing_support_means_every_atom() -> None:
    problem, state, rho = Recipe((Circle(1), Circle(2)), seed=5).build()
    term = core_term(problem, state)
    assert np.asarray(term.support).all()
    bare = core_term(problem, State(state.logits, state.coords, state.decoders, None))  # type: ignore[arg-type]
    assert bare.criterion_as_atoms(core_rho(rho)) == term.criterion_as_atoms(core_rho(rho))


def test_what_a_row_does_not_use_of_a_threshold_gate_is_not_there() -> None:
    """Closed logits and their coordinates change nothing; where they are asked for, they are at rest."""
    problem, state, rho = Recipe((Circle(1), Sphere(1), Line()), THRESHOLD, full_support=False, seed=9).build()
    other = Recipe(problem.atoms, THRESHOLD, n=problem.n_rows, seed=10).build().state
    logits = np.where(state.support, state.logits, other.logits - 7.0)
    coords = tuple(np.where(state.support[:, [k]], t, other.coords[k]) for k, t in enumerate(state.coords))
    term = core_term(problem, state)
    assert core_term(problem, replace(state, logits=logits, coords=coords)).criterion_as_atoms(
        core_rho(rho)
    ) == term.criterion_as_atoms(core_rho(rho))
    found = term.evaluate(core_rho(rho), tol=INNER_TOL, gradient=False).term
    rest = np.asarray(found.logits)[~state.support]
    slope = THRESHOLD.charges(np.full(3, rest[0]))[1][0] * np.exp(rho.log_lambda_sparse)
    assert len(rest)
    assert (rest == rest[0]).all()
    assert abs(slope + THRESHOLD.logit_precision * rest[0]) < 1e-12


def test_order_of_rho() -> None:
    _, _, rho = Recipe((Circle(1), Torus(1), Line()), ard=(True, False, True), seed=6).build()
    np.testing.assert_array_equal(np.asarray(core_rho(rho).to_flat()), rho.to_flat())
    moved = rho.to_flat() + np.arange(len(rho.to_flat()))
    np.testing.assert_array_equal(np.asarray(core_rho(rho).from_flat(moved).to_flat()), moved)


def test_a_shared_angle_precision_collects_the_slopes_of_its_owners() -> None:
    recipe = Recipe((Circle(1), Circle(1)), n=12, p=7, ard=(True, True), log_noise=-2.5, seed=7)
    problem, start, rho = recipe.build()
    rho = replace(rho, log_ard=(np.array([0.2]), np.array([0.2])))
    term = core_term(problem, solve(problem, start, rho, tol=INNER_TOL).state)
    apart = np.asarray(term.analytic_outer_rho_gradient(core_rho(rho)))
    together = np.asarray(term.analytic_outer_rho_gradient(core_rho(rho, ard_sharing="shared")))
    expected = np.concatenate([apart[:3], [apart[3] + apart[4]], apart[5:]])
    assert relative_error(together, expected, apart) < EXACT


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_scale_equivariance(factor: float) -> None:
    found = optimum(EVERYTHING_ON)
    assert found is not None
    problem, state, rho = found
    scaled = replace(problem, data=factor * problem.data)
    big = replace(state, decoders=tuple(factor * b for b in state.decoders))
    loud = replace(rho, log_dispersion=rho.log_dispersion + 2 * np.log(factor))
    before = core_term(problem, state).evaluate(core_rho(rho), tol=INNER_TOL)
    after = core_term(scaled, big).evaluate(core_rho(loud), tol=INNER_TOL)
    gain = problem.n_rows * problem.n_outputs * np.log(factor)
    terms = evidence_all_terms(problem, state, rho)
    assert relative_error(after.value, before.value + gain, *terms.values(), gain) < AGREEMENT
    addends = gradient_addends(problem, state, rho)
    assert relative_error(np.asarray(after.gradient), np.asarray(before.gradient), *addends) < ADJOINT
