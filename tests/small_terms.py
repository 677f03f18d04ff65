"""Small low-level terms of circles under the softmax gate, for tests of one formula at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sae_rs import SaeManifoldRho, SaeManifoldTerm, Softmax

Array = NDArray[np.float64]

ELIMINATIONS = ("primal", "dual", "complement")


def circle_points(decoder: Array, angles: Array) -> Array:
    """Points (n, p) of one circle."""
    harmonics = (len(decoder) - 1) // 2
    columns = [np.ones_like(angles)]
    for h in range(1, harmonics + 1):
        columns += [np.cos(h * angles), np.sin(h * angles)]
    return np.stack(columns, axis=1) @ decoder


def planted_term(
    harmonics: Sequence[int] = (1,),
    *,
    n: int = 12,
    p: int = 6,
    noise: float = 0.1,
    share: Array | None = None,
    support: NDArray[np.bool_] | None = None,
    weights: Array | None = None,
    decoders: Sequence[Array] | None = None,
    angles: Array | None = None,
    seed: int = 0,
    **options: Any,
) -> SaeManifoldTerm:
    """A term at the dictionary that made its data, not centred; `share` (n,) is the gate of the first of two."""
    rng = np.random.default_rng(seed)
    drawn = rng.uniform(0.0, 2.0 * np.pi, (n, len(harmonics)))
    angles = drawn if angles is None else angles
    if decoders is None:
        decoders = [rng.standard_normal((2 * h + 1, p)) for h in harmonics]
    logits = np.zeros((n, len(harmonics)))
    if share is not None:
        logits[:, 0] = np.log(share / (1.0 - share))
    elif len(harmonics) > 1:
        logits[:, :-1] = rng.standard_normal((n, len(harmonics) - 1))
    gates = np.exp(logits) if support is None else np.where(support, np.exp(logits), 0.0)
    gates /= gates.sum(axis=1, keepdims=True)
    data = sum(gates[:, [k]] * circle_points(b, angles[:, k]) for k, b in enumerate(decoders))
    return SaeManifoldTerm(
        np.ascontiguousarray(data + noise * rng.standard_normal((n, p))),
        [{"kind": "circle", "harmonics": h} for h in harmonics],
        Softmax().spec(len(harmonics)),
        logits,
        [np.ascontiguousarray(angles[:, [k]]) for k in range(len(harmonics))],
        list(decoders),
        support=support,
        weights=weights,
        center=False,
        **options,
    )


def strengths(
    n_atoms: int = 1, *, sparse: float = 0.0, smooth: float = -2.0, noise: float = 0.1, **options: Any
) -> SaeManifoldRho:
    """Strengths that differ from atom to atom, so that a swapped index shows."""
    return SaeManifoldRho(
        sparse, [smooth + 0.3 * k for k in range(n_atoms)], log_dispersion=2.0 * np.log(noise) + 0.2, **options
    )
