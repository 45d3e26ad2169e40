"""`ultron serve`: slow clients, many clients, and who gives way."""

import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.serve.requests_by_hand import Ask, jpeg, raw
from ultron_cli.serve import server as server_module
from ultron_cli.serve.connections import Connections, FairQueue
from ultron_cli.serve.limits import Refused
from ultron_cli.serve.server import RetrievalServer

HEAD = b"GET /api/about HTTP/1.1\r\nHost: localhost\r\n"


def post(n_bytes: int) -> bytes:
    return f"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: {n_bytes}\r\n\r\n".encode()


@contextlib.contextmanager
def clients(server: RetrievalServer, texts: list[bytes]) -> Iterator[list[socket.socket]]:
    """Connections, each with the beginning of a request."""
    with contextlib.ExitStack() as stack:
        connections = []
        for text in texts:
            connection = stack.enter_context(socket.create_connection(server.server_address[:2], timeout=20))
            connection.sendall(text)
            connections.append(connection)
        yield connections


def trickle(connection: socket.socket) -> float:
    """Seconds until the server ends a connection that gets a byte now and then."""
    started_s = time.monotonic()
    with contextlib.suppress(OSError):
        while time.monotonic() - started_s < 10:
            connection.sendall(b"a")
            connection.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                if not connection.recv(4096):
                    break
    return time.monotonic() - started_s


@pytest.mark.parametrize("text", [HEAD, b"G", post(100_000)])
def test_a_byte_now_and_then_does_not_hold_a_connection(
    server: RetrievalServer, monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    monkeypatch.setattr(server_module, "HEADER_S", 0.3)
    monkeypatch.setattr(server_module, "BODY_S", 0.3)
    with clients(server, [text]) as (connection,):
        assert 0.1 < trickle(connection) < 3


def test_a_slow_upload_is_told_so(server: RetrievalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "BODY_S", 0.2)
    status, _, body = raw(server, post(9000) + bytes(50))
    assert (status, json.loads(body)) == (408, {"error": "the upload is too slow; send at least 128 KiB a second"})


def test_an_idle_connection_ends(server: RetrievalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "IDLE_S", 0.2)
    with clients(server, [b""]) as (connection,):
        assert connection.recv(1) == b""


def test_slow_connections_give_way(ask: Ask, server: RetrievalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.connections, "most", 6)
    with clients(server, [HEAD, post(200_000), b""] * 10) as connections:
        for row in range(4):
            assert ask("/api/search", query=row)[0] == 200
        assert ask("/api/search", jpeg(60, 60))[0] == 200
        assert connections[0].recv(1) == b""  # the first gave way first


def test_slow_uploads_give_way_to_memory(ask: Ask, server: RetrievalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.connections, "most_upload_bytes", 250_000)
    with clients(server, [post(200_000)] * 3) as connections:
        for _ in range(2):  # which two is a matter of whose thread was last
            (first, *_), _, _ = select.select(connections, [], [], 20)
            assert first.recv(1) == b""
            connections.remove(first)
        assert ask("/api/search", jpeg(300, 300))[0] == 200


def test_who_is_computed_for_does_not_give_way() -> None:
    connections = Connections(2, 100)
    sockets = [socket.socket() for _ in range(5)]
    for connection in sockets[:2]:
        assert connections.enter(connection, "a")
        connections.upload_begins(connection, 50)
        connections.request_arrived(connection)
    assert not connections.enter(sockets[2], "b")
    connections.answer_begins(sockets[1])
    assert connections.enter(sockets[2], "b")
    with pytest.raises(ConnectionAbortedError):
        connections.request_arrived(sockets[1])
    with pytest.raises(Refused) as refusal:
        connections.upload_begins(sockets[2], 60)
    assert (refusal.value.status, refusal.value.retry_s) == (503, 2)
    for connection in sockets:
        connections.leave(connection)
        connection.close()


def test_the_client_with_most_connections_gives_way() -> None:
    connections = Connections(4, 100)
    sockets = [socket.socket() for _ in range(5)]
    for connection, client in zip(sockets, ["modest", "greedy", "greedy", "greedy", "modest"], strict=True):
        assert connections.enter(connection, client)
    connections.request_arrived(sockets[0])
    with pytest.raises(ConnectionAbortedError):
        connections.request_arrived(sockets[1])
    for connection in sockets:
        connection.close()


def wait_in(queue: FairQueue, clients: str) -> tuple[list[str], list[threading.Thread]]:
    """Starts a thread per letter, each of that client, in their order. Returns the answers, in order, as they come."""
    answers: list[str] = []

    def ask(client: str) -> None:
        try:
            with queue.turn(client):
                answers.append(client)
        except Refused as refusal:
            answers.append(f"{client} {refusal.status} {refusal.retry_s}")

    threads = [threading.Thread(target=ask, args=client) for client in clients]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    return answers, threads


def test_clients_take_turns() -> None:
    queue = FairQueue(20)
    with queue.turn("x"):
        assert queue.is_busy
        answers, threads = wait_in(queue, "aaaabbc")
    for thread in threads:
        thread.join()
    assert "".join(answers) == "abcabaa" and not queue.is_busy


def test_a_full_queue_tells_how_long_to_wait() -> None:
    queue = FairQueue(4)
    with queue.turn("x"):
        answers, threads = wait_in(queue, "aaaaab")  # the fifth of a is refused; b takes a place of a
    for thread in threads:
        thread.join()
    assert answers[:2] == ["a 503 2", "a 503 2"] and sorted(answers[2:]) == ["a", "a", "a", "b"]


def test_where_searches_take_long_fewer_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits longer than MOST_WAITED_S, by the pace of the latest turns."""
    queue = FairQueue(100)
    monkeypatch.setattr(queue, "_mean_turn_s", 20.0)
    with queue.turn("x"):
        answers, threads = wait_in(queue, "aaa")
    for thread in threads:
        thread.join()
    assert answers == ["a 503 40", "a", "a"]


def test_who_came_before_searches_took_long_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = FairQueue(100)
    with queue.turn("x"):
        answers, threads = wait_in(queue, "aaab")
        monkeypatch.setattr("ultron_cli.serve.connections.MOST_WAITED_S", 1e-6)  # one may wait
    for thread in threads:
        thread.join()
    assert sorted(answers) == ["a", "a 503 1", "a 503 1", "b"]


def test_a_queue_that_closes_lets_nobody_wait() -> None:
    queue = FairQueue(4)
    with queue.turn("x"):
        answers, threads = wait_in(queue, "ab")
        queue.close()
        for thread in threads:
            thread.join()
    assert sorted(answers) == ["a 503 None", "b 503 None"]


def test_searches_wait_in_a_queue_with_an_end(
    ask: Ask, server: RetrievalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = server.engine.queue
    monkeypatch.setattr(queue, "most_waiting", 1)
    with queue.turn("somebody"):
        _, threads = wait_in(queue, "a")
        status, headers, body = raw(server, b"GET /api/search?query=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        message = f"1 search is waiting already; try again in {headers['Retry-After']} s"
        assert (status, json.loads(body)) == (503, {"error": message})
    threads[0].join()
    monkeypatch.undo()
    monkeypatch.setattr("ultron_cli.serve.connections.MOST_WAITED_S", 1e6)  # however busy the machine is
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda row=row: answers.append(ask("/api/search", query=row % 4)[0]))
        for row in range(30)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 30


def test_nothing_is_computed_for_who_has_gone(server: RetrievalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    searches: list[object] = []
    monkeypatch.setattr(server.engine, "find", lambda *arguments, **_: searches.append(arguments) or {})
    request = b"GET /api/search?query=0 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with server.engine.queue.turn("somebody"), clients(server, [request] * 3):
        time.sleep(0.1)
    assert raw(server, request)[0] == 200
    assert len(searches) == 1
