"""The evidence V = L + E of chapter 1.3, by the plain definition of every term."""

from __future__ import annotations

from collections import Counter
from math import lgamma, log

import numpy as np
from numpy.typing import NDArray
from scipy.special import i0e, i1e

from .ard import LN_2PI, angle_energy
from .curvature import curvature, gauge, log_det
from .objective import loss, loss_parts
from .problem import Problem, Rho, State, Variables

Array = NDArray[np.float64]


def compact_correction(h: Array) -> Array:
    """c(h) = -ln[exp(-h) I0(h)] - 1/2 ln(2 pi h).

    The Gaussian integral over an angle, sqrt(2 pi / h), is replaced by the von Mises one, 2 pi exp(-h) I0(h), which
    cannot exceed the circle; c is minus the logarithm of their ratio. c -> 0 as h grows.
    """
    return -np.log(i0e(h)) - 0.5 * np.log(2 * np.pi * h)


def compact_correction_slope(h: Array) -> Array:
    """c'(h) = 1 - I1(h)/I0(h) - 1/(2h)."""
    return 1 - i1e(h) / i0e(h) - 1 / (2 * h)


def unsupported_energy(problem: Problem, state: State, rho: Rho) -> float:
    """Prior energy, as counted in L, of the angles that are not variables."""
    pairs = zip(*np.nonzero(~state.support), strict=True)
    return sum(angle_energy(state.coords[i, k], rho.ard(int(k))) for i, k in pairs)


def log_symmetries(problem: Problem) -> float:
    """ln of the number of discrete symmetries: equal kinds of atoms can be exchanged, every circle can be reflected."""
    exchanges = sum(lgamma(count + 1) for count in Counter(problem.harmonics).values())
    return exchanges + problem.n_atoms * log(2)


def evidence_terms(problem: Problem, state: State, rho: Rho) -> dict[str, float]:
    """The named terms of E = V - L.

    log_det      1/2 ln |H|
    orbit        -1/2 ln det(G' H G) - J ln 2 pi: the Gaussian integral along the orbit out, its volume in
    compact      sum of c(h) over the supported angles, h the diagonal entry of H
    constants    -(D - J)/2 ln 2 pi - ln(number of discrete symmetries)
    unsupported  minus the prior energy of the unsupported angles: the prior of each integrates to exactly one
    """
    matrix, generators = curvature(problem, state, rho), gauge(problem, state, rho)
    variables = Variables(problem, state.support)
    n_orbits = generators.shape[1]
    orbit = -0.5 * log_det(generators.T @ matrix @ generators) if n_orbits else 0.0
    return {
        "log_det": 0.5 * log_det(matrix),
        "orbit": orbit - n_orbits * LN_2PI,
        "compact": float(compact_correction(np.diag(matrix)[variables.coords()]).sum()),
        "constants": -(variables.size - n_orbits) / 2 * LN_2PI - log_symmetries(problem),
        "unsupported": -unsupported_energy(problem, state, rho),
    }


def evidence_all_terms(problem: Problem, state: State, rho: Rho) -> dict[str, float]:
    """The named terms of V: the parts of L and the terms of E."""
    return {**loss_parts(problem, state, rho), **evidence_terms(problem, state, rho)}


def evidence(problem: Problem, state: State, rho: Rho) -> float:
    """V(theta; rho); the evidence of rho is its value at the inner optimum."""
    return loss(problem, state, rho) + sum(evidence_terms(problem, state, rho).values())
