"""Files of photos' results by one process or several: an interrupted run is continued, by the same configuration only.

The first process decides which shards are missing, tells the others, and joins all shards when everyone is done.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ultron_cli.configs import differences, to_dict
from ultron_cli.console import counted, log, named, progress
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.files import write_text
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.extraction.earlier import EarlierWork, Result, shard_path, shard_states
from ultron_cli.retrieval.extraction.processes import ALONE, ExtractionProcesses
from ultron_cli.retrieval.extraction.shards import Extraction, WorkLeft
from ultron_cli.retrieval.origin import ExtractionRecord, SkippedPhoto
from ultron_cli.schema.texts import read_json
from ultron_cli.stops import way_to_go_on

MOST_ROUNDS = 4  # of computing photos that changed meanwhile


@dataclass(frozen=True, kw_only=True)
class ExtractResult:
    """A file that is there now."""

    path: Path
    n_photos: int  # that it holds
    n_computed: int  # of them, those that were not there before
    skipped: tuple[SkippedPhoto, ...]  # left out


def extract_file(extraction: Extraction[Result], out: Path, processes: ExtractionProcesses = ALONE) -> ExtractResult:
    """Writes `out`, continuing earlier work; the part of the first process. Photos whose files are others by now are
    computed anew.

    processes: the others call `help_extract`. Raises UltronError if older work differs in configuration.
    """
    finished = _finished(extraction, out)
    if finished and not extraction.left(extraction.earlier(finished=finished)).rows:
        processes.tell(_missing_key(extraction), {})
        return _reuse(extraction, out)
    n_photos = len(extraction.names)
    parts = parts_of(out)
    _continue_or_start(extraction, parts, is_finished=finished is not None)
    extraction.prepare(parts, finished, is_first=True)
    n_before = processes.count(0)
    earlier = extraction.earlier(parts, finished)
    left = extraction.left(earlier)
    processes.tell(_missing_key(extraction), left.rows)
    n_computed = left.n_photos()
    n_stored = n_photos - n_computed
    _say_changed(left, f"since {out if finished else parts} was made")
    if n_stored:
        log.info("continuing %s: %d of %d photos are there", out, n_stored, n_photos)
    with progress(total=n_photos, what=f"extract {extraction.what}") as bar, _way_to_go_on(extraction, parts, left):
        bar.update(n_stored)

        def show(n_done: int) -> None:
            """n_done: photos that all processes have computed, of all files."""
            bar.update(n_stored + n_done - n_before - bar.n)

        share = {i: left.rows[i] for i in processes.share(list(left.rows))}
        extraction.compute(parts, share, earlier, lambda n: show(processes.count(n)))
        if left.rows:
            for process in range(1, processes.n):
                processes.hear(_share_key(process, extraction), show)
        skipped = extraction.merge(_up_to_date(extraction, parts, finished), out)
    shutil.rmtree(parts)
    return ExtractResult(path=out, n_photos=n_photos - len(skipped), n_computed=n_computed, skipped=skipped)


@contextlib.contextmanager
def _way_to_go_on(extraction: Extraction[Result], parts: Path, left: WorkLeft) -> Iterator[None]:
    """Says, when the user stops the extraction inside, what is kept and how it goes on.

    left: what is computed inside.
    """
    before = shard_states(parts)

    def what_is_kept() -> str:
        now = shard_states(parts)
        names = {i: shard_path(parts, i).name for i in left.rows}
        n_left = sum(len(rows) for i, rows in left.rows.items() if now.get(names[i]) == before.get(names[i]))
        n_photos = len(extraction.names)
        n_done = n_photos - n_left
        return f"{n_done} of {n_photos} {extraction.what} photos are done and kept, the same command goes on from there"

    with way_to_go_on(what_is_kept):
        yield


def _up_to_date(extraction: Extraction[Result], parts: Path, finished: Path | None) -> EarlierWork[Result]:
    """What is stored, after computing anew what changed or vanished while the others were computed. Raises WorkFailed
    if photos never stop changing."""
    for _ in range(MOST_ROUNDS):
        stored = extraction.earlier(parts, finished)
        left = extraction.left(stored)
        if not left.rows:
            return stored
        _say_changed(left, "while the extraction was under way")
        if vanished := [i for i in left.rows if stored.shard(i) is None]:
            # Removed meanwhile, or of other processes and out of this one's sight: in either case it can make them.
            log.warning("%s vanished from %s: computing them again", counted(len(vanished), "shard"), parts)
        extraction.compute(parts, left.rows, stored, lambda n_photos: None)
    stored = extraction.earlier(parts, finished)
    if extraction.left(stored).changed:
        raise WorkFailed(
            f"photos of {extraction.dataset.folder} keep changing while they are described; start the same command "
            "again, which continues, when nothing writes there"
        )
    return stored


def _say_changed(left: WorkLeft, when: str) -> None:
    if left.changed:
        n_changed = counted(len(left.changed), "photo")
        log.warning("%s changed %s: %s; computing new descriptors", n_changed, when, named(left.changed))


def help_extract(extraction: Extraction[Result], out: Path, processes: ExtractionProcesses) -> None:
    """What every process but the first does: its share of the shards that the first one misses."""
    rows_of = {int(i): rows for i, rows in processes.hear(_missing_key(extraction)).items()}
    if rows_of:
        parts = parts_of(out)
        _require_shared(extraction, parts, processes.process)
        finished = out if out.exists() and not extraction.work.overwrite else None
        extraction.prepare(parts, finished, is_first=False)
        earlier = extraction.earlier(parts, finished)
        share = {i: rows_of[i] for i in processes.share(list(rows_of))}
        extraction.compute(parts, share, earlier, processes.count)
        processes.tell(_share_key(processes.process, extraction))


def _missing_key(extraction: Extraction[Result]) -> str:
    return f"missing {extraction.what} shards"


def _share_key(process: int, extraction: Extraction[Result]) -> str:
    return f"process {process} has its {extraction.what} shards"


def parts_of(out: Path) -> Path:
    """The folder of the shards."""
    return out.with_name(out.name + ".parts")


def _require_shared(extraction: Extraction[Result], parts: Path, process: int) -> None:
    """Raises UltronError if this process does not see the folder that the first one made, or has another
    configuration."""
    stored = parts / "config.json"
    if not stored.exists():
        raise UltronError(
            f"process {process} does not see {stored.resolve()}, which process 0 wrote; `out` "
            "must lie on a file system that all machines share"
        )
    differing = differences(
        read_json(stored, "configuration of the extraction", dict[str, object]), to_dict(extraction.settings)
    )
    if differing:
        raise UltronError(
            f"process {process} differs from process 0: {'; '.join(differing)}; start all with "
            "the same command, dataset and weights"
        )


def _finished(extraction: Extraction[Result], out: Path) -> Path | None:
    """`out`, if it is there to be reused. Raises UltronError if it was made with another configuration or of other
    photos."""
    if not out.exists() or extraction.work.overwrite:
        return None
    with extraction.kind.open(out) as stored:
        names = [*stored.names, *(photo.name for photo in stored.info.skipped)]
        _require_equal(extraction, stored.info.extraction, out, names)
    return out


def stored_runtime(out: Path) -> str | None:
    """The runtime of the descriptor file or of the interrupted extraction at `out`; None where neither is there."""
    config = parts_of(out) / "config.json"
    if out.exists():
        with DescriptorFile(out) as stored:
            return stored.info.extraction.runtime
    if not config.exists():
        return None
    return ExtractionRecord(stored=_interrupted_config(config)).runtime


def _interrupted_config(path: Path) -> dict[str, object]:
    return read_json(
        path,
        "configuration of the interrupted extraction",
        dict[str, object],
        advice=f"delete {path.parent} to begin anew",
    )


def _reuse(extraction: Extraction[Result], out: Path) -> ExtractResult:
    with extraction.kind.open(out) as stored:
        shutil.rmtree(parts_of(out), ignore_errors=True)  # left by a kill after the merge
        n_results = counted(stored.n, extraction.kind.what)
        if stored.marks is None:
            log.info(
                "reusing %s: same configuration and weights, %s; made before photos that change were noticed, so that "
                "only `overwrite` describes such photos anew",
                out,
                n_results,
            )
        else:
            log.info("reusing %s: same configuration, weights and photos, %s", out, n_results)
        return ExtractResult(path=out, n_photos=stored.n, n_computed=0, skipped=stored.info.skipped)


def _require_equal(
    extraction: Extraction[Result], stored: ExtractionRecord, where: Path, stored_names: Sequence[str] | None = None
) -> None:
    """stored_names: of all photos that the stored work is of, where they are known."""
    differing = stored.differences(extraction.record)
    if differing:
        photos = next((i for i, text in enumerate(differing) if text.startswith("photos_sha256 ")), None)
        if photos is not None:
            differing[photos] = _other_photos(stored_names, extraction.names)
        raise UltronError(
            f"{where} was made with another configuration: {'; '.join(differing)}; replace it with "
            "`overwrite`, or keep both with another `out`"
        )


def _other_photos(stored_names: Sequence[str] | None, names: Sequence[str]) -> str:
    """How the photos of earlier work differ from those of now, in a phrase."""
    if stored_names is None:
        return "other photos or boxes"
    lists = (
        ("added", sorted(set(names) - set(stored_names))),
        ("gone", sorted(set(stored_names) - set(names))),
    )
    texts = [f"{counted(len(changed), 'photo')} {what} ({named(changed)})" for what, changed in lists if changed]
    return " and ".join(texts) or "other boxes, or another order of the photos"


def _interrupted(extraction: Extraction[Result], parts: Path) -> ExtractionRecord | None:
    """What an interrupted extraction is of, whose shards are to be taken up; None if there is none."""
    stored = parts / "config.json"
    if not stored.exists() or extraction.work.overwrite:
        return None
    return ExtractionRecord(stored=_interrupted_config(stored))


def require_same_work(extraction: Extraction[Result], out: Path) -> None:
    """Raises UltronError if what is there of a file, whole or in shards, was made with another configuration or of
    other photos. Writes nothing."""
    if _finished(extraction, out) is None:
        interrupted = _interrupted(extraction, parts_of(out))
        if interrupted is not None:
            _require_equal(extraction, interrupted, parts_of(out))


def _continue_or_start(extraction: Extraction[Result], parts: Path, *, is_finished: bool) -> None:
    """Makes the folder of shards that of this configuration. is_finished: whether there is a file of it;
    shards of another configuration beside it are of no use."""
    interrupted = _interrupted(extraction, parts)
    if interrupted is not None:
        if not is_finished:
            _require_equal(extraction, interrupted, parts)
        if not interrupted.differences(extraction.record):
            return
    for shard in parts.glob("shard-*.h5"):
        shard.unlink()
    write_text(parts / "config.json", json.dumps(to_dict(extraction.settings), indent=1))
