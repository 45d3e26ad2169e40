"""Descriptor files by one process or several: an interrupted run is continued, by the same configuration only.

The first process decides which shards are missing, tells the others, and joins all shards when everyone is done.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ultron_cli.configs import differences, to_dict
from ultron_cli.console import counted, log, progress
from ultron_cli.errors import UltronError
from ultron_cli.files import read_json, write_text
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.extraction.processes import ALONE, ExtractionProcesses
from ultron_cli.retrieval.extraction.shards import Extraction
from ultron_cli.retrieval.origin import ExtractionRecord, SkippedPhoto


@dataclass(frozen=True, kw_only=True)
class ExtractResult:
    """A descriptor file that is there now."""

    path: Path
    n_photos: int  # that it holds
    n_computed: int  # of them, those that were not there before
    skipped: tuple[SkippedPhoto, ...]  # left out


def extract_file(extraction: Extraction, out: Path, processes: ExtractionProcesses = ALONE) -> ExtractResult:
    """Writes `out`, continuing shards of an interrupted run; the part of the first process.

    processes: the others call `help_extract`. Raises UltronError if older work differs in configuration.
    """
    role = extraction.config.role
    if out.exists() and not extraction.work.overwrite:
        processes.tell(_missing_key(extraction), [])
        return _reuse(extraction, out)
    n_photos = len(extraction.names)
    parts = parts_of(out)
    _continue_or_start(extraction, parts)
    n_before = processes.count(0)
    missing = extraction.missing(parts, drop_damaged=True)
    processes.tell(_missing_key(extraction), missing)
    n_computed = extraction.count(missing)
    n_stored = n_photos - n_computed
    if len(missing) < len(extraction.shards):
        log.info("continuing %s: %d of %d photos are there", out, n_stored, n_photos)
    with progress(total=n_photos, what=f"extract {role}") as bar, _way_to_go_on(extraction, parts):
        bar.update(n_stored)

        def show(n_done: int) -> None:
            """n_done: photos that all processes have computed, of all files."""
            bar.update(n_stored + n_done - n_before - bar.n)

        extraction.compute(parts, processes.share(missing), lambda n: show(processes.count(n)))
        if missing:
            for process in range(1, processes.n):
                processes.hear(_share_key(process, extraction), show)
        if lost := extraction.missing(parts):
            # Removed meanwhile, or of other processes and out of this one's sight: in either case it can make them.
            log.warning("%s vanished from %s: computing them again", counted(len(lost), "shard"), parts)
            extraction.compute(parts, lost, lambda n: None)
        skipped = extraction.merge(parts, out)
    shutil.rmtree(parts)
    return ExtractResult(path=out, n_photos=n_photos - len(skipped), n_computed=n_computed, skipped=skipped)


@contextlib.contextmanager
def _way_to_go_on(extraction: Extraction, parts: Path) -> Iterator[None]:
    """Says, when the user stops the extraction inside, what is kept and how it goes on."""
    try:
        yield
    except KeyboardInterrupt:
        n_photos = len(extraction.names)
        log.warning(
            "stopped with %d of %d %s photos done; they are kept, and the same command goes on from there",
            n_photos - extraction.count(extraction.missing(parts)),
            n_photos,
            extraction.config.role,
        )
        raise


def help_extract(extraction: Extraction, out: Path, processes: ExtractionProcesses) -> None:
    """What every process but the first does: its share of the shards that the first one misses."""
    missing = [int(i) for i in processes.hear(_missing_key(extraction))]
    if missing:
        parts = parts_of(out)
        _require_shared(extraction, parts, processes.process)
        extraction.compute(parts, processes.share(missing), processes.count)
        processes.tell(_share_key(processes.process, extraction))


def _missing_key(extraction: Extraction) -> str:
    return f"missing {extraction.config.role} shards"


def _share_key(process: int, extraction: Extraction) -> str:
    return f"process {process} has its {extraction.config.role} shards"


def parts_of(out: Path) -> Path:
    """The folder of the shards."""
    return out.with_name(out.name + ".parts")


def _require_shared(extraction: Extraction, parts: Path, process: int) -> None:
    """Raises UltronError if this process does not see the folder that the first one made, or has another
    configuration."""
    stored = parts / "config.json"
    if not stored.exists():
        raise UltronError(
            f"process {process} does not see {stored.resolve()}, which process 0 wrote; `out` "
            "must lie on a file system that all machines share"
        )
    differing = differences(read_json(stored, "configuration of the extraction"), to_dict(extraction.config))
    if differing:
        raise UltronError(
            f"process {process} differs from process 0: {'; '.join(differing)}; start all with "
            "the same command, dataset and weights"
        )


def _reuse(extraction: Extraction, out: Path) -> ExtractResult:
    with DescriptorFile(out) as stored:
        _require_equal(extraction, stored.info.extraction, out)
        shutil.rmtree(parts_of(out), ignore_errors=True)  # left by a kill after the merge
        log.info("reusing %s: same configuration and weights, %s", out, counted(stored.n, "descriptor"))
        return ExtractResult(path=out, n_photos=stored.n, n_computed=0, skipped=stored.info.skipped)


def _require_equal(extraction: Extraction, stored: ExtractionRecord, where: Path) -> None:
    differing = stored.differences(extraction.record)
    if differing:
        raise UltronError(
            f"{where} was made with another configuration: {'; '.join(differing)}; replace it with "
            "`overwrite`, or keep both with another `out`"
        )


def _continue_or_start(extraction: Extraction, parts: Path) -> None:
    stored = parts / "config.json"
    if stored.exists() and not extraction.work.overwrite:
        interrupted = read_json(stored, "configuration of the interrupted extraction")
        _require_equal(extraction, ExtractionRecord(stored=interrupted), parts)
        return
    for shard in parts.glob("shard-*.h5"):
        shard.unlink()
    write_text(stored, json.dumps(to_dict(extraction.config), indent=1))
