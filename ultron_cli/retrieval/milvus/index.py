"""Indexes whose descriptors lie in Milvus, opened and searched; building.py makes them.

Such an index is a folder NAME.index too: index.json (format "ultron-milvus-index", version, engine, uri, collection,
token_env, consistency, index_type, build, record, and what a Faiss index has: kind, metric, n, dim, search, whitening,
config, descriptors, created, ultron_version), names.json, and whitening.h5 where descriptors were whitened. A local uri
is relative to the folder that the index lies in.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.index.base import (
    StoredDescription,
    StoredIndex,
    best_of,
    fit_description,
    read_index_names,
    refuse_stale,
)
from ultron_cli.retrieval.index.kinds import SearchSettings
from ultron_cli.retrieval.milvus.client import MOST_RANKED, Milvus
from ultron_cli.retrieval.milvus.kinds import search_params
from ultron_cli.retrieval.milvus.place import Place
from ultron_cli.retrieval.origin import ExtractionRecord, Json
from ultron_cli.retrieval.rankings import RankedRows, check_search
from ultron_cli.retrieval.whitening import read_whitening

FORMAT = "ultron-milvus-index"
VERSION = 1
SPARE = 16  # photos fetched beyond k, so that all with the k-th score are there and can be ordered by row


@dataclass(frozen=True, kw_only=True)
class MilvusIndex(StoredIndex):
    """An open index in Milvus."""

    index_type: str  # Milvus's name of it
    milvus: Milvus = field(repr=False)

    @property
    def is_exact(self) -> bool:
        """Whether Milvus compares every row."""
        return self.index_type == "FLAT"

    def search(self, query_descriptors: np.ndarray, k: int, settings: SearchSettings | None = None) -> RankedRows:
        """The k rows of largest inner product, equal scores by row; rows end in -1 where an approximate index found
        fewer.

        query_descriptors: (Q, D) float32. settings: None takes those of the index. With rescore, the k are the best by
        exact scores of rescore x k candidates: with flat what `exact_search` finds. More than Milvus ranks (16,384) is
        searched exactly in the descriptor file. Raises UltronError if k or the dimensions do not fit or a value is not
        finite.
        """
        check_search(query_descriptors, self.n, self.dim, k)
        settings = settings or self.settings
        queries = np.ascontiguousarray(query_descriptors, np.float32)
        if k > MOST_RANKED:
            return self._beyond_milvus(queries, k)
        descriptors = self.descriptors if settings.rescore > 0 else None
        if descriptors is None:
            plain = SearchSettings(nprobe=settings.nprobe, ef_search=settings.ef_search)
            return best_of(*self._candidates(queries, k, plain), k)
        scores, rows = self._candidates(queries, k, settings)
        return self._rescored(queries, best_of(scores, rows, scores.shape[1]), k, descriptors)

    def _candidates(self, queries: np.ndarray, k: int, settings: SearchSettings) -> tuple[np.ndarray, np.ndarray]:
        """(scores, rows) by Milvus: for flat every row that could be among the k best, for others rescore x k."""
        most = min(self.n, MOST_RANKED)
        n_fetched = min(most, max(k, settings.rescore * k) + (SPARE if self.is_exact else 0))
        scores, rows = self._nearest(queries, n_fetched, settings)
        # Two float32 sums of D products of unit rows differ by at most 2 D u, u = 2^-24: so near the k-th score the
        # order is not known.
        margin = np.float32(2 * (self.dim + 8) * 2.0**-24)
        while self.is_exact and n_fetched < most and (scores[:, -1] >= scores[:, k - 1] - margin).any():
            n_fetched = min(most, 2 * n_fetched)
            scores, rows = self._nearest(queries, n_fetched, settings)
        return scores, rows

    def _nearest(self, queries: np.ndarray, n: int, settings: SearchSettings) -> tuple[np.ndarray, np.ndarray]:
        return self.milvus.nearest(queries, n, search_params(self.index_type, settings, n))

    def _beyond_milvus(self, queries: np.ndarray, k: int) -> RankedRows:
        """Exact search in the descriptor file."""
        if self.descriptors is None:
            raise UltronError(
                f"Milvus ranks at most {MOST_RANKED} photos per query, found {k}, and {self.descriptor_path} "
                "is gone; choose a smaller -k"
            )
        log.warning(
            "Milvus ranks at most %d photos per query, %d are asked for: searching exactly in %s instead; "
            "choose a smaller -k for Milvus",
            MOST_RANKED,
            k,
            self.descriptor_path,
        )
        from ultron_cli.retrieval.exact import exact_search  # torch, which `ultron index --engine milvus` does without

        return exact_search(queries, self.descriptors, k)


def stored_uri(place: Place, index_path: Path) -> str:
    """The uri for index.json: a local database below the index's own folder is named from there, so that both can be
    moved together."""
    if not place.is_local:
        return place.uri
    database = Path(place.uri).resolve()
    folder = index_path.resolve().parent
    return str(database.relative_to(folder) if database.is_relative_to(folder) else database)


@dataclass(frozen=True, kw_only=True)
class _Description(StoredDescription):
    """index.json of an index in Milvus."""

    uri: str
    collection: str
    token_env: str | None
    index_type: str
    record: dict[str, object]


def open_milvus(
    path: Path, description: Mapping[str, object], sleep: Callable[[float], None] = time.sleep
) -> MilvusIndex:
    """Opens an index folder by its index.json and connects to its collection.

    Raises UltronError if the folder is damaged, of a newer format or stale, or the collection is gone, unfinished or
    made from other descriptors; WorkFailed if Milvus cannot be reached.
    """
    again = "run `ultron index --engine milvus --overwrite` again"
    stored = fit_description(description, _Description, VERSION, path, again)
    kind, n, dim = stored.kind, stored.n, stored.dim
    is_local = "://" not in stored.uri
    place = Place(
        uri=str(path.parent / stored.uri) if is_local else stored.uri,
        collection=stored.collection,
        token_env=stored.token_env,
    )
    flags = f" --engine milvus --uri {place.uri} --collection {place.collection}"
    refuse_stale(path, kind, stored.descriptors, flags)
    source = Path(stored.descriptors.path)
    names = read_index_names(path, again)
    whitening = read_whitening(path / "whitening.h5", dim) if stored.whitening else None
    rebuild = f"run `ultron index {source} --type {kind}{flags} --out {path} --overwrite` again"
    if is_local and not Path(place.uri).exists():
        raise UltronError(f"the Milvus database {place.uri} of index {path} is gone; {rebuild}")
    if len(names) != n:
        raise UltronError(f"{path} must hold {n} names, found {len(names)}; {rebuild}")
    milvus = Milvus(place, sleep)
    try:
        require_whole(milvus, stored.record, n, rebuild)
    except UltronError:
        milvus.close()
        raise
    return MilvusIndex(
        path=path,
        kind=kind,
        n=n,
        dim=dim,
        names=names,
        settings=stored.search,
        whitening=whitening,
        descriptor_path=source,
        extraction=ExtractionRecord(stored=stored.config),
        index_type=stored.index_type,
        milvus=milvus,
    )


def require_whole(milvus: Milvus, record: Json, n: int, rebuild: str) -> None:
    """Raises UltronError unless the collection is there, was made from these descriptors and has all n rows.

    rebuild: what a message tells the user to do.
    """
    where = f"collection {milvus.place.collection} at {milvus.place.uri}"
    stored_record = milvus.record()
    if stored_record is None:
        raise UltronError(f"{where} is gone; {rebuild}")
    if stored_record != record:
        raise UltronError(f"{where} is stale: it was made anew from other descriptors or as another type; {rebuild}")
    milvus.load()
    n_stored = milvus.count()
    if n_stored != n:
        raise UltronError(f"{where} must hold {n} rows, found {n_stored}: it was not loaded to the end; {rebuild}")
