"""Rows of a fitted model on a Dask cluster: encoded or scored in blocks, each a task of its own.

Every row is encoded by itself, so blocks change no number.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dictionary import explained_share
from ..encoding import ENCODED_BYTES, ENCODED_ROWS, Encoding, joined
from ..model import ManifoldSAE
from ..rows import FileRows, Rows, blocks, column_mean
from ..validation import (
    NotFinite,
    as_matrix,
    check_finite,
    check_integer,
    check_new_rows,
    check_width,
    find_not_finite,
    refuse_not_finite,
)
from .clients import FileBlock, file_block, imported, running

FloatArray = NDArray[np.float64]

# Blocks on their way for each thread of the cluster: enough that none waits, and all rows are never sent at once.
BLOCKS_AHEAD = 4


def encode(model: ManifoldSAE, rows: Rows, client: Any = None, *, block_rows: int = ENCODED_ROWS) -> Encoding:
    """What ``model.encode(rows)`` returns, found on a cluster.

    Parameters
    ----------
    model : ManifoldSAE
        A fitted model. It is sent once, without what it knows of its training rows. With ``n_jobs=None`` each task
        uses one thread.
    rows : dask.array.Array, array-like of shape (m, p), path, or iterable of array-like
        Rows as ``model.encode`` takes them, or a Dask array with chunks along its rows only. Those of a .npy or
        .safetensors file or an `np.memmap` in C order are read by the workers, which must find the file at the same
        path; others are sent to them.
    client : distributed.Client, optional
        Where tasks go; None takes the client that was started last.
    block_rows : int, default 65536
        Rows of a task at most; fewer where these would take more than 256 MiB. A Dask array keeps its chunks.

    Returns
    -------
    Encoding
        Equal to the local one bit for bit, whatever the blocks, where workers run the same libraries on like
        processors.

    Raises
    ------
    ImportError
        When Dask is not installed.
    NotFittedError
        Before ``fit``.
    ValueError
        When there is no running client; and for rows that ``model.encode`` refuses, in the same words.
    OSError
        When a worker cannot read the file of the rows.
    distributed.client.FutureCancelledError
        When workers are lost with rows that were sent to them, or with every copy of the model: call again. Rows of a
        file are otherwise read again by another worker.
    """
    return joined(_mapped(_encoded, model, rows, client, block_rows))


def transform(model: ManifoldSAE, rows: Rows, client: Any = None, *, block_rows: int = ENCODED_ROWS) -> FloatArray:
    """Gates (m, K) of rows (m, p), as ``model.transform``; parameters and errors are those of `encode`."""
    gates: FloatArray = np.concatenate(_mapped(_gates, model, rows, client, block_rows))
    return gates


def score(model: ManifoldSAE, rows: Rows, client: Any = None, *, block_rows: int = ENCODED_ROWS) -> float:
    """Explained variance of rows (m, p), as ``model.score`` up to rounding; parameters and errors are those of
    `encode`.

    Each block is encoded once and only its sums come back. They are added in the order of the rows, so that the result
    depends on the blocks by rounding alone, and not on who did what when.
    """
    parts = [part for part in _mapped(_sums, model, rows, client, block_rows) if part.n_rows]
    n_rows = sum(part.n_rows for part in parts)
    shift = sum((part.n_rows * part.shift for part in parts), start=np.zeros(model.n_features_in_)) / max(n_rows, 1)
    residual = sum(part.residual for part in parts)
    total = sum(part.total + part.n_rows * float(np.square(part.shift - shift).sum()) for part in parts)
    return explained_share(residual, total, (n_rows, model.n_features_in_))


# On a worker --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sums:
    """Of the rows of a block: their number, their column means less those of the fit (p,), and their sums of squares
    about their reconstruction and about their own means."""

    n_rows: int
    shift: FloatArray
    residual: float
    total: float


def _encoded(model: ManifoldSAE, rows: NDArray[Any] | FileRows) -> Encoding:
    return model.encode(rows)


def _gates(model: ManifoldSAE, rows: NDArray[Any] | FileRows) -> FloatArray:
    return model.transform(rows)


def _sums(model: ManifoldSAE, rows: NDArray[Any] | FileRows) -> _Sums:
    values = check_new_rows(rows, model.n_features_in_)
    mean = column_mean(values) if len(values) else model.mean_
    # far from zero the rounding of a mean is no longer small beside how blocks differ: what it leaves is added
    rest = sum(((values[own] - mean).sum(axis=0) for own in blocks(values.shape)), start=np.zeros(len(mean)))
    shift = (mean - model.mean_) + rest / max(len(values), 1)
    return _Sums(len(values), shift, *model._squares(values, mean))


def _on_block(
    work: Callable[[ManifoldSAE, NDArray[Any] | FileRows], Any], model: ManifoldSAE, block: object
) -> tuple[int, Any]:
    """Number of rows of a block and what `work` makes of them, or the values among them that are not finite.

    Those are no error here: the message counts them in all blocks, and the row of the first is that of the whole.
    """
    rows = block.read() if isinstance(block, FileBlock) else as_matrix(block)
    check_width(rows.shape[1], model.n_features_in_)
    found = find_not_finite(rows)
    return len(rows), work(model, rows) if found is None else found


# On the machine that asks -------------------------------------------------------------------------------------------


def _mapped(
    work: Callable[[ManifoldSAE, NDArray[Any] | FileRows], Any],
    model: ManifoldSAE,
    rows: Rows,
    client: Any,
    block_rows: int,
) -> list[Any]:
    """What `work` makes of each block, in the order of the rows."""
    dask, arrays, distributed = imported()
    client = running(distributed, client)
    step = check_integer(block_rows, "block_rows", 1)
    model._check_fitted("sae_rs.cluster")
    n_columns = model.n_features_in_
    model.encode(np.empty((0, n_columns)))  # refuses what encodes no rows at all
    if isinstance(rows, arrays.Array):
        _check_dask_array(rows, n_columns)
        sent = client.scatter(_for_workers(model), broadcast=True, hash=False)
        # one graph, so that what chunks have in common is made once
        task = dask.delayed(_on_block, pure=False)
        futures = client.compute([task(work, sent, block) for block in rows.to_delayed().ravel()])
        results = _in_order(client, iter(futures), len(futures))
    elif dask.is_dask_collection(rows):
        raise ValueError(
            f"X is a {type(rows).__name__} of Dask, of whose collections only arrays have rows to encode: pass a"
            " dask.array.Array, such as X.to_dask_array() of a data frame"
        )
    else:
        source = _checked(rows, n_columns)
        sent = client.scatter(_for_workers(model), broadcast=True, hash=False)
        step = max(1, min(step, ENCODED_BYTES // (8 * n_columns)))
        results = _in_order(
            client,
            (client.submit(_on_block, work, sent, block, pure=False) for block in _blocks(client, source, step)),
            None,
        )
    return _all_finite(list(results))


def _for_workers(model: ManifoldSAE) -> ManifoldSAE:
    """A copy that encodes and knows no training row, no callback and no more threads than a task has."""
    sent = copy.copy(model)
    sent.coords_ = [t[:0] for t in model.coords_]
    sent.gates_, sent.support_, sent._logits = model.gates_[:0], model.support_[:0], model._logits[:0]
    sent.progress = sent.callback = None
    sent.n_jobs = 1 if model.n_jobs is None else model.n_jobs
    return sent


def _check_dask_array(rows: Any, n_columns: int) -> None:
    """Check what is known of a Dask array before it is computed."""
    if rows.dtype.kind not in "fiu":
        raise ValueError(f"X must hold real numbers (float or integer), got dtype {rows.dtype}")
    if rows.ndim != 2:
        raise ValueError(f"X must be two-dimensional (rows, columns), got shape {rows.shape}")
    if rows.numblocks[1] != 1:
        raise ValueError(
            f"X is a Dask array with {rows.numblocks[1]} chunks along its columns; a task needs whole rows: pass"
            " X.rechunk({1: -1})"
        )
    if not np.isnan(rows.shape[1]):  # an unknown width is checked block by block
        check_width(rows.shape[1], n_columns)


def _checked(rows: Rows, n_columns: int) -> NDArray[Any] | FileRows | FileBlock:
    """Rows that workers can read from a file, as one block of it, or rows to send, which are checked here."""
    array = as_matrix(rows)
    check_width(array.shape[1], n_columns)
    found = file_block(array, rows)
    if found is None:
        check_finite(array)
    return found or array


def _blocks(client: Any, source: NDArray[Any] | FileRows | FileBlock, step: int) -> Iterator[Any]:
    """Blocks of `step` rows as tasks take them; one without rows where there are none."""
    n_rows = source.stop if isinstance(source, FileBlock) else len(source)
    for start in range(0, max(n_rows, 1), step):
        stop = min(start + step, n_rows)
        if isinstance(source, FileBlock):
            yield source._replace(start=start, stop=stop)
        else:
            # not as an argument, which would go through the scheduler and stay there
            yield client.scatter(source[start:stop], hash=False)


def _in_order(client: Any, futures: Iterator[Any], ahead: int | None) -> Iterator[tuple[int, Any]]:
    """Results in the order of their tasks, of which `ahead` are under way at a time; None follows the threads of the
    cluster."""
    pending: deque[Any] = deque()
    try:
        for future in futures:
            pending.append(future)
            if len(pending) >= (ahead or BLOCKS_AHEAD * max(1, sum(client.nthreads().values()))):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        client.cancel(list(pending))


def _all_finite(results: list[tuple[int, Any]]) -> list[Any]:
    """Results of all blocks; values that are not finite are refused as if they had been found in one pass."""
    first: NotFinite | None = None
    start, count = 0, 0
    for n_rows, result in results:
        if isinstance(result, NotFinite):
            first = first or replace(result, row=start + result.row)
            count += result.count
        start += n_rows
    refuse_not_finite(first and replace(first, count=count))
    return [result for _, result in results]
