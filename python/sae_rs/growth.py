"""Dictionaries whose number of atoms the evidence chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .atoms import Atom
from .gates import Gate
from .reml import FitResult


@dataclass(frozen=True)
class GrowthStep:
    """One dictionary that was tried.

    Attributes
    ----------
    kinds : tuple of str
        Kinds of its atoms.
    evidence : float
        Its V in nats.
    converged : bool
        Whether its fit converged.
    kept : bool
        Whether the next step went on from it.
    """

    kinds: tuple[str, ...]
    evidence: float
    converged: bool
    kept: bool


@dataclass(frozen=True, eq=False)
class Grown:
    """The dictionary of least evidence on the path, with its atoms and the path."""

    result: FitResult
    atoms: tuple[Atom, ...]
    path: tuple[GrowthStep, ...]


def check_growth(evidence: object, rho: object, gate: Gate) -> None:
    """Refuse what a dictionary of unknown size cannot be combined with."""
    if evidence != "laplace":
        raise ValueError(f"n_atoms='auto' needs evidence='laplace', which compares numbers of atoms, got {evidence!r}")
    if rho is not None:
        raise ValueError("n_atoms='auto' needs rho=None: strengths are of a given number of atoms")
    if not gate.ranks_sizes:
        raise ValueError(
            f"n_atoms='auto' needs a gate whose evidence compares numbers of atoms, which {gate.kind!r} does not"
        )
    if gate.routing is not None:
        raise ValueError("n_atoms='auto' cannot be combined with frozen routing, which says how many atoms there are")


def grow(
    fit: Callable[[tuple[Atom, ...]], FitResult],
    kinds: Sequence[Atom],
    admitted: Callable[[tuple[Atom, ...]], bool],
    max_atoms: int,
) -> Grown:
    """Add one atom at a time while that lowers the evidence.

    The path starts at no atoms. Each step fits the dictionary with one more atom, once for every kind, from new seeds,
    and the kind of least evidence is kept if its evidence is below the one before. Atoms of one kind stand together, so
    that the same dictionary is the same problem whatever the order it was found in.

    Parameters
    ----------
    fit : callable
        Fits a dictionary.
    kinds : sequence of Atom
        Atoms to choose from.
    admitted : callable
        Whether a dictionary may be fitted, for want of rows or memory.
    max_atoms : int
        Where the path ends at the latest.
    """
    order = {kind: place for place, kind in enumerate(kinds)}
    atoms: tuple[Atom, ...] = ()
    best = fit(atoms)
    path = [GrowthStep((), float(best.value), best.converged, True)]
    while len(atoms) < max_atoms:
        tried = [tuple(sorted((*atoms, kind), key=lambda atom: order[atom])) for kind in kinds]
        fits = []
        for larger in filter(admitted, tried):
            fits.append((fit(larger), larger))
            if fits[-1][0].status == "stopped":
                break
        if not fits:
            break
        found, larger = min(fits, key=lambda pair: pair[0].value)
        better = found.value < best.value
        path += [
            GrowthStep(
                tuple(atom.kind for atom in own), float(result.value), result.converged, better and own == larger
            )
            for result, own in fits
        ]
        if better:
            best, atoms = found, larger
        if not better or fits[-1][0].status == "stopped":
            break
    return Grown(best, atoms, tuple(path))
