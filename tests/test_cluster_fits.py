"""Fits on a cluster of processes: the bits and the errors of one machine, and workers that are lost."""

from __future__ import annotations

import _thread
import copy
import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clusters import local_client
from planted import one_circle, two_circles
from processes import overlapping, same_models
from sae_rs import IBP, Circle, ClusterError, ConvergenceWarning, ManifoldSAE, ThresholdGate, cluster
from sae_rs.cluster import fits, parts
from sae_rs.rows import FileRows, open_rows

X = two_circles(n=700, seed=5)[0]
"""Five chunks of 128 rows and a part of a sixth, so as many segments."""


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with local_client(3) as started:
        yield started


def one() -> ManifoldSAE:
    return ManifoldSAE(1, Circle(1))


def state(model: ManifoldSAE) -> dict[str, Any]:
    """What a fit leaves on an estimator."""
    return {name: value for name, value in vars(model).items() if name not in model.get_params()}


def message(call: Callable[[], object]) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is what is compared
        call()
    return str(caught.value)


FITS: dict[str, tuple[ManifoldSAE, Callable[[], NDArray[np.float64]], int]] = {
    "softmax": (ManifoldSAE(2, Circle(1)), lambda: X, 2),
    "threshold": (ManifoldSAE(2, Circle(1), ThresholdGate(), max_outer=8), overlapping, 3),
    "IBP": (ManifoldSAE(2, Circle(1), IBP(), max_outer=8), overlapping, 2),
    "auto": (ManifoldSAE("auto", Circle(1), max_atoms=1, n_init=1), lambda: one_circle(n=300)[0], 3),
    "no atoms": (ManifoldSAE(0), lambda: one_circle(n=300)[0], 2),
}


@pytest.mark.filterwarnings("ignore::sae_rs.ConvergenceWarning")
@pytest.mark.parametrize("name", FITS)
def test_fits_are_those_of_one_machine(client: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    model, rows, n_processes = FITS[name]
    monkeypatch.setattr(fits, "MAX_PROCESSES", n_processes)
    local, shared = copy.copy(model), copy.copy(model)
    assert cluster.fit(shared, rows(), client=client) is shared
    same_models(state(shared), state(local.fit(rows())))
    with pytest.raises(AttributeError, match="term_ is not available"):
        _ = shared.term_


def test_weights_and_generators(client: Any) -> None:
    weights = np.random.default_rng(0).uniform(0.0, 2.0, len(X))
    weights[::7] = 0.0
    local, shared = (ManifoldSAE(1, Circle(1), random_state=np.random.default_rng(4)) for _ in range(2))
    same_models(state(cluster.fit(shared, X, client, weights=weights)), state(local.fit(X, weights)))
    assert isinstance(shared.random_state, np.random.Generator)
    assert isinstance(local.random_state, np.random.Generator)
    assert shared.random_state.random() == local.random_state.random()


def test_rows_of_every_kind(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = one_circle(n=300)[0].astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    monkeypatch.chdir(tmp_path)  # workers stand elsewhere
    expected = state(one().fit("rows.npy"))
    for given in (
        "rows.npy",
        tmp_path / "rows.npy",
        np.load("rows.npy", mmap_mode="r"),
        np.asfortranarray(rows),
        (part for part in np.array_split(rows, 3)),
    ):
        same_models(state(cluster.fit(one(), given, client=client)), expected)


def test_what_is_refused_before_there_is_work(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = pytest.importorskip("dask.array")

    def never(*_: object) -> None:
        raise AssertionError("work was started")

    monkeypatch.setattr(fits, "_fitted", never)
    bad = X.copy()
    bad[3, 1] = np.nan
    for rows, weights in ((bad, None), (X[0], None), (X[:2], None), (X, np.ones(3)), (X, -np.ones(len(X)))):
        local = message(lambda rows=rows, weights=weights: one().fit(rows, weights))
        assert message(lambda rows=rows, weights=weights: cluster.fit(one(), rows, client, weights=weights)) == local
    for name, value in (("n_init", 0), ("tol", -1.0), ("gate", "none"), ("random_state", "x")):
        model = one().set_params(**{name: value})
        assert message(lambda model=model: cluster.fit(model, X, client=client)) == message(
            lambda model=model: model.fit(X)
        )
    for name, value in (("progress", True), ("callback", print), ("checkpoint", "here")):
        model = one().set_params(**{name: value})
        with pytest.raises(ValueError, match=f"^{name} is not available in a fit on a cluster"):
            cluster.fit(model, X, client=client)
    with pytest.raises(ValueError, match="X is a Array of Dask"):
        cluster.fit(one(), arrays.from_array(X), client=client)
    with pytest.raises(ValueError, match=r"client must be a distributed\.Client or None, got str"):
        cluster.fit(one(), X, client="tcp://somewhere")


def test_errors_of_workers(client: Any, tmp_path: Path) -> None:
    model = one()
    bad = X.copy()
    bad[130, 3] = np.nan
    np.save(tmp_path / "bad.npy", bad)
    local = message(lambda: one().fit(tmp_path / "bad.npy"))
    assert message(lambda: cluster.fit(model, tmp_path / "bad.npy", client=client)) == local
    np.save(tmp_path / "rows.npy", X)
    rows = open_rows(tmp_path / "rows.npy")
    assert isinstance(rows, FileRows)
    (tmp_path / "rows.npy").unlink()
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "rows.npy"))):
        cluster.fit(model, rows, client=client)
    assert not state(model)


def test_an_end_before_the_end_is_said(client: Any) -> None:
    model = ManifoldSAE(2, Circle(1), max_outer=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cluster.fit(model, X, client=client)
    (warned,) = [w for w in caught if w.category is ConvergenceWarning]
    assert warned.filename == __file__
    assert not model.converged_


# Ends ---------------------------------------------------------------------------------------------------------------


def long_fit() -> tuple[ManifoldSAE, NDArray[np.float64]]:
    """One that no test waits for."""
    return ManifoldSAE(4, Circle(6), n_init=8, max_outer=1000, tol=1e-12), two_circles(n=4000, width=16)[0]


def parts_of(client: Any) -> list[int]:
    """In how many fits each worker has a part."""
    return list(client.run(lambda: len(parts._RUNS)).values())


def once(client: Any, parts: Callable[[list[int]], bool], act: Callable[[], object] = lambda: None) -> None:
    """Act as soon as it is so that workers have parts in fits."""
    end = time.monotonic() + 60.0
    while time.monotonic() < end:
        if parts(parts_of(client)):
            act()
            return
        time.sleep(0.1)
    raise AssertionError("the workers have never come to that")


@pytest.mark.parametrize("rank", [0, 2])
def test_a_worker_that_is_lost_ends_the_fit(client: Any, rank: int) -> None:
    addresses = sorted(client.nthreads())
    pid = client.run(os.getpid, workers=[addresses[rank]])[addresses[rank]]
    killer = threading.Thread(target=once, args=(client, lambda n: min(n) == 1, lambda: os.kill(pid, signal.SIGKILL)))
    killer.start()
    model, rows = long_fit()
    with pytest.raises(ClusterError, match=f"the worker at {addresses[rank]} was lost"):
        cluster.fit(model, rows, client=client)
    killer.join()
    assert not state(model)
    client.wait_for_workers(3)
    once(client, lambda n: len(n) == 3 and max(n) == 0)
    # the cluster is as good as before
    same_models(state(cluster.fit(one(), X, client=client)), state(one().fit(X)))


@pytest.mark.usefixtures("signal_is_heard")
def test_ctrl_c_cancels_the_tasks(client: Any) -> None:
    model, rows = long_fit()
    killer = threading.Thread(target=once, args=(client, lambda n: min(n) == 1, _thread.interrupt_main))
    killer.start()
    with pytest.raises(KeyboardInterrupt):
        cluster.fit(model, rows, client=client)
    killer.join()
    assert not state(model)
    once(client, lambda n: max(n) == 0)
