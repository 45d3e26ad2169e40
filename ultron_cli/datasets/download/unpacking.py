"""Unpacks a downloaded archive (tar, tar.gz, tar.bz2, tar.xz, zip) into an empty folder and trusts nothing in it.

It refuses a path that leaves the folder, a link, a device, an archive that expands beyond a limit, one that is cut
short, and two files of one name.
"""

import bz2
import errno
import gzip
import io
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from ultron_cli.console import counted, log
from ultron_cli.datasets.download.fetching import Stopped
from ultron_cli.errors import WorkFailed
from ultron_cli.guarded import one_line
from ultron_cli.machine import free_bytes

T = TypeVar("T")

MAX_EXPANSION = 20  # JPEG photos expand by a few per cent; a bomb by thousands
SPARE_BYTES = 64 << 20  # small archives of text may expand more
MAX_FILES = 5_000_000
BLOCK_BYTES = 1 << 20
MAX_READ_BYTES = 1 << 24
MAX_NAME_BYTES = 255  # of a file's name, on every file system in use
# What Python's readers of archives raise for damaged ones.
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    MemoryError,
)
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
    n_members = n_files = n_bytes = n_left_out = 0
    members = _members(archive, folder, limit)
    while (member := _read(archive, _next, members)) is not None:
        n_members += 1
        name = member.path.rsplit("/", 1)[-1]
        is_left_out = name.startswith(".") or "__MACOSX" in member.path or (flat and not PHOTO_NAME.fullmatch(name))
        n_bytes += 0 if is_left_out else member.n_bytes
        if n_bytes > limit or n_members > MAX_FILES:
            raise _bomb(archive, limit)
        if is_left_out:
            n_left_out += 1
            continue
        n_files += 1
        _write(member, folder / (name if flat else member.path), archive, stop)
    if not n_files:
        raise Unsafe(
            f"{archive} holds no {'photos' if flat else 'files'}; delete it and download again, or check its address"
        )
    if n_left_out:
        log.debug("%s: %s that are no photos were left out", archive.name, counted(n_left_out, "file"))
    return n_files


def _next(members: Iterator[Member]) -> Member | None:
    return next(members, None)


def _bomb(archive: Path, limit: int) -> Unsafe:
    return Unsafe(
        f"{archive} expands to more than {limit:,} bytes or {MAX_FILES:,} files, which no set of photos does; it was "
        "refused"
    )


def _read(archive: Path, part: Callable[..., T], *arguments: object) -> T:
    """What `part` reads of the archive. Raises Unsafe for whatever Python's own readers raise for a damaged one."""
    try:
        return part(*arguments)
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno == errno.EIO:
            raise WorkFailed(f"{archive} could not be read from its disk ({error.strerror}); run again") from error
        raise Unsafe(
            f"{archive} is damaged or not an archive ({one_line(error)}); delete it and download again"
        ) from error


def _write(member: Member, target: Path, archive: Path, stop: threading.Event | None) -> None:
    """Writes one file, never over another, never more than the archive says it has."""
    if stop is not None and stop.is_set():
        raise Stopped
    n_left = member.n_bytes
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "xb") as handle:
            while n_left and (block := _read(archive, member.read, min(n_left, BLOCK_BYTES))):
                handle.write(block)
                n_left -= len(block)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        clash = (
            f"two files that would be {target.name!r}"
            if target.is_file()
            else f"{member.path!r} as a file and as a folder"
        )
        raise Unsafe(f"{archive} holds {clash}; it was refused") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise _too_long(archive, member.path) from None
        raise WorkFailed(
            f"could not write {target} ({error.strerror}, {free_bytes(target):,} bytes free); free disk space "
            "and run again"
        ) from error
    is_longer = _read(archive, member.read, 1)  # also makes zipfile check the file's own checksum
    if n_left or is_longer:
        fault = "cut short" if n_left else "longer than it says"
        raise Unsafe(
            f"{archive} is damaged or not an archive ({member.path[:80]!r} is {fault}); delete it and download again"
        )


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
    """A member's name as a relative path with forward slashes. Raises Unsafe if it is absolute, leaves the folder, has
    control characters or is longer than a file's name can be."""
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
    if any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in parts):
        raise _too_long(archive, name)
    return "/".join(parts)


def _too_long(archive: Path, name: str) -> Unsafe:
    return Unsafe(f"{archive} holds the path {name[:80]!r}..., which is too long for a file system; it was refused")


def _members(archive: Path, folder: Path, limit: int) -> Iterator[Member]:
    """Files of the archive in its order; folders are left out. Raises Unsafe for a link or a device, and when more than
    `limit` bytes have been decompressed."""
    with open(archive, "rb") as handle:
        start = handle.read(6)
    if start.startswith(b"PK"):
        yield from _zip_members(archive)
        return
    opener = next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), open)
    with opener(archive, "rb") as stream:
        yield from _tar_members(archive, folder, _LimitedStream(stream, lambda: _bomb(archive, limit), limit))


class _LimitedStream:
    """A file that ends in an error beyond a limit, and remembers the last block read from it: a tar that ends properly
    ends in zeros, a cut one in nothing."""

    def __init__(self, stream: io.BufferedIOBase, refusal: Callable[[], Unsafe], limit: int) -> None:
        self._stream = stream
        self._refusal = refusal
        self._limit = limit
        self.last = b""

    def read(self, n: int) -> bytes:
        if not 0 <= n <= MAX_READ_BYTES:  # tarfile reads a member's extended header in one piece
            raise tarfile.ReadError(f"a header of {n:,} bytes")
        self.seek(self.tell())
        self.last = self._stream.read(n)
        return self.last

    def seek(self, offset: int) -> int:
        # A seek decompresses all that lies between: contents that are left out too.
        if offset > self._limit:
            raise self._refusal()
        return self._stream.seek(offset)

    def tell(self) -> int:
        return self._stream.tell()


def _tar_members(archive: Path, folder: Path, stream: _LimitedStream) -> Iterator[Member]:
    with tarfile.open(fileobj=stream, mode="r:") as tar:  # type: ignore[arg-type]  # it reads, seeks and tells, no more
        while (entry := tar.next()) is not None:
            # The list of members would grow by a million entries.
            tar.members = []  # type: ignore[attr-defined]  # its stub does not name them
            path = safe_path(entry.name, archive) if entry.name.strip("./") else ""
            if entry.size < 0 or entry.issparse():
                raise tarfile.ReadError(f"{entry.name!r} has {entry.size} bytes, or holes")
            if entry.isdir() or not path:
                continue
            if not entry.isreg():
                raise Unsafe(
                    f"{archive} holds {entry.name!r}, a "
                    f"{'link' if entry.islnk() or entry.issym() else 'device'}; only plain files are unpacked"
                )
            tarfile.data_filter(entry, str(folder))  # Python's own check beside safe_path, of links in the folder too
            content = tar.extractfile(entry)
            assert content is not None  # a plain file has content
            yield Member(path=path, n_bytes=entry.size, read=content.read)
        if len(stream.last) != tarfile.BLOCKSIZE or stream.last.strip(b"\0"):
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
