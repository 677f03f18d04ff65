"""Where rows come from: arrays, files that are read a part at a time, and streams of arrays."""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _core
from .readers import read_matrix

FloatArray = NDArray[np.float64]

# Bytes of one block in a pass over all rows: a pass in blocks makes no copy of them all.
BLOCK_BYTES = 1 << 20


class FileRows:
    """A float32 or float64 matrix (n, p) in a file, row after row.

    Indexing with a slice, an integer or an array of row numbers reads these rows into memory as float64.
    """

    ndim = 2

    def __init__(self, path: str | os.PathLike[str], offset: int, dtype: np.dtype[Any], shape: tuple[int, int]) -> None:
        self.path, self.offset, self.dtype, self.shape = os.fspath(path), offset, dtype, shape
        order = dtype.byteorder if dtype.byteorder in "<>" else ("<" if np.little_endian else ">")
        self.core = _core.RowFile(self.path, offset, f"{order}f{dtype.itemsize}", shape)

    @property
    def itemsize(self) -> int:
        return int(self.dtype.itemsize)

    def __len__(self) -> int:
        return self.shape[0]

    def loaded(self) -> NDArray[Any]:
        """All rows as an array of the file's own dtype."""
        values: NDArray[Any] = np.fromfile(
            self.path, dtype=self.dtype, count=self.shape[0] * self.shape[1], offset=self.offset
        )
        return values.reshape(self.shape)

    def __getitem__(self, rows: Any) -> FloatArray:
        n_rows, n_columns = self.shape
        if isinstance(rows, slice) and rows.step in (None, 1):
            start, stop, _ = rows.indices(n_rows)
            count = max(stop - start, 0) * n_columns
            # read, not mapped: the pages of a map that are in memory count as the process's
            at = self.offset + start * n_columns * self.itemsize
            values = np.fromfile(self.path, dtype=self.dtype, count=count, offset=at) if count else np.empty(0)
            return np.ascontiguousarray(values.reshape(-1, n_columns), dtype=np.float64)
        mapped = np.memmap(self.path, dtype=self.dtype, mode="r", offset=self.offset, shape=self.shape)
        return np.array(mapped[rows], dtype=np.float64)


# What fits and encodings take: an array-like, rows in a file, a path, or a stream of blocks.
Rows: TypeAlias = ArrayLike | FileRows | os.PathLike[str] | Iterable[ArrayLike]


def blocks(X: FloatArray | FileRows) -> Iterator[slice]:
    """Slices that cover the rows of a matrix (n, p) in order, each of about `BLOCK_BYTES` as float64."""
    n_rows, row_bytes = len(X), 8 * int(np.prod(X.shape[1:]))
    step = max(1, BLOCK_BYTES // max(row_bytes, 1))
    return (slice(i, min(i + step, n_rows)) for i in range(0, n_rows, step))


def column_mean(X: FloatArray | FileRows) -> FloatArray:
    """Means of the columns (p,)."""
    total: FloatArray = sum((X[rows].sum(axis=0) for rows in blocks(X)), start=np.zeros(X.shape[1])) / len(X)
    return total


def column_variance(X: FloatArray | FileRows) -> float:
    """Mean variance of the columns."""
    mean = column_mean(X)
    total = sum(float(np.square(X[rows] - mean).sum()) for rows in blocks(X))
    return float(total / (X.shape[0] * X.shape[1]))


def open_rows(X: object) -> ArrayLike | FileRows:
    """What a fit can be given, as something with rows: an array, or rows in a file.

    Parameters
    ----------
    X : array-like, str, path, or iterable of array-like
        A path names a .npy, .npz, .safetensors or .parquet file. Any other iterable that is no array and no sequence
        is taken for a stream of blocks of rows; it is written to a temporary file, since a fit passes over the rows
        many times.
    """
    if isinstance(X, FileRows):
        return X
    if isinstance(X, (str, os.PathLike)):
        X = read_matrix(Path(X))
    if isinstance(X, np.memmap):
        return _mapped(X)
    is_array = hasattr(X, "__array__") or hasattr(X, "__len__")
    return spooled(X) if isinstance(X, Iterable) and not is_array else X  # type: ignore[return-value]


def _mapped(X: np.memmap[Any, Any]) -> ArrayLike | FileRows:
    """Rows of a memory map, from its file where they lie there as they are."""
    base, dtype = getattr(X, "_mmap", None), X.dtype
    whole = X.ndim == 2 and X.size > 0 and X.flags.c_contiguous and dtype.kind == "f" and dtype.itemsize in (4, 8)
    # a private map may differ from its file
    if not whole or base is None or X.filename is None or X.mode == "c":
        return X
    if X.mode != "r":
        X.flush()
    # a slice of a map keeps its parent's offset: where it lies in the file follows from where it lies in memory
    first = np.frombuffer(base, dtype=np.uint8).ctypes.data
    begin = X.offset - X.offset % mmap.ALLOCATIONGRANULARITY
    return FileRows(X.filename, begin + X.ctypes.data - first, dtype, (X.shape[0], X.shape[1]))


def spooled(parts: Iterable[object]) -> FileRows:
    """Blocks of rows, each (m, p) or one row (p,), written one after the other to a temporary file of their own.

    The file is float32 when the first block is, else float64; it goes when nothing refers to the result any more.

    Raises
    ------
    ValueError
        When there are no rows, or blocks differ in their width.
    """
    handle, path = tempfile.mkstemp(prefix="sae-rs-", suffix=".rows")
    try:
        n_rows, n_columns = 0, -1
        dtype: np.dtype[Any] = np.dtype(np.float64)
        with os.fdopen(handle, "wb") as file:
            for index, part in enumerate(parts):
                block = np.atleast_2d(np.asarray(part))
                if block.ndim != 2 or block.dtype.kind not in "fiu":
                    raise ValueError(
                        f"X is a stream whose block {index} is no matrix of real numbers: shape {block.shape},"
                        f" dtype {block.dtype}"
                    )
                if n_columns < 0:
                    n_columns = block.shape[1]
                    dtype = np.dtype(np.float32 if block.dtype == np.float32 else np.float64)
                if block.shape[1] != n_columns:
                    raise ValueError(
                        f"X is a stream whose block {index} has {block.shape[1]} columns, but the first has {n_columns}"
                    )
                np.ascontiguousarray(block, dtype=dtype).tofile(file)
                n_rows += len(block)
        if n_rows == 0:
            raise ValueError("X is a stream without rows")
        rows = FileRows(path, 0, dtype, (n_rows, n_columns))
    except BaseException:
        os.unlink(path)
        raise
    weakref.finalize(rows, _remove, path)
    return rows


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        # a system that keeps files open from being removed cleans its temporary directory itself
        return
