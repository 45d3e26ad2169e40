"""What is known of a published dataset: its parts and where they are, and the step that finishes it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ultron_cli.errors import UltronError


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file to download."""

    file: str
    addresses: tuple[str, ...] = ()
    kind: Literal["photos", "file"] = "file"  # `photos` is an archive to unpack, `file` is kept as it is
    into: str = ""  # folder to unpack into, or path of the file (empty: its own name), below the dataset's folder
    flat: bool = False  # photos only, the archive's folders are dropped
    n_bytes: int | None = None  # published size
    about_bytes: int | None = None  # approximate size, for disk space and the list
    sha256: str | None = None  # published checksum
    git_blob: str | None = None  # the SHA-1 by which git knows the file, where an address names a commit
    checksum_address: str | None = None  # of a publisher's file that holds MD5 or SHA-256, told apart by length
    known_sha256: str | None = None  # of the file as this project knows it; another one is a warning, not an error
    version: str = ""  # of the photos, where there are several


@dataclass(frozen=True, kw_only=True)
class KnownSet:
    """A published dataset."""

    name: str
    purpose: str
    photos: str  # how many, in words
    licence: str
    parts: tuple[Part, ...]
    sources: tuple[str, ...]
    n_database: int | None = None  # published count, checked after the download where a ground truth tells it
    n_queries: int | None = None  # likewise
    finish: Callable[[Path], None] | None = None  # makes the publisher's labels in this folder readable (layouts.py)
    needs: str = ""  # a set whose photos this one uses
    versions: tuple[str, ...] = ()  # of the photos; the first is taken unless another is asked for
    withdrawn: str = ""  # why there is no address

    def parts_of(self, version: str | None) -> tuple[Part, ...]:
        """The parts of one version of the photos (None: the first). Raises UltronError for an unknown version."""
        if version is not None and version not in self.versions:
            offered = (
                f"it has {', '.join(self.versions)}"
                if self.versions
                else "it has one version only; leave `photos` away"
            )
            raise UltronError(f"`photos` {version}: {self.name} has no such version of its photos; {offered}")
        version = version or (self.versions[0] if self.versions else "")
        return tuple(part for part in self.parts if part.version in ("", version))

    def about_bytes(self) -> tuple[int, bool]:
        """Approximate download size of the first version, and whether it is of all its parts (else the others come on
        top).

        0 where the size of some photos is not known: that of the small files alone would mislead.
        """
        parts = self.parts_of(None)
        sizes = [part.n_bytes or part.about_bytes for part in parts]
        if any(part.kind == "photos" and not size for part, size in zip(parts, sizes, strict=True)):
            return 0, False
        return sum(size or 0 for size in sizes), all(sizes)
