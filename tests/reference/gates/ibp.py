"""The ordered geometric (Indian-buffet) gate: sigma(l / tau) pi_k, and an energy of each column's mass (chapter 1.4).

pi_k = (alpha / (alpha + 1))^(k + 1), k the atom's place from 0. The prior is W sum_k f_k(M_k), where M_k is the sum of
z = sigma(l_ik / tau) over the rows whose support has k, and f_k one of the column energies beside this file. Since M_k
is a sum over rows, the Hessian of a column has the rank-one part f'' z' z'' across rows:

    gradient     W f' z'_i
    Hessian      W f'' z'_i z'_j + delta_ij W f' z''_i
    curvature    W f'' z'_i z'_j + delta_ij max(W f' z''_i, 0)

f'' < 0 for both energies, so the curvature may be indefinite: then the strengths are infeasible.

With a fixed alpha, W = lambda_sparse. With a learnable one W = 1 and lambda_sparse scales alpha: ln alpha = ln
alpha_base + ln lambda_sparse, through which pi and f_k move.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import ordered, plug_in
from .base import Gate, Mask, gated, independent_jets, logistic_derivatives

Array = NDArray[np.float64]

ENERGIES = {"ordered": ordered, "plug_in": plug_in}


@dataclass(frozen=True)
class Column:
    """One column of the prior: where its logits are among all N, and what the formulas above need."""

    index: NDArray[np.int_]
    z1: Array
    z2: Array
    z3: Array
    f: Array
    """W f and its three derivatives in the mass."""
    f_strength: Array
    """d/d log_strength of W f, W f', W f''."""


@dataclass(frozen=True)
class IBP(Gate):
    """Gates that shrink with the atom's place; atoms listed in ``ungated`` are always fully open."""

    alpha: float = 1.0
    learnable: bool = True
    energy_kind: str = "ordered"
    temperature: float = 1.0
    logit_precision: float = 0.04
    ungated: tuple[int, ...] = ()
    kind = "ibp"

    def labels(self, n_atoms: int) -> list[int]:
        """The prior tells atoms apart by their place, but for those without a gate."""
        return [k if open_ else -1 for k, open_ in enumerate(gated(n_atoms, self.ungated))]

    def resolved_alpha(self, log_strength: float) -> float:
        return float(self.alpha * np.exp(log_strength)) if self.learnable else self.alpha

    def log_weights(self, n_atoms: int, log_strength: float) -> Array:
        """ln pi_k (K,), 0 for ungated atoms."""
        alpha = self.resolved_alpha(log_strength)
        return -np.arange(1, n_atoms + 1) * np.log1p(1 / alpha) * gated(n_atoms, self.ungated)

    def log_slopes(self, n_atoms: int, log_strength: float) -> Array:
        """d ln pi_k / d ln alpha = (k + 1) / (alpha + 1)."""
        if not self.learnable:
            return np.zeros(n_atoms)
        alpha = self.resolved_alpha(log_strength)
        return np.arange(1, n_atoms + 1) / (alpha + 1) * gated(n_atoms, self.ungated)

    def jets(self, logits: Array, support: Mask, log_strength: float) -> tuple[Array, Array, Array]:
        moves = support & gated(len(logits), self.ungated)
        z, z1, z2, _ = logistic_derivatives(logits, self.temperature)
        z[list(self.ungated)] = 1.0
        pi = np.exp(self.log_weights(len(logits), log_strength))
        return independent_jets(z * pi * support, z1 * pi * moves, z2 * pi * moves)

    def spec(self, n_atoms: int) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "alpha": self.alpha,
            "learnable": self.learnable,
            "energy": self.energy_kind,
            "temperature": self.temperature,
            "logit_precision": self.logit_precision,
            "ungated": list(self.ungated),
        }

    def columns(self, logits: Array, support: Mask, log_strength: float) -> Iterator[Column]:
        """The columns of gated atoms."""
        n, n_atoms = logits.shape
        energies, alpha = ENERGIES[self.energy_kind], self.resolved_alpha(log_strength)
        for k in np.flatnonzero(gated(n_atoms, self.ungated)):
            rows = np.flatnonzero(support[:, k])
            z, z1, z2, z3 = logistic_derivatives(logits[rows, k], self.temperature)
            f, f_alpha = energies.column(float(z.sum()), n, int(k), n_atoms, alpha)
            weight = 1.0 if self.learnable else np.exp(log_strength)
            moved = f_alpha if self.learnable else weight * f[:3]
            yield Column(rows * n_atoms + k, z1, z2, z3, weight * f, moved)

    def energy(self, logits: Array, support: Mask, log_strength: float) -> float:
        return float(sum(column.f[0] for column in self.columns(logits, support, log_strength)))

    def energy_strength(self, logits: Array, support: Mask, log_strength: float) -> float:
        return float(sum(column.f_strength[0] for column in self.columns(logits, support, log_strength)))

    def gradient(self, logits: Array, support: Mask, log_strength: float) -> Array:
        out = np.zeros(logits.size)
        for column in self.columns(logits, support, log_strength):
            out[column.index] = column.f[1] * column.z1
        return out

    def gradient_strength(self, logits: Array, support: Mask, log_strength: float) -> Array:
        out = np.zeros(logits.size)
        for column in self.columns(logits, support, log_strength):
            out[column.index] = column.f_strength[1] * column.z1
        return out

    def hessian(self, logits: Array, support: Mask, log_strength: float) -> Array:
        out = self.coupling(logits, support, log_strength)
        for column in self.columns(logits, support, log_strength):
            out[column.index, column.index] += column.f[1] * column.z2
        return out

    def majoriser(self, logits: Array, support: Mask, log_strength: float) -> Array:
        out = self.coupling(logits, support, log_strength)
        for column in self.columns(logits, support, log_strength):
            out[column.index, column.index] += np.maximum(column.f[1] * column.z2, 0)
        return out

    def majoriser_strength(self, logits: Array, support: Mask, log_strength: float) -> Array:
        out = self.coupling_strength(logits, support, log_strength)
        for column in self.columns(logits, support, log_strength):
            kept = column.f[1] * column.z2 > 0
            out[column.index, column.index] += kept * column.f_strength[1] * column.z2
        return out

    def majoriser_theta(self, logits: Array, support: Mask, log_strength: float) -> Array:
        out = self.coupling_theta(logits, support, log_strength)
        for column in self.columns(logits, support, log_strength):
            kept = column.f[1] * column.z2 > 0
            for j, w in enumerate(column.index):
                # Logit w moves the mass by z'_w, and its own z''.
                slope = column.f[2] * column.z1[j] * column.z2
                slope[j] += column.f[1] * column.z3[j]
                out[column.index, column.index, w] += kept * slope
        return out

    def coupling(self, logits: Array, support: Mask, log_strength: float) -> Array:
        """W f'' z' z'^T of every column."""
        out = np.zeros((logits.size,) * 2)
        for column in self.columns(logits, support, log_strength):
            out[np.ix_(column.index, column.index)] = column.f[2] * np.outer(column.z1, column.z1)
        return out

    def coupling_strength(self, logits: Array, support: Mask, log_strength: float) -> Array:
        out = np.zeros((logits.size,) * 2)
        for column in self.columns(logits, support, log_strength):
            out[np.ix_(column.index, column.index)] = column.f_strength[2] * np.outer(column.z1, column.z1)
        return out

    def coupling_theta(self, logits: Array, support: Mask, log_strength: float) -> Array:
        out = np.zeros((logits.size,) * 3)
        for column in self.columns(logits, support, log_strength):
            for j, w in enumerate(column.index):
                bend = np.zeros(len(column.index))
                bend[j] = column.z2[j]
                half = column.f[2] * np.outer(bend, column.z1)
                slope = column.f[3] * column.z1[j] * np.outer(column.z1, column.z1) + half + half.T
                out[np.ix_(column.index, column.index, [w])] = slope[:, :, None]
        return out
