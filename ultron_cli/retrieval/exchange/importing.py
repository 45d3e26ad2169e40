"""Makes a ranking of a file of another tool: names become rows of a known list of photos, scores its order."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ultron_cli import user_code
from ultron_cli.console import counted, log, named
from ultron_cli.datasets.name_matching import NameMatch, match_names
from ultron_cli.errors import UltronError
from ultron_cli.files import sha256_of_file
from ultron_cli.retrieval.descriptors import FORMAT as DESCRIPTORS
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.exchange import RANK_FORMATS
from ultron_cli.retrieval.exchange.known import KnownPhotos, photos_of_ground_truth, tell_of_match
from ultron_cli.retrieval.exchange.run import NamedRun, RunBuilder
from ultron_cli.retrieval.hdf5 import h5_format
from ultron_cli.retrieval.origin import ImportRecord, Origin
from ultron_cli.retrieval.rankings import PADDING, RankedRows, Ranking, read_ranks
from ultron_cli.retrieval.rerank.state import put_in_front

FORMAT_OF_SUFFIX = {
    ".trec": "trec",
    ".run": "trec",
    ".txt": "trec",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "ranx",
    ".pkl": "ilias",
}
READABLE = tuple(name for name, format in RANK_FORMATS.items() if format.read is not None)
Order = Literal["score", "file"]


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """A file, and the photos that its names mean."""

    path: Path
    format: str | None = None  # None: by the suffix
    gnd: Path | None = None  # names of photos and queries
    database: Path | None = None  # descriptors or ranks: names of photos, before those of the ground truth
    queries: Path | None = None  # descriptors or ranks: names of queries, likewise
    onto: Path | None = None  # ranks whose first photos the file orders anew
    order: Order = "score"  # of a ranking, where the file's order is not that of its scores


def _reader(format_name: str) -> Callable[[Path], NamedRun] | None:
    """What reads a format: one of RANK_FORMATS, or a function by import path (`my.py:read`), which a person has named.
    That takes the path of a file, and gives (query, photo, score) one after the other."""
    if not user_code.is_import_path(format_name):
        return RANK_FORMATS[format_name].read
    part = user_code.load(format_name, "format of rankings", RANK_FORMATS, is_function=True)

    def read(path: Path) -> NamedRun:
        run = RunBuilder(path)
        with user_code.blaming(part.target):
            for query, photo, score in part.target(path):
                run.add(str(query), str(photo), float(score), "")
        return run.run()

    return read


def import_ranking(request: ImportRequest) -> Ranking:
    """The ranking of a file. Raises UltronError if it is unsound, or its names mean none of the known photos."""
    format_name = request.format or FORMAT_OF_SUFFIX.get(request.path.suffix.lower())
    read = _reader(format_name) if format_name else None
    if format_name is None or read is None:
        raise UltronError(
            f"{request.path} does not tell its format by its suffix; name its `format`, one of {', '.join(READABLE)}"
        )
    if not (request.gnd or request.database or request.onto):
        raise UltronError(
            f"{request.path} names photos as it likes; tell which there are: name their `gnd`, their descriptors with "
            "`database`, or with `onto` the ranking whose first photos it orders anew"
        )
    base = read_ranks(request.onto) if request.onto else None
    known = _known(request) if base is None else KnownPhotos(photos=base.database_names, queries=base.query_names)
    run = read(request.path)
    photos = _matched(run.photo_names, known.photos, request, "photo")
    known_queries = run.query_names if known.queries is None else known.queries
    queries = _matched(run.query_names, known_queries, request, "query")
    record = ImportRecord(
        path=str(request.path),
        sha256=sha256_of_file(request.path),
        format=format_name,
        order=request.order,
        code_sha256=user_code.code_named({"format": format_name}).get(format_name),
    )
    if base is not None:
        return _onto(base, run, photos, queries, record)
    n_known = len(known.photos)
    rows = np.where(photos.rows < 0, np.cumsum(photos.rows < 0) - 1 + n_known, photos.rows)
    ranked = _rows_and_scores(run, rows, queries.rows, len(known_queries), request.order)
    if photos.surplus:
        log.warning(
            "%s in %s alone%s: ranked as photos that answer no query",
            counted(len(photos.surplus), "photo is", "photos are"),
            request.path,
            photos.ambiguous_text() or f" ({named(photos.surplus)})",
        )
    return Ranking(
        query_names=list(known_queries),
        database_names=[*known.photos, *photos.surplus],
        rows=ranked.rows,
        scores=ranked.scores,
        origin=replace(known.origin, imported=(record,)),
    )


def _known(request: ImportRequest) -> KnownPhotos:
    """The names of photos and queries that are known without a ranking."""
    known = photos_of_ground_truth(request.gnd) if request.gnd else KnownPhotos(photos=[], queries=None)
    if request.database:
        of_file = _of_file(request.database)
        known = KnownPhotos(
            photos=of_file.photos,
            queries=known.queries or of_file.queries,
            origin=known.origin if request.gnd else of_file.origin,
        )
    if request.queries:
        of_file = _of_file(request.queries)
        known = replace(known, queries=of_file.queries or of_file.photos)
    return known


def _of_file(path: Path) -> KnownPhotos:
    """Of a descriptor or rank file. What made those descriptors or ranks made nothing of what is imported."""
    if h5_format(path) == DESCRIPTORS:
        with DescriptorFile(path) as file:
            info, names = file.info, file.names
        provenance = info.provenance
        origin = Origin(
            dataset=info.dataset, ground_truth=provenance.ground_truth, dataset_folder=provenance.dataset_folder
        )
        return KnownPhotos(photos=names, queries=None, origin=origin)
    ranking = read_ranks(path)
    origin = Origin(
        dataset=ranking.origin.dataset,
        ground_truth=ranking.origin.ground_truth,
        dataset_folder=ranking.origin.dataset_folder,
        database_folder=ranking.origin.database_folder,
    )
    return KnownPhotos(photos=ranking.database_names, queries=ranking.query_names, origin=origin)


def _matched(names: list[str], known: list[str], request: ImportRequest, what: str) -> NameMatch:
    """The photos, or queries, that names of the file mean; what is missing and what is surplus is said. Raises
    UltronError if that is all."""
    several = "queries" if what == "query" else "photos"
    match = match_names(names, known)
    tell_of_match(match, names, known, str(request.path), what, several)
    if match.missing:
        is_lost = what == "query" and request.onto is None
        (log.warning if is_lost else log.info)(
            "%s not in %s: %s%s",
            counted(len(match.missing), what, several),
            request.path,
            named(match.missing),
            "; the ranking of each is empty, and its AP 0" if is_lost else "",
        )
    if match.surplus and (what == "query" or request.onto):
        log.warning(
            "%s of %s left out, as no %s of that name is known: %s%s",
            counted(len(match.surplus), what, several),
            request.path,
            what,
            named(match.surplus),
            match.ambiguous_text(),
        )
    return match


def _in_order(run: NamedRun, i: int, order: Order) -> np.ndarray:
    """(n,) int64: places in the file's ranking i, best first; equal scores stay in the order of the file."""
    scores = run.scores[i]
    return np.argsort(-scores, kind="stable") if order == "score" else np.arange(len(scores))


def _rows_and_scores(
    run: NamedRun, rows: np.ndarray, query_rows: np.ndarray, n_queries: int, order: Order
) -> RankedRows:
    """(Q, K) rankings. rows: (n,) the database row of each photo of the run; query_rows: of each of its queries, -1 for
    one to leave out."""
    placed = [(query, i) for i, query in enumerate(query_rows.tolist()) if query >= 0]
    k = max((len(run.rows[i]) for _, i in placed), default=0)
    ranked = np.full((n_queries, k), PADDING, np.int64)
    scores = np.full((n_queries, k), -np.inf, np.float32)
    for query, i in placed:
        places = _in_order(run, i, order)
        ranked[query, : len(places)] = rows[run.rows[i][places]]
        scores[query, : len(places)] = run.scores[i][places]
    return RankedRows(ranked, scores)


def _onto(base: Ranking, run: NamedRun, photos: NameMatch, queries: NameMatch, record: ImportRecord) -> Ranking:
    """The base, in which the file's photos stand in front of each ranking in their order, the rest as it was."""
    front_rows = [np.empty(0, np.int64)] * len(base.query_names)
    front_scores = [np.empty(0)] * len(base.query_names)
    n_new = 0
    for i, query in enumerate(queries.rows.tolist()):
        if query < 0:
            continue
        places = _in_order(run, i, record.order)
        rows = photos.rows[run.rows[i][places]]
        front_rows[query] = rows[rows >= 0]
        front_scores[query] = run.scores[i][places][rows >= 0]
        n_new += int((~np.isin(front_rows[query], base.rows[query])).sum())
    if n_new:
        log.warning(
            "%s of %s not in the ranking that it orders anew: put in front all the same",
            counted(n_new, "line", "lines"),
            record.path,
        )
    # Places in place of scores, whose equal ones would be ordered by row.
    places_first = [(rows, -np.arange(len(rows))) for rows in front_rows]
    ranked = put_in_front(RankedRows(base.rows, base.with_scores()), places_first)
    k = base.rows.shape[1]
    for query, scores in enumerate(front_scores):
        ranked.scores[query, : len(scores)] = scores[:k].astype(np.float32)
    n_first = max(map(len, front_rows), default=0)
    imported = (*base.origin.imported, replace(record, n_first=min(n_first, k)))
    return replace(
        base, rows=ranked.rows, scores=ranked.scores, inliers=None, origin=replace(base.origin, imported=imported)
    )
