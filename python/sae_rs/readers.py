"""Reading a matrix of activations from a file."""

from __future__ import annotations

import importlib
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUFFIXES = (".npy", ".npz", ".safetensors", ".parquet")


def read_matrix(path: Path, key: str | None = None) -> NDArray[Any]:
    """Read one array from a .npy, .npz, .safetensors or .parquet file; objects are never unpickled.

    Parameters
    ----------
    path : Path
        A .npy file, and float32 or float64 values in a .safetensors file, are mapped into memory, not read at once.
    key : str, optional
        Array of a .npz or .safetensors file, or column of lists of a .parquet file; needed when there are several. A
        .parquet file whose columns are all numbers is read as the matrix of these columns.

    Raises
    ------
    ValueError
        For an unknown suffix, a damaged file, or a missing or ambiguous key.
    ImportError
        For a .parquet file when pyarrow is not installed.
    OSError
        When the file cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: unknown file type {suffix!r}, expected one of {', '.join(SUFFIXES)}")
    if key is not None and suffix == ".npy":
        raise ValueError(f"{path}: a .npy file holds one array, so --key does not apply")
    with open(path, "rb"):  # a missing file gives the usual error of the system, whatever the reader below would say
        pass
    readers = {".npy": _read_npy, ".npz": _read_npz, ".safetensors": _read_safetensors, ".parquet": _read_parquet}
    return readers[suffix](path, key)


def _choose(path: Path, names: list[str], key: str | None) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if key is None:
        raise ValueError(
            f"{path} holds {len(names)} arrays ({', '.join(names)}): choose one with --key, or pass it as an array"
        )
    if key not in names:
        raise ValueError(f"{path} has no array {key!r}; it has {', '.join(names)}")
    return key


def _read_npy(path: Path, key: str | None) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a readable .npy file: {error}") from error
    return array


def _read_npz(path: Path, key: str | None) -> NDArray[Any]:
    # Anything but a zip archive is refused first: NumPy would take it for a pickle and advise how to run it.
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not a readable .npz file: it is not a zip archive")
    with np.load(path, allow_pickle=False) as arrays:
        name = _choose(path, list(arrays.keys()), key)
        try:
            array: NDArray[Any] = arrays[name]
        except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path} is not a readable .npz file: {error}") from error
    return array


def _read_safetensors(path: Path, key: str | None) -> NDArray[Any]:
    import safetensors

    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            names = sorted(file.keys())
            chosen = _choose(path, names, key)
            mapped = _mapped_tensor(path, chosen)
            array: NDArray[Any] = file.get_tensor(chosen) if mapped is None else mapped
    except (safetensors.SafetensorError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return array


def _mapped_tensor(path: Path, name: str) -> NDArray[Any] | None:
    """A map of one tensor of a file that has been found to be sound; None where its values are no floats of NumPy's."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(size))[name]
    dtype = {"F32": "<f4", "F64": "<f8"}.get(entry["dtype"])
    begin, end = entry["data_offsets"]
    if dtype is None or begin == end:
        return None
    return np.memmap(path, dtype, "r", 8 + size + begin, tuple(entry["shape"]))


def _read_parquet(path: Path, key: str | None) -> NDArray[Any]:
    try:
        pyarrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError(f"{path}: .parquet files need pyarrow: pip install 'sae-rs[parquet]'") from error
    try:
        table = parquet.read_table(path, columns=None if key is None else [key])
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} is not a readable .parquet file: {error}") from error
    if key is not None and key not in table.column_names:
        raise ValueError(f"{path} has no column {key!r}")
    lists = [c for c in table.column_names if pyarrow.types.is_nested(table.schema.field(c).type)]
    if not lists:
        columns = [table.column(name).to_numpy() for name in table.column_names]
        return np.column_stack(columns) if columns else np.empty((table.num_rows, 0))
    rows = table.column(_choose(path, lists, key)).to_numpy()
    widths = {len(row) if row is not None else -1 for row in rows}
    if len(widths) > 1:
        raise ValueError(f"{path}: the lists of its column have different lengths")
    return np.stack(list(rows)) if len(rows) else np.empty((0, 0))
