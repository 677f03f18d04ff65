"""Fellner-Schall steps: what they are made of, where they end, and that they get there."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from planted import NOISE, fitted_one, fitted_two, one_circle, two_circles
from sae_rs import Circle, ManifoldSAE, SaeManifoldRho, SaeManifoldTerm, Softmax, ThresholdGate, bfgs, efs, reml, starts
from sae_rs.boxes import Box
from sae_rs.problem import Problem
from sae_rs.search import Point, Search
from small_terms import planted_term, strengths

Array = NDArray[np.float64]

MODES = ("laplace", "quasi_laplace")


def roughness(harmonics: int) -> Array:
    orders = np.repeat(np.arange(1, harmonics + 1), 2)
    return np.diag(np.concatenate([[0.0], orders**4 / 2]))


class TestTraces:
    def test_edf_and_variances_are_those_of_the_inverse(self) -> None:
        """In the classic mode X is the inverse of H itself."""
        term = planted_term((2,), n=14, evidence="quasi_laplace")
        rho = strengths(1, log_ard=[[0.7]])
        found = term.evaluate(rho, tol=1e-12)
        inverse = np.linalg.inv(found.term.assemble_arrow_schur(rho).dense())
        rough = rho.lambda_smooth_for(0) / rho.dispersion() * np.kron(roughness(2), np.eye(6))
        assert found.edf[0] == pytest.approx(np.sum(inverse[14:, 14:] * rough), rel=1e-10)
        shares = np.maximum(np.cos(found.term.coords[0][:, 0]), 0.0)
        assert found.axis_variances[0] == pytest.approx(np.diag(inverse)[:14] @ shares, rel=1e-10)
        decoder = found.term.decoders[0]
        assert found.roughness[0] == pytest.approx(np.trace(decoder.T @ roughness(2) @ decoder), rel=1e-12)
        matrix = np.array(found.term.assemble_arrow_schur(rho).dense())
        at = np.arange(14)
        matrix[at, at] -= np.exp(0.7) * shares + 1e-8
        matrix[14:, 14:] -= rough
        assert found.data_edf == pytest.approx(np.sum(inverse * matrix), rel=1e-8)

    @pytest.mark.parametrize("evidence", MODES)
    def test_explicit_gradient_is_that_at_fixed_variables(self, evidence: str) -> None:
        term, step = planted_term((1, 2), n=14, p=7, evidence=evidence), 1e-4
        rho = strengths(2, log_ard=[[], [0.7]])
        here, flat = term.evaluate(rho, max_inner=0, gradient=False, traces=True), np.array(rho.to_flat())
        assert len(here.gradient) == 0

        def value(at: Array) -> float:
            return float(term.evaluate(rho.from_flat(at), max_inner=0, gradient=False).value)

        for j in range(len(flat)):
            move = np.zeros(len(flat))
            move[j] = step
            narrow, wide = value(flat + move) - value(flat - move), value(flat + 2 * move) - value(flat - 2 * move)
            slope = (8 * narrow - wide) / (12 * step)
            assert here.explicit_gradient[j] == pytest.approx(slope, rel=1e-7, abs=1e-6)

    @pytest.mark.parametrize("evidence", MODES)
    def test_the_formula_of_the_strengths(self, evidence: str) -> None:
        term, rho = planted_term((1, 2), n=14, p=7, evidence=evidence), strengths(2)
        found = term.evaluate(rho, traces=True, gradient=False)
        proposed, dispersion = np.asarray(found.fellner_schall), rho.dispersion()
        if evidence == "laplace":
            dispersion = found.residual / (14 * 7 - found.data_edf)
            assert proposed[3] == pytest.approx(np.log(dispersion))
        else:
            assert proposed[3] == rho.to_flat()[3]
            assert proposed[0] == rho.to_flat()[0]
        expected = np.log(dispersion * (7 * np.array([2, 4]) - found.edf) / found.roughness)
        np.testing.assert_allclose(proposed[1:3], expected, rtol=1e-12)

    def test_without_traces_there_are_none(self) -> None:
        found = planted_term().evaluate(strengths(), gradient=False)
        assert found.data_edf is None
        for name in ("edf", "axis_variances", "explicit_gradient", "fellner_schall", "roughness"):
            assert len(getattr(found, name)) == 0


def iterated(term: SaeManifoldTerm, rho: SaeManifoldRho, steps: int = 200) -> tuple[Any, SaeManifoldRho]:
    """The fixed point by plain iteration."""
    for _ in range(steps):
        found = term.evaluate(rho, tol=1e-12, gradient=False, traces=True)
        term, flat = found.term, np.array(rho.to_flat())
        proposed = np.asarray(found.fellner_schall)
        if np.max(np.abs(proposed - flat)) < 1e-10:
            return found, rho
        rho = rho.from_flat(proposed)
    raise AssertionError("the steps do not settle")


class TestFixedPoint:
    """Where the steps end, V is stationary but for the motion of the inner optimum."""

    @pytest.mark.parametrize("evidence", MODES)
    @pytest.mark.parametrize("log_ard", [[[]], [[0.3]]])
    def test_one_circle(self, evidence: str, log_ard: list[list[float]]) -> None:
        rng = np.random.default_rng(2)
        angle = rng.vonmises(0.0, 2.0, 60)
        plane = np.linalg.qr(rng.standard_normal((8, 4)))[0].T
        columns = [np.cos(angle), np.sin(angle), 0.4 * np.cos(2 * angle), 0.4 * np.sin(2 * angle)]
        X = np.stack(columns, axis=1) @ plane + 0.1 * rng.standard_normal((60, 8))
        rho = SaeManifoldRho(0.0, [-3.0], log_ard, log_dispersion=-4.6)
        model = ManifoldSAE(n_atoms=1, atom=Circle(2), evidence=evidence, rho=rho).fit(X)
        found, end = iterated(model.term_, model.rho_)
        assert np.max(np.abs(found.explicit_gradient)) < 1e-6
        assert len(found.explicit_gradient) == len(end.to_flat())

    def test_two_circles(self) -> None:
        """Rows that use both circles more and less, so that the sparsity strength has something to balance."""
        n, share = 80, np.tile([0.2, 0.02, 0.98, 0.04, 0.9, 0.03, 0.97, 0.99], 10)
        term = planted_term((1, 1), n=n, p=10, share=share, noise=0.05, seed=3)
        found, end = iterated(term, strengths(2, sparse=1.0, noise=0.05))
        scale = np.array([0.1 * n, 10.0, 10.0, 0.5 * n * 10])
        assert np.max(np.abs(found.explicit_gradient) / scale) < 1e-6
        assert -5.0 < end.log_lambda_sparse < 5.0

    def test_shared_precisions(self) -> None:
        angles = np.random.default_rng(4).vonmises(0.0, 3.0, (40, 2))
        share = np.resize([0.2, 0.02, 0.98, 0.04, 0.9, 0.03, 0.97, 0.99], 40)
        term = planted_term((1, 1), n=40, p=10, share=share, noise=0.05, angles=angles, seed=4)
        rho = strengths(2, sparse=1.0, noise=0.05, log_ard=[[0.2], [0.2]], ard_sharing="shared")
        found, end = iterated(term, rho)
        assert len(found.axis_variances) == 1
        assert len(end.to_flat()) == 5
        # the sparsity strength of so few mixed rows ends at the least that a step proposes
        assert np.max(np.abs(found.explicit_gradient[1:])) < 1e-5


class TestFit:
    @pytest.mark.parametrize("outer", ["efs", "efs+bfgs"])
    @pytest.mark.parametrize("n_atoms", [1, 2])
    def test_ends_where_bfgs_does(self, outer: str, n_atoms: int) -> None:
        X = (one_circle if n_atoms == 1 else two_circles)()[0]
        reference = (fitted_one if n_atoms == 1 else fitted_two)()
        model = ManifoldSAE(n_atoms=n_atoms, atom=Circle(1), outer=outer).fit(X)
        assert model.converged_
        # the steps alone leave out how the inner optimum moves, which costs a fraction of a nat here
        room = 1e-3 if outer == "efs+bfgs" else 0.1
        assert model.evidence_ == pytest.approx(reference.evidence_, abs=room)
        assert model.certificate_.gradient_norm < np.inf

    def test_steps_alone_end_at_their_fixed_point(self) -> None:
        model = ManifoldSAE(n_atoms=1, atom=Circle(1), outer="efs", tol=1e-10).fit(one_circle()[0])
        found = model.term_.evaluate(model.rho_)
        scale = np.array([1.0, 0.5 * 6 * 2, 0.5 * 60 * 6])
        assert np.sqrt(np.sum(np.square(found.explicit_gradient) / scale)) < 1e-4
        assert np.abs(found.gradient[1]) > 1e-3

    @pytest.mark.parametrize("offset", [-8.0, 8.0])
    def test_a_distant_start_takes_fewer_evaluations(self, offset: float) -> None:
        X, _ = one_circle(120, 12)
        counts = {}
        for outer in ("bfgs", "efs+bfgs"):
            start = SaeManifoldRho(0.0, [-3.0 + offset], log_dispersion=2.0 * np.log(NOISE) + 0.4 * abs(offset))
            model = ManifoldSAE(n_atoms=1, atom=Circle(1), outer=outer, rho=start).fit(X)
            assert model.converged_
            counts[outer] = model.certificate_.n_evaluations
        assert counts["efs+bfgs"] < counts["bfgs"]

    def test_limits_and_listeners(self) -> None:
        X, _ = one_circle()
        with pytest.warns(UserWarning, match="did not converge"):
            model = ManifoldSAE(n_atoms=1, atom=Circle(3), outer="efs", max_outer=1, tol=1e-12).fit(X)
        assert model.certificate_.status == "iteration_limit"
        with pytest.warns(UserWarning, match="stopped"):
            ManifoldSAE(
                n_atoms=1, atom=Circle(3), outer="efs", tol=1e-12, callback=lambda event: event.evaluation > 5
            ).fit(X)


def search_of(outer: str) -> Search:
    """A search over the strengths of one circle."""
    problem = Problem(one_circle()[0], (Circle(1),), Softmax(), None, True)
    return Search(problem, outer=outer, max_outer=20, max_inner=100, tol=1e-6, threads=1, progress=None)


class TestLengthened:
    """Two steps in a row tell how far the fixed point is."""

    @pytest.mark.parametrize(("factor", "share"), [(0.65, 1.0), (-0.4, 1.0), (0.0, 1.0), (0.9, 4.0 * 0.1)])
    def test_steps_of_one_factor_lead_to_their_fixed_point(self, factor: float, share: float) -> None:
        search, rho = search_of("efs"), fitted_one().rho_
        fixed, offset = np.asarray(rho.to_flat()), np.array([0.0, 2.0, 0.3])
        there = fixed + offset + (factor - 1.0) * offset
        here: Any = SimpleNamespace(flat=there, rho=rho)
        step = (factor - 1.0) * (there - fixed)
        longer = efs.lengthened(search, here, step, fixed + offset, (factor - 1.0) * offset)
        np.testing.assert_allclose(longer, share * (fixed - there), atol=1e-12)

    def test_it_stays_within_bounds(self) -> None:
        search, rho = search_of("efs"), fitted_one().rho_
        fixed, offset = np.array([0.0, 40.0, 0.0]), np.array([0.0, -30.0, 0.0])
        here: Any = SimpleNamespace(flat=fixed + 0.5 * offset, rho=rho)
        longer = efs.lengthened(search, here, -0.25 * offset, fixed + offset, -0.5 * offset)
        # no more than five at a time, and no strength above the thirtieth power of e
        assert longer[1] == 5.0
        here.flat[1] = 28.0
        assert efs.within(search, here, longer)[1] == 2.0

    def test_it_saves_steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Rows that mix four circles in six columns: steps shrink slowly."""
        rng = np.random.default_rng(5)
        angle, on = rng.uniform(0.0, 2.0 * np.pi, (400, 4)), rng.random((400, 4)) < 0.5
        planes = rng.standard_normal((4, 2, 6)) / np.sqrt(6)
        points = np.stack([np.cos(angle), np.sin(angle)], axis=2) * on[:, :, None]
        X = np.einsum("nka,kap->np", points, planes) + 0.1 * rng.standard_normal((400, 6))
        model = ManifoldSAE(4, Circle(1), gate=ThresholdGate(), outer="efs", max_outer=1, n_init=1)
        with pytest.warns(UserWarning, match="did not converge"):
            model.fit(X)
        problem = Problem(X - model.mean_, (Circle(1),) * 4, ThresholdGate(), None, True)
        counts, ends = [], []
        for rule in (efs.lengthened, lambda fit, point, step, *last: step):
            monkeypatch.setattr(efs, "lengthened", rule)
            search = Search(problem, outer="efs", max_outer=50, max_inner=100, tol=1e-6, threads=1, progress=None)
            start = search.traced(model.term_, model.rho_, 1e-3)
            end, status = efs.descend(search, start, 50, 1e-3, least_gain=-np.inf)
            assert status == "converged"
            counts.append(search.n_iterations)
            ends.append(end.flat)
        assert counts[0] < counts[1]
        np.testing.assert_allclose(ends[0], ends[1], atol=1e-3)

    @pytest.mark.parametrize("least_gain", [0.0, 0.5])
    def test_one_that_leads_up_is_taken_back(self, monkeypatch: pytest.MonkeyPatch, least_gain: float) -> None:
        """The second step, three times as long, ends five nats higher; one of its own length lowers V by a nat."""
        search, rho = search_of("efs"), fitted_one().rho_
        unit = np.array([0.0, 1.0, 0.0]) / np.sqrt(search.curvature(rho)[1])
        ends, lengths = iter([_away(rho, 2 * unit, -10.0), _away(rho, unit, -5.0), _away(rho, 0 * unit, -11.0)]), []

        def moved(fit: Search, here: Point, step: Array) -> Any:
            lengths.append(round(efs.length(fit, here, step)))
            return next(ends)

        monkeypatch.setattr(efs, "_moved", moved)
        monkeypatch.setattr(efs, "lengthened", lambda fit, point, step, *last: 3 * step)
        end, status = efs.descend(search, _away(rho, 4 * unit), 10, 0.5, least_gain=least_gain)
        assert status == "converged"
        assert end.evaluation.value == -11.0
        assert lengths == [4, 6, 2]

    def test_none_follows_a_step_that_led_astray(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Lengths 4, 2, 3, 1: the third step is longer than the second, and the fourth is measured by it."""
        search, rho = search_of("efs"), fitted_one().rho_
        lengths, asked = iter([4.0, 2.0, 3.0, 1.0, 0.0]), []
        unit = np.array([0.0, 1.0, 0.0]) / np.sqrt(search.curvature(rho)[1])

        def moved(fit: Search, here: Point, step: Array) -> Any:
            return _away(rho, next(lengths) * unit)

        def lengthened(fit: Search, point: Point, step: Array, *last: Array) -> Array:
            asked.append((round(efs.length(fit, point, step)), round(efs.length(fit, point, last[1]))))
            return step

        monkeypatch.setattr(efs, "_moved", moved)
        monkeypatch.setattr(efs, "lengthened", lengthened)
        efs.descend(search, _away(rho, next(lengths) * unit), 10, 0.5, least_gain=-np.inf)
        assert asked == [(2, 4), (1, 3)]


def _away(rho: SaeManifoldRho, step: Array, value: float = 0.0) -> Any:
    """A point whose V and next step are given."""
    flat = np.asarray(rho.to_flat())
    found = SimpleNamespace(value=value, fellner_schall=flat + step, gradient=np.zeros(0))
    return SimpleNamespace(flat=flat, rho=rho, evaluation=found)


class TestWhereStepsComeFirst:
    @pytest.mark.parametrize(("outer", "exact", "estimated"), [("auto", 0, 1), ("bfgs", 0, 0), ("efs+bfgs", 1, 1)])
    def test_it_is_up_to_the_determinant(self, outer: str, exact: bool, estimated: bool) -> None:
        search, (term, rho) = search_of(outer), (fitted_one().term_, fitted_one().rho_)
        assert search.steps_first == exact
        assert len(search.begun(term, rho).evaluation.gradient) == (0 if exact else 3)
        # what the core says of an estimated determinant
        search.resolution = 1e-3
        assert search.steps_first == estimated
        begun = search.begun(term, rho)
        assert len(begun.evaluation.gradient) == (0 if estimated else 3)
        assert begun.is_led_on

    def test_a_start_near_the_optimum_takes_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        taken = []

        def descend(
            fit: Search, start: Point, max_steps: int, enough: float, *, least_gain: float
        ) -> tuple[Point, str]:
            taken.append(max_steps)
            return start, "converged"

        monkeypatch.setattr("sae_rs.efs.descend", descend)
        rho = fitted_one().rho_
        search = search_of("efs+bfgs")
        near = search.fine(fitted_one().term_, rho)
        assert search.search(near, 5)[1] == "converged"
        assert not taken
        far = search.fine(fitted_one().term_, rho.from_flat(rho.to_flat() + np.array([0.0, 6.0, 2.0])))
        assert search.scaled_norm(far) > 10.0
        search.search(far, 5)
        assert len(taken) == 1
        # nor does a start far away once a gradient has been followed: steps lead to another place
        assert len(search.begun(fitted_one().term_, rho).evaluation.gradient) == 0
        search.gradient_followed = 1
        search.search(far, 5)
        assert len(taken) == 1
        assert len(search.begun(fitted_one().term_, rho).evaluation.gradient) == 3

    @pytest.mark.parametrize("outer", ["efs", "efs+bfgs"])
    def test_an_end_that_only_a_loose_state_has_is_kept(self, outer: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Steps look at loosely converged states; where the fine one has no V, theirs is the end."""
        search, (term, rho) = search_of(outer), (fitted_one().term_, fitted_one().rho_)
        far = rho.from_flat(rho.to_flat() + np.array([0.0, 6.0, 2.0]))
        start = search.traced(term, far, 1.0)
        nowhere = SimpleNamespace(value=np.inf, gradient=[], fellner_schall=[])
        monkeypatch.setattr(Search, "fine", lambda *_: Point(rho, nowhere))
        end, status = search.search(start, 3)
        assert status == "infeasible"
        assert np.isfinite(end.evaluation.value)

    @pytest.mark.parametrize(("outer", "followed"), [("efs", 0), ("efs+bfgs", 1), ("bfgs", 1)])
    def test_what_follows_a_whole_search_is_known(self, outer: str, followed: int) -> None:
        """A glance at a seed is no such search: others, and the search itself, begin as it did."""
        search = search_of(outer)
        start = search.coarse(fitted_one().term_, fitted_one().rho_, 5)
        point = starts.glance(search, start, 2)
        assert search.gradient_followed == 0
        reml.refine(search, point)
        assert search.gradient_followed == followed

    def test_steps_before_another_method_end_where_they_lead_up(self) -> None:
        """From the least V the way to the fixed point is uphill."""
        search = search_of("efs")
        least = search.fine(fitted_one().term_, fitted_one().rho_)
        assert efs.descend(search, least, 3, 0.0, least_gain=0.0) == (least, "converged")
        assert efs.descend(search, least, 3, 0.0, least_gain=1.0) == (least, "converged")
        end, _ = efs.descend(search, least, 3, 0.0, least_gain=-np.inf)
        assert end.evaluation.value > least.evaluation.value

    def test_they_end_with_the_first_that_brings_little(self) -> None:
        search, rho = search_of("efs"), fitted_one().rho_
        far = search.fine(fitted_one().term_, rho.from_flat(rho.to_flat() + np.array([0.0, 6.0, 2.0])))
        ends, values = [], []
        for least_gain in (-np.inf, 1.0, 1e9):
            before = search.n_iterations
            end, _ = efs.descend(search, far, 12, 1e-3, least_gain=least_gain)
            ends.append(search.n_iterations - before)
            values.append(float(end.evaluation.value))
        # the last step is taken: it has been paid for
        assert ends[2] == 1
        assert values[2] < far.evaluation.value
        assert 1 < ends[1] < ends[0]
        assert values[1] - values[0] < 2.0

    def test_an_estimate_is_converged_as_far_as_it_can_tell(self) -> None:
        """With what counts as told put up by hand, evaluations are looser and the search ends sooner."""
        rho = fitted_one().rho_
        start = rho.from_flat(rho.to_flat() + np.array([0.0, 0.5, 0.1]))
        counts, tolerances = [], []
        for resolution in (0.0, 0.5):
            search = search_of("bfgs")
            search._counted = lambda stage, point, own=search: _with(own, point)  # type: ignore[method-assign]
            search.resolution = resolution
            end, status = search.search(search.fine(fitted_one().term_, start), 20)
            assert status == "converged"
            assert search.scaled_norm(end) <= search.gradient_bound
            counts.append(search.n_evaluations)
            tolerances.append(search.inner_tolerance)
        assert counts[1] < counts[0]
        assert tolerances == [1e-11, pytest.approx(0.1 * 0.5 / 360)]

    @pytest.mark.parametrize(
        ("norm", "gain", "enough"),
        [
            # half the square of the gradient is 0.02, 0.98 and 1.28 nats, the standard error one
            (0.2, np.inf, True),
            (1.4, 0.09, True),
            (1.4, 0.11, False),
            (1.6, 0.09, False),
        ],
    )
    def test_little_gained_and_little_promisedis_enough(
        self, monkeypatch: pytest.MonkeyPatch, norm: float, gain: float, enough: bool
    ) -> None:
        search, here = search_of("auto"), _away(fitted_one().rho_, np.zeros(3))
        monkeypatch.setattr(search, "scaled_norm", lambda point: norm)
        search.resolution = 0.1
        assert search.is_enough(here, gain) == enough
        search.resolution = 0.0
        assert not search.is_enough(here, gain)

    @pytest.mark.parametrize(("norm", "follows", "begun"), [(1.4, 0, True), (1.4, 1, False), (1.6, 1, True)])
    def test_what_follows_a_search_is_not_begun_for_little(
        self, monkeypatch: pytest.MonkeyPatch, norm: float, follows: int, begun: bool
    ) -> None:
        search = search_of("bfgs")
        start = search.fine(fitted_one().term_, fitted_one().rho_)
        monkeypatch.setattr(search, "scaled_norm", lambda point: norm)
        monkeypatch.setattr("sae_rs.bfgs.descend", lambda *args: (start, "begun"))
        search.resolution, search.supports_settled, search.gradient_followed = 0.1, 1, follows
        assert search.search(start, 5) == (start, "begun" if begun else "converged")
        search.resolution = 0.0
        assert search.search(start, 5) == (start, "begun")

    def test_rows_move_between_runs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is found with other supports takes the place of what was best, even where it is higher."""
        search = search_of("bfgs")
        before, after = _away(fitted_one().rho_, np.zeros(3)), search.fine(fitted_one().term_, fitted_one().rho_)
        moved = SimpleNamespace(refreshed=lambda rho, threads: (None, 2))
        still = SimpleNamespace(refreshed=lambda rho, threads: (None, 0))
        monkeypatch.setattr(search, "fine", lambda term, rho: after)
        for term, expected in ((still, before), (moved, after)):
            monkeypatch.setattr(before.evaluation, "term", term, raising=False)
            search.best = before
            assert search._with_supports_that_suit(before) is expected
            assert search.best is expected
        assert search.standing is after

    def test_an_iteration_that_is_enough_ends_the_search(self, monkeypatch: pytest.MonkeyPatch) -> None:
        search, rho, gains = search_of("bfgs"), fitted_one().rho_, []
        start = search.fine(fitted_one().term_, rho.from_flat(rho.to_flat() + np.array([0.0, 0.5, 0.1])))

        def is_enough(point: Point, gain: float = np.inf) -> bool:
            gains.append(gain)
            return gain < np.inf

        monkeypatch.setattr(search, "is_enough", is_enough)
        end, status = search.search(start, 20)
        assert status == "converged"
        assert gains == [np.inf, start.evaluation.value - end.evaluation.value]
        assert search.scaled_norm(end) > search.gradient_bound

    def test_no_gradient_is_looked_at_until_supports_have_settled(self) -> None:
        """With what counts as told put up by hand, as an estimated determinant would."""
        rho = fitted_one().rho_
        far = rho.from_flat(rho.to_flat() + np.array([0.0, 3.0, 1.0]))
        search = search_of("auto")
        search._counted = lambda stage, point: _with(search, point)  # type: ignore[method-assign]
        assert not search.settling
        search.resolution = 0.5
        assert search.settling
        assert search.steps_only
        on_the_way, status = search.search(search.begun(fitted_one().term_, far), 20)
        assert status == "converged"
        assert len(on_the_way.evaluation.gradient) == 0
        # the next step would bring less than what moves
        assert efs.length(search, on_the_way, efs.proposed(search, on_the_way)) <= np.sqrt(2.0 * search.moving)
        # one atom is on every row: the first refresh changes none of them, and the search proper follows
        status = reml.refine(search, search.begun(fitted_one().term_, far))
        assert status == "converged"
        assert (search.supports_settled, search.n_rounds) == (1, 2)
        assert search.best is not None
        assert search.scaled_norm(search.best) <= search.gradient_bound

    def test_supports_move_on_while_refreshes_bring_something(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Refreshes that lower V by 100, 60 and 10 nats, where 50 count."""
        values = iter([-100.0, -160.0, -170.0])
        search = search_of("auto")
        search.resolution = 50.0
        search.support_changes = 1

        def point(value: float) -> Any:
            return SimpleNamespace(evaluation=SimpleNamespace(value=value), rho=None)

        monkeypatch.setattr(search, "begun", lambda term, rho: point(next(values)))
        here = point(0.0)
        for value in (-100.0, -160.0):
            here = reml._moved_on(search, here, None)  # type: ignore[arg-type]
            assert (here.evaluation.value, search.supports_settled) == (value, 0)
            # what an end before the end is left with
            assert search.standing is here
        assert reml._moved_on(search, here, None) is here  # type: ignore[arg-type]
        assert search.supports_settled == 1
        assert not search.settling


class TestReach:
    """How far one run of the minimiser goes where V is estimated: V is a quadratic here, flat in one direction."""

    @pytest.mark.parametrize("resolution", [0.0, 1e-3])
    def test_no_trial_is_far_from_the_start_of_its_run(
        self, monkeypatch: pytest.MonkeyPatch, resolution: float
    ) -> None:
        rho = fitted_one().rho_
        search = search_of("bfgs")
        unit = np.sqrt(search.curvature(rho))
        least, hessian = np.asarray(rho.to_flat()), np.diag([1.0, 1.0, 1e-2])
        trials, starts = [], []

        def fine(term: Any, at: SaeManifoldRho) -> Point:
            away = unit * (np.asarray(at.to_flat()) - least)
            slope = hessian @ away
            value, gradient = 0.5 * float(away @ slope), unit * slope
            trials.append(away)
            return Point(at, _Quadratic(value, gradient))  # type: ignore[arg-type]

        descend = bfgs.descend

        def counted(fit: Search, start: Point, box: Box, limit: int) -> tuple[Point, str]:
            starts.append((len(trials), unit * (start.flat - least)))
            return descend(fit, start, box, limit)

        refreshed: list[Point] = []

        def refresh(point: Point) -> Point:
            refreshed.append(point)
            return point

        search.tried = lambda _accepted, at: fine(None, at)  # type: ignore[method-assign]
        monkeypatch.setattr(bfgs, "descend", counted)
        search._with_supports_that_suit = refresh  # type: ignore[method-assign]
        search.resolution = resolution
        search.supports_settled = 1
        begun = fine(None, rho.from_flat(least + np.array([0.0, 0.01, -30.0]) / unit))
        end, status = search.search(begun, 40)
        assert status == "converged"
        assert search.scaled_norm(end) <= search.gradient_bound
        # between two runs supports are refreshed, where V is estimated
        assert len(refreshed) == (len(starts) - 1 if resolution > 0.0 else 0)
        furthest = []
        for (first, start), (last, _) in zip(starts, [*starts[1:], (len(trials), begun)], strict=True):
            step = float(np.linalg.norm(hessian @ start))
            furthest.append(max(float(np.linalg.norm(trial - start)) / step for trial in trials[first:last]))
        reaches = 8.0 * np.sqrt(2.0) * 2.0 ** np.arange(len(furthest))
        if resolution > 0.0:
            assert (np.array(furthest) <= reaches).all()
            assert 1 < len(furthest) < 8
        else:
            assert furthest[0] > 2.0 * reaches[0]

    def test_a_run_leaves_a_face_that_holds_it_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The minimum lies three boxes away. What is left inside of one is soon as little as V's rounding, at which the
        minimiser's line searches come to nothing.
        """
        rho = fitted_one().rho_
        least = np.asarray(rho.to_flat())

        def searched(part: float) -> tuple[Point, int]:
            search, trials = search_of("bfgs"), []
            unit = np.sqrt(search.curvature(rho))
            hessian = np.diag([200.0, 1.0, 200.0])
            hessian[0, 2] = hessian[2, 0] = 199.0

            def at_trial(_: Any, at: SaeManifoldRho) -> Point:
                away = unit * (np.asarray(at.to_flat()) - least)
                slope = hessian @ away
                trials.append(away)
                rounding = 1e-6 * float(np.sin(1e6 * away.sum()))
                return Point(at, _Quadratic(0.5 * float(away @ slope) + rounding, unit * slope))  # type: ignore[arg-type]

            monkeypatch.setattr(bfgs, "AT_A_FACE", part)
            search.tried = at_trial  # type: ignore[method-assign]
            start = at_trial(None, rho.from_flat(least + np.array([1.0, 8.0, -1.0])))
            end, status = search.search(start, 60)
            assert status == "converged"
            assert search.scaled_norm(end) <= search.gradient_bound
            return end, len(trials)

        (end, few), (same, many) = searched(bfgs.AT_A_FACE), searched(0.0)
        assert 2 * few < many
        np.testing.assert_allclose(end.flat, same.flat, atol=1e-2)


@dataclass
class _Quadratic:
    value: float
    gradient: Array
    standard_error: float = 0.0
    term: Any = None


def _with(search: Search, point: Point) -> Point:
    """Counts an evaluation, and leaves what the search takes for told as it is."""
    search.n_evaluations += 1
    return point


class TestSummary:
    def test_degrees_of_freedom_of_the_smooth_part(self) -> None:
        model = fitted_one()
        found = model.term_.evaluate(model.rho_)
        used = 2 * 6 - found.edf[0]
        head, line = model.summary().splitlines()[-3], model.summary().splitlines()[-1]
        assert "edf" in head.split()
        assert f"{used:.1f}" in line.split()
        assert 0.0 < used < 12.0
