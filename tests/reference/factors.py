"""The factors a chart is a product of: how a point moves, and its prior with normaliser.

A point of a factor is stored in ``ambient`` numbers and moves in ``dim`` local ones: ``advance(t, u)`` is the end of
the geodesic that leaves t with velocity u, given in a frame at t. Circles and lines are their own frame; a sphere has
an orthonormal tangent frame that is a function of t. Derivatives "in the frame" are derivatives at u = 0 of functions
of ``advance(t, u)``, which makes second ones the covariant ones.

The prior's energy is ``energy + log_volume``. ``alpha`` holds the precisions of the axes, or is None when ARD is off:
then the compact factors are uniform and a line is standard normal (chapter 1.5). Intervals and spheres have none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import i0e, i1e

Array = NDArray[np.float64]

LN_2PI = float(np.log(2 * np.pi))

COMPACT_STIFFNESS = 1e-8
"""delta: curvature added on compact coordinates, so that H stays invertible when one is not identified."""


class Factor(ABC):
    """One factor of a chart.

    ``stiffness`` is the ridge of H on coordinates that are variables.
    """

    dim: int = 1
    ambient: int = 1
    stiffness: float = 0.0

    @property
    @abstractmethod
    def log_volume(self) -> float:
        """Constant of the prior energy that does not depend on precisions: the classic criterion leaves it out."""

    def moves(self, t: Array) -> bool:
        """Whether the coordinates of the point t are variables."""
        return True

    def ridge(self, t: Array) -> float:
        """Curvature that H has on each coordinate of the point t beside the prior's."""
        return self.stiffness

    def advance(self, t: Array, u: Array) -> Array:
        """The point reached from t (ambient,) with local velocity u (dim,)."""
        return t + u

    def transport(self, t: Array, u: Array) -> Array:
        """(dim, dim): components in the frame at ``advance(t, u)`` of the frame at t carried along parallel."""
        return np.eye(self.dim)

    @abstractmethod
    def draw(self, rng: np.random.Generator, n: int) -> Array:
        """Random points (n, ambient)."""

    def energy(self, t: Array, alpha: Array | None) -> float:
        """Prior energy without ``log_volume``."""
        return 0.0

    def energy_log_alpha(self, t: Array, alpha: Array) -> Array:
        """d energy / d ln alpha (dim,)."""
        return np.zeros(self.dim)

    def gradient(self, t: Array, alpha: Array | None) -> Array:
        """d energy / du (dim,)."""
        return np.zeros(self.dim)

    def curvature(self, t: Array, alpha: Array | None) -> Array:
        """Diagonal of the Hessian of the energy (dim,); it has no other entries."""
        return np.zeros(self.dim)

    def third(self, t: Array, alpha: Array | None) -> Array:
        """Derivative of each entry of ``curvature`` in its own coordinate (dim,)."""
        return np.zeros(self.dim)


@dataclass(frozen=True)
class CircleFactor(Factor):
    """An angle of some period, with a von Mises prior when it has a precision.

    With kappa = 2 pi / period and eta = alpha / kappa^2 the density is exp(eta cos kappa t) / (period I0(eta)).
    """

    period: float = 2 * np.pi
    stiffness = COMPACT_STIFFNESS

    @property
    def kappa(self) -> float:
        return 2 * np.pi / self.period

    @property
    def log_volume(self) -> float:
        return float(np.log(self.period))

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        return rng.uniform(0, 2 * np.pi, (n, 1))

    def energy(self, t: Array, alpha: Array | None) -> float:
        if alpha is None:
            return 0.0
        eta = alpha[0] / self.kappa**2
        # -eta cos + ln I0(eta), and ln I0(eta) = eta + ln i0e(eta) does not overflow.
        return float(eta * (1 - np.cos(self.kappa * t[0])) + np.log(i0e(eta)))

    def energy_log_alpha(self, t: Array, alpha: Array) -> Array:
        eta = alpha / self.kappa**2
        return eta * (i1e(eta) / i0e(eta) - np.cos(self.kappa * t))

    def gradient(self, t: Array, alpha: Array | None) -> Array:
        return np.zeros(1) if alpha is None else alpha / self.kappa * np.sin(self.kappa * t)

    def curvature(self, t: Array, alpha: Array | None) -> Array:
        return np.zeros(1) if alpha is None else alpha * np.cos(self.kappa * t)

    def third(self, t: Array, alpha: Array | None) -> Array:
        return np.zeros(1) if alpha is None else -alpha * self.kappa * np.sin(self.kappa * t)


@dataclass(frozen=True)
class LineFactor(Factor):
    """A real coordinate with a normal prior of precision alpha, 1 when ARD is off."""

    @property
    def log_volume(self) -> float:
        return 0.5 * LN_2PI

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        return rng.standard_normal((n, 1))

    def energy(self, t: Array, alpha: Array | None) -> float:
        precision = 1.0 if alpha is None else alpha[0]
        return float(0.5 * precision * t[0] ** 2 - 0.5 * np.log(precision))

    def energy_log_alpha(self, t: Array, alpha: Array) -> Array:
        return 0.5 * alpha * t**2 - 0.5

    def gradient(self, t: Array, alpha: Array | None) -> Array:
        return t.copy() if alpha is None else alpha * t

    def curvature(self, t: Array, alpha: Array | None) -> Array:
        return np.ones(1) if alpha is None else alpha.copy()


@dataclass(frozen=True)
class IntervalFactor(Factor):
    """A number in [low, high], uniform.

    At an end it is held: no variable, with a curvature of one that its compact term takes off again.
    """

    low: float = -1.0
    high: float = 1.0

    @property
    def log_volume(self) -> float:
        return float(np.log(self.high - self.low))

    def moves(self, t: Array) -> bool:
        return bool(self.low < t[0] < self.high)

    def ridge(self, t: Array) -> float:
        """delta, in units of half the length."""
        return COMPACT_STIFFNESS * (2 / (self.high - self.low)) ** 2 if self.moves(t) else 0.0

    def advance(self, t: Array, u: Array) -> Array:
        return np.clip(t + u, self.low, self.high)

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        return rng.uniform(self.low, self.high, (n, 1))

    def curvature(self, t: Array, alpha: Array | None) -> Array:
        return np.zeros(1) if self.moves(t) else np.ones(1)


@dataclass(frozen=True)
class SphereFactor(Factor):
    """A unit 3-vector, uniform; with ``antipodal`` t and -t are the same point (the projective plane)."""

    antipodal: bool = False
    dim = 2
    ambient = 3
    stiffness = COMPACT_STIFFNESS

    @property
    def log_volume(self) -> float:
        return float(np.log(2 * np.pi if self.antipodal else 4 * np.pi))

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        points = rng.standard_normal((n, 3))
        return points / np.linalg.norm(points, axis=1, keepdims=True)

    @staticmethod
    def frame(t: Array) -> Array:
        """Orthonormal tangent vectors at t as columns (3, 2): the pole's axes reflected onto t, without division by 0.

        The sign keeps s + z away from 0; the frame jumps at the equator, and nothing depends on the frame's angle.
        """
        x, y, z = t
        s = 1.0 if z >= 0 else -1.0
        a = -1 / (s + z)
        return np.array([[1 + s * x * x * a, x * y * a], [s * x * y * a, s + y * y * a], [-s * x, -y]])

    def advance(self, t: Array, u: Array) -> Array:
        v, angle = self.frame(t) @ u, np.linalg.norm(u)
        point = np.cos(angle) * t + np.sinc(angle / np.pi) * v  # np.sinc(x) = sin(pi x) / (pi x)
        return point / np.linalg.norm(point)

    def transport(self, t: Array, u: Array) -> Array:
        angle, frame = np.linalg.norm(u), self.frame(t)
        carried = frame
        if angle > 0:
            along = frame @ u / angle
            # The direction of travel turns in the plane of t and itself; the tangent vector across stays.
            turned = np.cos(angle) * along - np.sin(angle) * t
            carried = frame + np.outer(turned - along, along @ frame)
        return self.frame(self.advance(t, u)).T @ carried


@dataclass(frozen=True)
class ChoiceFactor(Factor):
    """One of a few points, stored by its number from 0, all as likely.

    It is no variable: nothing depends on its local coordinate, which has a curvature of one that its compact
    term takes off again.
    """

    size: int = 2

    def moves(self, t: Array) -> bool:
        return False

    @property
    def log_volume(self) -> float:
        return float(np.log(self.size))

    def advance(self, t: Array, u: Array) -> Array:
        return t.copy()

    def draw(self, rng: np.random.Generator, n: int) -> Array:
        return rng.integers(0, self.size, (n, 1)).astype(float)

    def curvature(self, t: Array, alpha: Array | None) -> Array:
        return np.ones(1)
