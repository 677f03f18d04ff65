"""Duchon splines: constrained polyharmonic kernels at given centres, then polynomials of degree below m.

m = floor(d/2) + 2, so the kernel r^(2m - d) is r^3 for odd d and r^4 ln r for even d. Signed so that sum_ij delta_i
delta_j kappa(|c_i - c_j|) >= 0 for all delta orthogonal to the polynomials of degree < m at the centres, it is r^3 and
-r^4 ln r. The kernel columns use such delta only: they are a kappa(|t - c_j|)_j Z with P'Z = 0 and Z'Z = I. The Duchon
seminorm of a function with these coefficients is, up to a constant, a^2 Z'KZ, and a makes its mean diagonal one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..factors import Factor, LineFactor
from .base import Atom, Jets, basis_vector_projector, exponents, monomial_jets

Array = NDArray[np.float64]
Centers = tuple[tuple[float, ...], ...]


def kernel_derivatives(r: float, dim: int) -> tuple[float, float, float, float]:
    """kappa, f1 = kappa' / r, f2 = f1' / r, f3 = f2' / r at r > 0."""
    if dim % 2:
        return r**3, 3 * r, 3 / r, -3 / r**3
    log = np.log(r)
    return -(r**4) * log, -(r**2) * (4 * log + 1), -(8 * log + 6), -8 / r**2


def kernel_jets(x: Array) -> tuple[float, Array, Array, Array]:
    """kappa(|x|) and its derivatives in x.

    All are 0 at x = 0 in the limit but the third derivative of r^3, which jumps there and is set to 0 as well.
    """
    d = len(x)
    r, eye = float(np.linalg.norm(x)), np.eye(d)
    if r == 0:
        return 0.0, np.zeros(d), np.zeros((d, d)), np.zeros((d, d, d))
    kappa, f1, f2, f3 = kernel_derivatives(r, d)
    mixed = np.einsum("ab,c->abc", eye, x)
    cyclic = mixed + mixed.transpose(1, 2, 0) + mixed.transpose(2, 0, 1)
    return kappa, f1 * x, f1 * eye + f2 * np.outer(x, x), f2 * cyclic + f3 * np.einsum("a,b,c->abc", x, x, x)


def complement(matrix: Array) -> Array:
    """Z (C, C - q), orthonormal and orthogonal to the q columns of ``matrix``: the last columns of its Householder Q.

    Any other choice turns the kernel coefficients and changes nothing else; this one makes the columns the same
    everywhere.
    """
    rows, columns = matrix.shape
    rest, q = matrix.copy(), np.eye(rows)
    for j in range(columns):
        v = rest[:, j].copy()
        v[:j] = 0.0
        length = np.linalg.norm(v)
        v[j] += -length if v[j] < -1e-10 * length else length
        reflector = np.eye(rows) - 2 * np.outer(v, v) / (v @ v)
        rest, q = reflector @ rest, q @ reflector
    return q[:, columns:]


@lru_cache
def kernel_columns(centers: Centers) -> tuple[Array, Array]:
    """a Z (C, kernel columns) and a^2 Z'KZ."""
    points = np.array(centers)
    d = points.shape[1]
    powers = exponents(d, d // 2 + 1)
    polynomials = np.array([monomial_jets(c, powers, 2).phi for c in points])
    if len(points) <= len(powers):
        raise ValueError(f"duchon splines of dimension {d} need more than {len(powers)} centers, got {len(points)}")
    singular = np.linalg.svd(polynomials, compute_uv=False)
    if singular[-1] < 1e-10 * singular[0]:
        raise ValueError(f"the centers lie on a curve of degree below {d // 2 + 2}")
    z = complement(polynomials)
    gram = z.T @ np.array([[kernel_jets(b - c)[0] for c in points] for b in points]) @ z
    amplitude = np.sqrt(len(gram) / np.trace(gram))
    return amplitude * z, amplitude**2 * (gram + gram.T) / 2


@dataclass(frozen=True)
class Duchon(Atom):
    """A smooth surface of ``d`` real coordinates, flexible near its centers (C, d)."""

    centers: Centers
    kind = "duchon"

    @property
    def factors(self) -> tuple[Factor, ...]:
        return (LineFactor(),) * len(self.centers[0])

    @property
    def powers(self) -> NDArray[np.int_]:
        """The polynomials: total degree below m."""
        return exponents(self.dim, self.dim // 2 + 1)

    @property
    def width(self) -> int:
        return len(self.centers)

    def spec(self) -> dict[str, Any]:
        return {"kind": self.kind, "centers": [list(center) for center in self.centers]}

    def jets(self, t: Array, order: int = 2) -> Jets:
        z, _ = kernel_columns(self.centers)
        kernels = [kernel_jets(t - np.array(c)) for c in self.centers]
        rows = [np.stack([kernel[r] for kernel in kernels], axis=-1) @ z for r in range(order + 1)]
        smooth = monomial_jets(t, self.powers, order)
        joined = zip(rows, (smooth.phi, smooth.d1, smooth.d2, smooth.d3), strict=False)
        return Jets(*[np.concatenate([left, right], axis=-1) for left, right in joined if right is not None])

    def roughness(self) -> Array:
        _, gram = kernel_columns(self.centers)
        total = np.zeros((self.width, self.width))
        total[: len(gram), : len(gram)] = gram
        return total

    def null_projector(self) -> Array:
        return basis_vector_projector(self.width, list(range(self.width - len(self.powers), self.width)))
