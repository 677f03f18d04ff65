"""A first dictionary, all of it at once: an atom for every group of independent components that are active together.

Where rows use a few of many factors, whichever the others do, the factors are independent vectors, and show in the
statistics of all rows before any of them is fitted. Each group of components is then a small problem of its own: what
the other groups explain is taken off the rows, and every kind is fitted to what is left.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri

from .. import _core
from ..atoms import Atom
from ..rows import column_mean
from .moves import State
from .parts import Local, Part
from .room import directions
from .starts import Starts

FloatArray = NDArray[np.float64]

# Chance that a row with nothing but noise in a group is among those to which its atom is fitted.
LEVEL = 0.01


def first_dictionary(starts: Starts) -> State | None:
    """The dictionary of the best atom for every group; None where no group has any, or it may not be fitted.

    Groups for which every kind has a higher evidence than none are left out. Rows with metrics have no such dictionary:
    no coordinates make the noise of all of them the same in every direction.
    """
    problem, rules = starts.like.problem, starts.rules
    if problem.metric is not None:
        return None
    rows: FloatArray = problem.rows - (column_mean(problem.X) if problem.center else 0.0)
    # no atom about a mean spans more directions than this
    widest = max(kind.width for kind in rules.kinds)
    found = _core.independent_groups(
        rows, most=widest * rules.max_atoms, random_state=rules.random_state, threads=starts.like.threads
    )
    if found is None:
        return None
    unmixing, mixing, _, labels = found
    groups = [np.flatnonzero(labels == group) for group in range(int(labels.max()) + 1)]
    # scores are uncorrelated and of unit variance
    groups.sort(key=lambda group: -float(np.square(mixing[group]).sum()))
    # directions of the rows in which no component is seen
    others = np.linalg.qr(mixing.T, mode="complete")[0][:, len(mixing) :]
    noise = float(np.square(rows @ others).mean())
    parts = []
    for group in groups[: rules.max_atoms]:
        targets, frame = isotropic(rows, unmixing[:, group], mixing[group], others)
        own = np.square(targets[:, : len(group)]).sum(axis=1)
        kinds = [kind for kind in rules.kinds if directions(kind) <= len(group)]
        part = best_part(starts, kinds, np.flatnonzero(own > noise * chdtri(len(group), LEVEL)), targets)
        if part is not None:
            parts.append(part.drawn_in(frame))
    return starts.together(parts)


def isotropic(
    rows: FloatArray, unmixing: FloatArray, mixing: FloatArray, others: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Rows in coordinates in which their noise is the same in all directions, and the frame (q, p) of these.

    What is seen of a group through the other groups has more noise than what no group is seen in: components that are
    not orthogonal are told apart at this price.

    Parameters
    ----------
    rows : ndarray of shape (n, p)
    unmixing : ndarray of shape (p, d)
        From rows to the components of a group.
    mixing : ndarray of shape (d, p)
        From the components to rows.
    others : ndarray of shape (p, q - d)
        Orthonormal directions without any component.
    """
    root = np.linalg.cholesky(unmixing.T @ unmixing)
    coordinates = np.linalg.solve(root, (rows @ unmixing).T).T
    return np.hstack([coordinates, rows @ others]), np.vstack([root.T @ mixing, others.T])


def best_part(starts: Starts, kinds: Sequence[Atom], rows: NDArray[np.int_], targets: FloatArray) -> Part | None:
    """The kind of least evidence on some rows, with its state on all; None when none is better than no atom.

    Parameters
    ----------
    rows : ndarray of shape (m,), int
        The rows that kinds are fitted to.
    targets : ndarray of shape (n, p)
        What all rows have for the atom.
    """
    best: Local | None = None
    for kind in kinds:
        found = starts.local((kind,), rows, targets[rows])
        if found is not None and found.gain > 0.0 and (best is None or found.value < best.value):
            best = found
    return None if best is None else best.part(targets)
