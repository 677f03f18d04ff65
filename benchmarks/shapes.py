"""Which shape the evidence chooses on planted circles, arcs, lines, tori, spheres and noise.

    python benchmarks/shapes.py [--seeds 10]

Every data set is fitted with no atom and with one atom of each kind, with default arguments; the kind of least
evidence is
the choice. Prints a table and writes it to benchmarks/results/shapes.md. A count of 10 says that the right kind was
chosen
on ten draws of ten.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import sae_rs
from sae_rs import Circle, Line, ManifoldSAE, Patch, Sphere, Torus
from sae_rs.atoms import Atom

Array = NDArray[np.float64]

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


def _mapped(points: Array, rng: np.random.Generator) -> Array:
    """Points (n, d) on orthonormal directions of the output space, with noise."""
    directions = np.linalg.qr(rng.standard_normal((P, points.shape[1])))[0].T
    return points @ directions + NOISE * rng.standard_normal((len(points), P))


def _angles(rng: np.random.Generator) -> Array:
    return rng.uniform(0.0, 2.0 * np.pi, N)


def _circle(rng: np.random.Generator) -> Array:
    t = _angles(rng)
    return _mapped(np.column_stack([np.cos(t), np.sin(t)]), rng)


def _arc(rng: np.random.Generator) -> Array:
    t = rng.standard_normal(N)
    return _mapped(np.column_stack([t, 0.4 * t**2]), rng)


def _line(rng: np.random.Generator) -> Array:
    return _mapped(rng.standard_normal((N, 1)), rng)


def _torus(rng: np.random.Generator) -> Array:
    u, v = _angles(rng), _angles(rng)
    return _mapped(np.column_stack([np.cos(u), np.sin(u), np.cos(v), np.sin(v)]), rng)


def _sphere(rng: np.random.Generator) -> Array:
    x = rng.standard_normal((N, 3))
    return _mapped(x / np.linalg.norm(x, axis=1, keepdims=True), rng)


def _noise(rng: np.random.Generator) -> Array:
    return rng.standard_normal((N, P))


DATA: dict[str, Callable[[np.random.Generator], Array]] = {
    "circle": _circle,
    "arc": _arc,
    "line": _line,
    "torus": _torus,
    "sphere": _sphere,
    "noise": _noise,
}


def evidences(X: Array) -> tuple[dict[str, float], int]:
    """The evidence of every kind on X, and how many fits did not converge."""
    out, unconverged = {}, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sae_rs.ConvergenceWarning)
        for name, kind in KINDS.items():
            model = ManifoldSAE(0).fit(X) if kind is None else ManifoldSAE(1, kind).fit(X)
            out[name] = model.evidence_
            unconverged += not model.converged_
    return out, unconverged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--data", nargs="*", default=list(DATA), choices=list(DATA))
    arguments = parser.parse_args()
    lines = [
        f"n = {N}, p = {P}, noise {NOISE}; one atom of each kind with default arguments; {arguments.seeds} draws.",
        "",
        "| data | right kind | chosen right | other choices | margin of the right kind, nats | not converged |"
        " s a fit |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name in arguments.data:
        chosen: Counter[str] = Counter()
        margins, failures, begin = [], 0, time.perf_counter()
        for seed in range(arguments.seeds):
            values, unconverged = evidences(DATA[name](np.random.default_rng(seed)))
            chosen[min(values, key=lambda kind: values[kind])] += 1
            margins.append(min(v for kind, v in values.items() if kind != RIGHT[name]) - values[RIGHT[name]])
            failures += unconverged
        seconds = (time.perf_counter() - begin) / (arguments.seeds * len(KINDS))
        others = ", ".join(f"{kind} {count}" for kind, count in chosen.items() if kind != RIGHT[name]) or "-"
        span = f"{min(margins):.0f} to {max(margins):.0f}"
        right = chosen[RIGHT[name]]
        lines.append(f"| {name} | {RIGHT[name]} | {right} | {others} | {span} | {failures} | {seconds:.2f} |")
        print(lines[-1], flush=True)
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "shapes.md").write_text("# Shape chosen by evidence\n\n" + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
