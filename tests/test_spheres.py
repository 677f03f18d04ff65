"""Curved charts and charts with several motions: V against dense computations, its symmetries, and planted surfaces."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from charts import advance, basis_map, frame, generator_map, motions, on_sphere, points
from sae_rs import (
    Circle,
    Duchon,
    Poincare,
    ProjectivePlane,
    SaeManifoldRho,
    SaeManifoldTerm,
    Sphere,
    _core,
)
from sae_rs.atoms import Atom
from sae_rs.gates import Softmax

FloatArray = NDArray[np.float64]

slow = pytest.mark.skipif(os.environ.get("SAE_RS_SLOW") != "1", reason="takes minutes; SAE_RS_SLOW=1 runs it")

DICTIONARIES: dict[str, tuple[Atom, ...]] = {
    "sphere": (Sphere(degree=2),),
    "projective plane": (ProjectivePlane(degree=2),),
    "poincare 2": (Poincare(dim=2),),
    "poincare 3": (Poincare(dim=3),),
    "two spheres": (Sphere(degree=1), Sphere(degree=2)),
    "mixed": (Sphere(degree=1), Circle(harmonics=1), Duchon(centers=[-1.6, -0.7, 0.1, 0.9, 1.8])),
}


@dataclass(frozen=True, eq=False)
class Case:
    """A random state, far from any optimum."""

    atoms: Sequence[Atom]
    X: FloatArray
    weights: FloatArray
    logits: FloatArray
    support: NDArray[np.bool_]
    coords: list[FloatArray]
    decoders: list[FloatArray]
    rho: SaeManifoldRho

    def term(
        self,
        logits: FloatArray | None = None,
        coords: list[FloatArray] | None = None,
        decoders: list[FloatArray] | None = None,
    ) -> SaeManifoldTerm:
        return SaeManifoldTerm(
            self.X,
            [atom.spec() for atom in self.atoms],
            Softmax().spec(len(self.atoms)),
            self.logits if logits is None else logits,
            self.coords if coords is None else coords,
            self.decoders if decoders is None else decoders,
            support=self.support,
            weights=self.weights,
        )

    @property
    def free(self) -> int:
        return len(self.atoms) - 1

    def starts(self) -> list[FloatArray]:
        """For each atom, where each row's coordinates begin among all inner variables (−1 where it has none)."""
        out = [np.full(len(self.X), -1) for _ in self.atoms]
        at = 0
        for i, used in enumerate(self.support):
            at += self.free
            for k in np.flatnonzero(used):
                out[k][i] = at
                at += self.atoms[k].dim
        return out

    @property
    def n_local(self) -> int:
        dims = np.array([atom.dim for atom in self.atoms])
        return len(self.X) * self.free + int((self.support * dims).sum())

    def moved(self, step: FloatArray) -> SaeManifoldTerm:
        """The state after a step over all inner variables, coordinates along geodesics."""
        logits, coords, decoders = self.logits.copy(), [t.copy() for t in self.coords], []
        for k, (atom, starts) in enumerate(zip(self.atoms, self.starts(), strict=True)):
            rows = np.flatnonzero(starts >= 0)
            u = step[starts[rows][:, None] + np.arange(atom.dim)]
            coords[k][rows] = advance(atom, coords[k][rows], u)
        at = 0
        for i, used in enumerate(self.support):
            logits[i, : self.free] += step[at : at + self.free]
            at += self.free + sum(self.atoms[k].dim for k in np.flatnonzero(used))
        border = step[self.n_local :].reshape(-1, self.X.shape[1])
        ends = np.cumsum([len(b) for b in self.decoders])
        for decoder, end in zip(self.decoders, ends, strict=True):
            decoders.append(decoder + border[end - len(decoder) : end])
        return self.term(logits, coords, decoders)


@functools.cache
def case(name: str) -> Case:
    atoms = DICTIONARIES[name]
    rng = np.random.default_rng(len(name))
    n, p, n_atoms = 9, 6, len(atoms)
    logits = rng.standard_normal((n, n_atoms))
    logits[:, -1] = 0.0
    support = np.array([[n_atoms == 1 or i % (n_atoms + 1) != k for k in range(n_atoms)] for i in range(n)])
    return Case(
        atoms,
        rng.standard_normal((n, p)),
        rng.uniform(0.5, 1.5, n),
        logits,
        support,
        [points(atom, n, rng) for atom in atoms],
        [rng.standard_normal((atom.width, p)) for atom in atoms],
        SaeManifoldRho(0.3, rng.uniform(-2.0, 0.0, n_atoms).tolist(), log_dispersion=-0.5),
    )


def tangents(state: Case) -> FloatArray:
    """G (D, J): all generators of all atoms."""
    n_border = sum(b.size for b in state.decoders)
    columns = []
    ends = np.cumsum([b.size for b in state.decoders])
    for atom, starts, t, decoder, end in zip(
        state.atoms, state.starts(), state.coords, state.decoders, ends, strict=True
    ):
        rows = np.flatnonzero(starts >= 0)
        for motion in motions(atom):
            column = np.zeros(state.n_local + n_border)
            column[starts[rows][:, None] + np.arange(atom.dim)] = motion.velocity(t[rows])
            turned = -generator_map(atom, motion) @ decoder
            column[state.n_local + end - decoder.size : state.n_local + end] = turned.ravel()
            columns.append(column)
    return np.array(columns).T if columns else np.zeros((state.n_local + n_border, 0))


def slope(f: FloatArray, h: float) -> float:
    """Central difference of the fourth order from values at −2h, −h, h, 2h."""
    return float((f[0] - f[3] + 8.0 * (f[2] - f[1])) / (12.0 * h))


def log_det(term: SaeManifoldTerm, rho: SaeManifoldRho) -> float:
    return float(np.linalg.slogdet(term.assemble_arrow_schur(rho).dense())[1])


LOG_VOLUME = {
    "sphere": np.log(8.0 * np.pi**2),
    "projective_plane": np.log(8.0 * np.pi**2),
    "circle": np.log(2.0 * np.pi),
}
LOG_SYMMETRIES = {"sphere": np.log(2.0), "circle": np.log(2.0), "poincare": np.log(2.0)}


@pytest.mark.parametrize("name", DICTIONARIES)
class TestDense:
    """At a random state, where nothing cancels."""

    def test_data_curvature_annihilates_the_motions(self, name: str) -> None:
        state = case(name)
        h, g = state.term().assemble_arrow_schur(state.rho).dense(), tangents(state)
        # what is left of HG is the priors: delta or the normal prior on coordinates, P on decoders
        prior = np.zeros_like(h)
        for atom, starts in zip(state.atoms, state.starts(), strict=True):
            at = (starts[starts >= 0][:, None] + np.arange(atom.dim)).ravel()
            prior[at, at] = 1e-8 if on_sphere(atom) or atom.kind == "circle" else 1.0
        z = state.X - state.X.mean(axis=0)
        at = state.n_local
        for k, atom in enumerate(state.atoms):
            s = atom.roughness()
            values, vectors = np.linalg.eigh(s)
            null = vectors[:, values <= 1e-10 * values[-1]]
            precision = np.exp(state.rho.log_lambda_smooth[k]) * s / state.rho.dispersion() + null @ null.T / z.var()
            size = state.decoders[k].size
            prior[at : at + size, at : at + size] = np.kron(precision, np.eye(z.shape[1]))
            at += size
        np.testing.assert_allclose(h @ g, prior @ g, atol=1e-10 * np.abs(h).max())

    def test_parts_of_v(self, name: str) -> None:
        state = case(name)
        parts = state.term().criterion_as_atoms(state.rho)
        h, g = state.term().assemble_arrow_schur(state.rho).dense(), tangents(state)
        used = [k for k in range(len(state.atoms)) if state.support[:, k].any()]
        kinds = [state.atoms[k].kind for k in used]
        n_motions = g.shape[1]
        volume = sum(LOG_VOLUME.get(kind, 0.0) for kind in kinds)
        # SO(2) and SO(3)
        rotations = {1: 0.0, 2: np.log(2.0 * np.pi), 3: np.log(8.0 * np.pi**2)}
        volume += sum(rotations[state.atoms[k].dim] for k in used if state.atoms[k].kind == "poincare")
        orbit = -0.5 * np.linalg.slogdet(g.T @ h @ g)[1] - volume
        assert parts["log_det"] == pytest.approx(0.5 * np.linalg.slogdet(h)[1], rel=1e-9)
        assert parts["orbit"] == pytest.approx(orbit, rel=1e-9, abs=1e-9)
        symmetries = sum(LOG_SYMMETRIES.get(kind, 0.0) for kind in kinds)
        constants = -0.5 * (len(h) - n_motions) * np.log(2.0 * np.pi) - symmetries
        assert parts["constants"] == pytest.approx(constants, rel=1e-12)

    def test_adjoint_of_the_determinant(self, name: str) -> None:
        state = case(name)
        gamma = np.asarray(state.term().logdet_theta_adjoint(state.rho))
        rng = np.random.default_rng(0)
        # differences in every fourth variable, and along directions through all
        steps = [*np.eye(len(gamma))[::4], *rng.standard_normal((3, len(gamma)))]
        for step in steps:
            h = 1e-3
            values = np.array([log_det(state.moved(s * h * step), state.rho) for s in (-2.0, -1.0, 1.0, 2.0)])
            assert slope(values, h) == pytest.approx(gamma @ step, abs=1e-6 * np.abs(gamma).max())

    def test_motions_leave_v(self, name: str) -> None:
        state = case(name)
        before = state.term().criterion_as_atoms(state.rho)
        rng = np.random.default_rng(1)
        coords, decoders = list(state.coords), list(state.decoders)
        for k, atom in enumerate(state.atoms):
            for motion in motions(atom):
                angle = float(rng.uniform(-3.0, 3.0))
                move = functools.partial(motion.flow, s=angle)
                coords[k] = atom.wrap(move(coords[k]))
                # Phi(move(t)) = Phi(t) R, so the decoder moves with the inverse of R
                decoders[k] = np.linalg.solve(basis_map(atom, move), decoders[k])
        after = state.term(coords=coords, decoders=decoders).criterion_as_atoms(state.rho)
        for part, value in before.items():
            assert after[part] == pytest.approx(value, rel=1e-9, abs=1e-9), part

    def test_reflections_leave_v(self, name: str) -> None:
        state = case(name)
        coords, decoders = list(state.coords), list(state.decoders)
        for k, atom in enumerate(state.atoms):
            if atom.kind == "duchon":
                continue
            sign = np.r_[-1.0, np.ones(atom.ambient - 1)]
            coords[k] = atom.wrap(sign * coords[k])
            decoders[k] = np.linalg.solve(basis_map(atom, lambda t, sign=sign: sign * t), decoders[k])
        before = state.term().criterion_as_atoms(state.rho)
        after = state.term(coords=coords, decoders=decoders).criterion_as_atoms(state.rho)
        assert sum(after.values()) == pytest.approx(sum(before.values()), rel=1e-9)


@pytest.mark.parametrize("kind", [Sphere(degree=3), ProjectivePlane(degree=4)])
class TestJets:
    """In the exponential chart, against differences of the basis alone."""

    def test_at_random_points_and_poles(self, kind: Atom) -> None:
        t = np.concatenate([points(kind, 20, np.random.default_rng(0)), [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]])
        phi, first, second, third = _core.basis_jets(kind.spec(), t)
        rng = np.random.default_rng(1)
        for _ in range(5):
            u, h = rng.standard_normal((len(t), 2)), 1e-3
            u /= np.linalg.norm(u, axis=1, keepdims=True)
            ends = [_core.basis(kind.spec(), advance(kind, t, s * h * u)) for s in (-2.0, -1.0, 1.0, 2.0)]
            scale = np.abs(third).max()
            one = (ends[0] - ends[3] + 8.0 * (ends[2] - ends[1])) / (12.0 * h)
            two = (16.0 * (ends[1] + ends[2]) - ends[0] - ends[3] - 30.0 * phi) / (12.0 * h**2)
            three = (ends[3] - ends[0] - 2.0 * (ends[2] - ends[1])) / (2.0 * h**3)
            np.testing.assert_allclose(np.einsum("mca,ma->mc", first, u), one, atol=1e-9 * scale)
            np.testing.assert_allclose(np.einsum("mcab,ma,mb->mc", second, u, u), two, atol=1e-6 * scale)
            np.testing.assert_allclose(np.einsum("mcabd,ma,mb,md->mc", third, u, u, u), three, atol=1e-3 * scale)

    def test_frames_are_orthonormal(self, kind: Atom) -> None:
        t = points(kind, 100, np.random.default_rng(2))
        e = frame(t)
        np.testing.assert_allclose(np.einsum("mia,mib->mab", e, e), np.tile(np.eye(2), (100, 1, 1)), atol=1e-14)
        np.testing.assert_allclose(np.einsum("mia,mi->ma", e, t), 0.0, atol=1e-14)


@pytest.mark.parametrize("part", [1e-10, 1e-40, 1e-70])
def test_evidence_rises_towards_a_set_that_a_rotation_leaves_as_it_is(part: float) -> None:
    """V has minus the logarithm of the tangent's length: a decade costs ln 10 nats. At the set there is none."""

    def value(rest: float) -> float:
        rng = np.random.default_rng(0)
        about_axis = rest * rng.standard_normal((6, 7))
        # the constant and the harmonic that is even about the third axis
        about_axis[[0, 3]] = rng.standard_normal((2, 7))
        term = SaeManifoldTerm(
            1.1 * about_axis[3] + about_axis[0] + 0.1 * rng.standard_normal((12, 7)),
            [ProjectivePlane(degree=2).spec()],
            Softmax().spec(1),
            np.zeros((12, 1)),
            [np.tile([0.0, 0.0, 1.0], (12, 1))],
            [about_axis],
            center=False,
        )
        found = term.evaluate(SaeManifoldRho(0.0, [0.0], log_dispersion=0.0), max_inner=0)
        assert np.isfinite(found.gradient).all()
        return float(found.value)

    assert value(part / 10.0) - value(part) == pytest.approx(np.log(10.0), rel=1e-9)
    for rest in (1e-80, 1e-154, 1e-200, 0.0):
        assert value(rest) == np.inf
