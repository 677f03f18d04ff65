"""Value, first and second derivatives of one reconstructed row in every variable it depends on.

z-hat = sum_k a_k(l) gamma_k(t_k),   gamma_k = Phi_k(t_k) B_k.

The variables of the row are ordered as ``Variables.row``: free logits, local coordinates of supported atoms, then every
decoder entry. The reconstruction is a sum over atoms of a product of three factors, each depending on its own
variables, so a derivative replaces the factor by its derivative:

    first     logit j       sum_k (da_k/dl_j) gamma_k
              t_ka          a_k d_a gamma_k
              B_kmc         a_k Phi_km e_c
    second    l_j, l_w      sum_k (d2a_k/dl_j dl_w) gamma_k
              l_j, t_ka     (da_k/dl_j) d_a gamma_k
              l_j, B_kmc    (da_k/dl_j) Phi_km e_c
              t_ka, t_kb    a_k d_ab gamma_k
              t_ka, B_kmc   a_k (d_a Phi_km) e_c
              anything else 0: atoms do not share coordinates, and z-hat is linear in the decoders

A coordinate that is held at an end of its interval is a constant: all its derivatives are zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .atoms import Atom, Jets
from .factors import IntervalFactor
from .problem import Problem, Rho, State, variables_of

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RowJets:
    """Derivatives of row i: ``index`` (q,) into theta, ``value`` (p,), ``first`` (p, q), ``second`` (p, q, q)."""

    index: NDArray[np.int_]
    value: Array
    first: Array
    second: Array


def basis_jets(atom: Atom, t: Array) -> Jets:
    """Jets of an atom at a point."""
    return _remembered_jets(atom, t.tobytes())


@lru_cache(maxsize=4096)
def _remembered_jets(atom: Atom, t: bytes) -> Jets:
    """The same points are asked for again and again; jets depend on nothing but the arguments."""
    return atom.jets(np.frombuffer(t))


def held_axes(atom: Atom, t: Array) -> NDArray[np.int_]:
    """Local coordinates of a point that are held at an end of their interval."""
    factors = [(factor, local) for factor, at, local in atom.parts() if not factor.moves(t[at])]
    axes = [np.arange(atom.dim)[local] for factor, local in factors if isinstance(factor, IntervalFactor)]
    return np.concatenate([np.zeros(0, int), *axes])


def row_jets(problem: Problem, state: State, rho: Rho, i: int, hold: bool = True) -> RowJets:
    """All derivatives of z-hat_i up to the second order; without ``hold`` as if no coordinate were held."""
    p, variables = problem.n_outputs, variables_of(problem, state)
    index, free = variables.row(i), variables.free[i]
    a, da, d2a = problem.gate.jets(state.logits[i], state.support[i], rho.log_lambda_sparse)
    da, d2a = da[:, free], d2a[:, free][:, :, free]

    at = int(free.sum())
    logits = slice(0, at)
    border_at = len(index) - (variables.size - variables.border_start)
    identity = np.eye(p)
    value, first, second = np.zeros(p), np.zeros((p, len(index))), np.zeros((p, len(index), len(index)))
    for k, atom in enumerate(problem.atoms):
        border = slice(border_at, border_at + atom.width * p)
        border_at = border.stop
        if not state.support[i, k]:
            continue
        coords = slice(at, at + atom.dim)
        at = coords.stop
        jets, decoder = basis_jets(atom, state.coords[k][i]), state.decoders[k]
        d1, d2 = jets.d1.copy(), jets.d2.copy()
        if hold:
            held = held_axes(atom, state.coords[k][i])
            d1[held] = 0.0
            d2[held] = 0.0
            d2[:, held] = 0.0
        gamma, gamma1, gamma2 = jets.phi @ decoder, d1 @ decoder, d2 @ decoder
        # Entry (c, m p + c) of a decoder derivative is phi_m: the derivative of gamma by the decoder entry (m, c).
        gamma_b = np.einsum("m,ce->cme", jets.phi, identity).reshape(p, -1)
        gamma1_b = np.einsum("am,ce->came", d1, identity).reshape(p, atom.dim, -1)

        value += a[k] * gamma
        first[:, logits] += np.outer(gamma, da[k])
        first[:, coords] = a[k] * gamma1.T
        first[:, border] = a[k] * gamma_b
        second[:, logits, logits] += gamma[:, None, None] * d2a[k]
        second[:, coords, coords] = a[k] * gamma2.transpose(2, 0, 1)
        _set_symmetric(second, logits, coords, da[k][:, None] * gamma1.T[:, None, :])
        _set_symmetric(second, logits, border, da[k][:, None] * gamma_b[:, None, :])
        _set_symmetric(second, coords, border, a[k] * gamma1_b)
    return RowJets(index, value, first, second)


def _set_symmetric(second: Array, rows: slice, columns: slice, block: Array) -> None:
    second[:, rows, columns] = block
    second[:, columns, rows] = block.transpose(0, 2, 1)


@lru_cache(maxsize=4)
def all_row_jets(problem: Problem, state: State, rho: Rho) -> tuple[RowJets, ...]:
    """``row_jets`` of every row."""
    return tuple(row_jets(problem, state, rho, i) for i in range(problem.n_rows))


@lru_cache(maxsize=4)
def all_free_row_jets(problem: Problem, state: State, rho: Rho) -> tuple[RowJets, ...]:
    """``row_jets`` of every row as if no coordinate were held."""
    return tuple(row_jets(problem, state, rho, i, hold=False) for i in range(problem.n_rows))
