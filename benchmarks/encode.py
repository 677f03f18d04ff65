"""Rows a second that `encode` finds gates and coordinates for, at 8 circles and 64 columns.

    python benchmarks/encode.py

New rows are drawn like the training rows: one of eight unit circles each, noise 0.05. The aim is 100,000 rows a second
on two cores. It also checks that neither the number of threads nor the other rows of a call change a bit.
"""

from __future__ import annotations

import warnings

import numpy as np
from common import Report, available_cores, circle_mixture, parser, seconds, table

import sae_rs
from sae_rs import Circle, Encoding, ManifoldSAE

K, P, NOISE = 8, 64, 0.05
# Encoding depends on the decoders, not on how many rows they came from.
TRAINING_ROWS, MAX_OUTER = 600, 5
ROWS, ROWS_QUICK = (1_000, 10_000, 50_000), (1_000,)
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


def main() -> None:
    command = parser(__doc__)
    arguments = command.parse_args()
    report = Report("encode", "Encoding", arguments.quick)
    warnings.simplefilter("ignore", sae_rs.ConvergenceWarning)
    drawn = circle_mixture(TRAINING_ROWS + max(ROWS), P, K, NOISE)
    train, new = drawn[:TRAINING_ROWS], drawn[TRAINING_ROWS:]
    lines = []
    for harmonics in (1, 3):
        model = ManifoldSAE(K, Circle(harmonics), max_outer=MAX_OUTER).fit(train)
        for n in ROWS_QUICK if arguments.quick else ROWS:
            rows = np.ascontiguousarray(new[:n])
            encodings = {}
            for threads in THREADS:
                model.n_jobs = threads
                taken = seconds(lambda model=model, rows=rows: model.encode(rows))  # type: ignore[misc]
                encodings[threads] = model.encode(rows)
                one = encodings[THREADS[0]]
                pieces = slice(PIECE % n, PIECE % n + PIECE)
                alike = same(one, encodings[threads]) and same(part(one, pieces), model.encode(rows[pieces]))
                speed = n / taken
                lines.append(
                    [
                        str(harmonics),
                        f"{n:,}",
                        str(threads),
                        f"{speed:,.0f}",
                        f"{speed / AIM:.0%}",
                        f"{one.support.sum(axis=1).mean():.2f}",
                        str(int(np.count_nonzero(one.status))),
                        "yes" if alike else "NO",
                    ]
                )
                print("  ".join(lines[-1]), flush=True)
    head = ["harmonics", "rows", "threads", "rows a second", "of the aim", "atoms a row", "at the limit", "same bits"]
    note = (
        f"The aim is {AIM:,} rows a second on two cores; {available_cores()} are here. At the limit: rows whose Newton "
        "steps met their limit. Same bits: as on one thread, and as encoded in another company of rows."
    )
    report.add(table(f"{K} circles, {P} columns, one active a row", head, lines, note))


if __name__ == "__main__":
    main()
