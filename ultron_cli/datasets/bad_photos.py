"""The list of bad photos in a dataset folder (bad_photos.json): `ultron datasets verify` writes it, --skip-bad and
training read it.

An entry counts only as long as its file has the size and time of change that it had then: a photo that was replaced is
no longer left out.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ultron_cli.files import file_state, write_text
from ultron_cli.provenance import utc_now
from ultron_cli.schema.regular import MOST_LIST_BYTES
from ultron_cli.schema.texts import read_json

BAD_PHOTOS_FILE = "bad_photos.json"
Kind = Literal[
    "missing", "empty", "truncated", "not-a-photo", "undecodable", "wrong-type", "too-large", "duplicate", "ambiguous"
]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What is wrong with a photo."""

    path: str  # relative to the dataset folder
    kind: Kind
    reason: str
    n_bytes: int | None = None  # of the file when it was checked, None where there was none
    mtime_ns: int | None = None  # its time of change, likewise


@dataclass(frozen=True, kw_only=True)
class _BadPhotos:
    """The content of the list that its readers need."""

    format: Literal["ultron-bad-photos"]
    version: Literal[1]
    bad: list[Finding]


def write_bad_photos(folder: Path, bad: list[Finding], odd: list[Finding], n_checked: int) -> Path:
    """Writes the list and returns its path. bad: photos to leave out; odd: usable ones that deserve a look."""
    path = folder / BAD_PHOTOS_FILE
    content = {"format": "ultron-bad-photos", "version": 1, "checked": utc_now(), "n_checked": n_checked}
    write_text(
        path,
        json.dumps(
            content | {"bad": [asdict(finding) for finding in bad], "odd": [asdict(finding) for finding in odd]},
            indent=1,
        ),
    )
    return path


def read_bad_photos(folder: Path) -> dict[Path, str]:
    """Files to leave out, with the reason; empty without a list. Raises UltronError if the list is unsound."""
    path = folder / BAD_PHOTOS_FILE
    if not path.exists():
        return {}
    content = read_json(
        path,
        "list of bad photos",
        _BadPhotos,
        advice="make it again with `ultron datasets verify`, or delete it",
        most_bytes=MOST_LIST_BYTES,
    )
    return {
        folder / finding.path: f"{folder / finding.path}: {finding.reason} (listed in {BAD_PHOTOS_FILE})"
        for finding in content.bad
        if photo_state(folder / finding.path) == (finding.n_bytes, finding.mtime_ns)
    }


def photo_state(path: Path) -> tuple[int | None, int | None]:
    """(size in bytes, time of change in ns) of a photo, or (None, None) where there is none."""
    try:
        return file_state(path)
    except (OSError, ValueError):  # ValueError: no system has a file of such a name
        return None, None
