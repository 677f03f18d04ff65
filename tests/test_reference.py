"""The dense reference checked against itself: finite differences, invariances, known limits.

Derivatives are compared along random directions: one in each group of variables (logits, coordinates, decoders), and
three in the strengths. A wrong entry of a formula shows along almost every direction. Quantities at a moved state are
brought back to the frames of the state before they are subtracted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from numpy.typing import NDArray
from scipy.linalg import expm

from numeric import STENCIL, STEP, assert_close
from numeric import slope as slope_of
from reference import (
    Problem,
    Rho,
    State,
    Variables,
    curvature,
    curvature_rho,
    curvature_theta,
    evidence,
    evidence_rho,
    evidence_terms,
    evidence_theta,
    exact_hessian,
    gauge,
    gradient_theta,
    implicit_gradient,
    loss,
    loss_parts,
    loss_rho,
    mixed_theta_rho,
    reconstruct,
    solve,
)
from reference.atoms import (
    Atom,
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
from reference.conditioning import Conditioned
from reference.curvature import data_curvature, gauge_generators, gauge_theta, unseen_directions
from reference.evidence import log_symmetries
from reference.gates import IBP, Frozen, Gate, Softmax, Threshold
from reference.jets import row_jets
from reference.objective import gates
from reference.priors import places
from strategies import Recipe, duchon, recipes

Array = NDArray[np.float64]

SOFTMAX, COLD = Softmax(), Softmax(0.6, 0.2)
THRESHOLD, THRESHOLD_UNGATED = Threshold(0.2, 0.8), Threshold(ungated=(1,))
# The coupling of the IBP gate is negative; with a logit precision of a half H is positive definite at any state.
IBP_LEARNABLE = IBP(alpha=1.5, logit_precision=0.5)
IBP_FIXED = IBP(alpha=1.5, learnable=False, temperature=0.8, logit_precision=0.5, ungated=(0,))
IBP_PLUG_IN = IBP(energy_kind="plug_in", logit_precision=0.5)
IBP_PLUG_IN_FIXED = IBP(learnable=False, energy_kind="plug_in", logit_precision=0.5)
FROZEN = Frozen()
GATES: tuple[Gate, ...] = (SOFTMAX, THRESHOLD_UNGATED, IBP_LEARNABLE, IBP_FIXED, IBP_PLUG_IN, FROZEN)

PAIRS = (
    (Circle(2), Torus(1)),
    (Sphere(1), Cylinder(1, 2)),
    (ProjectivePlane(2), Line()),
    (Patch(2, 2), Circle(1)),
    (duchon(5, 1), Sphere(2)),
    (Poincare(2), Patch(1, 3)),
    (KleinBottle(2), Line()),
    (Mobius(2, 1), duchon(7, 2)),
    (FiniteSet(3), Circle(1)),
    (Segment(3), Segment(1)),
)
"""Every kind of atom; each pair meets every gate."""


def _every_pair_and_gate() -> Iterator[Recipe]:
    for number, atoms in enumerate(PAIRS):
        for turn, gate in enumerate(GATES):
            mixed = number + turn
            yield Recipe(
                atoms,
                gate,
                n=6,
                p=3,
                weighted=mixed % 2 == 0,
                full_support=mixed % 3 == 0,
                ard=(mixed % 4 == 1, mixed % 4 == 2),
                log_lambda_sparse=0.4,
                seed=100 * number + turn,
                held=any(isinstance(atom, Segment) for atom in atoms),
            )


CASES = (
    *_every_pair_and_gate(),
    Recipe((Circle(2),), seed=1),
    Recipe((Circle(1), Line()), THRESHOLD, full_support=False, seed=2),
    Recipe((Circle(1), Line()), IBP_PLUG_IN_FIXED, full_support=False, seed=2),
    Recipe((Circle(1), Circle(1), Circle(1)), COLD, p=5, seed=3),
    Recipe(
        (Circle(1), Line(), Circle(3)), Softmax(1.4), n=9, weighted=True, full_support=False, ard=(True,) * 3, seed=4
    ),
    # The classic mode. Rows that use both circles have more variables than outputs, so a direction of each is replaced;
    # the decoders are held by the rows that use one.
    Recipe((Circle(1), Circle(1)), THRESHOLD, n=24, p=3, full_support=False, evidence="quasi_laplace", seed=5),
    Recipe((Torus(1), Line()), THRESHOLD_UNGATED, p=5, evidence="quasi_laplace", full_support=False, seed=6),
    Recipe(
        (Patch(1, 2), Circle(1)),
        IBP_PLUG_IN_FIXED,
        n=10,
        p=5,
        evidence="quasi_laplace",
        full_support=False,
        log_lambda_sparse=-4.0,
        seed=2,
    ),
    Recipe((Sphere(1), Circle(1)), SOFTMAX, p=5, evidence="quasi_laplace", ard=(False, True), weighted=True, seed=8),
    Recipe((Poincare(2), ProjectivePlane(2)), FROZEN, p=5, evidence="quasi_laplace", seed=9),
)

OPTIMA = (
    Recipe((Circle(1), Circle(1)), SOFTMAX, n=9, p=5, log_noise=-2.5, seed=11),
    Recipe((Circle(2), Line()), COLD, n=9, p=5, weighted=True, full_support=False, ard=(True, False), seed=12),
    Recipe((Torus(1),), THRESHOLD, n=14, p=5, log_noise=-3.0, seed=13),
    Recipe((Sphere(1), Line()), THRESHOLD_UNGATED, n=9, p=6, log_noise=-3.0, seed=14),
    Recipe((Cylinder(1, 1), Circle(1)), IBP_LEARNABLE, n=9, p=6, log_noise=-3.0, seed=15),
    Recipe((Circle(1), ProjectivePlane(2)), IBP_FIXED, n=9, p=6, log_noise=-3.0, seed=16),
    Recipe((Patch(2, 2), Line()), IBP_PLUG_IN, n=9, p=6, log_noise=-3.0, ard=(False, True), seed=17),
    Recipe((Poincare(2),), IBP_PLUG_IN_FIXED, n=9, p=5, log_noise=-3.0, seed=18),
    Recipe((duchon(5, 1), Circle(1)), FROZEN, n=9, p=5, log_noise=-3.0, ard=(True, False), seed=19),
    Recipe((KleinBottle(2),), FROZEN, n=16, p=5, log_noise=-3.0, seed=20),
    Recipe((Mobius(2, 1),), FROZEN, n=12, p=5, log_noise=-3.0, seed=21),
    Recipe((Sphere(1),), FROZEN, n=9, p=5, log_noise=-3.0, evidence="quasi_laplace", seed=23),
    Recipe((Segment(3),), FROZEN, n=14, p=5, log_noise=-3.0, held=True, seed=24),
    # Without a Gaussian on the logits gates go all the way open, and their logits become null directions of H.
    Recipe((Circle(1),) * 2, IBP_FIXED, 10, 6, full_support=False, log_noise=-3.0, evidence="quasi_laplace", seed=22),
    Recipe((Circle(1),) * 2, IBP_PLUG_IN, 10, 6, full_support=False, log_noise=-3.0, evidence="quasi_laplace", seed=22),
)
"""Problems with a clear inner optimum; together they have every kind, every gate and both criteria."""


def name(recipe: Recipe) -> str:
    atoms = "+".join(atom.kind for atom in recipe.atoms)
    return f"{atoms}-{recipe.gate.kind}-{recipe.evidence}-{recipe.seed}"


every_case = pytest.mark.parametrize("recipe", CASES, ids=name)
every_optimum = pytest.mark.parametrize("recipe", OPTIMA, ids=name)
some_cases = pytest.mark.parametrize("recipe", CASES[:: len(CASES) // 12], ids=name)
some_recipes = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


# Derivatives at any state


@dataclass(frozen=True)
class Quantities:
    """All that is differentiated, at one state, with frames turned back."""

    loss: float
    gradient: Array
    curvature: Array
    generators: Array
    terms: float
    slope: Array

    @classmethod
    def at(cls, problem: Problem, state: State, rho: Rho, turn: Array) -> Quantities:
        return cls(
            loss(problem, state, rho),
            turn.T @ gradient_theta(problem, state, rho),
            turn.T @ curvature(problem, state, rho) @ turn,
            turn.T @ gauge(problem, state, rho),
            sum(evidence_terms(problem, state, rho).values()),
            loss_rho(problem, state, rho),
        )


WIDTHS = (3 * STEP, 0.3 * STEP)
"""Steps of differences: ln|H| has the rounding error of a matrix that is nearly flat along orbits and wants a wide one,
a coordinate with hardly any curvature makes E bend fast and wants a narrow one."""

TOLERANCES = {"loss": 1e-7, "gradient": 1e-7, "curvature": 1e-7, "generators": 1e-8, "terms": 1e-6, "slope": 1e-7}


def assert_derivative(function: Callable[[float], Quantities], **expected: tuple[Array | float, float]) -> None:
    """Each expected derivative at 0, given with the size its error is relative to, agrees with a difference."""
    misses = dict.fromkeys(expected, np.inf)
    for step in WIDTHS:
        points = [(weight / step, vars(function(reach * step))) for reach, weight in STENCIL]
        for key, (value, scale) in expected.items():
            error = np.max(np.abs(sum(w * values[key] for w, values in points) - value), initial=0.0)
            misses[key] = min(misses[key], error / (TOLERANCES[key] * max(1.0, scale)))
        if max(misses.values()) <= 1:
            return
    raise AssertionError(f"errors over tolerances: {misses}")


def directions(problem: Problem, state: State, rho: Rho, rng: np.random.Generator) -> list[Array]:
    """A random step in the logits, one in the coordinates and one in the decoders."""
    variables, steps = Variables(problem, state.support), []
    moving = [place.index for place in places(problem, state, rho, supported=True) if place.factor.moves(place.t)]
    coords = np.concatenate([np.zeros(0, int), *moving])
    for group in (variables.logit[variables.free], coords, np.arange(variables.border_start, variables.size)):
        if len(group):
            step = np.zeros(variables.size)
            step[group] = rng.standard_normal(len(group))
            steps.append(step / np.linalg.norm(step))
    return steps


def sized(value: Array | float) -> tuple[Array | float, float]:
    """A value with its largest entry."""
    return value, float(np.max(np.abs(value), initial=0.0))


def check_derivatives(recipe: Recipe) -> None:
    """Every analytic derivative at the recipe's state against differences."""
    problem, state, rho = recipe.build()
    variables, rng = Variables(problem, state.support), np.random.default_rng(0)
    gradient, hessian = gradient_theta(problem, state, rho), exact_hessian(problem, state, rho)
    changes = np.stack(list(curvature_theta(problem, state, rho)), axis=-1)
    turns = np.stack(list(gauge_theta(problem, state, rho)), axis=-1)
    terms, mixed = evidence_theta(problem, state, rho), mixed_theta_rho(problem, state, rho)
    for step in directions(problem, state, rho, rng):

        def along(s: float, step: Array = step) -> Quantities:
            moved, turn = variables.move(state, s * step), variables.transport(state, s * step)
            return Quantities.at(problem, moved, rho, turn)

        assert_derivative(
            along,
            loss=sized(gradient @ step),
            gradient=sized(hessian @ step),
            curvature=sized(changes @ step),
            generators=sized(turns @ step),
            terms=(terms @ step, np.abs(terms).max()),
            slope=sized(mixed.T @ step),
        )

    slope, explicit = loss_rho(problem, state, rho), evidence_rho(problem, state, rho)
    curvatures, still = np.stack(curvature_rho(problem, state, rho), axis=-1), np.eye(variables.size)
    first, last = np.eye(len(slope))[[0, -1]]
    for step in (first, last, rng.standard_normal(len(slope)) * (1 - first - last)):

        def in_rho(s: float, step: Array = step) -> Quantities:
            return Quantities.at(problem, state, rho.from_flat(rho.to_flat() + s * step), still)

        assert_derivative(
            in_rho,
            loss=sized(slope @ step),
            gradient=sized(mixed @ step),
            curvature=sized(curvatures @ step),
            terms=(explicit @ step, np.abs(explicit).max()),
        )


@every_case
def test_derivatives(recipe: Recipe) -> None:
    check_derivatives(recipe)


WORST_CONDITION = 1e-7
"""Flatter curvatures than this have determinants whose rounding errors hide their differences."""


@some_recipes
@given(recipes(max_atoms=2, max_rows=8, max_outputs=4, evidences=("laplace", "quasi_laplace")))
def test_derivatives_of_drawn_dictionaries(recipe: Recipe) -> None:
    problem, state, rho = recipe.build()
    matrix = Conditioned(problem, state, rho).matrix if problem.classic else curvature(problem, state, rho)
    values = np.linalg.eigvalsh(matrix)
    assume(values[0] > WORST_CONDITION * values[-1])
    check_derivatives(recipe)


# Derivatives along the inner optimum


@cache
def optimum(recipe: Recipe) -> tuple[Problem, State, Rho]:
    problem, start, rho = recipe.build()
    solution = solve(problem, start, rho)
    assert solution.converged
    return problem, solution.state, rho


@every_optimum
def test_gradient_of_the_evidence(recipe: Recipe) -> None:
    """dV/drho against central differences of V with the inner optimum found again at every point."""
    problem, state, rho = optimum(recipe)
    flat, rng = rho.to_flat(), np.random.default_rng(0)
    slope = implicit_gradient(problem, state, rho)
    explicit = loss_rho(problem, state, rho)
    first, last = np.eye(len(flat))[[0, -1]]
    for step in (first, last, rng.standard_normal(len(flat)) * (1 - first - last)):
        values = []
        for reach, weight in STENCIL:
            moved_rho = rho.from_flat(flat + 1e-3 * reach * step)
            moved = solve(problem, state, moved_rho)
            assert moved.converged
            values.append(weight / 1e-3 * evidence(problem, moved.state, moved_rho))
        scale = max(1.0, np.abs(slope).max(), np.abs(explicit).max())
        assert abs(sum(values) - slope @ step) < 1e-7 * scale


@every_optimum
def test_exact_hessian_annihilates_the_orbits_at_the_optimum(recipe: Recipe) -> None:
    problem, state, rho = optimum(recipe)
    generators = gauge(problem, state, rho)
    moved = exact_hessian(problem, state, rho) @ generators
    assert_close(moved, np.zeros_like(moved), 1e-7)
    moved = mixed_theta_rho(problem, state, rho).T @ generators
    assert_close(moved, np.zeros_like(moved), 1e-7)


# Identities


@every_case
def test_data_curvature_annihilates_the_orbits(recipe: Recipe) -> None:
    problem, state, rho = recipe.build()
    generators = gauge(problem, state, rho)
    moved = data_curvature(problem, state, rho) @ generators
    size = np.abs(generators).max(initial=0.0) * np.abs(curvature(problem, state, rho)).max()
    assert np.abs(moved).max(initial=0.0) <= 1e-10 * size


@every_case
def test_curvature_is_symmetric(recipe: Recipe) -> None:
    problem, state, rho = recipe.build()
    matrix, hessian = curvature(problem, state, rho), exact_hessian(problem, state, rho)
    assert_close(matrix, matrix.T, 1e-14)
    assert_close(hessian, hessian.T, 1e-14)
    if not isinstance(recipe.gate, IBP) and not problem.classic:
        assert np.linalg.eigvalsh(matrix).min() > 0


@some_cases
def test_row_jets(recipe: Recipe) -> None:
    problem, state, rho = recipe.build()
    whole = reconstruct(problem, state, rho)
    for i in range(problem.n_rows):
        assert_close(row_jets(problem, state, rho, i).value, whole[i], 1e-13)
    assert sum(loss_parts(problem, state, rho).values()) == loss(problem, state, rho)
    a = gates(problem, state, rho)
    assert not a[~state.support].any()
    if isinstance(recipe.gate, Softmax):
        assert_close(a.sum(axis=1), np.ones(problem.n_rows), 1e-14)


def moved_atom(state: State, k: int, move: Callable[[Array], Array], basis_map: Array) -> State:
    """The state after a motion of atom k's chart, its decoder moved so that the fit stays."""
    coords, decoders = list(state.coords), list(state.decoders)
    coords[k] = np.array([move(t) for t in state.coords[k]])
    decoders[k] = np.linalg.solve(basis_map, state.decoders[k])
    return replace(state, coords=tuple(coords), decoders=tuple(decoders))


@every_case
def test_motions_of_the_charts_change_nothing(recipe: Recipe) -> None:
    """Free motions by a finite amount, and discrete symmetries, leave the fit and V as they are."""
    problem, state, rho = recipe.build()
    before, fit = evidence(problem, state, rho), reconstruct(problem, state, rho)
    size = max(1.0, *np.abs(list(evidence_terms(problem, state, rho).values())))
    for k, generator in gauge_generators(problem, state, rho):
        turned = moved_atom(state, k, lambda t, g=generator: g.flow(t, 0.9), expm(0.9 * generator.basis_map))
        assert_close(reconstruct(problem, turned, rho), fit, 1e-11)
        assert abs(evidence(problem, turned, rho) - before) < 1e-9 * size
    for k, atom in enumerate(problem.atoms):
        for symmetry in atom.symmetries(rho.ard(k) is None):
            turned = moved_atom(state, k, symmetry.move, symmetry.basis_map)
            assert_close(reconstruct(problem, turned, rho), fit, 1e-11)
            assert abs(evidence(problem, turned, rho) - before) < 1e-9 * size


@some_cases
def test_turning_the_outputs_changes_nothing(recipe: Recipe) -> None:
    problem, state, rho = recipe.build()
    turn = np.linalg.qr(np.random.default_rng(9).standard_normal((recipe.p, recipe.p)))[0]
    turned = replace(problem, data=problem.data @ turn)
    # The mean column variance is the trace of the covariance, so s^2 does not feel the turn either.
    decoders = tuple(decoder @ turn for decoder in state.decoders)
    moved = evidence(turned, replace(state, decoders=decoders), rho)
    assert moved == pytest.approx(evidence(problem, state, rho), rel=1e-10)


@some_cases
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_scale_equivariance(recipe: Recipe, scale: float) -> None:
    """Data times c, decoders times c, phi times c^2: V gains n p ln c, its gradient nothing.

    The classic V has no normaliser of the data, but ln|H| of the decoders loses 2 ln c for each of its columns.
    """
    problem, state, rho = recipe.build()
    scaled = replace(problem, data=scale * problem.data)
    big = replace(state, decoders=tuple(scale * decoder for decoder in state.decoders))
    loud = replace(rho, log_dispersion=rho.log_dispersion + 2 * np.log(scale))
    gain = recipe.n * recipe.p
    if problem.classic:
        gain = -recipe.p * sum(atom.width for atom in problem.atoms)
    expected = evidence(problem, state, rho) + gain * np.log(scale)
    assert evidence(scaled, big, loud) == pytest.approx(expected, rel=1e-10, abs=1e-7)
    slope = loss_rho(problem, state, rho) + evidence_rho(problem, state, rho)
    assert_close(loss_rho(scaled, big, loud) + evidence_rho(scaled, big, loud), slope, 1e-7)


@some_cases
def test_unsupported_coordinates_count_for_nothing(recipe: Recipe) -> None:
    problem, state, rho = recipe.build()
    elsewhere = tuple(atom.draw(np.random.default_rng(5), problem.n_rows) for atom in problem.atoms)
    coords = tuple(
        np.where(state.support[:, [k]], mine, other)
        for k, (mine, other) in enumerate(zip(state.coords, elsewhere, strict=True))
    )
    moved = replace(state, coords=coords)
    assert evidence(problem, moved, rho) == pytest.approx(evidence(problem, state, rho), rel=1e-12)
    slope = loss_rho(problem, state, rho) + evidence_rho(problem, state, rho)
    assert_close(loss_rho(problem, moved, rho) + evidence_rho(problem, moved, rho), slope, 1e-12)


@pytest.mark.parametrize("atom", [atoms[0] for atoms in PAIRS], ids=lambda atom: atom.kind)
def test_an_atom_without_rows_counts_for_nothing(atom: Atom) -> None:
    """Its decoder integrates to one, and neither its orbits nor its symmetries count."""
    alone = Recipe((Circle(1),), FROZEN, seed=4)
    problem, state, rho = alone.build()
    idle = State(
        np.column_stack([state.logits, np.ones(problem.n_rows)]),
        (*state.coords, atom.draw(np.random.default_rng(0), problem.n_rows)),
        (*state.decoders, np.zeros((atom.width, problem.n_outputs))),
        np.column_stack([state.support, np.zeros(problem.n_rows, bool)]),
    )
    more = Rho(
        rho.log_lambda_sparse, np.r_[rho.log_lambda_smooth, 0.7], (*rho.log_ard, np.zeros(0)), rho.log_dispersion
    )
    value = evidence(replace(problem, atoms=(*problem.atoms, atom)), idle, more)
    assert value == pytest.approx(evidence(problem, state, rho), rel=1e-11)


@pytest.mark.parametrize("gate", [IBP_LEARNABLE, IBP_PLUG_IN_FIXED], ids=["ordered", "plug_in"])
def test_the_logit_of_a_closed_gate_integrates_to_one(gate: Gate) -> None:
    """Under the IBP gate a closed gate has no mass: at its optimum 0 the logit adds nothing to V."""
    problem, state, rho = Recipe((Circle(1), Line()), gate, full_support=False, seed=5).build()
    logits = np.where(state.support, state.logits, 0.0)
    at_rest = replace(state, logits=logits)
    eps, idle = problem.logit_precision, int((~state.support).sum())
    prior = loss_parts(problem, at_rest, rho)["logit_prior"] - 0.5 * eps * (logits**2).sum()
    assert prior == pytest.approx(-logits.size / 2 * (np.log(eps) - np.log(2 * np.pi)))
    matrix, variables = curvature(problem, at_rest, rho), Variables(problem, state.support)
    for a in variables.logit[~state.support]:
        assert matrix[a, a] == pytest.approx(eps)
        assert np.abs(matrix[a]).sum() == pytest.approx(eps)
    # Normaliser, curvature and the Gaussian constant of one such logit cancel.
    assert idle > 0
    assert -0.5 * np.log(eps / (2 * np.pi)) + 0.5 * np.log(eps) - 0.5 * np.log(2 * np.pi) == pytest.approx(0, abs=1e-15)


def test_atoms_that_the_gate_tells_apart_cannot_change_places() -> None:
    atoms, counts = (Circle(1),) * 3, []
    for gate in (SOFTMAX, Threshold(), THRESHOLD_UNGATED, IBP(), IBP(ungated=(0, 1)), FROZEN):
        problem, state, rho = Recipe(atoms, gate, seed=1).build()
        counts.append(np.exp(log_symmetries(problem, state, rho)) / 8)
    assert_close(np.array(counts), np.array([6.0, 6, 2, 1, 2, 1]), 1e-12)


@pytest.mark.parametrize("evidence_kind", ["laplace", "quasi_laplace"])
def test_a_logit_held_at_its_wall_is_no_variable(evidence_kind: str) -> None:
    """It keeps its energy; elsewhere V, L and their derivatives are those of a gate that is given."""
    recipe = Recipe((Circle(1), Line()), THRESHOLD, p=5, evidence=evidence_kind, seed=3)
    problem, state, rho = recipe.build()
    logits = state.logits.copy()
    logits[[0, 4], [1, 0]] = THRESHOLD.wall
    held = replace(state, logits=logits)
    variables = Variables(problem, held.support)
    at = variables.logit[[0, 4], [1, 0]]
    matrix, hessian = curvature(problem, held, rho), exact_hessian(problem, held, rho)
    for m in (matrix, hessian):
        assert_close(m[at], (1.0 if problem.classic else 2 * np.pi) * np.eye(len(m))[at], 1e-15)
    assert not gradient_theta(problem, held, rho)[at].any()
    assert not mixed_theta_rho(problem, held, rho)[at].any()
    assert not evidence_theta(problem, held, rho)[at].any()
    assert_close(gates(problem, held, rho)[[0, 4], [1, 0]], np.full(2, 0.5), 1e-14)
    step = np.random.default_rng(0).standard_normal(variables.size)
    step[at] = 0
    step /= np.linalg.norm(step)
    numeric = slope_of(lambda s: loss(problem, variables.move(held, s * step), rho))
    assert gradient_theta(problem, held, rho) @ step == pytest.approx(float(numeric), rel=1e-8)
    numeric = slope_of(lambda s: gradient_theta(problem, variables.move(held, s * step), rho))
    assert_close(hessian @ step, numeric, 1e-7)


def test_decoder_columns_that_nothing_sees_count_for_nothing_in_the_classic_mode() -> None:
    """Two atoms that every row uses fully: only the sum of their constants is seen."""
    gate = Threshold(ungated=(0, 1))
    problem, state, rho = Recipe((Circle(1),) * 2, gate, p=6, n=10, evidence="quasi_laplace", seed=3).build()
    (direction,) = unseen_directions(problem, state, rho)
    assert_close(np.abs(direction), np.array([1, 0, 0, 1, 0, 0]) / np.sqrt(2), 1e-10)
    assert np.linalg.eigvalsh(Conditioned(problem, state, rho).matrix)[0] > 1e-9
    shifted = [b.copy() for b in state.decoders]
    shifted[0][0] += 3.0
    shifted[1][0] -= 3.0
    moved = replace(state, decoders=tuple(shifted))
    assert evidence(problem, moved, rho) == pytest.approx(evidence(problem, state, rho), rel=1e-9)


def test_parts_of_the_classic_objective() -> None:
    """It differs from the proper one by constants and by the two weak priors alone."""
    recipe = Recipe((Circle(1), Cylinder(1, 2)), THRESHOLD, ard=(True, False), seed=6)
    problem, state, rho = recipe.build()
    plain = replace(problem, evidence="quasi_laplace")
    proper, classic = loss_parts(problem, state, rho), loss_parts(plain, state, rho)
    n, p, ln_2pi = problem.n_rows, problem.n_outputs, np.log(2 * np.pi)
    assert proper["data_fit"] - classic["data_fit"] == pytest.approx(n * p / 2 * (ln_2pi + rho.log_dispersion))
    assert proper["ard"] - classic["ard"] == pytest.approx(n * (ln_2pi + ln_2pi + 0.5 * ln_2pi))
    assert classic["logit_prior"] == 0
    assert proper["sparsity"] - classic["sparsity"] == pytest.approx(n * recipe.gate.log_normaliser(2, 0.0)[0])
    smoothness = sum(
        0.5 * rho.lambda_smooth(k) / rho.dispersion() * np.trace(b.T @ problem.atoms[k].roughness() @ b)
        for k, b in enumerate(state.decoders)
    )
    assert classic["smoothness"] == pytest.approx(smoothness)
    terms = evidence_terms(plain, state, rho)
    ranks = np.array([2, 9 - 2])
    assert terms["occam"] == pytest.approx(-0.5 * p * ranks @ rho.log_lambda_smooth)


def test_row_weights_are_relative() -> None:
    problem, state, rho = Recipe((Circle(2),), weighted=True, seed=1).build()
    assert problem.weights is not None
    heavier = replace(problem, weights=10 * problem.weights)
    assert evidence(heavier, state, rho) == pytest.approx(evidence(problem, state, rho), rel=1e-14)


def test_single_atom_does_not_feel_the_strength_of_a_softmax() -> None:
    problem, state, rho = optimum(Recipe((Circle(2),), seed=1))
    assert implicit_gradient(problem, state, rho)[0] == 0


def test_rho_round_trip() -> None:
    recipe = Recipe((Circle(1), Sphere(1), Torus(1)), ard=(True, True, True), seed=2)
    _, _, rho = recipe.build()
    flat = rho.to_flat()
    assert len(flat) == 1 + 3 + 1 + 0 + 2 + 1
    np.testing.assert_array_equal(rho.from_flat(flat).to_flat(), flat)
    np.testing.assert_array_equal(flat[rho.ard_slice(2)], rho.log_ard[2])


def test_moving_a_state_there_and_back() -> None:
    problem, state, rho = Recipe((Sphere(1), Circle(1)), seed=8).build()
    variables, rng = Variables(problem, state.support), np.random.default_rng(0)
    step = rng.standard_normal(variables.size)
    moved, turn = variables.move(state, step), variables.transport(state, step)
    assert_close(turn.T @ turn, np.eye(variables.size), 1e-13)
    back = variables.move(moved, -turn @ step)
    assert_close(reconstruct(problem, back, rho), reconstruct(problem, state, rho), 1e-12)
