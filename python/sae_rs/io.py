"""Models in files: one safetensors file, its numbers as tensors and its parameters as JSON in the header.

Reading executes nothing. A number survives the round trip bit for bit: arrays are stored as they are, and JSON writes
the shortest text that reads back as the same float.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._core import SaeManifoldRho
from .atoms import atom_from_spec
from .containers import Container
from .gates import gate_from_fields
from .growth import GrowthStep
from .model import ManifoldSAE
from .parameters import encode_parameter
from .reml import Certificate
from .strengths import rho_fields
from .training import TrainingSummary, n_directions

FORMAT = "sae_rs.ManifoldSAE"
MODELS = Container(
    FORMAT,
    version=1,
    entry="model",
    called="",
    foreign="was not written by ManifoldSAE.save",
    damaged=f"is a damaged {FORMAT} file",
)
# Parameters that describe a run, not a model, and that a file cannot hold.
RUN_PARAMETERS = ("progress", "callback", "checkpoint", "checkpoint_every")


def save(model: ManifoldSAE, path: str | os.PathLike[str]) -> None:
    """Write a fitted model to `path`, replacing a file of that name in one step.

    The training rows are not stored; gates and coordinates of the training rows are.

    Raises
    ------
    OSError
        When the file cannot be written; an existing file is then unchanged.
    """
    training = model._training
    tensors: dict[str, NDArray[Any]] = {
        "mean": model.mean_,
        "gates": model.gates_,
        "support": model.support_,
        "logits": model._logits,
        "column_scores": model._column_scores,
        "shares": training.shares,
    }
    if training.edf is not None:
        tensors["edf"] = training.edf
    for k in range(len(model._atoms)):
        tensors[f"coords.{k}"] = model.coords_[k]
        tensors[f"decoder.{k}"] = model.decoders_[k]
        tensors[f"covariance.{k}"] = training.covariances[k]
        tensors[f"view.{k}"] = training.views[k]
        tensors[f"view_rows.{k}"] = training.view_rows[k]
    parameters = {name: value for name, value in model.get_params().items() if name not in RUN_PARAMETERS}
    body = {
        "parameters": encode_parameter(parameters),
        "atoms": [atom.spec() for atom in model._atoms],
        "gate": model._gate.fields(),
        "dtype": model._dtype.name,
        "evidence": model.evidence_,
        "evidence_parts": model.evidence_parts_,
        "rho": rho_fields(model.rho_),
        "dispersion": model.dispersion_,
        "converged": model.converged_,
        "certificate": encode_parameter(dataclasses.asdict(model.certificate_)),
        "explained_variance": model.explained_variance_,
        "metric_explained_variance": model.metric_explained_variance_,
        "growth": [_step_fields(step) for step in model.growth_],
    }
    MODELS.write(path, body, tensors)


def load(path: str | os.PathLike[str]) -> ManifoldSAE:
    """Read a model that `ManifoldSAE.save` wrote.

    Everything works on the result but ``term_``, which needs the training rows; `progress` and `callback` are unset.

    Raises
    ------
    ValueError
        When the file is damaged, was not written by this package, or has a newer format.
    OSError
        When the file cannot be read.
    """
    return MODELS.read(path, _rebuild)


def _rebuild(body: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> ManifoldSAE:
    atoms = tuple(atom_from_spec(spec) for spec in body["atoms"])
    places = range(len(atoms))
    n_rows, n_columns = len(tensors["gates"]), len(tensors["mean"])

    def take(name: str, *shape: int, dtype: type = np.float64) -> NDArray[Any]:
        tensor = tensors[name]
        if tensor.shape != shape or tensor.dtype != dtype:
            expected = f"{shape} {np.dtype(dtype).name}"
            raise ValueError(f"tensor {name!r} is {tensor.shape} {tensor.dtype.name}, expected {expected}")
        if dtype is np.float64 and not np.isfinite(tensor).all():
            raise ValueError(f"tensor {name!r} holds values that are not finite")
        return tensor

    model = ManifoldSAE(**_decode(body["parameters"]))
    rho = SaeManifoldRho(**body["rho"])
    if len(rho.log_lambda_smooth) != len(atoms):
        raise ValueError(f"rho has {len(rho.log_lambda_smooth)} smoothness strengths for {len(atoms)} atoms")
    training = TrainingSummary(
        explained_variance=float(body["explained_variance"]),
        shares=take("shares", len(atoms)),
        covariances=[take(f"covariance.{k}", atoms[k].width, atoms[k].width) for k in places],
        views=[take(f"view.{k}", n_directions(atoms[k]), n_columns) for k in places],
        view_rows=[take(f"view_rows.{k}", n_rows, n_directions(atoms[k])) for k in places],
        edf=take("edf", len(atoms)) if "edf" in tensors else None,
    )
    dtype = np.dtype(body["dtype"])
    if dtype.name not in ("float32", "float64"):
        raise ValueError(f"dtype is {dtype.name!r}")
    model.__dict__.update(
        coords_=[take(f"coords.{k}", n_rows, atoms[k].ambient) for k in places],
        gates_=take("gates", n_rows, len(atoms)),
        support_=take("support", n_rows, len(atoms), dtype=np.bool_),
        decoders_=[take(f"decoder.{k}", atoms[k].width, n_columns) for k in places],
        mean_=take("mean", n_columns),
        evidence_=float(body["evidence"]),
        evidence_parts_={str(name): float(value) for name, value in body["evidence_parts"].items()},
        rho_=rho,
        dispersion_=float(body["dispersion"]),
        converged_=bool(body["converged"]),
        certificate_=Certificate(**{**body["certificate"], "at_bounds": tuple(body["certificate"]["at_bounds"])}),
        explained_variance_=training.explained_variance,
        # files of before there were metrics have none
        metric_explained_variance_=body.get("metric_explained_variance"),
        growth_=tuple(_step(fields) for fields in body.get("growth", ())),
        n_features_in_=n_columns,
        _atoms=atoms,
        _gate=gate_from_fields(body["gate"]),
        _evidence=str(model.evidence),
        _dtype=dtype,
        _logits=take("logits", n_rows, len(atoms)),
        _column_scores=take("column_scores", len(tensors["column_scores"])),
        _training=training,
        _term=None,
    )
    return model


def _step_fields(step: GrowthStep) -> dict[str, Any]:
    """A step of growth as JSON values; what is not finite is no JSON number."""
    fields = dataclasses.asdict(step)
    return {name: None if isinstance(v, float) and not np.isfinite(v) else v for name, v in fields.items()}


def _step(fields: Mapping[str, Any]) -> GrowthStep:
    """A step of growth; those of older files have fewer fields."""
    evidence = fields["evidence"]
    known = {name: value for name, value in fields.items() if value is not None}
    return GrowthStep(
        **{**known, "kinds": tuple(fields["kinds"]), "evidence": float("inf") if evidence is None else float(evidence)}
    )


def _decode(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _decode_value(value) for name, value in parameters.items()}


def _decode_value(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode_value(entry) for entry in value]
    if isinstance(value, dict):
        ((tag, fields),) = value.items()
        if tag == "atom":
            return atom_from_spec(fields)
        if tag == "gate":
            return gate_from_fields(fields)
        if tag == "rho":
            return SaeManifoldRho(**fields)
        raise ValueError(f"unknown parameter object {tag!r}")
    return value
