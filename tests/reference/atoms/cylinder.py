"""The cylinder: a circle basis times the powers of a real coordinate, the angle slowest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..factors import LN_2PI, CircleFactor, Factor, LineFactor
from .base import (
    Atom,
    Generator,
    Jets,
    Symmetry,
    basis_vector_projector,
    circle_frequencies,
    circle_means,
    circle_reflection,
    circle_rotation,
    circle_table,
    falling,
    normal_moment,
    power_table,
    product_jets,
    shift_generator,
)

Array = NDArray[np.float64]


def kronecker_roughness(harmonics: int, degree: int) -> Array:
    """Mean of (d_theta^2 f)^2 + (d_s^2 f)^2 over theta uniform and s ~ N(0, 1), without a mixed term."""
    powers = range(degree + 1)
    circle_gram = np.diag(circle_means(harmonics))
    circle_bend = np.diag(circle_means(harmonics) * circle_frequencies(harmonics) ** 4.0)
    line_gram = np.array([[normal_moment(i + j) for j in powers] for i in powers])
    line_bend = np.array(
        [[falling(i, 2) * falling(j, 2) * normal_moment(max(i + j - 4, 0)) for j in powers] for i in powers]
    )
    return np.kron(circle_bend, line_gram) + np.kron(circle_gram, line_bend)


@dataclass(frozen=True)
class Cylinder(Atom):
    """An angle and a real coordinate."""

    harmonics: int = 2
    degree: int = 1
    kind = "cylinder"
    log_group_volume = LN_2PI

    @property
    def factors(self) -> tuple[Factor, ...]:
        return (CircleFactor(), LineFactor())

    @property
    def width(self) -> int:
        return (2 * self.harmonics + 1) * (self.degree + 1)

    def jets(self, t: Array, order: int = 2) -> Jets:
        return product_jets([circle_table(t[0], self.harmonics), power_table(t[1], self.degree)], order)

    def roughness(self) -> Array:
        return kronecker_roughness(self.harmonics, self.degree)

    def null_projector(self) -> Array:
        """The functions 1 and s."""
        return basis_vector_projector(self.width, [0, 1][: self.degree + 1])

    def generators(self) -> tuple[Generator, ...]:
        turn = np.kron(circle_rotation(self.harmonics), np.eye(self.degree + 1))
        return (shift_generator(0, 2, turn),)

    def symmetries(self, free: bool) -> tuple[Symmetry, ...]:
        flip = np.diag((-1.0) ** np.arange(self.degree + 1))
        return (
            Symmetry(lambda t: t * [-1, 1], np.kron(circle_reflection(self.harmonics), np.eye(self.degree + 1))),
            Symmetry(lambda t: t * [1, -1], np.kron(np.eye(2 * self.harmonics + 1), flip)),
        )

    def log_symmetries(self, free: bool) -> float:
        return float(np.log(4))
