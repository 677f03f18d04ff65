"""Dictionaries whose number of atoms the evidence chooses.

The path starts at no atoms. Where rows may use several atoms at a time, a first dictionary has one for every group of
independent components. A birth proposes an atom on what the dictionary so far leaves: on the residual of all rows
where a row may use several atoms, on the rows that are explained worst where gates share out a row. It goes on from
the state of the others, and so do deaths, merges of atoms that draw the same set, and exchanges of an atom's kind. Each
is kept when it lowers V. While the dictionary is small, fits from seeds compete: mixtures of which a single atom is a
bad compromise need them.

`growing` goes the path and `path` remembers it; `first` makes the first dictionary, `proposals` says which moves are
worth a trial, of kinds that have `room`. `parts` fits new atoms by themselves, `starts` makes what `moves` describes
into dictionaries, and `decisions` searches these as far as a decision needs.
"""

from __future__ import annotations

from .growing import Grown, grow
from .path import GrowthStep
from .rules import GrowthRules

__all__ = ["Grown", "GrowthRules", "GrowthStep", "grow"]
