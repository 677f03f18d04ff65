"""What is kept about the training rows when a fit ends: a pass over the rows in chunks, no second copy of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from .atoms import Atom
from .encoding import decode_atom
from .metrics import whitened_squares
from .rows import FileRows, column_mean
from .validation import row_chunks

FloatArray = NDArray[np.float64]

# Points at which an atom is sampled to find the directions it is drawn in.
VIEW_GRID = 256
# A direction in which the decoded set varies by less than this part of its largest variation is rounding.
NO_DIRECTION = 1e-9


@dataclass(frozen=True, eq=False)
class TrainingSummary:
    """Statistics of the training rows that curves, tables and pictures need later.

    Attributes
    ----------
    explained_variance : float
        ``1 − Σ‖x − x̂‖² / Σ‖x − column mean‖²``.
    shares : ndarray of shape (K,)
        Part of the explained variance that each atom's contribution c_k carries,
        ``Σ_i (2 c_ik·z_i − c_ik·ẑ_i) / Σ‖x − column mean‖²`` with z = x − mean; the parts of a centred fit sum to
        ``explained_variance``.
    covariances : list of K ndarray of shape (M_k, M_k)
        Posterior covariance of one column of each decoder, given gates, coordinates and the other atoms; the same for
        every output channel.
    views : list of K ndarray of shape (2, p) for curves and (3, p) for other atoms
        Orthonormal directions in which the decoded set varies most.
    view_rows : list of K ndarray of shape (n, 2) or (n, 3)
        Each row less the other atoms' contributions and less the mean, seen along these.
    edf : ndarray of shape (K,) or None
        Effective degrees of freedom of each atom's smooth part: of its p·rank(S_k) rough directions, those that the
        data determine. None when the fit ended before they were computed.
    """

    explained_variance: float
    shares: FloatArray
    covariances: list[FloatArray]
    views: list[FloatArray]
    view_rows: list[FloatArray]
    edf: FloatArray | None = None


def summarise_training(
    X: FloatArray | FileRows,
    mean: FloatArray,
    atoms: Sequence[Atom],
    decoders: Sequence[FloatArray],
    gates: FloatArray,
    coords: Sequence[FloatArray],
    *,
    weights: FloatArray | None,
    smoothness: FloatArray,
    roughness: Sequence[FloatArray],
    dispersion: float,
    mean_variance: float,
    edf: FloatArray | None,
) -> TrainingSummary:
    """Summarise the training rows X (n, p) under a fitted state.

    Parameters
    ----------
    weights : ndarray of shape (n,) or None
        Row weights of mean 1.
    smoothness : ndarray of shape (K,)
        Strength λ_k of each atom's roughness.
    roughness : sequence of K ndarray of shape (M_k, M_k)
        Roughness Gram S_k of each atom as the fit weighed it.
    dispersion : float
        Noise variance φ.
    mean_variance : float
        s², the mean column variance of the data.
    edf : ndarray of shape (K,) or None
        Kept as it is.
    """
    n_rows, n_atoms = gates.shape
    used = [t[gates[:, k] > 0.0] for k, t in enumerate(coords)]
    views = [principal_directions(*of_atom) for of_atom in zip(atoms, decoders, used, strict=True)]
    view_rows = [np.empty((n_rows, len(view))) for view in views]
    grams = [np.zeros((atom.width, atom.width)) for atom in atoms]
    shares = np.zeros(n_atoms)
    residual, total = 0.0, 0.0
    column_means = column_mean(X)
    for rows in row_chunks(n_rows, 8 * X.shape[1]):
        z = X[rows] - mean
        # rows have nothing of an atom that they do not use: of many atoms each row uses few
        parts = []
        fitted = np.zeros_like(z)
        for k, atom in enumerate(atoms):
            using = np.flatnonzero(gates[rows, k])
            own = rows.start + using
            parts.append((using, own, gates[own, k, None] * decode_atom(atom, decoders[k], coords[k][own])))
            fitted[using] += parts[k][2]
        error = z - fitted
        residual += float(np.square(error).sum())
        total += float(np.square(X[rows] - column_means).sum())
        for k, atom in enumerate(atoms):
            using, own, part = parts[k]
            shares[k] += float(np.sum(part * (z[using] + error[using])))
            view_rows[k][rows] = error @ views[k].T
            view_rows[k][own] += part @ views[k].T
            design = gates[own, k, None] * _core.basis(atom.spec(), np.ascontiguousarray(coords[k][own]))
            row_weights = 1.0 if weights is None else weights[own, None]
            grams[k] += design.T @ (row_weights * design)
    covariances = []
    for k in range(n_atoms):
        precision = grams[k] / dispersion + decoder_precision(
            roughness[k], float(smoothness[k]), dispersion, mean_variance
        )
        covariances.append(inverse_to_rounding(precision))
    return TrainingSummary(1.0 - residual / total, shares / total, covariances, views, view_rows, edf)


def decoder_precision(roughness: FloatArray, smoothness: float, dispersion: float, mean_variance: float) -> FloatArray:
    """Prior precision P = λ S/φ + N/s² (M, M) of a decoder column; N projects on the null space of S.

    The second term, which the classic criterion does not count, is kept under it too: it is weak, and without it a
    decoder that no row uses has no covariance.
    """
    values, vectors = np.linalg.eigh(roughness)
    null = vectors[:, values <= values[-1] * len(values) * np.finfo(np.float64).eps]
    precision: FloatArray = smoothness * roughness / dispersion + null @ null.T / mean_variance
    return precision


def n_directions(atom: Atom) -> int:
    """In how many directions an atom is seen: a curve in two, all else in three."""
    return 2 if atom.dim == 1 else 3


def principal_directions(atom: Atom, decoder: FloatArray, coords: FloatArray) -> NDArray[Any]:
    """Directions (2 or 3, p) in which the decoded set varies most, most first; zero rows where there are fewer.

    The set is taken over the range of the coordinates (m, ambient) of the rows that use the atom.
    """
    basis = _core.basis(atom.spec(), atom.grid_over(VIEW_GRID, coords))
    # the triangular factor stands in for all grid points: as many rows as the basis has columns
    triangle = np.linalg.qr(basis - basis.mean(axis=0), mode="r")
    _, lengths, directions = np.linalg.svd(triangle @ decoder, full_matrices=False)
    view = np.zeros((n_directions(atom), decoder.shape[1]))
    found = directions[: len(view)][lengths[: len(view)] > NO_DIRECTION * lengths[0]]
    # The sign of a singular vector is arbitrary; fixing it makes pictures the same on every machine.
    largest = found[np.arange(len(found)), np.argmax(np.abs(found), axis=1)]
    view[: len(found)] = found * np.where(largest < 0.0, -1.0, 1.0)[:, None]
    return view


def metric_explained_variance(
    X: FloatArray | FileRows,
    mean: FloatArray,
    atoms: Sequence[Atom],
    decoders: Sequence[FloatArray],
    gates: FloatArray,
    coords: Sequence[FloatArray],
    weights: FloatArray | None,
    factors: FloatArray,
) -> float:
    """``1 − Σ w‖U_iᵀ(x − x̂)‖² / Σ w‖U_iᵀ(x − mean)‖²`` of rows with a metric."""
    w = np.ones(len(X)) if weights is None else weights
    left = total = 0.0
    for rows in row_chunks(len(X), 8 * X.shape[1]):
        residual = X[rows] - mean
        total += float(w[rows] @ whitened_squares(residual, factors[rows]))
        for k, atom in enumerate(atoms):
            residual = residual - gates[rows, k, None] * decode_atom(atom, decoders[k], coords[k][rows])
        left += float(w[rows] @ whitened_squares(residual, factors[rows]))
    return 1.0 - left / total if total > 0.0 else float("nan")


def inverse_to_rounding(precision: FloatArray) -> FloatArray:
    """Inverse (M, M) of a precision in whose own units, 1 on the diagonal, small eigenvalues may be rounding.

    Those count as that much: the inverse of the matrix as it is would have eigenvalues of either sign.
    """
    unit = np.sqrt(np.diag(precision))
    values, vectors = np.linalg.eigh(precision / np.outer(unit, unit))
    inverse = (vectors / np.maximum(values, np.finfo(np.float64).eps * values[-1])) @ vectors.T
    return np.asarray(0.5 * (inverse + inverse.T) / np.outer(unit, unit))
