"""What is fixed (``Problem``), what moves (``State``), the strengths (``Rho``), the order of the inner variables.

None of them is ever changed, so what follows from them may be remembered by their identity.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .atoms import Atom
from .gates import Gate, Softmax

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Problem:
    """Data and options that stay fixed while the inner variables move.

    Parameters
    ----------
    data : (n, p) array
        Centred data Z.
    atoms : tuple of Atom
        The K atoms.
    gate : Gate
        The gate of all atoms.
    weights : (n,) array or None
        Row weights; rescaled to mean one.
    evidence : "laplace" or "quasi_laplace"
        Which criterion: chapter 1.3 or its classic mode.
    """

    data: Array
    atoms: tuple[Atom, ...]
    gate: Gate = field(default_factory=Softmax)
    weights: Array | None = None
    evidence: Literal["laplace", "quasi_laplace"] = "laplace"
    row_weights: Array = field(init=False, repr=False)
    data_variance: float = field(init=False)
    roughness: tuple[Array, ...] = field(init=False, repr=False)
    null_projectors: tuple[Array, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        n = self.data.shape[0]
        weights = np.ones(n) if self.weights is None else np.asarray(self.weights, float)
        object.__setattr__(self, "row_weights", weights / weights.mean())
        # s^2 of chapter 1.2: the scale of the weak prior on the null space of the roughness; row weights do not enter.
        object.__setattr__(self, "data_variance", float(np.var(self.data, axis=0).mean()))
        object.__setattr__(self, "roughness", tuple(atom.roughness() for atom in self.atoms))
        object.__setattr__(self, "null_projectors", tuple(atom.null_projector() for atom in self.atoms))

    @property
    def classic(self) -> bool:
        return self.evidence == "quasi_laplace"

    @property
    def n_rows(self) -> int:
        return self.data.shape[0]

    @property
    def n_outputs(self) -> int:
        return self.data.shape[1]

    @property
    def n_atoms(self) -> int:
        return len(self.atoms)

    @property
    def n_free(self) -> int:
        """Free logits of a row."""
        return self.gate.n_free(self.n_atoms)

    @property
    def compact(self) -> bool:
        """Whether rows have variables of their support only: closed gates count by their masses."""
        return not self.classic and self.gate.closes(self.n_atoms)

    def free_logits(self, support: Mask) -> Mask:
        """(n, F) free logits that are variables."""
        own = support[:, : self.n_free]
        return own if self.compact else np.ones_like(own)

    @property
    def logit_precision(self) -> float:
        """epsilon of the Gaussian on the free logits; the classic mode has none."""
        return 0.0 if self.classic else self.gate.logit_precision


@dataclass(frozen=True, eq=False)
class State:
    """Logits (n, K), coordinates [(n, ambient_k)], decoders [(M_k, p)], support mask (n, K).

    Only the free logits are variables: the last softmax logit is 0, and a frozen gate keeps its value in the logit.
    """

    logits: Array
    coords: tuple[Array, ...]
    decoders: tuple[Array, ...]
    support: Mask

    def rows_of(self, k: int) -> NDArray[np.int_]:
        """The rows that use atom k."""
        return np.flatnonzero(self.support[:, k])


@dataclass(frozen=True, eq=False)
class Rho:
    """Log strengths. ``log_ard[k]`` is empty (the default prior) or holds a log precision for each coordinate."""

    log_lambda_sparse: float
    log_lambda_smooth: Array
    log_ard: tuple[Array, ...]
    log_dispersion: float

    def lambda_smooth(self, k: int) -> float:
        return float(np.exp(self.log_lambda_smooth[k]))

    def dispersion(self) -> float:
        return float(np.exp(self.log_dispersion))

    def ard(self, k: int) -> Array | None:
        """Precisions (d_k,) of the coordinates of atom k, None when ARD is off."""
        return np.exp(self.log_ard[k]) if len(self.log_ard[k]) else None

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

    def ard_slice(self, k: int) -> slice:
        """Where the ARD values of atom k sit in the flat vector; empty when it has none."""
        begin = 1 + len(self.log_lambda_smooth) + sum(len(block) for block in self.log_ard[:k])
        return slice(begin, begin + len(self.log_ard[k]))


class Variables:
    """Where each inner variable sits in theta, and how a state moves.

    Row by row: the free logits, then the local coordinates of the atoms in the row's support. Then the border: decoder
    entries, atom by atom, entry (m, c) of an atom at m p + c. theta itself is a step: a sphere has no global
    coordinates, so a state is moved by a step and never rebuilt from a vector.

    Attributes
    ----------
    free : (n, F) bool array
        Which free logits are variables.
    logit : (n, F) int array, -1 where they are none
    coord : list of K int arrays (n, d_k), -1 off the support
    border : list of K int arrays (M_k, p)
    size : int
        D, the number of inner variables.
    """

    def __init__(self, problem: Problem, support: Mask) -> None:
        p = problem.n_outputs
        self.problem, self.support = problem, support
        dims = np.array([atom.dim for atom in problem.atoms])
        self.free = problem.free_logits(support)
        n_logits = self.free.sum(axis=1)
        lengths = n_logits + support @ dims
        starts = np.cumsum(lengths) - lengths
        self.logit = np.where(self.free, starts[:, None] + np.cumsum(self.free, axis=1) - self.free, -1)
        # Before the coordinates of atom k come the logits and the supported atoms before k.
        before = (starts + n_logits)[:, None] + np.cumsum(support * dims, axis=1) - support * dims
        self.coord = [np.where(support[:, [k]], before[:, [k]] + np.arange(dim), -1) for k, dim in enumerate(dims)]
        self.border_start = at = int(lengths.sum())
        self.border = []
        for atom in problem.atoms:
            self.border.append(at + np.arange(atom.width * p).reshape(atom.width, p))
            at += atom.width * p
        self.size = at

    def own(self, i: int) -> NDArray[np.int_]:
        """The variables of row i: its logits, then its coordinates."""
        return np.concatenate(
            [self.logit[i][self.free[i]], *[self.coord[k][i] for k in np.flatnonzero(self.support[i])]]
        )

    def row(self, i: int) -> NDArray[np.int_]:
        """Every variable row i depends on: its own, then the whole border."""
        return np.concatenate([self.own(i), np.arange(self.border_start, self.size)])

    def atom_values(self, values: Array) -> Array:
        """(D,) one value an atom, ``values`` (K,), spread over the logits, coordinates and decoders of each atom."""
        out = np.zeros(self.size)
        out[self.logit[self.free]] = np.broadcast_to(values[: self.free.shape[1]], self.free.shape)[self.free]
        for k, value in enumerate(values):
            out[self.coord[k][self.support[:, k]]] = value
            out[self.border[k]] = value
        return out

    def move(self, state: State, step: Array) -> State:
        """The state reached by a step (D,)."""
        logits, coords = state.logits.copy(), [t.copy() for t in state.coords]
        logits[:, : self.free.shape[1]][self.free] += step[self.logit[self.free]]
        for k, atom in enumerate(self.problem.atoms):
            for i in state.rows_of(k):
                coords[k][i] = atom.advance(state.coords[k][i], step[self.coord[k][i]])
        decoders = [decoder + step[index] for decoder, index in zip(state.decoders, self.border, strict=True)]
        return State(logits, tuple(coords), tuple(decoders), state.support)

    def transport(self, state: State, step: Array) -> Array:
        """R (D, D), orthogonal: components at ``move(state, step)`` of the frames at ``state`` carried along.

        A gradient g and a matrix H at the moved state are R'g and R'HR in the frames of ``state``: what is compared
        when a derivative along the step is taken. R is the identity but for spheres.
        """
        matrix = np.eye(self.size)
        for k, atom in enumerate(self.problem.atoms):
            for i in state.rows_of(k):
                at = self.coord[k][i]
                matrix[np.ix_(at, at)] = atom.transport(state.coords[k][i], step[at])
        return matrix


@lru_cache(maxsize=4)
def variables_of(problem: Problem, state: State) -> Variables:
    """The variables of a state."""
    return Variables(problem, state.support)
