"""What moving an atom along its chart changes in the compiled core: nothing.

Motions and the maps that carry decoders along are those of the dense reference, which checks them against bases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import expm

from reference import Problem, Rho, State, gauge
from reference.atoms import (
    Atom,
    Circle,
    Cylinder,
    FiniteSet,
    KleinBottle,
    Line,
    Mobius,
    Patch,
    Poincare,
    ProjectivePlane,
    Segment,
    Sphere,
    Torus,
)
from reference.curvature import gauge_generators
from reference.gates import IBP, Frozen, Gate, Softmax, Threshold
from rounding import EPS
from strategies import KINDS, Evidence, Example, Recipe, duchon
from test_core_against_reference import core_rho, core_term, total

Array = NDArray[np.float64]

ATOMS: dict[str, tuple[Atom, ...]] = {
    "circle": (Circle(1), Circle(3)),
    "torus": (Torus(1),),
    "sphere": (Sphere(1), Sphere(2)),
    "projective_plane": (ProjectivePlane(2),),
    "cylinder": (Cylinder(1, 1), Cylinder(2, 2)),
    "line": (Line(),),
    "patch": (Patch(1, 3), Patch(2, 2), Patch(3, 1)),
    "duchon": (duchon(5, 1), duchon(8, 2)),
    "poincare": (Poincare(1), Poincare(2), Poincare(3)),
    "klein_bottle": (KleinBottle(2), KleinBottle(3)),
    "mobius": (Mobius(2, 1), Mobius(3, 2)),
    "finite_set": (FiniteSet(2), FiniteSet(3)),
    "segment": (Segment(3), Segment(4)),
}
STILL = ("line", "duchon", "finite_set", "segment")
"""Kinds without a continuous motion that changes no fit."""
ASYMMETRIC = ("duchon", "projective_plane")
"""Kinds without another one: centres have no symmetry, and on a projective plane every one is a rotation."""
GATES: tuple[Gate, ...] = (Softmax(1.3), Threshold(0.2, 0.8), IBP(logit_precision=0.5), Frozen())
MODES: tuple[Evidence, ...] = ("laplace", "quasi_laplace")
ANNIHILATED = 1e-10
"""Part of the sizes of H's data part and of G that their product may be."""
UNCHANGED = 1e-9
"""Part of the largest term of V by which V may change."""
AMOUNT = 0.9
"""How far along a generator."""

every_atom = pytest.mark.parametrize("atom", [a for kind in ATOMS.values() for a in kind], ids=repr)
every_support = pytest.mark.parametrize("full_support", [True, False], ids=["dense", "compact"])
every_mode = pytest.mark.parametrize("mode", MODES)


def dictionary(atom: Atom, gate: Gate, full_support: bool, mode: Evidence, seed: int = 0) -> Example:
    """The atom beside a circle at a random state."""
    n = 2 * max(8, atom.width)
    return Recipe(
        (atom, Circle(1)), gate, n, p=8, weighted=True, full_support=full_support, evidence=mode, seed=seed
    ).build()


def sound_dictionary(atom: Atom, gate: Gate, full_support: bool, mode: Evidence) -> Example:
    """The first one that determines V to the digits that are compared: by the condition number of H."""
    for seed in range(10):
        problem, state, rho = dictionary(atom, gate, full_support, mode, seed)
        matrix = np.asarray(core_term(problem, state).assemble_arrow_schur(core_rho(rho)).dense())
        unit = 1 / np.sqrt(np.diag(matrix))
        values = np.linalg.eigvalsh(unit[:, None] * matrix * unit)
        if EPS * values[-1] <= UNCHANGED * values[0]:
            return Example(problem, state, rho)
    raise AssertionError("every state is nearly singular")


def test_every_kind_is_here() -> None:
    assert set(ATOMS) == set(KINDS)
    for kind, atoms in ATOMS.items():
        assert all(atom.kind == kind for atom in atoms)
        assert any(atom.generators() for atom in atoms) == (kind not in STILL)
        assert any(atom.symmetries(free=True) for atom in atoms) == (kind not in ASYMMETRIC)


def data_curvature(problem: Problem, state: State, rho: Rho) -> Array:
    """The data part of the core's H: what doubles when phi and every lambda, and so not the decoder prior, halve."""
    halved = replace(
        rho, log_dispersion=rho.log_dispersion - np.log(2), log_lambda_smooth=rho.log_lambda_smooth - np.log(2)
    )
    one, two = (core_term(problem, state).assemble_arrow_schur(core_rho(r)).dense() for r in (rho, halved))
    return np.asarray(two) - np.asarray(one)


@every_mode
@every_support
@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.kind)
@every_atom
def test_data_curvature_annihilates_the_motions(atom: Atom, gate: Gate, full_support: bool, mode: Evidence) -> None:
    problem, state, rho = dictionary(atom, gate, full_support, mode)
    tangents, data = gauge(problem, state, rho), data_curvature(problem, state, rho)
    # the circle beside it always moves
    assert tangents.shape[1] == len(atom.generators()) + 1
    left = np.abs(data @ tangents).max(axis=0)
    assert (left <= ANNIHILATED * np.abs(data).max() * np.abs(tangents).max(axis=0)).all()


def moved(state: State, k: int, move: Callable[[Array], Array], basis_map: Array) -> State:
    """The state after a motion of atom k's chart, its decoder moved so that the fit stays."""
    coords, decoders = list(state.coords), list(state.decoders)
    coords[k] = np.array([move(t) for t in state.coords[k]])
    decoders[k] = np.linalg.solve(basis_map, state.decoders[k])
    return replace(state, coords=tuple(coords), decoders=tuple(decoders))


def assert_unchanged(problem: Problem, rho: Rho, before: State, after: State) -> None:
    """V of the core and each of its terms are the same in both states."""
    one, two = (core_term(problem, state).criterion_as_atoms(core_rho(rho)) for state in (before, after))
    size = max(abs(value) for name, value in one.items() if name != "total")
    assert abs(total(one) - total(two)) <= UNCHANGED * size
    for name, value in one.items():
        assert abs(two[name] - value) <= UNCHANGED * size, name


@every_mode
@every_support
@pytest.mark.parametrize("gate", [Softmax(1.3), Frozen()], ids=lambda gate: gate.kind)
@every_atom
def test_motions_and_reflections_leave_the_evidence(atom: Atom, gate: Gate, full_support: bool, mode: Evidence) -> None:
    problem, state, rho = sound_dictionary(atom, gate, full_support, mode)
    for k, generator in gauge_generators(problem, state, rho):
        carried = expm(AMOUNT * generator.basis_map)
        after = moved(state, k, lambda t, g=generator: g.flow(t, AMOUNT), carried)
        assert_unchanged(problem, rho, state, after)
    for k, each in enumerate(problem.atoms):
        for symmetry in each.symmetries(free=True):
            assert_unchanged(problem, rho, state, moved(state, k, symmetry.move, symmetry.basis_map))
