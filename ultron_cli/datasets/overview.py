"""What is known, what is there, and where it came from: the facts behind `ultron datasets list` and `info`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from ultron_cli.datasets.download.catalog import KNOWN_SETS, KnownSet, Part
from ultron_cli.datasets.download.source_record import read_source
from ultron_cli.datasets.folder import describe_dataset
from ultron_cli.datasets.landmarks.lists import LIST_FILE, open_landmark_list
from ultron_cli.workspace import Workspace

State = Literal["absent", "begun", "present", "own copy"]


def state_of(known: KnownSet, data_root: Path) -> State:
    """Whether a known dataset is there: downloaded (wholly or begun), or put there by the user."""
    record = read_source(data_root / known.name)
    if record is not None:
        return "present" if record.complete else "begun"
    if (data_root / known.name).is_dir():
        return "own copy"
    return "begun" if (data_root / ".downloads" / known.name).is_dir() else "absent"


def known_overview(data_root: Path) -> list[dict[str, Any]]:
    """One entry per known dataset, for the list."""
    return [
        {
            "name": known.name,
            "state": state_of(known, data_root),
            "purpose": known.purpose,
            "photos": known.photos,
            "licence": known.licence,
            "download_bytes": known.about_bytes()[0] or None,
            "download_bytes_of_all": known.about_bytes()[1],
            "files": len(known.parts_of(None)),
            "needs": known.needs or None,
            "withdrawn": known.withdrawn or None,
        }
        for known in KNOWN_SETS.values()
    ]


def describe_known(known: KnownSet, data_root: Path) -> dict[str, Any]:
    """The catalog's facts of a dataset: parts with addresses, sizes and how each will be checked, and where the figures
    come from."""
    entry = next(entry for entry in known_overview(data_root) if entry["name"] == known.name)
    return entry | {
        "versions": list(known.versions),
        "sources": list(known.sources),
        "parts": [_describe_part(part) for part in known.parts],
    }


def _describe_part(part: Part) -> dict[str, Any]:
    checked = "SHA-256 of the file as ultron knows it" if part.known_sha256 else "recorded at the first download"
    if part.sha256 or part.checksum_address:
        checked = "SHA-256 published" if part.sha256 else f"checksum in {part.checksum_address}"
    return {
        "file": part.file,
        "addresses": list(part.addresses),
        "bytes": part.n_bytes or part.about_bytes,
        "bytes_published": part.n_bytes is not None,
        "checked_by": checked,
        "version": part.version or None,
    }


def describe(text: str, gnd: Path | None, workspace: Workspace) -> dict[str, Any]:
    """Facts of a dataset that is there: photos, labels per protocol, or landmarks of a training list; and the record of
    its download."""
    from ultron_cli.datasets.named import open_named_dataset  # brings torch, which the list does not need

    dataset = open_named_dataset(text, gnd, workspace)
    if dataset.ground_truth is None and (dataset.folder / LIST_FILE).is_file():
        listed = open_landmark_list(dataset.folder)
        facts: dict[str, Any] = {
            "name": dataset.name,
            "folder": str(dataset.folder),
            "photo_folder": str(listed.paths.folder),
            "photos": len(listed.paths),
            "landmarks": len(set(listed.landmarks)),
            "protocols": {},
        }
    else:
        facts = describe_dataset(dataset)
    record = read_source(dataset.folder)
    facts["photos_version"] = record.photos_version if record else None
    facts["version_known_by"] = record.version_known_by if record else None
    facts["bad_photos"] = len(dataset.bad_photos)
    facts["source"] = asdict(record) if record else None
    return facts
