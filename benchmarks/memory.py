"""Peak memory of fits against what was estimated for them.

    python benchmarks/memory.py

Every fit runs in a process of its own, and its peak is the kernel's count of resident memory. What the interpreter
with its libraries takes is measured after a small fit of the same kind, before there are any data, and subtracted; so
are the caller's data. Three outer iterations are enough: later ones hold what earlier ones held. Both sides are shown
without the caller's array, which is there whoever fits it. The aim is an estimate within 25 % of the peak.
"""

from __future__ import annotations

import argparse
import inspect
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from common import FloatArray, Report, circle_mixture, in_child, parser, peak_memory, table
from large import overlapping_circles

import sae_rs
from sae_rs import Circle, Line, ManifoldSAE, Sphere, Torus, memory
from sae_rs.atoms import Atom
from sae_rs.gates import resolve_gate

AIM = 0.25
NOISE = 0.05
MAX_OUTER = 3
KINDS: dict[str, Callable[[], Atom]] = {
    "circle": lambda: Circle(harmonics=1),
    "circle, 3 harmonics": Circle,
    "line": Line,
    "sphere": Sphere,
    "torus": lambda: Torus(harmonics=1),
}


@dataclass(frozen=True)
class Shape:
    """Rows, columns, atoms, their kind and the gate."""

    n: int
    p: int
    k: int
    kind: str
    gate: str
    overlapping: bool = False
    """Whether rows use a fifth of the circles together, rather than one."""

    def rows(self) -> FloatArray:
        if self.overlapping:
            return overlapping_circles(self.k, self.p, self.n).X
        return circle_mixture(self.n, self.p, self.k, NOISE)

    @property
    def atoms(self) -> list[Atom]:
        return [KINDS[self.kind]()] * self.k


SHAPES = (
    Shape(2_000, 64, 1, "circle", "softmax"),
    Shape(100_000, 64, 1, "circle, 3 harmonics", "softmax"),
    Shape(20_000, 512, 1, "circle, 3 harmonics", "softmax"),
    Shape(2_000, 2_000, 1, "circle, 3 harmonics", "softmax"),
    Shape(100_000, 32, 1, "line", "softmax"),
    Shape(30_000, 32, 1, "sphere", "softmax"),
    Shape(30_000, 32, 1, "torus", "softmax"),
    Shape(16_000, 32, 3, "circle", "softmax"),
    Shape(100_000, 64, 8, "circle, 3 harmonics", "softmax"),
    Shape(2_000, 64, 6, "circle, 3 harmonics", "softmax"),
    Shape(8_000, 24, 3, "circle", "threshold"),
    Shape(8_000, 24, 3, "circle", "ibp"),
    Shape(1_200, 128, 24, "circle", "threshold", overlapping=True),
)
QUICK = SHAPES[:1]


def estimated(shape: Shape) -> int:
    """What the package expects of the fit before anything is allocated, beyond the caller's data.

    The estimate may look at the gate or not: it is given what it asks for.
    """
    known: dict[str, Any] = {"gate": resolve_gate(shape.gate)}
    wanted = inspect.signature(memory.estimate_bytes).parameters
    extra = {name: value for name, value in known.items() if name in wanted}
    return memory.estimate_bytes(shape.n, shape.p, shape.atoms, **extra)


def measure(shape: Shape) -> dict[str, float | str]:
    """Peaks of one fit; needs a process whose peak nothing else has set."""

    def fit(X: FloatArray) -> ManifoldSAE:
        options = {"gate": shape.gate, "max_outer": MAX_OUTER}
        return ManifoldSAE(shape.k, shape.atoms, **options).fit(X)  # type: ignore[arg-type]

    few = max(40 * shape.k, 60)
    fit(circle_mixture(few, min(shape.p, 8), shape.k, NOISE))
    interpreter = peak_memory()
    X = shape.rows()
    start = time.perf_counter()
    model = fit(X)
    return {
        "seconds": time.perf_counter() - start,
        "interpreter": interpreter,
        "peak": peak_memory(),
        "data": X.nbytes,
        "plan": float(model.term_.plan()["bytes"]),
        "elimination": str(model.term_.plan()["elimination"]),
    }


def mebibytes(size: float) -> str:
    return f"{size / 2**20:.1f}"


def line(shape: Shape, found: dict[str, Any]) -> tuple[list[str], float]:
    """A line of the table and the ratio of the estimate to the peak."""
    data = found["data"]
    beyond = found["peak"] - found["interpreter"] - data
    estimate = estimated(shape)
    ratio = estimate / beyond
    cells = [
        *[f"{shape.n:,}", f"{shape.p:,}", str(shape.k), shape.kind, shape.gate, found["elimination"]],
        *[mebibytes(size) for size in (found["interpreter"], data, beyond, estimate)],
        f"{ratio:.2f}",
        mebibytes(found["plan"]),
        f"{found['plan'] / beyond:.2f}",
        f"{found['seconds']:.1f}",
    ]
    return cells, ratio


HEAD = [
    *["rows", "columns", "K", "kind", "gate", "elimination", "interpreter", "data", "peak beyond both"],
    *["estimate_bytes", "ratio", "plan()", "ratio", "s"],
]


def report_shapes(report: Report, shapes: Sequence[Shape]) -> None:
    lines, ratios = [], []
    for i, shape in enumerate(shapes):
        cells, ratio = line(shape, in_child(__file__, ["--measure", SHAPES.index(shape)]))
        print(f"{i + 1} of {len(shapes)}: " + "  ".join(cells), flush=True)
        lines.append(cells)
        ratios.append(ratio)
    within = int(np.sum(np.abs(np.array(ratios) - 1.0) <= AIM))
    note = (
        f"Sizes in MiB. `estimate_bytes` within {AIM:.0%} of the peak on {within} of {len(ratios)} shapes, "
        f"ratios {min(ratios):.2f} to {max(ratios):.2f}. `plan()` is the core's own count for one evaluation. A peak "
        "of less than a few MiB is within what allocators keep back."
    )
    report.add(table("Peaks and estimates", HEAD, lines, note))


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    arguments = command.parse_args()
    warnings.simplefilter("ignore", sae_rs.ConvergenceWarning)
    if arguments.measure is not None:
        print(json.dumps(measure(SHAPES[arguments.measure])))
        return
    report = Report("memory", "Memory of fits", arguments.quick)
    report_shapes(report, QUICK if arguments.quick else SHAPES)


if __name__ == "__main__":
    main()
