"""A Dask cluster of processes of this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator
from typing import Any

import pytest


@contextlib.contextmanager
def local_client(n_workers: int) -> Iterator[Any]:
    """A client of workers of one thread each; skips the test without Dask."""
    distributed = pytest.importorskip("distributed")
    with (
        _shared_imports(distributed),
        distributed.LocalCluster(
            n_workers=n_workers, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0
        ) as local,
        distributed.Client(local) as started,
    ):
        yield started


def _shared_imports(distributed: Any) -> Any:
    """Fork workers from a process that has imported what they need, where the system can; a context manager."""
    dask = pytest.importorskip("dask")
    if "forkserver" not in multiprocessing.get_all_start_methods() or not hasattr(distributed.utils, "get_mp_context"):
        return contextlib.nullcontext()
    chosen = dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
    distributed.utils.get_mp_context().set_forkserver_preload(["distributed", "dask.array", "sae_rs.cluster"])
    return chosen
