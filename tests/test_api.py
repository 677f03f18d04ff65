"""The estimator as its users see it."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import numpy as np
import pytest

import sae_rs
from planted import NOISE, fitted_mean, fitted_one, fitted_two, one_circle, two_circles
from sae_rs import Circle, ConvergenceWarning, ManifoldSAE, Softmax
from sae_rs.diagnostics import _extrapolated
from sae_rs.training import inverse_to_rounding
from sae_rs.validation import check_random_state

X, ANGLE = one_circle()
X2, WHICH = two_circles()


def circular_correlation(a: Any, b: Any) -> float:
    """Largest agreement of two sets of angles over rotations and the reflection: 1 when they differ by those alone."""
    return max(abs(np.exp(1j * (a - b)).mean()), abs(np.exp(1j * (a + b)).mean()))


class TestFit:
    def test_returns_the_estimator(self) -> None:
        model = ManifoldSAE(n_atoms=1, atom=Circle(harmonics=1))
        assert model.fit(X) is model

    def test_shapes(self) -> None:
        model = fitted_two()
        n, p = X2.shape
        assert [t.shape for t in model.coords_] == [(n, 1), (n, 1)]
        assert model.gates_.shape == model.support_.shape == (n, 2)
        assert model.support_.dtype == bool
        assert [decoder.shape for decoder in model.decoders_] == [(3, p), (3, p)]
        assert model.mean_.shape == (p,)
        assert model.n_features_in_ == p
        assert model.rho_.to_flat().shape == (4,)
        assert model.converged_ is True
        assert model.certificate_.converged

    def test_finds_the_circle(self) -> None:
        model = fitted_one()
        assert circular_correlation(model.coords_[0][:, 0], ANGLE) > 0.99
        assert np.sqrt(model.dispersion_) == pytest.approx(NOISE, rel=0.2)
        assert model.explained_variance_ > 0.97
        assert model.evidence_ < fitted_mean().evidence_

    def test_finds_the_routing(self) -> None:
        routing = np.argmax(fitted_two().gates_, axis=1)
        assert max(np.mean(routing == WHICH), np.mean(routing != WHICH)) >= 0.99

    def test_gates(self) -> None:
        model = fitted_two()
        np.testing.assert_allclose(model.gates_.sum(axis=1), 1.0, rtol=1e-12)
        assert (model.gates_[~model.support_] == 0.0).all()

    def test_coordinates_are_canonical(self) -> None:
        for t in [*fitted_one().coords_, *fitted_two().coords_, *fitted_two().encode(X2).coords]:
            assert ((t >= 0.0) & (t < 2.0 * np.pi)).all()

    def test_wrap_of_a_tiny_negative_angle(self) -> None:
        assert Circle().wrap(np.array([[-1e-300], [2.0 * np.pi], [-1.0]])).max() < 2.0 * np.pi

    def test_same_seed_same_bits(self) -> None:
        again = ManifoldSAE(n_atoms=2, atom=Circle(harmonics=1)).fit(X2)
        np.testing.assert_array_equal(again.gates_, fitted_two().gates_)
        assert again.evidence_ == fitted_two().evidence_

    def test_evidence_parts_sum_to_the_evidence(self) -> None:
        for model in (fitted_mean(), fitted_one(), fitted_two()):
            assert sum(model.evidence_parts_.values()) == pytest.approx(model.evidence_, rel=1e-10)

    def test_equal_weights_change_nothing(self) -> None:
        weighted = ManifoldSAE(n_atoms=1, atom=Circle(harmonics=1)).fit(X, np.full(len(X), 7.0))
        np.testing.assert_allclose(weighted.coords_[0], fitted_one().coords_[0], atol=1e-9)

    def test_without_centring(self) -> None:
        model = ManifoldSAE(n_atoms=1, atom=Circle(harmonics=1), center=False).fit(X)
        assert not model.mean_.any()
        assert model.score(X) > 0.97

    def test_random_states(self) -> None:
        assert check_random_state(np.int64(5)) == 5
        assert check_random_state(None) >= 0
        assert check_random_state(np.random.default_rng(0)) == check_random_state(np.random.default_rng(0))
        assert check_random_state(np.random.RandomState(0)) >= 0

    def test_list_of_atoms(self) -> None:
        model = ManifoldSAE(n_atoms=2, atom=["circle", Circle(harmonics=1)]).fit(X2)
        assert [len(decoder) for decoder in model.decoders_] == [7, 3]

    def test_a_search_ends_on_a_bound_to_the_last_bit(self) -> None:
        """The minimiser has other units than the strengths, and what pushes against a bound is no gradient."""
        models = [ManifoldSAE(2, atom=["circle", Circle(harmonics=1)]).fit(X2[: len(X2) - m]) for m in range(6)]
        assert all(model.converged_ for model in models)
        assert sum("log_lambda_sparse" in model.certificate_.at_bounds for model in models) >= 3

    def test_unconverged_fit_warns_and_keeps_its_state(self) -> None:
        model = ManifoldSAE(n_atoms=1, atom=Circle(harmonics=1), max_outer=1)
        with pytest.warns(ConvergenceWarning, match="the fit did not converge"):
            model.fit(X)
        assert model.converged_ is False
        assert model.reconstruct().shape == X.shape
        assert "not converged" in model.summary()

    def test_refused_refit_keeps_the_old_fit(self) -> None:
        model = copy.copy(fitted_one())
        with pytest.raises(ValueError, match="zero variance"):
            model.fit(np.ones((9, 6)))
        np.testing.assert_array_equal(model.coords_[0], fitted_one().coords_[0])


class TestProgress:
    def test_callables_hear_every_step(self) -> None:
        heard: list[sae_rs.FitProgress] = []
        called: list[sae_rs.FitProgress] = []
        ManifoldSAE(n_atoms=1, atom=Circle(harmonics=1), progress=heard.append, callback=called.append).fit(X)
        assert heard == called
        assert heard
        assert all(event.max_outer == 100 for event in heard)
        assert [event.evaluation for event in heard] == sorted(event.evaluation for event in heard)

    def test_callback_stops(self) -> None:
        model = ManifoldSAE(n_atoms=1, atom=Circle(harmonics=1), callback=lambda event: True)
        with pytest.warns(ConvergenceWarning, match="stopped"):
            model.fit(X)
        assert model.certificate_.status == "stopped"
        assert model.reconstruct().shape == X.shape

    @pytest.mark.parametrize("installed", [True, False])
    def test_bar_or_lines(self, installed: bool, capsys: Any, monkeypatch: Any) -> None:
        if installed:
            pytest.importorskip("tqdm")
        else:
            monkeypatch.setitem(__import__("sys").modules, "tqdm.auto", None)
        ManifoldSAE(n_atoms=1, atom=Circle(harmonics=1), progress=True).fit(X)
        captured = capsys.readouterr()
        assert "evidence" in captured.err
        assert not captured.out


class TestDecode:
    def test_model_formula(self) -> None:
        model = fitted_two()
        expected = np.tile(model.mean_, (len(X2), 1))
        for k in range(2):
            t = model.coords_[k][:, 0]
            basis = np.column_stack([np.ones_like(t), np.cos(t), np.sin(t)])
            expected += model.gates_[:, [k]] * (basis @ model.decoders_[k])
        np.testing.assert_allclose(model.reconstruct(), expected, atol=1e-12)
        np.testing.assert_allclose(model.inverse_transform(model.gates_, model.coords_), expected, atol=1e-12)

    def test_score_is_the_explained_variance(self) -> None:
        residual = np.square(X2 - fitted_two().reconstruct()).sum() / np.square(X2 - X2.mean(axis=0)).sum()
        assert fitted_two().explained_variance_ == pytest.approx(1.0 - residual, rel=1e-12)
        assert fitted_two().score(X2) == pytest.approx(1.0 - residual, abs=1e-4)

    def test_encoding(self) -> None:
        encoding = fitted_two().encode(X2[:7])
        assert len(encoding) == 7
        assert encoding.gates.shape == encoding.logits.shape == encoding.support.shape == (7, 2)
        assert [t.shape for t in encoding.coords] == [(7, 1), (7, 1)]
        assert encoding.objective.shape == encoding.status.shape == (7,)
        assert encoding.status.dtype == np.uint8
        assert not encoding.status.any()
        np.testing.assert_array_equal(fitted_two().transform(X2[:7]), encoding.gates)
        np.testing.assert_array_equal(fitted_two().reconstruct(X2[:7]), fitted_two().decode(encoding))

    def test_encoding_the_training_rows_gives_the_fit(self) -> None:
        encoding = fitted_one().encode(X)
        turn = np.angle(np.exp(1j * (encoding.coords[0] - fitted_one().coords_[0])))
        assert np.abs(turn).max() < 1e-6

    def test_encoding_no_rows(self) -> None:
        encoding = fitted_two().encode(X2[:0])
        assert len(encoding) == 0
        assert fitted_two().decode(encoding).shape == (0, X2.shape[1])

    def test_float32_in_float32_out(self) -> None:
        single = X.astype(np.float32)
        model = ManifoldSAE(n_atoms=1, atom=Circle(harmonics=1)).fit(single)
        assert model.reconstruct().dtype == np.float32
        assert model.reconstruct(single).dtype == np.float32
        assert model.reconstruct(X).dtype == np.float64
        assert model.decode(model.encode(X)).dtype == np.float32
        assert model.inverse_transform(model.gates_, model.coords_).dtype == np.float32
        assert model.reconstruct(single.astype(">f4")).dtype == np.float32
        assert fitted_one().reconstruct(single).dtype == np.float32
        assert fitted_one().reconstruct().dtype == np.float64


class TestMeanOnly:
    def test_everything_works(self) -> None:
        model = fitted_mean()
        assert model.gates_.shape == (len(X), 0)
        assert model.coords_ == model.decoders_ == []
        np.testing.assert_allclose(model.reconstruct(), np.tile(X.mean(axis=0), (len(X), 1)), atol=1e-14)
        np.testing.assert_allclose(model.reconstruct(X[:3]), np.tile(X.mean(axis=0), (3, 1)), atol=1e-14)
        encoding = model.encode(X[:3])
        assert encoding.gates.shape == (3, 0)
        assert encoding.objective.shape == (3,)
        assert model.transform(X).shape == (len(X), 0)
        assert model.score(X) == pytest.approx(0.0, abs=1e-12)
        assert model.explained_variance_ == pytest.approx(0.0, abs=1e-12)
        assert model.dispersion_ == pytest.approx(np.var(X, axis=0).mean())
        assert model.converged_
        assert "the mean alone" in model.summary()

    def test_what_it_lacks(self) -> None:
        with pytest.raises(AttributeError, match=r"the mean-only model \(n_atoms=0\) has none"):
            _ = fitted_mean().term_
        with pytest.raises(ValueError, match="none: the model has no atoms"):
            fitted_mean().curve(0)


class TestCurve:
    def test_points(self) -> None:
        curve = fitted_one().curve(0, n_points=50)
        assert curve.grid.shape == (50, 1)
        assert curve.points.shape == (50, X.shape[1])
        assert curve.sd.shape == (50,)
        assert curve.grid.max() < 2.0 * np.pi
        nearest = np.linalg.norm(X[:, None] - fitted_one().curve(0).points, axis=2).min(axis=1)
        assert nearest.max() < 6 * NOISE

    def test_sd_is_that_of_the_regression(self) -> None:
        model = fitted_one()
        t = model.coords_[0][:, 0]
        basis = np.column_stack([np.ones_like(t), np.cos(t), np.sin(t)])
        smooth = model.rho_.lambda_smooth_for(0) / model.dispersion_
        prior = np.diag([1.0 / np.var(X, axis=0).mean(), 0.5 * smooth, 0.5 * smooth])
        covariance = np.linalg.inv(basis.T @ basis / model.dispersion_ + prior)
        grid = model.curve(0).grid[:, 0]
        at = np.column_stack([np.ones_like(grid), np.cos(grid), np.sin(grid)])
        expected = np.sqrt(np.diag(at @ covariance @ at.T))
        np.testing.assert_allclose(model.curve(0).sd, expected, rtol=1e-10)

    def test_a_precision_that_is_rounding_has_a_covariance(self) -> None:
        turn = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
        precision = (turn * np.array([1e18, 1e10, 1.0, -100.0])) @ turn.T
        covariance = inverse_to_rounding(precision)
        values = np.linalg.eigvalsh(covariance)
        assert values[0] > -1e-12 * values[-1]
        assert values[-1] > 1e-6

    def test_a_graded_precision_is_inverted_exactly(self) -> None:
        graded = np.array([1.0, 1e2, 1.6e17])
        np.testing.assert_allclose(inverse_to_rounding(np.diag(graded)), np.diag(1.0 / graded), rtol=1e-14)


class TestSummary:
    def test_table(self) -> None:
        text = fitted_two().summary()
        assert text.startswith("ManifoldSAE: 120 rows x 8 columns, 2 atoms, converged\nevidence ")
        assert text.count("circle") == 2
        assert "h1 100.0%" in text
        assert not any(line != line.rstrip() for line in text.splitlines())

    def test_shares_sum_to_the_explained_variance(self) -> None:
        model = fitted_two()
        assert model._training.shares.sum() == pytest.approx(model.explained_variance_, rel=1e-10)


class TestScikitLearn:
    def test_constructor_only_stores(self) -> None:
        gate, atoms = Softmax(temperature=2.0), ["circle"]
        model = ManifoldSAE("nonsense", atoms, gate, tol=-1)
        assert model.n_atoms == "nonsense"
        assert model.atom is atoms
        assert model.gate is gate
        assert list(model.__dict__) == list(model.get_params()) or set(model.__dict__) == set(model.get_params())

    def test_parameters(self) -> None:
        model = ManifoldSAE(n_atoms=3)
        assert model.set_params(n_atoms=5, tol=1e-4) is model
        assert (model.n_atoms, model.tol) == (5, 1e-4)
        with pytest.raises(ValueError, match="unknown parameter 'atoms'; ManifoldSAE has atom, callback"):
            model.set_params(n_init=1, atoms=2)
        assert model.n_init == 4

    def test_repr(self) -> None:
        assert repr(ManifoldSAE(n_atoms=1, atom=Circle(2))) == "ManifoldSAE(n_atoms=1, atom=Circle(harmonics=2))"

    def test_fit_transform(self) -> None:
        gates = ManifoldSAE(n_atoms=2, atom=Circle(harmonics=1)).fit_transform(X2)
        np.testing.assert_array_equal(gates, fitted_two().gates_)

    def test_pickle_and_copy(self) -> None:
        model = pickle.loads(pickle.dumps(fitted_two()))
        np.testing.assert_array_equal(model.encode(X2).gates, fitted_two().encode(X2).gates)
        np.testing.assert_array_equal(copy.deepcopy(model).rho_.to_flat(), model.rho_.to_flat())
        with pytest.raises(AttributeError, match="not stored with a saved model"):
            _ = model.term_

    def test_clone(self) -> None:
        base = pytest.importorskip("sklearn.base")
        model = base.clone(ManifoldSAE(n_atoms=1, atom=Circle(harmonics=1), rho=fitted_one().rho_))
        assert model.atom == Circle(harmonics=1)
        assert not hasattr(base.clone(fitted_one()), "coords_")

    def test_pipeline(self) -> None:
        pipeline = pytest.importorskip("sklearn.pipeline")
        linear = pytest.importorskip("sklearn.linear_model")
        sae = ManifoldSAE(n_atoms=2, atom=Circle(harmonics=1))
        steps = pipeline.make_pipeline(sae, linear.LogisticRegression())
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            steps.fit(X2, WHICH)
        assert steps.score(X2, WHICH) > 0.98
        alone = pipeline.make_pipeline(ManifoldSAE(n_atoms=1, atom=Circle(harmonics=1))).fit(X)
        assert alone.transform(X).shape == (len(X), 1)

    def test_package_does_not_import_optional_libraries(self) -> None:
        import subprocess
        import sys

        code = (
            "import sys, sae_rs\n"
            "optional = ('sklearn', 'matplotlib', 'tqdm', 'pyarrow', 'torch', 'dask', 'distributed')\n"
            "print([m for m in optional if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_version(self) -> None:
        assert sae_rs.__version__.count(".") >= 2
        assert all(hasattr(sae_rs, name) for name in sae_rs.__all__)


class TestCheckGradient:
    def test_model(self) -> None:
        check = sae_rs.check_gradient(fitted_one())
        np.testing.assert_allclose(check.rho, fitted_one().rho_.to_flat() + 0.5)
        assert check.analytic.shape == check.numerical.shape == check.numerical_error.shape == (3,)
        assert check.relative_error < 1e-6

    def test_term_needs_rho(self) -> None:
        with pytest.raises(ValueError, match="check_gradient needs rho when it is given a term"):
            sae_rs.check_gradient(fitted_one().term_)
        assert sae_rs.check_gradient(fitted_two().term_, fitted_two().rho_).analytic.shape == (4,)

    def test_extrapolation(self) -> None:
        slope, error = _extrapolated(lambda h: (np.exp(1.0 + h) - np.exp(1.0 - h)) / (2.0 * h), 0.1)
        assert slope == pytest.approx(np.e, rel=1e-12)
        assert error < 1e-10
