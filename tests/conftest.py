"""What tests of several files ask for."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture
def signal_is_heard() -> Iterator[None]:
    """Ctrl-C raises: jobs in the background inherit a shell's deafness to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
