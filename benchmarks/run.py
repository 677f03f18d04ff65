"""Time and memory of fits, printed as tables and written as Markdown to ``benchmarks/results/``.

Run it as ``python benchmarks/run.py`` or ``python -m benchmarks.run``. Nothing is asserted: numbers belong to the
machine and the moment, and stand beside a description of both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sae_rs

FloatArray = NDArray[np.float64]

ROWS = (100, 1_000, 10_000, 100_000)
OUTPUTS = (16, 64, 256, 1024)
NOISE = 0.02
# The data, their centred copy, and the linearised rows of a state and its trial: about this many times the data.
COPIES = 3.0
MEMORY_LIMIT = 1.5 * 2**30
# Work is repeated for about this many seconds, and at most so often; the shortest time is shown, because whatever else
# the machine does can only add to it.
REPEAT_FOR = 1.0
REPEATS = 50
# How far off the fitted log strengths inner iterations are timed: enough to need several.
OFFSET = 0.5
LARGE = (100_000, 64)
# What the usual linear-algebra libraries of NumPy read their number of threads from.
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
RESULTS = Path(__file__).parent / "results"


def planted_circle(n: int, p: int) -> FloatArray:
    """Rows (n, p) near a circle whose two axes are unit vectors in random directions."""
    rng = np.random.default_rng(0)
    axes = rng.standard_normal((2, p))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    angle = rng.uniform(0.0, 2.0 * np.pi, n)
    rows = rng.standard_normal((n, p))
    rows *= NOISE
    # in chunks, so that making the data does not set the peak of memory
    for i in range(0, n, 4096):
        t = angle[i : i + 4096]
        rows[i : i + 4096] += np.column_stack([np.cos(t), np.sin(t)]) @ axes
    return rows


def seconds(work: Callable[[], object]) -> float:
    """Shortest wall time of some work; of one run when that is long."""
    taken: list[float] = []
    while sum(taken) < REPEAT_FOR and len(taken) < REPEATS:
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def fits(n: int, p: int) -> bool:
    return COPIES * 8 * n * p <= MEMORY_LIMIT


# Tables


def table(title: str, head: Sequence[str], lines: Sequence[Sequence[str]], note: str = "") -> str:
    """A Markdown table whose columns line up when printed."""
    widths = [max(len(line[j]) for line in [head, *lines]) for j in range(len(head))]

    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|"
    text = "\n".join([f"## {title}", "", row(head), rule, *map(row, lines)])
    return f"{text}\n\n{note}\n" if note else f"{text}\n"


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """What the numbers were measured on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}, sae_rs {sae_rs.__version__}"
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    return f"{model}, {available_cores()} cores, {platform.system()}; {versions}; {date}.\n"


# Measurements


def time_fits(max_rows: int) -> str:
    lines = []
    for n in (n for n in ROWS if n <= max_rows):
        for p in OUTPUTS:
            if not fits(n, p):
                lines.append([str(n), str(p), "skipped: memory", "", "", ""])
                continue
            X = planted_circle(n, p)
            model = sae_rs.ManifoldSAE(n_atoms=1)
            taken = seconds(lambda model=model, X=X: model.fit(X))  # type: ignore[misc]
            certificate = model.certificate_
            lines.append(
                [
                    str(n),
                    str(p),
                    f"{taken:.3f}",
                    str(certificate.n_evaluations),
                    certificate.elimination,
                    certificate.status,
                ]
            )
    head = ["rows", "outputs", "seconds", "evaluations", "elimination", "status"]
    return table("Fit of a planted circle, default arguments", head, lines)


def two_products(basis: FloatArray, z: FloatArray, decoder: FloatArray) -> float:
    """Wall time of ``Phi.T @ Z`` and ``Phi @ B``: the faster of one thread and of row blocks on every core.

    NumPy's own threads are switched off where this runs. On a busy machine they wait for each other far longer than the
    products take, and a ratio to that says nothing.
    """
    cores = available_cores()

    def in_one() -> None:
        _ = basis.T @ z, basis @ decoder

    def part(rows: slice) -> None:
        _ = basis[rows].T @ z[rows], basis[rows] @ decoder

    taken = seconds(in_one)
    if cores > 1:
        edges = np.linspace(0, len(z), cores + 1).astype(int)
        blocks = [slice(i, j) for i, j in pairwise(edges)]
        with ThreadPoolExecutor(cores) as pool:
            taken = min(taken, seconds(lambda: list(pool.map(part, blocks))))
    return taken


def measure_inner_iteration(n: int, p: int) -> dict[str, float]:
    """Cost of an inner iteration, of the rest of an evaluation, and of the two products that none can avoid."""
    X = planted_circle(n, p)
    model = sae_rs.ManifoldSAE(n_atoms=1).fit(X)
    term = model.term_
    rho = model.rho_.from_flat(np.asarray(model.rho_.to_flat()) + OFFSET)
    inner = term.evaluate(rho, gradient=False).inner
    whole = seconds(lambda: term.evaluate(rho, gradient=False))
    # what an evaluation costs besides its iterations: a linearisation, two factors, and the determinants
    rest = seconds(lambda: term.evaluate(rho, max_inner=0, gradient=False))
    t = model.coords_[0][:, 0]
    basis = np.column_stack([np.ones(n)] + [f(h * t) for h in (1, 2, 3) for f in (np.cos, np.sin)])
    return {
        "iterations": inner.iterations,
        "cg_iterations": inner.cg_iterations,
        "iteration": (whole - rest) / max(inner.iterations, 1),
        "rest": rest,
        "products": two_products(basis, X - X.mean(axis=0), model.decoders_[0]),
    }


def time_inner_iterations(max_rows: int) -> str:
    lines = []
    for n in (n for n in ROWS if 1_000 <= n <= max_rows):
        for p in (p for p in OUTPUTS if fits(n, p)):
            found = in_child("inner", n, p, {name: "1" for name in BLAS_THREADS})
            products = found["products"]
            lines.append(
                [
                    str(n),
                    str(p),
                    str(found["iterations"]),
                    str(found["cg_iterations"]),
                    *[f"{1e3 * found[name]:.2f}" for name in ("iteration", "rest", "products")],
                    *[f"{found[name] / products:.1f}" for name in ("iteration", "rest")],
                ]
            )
    head = [
        "rows",
        "outputs",
        "iterations",
        "CG steps",
        "iteration, ms",
        "rest, ms",
        "products, ms",
        "iteration / products",
        "rest / products",
    ]
    note = (
        "An iteration is what an evaluation of the evidence takes beyond one that makes none, divided by their number; "
        "it holds its conjugate-gradient steps, a linearisation and a factorisation. The rest is the evaluation that "
        "makes none. Products: `Phi.T @ Z` and `Phi @ B` in float64 NumPy in the same process, the faster of one "
        "thread and of row blocks on every core."
    )
    return table("One inner iteration", head, lines, note)


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # the kernel's count for this program alone; getrusage would carry over the peak of the process that started it
        return next(1024 * int(line.split()[1]) for line in status.read_text().splitlines() if line[:6] == "VmHWM:")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure_large_fit(n: int, p: int) -> dict[str, float | str]:
    """Time and peak memory of one large fit; needs a process of its own, whose peak nothing else has set."""
    # a small fit first: what importing and starting threads takes is the interpreter's, not the fit's
    sae_rs.ManifoldSAE(n_atoms=1).fit(planted_circle(100, p))
    baseline = peak_memory()
    X = planted_circle(n, p)
    start = time.perf_counter()
    model = sae_rs.ManifoldSAE(n_atoms=1).fit(X)
    taken = time.perf_counter() - start
    status = model.certificate_.status
    return {"seconds": taken, "status": status, "data": X.nbytes, "baseline": baseline, "peak": peak_memory()}


def report_large_fit() -> str:
    n, p = LARGE
    found = in_child("large", n, p, {})
    data, baseline, peak = found["data"], found["baseline"], found["peak"]

    def line(name: str, size: float) -> list[str]:
        return [name, f"{size / 2**20:.0f}", f"{size / data:.2f}"]

    lines = [
        line("data", data),
        line("interpreter, before the data", baseline),
        line("peak", peak),
        line("peak less interpreter, the data included", peak - baseline),
    ]
    note = f"Time {found['seconds']:.1f} s, {found['status']}."
    return table(f"Memory: {n} rows, {p} outputs, one circle", ["", "MiB", "times the data"], lines, note)


MEASUREMENTS: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "inner": measure_inner_iteration,
    "large": measure_large_fit,
}


def in_child(name: str, n: int, p: int, environment: dict[str, str]) -> dict[str, Any]:
    """Run one of `MEASUREMENTS` in a fresh process."""
    command = [sys.executable, __file__, "--measure", name, str(n), str(p)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={**os.environ, **environment})
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-rows", type=int, default=ROWS[-1], help="largest number of rows to time")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", sae_rs.ConvergenceWarning)
    if arguments.measure:
        name, n, p = arguments.measure
        print(json.dumps(MEASUREMENTS[name](int(n), int(p))))
        return
    parts = [f"# Benchmarks\n\n{machine()}"]
    print(parts[0], flush=True)
    sections: list[Callable[[], str]] = [
        lambda: time_fits(arguments.max_rows),
        lambda: time_inner_iterations(arguments.max_rows),
        report_large_fit,
    ]
    for section in sections:
        parts.append(section())
        print(parts[-1], flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
