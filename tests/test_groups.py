"""Atoms that no row uses together, and groups too large to be stepped exactly: the same numbers by any elimination."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from sae_rs import SaeManifoldTerm, Softmax
from small_terms import circle_points, strengths

Array = NDArray[np.float64]
INNER_TOL = 1e-10
AGREEMENT = 1e-9

CASES = {
    # two groups of two atoms, the second with rows that use one of them, and one atom alone, in fewer channels
    "three groups": ([(0, 1), (2,), (3, 4), (4,)], 2, 200, 12),
    "each alone": ([(0,), (1,), (2,)], 1, 150, 7),
    # atoms 0 and 2 share no row, but each shares some with atom 1
    "a chain": ([(0, 1), (1, 2), (3,)], 1, 200, 12),
    # with 42 basis functions in 40 channels the Schur complement is not formed to step with
    "a large group": ([(0, 1)], 10, 300, 40),
    "a large group and a small one": ([(0, 1), (2,)], 10, 400, 40),
    # blocks of the inverse for three of twenty atoms in 56 channels have 28,224 entries each: those of a chunk of 128
    # rows with as many supports are not all kept
    "many supports": (list(combinations(range(20), 3))[::9], 1, 126, 56),
}
"""Atoms of the rows in turn, harmonics, rows, columns."""
# with 1056 basis functions only what rows use together is held of their Gram matrix
MANY_ATOMS = {
    "many pairs": ([(k, k + 1) for k in range(0, 32, 2)], 16, 160, 4),
    "a long chain": ([(k, k + 1) for k in range(31)], 16, 155, 3),
}
LARGEST = {"three groups": 10 * 10, "each alone": 3 * 3, "a chain": 9 * 9}
"""Variables of the largest group: stacked basis functions times channels."""


def term_of(pairs: list[tuple[int, ...]], harmonics: int, n: int, p: int) -> SaeManifoldTerm:
    """Circles near what made their rows; row i uses the atoms ``pairs[i % len(pairs)]``."""
    rng = np.random.default_rng(0)
    n_atoms = 1 + max(k for own in pairs for k in own)
    support = np.zeros((n, n_atoms), dtype=bool)
    for i in range(n):
        support[i, list(pairs[i % len(pairs)])] = True
    # higher harmonics are smaller, as in curves worth fitting
    scale = np.array([1.0, *np.repeat(1.0 / np.arange(1, harmonics + 1) ** 2, 2)])[:, None]
    decoders = [scale * rng.standard_normal((2 * harmonics + 1, p)) for _ in range(n_atoms)]
    angles = rng.uniform(0.0, 2.0 * np.pi, (n, n_atoms))
    gates = support / support.sum(axis=1, keepdims=True)
    data = sum(gates[:, [k]] * circle_points(b, angles[:, k]) for k, b in enumerate(decoders))
    return SaeManifoldTerm(
        np.ascontiguousarray(data + 0.05 * rng.standard_normal((n, p))),
        [{"kind": "circle", "harmonics": harmonics}] * n_atoms,
        Softmax().spec(n_atoms),
        np.zeros((n, n_atoms)),
        [np.ascontiguousarray(angles[:, [k]]) for k in range(n_atoms)],
        decoders,
        support=support,
        center=False,
    )


@pytest.mark.parametrize("name", CASES)
def test_eliminations_agree(name: str) -> None:
    term = term_of(*CASES[name])
    rho = strengths(term.n_atoms, sparse=-4.0, noise=0.05)
    # one matrix over all atoms is small enough where no group is large
    names = ["dual", "complement"] + ["primal"] * (name in LARGEST)
    one, *others = (term.evaluate(rho, tol=INNER_TOL, max_inner=500, elimination=e) for e in names)
    assert one.inner.status == "converged"
    for other in others:
        assert other.inner.status == "converged"
        assert abs(other.value - one.value) < AGREEMENT * abs(one.value)
        np.testing.assert_allclose(other.gradient, one.gradient, atol=1e-6 * np.abs(one.gradient).max())


@pytest.mark.parametrize("name", LARGEST)
def test_the_plan_counts_the_largest_group(name: str) -> None:
    plan = term_of(*CASES[name]).plan()
    assert plan["elimination"] == "complement"
    assert plan["dense_size"] == LARGEST[name]


@pytest.mark.parametrize("name", MANY_ATOMS)
def test_many_atoms_have_the_same_numbers(name: str) -> None:
    term = term_of(*MANY_ATOMS[name])
    rho = strengths(term.n_atoms, sparse=-4.0, noise=0.05)
    found = term.evaluate(rho, tol=INNER_TOL, max_inner=500, elimination="complement")
    assert found.inner.status == "converged"
    dual, estimated = (
        found.term.evaluate(rho, max_inner=0, elimination=e, gradient=e == "dual") for e in ("dual", "stochastic")
    )
    assert abs(dual.value - found.value) < AGREEMENT * abs(found.value)
    np.testing.assert_allclose(dual.gradient, found.gradient, atol=1e-6 * np.abs(found.gradient).max())
    assert estimated.standard_error is not None
    # Student's t with seven degrees of freedom is beyond five once in seven hundred draws
    assert abs(estimated.value - found.value) < 5.0 * estimated.standard_error


@pytest.mark.parametrize("elimination", ["complement", "stochastic"])
def test_many_atoms_have_one_threads_bits(elimination: str) -> None:
    """Blocks of G, products by rows and the decoders' own solve fold in one order."""
    term = term_of(*MANY_ATOMS["many pairs"])
    rho = strengths(term.n_atoms, sparse=-4.0, noise=0.05)
    one, two = (
        term.evaluate(rho, max_inner=20, elimination=elimination, threads=threads, gradient=False) for threads in (1, 2)
    )
    assert one.value == two.value
    np.testing.assert_array_equal(np.concatenate(one.term.decoders), np.concatenate(two.term.decoders))
