"""How far ρ may go in one run of the minimiser.

A search is made of runs, each in a box around the end of the last: a first step says little about a distant ρ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# Half-width of the box in ρ that one run of the minimiser may cross: a factor of 20 in any strength.
WIDTH = 3.0
# Boxes of one search; an infeasible trial quarters the box.
MAX_BOXES = 12
NARROWER = 0.25
# Lengths of the minimiser's first step that one run of it may go where V is estimated. Its second step has, in all
# directions, the length that the flattest so far asks for: with a thousand atoms that leads far out of where V is
# quadratic, and an evaluation there costs several near by. It doubles with each box, for where V is flat all along.
REACH = 8.0


@dataclass(frozen=True)
class Box:
    """The room of one run.

    Attributes
    ----------
    width : float
        Half-width in each entry of ρ; less than `WIDTH` keeps an infeasible trial out.
    used : int
        Boxes that the search has used up before.
    """

    width: float = WIDTH
    used: int = 0

    @property
    def is_allowed(self) -> bool:
        """Whether the search may use another box."""
        return self.used < MAX_BOXES

    @property
    def keeps_out(self) -> bool:
        """Whether a trial without V lies beyond."""
        return self.width < WIDTH

    @property
    def reach(self) -> float:
        """Lengths of the minimiser's first step that a run may go where V is estimated."""
        return REACH * 2.0**self.used

    def next(self) -> Box:
        """For a run that came to the end of this one."""
        return Box(self.width, self.used + 1)

    def narrowed(self, step: float) -> Box:
        """For a run after a trial that had no V, this far away."""
        return Box(NARROWER * step, self.used + 1)

    def faces(self, at: FloatArray, bounds: tuple[FloatArray, FloatArray], first: FloatArray | None) -> Faces:
        """The box around a flat ρ, within the bounds of the search.

        Parameters
        ----------
        at : (J,) array
            Where the run begins.
        bounds : pair of (J,) arrays
            Least and largest value of each entry.
        first : (J,) array or None
            The minimiser's first step, made evenly long where it is short, where its length counts.
        """
        half = np.full(len(at), self.width)
        if first is not None:
            half = np.minimum(half, self.reach * first)
        lower, upper = np.maximum(bounds[0], at - half), np.minimum(bounds[1], at + half)
        # a face that keeps an infeasible trial out is not left for the next one
        opens = (half < self.width) | (not self.keeps_out)
        # the minimiser's change of units and back moves a point on a face by a rounding
        return Faces(lower, upper, opens & (lower > bounds[0]), opens & (upper < bounds[1]), 1e-9 * half)


@dataclass(frozen=True, eq=False)
class Faces:
    """The least and largest value of each entry of ρ in one run, and behind which faces a next run may go on."""

    lower: FloatArray
    upper: FloatArray
    lower_opens: NDArray[np.bool_]
    upper_opens: NDArray[np.bool_]
    slack: FloatArray

    def is_left_at(self, end: FloatArray) -> bool:
        """Whether a run that ended here may go on in a box around its end."""
        below, above = self._at(end)
        return bool(np.any(below | above))

    def holds_up(self, at: FloatArray, gradient: FloatArray) -> NDArray[np.bool_]:
        """Entries of ρ that stand at a face behind which a next run may go on, and would fall further there."""
        below, above = self._at(at)
        return (below & (gradient > 0.0)) | (above & (gradient < 0.0))

    def _at(self, end: FloatArray) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Entries at a lower and at an upper face that opens."""
        return (end <= self.lower + self.slack) & self.lower_opens, (end >= self.upper - self.slack) & self.upper_opens
