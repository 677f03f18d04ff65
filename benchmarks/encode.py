"""Rows a second that `encode` finds gates and coordinates for, at 8 circles and 64 columns.

    python benchmarks/encode.py

New rows are drawn like the training rows: one of eight unit circles each, noise 0.05. The aim is 100,000 rows a second
on two cores. It also checks that neither the number of threads nor the other rows of a call change a bit.
"""

from __future__ import annotations

import time
import warnings

import numpy as np
from common import FloatArray, Report, available_cores, circle_mixture, parser, table

import sae_rs
from sae_rs import Circle, Encoding, ManifoldSAE

K, P, NOISE = 8, 64, 0.05
# Encoding depends on the decoders, not on how many rows they came from.
TRAINING_ROWS, MAX_OUTER = 600, 5
ROWS, ROWS_QUICK = (1_000, 20_000), (1_000,)
THREADS = (1, 2)
AIM = 100_000
PIECE = 777


def same(a: Encoding, b: Encoding) -> bool:
    """Whether two encodings are the same to the last bit."""
    arrays = zip(
        [a.gates, a.logits, a.support, a.objective, a.status, *a.coords],
        [b.gates, b.logits, b.support, b.objective, b.status, *b.coords],
        strict=True,
    )
    return all(x.tobytes() == y.tobytes() for x, y in arrays)


def part(encoding: Encoding, rows: slice) -> Encoding:
    return Encoding(
        encoding.gates[rows],
        [t[rows] for t in encoding.coords],
        encoding.logits[rows],
        encoding.support[rows],
        encoding.objective[rows],
        encoding.status[rows],
    )


HEAD = [
    "rows",
    "threads",
    "rows a second",
    "of the aim",
    "rows a second of processor",
    "atoms a row",
    "at the limit",
    "same bits",
]
NOTE = (
    f"The aim is {AIM:,} rows a second on two cores; there are {available_cores()}. Seconds of processor are summed "
    "over threads, and are fewer than those of a clock where the machine has other work. At the limit: rows whose "
    "Newton steps met their limit. Same bits: as on one thread, and as encoded in another company of rows."
)


def measured(model: ManifoldSAE, rows: FloatArray) -> list[list[str]]:
    """Lines of the table, one for each number of threads."""
    lines, first = [], None
    n = len(rows)
    for threads in THREADS:
        model.n_jobs = threads
        wall, processor = time.perf_counter(), time.process_time()
        found = model.encode(rows)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        first = found if first is None else first
        piece = slice(PIECE % n, PIECE % n + PIECE)
        alike = same(first, found) and same(part(first, piece), model.encode(rows[piece]))
        lines.append(
            [
                f"{n:,}",
                str(threads),
                f"{n / wall:,.0f}",
                f"{n / wall / AIM:.0%}",
                f"{n / processor:,.0f}",
                f"{found.support.sum(axis=1).mean():.2f}",
                str(int(np.count_nonzero(found.status))),
                "yes" if alike else "NO",
            ]
        )
        print("  ".join(lines[-1]), flush=True)
    return lines


def main() -> None:
    arguments = parser(__doc__).parse_args()
    report = Report("encode", "Encoding", arguments.quick)
    warnings.simplefilter("ignore", sae_rs.ConvergenceWarning)
    drawn = circle_mixture(TRAINING_ROWS + max(ROWS), P, K, NOISE)
    train, new = drawn[:TRAINING_ROWS], drawn[TRAINING_ROWS:]
    for harmonics in (1, 3):
        model = ManifoldSAE(K, Circle(harmonics), max_outer=MAX_OUTER).fit(train)
        lines = []
        for n in ROWS_QUICK if arguments.quick else ROWS:
            lines += measured(model, np.ascontiguousarray(new[:n]))
        note = (
            f"The fit ended as {model.certificate_.status} after {model.certificate_.n_evaluations} evaluations. {NOTE}"
        )
        title = f"{K} circles of {harmonics} harmonic{'s' * (harmonics > 1)}, {P} columns, one active a row"
        report.add(table(title, HEAD, lines, note))


if __name__ == "__main__":
    main()
