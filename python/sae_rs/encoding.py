"""Encoded rows, and the way back from gates and coordinates to rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import _core
from .atoms import Atom
from .gates import Gate
from .rows import FileRows
from .validation import row_chunks

FloatArray = NDArray[np.float64]


# Rows encoded at a time, and what they may take: the core's own copies stay small beside the result.
ENCODED_ROWS = 65536
ENCODED_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class Encoding:
    """What `ManifoldSAE.encode` found for m rows.

    Attributes
    ----------
    gates : ndarray of shape (m, K), float64
        Share of each atom; rows sum to one under the softmax gate, exactly 0 off the support.
    coords : list of K ndarray of shape (m, d_k), float64
        Coordinates on each atom, in the ranges of the fitted ones. Off the support they carry no information.
    logits : ndarray of shape (m, K), float64
        Gate logits; the last is pinned at 0 under the softmax gate.
    support : ndarray of shape (m, K), bool
        Atoms that the row uses.
    objective : ndarray of shape (m,), float64
        Penalised objective of each row at the optimum found, in nats, lower is better.
    status : ndarray of shape (m,), uint8
        0 where the row converged, 1 where it met the iteration limit.
    """

    gates: FloatArray
    coords: list[FloatArray]
    logits: FloatArray
    support: NDArray[np.bool_]
    objective: FloatArray
    status: NDArray[np.uint8]

    def __len__(self) -> int:
        """Number of encoded rows."""
        return int(self.gates.shape[0])


def wrap_coords(atoms: Sequence[Atom], coords: Sequence[NDArray[Any]]) -> list[FloatArray]:
    """Copies of the coordinates in the canonical range of each atom."""
    return [atom.wrap(np.array(t, dtype=np.float64)) for atom, t in zip(atoms, coords, strict=True)]


def encode_with(
    rows: FloatArray | FileRows,
    mean: FloatArray,
    atoms: Sequence[Atom],
    gate: Gate,
    decoders: Sequence[FloatArray],
    rho: _core.SaeManifoldRho,
    column_scores: FloatArray,
    evidence: str,
    threads: int | None,
) -> Encoding:
    """Encode checked rows (m, p) under decoders and strengths; `column_scores` are the prices of the columns'
    masses."""
    m, n_atoms = len(rows), len(atoms)
    out = Encoding(
        np.zeros((m, n_atoms)),
        [np.zeros((m, atom.ambient)) for atom in atoms],
        np.zeros((m, n_atoms)),
        np.zeros((m, n_atoms), dtype=bool),
        np.zeros(m),
        np.zeros(m, dtype=np.uint8),
    )
    step = max(1, min(ENCODED_ROWS, ENCODED_BYTES // (8 * rows.shape[1])))
    for start in range(0, m, step):
        own = slice(start, min(start + step, m))
        gates, coords, logits, support, objective, status = _core.encode_rows(
            rows[own],
            mean,
            [atom.spec() for atom in atoms],
            gate.spec(n_atoms),
            decoders,
            rho,
            column_scores=column_scores,
            evidence=evidence,
            threads=threads,
        )
        out.gates[own], out.logits[own], out.support[own] = gates, logits, support
        out.objective[own], out.status[own] = objective, status
        for block, found in zip(out.coords, wrap_coords(atoms, coords), strict=True):
            block[own] = found
    return out


def joined(parts: Sequence[Encoding]) -> Encoding:
    """The rows of several encodings, one after the other."""
    if len(parts) == 1:
        return parts[0]
    return Encoding(
        np.concatenate([part.gates for part in parts]),
        [np.concatenate(own) for own in zip(*(part.coords for part in parts), strict=True)],
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.support for part in parts]),
        np.concatenate([part.objective for part in parts]),
        np.concatenate([part.status for part in parts]),
    )


def check_code(
    gates: ArrayLike, coords: Sequence[ArrayLike], atoms: Sequence[Atom]
) -> tuple[FloatArray, list[FloatArray]]:
    """Check gates (m, K) and K coordinate arrays (m, d_k) before they are decoded.

    Raises
    ------
    ValueError
        For a wrong number of atoms, a wrong shape or values that are not finite.
    """
    values = np.asarray(gates, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != len(atoms):
        raise ValueError(f"gates must have shape (m, {len(atoms)}), got {values.shape}")
    if len(coords) != len(atoms):
        raise ValueError(f"coords must be a list of {len(atoms)} arrays, one for each atom, got {len(coords)}")
    if not np.isfinite(values).all():
        raise ValueError("gates must be finite")
    checked = []
    for k, (atom, t) in enumerate(zip(atoms, coords, strict=True)):
        array = np.ascontiguousarray(t, dtype=np.float64)
        if array.shape != (len(values), atom.ambient):
            raise ValueError(f"coords[{k}] must have shape ({len(values)}, {atom.ambient}), got {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"coords[{k}] must be finite")
        checked.append(array)
    return values, checked


def decode_atom(atom: Atom, decoder: FloatArray, coords: FloatArray) -> FloatArray:
    """Points (m, p) of one atom at coordinates (m, d), the mean not added: ``Φ(t) @ B``."""
    points: FloatArray = _core.basis(atom.spec(), np.ascontiguousarray(coords)) @ decoder
    return points


def decode_rows(
    mean: FloatArray,
    atoms: Sequence[Atom],
    decoders: Sequence[FloatArray],
    gates: FloatArray,
    coords: Sequence[FloatArray],
    dtype: DTypeLike = np.float64,
) -> NDArray[Any]:
    """Rows (m, p) in `dtype`: ``mean + Σ_k gates[:, k] · Φ_k(coords[k]) @ decoders[k]``, computed in float64.

    The sum runs over row chunks, so nothing of the size of the result is held but the result.
    """
    out = np.empty((len(gates), len(mean)), dtype=dtype)
    for rows in row_chunks(len(gates), 8 * len(mean)):
        total = np.tile(mean, (rows.stop - rows.start, 1))
        for k, atom in enumerate(atoms):
            # A gate that is exactly zero contributes exactly zero: most rows of a large dictionary skip most atoms.
            used = np.flatnonzero(gates[rows, k])
            share = gates[rows, k][used, None]
            total[used] += share * decode_atom(atom, decoders[k], coords[k][rows][used])
        out[rows] = total
    return out
