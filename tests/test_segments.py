"""Coordinates between two ends: what is held there, what is let go, and what V makes of it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.polynomial import legendre
from numpy.typing import NDArray
from scipy.integrate import quad

from differences import slopes
from kinds import hook
from sae_rs import FrozenRouting, ManifoldSAE, Precomputed, SaeManifoldRho, Segment, ThresholdGate, _core
from sae_rs.atoms import Atom

FloatArray = NDArray[np.float64]

NOISE = 0.02
INNER_TOL = 1e-12


def directions() -> FloatArray:
    return np.random.default_rng(0).standard_normal((3, 12))


@cache
def planted() -> tuple[FloatArray, FloatArray]:
    """300 rows along a curve, of which 40 lie at each of its ends, and their coordinates (n,)."""
    rng = np.random.default_rng(1)
    t = rng.uniform(-1.0, 1.0, 300)
    t[:40], t[40:80] = -1.0, 1.0
    return hook(t[:, None]) @ directions() + NOISE * rng.standard_normal((300, 12)), t


@cache
def fitted() -> ManifoldSAE:
    return ManifoldSAE(n_atoms=1, atom="segment").fit(planted()[0])


def squared_correlation(one: FloatArray, other: FloatArray) -> float:
    return float(np.corrcoef(one, other)[0, 1] ** 2)


class TestFit:
    def test_some_rows_end_at_the_ends(self) -> None:
        _, t = planted()
        model, found = fitted(), fitted().coords_[0][:, 0]
        assert model.converged_
        assert np.sqrt(model.dispersion_) == pytest.approx(NOISE, rel=0.05)
        assert squared_correlation(found, t) >= 0.99
        held = np.abs(found) == 1.0
        assert {-1.0, 1.0} == set(found[held])
        assert np.abs(t[held]).min() > 0.95
        assert np.abs(found).max() == 1.0

    def test_rows_beyond_an_end_lie_at_it(self) -> None:
        """The nearest point among many: Newton's steps end at the wall, and leave it where the curve turns back."""
        rng, model = np.random.default_rng(2), fitted()
        t = np.linspace(-1.4, 1.4, 57)[:, None]
        rows = hook(t) @ directions() + NOISE * rng.standard_normal((57, 12))
        found = model.encode(rows).coords[0][:, 0]
        grid = np.linspace(-1.0, 1.0, 40_001)[:, None]
        points = _core.basis(Segment().spec(), grid) @ model.decoders_[0] + model.mean_
        nearest = grid[[np.square(points - row).sum(axis=1).argmin() for row in rows], 0]
        np.testing.assert_allclose(found, nearest, atol=6e-5)
        assert (np.abs(found) == 1.0).sum() > 8

    @pytest.mark.parametrize("seed", range(3))
    def test_no_segment_on_noise(self, seed: int) -> None:
        """Rows of a weak atom lie at its ends, where noise puts them, and are charged for what that says: little."""
        X = np.random.default_rng(seed).standard_normal((100, 8))
        none, one = ManifoldSAE(n_atoms=0).fit(X), ManifoldSAE(n_atoms=1, atom=Segment(1)).fit(X)
        assert one.converged_
        assert one.evidence_ > none.evidence_ + 10.0

    def test_the_classic_mode_holds_the_scale_by_roughness(self) -> None:
        X, t = planted()
        model = ManifoldSAE(n_atoms=1, atom=Segment(3), evidence="quasi_laplace").fit(X / NOISE)
        assert squared_correlation(model.coords_[0][:, 0], t) >= 0.99
        with pytest.raises(ValueError, match="cannot hold the scale of atom 0"):
            ManifoldSAE(n_atoms=1, atom=Segment(1), evidence="quasi_laplace").fit(X)


def term_of(atom: Atom, data: FloatArray, coords: FloatArray, decoder: FloatArray, gate: Any = None) -> Any:
    spec = FrozenRouting(np.ones((len(data), 1))).spec(1) if gate is None else gate.spec(1)
    return _core.SaeManifoldTerm(data, [atom.spec()], spec, np.ones((len(data), 1)), [coords], [decoder])


def test_a_straight_segment_s_rows_are_integrated_exactly() -> None:
    """Over a straight line the integral is a Gaussian's between the ends, whether the coordinate is held or not."""
    rng, noise, n = np.random.default_rng(6), 0.4, 30
    decoder = rng.standard_normal((2, 5))
    data = rng.uniform(-2.0, 2.0, (n, 1)) * decoder[1] + decoder[0] + noise * rng.standard_normal((n, 5))
    mean, along = data.mean(axis=0), decoder[1]
    t = np.clip((data - decoder[0]) @ along / (along @ along), -1.0, 1.0)[:, None]
    held = np.abs(t[:, 0]) == 1.0
    assert 5 < held.sum() < 25
    rho = SaeManifoldRho(0.0, [0.0], [[]], "per_atom", 2.0 * np.log(noise))
    # the term takes the column mean off
    parts = term_of(Segment(1), data, t, decoder - np.outer([1.0, 0.0], mean)).criterion_as_atoms(rho)
    stiffness = along @ along / noise**2
    share = parts["data_fit"] + parts["ard"] + parts["compact"]
    share += 0.5 * (n - held.sum()) * np.log(stiffness) - 0.5 * n * np.log(2.0 * np.pi)

    def density(at: float, row: FloatArray) -> float:
        squares = np.square(row - decoder[0] - at * along).sum()
        return float(0.5 * np.exp(-0.5 * squares / noise**2) / (2.0 * np.pi * noise**2) ** 2.5)

    exact = sum(-np.log(quad(density, -1.0, 1.0, args=(row,), epsabs=0.0, epsrel=1e-12)[0]) for row in data)
    assert share == pytest.approx(exact, rel=1e-8)


def test_coordinates_that_would_rather_be_inside_are_let_go() -> None:
    rng = np.random.default_rng(3)
    decoder, t = rng.standard_normal((4, 8)), rng.uniform(-0.9, 0.9, (40, 1))
    data = _core.basis(Segment(3).spec(), t) @ decoder + NOISE * rng.standard_normal((40, 8))
    rho = SaeManifoldRho(0.0, [-3.0], [[]], "per_atom", 2.0 * np.log(NOISE))
    data -= (mean := data.mean(axis=0))
    decoder[0] -= mean
    inside = term_of(Segment(3), data, t, decoder).evaluate(rho, tol=INNER_TOL, max_inner=1000)
    near = np.where(np.abs(t) > 0.6, np.sign(t), t)
    held = term_of(Segment(3), data, near, decoder).evaluate(rho, tol=INNER_TOL, max_inner=1000)
    assert inside.inner.status == held.inner.status == "converged"
    np.testing.assert_allclose(held.term.coords[0], inside.term.coords[0], atol=1e-9)
    assert held.value == pytest.approx(inside.value, rel=1e-10)


@pytest.mark.parametrize("evidence", ["laplace", "quasi_laplace"])
def test_a_bounded_table_of_legendre_polynomials_is_a_segment(evidence: str) -> None:
    """Quintic splines hold cubics exactly; a table knows no reflection."""
    rng = np.random.default_rng(4)
    knots = np.linspace(-1.0, 1.0, 9)
    table = Precomputed([knots], legendre.legvander(knots, 3), Segment(3).roughness(), bounded=[True])
    t = np.clip(rng.uniform(-1.3, 1.3, (30, 1)), -1.0, 1.0)
    decoder = rng.standard_normal((4, 6))
    data = _core.basis(Segment(3).spec(), t) @ decoder + 0.1 * rng.standard_normal((30, 6))
    rho = SaeManifoldRho(0.0, [-2.0], [[]], "per_atom", 2.0 * np.log(0.1))
    gate = FrozenRouting(np.ones((30, 1))).spec(1)
    one, other = (
        _core.SaeManifoldTerm(data, [atom.spec()], gate, np.ones((30, 1)), [t], [decoder], evidence=evidence)
        for atom in (Segment(3), table)
    )
    parts = [term.criterion_as_atoms(rho) for term in (one, other)]
    assert (np.abs(t) == 1.0).any()
    for name, part in parts[0].items():
        ln_symmetries = np.log(2.0) if evidence == "laplace" and name in ("constants", "total") else 0.0
        if name != "total":
            assert parts[1][name] == pytest.approx(part + ln_symmetries, rel=1e-9, abs=1e-9), name
    np.testing.assert_allclose(one.logdet_theta_adjoint(rho), other.logdet_theta_adjoint(rho), rtol=1e-7, atol=1e-7)


def mixed_table(second: bool) -> Precomputed:
    """Six columns of two numbers with ends each, or of an angle and one of them."""
    if second:
        axes = [np.linspace(-1.0, 2.0, 17), np.linspace(0.0, 1.0, 17)]
    else:
        axes = [np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False), np.linspace(-1.0, 1.5, 17)]
    u, v = np.meshgrid(*axes, indexing="ij")
    if second:
        columns = [np.ones_like(u), u, v, u * v, u**2, v**2 + 0.3 * u**3]
    else:
        columns = [np.ones_like(u), np.cos(u), np.sin(u), v, v**2, v * np.cos(u) + v**3]
    values = np.stack(columns, axis=-1)
    return Precomputed(axes, values, periods=[None if second else 2.0 * np.pi, None], bounded=[second, True])


@pytest.mark.parametrize("second", [True, False], ids=["two numbers", "angle and number"])
@pytest.mark.parametrize("gate", ["frozen", "threshold"])
def test_gradient_where_a_row_is_held_along_one_of_two_axes(second: bool, gate: str) -> None:
    rng, atom, n = np.random.default_rng(5), mixed_table(second), 16
    low, high = ([-1.0, 0.0], [2.0, 1.0]) if second else ([0.0, -1.0], [2.0 * np.pi, 1.5])
    t, decoder = rng.uniform(low, high, (n, 2)), rng.standard_normal((atom.width, 7))
    share = rng.uniform(0.5, 1.3, (n, 1))
    data = share * (_core.basis(atom.spec(), t) @ decoder) + 0.05 * rng.standard_normal((n, 7))
    routing = FrozenRouting(share).spec(1) if gate == "frozen" else ThresholdGate().spec(1)
    start = _core.SaeManifoldTerm(data, [atom.spec()], routing, share, [t], [decoder])
    rho = SaeManifoldRho(-1.0, [-2.0], [[]], "per_atom", 2.0 * np.log(0.05))
    found = start.evaluate(rho, tol=INNER_TOL, max_inner=2000)
    assert found.inner.status == "converged"

    def held(term: Any) -> NDArray[np.bool_]:
        coords = np.asarray(term.coords[0])
        ends: NDArray[np.bool_] = ((coords <= low) | (coords >= high)) & [second, True]
        return ends

    there = held(found.term)
    assert (there.sum(axis=1) == 1).any()

    def value(at: FloatArray) -> float:
        result = found.term.evaluate(rho.from_flat(at), tol=INNER_TOL, gradient=False)
        assert result.inner.status == "converged"
        assert (held(result.term) == there).all()
        return float(result.value)

    slope = slopes(value, np.asarray(rho.to_flat()))
    np.testing.assert_allclose(found.gradient, slope, atol=1e-7 * np.abs(slope).max())


class TestTables:
    def test_ends_are_those_of_the_grid(self) -> None:
        table = mixed_table(True)
        assert [(f.lower, f.upper) for f in table.factors] == [(-1.0, 2.0), (0.0, 1.0)]  # type: ignore[union-attr]
        np.testing.assert_array_equal(table.wrap(np.array([[-3.0, 0.4], [0.0, 7.0]])), [[-1.0, 0.4], [0.0, 1.0]])
        assert not table.has_precisions
        grid = table.grid_over(50, np.array([[0.0, 0.5], [0.1, 0.6]]))
        assert np.ptp(grid, axis=0).min() > 0.9

    def test_files_from_before_say_nothing_of_ends(self) -> None:
        fields = mixed_table(False).spec()
        del fields["kind"], fields["bounded"]
        assert Precomputed.from_fields(fields).bounded == (False, False)

    @pytest.mark.parametrize(
        ("bounded", "message"),
        [
            ([True], "bounded must list 2 booleans, one for each coordinate"),
            ([1, 0], "bounded must list 2 booleans"),
            ("no", "bounded must list 2 booleans"),
            ([True, False], "an angle has no ends"),
        ],
    )
    def test_bad_ends(self, bounded: Any, message: str) -> None:
        axes = [np.linspace(0.0, 6.0, 8), np.linspace(0.0, 1.0, 8)]
        with pytest.raises(ValueError, match=message):
            Precomputed(axes, np.ones((8, 8, 1)), periods=[7.0, None], bounded=bounded)

    def test_roughness_is_the_mean_over_the_ends(self) -> None:
        knots = np.linspace(-1.0, 1.0, 9)
        table = Precomputed([knots], legendre.legvander(knots, 3), bounded=[True])
        np.testing.assert_allclose(table.roughness(), Segment(3).roughness(), rtol=1e-5, atol=1e-5)
