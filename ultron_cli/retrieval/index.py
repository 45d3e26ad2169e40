"""Faiss indexes of descriptor files: built, stored as folders, opened and searched.

An index is a folder NAME.index: index.faiss (Faiss's own format), names.json (one photo name per row) and index.json (format
"ultron-index", version, kind, factory, metric, n, dim, created, ultron_version, and `descriptors`: path, size, mtime_ns and sha256
of the file it was made from). The folder is written under a temporary name and renamed: a name that exists is whole.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ultron_cli import __version__
from ultron_cli.console import dump_json, progress
from ultron_cli.errors import UltronError, WorkFailed, nearest_names
from ultron_cli.files import make_folder, read_json, sha256_of_file, sync_folder
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.ranks import EMPTY, PADDING, Ranking, check_search, packed, unpacked

FORMAT, VERSION = "ultron-index", 1
BLOCK_BYTES = 1 << 26  # of descriptors in memory at once while an index is filled
TRAINING_ROWS = 1 << 17  # evenly spread over the file, for kinds that learn a partition or a codebook


@dataclass(frozen=True, kw_only=True)
class Index:
    """An open index. names: one per row, N in total. kind: as asked for. factory: Faiss's description of it."""

    path: Path
    kind: str
    factory: str
    n: int
    dim: int
    names: list[str]
    faiss_index: Any = field(repr=False)

    @property
    def is_exact(self) -> bool:
        """Whether every row is compared, so that the k best are the k best (within float32 rounding)."""
        return self.factory == INDEX_KINDS["flat"]

    def search(self, query_descriptors: np.ndarray, k: int) -> Ranking:
        """The k rows of largest inner product, equal scores by row; rows end in -1 where an approximate index found fewer.

        query_descriptors: (Q, D) float32. Raises UltronError if k or the dimensions do not fit or a value is not finite.
        """
        check_search(query_descriptors, self.n, self.dim, k)
        queries = np.ascontiguousarray(query_descriptors, np.float32)
        n_fetched = min(self.n, k + 16) if self.is_exact else k
        scores, rows = self.faiss_index.search(queries, n_fetched)
        # Faiss orders equal scores as it likes: fetch on until those equal to the k-th are all there.
        while self.is_exact and n_fetched < self.n and (scores[:, -1] == scores[:, k - 1]).any():
            n_fetched = min(self.n, 2 * n_fetched)
            scores, rows = self.faiss_index.search(queries, n_fetched)
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


def build_index(descriptor_path: Path, out_path: Path, kind: str = "flat", *, overwrite: bool = False) -> Index:
    """Builds an index of a descriptor file, read in blocks, into the folder `out_path`.

    kind: a name in INDEX_KINDS or a Faiss factory string, with inner product as metric. Raises UltronError if out_path exists
    (without overwrite, or when it is no index), kind is unknown, or the file is empty, damaged or changes meanwhile.
    """
    if not overwrite and os.path.lexists(out_path):
        raise UltronError(f"{out_path} exists already; replace it with --overwrite or name another with --out")
    if os.path.lexists(out_path) and not (out_path / "index.json").is_file():
        raise UltronError(f"--overwrite replaces only an index, {out_path} has no index.json; name another with --out")
    with DescriptorFile(descriptor_path) as descriptors:
        if not descriptors.n:
            raise UltronError(f"an index needs at least one descriptor, {descriptor_path} has none; extract a folder with photos")
        source = {"path": str(descriptor_path.resolve()), **file_state(descriptor_path)}
        factory = INDEX_KINDS.get(kind, kind)
        faiss_index = filled_index(descriptors, kind, factory)
        names = descriptors.names
        source["sha256"] = sha256_of_file(descriptor_path)
        if file_state(descriptor_path) != {key: source[key] for key in ("size", "mtime_ns")}:
            raise UltronError(f"{descriptor_path} changed while it was indexed; run the same `ultron index` again")
    n, dim = descriptors.n, descriptors.dim
    description = {
        "format": FORMAT, "version": VERSION, "kind": kind, "factory": factory, "metric": "inner_product", "n": n, "dim": dim,
        "descriptors": source, "created": datetime.now(UTC).isoformat(timespec="seconds"), "ultron_version": __version__,
    }  # fmt: skip
    with whole_folder(out_path) as folder:
        try:
            load_faiss().write_index(faiss_index, str(folder / "index.faiss"))
        except RuntimeError as error:
            raise WorkFailed(f"could not write {out_path} ({faiss_reason(error)}); free disk space or name another with --out") from error
        (folder / "names.json").write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")
        (folder / "index.json").write_text(dump_json(description), encoding="utf-8")
    return Index(path=out_path, kind=kind, factory=factory, n=n, dim=dim, names=names, faiss_index=faiss_index)


def filled_index(descriptors: DescriptorFile, kind: str, factory: str) -> Any:
    """A Faiss index with every row of the file. Raises UltronError if Faiss cannot make or train that kind."""
    faiss = load_faiss()
    rows_per_block = max(1, BLOCK_BYTES // (4 * descriptors.dim))
    try:
        faiss_index = faiss.index_factory(descriptors.dim, factory, faiss.METRIC_INNER_PRODUCT)
        if not faiss_index.is_trained:
            step = max(1, descriptors.n // TRAINING_ROWS)
            faiss_index.train(np.concatenate([rows[-start % step :: step] for start, rows in descriptors.blocks(rows_per_block)]))
    except RuntimeError as error:
        raise UltronError(
            f"an index type must be one of {', '.join(INDEX_KINDS)} or a Faiss factory string that suits {descriptors.n} descriptors of "
            f"{descriptors.dim} dimensions, found {kind!r} ({faiss_reason(error)}){nearest_names(kind, INDEX_KINDS)}"
        ) from error
    with progress(total=descriptors.n, what="index", unit="descriptor") as bar:
        for _, rows in descriptors.blocks(rows_per_block):
            faiss_index.add(rows)
            bar.update(len(rows))
    return faiss_index


def open_index(path: Path) -> Index:
    """Opens an index folder.

    Raises UltronError if it is absent, damaged, of a newer format, or stale: its descriptor file now has other contents.
    """
    if not path.is_dir():
        raise UltronError(f"index {path} must be a folder that `ultron index` made, found {'a file' if path.exists() else 'nothing'}")
    description = read_json(path / "index.json", "index description")
    found = description.get("format") if isinstance(description, dict) else None
    if found != FORMAT:
        raise UltronError(f"{path} is not an index: format in index.json must be {FORMAT!r}, found {found!r}; run `ultron index`")
    if not isinstance(description.get("version"), int) or description["version"] > VERSION:
        raise UltronError(
            f"{path} has format version {description.get('version')}, this ultron reads up to {VERSION}; install a newer ultron"
        )
    try:
        kind, factory, n, dim = (description[key] for key in ("kind", "factory", "n", "dim"))
        refuse_stale(path, kind, description["descriptors"])
    except (KeyError, TypeError) as error:
        raise UltronError(f"{path / 'index.json'} lacks a part ({error}); run `ultron index --overwrite` again") from error
    names, faiss = read_json(path / "names.json", "names of index"), load_faiss()
    try:
        faiss_index = faiss.read_index(str(path / "index.faiss"))
    except RuntimeError as error:
        raise UltronError(f"{path / 'index.faiss'} cannot be read ({faiss_reason(error)}); run `ultron index --overwrite` again") from error
    if (faiss_index.ntotal, faiss_index.d, len(names)) != (n, dim, n):
        raise UltronError(
            f"{path} must hold {n} rows of {dim} dimensions, found {faiss_index.ntotal} of {faiss_index.d} and {len(names)} names; "
            "run `ultron index --overwrite` again"
        )
    return Index(path=path, kind=kind, factory=factory, n=n, dim=dim, names=names, faiss_index=faiss_index)


def refuse_stale(path: Path, kind: str, source: dict[str, Any]) -> None:
    """Raises UltronError if the descriptor file an index was made from is still there with other contents.

    It is hashed only if its size or time differ from the recorded ones (a copied file has a new time and the same contents).
    """
    descriptor_path = Path(source["path"])
    if not descriptor_path.is_file():
        return
    if file_state(descriptor_path) == {key: source[key] for key in ("size", "mtime_ns")}:
        return
    if sha256_of_file(descriptor_path) != source["sha256"]:
        raise UltronError(
            f"index {path} is stale: {descriptor_path} has changed since it was built; "
            f"rebuild it: ultron index {descriptor_path} --type {kind} --out {path} --overwrite"
        )


def file_state(path: Path) -> dict[str, int]:
    """What tells cheaply that a file may have changed."""
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def faiss_reason(error: RuntimeError) -> str:
    """What Faiss says, without the C++ function and source line in front."""
    return re.sub(r"^Error in .*?\.\w+:\d+: ", "", " ".join(str(error).split()))[:120]


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `path`; when the block ends well its files are flushed and it becomes `path`.

    An older folder at `path` is replaced; on an error it stays and nothing else does. Raises WorkFailed when the disk is full.
    """
    make_folder(path.parent)
    temporary, old = (path.with_name(f".{path.name}-{secrets.token_hex(4)}.{end}") for end in ("tmp", "old"))
    try:
        temporary.mkdir()
        yield temporary
        for entry in temporary.iterdir():
            with open(entry, "rb+") as handle:
                os.fsync(handle.fileno())
        sync_folder(temporary)
        if path.exists():
            os.replace(path, old)  # no portable call exchanges two folders; for a moment there is none at `path`
        try:
            os.replace(temporary, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
        sync_folder(path.parent)
    except OSError as error:
        if error.errno is None or error.strerror is None:
            raise
        raise WorkFailed(f"could not write {path}: {error.strerror}; free disk space or name another place with --out") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


INDEX_KINDS = {"flat": "Flat"}  # name -> Faiss factory string
