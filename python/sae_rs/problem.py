"""What a fit is of: rows with weights and metrics, atoms and a gate; and the terms of the core made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from . import _core
from .atoms import Atom
from .encoding import encode_with, joined
from .exchange import Exchange, gathered, share
from .gates import Gate
from .metrics import whitened_squares
from .rows import FileRows, blocks, column_mean, column_variance

FloatArray = NDArray[np.float64]

# A sample whose variance is below this part of all rows' misses what there is to find.
REPRESENTATIVE = 0.1
# Directions in which a decoder is shorter than this part of its longest one are not counted in its rank.
LOW_RANK = 1e-3
# Frames are worth their while from this many outputs on, up to this share of them.
FRAME_OUTPUTS = 12
FRAME_SHARE = 0.75


@dataclass(frozen=True, eq=False)
class Problem:
    """What is fitted: rows, atoms, gate and weights."""

    X: FloatArray | FileRows
    atoms: Sequence[Atom]
    gate: Gate
    weights: FloatArray | None
    center: bool
    evidence: str = "laplace"
    arc_length: bool = False
    decoder_rank: int | str | None = None
    # (n, p, m) factors of the rows' metrics
    metric: FloatArray | None = None
    # whether linearised rows are kept between passes, which is faster and takes more memory
    keep_rows: bool = True
    # bytes that a fit may use
    memory_budget: int | None = None
    # the processes that share the rows out among them
    exchange: Exchange | None = None

    @property
    def source(self) -> FloatArray | _core.RowFile:
        """The rows as the core takes them."""
        return self.X.core if isinstance(self.X, FileRows) else self.X

    @property
    def rows(self) -> FloatArray:
        """All rows in memory."""
        return self.X[:]

    @property
    def n_entries(self) -> int:
        """Entries of the data that the likelihood counts."""
        n_rows, n_outputs = self.X.shape
        return int(n_rows * (n_outputs if self.metric is None else self.metric.shape[2]))

    @property
    def variance(self) -> float:
        """Mean square of an entry of the data less their column means, as the likelihood sees it."""
        if self.metric is None:
            return column_variance(self.X)
        mean = column_mean(self.X)
        squares = (whitened_squares(self.X[rows] - mean, self.metric[rows]).sum() for rows in blocks(self.X.shape))
        return float(sum(squares)) / self.n_entries

    def decoder_ranks(self, term: _core.SaeManifoldTerm) -> list[int | None]:
        """Per atom the rank of its decoder's frame, None where it has none."""
        n_outputs = self.X.shape[1]
        if self.decoder_rank is None:
            return [None] * len(self.atoms)
        if self.decoder_rank != "auto":
            return [min(int(self.decoder_rank), atom.width, n_outputs) for atom in self.atoms]
        lengths = [np.linalg.svd(decoder, compute_uv=False) for decoder in term.decoders]
        ranks = [int((values > LOW_RANK * values[0]).sum()) for values in lengths]
        worth = [n_outputs >= FRAME_OUTPUTS and 1 <= rank <= FRAME_SHARE * n_outputs for rank in ranks]
        return [rank if yes else None for rank, yes in zip(ranks, worth, strict=True)]

    def seeds(
        self, n_init: int, random_state: int, threads: int | None
    ) -> list[tuple[_core.SaeManifoldTerm, _core.SaeManifoldRho]]:
        seeds = _core.SaeManifoldTerm.seeds(
            self.source,
            [atom.spec() for atom in self.atoms],
            self.gate.spec(len(self.atoms)),
            weights=self.weights,
            center=self.center,
            evidence=self.evidence,
            arc_length=self.arc_length,
            metric=self.metric,
            n_init=n_init,
            random_state=random_state,
            routing=self.gate.routing,
            threads=threads,
            exchange=self.exchange,
        )
        if self.metric is None:
            return seeds
        # seeds see plain rows: their noise level, and strengths relative to it, are in the data's unit
        shift = float(np.log(self.variance / column_variance(self.X)))
        return [(term, in_unit(rho, shift)) for term, rho in seeds]

    def sample(self, size: int, random_state: int) -> Problem | None:
        """Some of the rows, or None when they show nothing of what the others do.

        Drawn in the order of their length, so that the draw follows the data when rows move, among rows that weigh
        anything.
        """
        mean = column_mean(self.X) if self.center else np.zeros(self.X.shape[1])
        lengths = np.concatenate([np.square(self.X[own] - mean).sum(axis=1) for own in blocks(self.X.shape)])
        order = np.argsort(lengths, kind="stable")
        if self.weights is not None:
            order = order[self.weights[order] > 0.0]
        size = min(size, len(order))
        rows = order[np.sort(np.random.default_rng(random_state).choice(len(order), size, replace=False))]
        X = np.ascontiguousarray(self.X[rows])
        share = column_variance(X) / column_variance(self.X)
        if len(rows) <= max(2, len(self.atoms)) or not share > REPRESENTATIVE:
            return None
        weights = None if self.weights is None else self.weights[rows]
        metric = None if self.metric is None else np.ascontiguousarray(self.metric[rows])
        return replace(self, X=X, weights=weights, metric=metric, keep_rows=True)

    def encoded(
        self, term: _core.SaeManifoldTerm, rho: _core.SaeManifoldRho, threads: int | None
    ) -> _core.SaeManifoldTerm:
        """All rows, encoded by the decoders of a term that has seen some of them."""
        own = share(self.exchange, len(self.X))
        part = encode_with(
            self.X.part(own) if isinstance(self.X, FileRows) else self.X[own],
            np.asarray(term.mean),
            self.atoms,
            self.gate,
            term.decoders,
            rho,
            term.column_scores(rho),
            self.evidence,
            threads,
        )
        found = joined(gathered(self.exchange, part))
        return self.at_state(found.logits, found.coords, term.decoders, found.support)

    def carried(self, term: _core.SaeManifoldTerm, before: Gate) -> _core.SaeManifoldTerm:
        """The state of a term under another gate, its gates kept."""
        logits = self.gate.carried(np.asarray(term.logits), before)
        return self.at_state(logits, term.coords, term.decoders, term.support)

    def at_state(
        self,
        logits: FloatArray,
        coords: Sequence[FloatArray],
        decoders: Sequence[FloatArray],
        support: NDArray[np.bool_],
    ) -> _core.SaeManifoldTerm:
        """The term at a given inner state."""
        return _core.SaeManifoldTerm(
            self.source,
            [atom.spec() for atom in self.atoms],
            self.gate.spec(len(self.atoms)),
            logits,
            coords,
            decoders,
            support=support,
            weights=self.weights,
            center=self.center,
            evidence=self.evidence,
            arc_length=self.arc_length,
            metric=self.metric,
            keep_rows=self.keep_rows,
            exchange=self.exchange,
        )


def in_unit(rho: _core.SaeManifoldRho, shift: float) -> _core.SaeManifoldRho:
    """ρ with ln φ moved by `shift`, and the priors of the decoders where they were."""
    flat = np.array(rho.to_flat())
    flat[1 : 1 + len(rho.log_lambda_smooth)] += shift
    flat[-1] += 0.0 if rho.fixed_dispersion else shift
    return rho.from_flat(flat)
