"""How fits of a thousand random small problems end.

    python benchmarks/robustness.py [--count 1000] [--first 0] [--minutes M] [--log FILE] [--workers 1] [--only SEED]

Every problem follows from its seed: shapes down to two rows and up to more columns than rows, scales of 1e-6 to 1e6,
repeated and constant rows and columns, exact low rank, nearly collinear rows, outliers, far offsets, weights, metrics,
all atom kinds and gates, both criteria and all outer searches. A fit may converge, say how it fell short and keep a
finite best state, or refuse the problem with a `ValueError` before it starts. Anything else is a bug: another
exception, a warning of another kind than `ConvergenceWarning` and `FoldWarning`, a number that is not finite, results
that contradict each other, a crash, or more than a minute of processor time. Each problem runs in a process that can be
ended from outside.
Everything found is printed with the seed that reproduces it, which ``--only SEED`` runs in this process, with its
traceback. With ``--log`` outcomes are kept in a file as they come, and problems that are in it are not run again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import FloatArray, Report, parser, table

import sae_rs
from sae_rs import (
    IBP,
    Circle,
    Cylinder,
    Duchon,
    FiniteSet,
    FrozenRouting,
    GeometricSchedule,
    KleinBottle,
    Line,
    ManifoldSAE,
    Mobius,
    Patch,
    Poincare,
    Precomputed,
    ProjectivePlane,
    RowMetric,
    Softmax,
    Sphere,
    ThresholdGate,
    Torus,
)
from sae_rs.atoms import Atom

COUNT, QUICK = 1000, 25
# A problem that computes for longer has hung as far as a user can tell, and so has one that computes nothing for as
# long; what it waits for otherwise is a busy machine.
LIMIT = 60.0
SLOWEST = 10
# Relative rounding that sums over a fit may show.
ROUNDING = 1e-8

# Refusals come before these modules are entered.
WORKING = {"reml.py", "search.py", "problem.py", "efs.py"}

Rng = np.random.Generator


# Problems


@dataclass(frozen=True)
class Problem:
    """A fit and the words that describe it."""

    X: Any
    options: dict[str, Any]
    weights: FloatArray | None
    metric: RowMetric | None
    words: list[str] = field(default_factory=list)

    def describe(self) -> str:
        shown = {name: value for name, value in self.options.items() if name != "n_jobs"}
        if isinstance(shown.get("gate"), FrozenRouting):
            shown["gate"] = "FrozenRouting(...)"
        text = ", ".join(f"{name}={value!r}" for name, value in shown.items())
        n, p = self.X.shape
        return f"{n} × {p}: {', '.join(self.words)}; {text}"


def _noise(rng: Rng, n: int, p: int) -> FloatArray:
    return rng.standard_normal((n, p))


def _circles(rng: Rng, n: int, p: int) -> FloatArray:
    t, which = rng.uniform(0.0, 2.0 * np.pi, n), rng.integers(0, 3, n)
    axes = rng.standard_normal((3, 2, p))
    rows = np.einsum("nd,ndp->np", np.column_stack([np.cos(t), np.sin(t)]), axes[which])
    return np.asarray(rows + rng.choice([0.0, 0.01, 0.1]) * rng.standard_normal((n, p)))


def _one_circle(rng: Rng, n: int, p: int) -> FloatArray:
    t = rng.uniform(0.0, 2.0 * np.pi, n)
    rows = np.column_stack([np.cos(t), np.sin(t)]) @ rng.standard_normal((2, p))
    return np.asarray(rows + rng.choice([0.0, 0.02, 0.3]) * rng.standard_normal((n, p)))


def _collinear(rng: Rng, n: int, p: int) -> FloatArray:
    rows = np.outer(rng.standard_normal(n), rng.standard_normal(p))
    return np.asarray(rows + rng.choice([0.0, 1e-12, 1e-9, 1e-4]) * rng.standard_normal((n, p)))


def _low_rank(rng: Rng, n: int, p: int) -> FloatArray:
    rank = int(rng.integers(1, 4))
    return rng.standard_normal((n, rank)) @ rng.standard_normal((rank, p))


def _clusters(rng: Rng, n: int, p: int) -> FloatArray:
    centres = rng.standard_normal((int(rng.integers(2, 5)), p))
    return np.asarray(centres[rng.integers(0, len(centres), n)] + rng.choice([0.0, 0.05]) * rng.standard_normal((n, p)))


def _lattice(rng: Rng, n: int, p: int) -> FloatArray:
    return rng.integers(-2, 3, (n, p)).astype(np.float64)


def _heavy(rng: Rng, n: int, p: int) -> FloatArray:
    return rng.standard_t(1.0, (n, p))


def _one_hot(rng: Rng, n: int, p: int) -> FloatArray:
    return np.eye(p)[rng.integers(0, p, n)]


def _sphere(rng: Rng, n: int, p: int) -> FloatArray:
    x = rng.standard_normal((n, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x @ rng.standard_normal((3, p)) + 0.02 * rng.standard_normal((n, p))


def _sums(rng: Rng, n: int, p: int) -> FloatArray:
    """Each of two circles on some of the rows, on some both, on some none."""
    t = rng.uniform(0.0, 2.0 * np.pi, (2, n))
    on = rng.random((2, n)) < 0.4
    rows = sum(
        on[c][:, None] * (np.column_stack([np.cos(t[c]), np.sin(t[c])]) @ rng.standard_normal((2, p))) for c in range(2)
    )
    return np.asarray(rows + 0.05 * rng.standard_normal((n, p)))


SOURCES: dict[str, Callable[[Rng, int, int], FloatArray]] = {
    "noise": _noise,
    "circles": _circles,
    "one circle": _one_circle,
    "collinear": _collinear,
    "low rank": _low_rank,
    "clusters": _clusters,
    "lattice": _lattice,
    "heavy tails": _heavy,
    "one-hot": _one_hot,
    "sphere": _sphere,
    "sums of circles": _sums,
}


def _spoil(rng: Rng, X: FloatArray, words: list[str]) -> FloatArray:
    """None, one or several of the things that real tables suffer from."""
    n, p = X.shape
    if rng.random() < 0.2:
        X = X[rng.integers(0, max(n // 3, 1), n)]
        words.append("repeated rows")
    if rng.random() < 0.15:
        X = X.copy()
        X[:, rng.random(p) < 0.5] = rng.choice([0.0, 1.0, 1e6])
        words.append("constant columns")
    if rng.random() < 0.15:
        X = X.copy()
        X[rng.integers(0, n, max(n // 20, 1))] *= rng.choice([1e2, 1e4, 1e6])
        words.append("outliers")
    if rng.random() < 0.1:
        X = X * 10.0 ** rng.uniform(-4.0, 4.0, p)
        words.append("columns of different scales")
    if rng.random() < 0.1:
        X = X.copy()
        X[:, -1] = X[:, 0]
        words.append("a column twice")
    if rng.random() < 0.1:
        X = X.copy()
        X[rng.random(n) < 0.5] = 0.0
        words.append("zero rows")
    if rng.random() < 0.15:
        X = X + 10.0 ** rng.uniform(0.0, 6.0) * np.std(X)
        words.append("far offset")
    if rng.random() < 0.5:
        power = rng.uniform(-6.0, 6.0)
        X = X * 10.0**power
        words.append(f"scale 1e{power:+.1f}")
    if rng.random() < 0.2:
        X = X.astype(np.float32)
        words.append("float32")
    return X


def _table_atom(rng: Rng) -> Atom:
    if rng.random() < 0.5:
        t = np.linspace(-4.0, 4.0, 17)
        return Precomputed([t], np.column_stack([np.ones_like(t), np.tanh(t), np.tanh(t) ** 2]))
    t = np.linspace(0.0, 2.0 * np.pi, 12, endpoint=False)
    return Precomputed([t], np.column_stack([np.ones_like(t), np.cos(t), np.sin(t)]), periods=[2.0 * np.pi])


KINDS: dict[str, Callable[[Rng], Atom]] = {
    "circle": lambda rng: Circle(int(rng.integers(1, 5))),
    "line": lambda rng: Line(),
    "patch": lambda rng: Patch(int(rng.integers(1, 4)), int(rng.integers(1, 4))),
    "torus": lambda rng: Torus(int(rng.integers(1, 3))),
    "cylinder": lambda rng: Cylinder(int(rng.integers(1, 3)), int(rng.integers(1, 3))),
    "klein_bottle": lambda rng: KleinBottle(int(rng.integers(2, 4))),
    "mobius": lambda rng: Mobius(int(rng.integers(2, 4)), int(rng.integers(1, 3))),
    "sphere": lambda rng: Sphere(int(rng.integers(1, 4))),
    "projective_plane": lambda rng: ProjectivePlane(int(rng.choice([2, 4]))),
    "poincare": lambda rng: Poincare(int(rng.integers(1, 4))),
    "duchon": lambda rng: Duchon(int(rng.integers(4, 12))),
    "finite_set": lambda rng: FiniteSet(int(rng.integers(2, 6))),
    "precomputed": _table_atom,
}


def _atom(rng: Rng) -> Atom:
    return KINDS[str(rng.choice(list(KINDS)))](rng)


def _gate(rng: Rng, n: int, k: int) -> Any:
    name = str(rng.choice(["softmax", "softmax", "threshold", "ibp", "frozen"]))
    temperature: Any = 1.0
    if rng.random() < 0.2:
        temperature = float(rng.choice([0.3, 0.7, 3.0]))
    elif rng.random() < 0.1:
        temperature = GeometricSchedule(2.0, 0.6, 0.7)
    ungated = (int(rng.integers(0, k)),) if k and rng.random() < 0.15 else ()
    if name == "softmax":
        return Softmax(temperature=temperature, top_k=int(rng.integers(1, k + 1)) if k and rng.random() < 0.3 else None)
    if name == "threshold":
        return ThresholdGate(
            temperature=temperature, threshold=float(rng.choice([0.0, 0.0, -1.0, 2.0])), ungated=ungated
        )
    if name == "ibp":
        return IBP(
            alpha=float(rng.choice([0.2, 1.0, 5.0])),
            learnable=bool(rng.random() < 0.6),
            energy=str(rng.choice(["ordered", "plug_in"])),
            temperature=temperature,
            ungated=ungated,
        )
    gates = np.zeros((n, max(k, 1)))
    gates[np.arange(n), rng.integers(0, max(k, 1), n)] = 1.0
    gates[rng.random(n) < 0.2] = rng.choice([0.0, 0.5])
    gates[0] = 1.0
    return FrozenRouting(gates)


def _bends(atom: Atom) -> bool:
    """Whether the classic criterion takes the atom."""
    return bool(np.any(atom.roughness()))


def problem(seed: int) -> Problem:
    """The problem of a seed, the same everywhere."""
    rng = np.random.default_rng([seed, 20240607])
    n = int(np.exp(rng.uniform(np.log(2.0), np.log(160.0))))
    p = int(np.exp(rng.uniform(np.log(1.0), np.log(40.0))))
    auto = rng.random() < 0.06
    k = n + 1 if n < 20 and rng.random() < 0.05 else int(rng.choice([0, 1, 1, 1, 2, 2, 2, 3, 4, 6]))
    if auto:
        k, atom = 2, [_atom(rng) for _ in range(2)]
    elif rng.random() < 0.3:
        atom = [_atom(rng) for _ in range(k)]
    else:
        atom = [_atom(rng)] * k
    if k <= n and rng.random() < 0.9:
        # just enough rows: fewer are refused at once, which says little
        n = max([n, 2, *(one.width for one in atom)])
    source = str(rng.choice(list(SOURCES)))
    words = [source]
    X = _spoil(rng, SOURCES[source](rng, n, p), words)
    options: dict[str, Any] = {
        "n_atoms": "auto" if auto else k,
        "atom": atom,
        "gate": _gate(rng, n, k),
        "evidence": "quasi_laplace" if rng.random() < (0.2 if all(map(_bends, atom)) else 0.02) else "laplace",
        "outer": str(rng.choice(["auto", "bfgs", "bfgs", "efs", "efs+bfgs"])),
        "center": bool(rng.random() < 0.85),
        "roughness": "arc_length" if rng.random() < 0.1 else "coordinate",
        "decoder_rank": [None, "auto", 1, 2][int(rng.choice(4, p=[0.8, 0.1, 0.05, 0.05]))],
        "random_state": int(rng.integers(0, 100)),
        "n_jobs": 1,
    }
    if auto:
        options["max_atoms"] = 2
    if rng.random() < 0.1:
        options["max_outer"] = int(rng.integers(1, 5))
    if rng.random() < 0.1:
        options["max_inner"] = int(rng.integers(1, 5))
    weights = None
    if rng.random() < 0.15:
        weights = rng.choice([0.0, 1.0, 1e-3, 50.0], n)
        words.append("weights")
    metric = None
    if rng.random() < 0.1:
        m = int(rng.integers(1, p + 1))
        factors = rng.standard_normal((n, p, m)) * 10.0 ** rng.uniform(-3.0, 3.0)
        mode = str(rng.choice(["whitened", "fisher"]))
        metric = RowMetric(factors, mode)  # type: ignore[arg-type]
        words.append(f"metric {mode}")
    return Problem(X, options, weights, metric, words)


# One problem


class Outcome(NamedTuple):
    """How a problem ended: a class, what there is to say, and the processor time it took."""

    seed: int
    how: str
    text: str
    seconds: float


class Contradiction(Exception):
    """A result that cannot be right."""


def demand(condition: object, text: str) -> None:
    if not condition:
        raise Contradiction(text)


def finite(name: str, value: Any) -> None:
    demand(np.isfinite(np.asarray(value, dtype=np.float64)).all(), f"{name} is not finite")


def examine(model: ManifoldSAE, given: Problem) -> None:
    """Raise `Contradiction` where a fitted model is not finite or not consistent."""
    X, (n, p) = np.asarray(given.X, dtype=np.float64), given.X.shape
    for name in ("dispersion_", "mean_", "gates_", "explained_variance_"):
        finite(name, getattr(model, name))
    # where V does not exist the status says so
    if model.certificate_.status != "infeasible":
        finite("evidence_", model.evidence_)
        finite("evidence_parts_", list(model.evidence_parts_.values()))
        parts = np.array(list(model.evidence_parts_.values()))
        gap = abs(parts.sum() - model.evidence_)
        demand(gap <= ROUNDING * max(np.abs(parts).sum(), 1.0), f"evidence parts miss the evidence by {gap:.3g}")
    for name in ("coords_", "decoders_"):
        for k, value in enumerate(getattr(model, name)):
            finite(f"{name}[{k}]", value)
    demand(model.dispersion_ > 0.0, f"dispersion {model.dispersion_}")
    demand(not np.any(model.gates_[~model.support_]), "gates off the support are not zero")
    demand(model.converged_ == model.certificate_.converged, "converged_ differs from the certificate's")
    demand(model.converged_ == (model.certificate_.status == "converged"), "converged_ differs from the status")
    demand(model.explained_variance_ <= 1.0 + ROUNDING, f"explained variance {model.explained_variance_}")
    rows = model.reconstruct()
    demand(rows.shape == (n, p), f"reconstruction of shape {rows.shape}")
    finite("reconstruct()", rows)
    for k in range(len(model.decoders_)):
        curve = model.curve(k, 9)
        finite(f"curve({k}).points", curve.points)
        finite(f"curve({k}).sd", curve.sd)
    demand(model.summary(), "empty summary")
    if isinstance(given.options["gate"], FrozenRouting):
        # there are no gates for new rows
        return
    finite("score()", model.score(given.X))
    encoding = model.encode(given.X[:7])
    for name in ("gates", "logits", "objective"):
        finite(f"encode().{name}", getattr(encoding, name))
    for k, coords in enumerate(encoding.coords):
        finite(f"encode().coords[{k}]", coords)
    decoded = model.decode(encoding)
    finite("decode()", decoded)
    new = np.random.default_rng(0).standard_normal((3, p)) * np.std(X) + X.mean(axis=0)
    finite("reconstruct(new rows)", model.reconstruct(new))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        model.save(path)
        again = sae_rs.load(path)
    demand(np.array_equal(again.encode(given.X[:7]).gates, encoding.gates), "gates change by a save and a load")
    same = np.array_equal(again.evidence_, model.evidence_, equal_nan=True)
    demand(same, "the evidence changes by a save and a load")


def attempt(seed: int) -> Outcome:
    """Fit and examine the problem of a seed."""
    given = problem(seed)
    start = time.process_time()

    def outcome(how: str, text: str) -> Outcome:
        return Outcome(seed, how, text, time.process_time() - start)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stage = "fit"
        try:
            model = ManifoldSAE(**given.options)
            try:
                model.fit(given.X, given.weights, metric=given.metric)
            except ValueError as error:
                files = {Path(frame.filename).name for frame in traceback.extract_tb(error.__traceback__)}
                if WORKING & files:
                    return outcome("bug", f"refused in the middle of the work: {error}")
                return outcome("refused", str(error))
            stage = "after the fit"
            examine(model, given)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic of the core is no Exception
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            return outcome("bug", f"{stage}: {type(error).__name__} at {where}: {str(error)[:200]}")
    said = [w for w in caught if issubclass(w.category, sae_rs.ConvergenceWarning)]
    other = [w for w in caught if not issubclass(w.category, (sae_rs.ConvergenceWarning, sae_rs.FoldWarning))]
    if other:
        first = other[0]
        name, file = first.category.__name__, Path(first.filename).name
        return outcome("bug", f"{name} at {file}:{first.lineno}: {str(first.message)[:200]}")
    if bool(said) == model.converged_:
        return outcome("bug", f"converged_ is {model.converged_}, and there are {len(said)} ConvergenceWarnings")
    status = model.certificate_.status
    if status == "interrupted":
        # whoever pressed Ctrl-C meant all of the fits
        raise KeyboardInterrupt
    if not np.isfinite(model.evidence_):
        status += ", no evidence"
    plain = given.options["center"] and given.weights is None and given.metric is None
    if plain and model.explained_variance_ < -1e-6:
        status += " (worse than the mean)"
    return outcome("converged" if model.converged_ else "not converged", status)


# Many problems


def serve(pipe: Connection) -> None:
    """Attempt the seeds that come down a pipe; None ends it."""
    while (seed := pipe.recv()) is not None:
        pipe.send(attempt(seed))


def processor_seconds(process: int) -> float:
    """Processor time of a process so far, where the system tells: a busy machine makes no problem hard."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    # what follows the name, which may hold spaces
    fields = text.rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Worker:
    """A process for one problem after the other, replaced when a problem ends it or takes too long."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()
        self.seed, self.since, self.before = -1, 0.0, 0.0
        # processor time so far, and when it last grew
        self.used, self.awake = 0.0, 0.0

    def give(self, seed: int) -> None:
        self.seed, self.since = seed, time.monotonic()
        self.before = self.used = processor_seconds(self.process.pid or 0)
        self.awake = self.since
        self.pipe.send(seed)

    def hung(self) -> bool:
        """Whether the problem has had its time, or sleeps."""
        used, now = processor_seconds(self.process.pid or 0), time.monotonic()
        if used > self.used:
            self.used, self.awake = used, now
        return used - self.before > LIMIT or now - self.awake > LIMIT

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def run(seeds: Iterator[int], n_workers: int) -> Iterator[Outcome]:
    """Outcomes in the order in which they come."""
    workers = [Worker() for _ in range(n_workers)]
    busy: list[Worker] = []
    try:
        while True:
            for worker in [w for w in workers if w not in busy]:
                seed = next(seeds, None)
                if seed is None:
                    break
                worker.give(seed)
                busy.append(worker)
            if not busy:
                return
            wait([w.pipe for w in busy], timeout=0.5)
            for worker in list(busy):
                taken = time.monotonic() - worker.since
                found: Outcome | None = None
                if worker.pipe.poll():
                    try:
                        found = worker.pipe.recv()
                    except EOFError:
                        worker.process.join()
                        found = Outcome(worker.seed, "bug", f"the process ended ({worker.process.exitcode})", taken)
                elif worker.hung():
                    found = Outcome(worker.seed, "bug", f"no end after {LIMIT:.0f} s", LIMIT)
                if found is None:
                    continue
                busy.remove(worker)
                if found.text.startswith(("the process ended", "no end")):
                    worker.end()
                    workers[workers.index(worker)] = Worker()
                yield found
    finally:
        for worker in workers:
            worker.end()


def statuses(outcomes: list[Outcome]) -> str:
    if not outcomes:
        return "No problem was attempted.\n"
    counts = Counter((o.how, "" if o.how in ("refused", "bug") else o.text) for o in outcomes)
    order = ["converged", "not converged", "refused", "bug"]
    lines = [
        [how, status, str(count), f"{100 * count / len(outcomes):.1f} %"]
        for (how, status), count in sorted(counts.items(), key=lambda pair: (order.index(pair[0][0]), -pair[1]))
    ]
    seeds = f"seeds {outcomes[0].seed} to {outcomes[-1].seed}"
    return table(f"{len(outcomes)} problems, {seeds}", ["outcome", "status", "count", "share"], lines)


def listed(title: str, outcomes: list[Outcome]) -> str:
    lines = [[str(o.seed), o.how, f"{o.seconds:.1f}", o.text, problem(o.seed).describe()] for o in outcomes]
    return table(title, ["seed", "outcome", "s", "what", "problem"], lines) if lines else f"## {title}\n\nNone.\n"


def refusals(outcomes: list[Outcome]) -> str:
    """One example of every sort of refusal, sorts being told apart by their words without numbers."""
    sorts: dict[str, list[Outcome]] = {}
    for o in outcomes:
        if o.how == "refused":
            sort = " ".join(word for word in o.text.split() if not any(c.isdigit() for c in word))[:60]
            sorts.setdefault(sort, []).append(o)
    lines = [
        [str(len(same)), str(same[0].seed), same[0].text[:160]]
        for same in sorted(sorts.values(), key=lambda same: -len(same))
    ]
    return table("Refusals", ["count", "first seed", "message"], lines) if lines else "## Refusals\n\nNone.\n"


def remembered(log: Path | None) -> list[Outcome]:
    """Outcomes of earlier runs."""
    if log is None or not log.exists():
        return []
    return [Outcome(*json.loads(line)) for line in log.read_text(encoding="utf-8").splitlines()]


def escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--count", type=int, default=COUNT)
    command.add_argument("--first", type=int, default=0, help="first seed")
    command.add_argument("--minutes", type=float, default=np.inf, help="no new problem is begun after this time")
    command.add_argument("--log", type=Path, help="file of outcomes, one a line, to go on from")
    command.add_argument("--workers", type=int, default=1)
    command.add_argument("--only", type=int, help="one seed in this process, with its traceback")
    arguments = command.parse_args()
    if arguments.only is not None:
        given = problem(arguments.only)
        print(given.describe())
        model = ManifoldSAE(**given.options).fit(given.X, given.weights, metric=given.metric)
        print(model.certificate_)
        print(model.summary())
        examine(model, given)
        return
    count = QUICK if arguments.quick else arguments.count
    report = Report("robustness", "Random small problems", arguments.quick)
    wanted = range(arguments.first, arguments.first + count)
    outcomes = [o for o in remembered(arguments.log) if o.seed in wanted]
    done = {o.seed for o in outcomes}
    end = time.monotonic() + 60.0 * arguments.minutes
    seeds = takewhile(lambda _: time.monotonic() < end, (seed for seed in wanted if seed not in done))
    for found in run(seeds, arguments.workers):
        found = found._replace(text=escape(found.text))
        outcomes.append(found)
        if arguments.log is not None:
            with arguments.log.open("a", encoding="utf-8") as log:
                log.write(json.dumps(found) + "\n")
        if found.how == "bug":
            print(f"seed {found.seed}: {found.text}\n    {problem(found.seed).describe()}", flush=True)
    outcomes.sort()
    report.add(statuses(outcomes))
    report.add(listed("Bugs", [o for o in outcomes if o.how == "bug"]))
    report.add(listed(f"The slowest {SLOWEST}", sorted(outcomes, key=lambda o: -o.seconds)[:SLOWEST]))
    report.add(refusals(outcomes))


if __name__ == "__main__":
    main()
