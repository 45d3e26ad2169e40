"""Shared by the tests of datasets: a misbehaving server, archives laid out as the real ones, and no pauses between
tries."""

import io
import random
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.datasets.misbehaving_server import MisbehavingServer
from ultron_cli.console import start_log


@pytest.fixture(autouse=True)
def log_to_this_test() -> None:
    """Log lines go to the stderr of this test; that of an earlier one may be closed."""
    start_log(0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MisbehavingServer]:
    """A server of the test's own; proxies are off and tries follow each other at once."""
    for name in (
        "http_proxy",
        "https_proxy",
        "ftp_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "ULTRON_OFFLINE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("ultron_cli.datasets.download.fetching.FIRST_WAIT_S", 0.0)
    started = MisbehavingServer()
    yield started
    started.close()


def photo_bytes(seed: int = 0, side_px: int = 24, kind: str = "JPEG") -> bytes:
    """A square photo of noise, the same for the same seed."""
    stream = io.BytesIO()
    Image.frombytes("RGB", (side_px, side_px), random.Random(seed).randbytes(3 * side_px**2)).save(stream, kind)
    return stream.getvalue()


def jpeg(seed: int = 0, side_px: int = 24) -> bytes:
    """A small JPEG; another seed gives other bytes."""
    return photo_bytes(seed, side_px)


def tar_of(files: dict[str, bytes], mode: str = "w:gz", edit: Callable[[tarfile.TarInfo], None] | None = None) -> bytes:
    """A tar archive of files by path."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            if edit:
                edit(entry)
            tar.addfile(entry, io.BytesIO(data) if entry.isreg() else None)
    return stream.getvalue()


def files_below(folder: Path) -> set[str]:
    """Relative paths of all files below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def plain_photo(path: Path, size: tuple[int, int] = (60, 40)) -> None:
    """Writes a black JPEG of (width, height) pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path, "JPEG")
