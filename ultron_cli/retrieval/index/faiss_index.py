"""Indexes of Faiss, opened and searched; building.py makes them.

A Faiss index is a folder NAME.index: index.faiss (Faiss's own format), names.json (one photo name per row), index.json
(format "ultron-index", version, kind, factory, metric, n, dim, search, whitening, config, created, ultron_version, and
`descriptors`: path, size, mtime_ns and sha256 of the file it was made from), and whitening.h5 where descriptors were
whitened on their way in.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np

from ultron_cli.errors import UltronError
from ultron_cli.files import require_regular_file
from ultron_cli.guarded import limited_memory
from ultron_cli.memory import check_memory
from ultron_cli.retrieval.index.base import (
    StoredDescription,
    StoredIndex,
    best_of,
    fit_description,
    read_index_names,
    refuse_stale,
)
from ultron_cli.retrieval.index.kinds import INDEX_KINDS, SearchSettings
from ultron_cli.retrieval.index.soundness import FaissObject, unsound_part
from ultron_cli.retrieval.origin import ExtractionRecord
from ultron_cli.retrieval.rankings import RankedRows, check_search
from ultron_cli.retrieval.whitening import read_whitening

FORMAT = "ultron-index"
VERSION = 1

AGAIN = "run `ultron index --overwrite` again"
# Beside the bytes of its file: tables that Faiss derives from them.
DERIVED_BYTES = 1 << 28


@dataclass(frozen=True, kw_only=True)
class FaissIndex(StoredIndex):
    """An open Faiss index."""

    factory: str  # Faiss's description of it
    faiss_index: FaissObject = field(repr=False)

    @property
    def is_exact(self) -> bool:
        """Whether every row is compared, so that the k best are the k best (within float32 rounding)."""
        return self.factory == INDEX_KINDS["flat"].factory

    def search(self, query_descriptors: np.ndarray, k: int, settings: SearchSettings | None = None) -> RankedRows:
        """The k rows of largest inner product, equal scores by row; rows end in -1 where an approximate index found
        fewer.

        query_descriptors: (Q, D) float32. settings: None takes those of the index. With rescore, the k are the best by
        exact scores of rescore x k candidates. Raises UltronError if k or the dimensions do not fit or a value is not
        finite.
        """
        check_search(query_descriptors, self.n, self.dim, k)
        settings = settings or self.settings
        apply_settings(settings, self.faiss_index)
        queries = np.ascontiguousarray(query_descriptors, np.float32)
        descriptors = self.descriptors if settings.rescore > 0 and not self.is_exact else None
        if descriptors is None:
            return self._candidates(queries, k)
        candidates = self._candidates(queries, min(self.n, max(k, settings.rescore * k)))
        return self._rescored(queries, candidates, k, descriptors)

    def _candidates(self, queries: np.ndarray, k: int) -> RankedRows:
        """The k best by Faiss's scores."""
        n_fetched = min(self.n, k + 16) if self.is_exact else k
        scores, rows = self._searched(queries, n_fetched)
        # Faiss orders equal scores as it likes: fetch on until those equal to the k-th are all there.
        while self.is_exact and n_fetched < self.n and (scores[:, -1] == scores[:, k - 1]).any():
            n_fetched = min(self.n, 2 * n_fetched)
            scores, rows = self._searched(queries, n_fetched)
        return best_of(scores, rows, k)

    def _searched(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(scores (Q, k) float32, rows (Q, k) int64) of Faiss. Raises UltronError where its file holds what cannot be
        searched."""
        try:
            scores, rows = self.faiss_index.search(queries, k)
        except (RuntimeError, MemoryError) as error:
            raise UltronError(f"Faiss cannot search {self.path} ({faiss_reason(error)}); {AGAIN}") from error
        if rows.size and not (rows.min() >= -1 and rows.max() < self.n):
            raise UltronError(f"{self.path} is damaged: it names rows beyond its {self.n}; {AGAIN}")
        return scores, rows


def apply_settings(settings: SearchSettings, faiss_index: FaissObject) -> None:
    """Sets nprobe and efSearch where the index has them, also behind a rotation."""
    faiss = load_faiss()
    for name, value in (("nprobe", settings.nprobe), ("efSearch", settings.ef_search)):
        if value:
            try:
                faiss.ParameterSpace().set_index_parameter(faiss_index, name, value)
            except RuntimeError:
                continue  # the index has no such parameter


def load_faiss() -> ModuleType:
    """The faiss module. Raises UltronError with the way to install it."""
    try:
        import faiss
    except ImportError as error:
        raise UltronError(
            f"an index needs Faiss, which cannot be imported ({error}); install it: pip install faiss-cpu "
            "(faiss-gpu on Linux with an NVIDIA GPU), or search without `index`"
        ) from error
    return faiss


@dataclass(frozen=True, kw_only=True)
class _Description(StoredDescription):
    """index.json of a Faiss index."""

    factory: str


def open_faiss(path: Path, description: Mapping[str, object]) -> FaissIndex:
    """Opens an index folder by its index.json. Raises UltronError if it is damaged, of a newer format, or stale."""
    stored = fit_description(description, _Description, VERSION, path, AGAIN)
    n, dim = stored.n, stored.dim
    refuse_stale(path, stored.kind, stored.descriptors)
    names = read_index_names(path, AGAIN)
    faiss_index = read_faiss(path / "index.faiss")
    if (faiss_index.ntotal, faiss_index.d, len(names)) != (n, dim, n):
        raise UltronError(
            f"{path} must hold {n} rows of {dim} dimensions, found {faiss_index.ntotal} of {faiss_index.d} and "
            f"{len(names)} names; run `ultron index --overwrite` again"
        )
    whitening = read_whitening(path / "whitening.h5", dim) if stored.whitening else None
    return FaissIndex(
        path=path,
        kind=stored.kind,
        factory=stored.factory,
        n=n,
        dim=dim,
        names=names,
        faiss_index=faiss_index,
        settings=stored.search,
        whitening=whitening,
        descriptor_path=Path(stored.descriptors.path),
        extraction=ExtractionRecord(stored=stored.config),
    )


def read_faiss(path: Path) -> FaissObject:
    """Reads a file of Faiss, which allocates what the file declares: no more than the file can hold. Raises UltronError
    if it is absent, damaged, no index of inner products, or does not fit the memory budget."""
    require_regular_file(path, "index")
    n_bytes = path.stat().st_size
    check_memory(n_bytes, f"{path}: the index")
    faiss = load_faiss()
    try:
        with limited_memory(2 * n_bytes + DERIVED_BYTES):
            faiss_index = faiss.read_index(str(path))
    except (RuntimeError, MemoryError) as error:
        reason = "it declares more than it holds" if isinstance(error, MemoryError) else faiss_reason(error)
        raise UltronError(f"{path} cannot be read ({reason}); {AGAIN}") from error
    if faiss_index is None:
        raise UltronError(f"{path} holds no index; {AGAIN}")
    if faiss_index.metric_type != faiss.METRIC_INNER_PRODUCT or not faiss_index.is_trained:
        raise UltronError(f"{path} must be a trained index of inner products; {AGAIN}")
    if fault := unsound_part(faiss, faiss_index):
        raise UltronError(f"{path} cannot be searched: {fault}; {AGAIN}")
    return faiss_index


def faiss_reason(error: Exception) -> str:
    """What Faiss says, without the C++ function and source line in front."""
    return re.sub(r"^Error in .*?\.\w+:\d+: ", "", " ".join(str(error).split()))[:120]
