"""What an estimator keeps of a fit: passes over the rows once the search has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .encoding import Encoding, encode_with
from .fit_data import FitData
from .fitting import Outcome
from .rows import column_mean
from .settings import FitSettings
from .stopping import INTERRUPTED
from .training import TrainingSummary, metric_explained_variance, summarise_training

FloatArray = NDArray[np.float64]


def attributes(outcome: Outcome, data: FitData, settings: FitSettings) -> dict[str, Any]:
    """The attributes of the fitted estimator by name.

    Ctrl-C makes the fit one that was interrupted, but does not lose its state.

    Raises
    ------
    KeyboardInterrupt
        When it is not the first Ctrl-C of this fit.
    """
    try:
        return _attributes(outcome, data, settings)
    except KeyboardInterrupt:
        if outcome.result.status == INTERRUPTED:
            raise
    return _attributes(outcome.cut_off(INTERRUPTED), data, settings)


@dataclass(frozen=True, eq=False)
class _State:
    """Mean (p,), K decoders, and for all rows gates, logits and support (n, K) and K coordinate arrays."""

    mean: FloatArray
    decoders: list[FloatArray]
    gates: FloatArray
    logits: FloatArray
    support: NDArray[np.bool_]
    coords: list[FloatArray]


def _attributes(outcome: Outcome, data: FitData, settings: FitSettings) -> dict[str, Any]:
    result, term = outcome.result, outcome.result.term
    state = _state(outcome, data, settings)
    training = _summary(outcome, data, state)
    return {
        "coords_": state.coords,
        "gates_": state.gates,
        "support_": state.support,
        "decoders_": state.decoders,
        "mean_": state.mean,
        "evidence_": float(result.value),
        "evidence_parts_": {name: float(value) for name, value in result.parts.items()},
        "rho_": result.rho,
        "dispersion_": float(result.rho.dispersion()),
        "converged_": bool(result.converged),
        "certificate_": result.certificate,
        "explained_variance_": training.explained_variance,
        "metric_explained_variance_": _metric_explained_variance(outcome, data, state),
        "growth_": outcome.path,
        "n_features_in_": data.rows.values.shape[1],
        "_atoms": outcome.atoms,
        "_gate": outcome.gate,
        "_evidence": settings.evidence,
        "_dtype": data.rows.dtype,
        "_logits": state.logits,
        "_column_scores": np.zeros(0) if term is None else np.asarray(term.column_scores(result.rho)),
        "_training": training,
        "_term": term,
    }


def _state(outcome: Outcome, data: FitData, settings: FitSettings) -> _State:
    """The state of all rows; those that the fit has not seen are encoded."""
    n_rows, n_columns = data.rows.values.shape
    term, rho = outcome.result.term, outcome.result.rho
    if term is None:
        mean = column_mean(data.fitted.values) if settings.center else np.zeros(n_columns)
        none = np.zeros((n_rows, 0))
        return _State(mean, [], none, none.copy(), none.astype(bool), [])
    mean, decoders = np.array(term.mean), [np.array(decoder) for decoder in term.decoders]

    def encoded(rows: FloatArray) -> Encoding:
        return encode_with(
            rows,
            mean,
            outcome.atoms,
            outcome.gate,
            decoders,
            rho,
            term.column_scores(rho),
            settings.evidence,
            settings.threads,
        )

    gates, logits, support, coords = data.fitted.all_rows(term, outcome.atoms, data.rows.values, encoded)
    return _State(mean, decoders, gates, logits, support, coords)


def _summary(outcome: Outcome, data: FitData, state: _State) -> TrainingSummary:
    result = outcome.result
    return summarise_training(
        data.rows.values,
        state.mean,
        outcome.atoms,
        state.decoders,
        state.gates,
        state.coords,
        weights=data.weights,
        smoothness=np.asarray(result.rho.lambda_smooth_vec()),
        roughness=[] if result.term is None else [np.asarray(gram) for gram in result.term.roughness],
        dispersion=float(result.rho.dispersion()),
        mean_variance=data.rows.mean_variance,
        edf=result.edf,
    )


def _metric_explained_variance(outcome: Outcome, data: FitData, state: _State) -> float | None:
    """Explained variance as the metrics of the rows measure it; None without any."""
    if data.factors is None:
        return None
    return metric_explained_variance(
        data.rows.values,
        state.mean,
        outcome.atoms,
        state.decoders,
        state.gates,
        state.coords,
        data.weights,
        data.factors,
    )
