"""Temperatures that fall from round to round of a fit.

The evidence belongs to one temperature, so a schedule anneals between searches: each round of fitting is made at a
fixed temperature and starts from the end of the one before. The last round is at `least`; its evidence is the fit's.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

from .base import positive


class Schedule(ABC):
    """Common face of schedules; subclasses are frozen dataclasses with a `start` and a `least` temperature."""

    kind: ClassVar[str]
    start: float
    least: float

    def __post_init__(self) -> None:
        owner = type(self).__name__
        for name in ("start", "least"):
            object.__setattr__(self, name, positive(owner, name, getattr(self, name)))
        if self.least > self.start:
            raise ValueError(f"{owner}: least must be at most start, {self.start!r}, got {self.least!r}")

    @abstractmethod
    def _falling(self, step: int) -> float:
        """Temperature of a step before it is bounded below."""

    def at(self, step: int) -> float:
        """Temperature of round `step`, counted from 0."""
        return max(self._falling(step), self.least)

    def temperatures(self) -> Iterator[float]:
        """Temperatures of all rounds, down to `least`, which comes once."""
        step = 0
        while self.at(step) > self.least:
            yield self.at(step)
            step += 1
        yield self.least

    def fields(self) -> dict[str, Any]:
        """Plain description for files: the kind and the fields."""
        return {"kind": self.kind, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}}  # type: ignore[arg-type]


@dataclass(frozen=True)
class GeometricSchedule(Schedule):
    """The temperature of round j is ``start · rate^j``, never below `least`.

    Parameters
    ----------
    start : float
        Temperature of the first round.
    rate : float
        Factor from round to round, between 0 and 1.
    least : float
        Temperature of the last round, at most `start`.

    Raises
    ------
    ValueError
        When a field is out of its range.
    """

    start: float
    rate: float
    least: float
    kind: ClassVar[str] = "geometric"

    def __post_init__(self) -> None:
        super().__post_init__()
        value: object = self.rate
        if isinstance(value, bool) or not isinstance(value, Real) or not 0.0 < float(value) < 1.0:
            raise ValueError(f"GeometricSchedule: rate must be a number between 0 and 1, got {value!r}")
        object.__setattr__(self, "rate", float(value))

    def _falling(self, step: int) -> float:
        return self.start * self.rate**step


@dataclass(frozen=True)
class LinearSchedule(Schedule):
    """The temperature falls from `start` to `least` in equal steps.

    Parameters
    ----------
    start : float
        Temperature of the first round.
    steps : int
        How many rounds come before the first one at `least`; at least 1.
    least : float
        Temperature of the last round, at most `start`.

    Raises
    ------
    ValueError
        When a field is out of its range.
    """

    start: float
    steps: int
    least: float
    kind: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        value: object = self.steps
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise ValueError(f"LinearSchedule: steps must be an integer of at least 1, got {value!r}")
        object.__setattr__(self, "steps", int(value))

    def _falling(self, step: int) -> float:
        if step >= self.steps:
            return self.least
        return self.start + step / self.steps * (self.least - self.start)


@dataclass(frozen=True)
class ReciprocalSchedule(Schedule):
    """The temperature of round j is ``start / (1 + j)``, never below `least`.

    Parameters
    ----------
    start : float
        Temperature of the first round.
    least : float
        Temperature of the last round, at most `start`.

    Raises
    ------
    ValueError
        When a field is out of its range.
    """

    start: float
    least: float
    kind: ClassVar[str] = "reciprocal"

    def _falling(self, step: int) -> float:
        return self.start / (1 + step)


SCHEDULE_KINDS: dict[str, type[Schedule]] = {
    schedule.kind: schedule for schedule in (GeometricSchedule, LinearSchedule, ReciprocalSchedule)
}


def check_temperature(owner: str, value: object) -> float | Schedule:
    """Check a temperature: a positive finite number, a schedule, or the fields of one as `Schedule.fields` lists them.

    Raises
    ------
    ValueError
        When it is none of these; the message names `owner`.
    """
    if isinstance(value, Schedule):
        return value
    if isinstance(value, Mapping):
        fields = dict(value)
        kind = fields.pop("kind", None)
        if kind not in SCHEDULE_KINDS:
            raise ValueError(f"{owner}: unknown temperature schedule {kind!r}")
        return SCHEDULE_KINDS[kind](**fields)
    return positive(owner, "temperature", value)
