"""Searching with what the workspace has: stored queries in descriptor files or an index. photo_queries.py searches for
photos by path.

Importing this module loads no torch: stored descriptors are searched without it on a CPU.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ultron_cli.blocks import chunks
from ultron_cli.configs import within
from ultron_cli.console import counted, log
from ultron_cli.errors import UltronError
from ultron_cli.machine import resolve_device_name
from ultron_cli.retrieval.descriptors import (
    DescriptorInfo,
    Descriptors,
    MemoryDescriptors,
    require_same_dim,
    require_same_model,
)
from ultron_cli.retrieval.exact.index import ExactIndex
from ultron_cli.retrieval.index.base import Index, StoredIndex
from ultron_cli.retrieval.index.opening import open_index
from ultron_cli.retrieval.joined import JoinedFiles
from ultron_cli.retrieval.local_features.source import LocalSource
from ultron_cli.retrieval.origin import Json, Origin, SearchRecord
from ultron_cli.retrieval.overlap import own_rows, warn_of_own_rows
from ultron_cli.retrieval.rankings import UNVERIFIED, RankedRows, Ranking
from ultron_cli.retrieval.rerank import Step, n_needed, needs_local_features, rerank
from ultron_cli.retrieval.rerank.state import RerankState
from ultron_cli.retrieval.whitening import Whitening, open_descriptors, require_same_whitening
from ultron_cli.workspace import Workspace

RANKING_BYTES = 1 << 28  # of rows and scores of the queries that an evaluation searches together


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How to search, beside what for and where."""

    index: Path | None = None  # an index folder; None searches exactly
    # In place of the index's own: nprobe, ef_search ...
    index_settings: Mapping[str, int] = field(default_factory=dict)
    steps: Sequence[Step] = ()  # of re-ranking, in their order
    whitening: Whitening | None = None  # of raw descriptors
    distractors: Sequence[Path] = ()  # descriptor files that are searched behind the database
    leave_out_queries: bool = False  # a query that is in the database too is left out of its own ranking
    # Files of the queries', the database's and each distractor file's; none: those beside the descriptor files.
    local_features: Sequence[Path] = ()


PLAIN = SearchOptions()


def latest_descriptors(
    queries: Path | None, database: Path | None, workspace: Workspace | None = None
) -> tuple[Path, Path]:
    """(queries.h5, database.h5): those given, else those of the latest extraction.

    Raises UltronError if there is none.
    """
    if queries and database:
        return queries, database
    is_file_named = queries is not None
    folder = (workspace or Workspace()).take_latest("extract", "name both `queries` and `database`")
    queries = queries or folder / "queries.h5"
    if not is_file_named and not queries.exists():
        raise UltronError(
            f"{folder} has no queries.h5, as its dataset has no ground truth; name descriptors with `queries`",
            "give photos as `photos`",
        )
    return queries, database or folder / "database.h5"


def origin_of(database: DescriptorInfo, queries: DescriptorInfo | None = None) -> Origin:
    """What a ranking must record of the descriptors it came from; crop is the queries'."""
    of_queries = queries or database
    return Origin(
        dataset=database.dataset,
        model=database.model,
        weights_sha256=database.weights_sha256,
        extraction=of_queries.extraction,
        weights=database.provenance.weights,
        dataset_folder=of_queries.provenance.dataset_folder,
        database_folder=database.provenance.dataset_folder,
        ground_truth=of_queries.provenance.ground_truth,
        whitening_learned_from=database.provenance.whitening_learned_from,
        fusion=database.provenance.fusion,
        skipped=(*database.skipped, *(queries.skipped if queries else ())),
    )


def open_index_of(options: SearchOptions) -> StoredIndex | None:
    """Opens the options' index, with their settings; None for exact search."""
    if options.index is None:
        return None
    index = open_index(options.index)
    return replace(index, settings=replace(index.settings, **options.index_settings))


def whitening_for(index: StoredIndex | None, options: SearchOptions) -> Whitening | None:
    """The whitening that raw descriptors need. Raises UltronError if the index was made with another."""
    return index.agreed_whitening(options.whitening) if index else options.whitening


def open_database(path: Path, options: SearchOptions, whitening: Whitening | None) -> Descriptors:
    """Opens the database file, with the options' distractors after it."""
    if options.distractors:
        return JoinedFiles(path, options.distractors, whitening)
    return open_descriptors(path, whitening)


class Searcher:
    """A database to search in, exactly or by an index. k and steps belong to each search."""

    def __init__(self, database: Descriptors, index: Index | None = None, device: str = "cpu") -> None:
        """index: None searches exactly. Raises UltronError if the index is of other descriptors."""
        if isinstance(index, StoredIndex) and index.extraction:
            where = f"{database.label} and index {index.path}"
            require_same_model(database.info.extraction, index.extraction, where)
        self.database = database
        self.index = index or ExactIndex.over(database, device)
        self.device = device

    @property
    def names(self) -> list[str]:
        """Names of the photos that rows of a ranking mean."""
        return self.index.names

    def search(
        self, queries: np.ndarray, k: int | None, steps: Sequence[Step] = (), local: LocalSource | None = None
    ) -> tuple[RankedRows, SearchRecord]:
        """(the k best of every query, how). queries: (Q, D) float32, whitened as the database is. k: None ranks all.
        local: where the queries' and the database's local features are.

        Raises UltronError if k is below 1, or steps need descriptors that the index was not made from.
        """
        database = self.database
        index = self.index
        k = self._checked(k)
        if steps and (index.dim != database.dim or index.names != database.names):
            path = index.path if isinstance(index, StoredIndex) else "in memory"
            raise UltronError(
                f"re-ranking reads descriptors from {database.label}, which index {path} was not made from; "
                "name its `database`"
            )
        k_first = min(database.n, max(k, n_needed(steps)))
        started_s = time.perf_counter()
        ranked = index.search(queries, min(index.n, k_first))
        record = index.record()
        state = None
        if steps:
            state = RerankState(
                ranking=ranked,
                queries=queries,
                database=database,
                index=index if isinstance(index, StoredIndex) else None,
                device=self.device,
                in_place=True,
                local=local,
            )
            state, step_records = rerank(state, steps)
            ranked = state.ranking
            record = replace(record, steps=step_records)
            if local and needs_local_features(steps):
                record = replace(record, local_features=local.paths)
        rows = np.ascontiguousarray(ranked.rows[:, :k])
        scores = np.ascontiguousarray(ranked.scores[:, :k])
        inliers = None if state is None or state.inliers_of is None else inliers_at(rows, state.inliers_of)
        ms_per_query = (time.perf_counter() - started_s) * 1e3 / max(1, len(queries))
        return RankedRows(rows, scores, inliers), replace(record, ms_per_query=ms_per_query)

    def search_rows(
        self, queries: np.ndarray, k: int | None, steps: Sequence[Step] = (), local: LocalSource | None = None
    ) -> tuple[np.ndarray, SearchRecord]:
        """As `search`, without scores: rows (Q, K), int32 where they fit, a block of queries at a time."""
        k = self._checked(k)
        rows = np.empty((len(queries), k), np.int32 if self.database.n < 2**31 else np.int64)
        record = self.index.record()
        search_ms = 0.0
        spent_ms = [0.0] * len(steps)
        measured: list[Json] = [{}] * len(steps)
        for start, stop in chunks(len(queries), max(1, RANKING_BYTES // (12 * k))):
            ranked, record = self.search(queries[start:stop], k, steps, local and local.of_queries(start, stop))
            rows[start:stop] = ranked.rows
            search_ms += (record.ms_per_query or 0.0) * (stop - start)
            for i, step in enumerate(record.steps):
                spent_ms[i] += step.ms_per_query * (stop - start)
                measured[i] = _added(measured[i], step.measured)
        n_queries = max(1, len(queries))
        means_ms = [spent / n_queries for spent in spent_ms]
        step_records = tuple(
            replace(step, ms_per_query=ms, measured=parts)
            for step, ms, parts in zip(record.steps, means_ms, measured, strict=False)
        )
        return rows, replace(record, steps=step_records, ms_per_query=search_ms / n_queries)

    def _checked(self, k: int | None) -> int:
        """As many photos as there are, where k is more or None. Raises UltronError below 1."""
        n = self.database.n
        if k is None:
            return n
        within("k", k, 1)
        if k > n:
            log.info("the database has %s, so each ranking has %d", counted(n, "photo"), n)
        return min(k, n)


def inliers_at(rows: np.ndarray, inliers_of: Sequence[Mapping[int, int]]) -> np.ndarray:
    """(Q, K) int32 inliers of the photos in (Q, K) rows, -1 where a photo was not verified. inliers_of: by query."""
    inliers = np.full(rows.shape, UNVERIFIED, np.int32)
    for query, of_query in enumerate(inliers_of):
        for place in np.flatnonzero(np.isin(rows[query], list(of_query))).tolist():
            inliers[query, place] = of_query[int(rows[query, place])]
    return inliers


def _added(before: Json, block: Json) -> Json:
    """What a step measured over several blocks of queries: its counts (n_...) added up, all else of the last."""
    counts = {}
    for name, value in block.items():
        if name.startswith("n_") and isinstance(value, int):
            earlier = before.get(name)
            counts[name] = value + (earlier if isinstance(earlier, int) else 0)
    return {**block, **counts}


def search_files(
    queries: Path,
    database: Path,
    k: int | None,
    device_name: str,
    *,
    options: SearchOptions = PLAIN,
    rows_only: bool = False,
) -> Ranking:
    """Searches every query of a file. k: None ranks the whole database.

    rows_only: for evaluation; the ranking then holds int32 rows and no scores, and queries are searched in blocks, so
    that a million distractors need 4 bytes per query and photo and a bounded working memory. Raises UltronError if the
    files differ in dimensions, model or whitening, or k is below 1.
    """
    index = open_index_of(options)
    whitening = whitening_for(index, options)
    with (
        open_descriptors(queries, whitening) as query_file,
        open_database(database, options, whitening) as database_file,
    ):
        ranking = search_descriptors(
            query_file,
            database_file,
            k,
            device_name,
            index=index,
            steps=options.steps,
            rows_only=rows_only,
            leave_out_queries=options.leave_out_queries,
            local_features=options.local_features,
        )
    files = (str(queries.resolve()), str(database.resolve()))
    return replace(ranking, origin=replace(ranking.origin, descriptors=files))


def _is_bare(descriptors: Descriptors) -> bool:
    """Whether they are an array of a program, which says nothing of what made it."""
    return isinstance(descriptors, MemoryDescriptors) and not descriptors.info.extraction


def search_descriptors(
    queries: Descriptors,
    database: Descriptors,
    k: int | None,
    device_name: str,
    *,
    index: Index | None = None,
    steps: Sequence[Step] = (),
    rows_only: bool = False,
    leave_out_queries: bool = False,
    local_features: Sequence[Path] = (),
) -> Ranking:
    """Searches every query of open descriptors, whitened as the database is. index: None searches exactly. The rest as
    `search_files` and SearchOptions."""
    where = f"{queries.label} and {database.label}"
    require_same_dim(Path(queries.label), queries.dim, Path(database.label), database.dim)
    if not (_is_bare(queries) or _is_bare(database)):
        require_same_model(queries.info.extraction, database.info.extraction, where)
        require_same_whitening(queries.info.extraction, database.info.extraction, where)
    searcher = Searcher(database, index, resolve_device_name(device_name))
    local = LocalSource.of(queries, database, local_features)
    rows_of_self = own_rows(queries, database)
    n_own = max((len(rows) for rows in rows_of_self.values()), default=0) if leave_out_queries else 0
    k_with_own = None if k is None else max(k, min(k + n_own, database.n))
    scores = inliers = None
    if rows_only:
        rows, record = searcher.search_rows(queries.read(), k_with_own, steps, local)
    else:
        ranked, record = searcher.search(queries.read(), k_with_own, steps, local)
        rows, scores, inliers = ranked.rows, ranked.scores, ranked.inliers
        warn_of_own_rows(0 if leave_out_queries else len(rows_of_self), queries.n)
    distractors = database.distractors if isinstance(database, JoinedFiles) else ()
    record = replace(record, leaves_out_queries=leave_out_queries)
    origin = replace(origin_of(database.info, queries.info), search=record, distractors=distractors)
    ranking = Ranking(
        query_names=queries.names,
        database_names=searcher.names,
        rows=rows,
        scores=scores,
        inliers=inliers,
        origin=origin,
        own_rows=rows_of_self,
        query_marks=queries.marks,
        database_marks=database.marks,
    )
    return ranking.without_own_rows(rows_of_self, k) if leave_out_queries else ranking
