"""Where to write names beside points so that they do not cover each other."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# Free space between a point and its name; larger gaps are tried only when the smaller ones are taken.
GAPS = (6.0, 16.0, 28.0, 42.0)
# Directions that are tried, as turns from straight outwards.
TURNS = tuple(math.radians(degrees) for degrees in (0, 25, -25, 50, -50, 80, -80, 120, -120, 160, -160))
# Half the side of the square that a point's own mark takes.
MARK = 5.0


def place_names(points: FloatArray, sizes: FloatArray) -> FloatArray:
    """Choose where names go, the outermost point first, straight outwards where there is room.

    Parameters
    ----------
    points : ndarray of shape (c, 2)
        Positions of the marks, in any unit of length on the page.
    sizes : ndarray of shape (c, 2)
        Width and height of each name in the same unit.

    Returns
    -------
    ndarray of shape (c, 2)
        Offset of the centre of each name from its point. A name for which no place is free goes straight outwards.
    """
    outward = points - points.mean(axis=0)
    offsets = np.empty_like(points)
    centres, halves = list(points), [np.full(2, MARK)] * len(points)
    for j in np.argsort(-np.linalg.norm(outward, axis=1), kind="stable"):
        straight = math.atan2(outward[j, 1], outward[j, 0])
        half = 0.5 * sizes[j]
        candidates = [
            np.array([math.cos(straight + turn) * (gap + half[0]), math.sin(straight + turn) * (gap + half[1])])
            for gap in GAPS
            for turn in TURNS
        ]
        chosen = next((c for c in candidates if _is_free(points[j] + c, half, centres, halves)), candidates[0])
        offsets[j] = chosen
        centres.append(points[j] + chosen)
        halves.append(half)
    return offsets


def _is_free(centre: FloatArray, half: FloatArray, centres: list[FloatArray], halves: list[FloatArray]) -> bool:
    """Whether a box keeps clear of all boxes that are taken."""
    apart = np.abs(np.array(centres) - centre) >= np.array(halves) + half
    return bool(apart.any(axis=1).all())
