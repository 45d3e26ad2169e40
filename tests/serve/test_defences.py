"""`ultron serve`: what the server refuses: bad uploads, other hosts and pages, paths, malformed requests."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.serve.requests_by_hand import Ask, huge_png, jpeg, raw
from ultron_cli.errors import UltronError
from ultron_cli.serve.limits import Refused
from ultron_cli.serve.photo_search import MOST_WAITING
from ultron_cli.serve.server import RetrievalServer

BAD_UPLOADS = {
    "empty": (b"", 400, "the upload is empty"),
    "too large": (bytes(1 << 20), 413, "the upload has 1.0 MiB; at most 0.25"),
    "text": (b"<html>not a photo</html>" * 20, 415, "is not a photo that can be read"),
    "PostScript": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\n(x) print\n%%EOF\n",
        415,
        "the upload is not a photo that can be read; send one of JPEG",
    ),
    "bomb": (huge_png(1500, 1400), 413, "the photo has 2.1 million pixels; at most 2"),
    "thin bomb": (huge_png(1, 100_000), 413, "the photo has 3.2 million pixels; at most 2"),
    "huge bomb": (huge_png(60_000, 60_000), 413, "the photo has 3,600.0 million pixels; at most 2"),
    "cut off": (jpeg(300, 200)[:9000], 415, "damaged or cut off"),
}


@pytest.mark.parametrize("name", BAD_UPLOADS)
def test_bad_uploads(ask: Ask, name: str) -> None:
    content, status, message = BAD_UPLOADS[name]
    answer_status, answer = ask("/api/search", content)
    assert answer_status == status and message in answer["error"]
    assert ask("/api/search", jpeg(80, 60))[0] == 200  # and it goes on


TRAVERSALS = (
    "/photo/../../etc/passwd",
    "/photo/..%2f..%2fetc%2fpasswd",
    "/photo/%2e%2e/%2e%2e/etc/passwd",
    "/photo/0/../../serve.py",
    "/photo/0%00.jpg",
    "/photo/-1",
    "/photo/0.jpg",
    "/photo/1e1",
    "/photo/\\..\\..\\x",
    "//etc/passwd",
    "/etc/passwd",
    "/serve.py",
    "/page.html",
    "/../page.css",
    "/jpg/",
    "/photo/",
    "/photo/9999999999",
    "file:///etc/passwd",
)


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_to_a_file(server: RetrievalServer, path: str) -> None:
    status, headers, body = raw(server, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert (status, headers["Content-Type"]) == (404, "application/json; charset=utf-8")
    assert json.loads(body) == {"error": "there is nothing at this address; docs/serve.md lists what there is"}


def test_a_name_in_the_descriptors_does_not_lead_out_of_the_dataset(
    server: RetrievalServer, monkeypatch: pytest.MonkeyPatch, photos: Path
) -> None:
    Image.new("RGB", (50, 50)).save(photos / "secret.jpg")
    for name in ("../secret", "a/../../secret", str(photos / "secret"), "..\\secret", "C:\\secret"):
        monkeypatch.setattr(server.engine, "names", [name])
        with pytest.raises(Refused, match="leads out of its dataset"):
            server.engine.picture("photo", 0, "small")


OTHER_HOSTS = (
    "evil.example",
    "evil.example:8765",
    "127.0.0.1.evil.example",
    "localhost@evil.example",
    "10.0.0.7",
    "",
    "localhost\r\nHost: evil.example",
)


@pytest.mark.parametrize("host", OTHER_HOSTS)
def test_another_host_name_is_refused(server: RetrievalServer, host: str) -> None:
    for path in ("/", "/api/about", "/photo/0"):
        status, _, body = raw(server, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        assert status == 403 and "the Host header must name this server" in json.loads(body)["error"]


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1:1", "LOCALHOST", "[::1]:80"])
def test_own_names_are_answered_by_any_port(server: RetrievalServer, host: str) -> None:
    assert raw(server, f"GET /api/about HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())[0] == 200


def test_requests_of_other_pages_are_refused(ask: Ask, server: RetrievalServer) -> None:
    origins = [{"Origin": origin} for origin in ("http://evil.example", "null", "http://[bad")]
    for headers in (*origins, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
        assert ask("/api/search", jpeg(40, 40), headers) == (
            403,
            {"error": "requests of other web pages are not answered"},
        )
        assert ask("/photo/0", headers=headers)[0] == 403
    assert ask("/", headers={"Sec-Fetch-Site": "cross-site"})[0] == 200  # a link to the page
    assert ask("/api/about", headers={"Origin": server.url.rstrip("/"), "Sec-Fetch-Site": "same-origin"})[0] == 200


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("POST /api/search HTTP/1.1\r\nHost: localhost\r\n\r\n", 411),
        ("POST /api/search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        ("POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", 411),
        ("POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 411),
        ("GET /api/about HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", 400),
        ("POST /api/about HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", 405),
        ("DELETE /photo/0 HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
        ("GET http://[bad/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        (f"GET /{'a' * 70_000} HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
    ],
)
def test_malformed_requests(server: RetrievalServer, request_text: str, status: int) -> None:
    answer_status, headers, body = raw(server, request_text.encode())
    assert answer_status == status and set(json.loads(body)) == {"error"}
    assert headers.get("Connection") == "close" or "[bad" in request_text
    assert "Python" not in headers["Server"]


def test_every_answer_has_the_security_headers(server: RetrievalServer) -> None:
    for path in ("/", "/page.js", "/page.css", "/api/about", "/photo/0", "/nothing"):
        for method in ("GET", "HEAD"):
            _, headers, body = raw(
                server, f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
            )
            policy = headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
            assert (headers["X-Content-Type-Options"], headers["Cross-Origin-Resource-Policy"]) == (
                "nosniff",
                "same-origin",
            )
            assert bool(body) == (method == "GET")


def test_searches_wait_in_a_queue_with_an_end(ask: Ask, server: RetrievalServer) -> None:
    held = [server.engine.turn() for _ in range(MOST_WAITING)]
    for turn in held:
        turn.__enter__()
    try:
        assert ask("/api/search", jpeg(40, 40)) == (503, {"error": "8 searches are waiting already; try again"})
    finally:
        for turn in held:
            turn.__exit__(None, None, None)
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda row=row: answers.append(ask("/api/search", query=row)[0]))
        for row in (0, 1, 2, 3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 4


def test_a_failing_search_says_no_path(ask: Ask, server: RetrievalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise UltronError("/data/database.h5: row 3 has NaN or infinity; extract it again")

    monkeypatch.setattr(server.engine, "_ranked", fail)
    assert ask("/api/search", query=0) == (500, {"error": "the search failed; the terminal of the server says why"})
    monkeypatch.setattr(server.engine, "_ranked", lambda *arguments: 1 / 0)
    assert ask("/api/search", query=0) == (500, {"error": "the server failed; its terminal says why"})
