"""Indexes of a user's own, by import path (`ultron index --type my.py:Projected`): built, stored, opened, searched.

Such an index is a folder NAME.index as those of Faiss, with index.json of format "ultron-index-of-user", names.json,
whitening.h5, and two folders: content/, which the user's code writes and reads, and code/, a copy of that code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from ultron_cli import user_code
from ultron_cli.errors import UltronError
from ultron_cli.files import make_folder
from ultron_cli.retrieval.descriptors import Descriptors
from ultron_cli.retrieval.index.base import (
    StoredDescription,
    StoredIndex,
    best_of,
    fit_description,
    read_index_names,
    refuse_stale,
)
from ultron_cli.retrieval.index.kinds import INDEX_KINDS, SearchSettings
from ultron_cli.retrieval.origin import ExtractionRecord, SearchRecord
from ultron_cli.retrieval.rankings import RankedRows, check_search
from ultron_cli.retrieval.whitening import read_whitening
from ultron_cli.schema.values import shown

FORMAT = "ultron-index-of-user"
VERSION = 1
CONTENT = "content"
AGAIN = "run `ultron index --overwrite` again"
BLOCK_ROWS = 16384


class UserIndex(Protocol):
    """An index that a user names by import path: an object of a class that is made of the length of the descriptors
    and its settings, by name. A class attribute `rescore` (0 where it has none) says that so many times k photos get
    exact scores from the stored descriptors."""

    def add(self, rows: np.ndarray) -> None:
        """Takes in the next descriptors, (n, D) float32, in their order; called until all are there."""
        ...

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(scores (Q, k) float32, larger is nearer; rows (Q, k) int64, -1 where fewer were found) of queries (Q, D)."""
        ...

    def write(self, folder: Path) -> None:
        """Stores what was taken in, into an empty folder."""
        ...

    def read(self, folder: Path) -> None:
        """Takes in what `write` stored, in place of `add`."""
        ...


@dataclass(frozen=True, kw_only=True)
class IndexOfUser(StoredIndex):
    """An open index of a user's own."""

    METHODS: ClassVar[tuple[str, ...]] = ("add", "search", "write", "read")
    part: user_code.UserPart
    searcher: UserIndex = field(repr=False)

    @property
    def is_exact(self) -> bool:
        return False

    def search(self, query_descriptors: np.ndarray, k: int, settings: SearchSettings | None = None) -> RankedRows:
        """As Index.search. Raises UltronError, naming the place, if the user's code gives no such arrays."""
        check_search(query_descriptors, self.n, self.dim, k)
        n_rescored = (settings or self.settings).rescore
        descriptors = self.descriptors if n_rescored > 0 else None
        queries = np.ascontiguousarray(query_descriptors, np.float32)
        n_candidates = k if descriptors is None else min(self.n, max(k, n_rescored * k))
        candidates = self._candidates(queries, n_candidates)
        return candidates if descriptors is None else self._rescored(queries, candidates, k, descriptors)

    def _candidates(self, queries: np.ndarray, k: int) -> RankedRows:
        with user_code.blaming(self.searcher, "search"):
            result = self.searcher.search(queries, k)
            arrays = [np.asarray(array) for array in result] if isinstance(result, (tuple, list)) else []
        if [array.shape for array in arrays] != 2 * [(len(queries), k)] or arrays[1].dtype.kind not in "iu":
            shapes = " and ".join(f"{array.dtype} {array.shape}" for array in arrays) or type(result).__name__
            self._refuse(f"scores and whole rows, each {(len(queries), k)}", shapes)
        scores, rows = arrays[0].astype(np.float32), arrays[1].astype(np.int64)
        is_row = rows >= 0
        if (rows >= self.n).any() or not np.isfinite(scores[is_row]).all():
            self._refuse(f"rows below {self.n} with finite scores", f"rows up to {rows.max()}")
        ordered = np.sort(rows, axis=1)
        if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
            self._refuse("each row once", "a row twice for one query")
        return best_of(scores, rows, k)

    def _refuse(self, rule: str, value: str) -> None:
        raise UltronError(f"{self.part.place('search')}: {self.part.name} must give {rule}; found {value}")

    def record(self) -> SearchRecord:
        settings = {"rescore": self.settings.rescore, "code_sha256": self.part.sha256}
        return SearchRecord(method="index", index=str(self.path), kind=self.kind, settings=settings)


@dataclass(frozen=True, kw_only=True)
class _Description(StoredDescription):
    """index.json of an index of a user's own."""

    code: user_code.CodeRecord
    settings: dict[str, object] = field(default_factory=dict)  # that the class was made with


def user_index_part(kind: str) -> user_code.UserPart:
    """The class of an import path. Raises UltronError, naming the place, if it is no index."""
    part = user_code.load(kind, "kind of index", INDEX_KINDS)
    for method in IndexOfUser.METHODS:
        part.require_method(method, UserIndex)
    return part


def filled_user_index(part: user_code.UserPart, descriptors: Descriptors, settings: Mapping[str, object]) -> UserIndex:
    """A fresh index of the user's class with every row of the descriptors."""
    searcher: UserIndex = part.made(descriptors.dim, settings=settings, prefix="")
    for _, rows in descriptors.blocks(BLOCK_ROWS):
        with user_code.blaming(searcher, "add"):
            searcher.add(rows)
    return searcher


def store_user_index(folder: Path, part: user_code.UserPart, searcher: UserIndex) -> None:
    """Writes content/ and code/ into the folder of an index."""
    make_folder(folder / CONTENT)
    with user_code.blaming(searcher, "write"):
        searcher.write(folder / CONTENT)
    user_code.copy_into(folder, [part])


def open_user_index(path: Path, description: Mapping[str, object]) -> IndexOfUser:
    """Opens an index folder by its index.json. Raises UltronError if it is damaged, of a newer format or stale, or
    nobody has named the code that it was made with."""
    stored = fit_description(description, _Description, VERSION, path, AGAIN)
    if not user_code.is_import_path(stored.kind):
        raise UltronError(f"{path / 'index.json'}: kind must be an import path; found {shown(stored.kind)}; {AGAIN}")
    refuse_stale(path, stored.kind, stored.descriptors)
    names = read_index_names(path, AGAIN)
    if len(names) != stored.n:
        raise UltronError(f"{path} must hold {stored.n} names, found {len(names)}; {AGAIN}")
    with user_code.stored_code({stored.kind: stored.code}, path, path / user_code.FOLDER):
        part = user_index_part(stored.kind)
    searcher: UserIndex = part.made(stored.dim, settings=stored.settings, prefix="")
    with user_code.blaming(searcher, "read"):
        searcher.read(path / CONTENT)
    return IndexOfUser(
        path=path,
        kind=stored.kind,
        n=stored.n,
        dim=stored.dim,
        names=names,
        settings=stored.search,
        whitening=read_whitening(path / "whitening.h5", stored.dim) if stored.whitening else None,
        descriptor_path=Path(stored.descriptors.path),
        extraction=ExtractionRecord(stored=stored.config),
        part=part,
        searcher=searcher,
    )
