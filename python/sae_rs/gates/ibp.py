"""The Indian-buffet gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, gammaln

from .base import FloatArray, atom_indices, positive
from .schedules import Schedule, check_temperature
from .tempered import TemperedGate

ENERGIES = ("ordered", "plug_in")
# Least and largest ln α that a start may come from, and the places between them from which a maximum is refined.
CONCENTRATIONS = (-12.0, 16.0)
N_CONCENTRATIONS = 113
# A seed is a first guess: its masses move ln α by at most this.
LARGEST_CHANGE = 2.0


@dataclass(frozen=True)
class IBP(TemperedGate):
    """Independent gates with a price on each atom's share of the rows (Indian buffet process).

    ``a = σ(ℓ/τ) π_k`` with ``π_k = (α/(α + 1))^(k + 1)``. The prior acts on the mass of a column, the sum of σ(ℓ/τ)
    over the
    rows that use the atom, so it couples all rows. A row may use several atoms or none. The prior is not normalised
    over
    logits: evidences compare strengths, not numbers of atoms.

    Parameters
    ----------
    alpha : float, default 1.0
        Concentration α, or its starting value.
    learnable : bool, default True
        Whether α is found by the evidence; ``log_lambda_sparse`` is then the offset of ln α.
    energy : {"ordered", "plug_in"}, default "ordered"
        Column energy: the integrated ordered Beta–Bernoulli, or the plug-in of a posterior mean.
    temperature : float or Schedule, default 1.0
        τ; a schedule anneals it between searches, down to its least.
    logit_precision : float, default 0.04
        Precision ε of the Gaussian prior of each logit.
    ungated : tuple of int, default ()
        Atoms whose gate is 1 on every row.

    Raises
    ------
    ValueError
        When a number is not positive and finite, or `energy` is unknown.
    """

    alpha: float = 1.0
    learnable: bool = True
    energy: str = "ordered"
    temperature: float | Schedule = 1.0
    logit_precision: float = 0.04
    ungated: tuple[int, ...] = ()
    kind: ClassVar[str] = "ibp"

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperature", check_temperature("IBP", self.temperature))
        for name in ("alpha", "logit_precision"):
            object.__setattr__(self, name, positive("IBP", name, getattr(self, name)))
        if not isinstance(self.learnable, bool):
            raise ValueError(f"IBP: learnable must be True or False, got {self.learnable!r}")
        if self.energy not in ENERGIES:
            raise ValueError(f"IBP: energy must be {' or '.join(map(repr, ENERGIES))}, got {self.energy!r}")
        object.__setattr__(self, "ungated", atom_indices("IBP", "ungated", self.ungated))

    def spec(self, n_atoms: int) -> dict[str, Any]:
        """Description for the compiled module."""
        return self._numbers()

    @property
    def ranks_sizes(self) -> bool:
        """The energies of its columns have no normaliser over logits."""
        return False

    @property
    def sparsity_detours(self) -> tuple[float, ...]:
        """The coupling of a column's rows can outweigh their curvature, and then V does not exist.

        It does so in a range of concentrations: far below every mass is likely at some cost, far above none costs much.
        One that is fixed stays where it is.
        """
        return (-1.0, 1.0, -2.0, 2.0, -3.0, 3.0) if self.learnable else ()

    def sparsity_start(self, logits: FloatArray, support: NDArray[np.bool_]) -> float:
        """Where a learnable α starts: where the masses of a seed's columns are likeliest, not far from `alpha`."""
        if not self.learnable:
            return super().sparsity_start(logits, support)
        mass = np.where(support, expit(logits / self.least_temperature), 0.0).sum(axis=0)
        gated = np.array([k for k in range(len(mass)) if k not in self.ungated], dtype=np.int_)
        if not len(gated):
            return super().sparsity_start(logits, support)
        change = likeliest_concentration(mass[gated], len(logits), gated) - np.log(self.alpha)
        return float(np.clip(change, -LARGEST_CHANGE, LARGEST_CHANGE))

    @property
    def sparsity_held(self) -> bool:
        """A fixed α leaves a strength that only scales an energy without a normaliser: it is held."""
        return not self.learnable


def mass_log_likelihood(log_alpha: float, mass: FloatArray, n_rows: int, positions: NDArray[np.int_]) -> float:
    """Logarithm of how likely columns of some masses (K,) are at a concentration, but for a constant.

    The indicators of a column are Bernoulli with a rate from Beta(a, 1), ``a = 1/expm1((k + 1) ln(1 + 1/α))`` at
    position k: the sum of ``ln Γ(M + a) − ln Γ(N + a + 1) + ln a``.
    """
    x = (positions + 1.0) * np.logaddexp(0.0, -log_alpha)
    log_a = -(x + np.log(-np.expm1(-x)))
    a = np.exp(log_a)
    with np.errstate(divide="ignore"):
        # ln Γ(M + a) + ln a = ln Γ(M + a + 1) + ln a − ln(M + a) has no pole at an empty column
        log_share = log_a - np.logaddexp(np.log(mass), log_a)
    return float(np.sum(gammaln(mass + a + 1.0) - gammaln(n_rows + a + 1.0) + log_share))


def likeliest_concentration(mass: FloatArray, n_rows: int, positions: NDArray[np.int_]) -> float:
    """The ln α within `CONCENTRATIONS` that maximises `mass_log_likelihood`."""

    def loss(log_alpha: float) -> float:
        return -mass_log_likelihood(log_alpha, mass, n_rows, positions)

    places = np.linspace(*CONCENTRATIONS, N_CONCENTRATIONS)
    best = int(np.argmin([loss(place) for place in places]))
    around = (places[max(best - 1, 0)], places[min(best + 1, len(places) - 1)])
    return float(minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-10, "maxiter": 100}).x)
