"""The penalised objective L(theta; rho) of chapter 1.2 with every normaliser, and its first derivatives.

The classic mode leaves out what does not move the inner optimum or belongs to proper priors only: the constant of the
data fit, the normalisers of decoders, logits and gates, the Gaussian of the logits, the null-space prior of the
decoders and the volumes of the charts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .factors import LN_2PI
from .jets import all_row_jets, basis_jets
from .priors import coordinate_energy, coordinate_energy_rho, places
from .problem import Problem, Rho, State, variables_of

Array = NDArray[np.float64]


def gates(problem: Problem, state: State, rho: Rho) -> Array:
    """(n, K) gates, exactly 0 off the support."""
    rows = zip(state.logits, state.support, strict=True)
    return np.array([problem.gate.jets(logits, support, rho.log_lambda_sparse)[0] for logits, support in rows])


def contributions(problem: Problem, state: State, rho: Rho) -> Array:
    """a_ik gamma_k(t_ik), an array (K, n, p): what each atom adds to each row."""
    a, parts = gates(problem, state, rho), np.zeros((problem.n_atoms, problem.n_rows, problem.n_outputs))
    for k, (atom, decoder) in enumerate(zip(problem.atoms, state.decoders, strict=True)):
        for i in state.rows_of(k):
            parts[k, i] = a[i, k] * basis_jets(atom, state.coords[k][i]).phi @ decoder
    return parts


def weighted_basis(problem: Problem, state: State, rho: Rho) -> Array:
    """phi_i = (a_ik Phi_k(t_ik))_k, an array (n, M)."""
    a = gates(problem, state, rho)
    phi = [
        np.array([a[i, k] * basis_jets(atom, state.coords[k][i]).phi for i in range(problem.n_rows)])
        for k, atom in enumerate(problem.atoms)
    ]
    return np.hstack(phi)


def reconstruct(problem: Problem, state: State, rho: Rho) -> Array:
    """z-hat (n, p)."""
    return contributions(problem, state, rho).sum(axis=0)


def reconstruct_slope(problem: Problem, state: State, rho: Rho) -> Array:
    """d z-hat / d ln lambda_sparse (n, p), through the scale of the gates."""
    slopes = problem.gate.log_slopes(problem.n_atoms, rho.log_lambda_sparse)
    return np.tensordot(slopes, contributions(problem, state, rho), axes=1)


def held_logits(problem: Problem, state: State) -> NDArray[np.bool_]:
    """(n, F) free logits that are no variables at this state."""
    return problem.gate.held(state.logits, state.support)[:, : problem.n_free]


def charged_logits(problem: Problem, state: State) -> Array:
    """(n, K) logits as the gate's prior in L sees them: one that is no variable is where nothing is charged."""
    nowhere = np.zeros(state.support.shape, bool)
    nowhere[:, : problem.n_free] = ~problem.free_logits(state.support)
    return np.where(nowhere, -np.inf, state.logits)


def weighted_squares(problem: Problem, state: State, rho: Rho) -> float:
    """sum_i w_i |r_i|^2."""
    residual = reconstruct(problem, state, rho) - problem.data
    return float((problem.row_weights[:, None] * residual**2).sum())


def smoothness_term(problem: Problem, rho: Rho, k: int) -> Array:
    """lambda_k S_k / phi (M, M): the part of P_k that depends on rho; the strength is relative to the noise."""
    return rho.lambda_smooth(k) * problem.roughness[k] / rho.dispersion()


def null_space_term(problem: Problem, k: int) -> Array:
    """N_k / s^2 (M, M), which makes the decoder prior proper."""
    weight = 0.0 if problem.classic else 1 / problem.data_variance
    return weight * problem.null_projectors[k]


def decoder_precision(problem: Problem, rho: Rho, k: int) -> Array:
    """P_k (M, M)."""
    return smoothness_term(problem, rho, k) + null_space_term(problem, k)


def loss_parts(problem: Problem, state: State, rho: Rho) -> dict[str, float]:
    """The named parts of L; they sum to L."""
    n, p = problem.n_rows, problem.n_outputs
    log_strength, eps = rho.log_lambda_sparse, problem.logit_precision

    data_fit = weighted_squares(problem, state, rho) / (2 * rho.dispersion())
    sparsity = problem.gate.energy(charged_logits(problem, state), state.support, log_strength)
    free = problem.free_logits(state.support)
    logit_prior = 0.5 * eps * (state.logits[:, : problem.n_free][free] ** 2).sum()
    smoothness = 0.0
    for k, decoder in enumerate(state.decoders):
        smoothness += 0.5 * np.trace(decoder.T @ decoder_precision(problem, rho, k) @ decoder)

    if not problem.classic:
        data_fit += n * p / 2 * (LN_2PI + rho.log_dispersion)
        sparsity += n * problem.gate.log_normaliser(problem.n_atoms, log_strength)[0]
        logit_prior -= free.sum() / 2 * (np.log(eps) - LN_2PI)
        for k, atom in enumerate(problem.atoms):
            smoothness -= p / 2 * np.linalg.slogdet(decoder_precision(problem, rho, k))[1]
            smoothness += atom.width * p / 2 * LN_2PI
    return {
        "data_fit": float(data_fit),
        "sparsity": float(sparsity),
        "smoothness": float(smoothness),
        # Every coordinate that a row has counts here, supported or not; the evidence takes unsupported ones out again.
        "ard": sum(coordinate_energy(problem, state, rho, supported) for supported in (True, False)),
        "logit_prior": float(logit_prior),
    }


def loss(problem: Problem, state: State, rho: Rho) -> float:
    """L(theta; rho)."""
    return sum(loss_parts(problem, state, rho).values())


def data_gradient(problem: Problem, state: State, rho: Rho) -> Array:
    """Gradient of the data fit in theta: sum_i w_i J_i' r_i / phi."""
    variables = variables_of(problem, state)
    gradient = np.zeros(variables.size)
    for i, jets in enumerate(all_row_jets(problem, state, rho)):
        residual = jets.value - problem.data[i]
        gradient[jets.index] += problem.row_weights[i] * jets.first.T @ residual / rho.dispersion()
    return gradient


def smoothness_gradient(problem: Problem, state: State, rho: Rho, k: int) -> Array:
    """Gradient of 1/2 tr(B_k' (lambda_k S_k / phi) B_k) in theta."""
    variables = variables_of(problem, state)
    gradient = np.zeros(variables.size)
    gradient[variables.border[k]] = smoothness_term(problem, rho, k) @ state.decoders[k]
    return gradient


def gradient_theta(problem: Problem, state: State, rho: Rho) -> Array:
    """dL/dtheta (D,); only supported coordinates are variables."""
    variables = variables_of(problem, state)
    gradient = data_gradient(problem, state, rho)
    prior = problem.gate.gradient(state.logits, state.support, rho.log_lambda_sparse)
    gradient[variables.logit[variables.free]] += prior[variables.free.ravel()]
    moves = variables.free & ~held_logits(problem, state)
    gradient[variables.logit[moves]] += problem.logit_precision * state.logits[:, : problem.n_free][moves]
    for place in places(problem, state, rho, supported=True):
        gradient[place.index] += place.factor.gradient(place.t, place.alpha)
    for k, decoder in enumerate(state.decoders):
        gradient[variables.border[k]] += decoder_precision(problem, rho, k) @ decoder
    return gradient


def loss_rho(problem: Problem, state: State, rho: Rho) -> Array:
    """dL/drho at fixed theta, in the order of ``rho.to_flat()``."""
    n, p, log_strength = problem.n_rows, problem.n_outputs, rho.log_lambda_sparse
    gradient = coordinate_energy_rho(problem, state, rho, True) + coordinate_energy_rho(problem, state, rho, False)
    gradient[0] = problem.gate.energy_strength(charged_logits(problem, state), state.support, log_strength)
    gradient[-1] = -weighted_squares(problem, state, rho) / (2 * rho.dispersion())
    residual, pull = reconstruct(problem, state, rho) - problem.data, reconstruct_slope(problem, state, rho)
    gradient[0] += (problem.row_weights[:, None] * residual * pull).sum() / rho.dispersion()
    if not problem.classic:
        gradient[0] += n * problem.gate.log_normaliser(problem.n_atoms, log_strength)[1]
        gradient[-1] += n * p / 2
    for k, decoder in enumerate(state.decoders):
        # P_k depends on ln lambda_k through + lambda_k S_k / phi and on ln phi through minus the same matrix.
        slope = smoothness_term(problem, rho, k)
        change = 0.5 * np.trace(decoder.T @ slope @ decoder)
        if not problem.classic:
            change -= p / 2 * np.trace(np.linalg.solve(decoder_precision(problem, rho, k), slope))
        gradient[1 + k] = change
        gradient[-1] -= change
    return gradient


def mixed_theta_rho(problem: Problem, state: State, rho: Rho) -> Array:
    """d^2 L / dtheta drho (D, len(rho))."""
    variables = variables_of(problem, state)
    columns = np.zeros((variables.size, len(rho.to_flat())))
    # ln lambda_sparse: its prior, and gates it scales. A column of J belongs to one atom and is proportional to its
    # scale, so J' r moves by slope x J' r + J' (d z-hat).
    slopes = problem.gate.log_slopes(problem.n_atoms, rho.log_lambda_sparse)
    prior = problem.gate.gradient_strength(state.logits, state.support, rho.log_lambda_sparse)
    columns[:, 0] = variables.atom_values(slopes) * data_gradient(problem, state, rho)
    columns[variables.logit[variables.free], 0] += prior[variables.free.ravel()]
    pull = reconstruct_slope(problem, state, rho)
    for i, jets in enumerate(all_row_jets(problem, state, rho)):
        columns[jets.index, 0] += problem.row_weights[i] * jets.first.T @ pull[i] / rho.dispersion()
    # Everything else is proportional to its own strength.
    columns[:, -1] = -data_gradient(problem, state, rho)
    for k in range(problem.n_atoms):
        columns[:, 1 + k] = smoothness_gradient(problem, state, rho, k)
        columns[:, -1] -= columns[:, 1 + k]
    for place in places(problem, state, rho, supported=True):
        if place.alpha is not None:
            columns[place.index, place.ard] += place.factor.gradient(place.t, place.alpha)
    return columns
