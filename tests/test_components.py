"""Independent components in groups, of a number and of sizes that nobody knows, against dense NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.sparse.csgraph import connected_components
from scipy.stats import norm

from sae_rs import _core

Array = NDArray[np.float64]
LEVEL = 0.01
# of the Tracy-Widom law at one less LEVEL
QUANTILE = 2.0234


def planted(n: int, p: int, sizes: list[int], share: float, seed: int) -> tuple[Array, list[Array]]:
    """Points on spheres of so many dimensions, each on a share of the rows, with noise; and the directions of each."""
    rng = np.random.default_rng(seed)
    X = 0.05 * rng.standard_normal((n, p))
    frames = []
    for size in sizes:
        points = rng.standard_normal((n, size))
        points *= (rng.random(n) < share)[:, None] / np.linalg.norm(points, axis=1, keepdims=True)
        frames.append(rng.standard_normal((size, p)) / np.sqrt(p))
        X += points @ frames[-1]
    return X - X.mean(axis=0), frames


def above_the_edge(X: Array) -> int:
    """Components whose eigenvalue is above what the largest of noise would be."""
    n, p = X.shape
    values = np.linalg.svd(X, compute_uv=False) ** 2
    for k in range(len(values)):
        noise = values[k:].sum() / ((n - k) * (p - k))
        a, b = np.sqrt(n - 0.5), np.sqrt(p - k - 0.5)
        if values[k] <= noise * ((a + b) ** 2 + QUANTILE * (a + b) * (1.0 / a + 1.0 / b) ** (1.0 / 3.0)):
            return k
    return len(values)


def going_together(scores: Array) -> Array:
    """The larger of the two correlations of bells, in units of its deviation under independence."""
    found = [np.corrcoef(np.exp(-0.5 * a * scores**2).T) for a in (1.0, 4.0)]
    out: Array = np.sqrt(len(scores)) * np.maximum(*found)
    np.fill_diagonal(out, 0.0)
    return out


def threshold(tests: int) -> float:
    """What the largest of so many normal statistics exceeds with a chance of at most LEVEL, by Mills' bound."""
    return float(brentq(lambda z: norm.logpdf(z) - np.log(z) - np.log(LEVEL / tests), 1.0, 25.0))


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    share=st.floats(0.1, 0.5),
)
def test_components_and_groups_are_those_of_the_reference(seed: int, sizes: list[int], share: float) -> None:
    X, _ = planted(600, 24, sizes, share, seed)
    found = _core.independent_groups(X, most=64)
    assert found is not None
    unmixing, mixing, together, labels = found
    d = above_the_edge(X)
    assert unmixing.shape == (24, d)
    scores = X @ unmixing
    np.testing.assert_allclose(scores.T @ scores / len(X), np.eye(d), atol=1e-9)
    np.testing.assert_allclose(mixing @ unmixing, np.eye(d), atol=1e-9)
    # what is left has nothing of the components, and they span the leading ones
    axes = np.linalg.svd(X, full_matrices=False)[2][:d]
    np.testing.assert_allclose(scores @ mixing, X @ axes.T @ axes, atol=1e-9)
    expected = going_together(scores) if d > 1 else np.zeros((1, 1))
    np.testing.assert_allclose(together, expected, atol=1e-8)
    joined = connected_components(together > threshold(max(d * (d - 1), 1)), directed=False)[1]
    np.testing.assert_array_equal(joined[:, None] == joined, labels[:, None] == labels)


@pytest.mark.parametrize("seed", range(3))
def test_groups_are_the_factors(seed: int) -> None:
    sizes = [1, 1, 2, 2, 3, 4]
    X, frames = planted(1500, 30, sizes, 0.25, seed)
    found = _core.independent_groups(X, most=64, random_state=seed)
    assert found is not None
    _, mixing, _, labels = found
    assert sorted(np.bincount(labels)) == sizes
    for frame in frames:
        # each factor lies in what one group spans, but for the noise of a sample
        left = []
        for group in range(len(sizes)):
            basis = np.linalg.qr(mixing[labels == group].T)[0]
            left.append(np.linalg.norm(frame - frame @ basis @ basis.T) / np.linalg.norm(frame))
        assert min(left) < 0.15


def test_noise_has_no_components() -> None:
    draws = [np.random.default_rng(seed).standard_normal((300, 20)) for seed in range(40)]
    assert sum(_core.independent_groups(X, most=9) is not None for X in draws) <= 2


def test_factors_that_avoid_each_other_are_not_grouped() -> None:
    rng = np.random.default_rng(0)
    which = rng.integers(4, size=1200)
    place = rng.choice([-1.0, 1.0], 1200) * rng.uniform(0.5, 1.4, 1200)
    X = place[:, None] * rng.standard_normal((4, 16))[which] + 0.05 * rng.standard_normal((1200, 16))
    found = _core.independent_groups(X - X.mean(axis=0), most=16)
    assert found is not None
    np.testing.assert_array_equal(np.sort(found[3]), np.arange(4))


def test_a_bound_on_components_keeps_the_leading_ones() -> None:
    X, _ = planted(800, 20, [2, 2, 1], 0.3, 5)
    found = _core.independent_groups(X, most=3)
    assert found is not None
    axes = np.linalg.svd(X, full_matrices=False)[2][:3]
    np.testing.assert_allclose(X @ found[0] @ found[1], X @ axes.T @ axes, atol=1e-9)
    assert _core.independent_groups(X, most=0) is None


@pytest.mark.parametrize("rows", [np.zeros((0, 3)), np.full((4, 3), np.nan)])
def test_rows_that_are_no_numbers_are_refused(rows: Array) -> None:
    with pytest.raises(ValueError, match="finite numbers"):
        _core.independent_groups(rows, most=3)


def test_rows_without_variance_have_no_components() -> None:
    assert _core.independent_groups(np.zeros((10, 4)), most=4) is None
