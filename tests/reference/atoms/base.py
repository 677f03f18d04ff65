"""What every atom kind provides, and the two ways of making jets that several kinds share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache, reduce
from itertools import combinations_with_replacement
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..factors import Factor

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Jets:
    """Basis row and derivatives in the local frame: (M,), (d, M), (d, d, M) and, when asked for, (d, d, d, M)."""

    phi: Array
    d1: Array
    d2: Array
    d3: Array | None = None


@dataclass(frozen=True)
class Generator:
    """A one-parameter group of motions of the chart that the basis follows: Phi(flow(t, s)) = Phi(t) exp(s Q).

    ``velocity`` (d,) is d flow / ds at s = 0 in the frame at t, ``slope`` (d, d) its covariant derivative, [a, b] =
    d v_a / d u_b, and ``basis_map`` (M, M) is Q: dPhi . v = Phi Q. A decoder moved by exp(-s Q) keeps the fit.
    """

    velocity: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    flow: Callable[[Array, float], Array]
    basis_map: Array


@dataclass(frozen=True)
class Symmetry:
    """A discrete motion that the basis follows: Phi(move(t)) = Phi(t) ``basis_map``."""

    move: Callable[[Array], Array]
    basis_map: Array


class Atom(ABC):
    """A basis on a chart. Kinds are frozen dataclasses: their fields are the options a user gives, equal ones are
    interchangeable."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def factors(self) -> tuple[Factor, ...]:
        """The chart as a product."""

    @property
    @abstractmethod
    def width(self) -> int:
        """M, the number of basis columns."""

    @abstractmethod
    def jets(self, t: Array, order: int = 2) -> Jets:
        """Derivatives of u -> Phi(advance(t, u)) at u = 0, to the second or third order."""

    @abstractmethod
    def roughness(self) -> Array:
        """S (M, M)."""

    @abstractmethod
    def null_projector(self) -> Array:
        """N (M, M): orthogonal projector, in coefficient space, on the null space of S."""

    def generators(self) -> tuple[Generator, ...]:
        """Continuous motions of the chart that change no fit when the coordinates' prior does not change either."""
        return ()

    log_group_volume: ClassVar[float] = 0.0

    def symmetries(self, free: bool) -> tuple[Symmetry, ...]:
        """Discrete motions that, with the continuous ones, generate all motions that change no fit.

        ``free`` tells whether the continuous motions are free. Otherwise the coordinates have a precision each, which
        fix their origin and tell the axes apart.
        """
        return ()

    def log_symmetries(self, free: bool) -> float:
        """ln of the number of motions modulo the free continuous ones: the order of the group of ``symmetries``."""
        return 0.0

    @property
    def dim(self) -> int:
        """d, the number of local coordinates."""
        return sum(factor.dim for factor in self.factors)

    @property
    def ambient(self) -> int:
        """Stored numbers of a point."""
        return sum(factor.ambient for factor in self.factors)

    def spec(self) -> dict[str, Any]:
        """The description that the compiled module reads."""
        return {"kind": self.kind, **{field.name: getattr(self, field.name) for field in fields(self)}}

    def parts(self) -> list[tuple[Factor, slice, slice]]:
        """Each factor with its place among the stored numbers and among the local coordinates."""
        out, at, local = [], 0, 0
        for factor in self.factors:
            out.append((factor, slice(at, at + factor.ambient), slice(local, local + factor.dim)))
            at, local = at + factor.ambient, local + factor.dim
        return out

    def advance(self, t: Array, u: Array) -> Array:
        """The point reached from t with local velocity u, factor by factor."""
        return np.concatenate([factor.advance(t[at], u[local]) for factor, at, local in self.parts()])

    def transport(self, t: Array, u: Array) -> Array:
        """(d, d): the frame at t, carried along to ``advance(t, u)``, in the frame there."""
        out = np.zeros((self.dim, self.dim))
        for factor, at, local in self.parts():
            out[local, local] = factor.transport(t[at], u[local])
        return out

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        """Random points (n, ambient)."""
        return np.hstack([factor.draw(rng, n) for factor in self.factors])


def jets_from_rows(row: Callable[..., Array], dim: int, order: int) -> Jets:
    """Jets on a flat chart from ``row(a, b, ...)``, the basis row differentiated in the listed axes."""
    once, axes = cache(row), range(dim)

    def symmetric(*listed: int) -> Array:
        return once(*sorted(listed))

    d1 = np.array([once(a) for a in axes])
    d2 = np.array([[symmetric(a, b) for b in axes] for a in axes])
    if order == 2:
        return Jets(once(), d1, d2)
    return Jets(once(), d1, d2, np.array([[[symmetric(a, b, c) for c in axes] for b in axes] for a in axes]))


def product_jets(tables: list[Array], order: int, columns: NDArray[np.int_] | None = None) -> Jets:
    """Jets of a tensor product, first axis slowest; ``tables[j]`` (4, M_j) holds axis j's row and its derivatives.

    ``columns`` picks columns of the product.
    """

    def row(*axes: int) -> Array:
        full: Array = reduce(np.multiply.outer, [table[axes.count(j)] for j, table in enumerate(tables)]).ravel()
        return full if columns is None else full[columns]

    return jets_from_rows(row, len(tables), order)


def circle_table(t: float, harmonics: int) -> Array:
    """1, cos t, sin t, ..., cos Ht, sin Ht and three derivatives, (4, 2H + 1)."""
    table = np.zeros((4, 2 * harmonics + 1))
    table[0, 0] = 1.0
    for h in range(1, harmonics + 1):
        c, s = np.cos(h * t), np.sin(h * t)
        table[:, 2 * h - 1] = c, -h * s, -(h**2) * c, h**3 * s
        table[:, 2 * h] = s, h * c, -(h**2) * s, -(h**3) * c
    return table


def circle_frequencies(harmonics: int) -> NDArray[np.int_]:
    """0, 1, 1, 2, 2, ..., H, H: the frequency of each column of the circle basis."""
    return (np.arange(2 * harmonics + 1) + 1) // 2


def circle_means(harmonics: int) -> Array:
    """Mean square of each column of the circle basis: 1 for the constant, 1/2 for cosines and sines."""
    return np.where(circle_frequencies(harmonics) == 0, 1.0, 0.5)


def circle_rotation(harmonics: int) -> Array:
    """Q (2H + 1, 2H + 1) with Phi' = Phi Q: (cos ht)' = -h sin ht and (sin ht)' = h cos ht."""
    rotation = np.zeros((2 * harmonics + 1, 2 * harmonics + 1))
    for h in range(1, harmonics + 1):
        rotation[2 * h, 2 * h - 1] = -h
        rotation[2 * h - 1, 2 * h] = h
    return rotation


def circle_reflection(harmonics: int) -> Array:
    """R with Phi(-t) = Phi(t) R: sines change sign."""
    return np.diag([1.0] + [1.0, -1.0] * harmonics)


def power_table(s: float, degree: int) -> Array:
    """1, s, ..., s^D and three derivatives, (4, D + 1)."""
    table = np.zeros((4, degree + 1))
    table[0] = s ** np.arange(degree + 1)
    for r in (1, 2, 3):
        # (s^j)^(r) = j (s^(j - 1))^(r - 1)
        table[r, 1:] = np.arange(1, degree + 1) * table[r - 1, :-1]
    return table


def falling(j: int, r: int) -> float:
    """j (j - 1) ... (j - r + 1): the factor of the r-th derivative of s^j."""
    return float(np.prod(np.arange(j, j - r, -1)))


@cache
def normal_moment(power: int) -> float:
    """E s^power for s ~ N(0, 1): (power - 1)!! for even powers."""
    return 0.0 if power % 2 else float(np.prod(np.arange(1, power, 2)))


@cache
def exponents(dim: int, degree: int) -> NDArray[np.int_]:
    """Monomials of ``dim`` variables to a total degree, (M, dim), by degree; 1; t1..td; t1t1, t1t2, ...; ..."""
    tuples = [c for total in range(degree + 1) for c in combinations_with_replacement(range(dim), total)]
    return np.array([[c.count(a) for a in range(dim)] for c in tuples])


def monomial_jets(t: Array, powers: NDArray[np.int_], order: int) -> Jets:
    """Jets of the monomials prod_a t_a^powers[m, a] in flat coordinates."""
    degree = int(powers.max(initial=0))
    tables = [power_table(value, degree)[:, powers[:, a]] for a, value in enumerate(t)]

    def row(*axes: int) -> Array:
        product: Array = tables[0][axes.count(0)]
        for a in range(1, len(tables)):
            product = product * tables[a][axes.count(a)]
        return product

    return jets_from_rows(row, len(t), order)


def basis_vector_projector(width: int, columns: list[int]) -> Array:
    """Projector on the listed columns."""
    projector = np.zeros((width, width))
    projector[columns, columns] = 1.0
    return projector


def shift_generator(axis: int, dim: int, basis_map: Array) -> Generator:
    """The generator t_axis -> t_axis + s of a flat chart."""
    unit = np.eye(dim)[axis]
    return Generator(lambda t: unit, lambda t: np.zeros((dim, dim)), lambda t, s: t + s * unit, basis_map)
