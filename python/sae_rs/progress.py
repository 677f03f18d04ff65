"""Rendering of the progress of a fit, and the way a callback stops it."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .reml import FitProgress

Listener = Callable[["FitProgress"], object]


@contextmanager
def listening(progress: object, callback: object) -> Iterator[Callable[[FitProgress], bool] | None]:
    """Yield the one function that the outer loop calls, or None when nobody listens.

    Parameters
    ----------
    progress : None, bool or callable
        True renders a tqdm bar, or lines on standard error where tqdm is not installed; None and False are silent; a
        callable is called with each `FitProgress`.
    callback : None or callable
        Called with each `FitProgress`; a return value of True stops the fit with its best state.

    Yields
    ------
    callable or None
        Returns True when the fit is to stop.

    Raises
    ------
    ValueError
        When either argument is something else.
    """
    if not (progress is None or isinstance(progress, bool) or callable(progress)):
        raise ValueError(f"progress must be None, a bool or a callable, got {progress!r}")
    if not (callback is None or callable(callback)):
        raise ValueError(f"callback must be None or a callable, got {callback!r}")
    renderer = _renderer() if progress is True else None
    listener: Any = renderer if renderer is not None else progress or None
    if listener is None and callback is None:
        yield None
        return

    def notify(event: FitProgress) -> bool:
        if listener is not None:
            listener(event)
        # Only True stops: a callback that returns some other value by accident must not cut a fit short.
        return callable(callback) and _is_true(callback(event))

    try:
        yield notify
    finally:
        if renderer is not None:
            renderer.close()


class _Lines:
    """One line on standard error for each evaluation."""

    def __call__(self, event: FitProgress) -> None:
        print(f"{event.stage} {event.evaluation}: {_describe(event)}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing to tidy up."""


class _Bar:
    """A tqdm bar that counts evaluations; how many a fit needs is not known before."""

    def __init__(self, tqdm: Any) -> None:
        self._tqdm = tqdm
        self._bar: Any = None

    def __call__(self, event: FitProgress) -> None:
        if self._bar is None:
            self._bar = self._tqdm(unit=" evaluations", file=sys.stderr)
        self._bar.set_description(event.stage)
        self._bar.set_postfix_str(_describe(event), refresh=False)
        self._bar.update(max(event.evaluation - self._bar.n, 0))

    def close(self) -> None:
        """Leave the terminal on a fresh line."""
        if self._bar is not None:
            self._bar.close()


def _describe(event: FitProgress) -> str:
    gradient = "" if math.isnan(event.gradient_norm) else f", gradient {event.gradient_norm:.2g}"
    return f"evidence {event.value:.6g}{gradient}"


def _renderer() -> _Bar | _Lines:
    try:
        tqdm = importlib.import_module("tqdm.auto")
    except ImportError:
        return _Lines()
    return _Bar(tqdm.tqdm)


def _is_true(answer: object) -> bool:
    return isinstance(answer, (bool, np.bool_)) and bool(answer)
