"""What every gate provides: gate values of a row with derivatives, and the prior of all logits with derivatives.

The prior is a function of all rows together, since one gate couples them, and depends on ``log_strength``, ln
lambda_sparse. Its derivatives run over the free logits of all rows: N = n F of them, row by row, F a row. The Gaussian
1/2 epsilon l^2 on the free logits is not part of the gate.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Gate(ABC):
    """Gates of all atoms. The defaults are those of a gate without a prior."""

    kind: ClassVar[str]
    temperature: float = 1.0
    logit_precision: float = 0.04

    def n_free(self, n_atoms: int) -> int:
        """F, the number of free logits of a row: the first F of its K."""
        return n_atoms

    @abstractmethod
    def jets(self, logits: Array, support: Mask, log_strength: float) -> tuple[Array, Array, Array]:
        """Gates (K,) of one row and their first two derivatives (K, F), (K, F, F) in its free logits.

        Gates off the support are exactly 0.
        """

    def log_slopes(self, n_atoms: int, log_strength: float) -> Array:
        """d ln a_k / d log_strength (K,); it does not depend on the logits."""
        return np.zeros(n_atoms)

    def labels(self, n_atoms: int) -> list[int]:
        """A label for each atom: atoms of one label have the same prior, so that they can change places."""
        return [0] * n_atoms

    def held(self, logits: Array, support: Mask) -> Mask:
        """(n, K) logits that are no variables, because they stand at the end of their range and would go on."""
        return np.zeros_like(support)

    def closes(self, n_atoms: int) -> bool:
        """Whether some gate is zero wherever its logit is below a threshold."""
        return False

    @abstractmethod
    def spec(self, n_atoms: int) -> dict[str, Any]:
        """The description that the compiled module reads."""

    def log_normaliser(self, n_atoms: int, log_strength: float) -> tuple[float, float]:
        """ln of the mean of exp(-energy) over the Gaussian of one row's logits, and its derivative in log_strength."""
        return 0.0, 0.0

    # The prior's energy and its derivatives; logits and support are (n, K).

    def energy(self, logits: Array, support: Mask, log_strength: float) -> float:
        return 0.0

    def gradient(self, logits: Array, support: Mask, log_strength: float) -> Array:
        """(N,)."""
        return np.zeros(self._size(logits))

    def hessian(self, logits: Array, support: Mask, log_strength: float) -> Array:
        """(N, N), exact."""
        return np.zeros((self._size(logits),) * 2)

    def majoriser(self, logits: Array, support: Mask, log_strength: float) -> Array:
        """(N, N): the prior's part of the curvature H."""
        return np.zeros((self._size(logits),) * 2)

    def majoriser_theta(self, logits: Array, support: Mask, log_strength: float) -> Array:
        """(N, N, N): derivative of ``majoriser`` in the logit of the last index."""
        return np.zeros((self._size(logits),) * 3)

    def coupling(self, logits: Array, support: Mask, log_strength: float) -> Array:
        """(N, N): the part of ``majoriser`` that ties rows together, with its entries inside rows."""
        return np.zeros((self._size(logits),) * 2)

    def coupling_theta(self, logits: Array, support: Mask, log_strength: float) -> Array:
        return np.zeros((self._size(logits),) * 3)

    # Derivatives in log_strength at fixed logits.

    def energy_strength(self, logits: Array, support: Mask, log_strength: float) -> float:
        return 0.0

    def gradient_strength(self, logits: Array, support: Mask, log_strength: float) -> Array:
        return np.zeros(self._size(logits))

    def majoriser_strength(self, logits: Array, support: Mask, log_strength: float) -> Array:
        return np.zeros((self._size(logits),) * 2)

    def coupling_strength(self, logits: Array, support: Mask, log_strength: float) -> Array:
        return np.zeros((self._size(logits),) * 2)

    def _size(self, logits: Array) -> int:
        return logits.shape[0] * self.n_free(logits.shape[1])


class RowGate(Gate):
    """A gate whose prior is lambda times a sum over rows: a kind writes the terms of one row for lambda = 1."""

    @abstractmethod
    def row_energy(self, logits: Array) -> float: ...

    @abstractmethod
    def row_gradient(self, logits: Array) -> Array:
        """(F,)."""

    @abstractmethod
    def row_hessian(self, logits: Array) -> Array:
        """(F, F)."""

    @abstractmethod
    def row_majoriser(self, logits: Array) -> Array:
        """(F, F)."""

    @abstractmethod
    def row_majoriser_theta(self, logits: Array) -> Array:
        """(F, F, F)."""

    def energy(self, logits: Array, support: Mask, log_strength: float) -> float:
        return float(np.exp(log_strength) * sum(self.row_energy(row) for row in logits))

    def gradient(self, logits: Array, support: Mask, log_strength: float) -> Array:
        return np.exp(log_strength) * np.concatenate([self.row_gradient(row) for row in logits])

    def hessian(self, logits: Array, support: Mask, log_strength: float) -> Array:
        return np.exp(log_strength) * block_diagonal([self.row_hessian(row) for row in logits])

    def majoriser(self, logits: Array, support: Mask, log_strength: float) -> Array:
        return np.exp(log_strength) * block_diagonal([self.row_majoriser(row) for row in logits])

    def majoriser_theta(self, logits: Array, support: Mask, log_strength: float) -> Array:
        return np.exp(log_strength) * block_diagonal([self.row_majoriser_theta(row) for row in logits])

    # The prior is proportional to lambda, so its derivative in ln lambda is itself.

    def energy_strength(self, logits: Array, support: Mask, log_strength: float) -> float:
        return self.energy(logits, support, log_strength)

    def gradient_strength(self, logits: Array, support: Mask, log_strength: float) -> Array:
        return self.gradient(logits, support, log_strength)

    def majoriser_strength(self, logits: Array, support: Mask, log_strength: float) -> Array:
        return self.majoriser(logits, support, log_strength)


def block_diagonal(blocks: list[Array]) -> Array:
    """Equal cubes (F, ..., F) along the diagonal of a cube (n F, ..., n F)."""
    side, order = blocks[0].shape[0], blocks[0].ndim
    out = np.zeros((len(blocks) * side,) * order)
    for i, block in enumerate(blocks):
        out[(slice(i * side, (i + 1) * side),) * order] = block
    return out


def logistic_derivatives(x: Array, temperature: float) -> tuple[Array, Array, Array, Array]:
    """sigma(x / tau) and its first three derivatives in x."""
    z = expit(x / temperature)
    c = z * (1 - z)
    return z, c / temperature, c * (1 - 2 * z) / temperature**2, c * (1 - 6 * z + 6 * z * z) / temperature**3


def independent_jets(values: Array, first: Array, second: Array) -> tuple[Array, Array, Array]:
    """Gate jets when each gate depends on its own logit alone."""
    each = np.arange(len(values))
    d2a = np.zeros((len(values),) * 3)
    d2a[each, each, each] = second
    return values, np.diag(first), d2a


def gated(n_atoms: int, ungated: tuple[int, ...]) -> Mask:
    """(K,) atoms that have a gate; the gate of an ungated atom is 1 and its logit acts on nothing."""
    mask = np.ones(n_atoms, bool)
    mask[list(ungated)] = False
    return mask
