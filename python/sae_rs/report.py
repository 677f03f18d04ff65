"""The summary of a fit as a table in plain text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .dictionary import FittedDictionary


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out cells in columns: the first column to the left, the others to the right, a rule under the head."""
    widths = [max(len(line[j]) for line in [head, *rows]) for j in range(len(head))]

    def layout(line: Sequence[str]) -> str:
        first, *others = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        return "  ".join([first.strip().ljust(widths[0]), *others])

    return "\n".join([layout(head), "  ".join("-" * w for w in widths), *(layout(line) for line in rows)])


# What the number is that a fit has minimised.
CRITERIA = {
    "laplace": "negative log marginal likelihood, lower is better",
    "quasi_laplace": "quasi-Laplace criterion, comparable at one number of atoms and one noise sd",
}

# Moves of a growing dictionary, in the order in which they are counted.
ACTIONS = ("grouping", "birth", "death", "merge", "exchange")


def summary(model: FittedDictionary) -> str:
    """Describe a fitted model: the fit in the header, then one line for each atom.

    Columns are the mean gate, the rows that use the atom, the part of the explained variance that its contribution
    carries, the effective degrees of freedom of its smooth part (of the p·rank(S) directions in which its decoder can
    be rough, those that the data determine), and the share of each part of the basis (a harmonic, a degree) in the
    energy of what it draws.
    """
    n_rows, n_atoms = model.gates_.shape
    status = "converged" if model.converged_ else f"not converged ({model.certificate_.status})"
    what = f"{n_atoms} atom{'' if n_atoms == 1 else 's'}" if n_atoms else "the mean alone"
    lines = [
        f"ManifoldSAE: {n_rows} rows x {model.n_features_in_} columns, {what}, {status}",
        f"evidence            {model.evidence_:.2f} nats ({CRITERIA[model._evidence]})",
        f"noise sd            {np.sqrt(model.dispersion_):.4g}",
        f"explained variance  {model.explained_variance_:.4f}",
    ]
    if model.growth_:
        kept = [step.action for step in model.growth_ if step.kept]
        moves = ", ".join(f"{kept.count(a)} {a}{'' if kept.count(a) == 1 else 's'}" for a in ACTIONS if a in kept)
        lines.append(f"growth              {len(model.growth_)} dictionaries tried, kept: {moves or 'none with atoms'}")
    if not n_atoms:
        return "\n".join(lines)
    head = ["atom", "kind", "mean gate", "rows", "explained", "edf", "energy by part"]
    rows = []
    for k, atom in enumerate(model._atoms):
        energy = atom.energy(model.decoders_[k])
        total = sum(energy.values())
        parts = [f"{name} {value / total:.1%}" if total > 0.0 else f"{name} -" for name, value in energy.items()]
        rows.append(
            [
                str(k),
                atom.kind,
                f"{model.gates_[:, k].mean():.3f}",
                str(int(model.support_[:, k].sum())),
                f"{model._training.shares[k]:.4f}",
                "-" if model._training.edf is None else f"{model._training.edf[k]:.1f}",
                " ".join(parts),
            ]
        )
    return "\n".join([*lines, "", table(head, rows)])
