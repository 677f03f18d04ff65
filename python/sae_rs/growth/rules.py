"""What a growing dictionary may become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..atoms import Atom
from ..gates import Gate


@dataclass(frozen=True, eq=False)
class GrowthRules:
    """What stays the same all along a path.

    Attributes
    ----------
    gate : Gate
        Gate of a dictionary of any size.
    kinds : tuple of Atom
        Atoms to choose from.
    admitted : callable
        Whether a dictionary may be fitted, for want of rows or memory.
    max_atoms : int
        No dictionary on the path has more atoms.
    n_init, random_state : int
        Seeds of fits from seeds.
    """

    gate: Gate
    kinds: tuple[Atom, ...]
    admitted: Callable[[tuple[Atom, ...]], bool]
    max_atoms: int
    n_init: int
    random_state: int

    def arranged(self, atoms: tuple[Atom, ...]) -> tuple[Atom, ...]:
        """Atoms in the order of the kinds, in which they stand in every dictionary."""
        return tuple(sorted(atoms, key=self.kinds.index))
