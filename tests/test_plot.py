"""Pictures hold what they should: rows, the curve, names at the class means."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sae_rs
from kinds import fitted
from planted import fitted_mean, fitted_one, fitted_two, one_circle, two_circles
from sae_rs import KleinBottle, Line
from sae_rs.colours import row_colours
from sae_rs.demo import label_order
from sae_rs.names import place_names
from sae_rs.plot import cyclic_colours

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
pyplot = pytest.importorskip("matplotlib.pyplot")

X, ANGLE = one_circle()
WHICH = two_circles()[1]


@pytest.fixture(autouse=True)
def _close_figures() -> Any:
    yield
    pyplot.close("all")


def names_on(ax: Any) -> list[str]:
    return sorted(text.get_text() for text in ax.texts)


class TestPlotAtom:
    def test_rows_lie_on_the_curve(self) -> None:
        ax = fitted_one().plot_atom(0)
        rows = np.asarray(ax.collections[-1].get_offsets())
        curve = np.asarray(ax.lines[0].get_xydata())
        assert len(rows) == len(X)
        np.testing.assert_allclose(curve[0], curve[-1], atol=1e-13)
        nearest = np.linalg.norm(rows[:, None] - curve, axis=2).min(axis=1)
        assert nearest.max() < 0.3
        assert ax.get_title().startswith("circle 0")

    def test_labels(self) -> None:
        quarter = np.array(["east", "north", "west", "south"])[(ANGLE // (np.pi / 2)).astype(int)]
        ax = fitted_one().plot_atom(0, labels=quarter)
        assert names_on(ax) == ["east", "north", "south", "west"]

    def test_only_classes_that_use_the_atom_are_named(self) -> None:
        k = int(np.argmax(fitted_two().gates_[WHICH == 0].mean(axis=0)))
        assert names_on(fitted_two().plot_atom(k, labels=WHICH)) == ["0"]

    def test_given_axes(self) -> None:
        ax = pyplot.subplots()[1]
        assert fitted_one().plot_atom(0, ax=ax) is ax

    def test_wrong_labels(self) -> None:
        with pytest.raises(ValueError, match=r"labels must have shape \(60,\), one for each training row, got \(3,\)"):
            fitted_one().plot_atom(0, labels=["a", "b", "c"])

    def test_loaded_model(self, tmp_path: Path) -> None:
        fitted_one().save(tmp_path / "m.safetensors")
        again = sae_rs.load(tmp_path / "m.safetensors")
        before, after = fitted_one().plot_atom(0), again.plot_atom(0)
        offsets = [np.asarray(ax.collections[-1].get_offsets()) for ax in (before, after)]
        np.testing.assert_array_equal(*offsets)


class TestKinds:
    @pytest.mark.parametrize("name", ["arc", "line", "segment"])
    def test_an_open_curve(self, name: str) -> None:
        ax = fitted(name).plot_atom(0)
        (line,) = ax.lines
        curve, rows = np.asarray(line.get_xydata()), np.asarray(ax.collections[-1].get_offsets())
        # it ends where the rows end, and does not close
        assert np.linalg.norm(curve[0] - curve[-1]) > 0.5 * np.ptp(rows[:, 0])
        assert np.linalg.norm(rows[:, None] - curve, axis=2).min(axis=1).max() < 0.1
        assert len(ax.collections) == 2

    def test_a_flat_surface_is_a_net_in_its_plane(self) -> None:
        ax = fitted("plane").plot_atom(0)
        assert ax.name == "rectilinear"
        assert len(ax.lines) > 20
        assert "of the surface" in ax.get_xlabel()

    def test_a_surface_that_spans_space_is_drawn_in_it(self) -> None:
        model = fitted("cylinder")
        ax = model.plot_atom(0, labels=(model.coords_[0][:, 0] > np.pi).astype(str))
        assert ax.name == "3d"
        assert {text.get_text().strip() for text in ax.texts} == {"True", "False"}
        # given plane axes, it is seen from where it is widest
        flat = pyplot.subplots()[1]
        assert model.plot_atom(0, ax=flat) is flat
        assert len(flat.lines) == len(ax.lines)

    def test_panels_of_both_sorts(self) -> None:
        assert [ax.name for ax in fitted("cylinder").plot().axes] == ["3d"]
        assert [ax.name for ax in fitted("line").plot().axes] == ["rectilinear"]

    def test_colours_follow_the_first_coordinate(self) -> None:
        real = row_colours(Line(), np.array([[-1.0], [0.0], [2.0]]))
        assert len(np.unique(real.round(6), axis=0)) == 3
        half = row_colours(KleinBottle(), np.array([[0.0, 1.0], [np.pi, 2.0]]))
        np.testing.assert_allclose(half[0], half[1], atol=1e-12)
        assert row_colours(Line(), np.ones((2, 1))).shape == (2, 3)


class TestPlot:
    def test_one_panel_for_each_atom(self) -> None:
        figure = fitted_two().plot()
        assert [ax.get_title()[:8] for ax in figure.axes] == ["circle 0", "circle 1"]

    def test_no_atoms(self) -> None:
        with pytest.raises(ValueError, match="the model has no atoms to plot"):
            fitted_mean().plot()

    def test_matplotlib_missing(self, monkeypatch: Any) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        for call in (lambda: fitted_one().plot(), lambda: fitted_one().plot_atom(0)):
            with pytest.raises(ImportError, match=r"plotting needs matplotlib: pip install 'sae-rs\[plot\]'"):
                call()


class TestColours:
    def test_cyclic_and_in_range(self) -> None:
        colours = cyclic_colours(np.linspace(0.0, 2.0 * np.pi, 100))
        assert ((colours >= 0.0) & (colours <= 1.0)).all()
        np.testing.assert_allclose(colours[0], colours[-1], atol=1e-12)


class TestPlaceNames:
    def test_names_in_a_crowd_keep_clear_of_each_other(self) -> None:
        points = np.array([[0.0, 0.0], [3.0, 1.0], [-2.0, 2.0], [1.0, -4.0], [60.0, 0.0]])
        sizes = np.tile([40.0, 13.0], (5, 1))
        centres = points + place_names(points, sizes)
        for j in range(5):
            for i in range(j):
                assert (np.abs(centres[i] - centres[j]) >= sizes[j] - 1e-9).any()

    def test_a_lone_name_goes_straight_outwards(self) -> None:
        points = np.array([[100.0, 0.0], [-100.0, 0.0]])
        offsets = place_names(points, np.array([[40.0, 13.0], [20.0, 13.0]]))
        np.testing.assert_allclose(offsets, [[26.0, 0.0], [-16.0, 0.0]], atol=1e-12)


class TestLabelOrder:
    @pytest.mark.parametrize("direction", [1.0, -1.0])
    def test_any_rotation_and_direction(self, direction: float) -> None:
        labels = np.repeat(np.arange(7), 3)
        angle = np.mod(direction * labels * 2.0 * np.pi / 7 + 4.0, 2.0 * np.pi)
        order, resultant = label_order(angle, labels, 7)
        assert order == list(range(7))
        np.testing.assert_allclose(resultant, 1.0)
