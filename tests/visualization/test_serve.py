"""`ultron serve`: its JSON API over a real connection, what it refuses, and the page clicked through in headless
Chromium."""

import base64
import http.client
import io
import json
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Run
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.retrieval.searching import SearchOptions
from ultron_cli.serve.limits import Refused, ServeConfig
from ultron_cli.serve.photo_search import MOST_WAITING, PhotoSearch
from ultron_cli.serve.server import RetrievalServer

EVIL = "<img src=x onerror=document.title='broken'>"
Ask = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module")
def photos(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset in which a database photo has a name that would be HTML."""
    folder = tmp_path_factory.mktemp("evil") / "toy"
    shutil.copytree(toy, folder)
    gnd = next(folder.glob("gnd_*.json"))
    content = json.loads(gnd.read_text())
    old = content["imlist"][0]
    (folder / "jpg" / f"{old}.jpg").rename(folder / "jpg" / f"{EVIL}.jpg")
    content["imlist"][0] = EVIL
    gnd.write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def extracted(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its descriptors by an untrained network at three scales."""
    from ultron_cli.cli import main

    out, workspace = tmp_path_factory.mktemp("extracted") / "out", tmp_path_factory.mktemp("workspace")
    network = ["--model", "gem", "--backbone", "test_resnet", "--untrained", "--scales", "3", "--workers", "0"]
    assert main(["extract", "--dataset", str(photos), *network, "--out", str(out), "--workspace", str(workspace)]) == 0
    return out


@pytest.fixture(scope="module")
def server(extracted: Path) -> Iterator[RetrievalServer]:
    """A running server; uploads up to 0.25 MiB and 2 million pixels."""
    config = ServeConfig(
        k=6, rerank="superglobal", rerank_set=("superglobal.beta=0.3",), max_upload_mib=0.25, max_megapixels=2
    )
    with PhotoSearch(extracted / "database.h5", config, device="cpu") as engine, RetrievalServer(engine) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def ask(server: RetrievalServer) -> Ask:
    """Sends a request; returns (status, JSON or bytes). Keywords are parameters of the address."""

    def send(
        path: str, body: bytes | None = None, headers: dict[str, str] | None = None, **parameters: Any
    ) -> tuple[int, Any]:
        address = server.url.rstrip("/") + path + (f"?{urlencode(parameters)}" if parameters else "")
        request = urllib.request.Request(address, data=body, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                status, kind, content = reply.status, reply.headers["Content-Type"], reply.read()
        except urllib.error.HTTPError as error:
            status, kind, content = error.code, error.headers["Content-Type"], error.read()
        return status, json.loads(content) if kind.startswith("application/json") else content

    return send


def raw(server: RetrievalServer, text: bytes) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) of a request written byte by byte."""
    with socket.create_connection(server.server_address[:2], timeout=20) as connection:
        connection.sendall(text)
        reply = http.client.HTTPResponse(connection, method=text.split(b" ")[0].decode())
        reply.begin()
        return reply.status, dict(reply.getheaders()), reply.read()


def jpeg(width: int, height: int, seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(
        buffer, "JPEG", quality=60
    )
    return buffer.getvalue()


def huge_png(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes whose header promises that many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def pairs(photos: list[dict[str, Any]]) -> list[tuple[int, str, float]]:
    return [(photo["rank"], photo["name"], photo["score"]) for photo in photos]


@pytest.mark.parametrize("box", [None, (4.0, 3.0, 60.0, 50.0)], ids=["whole", "box"])
@pytest.mark.parametrize("rerank", ["", "superglobal"], ids=["plain", "reranked"])
def test_an_upload_is_searched_as_the_command_does(
    ask: Ask, ultron: Run, photos: Path, extracted: Path, tmp_path: Path, box: tuple[float, ...] | None, rerank: str
) -> None:
    upload = tmp_path / "upload.jpg"
    source = sorted((photos / "jpg").glob("*.jpg"))[5]
    with Image.open(source) as image:  # lying on its side, as phones save them
        exif = image.getexif()
        exif[0x0112] = 6
        image.rotate(90, expand=True).save(upload, quality=90, exif=exif)
    corners = ",".join(str(side) for side in box) if box else None
    flags = [
        *(["--bbx", corners] if corners else []),
        *(["--rerank", rerank, "--rerank-set", "superglobal.beta=0.3"] if rerank else []),
    ]
    code, out, error = ultron("search", upload, "--database", extracted / "database.h5", "-k", 9, *flags, "--json")
    assert code == 0, error
    wanted = json.loads(out)["results"][0]["photos"]
    status, found = ask("/api/search", upload.read_bytes(), k=9, rerank=rerank, **({"box": corners} if corners else {}))
    assert status == 200, found
    assert pairs(found["photos"]) == pairs(wanted)
    with Image.open(source) as image:
        assert found["query"] == {
            "kind": "upload",
            "row": None,
            "name": None,
            "width": image.width,
            "height": image.height,
            "box": list(box) if box else None,
        }
    assert [step["name"] for step in found["rerank"]] == [name for name in [rerank] if name]
    assert all(photo["label"] is None for photo in found["photos"])


def test_a_query_of_the_dataset_and_its_labels(ask: Ask, photos: Path) -> None:
    truth = json.loads(next(photos.glob("gnd_*.json")).read_text())
    status, listed = ask("/api/queries")
    assert status == 200
    assert [(query["row"], query["name"], query["box"]) for query in listed["queries"]] == [
        (row, name, [float(side) for side in entry["bbx"]])
        for row, (name, entry) in enumerate(zip(truth["qimlist"], truth["gnd"], strict=True))
    ]
    status, about = ask("/api/query/1")
    assert (status, about["name"], about["box"]) == (200, truth["qimlist"][1], listed["queries"][1]["box"])
    status, found = ask(
        "/api/search", query=1, k=len(truth["imlist"]), rerank="", box=",".join(str(side) for side in about["box"])
    )
    assert status == 200, found
    labels = {truth["imlist"][row]: label for label in ("easy", "hard", "junk") for row in truth["gnd"][1][label]}
    assert {photo["name"]: photo["label"] for photo in found["photos"]} == {
        name: labels.get(name, "") for name in truth["imlist"]
    }
    assert labels and sorted(photo["row"] for photo in found["photos"]) == list(range(len(truth["imlist"])))
    assert found["method"] == "exact" and "/" not in json.dumps(found | {"photos": []})  # no path of the machine
    status, itself = ask("/api/search", photo=found["photos"][3]["row"], k=1, rerank="")
    assert (status, itself["photos"][0]["name"]) == (200, found["photos"][3]["name"])
    assert itself["photos"][0]["score"] == pytest.approx(1.0, abs=1e-5)


def test_defaults_are_those_of_the_command(ask: Ask) -> None:
    _, found = ask("/api/search", query=0)
    assert (found["k"], found["rerank"][0]["name"], found["rerank"][0]["beta"]) == (6, "superglobal", 0.3)
    _, about = ask("/api/about")
    assert (about["k"], about["rerank"], about["n_queries"], about["limits"]["pixels"]) == (
        6,
        "superglobal",
        4,
        2_000_000,
    )


def test_similarity_maps(ask: Ask) -> None:
    _, found = ask("/api/search", query=0, k=3)
    for photo in found["photos"]:
        status, heat = ask("/api/map", search=found["search"], row=photo["row"])
        assert status == 200, heat
        values = base64.b64decode(heat["data"])
        assert max(heat["h"], heat["w"]) == 24 and len(values) == heat["h"] * heat["w"]
        assert heat["flat"] or max(values) > 128
    assert ask("/api/map", search="of-another-server", row=0) == (
        410,
        {"error": "that search is not among the latest 256; search again"},
    )


def test_photos_come_by_row_encoded_anew(ask: Ask, extracted: Path, server: RetrievalServer) -> None:
    for size, side in (("small", 96), ("large", 96)):
        status, content = ask("/photo/0", size=size, v="x")
        with Image.open(io.BytesIO(content)) as image:
            assert (status, image.format, max(image.size)) == (200, "JPEG", side)  # never enlarged
    assert ask("/query/0")[0] == 200
    assert ask("/photo/0", size="../../secret")[0] == 400
    n = len(server.engine.names)
    assert ask(f"/photo/{n}") == (404, {"error": f"photo {n} does not exist; rows are 0 to {n - 1}"})
    assert ask("/query/4") == (404, {"error": "query 4 does not exist; rows are 0 to 3"})


BAD_SEARCHES = (
    ({"query": 0, "k": 0}, 400, "k must be 1 to"),
    ({"query": 0, "k": 501}, 400, "k must be 1 to"),
    ({"query": 0, "k": "many"}, 400, "k must be a whole number, found 'many'"),
    ({"query": 99}, 404, "query 99 does not exist; rows are 0 to 3"),
    ({"photo": "../../etc/passwd"}, 400, "photo must be a whole number"),
    ({}, 400, "names query=ROW or photo=ROW"),
    ({"query": 0, "photo": 0}, 400, "one of them"),
    ({"query": 0, "box": "0,0,5000,10"}, 400, "reaches outside the photo of"),
    ({"query": 0, "box": "-9,0,20,20"}, 400, "reaches outside the photo of"),
    ({"query": 0, "box": "20,20,10,10"}, 400, "bbx is inverted or empty"),
    ({"query": 0, "box": "1,2,3"}, 400, "must be four numbers"),
    ({"query": 0, "box": "nan,0,9,9"}, 400, "must be four numbers"),
    ({"query": 0, "box": "a,b,c,d"}, 400, "box takes four numbers X1,Y1,X2,Y2; found 'a,b,c,d'"),
    ({"query": 0, "rerank": "magic"}, 400, "rerank takes up to 4 of superglobal"),
    ({"query": 0, "rerank": "aqe,aqe,aqe,aqe,aqe"}, 400, "rerank takes up to 4"),
    ({"query": 0, "file": "/etc/passwd"}, 400, "unknown parameter 'file'"),
)


@pytest.mark.parametrize(
    ("parameters", "status", "message"), BAD_SEARCHES, ids=[urlencode(entry[0]) or "nothing" for entry in BAD_SEARCHES]
)
def test_bad_searches(ask: Ask, parameters: dict[str, Any], status: int, message: str) -> None:
    found_status, found = ask("/api/search", **parameters)
    assert (found_status, set(found)) == (status, {"error"})
    assert message in found["error"] and "\n" not in found["error"]


BAD_UPLOADS = {
    "empty": (b"", 400, "the upload is empty"),
    "too large": (bytes(1 << 20), 413, "the upload has 1.0 MiB; at most 0.25 (--max-upload)"),
    "text": (b"<html>not a photo</html>" * 20, 415, "is not a photo that can be read"),
    "PostScript": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\n(x) print\n%%EOF\n",
        415,
        "the upload is EPS; send one of JPEG",
    ),
    "bomb": (huge_png(1500, 1400), 413, "the photo has 2.1 million pixels; at most 2 (--max-megapixels)"),
    "huge bomb": (huge_png(60_000, 60_000), 413, "the photo has too many pixels; at most 2 million"),
    "cut off": (jpeg(300, 200)[:9000], 415, "damaged or cut off"),
}


@pytest.mark.parametrize("name", BAD_UPLOADS)
def test_bad_uploads(ask: Ask, name: str) -> None:
    content, status, message = BAD_UPLOADS[name]
    found_status, found = ask("/api/search", content)
    assert found_status == status and message in found["error"]
    assert ask("/api/search", jpeg(80, 60))[0] == 200  # and it goes on


def test_a_box_outside_of_an_upload(ask: Ask) -> None:
    assert ask("/api/search", jpeg(80, 60), box="0,0,100,50") == (
        400,
        {"error": "box [0.0, 0.0, 100.0, 50.0] reaches outside the photo of 80 x 60 px"},
    )


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
    found, headers, body = raw(server, request_text.encode())
    assert found == status and set(json.loads(body)) == {"error"}
    assert headers.get("Connection") == "close" or "[bad" in request_text
    assert "Python" not in headers["Server"]


def test_one_connection_carries_several_requests(server: RetrievalServer) -> None:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
    for method, path, body, wanted in (
        ("POST", "/api/search?k=1", jpeg(40, 40), 200),
        ("GET", "/api/about", None, 200),
        ("GET", "/nothing", None, 404),
        ("GET", "/photo/0", None, 200),
        ("POST", "/api/search?k=0", jpeg(40, 40), 400),
        ("GET", "/photo/1", None, 200),
    ):
        connection.request(method, path, body)
        reply = connection.getresponse()
        assert (reply.status, bool(reply.read())) == (wanted, True)
    connection.close()


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


def test_searching_by_an_index(extracted: Path, photos: Path, ultron: Run, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    code, _, error = ultron("index", extracted / "database.h5", "--out", tmp_path / "flat.index")
    assert code == 0, error
    photo = next((photos / "jpg").glob("*.jpg"))
    code, out, error = ultron(
        "search", photo, "--database", extracted / "database.h5", "--index", tmp_path / "flat.index", "-k", 5, "--json"
    )
    assert code == 0, error
    from ultron_cli.serve.limits import read_upload

    with PhotoSearch(None, ServeConfig(), options=SearchOptions(index=tmp_path / "flat.index"), device="cpu") as engine:
        found = engine.find(read_upload(photo.read_bytes(), engine.config), k=5)
        assert engine.about()["search"] == found["method"] == "flat"
    assert pairs(found["photos"]) == pairs(json.loads(out)["results"][0]["photos"])
    with pytest.raises(Refused, match="the server is stopping"):
        engine.heat(found["search"], 0)
    (tmp_path / "flat.index" / "names.json").write_text(json.dumps(["other"] * len(engine.names)))
    with pytest.raises(UltronError, match="holds other photos than"):
        PhotoSearch(None, ServeConfig(), options=SearchOptions(index=tmp_path / "flat.index"), device="cpu")


def test_a_whitening_is_applied_to_uploads(extracted: Path, photos: Path, ultron: Run, tmp_path: Path) -> None:
    from ultron_cli.retrieval.whitening import read_whitening
    from ultron_cli.serve.limits import read_upload

    database, photo, whitening = extracted / "database.h5", next((photos / "jpg").glob("*.jpg")), tmp_path / "w.h5"
    code, _, error = ultron("whiten", database, "--method", "pca", "--dim", 12, "--out", whitening)
    assert code == 0, error
    code, out, error = ultron("search", photo, "--database", database, "--whiten", whitening, "-k", 5, "--json")
    assert code == 0, error
    with PhotoSearch(
        database, ServeConfig(), options=SearchOptions(whitening=read_whitening(whitening)), device="cpu"
    ) as engine:
        found = engine.find(read_upload(photo.read_bytes(), engine.config), k=5)
        assert (engine.about()["dim"], engine.about()["whitening"]) == (12, "pca to 12-d")
    assert pairs(found["photos"]) == pairs(json.loads(out)["results"][0]["photos"])


def test_addresses(server: RetrievalServer) -> None:
    with pytest.raises(WorkFailed, match=r"cannot listen on 127.0.0.1, port \d+ .*; name another --port, or 0"):
        RetrievalServer(server.engine, "127.0.0.1", server.server_port)
    assert server.is_local and not server.answers_to("192.168.0.2")
    with RetrievalServer(server.engine, "0.0.0.0") as everywhere:
        assert not everywhere.is_local and everywhere.url == f"http://127.0.0.1:{everywhere.server_port}/"
        assert everywhere.answers_to("192.168.0.2:80") and not everywhere.answers_to("evil.example")


def test_bad_usage_is_one_line(ultron: Run, extracted: Path) -> None:
    for flags, message in (
        (["-k", 0], "-k must lie between 1 and 500"),
        (["--max-upload", 0], "--max-upload must lie between 0.01 and 1024"),
        (["--method", "magic"], "--method must be one of gradcam"),
        (["--nprobe", 3], "--nprobe belongs to an index"),
        (
            ["--host", "no.such.name.invalid", "--database", extracted / "database.h5"],
            "cannot listen on no.such.name.invalid",
        ),
        ([], "no result of `ultron extract` in the workspace"),
    ):
        code, _, error = ultron("serve", "--port", 0, *flags)
        assert code in (1, 2) and message in error and "Traceback" not in error


def test_ctrl_c_ends_it_cleanly(extracted: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "ultron_cli",
        "serve",
        "--database",
        str(extracted / "database.h5"),
        "--port",
        "0",
        "--workspace",
        str(tmp_path),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        line = process.stdout.readline()
        address = re.match(r"(http://127\.0\.0\.1:\d+/)  searches \d+ photos", line)
        assert address, line + process.stderr.read()
        with urllib.request.urlopen(address[1] + "api/about", timeout=30) as reply:
            assert json.loads(reply.read())["model"]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
        assert process.stderr.read().strip().endswith("stopped")


def test_clicking_through(server: RetrievalServer, ask: Ask, browser: Any, tmp_path: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select, WebDriverWait

    def one(name: str) -> Any:
        return browser.find_element(By.ID, name)

    def names() -> list[str]:
        return browser.execute_script(
            "return [...document.querySelectorAll('#photos .name')].map((name) => name.textContent)"
        )

    def until(condition: Callable[[], Any]) -> Any:
        return WebDriverWait(browser, 30, poll_frequency=0.1).until(lambda _: condition())

    def idle() -> bool:
        return not browser.find_elements(By.CSS_SELECTOR, "#photos.busy") and one("status").text != "searching …"

    def wanted(**parameters: Any) -> list[str]:
        status, found = ask("/api/search", **parameters)
        assert status == 200, found
        return [photo["name"] for photo in found["photos"]]

    browser.get(server.url)
    until(lambda: browser.execute_script("return document.documentElement.dataset.ready"))
    assert browser.title == "toy: search by photo"
    assert one("rerank-on").is_selected() and not one("search").is_enabled()
    n = len(server.engine.names)

    # A query of the dataset comes with its box, is searched at once, and its photos are marked right, wrong or ignored.
    Select(one("query")).select_by_value("0")
    query = ask("/api/query/0")[1]
    box = ",".join(str(side) for side in query["box"])
    until(lambda: names() == wanted(query=0, box=box))
    assert one("box").is_displayed() and one("legend").is_displayed()
    assert (
        len(
            browser.find_elements(By.CSS_SELECTOR, "#photos .photo.right, #photos .photo.wrong, #photos .photo.ignored")
        )
        == 6
    )

    # All photos without re-ranking; the one whose name would be HTML is text.
    one("rerank-on").click()
    browser.execute_script(
        "const k = document.getElementById('k'); k.value = arguments[0]; k.dispatchEvent(new Event('change'))", n
    )
    until(lambda: idle() and names() == wanted(query=0, box=box, k=n, rerank=""))
    assert EVIL in names() and browser.title == "toy: search by photo"
    until(
        lambda: browser.execute_script(
            "return [...document.querySelectorAll('#photos img')].slice(0, 6).every((image) => image.naturalWidth > 0)"
        )
    )

    # A box drawn by mouse over the middle of the photo.
    frame = one("photo").rect
    start = (-round(frame["width"] * 0.25), -round(frame["height"] * 0.3))
    drag = ActionChains(browser).move_to_element_with_offset(one("photo"), *start).click_and_hold()
    drag.move_by_offset(round(frame["width"] * 0.3), round(frame["height"] * 0.3)).move_by_offset(
        round(frame["width"] * 0.2), round(frame["height"] * 0.3)
    )
    drag.release().perform()
    until(
        lambda: idle() and browser.execute_script("return state.found && state.found.query.box[0]") != query["box"][0]
    )
    drawn = browser.execute_script("return state.found.query.box")
    for side, share, whole in zip(drawn, (0.25, 0.2, 0.75, 0.8), [query["width"], query["height"]] * 2, strict=True):
        assert side == pytest.approx(share * whole, abs=0.02 * whole)
    assert names() == wanted(query=0, box=",".join(f"{side:.2f}" for side in drawn), k=n, rerank="")
    assert [float(one(corner).get_attribute("value")) for corner in ("x1", "y1", "x2", "y2")] == [
        pytest.approx(side, abs=0.51) for side in drawn
    ]

    # The similarity map comes while the pointer rests on a photo, and goes.
    cards = browser.find_elements(By.CSS_SELECTOR, "#photos .photo")
    ActionChains(browser).move_to_element(cards[1]).perform()
    until(lambda: cards[1].find_elements(By.CSS_SELECTOR, "canvas, .note"))
    assert not cards[1].find_elements(By.CSS_SELECTOR, ".note"), cards[1].text
    painted = (
        "const c = arguments[0]; return new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"
    )
    assert browser.execute_script(painted, cards[1].find_element(By.CSS_SELECTOR, "canvas")) > 20
    browser.save_screenshot(str(tmp_path / "hover.png"))
    ActionChains(browser).move_to_element(one("title")).perform()
    until(lambda: not cards[1].find_elements(By.CSS_SELECTOR, "canvas"))

    # A click shows the photo large, with its map; keys lead to the next and out.
    cards[0].click()
    until(lambda: one("pair").is_displayed() and one("pair-title").text == f"rank 1: {names()[0]}")
    until(lambda: "cosine at one scale" in one("pair-facts").text or "no place" in one("pair-facts").text)
    one("pair").send_keys(Keys.ARROW_RIGHT)
    until(lambda: one("pair-title").text == f"rank 2: {names()[1]}" and one("pair-map").is_displayed())
    browser.save_screenshot(str(tmp_path / "pair.png"))
    one("map-on").click()
    until(lambda: not one("pair-map").is_displayed())
    second = names()[1]
    one("use").click()
    until(lambda: idle() and names()[:1] == [second])  # a photo is most like itself
    assert not one("box").is_displayed() and not one("legend").is_displayed()

    # A photo of one's own; then one that is not a photo: a clear error, and the page goes on.
    own, bad, large = tmp_path / f"{EVIL.replace('/', '')}.jpg", tmp_path / "bad.jpg", tmp_path / "large.jpg"
    own.write_bytes(jpeg(120, 90, seed=4))
    bad.write_bytes(b"this is text")
    large.write_bytes(bytes(300_000))
    one("file").send_keys(str(own))
    found = ask("/api/search", own.read_bytes(), k=n, rerank="")[1]
    until(lambda: idle() and names() == [photo["name"] for photo in found["photos"]])
    assert one("photo-facts").text == f"{own.name}, 120 × 90 px"
    assert browser.execute_script("return state.found.query.kind") == "upload"
    dropped = """const letters = atob(arguments[0]);
        const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
        const photo = new File([bytes], "dropped.jpg", {type: "image/jpeg"});
        const brought = new DataTransfer();
        brought.items.add(photo);
        for (const kind of ["dragover", "drop"]) {
            const event = new DragEvent(kind, {dataTransfer: brought, bubbles: true, cancelable: true});
            document.body.dispatchEvent(event);
        }"""
    content = jpeg(64, 100, seed=5)
    browser.execute_script(dropped, base64.b64encode(content).decode())
    found = ask("/api/search", content, k=n, rerank="")[1]
    until(lambda: idle() and names() == [photo["name"] for photo in found["photos"]])
    assert one("photo-facts").text == "dropped.jpg, 64 × 100 px" and not one("dropping").is_displayed()
    one("file").send_keys(str(large))
    until(lambda: one("error").text == "the photo has 0.3 MiB; at most 0.25")
    assert browser.get_log("browser") == []
    one("file").send_keys(str(bad))
    until(lambda: "is not a photo that can be read" in one("error").text)
    assert all("415" in entry["message"] for entry in browser.get_log("browser"))  # Chromium logs the status by itself
    Select(one("query")).select_by_value("1")
    until(lambda: idle() and names() and not one("error").is_displayed())

    before = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    one("theme").click()
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") != before
    browser.save_screenshot(str(tmp_path / "dark.png"))
    assert browser.get_log("browser") == []
