"""Encoding and scoring on a cluster: the numbers and the errors of one machine."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clusters import local_client
from planted import fitted_mean, fitted_two, one_circle, two_circles
from sae_rs import Encoding, FrozenRouting, ManifoldSAE, NotFittedError, cluster
from sae_rs.cluster import blocks
from sae_rs.rows import FileRows, open_rows

X = two_circles(n=301, seed=5)[0]
BLOCK = 64
"""Rows of a task: four whole blocks, and a part of a fifth."""


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with local_client(2) as started:
        yield started


@functools.cache
def expected() -> Encoding:
    return fitted_two().encode(X)


def same_encoding(one: Encoding, other: Encoding) -> None:
    for name in ("gates", "logits", "support", "objective", "status"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    for mine, theirs in zip(one.coords, other.coords, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def message(call: Callable[[], object]) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is what is compared
        call()
    return str(caught.value)


def saved(rows: NDArray[Any], path: Path) -> Path:
    np.save(path, rows)
    return path


@pytest.mark.parametrize("block_rows", [1 << 20, BLOCK, 23])
def test_blocks_change_no_bit(client: Any, block_rows: int) -> None:
    same_encoding(cluster.encode(fitted_two(), X, client, block_rows=block_rows), expected())
    np.testing.assert_array_equal(cluster.transform(fitted_two(), X, block_rows=block_rows), expected().gates)
    assert cluster.score(fitted_two(), X, block_rows=block_rows) == pytest.approx(fitted_two().score(X), abs=1e-12)


def test_rows_of_every_kind(client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = pytest.importorskip("dask.array")
    path = saved(X, tmp_path / "rows.npy")
    opened = open_rows(path)
    assert isinstance(opened, FileRows)
    monkeypatch.chdir(tmp_path)  # workers stand elsewhere
    for rows in (
        X.tolist(),
        np.asfortranarray(X),
        "rows.npy",
        opened,
        np.load(path, mmap_mode="r"),
        (part for part in np.array_split(X, 3)),
        arrays.from_array(X, chunks=(BLOCK, -1)),
    ):
        same_encoding(cluster.encode(fitted_two(), rows, client, block_rows=BLOCK), expected())
    part = np.load(path, mmap_mode="r")[20:200]
    same_encoding(cluster.encode(fitted_two(), part, client, block_rows=BLOCK), fitted_two().encode(X[20:200]))
    narrow = saved(X.astype(np.float32), tmp_path / "narrow.npy")
    local = fitted_two().encode(narrow)
    for rows in (narrow, np.load(narrow), arrays.from_array(np.load(narrow), chunks=(100, -1))):
        same_encoding(cluster.encode(fitted_two(), rows, client, block_rows=BLOCK), local)
        assert cluster.score(fitted_two(), rows, client) == pytest.approx(fitted_two().score(narrow), abs=1e-12)


def test_dask_arrays_of_unknown_length(client: Any) -> None:
    arrays = pytest.importorskip("dask.array")
    rows = arrays.from_array(X, chunks=(BLOCK, -1))
    chosen = rows[rows[:, 0] > 0.0]  # chunks of lengths that only their tasks know
    assert np.isnan(chosen.shape[0])
    same_encoding(cluster.encode(fitted_two(), chosen, client), fitted_two().encode(X[X[:, 0] > 0.0]))
    # some chunks may be empty
    few = rows[rows[:, 0] >= X[:, 0].max() - 1e-9]
    same_encoding(cluster.encode(fitted_two(), few, client), fitted_two().encode(X[[X[:, 0].argmax()]]))


def test_models_without_atoms_and_no_rows(client: Any) -> None:
    mean = fitted_mean()
    rows = one_circle(seed=3)[0]
    same_encoding(cluster.encode(mean, rows, client, block_rows=7), mean.encode(rows))
    assert cluster.score(mean, rows, client, block_rows=7) == pytest.approx(mean.score(rows), abs=1e-12)
    same_encoding(cluster.encode(fitted_two(), X[:0], client), fitted_two().encode(X[:0]))
    for few in (X[:0], X[:1]):
        assert message(lambda few=few: cluster.score(fitted_two(), few, client)) == message(
            lambda few=few: fitted_two().score(few)
        )


def test_the_score_keeps_its_digits_far_from_zero(client: Any) -> None:
    rows = one_circle(n=200)[0] + 1e6
    model = ManifoldSAE(n_atoms=0).fit(rows[:100])
    for block_rows in (200, 33):
        assert cluster.score(model, rows, client, block_rows=block_rows) == pytest.approx(model.score(rows), abs=1e-12)


def test_workers_get_the_model_without_its_training_rows(client: Any) -> None:
    model = ManifoldSAE(n_atoms=0, callback=lambda _: False).fit(one_circle(n=5000)[0])
    sent = blocks._for_workers(model)
    assert sent.callback is None
    assert sent.n_jobs == 1
    assert len(sent.gates_) == len(sent.support_) == len(sent._logits) == 0
    assert len(model.gates_) == 5000
    two = blocks._for_workers(fitted_two())
    assert [t.shape for t in two.coords_] == [(0, t.shape[1]) for t in fitted_two().coords_]
    assert len(fitted_two().coords_[0]) == 120
    assert len(cluster.encode(model, one_circle()[0], client)) == 60


def test_refused_rows_are_refused_in_the_same_words(client: Any, tmp_path: Path) -> None:
    arrays = pytest.importorskip("dask.array")
    model = fitted_two()
    bad = X.copy()
    bad[130, 3], bad[131, 0], bad[290, 1] = np.nan, np.inf, np.nan
    wide = np.column_stack([X, X])
    for rows in (bad, wide, X[0], X.astype(complex)):
        local = message(lambda rows=rows: model.encode(rows))
        for call in (cluster.encode, cluster.transform, cluster.score):
            assert message(lambda rows=rows, call=call: call(model, rows, client, block_rows=BLOCK)) == local
    for k, rows in enumerate((bad, wide)):
        local = message(lambda rows=rows: model.encode(rows))
        path = saved(rows, tmp_path / f"{k}.npy")
        lazy = arrays.from_array(rows, chunks=(BLOCK, -1))
        for source in (path, (part for part in np.array_split(rows, 3)), lazy):
            assert message(lambda source=source: cluster.score(model, source, client, block_rows=BLOCK)) == local
    # what only the worker finds: chunks that are not what their array says
    lying = arrays.from_array(X, chunks=(BLOCK, -1)).map_blocks(lambda block: np.tile(block, 2), dtype=np.float64)
    assert message(lambda: cluster.encode(model, lying, client)) == message(lambda: model.encode(wide))
    with pytest.raises(ValueError, match=re.escape("pass X.rechunk({1: -1})")):
        cluster.encode(model, arrays.from_array(X, chunks=(BLOCK, 4)), client)
    with pytest.raises(ValueError, match="X is a Delayed of Dask"):
        cluster.encode(model, arrays.from_array(X).to_delayed()[0, 0], client)
    with pytest.raises(ValueError, match="two-dimensional"):
        cluster.encode(model, arrays.from_array(X[0]), client)
    with pytest.raises(ValueError, match="real numbers"):
        cluster.encode(model, arrays.from_array(X.astype(complex)), client)
    with pytest.raises(ValueError, match="block_rows must be at least 1"):
        cluster.encode(model, X, client, block_rows=0)


def test_a_file_that_is_gone(client: Any, tmp_path: Path) -> None:
    path = saved(X, tmp_path / "rows.npy")
    rows = open_rows(path)
    assert isinstance(rows, FileRows)
    path.unlink()
    with pytest.raises(OSError, match=re.escape(str(path))):
        cluster.encode(fitted_two(), rows, client)


def test_models_that_encode_nothing(client: Any) -> None:
    with pytest.raises(NotFittedError, match="call fit"):
        cluster.encode(ManifoldSAE(n_atoms=1), X, client)
    rows = one_circle()[0]
    routed = ManifoldSAE(n_atoms=1, gate=FrozenRouting(np.ones((len(rows), 1)))).fit(rows)
    assert message(lambda: cluster.encode(routed, rows, client)) == message(lambda: routed.encode(rows))


def test_clients_that_cannot_be_used(client: Any) -> None:
    distributed = pytest.importorskip("distributed")
    with pytest.raises(ValueError, match=r"client must be a distributed\.Client or None, got str"):
        cluster.encode(fitted_two(), X, "tcp://somewhere")
    closed = distributed.Client(client.scheduler.address, set_as_default=False)
    closed.close()
    with pytest.raises(ValueError, match="client is closed"):
        cluster.encode(fitted_two(), X, closed)


def test_without_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")

    def none() -> Any:
        raise ValueError("No clients found")

    monkeypatch.setattr(distributed, "default_client", none)
    with pytest.raises(ValueError, match=r"start one with distributed\.Client\(address\).*or pass client="):
        cluster.encode(fitted_two(), X)


@pytest.mark.parametrize("missing", ["dask", "distributed"])
def test_without_dask(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=re.escape("pip install 'sae-rs[dask]'")):
        cluster.encode(fitted_two(), X)
