"""The rows of a fit with their weights and metrics, checked against its settings and the memory it may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .atoms import Atom
from .fitted_rows import FittedRows
from .gates import Gate
from .memory import SAMPLE_ABOVE, MemoryPlan, check_memory, sample_scale
from .metrics import RowMetric
from .rows import FileRows, blocks
from .settings import FitSettings
from .validation import TrainingRows, check_rows_suffice, check_training_rows, check_weights, warn_of_folds

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FitData:
    """What a fit is of.

    Attributes
    ----------
    rows : TrainingRows
        All rows (n, p).
    weights : ndarray of shape (n,) or None
        Their weights, of mean 1.
    factors : ndarray of shape (n, p, m) or None
        Factors of their metrics.
    fitted : FittedRows
        The rows that the fit sees.
    whitening : ndarray of shape (m, p, m) or None
        Factors of these rows where metrics stand in the likelihood.
    keep_rows : bool
        Whether there is room to keep linearised rows between passes.
    copies : int
        Copies of the rows that the fit makes.
    """

    rows: TrainingRows
    weights: FloatArray | None
    factors: FloatArray | None
    fitted: FittedRows
    whitening: FloatArray | None
    keep_rows: bool
    copies: int

    @classmethod
    def checked(
        cls,
        array: NDArray[Any] | FileRows,
        weights: ArrayLike | None,
        metric: RowMetric | None,
        settings: FitSettings,
    ) -> FitData:
        """Rows as `as_matrix` views them, with what goes with them.

        Raises
        ------
        ValueError
            For data that cannot be fitted under these settings or within the budget of memory; the message names what
            is at fault.
        """
        whole = _needs_all_in_memory(len(array), metric, settings)
        copies = _copies(array, whole)
        plans = [_planned(array.shape, atoms, copies, settings) for atoms in _smallest(settings)]
        if isinstance(array, FileRows) and whole:
            array = array.loaded()
        rows = check_training_rows(array)
        n_rows = len(rows.values)
        if settings.n_atoms is not None:
            check_rows_suffice(n_rows, settings.atoms)
            warn_of_folds(array.shape[1], settings.atoms)
            if settings.atoms:
                settings.gate.check(n_rows, settings.n_atoms)
        row_weights = check_weights(weights, n_rows)
        if metric is not None and not isinstance(metric, RowMetric):
            raise ValueError(f"metric must be a sae_rs.RowMetric or None, got {type(metric).__name__}")
        factors = None if metric is None else metric.checked(*rows.values.shape)
        fitted = FittedRows.of(rows.values, row_weights, settings.gate)
        _refuse_few_rows(len(fitted.values), settings)
        if len(fitted.values) < n_rows:
            _refuse_equal_rows(fitted.values)
        whitening = fitted.part(factors) if metric is not None and metric.mode == "whitened" else None
        return cls(rows, row_weights, factors, fitted, whitening, plans[0].keep_rows, copies)

    def admits(self, atoms: tuple[Atom, ...], settings: FitSettings) -> bool:
        """Whether there are rows and memory enough for a dictionary."""
        try:
            _planned(self.rows.values.shape, atoms, self.copies, settings)
            check_rows_suffice(len(self.fitted.values), atoms, "rows of positive weight")
        except ValueError:
            return False
        return True


def _needs_all_in_memory(n_rows: int, metric: object, settings: FitSettings) -> bool:
    routed = settings.gate.routing is not None
    if settings.n_atoms is None or routed or metric is not None:
        return True
    return n_rows <= sample_scale(settings.n_atoms) * SAMPLE_ABOVE


def _copies(array: NDArray[Any] | FileRows, whole: bool) -> int:
    """Copies of the rows that a fit makes."""
    if isinstance(array, FileRows):
        return 2 if whole else 0
    # the core has rows of its own, and what is not float64 is widened first
    return 1 if array.dtype == np.float64 and array.flags.c_contiguous else 2


def _smallest(settings: FitSettings) -> list[tuple[Atom, ...]]:
    """The dictionaries that there has to be memory for."""
    return [settings.atoms] if settings.n_atoms is not None else [(kind,) for kind in settings.atoms]


def _gate_of(atoms: tuple[Atom, ...], settings: FitSettings) -> Gate:
    return settings.gate.sized(len(atoms)) if settings.n_atoms is None else settings.gate


def _planned(shape: tuple[int, ...], atoms: tuple[Atom, ...], copies: int, settings: FitSettings) -> MemoryPlan:
    n_rows, n_columns = shape
    gate = _gate_of(atoms, settings)
    return check_memory(
        settings.memory_budget, n_rows, n_columns, atoms, gate, copies=copies, evidence=settings.evidence
    )


def _refuse_equal_rows(rows: FloatArray | FileRows) -> None:
    """Refuse rows of positive weight that are one row many times, as `check_training_rows` does for all rows."""
    first = rows[0:1]
    if all(bool((rows[part] == first).all()) for part in blocks(rows.shape)):
        raise ValueError(f"X has zero variance: all {len(rows)} rows of positive weight are equal")


def _refuse_few_rows(n_rows: int, settings: FitSettings) -> None:
    """Refuse rows of positive weight to which not even the smallest dictionary could be fitted."""
    if settings.n_atoms is not None:
        check_rows_suffice(n_rows, settings.atoms, "rows of positive weight")
    elif settings.max_atoms:
        narrowest = min(settings.atoms, key=lambda kind: kind.width)
        check_rows_suffice(n_rows, [narrowest], "rows of positive weight")
        settings.gate.sized(1).check(n_rows, 1)
