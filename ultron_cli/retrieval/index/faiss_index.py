"""Indexes of descriptor files, opened and searched, and those of Faiss; building.py makes them. Those in Milvus:
milvus/index.py.

A Faiss index is a folder NAME.index: index.faiss (Faiss's own format), names.json (one photo name per row), index.json
(format "ultron-index", version, kind, factory, metric, n, dim, search, whitening, config, created, ultron_version, and
`descriptors`: path, size, mtime_ns and sha256 of the file it was made from), and whitening.h5 where descriptors were
whitened on their way in.
"""

import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.files import file_state, read_json, sha256_of_file
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.index.kinds import INDEX_KINDS, SearchSettings
from ultron_cli.retrieval.rankings import EMPTY, PADDING, Ranking, check_search, packed, unpacked
from ultron_cli.retrieval.whitening import Whitening, open_descriptors, read_whitening

FORMAT, VERSION = "ultron-index", 1
MILVUS_FORMAT = "ultron-milvus-index"


@dataclass(frozen=True, kw_only=True)
class Index:
    """An open index of any engine. names: one per row, N in total. kind: as asked for.

    settings: how it is searched. whitening: applied to the descriptors it was made from, and due to queries.
    descriptor_path: those descriptors, for re-scoring. config: how they were extracted.
    """

    path: Path
    kind: str
    n: int
    dim: int
    names: list[str]
    settings: SearchSettings = field(default_factory=lambda: SearchSettings())
    whitening: Whitening | None = None
    descriptor_path: Path | None = None
    config: dict[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def descriptors(self) -> DescriptorFile | None:
        """The descriptors it was made from; None, said once, where they are gone."""
        if self.descriptor_path is None or not self.descriptor_path.is_file():
            log.warning("results of %s are not re-scored, as %s is gone", self.path, self.descriptor_path)
            return None
        return open_descriptors(self.descriptor_path, self.whitening)

    def agreed_whitening(self, given: Whitening | None) -> Whitening | None:
        """The whitening that queries need. given: that of --whiten. Raises UltronError if the index was made with
        another, or none."""
        if given is not None and (self.whitening is None or given.record() != self.whitening.record()):
            own = f"{self.whitening.method} to {self.whitening.dim}-d" if self.whitening else "none"
            raise UltronError(
                f"index {self.path} was made with another whitening ({own}); leave out --whiten, or build one: "
                "ultron index --whiten"
            )
        return self.whitening

    def _rescored(self, queries: np.ndarray, candidates: Ranking, k: int) -> Ranking:
        """The k best candidates by inner products with the stored descriptors, summed in float64; one query's are read
        at a time."""
        scores = np.full(candidates.rows.shape, -np.inf, np.float32)
        for query, rows in enumerate(candidates.rows):
            known = rows != PADDING
            picked = self.descriptors.take(rows[known])
            scores[query, known] = picked.astype(np.float64) @ queries[query].astype(np.float64)
        return best_of(scores, candidates.rows, k)


@dataclass(frozen=True, kw_only=True)
class FaissIndex(Index):
    """An open Faiss index. factory: Faiss's description of it."""

    factory: str
    faiss_index: Any = field(repr=False)

    @property
    def is_exact(self) -> bool:
        """Whether every row is compared, so that the k best are the k best (within float32 rounding)."""
        return self.factory == INDEX_KINDS["flat"].factory

    def search(self, query_descriptors: np.ndarray, k: int, settings: SearchSettings | None = None) -> Ranking:
        """The k rows of largest inner product, equal scores by row; rows end in -1 where an approximate index found
        fewer.

        query_descriptors: (Q, D) float32. settings: None takes those of the index. With rescore, the k are the best by
        exact scores of rescore x k candidates. Raises UltronError if k or the dimensions do not fit or a value is not
        finite.
        """
        check_search(query_descriptors, self.n, self.dim, k)
        settings = settings or self.settings
        settings.apply(self.faiss_index)
        queries = np.ascontiguousarray(query_descriptors, np.float32)
        rescores = settings.rescore > 0 and not self.is_exact and self.descriptors is not None
        candidates = self._candidates(queries, min(self.n, max(k, settings.rescore * k)) if rescores else k)
        return self._rescored(queries, candidates, k) if rescores else candidates

    def _candidates(self, queries: np.ndarray, k: int) -> Ranking:
        """The k best by Faiss's scores."""
        n_fetched = min(self.n, k + 16) if self.is_exact else k
        scores, rows = self.faiss_index.search(queries, n_fetched)
        # Faiss orders equal scores as it likes: fetch on until those equal to the k-th are all there.
        while self.is_exact and n_fetched < self.n and (scores[:, -1] == scores[:, k - 1]).any():
            n_fetched = min(self.n, 2 * n_fetched)
            scores, rows = self.faiss_index.search(queries, n_fetched)
        return best_of(scores, rows, k)


def best_of(scores: np.ndarray, rows: np.ndarray, k: int) -> Ranking:
    """The k of largest score per query, equal scores by row. scores: (Q, n) float32. rows: (Q, n) int64, negative for
    none."""
    keys = np.where(rows < 0, EMPTY, packed(scores, np.maximum(rows, 0)))
    keys.sort(axis=1)
    ranking = unpacked(np.ascontiguousarray(keys[:, :k]))
    nothing = np.isnan(ranking.scores)
    ranking.rows[nothing], ranking.scores[nothing] = PADDING, -np.inf
    return ranking


def load_faiss() -> Any:
    """The faiss module. Raises UltronError with the way to install it."""
    try:
        import faiss
    except ImportError as error:
        raise UltronError(
            f"an index needs Faiss, which cannot be imported ({error}); install it: pip install faiss-cpu "
            "(faiss-gpu on Linux with an NVIDIA GPU), or search without --index"
        ) from error
    return faiss


def open_index(path: Path) -> Index:
    """Opens an index folder; what lies in Milvus is connected to.

    Raises UltronError if it is absent, damaged, of a newer format, or stale: its descriptor file now has other
    contents.
    """
    if not path.is_dir():
        raise UltronError(
            f"index {path} must be a folder that `ultron index` made, found {'a file' if path.exists() else 'nothing'}"
        )
    description = read_json(path / "index.json", "index description")
    found = description.get("format") if isinstance(description, dict) else None
    if found == MILVUS_FORMAT:
        from ultron_cli.retrieval.milvus.index import open_milvus

        return open_milvus(path, description)
    if found != FORMAT:
        raise UltronError(
            f"{path} is not an index: format in index.json must be {FORMAT!r}, found {found!r}; run `ultron index`"
        )
    if not isinstance(description.get("version"), int) or description["version"] > VERSION:
        raise UltronError(
            f"{path} has format version {description.get('version')}, this ultron reads up to {VERSION}; "
            "install a newer ultron"
        )
    try:
        kind, factory, n, dim = (description[key] for key in ("kind", "factory", "n", "dim"))
        settings = SearchSettings(
            **description.get("search", {})
        )  # absent from indexes of the first versions, which were not re-scored
        refuse_stale(path, kind, description["descriptors"])
    except (KeyError, TypeError) as error:
        raise UltronError(
            f"{path / 'index.json'} lacks a part ({error}); run `ultron index --overwrite` again"
        ) from error
    names, faiss = read_json(path / "names.json", "names of index"), load_faiss()
    try:
        faiss_index = faiss.read_index(str(path / "index.faiss"))
    except RuntimeError as error:
        raise UltronError(
            f"{path / 'index.faiss'} cannot be read ({faiss_reason(error)}); run `ultron index --overwrite` again"
        ) from error
    if (faiss_index.ntotal, faiss_index.d, len(names)) != (n, dim, n):
        raise UltronError(
            f"{path} must hold {n} rows of {dim} dimensions, found {faiss_index.ntotal} of {faiss_index.d} and "
            f"{len(names)} names; "
            "run `ultron index --overwrite` again"
        )
    whitening = read_whitening(path / "whitening.h5", dim) if description.get("whitening") else None
    return FaissIndex(
        path=path,
        kind=kind,
        factory=factory,
        n=n,
        dim=dim,
        names=names,
        faiss_index=faiss_index,
        settings=settings,
        whitening=whitening,
        descriptor_path=Path(description["descriptors"]["path"]),
        config=description.get("config", {}),
    )


def refuse_stale(path: Path, kind: str, source: dict[str, Any], more_flags: str = "") -> None:
    """Raises UltronError if the descriptor file an index was made from is still there with other contents.

    more_flags: of the command that builds it anew. It is hashed only if its size or time differ from the recorded ones
    (a copied file has a new time and the same contents).
    """
    descriptor_path = Path(source["path"])
    if not descriptor_path.is_file():
        return
    if file_state(descriptor_path) == (source["size"], source["mtime_ns"]):
        return
    if sha256_of_file(descriptor_path) != source["sha256"]:
        raise UltronError(
            f"index {path} is stale: {descriptor_path} has changed since it was built; "
            f"rebuild it: ultron index {descriptor_path} --type {kind}{more_flags} --out {path} --overwrite"
        )


def faiss_reason(error: RuntimeError) -> str:
    """What Faiss says, without the C++ function and source line in front."""
    return re.sub(r"^Error in .*?\.\w+:\d+: ", "", " ".join(str(error).split()))[:120]
