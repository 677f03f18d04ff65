"""Pictures of atoms: the decoded curve and the rows that use it, in the plane in which the curve varies most."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .names import place_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .model import ManifoldSAE

FloatArray = NDArray[np.float64]

INK, PAPER, MUTED = "#22223b", "#ffffff", "#8d8d9c"
CURVE_POINTS = 400
# Rows with a smaller gate sit near the centre and say nothing about the curve.
LEAST_GATE = 0.05
# A label is written on an atom when rows of that class use it at least this much on average.
LEAST_CLASS_GATE = 0.5
# More points than this hide each other; an even subset is drawn.
MOST_POINTS = 5000
PANEL_INCHES = 4.6
# Type of the names in points; the width is that of a usual letter.
FONT_SIZE, LETTER_WIDTH, LINE_HEIGHT = 10.0, 6.4, 13.0


def plot_atom(model: ManifoldSAE, k: int, labels: ArrayLike | None = None, ax: Axes | None = None) -> Axes:
    """Draw atom `k` of a fitted model.

    Points are training rows less the other atoms' contributions, coloured by their coordinate; the line is the decoded
    curve, its band two posterior standard deviations.

    Parameters
    ----------
    labels : array-like of shape (n,), optional
        One label for each training row; its name is written at the class mean.
    ax : matplotlib Axes, optional
        Where to draw.

    Raises
    ------
    ImportError
        When matplotlib is not installed.
    ValueError
        When `labels` has a wrong shape.
    """
    pyplot = import_pyplot()
    names = _check_labels(labels, len(model.gates_))
    if ax is None:
        ax = pyplot.subplots(figsize=(PANEL_INCHES, PANEL_INCHES), layout="constrained")[1]
    training = model._training
    plane, gate = training.planes[k], model.gates_[:, k]
    curve = model.curve(k, CURVE_POINTS)
    line = _closed((curve.points - model.mean_) @ plane.T)
    centre = line[:-1].mean(axis=0)
    line = line - centre
    rows = training.plane_rows[k] - centre

    _draw_band(ax, line, _closed(curve.sd))
    shown = np.flatnonzero(gate > LEAST_GATE)
    shown = shown[:: max(1, math.ceil(len(shown) / MOST_POINTS))]
    colours = np.column_stack([cyclic_colours(model.coords_[k][shown, 0]), 0.85 * np.clip(gate[shown], 0.0, 1.0)])
    ax.scatter(rows[shown, 0], rows[shown, 1], s=16, c=colours, linewidths=0, zorder=2)
    ax.plot(line[:, 0], line[:, 1], color=INK, linewidth=1.6, zorder=3, solid_joinstyle="round")
    _style(ax, curve.points - model.mean_ - plane.T @ centre, plane)
    if names is not None:
        _write_names(ax, rows, names, gate)
    ax.set_title(f"{model._atoms[k].kind} {k}   ·   mean gate {gate.mean():.2f}", color=INK, fontsize=11, pad=10)
    return ax


def plot(model: ManifoldSAE, labels: ArrayLike | None = None) -> Figure:
    """Draw every atom of a fitted model, one panel each; see `plot_atom`."""
    pyplot = import_pyplot()
    n_atoms = len(model._atoms)
    if not n_atoms:
        raise ValueError("the model has no atoms to plot (n_atoms=0)")
    columns = min(n_atoms, math.ceil(math.sqrt(n_atoms)) if n_atoms > 3 else n_atoms)
    lines = math.ceil(n_atoms / columns)
    size = (PANEL_INCHES * columns, PANEL_INCHES * lines)
    figure, axes = pyplot.subplots(lines, columns, figsize=size, squeeze=False, layout="constrained")
    for k, ax in enumerate(axes.flat):
        if k < n_atoms:
            plot_atom(model, k, labels, ax)
        else:
            ax.set_axis_off()
    return figure  # type: ignore[no-any-return]


def cyclic_colours(angle: FloatArray) -> FloatArray:
    """Colours (m, 3) whose hue goes round once with the angle at equal lightness, so that no direction stands out."""
    lightness, chroma = 0.66, 0.135
    a, b = chroma * np.cos(angle), chroma * np.sin(angle)
    # Oklab to linear sRGB (Ottosson, 2020).
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.column_stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ]
    )
    linear = np.clip(linear, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1.0 / 2.4) - 0.055)


def import_pyplot() -> Any:
    """Import pyplot, or say which extra brings it."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("plotting needs matplotlib: pip install 'sae-rs[plot]'") from error
    return pyplot


def _check_labels(labels: ArrayLike | None, n_rows: int) -> NDArray[np.str_] | None:
    if labels is None:
        return None
    names = np.asarray(labels)
    if names.shape != (n_rows,):
        raise ValueError(f"labels must have shape ({n_rows},), one for each training row, got {names.shape}")
    return names.astype(str)


def _closed(points: FloatArray) -> FloatArray:
    """Repeat the first point at the end, so that a line comes back to where it began."""
    return np.concatenate([points, points[:1]])


def _draw_band(ax: Axes, line: FloatArray, sd: FloatArray) -> None:
    """Fill two standard deviations on both sides of a closed line."""
    from matplotlib.collections import PolyCollection

    tangent = np.roll(line[:-1], -1, axis=0) - np.roll(line[:-1], 1, axis=0)
    length = np.linalg.norm(tangent, axis=1, keepdims=True)
    normal = np.column_stack([-tangent[:, 1], tangent[:, 0]]) / np.where(length > 0.0, length, 1.0)
    offset = 2.0 * sd[:, None] * _closed(normal)
    left, right = line + offset, line - offset
    corners = np.stack([left[:-1], left[1:], right[1:], right[:-1]], axis=1)
    ax.add_collection(PolyCollection(list(corners), color="#dcdce4", linewidth=0.4, zorder=1))


def _write_names(ax: Axes, rows: FloatArray, names: NDArray[np.str_], gate: FloatArray) -> None:
    """Mark the mean of each class that uses the atom and write its name beside it, outlined to stay readable."""
    from matplotlib import patheffects

    classes = [name for name in np.unique(names) if gate[names == name].mean() >= LEAST_CLASS_GATE]
    if not classes:
        return
    means = np.array([np.average(rows[names == name], axis=0, weights=gate[names == name]) for name in classes])
    ax.scatter(means[:, 0], means[:, 1], s=34, color=PAPER, edgecolors=INK, linewidths=1.4, zorder=4)
    ax.apply_aspect()  # the scale of the axes decides which names collide
    points = ax.transData.transform(means) * 72.0 / ax.figure.dpi
    sizes = np.array([[LETTER_WIDTH * len(name), LINE_HEIGHT] for name in classes])
    halo: list[patheffects.AbstractPathEffect] = [patheffects.withStroke(linewidth=3.0, foreground=PAPER)]
    for name, mean, offset in zip(classes, means, place_names(points, sizes), strict=True):
        text = ax.annotate(
            name,
            mean,
            xytext=offset,
            textcoords="offset points",
            ha="center",
            va="center",
            color=INK,
            fontsize=FONT_SIZE,
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.7, "shrinkA": 0.0, "shrinkB": 4.0},
            zorder=5,
        )
        text.set_path_effects(halo)


def _style(ax: Axes, points: FloatArray, plane: FloatArray) -> None:
    """Equal scales, quiet axes, and how much of the curve's variance each direction holds."""
    total = float(np.square(points).sum())
    along = np.square(points @ plane.T).sum(axis=0) / total if total > 0.0 else np.zeros(2)
    ax.set_xlabel(f"first direction ({along[0]:.0%} of the curve)", color=MUTED, fontsize=9)
    ax.set_ylabel(f"second direction ({along[1]:.0%} of the curve)", color=MUTED, fontsize=9)
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.14)
    ax.tick_params(colors=MUTED, labelsize=8, length=3)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(MUTED)
        ax.spines[side].set_linewidth(0.6)
