"""Metrics of the residual that differ from row to row: against dense algebra, against differences, and in fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import sae_rs
from differences import slopes
from reference import Problem, Rho, State, Variables, curvature, gauge, log_det
from reference.atoms import Atom, Circle, Patch, Segment, Sphere
from reference.compact import compact_parts
from reference.curvature import data_curvature, exact_hessian, log_group_volume
from reference.evidence import log_symmetries
from reference.factors import COMPACT_STIFFNESS, LN_2PI
from reference.gates import IBP, Gate, Softmax, Threshold
from reference.jets import all_row_jets
from reference.objective import gradient_theta, held_logits, loss_parts
from reference.sides import sides_total
from sae_rs import _core
from strategies import Recipe
from test_core_against_reference import INNER_TOL, core_rho, state_of

Array = NDArray[np.float64]

CASES: dict[str, tuple[tuple[Atom, ...], Gate, int]] = {
    "one circle, full rank": ((Circle(2),), Softmax(), 6),
    "two circles, low rank": ((Circle(1), Circle(2)), Softmax(), 4),
    "sphere and circle": ((Sphere(1), Circle(1)), Threshold(0.2, 0.8), 5),
    "segment and circle": ((Segment(3), Circle(1)), Threshold(0.2, 0.8), 5),
    "coupled columns": ((Circle(1), Patch(1, 2)), IBP(logit_precision=0.5), 6),
}


def case(name: str, evidence: str = "laplace") -> tuple[Problem, State, Rho, Array]:
    atoms, gate, rank = CASES[name]
    recipe = Recipe(atoms, gate, n=18, p=6, weighted=True, log_noise=-2.5, log_lambda_sparse=-1.0, seed=4)
    problem, start, rho = recipe.build()
    factors = np.random.default_rng(1).standard_normal((18, 6, rank)) / np.sqrt(6) + np.eye(6)[:, :rank]
    return problem, start, rho, factors


def metric_term(problem: Problem, state: State, factors: Array | None) -> Any:
    return _core.SaeManifoldTerm(
        np.ascontiguousarray(problem.data),
        [atom.spec() for atom in problem.atoms],
        problem.gate.spec(problem.n_atoms),
        state.logits,
        list(state.coords),
        list(state.decoders),
        support=state.support,
        weights=problem.weights,
        metric=factors,
    )


def whitened(problem: Problem, state: State, rho: Rho, factors: Array) -> tuple[float, Array, Array, Array]:
    """Data fit without its normaliser, its gradient, its Gauss-Newton curvature and its exact Hessian."""
    size = Variables(problem, state.support).size
    value, gradient, gauss, exact = 0.0, np.zeros(size), np.zeros((size, size)), np.zeros((size, size))
    for i, jets in enumerate(all_row_jets(problem, state, rho)):
        scale, seen = problem.row_weights[i] / rho.dispersion(), factors[i].T
        residual, first = seen @ (jets.value - problem.data[i]), seen @ jets.first
        at = np.ix_(jets.index, jets.index)
        value += 0.5 * scale * residual @ residual
        gradient[jets.index] += scale * first.T @ residual
        gauss[at] += scale * first.T @ first
        exact[at] += scale * (first.T @ first + np.tensordot(residual, np.tensordot(seen, jets.second, 1), 1))
    return value, gradient, gauss, exact


@pytest.mark.parametrize("name", CASES)
def test_against_dense_algebra(name: str) -> None:
    problem, state, rho, factors = case(name)
    term = metric_term(problem, state, factors)
    value, gradient, gauss, exact = whitened(problem, state, rho, factors)
    plain = whitened(problem, state, rho, np.broadcast_to(np.eye(6), (18, 6, 6)))
    entries = factors.shape[0] * factors.shape[2]
    loss = loss_parts(problem, state, rho)
    loss["data_fit"] = value + entries / 2 * (LN_2PI + rho.log_dispersion)
    actual = term.loss(core_rho(rho))
    for part, expected in loss.items():
        assert actual[part] == pytest.approx(expected, rel=1e-10, abs=1e-10), part
    system = term.assemble_arrow_schur(core_rho(rho))
    slope = np.concatenate([*[np.asarray(system.gt(i)) for i in range(18)], np.asarray(system.gb).ravel()])
    expected_slope = gradient_theta(problem, state, rho) - plain[1] + gradient
    np.testing.assert_allclose(slope, expected_slope, atol=1e-10 * np.abs(gradient).max())
    matrix = curvature(problem, state, rho) - data_curvature(problem, state, rho) + gauss
    np.testing.assert_allclose(np.asarray(system.dense()), matrix, atol=1e-10 * np.abs(matrix).max())
    generators = gauge(problem, state, rho)
    np.testing.assert_allclose(gauss @ generators, 0.0, atol=1e-10 * np.abs(gauss).max())
    if "coupled" in name:
        return  # the scale of the patch is integrated as well; its gradient below sees all of V
    whole = exact_hessian(problem, state, rho) - plain[3] + exact
    compact = 0.0
    for part in compact_parts(problem, state, rho):
        block = np.ix_(part.index, part.index)
        compact += part.charge(whole[block] + COMPACT_STIFFNESS * np.eye(len(part.index)))
        compact -= 0.5 * np.linalg.slogdet(matrix[block])[1]
    total = sum(loss.values()) + 0.5 * log_det(matrix) - 0.5 * log_det(generators.T @ matrix @ generators) + compact
    assert not held_logits(problem, state).any()  # their slopes would be in the metric
    total += sides_total(problem, state, rho, matrix)
    total -= log_group_volume(problem, state, rho) + log_symmetries(problem, state, rho)
    total -= (len(matrix) - generators.shape[1]) / 2 * LN_2PI
    parts = term.criterion_as_atoms(core_rho(rho))
    assert sum(v for part, v in parts.items() if part != "total") == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_gradient(name: str) -> None:
    problem, start, rho, factors = case(name)
    found = metric_term(problem, start, factors).evaluate(core_rho(rho), tol=INNER_TOL, max_inner=1000)
    assert found.inner.status == "converged"
    flat = rho.to_flat()

    def value(at: Array) -> float:
        result = found.term.evaluate(core_rho(rho.from_flat(at)), tol=INNER_TOL, gradient=False)
        assert result.inner.status == "converged"
        return float(result.value)

    slope = slopes(value, flat)
    np.testing.assert_allclose(found.gradient, slope, atol=1e-6 * np.abs(slope).max())


# the coupled columns have no evidence at these strengths without their metric
@pytest.mark.parametrize("name", [name for name in CASES if "coupled" not in name])
def test_the_identity_is_no_metric(name: str) -> None:
    problem, start, rho, _ = case(name)
    identity = np.broadcast_to(np.eye(6), (18, 6, 6))
    same = metric_term(problem, start, identity).evaluate(core_rho(rho), tol=INNER_TOL, max_inner=1000)
    # from one start the two solves may go to different minima
    plain = metric_term(problem, state_of(same.term), None).evaluate(core_rho(rho), tol=INNER_TOL)
    assert same.value == pytest.approx(plain.value, rel=1e-10)
    np.testing.assert_allclose(same.gradient, plain.gradient, atol=1e-7 * np.abs(plain.gradient).max())


def ring(seed: int, n: int = 300) -> tuple[Array, Array, Array]:
    """A circle in 12 outputs under noise that is 20 times stronger in four other directions: rows, Σ^-1/2, angles."""
    rng = np.random.default_rng(seed)
    t = rng.uniform(0, 2 * np.pi, n)
    basis = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    clean = np.column_stack([np.cos(t), np.sin(t)]) @ basis[:2]
    sd = np.where(np.arange(12) < 8, 0.05, 1.0)
    noise = (sd * rng.standard_normal((n, 12))) @ basis
    return clean + noise, basis.T @ np.diag(1 / sd) @ basis, t


def angle_correlation(a: Array, b: Array) -> float:
    """|mean of exp(i (a -+ b))|: 1 for angles that agree up to a rotation or a reflection."""
    return max(abs(np.exp(1j * (a - s * b)).mean()) for s in (1, -1))


def test_whitening_finds_the_circle_that_loud_noise_hides() -> None:
    X, whitener, t = ring(0)
    plain = sae_rs.ManifoldSAE(1, sae_rs.Circle(1)).fit(X)
    model = sae_rs.ManifoldSAE(1, sae_rs.Circle(1)).fit(X, metric=sae_rs.RowMetric(whitener))
    assert model.converged_
    assert angle_correlation(model.coords_[0][:, 0], t) > 0.99
    assert angle_correlation(plain.coords_[0][:, 0], t) < 0.5
    # in the whitened unit the noise is one
    assert np.sqrt(model.dispersion_) == pytest.approx(1.0, rel=0.05)
    none = sae_rs.ManifoldSAE(0).fit(X, metric=sae_rs.RowMetric(whitener))
    assert model.evidence_ < none.evidence_ - 100.0


def test_a_metric_that_is_one_factor_for_all_rows_is_a_change_of_the_outputs() -> None:
    """An orthogonal factor turns the outputs, which V does not see."""
    X, _, _ = ring(1, 150)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 12)))[0]
    plain = sae_rs.ManifoldSAE(1, sae_rs.Circle(1)).fit(X)
    turned = sae_rs.ManifoldSAE(1, sae_rs.Circle(1)).fit(X, metric=sae_rs.RowMetric(turn))
    assert turned.evidence_ == pytest.approx(plain.evidence_, abs=1e-4)
    assert turned.metric_explained_variance_ == pytest.approx(turned.explained_variance_, rel=1e-9)


def test_fisher_leaves_the_fit_alone() -> None:
    X, whitener, _ = ring(2, 150)
    plain = sae_rs.ManifoldSAE(1, sae_rs.Circle(1)).fit(X)
    fisher = sae_rs.ManifoldSAE(1, sae_rs.Circle(1)).fit(X, metric=sae_rs.RowMetric(whitener, "fisher"))
    assert fisher.evidence_ == plain.evidence_
    assert plain.metric_explained_variance_ is None
    assert fisher.metric_explained_variance_ is not None
    left = X - fisher.reconstruct()
    total = X - X.mean(axis=0)
    expected = 1 - np.square(left @ whitener).sum() / np.square(total @ whitener).sum()
    assert fisher.metric_explained_variance_ == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (np.eye(12), "metric must be a sae_rs.RowMetric"),
        (sae_rs.RowMetric(np.eye(11)), r"must have shape \(60, 12, m\)"),
        (sae_rs.RowMetric(np.zeros((60, 12, 2))), "zero in every row"),
        (sae_rs.RowMetric(np.full((12, 2), np.nan)), "must be finite; row 0"),
        (sae_rs.RowMetric(np.eye(12), "sharp"), "'whitened' or 'fisher', got 'sharp'"),  # type: ignore[arg-type]
        (sae_rs.RowMetric(np.full((12, 2), "a")), "real numbers"),
    ],
)
def test_bad_metrics_are_named(metric: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sae_rs.ManifoldSAE(1).fit(ring(0, 60)[0], metric=metric)
