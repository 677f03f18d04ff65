"""Where rows come from: arrays, files that are read a part at a time, and streams of arrays."""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

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

    def part(self, rows: slice) -> FileRows:
        """The rows of a slice of step 1, not read."""
        start, stop, _ = rows.indices(len(self))
        n_columns = self.shape[1]
        offset = self.offset + start * n_columns * self.itemsize
        return FileRows(self.path, offset, self.dtype, (max(stop - start, 0), n_columns))

    def loaded(self) -> NDArray[Any]:
        """All rows as an array of the file's own dtype."""
        return self.read(0, self.shape[0])

    def __getitem__(self, rows: Any) -> FloatArray:
        if isinstance(rows, slice) and rows.step in (None, 1):
            start, stop, _ = rows.indices(len(self))
            return np.ascontiguousarray(self.read(start, max(stop, start)), dtype=np.float64)
        chosen = np.arange(len(self))[rows]
        if chosen.ndim == 0:
            return np.asarray(self.read(int(chosen), int(chosen) + 1)[0], dtype=np.float64)
        out = np.empty((*chosen.shape, self.shape[1]))
        # blocks of the file in turn, and of each the rows that are wanted
        flat, into = chosen.ravel(), out.reshape(-1, self.shape[1])
        order = np.argsort(flat, kind="stable")
        ascending = flat[order]
        for block in blocks(self.shape):
            own = slice(*np.searchsorted(ascending, (block.start, block.stop)))
            if own.start < own.stop:
                low, high = int(ascending[own.start]), int(ascending[own.stop - 1])
                into[order[own]] = self.read(low, high + 1)[ascending[own] - low]
        return out

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows from `start` to before `stop` in the file's own dtype.

        Raises
        ------
        OSError
            When the file is gone or has become shorter.
        """
        # not mapped: pages of a map that are in memory count as the process's, and one of a file that shrinks ends it
        n_columns = self.shape[1]
        count = (stop - start) * n_columns
        at = self.offset + start * n_columns * self.itemsize
        values: NDArray[Any] = np.fromfile(self.path, dtype=self.dtype, count=count, offset=at)
        if len(values) != count:
            raise OSError(f"{self.path}: rows {start} to {stop - 1} could not be read; the file has become shorter")
        return values.reshape(stop - start, n_columns)


# What fits and encodings take: an array-like, rows in a file, a path, or a stream of blocks.
Rows: TypeAlias = ArrayLike | FileRows | os.PathLike[str] | Iterable[ArrayLike]


def blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices that cover the rows of an array in order, each of about `BLOCK_BYTES` as float64."""
    n_rows, row_bytes = shape[0], 8 * int(np.prod(shape[1:]))
    step = max(1, BLOCK_BYTES // max(row_bytes, 1))
    return (slice(i, min(i + step, n_rows)) for i in range(0, n_rows, step))


def column_mean(X: FloatArray | FileRows) -> FloatArray:
    """Means of the columns (p,)."""
    total: FloatArray = sum((X[rows].sum(axis=0) for rows in blocks(X.shape)), start=np.zeros(X.shape[1])) / len(X)
    return total


def column_variance(X: FloatArray | FileRows) -> float:
    """Mean variance of the columns."""
    mean = column_mean(X)
    total = sum(float(np.square(X[rows] - mean).sum()) for rows in blocks(X.shape))
    return float(total / (X.shape[0] * X.shape[1]))


def open_rows(X: object) -> ArrayLike | FileRows:
    """What a fit can be given, as something with rows: an array, or rows in a file.

    Parameters
    ----------
    X : array-like, str, path, or iterable of array-like
        A path names a .npy, .npz, .safetensors or .parquet file. Any other iterable that is no array and no sequence
        is taken for a stream of blocks of rows; it is written to a temporary file, since a fit passes over the rows
        many times.

    Raises
    ------
    ValueError
        For a file that is damaged or of an unknown type, and for a stream that makes no matrix.
    OSError
        When a file cannot be read, or the temporary one not be written.
    """
    if isinstance(X, FileRows):
        return X
    if isinstance(X, (str, os.PathLike)):
        X = read_matrix(Path(X))
    if isinstance(X, np.memmap):
        return _mapped(X)
    # loaders of batches have a length, but no element that could be asked for
    is_array = hasattr(X, "__array__") or (hasattr(X, "__len__") and hasattr(X, "__getitem__")) or sparse.issparse(X)
    return spooled(X) if isinstance(X, Iterable) and not is_array else X  # type: ignore[return-value]


def _mapped(X: np.memmap[Any, Any]) -> ArrayLike | FileRows:
    """Rows of a memory map, from its file where they lie there as they are."""
    base, dtype = getattr(X, "_mmap", None), X.dtype
    whole = X.ndim == 2 and X.size > 0 and X.flags.c_contiguous and dtype.kind == "f" and dtype.itemsize in (4, 8)
    # a private map may differ from its file, and a map outlives the file at its path
    if not whole or base is None or X.filename is None or X.mode == "c" or not os.path.exists(X.filename):
        return X
    if X.mode != "r":
        X.flush()
    # a slice of a map keeps its parent's offset: where it lies in the file follows from where it lies in memory
    first = np.frombuffer(base, dtype=np.uint8).ctypes.data
    begin = X.offset - X.offset % mmap.ALLOCATIONGRANULARITY
    rows = FileRows(X.filename, begin + X.ctypes.data - first, dtype, (X.shape[0], X.shape[1]))
    # another file may have come to that path
    ends = ((rows.read(i, i + 1), X[i]) for i in (0, len(X) - 1))
    return rows if all(read.tobytes() == mapped.tobytes() for read, mapped in ends) else X


def spooled(parts: Iterable[object]) -> FileRows:
    """Blocks of rows, each (m, p) or one row (p,), written one after the other to a temporary file of their own.

    The file is float32 when every block is, else float64; it goes when nothing refers to the result any more.

    Raises
    ------
    ValueError
        When there are no rows, a block is no matrix of real numbers, or blocks differ in their width.
    OSError
        When the temporary file cannot be written.
    """
    handle, path = tempfile.mkstemp(prefix="sae-rs-", suffix=".rows")
    try:
        with os.fdopen(handle, "w+b") as file:
            dtype, shape = _write_blocks(parts, file)
        rows = FileRows(path, 0, dtype, shape)
    except BaseException:
        os.unlink(path)
        raise
    weakref.finalize(rows, _remove, path, os.getpid())
    return rows


def _write_blocks(parts: Iterable[object], file: BinaryIO) -> tuple[np.dtype[Any], tuple[int, int]]:
    """Write a stream to an empty file; the dtype and the shape of what is there."""
    n_rows, n_columns = 0, -1
    dtype: np.dtype[Any] = np.dtype(np.float32)
    for index, part in enumerate(parts):
        block = _block(part, index)
        if n_columns < 0:
            n_columns = block.shape[1]
        if block.shape[1] != n_columns:
            raise ValueError(
                f"X is a stream whose block {index} has {block.shape[1]} columns, but the first has {n_columns}"
            )
        if dtype == np.float32 and block.dtype.newbyteorder("=") != np.float32 and len(block):
            dtype = np.dtype(np.float64)
            _widen(file, n_rows, n_columns)
        file.write(np.ascontiguousarray(block, dtype=dtype).data)
        n_rows += len(block)
    if n_rows == 0:
        raise ValueError("X is a stream without rows")
    return dtype, (n_rows, n_columns)


def _block(part: object, index: int) -> NDArray[Any]:
    """One block of a stream as a matrix of real numbers."""
    if isinstance(part, np.ma.MaskedArray) and np.ma.is_masked(part):
        raise ValueError(f"X is a stream whose block {index} has masked values; fill or drop them first")
    try:
        block = np.asarray(part)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"X is a stream whose block {index} cannot be read as an array: {error}") from error
    if block.ndim not in (1, 2) or block.dtype.kind not in "fiu":
        raise ValueError(
            f"X is a stream whose block {index} is no matrix of real numbers: shape {block.shape}, dtype {block.dtype}"
        )
    return np.atleast_2d(block)


def _widen(file: BinaryIO, n_rows: int, n_columns: int) -> None:
    """Turn the float32 rows of a file into float64, from the last to the first: each block is read before the space
    that it lies in is written to."""
    for rows in reversed(list(blocks((n_rows, n_columns)))):
        size = (rows.stop - rows.start) * n_columns
        file.seek(rows.start * n_columns * 4)
        values = np.frombuffer(file.read(size * 4), dtype=np.float32)
        file.seek(rows.start * n_columns * 8)
        file.write(values.astype(np.float64).data)
    file.seek(0, os.SEEK_END)


def _remove(path: str, owner: int) -> None:
    # a process that was forked off has no claim on its parent's file
    if os.getpid() != owner:
        return
    try:
        os.unlink(path)
    except OSError:
        # a system that keeps files open from being removed cleans its temporary directory itself
        return
