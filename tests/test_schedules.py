"""Temperatures that fall between searches, and where the concentration of an Indian-buffet gate starts."""

from __future__ import annotations

import itertools
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import gammaln

import sae_rs
from sae_rs import (
    IBP,
    Circle,
    GeometricSchedule,
    LinearSchedule,
    ManifoldSAE,
    ReciprocalSchedule,
    Softmax,
    ThresholdGate,
)
from sae_rs.gates import Gate, Schedule
from sae_rs.gates.ibp import likeliest_concentration, mass_log_likelihood
from sae_rs.problem import Problem

FloatArray = NDArray[np.float64]

N_CIRCLES = 2
NATS = 0.05
"""Two fits to the same optimum: each is within ``tol`` of it in scaled gradient, far less than this."""


@cache
def overlapping() -> FloatArray:
    """Rows on none, one or both of two circles in planes of their own, with amplitudes."""
    rng = np.random.default_rng(0)
    n, p = 400, 16
    amplitude = (rng.random((n, N_CIRCLES)) < 0.4) * rng.uniform(0.8, 1.2, (n, N_CIRCLES))
    angle = rng.uniform(0.0, 2.0 * np.pi, (n, N_CIRCLES))
    planes = np.stack([np.linalg.qr(rng.standard_normal((p, 2)))[0].T for _ in range(N_CIRCLES)])
    circles = amplitude[:, :, None] * np.stack([np.cos(angle), np.sin(angle)], axis=2)
    return np.einsum("nkc,kcp->np", circles, planes) + 0.05 * rng.standard_normal((n, p))


@cache
def clustered() -> FloatArray:
    """Rows on one of two circles."""
    rng = np.random.default_rng(4)
    n, p = 200, 12
    planes = np.linalg.qr(rng.standard_normal((p, 4)))[0].T.reshape(2, 2, p)
    angle = rng.uniform(0.0, 2.0 * np.pi, n)
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    return np.einsum("nc,ncp->np", circle, planes[np.arange(n) % 2]) + 0.05 * rng.standard_normal((n, p))


def fitted(X: FloatArray, gate: Gate, **options: Any) -> ManifoldSAE:
    return ManifoldSAE(N_CIRCLES, Circle(harmonics=1), gate, **options).fit(X)


class TestFormulas:
    def test_geometric(self) -> None:
        schedule = GeometricSchedule(2.0, 0.5, 0.3)
        assert [schedule.at(j) for j in range(5)] == [2.0, 1.0, 0.5, 0.3, 0.3]
        assert list(schedule.temperatures()) == [2.0, 1.0, 0.5, 0.3]

    def test_linear(self) -> None:
        schedule = LinearSchedule(2.0, 4, 1.0)
        assert [schedule.at(j) for j in range(6)] == [2.0, 1.75, 1.5, 1.25, 1.0, 1.0]
        assert list(schedule.temperatures()) == [2.0, 1.75, 1.5, 1.25, 1.0]

    def test_reciprocal(self) -> None:
        schedule = ReciprocalSchedule(3.0, 0.8)
        assert [schedule.at(j) for j in range(5)] == [3.0, 1.5, 1.0, 0.8, 0.8]
        assert list(schedule.temperatures()) == [3.0, 1.5, 1.0, 0.8]

    @pytest.mark.parametrize(
        "schedule", [GeometricSchedule(1.5, 0.9, 1.5), LinearSchedule(1.5, 3, 1.5), ReciprocalSchedule(1.5, 1.5)]
    )
    def test_nowhere_to_fall(self, schedule: Schedule) -> None:
        assert list(schedule.temperatures()) == [1.5]

    def test_the_end_is_met_exactly_and_once(self) -> None:
        for schedule in (GeometricSchedule(2.0, 0.5, 0.25), LinearSchedule(1.0, 7, 0.1), ReciprocalSchedule(3.0, 0.3)):
            rounds = list(schedule.temperatures())
            assert rounds[-1] == schedule.least
            assert all(later < earlier for earlier, later in itertools.pairwise(rounds))

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: GeometricSchedule(0.0, 0.5, 0.0), "start must be a positive finite number, got 0.0"),
            (lambda: GeometricSchedule(1.0, 0.5, 0.0), "least must be a positive finite number, got 0.0"),
            (lambda: GeometricSchedule(1.0, 0.5, 2.0), "least must be at most start, 1.0, got 2.0"),
            (lambda: GeometricSchedule(1.0, 1.0, 0.5), "rate must be a number between 0 and 1, got 1.0"),
            (lambda: GeometricSchedule(1.0, 0.0, 0.5), "rate must be a number between 0 and 1, got 0.0"),
            (lambda: GeometricSchedule(1.0, math.nan, 0.5), "rate must be a number between 0 and 1, got nan"),
            (lambda: LinearSchedule(1.0, 0, 0.5), "steps must be an integer of at least 1, got 0"),
            (lambda: LinearSchedule(1.0, 2.0, 0.5), "steps must be an integer of at least 1, got 2.0"),  # type: ignore[arg-type]
            (lambda: LinearSchedule(math.inf, 2, 0.5), "start must be a positive finite number, got inf"),
            (lambda: ReciprocalSchedule(True, 0.5), "start must be a positive finite number, got True"),
            (lambda: ReciprocalSchedule(1.0, -0.5), "least must be a positive finite number, got -0.5"),
            (lambda: Softmax(temperature="warm"), "Softmax: temperature must be a positive finite number, got 'warm'"),  # type: ignore[arg-type]
            (lambda: IBP(temperature={"kind": "sine"}), "IBP: unknown temperature schedule 'sine'"),  # type: ignore[arg-type]
        ],
    )
    def test_bad_fields_are_named(self, make: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make()


SCHEDULE = LinearSchedule(2.0, 2, 1.0)


class TestRounds:
    @pytest.mark.parametrize("kind", [Softmax, ThresholdGate, IBP])
    def test_gates_are_carried(self, kind: Any) -> None:
        """A term keeps its gates from one temperature to the next."""
        X, atoms = overlapping(), [Circle(harmonics=1)] * N_CIRCLES
        warm, cool = kind(temperature=2.0), kind(temperature=0.7)
        term, _ = Problem(X, atoms, warm, None, True).seeds(1, 0, 1)[0]
        carried = Problem(X, atoms, cool, None, True).carried(term, warm)
        np.testing.assert_allclose(carried.gates, term.gates, rtol=1e-12)
        np.testing.assert_array_equal(carried.support, term.support)
        assert np.abs(carried.logits - term.logits).max() > 0.1

    @pytest.mark.parametrize("threshold", [0.0, -1.3, 5.0])
    def test_an_open_gate_at_its_wall_stays_open(self, threshold: float) -> None:
        wall = np.nextafter(threshold, np.inf)
        logits = np.array([[wall, threshold, threshold - 1.0]])
        moved = ThresholdGate(threshold, 0.1).carried(logits, ThresholdGate(threshold, 1.0))
        np.testing.assert_allclose(moved, [[wall, threshold, threshold - 0.1]], rtol=1e-12)
        assert moved[0, 0] > threshold

    def test_one_temperature_is_one_round(self) -> None:
        gate = Softmax(temperature=1.3)
        assert list(gate.stages()) == [gate]
        assert gate.settled is gate

    def test_rounds_end_at_the_gate_that_is_kept(self) -> None:
        gate = IBP(alpha=2.0, temperature=SCHEDULE)
        assert list(gate.stages()) == [IBP(alpha=2.0, temperature=t) for t in (2.0, 1.5, 1.0)]
        assert gate.settled == IBP(alpha=2.0, temperature=1.0)
        assert gate.spec(2) == gate.settled.spec(2)


class TestCeiling:
    @pytest.mark.parametrize("temperature", [1.5, 2.0, 3.0])
    def test_the_normaliser_is_right_below_it(self, temperature: float) -> None:
        """Against quadrature over the one free logit of two atoms."""
        gate = Softmax(temperature=temperature)

        def energy(logits: FloatArray) -> FloatArray:
            low = np.exp(-np.abs(logits) / temperature)
            return np.log1p(low) + np.abs(logits) / temperature * low / (1.0 + low)

        logits = np.linspace(-60.0, 60.0, 200001)
        weights = np.exp(-0.5 * gate.logit_precision * logits**2)
        strength = float(np.exp(gate.sparsity_ceiling(2)))
        exact = np.sum(weights * np.exp(-strength * energy(logits))) / weights.sum()
        nodes = np.exp(-strength * energy(gate.spec(2)["node_logits"][:, 0])).mean()
        assert np.log(nodes) == pytest.approx(np.log(exact), abs=2e-3)

    def test_cool_gates_and_others_have_none_in_reach(self) -> None:
        assert Softmax(temperature=0.5).sparsity_ceiling(3) == 12.0
        assert Softmax().sparsity_ceiling(2) < 12.0
        assert IBP().sparsity_ceiling(3) == ThresholdGate().sparsity_ceiling(3) == np.inf


class TestFits:
    @pytest.mark.parametrize(("kind", "rows"), [(Softmax, clustered), (ThresholdGate, overlapping), (IBP, overlapping)])
    def test_as_good_as_the_last_temperature_alone(self, kind: Any, rows: Any) -> None:
        alone, annealed = fitted(rows(), kind()), fitted(rows(), kind(temperature=SCHEDULE))
        assert alone.converged_
        assert annealed.converged_
        assert annealed.evidence_ <= alone.evidence_ + NATS
        # V falls without reason where the nodes of a warm softmax run out: no gain from there
        assert annealed.rho_.log_lambda_sparse < 11.0
        assert annealed._gate == kind(temperature=1.0)

    def test_a_single_softmax_atom_has_nothing_to_anneal(self) -> None:
        X = clustered()[::2]
        one, other = (ManifoldSAE(1, Circle(harmonics=1), gate).fit(X) for gate in (Softmax(), Softmax(SCHEDULE)))
        assert one.evidence_ == other.evidence_

    def test_stopped_on_the_way(self) -> None:
        """The best state is judged at the last temperature, whenever the fit is stopped."""
        for last in (1, 20):
            with pytest.warns(sae_rs.ConvergenceWarning, match="stopped"):
                model = fitted(
                    clustered(),
                    Softmax(temperature=LinearSchedule(2.0, 30, 1.0)),
                    callback=lambda event, last=last: event.evaluation >= last,
                )
            assert model._gate == Softmax(temperature=1.0)
            value = model.term_.reml_criterion(model.rho_)
            # the state is loosely converged; at other temperatures V is hundreds of nats away
            assert value == pytest.approx(model.evidence_, abs=1.0)

    def test_files_keep_the_schedule(self, tmp_path: Path) -> None:
        gate = Softmax(temperature=GeometricSchedule(2.0, 0.5, 1.0))
        model = fitted(clustered(), gate)
        model.save(tmp_path / "m.safetensors")
        again = sae_rs.load(tmp_path / "m.safetensors")
        assert again.gate == gate
        assert again._gate == model._gate == Softmax(temperature=1.0)
        assert again.encode(clustered()).gates.tobytes() == model.encode(clustered()).gates.tobytes()


class TestConcentration:
    """The start of a learnable α: empirical Bayes from the masses of a seed's columns."""

    @staticmethod
    def brute_force(mass: FloatArray, n_rows: int, positions: NDArray[np.int_]) -> tuple[float, float]:
        """Maximum over a fine grid of ln α of the formula as it is written, and its place."""
        places = np.linspace(-12.0, 16.0, 280001)
        total = np.zeros(len(places))
        for m, k in zip(mass, positions, strict=True):
            a = 1.0 / np.expm1((k + 1) * np.log1p(np.exp(-places)))
            total += gammaln(m + a) - gammaln(n_rows + a + 1.0) + np.log(a)
        best = int(np.argmax(total))
        return float(total[best]), float(places[best])

    @pytest.mark.parametrize(
        ("mass", "positions"),
        [
            ([20.0, 5.0], [0, 1]),
            ([99.5, 80.0, 60.0, 31.0], [0, 1, 2, 3]),
            ([3.3], [4]),
            ([0.2, 0.01, 97.0], [0, 2, 5]),
            ([50.0] * 12, list(range(12))),
        ],
    )
    def test_against_a_grid(self, mass: list[float], positions: list[int]) -> None:
        masses, at = np.array(mass), np.array(positions)
        value, place = self.brute_force(masses, 100, at)
        found = likeliest_concentration(masses, 100, at)
        assert found == pytest.approx(place, abs=2e-4)
        assert mass_log_likelihood(found, masses, 100, at) >= value - 1e-7

    def test_columns_that_are_empty_or_full(self) -> None:
        """The likelihood then falls or rises all the way."""
        assert likeliest_concentration(np.zeros(3), 50, np.arange(3)) == pytest.approx(-12.0, abs=1e-3)
        assert likeliest_concentration(np.full(3, 50.0), 50, np.arange(3)) > 10.0
        assert np.isfinite(mass_log_likelihood(-12.0, np.zeros(1), 50, np.array([500])))

    def test_where_a_seed_starts(self) -> None:
        rng = np.random.default_rng(5)
        logits, support = 3.0 * rng.standard_normal((60, 4)), rng.random((60, 4)) < 0.5
        mass = np.where(support, 1.0 / (1.0 + np.exp(-logits / 0.8)), 0.0).sum(axis=0)
        for gate in (IBP(alpha=1.0, temperature=0.8), IBP(alpha=0.5, temperature=0.8, ungated=(1,))):
            gated = np.array([k for k in range(4) if k not in gate.ungated])
            expected = likeliest_concentration(mass[gated], 60, gated) - np.log(gate.alpha)
            assert 0.0 < abs(expected) < 2.0
            assert gate.sparsity_start(logits, support) == pytest.approx(expected, abs=1e-9)
        far = IBP(alpha=100.0, temperature=0.8)
        assert far.sparsity_start(logits, support) == -2.0
        for gate in (IBP(learnable=False), IBP(ungated=(0, 1, 2, 3))):
            assert gate.sparsity_start(logits, support) == 0.0
        # a concentration that is fixed is looked for nowhere else
        assert IBP().sparsity_detours
        assert not IBP(learnable=False).sparsity_detours

    @pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
    def test_fits_converge(self, alpha: float) -> None:
        model = fitted(overlapping(), IBP(alpha=alpha))
        assert model.converged_
        assert not model.certificate_.at_bounds
