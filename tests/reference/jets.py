"""Value, first and second derivatives of one reconstructed row in every variable it depends on.

z-hat = sum_k a_k(l) gamma_k(t_k),   gamma_k = Phi_k(t_k) B_k.

The variables of the row are ordered as ``Variables.row``: free logits, supported angles, then every decoder entry. The
reconstruction is a sum over atoms of a product of three factors, each depending on its own variables, so a derivative
replaces the factor by its derivative:

    first     logit j     sum_k (da_k/dl_j) gamma_k
              angle k     a_k gamma_k'
              B_kmc       a_k Phi_km e_c
    second    l_j, l_w    sum_k (d2a_k/dl_j dl_w) gamma_k
              l_j, t_k    (da_k/dl_j) gamma_k'
              l_j, B_kmc  (da_k/dl_j) Phi_km e_c
              t_k, t_k    a_k gamma_k''
              t_k, B_kmc  a_k Phi_km' e_c
              anything else 0: atoms do not share angles, and z-hat is linear in the decoders
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .basis import circle_basis
from .gate import gate_jets
from .problem import Problem, State, Variables

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RowJets:
    """Derivatives of row i: ``index`` (q,) into theta, ``value`` (p,), ``first`` (p, q), ``second`` (p, q, q)."""

    index: NDArray[np.int_]
    value: Array
    first: Array
    second: Array


def row_jets(problem: Problem, state: State, variables: Variables, i: int) -> RowJets:
    """All derivatives of z-hat_i up to the second order."""
    p, n_atoms = problem.n_outputs, problem.n_atoms
    index = variables.row(i)
    a, da, d2a = gate_jets(state.logits[i], state.support[i], problem.temperature)
    free = np.arange(n_atoms - 1)
    border_at = len(index) - (variables.size - variables.border_start)
    angle_at = {int(k): n_atoms - 1 + j for j, k in enumerate(np.flatnonzero(state.support[i]))}

    identity = np.eye(p)
    value, first, second = np.zeros(p), np.zeros((p, len(index))), np.zeros((p, len(index), len(index)))
    for k in range(n_atoms):
        phi, d1, d2 = circle_basis(state.coords[i, k], problem.harmonics[k])
        decoder = state.decoders[k]
        gamma, gamma1, gamma2 = phi @ decoder, d1 @ decoder, d2 @ decoder
        begin = border_at + problem.offsets[k] * p
        border = np.arange(begin, begin + problem.widths[k] * p)
        # Column m p + c of kron(phi, I) is phi_m e_c: the derivative of gamma by the decoder entry (m, c).
        gamma_b, gamma1_b = np.kron(phi, identity), np.kron(d1, identity)

        value += a[k] * gamma
        first[:, free] += np.outer(gamma, da[k, free])
        first[:, border] += a[k] * gamma_b
        second[:, : n_atoms - 1, : n_atoms - 1] += gamma[:, None, None] * d2a[k][np.ix_(free, free)]
        for j in free:
            second[:, j, border] += da[k, j] * gamma_b
            second[:, border, j] += da[k, j] * gamma_b
        if k in angle_at:
            t = angle_at[k]
            first[:, t] += a[k] * gamma1
            second[:, t, t] += a[k] * gamma2
            second[:, t, border] += a[k] * gamma1_b
            second[:, border, t] += a[k] * gamma1_b
            for j in free:
                second[:, j, t] += da[k, j] * gamma1
                second[:, t, j] += da[k, j] * gamma1
    return RowJets(index, value, first, second)


def all_row_jets(problem: Problem, state: State, variables: Variables) -> list[RowJets]:
    """``row_jets`` of every row."""
    return [row_jets(problem, state, variables, i) for i in range(problem.n_rows)]
