"""The classic criterion: its value by plain linear algebra, its gradient by differences, and fits with it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import sae_rs
from planted import NOISE, one_circle, two_circles
from sae_rs import Circle, ManifoldSAE, SaeManifoldRho, SaeManifoldTerm, ThresholdGate, check_gradient
from sae_rs.atoms import Atom
from sae_rs.validation import check_scales
from small_terms import ELIMINATIONS, circle_points, planted_term, strengths

Array = NDArray[np.float64]

FLOOR = 1e-8
"""Eigenvalues of a row block below this part of its largest are replaced."""


def classic(harmonics: tuple[int, ...] = (1,), **options: Any) -> SaeManifoldTerm:
    return planted_term(harmonics, evidence="quasi_laplace", **options)


def roughness(harmonics: int) -> Array:
    orders = np.repeat(np.arange(1, harmonics + 1), 2)
    return np.diag(np.concatenate([[0.0], orders**4 / 2]))


def conditioned(block: Array) -> tuple[Array, int]:
    """A row block with its near-null eigenvalues replaced by one, and how many those are."""
    values, vectors = np.linalg.eigh(block)
    null = (values < min(1.0, FLOOR * np.abs(values).max())) | (values <= 0.0)
    return (vectors * np.where(null, 1.0, values)) @ vectors.T, int(null.sum())


def dense_curvature(term: SaeManifoldTerm, rho: SaeManifoldRho) -> tuple[Array, int]:
    """H with its rows conditioned, and the number of eigenvalues replaced."""
    system = term.assemble_arrow_schur(rho)
    matrix, at, replaced = np.array(system.dense()), 0, 0
    for i in range(term.n_rows):
        block = np.asarray(system.htt(i))
        own = slice(at, at + len(block))
        matrix[own, own], count = conditioned(block)
        at, replaced = at + len(block), replaced + count
    return matrix, replaced


def expected_parts(term: SaeManifoldTerm, rho: SaeManifoldRho, X: Array, weights: Array | None = None) -> Any:
    """Every term of V from its definition."""
    gates, phi, n_atoms = np.asarray(term.gates), rho.dispersion(), term.n_atoms
    fit = sum(gates[:, [k]] * circle_points(term.decoders[k], term.coords[k][:, 0]) for k in range(n_atoms))
    w = np.ones(term.n_rows) if weights is None else weights / weights.mean()
    logits = np.asarray(term.logits)
    a = np.exp(logits - logits.max(axis=1, keepdims=True))
    a /= a.sum(axis=1, keepdims=True)
    entropy = -np.sum(a * np.log(np.maximum(a, 1e-300)))
    smooth, occam, ard, unsupported = 0.0, 0.0, 0.0, 0.0
    for k, decoder in enumerate(term.decoders):
        gram = roughness((len(decoder) - 1) // 2)
        smooth += 0.5 * rho.lambda_smooth_for(k) / phi * np.trace(decoder.T @ gram @ decoder)
        occam -= 0.5 * term.n_outputs * (len(decoder) - 1) * np.log(rho.lambda_smooth_for(k))
        if len(rho.log_ard[k]):
            alpha = np.exp(rho.log_ard[k][0])
            energy = -alpha * np.cos(term.coords[k][:, 0]) + np.log(np.i0(alpha))
            ard += energy.sum()
            unsupported -= energy[~np.asarray(term.support)[:, k]].sum()
    return {
        "data_fit": 0.5 / phi * float(w @ np.square(fit - X).sum(axis=1)),
        "sparsity": rho.lambda_sparse() * entropy if n_atoms > 1 else 0.0,
        "smoothness": smooth,
        "logit_prior": 0.0,
        "ard": ard,
        "log_det": 0.5 * np.linalg.slogdet(dense_curvature(term, rho)[0])[1],
        "occam": occam,
        "unsupported": unsupported,
        "orbit": 0.0,
        "scale": 0.0,
        "sides": 0.0,
        "compact": 0.0,
        "constants": 0.0,
    }


def partial_support(n: int = 12) -> NDArray[np.bool_]:
    support = np.ones((n, 2), bool)
    support[::3, 0] = False
    support[1::3, 1] = False
    return support


class TestValue:
    @pytest.mark.parametrize("log_ard", [[[], []], [[0.4], []]])
    @pytest.mark.parametrize("partial", [False, True])
    def test_terms_by_their_definitions(self, log_ard: list[list[float]], partial: bool) -> None:
        weights = np.random.default_rng(3).uniform(0.3, 3.0, 12)
        options: dict[str, Any] = {"support": partial_support() if partial else None, "weights": weights}
        X = data_of((1, 2), **options)
        term, rho = classic((1, 2), **options), strengths(2, log_ard=log_ard)
        expected, actual = expected_parts(term, rho, X, weights), term.criterion_as_atoms(rho)
        assert set(actual) == set(expected)
        for name, value in expected.items():
            assert actual[name] == pytest.approx(value, rel=1e-10, abs=1e-10), name

    def test_strengths_without_a_dispersion_mean_one(self) -> None:
        term = classic()
        fixed = SaeManifoldRho(0.0, [-1.0], log_dispersion=0.0, fixed_dispersion=True)
        assert term.criterion_as_atoms(SaeManifoldRho(0.0, [-1.0])) == term.criterion_as_atoms(fixed)

    @pytest.mark.parametrize("elimination", ELIMINATIONS)
    def test_gates_that_vanish_are_left_out(self, elimination: str) -> None:
        """Lone rows of a full support: their entropy drives the other gate to zero, with its logit and its angle."""
        term, rho = classic((1, 1), share=lone_shares()), strengths(2, sparse=2.0)
        found = term.evaluate(rho, tol=1e-12, max_inner=2000, elimination=elimination)
        assert np.sort(np.asarray(found.term.gates).min(axis=1))[3] < 1e-12
        matrix, replaced = dense_curvature(found.term, rho)
        assert replaced >= 8
        assert found.parts["log_det"] == pytest.approx(0.5 * np.linalg.slogdet(matrix)[1], rel=1e-10)

    def test_a_replaced_direction_has_no_share_in_the_value(self) -> None:
        """Pushing a vanished gate further changes nothing but its own energy, which is nothing."""
        values = []
        for share in (1e-14, 1e-20):
            shares = np.full(12, 0.4)
            shares[:4] = share
            term = classic((1, 1), share=shares)
            values.append(sum(term.criterion_as_atoms(strengths(2)).values()))
        assert values[0] == pytest.approx(values[1], rel=1e-9)

    def test_an_unused_atom_counts_nothing(self) -> None:
        support = np.ones((12, 2), bool)
        support[:, 0] = False
        term = classic((1, 1), support=support)
        term = term.evaluate(strengths(2), tol=1e-12).term
        np.testing.assert_allclose(term.decoders[0][1:], 0.0, atol=1e-12)
        alone, flat = strengths(2), np.array(strengths(2).to_flat())
        flat[1] += 3.0
        before, after = term.evaluate(alone), term.evaluate(alone.from_flat(flat))
        assert after.value == pytest.approx(before.value, abs=1e-9)
        assert after.gradient[1] == pytest.approx(0.0, abs=1e-9)


def data_of(harmonics: tuple[int, ...], **options: Any) -> Array:
    """The rows that `planted_term` draws: what is left of them at decoders of zero."""
    zero = [np.zeros((2 * h + 1, 6)) for h in harmonics]
    rng = np.random.default_rng(0)
    angles = rng.uniform(0.0, 2.0 * np.pi, (12, len(harmonics)))
    decoders = [rng.standard_normal(b.shape) for b in zero]
    logits = np.zeros((12, len(harmonics)))
    logits[:, :-1] = rng.standard_normal((12, len(harmonics) - 1))
    gates = np.exp(logits) if options["support"] is None else np.where(options["support"], np.exp(logits), 0.0)
    gates /= gates.sum(axis=1, keepdims=True)
    data = sum(gates[:, [k]] * circle_points(b, angles[:, k]) for k, b in enumerate(decoders))
    return np.asarray(data + 0.1 * rng.standard_normal((12, 6)))


def lone_shares() -> Array:
    return np.array([0.5, 0.02, 0.98] * 4)


class TestGradient:
    """Analytic against converged differences, for every elimination."""

    @staticmethod
    def check(term: SaeManifoldTerm, rho: SaeManifoldRho, elimination: str, step: float = 0.05) -> None:
        settled = term.evaluate(rho, tol=1e-12, max_inner=2000).term
        found = check_gradient(settled, rho, elimination=elimination, step=step)
        assert found.relative_error < 1e-6
        assert np.abs(found.numerical_error).max() < 1e-6 * np.abs(found.numerical).max()

    @pytest.mark.parametrize("elimination", ELIMINATIONS)
    @pytest.mark.parametrize("log_ard", [[[]], [[0.4]]])
    def test_one_circle(self, elimination: str, log_ard: list[list[float]]) -> None:
        self.check(classic((2,), weights=np.linspace(0.5, 2.0, 12)), strengths(1, log_ard=log_ard), elimination)

    @pytest.mark.parametrize("elimination", ELIMINATIONS)
    def test_two_circles(self, elimination: str) -> None:
        shares = np.linspace(0.3, 0.7, 16)
        self.check(classic((1, 1), n=16, p=8, share=shares), strengths(2, sparse=-2.0), elimination)

    @pytest.mark.parametrize("elimination", ELIMINATIONS)
    def test_gates_that_vanish(self, elimination: str) -> None:
        self.check(classic((1, 1), share=lone_shares(), noise=0.05), strengths(2, sparse=2.0, noise=0.05), elimination)

    @pytest.mark.parametrize("elimination", ELIMINATIONS)
    def test_lone_rows(self, elimination: str) -> None:
        term = classic((1, 1), support=partial_support(24), n=24, p=8, seed=4)
        self.check(term, strengths(2, sparse=1.0), elimination)

    @pytest.mark.parametrize("smooth", [-15.0, -12.0])
    @pytest.mark.parametrize("elimination", ELIMINATIONS)
    def test_replaced_directions_that_move_with_the_strengths(self, elimination: str, smooth: float) -> None:
        """Gates so small that their directions are replaced, yet held by the data: the derivative of the replacement
        has parts between kept and replaced directions. Without them this gradient is off by a per cent."""
        noise, shares = 3e-4, np.linspace(0.3, 0.7, 18)
        shares[::3], shares[1::3] = 0.5 * noise, 1.0 - 0.5 * noise
        term = classic((1, 1), n=18, p=8, share=shares, noise=noise, seed=2)
        rho = strengths(2, sparse=-6.0, smooth=smooth, noise=noise)
        settled = term.evaluate(rho, tol=1e-12, max_inner=3000).term
        least = np.asarray(settled.gates).min(axis=1)
        assert dense_curvature(settled, rho)[1] >= 2
        assert np.sum((least > 1e-6) & (least < 1e-2)) >= 8
        self.check(settled, rho, elimination, step=0.02)

    @pytest.mark.parametrize("elimination", ELIMINATIONS)
    def test_a_flat_curve(self, elimination: str) -> None:
        """A circle drawn out to a segment: its speed vanishes where it turns."""
        rng = np.random.default_rng(5)
        decoder = np.zeros((3, 6))
        decoder[1] = rng.standard_normal(6)
        term = classic((1,), n=20, decoders=[decoder], noise=0.3)
        self.check(term, strengths(noise=0.3), elimination)

    def test_a_free_dispersion_has_its_slope(self) -> None:
        term = classic((1,))
        rho = strengths()
        found = term.evaluate(rho)
        assert len(found.gradient) == 3
        assert len(term.evaluate(rho.with_fixed_dispersion()).gradient) == 2
        np.testing.assert_allclose(term.evaluate(rho.with_fixed_dispersion()).gradient, found.gradient[:2])


class TestSteps:
    @pytest.mark.parametrize("level", [40.0, 120.0, 300.0])
    def test_saturated_gates_do_not_stop_the_others(self, level: float) -> None:
        """Of a saturated gate H has the square of an exponential, and the exact Hessian its first power: what a step is
        measured by must have that too, or a step of any length is a step of that logit alone, along which L is flat.
        """
        rng = np.random.default_rng(1)
        n, decoders = 24, rng.standard_normal((2, 3, 5))
        own, angles = np.arange(n) % 2, rng.uniform(0.0, 2.0 * np.pi, (n, 2))
        logits = np.where(own[:, None] == np.arange(2), [level, 1.3 * level], 1.0)
        points = np.stack([circle_points(decoder, angle) for decoder, angle in zip(decoders, angles.T, strict=True)])
        moved = angles + 0.3 * rng.standard_normal((n, 2))
        term = SaeManifoldTerm(
            points[own, np.arange(n)] + 0.3 * rng.standard_normal((n, 5)),
            [{"kind": "circle", "harmonics": 1}] * 2,
            ThresholdGate().spec(2),
            logits,
            [np.ascontiguousarray(moved[:, [k]]) for k in range(2)],
            [np.ascontiguousarray(d + 0.3 * rng.standard_normal(d.shape)) for d in decoders],
            center=False,
            evidence="quasi_laplace",
        )
        rho = strengths(2).with_fixed_dispersion()
        inner = term.evaluate(rho, gradient=False, max_inner=100)
        assert inner.inner.decrement < 3.0
        assert inner.inner.status != "rounding_limit" or inner.inner.decrement < 1e-4
        assert inner.term.loss(rho)["total"] < 0.2 * term.loss(rho)["total"]


class TestStrengths:
    def test_a_fixed_dispersion_is_no_entry(self) -> None:
        rho = SaeManifoldRho(0.5, [1.0, 2.0], log_dispersion=-3.0, fixed_dispersion=True)
        np.testing.assert_array_equal(rho.to_flat(), [0.5, 1.0, 2.0])
        moved = rho.from_flat(np.array([0.0, 1.5, 2.5]))
        assert moved.dispersion() == pytest.approx(np.exp(-3.0))
        assert moved.fixed_dispersion
        assert len(rho) == 3
        assert rho == SaeManifoldRho(0.5, [1.0, 2.0], log_dispersion=-3.0).with_fixed_dispersion()
        assert "fixed_dispersion=True" in repr(rho)

    def test_no_dispersion_is_fixed_at_one(self) -> None:
        rho = SaeManifoldRho(0.5, [1.0])
        assert rho.fixed_dispersion
        assert rho.dispersion() == 1.0

    def test_refused(self) -> None:
        with pytest.raises(ValueError, match="log_dispersion must be finite"):
            SaeManifoldRho(0.0, [0.0], log_dispersion=np.inf, fixed_dispersion=True)
        with pytest.raises(ValueError, match='evidence must be "laplace" or "quasi_laplace", got "aic"'):
            planted_term(evidence="aic")


class TestFit:
    """Data in units of their noise, where φ = 1 is right."""

    def test_one_circle(self, tmp_path: Path) -> None:
        X, angle = one_circle()
        model = ManifoldSAE(n_atoms=1, atom=Circle(1), evidence="quasi_laplace").fit(X / NOISE)
        assert model.converged_
        assert model.dispersion_ == 1.0
        assert len(model.rho_.to_flat()) == 2
        turn = np.exp(1j * model.coords_[0][:, 0])
        assert max(np.abs(np.mean(t * np.exp(-1j * angle))) for t in (turn, turn.conj())) > 0.99
        assert model.evidence_ == pytest.approx(sum(model.evidence_parts_.values()))
        assert "quasi-Laplace" in model.summary()
        assert check_gradient(model).relative_error < 1e-6
        model.save(tmp_path / "m.safetensors")
        again = sae_rs.load(tmp_path / "m.safetensors")
        assert again.summary() == model.summary()
        np.testing.assert_array_equal(again.encode(X / NOISE).coords[0], model.encode(X / NOISE).coords[0])

    def test_two_circles(self) -> None:
        X, which = two_circles()
        model = ManifoldSAE(n_atoms=2, atom=Circle(1), evidence="quasi_laplace").fit(X / NOISE)
        assert model.converged_
        agree = np.mean(np.argmax(model.gates_, axis=1) == which)
        assert max(agree, 1.0 - agree) == 1.0
        encoded = model.encode(X / NOISE)
        np.testing.assert_array_equal(encoded.support, model.support_)
        np.testing.assert_allclose(encoded.gates, model.gates_, atol=1e-6)

    def test_threshold_gates_stay_open(self) -> None:
        """Two circles that may both be on a row; the fit may stop early, as V is not smooth in closed logits."""
        rng = np.random.default_rng(0)
        n, width = 120, 12
        active = rng.random((n, 2)) < 0.5
        angle = rng.uniform(0.0, 2.0 * np.pi, (n, 2))
        amplitude = active * rng.uniform(0.8, 1.2, (n, 2))
        planes = [np.linalg.qr(rng.standard_normal((width, 2)))[0].T for _ in range(2)]
        turn = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        X = sum(amplitude[:, [k]] * turn[:, k] @ planes[k] for k in range(2))
        X = X + NOISE * rng.standard_normal((n, width))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sae_rs.ConvergenceWarning)
            model = ManifoldSAE(2, Circle(1), "threshold", evidence="quasi_laplace").fit(X / NOISE)
        right = max(np.mean(model.support_[:, order] == active) for order in ([0, 1], [1, 0]))
        assert right >= 0.95
        assert model.gates_[model.support_].min() >= 0.5

    def test_the_dispersion_of_rho_is_kept(self, tmp_path: Path) -> None:
        X, _ = one_circle()
        level = 2.0 * np.log(NOISE)
        models = [
            ManifoldSAE(n_atoms=1, atom=Circle(1), evidence="quasi_laplace", rho=rho).fit(X)
            for rho in (SaeManifoldRho(0.0, [-3.0], log_dispersion=level), [0.0, -3.0, level])
        ]
        for model in models:
            assert model.dispersion_ == pytest.approx(NOISE**2)
            np.testing.assert_array_equal(model.rho_.to_flat(), models[0].rho_.to_flat())
        assert len(models[0].rho_.to_flat()) == 2
        models[0].save(tmp_path / "m.safetensors")
        assert sae_rs.load(tmp_path / "m.safetensors").rho_ == models[0].rho_

    def test_short_vector_of_strengths(self) -> None:
        X, _ = one_circle()
        model = ManifoldSAE(n_atoms=1, atom=Circle(1), evidence="quasi_laplace", rho=[0.0, -3.0]).fit(X / NOISE)
        assert model.dispersion_ == 1.0
        with pytest.raises(ValueError, match="rho must have shape"):
            ManifoldSAE(n_atoms=1, rho=[0.0, -3.0]).fit(X)

    def test_mean_only(self) -> None:
        X, _ = one_circle()
        model = ManifoldSAE(n_atoms=0, evidence="quasi_laplace").fit(X)
        assert model.dispersion_ == 1.0
        assert model.evidence_ == pytest.approx(0.5 * np.square(X - X.mean(axis=0)).sum())

    def test_the_same_in_every_unit_of_the_dispersion(self) -> None:
        """Data times c with φ times c² is the same problem; V moves with the unit of the decoder entries in ln|H|."""
        X, _ = one_circle()
        fits = [
            ManifoldSAE(
                n_atoms=1, atom=Circle(1), evidence="quasi_laplace", rho=[0.0, -3.0, 2.0 * np.log(NOISE * c)]
            ).fit(c * X)
            for c in (1.0, 1e3)
        ]
        change = fits[1].evidence_ - fits[0].evidence_
        assert change == pytest.approx(-18 * np.log(1e3), abs=1e-4)

    def test_atoms_without_roughness_are_refused(self) -> None:
        class Flat(Circle):
            def roughness(self) -> Array:
                return np.zeros((self.width, self.width))

        flat: Atom = Flat(1)
        check_scales([flat], "laplace")
        with pytest.raises(ValueError, match="cannot hold the scale of atom 0"):
            check_scales([flat], "quasi_laplace")
