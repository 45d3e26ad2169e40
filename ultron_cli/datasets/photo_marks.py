"""What tells a photo from another one under the same name: size and times of its file, and a digest of its bytes.

Size and times are looked at first. Where they are others, as after copying a dataset, the bytes decide.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ultron_cli.console import counted, log, progress
from ultron_cli.errors import UltronError

T = TypeVar("T")
State = tuple[int, int, int]  # size in bytes; times of the last change of content and of the file's record, in ns
NO_FILE: State = (-1, -1, -1)
DIGEST_BYTES = 16  # of SHA-256
SHOWN_NAMES = 3  # of photos that have changed
TRIES = 3  # to read a photo that is being written


@dataclass(frozen=True)
class PhotoMark:
    """A photo file as it was read."""

    state: State
    digest: bytes = b""  # the first DIGEST_BYTES of its SHA-256; empty where the content was not read


def state_of(path: Path | None) -> State:
    """Size and times of a file; NO_FILE where there is none."""
    try:
        status = os.stat(path) if path is not None else None
    except (OSError, ValueError):  # ValueError: no system has a file of such a name
        status = None
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns) if status else NO_FILE


def digest_of(path: Path) -> bytes:
    """The digest of a file; empty for what is no file that can be read to its end."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return b""
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").digest()[:DIGEST_BYTES]
    except (OSError, ValueError):
        return b""


def read_with_mark(path: Path, read: Callable[[], T]) -> tuple[T, PhotoMark]:
    """(what `read` makes of a photo, the mark of just the bytes it read). Raises UltronError if the file keeps
    changing, and what `read` raises."""
    for _ in range(TRIES):
        mark = PhotoMark(state_of(path), digest_of(path))
        value = read()
        if state_of(path) == mark.state:
            return value, mark
    raise UltronError(f"{path}: changes while it is read; try again when it is written to its end")


@dataclass(frozen=True)
class PhotoMarks:
    """The marks of N photos."""

    states: np.ndarray  # (N, 3) int64, the State of each
    digests: np.ndarray  # (N, DIGEST_BYTES) uint8

    @classmethod
    def of(cls, marks: Sequence[PhotoMark]) -> "PhotoMarks":
        """The marks of photos that were read, in their order."""
        states = np.array([mark.state for mark in marks], np.int64).reshape(-1, 3)
        digests = np.frombuffer(b"".join(mark.digest.ljust(DIGEST_BYTES, b"\0") for mark in marks), np.uint8).reshape(
            -1, DIGEST_BYTES
        )
        return cls(states, digests)

    @classmethod
    def joined(cls, parts: Sequence["PhotoMarks"]) -> "PhotoMarks":
        """The marks of several lists of photos, one after the other."""
        return cls(np.concatenate([part.states for part in parts]), np.concatenate([part.digests for part in parts]))

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, row: int) -> PhotoMark:
        size, mtime_ns, ctime_ns = self.states[row].tolist()
        return PhotoMark((size, mtime_ns, ctime_ns), self.digests[row].tobytes())

    def of_rows(self, start: int, stop: int) -> "PhotoMarks":
        """The marks of the rows start..stop."""
        return PhotoMarks(self.states[start:stop], self.digests[start:stop])

    def changed(self, paths: Sequence[Path | None]) -> list[int]:
        """Rows of the photos whose bytes are others by now, or gone. paths: (N,) files, None for none."""
        states = map(tuple, self.states.tolist())
        suspects = [row for row, (path, state) in enumerate(zip(paths, states, strict=True)) if state_of(path) != state]
        if not suspects:
            return []
        return [
            row
            for row in progress(suspects, what="compare")
            if (path := paths[row]) is None or digest_of(path) != self.digests[row].tobytes()
        ]


def warn_of_changed(photos: Iterable[tuple[str, Path, PhotoMark | None]]) -> None:
    """Says which of the photos that are shown beside descriptors are others by now than those that were described.

    photos: name, file, and the mark of what was described, None where it is not recorded. Photos that are gone are left
    out: whoever opens them says so.
    """
    shown = {path: (name, mark) for name, path, mark in photos if mark is not None and state_of(path) != NO_FILE}
    changed = PhotoMarks.of([mark for _, mark in shown.values()]).changed(list(shown))
    if changed:
        names = [name for name, _ in shown.values()]
        listed = ", ".join(names[row] for row in changed[:SHOWN_NAMES])
        rest = f" and {len(changed) - SHOWN_NAMES} more" if len(changed) > SHOWN_NAMES else ""
        log.warning(
            "%s shown %s changed since the search described %s: %s%s; run `ultron extract` and the search again",
            counted(len(changed), "photo"),
            *(("has", "it") if len(changed) == 1 else ("have", "them")),
            listed,
            rest,
        )
