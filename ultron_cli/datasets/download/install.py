"""Downloads a known dataset into the data root: each part is fetched, checked, unpacked aside, moved into place and
recorded.

Wherever it is interrupted, the next run goes on from what is there: DATA_ROOT/.downloads/SET/ holds unfinished files
and archives not yet unpacked, SET/source.json says which parts are in place. A part that is recorded is never fetched
again.
"""

import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ultron_cli.configs import within
from ultron_cli.console import counted, log
from ultron_cli.datasets.download.fetching import (
    DIGESTS,
    GIT_BLOB,
    Download,
    FetchedFile,
    FetchOptions,
    FileRequest,
    check_file,
    find_digest,
)
from ultron_cli.datasets.download.known_set import KnownSet, Part
from ultron_cli.datasets.download.mirrors import Mirrors
from ultron_cli.datasets.download.source_record import (
    PartRecord,
    SourceRecord,
    read_seen_checksums,
    read_source,
    remember_checksum,
)
from ultron_cli.datasets.download.transfers import Bars, run_at_once
from ultron_cli.datasets.download.unpacking import Unsafe, move_tree, unpack
from ultron_cli.datasets.folder import Dataset, describe_dataset, find_ground_truth
from ultron_cli.datasets.protocols import load_ground_truth
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.files import make_folder
from ultron_cli.locks import only_writer
from ultron_cli.machine import free_bytes, size_text
from ultron_cli.provenance import utc_now
from ultron_cli.stops import way_to_go_on

RESERVE_BYTES = 256 << 20  # left free on the disk
ANOTHER_DATA_ROOT = "name another `data_root`"


@dataclass(frozen=True, kw_only=True)
class InstallOptions:
    """How to download."""

    data_root: Path
    mirrors: Mirrors
    fetch: FetchOptions = field(default_factory=FetchOptions)
    n_at_once: int = 4  # parts at a time
    version: str | None = None  # of the photos; None takes the one that is begun, else the first
    offline: bool = False
    keep_archives: bool = False  # archives stay in .downloads after unpacking

    def __post_init__(self) -> None:
        within("jobs", self.n_at_once, 1, 32)


class Installation:
    """One dataset on its way into the data root."""

    def __init__(self, known: KnownSet, options: InstallOptions) -> None:
        self.known = known
        self.options = options
        self.folder = options.data_root / known.name
        self.downloads = options.data_root / ".downloads" / known.name
        self.record = read_source(self.folder) or SourceRecord(dataset=known.name)
        self._lock = threading.Lock()
        # What was begun goes on: the version of the parts in place, whatever the photos in them turned out to be.
        begun_version = next(
            (part.version for part in known.parts if part.version and part.file in self.record.parts), None
        )
        self.parts = known.parts_of(options.version or begun_version)
        if begun_version and options.version not in (None, begun_version):
            raise UltronError(
                f"{self.folder} holds the {begun_version} photos; delete it to download the {options.version} ones"
            )

    def missing(self) -> list[Part]:
        """The parts that are not in place yet."""
        return [part for part in self.parts if part.file not in self.record.parts]

    def run(self) -> SourceRecord:
        """Brings every part into place. Raises UltronError or WorkFailed, with nothing half-written under a final
        name."""
        if self.record.complete and not self.missing():
            log.info("%s is there: %s", self.known.name, self.folder)
            return self.record
        self._refuse_foreign_folder()
        make_folder(self.downloads, ANOTHER_DATA_ROOT)
        doing = f"another `ultron datasets download` is downloading {self.known.name}"
        with only_writer(self.downloads, doing, beside=True):
            self.record = read_source(self.folder) or self.record  # another process may have gone on in the meantime
            missing = self.missing()
            addresses = {
                part.file: () if self.options.offline else self.options.mirrors.of_part(self.known, part)
                for part in missing
            }
            self._require_space(missing)
            way = f"what has arrived of {self.known.name} is kept, the same command goes on from there"
            with way_to_go_on(lambda: way):
                if missing:
                    self._get(missing, addresses)
                self._finish()
            if not self.options.keep_archives:
                shutil.rmtree(self.downloads, ignore_errors=True)
        return self.record

    def _refuse_foreign_folder(self) -> None:
        if read_source(self.folder) is not None or not self.folder.is_dir():
            return
        entries = sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))
        if entries:
            raise UltronError(
                f"{self.folder} is there already, with {', '.join(entries[:3])}, and was not downloaded by "
                "ultron: it can be used as it is "
                f"(`ultron datasets verify {self.known.name}` checks it); move it away to download"
            )

    def _require_space(self, parts: Sequence[Part]) -> None:
        """Raises WorkFailed unless the photos of all parts, and the archives under way, fit on the disk: archives are
        deleted as they are unpacked."""
        sizes = sorted(((part.n_bytes or part.about_bytes or 0) for part in parts), reverse=True)
        needed = sum(sizes) + (sum(sizes) if self.options.keep_archives else sum(sizes[: self.options.n_at_once]))
        free = free_bytes(self.options.data_root)
        if sizes and needed + RESERVE_BYTES > free:
            raise WorkFailed(
                f"{self.known.name} needs about {size_text(needed + RESERVE_BYTES)} of disk, "
                f"{self.options.data_root} has {size_text(free)} free; "
                "free some, or choose another disk with `data_root` or ULTRON_DATA"
            )

    def _get(self, missing: list[Part], addresses: dict[str, tuple[str, ...]]) -> None:
        known_sizes = [part.n_bytes or part.about_bytes for part in missing]
        total = sum(size or 0 for size in known_sizes) if all(known_sizes) else None
        log.info(
            "%s: %s%s into %s",
            self.known.name,
            counted(len(missing), "file"),
            f", about {size_text(total)}," if total else " of unknown size",
            self.folder,
        )
        bars = Bars(self.known.name, total, self.options.n_at_once)
        try:
            work = [(part.file, lambda part=part: self._get_part(part, addresses[part.file], bars)) for part in missing]
            outcome = run_at_once(work, self.options.n_at_once, self.options.fetch.stop)
        finally:
            bars.close()
        if outcome.failures:
            first = next(iter(outcome.failures.values()))
            n_left = len(self.missing())
            text = str(first)
            if n_left > 1:
                text += f" ({counted(n_left, 'file')} of {self.known.name} still missing; what has arrived is kept)"
            raise type(first)(text)

    def _get_part(self, part: Part, addresses: tuple[str, ...], bars: Bars) -> None:
        """Brings one part from its address into its place. Runs in a thread of its own."""
        digest = self._published_digest(part)
        fetched = self._present(part, digest) or self._fetch(part, addresses, digest, bars)
        checked = self._compare_with_seen(part, digest, fetched)
        n_files = self._put_in_place(part, fetched.path)
        with self._lock:
            self.record.parts[part.file] = PartRecord(
                file=part.file,
                address=fetched.address,
                n_bytes=fetched.n_bytes,
                sha256=fetched.sha256,
                checked=checked,
                n_files=n_files,
                downloaded=utc_now(),
            )
            self._tell_version(part, fetched)
            self.record.write(self.folder)
        if part.kind == "photos" and not self.options.keep_archives:
            fetched.path.unlink()
        log.info("%s: %s is in place (%s, %s)", self.known.name, part.file, size_text(fetched.n_bytes), checked)

    def _published_digest(self, part: Part) -> str | None:
        """The publisher's checksum of a part: in the catalog, or in a file of the publisher's that is fetched first."""
        if part.git_blob:
            return GIT_BLOB + part.git_blob
        if part.sha256 or part.checksum_address is None:
            return part.sha256
        path = self.downloads / f"{part.file}.checksum"
        if not self.options.offline:
            Download(
                FileRequest(path=path, addresses=self.options.mirrors.of_checksum(self.known, part)), self.options.fetch
            ).run()
        return find_digest(path, part.file) if path.is_file() else None

    def _present(self, part: Part, digest: str | None) -> FetchedFile | None:
        """An archive of an earlier run, or one that the user put there."""
        path = self.downloads / part.file
        if not path.is_file():
            if self.options.offline:
                raise WorkFailed(
                    f"{self.known.name} lacks {part.file} and downloads are off (`offline` or ULTRON_OFFLINE); "
                    f"put the file at {path}, or run without it"
                )
            return None
        sha256, wrong = check_file(path, part.n_bytes, digest)
        if not wrong:
            log.info("%s: using %s, which is there", self.known.name, path)
            return FetchedFile(path=path, address=str(path), n_bytes=path.stat().st_size, sha256=sha256)
        if self.options.offline:
            raise WorkFailed(f"{path} {wrong}; put the right file there, or run without `offline`")
        log.warning("%s %s; it is downloaded anew", path, wrong)
        path.unlink()
        return None

    def _fetch(self, part: Part, addresses: tuple[str, ...], digest: str | None, bars: Bars) -> FetchedFile:
        log.debug("%s: fetching %s from %s", self.known.name, part.file, addresses[0])
        on_progress, close = bars.of_file(part.file)

        def on_size(n_bytes: int) -> None:
            needed = n_bytes * (2 if part.kind == "photos" else 1) + RESERVE_BYTES
            free = free_bytes(self.downloads)
            if needed > free:
                raise WorkFailed(
                    f"{part.file} needs {size_text(needed)} of disk, {self.downloads} has {size_text(free)} "
                    "free; free some and run again"
                )

        try:
            return Download(
                FileRequest(path=self.downloads / part.file, addresses=addresses, n_bytes=part.n_bytes, digest=digest),
                self.options.fetch,
                on_progress,
                on_size,
            ).run()
        finally:
            close()

    def _compare_with_seen(self, part: Part, digest: str | None, fetched: FetchedFile) -> str:
        """How the file was checked. Raises WorkFailed if an earlier download had other bytes."""
        if digest:
            return f"published {DIGESTS[len(digest)].upper()}"
        if part.known_sha256:
            if fetched.sha256 == part.known_sha256:
                return "known SHA-256"
            log.warning(
                "%s: %s is not the file that ultron knows (SHA-256 %s, known is %s)",
                self.known.name,
                part.file,
                fetched.sha256,
                part.known_sha256,
            )
        key = f"{self.known.name}/{part.file}"
        earlier = read_seen_checksums(self.options.data_root).get(key)
        if earlier is None:
            remember_checksum(self.options.data_root, key, fetched.sha256, fetched.address)
            log.info(
                "%s: no checksum is published for %s; its SHA-256 %s is recorded",
                self.known.name,
                part.file,
                fetched.sha256,
            )
            return "first download"
        if earlier["sha256"] != fetched.sha256:
            fetched.path.unlink()
            raise WorkFailed(
                f"{part.file} of {fetched.address} has SHA-256 {fetched.sha256}, the first download "
                f"({earlier['first_seen']}) had {earlier['sha256']}; it was "
                f"deleted; if its publisher has renewed it, remove {key!r} from "
                f"{self.options.data_root / 'seen_checksums.json'} and run again"
            )
        return "earlier download"

    def _put_in_place(self, part: Part, path: Path) -> int:
        """Moves a file, or the content of an archive, to its place; returns the number of files."""
        make_folder(self.folder, ANOTHER_DATA_ROOT)
        with self._lock:
            if read_source(self.folder) is None:  # from here on the folder is known as a download that is not complete
                self.record.write(self.folder)
        if part.kind == "file":
            target = self.folder / (part.into or part.file)
            make_folder(target.parent)
            os.replace(path, target)
            return 1
        aside = self.downloads / f"unpacked-{part.file}"
        shutil.rmtree(aside, ignore_errors=True)
        try:
            n_files = unpack(path, aside, flat=part.flat, stop=self.options.fetch.stop)
        except Unsafe:
            path.unlink(missing_ok=True)  # it would be refused again
            shutil.rmtree(aside, ignore_errors=True)
            raise
        if hasattr(os, "sync"):
            os.sync()  # once for thousands of photos, before their names say that they are whole
        move_tree(aside, self.folder / part.into)
        return n_files

    def _tell_version(self, part: Part, fetched: FetchedFile) -> None:
        """Records which version of the photos this is: by size, else by recorded checksum, else by file name."""
        if not part.version:
            return
        checksums = read_seen_checksums(self.options.data_root)
        by_checksum = set()
        by_size = set()
        for other in self.known.parts:
            checksum = checksums.get(f"{self.known.name}/{other.file}")
            if checksum is not None and checksum["sha256"] == fetched.sha256:
                by_checksum.add(other.version)
            if other.version and other.about_bytes == fetched.n_bytes:
                by_size.add(other.version)
        version = part.version
        known_by = "size" if by_size else "file name"
        if by_size and version not in by_size:
            version = by_size.pop()
        elif by_checksum - {version}:
            version = (by_checksum - {version}).pop()
            known_by = "checksum"
        if version != part.version:
            log.warning(
                "%s: %s has the %s of the %s photos; recorded as such", self.known.name, part.file, known_by, version
            )
        self.record.photos_version = version
        self.record.version_known_by = known_by

    def _finish(self) -> None:
        """Makes the publisher's labels readable here, checks the counts, and marks the dataset as complete."""
        if self.known.finish is not None:
            self.known.finish(self.folder)
        self.record.n_database, self.record.n_queries = check_counts(self.known, self.folder)
        self.record.complete = True
        self.record.write(self.folder)


def check_counts(known: KnownSet, folder: Path) -> tuple[int | None, int | None]:
    """(database photos, query photos) of the ground truth, where there is one. Raises WorkFailed if they are not the
    published numbers; warns of missing photos."""
    gnd = find_ground_truth(folder)
    if gnd is None:
        return None, None
    facts = describe_dataset(
        Dataset(name=known.name, folder=folder, ground_truth_path=gnd, ground_truth=load_ground_truth(gnd))
    )
    for role, n_photos, n_published in (
        ("database", facts["database"], known.n_database),
        ("queries", facts["queries"], known.n_queries),
    ):
        if n_published is not None and n_photos != n_published:
            raise WorkFailed(
                f"{gnd} has {n_photos:,} {role} photos where {n_published:,} are published; "
                f"delete {folder} and download again"
            )
    if facts["missing_photos"]:
        log.warning(
            "%s: %s of the ground truth not in the archives (%s)",
            known.name,
            counted(facts["missing_photos"], "photo"),
            ", ".join(facts["missing"][:3]),
        )
    return facts["database"], facts["queries"]
