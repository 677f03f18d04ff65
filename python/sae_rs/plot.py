"""Pictures of atoms: what they draw and the rows that use them, along the directions in which they vary most.

A curve is a line in a plane, with a band for its uncertainty; a surface is a net, in three dimensions where it spans
them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .colours import cyclic_colours, row_colours
from .encoding import decode_atom
from .names import place_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .dictionary import FittedDictionary

__all__ = ["cyclic_colours", "import_pyplot", "plot", "plot_atom", "plot_growth"]

FloatArray = NDArray[np.float64]

INK, PAPER, MUTED = "#22223b", "#ffffff", "#8d8d9c"
CURVE_POINTS = 400
# Points that stand for an atom that is drawn by no lines.
CLOUD_POINTS = 2000
# A third direction with less of an atom's variance than this is not worth a picture in space.
LEAST_THIRD = 0.01
# Rows with a smaller gate sit near the centre and say nothing about the atom.
LEAST_GATE = 0.05
# A label is written on an atom when rows of that class use it at least this much on average.
LEAST_CLASS_GATE = 0.5
# More points than this hide each other; an even subset is drawn.
MOST_POINTS = 5000
PANEL_INCHES = 4.6
BOX_ZOOM = 0.82
# A move on a path of growth is described in at most so many letters.
LONGEST_MOVE = 24
# Type of the names in points; the width is that of a usual letter.
FONT_SIZE, LETTER_WIDTH, LINE_HEIGHT = 10.0, 6.4, 13.0


def plot_atom(model: FittedDictionary, k: int, labels: ArrayLike | None = None, ax: Axes | None = None) -> Axes:
    """Draw atom `k` of a fitted model.

    Points are training rows less the other atoms' contributions, coloured by their first coordinate; lines are the
    decoded atom. The band of a curve is two posterior standard deviations.

    Parameters
    ----------
    labels : array-like of shape (n,), optional
        One label for each training row; its name is written at the class mean.
    ax : matplotlib Axes, optional
        Where to draw. Without it a surface that spans three dimensions gets axes in space; given plane axes, it is seen
        along its first two directions.

    Raises
    ------
    ImportError
        When matplotlib is not installed.
    ValueError
        When `labels` has a wrong shape.
    """
    pyplot = import_pyplot()
    names = _check_labels(labels, len(model.gates_))
    picture = _Picture(model, k)
    if ax is None:
        figure = pyplot.figure(figsize=(PANEL_INCHES, PANEL_INCHES), layout="constrained")
        ax = figure.add_subplot(projection=picture.projection)
    picture.draw(ax, names)
    return ax


def plot(model: FittedDictionary, labels: ArrayLike | None = None) -> Figure:
    """Draw every atom of a fitted model, one panel each; see `plot_atom`."""
    pyplot = import_pyplot()
    n_atoms = len(model._atoms)
    if not n_atoms:
        raise ValueError("the model has no atoms to plot (n_atoms=0)")
    names = _check_labels(labels, len(model.gates_))
    columns = min(n_atoms, math.ceil(math.sqrt(n_atoms)) if n_atoms > 3 else n_atoms)
    lines = math.ceil(n_atoms / columns)
    figure = pyplot.figure(figsize=(PANEL_INCHES * columns, PANEL_INCHES * lines), layout="constrained")
    for k in range(n_atoms):
        picture = _Picture(model, k)
        picture.draw(figure.add_subplot(lines, columns, k + 1, projection=picture.projection), names)
    return figure  # type: ignore[no-any-return]


def plot_growth(model: FittedDictionary, ax: Axes | None = None) -> Axes:
    """Draw the path of ``n_atoms="auto"``: the evidence of every dictionary that was tried, by its number of atoms.

    Dictionaries that were kept are joined in the order in which they were found, and named by the move that led to
    them; the others are open marks.

    Raises
    ------
    ImportError
        When matplotlib is not installed.
    ValueError
        When the model has no path.
    """
    pyplot = import_pyplot()
    path = model.growth_
    if not path:
        raise ValueError("the model did not grow: plot_growth needs a fit with n_atoms='auto'")
    if ax is None:
        ax = pyplot.figure(figsize=(PANEL_INCHES, PANEL_INCHES), layout="constrained").add_subplot()
    kept, others = [step for step in path if step.kept], [step for step in path if not step.kept]
    ax.plot([s.n_atoms for s in kept], [s.evidence for s in kept], color=INK, linewidth=1.6, marker="o", markersize=5)
    ax.scatter(
        [s.n_atoms for s in others], [s.evidence for s in others], s=22, facecolors="none", edgecolors=MUTED, zorder=3
    )
    for step in kept:
        what = step.action if step.action in ("start", "death") else f"{step.action}: {', '.join(step.kinds)}"
        text = what if len(what) <= LONGEST_MOVE else f"{step.action} ({step.n_atoms} atoms)"
        ax.annotate(
            text, (step.n_atoms, step.evidence), (6, 6), textcoords="offset points", color=INK, fontsize=FONT_SIZE - 2
        )
    ax.set_xticks(sorted({step.n_atoms for step in path}))
    ax.set_xlabel("atoms", color=MUTED, fontsize=9)
    ax.set_ylabel("evidence in nats, lower is better", color=MUTED, fontsize=9)
    ax.tick_params(colors=MUTED, labelsize=8, length=3)
    ax.margins(0.14)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


class _Picture:
    """One atom seen along its directions: rows, lines and, for a curve, the band; all about the centre of the atom."""

    def __init__(self, model: FittedDictionary, k: int) -> None:
        self.model, self.k, self.atom = model, k, model._atoms[k]
        self.gate = model.gates_[:, k]
        self.view = model._training.views[k]
        coords = model.coords_[k][model.support_[:, k]]
        points = decode_atom(self.atom, model.decoders_[k], self.atom.grid_over(CLOUD_POINTS, coords))
        self.spread = points - points.mean(axis=0)
        self.centre = self.view @ points.mean(axis=0)
        self.cloud = points @ self.view.T - self.centre
        self.lines = [self._seen(wire) for wire in self.atom.wires(coords)]
        self.rows = model._training.view_rows[k] - self.centre

    @property
    def shares(self) -> FloatArray:
        """Part of the atom's variance along each direction."""
        total = float(np.square(self.spread).sum())
        along = np.square(self.spread @ self.view.T).sum(axis=0)
        shares: FloatArray = along / total if total > 0.0 else np.zeros(len(self.view))
        return shares

    @property
    def projection(self) -> str | None:
        """What kind of axes the atom asks for."""
        return "3d" if len(self.view) > 2 and self.shares[2] >= LEAST_THIRD else None

    def _seen(self, coords: FloatArray) -> FloatArray:
        seen: FloatArray = decode_atom(self.atom, self.model.decoders_[self.k], coords) @ self.view.T - self.centre
        return seen

    def draw(self, ax: Any, names: NDArray[np.str_] | None) -> None:
        """Draw everything."""
        directions = 3 if ax.name == "3d" and len(self.view) > 2 else 2
        if self.atom.dim == 1 and self.lines and directions == 2:
            self._draw_band(ax)
        shown = np.flatnonzero(self.gate > LEAST_GATE)
        shown = shown[:: max(1, math.ceil(len(shown) / MOST_POINTS))]
        colours = row_colours(self.atom, self.model.coords_[self.k][shown])
        colours = np.column_stack([colours, 0.85 * np.clip(self.gate[shown], 0.0, 1.0)])
        if not self.lines:
            ax.scatter(*self.cloud[:, :directions].T, s=2, color=MUTED, linewidths=0, zorder=1)
        ax.scatter(*self.rows[shown, :directions].T, s=16, c=colours, linewidths=0, zorder=2)
        width, paint = (1.6, INK) if self.atom.dim == 1 else (0.5, MUTED)
        for line in self.lines:
            ax.plot(*line[:, :directions].T, color=paint, linewidth=width, zorder=3, solid_joinstyle="round")
        self._style(ax, directions)
        if names is not None:
            _write_names(ax, self.rows[:, :directions], names, self.gate)
        title = f"{self.atom.kind} {self.k}   ·   mean gate {self.gate.mean():.2f}"
        ax.set_title(title, color=INK, fontsize=11, pad=10)

    def _draw_band(self, ax: Any) -> None:
        """Fill two standard deviations on both sides of a curve."""
        from matplotlib.collections import PolyCollection

        curve = self.model.curve(self.k, CURVE_POINTS)
        line, sd = (curve.points - self.model.mean_) @ self.view.T - self.centre, curve.sd
        if self.atom.is_closed:
            # the grid of a closed curve leaves out its end, which is its start
            line, sd = np.concatenate([line, line[:1]]), np.append(sd, sd[:1])
            tangent = np.roll(line[:-1], -1, axis=0) - np.roll(line[:-1], 1, axis=0)
            tangent = np.concatenate([tangent, tangent[:1]])
        else:
            tangent = np.gradient(line, axis=0)
        length = np.linalg.norm(tangent, axis=1, keepdims=True)
        normal = np.column_stack([-tangent[:, 1], tangent[:, 0]]) / np.where(length > 0.0, length, 1.0)
        offset = 2.0 * sd[:, None] * normal
        left, right = line + offset, line - offset
        corners = np.stack([left[:-1], left[1:], right[1:], right[:-1]], axis=1)
        ax.add_collection(PolyCollection(list(corners), color="#dcdce4", linewidth=0.4, zorder=1))

    def _style(self, ax: Any, directions: int) -> None:
        """Equal scales, quiet axes, and how much of the atom's variance each direction holds."""
        if directions == 3:
            for axis, which, share in zip("xyz", ("first", "second", "third"), self.shares, strict=True):
                getattr(ax, f"set_{axis}label")(f"{which} direction ({share:.0%})", color=MUTED, fontsize=9)
            # room for the labels, which stand outside the box
            ax.set_box_aspect(None, zoom=BOX_ZOOM)
            ax.set_aspect("equal")
            ax.tick_params(colors=MUTED, labelsize=8)
            return
        what = "curve" if self.atom.dim == 1 else "surface" if self.atom.dim == 2 else "atom"
        ax.set_xlabel(f"first direction ({self.shares[0]:.0%} of the {what})", color=MUTED, fontsize=9)
        ax.set_ylabel(f"second direction ({self.shares[1]:.0%} of the {what})", color=MUTED, fontsize=9)
        ax.tick_params(colors=MUTED, labelsize=8, length=3)
        ax.set_aspect("equal", adjustable="datalim")
        ax.margins(0.14)
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            ax.spines[side].set_color(MUTED)
            ax.spines[side].set_linewidth(0.6)


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


def _write_names(ax: Any, rows: FloatArray, names: NDArray[np.str_], gate: FloatArray) -> None:
    """Mark the mean of each class that uses the atom and write its name beside it, outlined to stay readable."""
    from matplotlib import patheffects

    classes = [name for name in np.unique(names) if gate[names == name].mean() >= LEAST_CLASS_GATE]
    if not classes:
        return
    means = np.array([np.average(rows[names == name], axis=0, weights=gate[names == name]) for name in classes])
    if rows.shape[1] == 3:
        # in space what covers what depends on the eye: names stand at their means
        ax.scatter(*means.T, s=34, color=PAPER, edgecolors=INK, linewidths=1.4, zorder=4)
        for name, mean in zip(classes, means, strict=True):
            ax.text(*mean, f" {name}", color=INK, fontsize=FONT_SIZE, zorder=5)
        return
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
