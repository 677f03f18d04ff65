"""How many atoms, and of which kinds, a dictionary grows to on planted data.

    python benchmarks/growth.py [--only circles noise lines mixed small mixture] [--seeds 1] [--first 0]

The mixtures take minutes each, and have to be asked for.

Prints a table and writes it to benchmarks/results/growth.md.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import sae_rs
from sae_rs import Circle, Line, ManifoldSAE, Sphere, ThresholdGate, Torus
from sae_rs.atoms import Atom

Array = NDArray[np.float64]

NOISE = 0.05
HEAD = [
    "| data | gate | kinds | planted | found | steps | evidence | explained | processor s |",
    "|---|---|---|---|---|---|---|---|---|",
]


def _planes(rng: np.random.Generator, n: int, p: int) -> Array:
    """Unit directions (n, p), not orthogonal."""
    directions = rng.standard_normal((n, p))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def circles(n_circles: int, p: int, n: int, seed: int) -> Array:
    """One circle a row, used by Zipf's law."""
    rng = np.random.default_rng(seed)
    use = 1.0 / np.arange(1, n_circles + 1) ** 1.2
    which, t = rng.choice(n_circles, size=n, p=use / use.sum()), rng.uniform(0.0, 2.0 * np.pi, n)
    planes = _planes(rng, 2 * n_circles, p).reshape(n_circles, 2, p)
    points = np.column_stack([np.cos(t), np.sin(t)])
    return np.einsum("ij,ijp->ip", points, planes[which]) + NOISE * rng.standard_normal((n, p))


def mixed(n_circles: int, p: int, n: int, used: int, seed: int) -> Array:
    """So many of the circles on every row, whichever, each with an amplitude of its own there."""
    rng = np.random.default_rng(seed)
    planes = np.stack([np.linalg.qr(rng.standard_normal((p, 2)))[0].T for _ in range(n_circles)])
    X = NOISE * rng.standard_normal((n, p))
    for row in X:
        which, angle = rng.choice(n_circles, used, replace=False), rng.uniform(0.0, 2.0 * np.pi, used)
        points = rng.uniform(0.85, 1.15, used)[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
        row += np.einsum("kj,kjp->p", points, planes[which])
    return X


def lines(n_lines: int, p: int, n: int, seed: int) -> Array:
    """One line a row."""
    rng = np.random.default_rng(seed)
    which = rng.integers(n_lines, size=n)
    place = rng.choice([-1.0, 1.0], n) * rng.uniform(0.3, 2.0, n)
    return place[:, None] * _planes(rng, n_lines, p)[which] + NOISE * rng.standard_normal((n, p))


def _points(kind: str, n: int, rng: np.random.Generator) -> Array:
    """Points (n, d) of a kind about the origin, of mean square one."""
    if kind == "line":
        return rng.choice([-1.0, 1.0], (n, 1)) * rng.uniform(0.5, 1.4, (n, 1))
    if kind == "sphere":
        x = rng.standard_normal((n, 3))
        return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))
    angles = rng.uniform(0.0, 2.0 * np.pi, (n, 1 if kind == "circle" else 2))
    points = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    return np.asarray(points / np.sqrt(angles.shape[1]))


def mixture(kinds: list[str], p: int, n: int, seed: int) -> Array:
    """Two or three of the factors a row."""
    rng = np.random.default_rng(seed)
    X = NOISE * rng.standard_normal((n, p))
    active = np.zeros((n, len(kinds)), dtype=bool)
    for i in range(n):
        active[i, rng.choice(len(kinds), rng.integers(2, 4), replace=False)] = True
    for k, kind in enumerate(kinds):
        points = _points(kind, int(active[:, k].sum()), rng)
        X[active[:, k]] += points @ _planes(rng, points.shape[1], p)
    return X


def _named(kinds: list[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(kinds).items())) or "none"


def row(data: str, planted: list[str], X: Array, kinds: list[Atom], gate: sae_rs.Gate) -> str:
    """Grow a dictionary and describe it."""
    begin = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sae_rs.ConvergenceWarning)
        model = ManifoldSAE("auto", kinds, gate).fit(X)
    seconds = time.process_time() - begin
    found = next(step for step in reversed(model.growth_) if step.kept)
    cells = [
        f"{data}, {X.shape[0]} x {X.shape[1]}",
        gate.kind,
        ", ".join(kind.kind for kind in kinds),
        _named(planted),
        _named(list(found.kinds)),
        str(len(model.growth_)),
        f"{model.evidence_:.1f}",
        f"{model.explained_variance_:.4f}",
        f"{seconds:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="how many draws")
    parser.add_argument("--first", type=int, default=0, help="the seed of the first")
    known = ["circles", "noise", "lines", "mixed", "small", "mixture"]
    parser.add_argument("--only", nargs="*", default=known[:4], choices=known)
    arguments = parser.parse_args()
    every: list[Atom] = [Line(), Circle(1), Sphere(1), Torus(1)]
    factors = ["circle"] * 4 + ["line"] * 3 + ["sphere"] * 3 + ["torus"] * 2
    out = list(HEAD)
    print("\n".join(out), flush=True)

    def add(line: str) -> None:
        out.append(line)
        print(line, flush=True)

    for seed in range(arguments.first, arguments.first + arguments.seeds):
        if "noise" in arguments.only:
            add(row("noise", [], np.random.default_rng(seed).standard_normal((600, 12)), every, sae_rs.Softmax()))
        if "lines" in arguments.only:
            add(row("lines", ["line"] * 3, lines(3, 12, 600, seed), [Line(), Circle(1)], sae_rs.Softmax()))
        if "circles" in arguments.only:
            for n_circles, p in ((3, 12), (6, 24), (8, 48)):
                X = circles(n_circles, p, 1500, n_circles + seed)
                add(row("circles", ["circle"] * n_circles, X, [Circle(1)], sae_rs.Softmax()))
        if "mixed" in arguments.only:
            for n_circles, p, n, used in ((4, 16, 300, 2), (6, 18, 400, 2), (6, 24, 500, 3), (8, 24, 600, 2)):
                data = f"circles, {used} on every row"
                add(row(data, ["circle"] * n_circles, mixed(n_circles, p, n, used, seed), [Circle(1)], ThresholdGate()))
        if "small" in arguments.only:
            small = ["circle", "circle", "line", "sphere"]
            add(row("mixture", small, mixture(small, 24, 800, seed), every, ThresholdGate()))
        if "mixture" in arguments.only:
            add(row("mixture", factors, mixture(factors, 64, 1500, seed), every, ThresholdGate()))
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / "growth.md").write_text("# Growth of dictionaries\n\n" + "\n".join(out) + "\n")


if __name__ == "__main__":
    main()
