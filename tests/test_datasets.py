"""The activations shipped with the package: their layout, and the calendar rings in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from sae_rs import datasets

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)

Load = Callable[[], datasets.Activations]
BOTH = pytest.mark.parametrize(
    ("load", "names"), [(datasets.load_weekdays, DAYS), (datasets.load_months, MONTHS)], ids=["weekdays", "months"]
)


def scores(x: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the coordinates on the principal components and the cumulative share of the variance."""
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    return u * s, np.cumsum(s**2) / np.sum(s**2)


def order_by_angle(data: datasets.Activations, leave_out: tuple[str, ...] = ()) -> list[str]:
    """Return the words in order of the angle of their means in the plane of the first two components."""
    coordinates, _ = scores(data.X)
    means = {
        name: coordinates[data.labels == k, :2].mean(axis=0)
        for k, name in enumerate(data.label_names)
        if name not in leave_out
    }
    return sorted(means, key=lambda name: float(np.arctan2(means[name][1], means[name][0])))


def same_ring(a: list[str], b: list[str]) -> bool:
    """Tell whether two orders around a ring agree, whatever the first entry and the direction."""
    turns = [b[k:] + b[:k] for k in range(len(b))]
    return a in turns or a[::-1] in turns


@BOTH
def test_layout(load: Load, names: tuple[str, ...]) -> None:
    data = load()
    n = 20 * len(names)
    assert data.X.shape == (n, 384)
    assert data.X.dtype == np.float32
    assert data.X.flags.c_contiguous
    assert np.isfinite(data.X).all()
    assert len(np.unique(data.X, axis=0)) == n
    assert data.label_names == names
    assert data.labels.shape == data.template_ids.shape == (n,)
    assert data.labels.dtype == data.template_ids.dtype == np.int64
    # Rows run over words, and over templates within each word.
    np.testing.assert_array_equal(data.labels, np.repeat(np.arange(len(names)), 20))
    np.testing.assert_array_equal(data.template_ids, np.tile(np.arange(20), len(names)))


@BOTH
def test_templates(load: Load, names: tuple[str, ...]) -> None:
    data = load()
    assert len(data.templates) == len(set(data.templates)) == 20
    assert all(template.count("{}") == 1 for template in data.templates)
    assert all(type(text) is str for text in data.templates + data.label_names)
    assert data.description


@BOTH
def test_loads_are_independent(load: Load, names: tuple[str, ...]) -> None:
    first = load()
    first.X[:] = 0
    assert load().X.any()
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.description = ""  # type: ignore[misc]


def test_weekdays_explained_variance() -> None:
    _, explained = scores(datasets.load_weekdays().X)
    np.testing.assert_allclose(explained[[0, 1, 4]], [0.174, 0.334, 0.585], atol=0.001)


def test_months_explained_variance() -> None:
    _, explained = scores(datasets.load_months().X)
    np.testing.assert_allclose(explained[[0, 1, 4]], [0.163, 0.270, 0.513], atol=0.001)


def test_weekdays_lie_in_order_on_a_ring() -> None:
    assert same_ring(order_by_angle(datasets.load_weekdays()), list(DAYS))


def test_months_lie_in_order_on_a_ring_but_for_may() -> None:
    data = datasets.load_months()
    rest = [name for name in MONTHS if name != "May"]
    assert same_ring(order_by_angle(data, leave_out=("May",)), rest)
    swapped = [*MONTHS[:4], "June", "May", *MONTHS[6:]]
    assert same_ring(order_by_angle(data), swapped)


def test_stack() -> None:
    days, months = datasets.load_weekdays(), datasets.load_months()
    both = datasets.stack(days, months)
    assert isinstance(both, datasets.Activations)
    assert both.X.shape == (380, 384)
    assert both.X.dtype == np.float32
    np.testing.assert_array_equal(both.X, np.vstack([days.X, months.X]))
    np.testing.assert_array_equal(both.source, [0] * 140 + [1] * 240)
    assert both.labels.dtype == both.template_ids.dtype == both.source.dtype == np.int64
    assert both.label_names == DAYS + MONTHS
    assert both.templates == days.templates + months.templates
    for part, own in ((0, days), (1, months)):
        rows = both.source == part
        assert [both.label_names[k] for k in both.labels[rows]] == [own.label_names[k] for k in own.labels]
        assert [both.templates[k] for k in both.template_ids[rows]] == [own.templates[k] for k in own.template_ids]
    assert "380 x 384" in repr(both)


def test_stack_of_one_keeps_the_rows() -> None:
    days = datasets.load_weekdays()
    np.testing.assert_array_equal(datasets.stack(days).X, days.X)


def test_stack_refuses_what_does_not_fit() -> None:
    days = datasets.load_weekdays()
    with pytest.raises(ValueError, match="at least one"):
        datasets.stack()
    narrow = dataclasses.replace(days, X=days.X[:, :10])
    with pytest.raises(ValueError, match="same width"):
        datasets.stack(days, narrow)
