"""What a worker does for a fit: its part of the work, and how it reaches the other workers."""

from __future__ import annotations

import importlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from numpy.typing import ArrayLike, NDArray

from .. import fitting
from .._core import ExchangeError
from ..exceptions import ClusterError
from ..exchange import Peers
from ..fit_attributes import attributes
from ..fit_data import FitData
from ..metrics import RowMetric
from ..settings import FitSettings
from .clients import FileBlock

Address = tuple[str, int]


class Part(NamedTuple):
    """A fit that workers share: its name, the key of its connections, and the workers' addresses by rank."""

    token: str
    key: bytes
    addresses: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        return [f"the worker at {address}" for address in self.addresses]


@dataclass(frozen=True, eq=False)
class Given:
    """What a fit is asked to do, its rows or where they are, and what goes with them."""

    settings: FitSettings
    rows: NDArray[Any] | FileBlock
    weights: ArrayLike | None
    metric: RowMetric | None

    def data(self) -> FitData:
        """The rows, checked.

        Raises
        ------
        ValueError
            For rows that cannot be fitted.
        OSError
            When their file cannot be read.
        """
        rows = self.rows.rows() if isinstance(self.rows, FileBlock) else self.rows
        return FitData.checked(rows, self.weights, self.metric, self.settings)


@dataclass(eq=False)
class _Run:
    """What a process knows of a fit that it takes part in."""

    cancelled: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    # where others call, until all have
    listener: Listener | None = None
    listening: bool = False


# Fits of this process, by their tokens and its ranks in them.
_RUNS: dict[tuple[str, int], _Run] = {}


def open_hub(part: Part) -> Address:
    """Make room for the calls of the other workers; returns where they go."""
    host = urlsplit(part.addresses[0]).hostname or "localhost"
    listener = Listener((host, 0), backlog=len(part.addresses), authkey=part.key)
    _RUNS[part.token, 0] = _Run(listener=listener)
    address: Address = listener.address
    return address


def cancel(part: Part, hub: Address) -> None:
    """End what this process does for a fit soon."""
    for rank in range(len(part.addresses)):
        run = _RUNS.get((part.token, rank))
        if run is None:
            continue
        run.cancelled.set()
        with run.lock:
            if run.listening:
                # a listener is woken by a call alone, for which nothing must wait here
                threading.Thread(target=_knock, args=(hub, part.key), daemon=True).start()
            elif run.listener is not None:
                run.listener.close()
                run.listener = None
                _RUNS.pop((part.token, rank), None)


def _knock(hub: Address, key: bytes) -> None:
    try:
        Client(hub, authkey=key).close()
    except (OSError, EOFError):
        # nobody listens any more
        return


def fit_part(part: Part, rank: int, hub: Address, threads: int, given: Given) -> dict[str, Any] | None:
    """A worker's part of a fit on so many threads, unless it was asked for another number; the attributes of the fitted
    estimator where the rank is 0, else None."""
    # the fits of two clients may reach two workers in different orders: neither waits for a thread that the other has
    importlib.import_module("distributed").secede()
    settings = replace(given.settings, threads=given.settings.threads or threads)
    with _joined(part, rank, hub) as peers:
        try:
            data = given.data()
            found = fitting.run(settings, data, None, None, peers)
            return {**attributes(found, data, settings), "_term": None} if rank == 0 else None
        except BaseException as error:
            # the core says no more than that there was one
            reason = peers.failure or (ClusterError(str(error)) if isinstance(error, ExchangeError) else error)
            peers.fail(reason)
            if reason is error:
                raise
            raise reason from None


@contextmanager
def _joined(part: Part, rank: int, hub: Address) -> Iterator[Peers]:
    """The other workers, once all are there."""
    run = _RUNS.get((part.token, rank)) if rank == 0 else _RUNS.setdefault((part.token, rank), _Run())
    if run is None:
        raise ClusterError(f"{part.names[0]} was restarted, or the fit was cancelled")
    connections: list[Connection[Any, Any]] = []
    try:
        connections += _accepted(part, run) if rank == 0 else [_called(part, rank, hub)]
        for connection in connections:
            _send_at_once(connection)
        yield Peers(rank, len(part.addresses), connections, part.names, run.cancelled)
    finally:
        _RUNS.pop((part.token, rank), None)
        for connection in connections:
            connection.close()


def _send_at_once(connection: Connection[Any, Any]) -> None:
    """Have the system wait for no further bytes before it sends some: every process waits for the other's."""
    own = socket.socket(fileno=connection.fileno())
    try:
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    finally:
        # the connection keeps it
        own.detach()


def _called(part: Part, rank: int, hub: Address) -> Connection[Any, Any]:
    try:
        connection = Client(hub, authkey=part.key)
        connection.send(rank)
    except (OSError, EOFError, AuthenticationError) as error:
        raise ClusterError(f"{part.names[0]} cannot be reached from {part.names[rank]}: {error}") from error
    return connection


def _accepted(part: Part, run: _Run) -> list[Connection[Any, Any]]:
    """Connections to all others in the order of their ranks."""
    callers: dict[int, Connection[Any, Any]] = {}
    with run.lock:
        listener, run.listening = run.listener, True
    try:
        while len(callers) + 1 < len(part.addresses):
            if listener is None or run.cancelled.is_set():
                raise ClusterError("the fit was cancelled")
            try:
                caller = listener.accept()
                callers[caller.recv()] = caller
            except (ConnectionError, EOFError, AuthenticationError):
                # not one of the workers, or one that is lost, of which the client knows
                continue
    except BaseException:
        for caller in callers.values():
            caller.close()
        raise
    finally:
        with run.lock:
            run.listener, run.listening = None, False
        if listener is not None:
            listener.close()
    return [callers[rank] for rank in sorted(callers)]
