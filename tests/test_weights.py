"""Row weights: what they count as, and the ones that hold back large rows."""

from __future__ import annotations

import numpy as np
import pytest

import sae_rs
from planted import one_circle
from sae_rs import Circle, ManifoldSAE


class TestHuber:
    def test_formula(self) -> None:
        rng = np.random.default_rng(0)
        X = rng.standard_normal((50, 4))
        X[7] *= 30.0
        weights = sae_rs.huber_weights(X, delta=2.0)
        norms = np.linalg.norm(X - X.mean(axis=0), axis=1)
        np.testing.assert_allclose(weights, np.minimum(1.0, 2.0 * np.median(norms) / norms), rtol=1e-12)
        assert weights[7] < 0.2
        assert weights.max() == 1.0

    def test_bad_delta(self) -> None:
        with pytest.raises(ValueError, match="delta must be a positive finite number, got 0"):
            sae_rs.huber_weights(np.eye(3), delta=0)

    def test_outliers_no_longer_turn_the_circle(self) -> None:
        X, _ = one_circle(n=200)
        dirty = X.copy()
        dirty[:6] += 40.0 * np.random.default_rng(1).standard_normal((6, X.shape[1]))

        def error(**options: object) -> float:
            model = ManifoldSAE(1, Circle(harmonics=1)).fit(dirty, **options)
            return float(np.sqrt(np.mean((X - model.reconstruct())[6:] ** 2)))

        assert error(weights=sae_rs.huber_weights(dirty, 1.5)) < 0.75 * error()


class TestWeights:
    def test_uniform_weights_change_no_bit(self) -> None:
        X, _ = one_circle()
        plain = ManifoldSAE(1, Circle(harmonics=1)).fit(X)
        weighted = ManifoldSAE(1, Circle(harmonics=1)).fit(X, weights=np.full(len(X), 3.7))
        assert plain.evidence_ == weighted.evidence_
        assert np.array_equal(plain.decoders_[0], weighted.decoders_[0])
        assert np.array_equal(plain.coords_[0], weighted.coords_[0])

    def test_rows_of_weight_zero_are_as_good_as_absent(self) -> None:
        X, _ = one_circle(n=90)
        weights = np.ones(90)
        weights[60:] = 0.0
        some = ManifoldSAE(1, Circle(harmonics=1)).fit(X[:60])
        all_rows = ManifoldSAE(1, Circle(harmonics=1)).fit(X, weights=weights)
        assert all_rows.evidence_ == some.evidence_
        assert np.array_equal(all_rows.coords_[0][:60], some.coords_[0])
        np.testing.assert_array_equal(all_rows.coords_[0][60:], some.encode(X[60:]).coords[0])
        assert all_rows.reconstruct().shape == X.shape
