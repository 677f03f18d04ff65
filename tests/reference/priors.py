"""The prior of all coordinates, atom by atom, row by row, factor by factor (chapter 1.5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .factors import Factor
from .problem import Problem, Rho, State, variables_of

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Place:
    """One factor of one coordinate: the point ``t``, its precisions, its variables, its ARD entries of the flat rho.

    ``index`` is -1 for a coordinate outside the row's support, ``ard`` empty when ARD is off.
    """

    atom: int
    row: int
    factor: Factor
    t: Array
    alpha: Array | None
    index: NDArray[np.int_]
    ard: NDArray[np.int_]


def places(problem: Problem, state: State, rho: Rho, supported: bool) -> Iterator[Place]:
    """All factors of the coordinates inside, or outside, the rows' supports.

    Where rows have what they use only, there are none outside.
    """
    if problem.compact and not supported:
        return
    variables = variables_of(problem, state)
    for k, atom in enumerate(problem.atoms):
        alpha, ard = rho.ard(k), np.arange(len(rho.to_flat()))[rho.ard_slice(k)]
        for i in np.flatnonzero(state.support[:, k] == supported):
            for factor, at, local in atom.parts():
                own_alpha = None if alpha is None else alpha[local]
                index = variables.coord[k][i][local]
                yield Place(k, int(i), factor, state.coords[k][i][at], own_alpha, index, ard[local])


def coordinate_energy(problem: Problem, state: State, rho: Rho, supported: bool) -> float:
    """Prior energy of the coordinates inside, or outside, the supports. The classic mode drops the volumes."""
    total = 0.0
    for place in places(problem, state, rho, supported):
        total += place.factor.energy(place.t, place.alpha)
        total += 0.0 if problem.classic else place.factor.log_volume
    return total


def coordinate_energy_rho(problem: Problem, state: State, rho: Rho, supported: bool) -> Array:
    """Its derivative in the flat rho."""
    slope = np.zeros(len(rho.to_flat()))
    for place in places(problem, state, rho, supported):
        if place.alpha is not None:
            slope[place.ard] += place.factor.energy_log_alpha(place.t, place.alpha)
    return slope
