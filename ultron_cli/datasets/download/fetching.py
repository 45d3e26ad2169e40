"""Downloads one file: it is resumed after every interruption, tried again with growing pauses and checked. Only
then is it given its name.

While it is incomplete a file is NAME.part, with NAME.part.json beside it (address, size, and the ETag or date that
tells whether the server still has the same file). Neither is ever taken for the file itself.
"""

import errno
import hashlib
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ultron_cli.configs import within
from ultron_cli.console import log
from ultron_cli.datasets.download.transport import Broken, Gone, OutOfRange, Reply, open_address
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.files import make_folder, sync_folder, write_text
from ultron_cli.output_files import write_all
from ultron_cli.schema.texts import read_json, read_text

BLOCK_BYTES = 1 << 18
FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
DIGESTS = {32: "md5", 40: "sha1", 64: "sha256", 44: "git blob"}  # by length; the last are those of GIT_BLOB
GIT_BLOB = "git:"  # before the SHA-1 by which git knows a file of a commit


class Stopped(Exception):
    """The user interrupted; what has arrived is kept."""


@dataclass(frozen=True, kw_only=True)
class FetchOptions:
    """How patiently files are fetched, and how that is ended."""

    attempts: int = 5  # per address, without any byte of progress between them
    timeout_s: float = 60.0  # of silence on a connection
    stop: threading.Event = field(default_factory=threading.Event)  # set to end soon

    def __post_init__(self) -> None:
        within("retries", self.attempts - 1, 0, 100)
        within("timeout_s", self.timeout_s, 0.1, 3600)


@dataclass(frozen=True, kw_only=True)
class FetchedFile:
    """A file that is whole."""

    path: Path
    address: str  # where it came from
    n_bytes: int
    sha256: str  # hexadecimal


@dataclass(frozen=True, kw_only=True)
class FileRequest:
    """A file to have at `path`."""

    path: Path
    addresses: tuple[str, ...]  # the first that gives the file is taken
    n_bytes: int | None = None  # that it must have
    digest: str | None = None  # hexadecimal MD5, SHA-1 or SHA-256 that it must have, or git's name of it


def digests_of_file(path: Path, names: set[str]) -> dict[str, str]:
    """Hexadecimal digests of a file's bytes by name (of DIGESTS), in one pass."""
    of_git = "git blob"
    running = {name: hashlib.new("sha1" if name == of_git else name, usedforsecurity=False) for name in names}
    if of_git in running:
        running[of_git].update(b"blob %d\0" % path.stat().st_size)
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            for digest in running.values():
                digest.update(block)
    return {name: (GIT_BLOB if name == of_git else "") + digest.hexdigest() for name, digest in running.items()}


def check_file(path: Path, n_bytes: int | None, digest: str | None) -> tuple[str, str]:
    """(SHA-256, what is wrong with the file or an empty string)."""
    kind = DIGESTS[len(digest)] if digest else "sha256"
    digests = digests_of_file(path, {"sha256", kind})
    size = path.stat().st_size
    if n_bytes is not None and size != n_bytes:
        return digests["sha256"], f"has {size:,} bytes where {n_bytes:,} are published"
    if digest and digests[kind] != digest.lower():
        return digests["sha256"], f"has {kind.upper()} {digests[kind]} where {digest.lower()} is published"
    return digests["sha256"], ""


def find_digest(path: Path, file: str) -> str:
    """The digest of `file` in a checksum file: `DIGEST FILE` or `DIGEST ADDRESS/FILE` per line, or a single digest.
    Raises WorkFailed."""
    try:
        lines = [line.split() for line in read_text(path, "checksum file").splitlines() if line.strip()]
    except UltronError:
        lines = []  # a picture of an error, perhaps
    for words in lines:
        names_it = len(words) == 1 or any(word.lstrip("*").rsplit("/", 1)[-1] == file for word in words[1:])
        if (
            names_it
            and len(words[0]) in DIGESTS
            and all(character in "0123456789abcdefABCDEF" for character in words[0])
        ):
            return words[0].lower()
    path.unlink()
    raise WorkFailed(
        f"the publisher's checksum file holds none for {file}; it was deleted, try again later or name a "
        "mirror with `mirror`"
    )


@dataclass(frozen=True, kw_only=True)
class _Note:
    """What is kept beside an unfinished file, to go on with it."""

    address: str = ""  # that it came from
    n_bytes: int | None = None  # of the whole file
    validator: str = ""  # of Reply


class Download:
    """One file on its way.

    on_progress: called with (bytes that have arrived, bytes in all or None). on_size: called with the bytes still to
    come; it may raise to stop before they do.
    """

    def __init__(
        self,
        request: FileRequest,
        options: FetchOptions,
        on_progress: Callable[[int, int | None], None] | None = None,
        on_size: Callable[[int], None] | None = None,
    ) -> None:
        self.request = request
        self.options = options
        self._on_progress = on_progress or (lambda done, total: None)
        self._on_size = on_size or (lambda n: None)
        self.part = request.path.with_name(request.path.name + ".part")
        self.note = request.path.with_name(request.path.name + ".part.json")
        self._continued = False  # the file is put together from several connections
        self._n_wrong = 0  # whole files that were not the right one
        self._most = 0  # bytes that any try has had

    def run(self) -> FetchedFile:
        """Fetches the file. Raises WorkFailed, with what each address said, if none gives it whole; Stopped if the user
        interrupts."""
        make_folder(self.part.parent)
        problems = []
        for address in self.request.addresses:
            try:
                sha256 = self._fetch_from(address)
            except Gone as problem:
                problems.append(f"{address} {problem}")
                log.debug("%s %s", address, problem)
                continue
            n_bytes = self.part.stat().st_size
            self._give_name()
            return FetchedFile(path=self.request.path, address=address, n_bytes=n_bytes, sha256=sha256)
        progress = (
            f"; {self.part.stat().st_size:,} bytes are kept, the same command goes on from there"
            if self.part.exists()
            else ""
        )
        raise WorkFailed(
            f"{self.request.path.name} could not be downloaded: {'; '.join(problems)}{progress}; try again later, "
            "name a mirror with `mirror`, "
            f"or put the file at {self.request.path} yourself"
        )

    def _fetch_from(self, address: str) -> str:
        """Gets the whole file into .part and returns its SHA-256. Raises Gone when this address is of no use."""
        failures = 0
        self._most = self._size()
        while True:
            try:
                self._receive(address)
                return self._checked()
            except OutOfRange:
                self._start_anew()
                problem = Broken("could not continue the file, it is fetched anew")
            except Broken as broken:
                problem = broken
            # Progress is what no try had before; a file that is begun anew again and again makes none.
            failures = 1 if self._size() > self._most else failures + 1
            self._most = max(self._most, self._size())
            if failures >= self.options.attempts:
                raise Gone(f"failed {failures} times without progress, the last time with: {problem}")
            wait_s = max(problem.wait_s, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (failures - 1)))
            log.info("%s: %s; trying again%s", address, problem, f" in {wait_s:.0f} s" if wait_s else "")
            if self.options.stop.wait(wait_s):
                raise Stopped

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _note(self) -> "_Note":
        """What the note beside the unfinished file says; empty without a sound one."""
        try:
            note = read_json(self.note, "note of the download", _Note)
        except UltronError:
            return _Note()  # then the file is fetched anew
        # It becomes a header of a request, which a line's end would end.
        return note if note.validator.isascii() and note.validator.isprintable() else _Note()

    def _start_anew(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def _receive(self, address: str) -> None:
        """Receives the rest of the file, or as much as comes, over one connection."""
        note = self._note()
        offset = self._size()
        validator = ""
        if offset:
            validator = note.validator if note.address == address else ""
            if not validator and not self.request.digest:  # nothing would tell a file put together from two versions
                offset = 0
            elif note.n_bytes == offset:
                self._continued = True
                return
        reply = open_address(address, offset, validator, self.options.timeout_s)
        try:
            if reply.start and note.n_bytes not in (None, reply.n_bytes):
                raise OutOfRange(None)
            self._check_size(reply)
            self._continued = reply.start > 0
            if not self._continued:
                self._start_anew()
                write_text(
                    self.note, json.dumps({"address": address, "n_bytes": reply.n_bytes, "validator": reply.validator})
                )
            self._write(reply)
        finally:
            reply.close()

    def _check_size(self, reply: Reply) -> None:
        if self.request.n_bytes is not None and reply.n_bytes not in (None, self.request.n_bytes):
            raise Gone(f"has {reply.n_bytes:,} bytes where {self.request.n_bytes:,} are published")
        if reply.n_bytes is None and self.request.n_bytes is None and not self.request.digest:
            raise Gone(
                "does not tell the file's size, and no checksum is published: a file cut short could not be "
                "told from a whole one"
            )
        if reply.n_bytes is not None:
            self._on_size(reply.n_bytes - reply.start)

    def _write(self, reply: Reply) -> None:
        done = reply.start
        total = reply.n_bytes if reply.n_bytes is not None else self.request.n_bytes
        try:
            with open(self.part, "r+b" if reply.start else "wb", buffering=0) as handle:
                handle.seek(done)
                handle.truncate()
                self._on_progress(done, total)
                while block := reply.read(BLOCK_BYTES):
                    write_all(handle.fileno(), block)
                    done += len(block)
                    self._on_progress(done, total)
                    if self.options.stop.is_set():
                        raise Stopped
        except OSError as error:
            full = (
                "the disk is full"
                if error.errno in (errno.ENOSPC, errno.EDQUOT)
                else f"writing failed ({error.strerror})"
            )
            raise WorkFailed(
                f"{full} at {done:,} bytes of {self.part}; free some space, the same command goes on from there"
            ) from error
        if total is not None and done < total:
            raise Broken(f"the connection ended after {done:,} of {total:,} bytes")
        if total is not None and done > total:
            self._start_anew()
            raise Broken(f"sent {done:,} bytes where it had told {total:,}")

    def _checked(self) -> str:
        """SHA-256 of .part if it is what it should be. A wrong one is deleted; if it was put together from pieces it is
        fetched once more."""
        sha256, wrong = check_file(self.part, self.request.n_bytes, self.request.digest)
        if not wrong:
            return sha256
        self._start_anew()
        self._n_wrong += 1
        self._most = 0
        if self._continued and self._n_wrong == 1:
            raise Broken(f"the file {wrong}")
        raise Gone(f"gave a file that {wrong}; it was deleted")

    def _give_name(self) -> None:
        with open(self.part, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(self.part, self.request.path)
        sync_folder(self.request.path.parent)
        self.note.unlink(missing_ok=True)
