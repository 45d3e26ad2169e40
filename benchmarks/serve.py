"""`ultron serve` under many clients, with and without slow ones beside them.

    python benchmarks/serve.py [--clients 50] [--slow 100] [--seconds 60] [--passes 20000] [--photos DIR]

A server over a toy dataset, or that of `--photos`, is asked by `--clients` threads, as fast as they get answers: half
of their requests are searches for an upload, the others searches for queries, photos and maps. A 503 with Retry-After
is a told wait, which is waited for; any other answer than 200 and any broken connection is a failure. Meanwhile
`--slow` connections send a byte every 3 s, half of them in a header and half in a body, and connect again when they are
closed. Then one hostile upload after the other comes (a 1 x 50,000,000 PNG, a JPEG of many passes) while one client
searches. The exit code is 1 if anything failed, or if the server's memory has grown by more than a tenth while the slow
ones were there; before, each of its threads takes its own for the first time.
"""

import argparse
import contextlib
import http.client
import io
import json
import math
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from ultron_cli.cli import main as ultron
from ultron_cli.machine import cpu_name, n_cores

SLOW_BYTE_S = 3.0
HEADERS = {"Content-Type": "application/octet-stream"}
SMALL_TOY = ["--train-landmarks", "2", "--eval-landmarks", "4", "--max-side", "320"]
MOST_GROWTH = 1.1  # of memory


@dataclass
class Tally:
    """What many threads have seen."""

    statuses: Counter[str] = field(default_factory=Counter)
    search_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    reconnections: int = 0  # of slow clients
    ended: threading.Event = field(default_factory=threading.Event)


def make_photo(rng: np.random.Generator) -> bytes:
    """A JPEG of 640 x 480 px."""
    buffer = io.BytesIO()
    small = rng.integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(small).resize((640, 480)).save(buffer, "JPEG")
    return buffer.getvalue()


def thin_png() -> bytes:
    """1 x 50,000,000 px."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 1, 50_000_000, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000_000), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg_of_many_passes(n_passes: int) -> bytes:
    """6000 x 6000 px, 20,000 passes over them in about 4 MB."""
    buffer = io.BytesIO()
    Image.new("RGB", (6000, 6000), "grey").save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    last_pass = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last_pass * n_passes + content[-2:]


def run(*arguments: str) -> None:
    """Runs a command in this process. Raises SystemExit if it fails."""
    code = ultron(list(arguments))
    if code:
        raise SystemExit(f"ultron {' '.join(arguments)} ended with {code}")


@contextlib.contextmanager
def running_server(folder: Path, photos: Path | None) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """(process, host, port) of a server over a dataset; None is one that is rendered."""
    out = str(folder / "out")
    network = ["--model", "gem", "--backbone", "test_resnet", "--untrained", "--workers", "0"]
    beside = ["--workspace", str(folder), "-q"]
    if photos is None:
        photos = folder / "toy"
        run("datasets", "make-toy", "--out", str(photos), *SMALL_TOY, "-q")
    run("extract", "--dataset", str(photos), *network, "--out", out, *beside)
    command = [sys.executable, "-m", "ultron_cli", "serve", "--database", f"{out}/database.h5", "--port", "0"]
    command += beside[:2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        address = urlsplit(process.stdout.readline().split()[0])
        try:
            yield process, str(address.hostname), int(address.port or 0)
        finally:
            process.terminate()
            process.wait(timeout=20)


def memory_mib(pid: int) -> float:
    """What a process holds."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024


def be_a_client(number: int, host: str, port: int, tally: Tally) -> None:
    """Asks until the time is over, over one connection."""
    photo = make_photo(np.random.default_rng(number))
    connection = http.client.HTTPConnection(host, port, timeout=120)
    n_asked = 0
    search = ""
    while not tally.ended.is_set():
        addresses = (
            ("POST", "/api/search?k=5", photo),
            ("GET", f"/photo/{n_asked % 8}", None),
            ("POST", "/api/search?k=5&rerank=superglobal", photo),
            ("GET", f"/api/search?query={n_asked % 4}&k=5", None),
            ("POST", "/api/search?k=1", photo),
            ("GET", f"/api/map?search={search}&row=1" if search else "/api/about", None),
        )
        method, address, body = addresses[n_asked % len(addresses)]
        n_asked += 1
        started_s = time.monotonic()
        try:
            connection.request(method, address, body, HEADERS)
            reply = connection.getresponse()
            content = reply.read()
        except (OSError, http.client.HTTPException) as error:
            tally.failures.append(f"{method} {address}: {type(error).__name__}: {error}")
            connection.close()
            continue
        retry_after = reply.headers["Retry-After"]
        tally.statuses[f"{reply.status}{' with Retry-After' if retry_after else ''}"] += 1
        if reply.status == 503 and retry_after:
            connection.close()  # idle connections give way
            tally.ended.wait(float(retry_after))
        elif reply.status != 200 and not (reply.status == 410 and "/api/map" in address):  # forgotten by 256 others
            tally.failures.append(f"{method} {address}: {reply.status} {content[:200]!r}")
        elif "/api/search" in address:
            tally.search_s.append(time.monotonic() - started_s)
            search = json.loads(content)["search"]


def be_slow(number: int, host: str, port: int, tally: Tally) -> None:
    """Sends a byte every 3 s, in a header or a body, again and again."""
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
    if number % 2:
        head = b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30000000\r\n\r\n"
    while not tally.ended.is_set():
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=20) as connection:
            connection.sendall(head)
            connection.settimeout(0.01)
            while not tally.ended.wait(SLOW_BYTE_S):
                connection.sendall(b"a")
                with contextlib.suppress(TimeoutError):
                    if not connection.recv(4096):
                        break
        tally.reconnections += 1


def measure(title: str, server: tuple[subprocess.Popen[str], str, int], n_clients: int, n_slow: int, s: float) -> float:
    """Prints one line about `s` seconds. Returns by what factor the memory grew in the last two thirds; infinity if
    anything failed."""
    process, host, port = server
    tally = Tally()
    threads = [threading.Thread(target=be_slow, args=(i, host, port, tally)) for i in range(n_slow)]
    for thread in threads:
        thread.start()
    time.sleep(min(1.0, s))
    threads += [threading.Thread(target=be_a_client, args=(i, host, port, tally)) for i in range(n_clients)]
    for thread in threads[n_slow:]:
        thread.start()
    time.sleep(s / 3)
    early_mib = memory_mib(process.pid)
    time.sleep(2 * s / 3)
    late_mib = memory_mib(process.pid)
    tally.ended.set()
    for thread in threads:
        thread.join()
    seconds = sorted(tally.search_s) or [float("nan")]
    answers = ", ".join(f"{count:,} of {status}" for status, count in sorted(tally.statuses.items()))
    print(
        f"{title}: {answers}; {len(tally.failures)} failures; a search {statistics.median(seconds):.2f} s "
        f"(longest {seconds[-1]:.2f}); memory {early_mib:.0f} -> {late_mib:.0f} MiB; slow connections begun "
        f"{tally.reconnections:,}",
        flush=True,
    )
    for failure in tally.failures[:5]:
        print(f"  {failure}")
    return math.inf if tally.failures else late_mib / early_mib


def measure_hostile(server: tuple[subprocess.Popen[str], str, int], n_passes: int) -> bool:
    """Prints what hostile uploads are answered, and how long another client's search takes beside each."""
    _, host, port = server
    is_well = True
    uploads = (
        ("1 x 50,000,000 PNG", thin_png()),
        (f"JPEG of {n_passes:,} passes", jpeg_of_many_passes(n_passes)),
    )
    for name, content in uploads:
        outcome: list[str] = []

        def upload(content: bytes = content, outcome: list[str] = outcome) -> None:
            connection = http.client.HTTPConnection(host, port, timeout=120)
            started_s = time.monotonic()
            connection.request("POST", "/api/search", content, HEADERS)
            reply = connection.getresponse()
            reason = json.loads(reply.read()).get("error", "")
            outcome.append(f"{reply.status} after {time.monotonic() - started_s:.1f} s ({reason})")

        thread = threading.Thread(target=upload)
        thread.start()
        time.sleep(0.3)
        started_s = time.monotonic()
        connection = http.client.HTTPConnection(host, port, timeout=120)
        connection.request("GET", "/api/search?query=0")
        is_well &= connection.getresponse().status == 200
        print(f"{name}: a search beside it {time.monotonic() - started_s:.1f} s;", end=" ")
        thread.join()
        print(*outcome, flush=True)
    return is_well


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--slow", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60, help="of each of the two measurements")
    parser.add_argument("--passes", type=int, default=20_000, help="of the hostile JPEG over its pixels")
    parser.add_argument("--photos", type=Path, help="a dataset with at least 4 queries and 8 photos (rendered)")
    options = parser.parse_args()
    print(f"{cpu_name()}, {n_cores()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder, running_server(Path(folder), options.photos) as server:
        clients, slow, s = options.clients, options.slow, options.seconds
        is_well = measure(f"{clients} clients", server, clients, 0, s) < math.inf
        is_well &= measure(f"{clients} clients, {slow} slow ones", server, clients, slow, s) <= MOST_GROWTH
        is_well &= measure_hostile(server, options.passes)
    print(f"target: no failure but a told wait, flat memory: {'met' if is_well else 'missed'}")
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
