"""Do fits that were killed come to the same end from their checkpoints?

    python benchmarks/resume.py [--times 20]

Every fit runs in a process of its own, which SIGKILL ends at a random moment after its checkpoint file is there. It is
taken up with ``fit(X, resume=path)`` in another process, half of the times to be killed and taken up once more. The
aim is the evidence of the same fit without interruptions to a relative 1e-8; the documentation says that every bit of
gates, coordinates, decoders and strengths is the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import ONE_BLAS_THREAD, FloatArray, Report, circle_mixture, parser, table, unit_circles

import sae_rs
from sae_rs import Circle, ManifoldSAE, checkpoints

TIMES, QUICK = 20, 2
NOISE = 0.05
AIM = 1e-8
# Between two looks at whether a process has ended or written its first mark.
POLL = 0.02


def _overlapping(n: int, p: int, n_circles: int, share: float) -> FloatArray:
    """Rows (n, p), each the sum of those unit circles that it uses, every one on a share of the rows."""
    rng = np.random.default_rng(0)
    axes = unit_circles(n_circles, p, rng)
    t = rng.uniform(0.0, 2.0 * np.pi, (n, n_circles))
    on = rng.random((n, n_circles)) < share
    points = np.stack([np.cos(t), np.sin(t)], axis=2) * on[:, :, None]
    return np.asarray(np.einsum("ncd,cdp->np", points, axes) + NOISE * rng.standard_normal((n, p)))


@dataclass(frozen=True)
class Case:
    """Planted rows and how they are fitted."""

    rows: Callable[[], FloatArray]
    options: dict[str, Any]

    def model(self, checkpoint: str) -> ManifoldSAE:
        return ManifoldSAE(**self.options, checkpoint=checkpoint, checkpoint_every=2, n_jobs=1)


CASES = {
    "3 circles, softmax": Case(lambda: circle_mixture(2_500, 16, 3, NOISE), {"n_atoms": 3, "atom": Circle()}),
    "4 overlapping circles, threshold": Case(
        lambda: _overlapping(800, 16, 4, 0.4), {"n_atoms": 4, "atom": Circle(1), "gate": "threshold"}
    ),
    "2 overlapping circles, Indian buffet": Case(
        lambda: _overlapping(1_000, 12, 2, 0.5), {"n_atoms": 2, "atom": Circle(1), "gate": "ibp"}
    ),
}


# A fit in a process of its own


def _digest(model: ManifoldSAE) -> str:
    """Of every bit that was fitted."""
    arrays = [model.gates_, *model.coords_, *model.decoders_, model.rho_.to_flat(), model.evidence_]
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, dtype=np.float64).data)
    return digest.hexdigest()


def fitted(name: str, path: str, resume: bool) -> dict[str, Any]:
    """How a fit ends."""
    case = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sae_rs.ConvergenceWarning)
        model = case.model(path).fit(case.rows(), resume=path if resume else None)
    certificate = model.certificate_
    return {
        "evidence": model.evidence_,
        "digest": _digest(model),
        "status": certificate.status,
        "evaluations": certificate.n_evaluations,
    }


class Running:
    """A fit in a process of its own, begun or taken up."""

    def __init__(self, name: str, path: Path, resume: bool) -> None:
        command = [sys.executable, __file__, "--fit", name, str(path), *(["--resume"] if resume else [])]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **ONE_BLAS_THREAD})
        while not path.exists() and self.process.poll() is None:
            time.sleep(POLL)

    def killed_after(self, seconds: float) -> bool:
        """Whether the process was still at work after this time; it is not any more."""
        try:
            self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            return True
        return False

    def end(self) -> dict[str, Any]:
        """What the fit printed.

        Raises
        ------
        RuntimeError
            When it failed.
        """
        printed, _ = self.process.communicate()
        if self.process.returncode:
            raise RuntimeError(f"a fit ended with exit code {self.process.returncode}")
        return dict(json.loads(printed))


# Many of them


@dataclass
class Tally:
    """What became of the fits of one case."""

    whole: dict[str, Any]
    seconds: float
    fits: int = 0
    kills: int = 0
    same: int = 0
    furthest: float = 0.0
    stages: Counter[str] = field(default_factory=Counter)

    def count(self, end: dict[str, Any]) -> None:
        value = float(self.whole["evidence"])
        self.fits += 1
        self.same += end["digest"] == self.whole["digest"]
        self.furthest = max(self.furthest, abs(float(end["evidence"]) - value) / abs(value))


def uninterrupted(name: str, path: Path) -> Tally:
    """The end of a fit that nobody kills, and how long it takes once its checkpoint is there."""
    running, begin = Running(name, path, resume=False), time.monotonic()
    whole = running.end()
    return Tally(whole, time.monotonic() - begin)


def _passed(path: Path) -> str:
    """Where the last mark was made."""
    saved = checkpoints.read(path)
    if saved.stage == "start":
        return "before the first search"
    return "within a search" if saved.box is not None else "between searches"


def interrupted(name: str, path: Path, tally: Tally, rng: np.random.Generator) -> dict[str, Any]:
    """The end of a fit that is killed at a random moment, taken up, and half of the times killed again."""
    path.unlink(missing_ok=True)
    left, resume = 1 + int(rng.random() < 0.5), False
    while left:
        if Running(name, path, resume).killed_after(rng.uniform(0.0, tally.seconds)):
            tally.kills += 1
            tally.stages[_passed(path)] += 1
            left, resume = left - 1, True
        elif not resume:
            # it was done before its moment came: another one
            path.unlink()
        else:
            left = 0
    return Running(name, path, resume=True).end()


HEAD = [
    "rows",
    "s without interruptions",
    "evaluations",
    "status",
    "fits",
    "kills",
    "before the first search",
    "within a search",
    "between searches",
    "same bits",
    "largest relative difference of V",
]


def line(name: str, tally: Tally) -> list[str]:
    return [
        name,
        f"{tally.seconds:.1f}",
        str(tally.whole["evaluations"]),
        str(tally.whole["status"]),
        str(tally.fits),
        str(tally.kills),
        *(str(tally.stages[stage]) for stage in HEAD[6:9]),
        str(tally.same),
        f"{tally.furthest:.1e}",
    ]


def run(names: Sequence[str], times: int, report: Report) -> None:
    """Kill fits of the cases in turn, and add the table as it grows."""
    rng = np.random.default_rng(0)
    tallies: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fit.checkpoint"
        for turn in range(times):
            name = names[turn % len(names)]
            if name not in tallies:
                path.unlink(missing_ok=True)
                tallies[name] = uninterrupted(name, path)
            end = interrupted(name, path, tallies[name], rng)
            tallies[name].count(end)
            print(f"{name}: {end['evidence']!r}, without interruptions {tallies[name].whole['evidence']!r}", flush=True)
    fits = sum(tally.fits for tally in tallies.values())
    close = sum(tally.fits for tally in tallies.values() if tally.furthest <= AIM)
    note = f"{fits} fits; all of {close} ended within {AIM:g} of the evidence of the fit that was not interrupted."
    title = "Killed by SIGKILL at a random moment, taken up from the checkpoint"
    report.add(table(title, HEAD, [line(name, tally) for name, tally in tallies.items()], note))


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--times", type=int, default=TIMES, help="fits that are killed, over all cases")
    # what the processes of their own are started with
    command.add_argument("--fit", nargs=2, help=argparse.SUPPRESS)
    command.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)
    arguments = command.parse_args()
    if arguments.fit is not None:
        print(json.dumps(fitted(*arguments.fit, arguments.resume)))
        return
    report = Report("resume", "Fits taken up from checkpoints", arguments.quick)
    if arguments.quick:
        run(list(CASES)[:1], QUICK, report)
    else:
        run(list(CASES), arguments.times, report)


if __name__ == "__main__":
    main()
