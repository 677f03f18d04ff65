"""The cost of an inner iteration against the two matrix products that none can avoid.

python benchmarks/iterations.py [--max-rows 100000]
"""

from __future__ import annotations

import argparse
import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from common import (
    ONE_BLAS_THREAD,
    OUTPUTS,
    ROWS,
    FloatArray,
    Report,
    available_cores,
    in_child,
    parser,
    planted_circle,
    seconds,
    small_enough,
    table,
)

import sae_rs

# How far off the fitted log strengths inner iterations are timed: enough to need several.
OFFSET = 0.5
FEWEST = 1_000


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
    for n in (n for n in ROWS if FEWEST <= n <= max_rows):
        for p in (p for p in OUTPUTS if small_enough(n, p)):
            found = in_child(__file__, ["--measure", n, p], ONE_BLAS_THREAD)
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


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--max-rows", type=int, default=ROWS[-1], help="largest number of rows to time")
    command.add_argument("--measure", nargs=2, type=int, help=argparse.SUPPRESS)
    arguments = command.parse_args()
    warnings.simplefilter("ignore", sae_rs.ConvergenceWarning)
    if arguments.measure:
        print(json.dumps(measure_inner_iteration(*arguments.measure)))
        return
    report = Report("iterations", "Inner iterations", arguments.quick)
    report.add(time_inner_iterations(FEWEST if arguments.quick else arguments.max_rows))


if __name__ == "__main__":
    main()
