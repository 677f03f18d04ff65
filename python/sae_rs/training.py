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
from .validation import row_chunks

FloatArray = NDArray[np.float64]

# Points at which an atom is sampled to find the plane it is drawn in.
PLANE_GRID = 512


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
    planes : list of K ndarray of shape (2, p)
        Orthonormal directions in which the decoded set varies most.
    plane_rows : list of K ndarray of shape (n, 2)
        Each row less the other atoms' contributions and less the mean, seen in that plane.
    """

    explained_variance: float
    shares: FloatArray
    covariances: list[FloatArray]
    planes: list[FloatArray]
    plane_rows: list[FloatArray]


def summarise_training(
    X: FloatArray,
    mean: FloatArray,
    atoms: Sequence[Atom],
    decoders: Sequence[FloatArray],
    gates: FloatArray,
    coords: Sequence[FloatArray],
    *,
    weights: FloatArray | None,
    smoothness: FloatArray,
    dispersion: float,
    mean_variance: float,
) -> TrainingSummary:
    """Summarise the training rows X (n, p) under a fitted state.

    Parameters
    ----------
    weights : ndarray of shape (n,) or None
        Row weights of mean 1.
    smoothness : ndarray of shape (K,)
        Strength λ_k of each atom's roughness.
    dispersion : float
        Noise variance φ.
    mean_variance : float
        s², the mean column variance of the data.
    """
    n_rows, n_atoms = gates.shape
    planes = [principal_plane(atom, decoder) for atom, decoder in zip(atoms, decoders, strict=True)]
    plane_rows = [np.empty((n_rows, 2)) for _ in atoms]
    grams = [np.zeros((atom.width, atom.width)) for atom in atoms]
    shares = np.zeros(n_atoms)
    residual, total = 0.0, 0.0
    column_mean = X.mean(axis=0)
    for rows in row_chunks(n_rows, 8 * X.shape[1]):
        z = X[rows] - mean
        parts = [gates[rows, k, None] * decode_atom(atom, decoders[k], coords[k][rows]) for k, atom in enumerate(atoms)]
        fitted = sum(parts, start=np.zeros_like(z))
        error = z - fitted
        residual += float(np.square(error).sum())
        total += float(np.square(X[rows] - column_mean).sum())
        for k, atom in enumerate(atoms):
            shares[k] += float(np.sum(parts[k] * (z + error)))
            plane_rows[k][rows] = (error + parts[k]) @ planes[k].T
            design = gates[rows, k, None] * _core.basis(atom.spec(), np.ascontiguousarray(coords[k][rows]))
            row_weights = 1.0 if weights is None else weights[rows, None]
            grams[k] += design.T @ (row_weights * design)
    covariances = []
    for k, atom in enumerate(atoms):
        precision = grams[k] / dispersion + decoder_precision(atom, float(smoothness[k]), dispersion, mean_variance)
        inverse = np.linalg.inv(precision)
        covariances.append(0.5 * (inverse + inverse.T))
    return TrainingSummary(1.0 - residual / total, shares / total, covariances, planes, plane_rows)


def decoder_precision(atom: Atom, smoothness: float, dispersion: float, mean_variance: float) -> FloatArray:
    """Prior precision P = λ S/φ + N/s² (M, M) of a decoder column; N projects on the null space of S."""
    roughness = atom.roughness()
    values, vectors = np.linalg.eigh(roughness)
    null = vectors[:, values <= values[-1] * len(values) * np.finfo(np.float64).eps]
    precision: FloatArray = smoothness * roughness / dispersion + null @ null.T / mean_variance
    return precision


def principal_plane(atom: Atom, decoder: FloatArray) -> NDArray[Any]:
    """Directions (2, p) in which the decoded set varies most, most first; zero rows where there are fewer than two."""
    basis = _core.basis(atom.spec(), atom.grid(PLANE_GRID))
    # the triangular factor stands in for all grid points: as many rows as the basis has columns
    triangle = np.linalg.qr(basis - basis.mean(axis=0), mode="r")
    _, _, directions = np.linalg.svd(triangle @ decoder, full_matrices=False)
    plane = np.zeros((2, decoder.shape[1]))
    found = directions[:2]
    # The sign of a singular vector is arbitrary; fixing it makes pictures the same on every machine.
    largest = found[np.arange(len(found)), np.argmax(np.abs(found), axis=1)]
    plane[: len(found)] = found * np.where(largest < 0.0, -1.0, 1.0)[:, None]
    return plane
