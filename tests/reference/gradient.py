"""Derivatives of E = V - L at fixed rho and at fixed theta, and dV/drho with the motion of the inner optimum (2.4).

For a change dH of the curvature and dG of the generators,

    dE = 1/2 tr(H^-1 dH) - 1/2 tr[(G'HG)^-1 d(G'HG)] + sum_factors <d compact/dh, dh> + <d charge/dK, dK>,
    d(G'HG) = dG'HG + G'dHG + G'HdG.

In the classic mode only the first term is left, with the conditioned H.
"""

from __future__ import annotations

from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from .compact import compact_parts, compact_rho, compact_theta
from .conditioning import Conditioned
from .curvature import (
    coupling_rho,
    coupling_theta,
    curvature,
    curvature_rho,
    curvature_theta,
    exact_hessian,
    gauge,
    gauge_theta,
    pin_orbits,
)
from .evidence import roughness_rank
from .extended import inverse, solve
from .objective import loss_rho, mixed_theta_rho
from .priors import coordinate_energy_rho
from .problem import Problem, Rho, State, variables_of
from .scale import scale_rho, scale_theta
from .sides import free_charges, sides_rho, sides_theta

Array = NDArray[np.float64]


class _TermChanges:
    """The formulas at the head of this module at one state, for any direction of change."""

    def __init__(self, problem: Problem, state: State, rho: Rho) -> None:
        self.generators, self.compact_slopes = np.zeros((variables_of(problem, state).size, 0)), []
        self.conditioned = Conditioned(problem, state, rho) if problem.classic else None
        if self.conditioned is not None:
            self.matrix = self.conditioned.matrix
        else:
            self.matrix, self.generators = curvature(problem, state, rho), gauge(problem, state, rho)
            for part in compact_parts(problem, state, rho):
                at = np.ix_(part.index, part.index)
                self.compact_slopes.append((at, -0.5 * inverse(self.matrix[at])))
            for place, (_, by_curvature, _) in free_charges(problem, state, self.matrix):
                self.compact_slopes.append((np.ix_([place], [place]), np.array([[by_curvature]])))
        self.inverse = inverse(self.matrix)
        self.reduced_inverse = inverse(self.generators.T @ self.matrix @ self.generators)

    def __call__(self, d_matrix: Array, d_ties: Array, d_generators: Array) -> float:
        if self.conditioned is not None:
            return 0.5 * float(np.sum(self.inverse * self.conditioned.change(d_matrix, d_ties)))
        change = 0.5 * np.sum(self.inverse * d_matrix)  # tr(H^-1 dH), both symmetric
        for at, slope in self.compact_slopes:
            change += np.sum(slope * d_matrix[at])
        half = d_generators.T @ self.matrix @ self.generators
        d_reduced = self.generators.T @ d_matrix @ self.generators + half + half.T
        return float(change - 0.5 * np.sum(self.reduced_inverse * d_reduced))


def log_det_adjoint(problem: Problem, state: State, rho: Rho) -> Array:
    """Gamma_a = tr(H^-1 dH/dtheta_a) (D,), of the conditioned H in the classic mode."""
    if problem.classic:
        return 2 * evidence_theta(problem, state, rho)
    inverted = inverse(curvature(problem, state, rho))
    return np.array([float(np.sum(inverted * change)) for change in curvature_theta(problem, state, rho)])


def evidence_theta(problem: Problem, state: State, rho: Rho) -> Array:
    """dE/dtheta (D,)."""
    change = _TermChanges(problem, state, rho)
    curvatures, ties = curvature_theta(problem, state, rho), coupling_theta(problem, state, rho)
    turns = repeat(np.zeros((change.matrix.shape[0], 0))) if problem.classic else gauge_theta(problem, state, rho)
    slope = np.array([change(*changes) for changes in zip(curvatures, ties, turns, strict=False)])
    if not problem.classic:
        slope += compact_theta(problem, state, rho) + sides_theta(problem, state, rho, change.matrix)
    return slope + scale_theta(problem, state, rho)


def evidence_rho(problem: Problem, state: State, rho: Rho) -> Array:
    """dE/drho at fixed theta; the generators do not depend on rho."""
    change = _TermChanges(problem, state, rho)
    still = np.zeros_like(change.generators)
    changes = zip(curvature_rho(problem, state, rho), coupling_rho(problem, state, rho), strict=True)
    slope = np.array([change(d_matrix, d_ties, still) for d_matrix, d_ties in changes])
    slope -= coordinate_energy_rho(problem, state, rho, supported=False)
    slope += scale_rho(problem, state, rho)
    if problem.classic:
        for k, roughness in enumerate(problem.roughness):
            slope[1 + k] -= 0.5 * problem.n_outputs * roughness_rank(roughness)
    else:
        slope += compact_rho(problem, state, rho) + sides_rho(problem, state, rho)
    return slope


def implicit_gradient(problem: Problem, state: State, rho: Rho) -> Array:
    """dV/drho along the inner optimum; ``state`` must be that optimum.

    The optimum moves by dtheta = -A^-1 (d^2 L / dtheta drho) drho, and dL/dtheta = 0 there, so only E feels the motion.
    A is singular along the orbits. With U = the decoder rows of G, A + UU' is invertible, and since G'(d^2 L / dtheta
    drho) = 0 its solution is one of the solutions of A x = b; they differ by a motion along the orbit, which E ignores.
    """
    system = pin_orbits(problem, state, rho, exact_hessian(problem, state, rho))
    motion = -solve(system, mixed_theta_rho(problem, state, rho))
    fixed = loss_rho(problem, state, rho) + evidence_rho(problem, state, rho)
    return fixed + (evidence_theta(problem, state, rho) @ motion).astype(float)
