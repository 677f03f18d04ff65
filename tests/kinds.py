"""Planted rows near atoms of every kind, with the truth about them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sae_rs import (
    Circle,
    Cylinder,
    Duchon,
    KleinBottle,
    Line,
    ManifoldSAE,
    Mobius,
    Patch,
    Poincare,
    ProjectivePlane,
    Segment,
    Sphere,
    Torus,
)
from sae_rs.atoms import Atom

FloatArray = NDArray[np.float64]

NOISE = 0.01
TURN = 2.0 * np.pi


@dataclass(frozen=True, eq=False)
class Planted:
    """Rows X (n, p) = functions (n, m) of the coordinates (n, d), mapped at random, plus noise."""

    X: FloatArray
    coords: FloatArray
    functions: FloatArray
    atom: Atom
    noise: float

    def ceiling(self) -> float:
        """Explained variance of least squares on the true functions at the true coordinates."""
        design = np.column_stack([np.ones(len(self.functions)), self.functions])
        centred = self.X - self.X.mean(axis=0)
        residual = centred - design @ np.linalg.lstsq(design, centred, rcond=None)[0]
        return float(1.0 - np.square(residual).sum() / np.square(centred).sum())


def two_planes(t: FloatArray) -> FloatArray:
    u, v = t.T
    return np.column_stack([np.cos(u), np.sin(u), np.cos(v), np.sin(v)])


def ring(t: FloatArray) -> FloatArray:
    u, v = t.T
    out = 2.0 + np.cos(v)
    return np.column_stack([out * np.cos(u), out * np.sin(u), np.sin(v)])


def tube(t: FloatArray) -> FloatArray:
    return np.column_stack([np.cos(t[:, 0]), np.sin(t[:, 0]), t[:, 1]])


def arc(t: FloatArray) -> FloatArray:
    return np.column_stack([t, t**2])


def hook(t: FloatArray) -> FloatArray:
    """A curve with an inflection."""
    return np.column_stack([t, t**2, t**3 - 0.6 * t])


def sheet(t: FloatArray) -> FloatArray:
    return np.column_stack([t, t[:, 0] ** 2, t[:, 0] * t[:, 1]])


def bottle(t: FloatArray) -> FloatArray:
    theta, phi = t.T
    out, up = 1.0 + 0.5 * np.cos(phi), 0.5 * np.sin(phi)
    return np.column_stack(
        [out * np.cos(2.0 * theta), out * np.sin(2.0 * theta), up * np.cos(theta), up * np.sin(theta)]
    )


def squares(t: FloatArray) -> FloatArray:
    """A Veronese surface: the same at t and −t, and round in its five dimensions."""
    x, y, z = t.T
    return np.column_stack([x * y, y * z, x * z, (x**2 - y**2) / 2.0, (3.0 * z**2 - 1.0) / np.sqrt(12.0)])


def bow(t: FloatArray) -> FloatArray:
    """Nearly half a circle: no polynomial."""
    return np.column_stack([np.cos(1.5 * t), np.sin(1.5 * t)])


def saddle(t: FloatArray) -> FloatArray:
    u, v = t.T
    return np.column_stack([u, v, u**2, u * v, v**2])


def strip(t: FloatArray) -> FloatArray:
    """A circle in one plane, and as wide at right angles to it a segment that turns half as fast in another."""
    theta, w = t.T
    return np.column_stack([np.cos(2.0 * theta), np.sin(2.0 * theta), w * np.cos(theta), w * np.sin(theta)])


def paper(t: FloatArray) -> FloatArray:
    """A strip of paper that is glued with a half twist."""
    theta, w = t.T
    out = 1.0 + 0.5 * w * np.cos(theta)
    return np.column_stack([out * np.cos(2.0 * theta), out * np.sin(2.0 * theta), 0.5 * w * np.sin(theta)])


def forms(t: FloatArray) -> FloatArray:
    """A linear form and a square of two variables, mixed in all ratios at all orientations: edges and ridges."""
    theta, phi = t.T
    line, square = np.sin(phi), np.cos(phi)
    return np.column_stack(
        [line * np.cos(theta), line * np.sin(theta), square, square * np.cos(2 * theta), square * np.sin(2 * theta)]
    )


def flat(t: FloatArray) -> FloatArray:
    return t


ANGLE, HALF, SPAN = (0.0, TURN), (0.0, np.pi), (-1.0, 1.0)


@dataclass(frozen=True)
class Case:
    """How rows are planted; a rigid map keeps angles and lengths, another one is random.

    Coordinates are uniform: each over a range, or unit vectors where there are no ranges.
    """

    atom: Atom
    functions: Callable[[FloatArray], FloatArray]
    ranges: tuple[tuple[float, float], ...]
    n: int
    p: int
    scale: float
    rigid: bool = False
    noise: float = NOISE

    def draw(self, rng: np.random.Generator) -> FloatArray:
        """Coordinates (n, ambient)."""
        if self.ranges:
            return np.column_stack([rng.uniform(low, high, self.n) for low, high in self.ranges])
        vectors = rng.standard_normal((self.n, 3))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


CASES = {
    "line": Case(Line(), flat, (SPAN,), 200, 16, 1.0),
    "plane": Case(Patch(2, degree=1), flat, (SPAN, SPAN), 300, 16, 1.0),
    "arc": Case(Patch(1), arc, (SPAN,), 300, 16, 1.0),
    "sheet": Case(Patch(2), sheet, (SPAN, SPAN), 500, 16, 1.0),
    "cylinder": Case(Cylinder(), tube, (ANGLE, SPAN), 500, 24, 0.5),
    "torus": Case(Torus(), two_planes, (ANGLE, ANGLE), 600, 32, 0.5),
    "ring": Case(Torus(), ring, (ANGLE, ANGLE), 600, 32, 2.0, rigid=True),
    "klein_bottle": Case(KleinBottle(), bottle, (HALF, ANGLE), 800, 32, 4.0, rigid=True),
    "mobius": Case(Mobius(), strip, (HALF, SPAN), 600, 32, 1.0),
    "paper": Case(Mobius(), paper, (HALF, SPAN), 600, 32, 2.0, rigid=True),
    "forms": Case(KleinBottle(), forms, (HALF, ANGLE), 800, 32, 1.0),
    "sphere": Case(Sphere(), flat, (), 400, 32, 1.0, noise=0.02),
    "projective_plane": Case(ProjectivePlane(), squares, (), 400, 32, 1.0, noise=0.02),
    "poincare": Case(Poincare(2), saddle, (SPAN, SPAN), 400, 24, 1.0),
    "segment": Case(Segment(), hook, (SPAN,), 300, 16, 1.0, noise=0.02),
    "duchon": Case(Duchon(), bow, (SPAN,), 300, 16, 1.0, noise=0.02),
}


@functools.cache
def planted(name: str, seed: int = 0) -> Planted:
    """One of the cases."""
    case = CASES[name]
    rng = np.random.default_rng(seed)
    coords = case.draw(rng)
    values = case.functions(coords)
    directions = rng.standard_normal((values.shape[1], case.p))
    if case.rigid:
        directions = np.linalg.qr(directions.T)[0].T
    noise = case.noise * rng.standard_normal((case.n, case.p))
    return Planted(case.scale * values @ directions + noise, coords, values, case.atom, case.noise)


@functools.cache
def fitted(name: str, seed: int = 0) -> ManifoldSAE:
    """A fit with default arguments; not to be changed."""
    case = planted(name, seed)
    return ManifoldSAE(n_atoms=1, atom=case.atom).fit(case.X)


def circle_and_line(seed: int, offset: float) -> tuple[FloatArray, NDArray[np.int64]]:
    """400 rows in 24 columns, by turns near a circle and near a line that passes its centre at a distance."""
    rng = np.random.default_rng(seed)
    n, p = 400, 24
    which = np.arange(n) % 2
    directions = np.linalg.qr(rng.standard_normal((p, 4)))[0].T
    angle, place = rng.uniform(0.0, TURN, n), rng.uniform(-1.5, 1.5, n)
    on_circle = np.column_stack([np.cos(angle), np.sin(angle)]) @ directions[:2]
    on_line = place[:, None] * directions[2] + offset * directions[3]
    X = np.where(which[:, None] == 0, on_circle, on_line)
    return X + 0.05 * rng.standard_normal((n, p)), which


# Atoms on flat charts, of all sizes that the tests of bases go through.
ATOMS: tuple[Atom, ...] = (
    Circle(harmonics=2),
    Line(),
    Patch(1, degree=1),
    Patch(1, degree=4),
    Patch(2, degree=1),
    Patch(2, degree=3),
    Patch(3, degree=2),
    Torus(harmonics=1),
    Torus(harmonics=2),
    Cylinder(harmonics=1, degree=1),
    Cylinder(harmonics=2, degree=3),
    KleinBottle(harmonics=2),
    KleinBottle(harmonics=3),
    Mobius(harmonics=2, degree=2),
    Mobius(harmonics=3, degree=3),
    Segment(degree=1),
    Segment(degree=4),
)
