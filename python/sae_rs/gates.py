"""Gates: how much of each atom a row uses.

Like an atom, a gate here is a frozen description; the logits that are fitted live in the model. A new gate is one class
below and one entry of ``GATE_KINDS``.
"""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import qmc

from .atoms import nearest

FloatArray = NDArray[np.float64]

# Nodes of the quasi-Monte-Carlo mean that normalises the gate prior. A power of two keeps the Sobol points balanced;
# more nodes cost time in every evaluation of the evidence and change it by less than its Laplace error.
N_NODES = 4096
# The nodes are a definition of the evidence, not a random draw: the same for every fit, so evidences can be compared.
NODE_SEED = 0
# Nodes at 0 or 1 would map to infinite logits.
NODE_MARGIN = 1e-9


class Gate(ABC):
    """Common face of all gates; subclasses are frozen dataclasses."""

    kind: ClassVar[str]

    @abstractmethod
    def spec(self, n_atoms: int) -> dict[str, Any]:
        """Description for the compiled module: kind, fields and the arrays that depend on the number of atoms."""

    def fields(self) -> dict[str, Any]:
        """Plain description for files: the kind and the fields."""
        return {"kind": self.kind, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}}  # type: ignore[arg-type]


@dataclass(frozen=True)
class Softmax(Gate):
    """Gates of a row are the softmax of its logits; the last logit is pinned at 0. They sum to one.

    Parameters
    ----------
    temperature : float, default 1.0
        Divides the logits.
    logit_precision : float, default 0.04
        Precision ε of the proper Gaussian prior of each free logit, which makes the evidence finite.

    Raises
    ------
    ValueError
        When a parameter is not a positive finite number.
    """

    temperature: float = 1.0
    logit_precision: float = 0.04
    kind: ClassVar[str] = "softmax"

    def __post_init__(self) -> None:
        for name in ("temperature", "logit_precision"):
            value: object = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or not 0.0 < float(value) < np.inf:
                raise ValueError(f"Softmax: {name} must be a positive finite number, got {value!r}")
            object.__setattr__(self, name, float(value))

    def spec(self, n_atoms: int) -> dict[str, Any]:
        """Description for the compiled module; ``node_logits`` is (4096, n_atoms − 1), float64, read-only."""
        return {**self.fields(), "node_logits": _prior_nodes(max(n_atoms - 1, 0), self.logit_precision)}


@functools.lru_cache(maxsize=8)
def _prior_nodes(n_free: int, precision: float) -> FloatArray:
    """Logits (N_NODES, n_free) spread like the prior N(0, 1/precision): the nodes of the gate prior's normaliser."""
    if n_free == 0:
        nodes = np.zeros((N_NODES, 0))
    else:
        uniform = qmc.Sobol(n_free, seed=NODE_SEED).random(N_NODES)
        nodes = ndtri(np.clip(uniform, NODE_MARGIN, 1.0 - NODE_MARGIN)) / np.sqrt(precision)
    nodes = np.ascontiguousarray(nodes, dtype=np.float64)
    nodes.flags.writeable = False
    return nodes


GATE_KINDS: dict[str, type[Gate]] = {Softmax.kind: Softmax}


def resolve_gate(gate: object) -> Gate:
    """Turn a gate name or a gate object into a gate.

    Raises
    ------
    ValueError
        For an unknown name (the message names the nearest known gate) or any other object.
    """
    if isinstance(gate, Gate):
        return gate
    if isinstance(gate, str):
        if gate in GATE_KINDS:
            return GATE_KINDS[gate]()
        close, known = nearest(gate, list(GATE_KINDS)), ", ".join(repr(kind) for kind in GATE_KINDS)
        raise ValueError(f"unknown gate {gate!r}: did you mean {close!r}? Known gates: {known}")
    if isinstance(gate, type) and issubclass(gate, Gate):
        raise ValueError(f"gate must be an object, not the class {gate.__name__}: write {gate.__name__}()")
    raise ValueError(f"gate must be a name or a gate object such as Softmax(), got {type(gate).__name__}")


def gate_from_fields(fields: Mapping[str, Any]) -> Gate:
    """Rebuild a gate from the result of `Gate.fields`; the kind must be known and the fields valid."""
    values = dict(fields)
    kind = values.pop("kind")
    if kind not in GATE_KINDS:
        raise ValueError(f"unknown gate {kind!r}")
    return GATE_KINDS[kind](**values)
