"""Geometric verification: photos that share enough of the query's local features, in one arrangement, come first.

The first M photos of a ranking are matched with the query (local/matching.py) and verified (local/verification.py).
Those with more inliers than chance gives come first, by inliers; the others stay as they were. What chance gives is
calibrated on pairs of database photos that are far apart by descriptor (local/calibration.py). Results are kept beside
the local features (local_features/verified.py).
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from threadpoolctl import threadpool_limits

from ultron_cli.blocks import chunks
from ultron_cli.configs import one_of, within
from ultron_cli.console import counted, log
from ultron_cli.local import MUTUAL, choose_matcher
from ultron_cli.local.calibration import Calibration, calibrate
from ultron_cli.local.matching import prepare
from ultron_cli.local.verification import MODELS, VerifiableQuery, VerifySettings, verify
from ultron_cli.machine import n_threads, size_text
from ultron_cli.retrieval.local_features.opened import IN_NO_FILE, OpenLocalFeatures
from ultron_cli.retrieval.local_features.verified import Pair, PairResult, VerifiedPairs
from ultron_cli.retrieval.rerank.state import RerankState, Scored, put_in_front
from ultron_cli.user_code import is_import_path

PAIRS_PER_TASK = 50  # of one query, verified by one thread and kept together
TASKS_AHEAD = 4  # for each thread
SEED = 0  # of the chance pairs
FAR_SHARE = 0.25  # of drawn pairs, the least similar, that are taken to show different things
NOTHING = PairResult(0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class GeometryConfig:
    """Defaults: docs/local.md says on what they were measured."""

    m: int = 100  # photos of each ranking that are verified
    model: str = "homography"
    threshold_px: float | None = None  # None for these: what suits the features (VerifySettings)
    ratio: float | None = None
    max_turn_deg: float = 45.0
    most_of_cell: int = 3  # inliers that count, of each cell of a grid over the query's box
    matcher: str = MUTUAL  # or a name of MATCHERS, or an import path
    matching: dict[str, object] = field(default_factory=dict)  # settings of the matcher
    guard: bool = True  # whether only photos with more inliers than chance gives are promoted
    chance_share: float = 0.0001  # of pairs of other photos that may reach the inliers that promote: 1 in 100 rankings
    chance_pairs: int = 1000  # that the number is calibrated on
    least: int = 6  # inliers that promote, however few chance gives
    n_workers: int = field(default=0, metadata={"shapes_result": False})  # threads; 0: as many as may be taken

    def __post_init__(self) -> None:
        within("geometry.m", self.m, 1, 1_000_000)
        one_of("geometry.model", self.model, MODELS)
        if self.threshold_px is not None:
            within("geometry.threshold_px", self.threshold_px, 0.1, 100)
        if self.ratio is not None:
            within("geometry.ratio", self.ratio, 0.1, 1)
        within("geometry.max_turn_deg", self.max_turn_deg, 1, 180)
        within("geometry.most_of_cell", self.most_of_cell, 1, 1000)
        within("geometry.chance_share", self.chance_share, 1e-6, 0.5)
        within("geometry.chance_pairs", self.chance_pairs, 0, 100_000)
        within("geometry.least", self.least, 1, 1000)
        within("geometry.n_workers", self.n_workers, 0, 1024)
        if not is_import_path(self.matcher):
            choose_matcher(self.matcher, self.matching)

    @property
    def n_needed(self) -> int:
        """Photos of a ranking that the step looks at."""
        return self.m

    @cached_property
    def verification(self) -> VerifySettings:
        """How a pair is verified. Raises UltronError for an unknown matcher, or settings that it does not take."""
        return VerifySettings(
            model=self.model,
            threshold_px=self.threshold_px,
            ratio=self.ratio,
            max_turn_deg=self.max_turn_deg,
            most_of_cell=self.most_of_cell,
            matcher=choose_matcher(self.matcher, self.matching),
        )


@dataclass
class Work:
    """What has been done, counted."""

    n_verified: int = 0
    n_known: int = 0
    spent_s: float = 0.0  # by all threads together

    def ms_per_pair(self) -> float:
        """Of one thread; 0 where every pair was known."""
        return 1e3 * self.spent_s / max(1, self.n_verified)


@dataclass(frozen=True, eq=False)
class Task:
    """Photos that one thread verifies against one query, or against one photo of the database."""

    query: int  # of the ranking, or a row of the database
    is_database_photo: bool
    rows: list[int]  # of the database
    pairs: list[Pair]


class Verifier:
    """Verifies pairs of an open source, each once."""

    def __init__(self, features: OpenLocalFeatures, store: VerifiedPairs, config: GeometryConfig) -> None:
        self._features = features
        self.photos = features.photos
        self._store = store
        self._settings = config.verification
        self._n_workers = config.n_workers or n_threads()
        self.work = Work()

    def results(
        self, rows_of: Sequence[Sequence[int]], *, first_photos: Sequence[int] | None = None
    ) -> list[dict[int, PairResult]]:
        """Of each query the results by database row. first_photos: database rows in place of the queries."""
        places = [
            self._features.place_of_query(i) if first_photos is None else self.photos.place_of(first_photos[i])
            for i in range(len(rows_of))
        ]
        pairs = [
            {row: Pair(*place, *self.photos.place_of(row)) for row in rows}
            for place, rows in zip(places, rows_of, strict=True)
        ]
        # A photo that was skipped has no features, and so nothing in common with any.
        whole = {pair for group in pairs for pair in group.values() if min(pair.query_row, pair.photo_row) >= 0}
        # Photos by path are in no file by which they would be known again.
        results = self._store.known(pair for pair in whole if pair.query_file != IN_NO_FILE)
        self.work.n_known += len(results)
        tasks = []
        for i, group in enumerate(pairs):
            new = [(row, pair) for row, pair in group.items() if pair in whole and pair not in results]
            for start, stop in chunks(len(new), PAIRS_PER_TASK):
                rows, of_rows = zip(*new[start:stop], strict=True)
                first = i if first_photos is None else int(first_photos[i])
                tasks.append(Task(first, first_photos is not None, list(rows), list(of_rows)))
        for verified in self._verified(tasks):
            self._store.add({pair: result for pair, result in verified.items() if pair.query_file != IN_NO_FILE})
            results |= verified
        return [{row: results.get(pair, NOTHING) for row, pair in group.items()} for group in pairs]

    def _verified(self, tasks: Sequence[Task]) -> Iterator[dict[Pair, PairResult]]:
        """The results of tasks, in their order, as they come."""
        if not tasks:
            return
        if self._settings.matcher is None:
            prepare(sum(len(task.rows) for task in tasks))
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(self._n_workers, "geometry") as workers:
            for start, stop in chunks(len(tasks), TASKS_AHEAD * self._n_workers):
                for spent_s, results in workers.map(self._run, tasks[start:stop]):
                    self.work.spent_s += spent_s
                    self.work.n_verified += len(results)
                    yield results

    def _run(self, task: Task) -> tuple[float, dict[Pair, PairResult]]:
        """(seconds of this thread, results)."""
        started_s = time.thread_time()
        if task.is_database_photo:
            query = VerifiableQuery.of(self.photos.photo(task.query))
        else:
            query = self._features.query(task.query)
        results = {}
        for row, pair in zip(task.rows, task.pairs, strict=True):
            verified = verify(query, self.photos.photo(row), self._settings)
            results[pair] = PairResult(verified.n_matches, verified.n_inliers, verified.score)
        return time.thread_time() - started_s, results


def geometry(state: RerankState, config: GeometryConfig) -> RerankState:
    """Verifies the first M of every query and promotes those that chance does not explain.

    Scores of promoted photos are their inliers and, of equal ones, a part below a half that falls with the place they
    had. Raises UltronError if there are no local features.
    """
    with (
        OpenLocalFeatures(state.local, "geometry") as features,
        VerifiedPairs(features.photos.store_path, config.verification) as store,
    ):
        verifier = Verifier(features, store, config)
        calibration = calibrated(state, verifier, config) if config.guard else None
        least = calibration.threshold if calibration else 1
        rows_of = [state.first_rows(query, config.m).tolist() for query in range(len(state.queries))]
        results = verifier.results(rows_of)
        bytes_per_photo = features.photos.bytes_per_photo
    fronts = [_front(rows, of_query, least) for rows, of_query in zip(rows_of, results, strict=True)]
    n_promoted = sum(len(rows) for rows, _ in fronts)
    work = verifier.work
    measured = {
        "n_pairs": work.n_verified,
        "n_known_pairs": work.n_known,
        "ms_per_pair": round(work.ms_per_pair(), 3),
        "bytes_per_photo": round(bytes_per_photo),
        "n_promoted": n_promoted,
        "n_queries_with_promoted": sum(len(rows) > 0 for rows, _ in fronts),
        "calibration": calibration.to_json() if calibration else None,
    }
    if config.verification.matcher is not None:
        measured["matcher"] = config.verification.matcher.identity
    log.info(
        "geometry: %s verified at %.2f ms of one thread each, %d known before; %s of local features per photo; "
        "%s promoted in %d of %d queries",
        counted(work.n_verified, "pair"),
        work.ms_per_pair(),
        work.n_known,
        size_text(bytes_per_photo),
        counted(n_promoted, "photo"),
        measured["n_queries_with_promoted"],
        len(fronts),
    )
    ranking = put_in_front(state.ranking, fronts, in_place=state.in_place)
    inliers_of = [{row: result.score for row, result in of_query.items()} for of_query in results]
    return replace(state, ranking=ranking, measured=measured, inliers_of=inliers_of)


def _front(rows: Sequence[int], results: dict[int, PairResult], least: int) -> Scored:
    """The photos of one ranking that are promoted, and their scores."""
    n = len(rows)
    promoted = [(row, place) for place, row in enumerate(rows) if results[row].score >= least]
    scores = [results[row].score + (n - place) / (2 * n) for row, place in promoted]
    return np.array([row for row, _ in promoted], np.int64), np.array(scores, np.float64)


def calibrated(state: RerankState, verifier: Verifier, config: GeometryConfig) -> Calibration:
    """From which number of inliers on photos are promoted, which is logged where it is new."""
    key = repr(replace(config, m=1, n_workers=0))
    known = verifier.photos.calibrations.get(key)
    if known is not None:
        return known
    first, second = chance_pairs(state, config.chance_pairs)
    rows_of: dict[int, list[int]] = {}
    for row, other in zip(first.tolist(), second.tolist(), strict=True):
        rows_of.setdefault(row, []).append(other)
    results = verifier.results(list(rows_of.values()), first_photos=list(rows_of))
    scores = np.array([result.score for of_photo in results for result in of_photo.values()], np.int64)
    calibration = calibrate(scores, share=config.chance_share, first=MODELS[config.model].n_matches, least=config.least)
    log.info("geometry: %s", calibration.text())
    verifier.photos.calibrations[key] = calibration
    return calibration


def chance_pairs(state: RerankState, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows, rows) of at most n pairs of database photos that are far apart by descriptor, each pair once.

    Drawn by SEED: the least similar FAR_SHARE of pairs drawn evenly. Fewer than n in a small database.
    """
    n_photos = state.n_database
    n_drawn = int(n / FAR_SHARE)
    if n_photos * (n_photos - 1) // 2 <= 2 * n_drawn:
        pairs = np.stack(np.triu_indices(n_photos, 1), axis=1)
        pairs = np.random.default_rng(SEED).permutation(pairs)[:n_drawn]
    else:
        drawn = np.random.default_rng(SEED).integers(0, n_photos, (2 * n_drawn, 2))
        pairs = np.unique(np.sort(drawn[drawn[:, 0] != drawn[:, 1]], axis=1), axis=0)
        pairs = np.random.default_rng(SEED).permutation(pairs)[:n_drawn]
    if not len(pairs):
        return pairs[:, 0], pairs[:, 1]
    similarities = np.einsum("nd,nd->n", state.rows_of(pairs[:, 0]), state.rows_of(pairs[:, 1]), dtype=np.float64)
    far = np.sort(np.argsort(similarities, kind="stable")[: int(len(pairs) * FAR_SHARE)])
    return pairs[far, 0], pairs[far, 1]
