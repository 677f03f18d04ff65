"""Atom kinds: what a caller writes to say which curved sets the dictionary is made of.

An atom here is a frozen description (kind and size of its basis). The numbers that are fitted, its decoder and the
coordinates of the rows, live in the model. A new kind is one file with one class, and one entry of ``ATOM_KINDS``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from .base import Atom
from .circle import Circle
from .cylinder import Cylinder
from .duchon import Duchon
from .finite_set import FiniteSet
from .klein_bottle import KleinBottle
from .line import Line
from .mobius import Mobius
from .patch import Patch
from .poincare import Poincare
from .precomputed import Precomputed
from .projective_plane import ProjectivePlane
from .segment import Segment
from .sphere import Sphere
from .torus import Torus

__all__ = [
    "ATOM_KINDS",
    "Atom",
    "Circle",
    "Cylinder",
    "Duchon",
    "FiniteSet",
    "KleinBottle",
    "Line",
    "Mobius",
    "Patch",
    "Poincare",
    "Precomputed",
    "ProjectivePlane",
    "Segment",
    "Sphere",
    "Torus",
    "atom_from_spec",
    "nearest",
    "resolve_atom",
    "resolve_atoms",
]

ATOM_KINDS: dict[str, type[Atom]] = {
    Circle.kind: Circle,
    Cylinder.kind: Cylinder,
    Duchon.kind: Duchon,
    FiniteSet.kind: FiniteSet,
    KleinBottle.kind: KleinBottle,
    Line.kind: Line,
    Mobius.kind: Mobius,
    Patch.kind: Patch,
    Poincare.kind: Poincare,
    Precomputed.kind: Precomputed,
    ProjectivePlane.kind: ProjectivePlane,
    Segment.kind: Segment,
    Sphere.kind: Sphere,
    Torus.kind: Torus,
}


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the entry of `known` that is spelled most like `name`."""
    return difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.0)[0]


def resolve_atom(atom: object) -> Atom:
    """Turn a kind name or an atom object into an atom.

    Raises
    ------
    ValueError
        For an unknown name (the message names the nearest known kind) or any other object.
    """
    if isinstance(atom, Atom):
        return atom
    if isinstance(atom, str):
        if atom in ATOM_KINDS:
            return ATOM_KINDS[atom]()
        close, known = nearest(atom, list(ATOM_KINDS)), ", ".join(repr(kind) for kind in ATOM_KINDS)
        raise ValueError(f"unknown atom kind {atom!r}: did you mean {close!r}? Known kinds: {known}")
    if isinstance(atom, type) and issubclass(atom, Atom):
        raise ValueError(f"atom must be an object, not the class {atom.__name__}: write {atom.__name__}()")
    raise ValueError(f"atom must be a kind name or an atom object such as Circle(), got {type(atom).__name__}")


def resolve_atoms(atom: object, n_atoms: int) -> tuple[Atom, ...]:
    """Turn the `atom` argument of the estimator into one atom object for each of the `n_atoms` places.

    Parameters
    ----------
    atom : str, Atom, or sequence of them
        One kind for all places, or one entry for each.
    n_atoms : int
        K, at least 0.

    Raises
    ------
    ValueError
        For an unknown kind or a list whose length is not K.
    """
    if isinstance(atom, (list, tuple)):
        if len(atom) != n_atoms:
            raise ValueError(f"atom is a list of {len(atom)} but n_atoms is {n_atoms}: give one entry for each atom")
        return tuple(resolve_atom(entry) for entry in atom)
    return (resolve_atom(atom),) * n_atoms


def resolve_kinds(atom: object) -> tuple[Atom, ...]:
    """The different kinds to choose from when the number of atoms is not given."""
    entries = atom if isinstance(atom, (list, tuple)) else [atom]
    if not entries:
        raise ValueError("atom is an empty list: give at least one kind to choose from")
    return tuple(dict.fromkeys(resolve_atom(entry) for entry in entries))


def atom_from_spec(spec: Mapping[str, Any]) -> Atom:
    """Rebuild an atom from the result of `Atom.spec`; the kind must be known and the fields valid."""
    fields = dict(spec)
    kind = fields.pop("kind")
    if kind not in ATOM_KINDS:
        raise ValueError(f"unknown atom kind {kind!r}")
    return ATOM_KINDS[kind].from_fields(fields)
