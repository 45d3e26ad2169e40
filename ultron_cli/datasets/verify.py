"""Decodes every photo of a dataset and says which are missing, empty or truncated, which are of another type than their
name says, and which are there twice."""

import hashlib
import io
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import UnidentifiedImageError

from ultron_cli.console import counted, cut, log, progress
from ultron_cli.datasets.bad_photos import BAD_PHOTOS_FILE, Finding, Kind, photo_state
from ultron_cli.datasets.download.catalog import KNOWN_SETS
from ultron_cli.datasets.download.source_record import read_seen_checksums, read_source, remember_checksum
from ultron_cli.datasets.folder import Dataset, list_photos
from ultron_cli.datasets.landmarks.lists import find_landmark_list
from ultron_cli.datasets.photo_files import open_photo, read_photo
from ultron_cli.datasets.photo_types import HEIF_SUFFIXES, SUFFIXES_OF_FORMAT
from ultron_cli.datasets.photos import PhotoShape, resizing_bytes
from ultron_cli.errors import UltronError
from ultron_cli.machine import n_cores
from ultron_cli.memory import OverBudget, shared_memory

DRAFT_SCALE = 1 / 8  # a JPEG decoded at an eighth is read to its last byte all the same, several times faster
AHEAD = 64  # photos waiting per thread
N_SHOWN = 5  # photos per kind on screen
USABLE: tuple[Kind | None, ...] = (None, "wrong-type", "too-large")


@dataclass(kw_only=True)
class Report:
    """What was wrong with the photos of a dataset."""

    n_checked: int = 0
    n_used_bad: int = 0  # bad photos that the ground truth names; all bad ones where there is none
    bad: list[Finding] = field(default_factory=list)  # photos to leave out
    odd: list[Finding] = field(default_factory=list)  # usable ones that deserve a look
    not_read: str | None = None  # files of types that are not read, counted
    photos_sha256: str = ""  # by path and content, of all photos that the ground truth names, or of all

    def counts(self) -> dict[str, int]:
        """Findings by kind, most first."""
        kinds = [finding.kind for finding in (*self.bad, *self.odd)]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds), key=lambda kind: (-kinds.count(kind), kind))}


@dataclass(frozen=True)
class _Checked:
    path: str  # relative to the dataset folder
    sha256: str
    kind: Kind | None  # None: the photo is sound
    reason: str


@dataclass(frozen=True, kw_only=True)
class PhotosToCheck:
    """Paths relative to the dataset folder, with forward slashes."""

    present: list[str]  # sorted
    missing: list[str]  # named by the ground truth or a list, but without a file
    ambiguous: dict[str, str]  # names in the ground truth that mean not one file, as NAME.jpg, with what is wrong
    used: set[str]  # named by the ground truth; empty where there is none


def photos_to_check(dataset: Dataset) -> PhotosToCheck:
    """Which photos a dataset has and should have. Raises UltronError if the photos are another dataset's, or if there
    are none."""
    folder = dataset.folder
    present = set(_below(folder, dataset.photo_folder))
    if dataset.photo_folder != folder and (folder / "train").is_dir():
        present |= set(_below(folder, folder / "train"))
    missing: list[str] = []
    landmark_list = find_landmark_list(folder)
    if landmark_list is not None:
        list_paths = landmark_list.paths
        photo_folder = list_paths.folder.resolve()
        if not photo_folder.is_relative_to(folder.resolve()):
            raise UltronError(
                f"{folder} has no photos of its own, they lie in {list_paths.folder}; run `ultron datasets verify "
                f"{list_paths.folder.parent}`"
            )
        prefix = photo_folder.relative_to(folder.resolve())
        names = {(prefix / list_paths.relative(i)).as_posix() for i in range(len(list_paths))}
        missing += sorted(name for name in names - present if not (folder / name).is_file())
        present |= names - set(missing)
    used = set()
    ambiguous: dict[str, str] = {}
    for names in (dataset.database_names, dataset.query_names) if dataset.ground_truth else ():
        photo_files = dataset.photo_files(names)
        used |= {path.relative_to(folder).as_posix() for path in photo_files.files.values()}
        paths = {
            name: (dataset.photo_folder / f"{name}.jpg").relative_to(folder).as_posix() for name in photo_files.problems
        }
        used |= set(paths.values())
        missing += [paths[name] for name in photo_files.missing]
        ambiguous |= {paths[name]: error.message for name, error in photo_files.ambiguous.items()}
    if not present and not missing:
        raise UltronError(
            f"{folder} has no photos; name a dataset folder, or download it with `ultron datasets download`"
        )
    used_present = used - set(missing) - set(ambiguous)
    return PhotosToCheck(present=sorted(present | used_present), missing=missing, ambiguous=ambiguous, used=used)


def _below(folder: Path, photos: Path) -> Iterator[str]:
    """Paths of the photos in the folder `photos`, relative to `folder`."""
    prefix = photos.relative_to(folder).as_posix()
    return (name if prefix == "." else f"{prefix}/{name}" for name in list_photos(photos))


def verify(dataset: Dataset, n_threads: int | None = None) -> Report:
    """Reads, hashes and decodes every photo. Raises UltronError if there is nothing to check.

    n_threads: None takes one per core, as decoding and hashing release the interpreter's lock.
    """
    photos = photos_to_check(dataset)
    report = Report(n_checked=len(photos.present) + len(photos.missing), not_read=dataset.unread_files)
    report.bad += [Finding(path=path, kind="missing", reason="there is no such file") for path in photos.missing]
    report.bad += [Finding(path=path, kind="ambiguous", reason=reason) for path, reason in photos.ambiguous.items()]
    first_with: dict[str, str] = {}  # SHA-256 -> path
    digest = hashlib.sha256()
    checks = _check_all(dataset.folder, photos.present, n_threads or n_cores())
    for checked in progress(checks, total=len(photos.present), what="verify"):
        _add(report, dataset.folder, checked, first_with)
        if not photos.used or checked.path in photos.used:
            digest.update(f"{checked.path}\0{checked.sha256}\n".encode("utf-8", "surrogateescape"))
    report.bad.sort(key=lambda finding: finding.path)
    report.photos_sha256 = digest.hexdigest()
    report.n_used_bad = sum(not photos.used or finding.path in photos.used for finding in report.bad)
    return report


def _add(report: Report, folder: Path, checked: _Checked, first_with: dict[str, str]) -> None:
    """Puts what was found of one photo into the report. first_with: first path of each content, by its SHA-256."""
    n_bytes, mtime_ns = photo_state(folder / checked.path)
    if checked.kind:
        finding = Finding(
            path=checked.path, kind=checked.kind, reason=checked.reason, n_bytes=n_bytes, mtime_ns=mtime_ns
        )
        (report.odd if checked.kind in USABLE else report.bad).append(finding)
        log.debug("%s: %s", checked.path, checked.reason)
    if checked.kind in USABLE:
        first = first_with.setdefault(checked.sha256, checked.path)
        if first != checked.path:
            reason = f"the same bytes as {first}"
            report.odd.append(
                Finding(path=checked.path, kind="duplicate", reason=reason, n_bytes=n_bytes, mtime_ns=mtime_ns)
            )


def _check_all(folder: Path, paths: Iterable[str], n_threads: int) -> Iterator[_Checked]:
    """Results in the order of `paths`; a bounded number of photos waits at any time."""
    waiting: deque[Future[_Checked]] = deque()
    with shared_memory(n_threads), ThreadPoolExecutor(n_threads) as pool:
        try:
            for path in paths:
                waiting.append(pool.submit(check_photo, folder, path))
                if len(waiting) > AHEAD * n_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class _Content(io.BytesIO):
    """A photo's bytes, read once for all checks; messages name its path."""

    def __init__(self, data: bytes, path: str) -> None:
        super().__init__(data)
        self.path = path

    def __str__(self) -> str:
        return self.path


def check_photo(folder: Path, path: str) -> _Checked:
    """Reads and decodes one photo; never raises for what is in the file."""
    sha256, data = "", b""
    try:
        data = read_photo(folder / path)
        sha256 = hashlib.sha256(data).hexdigest()
        if not data:
            return _Checked(path, sha256, "empty", "the file is empty")
        with open_photo(_Content(data, path)) as photo:
            size = photo.image.size
            photo.draft(DRAFT_SCALE)
            photo.rgb(resizing_bytes(size, PhotoShape().target(*size)))  # what extraction will need is checked with it
    except OverBudget as error:
        return _Checked(path, sha256, "too-large", error.message.removeprefix(f"{path}: ").split("; ")[0])
    except OSError as error:
        return _Checked(path, sha256, "undecodable", f"cannot be read ({error.strerror})")
    except UltronError as error:
        return _Checked(path, sha256, *_trouble(error, data))
    suffix = os.path.splitext(path)[1].lower()
    if suffix and suffix not in SUFFIXES_OF_FORMAT.get(photo.format, HEIF_SUFFIXES):
        return _Checked(path, sha256, "wrong-type", f"the content is {photo.format}, the name says {suffix}")
    return _Checked(path, sha256, None, "")


def _trouble(error: UltronError, data: bytes) -> tuple[Kind, str]:
    """What is wrong with a photo of these bytes, from what open_photo or decoding raised."""
    cause = error.__cause__
    if isinstance(cause, UnidentifiedImageError):
        content = "a web page" if data.lstrip()[:1] == b"<" else "no photo that Pillow can read"
        return "not-a-photo", f"the content is {content}"
    if cause is None:
        return "undecodable", error.message
    truncated = "truncated" in str(cause).lower()
    return "truncated" if truncated else "undecodable", f"cannot be decoded ({type(cause).__name__}: {cause})"


def report_lines(report: Report, name: str, version: str | None) -> list[str]:
    """What was found, for people: counts, the first photos of each kind, and what to do."""
    counts = report.counts()
    text = [
        f"{name}: {counted(report.n_checked, 'photo')} checked, "
        f"{', '.join(f'{n} {kind}' for kind, n in counts.items()) or 'all are well'}"
    ]
    if report.not_read:
        text.append(report.not_read)
    for kind in counts:
        findings = [finding for finding in (*report.bad, *report.odd) if finding.kind == kind]
        shown, rest = cut(findings, "photos", most=N_SHOWN, all_in=BAD_PHOTOS_FILE)
        texts = [*(f"{finding.path}: {finding.reason}" for finding in shown), *([rest] if rest else [])]
        text += [f"  {kind:<12} {line}" for line in texts]
    if report.bad:
        unused = len(report.bad) - report.n_used_bad
        text.append(
            f"bad: {len(report.bad)}{f' ({unused} of them not in the ground truth)' if unused else ''}; "
            "`ultron extract --skip-bad` and training leave them out"
        )
    if "too-large" in counts:
        text.append(f"too large: {counts['too-large']}; `ultron extract --max-memory SIZE` lets them in")
    return [*text, f"photos: {version}"] if version else text


def tell_version(dataset: Dataset, report: Report, data_root: Path) -> str | None:
    """The version of the photos of a set that has several: as downloaded (then their digest is recorded), or by a
    digest recorded earlier."""
    known = KNOWN_SETS.get(dataset.name)
    if known is None or not known.versions:
        return None
    record = read_source(dataset.folder)
    key = f"{known.name}/photos:"
    if record is not None and record.complete and record.photos_version and not report.n_used_bad:
        remember_checksum(data_root, key + record.photos_version, report.photos_sha256, str(dataset.folder))
        return record.photos_version
    checksums = read_seen_checksums(data_root)
    for version in known.versions:
        checksum = checksums.get(key + version)
        if checksum is not None and checksum["sha256"] == report.photos_sha256:
            return version
    return "unknown version"
