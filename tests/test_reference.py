"""The dense reference checked against itself: finite differences, invariances, known limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

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
    log_det,
    log_det_adjoint,
    loss,
    loss_parts,
    loss_rho,
    mixed_theta_rho,
    reconstruct,
    solve,
)
from reference.ard import LN_2PI, angle_energy
from reference.basis import circle_basis, rotation_generator, roughness
from reference.curvature import data_curvature
from reference.evidence import compact_correction, compact_correction_slope
from reference.gate import entropy_gradient, entropy_hessian, entropy_third, gate_jets, log_normaliser, majoriser
from reference.jets import row_jets
from reference.objective import gates

Array = NDArray[np.float64]

STEP = 1e-4
"""Step of the fourth-order differences: truncation (step^4) and rounding (1e-16 / step) stay near 1e-12 relative."""


@dataclass(frozen=True)
class Case:
    """A small problem with a state near a planted solution."""

    name: str
    harmonics: tuple[int, ...]
    n: int = 8
    p: int = 4
    temperature: float = 1.0
    logit_precision: float = 0.04
    weighted: bool = False
    sparse_support: bool = False
    ard: tuple[bool, ...] = ()
    seed: int = 0

    def build(self) -> tuple[Problem, State, Rho]:
        rng, n_atoms = np.random.default_rng(self.seed), len(self.harmonics)
        coords = rng.uniform(0, 2 * np.pi, (self.n, n_atoms))
        logits = np.hstack([rng.standard_normal((self.n, n_atoms - 1)), np.zeros((self.n, 1))])
        decoders = tuple(0.7 * rng.standard_normal((2 * h + 1, self.p)) for h in self.harmonics)
        support = np.ones((self.n, n_atoms), bool)
        if self.sparse_support:
            support = rng.random((self.n, n_atoms)) < 0.6
            support[np.arange(self.n), rng.integers(0, n_atoms, self.n)] = True
        weights = rng.uniform(0.3, 3.0, self.n) if self.weighted else None
        state = State(logits, coords, decoders, support)
        blank = Problem(np.zeros((self.n, self.p)), self.harmonics, self.temperature, self.logit_precision)
        data = reconstruct(blank, state) + 0.1 * rng.standard_normal((self.n, self.p))
        problem = Problem(data - data.mean(0), self.harmonics, self.temperature, self.logit_precision, weights)
        ard = self.ard or (False,) * n_atoms
        log_ard = tuple(np.array([0.3 * k - 0.2]) if on else np.zeros(0) for k, on in enumerate(ard))
        return problem, state, Rho(0.4, np.log(0.1) + 0.2 * np.arange(n_atoms), log_ard, np.log(0.02))


CASES = (
    Case("one atom", (2,)),
    Case("one atom, weights and angle prior", (2,), weighted=True, ard=(True,)),
    Case("two atoms", (1, 1), seed=1),
    Case("two atoms, cold gate, partial support", (2, 1), temperature=0.6, sparse_support=True, seed=2),
    Case("three atoms", (1, 1, 1), n=7, p=5, logit_precision=0.2, seed=3),
    Case(
        "three atoms, everything on",
        (1, 2, 3),
        n=9,
        temperature=1.4,
        weighted=True,
        sparse_support=True,
        ard=(True, False, True),
        seed=4,
    ),
)

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def differences(function: Callable[[Array], Array], at: Array, step: float = STEP) -> Array:
    """Fourth-order central differences, (..., len(at)): the last axis is the variable moved.

    (4 D(step) - D(2 step)) / 3 cancels the leading error of D, which matters near angles with little curvature.
    """
    columns = []
    for j in range(len(at)):
        move = np.zeros(len(at))
        move[j] = step
        narrow = np.asarray(function(at + move)) - np.asarray(function(at - move))
        wide = np.asarray(function(at + 2 * move)) - np.asarray(function(at - 2 * move))
        columns.append((8 * narrow - wide) / (12 * step))
    return np.stack(columns, axis=-1)


def assert_close(actual: Array, expected: Array, tol: float) -> None:
    """Largest difference within ``tol`` of the largest expected entry, or of one when all entries are small."""
    scale = max(1.0, float(np.max(np.abs(expected), initial=0.0)))
    assert np.max(np.abs(np.asarray(actual) - np.asarray(expected)), initial=0.0) <= tol * scale


def in_theta(problem: Problem, state: State, function: Callable[[State], Array | float]) -> Array:
    """Central differences of a function of the state in theta."""
    variables = Variables(problem, state.support)
    return differences(lambda theta: np.asarray(function(variables.unpack(theta, state))), variables.pack(state))


def in_rho(rho: Rho, function: Callable[[Rho], Array | float]) -> Array:
    """Central differences of a function of the strengths in the flat rho."""
    return differences(lambda flat: np.asarray(function(rho.from_flat(flat))), rho.to_flat())


# Building blocks


@pytest.mark.parametrize("harmonics", [1, 2, 3])
def test_basis_derivatives_and_roughness(harmonics: int) -> None:
    t = 0.7
    _, d1, d2 = circle_basis(t, harmonics)
    assert_close(d1, differences(lambda v: circle_basis(v[0], harmonics)[0], np.r_[t])[:, 0], 1e-10)
    assert_close(d2, differences(lambda v: circle_basis(v[0], harmonics)[1], np.r_[t])[:, 0], 1e-10)
    assert_close(circle_basis(t, harmonics)[0] @ rotation_generator(harmonics), -d1, 1e-14)
    # The trapezoid rule is exact for trigonometric polynomials of a degree below the number of nodes.
    bends = [circle_basis(u, harmonics)[2] for u in np.linspace(0, 2 * np.pi, 64, endpoint=False)]
    assert_close(roughness(harmonics), np.mean([np.outer(b, b) for b in bends], axis=0), 1e-13)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("n_atoms", [2, 3, 5])
def test_entropy_derivatives_and_majoriser(n_atoms: int, temperature: float) -> None:
    rng = np.random.default_rng(n_atoms)
    for scale in (0.1, 1.0, 4.0):
        logits = scale * rng.standard_normal(n_atoms)
        hessian = entropy_hessian(logits, temperature)
        assert_close(hessian, differences(lambda v: entropy_gradient(v, temperature), logits), 1e-8)
        third = differences(lambda v: entropy_hessian(v, temperature), logits)
        assert_close(entropy_third(logits, temperature), third, 1e-8)
        gap = np.diag(majoriser(logits, temperature)) - hessian[:-1, :-1]
        assert np.linalg.eigvalsh(gap).min() >= -1e-12


def test_gate_jets_on_a_support() -> None:
    logits, support = np.array([0.3, -1.0, 0.8, 0.0]), np.array([True, False, True, True])
    a, da, d2a = gate_jets(logits, support, 0.7)
    assert a[1] == 0
    assert a.sum() == pytest.approx(1, abs=1e-15)
    assert_close(da, differences(lambda v: gate_jets(v, support, 0.7)[0], logits), 1e-9)
    assert_close(d2a, differences(lambda v: gate_jets(v, support, 0.7)[1], logits), 1e-9)


def test_log_normaliser_slope_and_limits() -> None:
    nodes = CASES[4].build()[0].node_logits
    for log_lambda in (-3.0, 0.0, 2.0):
        value = differences(lambda v: np.asarray(log_normaliser(float(np.exp(v[0])), nodes, 1.3)[0]), np.r_[log_lambda])
        assert_close(np.r_[log_normaliser(float(np.exp(log_lambda)), nodes, 1.3)[1]], value, 1e-8)
    assert log_normaliser(0.0, nodes, 1.3)[0] == pytest.approx(0, abs=1e-12)
    assert log_normaliser(5.0, np.zeros((4096, 1)), 1.0) == (0.0, 0.0)


@pytest.mark.parametrize("alpha", [None, 0.01, 1.0, 50.0])
def test_angle_prior_integrates_to_one(alpha: float | None) -> None:
    grid = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    mass = np.mean([np.exp(-angle_energy(t, alpha)) for t in grid]) * 2 * np.pi
    assert mass == pytest.approx(1, rel=1e-12)


def test_compact_correction_limits() -> None:
    h = np.array([1e-8, 1e-3, 0.5, 20.0, 1e4])
    slope = (compact_correction(h * (1 + 1e-6)) - compact_correction(h * (1 - 1e-6))) / (2e-6 * h)
    assert np.max(np.abs((compact_correction_slope(h) - slope) * h)) < 1e-8
    # Prior, Gaussian integral and correction of an unidentified angle cancel.
    whole = LN_2PI + 0.5 * np.log(h) + compact_correction(h) - 0.5 * LN_2PI
    assert abs(whole[0]) < 1e-7
    assert abs(compact_correction(h)[-1]) < 1e-4


# Derivatives


@every_case
def test_row_jets(case: Case) -> None:
    problem, state, _ = case.build()
    variables = Variables(problem, state.support)
    for i in (0, case.n - 1):
        jets = row_jets(problem, state, variables, i)
        first = in_theta(problem, state, lambda s, i=i: row_jets(problem, s, variables, i).value)
        assert_close(jets.value, reconstruct(problem, state)[i], 1e-14)
        assert_close(jets.first, first[:, jets.index], 1e-9)
        assert not np.delete(first, jets.index, axis=1).any()
        second = in_theta(problem, state, lambda s, i=i: row_jets(problem, s, variables, i).first)
        assert_close(jets.second, second[:, :, jets.index], 1e-9)


@every_case
def test_derivatives_of_the_objective(case: Case) -> None:
    problem, state, rho = case.build()
    gradient = gradient_theta(problem, state, rho)
    assert sum(loss_parts(problem, state, rho).values()) == loss(problem, state, rho)
    assert_close(gradient, in_theta(problem, state, lambda s: loss(problem, s, rho)), 1e-7)
    hessian = in_theta(problem, state, lambda s: gradient_theta(problem, s, rho))
    assert_close(exact_hessian(problem, state, rho), hessian, 1e-8)
    assert_close(loss_rho(problem, state, rho), in_rho(rho, lambda r: loss(problem, state, r)), 1e-7)
    mixed = in_rho(rho, lambda r: gradient_theta(problem, state, r))
    assert_close(mixed_theta_rho(problem, state, rho), mixed, 1e-8)


@every_case
def test_derivatives_of_the_curvature(case: Case) -> None:
    problem, state, rho = case.build()
    change = in_theta(problem, state, lambda s: curvature(problem, s, rho))
    assert_close(np.stack(list(curvature_theta(problem, state, rho)), axis=-1), change, 1e-8)
    change = in_rho(rho, lambda r: curvature(problem, state, r))
    assert_close(np.stack(curvature_rho(problem, state, rho), axis=-1), change, 1e-8)
    slope = in_theta(problem, state, lambda s: log_det(curvature(problem, s, rho)))
    assert_close(log_det_adjoint(problem, state, rho), slope, 1e-7)


@every_case
def test_derivatives_of_the_evidence_terms(case: Case) -> None:
    problem, state, rho = case.build()
    slope = in_theta(problem, state, lambda s: sum(evidence_terms(problem, s, rho).values()))
    assert_close(evidence_theta(problem, state, rho), slope, 1e-7)
    slope = in_rho(rho, lambda r: sum(evidence_terms(problem, state, r).values()))
    assert_close(evidence_rho(problem, state, rho), slope, 1e-7)


@every_case
def test_gradient_of_the_evidence(case: Case) -> None:
    """dV/drho against central differences of V with the inner optimum found again at every point."""
    problem, start, rho = case.build()
    solution = solve(problem, start, rho)
    assert solution.converged

    def value(flat: Array) -> Array:
        moved = solve(problem, solution.state, rho.from_flat(flat))
        assert moved.converged
        return np.asarray(evidence(problem, moved.state, rho.from_flat(flat)))

    slope = differences(value, rho.to_flat(), 1e-3)
    assert_close(implicit_gradient(problem, solution.state, rho), slope, 1e-8)


# Identities


@every_case
def test_data_curvature_annihilates_the_orbits(case: Case) -> None:
    problem, state, rho = case.build()
    generators = gauge(problem, state, rho)
    moved = data_curvature(problem, state, rho, Variables(problem, state.support)) @ generators
    assert_close(moved, np.zeros_like(moved), 1e-11)


@every_case
def test_exact_hessian_annihilates_the_orbits_at_the_optimum(case: Case) -> None:
    problem, start, rho = case.build()
    state = solve(problem, start, rho).state
    generators = gauge(problem, state, rho)
    moved = exact_hessian(problem, state, rho) @ generators
    assert_close(moved, np.zeros_like(moved), 1e-9)
    moved = mixed_theta_rho(problem, state, rho).T @ generators
    assert_close(moved, np.zeros_like(moved), 1e-9)


@every_case
def test_curvature_is_symmetric_positive_definite(case: Case) -> None:
    problem, state, rho = case.build()
    matrix = curvature(problem, state, rho)
    assert_close(matrix, matrix.T, 1e-15)
    assert np.linalg.eigvalsh(matrix).min() > 0


def rotate(problem: Problem, state: State, k: int, angle: float) -> State:
    """Turn atom k by ``angle`` and turn its decoder back: the same fit."""
    coords, decoders = state.coords.copy(), list(state.decoders)
    coords[:, k] += angle
    turned = decoders[k].copy()
    for h in range(1, problem.harmonics[k] + 1):
        c, s = np.cos(h * angle), np.sin(h * angle)
        turned[2 * h - 1 : 2 * h + 1] = np.array([[c, -s], [s, c]]) @ decoders[k][2 * h - 1 : 2 * h + 1]
    decoders[k] = turned
    return replace(state, coords=coords, decoders=tuple(decoders))


@every_case
def test_rotating_a_free_angle_changes_nothing(case: Case) -> None:
    problem, state, rho = case.build()
    before = evidence(problem, state, rho)
    for k in range(problem.n_atoms):
        turned = rotate(problem, state, k, 0.9)
        assert_close(reconstruct(problem, turned), reconstruct(problem, state), 1e-13)
        if rho.ard(k) is None:
            assert evidence(problem, turned, rho) == pytest.approx(before, rel=1e-11)


@every_case
def test_reflecting_an_angle_changes_nothing(case: Case) -> None:
    problem, state, rho = case.build()
    before = evidence(problem, state, rho)
    for k in range(problem.n_atoms):
        coords, decoders = state.coords.copy(), [decoder.copy() for decoder in state.decoders]
        coords[:, k] *= -1
        decoders[k][2::2] *= -1
        assert evidence(problem, replace(state, coords=coords, decoders=tuple(decoders)), rho) == pytest.approx(
            before, rel=1e-12
        )


@every_case
def test_turning_the_outputs_changes_nothing(case: Case) -> None:
    problem, state, rho = case.build()
    turn = np.linalg.qr(np.random.default_rng(9).standard_normal((case.p, case.p)))[0]
    turned = replace(problem, data=problem.data @ turn)
    # The mean column variance is the trace of the covariance, so s^2 does not feel the turn either.
    decoders = tuple(decoder @ turn for decoder in state.decoders)
    assert evidence(turned, replace(state, decoders=decoders), rho) == pytest.approx(
        evidence(problem, state, rho), rel=1e-12
    )


@every_case
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_scale_equivariance(case: Case, scale: float) -> None:
    """Data times c, decoders times c, phi times c^2: V gains n p ln c, its gradient nothing."""
    problem, state, rho = case.build()
    scaled = replace(problem, data=scale * problem.data)
    big = replace(state, decoders=tuple(scale * decoder for decoder in state.decoders))
    loud = replace(rho, log_dispersion=rho.log_dispersion + 2 * np.log(scale))
    expected = evidence(problem, state, rho) + case.n * case.p * np.log(scale)
    assert evidence(scaled, big, loud) == pytest.approx(expected, rel=1e-11)
    slope = loss_rho(problem, state, rho) + evidence_rho(problem, state, rho)
    assert_close(loss_rho(scaled, big, loud) + evidence_rho(scaled, big, loud), slope, 1e-9)


@every_case
def test_unsupported_angles_count_for_nothing(case: Case) -> None:
    problem, state, rho = case.build()
    coords = np.where(state.support, state.coords, 1.234)
    moved = replace(state, coords=coords)
    assert evidence(problem, moved, rho) == pytest.approx(evidence(problem, state, rho), rel=1e-13)
    slope = loss_rho(problem, state, rho) + evidence_rho(problem, state, rho)
    assert_close(loss_rho(problem, moved, rho) + evidence_rho(problem, moved, rho), slope, 1e-12)
    a = gates(problem, state)
    assert not a[~state.support].any()
    assert_close(a.sum(axis=1), np.ones(case.n), 1e-15)


def test_row_weights_are_relative() -> None:
    problem, state, rho = CASES[1].build()
    assert problem.weights is not None
    heavier = replace(problem, weights=10 * problem.weights)
    assert evidence(heavier, state, rho) == pytest.approx(evidence(problem, state, rho), rel=1e-14)


def test_single_atom_does_not_feel_the_gate_strength() -> None:
    problem, start, rho = CASES[0].build()
    state = solve(problem, start, rho).state
    assert implicit_gradient(problem, state, rho)[0] == 0


def test_rho_round_trip() -> None:
    _, _, rho = CASES[-1].build()
    flat = rho.to_flat()
    assert len(flat) == 1 + 3 + 2 + 1
    np.testing.assert_array_equal(rho.from_flat(flat).to_flat(), flat)
    assert flat[rho.ard_position(2)] == rho.log_ard[2][0]
