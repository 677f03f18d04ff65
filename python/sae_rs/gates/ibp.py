"""The Indian-buffet gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from .base import atom_indices, positive
from .schedules import Schedule, check_temperature
from .tempered import TemperedGate

ENERGIES = ("ordered", "plug_in")


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
    def sparsity_held(self) -> bool:
        """A fixed α leaves a strength that only scales an energy without a normaliser: it is held."""
        return not self.learnable
