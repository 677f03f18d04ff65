"""Ends of a fit before its end: a callback that asks for one, and Ctrl-C.

Either ends a fit with its best state so far (`Search.cut_off`). Ctrl-C arrives as KeyboardInterrupt, wherever the fit
is at that moment. What is still to be done then, such as to see that state on all rows, is done in the handler of the
exception, where nothing catches another: a second Ctrl-C is raised.
"""

from __future__ import annotations

import logging

logger = logging.getLogger("sae_rs")

INTERRUPTED = "interrupted"


class Stopped(Exception):
    """The listener asked for an end."""


EARLY_ENDS = (Stopped, KeyboardInterrupt)


def status_of(end: Stopped | KeyboardInterrupt) -> str:
    """What a certificate calls such an end."""
    return INTERRUPTED if isinstance(end, KeyboardInterrupt) else "stopped"


def say_rows_follow(n_rows: int) -> None:
    """Tell whoever has ended a fit of a sample that all rows are still to be encoded, which may take a minute."""
    logger.warning("the fit has ended; all %d rows are encoded with what their sample came to. Ctrl-C gives up", n_rows)
