"""Near-null directions of row blocks in the classic mode (chapter 2.6).

The block A_i of a row's own variables, without the coupling of rows, is taken apart into eigenvalues. Those below
``FLOOR`` times the largest and below 1, or not positive, become 1 and count ln 1 = 0; the border and the coupling stay
as they are. (One above 1 stays: lowered, it could leave H indefinite.)
With A = V diag(l) V' the change of the replaced matrix is (Daleckii and Krein)

    d A~ = V (F o V' dA V) V',   F_ij = (l~_i - l~_j) / (l_i - l_j), 1 among kept and 0 among replaced eigenvalues.

Both are written as what is added to A and to dA, so that where nothing is replaced nothing is rounded: V diag(l) V' has
the rounding of the largest eigenvalue in every entry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .curvature import coupling, curvature
from .problem import Problem, Rho, State, variables_of

Array = NDArray[np.float64]

FLOOR = 1e-8


@dataclass(frozen=True)
class Spectrum:
    """One row block: where it sits, its eigenvectors, the replaced block, F - 1, and whether it differs from A."""

    index: NDArray[np.int_]
    vectors: Array
    block: Array
    divided: Array
    replaced: bool

    @classmethod
    def of(cls, index: NDArray[np.int_], block: Array) -> Spectrum:
        values, vectors = np.linalg.eigh(block)
        kept = (values > 0) & (values >= min(FLOOR * np.abs(values).max(initial=0.0), 1.0))
        raised = np.where(kept, values, 1.0)
        both = kept[:, None] & kept[None, :]
        gap = values[:, None] - values[None, :]
        mixed = kept[:, None] != kept[None, :]
        divided = np.where(both, 0.0, -1.0)
        divided[mixed] += (raised[:, None] - raised[None, :])[mixed] / gap[mixed]
        return cls(index, vectors, block + (vectors * (raised - values)) @ vectors.T, divided, not kept.all())

    def change(self, change: Array) -> Array:
        """d A~ for a change dA of the block."""
        turned = self.vectors.T @ change @ self.vectors
        return change + self.vectors @ (self.divided * turned) @ self.vectors.T


class Conditioned:
    """H with the near-null directions of its row blocks replaced, and the derivative of that map."""

    def __init__(self, problem: Problem, state: State, rho: Rho) -> None:
        variables, ties = variables_of(problem, state), coupling(problem, state, rho)
        self.matrix = curvature(problem, state, rho)
        self.spectra = []
        for i in range(problem.n_rows):
            index = variables.own(i)
            if len(index) == 0:
                continue
            at = np.ix_(index, index)
            spectrum = Spectrum.of(index, self.matrix[at] - ties[at])
            self.matrix[at] = spectrum.block + ties[at]
            self.spectra.append(spectrum)

    def change(self, d_matrix: Array, d_ties: Array) -> Array:
        """Change of the replaced matrix for changes of H and of its coupling."""
        out = d_matrix.copy()
        for spectrum in self.spectra:
            at = np.ix_(spectrum.index, spectrum.index)
            out[at] = spectrum.change(d_matrix[at] - d_ties[at]) + d_ties[at]
        return out
