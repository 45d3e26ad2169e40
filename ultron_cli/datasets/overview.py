"""The facts behind `ultron datasets list` and `info`: which datasets are known, which are present, and where they came
from."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Required, TypedDict

from ultron_cli.datasets.download.catalog import KNOWN_SETS
from ultron_cli.datasets.download.known_set import KnownSet, Part
from ultron_cli.datasets.download.source_record import read_source
from ultron_cli.datasets.folder import ProtocolFacts, describe_dataset
from ultron_cli.datasets.landmarks.lists import LIST_FILE, open_landmark_list
from ultron_cli.datasets.named import open_named_dataset
from ultron_cli.workspace import Workspace

State = Literal["absent", "begun", "present", "own copy"]


class KnownSetFacts(TypedDict):
    """An entry of the list of known datasets."""

    name: str
    state: State
    purpose: str
    photos: str
    licence: str
    download_bytes: int | None
    download_bytes_of_all: bool  # else some parts come on top
    files: int
    needs: str | None
    withdrawn: str | None


class PartFacts(TypedDict):
    """One file of a known dataset, and how it will be checked."""

    file: str
    addresses: list[str]
    bytes: int | None
    bytes_published: bool
    checked_by: str
    version: str | None


class KnownSetDetails(KnownSetFacts):
    """All that the catalogue says of a dataset."""

    versions: list[str]
    sources: list[str]
    parts: list[PartFacts]


class _DownloadFacts(TypedDict):
    photos_version: str | None
    version_known_by: str | None
    bad_photos: int
    source: dict[str, Any] | None  # source.json as it stands


class PresentFacts(_DownloadFacts, total=False):
    """Facts of a dataset that is present; those of photos and queries, or those of a training list."""

    name: Required[str]
    folder: Required[str]
    ground_truth: str | None
    photo_folder: str
    photos: int
    landmarks: int
    database: int
    queries: int
    missing_photos: int
    missing: list[str]
    not_read: str | None
    protocols: Required[dict[str, ProtocolFacts]]


def state_of(known: KnownSet, data_root: Path) -> State:
    """Whether a known dataset is there: downloaded (wholly or begun), or put there by the user."""
    record = read_source(data_root / known.name)
    if record is not None:
        return "present" if record.complete else "begun"
    if (data_root / known.name).is_dir():
        return "own copy"
    return "begun" if (data_root / ".downloads" / known.name).is_dir() else "absent"


def known_overview(data_root: Path) -> list[KnownSetFacts]:
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


def describe_known(known: KnownSet, data_root: Path) -> KnownSetDetails:
    """The catalog's facts of a dataset: parts with addresses, sizes and how each will be checked, and where the figures
    come from."""
    entry = next(entry for entry in known_overview(data_root) if entry["name"] == known.name)
    return {
        **entry,
        "versions": list(known.versions),
        "sources": list(known.sources),
        "parts": [_describe_part(part) for part in known.parts],
    }


def _describe_part(part: Part) -> PartFacts:
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


def describe(text: str, gnd: Path | None, workspace: Workspace) -> PresentFacts:
    """Facts of a dataset that is present: photos, labels per protocol, or landmarks of a training list; and the record
    of its download."""
    dataset = open_named_dataset(text, gnd, workspace)
    record = read_source(dataset.folder)
    download: _DownloadFacts = {
        "photos_version": record.photos_version if record else None,
        "version_known_by": record.version_known_by if record else None,
        "bad_photos": len(dataset.bad_photos),
        "source": asdict(record) if record else None,
    }
    if dataset.ground_truth is not None or not (dataset.folder / LIST_FILE).is_file():
        return {**describe_dataset(dataset), **download}
    landmark_list = open_landmark_list(dataset.folder)
    return {
        "name": dataset.name,
        "folder": str(dataset.folder),
        "photo_folder": str(landmark_list.paths.folder),
        "photos": len(landmark_list.paths),
        "landmarks": len(set(landmark_list.landmarks)),
        "protocols": {},
        **download,
    }
