"""Hypothesis strategies for small dictionaries of circles: a strategy draws a ``Recipe``, a recipe builds the arrays.

Arrays come from a seeded generator, so a failing example prints as a short ``Recipe(...)`` call that rebuilds it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from reference import Problem, Rho, State, reconstruct

MIN_ROWS_PER_ATOM = 2
"""Every atom keeps some rows: the decoder of an atom without rows shrinks to zero, and its orbit to a point."""


class Example(NamedTuple):
    """A problem, an inner state and the strengths."""

    problem: Problem
    state: State
    rho: Rho


@dataclass(frozen=True)
class Recipe:
    """Everything a small example is made of.

    ``planted`` starts the state at the dictionary that made the data; otherwise the state is unrelated to them.
    ``ard[k]`` gives atom k a von Mises prior on its angle.
    """

    harmonics: tuple[int, ...] = (1,)
    n: int = 8
    p: int = 4
    planted: bool = True
    temperature: float = 1.0
    logit_precision: float = 0.04
    weighted: bool = False
    full_support: bool = True
    ard: tuple[bool, ...] = (False,)
    log_lambda_sparse: float = 0.0
    log_lambda_smooth: float = -2.0
    log_noise: float = -2.0
    seed: int = 0

    def build(self) -> Example:
        rng, n_atoms = np.random.default_rng(self.seed), len(self.harmonics)
        support = self._support(rng)
        truth = self._state(rng, support)
        noise = np.exp(self.log_noise)
        blank = Problem(np.zeros((self.n, self.p)), self.harmonics, self.temperature, self.logit_precision)
        data = reconstruct(blank, truth) + noise * rng.standard_normal((self.n, self.p))
        weights = rng.uniform(0.3, 3.0, self.n) if self.weighted else None
        problem = replace(blank, data=data - data.mean(axis=0), weights=weights)
        log_ard = tuple(np.array([rng.uniform(-1.0, 1.0)]) if on else np.zeros(0) for on in self.ard)
        # Different strengths for every atom, so that a swapped index shows.
        smooth = self.log_lambda_smooth + 0.3 * np.arange(n_atoms)
        rho = Rho(self.log_lambda_sparse, smooth, log_ard, 2 * self.log_noise + 0.2)
        return Example(problem, truth if self.planted else self._state(rng, support), rho)

    def _support(self, rng: np.random.Generator) -> NDArray[np.bool_]:
        n_atoms = len(self.harmonics)
        support = np.ones((self.n, n_atoms), bool)
        if not self.full_support:
            support = rng.random((self.n, n_atoms)) < 0.6
            for k in range(n_atoms):
                support[rng.choice(self.n, MIN_ROWS_PER_ATOM, replace=False), k] = True
            support[np.arange(self.n), rng.integers(0, n_atoms, self.n)] = True
        return support

    def _state(self, rng: np.random.Generator, support: NDArray[np.bool_]) -> State:
        n_atoms = len(self.harmonics)
        logits = np.hstack([1.5 * rng.standard_normal((self.n, n_atoms - 1)), np.zeros((self.n, 1))])
        coords = rng.uniform(0, 2 * np.pi, (self.n, n_atoms))
        # Higher harmonics are smaller, as in curves worth fitting.
        decoders = tuple(
            rng.standard_normal((2 * h + 1, self.p)) / np.maximum(np.arange(1, 2 * h + 2) // 2, 1)[:, None]
            for h in self.harmonics
        )
        return State(logits, coords, decoders, support)


@st.composite
def recipes(
    draw: st.DrawFn,
    *,
    max_atoms: int = 3,
    max_rows: int = 20,
    max_outputs: int = 9,
    max_harmonics: int = 3,
    planted: bool | None = None,
) -> Recipe:
    """Recipes with 1 to ``max_atoms`` atoms, 6 to ``max_rows`` rows and 3 to ``max_outputs`` outputs."""
    n_atoms = draw(st.integers(1, max_atoms))
    return Recipe(
        harmonics=tuple(draw(st.lists(st.integers(1, max_harmonics), min_size=n_atoms, max_size=n_atoms))),
        n=draw(st.integers(6, max_rows)),
        p=draw(st.integers(3, max_outputs)),
        planted=draw(st.booleans()) if planted is None else planted,
        temperature=draw(st.sampled_from((0.6, 1.0, 1.7))),
        logit_precision=draw(st.sampled_from((0.04, 0.3))),
        weighted=draw(st.booleans()),
        full_support=draw(st.booleans()),
        ard=tuple(draw(st.lists(st.booleans(), min_size=n_atoms, max_size=n_atoms))),
        log_lambda_sparse=draw(st.floats(-2.0, 2.0).map(lambda v: round(v, 3))),
        log_lambda_smooth=draw(st.floats(-4.0, 1.0).map(lambda v: round(v, 3))),
        log_noise=draw(st.floats(-3.0, -1.0).map(lambda v: round(v, 3))),
        seed=draw(st.integers(0, 2**16)),
    )
