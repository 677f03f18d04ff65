"""Ctrl-C and a callback's wish: a fit ends with its best state so far, or leaves no trace where there is none."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sae_rs
from planted import one_circle, two_circles
from sae_rs import (
    Circle,
    ConvergenceWarning,
    GeometricSchedule,
    ManifoldSAE,
    Softmax,
    checkpoints,
    fit_attributes,
    reml,
    starts,
)
from sae_rs.growth import growing
from sae_rs.problem import Problem

pytestmark = pytest.mark.usefixtures("signal_is_heard")

X, X2 = one_circle()[0], two_circles(n=80)[0]


class Press:
    """A callback that presses Ctrl-C at the first evaluation of which something holds, and hears all before it."""

    def __init__(self, when: Callable[[sae_rs.FitProgress], bool]) -> None:
        self.when = when
        self.heard: list[sae_rs.FitProgress] = []

    def __call__(self, event: sae_rs.FitProgress) -> None:
        self.heard.append(event)
        if self.when(event):
            signal.raise_signal(signal.SIGINT)

    def values(self, stage: str) -> list[float]:
        return [event.value for event in self.heard if event.stage == stage]


def interrupted(model: ManifoldSAE, *data: Any, **more: Any) -> ManifoldSAE:
    """The model after a fit that is interrupted."""
    with pytest.warns(ConvergenceWarning, match="the fit was interrupted; the model holds the best state found"):
        assert model.fit(*data, **more) is model
    assert model.converged_ is False
    assert model.certificate_.status == "interrupted"
    assert np.isfinite(model.evidence_)
    assert "not converged (interrupted)" in model.summary()
    return model


def at(evaluation: int) -> Callable[[sae_rs.FitProgress], bool]:
    return lambda event: event.evaluation == evaluation


@pytest.mark.parametrize("evaluation", [1, 3])
def test_the_best_of_the_starts_is_kept(evaluation: int) -> None:
    press = Press(at(evaluation))
    model = interrupted(ManifoldSAE(1, Circle(1), callback=press), X)
    assert model.evidence_ == min(press.values("start"))
    assert model.certificate_.n_evaluations == evaluation
    assert model.reconstruct().shape == X.shape
    assert len(model.encode(X[:5])) == 5


@pytest.mark.parametrize("outer", ["bfgs", "efs", "efs+bfgs"])
def test_the_best_of_a_search_is_kept(outer: str) -> None:
    press = Press(lambda event: event.stage == "search" and event.evaluation >= 6)
    model = interrupted(ManifoldSAE(1, Circle(1), outer=outer, callback=press), X)
    assert model.evidence_ == min(press.values("search"))
    assert np.isfinite(model.certificate_.gradient_norm) == (outer == "bfgs")


@pytest.mark.parametrize("evaluation", [2, 5, 9])
def test_several_atoms(evaluation: int) -> None:
    model = interrupted(ManifoldSAE(2, Circle(1), callback=Press(at(evaluation))), X2)
    assert model.gates_.shape == (len(X2), 2)
    assert model.evidence_ < ManifoldSAE(0).fit(X2).evidence_


def test_a_callback_keeps_the_best_as_well() -> None:
    values: list[float] = []

    def stop(event: sae_rs.FitProgress) -> bool:
        values.append(event.value)
        return len(values) == 4

    with pytest.warns(ConvergenceWarning, match="did not converge \\(status 'stopped'\\)"):
        model = ManifoldSAE(1, Circle(1), callback=stop).fit(X)
    assert model.evidence_ == min(values)


def test_earlier_temperatures_are_seen_at_the_last() -> None:
    gate = Softmax(temperature=GeometricSchedule(2.0, 0.5, 1.0))
    model = interrupted(ManifoldSAE(2, Circle(1), gate, callback=Press(at(2))), X2)
    # one more evaluation sees the state at the temperature that the fitted gate has
    assert model.certificate_.n_evaluations == 3
    np.testing.assert_allclose(model.gates_.sum(axis=1), 1.0)
    again = model.term_.evaluate(model.rho_, tol=1e-3, max_inner=starts.COARSE_INNER, gradient=False)
    assert again.value == pytest.approx(model.evidence_, rel=1e-3)


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples come into play from 60 rows on."""
    for module in (reml, growing):
        monkeypatch.setattr(module, "SAMPLE_ABOVE", 60)
        monkeypatch.setattr(module, "SAMPLE_ROWS", 50)


@pytest.mark.usefixtures("sampled")
@pytest.mark.parametrize(("n_atoms", "evaluation"), [(2, 5), ("auto", 30)])
def test_the_end_of_a_sample_is_seen_on_all_rows(
    n_atoms: int | str, evaluation: int, caplog: pytest.LogCaptureFixture
) -> None:
    model = interrupted(ManifoldSAE(n_atoms, Circle(1), callback=Press(at(evaluation))), X2)
    assert len(model.decoders_) >= 1
    assert len(model.gates_) == len(X2)
    assert model.evidence_ < ManifoldSAE(0).fit(X2).evidence_
    # what takes long after Ctrl-C is announced, once
    assert [f"all {len(X2)} rows" in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.usefixtures("sampled")
@pytest.mark.parametrize("n_atoms", [2, "auto"])
def test_the_way_from_a_sample_to_all_rows(n_atoms: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded, calls = Problem.encoded, []

    def once(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return encoded(*arguments)

    monkeypatch.setattr(Problem, "encoded", once)
    model = interrupted(ManifoldSAE(n_atoms, Circle(1), max_atoms=2), X2)
    assert len(calls) == 2
    assert len(model.decoders_) == 2
    assert model.explained_variance_ > 0.9


@pytest.mark.usefixtures("sampled")
@pytest.mark.parametrize(("n_atoms", "evaluation"), [(2, 5), ("auto", 30)])
def test_a_second_one_is_raised(n_atoms: int | str, evaluation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    press = Press(at(evaluation))

    def again(*arguments: Any) -> None:
        assert press.heard[-1].evaluation == evaluation
        raise KeyboardInterrupt

    monkeypatch.setattr(Problem, "encoded", again)
    model = ManifoldSAE(n_atoms, Circle(1), callback=press)
    before = dict(vars(model))
    with pytest.raises(KeyboardInterrupt):
        model.fit(X2)
    assert vars(model) == before


@pytest.mark.parametrize("n_atoms", [0, 1, "auto"])
def test_the_state_outlives_one_after_the_search(n_atoms: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ManifoldSAE(n_atoms, Circle(1), max_atoms=1).fit(X)
    summarise = fit_attributes.summarise_training
    presses = [1, 1]

    def pressed(*arguments: Any, **more: Any) -> Any:
        if presses:
            presses.pop()
            raise KeyboardInterrupt
        return summarise(*arguments, **more)

    monkeypatch.setattr(fit_attributes, "summarise_training", pressed)
    model = ManifoldSAE(n_atoms, Circle(1), max_atoms=1)
    before = dict(vars(model))
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert vars(model) == before
    presses.append(1)
    interrupted(model, X)
    assert model.evidence_ == whole.evidence_
    np.testing.assert_array_equal(model.gates_, whole.gates_)


def test_one_in_the_search_and_one_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*arguments: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(fit_attributes, "summarise_training", pressed)
    model = ManifoldSAE(1, Circle(1), callback=Press(at(3)))
    before = dict(vars(model))
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert vars(model) == before


def test_rows_that_weigh_nothing_are_encoded() -> None:
    weights = np.ones(len(X))
    weights[::7] = 0.0
    model = interrupted(ManifoldSAE(1, Circle(1), callback=Press(at(3))), X, weights)
    assert len(model.coords_[0]) == len(X)


@pytest.mark.parametrize("n_atoms", [1, "auto"])
def test_before_there_is_a_state_no_trace_is_left(n_atoms: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    model = ManifoldSAE(n_atoms, Circle(1), max_atoms=1).fit(X)
    before = dict(vars(model))
    monkeypatch.setattr(Problem, "seeds", pressed)
    # a dictionary that grows has the mean-only model from the beginning
    monkeypatch.setattr(growing, "mean_only", pressed)
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert vars(model) == before


def test_a_growing_dictionary_has_the_mean_from_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Problem, "seeds", pressed)
    model = interrupted(ManifoldSAE("auto", Circle(1)), X)
    assert model.decoders_ == []
    assert model.evidence_ == ManifoldSAE(0).fit(X).evidence_


@pytest.mark.parametrize("evaluation", [1, 2, 3])
def test_a_growing_dictionary_keeps_the_start_of_a_move(evaluation: int) -> None:
    press = Press(at(evaluation))
    model = interrupted(ManifoldSAE("auto", Circle(1), callback=press), X)
    assert len(model.decoders_) == 1
    assert model.evidence_ == min(press.values("start"))
    assert [step.action for step in model.growth_ if step.kept] == ["start", "birth"]


def test_a_growing_dictionary_keeps_the_best_on_its_path() -> None:
    model = interrupted(ManifoldSAE("auto", Circle(1), callback=Press(at(40))), X2)
    last = [step for step in model.growth_ if step.kept][-1]
    assert len(model.decoders_) == last.n_atoms >= 1
    assert model.evidence_ == last.evidence


@pytest.mark.parametrize("stage", ["start", "search"])
def test_the_checkpoint_leads_to_the_end_that_the_fit_would_have_had(stage: str, tmp_path: Path) -> None:
    path = tmp_path / "fit.checkpoint"
    options: dict[str, Any] = {"n_init": 2, "checkpoint_every": 1}
    whole = ManifoldSAE(2, Circle(1), checkpoint=path, **options).fit(X2)
    path.unlink()

    def when(event: sae_rs.FitProgress) -> bool:
        return event.stage == stage and (stage == "start" or checkpoints.read(path).stage == "whole")

    interrupted(ManifoldSAE(2, Circle(1), checkpoint=path, callback=Press(when), **options), X2)
    saved = checkpoints.read(path)
    assert saved.stage == ("start" if stage == "start" else "whole")
    assert (saved.logits is None) == (stage == "start")
    again = ManifoldSAE(2, Circle(1), **options).fit(X2, resume=path)
    assert again.evidence_ == whole.evidence_
    np.testing.assert_array_equal(again.gates_, whole.gates_)


def test_a_fit_that_goes_on_may_be_interrupted_as_well(tmp_path: Path) -> None:
    path = tmp_path / "fit.checkpoint"
    ManifoldSAE(2, Circle(1), checkpoint=path).fit(X2)
    model = ManifoldSAE(2, Circle(1), callback=Press(lambda event: True))
    interrupted(model, X2, resume=path)
    assert model.explained_variance_ > 0.9
