"""Decoders of low rank: V against dense algebra on their variables, its gradient against differences, and fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import sae_rs
from differences import slopes
from reference import Problem, Rho, State, Variables, curvature, gauge, log_det
from reference.atoms import Atom, Circle, Patch, Segment, Sphere, Torus
from reference.compact import compact_total
from reference.curvature import log_group_volume
from reference.evidence import log_symmetries
from reference.factors import LN_2PI
from reference.gates import IBP, Frozen, Gate, Softmax, Threshold
from reference.objective import decoder_precision, loss_parts
from reference.sides import sides_total
from strategies import Recipe
from test_core_against_reference import INNER_TOL, core_rho, core_term, state_of

Array = NDArray[np.float64]
Ranks = list[int | None]

CASES: dict[str, tuple[tuple[Atom, ...], Gate, Ranks]] = {
    "one circle": ((Circle(2),), Softmax(), [2]),
    "one of two circles": ((Circle(2), Circle(1)), Softmax(), [2, None]),
    "circle and sphere": ((Circle(2), Sphere(1)), Threshold(0.2, 0.8), [2, 3]),
    "two circles in one plane each": ((Circle(2), Circle(2)), IBP(logit_precision=0.5), [2, 2]),
    "torus": ((Torus(1),), Softmax(), [4]),
    "segment and circle": ((Segment(3), Circle(1)), Frozen(), [3, 2]),
}


def framed(name: str, evidence: str = "laplace") -> tuple[Problem, Any, Rho, Ranks]:
    atoms, gate, ranks = CASES[name]
    recipe = Recipe(atoms, gate, n=16, p=6, log_noise=-2.5, log_lambda_sparse=-1.0, seed=4, evidence=evidence)
    problem, start, rho = recipe.build()
    return problem, core_term(problem, start).with_decoder_ranks(ranks), rho, ranks


def restriction(problem: Problem, state: State, ranks: Ranks) -> Array:
    """Orthonormal columns (D, fewer): theta moved by the variables that low-rank decoders have."""
    variables = Variables(problem, state.support)
    columns = [np.eye(variables.size)[:, : variables.border_start]]
    for index, decoder, rank in zip(variables.border, state.decoders, ranks, strict=True):
        inside = np.eye(problem.n_outputs) if rank is None else np.linalg.svd(decoder)[2][:rank].T
        for row in index:
            block = np.zeros((variables.size, inside.shape[1]))
            block[row] = inside
            columns.append(block)
    return np.hstack(columns)


@pytest.mark.parametrize("name", CASES)
def test_evidence_is_that_of_the_variables_that_are_left(name: str) -> None:
    problem, term, rho, ranks = framed(name)
    state = state_of(term)
    assert term.decoder_ranks == ranks
    for decoder, rank in zip(state.decoders, ranks, strict=True):
        assert rank is None or np.linalg.matrix_rank(decoder, tol=1e-10) <= rank
    v = restriction(problem, state, ranks)
    matrix, generators = curvature(problem, state, rho), gauge(problem, state, rho)
    inside, tangents = v.T @ matrix @ v, v.T @ generators
    # a motion of the chart turns a decoder within the span of its rows
    np.testing.assert_allclose(v @ tangents, generators, atol=1e-10)
    parts = loss_parts(problem, state, rho)
    expected = sum(parts.values())
    for k, rank in enumerate(ranks):
        if rank is not None:
            # the channels that are left out had a normaliser each
            missing = problem.n_outputs - rank
            expected += missing / 2 * np.linalg.slogdet(decoder_precision(problem, rho, k))[1]
            expected -= missing / 2 * problem.atoms[k].width * LN_2PI
    expected += 0.5 * log_det(inside) - 0.5 * log_det(tangents.T @ inside @ tangents)
    expected += compact_total(problem, state, rho, matrix) + sides_total(problem, state, rho, matrix)
    expected -= log_group_volume(problem, state, rho) + log_symmetries(problem, state, rho)
    expected -= (inside.shape[0] - tangents.shape[1]) / 2 * LN_2PI
    actual = sum(v for name, v in term.criterion_as_atoms(core_rho(rho)).items() if name != "total")
    assert actual == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "evidence"),
    # without the logits' Gaussian mixtures have no clear minimum
    [(name, "laplace") for name in CASES] + [(name, "quasi_laplace") for name in ("one circle", "torus")],
)
def test_gradient_at_fixed_frames(name: str, evidence: str) -> None:
    _, term, rho, ranks = framed(name, evidence)
    found = term.evaluate(core_rho(rho), tol=INNER_TOL, max_inner=1000)
    assert found.inner.status == "converged"
    assert found.term.decoder_ranks == ranks
    flat = rho.to_flat()

    def value(at: Array) -> float:
        result = found.term.evaluate(core_rho(rho.from_flat(at)), tol=INNER_TOL, gradient=False)
        assert result.inner.status == "converged"
        return float(result.value)

    slope = slopes(value, flat)
    np.testing.assert_allclose(found.gradient, slope, atol=1e-6 * np.abs(slope).max())


def test_frames_turn_to_where_the_rows_are() -> None:
    """Every refresh lowers L, and they converge."""
    _, term, rho, _ = framed("one of two circles")
    here = term.evaluate(core_rho(rho), tol=INNER_TOL).term
    values = [here.loss(core_rho(rho))["total"]]
    for _ in range(30):
        here, _ = here.refreshed(core_rho(rho))
        here = here.evaluate(core_rho(rho), tol=INNER_TOL).term
        values.append(here.loss(core_rho(rho))["total"])
    falls = -np.diff(values)
    assert (falls >= -1e-9).all()
    assert falls[-1] < 0.02 * falls[0]
    assert here.decoder_ranks == [2, None]


def test_decoders_whose_rank_is_the_frame_s_are_left_as_they_are() -> None:
    """The circle's rows of a planted decoder of rank 2: the framed problem has the full one's L, gradient and fit."""
    rng = np.random.default_rng(0)
    circle, plane = Circle(2), np.linalg.qr(rng.standard_normal((8, 2)))[0]
    decoder = rng.standard_normal((circle.width, 2)) @ plane.T
    problem, start, rho = Recipe((circle,), n=20, p=8, seed=2).build()
    state = State(start.logits, start.coords, (decoder,), start.support)
    full = core_term(problem, state)
    low = full.with_decoder_ranks([2])
    np.testing.assert_allclose(np.asarray(low.decoders[0]), decoder, atol=1e-12)
    assert low.loss(core_rho(rho))["data_fit"] == pytest.approx(full.loss(core_rho(rho))["data_fit"], rel=1e-12)


@pytest.mark.parametrize(("ranks", "message"), [([0], "between 1 and 5, got 0"), ([6], "got 6"), ([2, 2], "expected")])
def test_bad_ranks(ranks: Ranks, message: str) -> None:
    problem, start, _ = Recipe((Circle(2),), n=9, p=8, seed=2).build()
    with pytest.raises(ValueError, match=message):
        core_term(problem, start).with_decoder_ranks(ranks)


def test_the_fit_of_a_circle_lies_in_a_plane() -> None:
    rng = np.random.default_rng(0)
    t = rng.uniform(0, 2 * np.pi, 300)
    plane = np.linalg.qr(rng.standard_normal((16, 2)))[0].T
    X = np.column_stack([np.cos(t), np.sin(t)]) @ plane + 0.05 * rng.standard_normal((300, 16))
    model = sae_rs.ManifoldSAE(1, sae_rs.Circle(), decoder_rank=2).fit(X)
    assert model.converged_
    decoder = model.decoders_[0]
    assert np.linalg.matrix_rank(decoder, tol=1e-8) == 2
    # the plane is found to the noise of its estimate, about noise * sqrt(2 / n)
    along = np.linalg.svd(decoder)[2][:2]
    assert np.linalg.svd(along @ plane.T)[1].min() > np.cos(0.05)
    assert np.sqrt(model.dispersion_) == pytest.approx(0.05, rel=0.05)
    auto = sae_rs.ManifoldSAE(1, sae_rs.Circle(), decoder_rank="auto").fit(X)
    assert auto.converged_
    (rank,) = auto.term_.decoder_ranks
    assert rank is not None
    assert 2 <= rank <= 12


@pytest.mark.parametrize("rank", [0, 17, 2.5, "low", True])
def test_a_bad_rank_is_named(rank: Any) -> None:
    X = np.random.default_rng(0).standard_normal((50, 16))
    with pytest.raises(ValueError, match="decoder_rank must be None, 'auto' or a whole number from 1 to the 16"):
        sae_rs.ManifoldSAE(1, decoder_rank=rank).fit(X)


def test_patch_scale_counts_the_channels_that_are_left() -> None:
    problem, start, rho = Recipe((Patch(1, 2),), n=14, p=6, log_noise=-2.5, seed=5).build()
    term = core_term(problem, start).with_decoder_ranks([2])
    found = term.evaluate(core_rho(rho), tol=INNER_TOL)
    flat, e = rho.to_flat(), 1e-3

    def value(j: int, s: float) -> float:
        at = flat + s * e * np.eye(len(flat))[j]
        return float(found.term.evaluate(core_rho(rho.from_flat(at)), tol=INNER_TOL, gradient=False).value)

    for j in range(1, len(flat)):
        slope = (8 * (value(j, 1) - value(j, -1)) - value(j, 2) + value(j, -2)) / (12 * e)
        assert found.gradient[j] == pytest.approx(slope, abs=1e-6 * np.abs(found.gradient).max() + 1e-7)
