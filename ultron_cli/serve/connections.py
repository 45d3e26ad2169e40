"""Who is connected to `ultron serve`, who is computed for, and who gives way when places run short.

A connection holds a thread, and an upload memory, for as long as its client likes. So whoever keeps the server waiting,
idle or slow, gives way to whoever comes; what is being computed, or waits for that, does not.
"""

import contextlib
import math
import socket
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from ultron_cli.console import counted
from ultron_cli.serve.limits import Refused

SHARE_OF_LATEST = 0.2  # of the latest turn in the mean of turns
LONGEST_WAIT_S = 60  # that is told
MOST_WAITED_S = 45.0  # for a turn; clients and proxies give up after a minute or two


@dataclass(eq=False)
class OpenConnection:
    """One connection, as Connections counts it."""

    socket: socket.socket
    client: str  # its address without port
    waits_since_s: float  # when it was accepted, or had its latest answer
    is_waited_for: bool = True  # whether its client has to send or to read something
    n_upload_bytes: int = 0  # of a body that is being read or searched with


class Connections:
    """The open connections and the memory of their uploads, both limited."""

    def __init__(self, most: int, most_upload_bytes: int) -> None:
        self.most = most
        self.most_upload_bytes = most_upload_bytes
        self._lock = threading.Lock()
        self._open: dict[socket.socket, OpenConnection] = {}

    def enter(self, connection: socket.socket, client: str) -> bool:
        """Counts a new connection. Where there is no place, the one that gives way is closed; False if none does."""
        with self._lock:
            if len(self._open) >= self.most and not self._give_way(list(self._open.values())):
                return False
            self._open[connection] = OpenConnection(connection, client, time.monotonic())
            return True

    def leave(self, connection: socket.socket) -> None:
        """The connection has ended."""
        with self._lock:
            self._open.pop(connection, None)

    def request_arrived(self, connection: socket.socket) -> None:
        """From now on the client waits for the server. Raises ConnectionAbortedError if the connection gave way."""
        with self._lock:
            self._of(connection).is_waited_for = False

    def upload_begins(self, connection: socket.socket, n_bytes: int) -> None:
        """The client has an upload of `n_bytes` to send. Where there is no memory, slow uploads give way; raises
        Refused if that is not enough, ConnectionAbortedError as request_arrived."""
        with self._lock:
            newcomer = self._of(connection)
            while n_bytes + sum(other.n_upload_bytes for other in self._open.values()) > self.most_upload_bytes:
                if not self._give_way([other for other in self._open.values() if other.n_upload_bytes]):
                    raise Refused(503, "the uploads that are being searched with fill the memory for them", 2)
            newcomer.n_upload_bytes = n_bytes
            newcomer.is_waited_for = True

    def answer_begins(self, connection: socket.socket) -> None:
        """The client has an answer to read, and then its next request to send."""
        with self._lock, contextlib.suppress(ConnectionAbortedError):
            answered = self._of(connection)
            answered.is_waited_for, answered.n_upload_bytes, answered.waits_since_s = True, 0, time.monotonic()

    def _of(self, connection: socket.socket) -> OpenConnection:
        if connection not in self._open:
            raise ConnectionAbortedError("gave way to others")
        return self._open[connection]

    def _give_way(self, connections: list[OpenConnection]) -> bool:
        """Closes the one that is waited for longest, of the client that has most. False if none is waited for."""
        counts = Counter(connection.client for connection in connections)
        slow = [connection for connection in connections if connection.is_waited_for]
        if not slow:
            return False
        slowest = min(slow, key=lambda connection: (-counts[connection.client], connection.waits_since_s))
        del self._open[slowest.socket]
        with contextlib.suppress(OSError):  # its thread closes it
            slowest.socket.shutdown(socket.SHUT_RDWR)
        return True


@dataclass(eq=False)
class Ticket:
    """A request that waits for its turn."""

    called: threading.Event = field(default_factory=threading.Event)
    is_refused: bool = False


class FairQueue:
    """Requests that are computed one after the other: clients in turns, the requests of a client in their order."""

    def __init__(self, most_waiting: int) -> None:
        """most_waiting: requests, or as many as take MOST_WAITED_S by the pace of the latest where those are fewer."""
        self.most_waiting = most_waiting
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, deque[Ticket]] = (
            OrderedDict()
        )  # client -> its tickets; whose turn is next first
        self._is_busy = False
        self._is_closed = False
        self._mean_turn_s = 0.5

    @contextlib.contextmanager
    def turn(self, client: str) -> Iterator[None]:
        """Waits until nobody else computes. Raises Refused, with the seconds until a place may be free, if the queue is
        full: then a client with more requests in it than another gives one up to that."""
        ticket = self._take_ticket(client)
        ticket.called.wait()
        if self._is_closed:
            raise Refused(503, "the server is stopping")
        if ticket.is_refused:
            with self._lock:
                raise self._full()
        started_s = time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._mean_turn_s += SHARE_OF_LATEST * (time.monotonic() - started_s - self._mean_turn_s)
                self._call_next()
                while self._n_waiting() > self._most():  # turns have become longer since these came
                    self._refuse_last(self._greediest())

    @property
    def is_busy(self) -> bool:
        """Whether something is being computed."""
        return self._is_busy

    def close(self) -> None:
        """Refuses whoever waits, and whoever comes."""
        with self._lock:
            self._is_closed = True
            for tickets in self._waiting.values():
                for ticket in tickets:
                    ticket.called.set()
            self._waiting.clear()

    def _take_ticket(self, client: str) -> Ticket:
        ticket = Ticket()
        with self._lock:
            if not self._is_busy or self._is_closed:
                self._is_busy = True
                ticket.called.set()
                return ticket
            if self._n_waiting() >= self._most():
                greediest = self._greediest()
                if len(self._waiting[greediest]) <= len(self._waiting.get(client, ())) + 1:
                    raise self._full()
                self._refuse_last(greediest)
            self._waiting.setdefault(client, deque()).append(ticket)
            return ticket

    def _call_next(self) -> None:
        if not self._waiting:
            self._is_busy = False
            return
        client, tickets = self._waiting.popitem(last=False)
        tickets.popleft().called.set()
        if tickets:
            self._waiting[client] = tickets  # behind the others

    def _n_waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    def _most(self) -> int:
        """Requests that may wait now."""
        return min(self.most_waiting, max(1, int(MOST_WAITED_S / max(self._mean_turn_s, 1e-3))))

    def _greediest(self) -> str:
        """The client that has most requests waiting; of several the one whose turn is last."""
        return max(reversed(self._waiting), key=lambda name: len(self._waiting[name]))

    def _refuse_last(self, client: str) -> None:
        tickets = self._waiting[client]
        last = tickets.pop()
        if not tickets:
            del self._waiting[client]
        last.is_refused = True
        last.called.set()

    def _full(self) -> Refused:
        n_waiting = self._n_waiting()
        wait_s = max(1, min(LONGEST_WAIT_S, math.ceil(n_waiting * self._mean_turn_s)))
        return Refused(
            503, f"{counted(n_waiting, 'search is', 'searches are')} waiting already; try again in {wait_s} s", wait_s
        )
