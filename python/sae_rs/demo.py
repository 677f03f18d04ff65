"""A demonstration on real activations: the week and the year as circles inside a transformer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .atoms import Circle
from .datasets import Activations, load_months, load_weekdays, stack
from .model import ManifoldSAE
from .report import table
from .stopping import INTERRUPTED

COMPONENTS = (1, 2, 5)
PICTURE_DPI = 160


def run(folder: Path) -> None:
    """Fit the days, the months and both, print the tables and write one picture for each circle into `folder`.

    Raises
    ------
    ImportError
        When matplotlib is not installed.
    OSError
        When the folder cannot be written.
    """
    from .plot import import_pyplot

    import_pyplot()  # asked for first, so that a missing library does not show up after the fits
    folder.mkdir(parents=True, exist_ok=True)
    week, year = load_weekdays(), load_months()

    for data, name, title in ((week, "weekdays", "the seven days of the week"), (year, "months", "the twelve months")):
        print(f"\nOne circle for {title}\n{data.description}\n")
        one, seconds = _fit(data.X, 1)
        _print_fit(one, data.X, seconds)
        _print_order(one, 0, data, np.ones(len(data.X), dtype=bool))
        _draw(one, 0, data, folder / f"{name}.png")

    both = stack(week, year)
    print("\n\nThree circles for days and months in one dictionary, which is told neither which rows are which nor how")
    print("many of the circles a row uses\n")
    model, seconds = _fit(both.X, 3, "threshold")
    _print_fit(model, both.X, seconds)
    most = np.argmax(model.gates_, axis=1)
    for k in range(len(model.decoders_)):
        own = most == k
        print(f"\nAtom {k}: {_shares(both, own)}")
        if own.any():
            _print_order(model, k, both, own)
            _draw(model, k, both, folder / f"dictionary_{k}.png")


def _shares(data: Activations, rows: NDArray[np.bool_]) -> str:
    """The labels that have rows among these, with their share of a label's rows where that is not all."""
    counts, totals = (
        np.bincount(labels, minlength=len(data.label_names)) for labels in (data.labels[rows], data.labels)
    )
    shares = [(name, own / all_) for name, own, all_ in zip(data.label_names, counts, totals, strict=True) if own]
    return ", ".join(name if share == 1.0 else f"{name} ({share:.0%})" for name, share in shares) or "no row"


def label_order(angle: NDArray[Any], labels: NDArray[Any], n_labels: int) -> tuple[list[int], NDArray[Any]]:
    """Order of the labels round a circle, from the first label on and in the direction that puts the second one early.

    Returns
    -------
    order : list of int
        Labels in the order of their circular means.
    resultant : ndarray of shape (n_labels,)
        Mean resultant length of each label: 1 when all its rows share one angle.
    """
    means = np.array([np.exp(1j * angle[labels == label]).mean() for label in range(n_labels)])
    turned = np.mod(np.angle(means / means[0]), 2.0 * np.pi)
    turned[0] = 0.0
    if n_labels > 2 and turned[1] > np.pi:
        turned = np.mod(-turned, 2.0 * np.pi)
    return [int(label) for label in np.argsort(turned)], np.abs(means)


def _fit(X: NDArray[Any], n_atoms: int, gate: str = "softmax") -> tuple[ManifoldSAE, float]:
    start = time.perf_counter()
    model = ManifoldSAE(n_atoms=n_atoms, atom=Circle(harmonics=3), gate=gate).fit(X)
    if model.certificate_.status == INTERRUPTED:
        # a fit keeps its best state; whoever pressed Ctrl-C wants no more of the demonstration
        raise KeyboardInterrupt
    return model, time.perf_counter() - start


def _print_fit(model: ManifoldSAE, X: NDArray[Any], seconds: float) -> None:
    mean_only = ManifoldSAE(n_atoms=0).fit(X)
    print(model.summary())
    print(f"\nfitted in {seconds:.2f} s; evidence of the mean alone: {mean_only.evidence_:.2f} nats\n")
    centred = X - X.mean(axis=0, dtype=np.float64)
    variances = np.linalg.eigvalsh(centred @ centred.T)[::-1]
    shares = np.cumsum(variances) / variances.sum()
    rows = [[f"{c} principal component{'s' if c > 1 else ''}", f"{shares[c - 1]:.4f}"] for c in COMPONENTS]
    n_atoms = len(model.decoders_)
    fitted = [f"{n_atoms} circle{'s' if n_atoms > 1 else ''}", f"{model.explained_variance_:.4f}"]
    print(table(["model", "explained variance"], [fitted, *rows]))


def _print_order(model: ManifoldSAE, k: int, data: Activations, rows: NDArray[np.bool_]) -> None:
    present = np.unique(data.labels[rows])
    names = [data.label_names[label] for label in present]
    labels = np.searchsorted(present, data.labels[rows])
    order, resultant = label_order(model.coords_[k][rows, 0], labels, len(present))
    verdict = "the calendar order" if order == list(range(len(order))) else "not the calendar order"
    circle = " - ".join(names[label] for label in order)
    print(f"\nround the circle ({verdict}):\n  {circle}")
    print(f"least mean resultant length of a label: {resultant.min():.4f}")


def _draw(model: ManifoldSAE, k: int, data: Activations, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    model.plot_atom(k, labels=np.array(data.label_names)[data.labels], ax=figure.add_subplot())
    figure.savefig(path, dpi=PICTURE_DPI)
    print(f"picture: {path}")
