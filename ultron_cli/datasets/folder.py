"""A dataset folder: photos in jpg/ and a ground truth beside them, or any folder of photos."""

import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypedDict

from ultron_cli.console import log
from ultron_cli.datasets.bad_photos import read_bad_photos
from ultron_cli.datasets.download.catalog import KNOWN_SETS
from ultron_cli.datasets.download.source_record import read_source
from ultron_cli.datasets.photo_types import photo_suffixes, unread_text
from ultron_cli.datasets.protocols import PROTOCOLS, GroundTruth, QueryTruth, load_ground_truth
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.files import require_regular_file

PHOTO_SUFFIXES = photo_suffixes()
BESIDE_PHOTOS = (".json", ".pkl", ".csv")  # ground truths, lists and records, at the top of a dataset's folder


@dataclass(frozen=True)
class PhotoFiles:
    """The files of photos by name; each name is in one of the three."""

    files: dict[str, Path] = field(default_factory=dict, repr=False)
    missing: dict[str, UltronError] = field(default_factory=dict, repr=False)  # there is no such photo
    ambiguous: dict[str, UltronError] = field(default_factory=dict, repr=False)  # not one file for one name

    @cached_property  # of a whole list, for which it is asked once per photo
    def problems(self) -> dict[str, UltronError]:
        """Why a name has no file of its own."""
        return self.missing | self.ambiguous


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Photos of one folder. With a ground truth, names are those of imlist and qimlist; without, relative paths."""

    name: str
    folder: Path
    ground_truth_path: Path | None = None
    ground_truth: GroundTruth | None = field(default=None, repr=False)

    @cached_property  # a look at the disk, for every photo's path
    def photo_folder(self) -> Path:
        """jpg/ where there is one, else the folder itself."""
        return self.folder / "jpg" if (self.folder / "jpg").is_dir() else self.folder

    @cached_property
    def _paths_by_stem(self) -> dict[str, list[str]]:
        """Relative paths by themselves without suffix."""
        paths: dict[str, list[str]] = {}
        for path in list_photos(self.photo_folder):
            paths.setdefault(os.path.splitext(path)[0], []).append(path)
        return paths

    @cached_property
    def database_names(self) -> list[str]:
        """Names of the photos to search in. Raises UltronError for an empty folder."""
        if self.ground_truth:
            return self.ground_truth.database_names
        names = list_photos(self.photo_folder)
        if not names:
            raise UltronError(
                f"{self.photo_folder} has no photos ({', '.join(PHOTO_SUFFIXES)}); name a folder that has some"
            )
        return names

    @property
    def query_names(self) -> list[str]:
        """Names of the query photos; none without a ground truth."""
        return self.ground_truth.query_names if self.ground_truth else []

    def query(self, name: str) -> QueryTruth:
        """The box and the labels of a query."""
        assert self.ground_truth is not None  # a query name exists only with a ground truth
        return self.ground_truth.queries[self._query_row[name]]

    @cached_property
    def _query_row(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.query_names)}

    def _files_named(self, name: str) -> list[str]:
        """Relative paths of the photos that a name may mean: itself; where names are those of a ground truth, also
        NAME.jpg; else any with another suffix."""
        is_path = name.lower().endswith(PHOTO_SUFFIXES) and os.path.isfile(self.photo_folder / name)
        if is_path and self.ground_truth is None:
            return [name]
        has_jpg = os.path.isfile(self.photo_folder / f"{name}.jpg")
        return [name] * is_path + [f"{name}.jpg"] * has_jpg or self._paths_by_stem.get(name, [])

    def photo_path(self, name: str, *, suggest: bool = True) -> Path:
        """The file of a photo. Raises UltronError if there is none, or if the name may mean several.

        suggest: whether the error proposes names of photos, for which it is held against all of them.
        """
        files = self._files_named(name)
        if len(files) > 1:
            raise UltronError(
                f"{self.name}: {name!r} may mean {' or '.join(map(repr, files))} in {self.photo_folder}; rename all "
                "but one of them",
                "go on without it with `skip_bad`",
            )
        if not files:
            for path in (self.photo_folder / name, self.photo_folder / f"{name}.jpg"):
                if os.path.lexists(path):
                    require_regular_file(path, "photo")
            near = ""
            if suggest:
                known = [*self._paths_by_stem, *(path for paths in self._paths_by_stem.values() for path in paths)]
                near = nearest_names(name, known)
            raise UltronError(
                f"{self.name}: {name!r} has no photo in {self.photo_folder}{near}; "
                "correct the ground truth, complete the download",
                "go on without it with `skip_bad`",
            )
        return self.photo_folder / files[0]

    def photo_files(self, names: Iterable[str]) -> "PhotoFiles":
        """The file of every photo, one to one: a second name of a file has none, as one that may mean several.

        Only the first missing photo comes with near names: for each of many they would take hours.
        """
        photo_files = PhotoFiles()
        name_of: dict[Path, str] = {}
        for name in names:
            try:
                path = self.photo_path(name, suggest=not photo_files.missing)
            except UltronError as error:
                is_missing = len(self._files_named(name)) == 0
                (photo_files.missing if is_missing else photo_files.ambiguous)[name] = error
                continue
            first = name_of.setdefault(path, name)
            if first == name:
                photo_files.files[name] = path
            else:
                photo_files.ambiguous[name] = UltronError(
                    f"{self.name}: {first!r} and {name!r} both mean {path}; a photo has one name, correct the ground "
                    "truth",
                    "go on without the second with `skip_bad`",
                )
        return photo_files

    @cached_property
    def unread_files(self) -> str | None:
        """`2 files of types not read: 1 .heic, 1 .txt`: what lies among the photos and is left out; None if nothing."""
        is_root = self.photo_folder == self.folder
        counts = Counter(
            suffix
            for path in _files_below(self.photo_folder)
            if (suffix := os.path.splitext(path)[1].lower()) not in PHOTO_SUFFIXES
            if not (is_root and "/" not in path and suffix in BESIDE_PHOTOS)
        )
        return unread_text(counts)

    @cached_property
    def bad_photos(self) -> dict[Path, str]:
        """Files that `ultron datasets verify` listed as bad and that have not changed since, with the reason;
        --skip-bad leaves them out."""
        return read_bad_photos(self.folder)

    def fingerprint(self, names: list[str], boxes: bool) -> str:
        """Hexadecimal SHA-256 of photo names (and boxes): tells whether stored descriptors are of the same photos."""
        content = [[name, list(self.query(name).bbx or []) if boxes else []] for name in names]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def list_photos(folder: Path) -> list[str]:
    """Relative paths of all photos below `folder`, with forward slashes, sorted; hidden files and folders are left
    out. What cannot be listed, or was met before, is said."""
    return sorted(path for path in _files_below(folder, log.warning, log.info) if path.lower().endswith(PHOTO_SUFFIXES))


def _files_below(folder: Path, *tell: Callable[..., None]) -> Iterator[str]:
    """Relative paths of all files below `folder` that are not hidden.

    A folder is visited once, however many links lead to it and whether or not they go round in a circle: first by its
    own path, then by links in the order of their paths. tell: said of folders that cannot be listed, and of those that
    were visited before; nothing is said without.
    """
    visited: set[tuple[int, int]] = set()  # (device, inode) of folders
    to_visit = deque([""])
    links: list[str] = []  # to folders, visited when all that is reached without them has been
    tell_unlisted, tell_repeated = tell or (log.debug, log.debug)
    while to_visit or links:
        if not to_visit:
            links.sort(reverse=True)
            to_visit.append(links.pop())
        prefix = to_visit.popleft()
        try:
            status = os.stat(folder / prefix)
            entries = sorted(os.scandir(folder / prefix), key=lambda entry: entry.name)
        except OSError as error:
            tell_unlisted("photos in %s are left out: it cannot be listed (%s)", folder / prefix, error.strerror)
            continue
        if (status.st_dev, status.st_ino) in visited:
            tell_repeated("%s leads to a folder that was visited already: not visited again", folder / prefix)
            continue
        visited.add((status.st_dev, status.st_ino))
        for entry in entries:
            path = f"{prefix}/{entry.name}".removeprefix("/")
            if entry.name.startswith("."):
                continue
            if os.path.isdir(entry.path):
                (links if entry.is_symlink() else to_visit).append(path)
            else:
                yield path


def find_ground_truth(folder: Path) -> Path | None:
    """The ground truth in a dataset folder: gnd_<folder name> first, JSON before pickle; None without one. Raises
    UltronError if there are several others."""
    candidates = sorted(path for suffix in ("json", "pkl") for path in folder.glob(f"gnd_*.{suffix}"))
    for suffix in ("json", "pkl"):
        named_as_folder = folder / f"gnd_{folder.resolve().name}.{suffix}"
        if named_as_folder in candidates:
            return named_as_folder
    stems = {path.stem for path in candidates}
    if len(stems) > 1:
        raise UltronError(
            f"{folder} holds several ground truths ({', '.join(sorted(path.name for path in candidates))}); leave one "
            "there",
            "choose one with `gnd`",
        )
    return candidates[0] if candidates else None


def open_dataset(text: str, data_root: Path, gnd: Path | None = None) -> Dataset:
    """Opens a dataset by folder, or by name below the data root. Raises UltronError if it is absent or unsound."""
    folder = Path(text).expanduser()
    if not folder.is_dir() and (data_root / text).is_dir():
        folder = data_root / text
    if not folder.is_dir():
        if folder.is_file():
            raise UltronError(f"`dataset` takes a folder or a known name, {text} is a file; name its folder")
        present = sorted(path.name for path in data_root.iterdir() if path.is_dir()) if data_root.is_dir() else []
        advice = (
            f"download it with `ultron datasets download {text}`"
            if text in KNOWN_SETS
            else "see `ultron datasets list` for known ones"
        )
        raise UltronError(
            f"dataset {text!r} is neither a folder nor a dataset in {data_root}{nearest_names(text, present)}; "
            f"{advice}, put it there "
            "(jpg/ and gnd_NAME.pkl), name another `data_root`, or render one with `ultron datasets make-toy`"
        )
    return open_folder(folder, gnd)


def open_folder(folder: Path | None, gnd: Path | None = None) -> Dataset:
    """Opens the dataset in a folder that is known to have been there; None is one that nobody recorded. Raises
    UltronError if it is gone or unsound."""
    # A recorded path may be longer than a system takes, where the methods of Path raise.
    if folder is None:
        raise UltronError(
            "where the photos of these descriptors lie is not recorded; extract them here, or import them with a "
            "ground truth that lies beside the photos"
        )
    if not os.path.isdir(folder):
        raise UltronError(f"the photos were in {folder}, which is gone; put them back, or extract again")
    record = read_source(folder)
    if record is not None and not record.complete:
        raise UltronError(
            f"the download of {folder} is not complete; finish it with `ultron datasets download {record.dataset}`"
        )
    gnd = gnd or find_ground_truth(folder)
    truth = load_ground_truth(gnd) if gnd else None
    name = gnd.stem.removeprefix("gnd_") if gnd else folder.resolve().name
    return Dataset(name=name, folder=folder, ground_truth_path=gnd, ground_truth=truth)


def open_recorded(folder: str | None, gnd: str | None) -> Dataset:
    """Opens the dataset that descriptors were made from, by the folder and the ground truth recorded with them.

    A ground truth that is gone is not needed to show photos: then the one in the folder counts. Raises UltronError if
    the photos are gone.
    """
    gnd_path = Path(gnd) if gnd and os.path.isfile(gnd) else None
    return open_folder(Path(folder) if folder else None, gnd_path)


class ProtocolFacts(TypedDict):
    """Queries that have positives under a protocol."""

    queries_used: int
    positives: float  # mean number of these queries


class DatasetFacts(TypedDict):
    """What is to be told of a dataset: entries of `ultron datasets info`."""

    name: str
    folder: str
    ground_truth: str | None
    database: int
    queries: int
    missing_photos: int
    missing: list[str]  # their names
    not_read: str | None  # files of types that are not read, counted
    protocols: dict[str, ProtocolFacts]


class DatasetSummary(TypedDict):
    """An entry of `ultron datasets list`."""

    name: str
    folder: str
    database: int
    queries: int
    error: str | None  # why the dataset cannot be opened


def describe_dataset(dataset: Dataset) -> DatasetFacts:
    """Facts of a dataset: photo counts, missing photos, and per protocol the queries with positives and their mean
    number."""
    missing = [
        name for names in (dataset.database_names, dataset.query_names) for name in dataset.photo_files(names).missing
    ]
    truth = dataset.ground_truth
    protocols: dict[str, ProtocolFacts] = {}
    if truth is not None:
        for protocol in PROTOCOLS:
            counts = [len(truth.split(query, protocol)[0]) for query in range(len(truth.query_names))]
            n_used = sum(count > 0 for count in counts)
            protocols[protocol] = {"queries_used": n_used, "positives": sum(counts) / max(1, n_used)}
    return {
        "name": dataset.name,
        "folder": str(dataset.folder),
        "ground_truth": str(dataset.ground_truth_path) if dataset.ground_truth_path else None,
        "database": len(dataset.database_names),
        "queries": len(dataset.query_names),
        "missing_photos": len(missing),
        "missing": missing,
        "not_read": dataset.unread_files,
        "protocols": protocols,
    }


def summaries(data_root: Path) -> list[DatasetSummary]:
    """Name, folder and photo counts of every dataset below the data root; an unsound one has its error instead."""
    if not data_root.is_dir():
        return []
    folders = sorted(path for path in data_root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [_summary(folder, data_root) for folder in folders]


def _summary(folder: Path, data_root: Path) -> DatasetSummary:
    summary = DatasetSummary(name=folder.name, folder=str(folder), database=0, queries=0, error=None)
    try:
        # Millions of photos are not counted again: the record of the download has their number.
        record = read_source(folder) if find_ground_truth(folder) is None else None
        dataset = open_dataset(str(folder), data_root)
        summary["database"] = record.n_unpacked if record else len(dataset.database_names)
        summary["queries"] = len(dataset.query_names)
    except UltronError as error:
        return {**summary, "database": 0, "error": error.message}
    return summary
