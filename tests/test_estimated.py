"""Determinants that are estimated: near the exact ones, with the exact gradient of the estimate."""

from __future__ import annotations

import os
from functools import cache

import numpy as np
import pytest

from sae_rs import IBP, Circle, Line, ManifoldSAE, Patch, Softmax, Sphere, ThresholdGate, _core
from sae_rs.atoms import Atom
from sae_rs.gates import Gate

# rows of three chunks, so that sums over them have an order
N_ROWS, N_OUTPUTS = 300, 8
# Recurrences end where their forms change by 1e-13: a derivative made of the same vectors is good to the root of that.
CONSISTENT = 3e-6
CASES: dict[str, tuple[list[Atom], Gate]] = {
    "circles, threshold": ([Circle(), Circle(), Circle()], ThresholdGate()),
    "spheres, softmax": ([Sphere(), Sphere()], Softmax()),
    "patches, softmax": ([Patch(2, degree=2), Patch(2, degree=2)], Softmax()),
    "a circle and lines, threshold": ([Circle(), Line(), Line()], ThresholdGate()),
    "circles, IBP": ([Circle(), Circle(), Circle()], IBP()),
    "circles, threshold, weights": ([Circle(), Circle(), Circle()], ThresholdGate()),
}


@cache
def optimum(case: str) -> tuple[_core.SaeManifoldTerm, _core.SaeManifoldRho]:
    """A converged state on rows that use each of three circles four times in ten."""
    atoms, gate = CASES[case]
    rng = np.random.default_rng(0)
    planes = np.linalg.qr(rng.standard_normal((N_OUTPUTS, 6)))[0].T
    radius = rng.uniform(0.85, 1.15, (N_ROWS, 3)) * (rng.random((N_ROWS, 3)) < 0.4)
    angle = rng.uniform(0.0, 2.0 * np.pi, (N_ROWS, 3))
    X = radius * np.cos(angle) @ planes[::2] + radius * np.sin(angle) @ planes[1::2]
    X += 0.04 * rng.standard_normal(X.shape)
    specs = [atom.spec() for atom in atoms]
    weights = rng.choice([0.5, 1.0, 2.0], N_ROWS) if "weights" in case else None
    ((term, rho),) = _core.SaeManifoldTerm.seeds(X, specs, gate.spec(len(atoms)), weights=weights, n_init=1)
    term, _ = term.refreshed(rho)
    return term.evaluate(rho, gradient=False).term, rho


@pytest.mark.parametrize("case", CASES)
def test_the_estimate_is_near_the_determinant(case: str) -> None:
    term, rho = optimum(case)
    exact = term.evaluate(rho, max_inner=0, elimination="primal", gradient=False)
    estimate = term.evaluate(rho, max_inner=0, elimination="stochastic", gradient=False)
    assert exact.standard_error is None
    assert estimate.standard_error is not None
    assert 0.0 < estimate.standard_error < 5.0
    # Student's t with seven degrees of freedom is beyond five once in seven hundred draws
    assert abs(estimate.value - exact.value) < 5.0 * estimate.standard_error


# An inner solve of several steps drifts along the orbits, which an exact determinant does not see and an estimate does:
# differences along its path are then off by up to a thousandth.
DRIFTS = pytest.mark.xfail(strict=True, reason="the inner solve drifts along orbits, which the estimate sees")


@pytest.mark.parametrize("case", [pytest.param(c, marks=DRIFTS) if c == "circles, IBP" else c for c in CASES])
def test_the_gradient_is_that_of_the_estimate(case: str) -> None:
    """Against fourth-order differences of V with the probes and the whitening held, as a search holds them.

    Steps are short, since what an inner solve drifts grows with them.
    """
    start, rho = optimum(case)
    evaluation = start.evaluate(rho, elimination="stochastic")
    flat, term, step = np.array(rho.to_flat()), evaluation.term, 5e-4

    def value(entry: int, shift: float) -> float:
        moved = flat.copy()
        moved[entry] += shift
        found = term.evaluate(rho.from_flat(moved), tol=1e-12, elimination="stochastic", gradient=False)
        return float(found.value)

    for entry in range(len(flat)):
        near, far = (value(entry, s * step) - value(entry, -s * step) for s in (1.0, 2.0))
        difference = (8.0 * near - far) / (12.0 * step)
        assert evaluation.gradient[entry] == pytest.approx(difference, rel=CONSISTENT, abs=CONSISTENT), entry


@pytest.mark.parametrize("case", CASES)
def test_explicit_gradients_are_those_of_the_estimate(case: str) -> None:
    """At a state that does not move every entry can be compared."""
    start, rho = optimum(case)
    term = start.evaluate(rho, elimination="stochastic").term
    found = term.evaluate(rho, max_inner=0, elimination="stochastic", gradient=False, traces=True).explicit_gradient
    flat, step = np.array(rho.to_flat()), 1e-3

    def value(entry: int, shift: float) -> float:
        moved = flat.copy()
        moved[entry] += shift
        there = rho.from_flat(moved)
        return float(term.evaluate(there, max_inner=0, elimination="stochastic", gradient=False).value)

    for entry in range(len(flat)):
        near, far = (value(entry, s * step) - value(entry, -s * step) for s in (1.0, 2.0))
        difference = (8.0 * near - far) / (12.0 * step)
        assert found[entry] == pytest.approx(difference, rel=CONSISTENT, abs=CONSISTENT), entry


@pytest.mark.parametrize("case", CASES)
def test_an_estimate_goes_as_far_as_the_inner_tolerance(case: str) -> None:
    """An inner decrement of tol·sqrt(np) leaves V about tol·np nats: no more is lost with the estimate."""
    start, rho = optimum(case)
    term = start.evaluate(rho, tol=1e-12, elimination="stochastic").term
    exact = term.evaluate(rho, tol=1e-14, max_inner=0, elimination="stochastic")
    for tol in (1e-3, 1e-5, 1e-7):
        loose = term.evaluate(rho, tol=tol, max_inner=0, elimination="stochastic")
        nats = tol * N_ROWS * N_OUTPUTS
        assert abs(loose.value - exact.value) < 0.1 * nats
        np.testing.assert_allclose(loose.explicit_gradient, exact.explicit_gradient, rtol=0.0, atol=nats)
        np.testing.assert_allclose(loose.gradient, exact.gradient, rtol=0.0, atol=nats)


def test_one_thread_has_the_bits_of_two() -> None:
    term, rho = optimum("circles, threshold")
    one, two = (term.evaluate(rho, elimination="stochastic", threads=threads) for threads in (1, 2))
    assert one.value == two.value
    np.testing.assert_array_equal(one.gradient, two.gradient)


def test_what_whitens_stays_with_a_search_and_not_with_other_supports() -> None:
    term, rho = optimum("circles, threshold")
    searched = term.evaluate(rho, elimination="stochastic").term
    elsewhere = rho.from_flat(np.array(rho.to_flat()) + 0.3)
    held = searched.evaluate(elsewhere, elimination="stochastic")
    anew = held.term.refreshed(elsewhere)[0].evaluate(elsewhere, max_inner=0, elimination="stochastic")
    assert held.value != anew.value
    assert abs(held.value - anew.value) < 5.0 * (held.standard_error + anew.standard_error)


def test_small_borders_are_exact_and_large_ones_estimated() -> None:
    def method(n_atoms: int) -> str:
        sizes = {"atom_widths": [7] * n_atoms, "atom_dims": [1] * n_atoms, "atom_ambients": [1] * n_atoms}
        plan = _core.plan(4000, 160, **sizes, free_logits=n_atoms, active=0.2 * n_atoms, tied=True)
        return str(plan["method"])

    assert (method(7), method(64)) == ("dense", "stochastic")


def test_the_adjoint_in_the_inner_variables_is_refused() -> None:
    rng = np.random.default_rng(0)
    atoms, gate = [Circle()] * 20, ThresholdGate()
    X = rng.standard_normal((900, 80))
    ((term, rho),) = _core.SaeManifoldTerm.seeds(X, [a.spec() for a in atoms], gate.spec(20), n_init=1)
    assert term.plan()["method"] == "stochastic"
    with pytest.raises(ValueError, match="the determinant is estimated"):
        term.logdet_theta_adjoint(rho)


@pytest.mark.skipif(os.environ.get("SAE_RS_SLOW") != "1", reason="takes minutes; SAE_RS_SLOW=1 runs it")
def test_many_overlapping_circles_are_found() -> None:
    """Planes within 0.1 rad; five of 24 circles on a row, a border of 10,080 variables."""
    rng = np.random.default_rng(0)
    n, k, p = 1500, 24, 60
    planes = np.linalg.qr(rng.standard_normal((p, 2 * k)))[0].T.reshape(k, 2, p)
    radius = rng.uniform(0.85, 1.15, (n, k)) * (rng.random((n, k)) < 0.2)
    angle = rng.uniform(0.0, 2.0 * np.pi, (n, k))
    clean = radius * np.cos(angle) @ planes[:, 0] + radius * np.sin(angle) @ planes[:, 1]
    model = ManifoldSAE(k, "circle", gate=ThresholdGate()).fit(clean + 0.04 * rng.standard_normal((n, p)))
    assert model.converged_
    assert model.certificate_.log_det == "stochastic"
    assert model.certificate_.standard_error is not None
    spans = [np.linalg.svd(decoder[1:], full_matrices=False)[2][:2] for decoder in model.decoders_]
    for plane in planes:
        cosines = [np.linalg.svd(plane @ span.T, compute_uv=False).min() for span in spans]
        assert np.arccos(min(max(cosines), 1.0)) < 0.1
