"""A fit whose rows are shared out among the workers of a Dask cluster.

Every worker makes the whole fit and comes to the same result: it has all decoders and strengths and the state of all
rows, but works on rows of its own alone. What passes over them come to is exchanged through the worker of rank 0
(`sae_rs.exchange`). Dask starts the tasks, hands them the rows and brings the result back.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike, NDArray

from ..exceptions import ClusterError
from ..fit_data import FitData
from ..metrics import RowMetric
from ..model import ManifoldSAE
from ..rows import FileRows, Rows
from ..settings import FitSettings
from ..validation import as_matrix, check_rows_suffice, check_weights
from .clients import FileBlock, file_block, imported, running
from .parts import Given, Part, cancel, fit_part, open_hub

# More processes would have no rows: passes are made of so many segments.
MAX_PROCESSES = 32
# Seconds between two looks at whether the workers are still there.
WATCH = 1.0


def fit(
    model: ManifoldSAE,
    X: Rows,
    client: Any = None,
    *,
    weights: ArrayLike | None = None,
    metric: RowMetric | None = None,
) -> ManifoldSAE:
    """What ``model.fit(X, weights, metric=metric)`` does, with the rows shared out among the workers of a cluster.

    One task runs on each worker, on as many threads as the worker has, or on ``n_jobs``. They reach each other by
    connections of their own, authenticated but not encrypted, through one of them.

    Parameters
    ----------
    model : ManifoldSAE
        An estimator; ``n_atoms="auto"`` is fitted as well. What belongs to one process is refused: ``progress``,
        ``callback`` and ``checkpoint``.
    X : array-like of shape (n, p), path, or iterable of array-like
        Rows as ``model.fit`` takes them. A .npy or .safetensors file or an `np.memmap` in C order is read by every
        worker, which must find it at the same path; other rows are sent whole to every worker. A Dask array is refused.
    client : distributed.Client, optional
        Where tasks go; None takes the client that was started last.
    weights : array-like of shape (n,), optional
        Row weights, sent to every worker.
    metric : RowMetric, optional
        Metrics of the rows, sent to every worker.

    Returns
    -------
    ManifoldSAE
        The estimator itself, equal bit for bit to what ``model.fit`` makes of it where workers run the same libraries
        on like processors; only ``term_``, which holds the training rows, is not available.

    Raises
    ------
    ImportError
        When Dask is not installed.
    ValueError
        When there is no running client or no worker; for data, weights or options that ``model.fit`` refuses, in the
        same words; and for what is not available on a cluster.
    OSError
        When a worker cannot read the file of the rows.
    ClusterError
        When a worker is lost, or workers come to different numbers. As after every error the estimator is as it was.
    KeyboardInterrupt
        At a Ctrl-C, which cancels the tasks.

    Warns
    -----
    ConvergenceWarning
        When the fit ended early; the best state is kept and ``converged_`` is False.
    """
    dask, _, distributed = imported()
    client = running(distributed, client)
    _refuse_unavailable(model)
    if dask.is_dask_collection(X):
        raise ValueError(
            f"X is a {type(X).__name__} of Dask, whose parts lie on different workers; a fit passes over all rows many"
            " times: write them to a file that the workers can read, or pass X.compute()"
        )
    array = as_matrix(X)
    settings = FitSettings.checked(model, array.shape[1])
    given = Given(settings, _checked(array, X, weights, metric, settings), weights, metric)
    return model._take(_fitted(client, distributed, given))


def _refuse_unavailable(model: ManifoldSAE) -> None:
    for name in ("progress", "callback", "checkpoint"):
        if getattr(model, name) not in (None, False):
            raise ValueError(f"{name} is not available in a fit on a cluster: leave it None, or use model.fit")


def _checked(
    array: NDArray[Any] | FileRows,
    given: Rows,
    weights: ArrayLike | None,
    metric: RowMetric | None,
    settings: FitSettings,
) -> NDArray[Any] | FileBlock:
    """Rows to send, checked as a fit does, or those of a file, of which workers check the values."""
    found = file_block(array, given)
    if found is not None:
        if settings.n_atoms is not None:
            check_rows_suffice(len(array), settings.atoms)
        check_weights(weights, len(array))
        return found
    if isinstance(array, FileRows):
        array = array.loaded()
    FitData.checked(array, weights, metric, settings)
    return array


def _fitted(client: Any, distributed: Any, given: Given) -> dict[str, Any]:
    """The attributes of the fitted estimator."""
    threads = client.nthreads()
    addresses = sorted(threads)[:MAX_PROCESSES]
    if not addresses:
        raise ValueError("the client's cluster has no workers: wait for them with client.wait_for_workers(1)")
    part = Part(secrets.token_hex(8), secrets.token_bytes(32), tuple(addresses))
    # not as an argument, which would go through the scheduler
    sent = client.scatter(given, workers=addresses, broadcast=True, hash=False)
    hub = client.run(open_hub, part, workers=addresses[:1])[addresses[0]]
    futures: list[Any] = []
    try:
        for rank, address in enumerate(addresses):
            task = (fit_part, part, rank, hub, threads[address], sent)
            futures.append(client.submit(*task, workers=[address], allow_other_workers=False, pure=False, retries=0))
        found: dict[str, Any] = _ended(client, distributed, futures, addresses)
        return found
    except BaseException:
        client.cancel(futures)
        # of what is lost as well, the client has nothing to say
        with contextlib.suppress(OSError):
            client.run(cancel, part, hub, workers=_left(client, addresses), on_error="ignore")
        raise


def _left(client: Any, addresses: Sequence[str]) -> list[str]:
    """Those of the workers that are still there."""
    return [address for address in addresses if address in client.nthreads()]


def _ended(client: Any, distributed: Any, futures: Sequence[Any], addresses: Sequence[str]) -> Any:
    """The result of the first task once all have ended, or the first error."""
    running = dict(zip(addresses, futures, strict=True))
    error: BaseException | None = None
    while running:
        with contextlib.suppress(distributed.TimeoutError):
            distributed.wait(list(running.values()), timeout=WATCH, return_when="FIRST_COMPLETED")
        ended = [address for address, future in running.items() if future.done()]
        found = [_error(running.pop(address), address, distributed) for address in ended]
        # a worker that has lost another knows no reason: that one may
        for other in filter(None, found):
            error = other if error is None or isinstance(error, ClusterError) else error
        left = _left(client, addresses)
        gone = [address for address in running if address not in left]
        if error is None and gone:
            error = _lost(gone[0])
        if error is not None and (not isinstance(error, ClusterError) or not ended or len(gone) == len(running)):
            break
    if error is not None:
        raise error
    return futures[0].result()


def _error(future: Any, address: str, distributed: Any) -> BaseException | None:
    """What a task has ended with."""
    error: BaseException | None = future.exception()
    # where Dask was told to start no task of a lost worker again
    return _lost(address) if isinstance(error, distributed.KilledWorker) else error


def _lost(address: str) -> ClusterError:
    return ClusterError(f"the worker at {address} was lost during the fit")
