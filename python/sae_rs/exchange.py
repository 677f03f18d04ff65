"""One fit by several processes: what the core asks of their connection, and the connection itself.

Each process makes the whole fit, but works on rows of its own alone. What passes over the rows make of them is
exchanged before it is summed, so that all go on with the numbers that a single process would have.
"""

from __future__ import annotations

import pickle
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, NoReturn, Protocol

from .exceptions import ClusterError

# Seconds between two looks at whether the fit is to end.
POLL = 0.5


class Exchange(Protocol):
    """The processes of a fit as one of them sees them.

    Attributes
    ----------
    rank : int
        Its place among them, from 0.
    size : int
        How many there are.
    """

    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...

    def all_gather(self, mine: bytes) -> list[bytes]:
        """Everyone's bytes in the order of ranks, once all have given theirs."""
        ...

    def check(self) -> None:
        """Raise where work that is under way is to end."""
        ...

    def take(self) -> bytes:
        """What the process before this one, which is not the first, hands on."""
        ...

    def hand_on(self, mine: bytes) -> bytes:
        """Hand on to the next process; returns what the last one of all hands on."""
        ...


def share(exchange: Exchange | None, count: int) -> slice:
    """This process's part of things that lie in order: all of them for a single one."""
    if exchange is None:
        return slice(0, count)
    return slice(exchange.rank * count // exchange.size, (exchange.rank + 1) * count // exchange.size)


def gathered(exchange: Exchange | None, mine: Any) -> list[Any]:
    """Everyone's value in the order of ranks."""
    if exchange is None:
        return [mine]
    parts = exchange.all_gather(pickle.dumps(mine, protocol=pickle.HIGHEST_PROTOCOL))
    return [mine if rank == exchange.rank else pickle.loads(part) for rank, part in enumerate(parts)]


class Peers:
    """An `Exchange` over connections, all of them with the process of rank 0.

    A message without bytes says that a process has failed; the next one is the pickled error. An error of one process
    is then that of all.

    Parameters
    ----------
    rank, size : int
        This process, and how many there are.
    connections : sequence of Connection
        On rank 0 one to each other process in the order of ranks, elsewhere one to rank 0.
    names : sequence of str
        What the processes are called in errors, by rank.
    cancelled : threading.Event
        Set when the fit is to end.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        connections: Sequence[Connection],
        names: Sequence[str],
        cancelled: threading.Event,
    ) -> None:
        self.rank, self.size, self.failure = rank, size, None
        self._connections, self._names, self._cancelled = connections, names, cancelled

    failure: BaseException | None
    """Why this process could not go on, once that is so."""

    def all_gather(self, mine: bytes) -> list[bytes]:
        """Everyone's bytes in the order of ranks.

        Parameters
        ----------
        mine : bytes
            Not empty.

        Raises
        ------
        ClusterError
            When a process is lost or the fit is cancelled.
        BaseException
            What another process has failed with.
        """
        if self.rank:
            self._send(0, mine)
            parts = [self._receive(0) for _ in range(self.size - 1)]
            return [*parts[: self.rank], mine, *parts[self.rank :]]
        parts = [mine, *(self._receive(rank) for rank in range(1, self.size))]
        for rank in range(1, self.size):
            for other, part in enumerate(parts):
                if other != rank:
                    self._send(rank, part)
        return parts

    def check(self) -> None:
        """Raise a `ClusterError` when the fit was cancelled."""
        # nothing is sent: this may be called while another thread speaks to the others
        if self._cancelled.is_set():
            raise ClusterError("the fit was cancelled")

    def take(self) -> bytes:
        """What the process before this one hands on; not on rank 0. Errors are those of `all_gather`."""
        return self._receive(0)

    def hand_on(self, mine: bytes) -> bytes:
        """Hand on to the next process; returns what the last one hands on. Errors are those of `all_gather`."""
        last = self.size - 1
        if self.rank:
            self._send(0, mine)
            return mine if self.rank == last else self._receive(0)
        for rank in range(1, self.size):
            self._send(rank, mine)
            mine = self._receive(rank)
        for rank in range(1, last):
            self._send(rank, mine)
        return mine

    def fail(self, error: BaseException) -> None:
        """Tell the others that this process cannot go on, unless it is they who have said so."""
        if self.failure is not None:
            return
        self.failure = error
        reason = _pickled(error)
        for connection in self._connections:
            try:
                connection.send_bytes(b"")
                connection.send_bytes(reason)
            except OSError:
                # it is gone, and knows nothing of this fit any more
                continue

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()

    def _connection(self, rank: int) -> Connection:
        return self._connections[rank - 1 if self.rank == 0 else 0]

    def _send(self, rank: int, part: bytes) -> None:
        try:
            self._connection(rank).send_bytes(part)
        except OSError as error:
            # what it has said before it went, if anything, is the better reason
            self._listen(rank)
            self._end(self._lost(rank, error))

    def _listen(self, rank: int) -> None:
        connection = self._connection(rank)
        try:
            while connection.poll():
                if not connection.recv_bytes():
                    self._end(pickle.loads(connection.recv_bytes()))
        except (EOFError, OSError):
            return

    def _receive(self, rank: int) -> bytes:
        connection = self._connection(rank)
        try:
            while not connection.poll(POLL):
                if self._cancelled.is_set():
                    self._end(ClusterError("the fit was cancelled"))
            part = connection.recv_bytes()
            if part:
                return part
            error = pickle.loads(connection.recv_bytes())
        except (EOFError, OSError) as gone:
            error = self._lost(rank, gone)
        self._end(error)

    def _lost(self, rank: int, error: Exception) -> ClusterError:
        return ClusterError(f"{self._names[rank]} was lost during the fit ({type(error).__name__})")

    def _end(self, error: BaseException) -> NoReturn:
        self.fail(error)
        raise error


def _pickled(error: BaseException) -> bytes:
    try:
        reason = pickle.dumps(error)
        pickle.loads(reason)
    except Exception:
        # errors of other libraries may have arguments that cannot be sent or made again
        reason = pickle.dumps(ClusterError(f"{type(error).__name__}: {error}"))
    return reason
