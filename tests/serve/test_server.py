"""`ultron serve`: the server as a process and its connections."""

import http.client
import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.serve.requests_by_hand import jpeg
from ultron_cli.errors import WorkFailed
from ultron_cli.serve.server import RetrievalServer

pytestmark = pytest.mark.slow


def test_one_connection_carries_several_requests(server: RetrievalServer) -> None:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=60)
    for method, path, body, status in (
        ("POST", "/api/search?k=1", jpeg(40, 40), 200),
        ("GET", "/api/about", None, 200),
        ("GET", "/nothing", None, 404),
        ("GET", "/photo/0", None, 200),
        ("POST", "/api/search?k=0", jpeg(40, 40), 400),
        ("GET", "/photo/1", None, 200),
    ):
        connection.request(method, path, body)
        reply = connection.getresponse()
        assert (reply.status, bool(reply.read())) == (status, True)
    connection.close()


def test_addresses(server: RetrievalServer) -> None:
    with pytest.raises(WorkFailed, match=r"cannot listen on 127.0.0.1, port \d+ .*; name another `port`, or 0"):
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
