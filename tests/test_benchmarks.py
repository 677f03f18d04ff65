"""The benchmarks can be imported, and their smallest pieces run."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Import a benchmark as its own command does, and forget all of them afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)

    def loaded(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield loaded
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", NAMES)
def test_imports(name: str, load) -> None:  # type: ignore[no-untyped-def]
    assert load(name).__doc__


def test_tables_line_up(load) -> None:  # type: ignore[no-untyped-def]
    text = load("common").table("Title", ["a", "long head"], [["1", "2"], ["333", "4"]])
    lines = text.splitlines()[2:]
    assert len({len(line) for line in lines}) == 1


def test_slopes_of_powers(load) -> None:  # type: ignore[no-untyped-def]
    sizes = [1.0, 2.0, 4.0, 8.0]
    assert load("scaling").exponent(sizes, [3.0 * size**1.5 for size in sizes]) == pytest.approx(1.5)


def test_iteration_from_the_truth_ends_at_it(load) -> None:  # type: ignore[no-untyped-def]
    scaling = load("scaling")
    term, rho = scaling.term_near_truth(scaling.Size(n=80, p=8, k=2))
    found = term.evaluate(rho, gradient=False)
    assert found.inner.status == "converged"
    assert found.inner.iterations > 0


def test_nearest_points(load) -> None:  # type: ignore[no-untyped-def]
    quality = load("quality")
    sets = [np.array([[0.0, 0.0], [5.0, 0.0]]), np.array([[0.0, 3.0]])]
    found = quality.nearest(np.array([[4.0, 1.0], [0.1, 2.0], [-1.0, 0.0]]), sets)
    np.testing.assert_array_equal(found, [[5.0, 0.0], [0.0, 3.0], [0.0, 0.0]])


def test_autoencoder_learns_separate_directions(load) -> None:  # type: ignore[no-untyped-def]
    baselines, topk = load("baselines"), load("topk")
    rng = np.random.default_rng(0)
    X = rng.uniform(0.5, 1.5, (300, 1)) * np.eye(5)[rng.integers(0, 5, 300)]
    model = topk.TopK(n_latents=5, active=1, rate=1e-2, seed=0).fit(X)
    assert baselines.explained(X, model.reconstruct(X), X.mean(axis=0)) > 0.99
    assert (np.count_nonzero(model.code((X - model.shift) / model.scale), axis=1) <= 1).all()


def test_problems_follow_from_their_seed(load) -> None:  # type: ignore[no-untyped-def]
    robustness = load("robustness")
    for seed in range(30):
        one, two = robustness.problem(seed), robustness.problem(seed)
        assert one.describe() == two.describe()
        np.testing.assert_array_equal(one.X, two.X)


def test_an_estimate_covers_the_data(load) -> None:  # type: ignore[no-untyped-def]
    memory = load("memory")
    assert all(memory.estimated(shape) > 0 for shape in memory.SHAPES)
