"""A metric of the residual that differs from row to row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RowMetric:
    """Factors U_i (p, m) of each row's metric ``U_i U_iᵀ``: a residual r counts as ``‖U_iᵀ r‖²``.

    Pass it to ``ManifoldSAE.fit(X, metric=...)``.

    Parameters
    ----------
    factors : array-like of shape (n, p, m), or (p, m) for the same factor in every row
        Real finite numbers. For noise of covariance Σ_i = L_i L_iᵀ the factor ``L_i^{-ᵀ}`` whitens it; a factor of low
        rank m models the residual in m directions alone.
    mode : {"whitened", "fisher"}, default "whitened"
        "whitened" enters the likelihood: rows are ``U_iᵀx`` with noise φ in each of m entries. "fisher" leaves the fit
        as it is and enters only the diagnostics (``metric_explained_variance_``).
    """

    factors: ArrayLike
    mode: Literal["whitened", "fisher"] = "whitened"

    def checked(self, n_rows: int, n_outputs: int) -> FloatArray:
        """The factors as an array (n, p, m).

        Raises
        ------
        ValueError
            For another shape or dtype, a value that is NaN or infinite, factors that are zero in every row, or an
            unknown mode.
        """
        if self.mode not in ("whitened", "fisher"):
            raise ValueError(f"metric mode must be 'whitened' or 'fisher', got {self.mode!r}")
        array = np.asarray(self.factors)
        if array.dtype.kind not in "fiu":
            raise ValueError(f"metric factors must hold real numbers, got dtype {array.dtype}")
        if array.ndim == 2:
            array = np.broadcast_to(array, (n_rows, *array.shape))
        if array.ndim != 3 or array.shape[:2] != (n_rows, n_outputs) or array.shape[2] == 0:
            raise ValueError(
                f"metric factors must have shape ({n_rows}, {n_outputs}, m), one (p, m) factor for each row of X,"
                f" got {np.shape(self.factors)}"
            )
        values = np.ascontiguousarray(array, dtype=np.float64)
        if not np.isfinite(values).all():
            row = int(np.argmax(~np.isfinite(values).all(axis=(1, 2))))
            raise ValueError(f"metric factors must be finite; row {row} has an entry that is not")
        if not values.any():
            raise ValueError("metric factors are zero in every row: nothing of the residual would count")
        return values


def whitened_squares(rows: FloatArray, factors: FloatArray) -> FloatArray:
    """‖U_iᵀ r_i‖² (n,) of rows (n, p)."""
    squares: FloatArray = np.square(np.einsum("ip,ipm->im", rows, factors)).sum(axis=1)
    return squares
