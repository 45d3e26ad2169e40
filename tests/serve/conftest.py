"""A running server over a small dataset, and how it is asked."""

import json
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.serve.requests_by_hand import EVIL, Ask
from ultron_cli.serve.limits import ServeConfig
from ultron_cli.serve.photo_search import PhotoSearch
from ultron_cli.serve.server import RetrievalServer


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

    out = tmp_path_factory.mktemp("extracted") / "out"
    workspace = tmp_path_factory.mktemp("workspace")
    network = ["--model", "gem", "--backbone", "test_resnet", "--untrained", "--scales", "3", "--workers", "0"]
    network += ["--local", "rootsift", "--local-points", "200"]
    assert main(["extract", "--dataset", str(photos), *network, "--out", str(out), "--workspace", str(workspace)]) == 0
    return out


@pytest.fixture(scope="module")
def server(extracted: Path) -> Iterator[RetrievalServer]:
    """A running server; uploads up to 0.25 MiB and 2 million pixels."""
    config = ServeConfig(
        k=6, rerank="superglobal", rerank_set=("superglobal.beta=0.3",), max_upload_mib=0.25, max_megapixels=2
    )
    with PhotoSearch(extracted / "database.h5", config, device="cpu") as engine, RetrievalServer(engine) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield running
        running.shutdown()
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
