"""The curvature H of the evidence, the exact Hessian A of L, the derivatives of H, and the gauge generators G.

Every matrix is in the frames of the state: a derivative along a coordinate is the covariant one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from . import extended
from .atoms import Generator
from .jets import RowJets, all_row_jets
from .objective import decoder_precision, held_logits, smoothness_term, weighted_basis
from .priors import places
from .problem import Problem, Rho, State, Variables, variables_of

Array = NDArray[np.float64]


UNSEEN = 1e-12
"""Part of the largest entry of the rows' Gram below which a decoder column is rounding of zero."""


class InfeasibleError(ArithmeticError):
    """H is not positive definite, so there is no evidence at these strengths."""


def _add_decoder_block(matrix: Array, index: NDArray[np.int_], block: Array) -> None:
    """Add ``block`` (M, M) x I_p on the decoder variables ``index`` (M, p)."""
    for c in range(index.shape[1]):
        matrix[np.ix_(index[:, c], index[:, c])] += block


def data_curvature(problem: Problem, state: State, rho: Rho) -> Array:
    """Gauss-Newton part: sum_i w_i J_i' J_i / phi."""
    variables = variables_of(problem, state)
    matrix = np.zeros((variables.size, variables.size))
    for i, jets in enumerate(all_row_jets(problem, state, rho)):
        matrix[np.ix_(jets.index, jets.index)] += problem.row_weights[i] * jets.first.T @ jets.first / rho.dispersion()
    return matrix


def curvature(problem: Problem, state: State, rho: Rho) -> Array:
    """H (D, D) of chapter 1.3, positive definite by construction but for the coupling of the IBP gate.

    Gauss-Newton data part + P_k x I_p + the gate prior's majoriser + epsilon on the free logits + max(coordinate prior
    curvature, 0) + delta on compact coordinates.
    """
    variables = variables_of(problem, state)
    matrix = data_curvature(problem, state, rho)
    for k, index in enumerate(variables.border):
        _add_decoder_block(matrix, index, decoder_precision(problem, rho, k))
    for place in places(problem, state, rho, supported=True):
        bend = place.factor.curvature(place.t, place.alpha)
        matrix[place.index, place.index] += np.maximum(bend, 0.0) + place.factor.ridge(place.t)
    prior = problem.gate.majoriser(state.logits, state.support, rho.log_lambda_sparse)
    _add_logit_block(matrix, variables, prior + np.diag(gaussian_curvature(problem, state)))
    if problem.classic:
        # outside the support a logit that no prior holds either counts ln 1
        for at in variables.logit[~state.support[:, : problem.n_free]]:
            matrix[at, at] = matrix[at, at] if matrix[at, at] > 0 else 1.0
    for direction in unseen_directions(problem, state, rho):
        _add_decoder_direction(matrix, variables, direction)
    return matrix


def gaussian_curvature(problem: Problem, state: State) -> Array:
    """(N,) curvature of the free logits' Gaussian.

    A held logit is no variable. It keeps its place in theta, with the curvature that contributes nothing to V: with its
    share of the constants, 1/2 ln(2 pi) - 1/2 ln(2 pi), or 1/2 ln 1 in the classic mode, which has no constants.
    """
    still = 1.0 if problem.classic else 2 * np.pi
    return np.where(held_logits(problem, state), still, problem.logit_precision).ravel()


def unseen_directions(problem: Problem, state: State, rho: Rho) -> list[Array]:
    """Stacked decoder columns (M,) that neither the roughness nor any row sees: only the classic mode has any.

    They get unit stiffness, so that each counts ln 1 = 0.
    """
    if not problem.classic:
        return []
    phi = weighted_basis(problem, state, rho)
    gram = phi.T @ (problem.row_weights[:, None] * phi) / rho.dispersion()
    null = block_diag(*problem.null_projectors)
    values, vectors = np.linalg.eigh(null @ gram @ null + (np.eye(len(null)) - null) * np.trace(gram))
    return list(vectors[:, values < UNSEEN * gram.diagonal().max()].T)


def _add_decoder_direction(matrix: Array, variables: Variables, direction: Array) -> None:
    """Add direction direction' (M, M) x I_p on the border."""
    border = np.concatenate(variables.border)
    _add_decoder_block(matrix, border, np.outer(direction, direction))


def _add_logit_block(matrix: Array, variables: Variables, block: Array) -> None:
    """Add ``block`` (N, N) on the free logits of all rows, as far as they are variables."""
    index, free = variables.logit[variables.free], variables.free.ravel()
    matrix[np.ix_(index, index)] += block[np.ix_(free, free)]


def exact_hessian(problem: Problem, state: State, rho: Rho) -> Array:
    """A = d^2 L / dtheta^2 (D, D).

    Against H, the data part gains w_i r_i . (second derivatives of z-hat) / phi, no prior is majorised, and there is no
    delta.
    """
    variables = variables_of(problem, state)
    matrix = np.zeros((variables.size, variables.size))
    for i, jets in enumerate(all_row_jets(problem, state, rho)):
        residual = jets.value - problem.data[i]
        bend = np.tensordot(residual, jets.second, axes=1)
        data = jets.first.T @ jets.first + bend
        matrix[np.ix_(jets.index, jets.index)] += problem.row_weights[i] * data / rho.dispersion()
    for k, index in enumerate(variables.border):
        _add_decoder_block(matrix, index, decoder_precision(problem, rho, k))
    for place in places(problem, state, rho, supported=True):
        matrix[place.index, place.index] += place.factor.curvature(place.t, place.alpha)
    prior = problem.gate.hessian(state.logits, state.support, rho.log_lambda_sparse)
    _add_logit_block(matrix, variables, prior + np.diag(gaussian_curvature(problem, state)))
    return matrix


def log_det(matrix: Array) -> float:
    """ln |matrix| of a positive definite matrix."""
    try:
        return extended.log_det(matrix)
    except extended.NotPositiveError as error:
        raise InfeasibleError from error


def coupling(problem: Problem, state: State, rho: Rho) -> Array:
    """The part of H that ties rows together beyond the border: the gate's coupling, on the logits."""
    variables = variables_of(problem, state)
    matrix = np.zeros((variables.size, variables.size))
    _add_logit_block(matrix, variables, problem.gate.coupling(state.logits, state.support, rho.log_lambda_sparse))
    return matrix


def curvature_theta(problem: Problem, state: State, rho: Rho) -> Iterator[Array]:
    """dH/dtheta_a for a = 0 .. D - 1, each a dense (D, D) matrix.

    The data part is J'J / phi and dJ[:, b]/dtheta_a is the second derivative of z-hat in (a, b), so
    dH/dtheta_a = sum_i w_i (T_ia' J_i + J_i' T_ia) / phi with T_ia (p, q) that slice. A row variable moves its own row
    only, a decoder entry moves every row. P_k, epsilon and delta do not depend on theta.
    """
    variables = variables_of(problem, state)
    rows = all_row_jets(problem, state, rho)
    gate = problem.gate.majoriser_theta(state.logits, state.support, rho.log_lambda_sparse)
    logit_at = {int(a): w for w, a in enumerate(variables.logit.ravel()) if a >= 0}
    prior = np.zeros(variables.size)
    for place in places(problem, state, rho, supported=True):
        bends = place.factor.curvature(place.t, place.alpha) > 0
        prior[place.index] = bends * place.factor.third(place.t, place.alpha)
    for a in range(variables.size):
        change = np.zeros((variables.size, variables.size))
        for i, jets in enumerate(rows):
            _add_row_change(change, jets, a, problem.row_weights[i] / rho.dispersion())
        change[a, a] += prior[a]
        if a in logit_at:
            _add_logit_block(change, variables, gate[:, :, logit_at[a]])
        yield change


def _add_row_change(change: Array, jets: RowJets, a: int, scale: float) -> None:
    """Add scale (T' J + J' T), T = the second derivatives of z-hat_i in (theta_a, .)."""
    local = np.flatnonzero(jets.index == a)
    if len(local) == 0:
        return
    half = jets.second[:, local[0], :].T @ jets.first
    change[np.ix_(jets.index, jets.index)] += scale * (half + half.T)


def coupling_theta(problem: Problem, state: State, rho: Rho) -> Iterator[Array]:
    """Derivative of ``coupling`` in theta_a for a = 0 .. D - 1."""
    variables = variables_of(problem, state)
    gate = problem.gate.coupling_theta(state.logits, state.support, rho.log_lambda_sparse)
    logit_at = {int(a): w for w, a in enumerate(variables.logit.ravel()) if a >= 0}
    for a in range(variables.size):
        change = np.zeros((variables.size, variables.size))
        if a in logit_at:
            _add_logit_block(change, variables, gate[:, :, logit_at[a]])
        yield change


def curvature_rho(problem: Problem, state: State, rho: Rho) -> list[Array]:
    """dH/drho_j, one dense (D, D) matrix for each entry of ``rho.to_flat()``."""
    variables = variables_of(problem, state)
    changes = [np.zeros((variables.size, variables.size)) for _ in rho.to_flat()]
    data = data_curvature(problem, state, rho)
    # Every column of J is proportional to the scale of its atom's gate.
    slopes = variables.atom_values(problem.gate.log_slopes(problem.n_atoms, rho.log_lambda_sparse))
    changes[0] += (slopes[:, None] + slopes[None, :]) * data
    prior = problem.gate.majoriser_strength(state.logits, state.support, rho.log_lambda_sparse)
    _add_logit_block(changes[0], variables, prior)
    changes[-1] -= data
    for k, index in enumerate(variables.border):
        _add_decoder_block(changes[1 + k], index, smoothness_term(problem, rho, k))
        changes[-1] -= changes[1 + k]
    for place in places(problem, state, rho, supported=True):
        if place.alpha is not None:
            # The prior curvature is proportional to alpha, so its derivative in ln alpha is itself.
            bend = np.maximum(place.factor.curvature(place.t, place.alpha), 0.0)
            for at, slot, value in zip(place.index, place.ard, bend, strict=True):
                changes[slot][at, at] += value
    return changes


def coupling_rho(problem: Problem, state: State, rho: Rho) -> list[Array]:
    """Derivative of ``coupling`` in each entry of ``rho.to_flat()``."""
    variables = variables_of(problem, state)
    changes = [np.zeros((variables.size, variables.size)) for _ in rho.to_flat()]
    strength = problem.gate.coupling_strength(state.logits, state.support, rho.log_lambda_sparse)
    _add_logit_block(changes[0], variables, strength)
    return changes


def gauge_generators(problem: Problem, state: State, rho: Rho) -> list[tuple[int, Generator]]:
    """Free motions of the dictionary, each with its atom.

    A prior with precisions fixes the origin of its atom's coordinates, and the decoder of an atom without rows is zero.
    """
    free = [k for k in range(problem.n_atoms) if rho.ard(k) is None and state.support[:, k].any()]
    return [(k, generator) for k in free for generator in problem.atoms[k].generators()]


def gauge(problem: Problem, state: State, rho: Rho) -> Array:
    """G (D, J): the velocity of each motion on its atom's supported coordinates, and -Q B_k on its decoder.

    An unsupported coordinate is not a variable, and its gate is 0, so it needs no entry for the fit to stay the same.
    """
    variables = variables_of(problem, state)
    generators = gauge_generators(problem, state, rho)
    tangents = np.zeros((variables.size, len(generators)))
    for column, (k, generator) in enumerate(generators):
        for i in state.rows_of(k):
            tangents[variables.coord[k][i], column] = generator.velocity(state.coords[k][i])
        tangents[variables.border[k], column] = -generator.basis_map @ state.decoders[k]
    return tangents


def gauge_theta(problem: Problem, state: State, rho: Rho) -> Iterator[Array]:
    """dG/dtheta_a (D, J) for a = 0 .. D - 1: linear in the decoders, the covariant derivative of v in a coordinate."""
    variables = variables_of(problem, state)
    generators = gauge_generators(problem, state, rho)
    changes = np.zeros((variables.size, variables.size, len(generators)))
    for column, (k, generator) in enumerate(generators):
        for i in state.rows_of(k):
            at = variables.coord[k][i]
            changes[np.ix_(at, at, [column])] = generator.slope(state.coords[k][i]).T[:, :, None]
        for m, c in np.ndindex(*variables.border[k].shape):
            changes[variables.border[k][m, c], variables.border[k][:, c], column] = -generator.basis_map[:, m]
    yield from changes


def log_group_volume(problem: Problem, state: State, rho: Rho) -> float:
    """ln of the volume of the group of free motions."""
    moved = {k for k, _ in gauge_generators(problem, state, rho)}
    return sum(problem.atoms[k].log_group_volume for k in moved)


def pin_orbits(problem: Problem, state: State, rho: Rho, hessian: Array) -> Array:
    """A + UU' for a given A, invertible where A is flat along the orbits; U spans the decoder rows of G.

    Solutions of (A + UU') x = b do not depend on the length of U when G'b = 0. Its length makes UU' about as stiff as A
    on the decoders: the decoder rows of G grow with the data while A shrinks, so without it the sum would lose digits.

    In the classic mode a variable that nothing depends on, such as the logit of a closed gate, gets a unit diagonal,
    and so do decoder columns that nothing sees.
    """
    border = slice(variables_of(problem, state).border_start, None)
    pin = gauge(problem, state, rho)
    pin[: border.start] = 0.0
    stiffness = np.mean(np.diag(hessian)[border])
    pin *= np.sqrt(stiffness) / np.maximum(np.linalg.norm(pin, axis=0), np.finfo(float).tiny)
    idle = ~hessian.any(axis=1)
    pinned = hessian + pin @ pin.T + np.diag(idle.astype(float))
    for direction in unseen_directions(problem, state, rho):
        _add_decoder_direction(pinned, variables_of(problem, state), direction)
    return pinned
