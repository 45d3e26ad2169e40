"""What every index is and does, and what the stored ones share."""

import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.files import file_state, sha256_of_file
from ultron_cli.retrieval.descriptors import Descriptors
from ultron_cli.retrieval.index.kinds import SearchSettings
from ultron_cli.retrieval.origin import ExtractionRecord, SearchRecord
from ultron_cli.retrieval.rankings import EMPTY, PADDING, RankedRows, packed, unpacked
from ultron_cli.retrieval.whitening import Whitening, open_descriptors
from ultron_cli.schema.regular import MOST_LIST_BYTES
from ultron_cli.schema.texts import fit_file, read_json
from ultron_cli.schema.values import shown


@dataclass(frozen=True, kw_only=True)
class StoredSource:
    """The descriptor file that an index was made from, as index.json records it."""

    path: str
    size: int  # bytes
    mtime_ns: int  # time of the last change
    sha256: str


@dataclass(frozen=True, kw_only=True)
class StoredDescription:
    """What index.json says of an index of any engine."""

    kind: str
    n: int
    dim: int
    descriptors: StoredSource
    search: SearchSettings = field(default_factory=SearchSettings)  # the first versions did not re-score
    whitening: dict[str, object] | None = None
    config: dict[str, object] = field(default_factory=dict)


D = TypeVar("D", bound=StoredDescription)


def fit_description(description: Mapping[str, object], kind: type[D], version: int, path: Path, again: str) -> D:
    """The index.json of an index folder as `kind`. version: the newest that is read; again: what to do about an unsound
    one. Raises UltronError that names the place."""
    stored_version = description.get("version")
    if not isinstance(stored_version, int) or stored_version > version:
        raise UltronError(
            f"{path} has format version {shown(stored_version)}, this ultron reads up to {version}; "
            "install a newer ultron"
        )
    return fit_file(description, kind, path / "index.json", "index description", again)


def read_index_names(path: Path, again: str) -> list[str]:
    """The photo names of an index folder, one per row. Raises UltronError."""
    return read_json(path / "names.json", "names of index", list[str], advice=again, most_bytes=MOST_LIST_BYTES)


@dataclass(frozen=True, kw_only=True)
class Index(ABC):
    """A way to find the nearest of N descriptors: exact search (retrieval/exact/index.py), or an index folder."""

    kind: str  # exact, flat, ivfpq, ... or a Faiss factory string
    n: int
    dim: int
    names: list[str] = field(repr=False)  # one per row

    @property
    @abstractmethod
    def is_exact(self) -> bool:
        """Whether every row is compared, so that the k best are the k best (within float32 rounding)."""

    @abstractmethod
    def search(self, query_descriptors: np.ndarray, k: int, settings: SearchSettings | None = None) -> RankedRows:
        """The k rows of largest inner product, equal scores by row; rows end in -1 where fewer were found.

        query_descriptors: (Q, D) float32. settings: how to search; None takes those of the index. Raises UltronError if
        k or the dimensions do not fit or a value is not finite.
        """

    @abstractmethod
    def record(self) -> SearchRecord:
        """How this index searches, as a ranking records it."""


@dataclass(frozen=True, kw_only=True)
class StoredIndex(Index):
    """An open index folder of any engine."""

    path: Path
    settings: SearchSettings = field(default_factory=SearchSettings)  # how it is searched
    whitening: Whitening | None = None  # applied to the descriptors it was made from, and due to queries
    descriptor_path: Path | None = None  # those descriptors, for re-scoring
    extraction: ExtractionRecord = field(default_factory=ExtractionRecord, repr=False)  # how they were extracted

    @cached_property
    def descriptors(self) -> Descriptors | None:
        """The descriptors it was made from; None, with one warning, where they are gone."""
        if self.descriptor_path is None or not os.path.isfile(self.descriptor_path):
            log.warning("results of %s are not re-scored, as %s is gone", self.path, self.descriptor_path)
            return None
        return open_descriptors(self.descriptor_path, self.whitening)

    def agreed_whitening(self, requested: Whitening | None) -> Whitening | None:
        """The whitening that queries need. requested: that of --whiten. Raises UltronError if the index was made with
        another, or none."""
        if requested is not None and (self.whitening is None or requested.record() != self.whitening.record()):
            of_index = str(self.whitening.record()) if self.whitening else "none"
            raise UltronError(
                f"index {self.path} was made with another whitening ({of_index}); leave out `whiten`, or build one: "
                "`ultron index --whiten`"
            )
        return self.whitening

    def record(self) -> SearchRecord:
        """How this index searches, as a ranking records it."""
        return SearchRecord(
            method="index", index=str(self.path), kind=self.kind, settings=dataclasses.asdict(self.settings)
        )

    def _rescored(self, queries: np.ndarray, candidates: RankedRows, k: int, descriptors: Descriptors) -> RankedRows:
        """The k best candidates by inner products with the stored descriptors, summed in float64; one query's are read
        at a time."""
        scores = np.full(candidates.rows.shape, -np.inf, np.float32)
        for query, rows in enumerate(candidates.rows):
            is_row = rows != PADDING
            candidate_descriptors = descriptors.take(rows[is_row])
            scores[query, is_row] = candidate_descriptors.astype(np.float64) @ queries[query].astype(np.float64)
        return best_of(scores, candidates.rows, k)


def best_of(scores: np.ndarray, rows: np.ndarray, k: int) -> RankedRows:
    """The k of largest score per query, equal scores by row. scores: (Q, n) float32. rows: (Q, n) int64, negative for
    none."""
    keys = np.where(rows < 0, EMPTY, packed(scores, np.maximum(rows, 0)))
    keys.sort(axis=1)
    ranking = unpacked(np.ascontiguousarray(keys[:, :k]))
    is_empty = np.isnan(ranking.scores)
    ranking.rows[is_empty] = PADDING
    ranking.scores[is_empty] = -np.inf
    return ranking


def refuse_stale(path: Path, kind: str, source: StoredSource, build_flags: str = "") -> None:
    """Raises UltronError if the descriptor file an index was made from is still there with other contents.

    build_flags: of the command that builds the index anew, beside type and out. The file is hashed only if its size or
    time differ from the recorded ones (a copied file has a new time and the same contents).
    """
    descriptor_path = Path(source.path)
    if not os.path.isfile(descriptor_path):  # Path.is_file raises for a name of thousands of characters
        return
    if file_state(descriptor_path) == (source.size, source.mtime_ns):
        return
    if sha256_of_file(descriptor_path) != source.sha256:
        raise UltronError(
            f"index {path} is stale: {descriptor_path} has changed since it was built; "
            f"rebuild it: `ultron index {descriptor_path} --type {kind}{build_flags} --out {path} --overwrite`"
        )
