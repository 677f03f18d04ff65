"""Gates: how much of each atom a row uses.

Like an atom, a gate here is a frozen description; the logits that are fitted live in the model. A new gate is one
file with
one class, and one entry of ``GATE_KINDS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..atoms import nearest
from .base import Gate
from .frozen import FrozenRouting
from .ibp import IBP
from .schedules import GeometricSchedule, LinearSchedule, ReciprocalSchedule, Schedule
from .softmax import Softmax
from .threshold import ThresholdGate

__all__ = [
    "GATE_KINDS",
    "IBP",
    "FrozenRouting",
    "Gate",
    "GeometricSchedule",
    "LinearSchedule",
    "ReciprocalSchedule",
    "Schedule",
    "Softmax",
    "ThresholdGate",
    "gate_from_fields",
    "resolve_gate",
]

GATE_KINDS: dict[str, type[Gate]] = {gate.kind: gate for gate in (Softmax, IBP, ThresholdGate, FrozenRouting)}


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
        if gate == FrozenRouting.kind:
            raise ValueError("gate='frozen' needs the gates: write FrozenRouting(gates)")
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
