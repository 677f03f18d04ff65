"""Checks of the fields that kinds of atoms share."""

from __future__ import annotations

from numbers import Integral


def whole_number(kind: str, name: str, value: object, least: int, most: int | None = None) -> int:
    """Check an integer field; a NumPy integer becomes a Python one, because the fields go into files as JSON."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{kind}: {name} must be an integer of at least {least}, got {value!r}")
    if most is not None and value > most:
        raise ValueError(f"{kind}: {name} must be at most {most}, got {value!r}")
    return int(value)
