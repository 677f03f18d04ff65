"""Checkpoints: where a fit stands, in a file from which it can be taken up again.

A search with checkpoints is made of segments. Each ends by writing its accepted point, and the next starts from that
point as it would be read back, with a fresh memory of the minimiser. So a fit that goes on from a file passes through
the same numbers, bit for bit, as one that was never stopped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ._core import SaeManifoldRho
from .boxes import Box
from .containers import Container
from .parameters import encode_parameter
from .rows import FileRows, blocks
from .strengths import rho_fields
from .validation import check_integer

if TYPE_CHECKING:
    from .fit_data import FitData
    from .model import ManifoldSAE
    from .search import Point, Search
    from .settings import FitSettings

FloatArray = NDArray[np.float64]

CHECKPOINTS = Container(
    "sae_rs.checkpoint",
    version=1,
    entry="checkpoint",
    called="the checkpoint ",
    foreign="is no checkpoint of a fit",
    damaged="is damaged",
)
# Constructor parameters that the result does not depend on.
FREE_PARAMETERS = ("progress", "callback", "checkpoint", "n_jobs", "memory_budget", "max_atoms")
# What a search counts, by the names of its attributes.
COUNTERS = (
    "n_evaluations",
    "n_before",
    "n_iterations",
    "n_rounds",
    "support_changes",
    "supports_settled",
    "gradient_followed",
    "n_inner",
)


@dataclass(frozen=True)
class Identity:
    """What a checkpoint belongs to.

    Attributes
    ----------
    data : dict of str to str
        Digests of what was given to ``fit``, by the names of its arguments.
    settings : dict of str to JSON values
        Constructor parameters that the result depends on.
    seed : int
        Seed of the starting points, drawn where none was given.
    """

    data: Mapping[str, str]
    settings: Mapping[str, Any]
    seed: int

    def check(self, other: Identity, path: object) -> None:
        """Refuse to go on with other data or settings.

        Raises
        ------
        ValueError
            The message names what differs.
        """
        data = [f"{name}" for name in self.data if self.data[name] != other.data.get(name)]
        if data:
            raise ValueError(f"the checkpoint {path} is of other data: {', '.join(data)} differ from those of its fit")
        names = sorted({*self.settings, *other.settings})
        absent = "absent"
        differ = [
            f"{name} was {other.settings.get(name, absent)!r}, now {self.settings.get(name, absent)!r}"
            for name in names
            if self.settings.get(name, absent) != other.settings.get(name, absent)
        ]
        if differ:
            raise ValueError(f"the checkpoint {path} is of other settings: {'; '.join(differ)}")


@dataclass(frozen=True, eq=False)
class Saved:
    """Where a fit stood.

    Attributes
    ----------
    identity : Identity
        What it was a fit of.
    stage : {"start", "sample", "whole"}
        Nothing yet, the search on a sample of many rows, or that on all of them.
    box : Box or None
        Where the search in progress is; None when one begins with the state.
    resolution : float
        Nats that its V cannot tell.
    """

    identity: Identity
    stage: str
    box: Box | None = None
    sparsity_floor: float = 0.0
    resolution: float = 0.0
    counters: Mapping[str, int] | None = None
    rho: SaeManifoldRho | None = None
    ranks: Sequence[int | None] = ()
    logits: FloatArray | None = None
    support: NDArray[np.bool_] | None = None
    coords: Sequence[FloatArray] = ()
    decoders: Sequence[FloatArray] = ()

    def restored(self, fit: Search) -> Point:
        """The saved point, evaluated, with the counters of its search set.

        Raises
        ------
        ValueError
            When the state does not fit the problem.
        """
        assert self.logits is not None
        assert self.support is not None
        assert self.rho is not None
        assert self.counters is not None
        for name in COUNTERS:
            setattr(fit, name, int(self.counters[name]))
        fit.sparsity_floor = self.sparsity_floor
        term = fit.problem.at_state(self.logits, self.coords, self.decoders, self.support)
        if any(rank is not None for rank in self.ranks):
            term = term.with_decoder_ranks(list(self.ranks))
        fit.best = None
        fit.resolution = self.resolution
        point = fit.begun(term, self.rho) if fit.settling and self.box is None else fit.fine(term, self.rho)
        fit.stand(point)
        if self.box is not None:
            # a search that is about to begin moves its start into its bounds first
            fit.keep(point)
        return point


class Checkpoints:
    """Writes where a fit stands, and goes on from what it has written.

    Parameters
    ----------
    path : path or None
        File to write; with None nothing is written, and the fit takes the same way.
    every : int
        Outer iterations between two checkpoints within a search.
    resumed : Saved or None
        Where the fit goes on.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, every: int, identity: Identity, resumed: Saved | None
    ) -> None:
        self.path, self.every, self.identity, self.resumed = path, every, identity, resumed
        if resumed is None:
            self._write(Saved(identity, "start"))

    def passed(self, fit: Search, point: Point, box: Box | None) -> Point:
        """Write an accepted point, of a search in a box or before one; returns it as a reader of the file has it."""
        term = point.evaluation.term
        saved = Saved(
            self.identity,
            fit.stage,
            box,
            fit.sparsity_floor,
            fit.resolution,
            {name: getattr(fit, name) for name in COUNTERS},
            point.rho,
            list(term.decoder_ranks),
            np.array(term.logits),
            np.array(term.support),
            [np.array(t) for t in term.coords],
            [np.array(decoder) for decoder in term.decoders],
        )
        self._write(saved)
        return saved.restored(fit)

    def _write(self, saved: Saved) -> None:
        if self.path is not None:
            write(saved, self.path)


def of_fit(
    model: ManifoldSAE, settings: FitSettings, data: FitData, resume: str | os.PathLike[str] | None
) -> Checkpoints | None:
    """Where a fit writes where it stands and goes on from; None without either.

    Raises
    ------
    ValueError
        For parameters that cannot be used, and for a checkpoint that is damaged or of another fit.
    OSError
        When a checkpoint cannot be read or written.
    """
    for name, value in (("checkpoint", model.checkpoint), ("resume", resume)):
        if value is not None and not isinstance(value, (str, os.PathLike)):
            raise ValueError(f"{name} must be a path or None, got {value!r}")
    every = check_integer(model.checkpoint_every, "checkpoint_every", 1)
    if model.checkpoint is None and resume is None:
        return None
    if settings.n_atoms is None:
        raise ValueError("n_atoms='auto' has no checkpoints: use checkpoint and resume with a number of atoms")
    saved = None if resume is None else read(resume)
    seed = settings.seed
    if saved is not None and not isinstance(model.random_state, (int, np.integer)):
        # a seed that was drawn is part of the fit that goes on
        seed = saved.identity.seed
    parameters = {name: value for name, value in model.get_params().items() if name not in FREE_PARAMETERS}
    parameters |= {"checkpoint_every": every, "random_state": seed}
    identity = identity_of(
        {name: encode_parameter(value) for name, value in parameters.items()},
        seed,
        data.fitted.values,
        data.fitted.weights,
        data.whitening,
    )
    if saved is not None:
        assert resume is not None
        identity.check(saved.identity, os.fspath(resume))
    return Checkpoints(model.checkpoint, every, identity, saved)


def identity_of(
    settings: Mapping[str, Any],
    seed: int,
    X: FloatArray | FileRows,
    weights: FloatArray | None,
    metric: FloatArray | None,
) -> Identity:
    """The identity of a fit of rows (n, p) with weights (n,) and metrics (n, p, m)."""
    arrays = {"X": X, "weights": weights, "metric": metric}
    return Identity({name: _digest(array) for name, array in arrays.items()}, json.loads(json.dumps(settings)), seed)


def _digest(array: FloatArray | FileRows | None) -> str:
    """Digest of the values as float64; rows have the same in memory and in a file."""
    if array is None:
        return "none"
    digest = hashlib.sha256(f"float64 {array.shape}".encode())
    for own in blocks(array.shape):
        digest.update(np.ascontiguousarray(array[own], dtype=np.float64).data)
    return digest.hexdigest()


def write(saved: Saved, path: str | os.PathLike[str]) -> None:
    """Write a checkpoint in one step: a reader finds the one before or this one, whole."""
    tensors: dict[str, NDArray[Any]] = {}
    body: dict[str, Any] = {
        "data": dict(saved.identity.data),
        "settings": dict(saved.identity.settings),
        "seed": saved.identity.seed,
        "stage": saved.stage,
    }
    if saved.stage != "start":
        assert saved.logits is not None
        assert saved.support is not None
        assert saved.rho is not None
        assert saved.counters is not None
        body |= {
            "box": None if saved.box is None else asdict(saved.box),
            "sparsity_floor": saved.sparsity_floor,
            "resolution": saved.resolution,
            "counters": dict(saved.counters),
            "rho": rho_fields(saved.rho),
            "ranks": list(saved.ranks),
        }
        tensors = {"logits": saved.logits, "support": saved.support}
        for k, (t, decoder) in enumerate(zip(saved.coords, saved.decoders, strict=True)):
            tensors[f"coords.{k}"], tensors[f"decoder.{k}"] = t, decoder
    CHECKPOINTS.write(path, body, tensors)


def read(path: str | os.PathLike[str]) -> Saved:
    """Read a checkpoint.

    Raises
    ------
    ValueError
        When the file is damaged, is no checkpoint, or has a newer format.
    OSError
        When the file cannot be read, `FileNotFoundError` when there is none.
    """
    return CHECKPOINTS.read(path, _rebuilt)


def _rebuilt(body: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> Saved:
    identity = Identity(dict(body["data"]), dict(body["settings"]), int(body["seed"]))
    if body["stage"] == "start":
        return Saved(identity, "start")
    if body["stage"] not in ("sample", "whole"):
        raise ValueError(f"unknown stage {body['stage']!r}")
    n_atoms = len(body["ranks"])
    return Saved(
        identity,
        body["stage"],
        None if body["box"] is None else Box(float(body["box"]["width"]), int(body["box"]["used"])),
        float(body["sparsity_floor"]),
        float(body["resolution"]),
        {name: int(body["counters"][name]) for name in COUNTERS},
        SaeManifoldRho(**body["rho"]),
        list(body["ranks"]),
        tensors["logits"],
        tensors["support"],
        [tensors[f"coords.{k}"] for k in range(n_atoms)],
        [tensors[f"decoder.{k}"] for k in range(n_atoms)],
    )
