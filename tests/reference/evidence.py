"""The evidence V = L + E of chapter 1.3, by the plain definition of every term, and its classic mode."""

from __future__ import annotations

from collections import Counter
from math import lgamma

import numpy as np
from numpy.typing import NDArray

from .compact import compact_total
from .conditioning import Conditioned
from .curvature import curvature, gauge, log_det, log_group_volume
from .factors import LN_2PI
from .objective import loss, loss_parts
from .priors import coordinate_energy
from .problem import Problem, Rho, State, variables_of
from .scale import scale_total
from .sides import sides_total

Array = NDArray[np.float64]

RANK_CUTOFF = 1e-9
"""Eigenvalues of a roughness Gram below this part of the largest are its null space."""


def log_symmetries(problem: Problem, state: State, rho: Rho) -> float:
    """ln of the number of discrete symmetries of the atoms in use.

    Equal atoms that the gate does not tell apart can change places, and each atom has symmetries of its own. An atom
    without rows has a decoder of zero, which no symmetry moves.
    """
    labels = problem.gate.labels(problem.n_atoms)
    used = [k for k in range(problem.n_atoms) if state.support[:, k].any()]
    exchanges = Counter((problem.atoms[k], labels[k]) for k in used)
    own = sum(problem.atoms[k].log_symmetries(rho.ard(k) is None) for k in used)
    return own + sum(lgamma(count + 1) for count in exchanges.values())


def roughness_rank(roughness: Array) -> int:
    """rank S_k."""
    values = np.linalg.eigvalsh(roughness)
    return int((values > RANK_CUTOFF * values.max(initial=0.0)).sum()) if values.max(initial=0.0) > 0 else 0


def evidence_terms(problem: Problem, state: State, rho: Rho) -> dict[str, float]:
    """The named terms of E = V - L.

    log_det      1/2 ln |H|
    orbit        -1/2 ln det(G' H G) - ln vol(group): the Gaussian integral along the orbit out, its volume in
    compact      sum of the compact terms of the supported coordinates
    scale        the integrals over the scales of line coordinates in place of the Gaussians along them
    constants    -(D - J)/2 ln 2 pi - ln(number of discrete symmetries)
    sides        integrals of logits over their side of a threshold in place of the Gaussians about them
    unsupported  minus the prior energy of the unsupported coordinates: the prior of each integrates to exactly one

    In the classic mode ``log_det`` is that of the conditioned H and ``occam`` is -1/2 p sum_k rank(S_k) ln lambda_k.
    """
    unsupported = -coordinate_energy(problem, state, rho, supported=False)
    if problem.classic:
        ranks = [roughness_rank(roughness) for roughness in problem.roughness]
        return {
            "log_det": 0.5 * log_det(Conditioned(problem, state, rho).matrix),
            "occam": -0.5 * problem.n_outputs * float(ranks @ np.asarray(rho.log_lambda_smooth)),
            "unsupported": unsupported,
        }
    matrix, generators = curvature(problem, state, rho), gauge(problem, state, rho)
    variables = variables_of(problem, state)
    n_orbits = generators.shape[1]
    orbit = -0.5 * log_det(generators.T @ matrix @ generators) if n_orbits else 0.0
    return {
        "log_det": 0.5 * log_det(matrix),
        "orbit": orbit - log_group_volume(problem, state, rho),
        "compact": compact_total(problem, state, rho, matrix),
        "scale": scale_total(problem, state, rho),
        "sides": sides_total(problem, state, rho, matrix),
        "constants": -(variables.size - n_orbits) / 2 * LN_2PI - log_symmetries(problem, state, rho),
        "unsupported": unsupported,
    }


def evidence_all_terms(problem: Problem, state: State, rho: Rho) -> dict[str, float]:
    """The named terms of V: the parts of L and the terms of E."""
    return {**loss_parts(problem, state, rho), **evidence_terms(problem, state, rho)}


def evidence(problem: Problem, state: State, rho: Rho) -> float:
    """V(theta; rho); the evidence of rho is its value at the inner optimum."""
    return loss(problem, state, rho) + sum(evidence_terms(problem, state, rho).values())
