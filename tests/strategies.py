"""Hypothesis strategies for small dictionaries: a strategy draws a ``Recipe``, a recipe builds the arrays.

Arrays come from a seeded generator, so a failing example prints as a short ``Recipe(...)`` call that rebuilds it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from reference import Problem, Rho, State, reconstruct
from reference.atoms import (
    Atom,
    Circle,
    Cylinder,
    Duchon,
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
from reference.factors import ChoiceFactor, IntervalFactor, SphereFactor
from reference.gates import IBP, Frozen, Gate, Softmax, Threshold

MIN_ROWS_PER_ATOM = 3
"""Every atom keeps some rows: the decoder of an atom without rows shrinks to zero, and its orbit to a point."""

SOFTMAX = Softmax()

Evidence = Literal["laplace", "quasi_laplace"]


def duchon(n_centers: int, dim: int, seed: int = 0) -> Duchon:
    """A Duchon atom with scattered centers."""
    centers = np.round(1.5 * np.random.default_rng(seed).standard_normal((n_centers, dim)), 3)
    return Duchon(tuple(map(tuple, centers.tolist())))


KINDS: dict[str, st.SearchStrategy[Atom]] = {
    "circle": st.builds(Circle, harmonics=st.integers(1, 3)),
    "torus": st.just(Torus(harmonics=1)),
    "sphere": st.builds(Sphere, degree=st.integers(1, 2)),
    "projective_plane": st.just(ProjectivePlane(degree=2)),
    "cylinder": st.builds(Cylinder, harmonics=st.just(1), degree=st.integers(1, 2)),
    "line": st.just(Line()),
    "patch": st.sampled_from((Patch(1, 2), Patch(1, 3), Patch(2, 1), Patch(2, 2), Patch(3, 1))),
    "duchon": st.sampled_from((duchon(5, 1), duchon(8, 2))),
    "poincare": st.builds(Poincare, dim=st.integers(1, 2)),
    "klein_bottle": st.just(KleinBottle(harmonics=2)),
    "mobius": st.just(Mobius(harmonics=2, degree=1)),
    "finite_set": st.builds(FiniteSet, size=st.integers(2, 3)),
    "segment": st.builds(Segment, degree=st.integers(1, 4)),
}
"""Small atoms of every kind."""

GATES = ("softmax", "threshold", "ibp", "frozen")


class Example(NamedTuple):
    """A problem, an inner state and the strengths."""

    problem: Problem
    state: State
    rho: Rho


@dataclass(frozen=True)
class Recipe:
    """Everything a small example is made of.

    ``planted`` starts the state at the dictionary that made the data; otherwise the state is unrelated to them.
    ``ard[k]`` gives atom k a precision for each coordinate; spheres have none. ``held`` puts some open threshold gates
    at their wall, and some coordinates at an end of their interval.
    """

    atoms: tuple[Atom, ...] = (Circle(1),)
    gate: Gate = SOFTMAX
    n: int = 8
    p: int = 4
    planted: bool = True
    weighted: bool = False
    full_support: bool = True
    ard: tuple[bool, ...] = ()
    log_lambda_sparse: float = 0.0
    log_lambda_smooth: float = -2.0
    log_noise: float = -2.0
    seed: int = 0
    evidence: Evidence = "laplace"
    held: bool = False

    def build(self) -> Example:
        rng, n_atoms = np.random.default_rng(self.seed), len(self.atoms)
        support = self._support(rng)
        truth = self._state(rng, support)
        noise = np.exp(self.log_noise)
        log_ard = tuple(
            rng.uniform(-1.0, 1.0, atom.dim) if on and takes_precisions(atom) else np.zeros(0)
            for atom, on in zip(self.atoms, self.ard or (False,) * n_atoms, strict=True)
        )
        # Different strengths for every atom, so that a swapped index shows.
        smooth = self.log_lambda_smooth + 0.3 * np.arange(n_atoms)
        rho = Rho(self.log_lambda_sparse, smooth, log_ard, 2 * self.log_noise + 0.2)
        blank = Problem(np.zeros((self.n, self.p)), self.atoms, self.gate, evidence=self.evidence)
        data = reconstruct(blank, truth, rho) + noise * rng.standard_normal((self.n, self.p))
        weights = rng.uniform(0.3, 3.0, self.n) if self.weighted else None
        problem = replace(blank, data=data - data.mean(axis=0), weights=weights)
        return Example(problem, truth if self.planted else self._state(rng, support), rho)

    def _support(self, rng: np.random.Generator) -> NDArray[np.bool_]:
        n_atoms = len(self.atoms)
        support = np.ones((self.n, n_atoms), bool)
        if not self.full_support:
            support = rng.random((self.n, n_atoms)) < 0.6
            for k in range(n_atoms):
                support[rng.choice(self.n, MIN_ROWS_PER_ATOM, replace=False), k] = True
            if isinstance(self.gate, Softmax):
                # Softmax gates sum to one, so every row uses an atom.
                support[np.arange(self.n), rng.integers(0, n_atoms, self.n)] = True
        support[:, list(getattr(self.gate, "ungated", ()))] = True
        return support

    def _state(self, rng: np.random.Generator, support: NDArray[np.bool_]) -> State:
        logits = 1.5 * rng.standard_normal((self.n, len(self.atoms)))
        if isinstance(self.gate, Softmax):
            logits[:, -1] = 0.0
        elif isinstance(self.gate, Threshold):
            # Open gates are above the threshold, closed ones below.
            logits = self.gate.threshold + np.where(support, 1.0, -1.0) * np.abs(logits)
            if self.held:
                logits[support & (rng.random(support.shape) < 0.3)] = self.gate.wall
        elif isinstance(self.gate, Frozen):
            logits = rng.uniform(0.3, 1.3, logits.shape)
        coords = tuple(atom.draw(rng, self.n) for atom in self.atoms)
        if self.held:
            for atom, points in zip(self.atoms, coords, strict=True):
                for factor, at, _ in atom.parts():
                    if isinstance(factor, IntervalFactor):
                        some = rng.random(self.n) < 0.3
                        points[some, at] = rng.choice([factor.low, factor.high], (self.n, 1))[some]
        # Rough columns are smaller, as in atoms worth fitting: a harmonic h of a circle by about 1 / h.
        decoders = tuple(
            rng.standard_normal((atom.width, self.p)) * (1 + np.diag(atom.roughness()))[:, None] ** -0.25
            for atom in self.atoms
        )
        return State(logits, coords, decoders, support)


def takes_precisions(atom: Atom) -> bool:
    """Whether the atom's coordinates can have ARD precisions: spheres, finite sets and segments do not."""
    return not any(isinstance(factor, SphereFactor | ChoiceFactor | IntervalFactor) for factor in atom.factors)


def atoms(kinds: tuple[str, ...] = tuple(KINDS)) -> st.SearchStrategy[Atom]:
    """Small atoms of the given kinds."""
    return st.one_of([KINDS[kind] for kind in kinds])


@st.composite
def gates(draw: st.DrawFn, n_atoms: int, kinds: tuple[str, ...] = GATES) -> Gate:
    """Gates of the given kinds for a dictionary of ``n_atoms``."""
    kind = draw(st.sampled_from(kinds))
    common = {
        "temperature": draw(st.sampled_from((0.6, 1.0, 1.7))),
        "logit_precision": draw(st.sampled_from((0.04, 0.3))),
    }
    if kind == "softmax":
        return Softmax(**common)
    if kind == "frozen":
        return Frozen()
    ungated = tuple(draw(st.lists(st.integers(0, n_atoms - 1), unique=True, max_size=1))) if n_atoms > 1 else ()
    if kind == "threshold":
        return Threshold(threshold=draw(st.sampled_from((0.0, 0.4))), ungated=ungated, **common)
    return IBP(
        alpha=draw(st.sampled_from((1.0, 2.5))),
        learnable=draw(st.booleans()),
        energy_kind=draw(st.sampled_from(("ordered", "plug_in"))),
        ungated=ungated,
        **common,
    )


@st.composite
def recipes(
    draw: st.DrawFn,
    *,
    kinds: tuple[str, ...] = tuple(KINDS),
    gate_kinds: tuple[str, ...] = GATES,
    evidences: tuple[Evidence, ...] = ("laplace",),
    min_atoms: int = 1,
    max_atoms: int = 3,
    min_rows: int = 6,
    max_rows: int = 16,
    min_outputs: int = 3,
    max_outputs: int = 7,
    planted: bool | None = None,
    full_support: bool | None = None,
    log_lambda_sparse: tuple[float, float] = (-2.0, 2.0),
    held: bool = False,
) -> Recipe:
    """Recipes with ``min_atoms`` to ``max_atoms`` atoms and as many rows and outputs as given."""
    n_atoms = draw(st.integers(min_atoms, max_atoms))
    return Recipe(
        atoms=tuple(draw(atoms(kinds)) for _ in range(n_atoms)),
        gate=draw(gates(n_atoms, gate_kinds)),
        n=draw(st.integers(min_rows, max_rows)),
        p=draw(st.integers(min_outputs, max_outputs)),
        planted=draw(st.booleans()) if planted is None else planted,
        weighted=draw(st.booleans()),
        full_support=draw(st.booleans()) if full_support is None else full_support,
        ard=tuple(draw(st.lists(st.booleans(), min_size=n_atoms, max_size=n_atoms))),
        log_lambda_sparse=draw(st.floats(*log_lambda_sparse).map(lambda v: round(v, 3))),
        log_lambda_smooth=draw(st.floats(-4.0, 1.0).map(lambda v: round(v, 3))),
        log_noise=draw(st.floats(-3.0, -1.0).map(lambda v: round(v, 3))),
        seed=draw(st.integers(0, 2**16)),
        evidence=draw(st.sampled_from(evidences)),
        held=held and draw(st.booleans()),
    )
