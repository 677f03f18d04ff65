"""The sphere: real spherical harmonics as polynomials of the unit vector t = (x, y, z), mean square one.

Column (l, m), for m = -l .. l, is N_lm P_l^(|m|)(z) times Re (x + iy)^m for m >= 0, Im (x + iy)^|m| for m < 0, where
P_l^(m) is the m-th derivative of the Legendre polynomial and

    N_lm^2 = (2l + 1) (2 if m else 1) (l - |m|)! / (l + |m|)!.

Local derivatives are those of u -> F(exp_t(E u)), F the polynomial and E the tangent frame. With v = E u and r = |u|,
exp_t(v) = t + v - r^2/2 t - r^2/6 v + O(r^4), so the Taylor terms of F along it, polarised, are

    d_a   = DF(E_a)
    d_ab  = D2F(E_a, E_b) - delta_ab DF(t)
    d_abc = D3F(E_a, E_b, E_c) - [delta_ab D2F(t, E_c) + cyclic] - 1/3 [delta_ab DF(E_c) + cyclic].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import comb, factorial

import numpy as np
from numpy.polynomial import legendre, polynomial
from numpy.typing import NDArray

from ..factors import Factor, SphereFactor
from .base import Atom, Generator, Jets, Symmetry, basis_vector_projector, exponents, monomial_jets

Array = NDArray[np.float64]

LEVI_CIVITA = np.array([[[(i - j) * (j - k) * (k - i) / 2 for k in range(3)] for j in range(3)] for i in range(3)])


@lru_cache
def harmonic_polynomials(degree: int) -> Array:
    """Coefficients (monomials of three variables, (L + 1)^2) of the harmonics, columns by l, then m = -l .. l."""
    place = {tuple(row): i for i, row in enumerate(exponents(3, degree).tolist())}
    columns = np.zeros((len(place), (degree + 1) ** 2))
    for level in range(degree + 1):
        legendre_in_z = legendre.leg2poly(np.eye(level + 1)[level])
        for m in range(-level, level + 1):
            order = abs(m)
            norm = np.sqrt((2 * level + 1) * (2 if m else 1) * factorial(level - order) / factorial(level + order))
            in_z = polynomial.polyder(legendre_in_z, order)
            # (x + iy)^order = sum_j binom(order, j) x^(order - j) i^j y^j
            for j in range(order + 1):
                turn = 1j**j
                part = turn.real if m >= 0 else turn.imag
                for power, coefficient in enumerate(in_z):
                    columns[place[order - j, j, power], level * (level + 1) + m] += (
                        norm * comb(order, j) * part * coefficient
                    )
    return columns


def degrees(degree: int) -> NDArray[np.int_]:
    """l of each column."""
    return np.array([level for level in range(degree + 1) for _ in range(2 * level + 1)])


def sphere_nodes(degree: int) -> tuple[Array, Array]:
    """Points (Q, 3) and weights that integrate polynomials of ``degree`` exactly, as a mean over the sphere."""
    z, weights = legendre.leggauss(degree // 2 + 1)
    angle = 2 * np.pi * np.arange(degree + 1) / (degree + 1)
    ring = np.sqrt(1 - z**2)
    points = [[r * np.cos(a), r * np.sin(a), height] for height, r in zip(z, ring, strict=True) for a in angle]
    return np.array(points), np.repeat(weights / 2, len(angle)) / len(angle)


def polynomial_jets(t: Array, powers: NDArray[np.int_], coefficients: Array, order: int) -> Jets:
    """Local jets on the sphere of the polynomials ``coefficients`` (monomials, M)."""
    ambient, frame, eye = monomial_jets(t, powers, order), SphereFactor.frame(t), np.eye(2)
    f, f1, f2 = ambient.phi @ coefficients, ambient.d1 @ coefficients, ambient.d2 @ coefficients
    d1 = frame.T @ f1
    d2 = frame.T @ (frame.T @ f2).swapaxes(0, 1) - eye[:, :, None] * (t @ f1)
    if ambient.d3 is None:
        return Jets(f, d1, d2)
    f3 = ambient.d3 @ coefficients
    bent = np.einsum("ab,i,jc,ijm->abcm", eye, t, frame, f2) + np.einsum("ab,cm->abcm", eye, d1) / 3
    cyclic = bent + bent.transpose(1, 2, 0, 3) + bent.transpose(2, 0, 1, 3)
    return Jets(f, d1, d2, np.einsum("ia,jb,kc,ijkm->abcm", frame, frame, frame, f3) - cyclic)


@lru_cache
def rotation_maps(degree: int) -> Array:
    """Q (3, M, M) of the rotations about x, y, z: Q = mean of Phi' (dPhi . v), the basis being orthonormal."""
    powers, coefficients = exponents(3, degree), harmonic_polynomials(degree)
    points, weights = sphere_nodes(2 * degree)
    maps = np.zeros((3, coefficients.shape[1], coefficients.shape[1]))
    for t, weight in zip(points, weights, strict=True):
        ambient = monomial_jets(t, powers, 2)
        for g in range(3):
            velocity = np.cross(np.eye(3)[g], t)
            maps[g] += weight * np.outer(ambient.phi @ coefficients, velocity @ ambient.d1 @ coefficients)
    return maps


def rotate(t: Array, g: int, s: float) -> Array:
    """t turned about axis g by the angle s (Rodrigues)."""
    axis = np.eye(3)[g]
    return np.cos(s) * t + np.sin(s) * np.cross(axis, t) + (1 - np.cos(s)) * (axis @ t) * axis


def rotation_generators(maps: Array) -> tuple[Generator, ...]:
    """Rotations about x, y, z: v = e_g x t, with the derivative along a tangent w the tangent part of e_g x w."""

    def velocity(t: Array, g: int) -> Array:
        return SphereFactor.frame(t).T @ np.cross(np.eye(3)[g], t)

    def slope(t: Array, g: int) -> Array:
        frame = SphereFactor.frame(t)
        return frame.T @ np.cross(np.eye(3)[g], frame, axisb=0, axisc=0)

    return tuple(
        Generator(
            lambda t, g=g: velocity(t, g),
            lambda t, g=g: slope(t, g),
            lambda t, s, g=g: rotate(t, g, s),
            maps[g],
        )
        for g in range(3)
    )


@dataclass(frozen=True)
class Sphere(Atom):
    """A closed surface."""

    degree: int = 2
    kind = "sphere"
    log_group_volume = float(np.log(8 * np.pi**2))

    @property
    def factors(self) -> tuple[Factor, ...]:
        return (SphereFactor(),)

    @property
    def width(self) -> int:
        return (self.degree + 1) ** 2

    def jets(self, t: Array, order: int = 2) -> Jets:
        return polynomial_jets(t, exponents(3, self.degree), harmonic_polynomials(self.degree), order)

    def roughness(self) -> Array:
        """Mean squared Laplacian: harmonics of degree l have the eigenvalue -l (l + 1)."""
        level = degrees(self.degree).astype(float)
        return np.diag((level * (level + 1)) ** 2)

    def null_projector(self) -> Array:
        return basis_vector_projector(self.width, [0])

    def generators(self) -> tuple[Generator, ...]:
        return rotation_generators(rotation_maps(self.degree))

    def symmetries(self, free: bool) -> tuple[Symmetry, ...]:
        """The antipodal map: with the rotations it makes all orthogonal maps."""
        return (Symmetry(lambda t: -t, np.diag((-1.0) ** degrees(self.degree))),)

    def log_symmetries(self, free: bool) -> float:
        return float(np.log(2))
