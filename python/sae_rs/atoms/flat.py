"""What kinds on flat charts share: even grids, wires to draw them by, and bases that are products of series.

A basis column is a product of one function of each coordinate: a harmonic (``1, cos t, sin t, ..., cos Ht, sin Ht``) or
a power. All means are then products of means, over the circle for an angle and over N(0, 1) for a real number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .base import REACH, Atom, FloatArray
from .factors import Angle, Bounded, Factor

# What the degrees of a polynomial are called.
DEGREES = ("linear", "quadratic", "cubic")
# Lines of a surface across each coordinate, and points on each.
WIRES, WIRE_POINTS = 25, 121


class FlatAtom(Atom):
    """An atom whose chart is a product of angles, bounded numbers and real numbers."""

    def grid(self, n_points: int) -> FloatArray:
        """Evenly spread coordinates (n_points, d): angles over their period, bounded numbers between their ends, real
        numbers within ±2."""
        return self._scaled(lattice(n_points, self.dim))

    def wires(self, coords: FloatArray) -> list[FloatArray]:
        """A curve as one line, a surface as a net; other dimensions have none. A line over an angle closes."""
        if self.dim > 2 or not len(coords):
            return []
        along, across = np.linspace(0.0, 1.0, WIRE_POINTS), np.linspace(0.0, 1.0, WIRES)
        if self.dim == 1:
            return [self._spread(np.linspace(0.0, 1.0, 4 * WIRE_POINTS)[:, None], coords)]
        lines = []
        for axis in range(2):
            # the last line across an angle is the first one again
            places = across[:-1] if isinstance(self.factors[1 - axis], Angle) else across
            for place in places:
                line = np.full((WIRE_POINTS, 2), place)
                line[:, axis] = along
                lines.append(self._spread(line, coords))
        return lines

    def _spread(self, share: FloatArray, coords: FloatArray) -> FloatArray:
        """Coordinates at shares (m, d) of a period, of a bounded range, or of the rows' range of a real number."""
        out = self._scaled(share)
        for axis in self.real_axes:
            least, largest = coords[:, axis].min(), coords[:, axis].max()
            out[:, axis] = least + share[:, axis] * (largest - least)
        return out

    def _scaled(self, share: FloatArray) -> FloatArray:
        ends = [_ends(factor) for factor in self.factors]
        return np.column_stack([low + share[:, axis] * (high - low) for axis, (low, high) in enumerate(ends)])


def _ends(factor: Factor) -> tuple[float, float]:
    """The range of a coordinate that a grid covers."""
    if isinstance(factor, Angle):
        return 0.0, factor.period
    return (factor.lower, factor.upper) if isinstance(factor, Bounded) else (-REACH, REACH)


def lattice(n_points: int, dim: int) -> FloatArray:
    """Evenly spread points (n_points, dim) of the unit cube, for any number of them.

    In one dimension both ends are among them. In more the first coordinate counts up and the others go on by irrational
    steps (Kronecker's sequence with generalised golden ratios).
    """
    if dim == 1:
        return np.linspace(0.0, 1.0, n_points).reshape(-1, 1)
    # the root of x^d = x + 1 in place of the golden ratio
    ratio = 1.5
    for _ in range(60):
        ratio = (1.0 + ratio) ** (1.0 / dim)
    index = np.arange(n_points, dtype=np.float64)
    others = [np.mod(0.5 + index * ratio**-axis, 1.0) for axis in range(1, dim)]
    return np.column_stack([(index + 0.5) / n_points, *others])


def frequencies(harmonics: int) -> NDArray[np.int_]:
    """0, 1, 1, 2, 2, ...: the frequency of each column of a circle's basis."""
    return (np.arange(2 * harmonics + 1) + 1) // 2


def harmonic_gram(harmonics: int, order: int = 0) -> FloatArray:
    """Mean products over the circle of the derivatives of one order of a circle's basis."""
    frequency = frequencies(harmonics).astype(np.float64)
    return np.diag(np.where(frequency == 0.0, 1.0, 0.5) * frequency ** (2 * order))


def power_gram(degree: int, order: int = 0) -> FloatArray:
    """Mean products over N(0, 1) of the derivatives of one order of ``1, s, ..., s**degree``."""
    falling = np.array([np.prod(np.arange(j - order + 1, j + 1, dtype=np.float64)) for j in range(degree + 1)])
    left = np.maximum(np.arange(degree + 1) - order, 0)
    return np.outer(falling, falling) * normal_moments(left[:, None] + left[None, :])


def normal_moments(power: NDArray[np.int_]) -> FloatArray:
    """``E s**power`` over N(0, 1): (power − 1)!! for even powers, 0 for odd ones."""
    double_factorial = [float(np.prod(np.arange(1, m, 2, dtype=np.float64))) for m in range(int(power.max()) + 1)]
    return np.where(power % 2 == 0, np.array(double_factorial)[power], 0.0)


def kronecker(first: FloatArray, second: FloatArray) -> FloatArray:
    """Mean products of products of two functions, the first slowest."""
    return np.asarray(np.kron(first, second), dtype=np.float64)


def part_energy(decoder: FloatArray, gram: FloatArray, parts: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Mean squared norm, without its own mean, of the part of a decoded set that some columns make.

    `gram` holds the mean products of the columns; the first column is the constant.
    """
    centred = gram - np.outer(gram[0], gram[0])
    energy = {}
    for name, columns in parts.items():
        own = decoder[list(columns)]
        energy[name] = float(np.sum(own * (centred[np.ix_(columns, columns)] @ own)))
    return energy


def angle_parts(names: tuple[str, str], first: NDArray[np.int_], second: NDArray[np.int_]) -> dict[str, Sequence[int]]:
    """Columns of a surface that depend on one coordinate alone or on both, by their orders in each."""
    alone = {
        names[0]: np.flatnonzero((first > 0) & (second == 0)),
        names[1]: np.flatnonzero((first == 0) & (second > 0)),
        "both": np.flatnonzero((first > 0) & (second > 0)),
    }
    return {name: columns.tolist() for name, columns in alone.items()}
