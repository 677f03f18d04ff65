"""What the benchmarks share: timing, tables, the description of the machine, measurements in fresh processes.

Every benchmark is one command, ``python benchmarks/<name>.py``. It prints its tables and writes them to
``benchmarks/results/<name>.md``; with ``--quick`` it does a small part of the work and prints alone. Nothing is
asserted: numbers belong to the machine and the moment, and stand beside a description of both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sae_rs

FloatArray = NDArray[np.float64]

RESULTS = Path(__file__).parent / "results"
# Work is repeated for about this many seconds, and at most so often; the shortest time is shown, because whatever else
# the machine does can only add to it.
REPEAT_FOR = 1.0
REPEATS = 50
# What the usual linear-algebra libraries of NumPy read their number of threads from.
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
ONE_BLAS_THREAD = dict.fromkeys(BLAS_THREADS, "1")
# Sizes of the planted circles that fits and iterations are timed on.
ROWS = (100, 1_000, 10_000, 100_000)
OUTPUTS = (16, 64, 256, 1024)
# The data, their centred copy, and the linearised rows of a state and its trial: about this many times the data.
COPIES = 3.0
MEMORY_LIMIT = 1.5 * 2**30
CIRCLE_NOISE = 0.02


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A command line with ``--quick``, described by the docstring of a module.

    From here on Ctrl-C ends the benchmark at once: a fit that it only cut off would be measured like any other.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    out = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--quick", action="store_true", help="a small part of the work; prints, but writes no file")
    return out


# Time and memory


def seconds(
    work: Callable[[], object], repeat_for: float = REPEAT_FOR, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Shortest time of some work by a clock, wall time by default; of one run when that is long."""
    taken: list[float] = []
    while not taken or (sum(taken) < repeat_for and len(taken) < REPEATS):
        start = clock()
        work()
        taken.append(clock() - start)
    return min(taken)


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # the kernel's count for this program alone; getrusage would carry over the peak of the process that started it
        return next(1024 * int(line.split()[1]) for line in status.read_text().splitlines() if line[:6] == "VmHWM:")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def in_child(script: str, arguments: Sequence[object], environment: Mapping[str, str] | None = None) -> Any:
    """What a script prints as JSON when it is run in a fresh process, whose peak of memory nothing else has set."""
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={**os.environ, **(environment or {})})
    return json.loads(done.stdout)


def small_enough(n: int, p: int) -> bool:
    """Whether a fit of so many rows and columns stays within what these benchmarks may use."""
    return COPIES * 8 * n * p <= MEMORY_LIMIT


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Planted data


def unit_circles(n_circles: int, p: int, rng: np.random.Generator) -> FloatArray:
    """Axes (n_circles, 2, p) of circles of radius one: each pair orthonormal, different pairs in random directions."""
    pairs = [np.linalg.qr(rng.standard_normal((p, 2)))[0].T for _ in range(n_circles)]
    return np.stack(pairs)


def circle_mixture(n: int, p: int, n_circles: int, noise: float, seed: int = 0) -> FloatArray:
    """Rows (n, p), by turns near one of some unit circles in random planes."""
    rng = np.random.default_rng(seed)
    axes = unit_circles(n_circles, p, rng)
    angle = rng.uniform(0.0, 2.0 * np.pi, n)
    X = rng.standard_normal((n, p))
    X *= noise
    for c in range(n_circles):
        t = angle[c::n_circles]
        X[c::n_circles] += np.column_stack([np.cos(t), np.sin(t)]) @ axes[c]
    return X


def planted_circle(n: int, p: int) -> FloatArray:
    """Rows (n, p) near a circle whose two axes are unit vectors in random directions."""
    rng = np.random.default_rng(0)
    axes = rng.standard_normal((2, p))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    angle = rng.uniform(0.0, 2.0 * np.pi, n)
    rows = rng.standard_normal((n, p))
    rows *= CIRCLE_NOISE
    # in chunks, so that making the data does not set the peak of memory
    for i in range(0, n, 4096):
        t = angle[i : i + 4096]
        rows[i : i + 4096] += np.column_stack([np.cos(t), np.sin(t)]) @ axes
    return rows


# Tables


def table(title: str, head: Sequence[str], lines: Sequence[Sequence[str]], note: str = "") -> str:
    """A Markdown table whose columns line up when printed."""
    widths = [max(len(line[j]) for line in [head, *lines]) for j in range(len(head))]

    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    rule = "|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|"
    text = "\n".join([f"## {title}", "", row(head), rule, *map(row, lines)])
    return f"{text}\n\n{note}\n" if note else f"{text}\n"


def _first_match(path: str, key: str) -> str | None:
    """The value of the first line ``key: value`` of a file."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), None)


def machine() -> str:
    """What the numbers were measured on."""
    model = _first_match("/proc/cpuinfo", "model name") or platform.processor() or platform.machine()
    memory = _first_match("/proc/meminfo", "MemTotal")
    size = f", {int(memory.split()[0]) / 2**20:.0f} GiB" if memory else ""
    load = f", load {os.getloadavg()[0]:.1f} at the start" if hasattr(os, "getloadavg") else ""
    versions = f"Python {platform.python_version()}, NumPy {np.__version__}, sae_rs {sae_rs.__version__}"
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    return f"{model}, {available_cores()} cores{size}, {platform.system()}{load}; {versions}; {date}.\n"


class Report:
    """Sections that are printed as they come, and kept in a file unless the run is a quick one.

    The file is written after every section: a run that is stopped leaves what it had.
    """

    def __init__(self, name: str, title: str, quick: bool) -> None:
        self.path = None if quick else RESULTS / f"{name}.md"
        self.parts: dict[str, str] = {}
        self.add(f"# {title}\n\n{machine()}")

    def add(self, text: str, show: bool = True) -> None:
        """Add a section, in place of an earlier one with the same first line."""
        text = text if text.endswith("\n") else f"{text}\n"
        self.parts[text.split("\n", 1)[0]] = text
        if show:
            print(text, flush=True)
        if self.path is not None:
            self.path.parent.mkdir(exist_ok=True)
            self.path.write_text("\n".join(self.parts.values()), encoding="utf-8")
