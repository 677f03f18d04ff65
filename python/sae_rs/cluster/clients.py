"""Dask, a client of it, and rows that its workers find in a file."""

from __future__ import annotations

import importlib
import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..rows import FileRows, Rows

FloatArray = NDArray[np.float64]


def imported() -> tuple[Any, Any, Any]:
    """The modules ``dask``, ``dask.array`` and ``distributed``."""
    try:
        dask, distributed = importlib.import_module("dask"), importlib.import_module("distributed")
        return dask, importlib.import_module("dask.array"), distributed
    except ImportError as error:
        raise ImportError("sae_rs.cluster needs Dask: pip install 'sae-rs[dask]'") from error


def running(distributed: Any, client: Any) -> Any:
    """The client to use, which must be able to wait for results."""
    if client is None:
        try:
            client = distributed.default_client()
        except ValueError as error:
            raise ValueError(
                "there is no Dask client: start one with distributed.Client(address), or distributed.Client() for the"
                " processes of this machine, or pass client="
            ) from error
    if not isinstance(client, distributed.Client):
        raise ValueError(f"client must be a distributed.Client or None, got {type(client).__name__}")
    if client.asynchronous:
        raise ValueError("client must not be asynchronous: start it with distributed.Client(address)")
    if client.status != "running":
        raise ValueError(f"client is {client.status}: start a new one with distributed.Client(address)")
    return client


class FileBlock(NamedTuple):
    """Rows of a file from `start` to before `stop`, not yet read."""

    path: str
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, int]
    start: int
    stop: int

    def rows(self) -> FileRows:
        """All rows of the file, whichever this block is of."""
        return FileRows(self.path, self.offset, self.dtype, self.shape)

    def read(self) -> FloatArray:
        """The rows of the block."""
        return self.rows()[self.start : self.stop]


def file_block(array: NDArray[Any] | FileRows, given: Rows) -> FileBlock | None:
    """The given rows, of which `as_matrix` made `array`, as one block of a file; None where workers cannot find it."""
    # the temporary file of a stream is on this machine only
    if not isinstance(array, FileRows) or not isinstance(given, (FileRows, str, os.PathLike, np.memmap)):
        return None
    return FileBlock(os.path.abspath(array.path), array.offset, array.dtype, array.shape, 0, len(array))
