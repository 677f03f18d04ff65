"""The patch: all monomials to a total degree, and the rotations of its coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm
from scipy.special import gammaln

from ..factors import Factor, LineFactor
from .base import (
    Atom,
    Generator,
    Jets,
    Symmetry,
    basis_vector_projector,
    exponents,
    falling,
    monomial_jets,
    normal_moment,
)

Array = NDArray[np.float64]


def log_rotation_volume(dim: int) -> float:
    """ln vol SO(d) = sum_{j=2..d} ln vol S^{j-1}, vol S^{j-1} = 2 pi^{j/2} / Gamma(j/2)."""
    j = np.arange(2, dim + 1)
    return float(np.sum(np.log(2) + j / 2 * np.log(np.pi) - gammaln(j / 2)))


def linear_action(matrix: Array, powers: NDArray[np.int_]) -> Array:
    """Q (M, M) with dPhi . (matrix t) = Phi Q for the monomials Phi, by differentiating each monomial."""
    place = {tuple(row): m for m, row in enumerate(powers.tolist())}
    action = np.zeros((len(powers), len(powers)))
    for m, row in enumerate(powers):
        for a, b in np.argwhere(matrix):
            if row[a] == 0:
                continue
            # d/dt_a brings down the exponent of t_a; the velocity puts t_b in its place.
            image = row.copy()
            image[a] -= 1
            image[b] += 1
            action[place[tuple(image.tolist())], m] += row[a] * matrix[a, b]
    return action


def rotation_generators(dim: int, powers: NDArray[np.int_]) -> tuple[Generator, ...]:
    """Rotations t -> exp(sW) t, one for each pair of axes a < b, W t = t_b e_a - t_a e_b."""
    generators = []
    for a in range(dim):
        for b in range(a + 1, dim):
            turn = np.zeros((dim, dim))
            turn[a, b], turn[b, a] = 1.0, -1.0
            generators.append(
                Generator(
                    lambda t, w=turn: w @ t,
                    lambda t, w=turn: w,
                    lambda t, s, w=turn: expm(s * w) @ t,
                    linear_action(turn, powers),
                )
            )
    return tuple(generators)


def reflections(dim: int, powers: NDArray[np.int_], free: bool) -> tuple[Symmetry, ...]:
    """t_a -> -t_a. With free rotations the first makes all orthogonal maps; without them each counts."""
    signs = 1 - 2 * np.eye(dim)
    every = [Symmetry(lambda t, s=signs[a]: s * t, np.diag((-1.0) ** powers[:, a])) for a in range(dim)]
    return tuple(every[:1] if free else every)


@dataclass(frozen=True)
class Patch(Atom):
    """A polynomial surface of ``dim`` real coordinates."""

    dim: int = 1  # a field here; the other kinds derive it from their factors
    degree: int = 2
    kind = "patch"

    @property
    def log_group_volume(self) -> float:
        return log_rotation_volume(self.dim)

    @property
    def factors(self) -> tuple[Factor, ...]:
        return (LineFactor(),) * self.dim

    @property
    def powers(self) -> NDArray[np.int_]:
        return exponents(self.dim, self.degree)

    @property
    def width(self) -> int:
        return len(self.powers)

    def jets(self, t: Array, order: int = 2) -> Jets:
        return monomial_jets(t, self.powers, order)

    def roughness(self) -> Array:
        """E ||Hessian||_F^2 over t ~ N(0, I), monomial by monomial."""
        total = np.zeros((self.width, self.width))
        for a in range(self.dim):
            for b in range(self.dim):
                total += self._gram_of_second_derivatives(a, b)
        return total

    def _gram_of_second_derivatives(self, a: int, b: int) -> Array:
        """E (d_a d_b Phi_m)(d_a d_b Phi_n)."""
        order = np.bincount([a, b], minlength=self.dim)
        factor = np.array([np.prod([falling(e, r) for e, r in zip(row, order, strict=True)]) for row in self.powers])
        left = np.maximum(self.powers - order, 0)
        moments = [[np.prod([normal_moment(e) for e in m + n]) for n in left] for m in left]
        return np.outer(factor, factor) * np.array(moments)

    def null_projector(self) -> Array:
        return basis_vector_projector(self.width, np.flatnonzero(self.powers.sum(axis=1) <= 1).tolist())

    def generators(self) -> tuple[Generator, ...]:
        return rotation_generators(self.dim, self.powers)

    def symmetries(self, free: bool) -> tuple[Symmetry, ...]:
        return reflections(self.dim, self.powers, free)

    def log_symmetries(self, free: bool) -> float:
        return float(np.log(2) * (1 if free else self.dim))
