"""Steps near an optimum: the factor that they are preconditioned with is that of the exact Hessian."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sae_rs import (
    Circle,
    ConvergenceWarning,
    Duchon,
    GeometricSchedule,
    Line,
    ManifoldSAE,
    RowMetric,
    ThresholdGate,
    Torus,
    _core,
    starts,
)
from sae_rs.boxes import Box
from sae_rs.gates import Softmax, resolve_gate
from sae_rs.growth.decisions import LOOSE_INNER, loosen
from sae_rs.problem import Problem
from sae_rs.search import INNER_PER_ITERATION, Point, Search, effort_of


def circles(n_atoms: int, n_rows: int, n_outputs: int, *, mixed: float = 0.0) -> Any:
    """Rows on one of some circles each, a part of them on two at once."""
    rng = np.random.default_rng(n_atoms)
    planes = rng.standard_normal((n_atoms, 2, n_outputs)) / np.sqrt(2)
    rows = 0.05 * rng.standard_normal((n_rows, n_outputs))
    for share in (1.0, mixed):
        atom = rng.integers(n_atoms, size=n_rows)
        t = rng.uniform(0, 2 * np.pi, n_rows)
        point = np.stack([np.cos(t), np.sin(t)], axis=1)
        used = rng.uniform(size=n_rows) < share
        rows += used[:, None] * np.einsum("nc,ncp->np", point, planes[atom])
    return rows


def fitted(X: Any, n_atoms: int) -> tuple[Any, Any]:
    """The term of a fit that was cut short, and strengths near its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = ManifoldSAE(n_atoms, "circle", max_outer=1, random_state=0).fit(X)
    flat = np.asarray(model.rho_.to_flat())
    moved = flat + 0.02 * np.cos(np.arange(len(flat)))
    return model.term_, model.rho_.from_flat(moved)


class TestExactSteps:
    def test_one_solve_is_a_newton_step(self) -> None:
        """With all channels in the frame nothing is left out, so conjugate gradients end after one or two."""
        term, rho = fitted(circles(1, 200, 4), 1)
        near = term.evaluate(rho, tol=1e-4, gradient=False).term
        exact = near.evaluate(rho, tol=1e-10)
        assert exact.inner.status == "converged"
        assert exact.inner.cg_iterations <= 2 * exact.inner.iterations
        other = near.evaluate(rho, tol=1e-10, elimination="primal")
        assert other.inner.cg_iterations > 2 * exact.inner.cg_iterations

    @pytest.mark.parametrize(("smoother", "begins_with_step"), [(4.0, True), (8.0, False)])
    def test_rows_near_their_minima_begin_with_a_step(self, smoother: float, begins_with_step: bool) -> None:
        """Many rows together are far above what one is minimised on its own for; far ones still are."""
        term, rho = fitted(circles(1, 2000, 4), 1)
        near = term.evaluate(rho, tol=1e-12, gradient=False).term
        flat = np.asarray(rho.to_flat())
        flat[1] += smoother
        here, first = (near.evaluate(rho.from_flat(flat), tol=1e-12, max_inner=n, gradient=False).inner for n in (0, 1))
        assert here.decrement > 0.5
        assert (here.decrement < 0.1 * np.sqrt(2000)) == begins_with_step
        assert (first.cg_iterations > 0) == begins_with_step

    @pytest.mark.parametrize(("n_atoms", "mixed"), [(1, 0.0), (3, 0.0), (3, 0.3)])
    def test_the_optimum_is_that_of_other_factors(self, n_atoms: int, mixed: float) -> None:
        """From a state near an optimum: from farther away steps of two kinds may end in two of them."""
        term, rho = fitted(circles(n_atoms, 300, 24, mixed=mixed), n_atoms)
        term = term.evaluate(rho, tol=1e-3, gradient=False).term
        exact = term.evaluate(rho, tol=1e-12)
        other = term.evaluate(rho, tol=1e-12, elimination="complement")
        assert exact.inner.status == other.inner.status == "converged"
        assert exact.value == pytest.approx(other.value, rel=1e-10)
        scale = float(np.abs(other.gradient).max())
        np.testing.assert_allclose(exact.gradient, other.gradient, rtol=1e-7, atol=1e-8 * scale)


class TestBentValleys:
    @pytest.mark.parametrize(("gate", "n_atoms"), [("softmax", 1), ("threshold", 2), ("ibp", 2)])
    def test_outliers_do_not_shorten_the_steps_of_all_rows(self, gate: str, n_atoms: int) -> None:
        """Decoders follow the coordinates of a step, and a closely fitted row stays fitted: dozens of steps."""
        X = circles(2, 80, 6)
        X[:4] *= 1e4
        atoms, settings = [Circle(3).spec()] * n_atoms, resolve_gate(gate).spec(n_atoms)
        term, rho = _core.SaeManifoldTerm.seeds(X, atoms, settings, n_init=1, random_state=0)[0]
        found = term.evaluate(rho, tol=1e-9, max_inner=150, gradient=False)
        assert found.inner.status == "converged"

    @pytest.mark.parametrize("with_metric", [False, True])
    def test_amplitude_and_position_are_traded_in_few_steps(self, with_metric: bool) -> None:
        """On a line with almost no noise only the product of gate, coordinate and decoder is seen."""
        rng = np.random.default_rng(2)
        n, p = 60, 4 if with_metric else 3
        X = rng.standard_normal((n, 1)) @ rng.standard_normal((1, p)) + 1e-4 * rng.standard_normal((n, p))
        metric = RowMetric(rng.standard_normal((n, p, p)) / 4 + np.eye(p)) if with_metric else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = ManifoldSAE(1, Line(), gate=ThresholdGate(threshold=-1.0), max_outer=1, random_state=0)
            model.fit(X, metric=metric)
        flat = np.asarray(model.rho_.to_flat())
        flat[1] += 5.0
        flat[-1] -= 2.0
        found = model.term_.evaluate(model.rho_.from_flat(flat), tol=1e-11, max_inner=50, gradient=False)
        assert found.inner.status == "converged"


@pytest.mark.parametrize("seed", [11, 16, 23])
def test_no_step_is_tried_twice(seed: int) -> None:
    """Heavy tails at a dispersion of one: where a step ends without a factor the next is shorter, or there is none."""
    rng = np.random.default_rng(seed)
    n, p = rng.integers(12, 40), rng.integers(1, 7)
    X = rng.standard_t(1.3, (n, p)) * 10.0 ** rng.uniform(0.0, 3.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = ManifoldSAE(1, Duchon(9), evidence="quasi_laplace", max_outer=1, max_inner=60, random_state=0).fit(X)
    flat = np.asarray(model.rho_.to_flat())
    for shift in (-4.0, 0.0, 4.0):
        flat[1] += shift
        rho = model.rho_.from_flat(flat)
        flat[1] -= shift
        shorter, longer = (model.term_.evaluate(rho, tol=1e-11, max_inner=m, gradient=False).inner for m in (50, 60))
        assert longer.status != "iteration_limit" or longer.decrement != shorter.decrement


@pytest.mark.parametrize("tie", ["metric", "frames"])
def test_steps_do_without_a_large_schur_complement_where_channels_are_tied(tie: str) -> None:
    """With more than 1024 border variables solves end at the same optimum from wherever they begin near it, in the only
    elimination that there is, whichever is asked for.
    """
    rng = np.random.default_rng(3)
    n, p, atoms = 90, 24, 2
    X = circles(2 * atoms, n, p, mixed=0.8)
    metric = RowMetric(np.eye(p) + 0.15 * rng.standard_normal((n, p, p))) if tie == "metric" else None
    rank = 21 if tie == "frames" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = ManifoldSAE(atoms, Torus(2), gate=ThresholdGate(), decoder_rank=rank, max_outer=1, random_state=0).fit(
            X, metric=metric
        )
    flat = np.asarray(model.rho_.to_flat())
    rho, other = (model.rho_.from_flat(flat + size * np.cos(np.arange(len(flat)))) for size in (0.0, 0.02))
    first = model.term_.evaluate(rho, tol=1e-11)
    assert sum(width * (rank or p) for width in (25,) * atoms) > 1024
    moved = first.term.evaluate(other, tol=1e-11, gradient=False)
    again = moved.term.evaluate(rho, tol=1e-11)
    for end in (first, again, moved.term.evaluate(rho, tol=1e-11, elimination="dual")):
        assert end.elimination == ("primal" if tie == "metric" else "complement")
        assert end.inner.status == "converged"
        assert end.inner.iterations < 60
        assert end.value == pytest.approx(first.value, rel=1e-10)
        assert_allclose(end.gradient, first.gradient, rtol=1e-5, atol=1e-5)


def test_a_search_of_cut_off_inner_solves_is_not_repeated() -> None:
    """After one inner iteration V is no function of the strengths: a line search fails, and would again."""
    model = ManifoldSAE(2, Circle(2), max_inner=1, n_init=1, random_state=0)
    with pytest.warns(ConvergenceWarning, match="'inner_iteration_limit'"):
        model.fit(circles(2, 120, 5, mixed=1.0))
    assert model.certificate_.status == "inner_iteration_limit"
    assert model.certificate_.n_rounds == 1
    assert np.isfinite(model.evidence_)


@pytest.mark.parametrize("outer", ["bfgs", "efs"])
def test_a_fit_ends_with_the_inner_iterations_that_its_outer_ones_allow(
    monkeypatch: pytest.MonkeyPatch, outer: str
) -> None:
    """Over however many evaluations; those that compare starts are not counted."""
    X = circles(2, 120, 5, mixed=1.0)

    def fit(max_inner: int, status: str) -> ManifoldSAE:
        with pytest.warns(ConvergenceWarning, match=f"'{status}'"):
            return ManifoldSAE(
                2, Circle(2), outer=outer, max_outer=4, max_inner=max_inner, n_init=1, random_state=0
            ).fit(X)

    monkeypatch.setattr("sae_rs.search.INNER_PER_ITERATION", 3)
    # six evaluations of two iterations each, which come to no optimum
    model = fit(2, "inner_iteration_limit")
    assert np.isfinite(model.evidence_)
    # one that takes more, and is not cut off within itself
    assert fit(200, "iteration_limit").certificate_.n_evaluations < model.certificate_.n_evaluations

    problem = Problem(X, (Circle(2),) * 2, Softmax(), None, True)
    search = Search(problem, outer=outer, max_outer=2, max_inner=2, tol=1e-6, threads=1, progress=None)
    search.coarse(model.term_, model.rho_, 2)
    assert search.n_inner == 0
    point = search.fine(model.term_, model.rho_)
    assert (search.n_inner, search.is_spent) == (2, False)
    search.max_inner = 200
    search.fine(point.evaluation.term, model.rho_)
    assert search.is_spent


class TestTrials:
    """What a trial of the minimiser takes of the inner iterations."""

    @staticmethod
    def begun() -> tuple[Search, Any]:
        X = circles(2, 120, 5, mixed=1.0)
        term, rho = fitted(X, 2)
        problem = Problem(X, (Circle(2),) * 2, Softmax(), None, True)
        search = Search(problem, outer="bfgs", max_outer=10, max_inner=200, tol=1e-6, threads=1, progress=None)
        return search, search.fine(term, search.admitted(rho))

    @staticmethod
    def pieces(monkeypatch: pytest.MonkeyPatch, status: str = "") -> list[int]:
        """Inner iterations that evaluations are asked for from now on; the first then has this status, where any."""
        asked: list[int] = []

        class Term:
            """A term that says what it is asked for."""

            def __init__(self, term: Any) -> None:
                self.term = term

            def evaluate(self, rho: Any, **settings: Any) -> Any:
                asked.append(settings["max_inner"])
                found = self.term.evaluate(rho, **settings)
                inner = SimpleNamespace(
                    status=status if status and len(asked) == 1 else found.inner.status,
                    iterations=found.inner.iterations,
                    cg_iterations=found.inner.cg_iterations,
                    decrement=found.inner.decrement,
                )
                value = np.inf if inner.status == "infeasible" else found.value
                named = {"value": value, "gradient": found.gradient, "standard_error": None, "inner": inner}
                return SimpleNamespace(term=Term(found.term), **named)

        real = Search.tried
        monkeypatch.setattr(
            Search,
            "tried",
            lambda self, at, rho: real(
                self, Point(at.rho, SimpleNamespace(term=Term(at.evaluation.term), value=at.evaluation.value)), rho
            ),
        )
        return asked

    @pytest.mark.parametrize("status", ["", "infeasible"])
    def test_v_in_pieces_is_that_of_one_solve(self, monkeypatch: pytest.MonkeyPatch, status: str) -> None:
        """Also where the state in which the first piece ends has no V."""
        monkeypatch.setattr("sae_rs.search.TRIAL_INNER", 1)
        search, accepted = self.begun()
        rho = accepted.rho.from_flat(accepted.flat - 0.05)
        whole = search.fine(accepted.evaluation.term, rho)
        before = search.n_evaluations, search.n_inner
        asked = self.pieces(monkeypatch, status)
        found = search.tried(accepted, rho)
        assert asked == [1, 199]
        assert found.evaluation.inner.status == "converged"
        assert_allclose(found.evaluation.value, whole.evaluation.value, rtol=0, atol=1e-8)
        assert_allclose(found.evaluation.gradient, whole.evaluation.gradient, rtol=1e-6, atol=1e-6)
        # it is one evaluation, of the iterations of both pieces
        assert search.n_evaluations == before[0] + 1
        assert search.n_inner - before[1] == 1 + found.evaluation.inner.iterations

    def test_nothing_is_added_to_a_spent_budget(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sae_rs.search.TRIAL_INNER", 1)
        search, accepted = self.begun()
        search.most_inner = search.n_inner + 1
        asked = self.pieces(monkeypatch)
        search.tried(accepted, accepted.rho.from_flat(accepted.flat - 0.05))
        assert asked == [1]
        assert search.is_spent

    def test_one_that_is_beaten_wherever_its_solve_ends_is_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sae_rs.search.TRIAL_INNER", 1)
        search, accepted = self.begun()
        # so smooth that there is no circle
        flat = accepted.flat + np.array([0.0, 10.0, 10.0, 0.0])
        rho = accepted.rho.from_flat(flat)
        whole = search.fine(accepted.evaluation.term, rho)
        before = search.n_inner
        found = search.tried(accepted, rho)
        assert found.evaluation.inner.status == "iteration_limit"
        assert search.n_inner - before < whole.evaluation.inner.iterations
        assert len(found.evaluation.gradient) == len(flat)
        # the minimiser would have rejected it as well with all of its iterations
        assert whole.evaluation.value > accepted.evaluation.value
        assert found.evaluation.value > accepted.evaluation.value


def test_conjugate_gradients_count_beyond_those_of_an_inner_iteration() -> None:
    def effort(iterations: int, cg_iterations: int) -> int:
        inner: Any = SimpleNamespace(iterations=iterations, cg_iterations=cg_iterations)
        return effort_of(inner)

    assert [effort(0, 0), effort(5, 0), effort(5, 300), effort(5, 301), effort(5, 360)] == [0, 5, 5, 5, 7]


def test_a_search_for_a_decision_has_a_budget_of_its_own() -> None:
    problem = Problem(circles(2, 120, 5, mixed=1.0), (Circle(2),) * 2, Softmax(), None, True)
    for max_outer, most in [(100, LOOSE_INNER), (10, 10 * INNER_PER_ITERATION)]:
        search = Search(problem, outer="bfgs", max_outer=max_outer, max_inner=9, tol=1e-6, threads=1, progress=None)
        loosen(search)
        assert search.most_inner == most


@pytest.mark.parametrize("status", ["converged", "infeasible"])
def test_supports_are_not_refreshed_on_and_on_where_inner_iterations_are_used_up(
    monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """Where strengths stay, as at V without a gradient, only refreshes and what follows them take inner iterations."""

    def rounds(inner_per_iteration: int) -> int:
        monkeypatch.setattr("sae_rs.search.INNER_PER_ITERATION", inner_per_iteration)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = ManifoldSAE(6, Circle(2), max_inner=1, n_init=1, random_state=0).fit(circles(6, 300, 8, mixed=1.0))
        assert np.isfinite(model.evidence_)
        return model.certificate_.n_rounds

    monkeypatch.setattr(Search, "search", lambda _self, start, *_args: (start, status))
    assert rounds(15) > 1
    assert rounds(0) == 1


def test_a_search_ends_where_a_trial_without_v_is_as_near_as_numbers_are() -> None:
    """The box that keeps it out has no room for any strength to move in; the minimiser would have no status."""
    X = circles(2, 120, 5, mixed=1.0)
    term, rho = fitted(X, 2)
    problem = Problem(X, (Circle(2),) * 2, Softmax(), None, True)
    search = Search(problem, outer="bfgs", max_outer=10, max_inner=200, tol=1e-6, threads=1, progress=None)
    start = search.fine(term, search.admitted(rho))
    assert search.search(start, 10, Box(width=1e-20, used=4)) == (start, "infeasible")
    end, status = search.search(start, 10, Box(width=1e-4, used=4))
    assert end is not start
    assert status != "infeasible"


def test_steps_that_end_with_the_inner_iterations_certify_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """They end where the gradient is to be followed; with nothing left to follow it with, that is no end."""
    X = circles(2, 120, 5, mixed=1.0)
    term, rho = fitted(X, 2)
    problem = Problem(X, (Circle(2),) * 2, Softmax(), None, True)
    search = Search(problem, outer="efs+bfgs", max_outer=10, max_inner=200, tol=1e-6, threads=1, progress=None)
    start = search.fine(term, search.admitted(rho))
    monkeypatch.setattr(search, "scaled_norm", lambda _point: 100.0)
    monkeypatch.setattr("sae_rs.efs.descend", lambda *_args, **_settings: (start, "converged"))
    search.n_inner = 10**6
    end, status = search.search(start, 10)
    assert status == "iteration_limit"
    # the trial that was made meanwhile is kept where it is lower
    assert end.evaluation.value <= start.evaluation.value


def test_what_comes_before_a_search_takes_no_inner_iterations_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts and earlier temperatures take theirs from one budget; once it is spent no more of them is searched."""

    def begun(starts_inner: int) -> tuple[Search, list[int]]:
        monkeypatch.setattr(starts, "STARTS_INNER", starts_inner)
        gate = Softmax(GeometricSchedule(4.0, 0.5, 1.0))
        problem = Problem(circles(2, 120, 5, mixed=1.0), (Circle(2),) * 2, gate.settled, None, True)
        search = Search(problem, outer="bfgs", max_outer=10, max_inner=200, tol=1e-6, threads=1, progress=None)
        used: list[int] = []
        after = Search.after

        def counted(self: Search, earlier: Search) -> Search:
            used.append(earlier.n_inner)
            return after(self, earlier)

        monkeypatch.setattr(Search, "after", counted)
        start = starts.annealed(search, gate, None, 3, 0)
        monkeypatch.setattr(Search, "after", after)
        assert np.isfinite(start.evaluation.value)
        assert (search.n_inner, search.n_iterations) == (0, 0)
        assert search.most_inner == 10 * INNER_PER_ITERATION
        return search, used

    free, used = begun(10_000)
    # one after the other they take from the same
    assert 0 < used[0] < used[1]
    short, used = begun(10)
    assert all(taken >= 10 for taken in used)
    assert used[0] == used[1]
    assert short.n_evaluations < free.n_evaluations
