"""What gates with a temperature share: where it is a schedule, a fit goes through gates of one temperature each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from .base import FloatArray, Gate
from .schedules import Schedule


class TemperedGate(Gate):
    """A gate whose logits are divided by a temperature; subclasses are frozen dataclasses with such a field."""

    temperature: float | Schedule

    @property
    def least_temperature(self) -> float:
        """The temperature, or that at which its schedule ends."""
        return self.temperature.least if isinstance(self.temperature, Schedule) else self.temperature

    def stages(self) -> Iterator[Gate]:
        """The gate at each temperature of its schedule."""
        if not isinstance(self.temperature, Schedule):
            yield self
            return
        for temperature in self.temperature.temperatures():
            yield self._at(temperature)

    @property
    def settled(self) -> Gate:
        """The gate at the end of its schedule."""
        return self._at(self.least_temperature) if isinstance(self.temperature, Schedule) else self

    def carried(self, logits: FloatArray, before: Gate) -> FloatArray:
        """Logits with the gates that `logits` have at the temperature of `before`."""
        assert isinstance(before, TemperedGate)
        return logits * (self.least_temperature / before.least_temperature)

    def fields(self) -> dict[str, Any]:
        """Plain description for files: the kind and the fields, a schedule by its own fields."""
        fields = super().fields()
        if isinstance(self.temperature, Schedule):
            fields["temperature"] = self.temperature.fields()
        return fields

    def _numbers(self) -> dict[str, Any]:
        """The fields for the compiled module, which knows one temperature: the one that the evidence is of."""
        return {**self.fields(), "temperature": self.least_temperature}

    def _at(self, temperature: float) -> Gate:
        return dataclasses.replace(self, temperature=temperature)  # type: ignore[type-var]
