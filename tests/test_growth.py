"""The number of atoms chosen by the evidence."""

from __future__ import annotations

import functools
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import sae_rs
from planted import mixture, points_of
from sae_rs import Circle, GrowthStep, Line, ManifoldSAE, Patch, Segment, Sphere, ThresholdGate, Torus
from sae_rs.atoms import Atom
from sae_rs.growth import GrowthRules, growing
from sae_rs.growth.moves import State
from sae_rs.growth.proposals import duplicates
from sae_rs.growth.room import directions, roomy
from sae_rs.problem import Problem
from sae_rs.search import Point, Search

FloatArray = NDArray[np.float64]

slow = pytest.mark.skipif(os.environ.get("SAE_RS_SLOW") != "1", reason="takes minutes; SAE_RS_SLOW=1 runs it")


def circles(n_circles: int, p: int, n: int, seed: int) -> FloatArray:
    """Circles of different use in random planes that are not orthogonal, one active a row."""
    rng = np.random.default_rng(seed)
    use = 1.0 / np.arange(1, n_circles + 1) ** 1.2
    which, t = rng.choice(n_circles, size=n, p=use / use.sum()), rng.uniform(0.0, 2.0 * np.pi, n)
    planes = rng.standard_normal((n_circles, 2, p))
    planes /= np.linalg.norm(planes, axis=2, keepdims=True)
    points = np.column_stack([np.cos(t), np.sin(t)])
    return np.einsum("ij,ijp->ip", points, planes[which]) + 0.05 * rng.standard_normal((n, p))


def kept(model: ManifoldSAE) -> list[GrowthStep]:
    return [step for step in model.growth_ if step.kept]


@pytest.mark.parametrize(
    ("n_circles", "p", "n", "n_init"),
    [
        (1, 8, 120, 2),
        (2, 8, 160, 2),
        (3, 12, 200, 2),
        pytest.param(1, 12, 400, 4, marks=slow),
        pytest.param(2, 12, 400, 4, marks=slow),
        pytest.param(3, 12, 400, 4, marks=slow),
        pytest.param(3, 12, 1500, 4, marks=slow),
        pytest.param(6, 24, 1500, 4, marks=slow),
        pytest.param(8, 48, 1500, 4, marks=slow),
    ],
)
def test_as_many_circles_as_there_are(n_circles: int, p: int, n: int, n_init: int) -> None:
    model = ManifoldSAE("auto", Circle(1), n_init=n_init).fit(circles(n_circles, p, n, seed=n_circles))
    assert model.converged_
    assert len(model.decoders_) == n_circles
    path = kept(model)
    assert path[0].action == "start"
    assert path[-1].n_atoms == n_circles
    assert model.evidence_ == path[-1].evidence
    assert (np.diff([step.evidence for step in path]) < 0).all()
    assert path[-1].explained_variance == pytest.approx(model.explained_variance_, abs=1e-3)
    assert any(not step.kept and step.n_atoms == n_circles + 1 for step in model.growth_)


def test_no_atom_on_noise() -> None:
    X = np.random.default_rng(0).standard_normal((200, 12))
    model = ManifoldSAE("auto", [Circle(1), Line(), Sphere(1)]).fit(X)
    assert model.decoders_ == []
    assert model.growth_[0].kinds == ()
    assert {step.kinds for step in model.growth_[1:]} == {("circle",), ("line",), ("sphere",)}
    assert {step.action for step in model.growth_[1:]} == {"birth"}
    assert not any(step.kept for step in model.growth_[1:])


@pytest.mark.parametrize("seed", range(2))
def test_no_atom_that_may_be_closed_on_noise(seed: int) -> None:
    X = np.random.default_rng(seed).standard_normal((200, 12))
    assert ManifoldSAE("auto", [Circle(1), Line()], sae_rs.ThresholdGate()).fit(X).decoders_ == []
    centred = X - X.mean(axis=0)
    none = 0.5 * X.size * (np.log(2.0 * np.pi * np.square(centred).mean()) + 1.0)
    for kind in (Circle(1), Line()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sae_rs.ConvergenceWarning)
            assert ManifoldSAE(1, kind, sae_rs.ThresholdGate(), random_state=0).fit(X).evidence_ > none


def test_kinds_are_chosen() -> None:
    rng = np.random.default_rng(3)
    n, p = 120, 8
    basis = np.linalg.qr(rng.standard_normal((p, p)))[0]
    t, on_circle = rng.uniform(0.0, 2.0 * np.pi, n), rng.random(n) < 0.5
    line = rng.choice([-1.0, 1.0], n) * rng.uniform(0.5, 2.0, n)
    X = np.where(on_circle[:, None], np.column_stack([np.cos(t), np.sin(t)]) @ basis[:2], line[:, None] * basis[2])
    X += 0.05 * rng.standard_normal((n, p))
    model = ManifoldSAE("auto", [Line(), Circle(1)], n_init=2).fit(X)
    assert sorted(atom.kind for atom in model._atoms) == ["circle", "line"]


def overlapping(n: int, seed: int) -> FloatArray:
    """Two circles, each on two rows of three, whichever the other does."""
    rng = np.random.default_rng(seed)
    X = 0.05 * rng.standard_normal((n, 12))
    for _ in range(2):
        t, active = rng.uniform(0.0, 2.0 * np.pi, n), rng.random(n) < 2.0 / 3.0
        X += active[:, None] * (np.column_stack([np.cos(t), np.sin(t)]) @ rng.standard_normal((2, 12)) / np.sqrt(12.0))
    return X


@pytest.mark.parametrize(("max_atoms", "n", "n_init"), [(2, 120, 2), pytest.param(4, 250, 4, marks=slow)])
def test_atoms_that_overlap_are_born_on_the_residual(max_atoms: int, n: int, n_init: int) -> None:
    X = overlapping(n, seed=1)
    model = ManifoldSAE("auto", Circle(1), ThresholdGate(), max_atoms=max_atoms, n_init=n_init).fit(X)
    assert len(model.decoders_) == 2
    assert model.explained_variance_ > 0.97


@pytest.mark.parametrize(("max_atoms", "n", "p", "n_init"), [(2, 120, 8, 2), pytest.param(4, 240, 12, 4, marks=slow)])
def test_lines_need_no_curved_atom(max_atoms: int, n: int, p: int, n_init: int) -> None:
    rng = np.random.default_rng(2)
    directions = np.linalg.qr(rng.standard_normal((p, 2)))[0].T
    place = rng.choice([-1.0, 1.0], n) * rng.uniform(0.3, 2.0, n)
    X = place[:, None] * directions[rng.integers(2, size=n)] + 0.05 * rng.standard_normal((n, p))
    model = ManifoldSAE("auto", [Line(), Circle(1)], max_atoms=max_atoms, n_init=n_init).fit(X)
    # two lines look like one ellipse at first: its kind is exchanged when a second atom has come
    assert {atom.kind for atom in model._atoms} == {"line"}
    assert len(model.decoders_) >= 2
    assert "exchange" in [step.action for step in kept(model)]


def test_factors_that_share_rows_are_found_all_at_once() -> None:
    planted = ["circle", "circle", "circle", "line", "sphere"]
    X = mixture(planted, 20, 600, (1, 2), seed=0)
    model = ManifoldSAE("auto", [Line(), Circle(1), Sphere(1)], ThresholdGate()).fit(X)
    assert sorted(atom.kind for atom in model._atoms) == planted
    assert [step.action for step in kept(model)] == ["start", "grouping"]
    assert model.dispersion_ == pytest.approx(0.05**2, rel=0.1)
    assert "1 grouping" in model.summary()


@slow
@pytest.mark.parametrize("seed", range(2))
def test_twelve_factors_that_share_rows(seed: int) -> None:
    planted = ["circle"] * 4 + ["line"] * 3 + ["sphere"] * 3 + ["torus"] * 2
    X = mixture(planted, 64, 1500, (2, 3), seed)
    model = ManifoldSAE("auto", [Line(), Circle(1), Sphere(1), Torus(1)], ThresholdGate()).fit(X)
    assert sorted(atom.kind for atom in model._atoms) == planted


def test_nothing_is_grouped_where_there_is_nothing() -> None:
    X = np.random.default_rng(1).standard_normal((200, 12))
    model = ManifoldSAE("auto", Circle(1), ThresholdGate(), max_atoms=1).fit(X)
    assert "grouping" not in [step.action for step in model.growth_]


@pytest.mark.parametrize(
    ("kind", "expected"), [(Line(), 1), (Circle(3), 2), (Sphere(1), 3), (Torus(1), 3), (Patch(2), 2), (Segment(2), 1)]
)
def test_a_set_without_end_needs_one_direction_more(kind: Atom, expected: int) -> None:
    assert directions(kind) == expected


def test_kinds_have_room_where_rows_stand_out_from_noise() -> None:
    rng = np.random.default_rng(0)
    plane = points_of("circle", 300, rng) @ rng.standard_normal((2, 16)) + 0.05 * rng.standard_normal((300, 16))
    kinds = [Line(), Circle(1), Sphere(1), Torus(1)]
    assert roomy(kinds, plane, None) == kinds[:2]
    # four columns show no noise beside what a sphere may take up
    assert roomy(kinds, plane[:, :4], None) == kinds
    # nor is there room where there are no rows: an atom that no row has more of than of others
    assert roomy(kinds, plane[:0], None) == []


def test_a_callback_ends_with_the_best_dictionary_so_far() -> None:
    X = circles(2, 8, 160, seed=2)
    seen: list[int] = []

    def stop(progress: sae_rs.FitProgress) -> bool:
        seen.append(progress.evaluation)
        return len(seen) >= 40

    with pytest.warns(sae_rs.ConvergenceWarning, match="stopped"):
        model = ManifoldSAE("auto", Circle(1), callback=stop).fit(X)
    assert len(seen) == 40
    assert seen == sorted(seen)
    assert not model.converged_
    assert len(model.decoders_) == kept(model)[-1].n_atoms >= 1
    assert model.evidence_ == kept(model)[-1].evidence


def test_the_path_ends_where_it_must(tmp_path: Path) -> None:
    X = circles(3, 8, 120, seed=0)
    model = ManifoldSAE("auto", Circle(1), max_atoms=1).fit(X)
    assert len(model.decoders_) == 1
    model.save(tmp_path / "model.safetensors")
    assert sae_rs.load(tmp_path / "model.safetensors").growth_ == model.growth_
    assert ManifoldSAE("auto", max_atoms=0).fit(X).decoders_ == []


def test_gates_of_a_few_atoms_grow_as_well() -> None:
    model = ManifoldSAE("auto", Circle(1), gate=sae_rs.Softmax(top_k=3), max_atoms=1).fit(circles(1, 8, 100, seed=0))
    assert len(model.decoders_) == 1


def test_many_rows_go_on_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing, "SAMPLE_ABOVE", 120)
    monkeypatch.setattr(growing, "SAMPLE_ROWS", 100)
    model = ManifoldSAE("auto", Circle(1), max_atoms=2).fit(circles(2, 8, 240, seed=2))
    assert len(model.decoders_) == 2
    assert model.converged_
    assert [step.action for step in model.growth_ if step.kept] == ["start", "birth", "birth", "start"]
    assert model.gates_.shape == (240, 2)


def test_duplicates_are_found_and_merged() -> None:
    X = circles(1, 8, 150, seed=0)
    model = ManifoldSAE(1, Circle(1)).fit(X)
    problem = Problem(X, (Circle(1), Circle(1)), ThresholdGate(), None, True)
    logits = np.where(np.arange(150)[:, None] % 2 == np.arange(2), 3.0, -3.0)
    decoder = model.decoders_[0]
    # the second draws the same circle, turned and mirrored
    turned = np.array([decoder[0], -decoder[2], decoder[1]])
    t = model.coords_[0]
    angles = np.arctan2(-np.cos(t), np.sin(t))
    term = problem.at_state(logits, [t, np.ascontiguousarray(angles)], [decoder, turned], logits > 0.0)
    search = Search(problem, outer="bfgs", max_outer=20, max_inner=100, tol=1e-3, threads=1, progress=None)
    rho = sae_rs.SaeManifoldRho(0.0, [0.0, 0.0], None, "per_atom", float(np.log(model.dispersion_)))
    state = State(search, Point(rho, term.evaluate(rho, max_inner=1, gradient=False)))
    assert duplicates(state) == [(0, 1)]
    none = search.on(Problem(X, (), ThresholdGate(), None, True))
    growth = growing.Growing(none, GrowthRules(ThresholdGate(), (Circle(1),), lambda atoms: True, 2, 2, 0))
    growth.path.keep(state, "birth", False, polished=True)
    assert growth.tidy()
    assert growth.path.steps[-1].action == "merge"
    assert growth.path.atoms == (Circle(1),)


@functools.cache
def one_atom(n_atoms: int | str) -> ManifoldSAE:
    """One circle, grown or of a given number; not to be changed."""
    return ManifoldSAE(n_atoms, Circle(1), max_atoms=1).fit(circles(1, 8, 100, seed=0))


def test_the_summary_tells_of_growth() -> None:
    assert "growth              2 dictionaries tried, kept: 1 birth" in one_atom("auto").summary()
    assert "growth " not in one_atom(1).summary()


def test_the_path_is_drawn() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    model = one_atom("auto")
    ax = model.plot_growth()
    drawn = np.asarray(ax.lines[0].get_xydata())
    np.testing.assert_array_equal(drawn, [[step.n_atoms, step.evidence] for step in kept(model)])
    assert [text.get_text() for text in ax.texts] == ["start", "birth: circle"]
    with pytest.raises(ValueError, match="did not grow"):
        one_atom(1).plot_growth()


def test_rows_that_are_too_few_for_any_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="too few for the basis of atom 0"):
        ManifoldSAE("auto", ["circle", Sphere(2)]).fit(np.random.default_rng(0).standard_normal((3, 8)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_atoms": "many"}, "n_atoms must be an integer, got 'many'"),
        ({"atom": []}, "at least one kind"),
        ({"evidence": "quasi_laplace"}, "needs evidence='laplace'"),
        ({"rho": [0.0, 0.0, 0.0]}, "needs rho=None"),
        ({"max_atoms": -1}, "max_atoms must be"),
        ({"gate": "ibp"}, "which 'ibp' does not"),
        ({"gate": sae_rs.FrozenRouting(np.ones((50, 1)))}, "frozen routing"),
    ],
)
def test_what_it_cannot_be_combined_with(options: dict[str, Any], message: str) -> None:
    X = np.random.default_rng(0).standard_normal((50, 8))
    with pytest.raises(ValueError, match=message):
        ManifoldSAE(**{"n_atoms": "auto", **options}).fit(X)


def test_places_of_atoms_need_a_given_number() -> None:
    with pytest.raises(ValueError, match=r"n_atoms='auto' needs ungated=\(\), .* got ungated=\(1,\)"):
        ManifoldSAE("auto", Circle(1), ThresholdGate(ungated=(1,))).fit(np.zeros((9, 3)))
