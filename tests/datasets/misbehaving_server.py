"""An HTTP server on 127.0.0.1 that serves bytes by path, with ranges and tags as real ones, and misbehaves as told."""

import re
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class MisbehavingServer:
    """files: bytes by path. manners: what the next requests for a path meet, first first; an empty list is good
    manners.

    Manners: `cut N` (the connection ends after N bytes of the body), `no ranges`, `short N` (Content-Length is N more
    than comes), `no length`, `STATUS` (an HTTP code), `redirect PATH`, `stall N` (silence after N bytes, until the
    server ends), `page` (a web page), `weak` (no usable tag), `wrong range`, `encoded` (said to be gzip-encoded).
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.manners: dict[str, list[str]] = defaultdict(list)
        self.requests: list[tuple[str, str]] = []  # (path, Range header)
        self.end = threading.Event()
        self.stalled = threading.Event()  # an answer has fallen silent
        owner = self

        class Handler(_Handler):
            server_state = owner

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.base = f"http://127.0.0.1:{self._server.server_port}"

    def address(self, path: str) -> str:
        """Address of a path."""
        return f"{self.base}/{path}"

    def ranges(self, path: str) -> list[str]:
        """The Range headers of the requests for a path so far."""
        return [byte_range for requested, byte_range in self.requests if requested == path]

    def close(self) -> None:
        """Ends the server and every stalled answer."""
        self.end.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server_state: MisbehavingServer

    def do_GET(self) -> None:
        state, path = self.server_state, self.path.lstrip("/")
        byte_range = self.headers.get("Range", "")
        state.requests.append((path, byte_range))
        manner, _, value = (state.manners[path].pop(0) if state.manners[path] else "").partition(" ")
        if manner == "redirect":
            self.send_response(302)
            self.send_header("Location", f"/{value}")
            self.end_headers()
        elif manner.isdigit():
            self.send_error(int(manner))
        elif manner == "page":
            self._answer(b"<html>please log in</html>", 200, {"Content-Type": "text/html; charset=utf-8"})
        elif path not in state.files:
            self.send_error(404)
        else:
            self._serve(state.files[path], byte_range, f"{manner} {value}".strip())

    def _serve(self, data: bytes, byte_range: str, manner: str) -> None:
        tag = f'"{hash(data)}"'
        headers = {"ETag": f"W/{tag}" if manner == "weak" else tag, "Content-Type": "application/octet-stream"}
        if manner == "encoded":
            headers["Content-Encoding"] = "x-gzip"
        status, start = 200, 0
        offset = re.fullmatch(r"bytes=(\d+)-", byte_range)
        if offset and manner != "no ranges" and self.headers.get("If-Range", tag) == tag:
            start = int(offset[1])
            if start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.end_headers()
                return
            status = 206
            shown = start + 1 if manner == "wrong range" else start
            headers["Content-Range"] = f"bytes {shown}-{len(data) - 1}/{len(data)}"
        self._answer(data[start:], status, headers, manner)

    def _answer(self, body: bytes, status: int, headers: dict[str, str], manner: str = "") -> None:
        what, _, number = manner.partition(" ")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if what != "no":
            self.send_header("Content-Length", str(len(body) + (int(number) if what == "short" else 0)))
        elif number == "ranges":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if what in ("cut", "stall"):
            self.wfile.write(body[: int(number)])
            self.wfile.flush()
            if what == "stall":
                self.server_state.stalled.set()
                self.server_state.end.wait(30)
        else:
            self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *arguments: object) -> None:
        pass
