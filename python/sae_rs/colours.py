"""Colours of rows by where they lie on an atom."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .atoms import Atom
from .atoms.factors import Angle, Bounded, Direction, Real

FloatArray = NDArray[np.float64]

# Hues of the least and the largest real coordinate: not a whole turn apart, so that they differ.
FIRST_HUE, LAST_HUE = -2.2, 1.2


def row_colours(atom: Atom, coords: FloatArray) -> FloatArray:
    """Colours (m, 3) by the first coordinate of the chart (by the longitude of a direction)."""
    factor = atom.factors[0] if atom.factors else None
    if isinstance(factor, Angle):
        return cyclic_colours(2.0 * np.pi / factor.period * coords[:, 0])
    if isinstance(factor, Direction):
        return cyclic_colours(np.arctan2(coords[:, 1], coords[:, 0]))
    if isinstance(factor, (Real, Bounded)) and len(coords):
        least, largest = coords[:, 0].min(), coords[:, 0].max()
        if isinstance(factor, Bounded):
            least, largest = factor.lower, factor.upper
        share = (coords[:, 0] - least) / (largest - least) if largest > least else np.full(len(coords), 0.5)
        return cyclic_colours(FIRST_HUE + (LAST_HUE - FIRST_HUE) * share)
    return cyclic_colours(np.zeros(len(coords)))


def cyclic_colours(angle: FloatArray) -> FloatArray:
    """Colours (m, 3) whose hue goes round once with the angle at equal lightness, so that no direction stands out."""
    lightness, chroma = 0.66, 0.135
    a, b = chroma * np.cos(angle), chroma * np.sin(angle)
    # Oklab to linear sRGB (Ottosson, 2020).
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.column_stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ]
    )
    linear = np.clip(linear, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1.0 / 2.4) - 0.055)
