"""Atom kinds: what a caller writes to say which curved sets the dictionary is made of.

An atom here is a frozen description (kind and size of its basis). The numbers that are fitted, its decoder and the
coordinates of the rows, live in the model. A new kind is one class below and one entry of ``ATOM_KINDS``.
"""

from __future__ import annotations

import dataclasses
import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


class Atom(ABC):
    """Common face of all atom kinds; subclasses are frozen dataclasses whose fields define the basis."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def dim(self) -> int:
        """Dimension d of the chart: how many coordinates a row has on this atom."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Number M of basis functions, the number of rows of the decoder."""

    @abstractmethod
    def wrap(self, coords: FloatArray) -> FloatArray:
        """Bring coordinates (m, d) to their canonical range; the decoded points do not change."""

    @abstractmethod
    def grid(self, n_points: int) -> FloatArray:
        """Coordinates (n_points, d) that cover the atom evenly."""

    @abstractmethod
    def roughness(self) -> FloatArray:
        """Roughness Gram S (M, M): ``tr(B.T @ S @ B)`` is the roughness of the decoder B. Positive semi-definite."""

    @abstractmethod
    def energy(self, decoder: FloatArray) -> dict[str, float]:
        """Mean squared norm of each named part of the decoded set, the constant left out."""

    def spec(self) -> dict[str, Any]:
        """Plain description for the compiled module and for files: the kind and the fields."""
        return {"kind": self.kind, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}}  # type: ignore[arg-type]


@dataclass(frozen=True)
class Circle(Atom):
    """A closed curve: the decoded point is a trigonometric polynomial of one angle.

    The basis is ``1, cos t, sin t, ..., cos Ht, sin Ht`` with t in radians, period 2π.

    Parameters
    ----------
    harmonics : int, default 3
        H, the highest harmonic. One harmonic draws an ellipse; more let the curve bend out of its plane.

    Raises
    ------
    ValueError
        When `harmonics` is not an integer of at least 1.
    """

    harmonics: int = 3
    kind: ClassVar[str] = "circle"

    def __post_init__(self) -> None:
        value: object = self.harmonics
        if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
            raise ValueError(f"Circle: harmonics must be an integer of at least 1, got {value!r}")
        # A NumPy integer is a fine argument but not a JSON number, and the spec goes into files.
        object.__setattr__(self, "harmonics", int(value))

    @property
    def dim(self) -> int:
        return 1

    @property
    def width(self) -> int:
        return 1 + 2 * self.harmonics

    def wrap(self, coords: FloatArray) -> FloatArray:
        """Angles (m, 1) in [0, 2π)."""
        wrapped = np.mod(coords, 2.0 * np.pi)
        # The remainder of a tiny negative angle rounds up to the period itself, which is outside the half-open range.
        wrapped[wrapped >= 2.0 * np.pi] = 0.0
        return wrapped

    def grid(self, n_points: int) -> FloatArray:
        """Evenly spaced angles (n_points, 1) in [0, 2π); the end is left out because it is the start."""
        return np.linspace(0.0, 2.0 * np.pi, n_points, endpoint=False).reshape(-1, 1)

    def roughness(self) -> FloatArray:
        """Mean squared second derivative over the circle: diag(0, h⁴/2, h⁴/2 for each harmonic h)."""
        order = np.arange(1, self.harmonics + 1, dtype=np.float64)
        return np.diag(np.concatenate([[0.0], np.repeat(0.5 * order**4, 2)]))

    def energy(self, decoder: FloatArray) -> dict[str, float]:
        """Mean squared norm of each harmonic over the circle, keyed "h1", "h2", ..."""
        rows = 0.5 * np.einsum("mp,mp->m", decoder[1:], decoder[1:])
        return {f"h{h}": float(rows[2 * h - 2] + rows[2 * h - 1]) for h in range(1, self.harmonics + 1)}


ATOM_KINDS: dict[str, type[Atom]] = {Circle.kind: Circle}


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


def atom_from_spec(spec: Mapping[str, Any]) -> Atom:
    """Rebuild an atom from the result of `Atom.spec`; the kind must be known and the fields valid."""
    fields = dict(spec)
    kind = fields.pop("kind")
    if kind not in ATOM_KINDS:
        raise ValueError(f"unknown atom kind {kind!r}")
    return ATOM_KINDS[kind](**fields)
