"""The threshold gate."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from .base import FloatArray, Gate, atom_indices, positive
from .schedules import Schedule, check_temperature
from .tempered import TemperedGate

# Nodes of the Gauss-Hermite rule that normalises the prior of one logit: its integrand is smooth, and this many are
# exact
# to about 1e-8 over the strengths that a search visits.
N_NODES = 64


@dataclass(frozen=True)
class ThresholdGate(TemperedGate):
    """Independent gates that are exactly zero up to a threshold and a logistic function above (JumpReLU).

    ``a = σ((ℓ − ϑ)/τ)`` where ℓ > ϑ, else 0: open gates lie between 1/2 and 1. A row may use several atoms or none.

    Parameters
    ----------
    threshold : float, default 0.0
        ϑ.
    temperature : float or Schedule, default 1.0
        τ; a schedule anneals it between searches, down to its least.
    logit_precision : float, default 0.04
        Precision ε of the Gaussian prior of each logit.
    ungated : tuple of int, default ()
        Atoms whose gate is 1 on every row.

    Raises
    ------
    ValueError
        When a temperature or precision is not positive and finite, or the threshold not finite.
    """

    threshold: float = 0.0
    temperature: float | Schedule = 1.0
    logit_precision: float = 0.04
    ungated: tuple[int, ...] = ()
    kind: ClassVar[str] = "threshold"

    def __post_init__(self) -> None:
        value: object = self.threshold
        if isinstance(value, bool) or not isinstance(value, Real) or not np.isfinite(float(value)):
            raise ValueError(f"ThresholdGate: threshold must be a finite number, got {value!r}")
        object.__setattr__(self, "threshold", float(value))
        object.__setattr__(self, "temperature", check_temperature("ThresholdGate", self.temperature))
        object.__setattr__(self, "logit_precision", positive("ThresholdGate", "logit_precision", self.logit_precision))
        object.__setattr__(self, "ungated", atom_indices("ThresholdGate", "ungated", self.ungated))

    def closes(self, n_atoms: int) -> bool:
        """Unless all atoms are without a gate."""
        return len(self.ungated) < n_atoms

    @property
    def sparsity_starts(self) -> tuple[float, ...]:
        """About the odds of an atom that few rows use, then weaker."""
        return (0.0, -2.0)

    def carried(self, logits: FloatArray, before: Gate) -> FloatArray:
        """Logits with the gates that `logits` have at the temperature of `before`, open ones above the threshold."""
        moved = self.threshold + super().carried(logits - self.threshold, before)
        # a logit at its wall lies just above, and rounding must not close its gate
        return np.where(logits > self.threshold, np.maximum(moved, np.nextafter(self.threshold, np.inf)), moved)

    def spec(self, n_atoms: int) -> dict[str, Any]:
        """Description for the compiled module; nodes and weights of the normaliser are (64,), float64, read-only."""
        logits, weights = _hermite(self.logit_precision)
        return {**self._numbers(), "node_logits": logits, "node_weights": weights}


@functools.lru_cache(maxsize=8)
def _hermite(precision: float) -> tuple[FloatArray, FloatArray]:
    """Logits and weights (N_NODES,) of the Gauss-Hermite rule for N(0, 1/precision)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(N_NODES)
    logits, weights = nodes / np.sqrt(precision), weights / weights.sum()
    for array in (logits, weights):
        array.flags.writeable = False
    return logits, weights
