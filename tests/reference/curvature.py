"""The curvature H of the evidence, the exact Hessian A of L, the derivatives of H, and the gauge generators G."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .ard import angle_curvature, angle_third
from .basis import rotation_generator
from .gate import entropy_hessian, majoriser, majoriser_derivative
from .jets import RowJets, all_row_jets
from .objective import decoder_precision, smoothness_term
from .problem import COMPACT_STIFFNESS, Problem, Rho, State, Variables

Array = NDArray[np.float64]


def _add_decoder_block(matrix: Array, index: NDArray[np.int_], block: Array) -> None:
    """Add ``block`` (M, M) x I_p on the decoder variables ``index`` (M, p)."""
    for c in range(index.shape[1]):
        matrix[np.ix_(index[:, c], index[:, c])] += block


def data_curvature(problem: Problem, state: State, rho: Rho, variables: Variables) -> Array:
    """Gauss-Newton part: sum_i w_i J_i' J_i / phi."""
    matrix = np.zeros((variables.size, variables.size))
    for i, jets in enumerate(all_row_jets(problem, state, variables)):
        matrix[np.ix_(jets.index, jets.index)] += problem.row_weights[i] * jets.first.T @ jets.first / rho.dispersion()
    return matrix


def curvature(problem: Problem, state: State, rho: Rho) -> Array:
    """H (D, D) of chapter 1.3, positive definite by construction.

    Gauss-Newton data part + P_k x I_p + lambda x majoriser + epsilon on the free logits + max(angle prior curvature, 0)
    + delta on the angles.
    """
    variables = Variables(problem, state.support)
    matrix = data_curvature(problem, state, rho, variables)
    for k, index in enumerate(variables.border):
        _add_decoder_block(matrix, index, decoder_precision(problem, rho, k))
        for i in np.flatnonzero(state.support[:, k]):
            at = variables.coord[i, k]
            matrix[at, at] += max(angle_curvature(state.coords[i, k], rho.ard(k)), 0.0) + COMPACT_STIFFNESS
    for i, logits in enumerate(state.logits):
        at = variables.logit[i]
        matrix[at, at] += rho.lambda_sparse() * majoriser(logits, problem.temperature) + problem.logit_precision
    return matrix


def exact_hessian(problem: Problem, state: State, rho: Rho) -> Array:
    """A = d^2 L / dtheta^2 (D, D).

    Against H, the data part gains w_i r_i . (second derivatives of z-hat) / phi, and no prior is majorised.
    """
    variables = Variables(problem, state.support)
    matrix = np.zeros((variables.size, variables.size))
    for i, jets in enumerate(all_row_jets(problem, state, variables)):
        residual = jets.value - problem.data[i]
        bend = np.einsum("c,cab->ab", residual, jets.second)
        data = jets.first.T @ jets.first + bend
        matrix[np.ix_(jets.index, jets.index)] += problem.row_weights[i] * data / rho.dispersion()
    for k, index in enumerate(variables.border):
        _add_decoder_block(matrix, index, decoder_precision(problem, rho, k))
        for i in np.flatnonzero(state.support[:, k]):
            at = variables.coord[i, k]
            matrix[at, at] += angle_curvature(state.coords[i, k], rho.ard(k))
    for i, logits in enumerate(state.logits):
        at = variables.logit[i]
        prior = rho.lambda_sparse() * entropy_hessian(logits, problem.temperature)[:-1, :-1]
        matrix[np.ix_(at, at)] += prior + problem.logit_precision * np.eye(len(at))
    return matrix


def log_det(matrix: Array) -> float:
    """ln |matrix| of a positive definite matrix."""
    sign, value = np.linalg.slogdet(matrix)
    assert sign > 0
    return float(value)


def curvature_theta(problem: Problem, state: State, rho: Rho) -> Iterator[Array]:
    """dH/dtheta_a for a = 0 .. D - 1, each a dense (D, D) matrix.

    The data part is J'J / phi and dJ[:, b]/dtheta_a is the second derivative of z-hat in (a, b), so
    dH/dtheta_a = sum_i w_i (T_ia' J_i + J_i' T_ia) / phi with T_ia (p, q) that slice. A row variable moves its own row
    only, a decoder entry moves every row. P_k, epsilon and delta do not depend on theta.
    """
    variables = Variables(problem, state.support)
    rows = all_row_jets(problem, state, variables)
    coord_owner = {int(variables.coord[i, k]): (i, int(k)) for i, k in zip(*np.nonzero(state.support), strict=True)}
    logit_owner = {int(variables.logit[i, w]): (i, w) for i, w in np.ndindex(*variables.logit.shape)}
    for a in range(variables.size):
        change = np.zeros((variables.size, variables.size))
        for i, jets in enumerate(rows):
            _add_row_change(change, jets, a, problem.row_weights[i] / rho.dispersion())
        if a in logit_owner:
            i, w = logit_owner[a]
            at = variables.logit[i]
            slope = majoriser_derivative(state.logits[i], problem.temperature)[:, w]
            change[at, at] += rho.lambda_sparse() * slope
        if a in coord_owner:
            i, k = coord_owner[a]
            if angle_curvature(state.coords[i, k], rho.ard(k)) > 0:
                change[a, a] += angle_third(state.coords[i, k], rho.ard(k))
        yield change


def _add_row_change(change: Array, jets: RowJets, a: int, scale: float) -> None:
    """Add scale (T' J + J' T), T = the second derivatives of z-hat_i in (theta_a, .)."""
    local = np.flatnonzero(jets.index == a)
    if len(local) == 0:
        return
    half = jets.second[:, local[0], :].T @ jets.first
    change[np.ix_(jets.index, jets.index)] += scale * (half + half.T)


def curvature_rho(problem: Problem, state: State, rho: Rho) -> list[Array]:
    """dH/drho_j, one dense (D, D) matrix for each entry of ``rho.to_flat()``."""
    variables = Variables(problem, state.support)
    changes = [np.zeros((variables.size, variables.size)) for _ in rho.to_flat()]
    for i, logits in enumerate(state.logits):
        at = variables.logit[i]
        changes[0][at, at] += rho.lambda_sparse() * majoriser(logits, problem.temperature)
    changes[-1] -= data_curvature(problem, state, rho, variables)
    for k, index in enumerate(variables.border):
        _add_decoder_block(changes[1 + k], index, smoothness_term(problem, rho, k))
        changes[-1] -= changes[1 + k]
        if rho.ard(k) is not None:
            for i in np.flatnonzero(state.support[:, k]):
                at = variables.coord[i, k]
                # The prior curvature is proportional to alpha, so its derivative in ln alpha is itself.
                changes[rho.ard_position(k)][at, at] = max(angle_curvature(state.coords[i, k], rho.ard(k)), 0.0)
    return changes


def gauge_atoms(problem: Problem, rho: Rho) -> list[int]:
    """Atoms whose angle can be turned freely: a von Mises prior fixes the origin of its atom's angle."""
    return [k for k in range(problem.n_atoms) if rho.ard(k) is None]


def gauge(problem: Problem, state: State, rho: Rho) -> Array:
    """G (D, J): one column for each freely turning atom, 1 on its supported angles and R_k B_k on its decoder.

    An unsupported angle is not a variable, and its gate is 0, so it needs no entry for the fit to stay the same.
    """
    variables = Variables(problem, state.support)
    atoms = gauge_atoms(problem, rho)
    generators = np.zeros((variables.size, len(atoms)))
    for column, k in enumerate(atoms):
        generators[variables.coord[state.support[:, k], k], column] = 1.0
        generators[variables.border[k], column] = rotation_generator(problem.harmonics[k]) @ state.decoders[k]
    return generators


def pin_orbits(problem: Problem, state: State, rho: Rho, hessian: Array) -> Array:
    """A + UU' for a given A, invertible where A is flat along the orbits; U spans the decoder rows of G.

    Solutions of (A + UU') x = b do not depend on the length of U when G'b = 0. Its length makes UU' about as stiff as A
    on the decoders: the decoder rows of G grow with the data while A shrinks, so without it the sum would lose digits.
    """
    border = slice(Variables(problem, state.support).border_start, None)
    pin = gauge(problem, state, rho)
    pin[: border.start] = 0.0
    stiffness = np.mean(np.diag(hessian)[border])
    pin *= np.sqrt(stiffness) / np.maximum(np.linalg.norm(pin, axis=0), np.finfo(float).tiny)
    return hessian + pin @ pin.T


def gauge_theta(problem: Problem, state: State, rho: Rho) -> Iterator[Array]:
    """dG/dtheta_a (D, J) for a = 0 .. D - 1: G is linear in the decoders and does not depend on logits and angles."""
    variables = Variables(problem, state.support)
    atoms = gauge_atoms(problem, rho)
    for a in range(variables.size):
        change = np.zeros((variables.size, len(atoms)))
        for column, k in enumerate(atoms):
            for m, c in np.argwhere(variables.border[k] == a):
                change[variables.border[k][:, c], column] = rotation_generator(problem.harmonics[k])[:, m]
        yield change
