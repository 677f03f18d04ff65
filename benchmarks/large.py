"""Many atoms, and many rows from a file, within bounded memory.

    python benchmarks/large.py [--only circles many rows] [--threads 1 2] [--size 1024 256 40000] [--outer efs]

*Circles*: 64 unit circles in orthogonal planes of p = 160, each active on a fifth of 4,000 rows with an amplitude of
0.85 to 1.15, noise 0.04, the threshold gate. Wanted: every plane within 0.1 rad, at most 0.02 of the gates' mass off
the planted supports, an explained variance of 0.95, and the same bits from one and from two threads.

*Many*: 1,024 unit circles in random planes of p = 256, which hold an eighth of their dimensions, four on each of 40,000
rows with such amplitudes, noise 0.05, the threshold gate; `--size` gives other numbers of circles, columns and rows,
`--outer` another search than the default. Wanted: it ends, in 8 GiB.

*Rows*: 10^6 rows in 64 columns, one of eight circles each, read from a memory map under ``memory_budget="2GiB"``.
Wanted: it ends, and beyond the interpreter its memory stays within the budget.

Every fit runs in a process of its own, takes from many minutes to an hour, and says on standard error how far it is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import FloatArray, Report, circle_mixture, in_child, parser, peak_memory, table, unit_circles
from scipy.optimize import linear_sum_assignment

import sae_rs
from sae_rs import Circle, ManifoldSAE, ThresholdGate
from sae_rs.memory import parse_memory_budget

CIRCLES, QUICK_CIRCLES = (64, 160, 4_000), (8, 24, 600)
SHARE, AMPLITUDES, CIRCLES_NOISE = 0.2, (0.85, 1.15), 0.04
MANY, QUICK_MANY = (1_024, 256, 40_000), (8, 24, 600)
MANY_ACTIVE, QUICK_ACTIVE, MANY_NOISE = 4, 2, 0.05
ROWS, QUICK_ROWS = 1_000_000, 20_000
ROWS_P, ROWS_K, ROWS_NOISE, BUDGET = 64, 8, 0.05, "2GiB"
BLOCK = 50_000
# A plane is found within so many radians.
NEAR = 0.1


class Planted(NamedTuple):
    """Rows (n, p), planes (C, 2, p) and which circles each row uses (n, C)."""

    X: FloatArray
    planes: FloatArray
    on: np.ndarray[Any, np.dtype[np.bool_]]


def overlapping_circles(n_circles: int, p: int, n: int) -> Planted:
    rng = np.random.default_rng(0)
    planes = np.linalg.qr(rng.standard_normal((p, 2 * n_circles)))[0].T.reshape(n_circles, 2, p)
    on = rng.random((n, n_circles)) < SHARE
    amplitude, angle = rng.uniform(*AMPLITUDES, on.shape) * on, rng.uniform(0.0, 2.0 * np.pi, on.shape)
    X = (amplitude * np.cos(angle)) @ planes[:, 0] + (amplitude * np.sin(angle)) @ planes[:, 1]
    return Planted(X + CIRCLES_NOISE * rng.standard_normal((n, p)), planes, on)


def many_circles(n_circles: int, p: int, n: int, active: int) -> Planted:
    """Circles of which each row uses so many, made a circle at a time: rows by circles are many numbers."""
    rng = np.random.default_rng(0)
    planes = np.stack([np.linalg.qr(rng.standard_normal((p, 2)))[0].T for _ in range(n_circles)])
    on = np.zeros((n, n_circles), dtype=bool)
    for row in on:
        row[rng.choice(n_circles, active, replace=False)] = True
    X = MANY_NOISE * rng.standard_normal((n, p))
    for plane, used in zip(planes, on.T, strict=True):
        rows = np.flatnonzero(used)
        angle, amplitude = rng.uniform(0.0, 2.0 * np.pi, len(rows)), rng.uniform(*AMPLITUDES, len(rows))
        X[rows] += (amplitude * [np.cos(angle), np.sin(angle)]).T @ plane
    return Planted(X, planes, on)


def plane_angles(planes: FloatArray, decoders: list[FloatArray]) -> FloatArray:
    """Largest principal angle (C, K) of every planted plane to the plane that an atom's curve has most of."""
    # the constant of a circle's basis moves it, and turns it nowhere
    spans = [np.linalg.svd(decoder[1:], full_matrices=False)[2][:2] for decoder in decoders]
    least = [[np.linalg.svd(plane @ span.T, compute_uv=False)[-1] for span in spans] for plane in planes]
    return np.arccos(np.clip(least, 0.0, 1.0))


def measure_circles(size: tuple[int, int, int], threads: int) -> dict[str, Any]:
    n_circles, p, n = size
    planted = overlapping_circles(n_circles, p, n)
    before, start = peak_memory(), time.perf_counter()
    model = ManifoldSAE(n_circles, Circle(), gate=ThresholdGate(), n_jobs=threads, progress=True).fit(planted.X)
    seconds = time.perf_counter() - start
    angles = plane_angles(planted.planes, [np.asarray(decoder) for decoder in model.decoders_])
    own, atoms = linear_sum_assignment(angles)
    gates = model.gates_[:, atoms]
    parts = [model.gates_, *model.coords_, *model.decoders_]
    certificate = model.certificate_
    return {
        "size": size,
        "threads": threads,
        "angle": float(angles[own, atoms].max()),
        "off": float(gates[~planted.on].sum() / gates.sum()),
        "explained": float(model.score(planted.X)),
        "evidence": model.evidence_,
        "error": certificate.standard_error,
        "log_det": certificate.log_det,
        "status": certificate.status,
        "evaluations": certificate.n_evaluations,
        "seconds": seconds,
        "peak": peak_memory() - before,
        "bits": hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()[:12],
    }


def measure_many(size: tuple[int, int, int], threads: int, outer: str) -> dict[str, Any]:
    n_circles, p, n = size
    planted = many_circles(n_circles, p, n, QUICK_ACTIVE if size == QUICK_MANY else MANY_ACTIVE)
    ceiling = 1.0 - MANY_NOISE**2 / float(planted.X.var())
    before, start = peak_memory(), time.perf_counter()
    options = {"gate": ThresholdGate(), "outer": outer, "n_jobs": threads, "progress": True}
    model = ManifoldSAE(n_circles, Circle(), **options).fit(planted.X)
    seconds = time.perf_counter() - start
    angles = plane_angles(planted.planes, [np.asarray(decoder) for decoder in model.decoders_])
    own, atoms = linear_sum_assignment(angles)
    on = model.gates_[:, atoms] > 0.0
    certificate = model.certificate_
    return {
        "size": size,
        "outer": outer,
        "near": int((angles[own, atoms] < NEAR).sum()),
        "angle": float(angles[own, atoms].max()),
        "same": float((on == planted.on[:, own]).all(axis=1).mean()),
        "explained": model.explained_variance_,
        "ceiling": ceiling,
        "evidence": model.evidence_,
        "error": certificate.standard_error,
        "status": certificate.status,
        "evaluations": certificate.n_evaluations,
        "seconds": seconds,
        "peak": peak_memory() - before,
    }


def write_rows(path: Path, n: int) -> None:
    """Rows of a file, a part at a time, so that making them does not set the peak of memory."""
    rng = np.random.default_rng(0)
    axes = unit_circles(ROWS_K, ROWS_P, rng)
    out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, ROWS_P))
    for i in range(0, n, BLOCK):
        some = min(BLOCK, n - i)
        which, angle = rng.integers(ROWS_K, size=some), rng.uniform(0.0, 2.0 * np.pi, some)
        points = np.column_stack([np.cos(angle), np.sin(angle)])
        noise = ROWS_NOISE * rng.standard_normal((some, ROWS_P))
        out[i : i + some] = np.einsum("ij,ijp->ip", points, axes[which]) + noise
    out.flush()


def measure_rows(n: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npy"
        write_rows(path, n)
        ManifoldSAE(2, Circle(1)).fit(circle_mixture(200, 8, 2, ROWS_NOISE))
        interpreter, start = peak_memory(), time.perf_counter()
        model = ManifoldSAE(ROWS_K, Circle(), memory_budget=BUDGET, progress=True).fit(np.load(path, mmap_mode="r"))
        seconds, plan = time.perf_counter() - start, model.term_.plan(parse_memory_budget(BUDGET))
        return {
            "n": n,
            "status": model.certificate_.status,
            "evidence": model.evidence_,
            "evaluations": model.certificate_.n_evaluations,
            "seconds": seconds,
            "interpreter": interpreter,
            "peak": peak_memory(),
            "bytes": plan["bytes"],
            "kept": plan["keep_rows"],
        }


def gibibytes(size: float) -> str:
    return f"{size / 2**30:.2f}"


CIRCLES_HEAD = [
    *[
        "circles",
        "columns",
        "rows",
        "threads",
        "largest angle",
        "off support",
        "explained",
        "evidence",
        "standard error",
    ],
    *["log_det", "status", "evaluations", "peak, GiB", "s", "bits"],
]
MANY_HEAD = [
    *["circles", "columns", "rows", "outer", "found", "largest angle", "rows right", "explained", "ceiling"],
    *["evidence", "standard error", "status", "evaluations", "peak, GiB", "s"],
]
ROWS_HEAD = ["rows", "status", "evidence", "evaluations", "rows kept", "plan, GiB", "interpreter", "peak, GiB", "s"]


def report_circles(report: Report, size: tuple[int, int, int], threads: list[int]) -> None:
    lines = []
    for count in threads:
        found = in_child(__file__, ["--measure", "circles", "--size", *size, "--threads", count])
        error = found["error"]
        lines.append(
            [
                *[f"{value:,}" for value in found["size"]],
                str(count),
                *[f"{found[name]:.4f}" for name in ("angle", "off", "explained")],
                f"{found['evidence']:.1f}",
                "none" if error is None else f"{error:.1f}",
                *[found["log_det"], found["status"], str(found["evaluations"])],
                *[gibibytes(found["peak"]), f"{found['seconds']:.0f}", found["bits"]],
            ]
        )
        note = "Angles in radians. Bits: a digest of gates, coordinates and decoders, equal where all bits are."
        report.add(table("Overlapping circles", CIRCLES_HEAD, lines, note), show=count == threads[-1])


def report_many(report: Report, size: tuple[int, int, int], threads: int, outer: str) -> None:
    found = in_child(__file__, ["--measure", "many", "--size", *size, "--threads", threads, "--outer", outer])
    error = found["error"]
    cells = [
        *[f"{value:,}" for value in found["size"]],
        *[outer, f"{found['near']:,}", f"{found['angle']:.3f}", f"{found['same']:.4f}"],
        *[f"{found['explained']:.5f}", f"{found['ceiling']:.5f}", f"{found['evidence']:.1f}"],
        "none" if error is None else f"{error:.1f}",
        *[found["status"], str(found["evaluations"]), gibibytes(found["peak"]), f"{found['seconds']:.0f}"],
    ]
    note = (
        "Planes found within 0.1 rad, the largest angle, and the part of the rows with the planted circles only."
        " Explained is of\nthe rows that were fitted, noise included, and the ceiling what the planted circles explain."
    )
    report.add(table("Circles by the thousand", MANY_HEAD, [cells], note))


def report_rows(report: Report, n: int) -> None:
    found = in_child(__file__, ["--measure", "rows", "--size", n])
    cells = [
        *[f"{found['n']:,}", found["status"], f"{found['evidence']:.1f}", str(found["evaluations"])],
        *["yes" if found["kept"] else "no", gibibytes(found["bytes"])],
        *[gibibytes(found["interpreter"]), gibibytes(found["peak"]), f"{found['seconds']:.0f}"],
    ]
    note = (
        "Rows are in a float32 file; the budget of 2 GiB is for what a fit adds to the interpreter with its libraries."
    )
    report.add(table("Many rows from a memory map", ROWS_HEAD, [cells], note))


def main() -> None:
    command = parser(__doc__)
    cases = ("circles", "many", "rows")
    command.add_argument("--only", nargs="+", choices=cases, default=cases, help="which of them")
    command.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="a fit of the circles for each")
    command.add_argument("--measure", choices=cases, help=argparse.SUPPRESS)
    command.add_argument("--size", nargs="+", type=int, help="circles, columns and rows of many circles")
    command.add_argument("--outer", default="auto", help="the outer search of many circles")
    arguments = command.parse_args()
    warnings.simplefilter("ignore", sae_rs.ConvergenceWarning)
    if arguments.measure == "circles":
        n_circles, p, n = arguments.size
        print(json.dumps(measure_circles((n_circles, p, n), arguments.threads[0])))
    elif arguments.measure == "many":
        n_circles, p, n = arguments.size
        print(json.dumps(measure_many((n_circles, p, n), arguments.threads[0], arguments.outer)))
    elif arguments.measure == "rows":
        print(json.dumps(measure_rows(arguments.size[0])))
    else:
        report = Report("large", "Many atoms and many rows", arguments.quick)
        if "circles" in arguments.only:
            report_circles(report, QUICK_CIRCLES if arguments.quick else CIRCLES, arguments.threads)
        if "many" in arguments.only:
            n_circles, p, n = arguments.size or (QUICK_MANY if arguments.quick else MANY)
            report_many(report, (n_circles, p, n), arguments.threads[-1], arguments.outer)
        if "rows" in arguments.only:
            report_rows(report, QUICK_ROWS if arguments.quick else ROWS)


if __name__ == "__main__":
    main()
