"""Which shape the evidence chooses on planted circles, arcs, lines, tori, spheres and noise.

    python benchmarks/shapes.py [--seeds 10]

Every data set is fitted with no atom and with one atom of each kind, with default arguments; the kind of least
evidence is the choice. A count of 10 says that the right kind was chosen on ten draws of ten.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable

import numpy as np
from common import FloatArray, Report, parser, table

import sae_rs
from sae_rs import Circle, Line, ManifoldSAE, Patch, Sphere, Torus
from sae_rs.atoms import Atom

N, P, NOISE = 300, 32, 0.05
KINDS: dict[str, Atom | None] = {
    "none": None,
    "line": Line(),
    "patch(1)": Patch(1),
    "circle": Circle(),
    "patch(2)": Patch(2),
    "torus": Torus(),
    "sphere": Sphere(),
}
# For each data set the kind that is right.
RIGHT = {"circle": "circle", "arc": "patch(1)", "line": "line", "torus": "torus", "sphere": "sphere", "noise": "none"}


def _mapped(points: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Points (n, d) on orthonormal directions of the output space, with noise."""
    directions = np.linalg.qr(rng.standard_normal((P, points.shape[1])))[0].T
    return np.asarray(points @ directions + NOISE * rng.standard_normal((len(points), P)))


def _angles(rng: np.random.Generator) -> FloatArray:
    return rng.uniform(0.0, 2.0 * np.pi, N)


def _circle(rng: np.random.Generator) -> FloatArray:
    t = _angles(rng)
    return _mapped(np.column_stack([np.cos(t), np.sin(t)]), rng)


def _arc(rng: np.random.Generator) -> FloatArray:
    t = rng.standard_normal(N)
    return _mapped(np.column_stack([t, 0.4 * t**2]), rng)


def _line(rng: np.random.Generator) -> FloatArray:
    return _mapped(rng.standard_normal((N, 1)), rng)


def _torus(rng: np.random.Generator) -> FloatArray:
    u, v = _angles(rng), _angles(rng)
    return _mapped(np.column_stack([np.cos(u), np.sin(u), np.cos(v), np.sin(v)]), rng)


def _sphere(rng: np.random.Generator) -> FloatArray:
    x = rng.standard_normal((N, 3))
    return _mapped(x / np.linalg.norm(x, axis=1, keepdims=True), rng)


def _noise(rng: np.random.Generator) -> FloatArray:
    return rng.standard_normal((N, P))


DATA: dict[str, Callable[[np.random.Generator], FloatArray]] = {
    "circle": _circle,
    "arc": _arc,
    "line": _line,
    "torus": _torus,
    "sphere": _sphere,
    "noise": _noise,
}


def evidences(X: FloatArray) -> tuple[dict[str, float], int]:
    """The evidence of every kind on X, and how many fits did not converge."""
    out, unconverged = {}, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sae_rs.ConvergenceWarning)
        for name, kind in KINDS.items():
            model = ManifoldSAE(0).fit(X) if kind is None else ManifoldSAE(1, kind).fit(X)
            out[name] = model.evidence_
            unconverged += not model.converged_
    return out, unconverged


HEAD = [
    "data",
    "right kind",
    "chosen right",
    "other choices",
    "margin of the right kind, nats",
    "not converged",
    "s a fit",
]
SEEDS = 10


def line(name: str, seeds: int) -> list[str]:
    """How often the right kind was chosen on draws of one data set."""
    chosen: Counter[str] = Counter()
    margins, failures, begin = [], 0, time.perf_counter()
    for seed in range(seeds):
        values, unconverged = evidences(DATA[name](np.random.default_rng(seed)))
        chosen[min(values, key=lambda kind: values[kind])] += 1
        margins.append(min(v for kind, v in values.items() if kind != RIGHT[name]) - values[RIGHT[name]])
        failures += unconverged
    taken = (time.perf_counter() - begin) / (seeds * len(KINDS))
    others = ", ".join(f"{kind} {count}" for kind, count in chosen.items() if kind != RIGHT[name]) or "-"
    span = f"{min(margins):.0f} to {max(margins):.0f}"
    return [name, RIGHT[name], str(chosen[RIGHT[name]]), others, span, str(failures), f"{taken:.2f}"]


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--seeds", type=int, default=SEEDS)
    command.add_argument("--data", nargs="*", default=list(DATA), choices=list(DATA))
    arguments = command.parse_args()
    report = Report("shapes", "Shape chosen by evidence", arguments.quick)
    seeds, names = (1, arguments.data[:2]) if arguments.quick else (arguments.seeds, arguments.data)
    lines = []
    for name in names:
        lines.append(line(name, seeds))
        print("  ".join(lines[-1]), flush=True)
    title = f"n = {N}, p = {P}, noise {NOISE}; one atom of each kind with default arguments; {seeds} draws"
    report.add(table(title, HEAD, lines))


if __name__ == "__main__":
    main()
