"""Readers of what is downloaded, and of the notes that downloads keep."""

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.mutations import mutate_bytes
from tests.fuzz.reader import Reader, json_reader, lazily, text_file
from tests.fuzz.structures import mutate_archive
from ultron_cli.errors import UltronError

PART = {
    "file": "a.tgz",
    "address": "https://x.org/a.tgz",
    "n_bytes": 1,
    "sha256": "c",
    "checked": "known SHA-256",
    "n_files": 1,
    "downloaded": "e",
}
SOURCE = {"format": "ultron-source", "version": 1, "dataset": "x", "photos_version": None, "parts": {"a.tgz": PART}}
SEEN = {"x/a.tgz": {"sha256": "0", "address": "https://x.org", "first_seen": "t"}}
MIRRORS = (
    'mirrors = ["https://m.example.org", "/mnt/x"]\n[addresses]\n"a/b.csv" = ["https://x.org/b.csv"]\n"c/d" = "/d"\n'
)


def _read_source(folder: Path) -> None:
    from ultron_cli.datasets.download.source_record import read_source

    record = read_source(folder)
    assert record is not None
    record.n_unpacked  # noqa: B018, a reading of what was read


FILES = {f"paris/{i}.jpg": bytes(i * j % 251 for j in range(700)) for i in range(4)} | {"paris/._x": b"y" * 600}


def _write_tar(compression: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        with tarfile.open(folder / "a.bin", f"w{compression}") as archive:
            for name, content in FILES.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))

    return write


def _write_zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "a.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)


def _unpack(folder: Path) -> None:
    import shutil

    from ultron_cli.datasets.download.unpacking import unpack

    try:
        unpack(folder / "a.bin", folder / "out")
    finally:
        shutil.rmtree(folder / "out", ignore_errors=True)


def _read_checksums(folder: Path) -> None:
    from ultron_cli.datasets.download.fetching import find_digest

    find_digest(folder / "SHA256SUMS", "a.tgz")


def _read_lock(folder: Path) -> None:
    """Who holds a folder, as another command says it."""
    from ultron_cli.locks import LOCK_FILE, _writer_in

    handle = os.open(folder / LOCK_FILE, os.O_RDONLY)
    try:
        writer = _writer_in(handle)
    finally:
        os.close(handle)
    if writer is not None and not writer.is_gone:
        assert "\n" not in str(UltronError(f"{folder} is written by {writer}; wait for it"))


LOCK = {"host": "a", "pid": 1 << 40, "since": "2026-01-01", "command": "ultron extract", "mark": "m"}


def _read_note(folder: Path) -> None:
    """The note beside an unfinished download, and the request that goes on with it."""
    from http.client import HTTPConnection

    from ultron_cli.datasets.download.fetching import Download, FetchOptions, FileRequest

    request = FileRequest(path=folder / "a.tgz", addresses=("https://x.org/a.tgz",))
    note = Download(request, FetchOptions())._note()
    connection = HTTPConnection("x.org")
    connection.putrequest("GET", "/a.tgz")
    connection.putheader("If-Range", note.validator)


NOTE = {"address": "https://x.org/a.tgz", "n_bytes": 9, "validator": '"abc"'}
DIGEST = "0123456789abcdef" * 4
DOWNLOAD_READERS: dict[str, Reader] = {
    "source-record": json_reader("source.json", SOURCE, read=_read_source),
    "seen-checksums": json_reader(
        "seen_checksums.json", SEEN, read=lazily("datasets.download.source_record", "read_seen_checksums")
    ),
    "mirrors": Reader(
        file="mirrors.toml",
        seeds=(text_file("mirrors.toml", MIRRORS),),
        read=lazily("datasets.download.mirrors", "read_mirrors"),
    ),
    "checksums": Reader(
        file="SHA256SUMS",
        seeds=(text_file("SHA256SUMS", f"{DIGEST} *x/a.tgz\n{DIGEST}  b\n"), text_file("SHA256SUMS", DIGEST)),
        read=_read_checksums,
    ),
    "download-note": json_reader("a.tgz.part.json", NOTE, read=_read_note),
    "lock": json_reader(".ultron-lock", LOCK, read=_read_lock),
    "archive": Reader(
        file="a.bin",
        seeds=(*(_write_tar(kind) for kind in ("", ":gz", ":bz2", ":xz")), _write_zip),
        read=_unpack,
        mutations=(mutate_bytes, mutate_archive, mutate_archive),
    ),
}
