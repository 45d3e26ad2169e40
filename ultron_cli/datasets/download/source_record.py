"""What a downloaded dataset was made from: source.json in its folder, and the checksums seen so far in the data root.

seen_checksums.json holds, for files whose publisher gives no checksum, what the first download had; later downloads
must have the same.
"""

import json
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ultron_cli import __version__
from ultron_cli.errors import UltronError
from ultron_cli.files import read_json, write_text
from ultron_cli.provenance import utc_now

SOURCE_FILE = "source.json"
SEEN_FILE = "seen_checksums.json"
ARCHIVE_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".zip")
_lock = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class PartRecord:
    """A part as it came. checked: `published MD5` or `SHA256`, `known SHA-256`, `first download` or `earlier
    download`."""

    file: str
    address: str
    n_bytes: int
    sha256: str
    checked: str
    n_files: int
    downloaded: str


@dataclass(kw_only=True)
class SourceRecord:
    """source.json. parts: by file name, those that are in place; complete: all are; photos_version and how it is known,
    where there are several."""

    dataset: str
    complete: bool = False
    photos_version: str | None = None
    version_known_by: str | None = None
    parts: dict[str, PartRecord] = field(default_factory=dict)
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


def read_source(folder: Path) -> SourceRecord | None:
    """The record in a dataset folder, or None if it was not downloaded by ultron. Raises UltronError if it is
    unreadable."""
    path = folder / SOURCE_FILE
    if not path.is_file():
        return None
    content = read_json(path, "record of the download")
    try:
        if content.pop("format") != "ultron-source" or content.pop("version") != 1:
            raise KeyError("format")
        parts = {name: PartRecord(**part) for name, part in content.pop("parts").items()}
        return SourceRecord(parts=parts, **content)
    except (KeyError, TypeError, AttributeError) as error:
        raise UltronError(
            f"{path} is not a record of a download ({error}); delete it and run `ultron datasets download` again"
        ) from error


def read_seen(data_root: Path) -> dict[str, dict[str, Any]]:
    """Checksums by `SET/FILE`."""
    path = data_root / SEEN_FILE
    return read_json(path, "list of checksums") if path.is_file() else {}


def remember_checksum(data_root: Path, key: str, sha256: str, address: str) -> None:
    """Adds a checksum that is not there yet."""
    with _lock:
        seen = read_seen(data_root)
        if key not in seen:
            seen[key] = {"sha256": sha256, "address": address, "first_seen": utc_now()}
            write_text(data_root / SEEN_FILE, json.dumps(seen, indent=1, sort_keys=True))
