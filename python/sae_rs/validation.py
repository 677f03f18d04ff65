"""Checks of arrays and options, made before any work starts.

Every refusal is a `ValueError` that names the argument, what was found and what was expected. Data are scanned in
row chunks, so a check never holds a second copy of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from ._core import SaeManifoldRho
from .atoms import Atom
from .exceptions import FoldWarning
from .rows import FileRows, open_rows

FloatArray = NDArray[np.float64]

# Rows scanned at a time: large enough to be fast, small enough that the temporaries stay in the cache.
CHUNK_BYTES = 1 << 20
# Outside this range of variances the squares that the fit works with leave the range of float64.
SMALLEST_VARIANCE = 1e-140
LARGEST_VARIANCE = 1e140


@dataclass(frozen=True)
class TrainingRows:
    """Checked training rows: (n, p) float64 in C order, the dtype results are returned in, and s² of the evidence."""

    values: FloatArray | FileRows
    dtype: np.dtype[Any]
    mean_variance: float


def row_chunks(n_rows: int, row_bytes: int) -> Iterator[slice]:
    """Slices that cover ``range(n_rows)`` in order, each of about `CHUNK_BYTES`."""
    step = max(1, CHUNK_BYTES // max(row_bytes, 1))
    return (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))


def as_matrix(X: object, name: str = "X") -> NDArray[Any] | FileRows:
    """View `X` as a real two-dimensional array of any numeric dtype, without a copy where NumPy needs none.

    Paths, memory maps and streams of blocks become rows in a file: see `sae_rs.rows.open_rows`.

    Raises
    ------
    ValueError
        For sparse or masked input, a dtype that is not real numbers, or a shape that is not two-dimensional.
    """
    X = open_rows(X)
    if isinstance(X, FileRows):
        return X
    if sparse.issparse(X):
        raise ValueError(f"{name} is a sparse matrix; dense rows are needed: pass {name}.toarray()")
    if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
        masked = int(np.ma.getmaskarray(X).sum())
        raise ValueError(f"{name} is a masked array with {masked} masked values; fill or drop them first")
    try:
        array = np.asarray(X)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be read as an array: {error}") from error
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} must hold real numbers (float or integer), got dtype {array.dtype}")
    if array.ndim != 2:
        hint = f"; for a single row pass {name}.reshape(1, -1)" if array.ndim == 1 else ""
        raise ValueError(f"{name} must be two-dimensional (rows, columns), got shape {array.shape}{hint}")
    return array


def result_dtype(array: NDArray[Any] | FileRows) -> np.dtype[Any]:
    """Dtype in which reconstructions of `array` are returned: float32 for float32, else float64."""
    return np.dtype(np.float32 if array.dtype.newbyteorder("=") == np.float32 else np.float64)


@dataclass(frozen=True)
class NotFinite:
    """Values of a matrix that are NaN or infinite: how many, and where the first in row order is and what it is."""

    count: int
    row: int
    column: int
    value: float


def find_not_finite(array: NDArray[Any] | FileRows) -> NotFinite | None:
    """Look for NaN and infinity; None where there is neither."""
    if array.dtype.kind in "iu":
        return None
    count, first = 0, (0, 0)
    for rows in row_chunks(array.shape[0], array.shape[1] * array.itemsize):
        bad = ~np.isfinite(array[rows])
        found = int(np.count_nonzero(bad))
        if found and not count:
            row, column = np.unravel_index(int(np.argmax(bad)), bad.shape)
            first = (rows.start + int(row), int(column))
        count += found
    return NotFinite(count, *first, array[first[0]][first[1]]) if count else None


def refuse_not_finite(found: NotFinite | None, name: str = "X") -> None:
    """Refuse what `find_not_finite` found, if anything."""
    if found is not None:
        values = "1 value that is" if found.count == 1 else f"{found.count} values that are"
        raise ValueError(
            f"{name} has {values} not finite (NaN or infinity); the first is {name}[{found.row}, {found.column}]"
            f" = {found.value}"
        )


def check_finite(array: NDArray[Any] | FileRows, name: str = "X") -> None:
    """Refuse NaN and infinity, with their count and the first index in row order."""
    refuse_not_finite(find_not_finite(array), name)


def as_float64(array: NDArray[Any] | FileRows) -> FloatArray | FileRows:
    """Float64 in C order and native byte order; the array itself when it is that already, and rows in a file."""
    if isinstance(array, FileRows):
        return array
    with np.errstate(over="ignore"):  # a long double beyond float64 becomes infinite and is refused by the range check
        return np.ascontiguousarray(array, dtype=np.float64)


def check_training_rows(X: object) -> TrainingRows:
    """Check the rows of a fit.

    Parameters
    ----------
    X : array-like of shape (n, p)
        At least 2 rows, finite, not all alike.

    Returns
    -------
    TrainingRows
        ``values`` shares memory with `X` when `X` is float64 in C order.

    Raises
    ------
    ValueError
        See the module's list of refusals.
    """
    array = as_matrix(X)
    n_rows, n_columns = array.shape
    if n_rows < 2:
        raise ValueError(f"X must have at least 2 rows, got shape {array.shape}")
    if n_columns < 1:
        raise ValueError(f"X must have at least 1 column, got shape {array.shape}")
    check_finite(array)
    chunks = list(row_chunks(n_rows, 8 * n_columns))
    first = array[0]
    if all(bool((array[rows] == first).all()) for rows in chunks):
        raise ValueError(f"X has zero variance: all {n_rows} rows are equal")
    values = as_float64(array)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        mean = sum(values[rows].sum(axis=0) for rows in chunks) / n_rows
        variance = float(sum(float(np.square(values[rows] - mean).sum()) for rows in chunks) / (n_rows * n_columns))
    if not SMALLEST_VARIANCE <= variance <= LARGEST_VARIANCE:  # written so that NaN is refused too
        raise ValueError(f"the variance of X is {variance:.3g}, outside the range of float64 squares: rescale X")
    return TrainingRows(values, result_dtype(array), variance)


def check_width(n_columns: int, n_features: int) -> None:
    """Refuse rows of another width than those of the fit."""
    if n_columns != n_features:
        raise ValueError(f"X has {n_columns} columns, but the model was fitted on {n_features}")


def check_new_rows(X: object, n_features: int) -> FloatArray | FileRows:
    """Check rows to encode or score: (m, p) with the width of the fit, finite; returned as float64 in C order."""
    array = as_matrix(X)
    check_width(array.shape[1], n_features)
    check_finite(array)
    return as_float64(array)


def check_weights(weights: ArrayLike | None, n_rows: int) -> FloatArray | None:
    """Check row weights (n,) and scale them to mean 1; equal weights are None.

    Raises
    ------
    ValueError
        For a wrong shape or dtype, a value that is NaN, infinite or negative, or fewer than 2 positive weights.
    """
    if weights is None:
        return None
    try:
        array = np.asarray(weights)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"weights cannot be read as an array: {error}") from error
    if array.shape != (n_rows,):
        raise ValueError(f"weights must have shape ({n_rows},), one for each row of X, got {array.shape}")
    if array.dtype.kind not in "fiu":
        raise ValueError(f"weights must hold real numbers, got dtype {array.dtype}")
    values: FloatArray = array.astype(np.float64)
    for what, bad in (("not finite", ~np.isfinite(values)), ("negative", values < 0.0)):
        if bad.any():
            first = int(np.argmax(bad))
            raise ValueError(
                f"weights has {int(bad.sum())} entries that are {what}; the first is weights[{first}] = {values[first]}"
            )
    positive = int(np.count_nonzero(values))
    if positive < 2:
        raise ValueError(f"weights must be positive for at least 2 rows, got {positive}")
    # Divide by the largest first: the mean of huge or tiny weights may leave the range of float64.
    values /= values.max()
    values /= values.mean()
    if np.all(values == values[0]):
        # as good as none: the same numbers to the last bit
        return None
    return values


def check_integer(value: object, name: str, least: int) -> int:
    """Check an integer option; booleans are refused, NumPy integers are fine."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def check_n_atoms(value: object) -> int | None:
    """Check the number of atoms: an integer of at least 0, or "auto", for which None is returned."""
    if isinstance(value, str) and value == "auto":
        return None
    return check_integer(value, "n_atoms", 0)


def check_positive(value: object, name: str) -> float:
    """Check a positive finite number."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0.0 < float(value) < np.inf:
        raise ValueError(f"{name} must be a positive finite number, got {value!r}")
    return float(value)


def check_choice(value: object, name: str, known: Sequence[str]) -> None:
    """Check an option that is one of a few names."""
    if value not in known:
        raise ValueError(f"{name} must be {' or '.join(repr(k) for k in known)}, got {value!r}")


def check_decoder_rank(value: object, n_outputs: int) -> int | str | None:
    """Check the rank of decoders in p output channels: "auto", None, or a number of channels."""
    if value is None or value == "auto":
        return "auto" if value == "auto" else None
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer) or not 1 <= value <= n_outputs:
        raise ValueError(
            f"decoder_rank must be None, 'auto' or a whole number from 1 to the {n_outputs} columns, got {value!r}"
        )
    return int(value)


def check_random_state(value: object) -> int:
    """Turn a seed, None (fresh entropy) or a NumPy generator into the integer seed of one fit."""
    if value is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(value, np.random.Generator):
        return int(value.integers(2**32))
    if isinstance(value, np.random.RandomState):
        return int(value.randint(2**31))
    seed = check_integer(value, "random_state", 0)
    if seed >= 2**64:
        raise ValueError(f"random_state must be below 2**64, got {seed}")
    return seed


def check_n_jobs(value: object) -> int | None:
    """Turn `n_jobs` into a number of threads; None and −1 leave the choice (all cores) to the core."""
    if value is None or (value == -1 and not isinstance(value, bool)):
        return None
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"n_jobs must be None, -1 (all cores) or an integer of at least 1, got {value!r}")
    return int(value)


def check_rows_suffice(n_rows: int, atoms: Sequence[Atom], rows: str = "rows") -> None:
    """Refuse fewer rows than atoms, or fewer than the widest basis has functions; `rows` says which rows count."""
    if n_rows < len(atoms):
        raise ValueError(f"X has {n_rows} {rows}, too few for {len(atoms)} atoms: at least {len(atoms)} are needed")
    for k, atom in enumerate(atoms):
        if n_rows < atom.width:
            raise ValueError(
                f"X has {n_rows} {rows}, too few for the basis of atom {k}, {atom}: at least {atom.width} are needed"
            )


def warn_of_folds(n_columns: int, atoms: Sequence[Atom]) -> None:
    """Warn of closed atoms with as many coordinates as there are columns, in which they cannot close without a fold."""
    for k, atom in enumerate(atoms):
        if atom.is_closed and atom.dim >= n_columns:
            columns = "1 column" if n_columns == 1 else f"{n_columns} columns"
            warnings.warn(
                f"X has {columns}, in which atom {k}, {atom}, can only close by folding back on itself, so that most"
                f" points have several coordinates: it needs at least {atom.dim + 1} columns. A line and a"
                " segment do without.",
                FoldWarning,
                stacklevel=2,
            )
            return


def check_scales(atoms: Sequence[Atom], evidence: str) -> None:
    """Refuse atoms whose size nothing holds under the classic criterion, which has no prior where roughness sees
    nothing.

    Without any roughness a decoder can grow while its coordinates shrink, at no cost: there is no optimum to expand
    about.
    """
    for k, atom in enumerate(atoms):
        if evidence == "quasi_laplace" and not np.any(atom.roughness()):
            raise ValueError(
                f"evidence='quasi_laplace' cannot hold the scale of atom {k}, {atom}, which has no roughness:"
                " use evidence='laplace'"
            )


def check_rho(rho: object, atoms: Sequence[Atom], evidence: str = "laplace") -> SaeManifoldRho | None:
    """Check the starting strengths of a fit.

    Parameters
    ----------
    rho : SaeManifoldRho, array-like of shape (2 + K,), or None
        A flat vector is read as ``[ln λ_sparse, ln λ_1, ..., ln λ_K, ln φ]``; the classic criterion also takes it
        without the last entry, for φ = 1.
    atoms : sequence of Atom
        The K atoms of the fit.
    evidence : {"laplace", "quasi_laplace"}
        The criterion; the classic one holds the dispersion.

    Raises
    ------
    ValueError
        For a wrong length or a value that is not finite.
    """
    if rho is None:
        return None
    n_atoms = len(atoms)
    if not isinstance(rho, SaeManifoldRho):
        try:
            flat = np.asarray(rho, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"rho must be a SaeManifoldRho or a flat vector: {error}") from error
        if evidence == "quasi_laplace" and flat.shape == (1 + n_atoms,):
            flat = np.append(flat, 0.0)
        if flat.shape != (2 + n_atoms,):
            raise ValueError(
                f"rho must have shape ({2 + n_atoms},) for {n_atoms} atoms"
                f" (ln λ_sparse, {n_atoms} × ln λ, ln φ), got {flat.shape}"
            )
        _refuse_infinite_strengths(flat)
        return SaeManifoldRho(
            log_lambda_sparse=float(flat[0]), log_lambda_smooth=flat[1:-1].tolist(), log_dispersion=float(flat[-1])
        )
    smooth = np.asarray(rho.log_lambda_smooth, dtype=np.float64)
    if smooth.shape != (n_atoms,):
        raise ValueError(f"rho.log_lambda_smooth must have shape ({n_atoms},), one for each atom, got {smooth.shape}")
    if len(rho.log_ard) != n_atoms:
        raise ValueError(f"rho.log_ard must have {n_atoms} entries, one for each atom, got {len(rho.log_ard)}")
    for k, (atom, block) in enumerate(zip(atoms, rho.log_ard, strict=True)):
        if len(block) and not atom.has_precisions:
            raise ValueError(f"rho.log_ard[{k}] must be empty: the prior on a {atom.kind} has no precisions")
        if len(block) not in (0, atom.dim):
            raise ValueError(f"rho.log_ard[{k}] must have 0 or {atom.dim} entries, got {len(block)}")
    _refuse_infinite_strengths(np.asarray(rho.to_flat(), dtype=np.float64))
    return rho


def _refuse_infinite_strengths(flat: FloatArray) -> None:
    bad = np.flatnonzero(~np.isfinite(flat))
    if bad.size:
        raise ValueError(f"rho has {bad.size} values that are not finite; the first is rho[{bad[0]}] = {flat[bad[0]]}")
