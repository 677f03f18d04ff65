"""Roughness measured along a curve: the weights, what they keep, and that everything stays exact with them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from planted import one_circle
from sae_rs import Circle, ManifoldSAE, SaeManifoldTerm, Softmax, check_gradient
from small_terms import ELIMINATIONS, circle_points, planted_term, strengths

Array = NDArray[np.float64]

MODES = ("laplace", "quasi_laplace")
ROTATIONS = 257


def raw(harmonics: int) -> Array:
    orders = np.repeat(np.arange(1, harmonics + 1), 2)
    return np.diag(np.concatenate([[0.0], orders**4 / 2]))


def ellipse(harmonics: int = 2, p: int = 6) -> Array:
    """A decoder whose curve is traced at changing speed."""
    decoder = np.zeros((2 * harmonics + 1, p))
    decoder[1, 0], decoder[2, 1] = 2.0, 0.6
    decoder[3:, 2:] = 0.2 * np.random.default_rng(0).standard_normal((2 * harmonics - 2, p - 2))
    return decoder


def expected_weights(angles: Array, decoder: Array) -> Array:
    """(clip(s_mu / c))^(-1/2), the mean over rotations of the angle and both members of a harmonic, of which one is the
    other rotated; s_mu as its definition says."""
    harmonics = (len(decoder) - 1) // 2
    slopes = np.zeros((len(angles), len(decoder)))
    for h in range(1, harmonics + 1):
        slopes[:, 2 * h - 1], slopes[:, 2 * h] = -h * np.sin(h * angles), h * np.cos(h * angles)
    speed = np.square(slopes @ decoder).sum(axis=1)
    total = np.zeros(len(decoder))
    for j in range(ROTATIONS):
        basis = circle_points(np.eye(len(decoder)), angles + 2.0 * np.pi * j / ROTATIONS)
        s = (np.square(basis) * speed[:, None]).sum(axis=0) / np.square(basis).sum(axis=0)
        total += np.clip(s / np.exp(np.mean(np.log(s))), 1e-6, 1e6) ** -0.5
    total[1:] = np.repeat(total[1:].reshape(-1, 2).mean(axis=1), 2)
    return np.asarray(total / ROTATIONS)


def along(harmonics: int = 2, **options: object) -> SaeManifoldTerm:
    return planted_term((harmonics,), n=16, decoders=[ellipse(harmonics)], arc_length=True, **options)  # type: ignore[arg-type]


class TestWeights:
    def test_formula(self) -> None:
        term = along()
        weights = expected_weights(term.coords[0][:, 0], term.decoders[0])
        root = np.diag(np.sqrt(weights))
        np.testing.assert_allclose(term.roughness[0], root @ raw(2) @ root, rtol=1e-12)
        assert np.ptp(weights) > 0.01

    def test_rank_and_definiteness_are_kept(self) -> None:
        for harmonics in (1, 2, 4):
            term = along(harmonics) if harmonics > 1 else planted_term((1,), arc_length=True)
            values = np.linalg.eigvalsh(term.roughness[0])
            assert np.sum(values > 1e-9 * values[-1]) == 2 * harmonics
            assert values[0] > -1e-12

    def test_nothing_at_constant_speed(self) -> None:
        round_decoder = np.zeros((3, 6))
        round_decoder[1, 0] = round_decoder[2, 1] = 1.7
        term = planted_term((1,), decoders=[round_decoder], arc_length=True)
        np.testing.assert_array_equal(term.roughness[0], raw(1))

    def test_off_by_default(self) -> None:
        term = planted_term((2,), n=16, decoders=[ellipse()])
        np.testing.assert_array_equal(term.roughness[0], raw(2))

    def test_the_zero_of_the_angle_does_not_matter(self) -> None:
        before, turn = along(), 0.8
        decoder = np.array(before.decoders[0])
        for h in (1, 2):
            c, s = np.cos(h * turn), np.sin(h * turn)
            decoder[2 * h - 1 : 2 * h + 1] = np.array([[c, -s], [s, c]]) @ decoder[2 * h - 1 : 2 * h + 1]
        data = circle_points(before.decoders[0], before.coords[0][:, 0])
        after = SaeManifoldTerm(
            data,
            [{"kind": "circle", "harmonics": 2}],
            Softmax().spec(1),
            before.logits,
            [before.coords[0] + turn],
            [decoder],
            center=False,
            arc_length=True,
        )
        np.testing.assert_allclose(circle_points(decoder, after.coords[0][:, 0]), data, atol=1e-12)
        np.testing.assert_allclose(after.roughness[0], before.roughness[0], rtol=1e-10)
        assert after.roughness[0][1, 1] == pytest.approx(after.roughness[0][2, 2], rel=1e-12)

    @pytest.mark.parametrize("n_angles", [2, 3, 5])
    def test_members_of_a_harmonic_weigh_the_same_where_rows_lie_together(self, n_angles: int) -> None:
        """The sum over rotations has few nodes for what such rows say, and a rotation must stay exact for V."""
        angles = np.tile(np.array([0.1, 0.9, 2.0, 3.7, 5.1])[:n_angles], 4)
        decoder = ellipse(3, 8)
        term = SaeManifoldTerm(
            circle_points(decoder, angles),
            [{"kind": "circle", "harmonics": 3}],
            Softmax().spec(1),
            np.zeros((len(angles), 1)),
            [angles[:, None]],
            [decoder],
            center=False,
            arc_length=True,
        )
        assert not np.array_equal(term.roughness[0], raw(3))
        of_harmonic = np.diag(term.roughness[0])[1:].reshape(3, 2)
        np.testing.assert_array_equal(of_harmonic[:, 0], of_harmonic[:, 1])

    def test_rows_without_weight_do_not_count(self) -> None:
        weights = np.ones(16)
        weights[:4] = 0.0
        term = along(weights=weights)
        used = expected_weights(term.coords[0][4:, 0], term.decoders[0])
        np.testing.assert_allclose(np.diag(term.roughness[0]), used * np.diag(raw(2)), rtol=1e-12)

    def test_frozen_while_strengths_move(self) -> None:
        term, rho = along(noise=0.3), strengths(noise=0.3)
        settled = term.evaluate(rho).term
        np.testing.assert_array_equal(settled.roughness[0], term.roughness[0])
        renewed, changed = settled.refreshed(rho)
        assert changed >= 1
        weights = expected_weights(renewed.coords[0][:, 0], renewed.decoders[0])
        np.testing.assert_allclose(np.diag(renewed.roughness[0]), weights * np.diag(raw(2)), rtol=1e-12)


class TestExactness:
    @pytest.mark.parametrize("evidence", MODES)
    @pytest.mark.parametrize("elimination", ELIMINATIONS)
    @pytest.mark.parametrize("log_ard", [[[]], [[0.4]]])
    def test_gradient(self, evidence: str, elimination: str, log_ard: list[list[float]]) -> None:
        term = along(evidence=evidence)
        found = check_gradient(term, strengths(log_ard=log_ard), elimination=elimination)
        assert found.relative_error < 1e-6

    @pytest.mark.parametrize("evidence", MODES)
    def test_gradient_of_two_circles(self, evidence: str) -> None:
        term = planted_term(
            (2, 1), n=18, p=8, share=np.linspace(0.3, 0.7, 18), decoders=[ellipse(2, 8), ellipse(1, 8)],
            arc_length=True, evidence=evidence,
        )  # fmt: skip
        found = check_gradient(term, strengths(2, sparse=-1.0))
        assert found.relative_error < 1e-6

    def test_smoothness_is_that_of_the_weighted_gram(self) -> None:
        term, rho = along(evidence="quasi_laplace"), strengths()
        decoder = term.decoders[0]
        expected = 0.5 * rho.lambda_smooth_for(0) / rho.dispersion() * np.trace(decoder.T @ term.roughness[0] @ decoder)
        assert term.loss(rho)["smoothness"] == pytest.approx(expected, rel=1e-12)


class TestFit:
    @pytest.mark.parametrize("evidence", MODES)
    def test_settles(self, evidence: str) -> None:
        rng = np.random.default_rng(1)
        X = circle_points(ellipse(3, 8), rng.uniform(0.0, 2.0 * np.pi, 80)) / 0.05 + rng.standard_normal((80, 8))
        model = ManifoldSAE(n_atoms=1, atom=Circle(3), roughness="arc_length", evidence=evidence).fit(X)
        assert model.converged_
        assert not np.array_equal(model.term_.roughness[0], raw(3))
        assert check_gradient(model).relative_error < 1e-6
        plain = ManifoldSAE(n_atoms=1, atom=Circle(3), evidence=evidence).fit(X)
        assert model.evidence_ == pytest.approx(plain.evidence_, abs=2.0)

    def test_unit_of_the_data(self) -> None:
        X, _ = one_circle()
        fits = [ManifoldSAE(n_atoms=1, atom=Circle(2), roughness="arc_length").fit(c * X) for c in (1.0, 1e3)]
        assert fits[1].evidence_ - fits[0].evidence_ == pytest.approx(X.size * np.log(1e3), abs=1e-3)
        np.testing.assert_allclose(fits[0].term_.roughness[0], fits[1].term_.roughness[0], rtol=1e-4)
