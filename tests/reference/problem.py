"""What is fixed (``Problem``), what moves (``State``), the strengths (``Rho``), the order of the inner variables."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .gate import normaliser_nodes

Array = NDArray[np.float64]

COMPACT_STIFFNESS = 1e-8
"""delta: curvature added on every angle, so that H stays invertible when a coordinate is not identified."""


@dataclass(frozen=True)
class Problem:
    """Data and options that stay fixed while the inner variables move.

    Parameters
    ----------
    data : (n, p) array
        Centred data Z.
    harmonics : tuple of int
        Number of harmonics of each of the K circle atoms.
    temperature : float
        tau of the softmax gate.
    logit_precision : float
        epsilon, the precision of the Gaussian prior on the free logits.
    weights : (n,) array or None
        Row weights; rescaled to mean one.
    """

    data: Array
    harmonics: tuple[int, ...]
    temperature: float = 1.0
    logit_precision: float = 0.04
    weights: Array | None = None
    node_logits: Array = field(init=False, repr=False)
    row_weights: Array = field(init=False, repr=False)
    data_variance: float = field(init=False)

    def __post_init__(self) -> None:
        n = self.data.shape[0]
        weights = np.ones(n) if self.weights is None else np.asarray(self.weights, float)
        object.__setattr__(self, "row_weights", weights / weights.mean())
        object.__setattr__(self, "node_logits", normaliser_nodes(len(self.harmonics), self.logit_precision))
        # s^2 of chapter 1.2: the scale of the weak prior on the null space of the roughness; row weights do not enter.
        object.__setattr__(self, "data_variance", float(np.var(self.data, axis=0).mean()))

    @property
    def n_rows(self) -> int:
        return self.data.shape[0]

    @property
    def n_outputs(self) -> int:
        return self.data.shape[1]

    @property
    def n_atoms(self) -> int:
        return len(self.harmonics)

    @property
    def widths(self) -> tuple[int, ...]:
        """M_k = 2 H_k + 1, the number of decoder rows of each atom."""
        return tuple(2 * h + 1 for h in self.harmonics)

    @property
    def offsets(self) -> tuple[int, ...]:
        """off_k, the first row of atom k in the stacked decoder (M, p)."""
        return tuple(int(v) for v in np.cumsum((0, *self.widths[:-1])))


@dataclass(frozen=True)
class State:
    """Logits (n, K) with the last column 0, angles (n, K), decoders [(M_k, p)], support mask (n, K)."""

    logits: Array
    coords: Array
    decoders: tuple[Array, ...]
    support: NDArray[np.bool_]


@dataclass(frozen=True)
class Rho:
    """Log strengths. ``log_ard[k]`` is empty (uniform angle) or holds one log precision."""

    log_lambda_sparse: float
    log_lambda_smooth: Array
    log_ard: tuple[Array, ...]
    log_dispersion: float

    def lambda_sparse(self) -> float:
        return float(np.exp(self.log_lambda_sparse))

    def lambda_smooth(self, k: int) -> float:
        return float(np.exp(self.log_lambda_smooth[k]))

    def dispersion(self) -> float:
        return float(np.exp(self.log_dispersion))

    def ard(self, k: int) -> float | None:
        """Precision of the angle prior of atom k, None when the angle is uniform."""
        return float(np.exp(self.log_ard[k][0])) if len(self.log_ard[k]) else None

    def to_flat(self) -> Array:
        """[ln lambda_sparse | ln lambda_1 .. ln lambda_K | ARD log precisions | ln phi]."""
        return np.concatenate(
            [[self.log_lambda_sparse], self.log_lambda_smooth, *self.log_ard, [self.log_dispersion]]
        ).astype(float)

    def from_flat(self, flat: Array) -> Rho:
        """A vector of the same layout as ``self.to_flat()``."""
        n_atoms, at, log_ard = len(self.log_lambda_smooth), 1 + len(self.log_lambda_smooth), []
        for block in self.log_ard:
            log_ard.append(np.array(flat[at : at + len(block)], float))
            at += len(block)
        return Rho(float(flat[0]), np.array(flat[1 : 1 + n_atoms], float), tuple(log_ard), float(flat[at]))

    def ard_position(self, k: int) -> int:
        """Index of atom k's ARD value in the flat vector; only meaningful when it has one."""
        return 1 + len(self.log_lambda_smooth) + sum(len(block) for block in self.log_ard[:k])


class Variables:
    """Where each inner variable sits in theta.

    Row by row: the K - 1 free logits, then the angles of the atoms in the row's support. Then the border: entry
    (off_k + m) p + c is decoder row m of atom k, channel c.

    Attributes
    ----------
    logit : (n, K - 1) int array
    coord : (n, K) int array, -1 off the support
    border : list of K int arrays (M_k, p)
    size : int
        D, the number of inner variables.
    """

    def __init__(self, problem: Problem, support: NDArray[np.bool_]) -> None:
        n, n_atoms, p = problem.n_rows, problem.n_atoms, problem.n_outputs
        self.logit = np.full((n, n_atoms - 1), -1)
        self.coord = np.full((n, n_atoms), -1)
        at = 0
        for i in range(n):
            for j in range(n_atoms - 1):
                self.logit[i, j] = at
                at += 1
            for k in np.flatnonzero(support[i]):
                self.coord[i, k] = at
                at += 1
        self.border_start = at
        self.border = []
        for width in problem.widths:
            self.border.append(at + np.arange(width * p).reshape(width, p))
            at += width * p
        self.size = at

    def row(self, i: int) -> NDArray[np.int_]:
        """Indices of every variable row i depends on: its own, then the whole border."""
        own = np.concatenate([self.logit[i], self.coord[i][self.coord[i] >= 0]])
        return np.concatenate([own, np.arange(self.border_start, self.size)])

    def coords(self) -> NDArray[np.int_]:
        """Indices of all supported angles."""
        return self.coord[self.coord >= 0]

    def pack(self, state: State) -> Array:
        """theta of a state; unsupported angles are not part of it."""
        theta = np.empty(self.size)
        theta[self.logit] = state.logits[:, :-1]
        theta[self.coord[state.support]] = state.coords[state.support]
        for index, decoder in zip(self.border, state.decoders, strict=True):
            theta[index] = decoder
        return theta

    def unpack(self, theta: Array, like: State) -> State:
        """The state at theta; unsupported angles and the support are taken from ``like``."""
        logits, coords = np.zeros_like(like.logits), like.coords.copy()
        logits[:, :-1] = theta[self.logit]
        coords[like.support] = theta[self.coord[like.support]]
        return State(logits, coords, tuple(theta[index] for index in self.border), like.support)
