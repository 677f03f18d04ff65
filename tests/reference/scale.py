"""The scale of line coordinates, integrated in place of the Gaussian along it.

Where every basis column is homogeneous in an atom's line coordinates, of degree d_m, the motion t -> e^-s t, B_m ->
e^(d_m s) B_m keeps every fit. The priors' energy along it is

    f(s) = 1/2 T e^-2s + 1/2 sum_mm' e^((d_m + d_m') s) K_mm',   T = sum alpha t^2,   K_mm' = P_mm' <B_m, B_m'>,

and the volume of theta grows as e^(kappa s), kappa = p sum_m d_m - (line coordinates of all rows that use the atom).
With
T + d'Kd = G'HG, G the tangent of the motion at s = 0, the Gaussian sqrt(2 pi / G'HG) gives way to

    I = int exp(f(0) - f(s) + kappa s) ds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from .atoms.base import Atom
from .factors import LineFactor
from .objective import decoder_precision, smoothness_term
from .problem import Problem, Rho, State, variables_of

Array = NDArray[np.float64]

SPAN, NODES = 14.0, 801
"""Standard deviations to either side of the mode, and points of the trapezoid rule over them."""


@cache
def degrees(atom: Atom) -> Array | None:
    """The degree of every column, read off the columns themselves: what doubling the line coordinates makes of them."""
    lines = [at for factor, at, _ in atom.parts() if isinstance(factor, LineFactor)]
    if not lines:
        return None
    found = []
    for seed in (0, 1):
        t = np.random.default_rng(seed).uniform(0.3, 0.8, atom.ambient)
        doubled = t.copy()
        for at in lines:
            doubled[at] *= 2.0
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(np.log2(atom.jets(doubled).phi / atom.jets(t).phi))
    rounded = np.round(found[0])
    same = np.isfinite(found).all() and np.allclose(found, rounded, atol=1e-9)
    return rounded if same else None


@dataclass(frozen=True)
class Scale:
    """One atom's term with its derivatives in T and in K; ``stretch`` is G'HG, how far the motion moves the atom."""

    value: float
    stretch: float
    by_square: float
    by_product: Array


def _square(problem: Problem, state: State, rho: Rho, k: int) -> tuple[float, int]:
    """T and the number of line coordinates of all rows."""
    total, count = 0.0, 0
    for factor, at, local in problem.atoms[k].parts():
        if isinstance(factor, LineFactor):
            t = state.coords[k][state.support[:, k]][:, at]
            alpha = 1.0 if rho.ard(k) is None else float(rho.ard(k)[local][0])
            total, count = total + alpha * float(np.sum(t**2)), count + t.size
    return total, count


@lru_cache(maxsize=16)
def scale(problem: Problem, state: State, rho: Rho, k: int) -> Scale | None:
    """The term of atom k, None for an atom without a scale or without rows."""
    d = degrees(problem.atoms[k])
    if d is None or problem.classic or not state.support[:, k].any():
        return None
    square, count = _square(problem, state, rho, k)
    decoder = state.decoders[k]
    products = decoder_precision(problem, rho, k) * (decoder @ decoder.T)
    pair = d[:, None] + d[None, :]
    kappa = problem.n_outputs * d.sum() - count
    stretch = square + float(d @ products @ d)

    # The energy is a sum of exponentials: one for each exponent d_m + d_m', and T's.
    exponents = np.unique(pair)
    weights = np.array([products[pair == e].sum() for e in exponents])

    def energy(s: Array) -> Array:
        return 0.5 * square * np.exp(-2 * s) + 0.5 * np.exp(np.multiply.outer(s, exponents)) @ weights - kappa * s

    def slope(s: float) -> float:
        return float(-square * np.exp(-2 * s) + 0.5 * (np.exp(exponents * s) * exponents) @ weights - kappa)

    reach = 1.0
    while slope(-reach) > 0 or slope(reach) < 0:
        reach *= 2
    mode = brentq(slope, -reach, reach, xtol=1e-14)
    bend = (slope(mode + 1e-5) - slope(mode - 1e-5)) / 2e-5
    # The trapezoid rule is exact to rounding for an analytic integrand that has vanished at both ends.
    s = mode + np.linspace(-1, 1, NODES) * SPAN / np.sqrt(bend)
    density = np.exp(energy(np.array(mode)) - energy(s))
    total = density.sum()
    log_integral = np.log(total * (s[1] - s[0])) + float(energy(np.array(0.0)) - energy(np.array(mode)))
    mean_of = {e: float(density @ np.exp(e * s) / total) for e in (*exponents, -2.0)}
    grown = np.vectorize(mean_of.get)(pair).astype(float)
    return Scale(
        value=float(0.5 * np.log(2 * np.pi / stretch) - log_integral),
        stretch=stretch,
        by_square=0.5 * (mean_of[-2.0] - 1) - 0.5 / stretch,
        by_product=0.5 * (grown - 1) - 0.5 * np.outer(d, d) / stretch,
    )


def scale_total(problem: Problem, state: State, rho: Rho) -> float:
    """The terms of all atoms."""
    terms = [scale(problem, state, rho, k) for k in range(problem.n_atoms)]
    return sum(term.value for term in terms if term is not None)


def scale_theta(problem: Problem, state: State, rho: Rho) -> Array:
    """Their derivative in theta (D,)."""
    variables = variables_of(problem, state)
    slope = np.zeros(variables.size)
    for k, atom in enumerate(problem.atoms):
        term = scale(problem, state, rho, k)
        if term is None:
            continue
        slope[variables.border[k]] += 2 * (term.by_product * decoder_precision(problem, rho, k)) @ state.decoders[k]
        rows = np.flatnonzero(state.support[:, k])
        for factor, at, local in atom.parts():
            if isinstance(factor, LineFactor):
                alpha = 1.0 if rho.ard(k) is None else float(rho.ard(k)[local][0])
                slope[variables.coord[k][rows][:, local]] += 2 * term.by_square * alpha * state.coords[k][rows][:, at]
    return slope


def scale_rho(problem: Problem, state: State, rho: Rho) -> Array:
    """Their derivative in the flat rho at fixed theta."""
    slope = np.zeros(len(rho.to_flat()))
    for k, atom in enumerate(problem.atoms):
        term = scale(problem, state, rho, k)
        if term is None:
            continue
        decoder = state.decoders[k]
        rough = float(np.sum(term.by_product * smoothness_term(problem, rho, k) * (decoder @ decoder.T)))
        slope[1 + k] += rough
        slope[-1] -= rough
        if rho.ard(k) is not None:
            entries = np.arange(len(slope))[rho.ard_slice(k)]
            for factor, at, local in atom.parts():
                if isinstance(factor, LineFactor):
                    t = state.coords[k][state.support[:, k]][:, at]
                    slope[entries[local]] += term.by_square * float(rho.ard(k)[local][0]) * float(np.sum(t**2))
    return slope
