"""The softmax gate."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from scipy.special import entr, ndtri, softmax
from scipy.stats import qmc

from .base import FloatArray, positive
from .schedules import Schedule, check_temperature
from .tempered import TemperedGate

# Nodes of the quasi-Monte-Carlo mean that normalises the gate prior. A power of two keeps the Sobol points balanced;
# more nodes cost time in every evaluation of the evidence and change it by less than its Laplace error.
N_NODES = 4096
# With at least this many nodes in effect the normaliser of two atoms is right to about 1e-3 a row up to a temperature
# of 3; strengths looked at for that.
EFFECTIVE_NODES = 300
CEILINGS = tuple(0.25 * j for j in range(-24, 49))
# The nodes are a definition of the evidence, not a random draw: the same for every fit, so evidences can be compared.
NODE_SEED = 0
# Nodes at 0 or 1 would map to infinite logits.
NODE_MARGIN = 1e-9


@dataclass(frozen=True)
class Softmax(TemperedGate):
    """Gates of a row are the softmax of its logits; the last logit is pinned at 0. They sum to one.

    Parameters
    ----------
    temperature : float or Schedule, default 1.0
        Divides the logits; a schedule anneals it between searches, down to its least.
    logit_precision : float, default 0.04
        Precision ε of the proper Gaussian prior of each free logit, which makes the evidence finite.
    top_k : int or None, default None
        The largest number of atoms that a row may use.

    Raises
    ------
    ValueError
        When a temperature or precision is not a positive finite number, or `top_k` not an integer of at least 1.
    """

    temperature: float | Schedule = 1.0
    logit_precision: float = 0.04
    top_k: int | None = None
    kind: ClassVar[str] = "softmax"

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperature", check_temperature("Softmax", self.temperature))
        object.__setattr__(self, "logit_precision", positive("Softmax", "logit_precision", self.logit_precision))
        value: object = self.top_k
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
                raise ValueError(f"Softmax: top_k must be None or an integer of at least 1, got {value!r}")
            object.__setattr__(self, "top_k", int(value))

    def free_logits(self, n_atoms: int) -> int:
        """All but the pinned one."""
        return max(n_atoms - 1, 0)

    def most_active(self, n_atoms: int) -> int:
        """At most `top_k`."""
        return n_atoms if self.top_k is None else min(n_atoms, self.top_k)

    @property
    def exclusive(self) -> bool:
        """They sum to one."""
        return True

    def sized(self, n_atoms: int) -> Softmax:
        """At most all atoms of a row."""
        return self if self.top_k is None else dataclasses.replace(self, top_k=min(self.top_k, max(n_atoms, 1)))

    @property
    def sparsity_starts(self) -> tuple[float, ...]:
        """V has local optima in this strength: the search starts from the best of these."""
        return (4.0, 2.0, 0.0, -3.0)

    def sparsity_ceiling(self, n_atoms: int) -> float:
        """Where the nodes that carry the normaliser become too few: sooner in warm gates, which are seldom sharp."""
        nodes = _prior_nodes(max(n_atoms - 1, 0), self.logit_precision)
        gates = softmax(np.column_stack([nodes, np.zeros(len(nodes))]) / self.least_temperature, axis=1)
        entropies = entr(gates).sum(axis=1)

        def effective(log_sparse: float) -> float:
            weights = np.exp(-np.exp(log_sparse) * (entropies - entropies.min()))
            return float(weights.sum() ** 2 / np.square(weights).sum())

        return max((s for s in CEILINGS if effective(s) >= EFFECTIVE_NODES), default=CEILINGS[0])

    def spec(self, n_atoms: int) -> dict[str, Any]:
        """Description for the compiled module; ``node_logits`` is (4096, n_atoms − 1), float64, read-only."""
        if self.top_k is not None and self.top_k > max(n_atoms, 1):
            raise ValueError(f"Softmax: top_k must be at most the number of atoms, {n_atoms}, got {self.top_k}")
        return {**self._numbers(), "node_logits": _prior_nodes(max(n_atoms - 1, 0), self.logit_precision)}


@functools.lru_cache(maxsize=8)
def _prior_nodes(n_free: int, precision: float) -> FloatArray:
    """Logits (N_NODES, n_free) spread like the prior N(0, 1/precision): the nodes of the gate prior's normaliser."""
    if n_free == 0:
        nodes = np.zeros((N_NODES, 0))
    else:
        uniform = qmc.Sobol(n_free, seed=NODE_SEED).random(N_NODES)
        nodes = ndtri(np.clip(uniform, NODE_MARGIN, 1.0 - NODE_MARGIN)) / np.sqrt(precision)
    nodes = np.ascontiguousarray(nodes, dtype=np.float64)
    nodes.flags.writeable = False
    return nodes
