"""Fits that were stopped go on from their checkpoints, to the same end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import sae_rs
from planted import fitted_one, one_circle, two_circles
from sae_rs import IBP, Circle, Line, ManifoldSAE, RowMetric, Softmax, ThresholdGate, checkpoints, reml
from sae_rs.boxes import Box
from sae_rs.problem import Problem
from sae_rs.search import Search

FloatArray = NDArray[np.float64]

slow = pytest.mark.skipif(os.environ.get("SAE_RS_SLOW") != "1", reason="takes minutes; SAE_RS_SLOW=1 runs it")

X = two_circles(n=80)[0]


class Killed(Exception):
    """Stands for the end of a process."""


def killed_after(evaluations: int) -> Any:
    def callback(progress: sae_rs.FitProgress) -> None:
        if progress.evaluation >= evaluations:
            raise Killed

    return callback


def assert_same(a: ManifoldSAE, b: ManifoldSAE) -> None:
    """Every bit of two fits."""
    assert a.evidence_ == b.evidence_
    np.testing.assert_array_equal(a.rho_.to_flat(), b.rho_.to_flat())
    for left, right in zip([*a.decoders_, *a.coords_, a.gates_], [*b.decoders_, *b.coords_, b.gates_], strict=True):
        np.testing.assert_array_equal(left, right)
    assert a.certificate_ == b.certificate_


OPTIONS: dict[str, dict[str, Any]] = {
    "softmax": {},
    "threshold": {"gate": ThresholdGate()},
    "ibp": {"gate": IBP()},
    "annealed": {"gate": Softmax(temperature=sae_rs.GeometricSchedule(2.0, 0.5, 1.0))},
    "kinds": {"atom": [Circle(1), Line()]},
    "classic": {"evidence": "quasi_laplace"},
    "steps": {"outer": "efs+bfgs"},
    "arc_length": {"roughness": "arc_length", "atom": Circle(2)},
    "ranks": {"decoder_rank": 2},
    "every_iteration": {"checkpoint_every": 1},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_fit_goes_on_to_the_same_bits(name: str, tmp_path: Path) -> None:
    options = {"atom": Circle(1), "n_init": 2, "max_outer": 12, "checkpoint_every": 3, **OPTIONS[name]}
    path = tmp_path / "fit.checkpoint"
    whole = ManifoldSAE(2, checkpoint=path, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sae_rs.ConvergenceWarning)
        whole.fit(X)
        last = whole.certificate_.n_evaluations
        # what the end of the fit left is a checkpoint as well
        assert_same(ManifoldSAE(2, **options).fit(X, resume=path), whole)
        for after in sorted({1, last // 2, last - 1}):
            with pytest.raises(Killed):
                ManifoldSAE(2, checkpoint=path, callback=killed_after(after), **options).fit(X)
            again = ManifoldSAE(2, checkpoint=path, **options).fit(X, resume=path)
            assert_same(again, whole)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_the_sample_of_many_rows_goes_on_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reml, "SAMPLE_ABOVE", 100)
    monkeypatch.setattr(reml, "SAMPLE_ROWS", 60)
    path, rows = tmp_path / "fit.checkpoint", two_circles(n=120)[0]
    stages = set()
    whole = ManifoldSAE(2, Circle(1), checkpoint=path, checkpoint_every=2).fit(rows)
    for after in range(10, whole.certificate_.n_evaluations, 7):
        with pytest.raises(Killed):
            ManifoldSAE(2, Circle(1), checkpoint=path, checkpoint_every=2, callback=killed_after(after)).fit(rows)
        stages.add(checkpoints.read(path).stage)
        assert_same(ManifoldSAE(2, Circle(1), checkpoint_every=2).fit(rows, resume=path), whole)
    assert "sample" in stages


def test_states_on_the_way_to_their_supports_need_no_gradient(tmp_path: Path) -> None:
    """With what counts as told put up by hand, as an estimated determinant would."""
    path, rows = tmp_path / "fit.checkpoint", one_circle()[0]
    problem = Problem(rows, (Circle(1),), Softmax(), None, True)
    marks = checkpoints.Checkpoints(path, 1, checkpoints.identity_of({}, 0, rows, None, None), None)
    term, rho = fitted_one().term_, fitted_one().rho_

    def search_of() -> Search:
        search = Search(problem, outer="auto", max_outer=20, max_inner=100, tol=1e-6, threads=1, progress=None)
        search._counted = lambda stage, point: point  # type: ignore[method-assign]
        return search

    search = search_of()
    search.resolution = 0.5
    for settled, entries in ((0, 0), (1, 3)):
        search.supports_settled = settled
        passed = marks.passed(search, search.begun(term, rho), None)
        assert len(passed.evaluation.gradient) == entries
        again = search_of()
        restored = checkpoints.read(path).restored(again)
        assert (again.resolution, again.supports_settled) == (0.5, settled)
        assert restored.evaluation.value == passed.evaluation.value
        assert restored.evaluation.inner.iterations == passed.evaluation.inner.iterations
    # of a search in progress the minimiser wants the gradient
    search.supports_settled = 0
    assert len(marks.passed(search, search.begun(term, rho), Box()).evaluation.gradient) == 3


def test_weights_and_metrics_belong_to_the_data(tmp_path: Path) -> None:
    rows, _ = one_circle()
    path = tmp_path / "fit.checkpoint"
    weights = np.linspace(1.0, 2.0, len(rows))
    metric = RowMetric(np.tile(np.eye(rows.shape[1]), (len(rows), 1, 1)))
    whole = ManifoldSAE(1, Circle(1), checkpoint=path).fit(rows, weights, metric=metric)
    assert_same(ManifoldSAE(1, Circle(1)).fit(rows, weights, metric=metric, resume=path), whole)
    with pytest.raises(ValueError, match="is of other data: weights differ"):
        ManifoldSAE(1, Circle(1)).fit(rows, metric=metric, resume=path)
    with pytest.raises(ValueError, match="is of other data: X, metric differ"):
        ManifoldSAE(1, Circle(1)).fit(rows + 1.0, weights, resume=path)


def test_a_seed_that_was_drawn_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "fit.checkpoint"
    whole = ManifoldSAE(2, Circle(1), random_state=None, checkpoint=path).fit(X)
    assert_same(ManifoldSAE(2, Circle(1), random_state=None).fit(X, resume=path), whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tol": 1e-3}, "is of other settings: tol was 1e-06, now 0.001"),
        ({"atom": Line()}, "is of other settings: atom was"),
        ({"random_state": 1}, "random_state was 0, now 1"),
        ({"checkpoint_every": 2, "n_init": 1}, "checkpoint_every was 5, now 2; n_init was 4, now 1"),
        ({"checkpoint_every": 0}, "checkpoint_every must be"),
        ({"checkpoint": 3}, "checkpoint must be a path or None, got 3"),
        ({"n_atoms": "auto"}, "n_atoms='auto' has no checkpoints"),
    ],
)
def test_other_settings_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "fit.checkpoint"
    rows, _ = one_circle()
    ManifoldSAE(1, Circle(1), checkpoint=path).fit(rows)
    with pytest.raises(ValueError, match=message):
        ManifoldSAE(**{"n_atoms": 1, "atom": Circle(1), **options}).fit(rows, resume=path)


def test_what_runs_a_fit_may_change(tmp_path: Path) -> None:
    path = tmp_path / "fit.checkpoint"
    rows, _ = one_circle()
    whole = ManifoldSAE(1, Circle(1), checkpoint=path, n_jobs=1).fit(rows)
    assert_same(ManifoldSAE(1, Circle(1), n_jobs=2, memory_budget="1GiB").fit(rows, resume=path), whole)


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    rows, _ = one_circle()
    model = ManifoldSAE(1, Circle(1))
    with pytest.raises(FileNotFoundError):
        model.fit(rows, resume=tmp_path / "none")
    path = tmp_path / "fit.checkpoint"
    fitted = ManifoldSAE(1, Circle(1), checkpoint=path).fit(rows)
    content = path.read_bytes()
    for damaged in (
        b"",
        content[:100],
        content[: len(content) // 2],
        content[:-5] + bytes([content[-5] ^ 1]) + content[-4:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"the checkpoint .* is (damaged|not a readable)"):
            model.fit(rows, resume=path)
    path.write_bytes(content.replace(b'"format_version":"1"', b'"format_version":"9"'))
    with pytest.raises(ValueError, match="has format version 9"):
        model.fit(rows, resume=path)
    fitted.save(path)
    with pytest.raises(ValueError, match="is no checkpoint of a fit"):
        model.fit(rows, resume=path)


KILLED_FIT = """
import sys
import numpy as np
from sae_rs import Circle, ManifoldSAE
ManifoldSAE(2, Circle(2), checkpoint=sys.argv[2], checkpoint_every=1, tol=1e-9, n_jobs=1).fit(np.load(sys.argv[1]))
"""


@pytest.mark.parametrize("n_kills", [2, pytest.param(20, marks=slow)])
def test_a_killed_process_loses_nothing(n_kills: int, tmp_path: Path) -> None:
    rows, path, data = two_circles(n=120, seed=4)[0], tmp_path / "fit.checkpoint", tmp_path / "X.npy"
    np.save(data, rows)
    settings = {"n_atoms": 2, "atom": Circle(2), "checkpoint_every": 1, "tol": 1e-9, "n_jobs": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sae_rs.ConvergenceWarning)
        begin = time.monotonic()
        whole = ManifoldSAE(**settings, checkpoint=path).fit(rows)
        seconds = time.monotonic() - begin
        rng = np.random.default_rng(0)
        for _ in range(n_kills):
            path.unlink(missing_ok=True)
            process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", KILLED_FIT, str(data), str(path)])
            while not path.exists() and process.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.uniform(0.0, seconds))
            process.send_signal(signal.SIGKILL)
            process.wait()
            again = ManifoldSAE(**settings).fit(rows, resume=path)
            assert again.evidence_ == pytest.approx(whole.evidence_, rel=1e-8)
            assert_same(again, whole)
