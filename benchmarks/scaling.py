"""How cost grows with rows, columns, atoms and harmonics, each doubled on its own.

    python benchmarks/scaling.py

Planted unit circles in random planes, one active a row, noise 0.05. An inner iteration is what an evaluation of the
evidence takes beyond one that makes none, divided by their number; it is timed from the truth, moved a little, so that
no fit has to come first. Whole fits are timed with default arguments. All on one thread, in seconds of the processor,
which other work on the machine changes little. Exponents are slopes of log time against log
size by least squares, over all sizes and over the last three, beside what is expected.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from common import FloatArray, Report, parser, seconds, table, unit_circles

import sae_rs
from sae_rs import Circle, ManifoldSAE, SaeManifoldRho, SaeManifoldTerm, Softmax

NOISE = 0.05
# How far the truth is moved before iterations are timed, in radians and in radii.
MOVED = 0.1
# Logits of a row's own atom lie this far above the others, as in a fit's seeds.
OWN_LOGIT = 4.0
LOG_SPARSE = 4.0
LAST = 3


@dataclass(frozen=True)
class Size:
    n: int = 1000
    p: int = 32
    k: int = 2
    harmonics: int = 1

    @property
    def width(self) -> int:
        return self.k * (2 * self.harmonics + 1)


@dataclass(frozen=True)
class Series:
    """Sizes that differ in one number, and the exponent expected of an iteration."""

    what: str
    sizes: tuple[Size, ...]
    expected: str


def doubled(base: Size, name: str, first: int, times: int) -> tuple[Size, ...]:
    return tuple(replace(base, **{name: first * 2**i}) for i in range(times))


ITERATIONS = (
    Series("n", doubled(Size(), "n", 500, 7), "1"),
    Series("p", doubled(Size(), "p", 32, 6), "at most 1"),
    Series("k", doubled(Size(n=2000, p=64), "k", 1, 5), "at most 1 where rows dominate"),
    Series("harmonics", doubled(Size(n=4000, p=64, k=1), "harmonics", 1, 5), "1 where rows dominate"),
)
FITS = (
    Series("n", doubled(Size(k=1), "n", 500, 5), "1"),
    Series("p", doubled(Size(n=500, k=1), "p", 32, 5), "at most 1"),
    Series("k", doubled(Size(n=600, p=32), "k", 1, 4), "at most 1 where rows dominate"),
)


def planted(size: Size) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Rows (n, p), their angles (n,) and the axes of the circles (k, 2, p)."""
    rng = np.random.default_rng(0)
    axes = unit_circles(size.k, size.p, rng)
    angle, which = rng.uniform(0.0, 2.0 * np.pi, size.n), np.arange(size.n) % size.k
    X = NOISE * rng.standard_normal((size.n, size.p))
    for c in range(size.k):
        X[which == c] += np.column_stack([np.cos(angle), np.sin(angle)])[which == c] @ axes[c]
    return X, angle, axes


def term_near_truth(size: Size) -> tuple[SaeManifoldTerm, SaeManifoldRho]:
    """The planted problem at a state near the truth, and strengths that suit it."""
    X, angle, axes = planted(size)
    rng = np.random.default_rng(1)
    atom = Circle(size.harmonics)
    which = np.arange(size.n) % size.k
    support = np.zeros((size.n, size.k), dtype=bool)
    support[np.arange(size.n), which] = True
    logits = OWN_LOGIT * support.astype(np.float64)
    logits -= logits[:, -1:]
    moved = angle + MOVED * rng.standard_normal(size.n)
    coords = [np.ascontiguousarray(moved[:, None]) for _ in range(size.k)]
    decoders = []
    for c in range(size.k):
        decoder = MOVED / np.sqrt(size.p) * rng.standard_normal((atom.width, size.p)) / atom.width
        decoder[1:3] += axes[c]
        decoders.append(decoder)
    term = SaeManifoldTerm(X, [atom.spec()] * size.k, Softmax().spec(size.k), logits, coords, decoders, support=support)
    # the strength at which the prior expects the roughness of a unit circle
    rank = 2 * size.harmonics
    log_smooth = float(np.log(NOISE**2 * size.p * rank))
    return term, SaeManifoldRho.with_per_atom_smooth(LOG_SPARSE, [log_smooth] * size.k, float(np.log(NOISE**2)))


@dataclass(frozen=True)
class Cost:
    iteration: float
    rest: float
    iterations: int
    elimination: str


def cost(size: Size) -> Cost:
    """Seconds of an inner iteration, and of the rest of an evaluation."""
    term, rho = term_near_truth(size)
    found = term.evaluate(rho, gradient=False, threads=1)
    whole = seconds(lambda: term.evaluate(rho, gradient=False, threads=1), 0.5, time.process_time)
    rest = seconds(lambda: term.evaluate(rho, max_inner=0, gradient=False, threads=1), 0.5, time.process_time)
    iterations = found.inner.iterations
    return Cost((whole - rest) / max(iterations, 1), rest, iterations, found.elimination)


def exponent(sizes: Sequence[float], times: Sequence[float]) -> float:
    """Slope of log time against log size; 0 where a time is lost in the noise."""
    if len(sizes) < 2 or min(times) <= 0.0:
        return float("nan")
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def slopes(values: Sequence[float], times: Sequence[float]) -> str:
    return f"{exponent(values, times):.2f}, {exponent(values[-LAST:], times[-LAST:]):.2f}"


EXPONENTS = ["doubled", "sizes", "quantity", "exponent: all, last three", "expected"]


def time_iterations(series: Sequence[Series], most: int) -> tuple[list[list[str]], list[list[str]]]:
    """Lines of costs and lines of exponents."""
    lines, summary = [], []
    for one in series:
        values, costs = [], []
        for size in one.sizes[:most]:
            found = cost(size)
            values.append(float(getattr(size, one.what)))
            costs.append(found)
            lines.append(
                [
                    one.what,
                    *[f"{x:,}" for x in (size.n, size.p, size.k, size.width)],
                    found.elimination,
                    str(found.iterations),
                    f"{1e3 * found.iteration:.2f}",
                    f"{1e3 * found.rest:.2f}",
                    f"{1e6 * found.iteration / size.n:.2f}",
                ]
            )
            print("  ".join(lines[-1]), flush=True)
        span = f"{values[0]:.0f} to {values[-1]:.0f}"
        for name, times in (("iteration", [c.iteration for c in costs]), ("rest", [c.rest for c in costs])):
            summary.append([one.what, span, name, slopes(values, times), one.expected])
    return lines, summary


def time_fits(series: Sequence[Series], most: int) -> tuple[list[list[str]], list[list[str]]]:
    lines, summary = [], []
    for one in series:
        values, whole, each = [], [], []
        for size in one.sizes[:most]:
            X = planted(size)[0]
            model = ManifoldSAE(size.k, Circle(size.harmonics), n_jobs=1)
            taken = seconds(lambda model=model, X=X: model.fit(X), clock=time.process_time)  # type: ignore[misc]
            certificate = model.certificate_
            values.append(float(getattr(size, one.what)))
            whole.append(taken)
            each.append(taken / certificate.n_evaluations)
            lines.append(
                [
                    one.what,
                    *[f"{x:,}" for x in (size.n, size.p, size.k, size.width)],
                    certificate.elimination,
                    f"{taken:.2f}",
                    str(certificate.n_evaluations),
                    f"{1e3 * each[-1]:.1f}",
                    certificate.status,
                ]
            )
            print("  ".join(lines[-1]), flush=True)
        span = f"{values[0]:.0f} to {values[-1]:.0f}"
        for name, times in (("fit", whole), ("fit / evaluations", each)):
            summary.append([one.what, span, name, slopes(values, times), one.expected])
    return lines, summary


NOTE = (
    "Beyond p = M the other p − M channels take no part in local work (`complement`), and what is left is linear in p. "
    "M grows with atoms and harmonics; besides the rows there is then one dense system of min(M², n·active) unknowns, "
    "whose factor takes their cube: where it dominates, exponents go to 6 in M, until the rows are fewer (`dual`)."
)


def main() -> None:
    arguments = parser(__doc__).parse_args()
    warnings.simplefilter("ignore", sae_rs.ConvergenceWarning)
    report = Report("scaling", "How cost grows", arguments.quick)
    most = 3 if arguments.quick else 99
    lines, summary = time_iterations(ITERATIONS, most)
    sizes = ["doubled", "n", "p", "K", "M", "elimination"]
    head = [*sizes, "iterations", "iteration, ms", "rest, ms", "iteration a row, µs"]
    report.add(table("Inner iterations, one thread", head, lines))
    report.add(table("Exponents of inner iterations", EXPONENTS, summary, NOTE))
    lines, summary = time_fits(FITS, most)
    report.add(table("Fits, one thread", [*sizes, "s", "evaluations", "ms an evaluation", "status"], lines))
    report.add(table("Exponents of fits", EXPONENTS, summary))


if __name__ == "__main__":
    main()
