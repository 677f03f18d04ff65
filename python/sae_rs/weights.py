"""Row weights that keep a few large rows from ruling a fit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .rows import Rows, column_mean
from .validation import as_matrix, check_positive, check_training_rows, row_chunks

FloatArray = NDArray[np.float64]


def huber_weights(X: Rows, delta: float = 1.5) -> FloatArray:
    """Weights (n,) of Huber's kind from row norms: ``w = min(1, delta · median / ‖z‖)`` with z the row less the mean.

    Rows whose norm is at most `delta` times the median weigh 1; a longer row weighs as if its length were that. Pass
    them to ``ManifoldSAE.fit(X, weights=...)``.

    Parameters
    ----------
    X : array-like of shape (n, p), path, or iterable of array-like
        Rows, as ``fit`` takes them.
    delta : float, default 1.5
        Length, in medians, above which a row is held back.

    Raises
    ------
    ValueError
        For rows that ``fit`` would refuse, or a `delta` that is not a positive finite number.
    """
    factor = check_positive(delta, "delta")
    rows = check_training_rows(as_matrix(X)).values
    mean = column_mean(rows)
    norms = np.concatenate(
        [np.linalg.norm(rows[part] - mean, axis=1) for part in row_chunks(len(rows), 8 * rows.shape[1])]
    )
    bound = factor * float(np.median(norms))
    # a row at the mean weighs one, however small the median is
    weights: FloatArray = np.where(norms <= bound, 1.0, bound / np.maximum(norms, np.finfo(np.float64).tiny))
    return weights
