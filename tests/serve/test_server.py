"""`ultron serve`: the server as a process and its connections."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.serve.requests_by_hand import jpeg, jpeg_of_many_scans
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
        (["-k", 0], "-k must be at least 1"),
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


@contextlib.contextmanager
def started(extracted: Path, workspace: Path) -> Iterator["tuple[subprocess.Popen[str], str]"]:
    """A server as a process of its own, and its address."""
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
        str(workspace),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        line = process.stdout.readline()
        address = re.match(r"(http://127\.0\.0\.1:\d+/)  searches \d+ photos", line)
        assert address, line + process.stderr.read()
        try:
            yield process, address[1]
        finally:
            process.kill()


def descendants(pid: int) -> list[int]:
    """The processes that a process has started."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for text in texts for child in text.split()]


def cpu_s(pid: int) -> float:
    """Seconds that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_it_ends_at_once_and_cleanly(extracted: Path, tmp_path: Path, stop: signal.Signals) -> None:
    with started(extracted, tmp_path) as (process, address):
        with urllib.request.urlopen(address + "api/about", timeout=30) as reply:
            assert json.loads(reply.read())["model"]
        connection = http.client.HTTPConnection(address.split("/")[2], timeout=60)
        (child,) = children = descendants(process.pid)
        before_s = cpu_s(child)
        connection.request("POST", "/api/search", jpeg_of_many_scans(2000, 2000, 20_000))
        while cpu_s(child) < before_s + 0.5:  # it decodes
            time.sleep(0.02)
        process.send_signal(stop)
        assert process.wait(timeout=5) == (0 if stop == signal.SIGINT else -stop)
        assert process.stderr
        assert stop == signal.SIGKILL or process.stderr.read().strip().endswith("stopped")
        deadline_s = time.monotonic() + 5
        while any(Path(f"/proc/{child}").exists() for child in children):
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
