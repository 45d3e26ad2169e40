"""The web server of `ultron serve`: a page, photos by row number, and a JSON API (docs/serve.md) over
photo_search.PhotoSearch.

It is meant for the person who started it. Against other pages in that person's browser it checks the Host header (DNS
rebinding), Origin and Sec-Fetch-Site; against anybody, the sizes of bodies, how many requests wait, and how long they
may take: a header has HEADER_S, a body a least rate, an answer SEND_S to be read (connections.py says who gives way).

It is http.server's and not uvicorn's: uvicorn has a deadline between requests only, none for a header or a body, and
answers everybody with 503 where slow connections fill its limit; deadlines and places would be ours on top of it.
"""

import contextlib
import io
import ipaddress
import re
import signal
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from ultron_cli.console import log
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.guarded import lasting_child
from ultron_cli.serve.connections import Connections
from ultron_cli.serve.limits import Refused
from ultron_cli.serve.photo_search import PhotoSearch
from ultron_cli.serve.routes import Answer, answer, json_answer

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MOST_CONNECTIONS = 256  # more than can wait for a search, so that there is always one that gives way
MOST_UPLOADS = 16  # of the largest size, in memory at a time
IDLE_S = 30  # of a connection, between requests
HEADER_S = 10  # from the first byte of a request to the end of its header
BODY_S = 10  # that a body may be behind SLOWEST_BYTES_PER_S
SLOWEST_BYTES_PER_S = 128 * 1024
SEND_S = 30  # to read an answer
DRAINED_BYTES = 1 << 26  # of a body that is refused: read, so that the sender gets to read the answer
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' blob: data:; style-src 'self'; "
    "script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
Connection = socket.socket | tuple[bytes, socket.socket]  # as socketserver hands it on
Address = tuple[str, int] | str
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class Incoming(io.RawIOBase):
    """What a client sends, until a deadline, after which reading raises TimeoutError.

    The deadline is that of a whole header or body, where a socket's own timeout begins anew with every byte.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.expect_request()

    def expect_request(self) -> None:
        """Nothing has to come for IDLE_S; from the first byte on, a header has HEADER_S."""
        self.is_idle = True
        self.deadline_s = time.monotonic() + IDLE_S

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        left_s = self.deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the client is too slow")
        self.connection.settimeout(left_s)
        n_bytes = self.connection.recv_into(buffer)
        if self.is_idle:
            self.is_idle = False
            self.deadline_s = time.monotonic() + HEADER_S
        return n_bytes


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    if TYPE_CHECKING:  # RetrievalServer makes no other
        server: "RetrievalServer"  # pyright: ignore[reportIncompatibleVariableOverride]  # narrower than the base's
    protocol_version = "HTTP/1.1"
    timeout = SEND_S
    disable_nagle_algorithm = True  # else a body waits 40 ms for the receipt of its header

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.incoming = Incoming(self.connection)
        self.rfile = io.BufferedReader(self.incoming)
        self.client = str(self.client_address[0])

    def handle_one_request(self) -> None:
        self.incoming.expect_request()
        super().handle_one_request()

    @property
    def engine(self) -> PhotoSearch:
        """What searches."""
        return self.server.engine

    def version_string(self) -> str:
        """The Server header, without versions."""
        return "ultron"

    def log_message(self, format: str, *args: object) -> None:
        """Requests are logged with -v; what a client wrote is escaped."""
        log.debug("%s %s", self.address_string(), ascii(format % args))

    def do_GET(self) -> None:
        self._respond()

    do_HEAD = do_POST = do_GET

    def _respond(self) -> None:
        self.parameters: dict[str, str] = {}
        self.unread = 0  # bytes of the body
        try:
            self.server.connections.request_arrived(self.connection)
            reply = self._answer()
        except Refused as refusal:
            reply = json_answer({"error": str(refusal)}, refusal.status)
            if refusal.retry_s is not None:
                reply = replace(reply, headers={**reply.headers, "Retry-After": str(refusal.retry_s)})
        except (ConnectionError, TimeoutError):
            self.close_connection = True
            return
        except UltronError as error:
            log.error("%s", error)
            reply = json_answer({"error": "the search failed; the terminal of the server says why"}, 500)
        except Exception:
            if self.server.is_stopping:  # what it needed has been ended
                self.close_connection = True
                return
            log.exception("a request failed: %s", ascii(self.requestline)[:200])
            reply = json_answer({"error": "the server failed; its terminal says why"}, 500)
        self._send(reply)

    def _answer(self) -> Answer:
        self._check_body()
        self._check_caller()
        return answer(self, self._target())

    def _target(self) -> SplitResult:
        try:
            return urlsplit(self.path)
        except ValueError:
            raise Refused(400, "the address is malformed") from None

    def _check_body(self) -> None:
        """Raises Refused for a body whose length is not told, or that does not belong here."""
        lengths = self.headers.get_all("Content-Length", [])
        if (
            "Transfer-Encoding" in self.headers
            or len(lengths) > 1
            or (lengths and not re.fullmatch(r"[0-9]{1,15}", lengths[0].strip()))
        ):
            self.close_connection = True
            raise Refused(411, "a body needs one Content-Length and no Transfer-Encoding")
        self.unread = int(lengths[0]) if lengths else 0
        if self.command == "POST" and not lengths:
            self.close_connection = True
            raise Refused(411, "a POST needs a Content-Length")
        if self.command != "POST" and self.unread:
            raise Refused(400, f"{self.command} takes no body")

    def _check_caller(self) -> None:
        """Raises Refused for requests that another web page may have caused."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not self.server.answers_to(hosts[0]):
            header = hosts[0][:60] if len(hosts) == 1 else f"{len(hosts)} of them"
            raise Refused(
                403,
                f"the Host header must name this server, found {header!r}; open the address that `ultron serve` "
                "printed",
            )
        origin = self.headers.get("Origin")
        if origin is not None and origin.lower() not in (
            f"http://{hosts[0].strip().lower()}",
            f"https://{hosts[0].strip().lower()}",
        ):
            raise Refused(403, "requests of other web pages are not answered")
        if self.headers.get("Sec-Fetch-Site", "none") in ("cross-site", "same-site") and self._target().path != "/":
            raise Refused(403, "requests of other web pages are not answered")

    def body(self, most_bytes: int) -> bytes:
        """The body of a POST. Raises Refused if it is empty, too large, too slow or cut off."""
        if self.unread > most_bytes:
            raise Refused(413, f"the upload has {self.unread / 2**20:.1f} MiB; at most {most_bytes / 2**20:g}")
        if not self.unread:
            raise Refused(400, "the upload is empty; send a photo as the body")
        self.server.connections.upload_begins(self.connection, self.unread)
        try:
            content = b"".join(self._pieces(self.unread))
        except TimeoutError:
            self.unread = 0
            self.close_connection = True
            raise Refused(
                408, f"the upload is too slow; send at least {SLOWEST_BYTES_PER_S // 1024} KiB a second"
            ) from None
        self.server.connections.request_arrived(self.connection)
        return content

    def require_reader(self) -> None:
        """Raises ConnectionResetError if the client has closed the connection."""
        self.connection.settimeout(0)
        try:
            is_gone = self.connection.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            is_gone = False
        if is_gone:
            raise ConnectionResetError("the client has gone")

    def _pieces(self, n_bytes: int) -> Iterator[bytes]:
        self.incoming.deadline_s = time.monotonic() + BODY_S
        while n_bytes:
            piece = self.rfile.read1(min(n_bytes, 1 << 16))
            if not piece:
                raise ConnectionResetError("the upload was cut off")
            self.incoming.deadline_s += len(piece) / SLOWEST_BYTES_PER_S
            n_bytes -= len(piece)
            self.unread -= len(piece)
            yield piece

    def _send(self, answer: Answer) -> None:
        self.server.connections.answer_begins(self.connection)
        try:
            if self.unread:
                self.close_connection = True
                for _ in self._pieces(min(self.unread, DRAINED_BYTES)):
                    pass
            self.connection.settimeout(SEND_S)
            self.send_response(answer.status)
            for name, value in {
                "Content-Type": answer.content_type,
                "Content-Length": str(len(answer.body)),
                **SECURITY_HEADERS,
                **answer.headers,
            }.items():
                self.send_header(name, value)
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)
        except (ConnectionError, TimeoutError):
            self.close_connection = True  # the reader has gone

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server itself refuses (malformed requests, unknown methods), as JSON too."""
        self.close_connection = True
        self.unread = 0
        self.request_version = self.protocol_version
        self.command = getattr(self, "command", None) or "GET"
        self._send(json_answer({"error": "the request is malformed, too long, or of an unknown method"}, int(code)))


class RetrievalServer(ThreadingHTTPServer):
    """Listens as soon as it is made; `serve_forever` answers. Raises UltronError if the address cannot be had. Use as a
    context manager."""

    daemon_threads = True
    request_queue_size = 128  # connections that the system holds until they are accepted

    def __init__(self, engine: PhotoSearch, host: str = "127.0.0.1", port: int = 0) -> None:
        self.engine = engine
        self.host = host.strip("[]").lower()
        self.address_family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self.connections = Connections(MOST_CONNECTIONS, MOST_UPLOADS * engine.config.max_upload_bytes)
        self.known_names = LOCAL_NAMES | {self.host}
        self.is_stopping = False
        try:
            super().__init__((self.host, port), Handler)
        except (OSError, OverflowError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise WorkFailed(
                f"cannot listen on {host}, port {port} ({reason}); name another `port`, or 0 for any that is free"
            ) from error
        address = ipaddress.ip_address(str(self.server_address[0]))
        self.is_local = address.is_loopback
        self.is_everywhere = address.is_unspecified
        if self.is_everywhere:
            self.known_names |= {socket.gethostname().lower()}

    def server_bind(self) -> None:
        """Without the base class's question to DNS for a name of the address."""
        socketserver.TCPServer.server_bind(self)
        self.server_name = self.host
        self.server_port = self.server_address[1]

    @property
    def url(self) -> str:
        """The address to open."""
        name = self.host
        if self.is_everywhere:
            name = "127.0.0.1" if self.address_family == socket.AF_INET else "::1"
        return f"http://{f'[{name}]' if ':' in name else name}:{self.server_port}/"

    def answers_to(self, host_header: str) -> bool:
        """Whether a Host header names this server, by any port (it may be tunnelled).

        A page that rebinds its own DNS name to this machine sends that name; addresses in numbers cannot be rebound.
        """
        try:
            parts = urlsplit(f"//{host_header.strip()}")
            name, _ = parts.hostname, parts.port
        except ValueError:
            return False
        if not name or parts.netloc != host_header.strip() or "@" in parts.netloc:
            return False
        if name in self.known_names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.is_everywhere

    def process_request(self, request: Connection, client_address: Address) -> None:
        """A thread per connection, up to a limit."""
        assert isinstance(request, socket.socket)
        if not self.connections.enter(request, str(client_address[0])):
            with contextlib.suppress(OSError):
                request.settimeout(0)
                request.sendall(BUSY)
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Connection, client_address: Address) -> None:
        """As the base class, counted."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            assert isinstance(request, socket.socket)
            self.connections.leave(request)

    def handle_error(self, request: Connection, client_address: Address) -> None:
        """A fault outside of an answer: logged instead of printed."""
        log.debug("connection of %s failed", client_address, exc_info=True)


def run(server: RetrievalServer) -> None:
    """Answers until Ctrl-C or SIGTERM."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    # Only the main thread may set what a signal does.
    is_main = threading.current_thread() is threading.main_thread()
    earlier_handler = signal.signal(signal.SIGTERM, stop) if is_main else None
    try:
        with lasting_child():  # which reads uploads
            server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        server.is_stopping = True
        log.info("stopped")
    finally:
        if earlier_handler is not None:
            signal.signal(signal.SIGTERM, earlier_handler)
