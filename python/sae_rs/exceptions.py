"""Errors and warnings that a caller may want to catch by name."""

from __future__ import annotations


class NotFittedError(ValueError, AttributeError):
    """A method that needs a fitted model was called before ``fit``.

    It is both a `ValueError` and an `AttributeError`, so that ``hasattr(model, "coords_")`` is False before ``fit``.
    """


class ClusterError(RuntimeError):
    """A fit on a cluster could not go on: a worker was lost, or workers have come to different numbers."""


class ConvergenceWarning(UserWarning):
    """The fit stopped before it converged; the model holds the best state found and ``converged_`` is False."""


class FoldWarning(UserWarning):
    """An atom that closes has as many coordinates as there are columns, where it cannot close without a fold."""
