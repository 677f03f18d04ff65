"""The penalised objective L(theta; rho) of chapter 1.2 with every normaliser, and its first derivatives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .ard import LN_2PI, angle_energy, angle_energy_log_alpha, angle_gradient
from .basis import circle_basis, null_projector, roughness
from .gate import entropy, entropy_gradient, gate_jets, log_normaliser
from .jets import all_row_jets
from .problem import Problem, Rho, State, Variables

Array = NDArray[np.float64]


def gates(problem: Problem, state: State) -> Array:
    """(n, K) gates: softmax over each row's support, exactly 0 elsewhere."""
    rows = zip(state.logits, state.support, strict=True)
    return np.array([gate_jets(logits, support, problem.temperature)[0] for logits, support in rows])


def reconstruct(problem: Problem, state: State) -> Array:
    """z-hat (n, p)."""
    a, z_hat = gates(problem, state), np.zeros((problem.n_rows, problem.n_outputs))
    for i in range(problem.n_rows):
        for k, decoder in enumerate(state.decoders):
            phi, _, _ = circle_basis(state.coords[i, k], problem.harmonics[k])
            z_hat[i] += a[i, k] * phi @ decoder
    return z_hat


def smoothness_term(problem: Problem, rho: Rho, k: int) -> Array:
    """lambda_k S_k / phi (M, M): the part of P_k that depends on rho; the strength is relative to the noise."""
    return rho.lambda_smooth(k) * roughness(problem.harmonics[k]) / rho.dispersion()


def decoder_precision(problem: Problem, rho: Rho, k: int) -> Array:
    """P_k = lambda_k S_k / phi + N_k / s^2 (M, M); the second term makes the prior proper."""
    return smoothness_term(problem, rho, k) + null_projector(problem.harmonics[k]) / problem.data_variance


def loss_parts(problem: Problem, state: State, rho: Rho) -> dict[str, float]:
    """The named parts of L; they sum to L."""
    n, p, n_atoms = problem.n_rows, problem.n_outputs, problem.n_atoms
    phi, lam, eps = rho.dispersion(), rho.lambda_sparse(), problem.logit_precision

    squares = (problem.row_weights[:, None] * (reconstruct(problem, state) - problem.data) ** 2).sum()
    data_fit = squares / (2 * phi) + n * p / 2 * (LN_2PI + rho.log_dispersion)

    smoothness = 0.0
    for k, decoder in enumerate(state.decoders):
        precision = decoder_precision(problem, rho, k)
        smoothness += 0.5 * np.trace(decoder.T @ precision @ decoder)
        smoothness += -p / 2 * np.linalg.slogdet(precision)[1] + precision.shape[0] * p / 2 * LN_2PI

    sparsity = logit_prior = 0.0
    if n_atoms > 1:
        log_z, _ = log_normaliser(lam, problem.node_logits, problem.temperature)
        sparsity = lam * entropy(state.logits, problem.temperature).sum() + n * log_z
        logit_prior = 0.5 * eps * (state.logits[:, :-1] ** 2).sum() - n * (n_atoms - 1) / 2 * (np.log(eps) - LN_2PI)

    # Every angle counts here, supported or not; the evidence takes the unsupported ones out again.
    ard = sum(angle_energy(t, rho.ard(k)) for k in range(n_atoms) for t in state.coords[:, k])
    return {
        "data_fit": float(data_fit),
        "sparsity": float(sparsity),
        "smoothness": float(smoothness),
        "ard": float(ard),
        "logit_prior": float(logit_prior),
    }


def loss(problem: Problem, state: State, rho: Rho) -> float:
    """L(theta; rho)."""
    return sum(loss_parts(problem, state, rho).values())


def data_gradient(problem: Problem, state: State, rho: Rho) -> Array:
    """Gradient of the data fit in theta: sum_i w_i J_i' r_i / phi."""
    variables = Variables(problem, state.support)
    gradient = np.zeros(variables.size)
    for i, jets in enumerate(all_row_jets(problem, state, variables)):
        residual = jets.value - problem.data[i]
        gradient[jets.index] += problem.row_weights[i] * jets.first.T @ residual / rho.dispersion()
    return gradient


def sparsity_gradient(problem: Problem, state: State, rho: Rho) -> Array:
    """Gradient of lambda_sparse x entropy in theta."""
    variables = Variables(problem, state.support)
    gradient = np.zeros(variables.size)
    for i, logits in enumerate(state.logits):
        gradient[variables.logit[i]] = rho.lambda_sparse() * entropy_gradient(logits, problem.temperature)[:-1]
    return gradient


def smoothness_gradient(problem: Problem, state: State, rho: Rho, k: int) -> Array:
    """Gradient of 1/2 tr(B_k' (lambda_k S_k / phi) B_k) in theta."""
    variables = Variables(problem, state.support)
    gradient = np.zeros(variables.size)
    gradient[variables.border[k]] = smoothness_term(problem, rho, k) @ state.decoders[k]
    return gradient


def ard_gradient(problem: Problem, state: State, rho: Rho, k: int) -> Array:
    """Gradient of the angle prior of atom k in theta; only supported angles are variables."""
    variables = Variables(problem, state.support)
    gradient = np.zeros(variables.size)
    for i in np.flatnonzero(state.support[:, k]):
        gradient[variables.coord[i, k]] = angle_gradient(state.coords[i, k], rho.ard(k))
    return gradient


def gradient_theta(problem: Problem, state: State, rho: Rho) -> Array:
    """dL/dtheta (D,)."""
    variables = Variables(problem, state.support)
    gradient = data_gradient(problem, state, rho) + sparsity_gradient(problem, state, rho)
    gradient[variables.logit] += problem.logit_precision * state.logits[:, :-1]
    for k, decoder in enumerate(state.decoders):
        gradient += smoothness_gradient(problem, state, rho, k) + ard_gradient(problem, state, rho, k)
        gradient[variables.border[k]] += null_projector(problem.harmonics[k]) @ decoder / problem.data_variance
    return gradient


def loss_rho(problem: Problem, state: State, rho: Rho) -> Array:
    """dL/drho at fixed theta, in the order of ``rho.to_flat()``."""
    n, p, n_atoms = problem.n_rows, problem.n_outputs, problem.n_atoms
    gradient = np.zeros(len(rho.to_flat()))
    if n_atoms > 1:
        total = entropy(state.logits, problem.temperature).sum()
        _, d_log_z = log_normaliser(rho.lambda_sparse(), problem.node_logits, problem.temperature)
        gradient[0] = rho.lambda_sparse() * total + n * d_log_z
    squares = (problem.row_weights[:, None] * (reconstruct(problem, state) - problem.data) ** 2).sum()
    gradient[-1] = -squares / (2 * rho.dispersion()) + n * p / 2
    for k, decoder in enumerate(state.decoders):
        # P_k depends on ln lambda_k through + lambda_k S_k / phi and on ln phi through minus the same matrix.
        slope = smoothness_term(problem, rho, k)
        change = 0.5 * np.trace(decoder.T @ slope @ decoder)
        change -= p / 2 * np.trace(np.linalg.solve(decoder_precision(problem, rho, k), slope))
        gradient[1 + k] = change
        gradient[-1] -= change
        alpha = rho.ard(k)
        if alpha is not None:
            gradient[rho.ard_position(k)] = sum(angle_energy_log_alpha(t, alpha) for t in state.coords[:, k])
    return gradient


def mixed_theta_rho(problem: Problem, state: State, rho: Rho) -> Array:
    """d^2 L / dtheta drho (D, len(rho)): each part of the gradient is proportional to its own strength."""
    columns = np.zeros((Variables(problem, state.support).size, len(rho.to_flat())))
    columns[:, 0] = sparsity_gradient(problem, state, rho)
    columns[:, -1] = -data_gradient(problem, state, rho)
    for k in range(problem.n_atoms):
        columns[:, 1 + k] = smoothness_gradient(problem, state, rho, k)
        columns[:, -1] -= columns[:, 1 + k]
        if rho.ard(k) is not None:
            columns[:, rho.ard_position(k)] = ard_gradient(problem, state, rho, k)
    return columns
