"""The parameters of an estimator, checked, as a fit takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from . import _core
from .atoms import Atom, resolve_atoms, resolve_kinds
from .gates import Gate, resolve_gate
from .validation import (
    check_choice,
    check_decoder_rank,
    check_integer,
    check_n_atoms,
    check_n_jobs,
    check_positive,
    check_random_state,
    check_rho,
    check_scales,
)

if TYPE_CHECKING:
    from .model import ManifoldSAE


@dataclass(frozen=True, eq=False)
class FitSettings:
    """What a fit is asked to do; attributes that are not explained are parameters of `ManifoldSAE`.

    Attributes
    ----------
    n_atoms : int or None
        None where the evidence chooses it.
    atoms : tuple of Atom
        The dictionary, or the kinds that one of unknown size is made of.
    arc_length : bool
        Whether the roughness of curves is measured along them.
    threads : int or None
        None uses all cores.
    seed : int
        Seed of the starting points, drawn where none was given.
    memory_budget : int, str or None
        As it was given: refusals quote it.
    """

    n_atoms: int | None
    atoms: tuple[Atom, ...]
    gate: Gate
    evidence: str
    outer: str
    arc_length: bool
    center: bool
    max_atoms: int
    decoder_rank: int | str | None
    rho: _core.SaeManifoldRho | None
    n_init: int
    max_outer: int
    max_inner: int
    tol: float
    threads: int | None
    seed: int
    memory_budget: int | str | None

    @classmethod
    def checked(cls, model: ManifoldSAE, n_columns: int) -> FitSettings:
        """The parameters of a model for rows of so many columns.

        Raises
        ------
        ValueError
            For a parameter that cannot be used, or not together with another; the message names it.
        """
        n_atoms = check_n_atoms(model.n_atoms)
        # a dictionary that grows has at least to have room for one atom of each kind
        atoms = tuple(resolve_kinds(model.atom) if n_atoms is None else resolve_atoms(model.atom, n_atoms))
        gate = resolve_gate(model.gate)
        check_choice(model.evidence, "evidence", ["laplace", "quasi_laplace"])
        check_choice(model.outer, "outer", ["auto", "bfgs", "efs", "efs+bfgs"])
        check_choice(model.roughness, "roughness", ["coordinate", "arc_length"])
        if not isinstance(model.center, (bool, np.bool_)):
            raise ValueError(f"center must be True or False, got {model.center!r}")
        max_atoms = check_integer(model.max_atoms, "max_atoms", 0)
        if n_atoms is None:
            check_growth(model.evidence, model.rho, gate)
        rho = check_rho(model.rho, atoms, model.evidence)
        check_scales(atoms, model.evidence)
        return cls(
            n_atoms=n_atoms,
            atoms=atoms,
            gate=gate,
            evidence=model.evidence,
            outer=model.outer,
            arc_length=model.roughness == "arc_length",
            center=bool(model.center),
            max_atoms=max_atoms,
            decoder_rank=check_decoder_rank(model.decoder_rank, n_columns),
            rho=rho,
            n_init=check_integer(model.n_init, "n_init", 1),
            max_outer=check_integer(model.max_outer, "max_outer", 1),
            max_inner=check_integer(model.max_inner, "max_inner", 1),
            tol=check_positive(model.tol, "tol"),
            threads=check_n_jobs(model.n_jobs),
            seed=check_random_state(model.random_state),
            memory_budget=model.memory_budget,
        )


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
    if ungated := getattr(gate, "ungated", ()):
        raise ValueError(
            "n_atoms='auto' needs ungated=(), since atoms are named by their places in a dictionary of given size,"
            f" got ungated={ungated!r}"
        )
