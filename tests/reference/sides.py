"""Logits of gates with a threshold: each integrates over the side of it on which its gate is what it is.

A logit whose gate is closed is no variable: L and H have nothing of it. V has -ln J for it, J the integral of
N(l; 0, 1 / epsilon) exp(-lambda E(l)) over the logits of a closed gate.

With C(g, k, a) = -ln of the integral of exp(-g u - k u^2 / 2) over u > a, an open logit at a distance l - wall above
the wall adds C(0, h, wall - l) + 1/2 ln 2 pi - 1/2 ln h to 1/2 ln |H|, h its entry there. One that is held at the wall
is no variable and adds C(g, k, 0), of slope and curvature as if it were free:

    g = w/phi a' gamma . r + lambda E' + epsilon l,    k = w/phi a'^2 |gamma|^2 + epsilon + lambda max(E'', 0).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, log_ndtr

from .gates.base import logistic_derivatives
from .gates.threshold import Threshold
from .jets import RowJets, all_row_jets, basis_jets, held_axes
from .objective import held_logits, reconstruct
from .problem import Problem, Rho, State, variables_of

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


def closed_logits(problem: Problem, state: State) -> Mask:
    """(n, F) free logits whose gates are closed and have a mass."""
    gate = problem.gate
    if problem.classic or not isinstance(gate, Threshold):
        return np.zeros((problem.n_rows, problem.n_free), dtype=bool)
    return ~state.support & gate.has_gate(problem.n_atoms)


def closed_total(problem: Problem, state: State, rho: Rho) -> float:
    """The masses of closed logits."""
    closed, gate = closed_logits(problem, state), problem.gate
    if not closed.any():
        return 0.0
    assert isinstance(gate, Threshold)
    return float(-closed.sum() * gate.log_closed(rho.log_lambda_sparse)[0])


def closed_rho(problem: Problem, state: State, rho: Rho) -> Array:
    """Derivative of `closed_total` in the strengths, in the order of ``rho.to_flat()``."""
    out = np.zeros(len(rho.to_flat()))
    closed, gate = closed_logits(problem, state), problem.gate
    if closed.any():
        assert isinstance(gate, Threshold)
        out[0] = -closed.sum() * gate.log_closed(rho.log_lambda_sparse)[1]
    return out


def charge(g: float, k: float, a: float) -> tuple[float, float, float, float]:
    """C(g, k, a) and its derivatives in g, in k and in the point that a is counted from."""
    start = (g + k * a) / np.sqrt(k)  # in deviations from the mean
    tail = np.sqrt(np.pi / (2 * k)) * float(erfcx(start / np.sqrt(2)))  # of what is left, over its value at a
    mean = (1 / tail - g) / k
    square = (a / tail + 1 - g * mean) / k
    # far below the mean nearly all is left, and its value at a is nothing
    value = g * a + 0.5 * k * a**2 - np.log(tail) if start > 0 else -0.5 * (g**2 / k + np.log(2 * np.pi / k))
    value -= float(log_ndtr(-start)) if start <= 0 else 0.0
    return float(value), float(mean), float(0.5 * square), float(-1 / tail)


def open_logits(problem: Problem, state: State) -> Iterator[tuple[int, int]]:
    """Rows and atoms of free logits whose gates are open and have a wall, but for those that are held there."""
    gate = problem.gate
    if problem.classic or not isinstance(gate, Threshold):
        return
    free = state.support & gate.has_gate(problem.n_atoms) & ~held_logits(problem, state)
    yield from ((int(i), int(k)) for i, k in np.argwhere(free))


def free_charges(problem: Problem, state: State, matrix: Array) -> Iterator[tuple[int, tuple[float, float, float]]]:
    """For every open logit that is not held: its place in theta, and its term with derivatives in h and the logit."""
    logit = variables_of(problem, state).logit
    for i, k in open_logits(problem, state):
        assert isinstance(problem.gate, Threshold)
        at = int(logit[i, k])
        h = float(matrix[at, at])
        value, _, by_curvature, by_point = charge(0.0, h, problem.gate.wall - float(state.logits[i, k]))
        yield at, (value + 0.5 * np.log(2 * np.pi / h), by_curvature - 0.5 / h, by_point)


@dataclass(frozen=True)
class HeldLogit:
    """A logit at its wall.

    Attributes
    ----------
    gate, energy, bend : float
        a', lambda E' and lambda max(E'', 0) there.
    scale : float
        w / phi.
    point, phi
        gamma (p,) and the basis row (M,) of the atom.
    """

    row: int
    atom: int
    gate: float
    energy: float
    bend: float
    scale: float
    point: Array
    phi: Array
    residual: Array
    precision: float
    wall: float

    @property
    def data_slope(self) -> float:
        return float(self.scale * self.gate * self.point @ self.residual)

    @property
    def data_curvature(self) -> float:
        return float(self.scale * self.gate**2 * self.point @ self.point)

    @property
    def charge(self) -> tuple[float, float, float]:
        g = self.data_slope + self.energy + self.precision * self.wall
        return charge(g, self.data_curvature + self.precision + self.bend, 0.0)[:3]


def held(problem: Problem, state: State, rho: Rho) -> Iterator[HeldLogit]:
    """The open logits that are held."""
    gate = problem.gate
    if problem.classic or not isinstance(gate, Threshold):
        return
    strength = np.exp(rho.log_lambda_sparse)
    residual = reconstruct(problem, state, rho) - problem.data
    _, first, second, _ = (
        float(value[0]) for value in logistic_derivatives(np.array([gate.wall - gate.threshold]), gate.temperature)
    )
    for i, k in np.argwhere(held_logits(problem, state) & gate.has_gate(problem.n_atoms)):
        phi = basis_jets(problem.atoms[k], state.coords[k][i]).phi
        yield HeldLogit(
            int(i),
            int(k),
            first,
            float(strength * first),
            float(strength * max(second, 0.0)),
            float(problem.row_weights[i] / rho.dispersion()),
            phi @ state.decoders[k],
            phi,
            residual[i],
            problem.logit_precision,
            gate.wall,
        )


def sides_total(problem: Problem, state: State, rho: Rho, matrix: Array) -> float:
    """What closed logits have, and open ones on their side beyond Gaussians about them; ``matrix`` is H."""
    free = sum(term[0] for _, term in free_charges(problem, state, matrix))
    still = sum(one.charge[0] for one in held(problem, state, rho))
    return closed_total(problem, state, rho) + free + still


def sides_theta(problem: Problem, state: State, rho: Rho, matrix: Array) -> Array:
    """Derivative of `sides_total` in theta (D,) with h held."""
    variables = variables_of(problem, state)
    out = np.zeros(variables.size)
    for at, (_, _, by_point) in free_charges(problem, state, matrix):
        out[at] += by_point
    jets: list[RowJets] = all_row_jets(problem, state, rho)
    for one in held(problem, state, rho):
        _, by_slope, by_curvature = one.charge
        atom, decoder, t = problem.atoms[one.atom], state.decoders[one.atom], state.coords[one.atom][one.row]
        pull, bend = by_slope * one.scale * one.gate, 2 * by_curvature * one.scale * one.gate**2
        own = jets[one.row]
        out[own.index] += pull * (one.point @ own.first)
        moves = basis_jets(atom, t).d1.copy()
        moves[held_axes(atom, t)] = 0.0
        tangents = moves @ decoder
        out[variables.coord[one.atom][one.row]] += tangents @ (pull * one.residual + bend * one.point)
        out[variables.border[one.atom]] += np.outer(one.phi, pull * one.residual + bend * one.point)
    return out


def sides_rho(problem: Problem, state: State, rho: Rho) -> Array:
    """Derivative of `sides_total` in the strengths with h held, in the order of ``rho.to_flat()``."""
    out = closed_rho(problem, state, rho)
    for one in held(problem, state, rho):
        _, by_slope, by_curvature = one.charge
        out[0] += by_slope * one.energy + by_curvature * one.bend
        out[-1] -= by_slope * one.data_slope + by_curvature * one.data_curvature
    return out
