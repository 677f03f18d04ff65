"""Rows shared out among processes, here threads: fits have the bits of one process, and errors are everyone's."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from planted import one_circle, two_circles
from processes import overlapping, peers, same_models, together
from sae_rs import (
    IBP,
    Circle,
    ClusterError,
    FrozenRouting,
    Line,
    ManifoldSAE,
    Patch,
    RowMetric,
    Segment,
    Sphere,
    ThresholdGate,
    _core,
    fitting,
)
from sae_rs.exchange import Exchange, Peers, gathered, share
from sae_rs.fit_attributes import attributes
from sae_rs.fit_data import FitData
from sae_rs.memory import SAMPLE_ABOVE
from sae_rs.settings import FitSettings
from sae_rs.validation import as_matrix
from strategies import Recipe
from test_chunks import CASES
from test_core_against_reference import core_rho

Array = NDArray[np.float64]

N_ROWS = 300
"""Two full chunks of 128 rows, and a part of a third: three segments."""


def fitted(
    model: ManifoldSAE,
    X: Any,
    weights: Array | None = None,
    metric: RowMetric | None = None,
    exchange: Exchange | None = None,
) -> dict[str, Any]:
    array = as_matrix(X)
    settings = FitSettings.checked(model, array.shape[1])
    data = FitData.checked(array, weights, metric, settings)
    return attributes(fitting.run(settings, data, None, None, exchange), data, settings)


def agree(size: int, model: ManifoldSAE, X: Any, *given: Any) -> dict[str, Any]:
    alone = fitted(model, X, *given)
    for found in together(size, lambda own: fitted(model, X, *given, *[None] * (2 - len(given)), own)):
        assert not isinstance(found, BaseException), found
        same_models(found, alone)
    return alone


# Terms --------------------------------------------------------------------------------------------------------------


def case_term(name: str, exchange: Exchange | None, **options: Any) -> tuple[Any, Any]:
    atoms, gate, rank = CASES[name]
    recipe = Recipe(
        atoms,
        gate,
        n=N_ROWS,
        p=4,
        weighted=True,
        full_support=False,
        log_lambda_sparse=-1.0,
        seed=3,
        held=name == "segment",
    )
    problem, state, rho = recipe.build()
    noise = np.random.default_rng(1).standard_normal((N_ROWS, 4, 4))
    term = _core.SaeManifoldTerm(
        np.ascontiguousarray(problem.data),
        [atom.spec() for atom in problem.atoms],
        problem.gate.spec(problem.n_atoms),
        state.logits,
        list(state.coords),
        list(state.decoders),
        support=state.support,
        weights=problem.weights,
        metric=None if rank is None else np.eye(4) + 0.1 * noise,
        exchange=exchange,
        **options,
    )
    return term, core_rho(rho)


def passes(term: Any, rho: Any, elimination: str) -> list[bytes]:
    """Everything that evaluations and refreshes say, as bytes."""
    found = term.evaluate(rho, max_inner=30, elimination=elimination, traces=True, threads=1)
    after, changed = found.term.refreshed(rho, threads=1)
    again = after.evaluate(rho, max_inner=3, elimination=elimination, threads=1)
    arrays = [found.gradient, found.explicit_gradient, found.fellner_schall, found.axis_variances, again.gradient]
    for own in (found.term, after, again.term):
        arrays += [own.logits, own.support, own.gates, *own.coords, *own.decoders]
    numbers = [found.value, again.value, found.inner.decrement, changed, *found.parts.values()]
    return [*(np.asarray(array).tobytes() for array in arrays), pickle.dumps(numbers)]


@pytest.mark.parametrize(
    ("name", "elimination"),
    [
        *((name, "auto") for name in CASES),
        ("softmax", "primal"),
        ("coupled columns", "complement"),
        ("threshold", "dual"),
        ("threshold", "stochastic"),
        ("coupled columns", "stochastic"),
    ],
)
def test_processes_change_no_bit(name: str, elimination: str) -> None:
    alone = passes(*case_term(name, None), elimination)
    for size in (2, 3):
        for found in together(size, lambda own: passes(*case_term(name, own), elimination)):
            assert found == alone


@pytest.mark.parametrize("options", [{"keep_rows": False}, {"evidence": "quasi_laplace"}, {"arc_length": True}])
def test_options_change_nothing_about_that(options: dict[str, Any]) -> None:
    alone = passes(*case_term("softmax", None, **options), "auto")
    for found in together(3, lambda own: passes(*case_term("softmax", own, **options), "auto")):
        assert found == alone


def test_more_processes_than_segments() -> None:
    alone = passes(*case_term("softmax", None), "auto")
    for found in together(5, lambda own: passes(*case_term("softmax", own), "auto")):
        assert found == alone


# Fits ---------------------------------------------------------------------------------------------------------------


FITS: dict[str, tuple[ManifoldSAE, Callable[[], Any]]] = {
    "softmax": (ManifoldSAE(2, Circle(1)), lambda: two_circles(n=700)[0]),
    "threshold": (ManifoldSAE(2, Circle(1), ThresholdGate(), max_outer=2), lambda: overlapping(n=300)),
    "IBP": (ManifoldSAE(2, Circle(1), IBP(), max_outer=2), lambda: overlapping(n=300)),
    "kinds": (ManifoldSAE(3, [Sphere(1), Segment(2), Line()], n_init=1, max_outer=1), lambda: two_circles(n=300)[0]),
    "decoder ranks": (ManifoldSAE(2, Circle(2), decoder_rank=2), lambda: two_circles(n=400)[0]),
    "efs": (ManifoldSAE(2, Circle(1), outer="efs+bfgs"), lambda: two_circles(n=400)[0]),
    "classic": (ManifoldSAE(1, Circle(1), evidence="quasi_laplace", max_outer=5), lambda: one_circle(n=400)[0]),
    "arc length": (ManifoldSAE(1, Circle(2), roughness="arc_length"), lambda: one_circle(n=400)[0]),
    "patch": (ManifoldSAE(1, Patch(2), max_outer=5), lambda: one_circle(n=400)[0]),
    "no atoms": (ManifoldSAE(0), lambda: one_circle(n=400)[0]),
    "auto": (ManifoldSAE("auto", Circle(1), max_atoms=2, n_init=1), lambda: two_circles(n=400)[0]),
}


@pytest.mark.filterwarnings("ignore::sae_rs.ConvergenceWarning")
@pytest.mark.parametrize("name", FITS)
def test_fits_are_those_of_one_process(name: str) -> None:
    model, rows = FITS[name]
    agree(2, model.set_params(n_jobs=1), rows())


def test_fits_with_weights_metrics_and_routing() -> None:
    X, which = two_circles(n=400)
    rng = np.random.default_rng(0)
    weights = np.where(rng.random(400) < 0.1, 0.0, rng.uniform(0.5, 2.0, 400))
    agree(3, ManifoldSAE(2, Circle(1), n_jobs=1), X, weights)
    metric = RowMetric(np.eye(8) + 0.05 * rng.standard_normal((400, 8, 8)))
    agree(2, ManifoldSAE(1, Circle(1), n_jobs=1, max_outer=3), X, None, metric)
    agree(2, ManifoldSAE(2, Circle(1), FrozenRouting(np.eye(2)[which]), n_jobs=1), X)


def test_many_rows_of_a_file(tmp_path: Path) -> None:
    """A sample first, then all rows, which stay in their file: each process encodes and passes over its own."""
    path = tmp_path / "rows.npy"
    np.save(path, two_circles(n=SAMPLE_ABOVE + 200)[0].astype(np.float32))
    agree(2, ManifoldSAE(2, Circle(1), n_jobs=1, n_init=1), path)


# Errors -------------------------------------------------------------------------------------------------------------


def test_what_is_gathered_and_handed_on() -> None:
    def work(own: Peers) -> tuple[list[int], str, slice]:
        text = "" if own.rank == 0 else own.take().decode()
        last = own.hand_on(f"{text}{own.rank}".encode()).decode()
        return gathered(own, own.rank**2), last, share(own, 10)

    for size in (1, 2, 4):
        found = together(size, work)
        assert all(ranks == [rank**2 for rank in range(size)] for ranks, _, _ in found)
        assert all(last == "".join(map(str, range(size))) for _, last, _ in found)
        assert np.concatenate([np.arange(10)[own] for _, _, own in found]).tolist() == list(range(10))
    assert gathered(None, 3) == [3]
    assert share(None, 10) == slice(0, 10)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_an_error_of_one_process_is_everyones(rank: int) -> None:
    def work(own: Peers) -> object:
        gathered(own, 0)
        if own.rank == rank:
            raise FileNotFoundError(2, "no such file", "rows.npy")
        return [gathered(own, 1), own.hand_on(b"2" if own.rank == 0 else own.take())]

    for error in together(3, work):
        assert isinstance(error, FileNotFoundError)
        assert "rows.npy" in str(error)


def test_an_error_that_cannot_be_sent_is_named() -> None:
    class OfMyOwn(Exception):
        pass

    def work(own: Peers) -> object:
        if own.rank == 1:
            raise OfMyOwn("what happened")
        return gathered(own, 1)

    first, second = together(2, work)
    assert isinstance(first, ClusterError)
    assert str(first) == "OfMyOwn: what happened"
    assert isinstance(second, OfMyOwn)


def test_a_process_that_is_gone_is_named() -> None:
    one, two, three = peers(3)
    two.close()
    with pytest.raises(ClusterError, match="process 1 was lost"):
        one.all_gather(b"a")
    with pytest.raises(ClusterError, match="process 1 was lost"):
        three.all_gather(b"c")
    assert isinstance(three.failure, ClusterError)


def test_a_fit_that_is_cancelled_ends() -> None:
    cancelled = threading.Event()
    one, _ = peers(2, cancelled)
    threading.Timer(0.2, cancelled.set).start()
    start = time.monotonic()
    with pytest.raises(ClusterError, match="the fit was cancelled"):
        one.all_gather(b"a")
    assert time.monotonic() - start < 5.0


def test_the_core_says_what_went_wrong() -> None:
    def work(own: Peers) -> object:
        if own.rank == 1:
            raise OSError("a disk is full")
        return passes(*case_term("softmax", own), "auto")

    for error in together(2, work):
        assert isinstance(error, OSError)
    # without the reason: the object that the core was given does not answer
    term, rho = case_term("softmax", peers(1)[0])
    assert np.isfinite(term.evaluate(rho, max_inner=1).value)

    class Silent:
        rank, size = 0, 2

    term, rho = case_term("softmax", Silent())  # type: ignore[arg-type]
    with pytest.raises(_core.ExchangeError, match="all_gather"):
        term.evaluate(rho)
