"""The softmax gate and the entropy prior on its logits, with majoriser and normaliser (chapter 1.4).

Two softmaxes occur. The prior acts on the softmax over all K logits. The data see the softmax over the row's support
only; off the support the gate is exactly 0. With a full support both are the same. The last logit is pinned at 0.
Notation in one row: a_k gates, L_k = ln a_k, m = sum_k a_k L_k (minus the entropy), tau the temperature. Since a_k =
exp(l_k / tau) / sum,

    da_k/dl_j = a_k (delta_kj - a_j) / tau      dL_k/dl_j = (delta_kj - a_j) / tau      dm/dl_j = a_j (L_j - m) / tau

where the last one uses sum_k a_k dL_k/dl_j = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import norm, qmc

from .base import Mask, RowGate

Array = NDArray[np.float64]

N_NODES = 4096
"""Nodes of the low-discrepancy set behind ln Z; part of the definition of V, because it changes V slightly."""


@dataclass(frozen=True)
class Softmax(RowGate):
    """Gates that sum to one. How many a row may use (``top_k`` of users) is a matter of its support alone."""

    temperature: float = 1.0
    logit_precision: float = 0.04
    kind = "softmax"

    def n_free(self, n_atoms: int) -> int:
        return n_atoms - 1

    def jets(self, logits: Array, support: Mask, log_strength: float) -> tuple[Array, Array, Array]:
        a = np.zeros(len(logits))
        a[support] = np.exp(log_softmax(logits[support] / self.temperature))
        delta = np.eye(len(logits)) - a  # delta[k, j] = delta_kj - a_j
        da = a[:, None] * delta / self.temperature
        # Product rule on a_k (delta_kj - a_j) / tau: a_k (delta_kw - a_w)(delta_kj - a_j) / tau^2 from the first
        # factor, -a_k a_j (delta_jw - a_w) / tau^2 from the second.
        curl = delta[:, None, :] * delta[:, :, None] - (a[:, None] * delta)[None, :, :]
        d2a = a[:, None, None] * curl / self.temperature**2
        return a, da[:, :-1], d2a[:, :-1, :-1]

    def log_normaliser(self, n_atoms: int, log_strength: float) -> tuple[float, float]:
        nodes = normaliser_nodes(n_atoms, self.logit_precision)
        return log_normaliser(float(np.exp(log_strength)), nodes, self.temperature)

    def spec(self, n_atoms: int) -> dict[str, Any]:
        nodes = normaliser_nodes(n_atoms, self.logit_precision)[:, :-1]
        return {
            "kind": self.kind,
            "temperature": self.temperature,
            "logit_precision": self.logit_precision,
            "node_logits": np.ascontiguousarray(nodes),
        }

    def row_energy(self, logits: Array) -> float:
        return float(entropy(logits, self.temperature))

    def row_gradient(self, logits: Array) -> Array:
        return entropy_gradient(logits, self.temperature)[:-1]

    def row_hessian(self, logits: Array) -> Array:
        return entropy_hessian(logits, self.temperature)[:-1, :-1]

    def row_majoriser(self, logits: Array) -> Array:
        """diag of D_kk = sum_j |H_kj| over all K columns, for the K - 1 free logits.

        D - H is diagonally dominant with a nonnegative diagonal, so D dominates H (Gershgorin); dropping the last row
        and column of both keeps that.
        """
        return np.diag(np.abs(entropy_hessian(logits, self.temperature)).sum(axis=1)[:-1])

    def row_majoriser_theta(self, logits: Array) -> Array:
        """dD_kk / dl_w = sum_j sign(H_kj) dH_kj / dl_w."""
        sign = np.sign(entropy_hessian(logits, self.temperature))
        slope = np.einsum("kj,kjw->kw", sign, entropy_third(logits, self.temperature))[:-1, :-1]
        return np.eye(len(slope))[:, :, None] * slope[:, None, :]


def log_softmax(logits: Array) -> Array:
    """ln softmax over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def entropy(logits: Array, temperature: float) -> Array:
    """Entropy -sum a ln a = -m of the softmax over the last axis; (..., K) logits give (...) entropies."""
    log_a = log_softmax(logits / temperature)
    return -(np.exp(log_a) * log_a).sum(axis=-1)


def entropy_gradient(logits: Array, temperature: float) -> Array:
    """d entropy / d l_k = a_k (m - L_k) / tau, over all K logits."""
    log_a = log_softmax(logits / temperature)
    a = np.exp(log_a)
    return a * ((a * log_a).sum() - log_a) / temperature


def entropy_hessian(logits: Array, temperature: float) -> Array:
    """a_k [delta_kj (m - L_k - 1) + a_j (L_k + L_j + 1 - 2m)] / tau^2, over all K logits.

    Differentiate a_k (m - L_k) / tau by l_j:
    a_k (delta_kj - a_j)(m - L_k) + a_k a_j (L_j - m) - a_k (delta_kj - a_j), all over tau^2; collect delta_kj.
    """
    log_a = log_softmax(logits / temperature)
    a = np.exp(log_a)
    m = (a * log_a).sum()
    off_diagonal = np.outer(a, a) * (log_a[:, None] + log_a[None, :] + 1 - 2 * m)
    return (np.diag(a * (m - log_a - 1)) + off_diagonal) / temperature**2


def entropy_third(logits: Array, temperature: float) -> Array:
    """d H_kj / d l_w as an array (K, K, K), by the product rule on ``entropy_hessian`` term by term."""
    n_atoms = len(logits)
    log_a = log_softmax(logits / temperature)
    a = np.exp(log_a)
    m = (a * log_a).sum()
    third = np.zeros((n_atoms, n_atoms, n_atoms))
    for w in range(n_atoms):
        d_log_a = (np.eye(n_atoms)[w] - a[w]) / temperature
        d_a = a * d_log_a
        d_m = a[w] * (log_a[w] - m) / temperature
        bracket = log_a[:, None] + log_a[None, :] + 1 - 2 * m
        d_bracket = d_log_a[:, None] + d_log_a[None, :] - 2 * d_m
        third[:, :, w] = (
            np.diag(d_a * (m - log_a - 1) + a * (d_m - d_log_a))
            + (np.outer(d_a, a) + np.outer(a, d_a)) * bracket
            + np.outer(a, a) * d_bracket
        )
    return third / temperature**2


@cache
def normaliser_nodes(n_atoms: int, logit_precision: float) -> Array:
    """Low-discrepancy draws (nodes, K) of the Gaussian logit prior; the last logit is pinned at 0."""
    if n_atoms == 1:
        return np.zeros((N_NODES, 1))
    uniform = np.clip(qmc.Sobol(n_atoms - 1, seed=0).random(N_NODES), 1e-9, 1 - 1e-9)
    free = norm.ppf(uniform) / np.sqrt(logit_precision)
    return np.hstack([free, np.zeros((N_NODES, 1))])


def log_normaliser(lambda_sparse: float, nodes: Array, temperature: float) -> tuple[float, float]:
    """ln Z = ln mean exp(-lambda entropy(node)) and its derivative in ln lambda.

    d ln Z / d lambda is minus the mean entropy under the weights proportional to exp(-lambda entropy).
    """
    node_entropy = entropy(nodes, temperature)
    exponent = -lambda_sparse * node_entropy
    log_sum = logsumexp(exponent)
    tilted_mean = (np.exp(exponent - log_sum) * node_entropy).sum()
    return float(log_sum - np.log(len(exponent))), float(-lambda_sparse * tilted_mean)
