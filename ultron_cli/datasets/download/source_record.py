"""What a downloaded dataset was made from: source.json in its folder, and the checksums seen so far in the data root.

seen_checksums.json holds, for files whose publisher gives no checksum, what the first download had; later downloads
must have the same.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal, TypedDict

from ultron_cli import __version__
from ultron_cli.files import write_text
from ultron_cli.locks import only_writer
from ultron_cli.provenance import utc_now
from ultron_cli.schema.texts import read_json

SOURCE_FILE = "source.json"
SEEN_FILE = "seen_checksums.json"
ARCHIVE_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".zip")


@dataclass(frozen=True, kw_only=True)
class PartRecord:
    """A part as it came."""

    file: str
    address: str
    n_bytes: int
    sha256: str
    checked: str  # `published MD5`, `published SHA256`, `known SHA-256`, `first download` or `earlier download`
    n_files: int  # out of an archive; 1 for a single file
    downloaded: str  # ISO 8601, UTC


@dataclass(kw_only=True)
class SourceRecord:
    """The content of source.json."""

    dataset: str
    complete: bool = False  # all parts are in place and the labels are readable
    photos_version: str | None = None  # where the photos have several
    version_known_by: str | None = None  # `size`, `checksum` or `file name`
    parts: dict[str, PartRecord] = field(default_factory=dict)  # those that are in place, by file name
    ultron_version: str = __version__
    n_database: int | None = None
    n_queries: int | None = None

    @property
    def n_unpacked(self) -> int:
        """Files that came out of archives."""
        return sum(part.n_files for part in self.parts.values() if part.file.endswith(ARCHIVE_SUFFIXES))

    def write(self, folder: Path) -> None:
        """Writes source.json, whole or not at all."""
        write_text(
            folder / SOURCE_FILE, json.dumps({"format": "ultron-source", "version": 1, **asdict(self)}, indent=1)
        )


@dataclass(kw_only=True)
class _StoredRecord(SourceRecord):
    """source.json as it is stored."""

    format: Literal["ultron-source"]
    version: Literal[1]


def read_source(folder: Path) -> SourceRecord | None:
    """The record in a dataset folder, or None if it was not downloaded by ultron. Raises UltronError if it is
    unreadable."""
    path = folder / SOURCE_FILE
    if not path.exists():
        return None
    stored = read_json(
        path,
        "record of the download",
        _StoredRecord,
        advice="delete it and run `ultron datasets download` again",
    )
    return SourceRecord(**{field.name: getattr(stored, field.name) for field in fields(SourceRecord)})


class SeenChecksum(TypedDict):
    """An entry of seen_checksums.json."""

    sha256: str
    address: str
    first_seen: str  # ISO 8601, UTC


def read_seen_checksums(data_root: Path) -> dict[str, SeenChecksum]:
    """The checksums seen so far, by `SET/FILE`."""
    path = data_root / SEEN_FILE
    if not path.exists():
        return {}
    return read_json(path, "list of checksums", dict[str, SeenChecksum], advice="correct it, or delete it")


def remember_checksum(data_root: Path, key: str, sha256: str, address: str) -> None:
    """Adds a checksum that is not there yet."""
    path = data_root / SEEN_FILE
    with only_writer(path, f"another download is writing {path}", beside=True, wait=True):
        checksums = read_seen_checksums(data_root)
        if key not in checksums:
            checksums[key] = {"sha256": sha256, "address": address, "first_seen": utc_now()}
            write_text(path, json.dumps(checksums, indent=1, sort_keys=True))
