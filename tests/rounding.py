"""What rounding leaves of the determinants of H and of their derivatives.

An entry of H is a sum of at most D products of entries of J, and an elimination rounds it at most D times more. The
products of an entry (a, b), and what the elimination takes off it, are at most E_ab = sqrt(H_aa H_bb) by Cauchy and
Schwarz. Their errors have either sign, so that they grow with the root of their number (Higham and Mary, SIAM J. Sci.
Comput. 41, 2019): whoever computes with H computes with H + dH,

    |dH_ab| <= c eps E_ab,    c = 2 sqrt(2 D).

With X = H^-1, to first order:

    |d ln|H||      = |tr(X dH)|                       <= c eps sum |X_ab| E_ab
    |d tr(X H')|  <= |tr(X dH X H')| + |tr(X dH')|    <= c eps (sum E_ab |X H' X|_ab + sum |X_ab| |H'_ab|)
    |d ln|G'HG||                                      <= c eps sum |(G'HG)^-1|_ij (|G|'E|G|)_ij.

Where negative terms are part of a diagonal entry, as the coupling of the IBP gate is, E counts their size as well. In
the classic mode a block of a row with directions that are replaced is taken apart into eigenvalues, which carries the
rounding of its largest entry into all of it.

In units where H has a unit diagonal, ||dH|| <= c eps ||E||, and the sign of an eigenvalue nearer to zero than that is
anyone's guess. The bounds add up sizes where errors mostly cancel: where eps times the condition number of H is below a
tolerance, that tolerance is asked for itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from reference import Problem, Rho, State, curvature, curvature_theta, gauge
from reference.conditioning import Conditioned
from reference.curvature import coupling, coupling_theta
from reference.extended import NotPositiveError, inverse

Array = NDArray[np.float64]

EPS = float(np.finfo(float).eps)


@dataclass(frozen=True, eq=False)
class Rounding:
    """One H at one state.

    ``matrix`` is H, ``sizes`` is E. With a unit diagonal ``least`` is the least eigenvalue of H, ``condition`` its
    condition number, ``reach`` how far rounding may move an eigenvalue. ``generators`` is G, without columns where V
    has no orbits.
    """

    problem: Problem
    state: State
    rho: Rho
    matrix: Array
    sizes: Array
    generators: Array
    least: float
    condition: float
    reach: float

    @classmethod
    def of(cls, problem: Problem, state: State, rho: Rho, *, conditioned: bool = True) -> Rounding:
        """The H of V, or with ``conditioned=False`` the one before the classic mode replaces anything."""
        raw = curvature(problem, state, rho)
        diagonal = np.abs(np.diag(raw)) + 2 * np.abs(np.diag(coupling(problem, state, rho)))
        sizes = np.sqrt(np.outer(diagonal, diagonal))
        matrix = raw
        if problem.classic and conditioned:
            replaced = Conditioned(problem, state, rho)
            matrix = replaced.matrix
            for spectrum in replaced.spectra:
                if spectrum.replaced:
                    own = np.ix_(spectrum.index, spectrum.index)
                    sizes[own] = np.abs(raw[own]).max()
        unit = 1 / np.sqrt(np.maximum(np.abs(np.diag(matrix)), np.finfo(float).tiny))
        values = np.linalg.eigvalsh(unit[:, None] * matrix * unit)
        reach = unit_error(len(matrix)) * float(np.linalg.norm(unit[:, None] * sizes * unit, 2))
        condition = float(values[-1] / values[0]) if values[0] > 0 else np.inf
        generators = gauge(problem, state, rho)[:, : 0 if problem.classic else None]
        return cls(problem, state, rho, matrix, sizes, generators, float(values[0]), condition, reach)

    @property
    def positive(self) -> Literal["yes", "no", "unknown"]:
        """Whether H is positive definite, as far as its entries tell."""
        return "unknown" if abs(self.least) <= self.reach else "yes" if self.least > 0 else "no"

    @property
    def invertible(self) -> bool:
        """Whether the reference has determinants here."""
        try:
            return bool(len(self._reduced_inverse) + len(self._inverse))
        except NotPositiveError:
            return False

    @cached_property
    def _inverse(self) -> Array:
        return inverse(self.matrix).astype(float)

    @cached_property
    def _reduced_inverse(self) -> Array:
        return inverse(self.generators.T @ self.matrix @ self.generators).astype(float)

    @cached_property
    def log_det_bound(self) -> float:
        """Of ln|H| - ln|G'HG|."""
        reduced = np.abs(self.generators).T @ self.sizes @ np.abs(self.generators)
        total = np.sum(np.abs(self._inverse) * self.sizes) + np.sum(np.abs(self._reduced_inverse) * reduced)
        return unit_error(len(self.matrix)) * float(total)

    @cached_property
    def adjoint_bound(self) -> float:
        """Of the entries of Gamma."""
        problem, state, rho = self.problem, self.state, self.rho
        conditioned = Conditioned(problem, state, rho) if problem.classic else None
        worst = 0.0
        changes = zip(curvature_theta(problem, state, rho), coupling_theta(problem, state, rho), strict=True)
        for change, ties in changes:
            moved = change if conditioned is None else conditioned.change(change, ties)
            error = np.sum(self.sizes * np.abs(self._inverse @ moved @ self._inverse))
            worst = max(worst, float(error + np.sum(np.abs(self._inverse * moved))))
        return unit_error(len(self.matrix)) * worst

    def allows(self, tolerance: float) -> bool:
        """Whether a relative tolerance can be asked for."""
        return self.condition * EPS <= tolerance


def unit_error(size: int) -> float:
    """c eps."""
    return 2 * np.sqrt(2 * size) * EPS
