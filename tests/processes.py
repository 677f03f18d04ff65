"""Threads in place of the processes of a fit, each with a connection to the first; rows for them, and their results."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass
from multiprocessing import Pipe
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sae_rs import _core
from sae_rs.exchange import Peers

Found = TypeVar("Found")
Array = NDArray[np.float64]


def overlapping(n: int = 600, seed: int = 3) -> Array:
    """Rows near sums of two circles, each on three rows of five."""
    rng = np.random.default_rng(seed)
    planes = np.linalg.qr(rng.standard_normal((8, 4)))[0].T
    radius = rng.uniform(0.85, 1.15, (n, 2)) * (rng.random((n, 2)) < 0.6)
    angle = rng.uniform(0.0, 2.0 * np.pi, (n, 2))
    rows = radius * np.cos(angle) @ planes[::2] + radius * np.sin(angle) @ planes[1::2]
    return rows + 0.05 * rng.standard_normal(rows.shape)


def same_models(one: dict[str, Any], other: dict[str, Any]) -> None:
    """What two fits have found is equal to the last bit, but for their terms."""
    assert one.keys() == other.keys()
    for name in one.keys() - {"_term"}:
        assert bits(one[name]) == bits(other[name]), name


def bits(value: Any) -> Any:
    """A value with its arrays as bytes, to be compared."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, _core.SaeManifoldRho):
        return bits(np.asarray(value.to_flat()))
    if is_dataclass(value) and not isinstance(value, type):
        return type(value), [bits(getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, (list, tuple)):
        return [bits(part) for part in value]
    return value


def peers(size: int, cancelled: threading.Event | None = None) -> list[Peers]:
    """The processes of a fit as each of them sees them."""
    cancelled = cancelled or threading.Event()
    pipes = [Pipe() for _ in range(size - 1)]
    ends: list[list[Any]] = [[hub for hub, _ in pipes], *([end] for _, end in pipes)]
    names = [f"process {rank}" for rank in range(size)]
    return [Peers(rank, size, own, names, cancelled) for rank, own in enumerate(ends)]


def together(size: int, work: Callable[[Peers], Found]) -> list[Found | BaseException]:
    """What each process finds, or its error; one that fails tells the others."""

    def one(own: Peers) -> Found | BaseException:
        try:
            return work(own)
        except BaseException as error:
            own.fail(error)
            return own.failure or error
        finally:
            own.close()

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, peers(size)))
