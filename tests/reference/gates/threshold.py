"""The threshold gate: sigma((l - theta) / tau) while open, exactly 0 while closed, each atom by itself (chapter 1.4).

Which gates are open is the support, held while the logits move, so the gate is a smooth function on it. The prior
charges lambda sigma((l - theta) / tau) for every gated logit, open or closed, in the band (l - theta) / tau > -36.

An open gate is at least 1/2. A logit that stands exactly at that wall is held there and is no variable. Without the
wall a scale could pass from the gates of an atom to its decoder, at the prior's gain, until every gate is closed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import expit

from .base import Mask, RowGate, gated, independent_jets, logistic_derivatives

Array = NDArray[np.float64]

BAND = -36.0
"""Below this many temperatures under the threshold a logit is free of charge; sigma(-36) = 2e-16."""

N_NODES = 64
"""Gauss-Hermite nodes behind ln Z."""


@cache
def normal_nodes() -> tuple[Array, Array]:
    """Gauss-Hermite nodes of the standard normal and their weights, which sum to one."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(N_NODES)
    return nodes, weights / weights.sum()


@dataclass(frozen=True)
class Threshold(RowGate):
    """Gates that open above a threshold; atoms listed in ``ungated`` are always fully open."""

    threshold: float = 0.0
    temperature: float = 1.0
    logit_precision: float = 0.04
    ungated: tuple[int, ...] = ()
    kind = "threshold"

    @property
    def wall(self) -> float:
        """The least logit of an open gate: the next number above the threshold."""
        return float(np.nextafter(self.threshold, np.inf))

    def held(self, logits: Array, support: Mask) -> Mask:
        """An open gate is at least 1/2: a logit exactly at the wall wants to go on and is no variable."""
        return support & (logits == self.wall) & gated(support.shape[-1], self.ungated)

    def labels(self, n_atoms: int) -> list[int]:
        return gated(n_atoms, self.ungated).astype(int).tolist()

    def jets(self, logits: Array, support: Mask, log_strength: float) -> tuple[Array, Array, Array]:
        a, first, second, _ = logistic_derivatives(logits - self.threshold, self.temperature)
        moves = support & gated(len(logits), self.ungated) & ~self.held(logits, support)
        a[list(self.ungated)] = 1.0
        return independent_jets(a * support, first * moves, second * moves)

    def log_normaliser(self, n_atoms: int, log_strength: float) -> tuple[float, float]:
        """(number of gated atoms) x ln E exp(-lambda sigma((l - theta) / tau)), l ~ N(0, 1 / epsilon)."""
        nodes, weights = normal_nodes()
        shifted = nodes / np.sqrt(self.logit_precision) - self.threshold
        charge = np.exp(log_strength) * logistic_derivatives(shifted, self.temperature)[0]
        mass = weights * np.exp(-charge)
        count = int(gated(n_atoms, self.ungated).sum())
        return float(count * np.log(mass.sum())), float(-count * (mass @ charge) / mass.sum())

    def closes(self, n_atoms: int) -> bool:
        return bool(self.has_gate(n_atoms).any())

    def has_gate(self, n_atoms: int) -> Mask:
        """(K,) atoms that have a gate."""
        return gated(n_atoms, self.ungated)

    def log_closed(self, log_strength: float) -> tuple[float, float]:
        """ln of the integral of N(l; 0, 1 / epsilon) exp(-lambda E(l)) up to the threshold, and its slope."""
        strength, eps = np.exp(log_strength), self.logit_precision

        def density(logit: float) -> float:
            return float(np.exp(-0.5 * eps * logit**2 - strength * energy(logit)) * np.sqrt(eps / (2 * np.pi)))

        def energy(logit: float) -> float:
            x = (logit - self.threshold) / self.temperature
            return float(expit(x)) if x > BAND else 0.0

        # from where the Gaussian is nothing, in pieces that the integrand is smooth on
        end = min(self.threshold, 0.0) - 12 / np.sqrt(eps) - self.temperature * np.log1p(strength)
        cuts = np.linspace(end, self.threshold, 100)
        pieces = list(pairwise(cuts))
        mass = sum(quad(density, low, high, epsabs=0.0, epsrel=1e-12)[0] for low, high in pieces)
        charged = sum(
            quad(lambda logit: energy(logit) * density(logit), low, high, epsabs=0.0, epsrel=1e-12)[0]
            for low, high in pieces
        )
        return float(np.log(mass)), float(-strength * charged / mass)

    def spec(self, n_atoms: int) -> dict[str, Any]:
        nodes, weights = normal_nodes()
        return {
            "kind": self.kind,
            "node_logits": nodes / np.sqrt(self.logit_precision),
            "node_weights": weights,
            "threshold": self.threshold,
            "temperature": self.temperature,
            "logit_precision": self.logit_precision,
            "ungated": list(self.ungated),
        }

    def charges(self, logits: Array) -> tuple[Array, Array, Array, Array]:
        """Energy of each logit and its three derivatives; a held one pays but does not move."""
        paid = (logits - self.threshold > BAND * self.temperature) & gated(len(logits), self.ungated)
        moves = paid & (logits != self.wall)
        value, first, second, third = logistic_derivatives(logits - self.threshold, self.temperature)
        return value * paid, first * moves, second * moves, third * moves

    def row_energy(self, logits: Array) -> float:
        return float(self.charges(logits)[0].sum())

    def row_gradient(self, logits: Array) -> Array:
        return self.charges(logits)[1]

    def row_hessian(self, logits: Array) -> Array:
        return np.diag(self.charges(logits)[2])

    def row_majoriser(self, logits: Array) -> Array:
        return np.diag(np.maximum(self.charges(logits)[2], 0))

    def row_majoriser_theta(self, logits: Array) -> Array:
        _, _, second, third = self.charges(logits)
        return independent_jets(second, second, np.where(second > 0, third, 0.0))[2]
