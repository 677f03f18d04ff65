"""Derivatives of E = V - L at fixed rho and at fixed theta, and dV/drho with the motion of the inner optimum (2.4).

For a change dH of the curvature and dG of the generators,

    dE = 1/2 tr(H^-1 dH) - 1/2 tr[(G'HG)^-1 d(G'HG)] + sum_angles c'(h) dh,     d(G'HG) = dG'HG + G'dHG + G'HdG.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .ard import angle_energy_log_alpha
from .curvature import curvature, curvature_rho, curvature_theta, exact_hessian, gauge, gauge_theta, pin_orbits
from .evidence import compact_correction_slope
from .objective import loss_rho, mixed_theta_rho
from .problem import Problem, Rho, State, Variables

Array = NDArray[np.float64]


def log_det_adjoint(problem: Problem, state: State, rho: Rho) -> Array:
    """Gamma_a = tr(H^-1 dH/dtheta_a) (D,)."""
    inverse = np.linalg.inv(curvature(problem, state, rho))
    return np.array([np.sum(inverse * change) for change in curvature_theta(problem, state, rho)])


def evidence_theta(problem: Problem, state: State, rho: Rho) -> Array:
    """dE/dtheta (D,)."""
    matrix, generators = curvature(problem, state, rho), gauge(problem, state, rho)
    changes, turns = curvature_theta(problem, state, rho), gauge_theta(problem, state, rho)
    angles, inverse = Variables(problem, state.support).coords(), np.linalg.inv(matrix)
    pairs = zip(changes, turns, strict=True)
    return np.array([_change_of_terms(matrix, inverse, generators, angles, d_h, d_g) for d_h, d_g in pairs])


def evidence_rho(problem: Problem, state: State, rho: Rho) -> Array:
    """dE/drho at fixed theta; the generators do not depend on rho."""
    matrix, generators = curvature(problem, state, rho), gauge(problem, state, rho)
    angles, inverse = Variables(problem, state.support).coords(), np.linalg.inv(matrix)
    still, changes = np.zeros_like(generators), curvature_rho(problem, state, rho)
    slope = np.array([_change_of_terms(matrix, inverse, generators, angles, d_h, still) for d_h in changes])
    for k in range(problem.n_atoms):
        alpha = rho.ard(k)
        if alpha is not None:
            idle = state.coords[~state.support[:, k], k]
            slope[rho.ard_position(k)] -= sum(angle_energy_log_alpha(t, alpha) for t in idle)
    return slope


def implicit_gradient(problem: Problem, state: State, rho: Rho) -> Array:
    """dV/drho along the inner optimum; ``state`` must be that optimum.

    The optimum moves by dtheta = -A^-1 (d^2 L / dtheta drho) drho, and dL/dtheta = 0 there, so only E feels the motion.
    A is singular along the orbits. With U = the decoder rows of G, A + UU' is invertible, and since G'(d^2 L / dtheta
    drho) = 0 its solution is one of the solutions of A x = b; they differ by a motion along the orbit, which E ignores.
    """
    system = pin_orbits(problem, state, rho, exact_hessian(problem, state, rho))
    motion = -np.linalg.solve(system, mixed_theta_rho(problem, state, rho))
    fixed = loss_rho(problem, state, rho) + evidence_rho(problem, state, rho)
    return fixed + evidence_theta(problem, state, rho) @ motion


def _change_of_terms(
    matrix: Array, inverse: Array, generators: Array, angles: NDArray[np.int_], d_matrix: Array, d_generators: Array
) -> float:
    """The formula at the head of this module for one direction of change."""
    change = 0.5 * np.sum(inverse * d_matrix)  # tr(H^-1 dH), both symmetric
    change += compact_correction_slope(np.diag(matrix)[angles]) @ np.diag(d_matrix)[angles]
    if generators.shape[1]:
        reduced = generators.T @ matrix @ generators
        half = d_generators.T @ matrix @ generators
        d_reduced = generators.T @ d_matrix @ generators + half + half.T
        change -= 0.5 * np.trace(np.linalg.solve(reduced, d_reduced))
    return float(change)
