"""Writes a descriptor file into a Milvus collection, in batches read from disk; what a broken run left is continued."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ultron_cli import __version__
from ultron_cli.console import log, progress
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.files import file_state, sha256_of_file, whole_folder
from ultron_cli.retrieval.descriptors import Descriptors
from ultron_cli.retrieval.index.building import refuse_to_replace, write_index_parts
from ultron_cli.retrieval.milvus.client import CONSISTENCY, NAME_BYTES, Milvus
from ultron_cli.retrieval.milvus.index import FORMAT, VERSION, stored_uri
from ultron_cli.retrieval.milvus.kinds import milvus_plan
from ultron_cli.retrieval.milvus.place import Place
from ultron_cli.retrieval.origin import Json
from ultron_cli.retrieval.whitening import Whitening, open_descriptors

# Of descriptors written in one call; pymilvus and milvus-lite hold them as Python numbers for a moment.
BATCH_BYTES = 1 << 21


@dataclass(frozen=True, kw_only=True)
class MilvusRequest:
    """Where descriptors shall go."""

    uri: str | None = None  # None: milvus.db beside the index
    collection: str | None = None  # None: named after what goes into it
    token_env: str | None = None  # as of Place
    replace: bool = False  # a collection of other descriptors

    def place(self, out_path: Path, kind: str, identity: Json) -> Place:
        """The collection for such contents."""
        name = self.collection
        if name is None:
            digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
            name = f"ultron_{kind.replace('-', '_')}_{digest[:16]}"
        return Place(uri=self.uri or str(out_path.with_name("milvus.db")), collection=name, token_env=self.token_env)


@dataclass(frozen=True, kw_only=True)
class BuiltIndex:
    """A finished index in Milvus."""

    place: Place
    index_type: str
    n: int
    dim: int
    n_written: int  # rows sent, fewer than n where some were there


def build_milvus_index(
    descriptor_path: Path,
    out_path: Path,
    kind: str,
    request: MilvusRequest,
    *,
    overwrite: bool = False,
    whitening: Whitening | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> BuiltIndex:
    """Writes a descriptor file to Milvus, then the index folder `out_path` that names the collection.

    A collection with the same contents, whole or in part, is continued. sleep: waits between tries. Raises UltronError
    if out_path exists (without overwrite), the kind is unknown, the collection holds something else (without
    request.replace), or the file is empty, damaged or changes meanwhile; WorkFailed if Milvus stays away.
    """
    refuse_to_replace(out_path, overwrite)
    with open_descriptors(descriptor_path, whitening) as descriptors:
        n = descriptors.n
        dim = descriptors.dim
        names = descriptors.names
        info = descriptors.info
        milvus_plan(kind, n, dim, is_lite=False)
        refuse_long_names(names, descriptor_path)
        state_before = file_state(descriptor_path)
        source = {
            "path": str(descriptor_path.resolve()),
            **state_before._asdict(),
            "sha256": sha256_of_file(descriptor_path),
        }
        identity: Json = {
            "format": "ultron-milvus",
            "version": 1,
            "descriptors_sha256": source["sha256"],
            "whitening": whitening.record().to_json() if whitening else None,
            "kind": kind,
            "n": n,
            "dim": dim,
            "model": info.model,
            "weights_sha256": info.weights_sha256,
            "dataset": info.dataset,
        }
        place = request.place(out_path, kind, identity)
        with Milvus(place, sleep) as milvus:
            plan = milvus_plan(kind, n, dim, is_lite=milvus.is_lite)
            if not is_begun(milvus, identity, replace=request.replace):
                milvus.create(identity, dim)
            milvus.build_index(plan.index_type, plan.build)
            milvus.load()
            n_written = fill(milvus, descriptors, names)
        if file_state(descriptor_path) != state_before:
            raise UltronError(f"{descriptor_path} changed while it was indexed; run the same `ultron index` again")
    description = {
        "format": FORMAT,
        "version": VERSION,
        "engine": "milvus",
        "uri": stored_uri(place, out_path),
        "collection": place.collection,
        "token_env": place.token_env,
        "consistency": CONSISTENCY,
        "kind": kind,
        "index_type": plan.index_type,
        "build": plan.build,
        "metric": "inner_product",
        "n": n,
        "dim": dim,
        "search": dataclasses.asdict(plan.settings),
        "whitening": identity["whitening"],
        "config": info.extraction.stored,
        "record": identity,
        "descriptors": source,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "ultron_version": __version__,
    }
    with whole_folder(out_path) as folder:
        write_index_parts(folder, out_path, names, whitening, description)
    return BuiltIndex(place=place, index_type=plan.index_type, n=n, dim=dim, n_written=n_written)


def refuse_long_names(names: list[str], path: Path) -> None:
    """Raises UltronError if a photo name is longer than the collection's field, or no text."""
    for row, name in enumerate(names):
        if any("\ud800" <= c <= "\udfff" for c in name):
            raise UltronError(f"{path}: Milvus keeps photo names in UTF-8, row {row} has {name!r}; rename the photo")
        if len(name.encode()) > NAME_BYTES:
            raise UltronError(
                f"{path}: Milvus keeps photo names of at most {NAME_BYTES} bytes, row {row} has "
                f"{len(name.encode())}; rename the photo"
            )


def is_begun(milvus: Milvus, identity: Json, *, replace: bool) -> bool:
    """Whether the collection is there for these contents, with all rows or some or none.

    Other contents of ours are deleted with replace, otherwise refused; what another program made is always refused.
    """
    record = milvus.record()
    where = f"collection {milvus.place.collection} at {milvus.place.uri}"
    if record is None:
        return False
    if not record:
        raise UltronError(f"{where} was not made by ultron and stays as it is; name another with `collection`")
    if record == identity:
        return True
    if not replace:
        raise UltronError(
            f"{where} holds other descriptors or another type; replace it with `overwrite` or name another "
            "with `collection`"
        )
    milvus.drop()
    return False


def fill(milvus: Milvus, descriptors: Descriptors, names: list[str]) -> int:
    """Writes the rows that are missing, and checks that all are there; returns how many were written.

    Batches are sent in order, each when the last was confirmed, so that a broken run leaves the first rows. Should the
    count disagree all the same (a server that lost confirmed rows), everything is written again: a row's key is its
    number.
    """
    n = descriptors.n
    rows_per_batch = batch_rows(descriptors.dim)
    n_written = 0
    n_stored = milvus.count()
    if n_stored == n:
        log.info("all %d rows are there", n)
        return 0
    if n_stored:
        log.info("continuing: %d of %d rows are there", n_stored, n)
    for first_row in (min(n_stored, n) // rows_per_batch * rows_per_batch, 0):
        with progress(total=n, what="index", unit="descriptor") as bar:
            bar.update(first_row)
            for start in range(first_row, n, rows_per_batch):
                stop = min(n, start + rows_per_batch)
                milvus.write(start, descriptors.read(start, stop), names[start:stop])
                n_written += stop - start
                bar.update(stop - start)
        milvus.flush()
        n_stored = milvus.count()
        if n_stored == n:
            return n_written
        log.warning("the collection has %d of %d rows after writing", n_stored, n)
    raise WorkFailed(
        f"collection {milvus.place.collection} must hold {n} rows after writing, found {n_stored}; drop it and "
        "run the same command again"
    )


def batch_rows(dim: int) -> int:
    """Rows of one call."""
    return max(1, min(8192, BATCH_BYTES // (4 * dim)))
