"""Small sets of real transformer activations, shipped with the package.

The rows of ``weekdays`` and ``months`` are states of the sentence encoder all-MiniLM-L6-v2 after its third layer, at
the words for days and for months in 20 sentences each. The calendar order shows in them as a ring. How they were made
is told in ``docs/datasets.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Activations", "StackedActivations", "load_months", "load_weekdays", "stack"]


@dataclass(frozen=True, eq=False)
class Activations:
    """Activations with the word and the sentence behind each row.

    Parameters
    ----------
    X : ndarray of float32, shape (n, width)
        One state per row.
    labels : ndarray of int64, shape (n,)
        For each row, the index of its word in ``label_names``.
    label_names : tuple of str
        The words, in calendar order.
    template_ids : ndarray of int64, shape (n,)
        For each row, the index of its sentence in ``templates``.
    templates : tuple of str
        The sentences, with ``{}`` in place of the word.
    description : str
        What the rows are.
    """

    X: NDArray[np.float32]
    labels: NDArray[np.int64]
    label_names: tuple[str, ...]
    template_ids: NDArray[np.int64]
    templates: tuple[str, ...]
    description: str

    def __repr__(self) -> str:
        n, width = self.X.shape
        return (
            f"{type(self).__name__}({n} x {width}, {len(self.label_names)} labels, "
            f"{len(self.templates)} templates: {self.description})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class StackedActivations(Activations):
    """Several sets of activations, one below the other.

    Parameters
    ----------
    source : ndarray of int64, shape (n,)
        For each row, the place of its set among the arguments of `stack`.
    """

    source: NDArray[np.int64]


def load_weekdays() -> Activations:
    """Load states at the seven days of the week.

    Returns
    -------
    Activations
        140 rows of width 384: 7 days in 20 sentences. Rows run over days, and over sentences within each day. The
        arrays are fresh on each call.

    Examples
    --------
    >>> from sae_rs.datasets import load_weekdays
    >>> days = load_weekdays()
    >>> days.X.shape
    (140, 384)
    >>> days.label_names[0]
    'Monday'
    """
    return _load("weekdays", "days of the week, all-MiniLM-L6-v2 after layer 3")


def load_months() -> Activations:
    """Load states at the twelve months of the year.

    Returns
    -------
    Activations
        240 rows of width 384: 12 months in 20 sentences. Rows run over months, and over sentences within each month.
        The arrays are fresh on each call.

    Examples
    --------
    >>> from sae_rs.datasets import load_months
    >>> load_months().X.shape
    (240, 384)
    """
    return _load("months", "months of the year, all-MiniLM-L6-v2 after layer 3")


def stack(*activations: Activations) -> StackedActivations:
    """Put several sets of activations one below the other.

    Parameters
    ----------
    *activations
        One set or more, all of the same width.

    Returns
    -------
    StackedActivations
        The rows in the order given. Label names and templates are joined, and the indices into them moved to match;
        a name that occurs in two sets stays two labels. ``source`` tells which set a row is from.

    Raises
    ------
    ValueError
        If no set is given, or the widths differ.

    Examples
    --------
    >>> from sae_rs.datasets import load_months, load_weekdays, stack
    >>> both = stack(load_weekdays(), load_months())
    >>> both.X.shape
    (380, 384)
    >>> both.label_names[int(both.labels[140])]
    'January'
    """
    if not activations:
        raise ValueError("stack needs at least one set of activations")
    widths = [a.X.shape[1] for a in activations]
    if len(set(widths)) > 1:
        raise ValueError(f"all sets must have the same width, got {widths}")
    first_label = np.cumsum([0, *(len(a.label_names) for a in activations[:-1])])
    first_template = np.cumsum([0, *(len(a.templates) for a in activations[:-1])])
    return StackedActivations(
        X=np.concatenate([a.X for a in activations]),
        labels=np.concatenate([a.labels + first for a, first in zip(activations, first_label, strict=True)]),
        label_names=tuple(name for a in activations for name in a.label_names),
        template_ids=np.concatenate(
            [a.template_ids + first for a, first in zip(activations, first_template, strict=True)]
        ),
        templates=tuple(template for a in activations for template in a.templates),
        description="; ".join(a.description for a in activations),
        source=np.repeat(np.arange(len(activations), dtype=np.int64), [len(a.X) for a in activations]),
    )


def _load(name: str, description: str) -> Activations:
    resource = files("sae_rs") / "data" / f"{name}.npz"
    with resource.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        fields: dict[str, NDArray[Any]] = dict(arrays)
    return Activations(
        X=fields["X"],
        labels=fields["labels"].astype(np.int64),
        label_names=tuple(fields["label_names"].tolist()),
        template_ids=fields["template_ids"].astype(np.int64),
        templates=tuple(fields["templates"].tolist()),
        description=description,
    )
