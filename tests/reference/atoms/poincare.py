"""A patch of hyperbolic space: quadratic monomials of a tangent vector at the origin of the Poincare ball.

With r = |t| and u = t / r, the exponential map of curvature -1 pulls the metric back to h = 4 uu' + (sinh 2r / r)^2
(I - uu'). The Dirichlet form weighs the gradient with sqrt(det h) h^-1 = A uu' + B (I - uu'),

    A = 1/2 (sinh 2r / r)^(d-1),    B = 2 (sinh 2r / r)^(d-3).

S is its mean over t uniform on the unit ball. Any radial measure keeps the rotations exact; over the normal prior of t
the mean is dominated by r near 2 (d - 1), which no row reaches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..factors import Factor, LineFactor
from .base import Atom, Generator, Jets, Symmetry, basis_vector_projector, exponents, monomial_jets
from .patch import log_rotation_volume, reflections, rotation_generators

Array = NDArray[np.float64]

RADIAL_NODES = 32
"""Gauss-Legendre nodes on the radius; the integrand is entire, so they are exact to rounding."""


def radial_weights(r: Array, dim: int) -> tuple[Array, Array]:
    """A and B at radii r > 0; there is no direction across the radius for d = 1."""
    stretch = np.sinh(2 * r) / r
    return 0.5 * stretch ** (dim - 1), 2 * stretch ** (dim - 3.0) if dim > 1 else np.zeros_like(r)


@dataclass(frozen=True)
class Poincare(Atom):
    """A surface of ``dim`` real coordinates whose roughness grows with hyperbolic volume."""

    dim: int = 2  # a field here; the other kinds derive it from their factors
    kind = "poincare"

    @property
    def log_group_volume(self) -> float:
        return log_rotation_volume(self.dim)

    @property
    def factors(self) -> tuple[Factor, ...]:
        return (LineFactor(),) * self.dim

    @property
    def powers(self) -> NDArray[np.int_]:
        return exponents(self.dim, 2)

    @property
    def width(self) -> int:
        return len(self.powers)

    def jets(self, t: Array, order: int = 2) -> Jets:
        return monomial_jets(t, self.powers, order)

    def roughness(self) -> Array:
        """Radius by quadrature, directions by the moments <u_i u_j> and <u_i u_j u_k u_l> of the unit sphere.

        For a linear column the gradient is e_i. For a quadratic q it is r (grad q)(u), of which 2 r q(u) along u.
        Linear and quadratic columns are orthogonal by parity.
        """
        d = self.dim
        nodes, weights = np.polynomial.legendre.leggauss(RADIAL_NODES)
        r, weights = 0.5 * (nodes + 1), 0.5 * weights
        along, across = radial_weights(r, d)
        density = weights * d * r ** (d - 1)

        eye = np.eye(d)
        pairs = [(i, j) for i in range(d) for j in range(i, d)]
        total = np.zeros((self.width, self.width))
        linear = density @ (along / d + across * (1 - 1 / d))
        total[1 : d + 1, 1 : d + 1] = linear * eye
        for m, (a, b) in enumerate(pairs):
            for n, (i, j) in enumerate(pairs):
                crossed = eye[a, i] * eye[b, j] + eye[a, j] * eye[b, i]
                product = (eye[a, b] * eye[i, j] + crossed) / (d * (d + 2))
                # grad q = u_a e_b + u_b e_a: its products with the other's gradient meet each crossed pair twice.
                gradients = 2 * crossed / d
                value = density @ (r**2 * (4 * along * product + across * (gradients - 4 * product)))
                total[1 + d + m, 1 + d + n] = value
        return total

    def null_projector(self) -> Array:
        return basis_vector_projector(self.width, [0])

    def generators(self) -> tuple[Generator, ...]:
        return rotation_generators(self.dim, self.powers)

    def symmetries(self, free: bool) -> tuple[Symmetry, ...]:
        return reflections(self.dim, self.powers, free)

    def log_symmetries(self, free: bool) -> float:
        return float(np.log(2) * (1 if free else self.dim))
