"""Outer searches compared: evaluations and seconds from near and from distant strengths.

python benchmarks/outer.py
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
from common import FloatArray, Report, parser, table
from numpy.typing import NDArray

import sae_rs

OUTERS = ("bfgs", "efs", "efs+bfgs")
# Rows, columns and circles of the planted sets.
SHAPES = ((200, 20, 1), (2000, 64, 1), (400, 32, 2))
NOISE = 0.1
# How far off the fitted strengths a search starts: in every ln λ, and in ln φ, which starts too large.
SMOOTH_OFFSETS = (-8.0, 8.0)
DISPERSION_OFFSET = 3.0
# A search that is this far above the lowest V seen has ended elsewhere.
SAME = 1.0


def circles(n: int, p: int, k: int) -> FloatArray:
    """Rows (n, p), each near one of k unit circles in orthogonal planes."""
    rng = np.random.default_rng(k)
    angle, which = rng.uniform(0.0, 2.0 * np.pi, n), np.arange(n) % k
    planes = np.linalg.qr(rng.standard_normal((p, 2 * k)))[0].T.reshape(k, 2, p)
    rows = np.einsum("nd,ndp->np", np.column_stack([np.cos(angle), np.sin(angle)]), planes[which])
    return np.asarray(rows + NOISE * rng.standard_normal((n, p)))


def fit(X: NDArray[Any], k: int, outer: str, rho: sae_rs.SaeManifoldRho | None) -> tuple[sae_rs.ManifoldSAE, float]:
    """A fit and the seconds it took."""
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sae_rs.ConvergenceWarning)
        model = sae_rs.ManifoldSAE(n_atoms=k, outer=outer, rho=rho).fit(X)
    return model, time.perf_counter() - start


def distant(model: sae_rs.ManifoldSAE, offset: float) -> sae_rs.SaeManifoldRho:
    """Strengths far from the fitted ones."""
    flat = np.array(model.rho_.to_flat())
    flat[1:-1] += offset
    flat[-1] += DISPERSION_OFFSET
    return model.rho_.from_flat(flat)


def main() -> None:
    """Fit every set from every start by every search."""
    arguments = parser(__doc__).parse_args()
    report = Report("outer", "Outer searches", arguments.quick)
    sets: dict[str, tuple[NDArray[Any], int]] = {
        f"{k} circle{'s' * (k > 1)}, {n} × {p}": (circles(n, p, k), k) for n, p, k in SHAPES
    }
    sets["weekdays"] = (sae_rs.datasets.load_weekdays().X, 1)
    lines = []
    for name, (X, k) in list(sets.items())[: 1 if arguments.quick else None]:
        reference = fit(X, k, "bfgs", None)[0]
        starts = {"seeds": None, **{f"ln λ {o:+.0f}, ln φ +3": distant(reference, o) for o in SMOOTH_OFFSETS}}
        for start, rho in starts.items():
            fits = [fit(X, k, outer, rho) for outer in OUTERS]
            lowest = min(model.evidence_ for model, _ in fits)
            cells = []
            for model, seconds in fits:
                excess = model.evidence_ - lowest
                lost = "" if excess < SAME and model.converged_ else f" ({excess:.0f} nats above)"
                cells.append(f"{model.certificate_.n_evaluations}, {seconds:.2f}{lost}")
            lines.append([name, start, *cells])
            print("  ".join(lines[-1]), flush=True)
    head = ["data", "start", *[f"{outer}: evaluations, s" for outer in OUTERS]]
    report.add(table("Near and distant starts", head, lines))


if __name__ == "__main__":
    main()
