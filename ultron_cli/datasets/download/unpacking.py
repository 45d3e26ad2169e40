"""Unpacks a downloaded archive (tar, tar.gz, tar.bz2, tar.xz, zip) into an empty folder and trusts nothing in it.

It refuses a path that leaves the folder, a link, a device, an archive that expands beyond a limit, one that is cut
short, and two files of one name.
"""

import bz2
import gzip
import io
import lzma
import os
import re
import shutil
import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ultron_cli.console import counted, log
from ultron_cli.datasets.download.fetching import Stopped
from ultron_cli.errors import WorkFailed
from ultron_cli.machine import free_bytes

MAX_EXPANSION = 20  # JPEG photos expand by a few per cent; a bomb by thousands
SPARE_BYTES = 64 << 20  # small archives of text may expand more
MAX_FILES = 5_000_000
BLOCK_BYTES = 1 << 20
MAX_READ_BYTES = 1 << 24
PHOTO_NAME = re.compile(r".*\.(jpe?g|png|webp|bmp|tiff?|gif)", re.IGNORECASE)
# first bytes of a compressed tar -> what opens it
OPENERS: dict[bytes, Callable[[Path, Literal["rb"]], io.BufferedIOBase]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}


class Unsafe(WorkFailed):
    """The archive is refused; it must not be tried again as it is."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file in an archive."""

    path: str  # relative, checked
    n_bytes: int
    read: Callable[[int], bytes]  # as of a file, from the start


def unpack(archive: Path, folder: Path, *, flat: bool = False, stop: threading.Event | None = None) -> int:
    """Writes the archive's files below `folder`, which must not hold any of them, and returns their number.

    flat: photos only, without the archive's folders. Raises Unsafe (a WorkFailed) for an archive that breaks a rule,
    Stopped on interruption.
    """
    limit = archive.stat().st_size * MAX_EXPANSION + SPARE_BYTES
    n_files = n_bytes = n_left_out = 0
    try:
        for member in _members(archive):
            name = member.path.rsplit("/", 1)[-1]
            if name.startswith(("._", ".")) or "__MACOSX" in member.path or (flat and not PHOTO_NAME.fullmatch(name)):
                n_left_out += 1
                continue
            n_files += 1
            n_bytes += member.n_bytes
            if n_bytes > limit or n_files > MAX_FILES:
                raise Unsafe(
                    f"{archive} expands to more than {limit:,} bytes or {MAX_FILES:,} files, which no set of "
                    "photos does; it was refused"
                )
            _write(member, folder / (name if flat else member.path), archive, stop)
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        gzip.BadGzipFile,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise Unsafe(
            f"{archive} is damaged or not an archive ({error or type(error).__name__}); delete it and download again"
        ) from error
    if not n_files:
        raise Unsafe(
            f"{archive} holds no {'photos' if flat else 'files'}; delete it and download again, or check its address"
        )
    if n_left_out:
        log.debug("%s: %s that are no photos were left out", archive.name, counted(n_left_out, "file"))
    return n_files


def _write(member: Member, target: Path, archive: Path, stop: threading.Event | None) -> None:
    """Writes one file, never over another, never more than the archive says it has."""
    if stop is not None and stop.is_set():
        raise Stopped
    n_left = member.n_bytes
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "xb") as handle:
            while n_left and (block := member.read(min(n_left, BLOCK_BYTES))):
                handle.write(block)
                n_left -= len(block)
        if member.read(1):  # also makes zipfile check the file's own checksum
            raise EOFError(f"{member.path} is longer than it says")
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        clash = (
            f"two files that would be {target.name}"
            if target.is_file()
            else f"{member.path!r} as a file and as a folder"
        )
        raise Unsafe(f"{archive} holds {clash}; it was refused") from None
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile) or error.strerror is None:
            raise EOFError(str(error)) from error  # damage in the compressed stream, said by the caller
        raise WorkFailed(
            f"could not write {target} ({error.strerror}, {free_bytes(target):,} bytes free); free disk space "
            "and run again"
        ) from error
    if n_left:
        raise EOFError(f"{member.path} is cut short")


def move_tree(source: Path, target: Path) -> None:
    """Moves every file below `source` to the same place below `target` (one file system), then deletes `source`.
    After an interruption it goes on where it stopped."""
    for where, _, files in os.walk(source):
        place = target / os.path.relpath(where, source)
        place.mkdir(parents=True, exist_ok=True)
        for name in files:
            os.replace(os.path.join(where, name), place / name)
    shutil.rmtree(source)


def safe_path(name: str, archive: Path) -> str:
    """A member's name as a relative path with forward slashes. Raises Unsafe if it is absolute, leaves the folder or
    has control characters."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    bad = (
        name.startswith("/")
        or ".." in parts
        or "\\" in name
        or re.match(r"[A-Za-z]:", name)
        or any(ord(character) < 32 for character in name)
    )
    if bad or not parts:
        raise Unsafe(f"{archive} holds the path {name!r}, which leaves its folder or is no file name; it was refused")
    return "/".join(parts)


def _members(archive: Path) -> Iterator[Member]:
    """Files of the archive in its order; folders are left out. Raises Unsafe for a link or a device."""
    with open(archive, "rb") as handle:
        start = handle.read(6)
    if start.startswith(b"PK"):
        yield from _zip_members(archive)
        return
    opener = next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), open)
    with opener(archive, "rb") as stream:
        yield from _tar_members(archive, stream)


class _LastBlock:
    """A file that remembers the last block read from it: a tar that ends properly ends in zeros, a cut one in
    nothing."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream = stream
        self.last = b""

    def read(self, n: int) -> bytes:
        if not 0 <= n <= MAX_READ_BYTES:  # tarfile reads a member's extended header in one piece
            raise tarfile.ReadError(f"a header of {n:,} bytes")
        self.last = self._stream.read(n)
        return self.last

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()


def _tar_members(archive: Path, stream: io.BufferedIOBase) -> Iterator[Member]:
    watched = _LastBlock(stream)
    with tarfile.open(fileobj=watched, mode="r:") as tar:  # type: ignore[arg-type]  # it reads, seeks and tells, no more
        while (entry := tar.next()) is not None:
            # The list of members would grow by a million entries.
            tar.members = []  # type: ignore[attr-defined]  # its stub does not name them
            path = safe_path(entry.name, archive) if entry.name.strip("./") else ""
            if entry.isdir() or not path:
                continue
            if not entry.isreg():
                raise Unsafe(
                    f"{archive} holds {entry.name!r}, a "
                    f"{'link' if entry.islnk() or entry.issym() else 'device'}; only plain files are unpacked"
                )
            content = tar.extractfile(entry)
            assert content is not None  # a plain file has content
            yield Member(path=path, n_bytes=entry.size, read=content.read)
        if len(watched.last) != tarfile.BLOCKSIZE or watched.last.strip(b"\0"):
            raise EOFError("it is cut short: the end mark is missing")
    while stream.read(BLOCK_BYTES):
        pass  # a compressed stream tells only at its end whether its checksum holds


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as zip_file:
        for entry in zip_file.infolist():
            path = safe_path(entry.filename, archive)
            mode = entry.external_attr >> 16
            if entry.is_dir():
                continue
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise Unsafe(f"{archive} holds {entry.filename!r}, a link or a device; only plain files are unpacked")
            with zip_file.open(entry) as content:
                yield Member(path=path, n_bytes=entry.file_size, read=content.read)
