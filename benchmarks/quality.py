"""Held-out explained variance of curved atoms and of linear dictionaries of the same size and active width.

    python benchmarks/quality.py [--activations FILE.npy] [--only circles kinds real]

needs scikit-learn (``pip install .[bench]``). A fifth of the rows is held out, and nothing but the training rows is
seen before they are reconstructed. The real activations are those of ``scripts/harvest_docstrings.py``.

What "equal" means here. An atom of width M has M decoder rows of p numbers: a circle with H harmonics 2H + 1. A
dictionary of D decoder rows in all is compared with linear ones of D rows, which have as many parameters. A row that
uses a circle is described by two numbers, a gate and an angle (a sphere: three), and by which atom it is. The linear
codes get as many active coefficients as `sae_rs` uses numbers on its test rows on average, rounded up, and at least
two. That is in their favour: under the softmax gate a row that uses one atom has a gate of exactly 1, so that its
angle alone is left; and they choose among subsets of D rows where `sae_rs` chooses among K atoms. So planted sets are
also shown with the gates that are 1 left out of the count. Principal components are shown at the same number of
coefficients a row (few of them, all of them always active); k-means, with D centroids, uses no number beside the
choice.

Where rows were planted, the explained variance is shown of the test rows as they are, noise and all, and of what they
were before noise was added. A code that has more numbers than the set has dimensions can follow the noise: it may pass
the ceiling, which is the nearest point of the true sets, on the first and fall behind on the second.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path

import numpy as np
from baselines import Found, dictionary_learning, explained, k_means, pca, sparse_autoencoder
from common import FloatArray, Report, parser, table

import sae_rs
from sae_rs import Circle, Line, ManifoldSAE, Softmax, Sphere
from sae_rs.atoms import Atom

DEFAULT_GATE = Softmax()
HELD_OUT = 0.2
N, NOISE, ZIPF = 1500, 0.05, 1.2
CIRCLES, OUTPUTS, EXCESS = (3, 6, 8), (24, 12, 48), (1, 2)
SEED = 0
# Points of a true circle at which its nearest point to a row is looked for: the distance is off by 1e-6 of a radius.
NODES = 2048
# Training rows of the real activations that a fit gets, and rows that are held out.
SAMPLE, SAMPLE_QUICK, TEST = 1500, 300, 10_000
REAL_CASES = ((8, Softmax(top_k=2)), (8, Softmax()), (16, Softmax(top_k=2)))
PARTS = ("kinds", "circles", "real")
METHODS = ("PCA", "k-means", "dictionary learning", "TopK autoencoder")


@dataclass(frozen=True, eq=False)
class Data:
    """Training and test rows; where they are planted, the test rows without their noise and the nearest true points."""

    train: FloatArray
    test: FloatArray
    clean: FloatArray | None = None
    truth: FloatArray | None = None


def split(clean: FloatArray, truth: Callable[[FloatArray], FloatArray], rng: np.random.Generator) -> Data:
    X = clean + NOISE * rng.standard_normal(clean.shape)
    order = rng.permutation(len(X))
    cut = round(HELD_OUT * len(X))
    test = X[order[:cut]]
    return Data(np.ascontiguousarray(X[order[cut:]]), test, clean[order[:cut]], truth(test))


def nearest(rows: FloatArray, sets: Sequence[FloatArray]) -> FloatArray:
    """For every row the nearest point of several sets of points."""
    best, out = np.full(len(rows), np.inf), np.zeros_like(rows)
    for points in sets:
        distance = np.square(points).sum(axis=1) - 2.0 * rows @ points.T
        place = distance.argmin(axis=1)
        closer = np.take_along_axis(distance, place[:, None], axis=1)[:, 0]
        better = closer < best
        best[better], out[better] = closer[better], points[place[better]]
    return out


def circle_mixture(n_circles: int, p: int, seed: int) -> Data:
    """Rows on one of some closed curves each, the axes of which are unit vectors in random directions."""
    rng = np.random.default_rng([seed, n_circles, p])
    axes = rng.standard_normal((n_circles, 2, p))
    axes /= np.linalg.norm(axes, axis=2, keepdims=True)
    share = np.arange(1.0, n_circles + 1.0) ** -ZIPF
    which = rng.choice(n_circles, N, p=share / share.sum())
    t = rng.uniform(0.0, 2.0 * np.pi, N)
    clean = np.einsum("nd,ndp->np", np.column_stack([np.cos(t), np.sin(t)]), axes[which])
    nodes = np.linspace(0.0, 2.0 * np.pi, NODES, endpoint=False)
    ring = np.column_stack([np.cos(nodes), np.sin(nodes)])
    return split(clean, partial(nearest, sets=[ring @ a for a in axes]), rng)


def kind_mixture(seed: int, p: int = 24) -> Data:
    """Rows by turns on a circle, a segment and a sphere about the same point, in random directions."""
    rng = np.random.default_rng([seed, p])
    directions = rng.standard_normal((6, p))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    t, s = rng.uniform(0.0, 2.0 * np.pi, N), rng.uniform(-1.5, 1.5, N)
    x = rng.standard_normal((N, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    which = rng.integers(0, 3, N)[:, None]
    ring, segment, ball = directions[:2], directions[2], directions[3:]
    clean = np.where(which == 0, np.column_stack([np.cos(t), np.sin(t)]) @ ring, s[:, None] * segment)
    clean = np.where(which == 2, x @ ball, clean)
    nodes = np.linspace(0.0, 2.0 * np.pi, NODES, endpoint=False)
    # a Fibonacci lattice on the sphere
    i = np.arange(8 * NODES)
    z = 1.0 - (2.0 * i + 1.0) / len(i)
    turn, r = np.pi * (1.0 + np.sqrt(5.0)) * i, np.sqrt(1.0 - z**2)
    sets = [
        np.column_stack([np.cos(nodes), np.sin(nodes)]) @ ring,
        np.linspace(-1.5, 1.5, NODES)[:, None] * segment,
        np.column_stack([r * np.cos(turn), r * np.sin(turn), z]) @ ball,
    ]
    return split(clean, partial(nearest, sets=sets), rng)


@dataclass(frozen=True)
class Ours:
    """A fit of `sae_rs`: its reconstruction of the test rows, and mean numbers a row with and without unit gates."""

    found: Found
    numbers: float
    varying: float
    status: str


def curved(data: Data, atoms: Sequence[Atom], gate: Softmax) -> Ours:
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sae_rs.ConvergenceWarning)
        model = ManifoldSAE(len(atoms), list(atoms), gate).fit(data.train)
    taken = time.perf_counter() - start
    encoding = model.encode(data.test)
    coords = encoding.support @ np.array([atom.dim for atom in atoms])
    n_active = encoding.support.sum(axis=1)
    # the gates of a row sum to one: one of them follows from the others
    found = Found(np.asarray(model.reconstruct(data.test)), taken, "")
    numbers, varying = float((coords + n_active).mean()), float((coords + np.maximum(n_active - 1, 0)).mean())
    return Ours(found, numbers, varying, model.certificate_.status)


HEAD = [
    "data",
    "K",
    "D",
    "rows",
    "numbers: sae_rs, linear",
    "ceiling",
    "sae_rs",
    *METHODS,
    "best",
    "status",
    "s: sae_rs",
    *[f"s: {method}" for method in METHODS[1:]],
]
NOTE = (
    "Explained variance about the mean of the training rows, of held-out rows as they are or without their noise. D: "
    "decoder rows, so D·p parameters each. Numbers: gates and coordinates a held-out row of `sae_rs` on average, and "
    "active coefficients a row of the linear codes; less than two where gates that are 1 are not counted. PCA has that "
    "many components and so fewer parameters; k-means has D centroids and no number beside the choice. Ceiling: the "
    "nearest point of the true sets. Seconds: the fit of the setting that was kept."
)


def compared(
    name: str, data: Data, atoms: Sequence[Atom], gate: Softmax = DEFAULT_GATE, seed: int = SEED
) -> list[list[str]]:
    """Lines of the table: for one or two numbers of active coefficients, rows as they are and without noise."""
    mean = data.train.mean(axis=0)
    ours = curved(data, atoms, gate)
    n_rows = sum(atom.width for atom in atoms)
    counts = {max(2, ceil(ours.numbers - 1e-9)): ours.numbers}
    if data.clean is not None:
        counts[max(1, ceil(ours.varying - 1e-9))] = ours.varying
    centroids = k_means(data.train, data.test, n_rows, seed)
    lines = []
    for active, numbers in counts.items():
        fits = {
            "sae_rs": ours.found,
            "PCA": pca(data.train, data.test, active),
            "k-means": centroids,
            "dictionary learning": dictionary_learning(data.train, data.test, n_rows, active, seed),
            "TopK autoencoder": sparse_autoencoder(data.train, data.test, n_rows, active, seed),
        }
        for rows, target in (("noisy", data.test), ("clean", data.clean)):
            if target is None:
                continue
            values = {method: explained(target, found.rows, mean) for method, found in fits.items()}
            best = max(values, key=lambda method: values[method])
            lines.append(
                [
                    name,
                    str(len(atoms)),
                    str(n_rows),
                    rows if data.clean is not None else "",
                    f"{numbers:.2f}, {active}",
                    "" if data.truth is None else f"{explained(target, data.truth, mean):.4f}",
                    *[f"{value:.4f}" for value in values.values()],
                    best if best == "sae_rs" else f"{best}: sae_rs loses",
                    ours.status,
                    f"{ours.found.seconds:.1f}",
                    *[f"{fits[method].seconds:.1f}" for method in METHODS[1:]],
                ]
            )
            print("  ".join(lines[-1]), flush=True)
    return lines


def section(report: Report, title: str, lines: list[list[str]], note: str = NOTE, show: bool = True) -> None:
    """Keep the lines so far; the last call prints them."""
    won = sum(line[HEAD.index("best")] == "sae_rs" for line in lines)
    report.add(table(title, HEAD, lines, f"{note}\n\n`sae_rs` is best on {won} of {len(lines)} lines."), show)


def circles(report: Report, quick: bool) -> None:
    note = "Circles of one harmonic: three decoder rows each. " + NOTE
    for p in OUTPUTS[:1] if quick else OUTPUTS:
        lines = []
        title = f"Planted circles, p = {p}, n = {N}, noise {NOISE}, one a row, shares as 1/c^{ZIPF}"
        for c in CIRCLES[:1] if quick else CIRCLES:
            for excess in EXCESS[:1] if quick else EXCESS:
                data = circle_mixture(c, p, SEED)
                lines += compared(f"{c} circles", data, [Circle(harmonics=1)] * (excess * c))
                section(report, title, lines, note, show=False)
        section(report, title, lines, note)


def kinds(report: Report, quick: bool) -> None:
    atoms: list[Atom] = [Circle(), Line(), Sphere()]
    lines = []
    for seed in range(1 if quick else 3):
        lines += compared(f"draw {seed}", kind_mixture(seed), atoms)
    section(report, f"A circle, a segment and a sphere, p = 24, n = {N}, noise {NOISE}, one a row", lines)


def real(report: Report, quick: bool, path: Path | None) -> None:
    if path is None:
        report.add("Real activations were left out: no file was given with `--activations`.")
        return
    stored = np.load(path, mmap_mode="r")
    order = np.random.default_rng(SEED).permutation(len(stored))
    n_test = min(TEST, round(HELD_OUT * len(stored)))
    size = SAMPLE_QUICK if quick else SAMPLE
    chosen = np.sort(order[n_test : n_test + size])
    data = Data(stored[chosen].astype(np.float64), stored[np.sort(order[:n_test])].astype(np.float64))
    note = (
        f"Every method was fitted to the same {len(data.train)} rows, drawn at random of {len(stored) - n_test}, "
        f"because a fit of all rows by `sae_rs` is not practical yet; {n_test} rows are held out. Circles of one "
        f"harmonic. {NOTE}"
    )
    title = f"States of a sentence encoder over docstrings, {stored.shape[1]} columns"
    lines = []
    for k, gate in REAL_CASES[:1] if quick else REAL_CASES:
        most = "any number" if gate.top_k is None else f"at most {gate.top_k}"
        lines += compared(f"{k} circles, {most} a row", data, [Circle(harmonics=1)] * k, gate)
        section(report, title, lines, note, show=False)
    section(report, title, lines, note)


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--activations", type=Path, help="rows of real activations (.npy)")
    command.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    arguments = command.parse_args()
    try:
        import sklearn
    except ImportError:
        print("This benchmark needs scikit-learn: pip install .[bench]")
        return
    all_parts = set(PARTS) == set(arguments.only)
    name = "quality" if all_parts else "_".join(["quality", *arguments.only])
    report = Report(name, "Curved atoms against linear dictionaries", arguments.quick)
    report.add(f"scikit-learn {sklearn.__version__}.")
    if "kinds" in arguments.only:
        kinds(report, arguments.quick)
    if "circles" in arguments.only:
        circles(report, arguments.quick)
    if "real" in arguments.only:
        real(report, arguments.quick, arguments.activations)


if __name__ == "__main__":
    main()
