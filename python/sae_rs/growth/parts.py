"""Atoms fitted to what some rows have for them, before they are put into a dictionary."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..atoms import Atom
from ..encoding import decode_atom
from ..gates import Gate
from ..reml import mean_only
from ..search import Point, Search
from ..starts import COARSE_INNER, glance

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# Rows that the atoms of a move are fitted to: a sample of those that they are for.
LOCAL_ROWS = 400
# Seeds and outer iterations of such a fit.
LOCAL_INIT = 2
LOCAL_OUTER = 3
# Inner tolerance of it, and of all that only decides about a move.
LOCAL_TOL = 1e-5


@dataclass(frozen=True, eq=False)
class Part:
    """Atoms fitted to some rows, each with what the rows look like to it.

    Attributes
    ----------
    decoders : list of ndarray of shape (M_k, p)
    energies : list of float
        Mean square length of what each adds to the rows that it was fitted to.
    log_stiffness : list of float
        ln λ/φ of each.
    precisions : list of list of float
        Logarithms of the precisions of its coordinates.
    coords, logits, support
        State of the rows that the atoms are for.
    """

    atoms: tuple[Atom, ...]
    decoders: list[FloatArray]
    energies: list[float]
    log_stiffness: list[float]
    precisions: list[list[float]]
    coords: list[FloatArray]
    logits: FloatArray
    support: BoolArray

    def drawn_in(self, frame: FloatArray) -> Part:
        """The same atoms where the p outputs are coordinates in a frame (p, q) of q others."""
        return replace(self, decoders=[decoder @ frame for decoder in self.decoders])


@dataclass(frozen=True, eq=False)
class Local:
    """Atoms fitted to a sample of the rows that they are for.

    Attributes
    ----------
    fit : Search
        The search whose problem is the sample.
    gate : Gate
        Gate of a dictionary of these atoms alone.
    point : Point
        Where a few steps of it have ended.
    """

    fit: Search
    gate: Gate
    point: Point

    @property
    def atoms(self) -> tuple[Atom, ...]:
        return tuple(self.fit.problem.atoms)

    @property
    def value(self) -> float:
        """V of the sample."""
        return float(self.point.evaluation.value)

    @property
    def gain(self) -> float:
        """How far V of the sample is below that of no atom, in nats."""
        local = self.fit.problem
        none = mean_only(local.X, local.weights, local.center, local.evidence, None, local.metric)
        return none.value - self.value

    def part(self, targets: FloatArray) -> Part:
        """The atoms with the state of rows (m, p), given what each has for them."""
        term = self.point.evaluation.term
        _, coords, logits, support, _, _ = _core.encode_rows(
            np.ascontiguousarray(targets),
            np.zeros(targets.shape[1]),
            [atom.spec() for atom in self.atoms],
            self.gate.spec(len(self.atoms)),
            term.decoders,
            self.point.rho,
            evidence=self.fit.problem.evidence,
            column_scores=term.column_scores(self.point.rho),
            threads=self.fit.threads,
        )
        rho, gates = self.point.rho, np.asarray(term.gates)
        points = [
            gates[:, k, None] * decode_atom(atom, term.decoders[k], np.asarray(term.coords[k]))
            for k, atom in enumerate(self.atoms)
        ]
        return Part(
            self.atoms,
            [np.array(decoder) for decoder in term.decoders],
            [float(np.square(own).sum(axis=1).mean()) for own in points],
            [float(strength - np.log(rho.dispersion())) for strength in rho.log_lambda_smooth],
            [list(block) for block in rho.log_ard],
            list(coords),
            np.asarray(logits),
            np.asarray(support),
        )


def local_fit(
    like: Search,
    gate: Gate,
    atoms: tuple[Atom, ...],
    rows: NDArray[np.int_],
    targets: FloatArray,
    random_state: int,
    n_init: int = LOCAL_INIT,
) -> Local | None:
    """Fit atoms to what some rows have for them.

    Parameters
    ----------
    like : Search
        Settings, weights and metrics of all rows.
    rows : ndarray of shape (m,), int
        Which of them.
    targets : ndarray of shape (m, p)
        What each of these has for the atoms.

    Returns
    -------
    Local or None
        None when the rows are too few or no start of theirs has a V.
    """
    sample = _sample(like, gate, atoms, rows, targets, random_state)
    if sample is None:
        return None
    return _ended(like, sample[0], gate, quick_start(sample[0], gate, n_init, random_state))


def standing_fit(
    like: Search,
    gate: Gate,
    atom: Atom,
    term: _core.SaeManifoldTerm,
    rho: _core.SaeManifoldRho,
    k: int,
    targets: FloatArray,
    random_state: int,
) -> Local | None:
    """An atom of a dictionary by itself, where it stands, on the sample that others would be fitted to.

    Parameters
    ----------
    like : Search
        A search of the dictionary without atoms.
    targets : ndarray of shape (n, p)
        What all rows have for the atom.
    """
    sample = _sample(like, gate, (atom,), np.arange(len(targets)), targets, random_state)
    if sample is None:
        return None
    fit, drawn = sample
    alone = fit.problem.at_state(
        np.ascontiguousarray(np.asarray(term.logits)[drawn, k, None]),
        [np.ascontiguousarray(np.asarray(term.coords[k])[drawn])],
        [np.asarray(term.decoders[k])],
        np.ascontiguousarray(np.asarray(term.support)[drawn, k, None]),
    )
    strengths = _core.SaeManifoldRho(
        rho.log_lambda_sparse, [rho.log_lambda_smooth[k]], [list(rho.log_ard[k])], "per_atom", rho.log_dispersion
    )
    point = fit.settled(alone, fit.admitted(strengths), COARSE_INNER)
    return _ended(like, fit, gate, glance(fit, point, LOCAL_OUTER))


def _ended(like: Search, fit: Search, gate: Gate, point: Point) -> Local | None:
    like.n_evaluations = fit.n_evaluations
    return Local(fit, gate, point) if np.isfinite(point.evaluation.value) else None


def _sample(
    like: Search,
    gate: Gate,
    atoms: tuple[Atom, ...],
    rows: NDArray[np.int_],
    targets: FloatArray,
    random_state: int,
) -> tuple[Search, NDArray[np.int_]] | None:
    """A search for atoms on a sample of some rows, and which of `targets` it has; None when they are too few."""
    problem = like.problem
    heavy = np.arange(len(rows)) if problem.weights is None else np.flatnonzero(problem.weights[rows] > 0.0)
    if len(heavy) <= 2 + sum(atom.width for atom in atoms):
        return None
    drawn = heavy
    if len(heavy) > LOCAL_ROWS:
        # in the order of their length, so that the draw follows the data when rows move
        order = heavy[np.argsort(np.square(targets[heavy]).sum(axis=1), kind="stable")]
        drawn = order[np.sort(np.random.default_rng(random_state).choice(len(heavy), LOCAL_ROWS, replace=False))]
    sample = np.ascontiguousarray(targets[drawn])
    if not np.ptp(sample, axis=0).any():
        return None
    local = replace(
        problem,
        X=sample,
        atoms=atoms,
        gate=gate,
        weights=None if problem.weights is None else problem.weights[rows[drawn]] / problem.weights[rows[drawn]].mean(),
        metric=None if problem.metric is None else np.ascontiguousarray(problem.metric[rows[drawn]]),
        center=False,
    )
    fit = like.on(local).after(like)
    fit.inner_tol = LOCAL_TOL
    return fit, drawn


def quick_start(fit: Search, gate: Gate, n_init: int, random_state: int) -> Point:
    """The best of the seeds at the strengths they come with, after a few steps of the search.

    The full comparison of starts (`sae_rs.starts.chosen_start`) searches from each; here what it would tell is told by
    the dictionary that a start becomes part of.
    """
    fit.inner_tol = LOCAL_TOL
    found = []
    for term, rho in fit.problem.seeds(n_init, random_state, fit.threads):
        flat = np.array(rho.to_flat())
        if gate.free_logits(len(fit.problem.atoms)):
            flat[0] = gate.sparsity_start(np.asarray(term.logits), np.asarray(term.support))
        found.append(fit.settled(term, fit.admitted(rho.from_flat(flat)), COARSE_INNER))
    best = min(found, key=lambda point: value if np.isfinite(value := float(point.evaluation.value)) else np.inf)
    return glance(fit, best, LOCAL_OUTER)
