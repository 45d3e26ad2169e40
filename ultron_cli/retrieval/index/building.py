"""Builds indexes of descriptor files in bounded memory: those of Faiss trained on a sample, all filled by streaming and
written as whole folders."""

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ultron_cli import __version__, user_code
from ultron_cli.console import dump_json, log, progress
from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.files import file_state, part_file, sha256_of_file, whole_folder
from ultron_cli.guarded import ReaderDied, ReaderFailed, ReaderStopped, in_child
from ultron_cli.memory import available_bytes
from ultron_cli.retrieval.descriptors import Descriptors
from ultron_cli.retrieval.index.faiss_index import FORMAT, VERSION, FaissIndex, faiss_reason, load_faiss
from ultron_cli.retrieval.index.kinds import (
    INDEX_KINDS,
    POINTS_PER_CELL,
    TRAINING_BYTES,
    TRAINING_ROWS,
    SearchSettings,
    plan,
)
from ultron_cli.retrieval.index.of_users import FORMAT as USER_FORMAT
from ultron_cli.retrieval.index.of_users import VERSION as USER_VERSION
from ultron_cli.retrieval.index.of_users import IndexOfUser, filled_user_index, store_user_index, user_index_part
from ultron_cli.retrieval.index.soundness import FaissObject
from ultron_cli.retrieval.whitening import Whitening, open_descriptors
from ultron_cli.stops import undisturbed

# Parts of which check_training knows what they need, or that learn nothing.
TRAINED_SAFELY = (
    *(f"Index{name}" for name in ("Flat", "FlatIP", "PQ", "ScalarQuantizer", "PreTransform", "IDMap", "IDMap2")),
    *(f"IndexIVF{name}" for name in ("Flat", "PQ", "ScalarQuantizer")),
    *(f"IndexHNSW{name}" for name in ("", "Flat", "PQ", "SQ")),
    *("PCAMatrix", "OPQMatrix", "RandomRotationMatrix", "NormalizationTransform", "RemapDimensionsTransform"),
)
PROBED_ROWS = 4096
PROBE_S = 30

BLOCK_BYTES = 1 << 26  # of descriptors in memory at once while an index is filled


def build_index(
    descriptor_path: Path,
    out_path: Path,
    kind: str = "flat",
    *,
    overwrite: bool = False,
    whitening: Whitening | None = None,
) -> FaissIndex:
    """Builds an index of a descriptor file, read in blocks, into the folder `out_path`.

    kind: a name in INDEX_KINDS or a Faiss factory string, with inner product as metric. whitening: applied on the way
    in. Raises UltronError if out_path exists (without overwrite, or when it is no index), kind is unknown, or the file
    is empty, damaged or changes meanwhile.
    """
    refuse_to_replace(out_path, overwrite)
    with open_descriptors(descriptor_path, whitening) as descriptors:
        factory, settings = plan(kind, descriptors.n, descriptors.dim)
        with _unchanged(descriptor_path) as source:
            faiss_index = filled_index(descriptors, kind, factory)
            names = descriptors.names
        description = _description(FORMAT, VERSION, kind, descriptors, source, settings, whitening)
    description |= {"factory": factory, "metric": "inner_product"}
    with whole_folder(out_path) as folder:
        faiss = load_faiss()
        with part_file(folder / "index.faiss", out_path) as output, undisturbed():
            faiss.write_index(faiss_index, faiss.PyCallbackIOWriter(output.write))
        write_index_parts(folder, out_path, names, whitening, description)
    return FaissIndex(
        path=out_path,
        kind=kind,
        factory=factory,
        n=descriptors.n,
        dim=descriptors.dim,
        names=names,
        faiss_index=faiss_index,
        settings=settings,
        whitening=whitening,
        descriptor_path=descriptor_path,
        extraction=descriptors.info.extraction,
    )


def build_user_index(
    descriptor_path: Path,
    out_path: Path,
    kind: str,
    *,
    overwrite: bool = False,
    whitening: Whitening | None = None,
    settings: Mapping[str, object] | None = None,
) -> IndexOfUser:
    """The same of a kind by import path, whose code is run, with its settings. Raises UltronError as build_index does,
    and for a class that is no index."""
    refuse_to_replace(out_path, overwrite)
    user_code.permit(kind)
    part = user_index_part(kind)
    search = SearchSettings(rescore=getattr(part.target, "rescore", 0))
    with open_descriptors(descriptor_path, whitening) as descriptors:
        with _unchanged(descriptor_path) as source:
            searcher = filled_user_index(part, descriptors, settings or {})
            names = descriptors.names
        description = _description(USER_FORMAT, USER_VERSION, kind, descriptors, source, search, whitening)
    description |= {"settings": dict(settings or {}), "code": dataclasses.asdict(part.record())}
    index = IndexOfUser(
        path=out_path,
        kind=kind,
        n=descriptors.n,
        dim=descriptors.dim,
        names=names,
        settings=search,
        whitening=whitening,
        descriptor_path=descriptor_path,
        extraction=descriptors.info.extraction,
        part=part,
        searcher=searcher,
    )
    index.search(np.eye(1, index.dim, dtype=np.float32), min(2, index.n))  # what cannot be searched is not stored
    with whole_folder(out_path) as folder:
        store_user_index(folder, part, searcher)
        write_index_parts(folder, out_path, names, whitening, description)
    return index


@contextlib.contextmanager
def _unchanged(path: Path) -> Iterator[dict[str, object]]:
    """What index.json says of a descriptor file that is read inside the block. Raises UltronError if it changes
    meanwhile; its hash is there after the block."""
    source: dict[str, object] = {"path": str(path.resolve()), **file_state(path)._asdict()}
    yield source
    source["sha256"] = sha256_of_file(path)
    if file_state(path) != (source["size"], source["mtime_ns"]):
        raise UltronError(f"{path} changed while it was indexed; run the same `ultron index` again")


def _description(
    stored_format: str,
    version: int,
    kind: str,
    descriptors: Descriptors,
    source: Mapping[str, object],
    settings: SearchSettings,
    whitening: Whitening | None,
) -> dict[str, object]:
    """index.json as far as every index of a file has it."""
    return {
        "format": stored_format,
        "version": version,
        "kind": kind,
        "n": descriptors.n,
        "dim": descriptors.dim,
        "search": dataclasses.asdict(settings),
        "whitening": whitening.record().to_json() if whitening else None,
        "config": descriptors.info.extraction.stored,
        "descriptors": source,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "ultron_version": __version__,
    }


def write_index_parts(
    folder: Path, out_path: Path, names: list[str], whitening: Whitening | None, description: Mapping[str, object]
) -> None:
    """Writes names.json, whitening.h5 and index.json, which every kind of index has, into a folder that becomes
    `out_path`."""
    with part_file(folder / "names.json", out_path) as output:
        output.write(dump_json(names, indent=None).encode("utf-8"))
    if whitening is not None:
        with open(whitening.file(), "rb") as stream, part_file(folder / "whitening.h5", out_path) as output:
            shutil.copyfileobj(stream, output)
    with part_file(folder / "index.json", out_path) as output:
        output.write(dump_json(description).encode("utf-8"))


def refuse_to_replace(out_path: Path, overwrite: bool) -> None:
    """Raises UltronError if there is something at out_path, without overwrite, or something that is no index."""
    if not overwrite and os.path.lexists(out_path):
        raise UltronError(f"{out_path} exists already; replace it with `overwrite` or name another with `out`")
    if os.path.lexists(out_path) and not (out_path / "index.json").is_file():
        raise UltronError(f"`overwrite` replaces only an index, {out_path} has no index.json; name another with `out`")


def filled_index(descriptors: Descriptors, kind: str, factory: str) -> FaissObject:
    """A Faiss index with every row of the file. Raises UltronError if Faiss cannot make or train that kind."""
    faiss = load_faiss()
    n = descriptors.n
    dim = descriptors.dim
    rows_per_block = max(1, BLOCK_BYTES // (4 * dim))
    step = max(1, -(-n // min(TRAINING_ROWS, max(1, TRAINING_BYTES // (4 * dim)))))
    try:
        if kind not in INDEX_KINDS:
            in_child(require_factory, factory, dim)
        faiss_index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
        if faiss_index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise UltronError(
                f"an index must compare by inner products, index type {kind!r} compares by distances; take one of "
                f"{', '.join(INDEX_KINDS)} or another Faiss factory string"
            )
        say_memory(faiss_index, n, dim)
        if not faiss_index.is_trained:
            n_training = -(-n // step)
            check_training(faiss_index, kind, factory, n_training)
            started_s = time.perf_counter()
            train_index(faiss_index, training_sample(descriptors, step, rows_per_block))
            share = "every descriptor" if step == 1 else f"one descriptor in {step}"
            log.info("trained on %s in %.1f s", share, time.perf_counter() - started_s)
        add = faiss_index.add
        if any(isinstance(part, faiss.IndexIDMap) for part in index_parts(faiss_index)):
            add = _add_with_numbers(faiss_index)
        with progress(total=n, what="index", unit="descriptor") as bar:
            for _, rows in descriptors.blocks(rows_per_block):
                add(rows)
                bar.update(len(rows))
        faiss_index.search(descriptors.read(0, 1), 1)  # there are kinds that Faiss builds and does not search
    except (RuntimeError, ReaderFailed, ReaderDied) as error:
        raise UltronError(
            f"an index type must be one of {', '.join(INDEX_KINDS)} or a Faiss factory string that suits {n} "
            f"descriptors of {dim} dimensions, found {kind!r} ({faiss_reason(error)}){nearest_names(kind, INDEX_KINDS)}"
        ) from error
    return faiss_index


def _add_with_numbers(faiss_index: FaissObject) -> Callable[[np.ndarray], None]:
    """Adds rows under their numbers, for an index that wants to be told them (IDMap)."""

    def add(rows: np.ndarray) -> None:
        start = faiss_index.ntotal
        faiss_index.add_with_ids(rows, np.arange(start, start + len(rows)))

    return add


def require_factory(factory: str, dim: int) -> None:
    """Raises what Faiss raises for a factory string that it cannot make an index of. To be called in a child process:
    numbers in it may be of any size."""
    faiss = load_faiss()
    faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)


def training_needs(faiss_index: FaissObject) -> tuple[int, str]:
    """(descriptors that training needs at least, what needs so many). With fewer Faiss refuses, or crashes."""
    faiss = load_faiss()
    needs = [(1, "an index")]
    for part in index_parts(faiss_index):
        if isinstance(part, faiss.IndexIVF):
            needs.append((part.nlist, f"an inverted file of {part.nlist} cells"))
        if isinstance(part, (faiss.PCAMatrix, faiss.OPQMatrix, faiss.ITQTransform)):
            name = type(part).__name__.removesuffix("Matrix").removesuffix("Transform")
            needs.append((part.d_out, f"{name} to {part.d_out} dimensions"))
        elif hasattr(part, "pq"):
            needs.append((part.pq.ksub, f"a product quantizer of {part.pq.ksub} centroids"))
        if hasattr(part, "rq") or hasattr(part, "prq"):
            quantizer = part.rq if hasattr(part, "rq") else part.prq
            needs.append((quantizer.d, f"a residual quantizer of {quantizer.d} dimensions"))
        if isinstance(part, faiss.IndexNSG):
            needs.append((101, "an NSG graph"))
    return max(needs)


def check_training(faiss_index: FaissObject, kind: str, factory: str, n_training: int) -> None:
    """Raises UltronError, before anything is computed, if the descriptors are too few to train on.

    Parts that ultron knows say what they need. An index with others is trained in a child process first, on as many
    random rows, where a crash does no harm.
    """
    n_needed, what = training_needs(faiss_index)
    if n_training < n_needed:
        raise UltronError(
            f"index type {kind!r} cannot learn from {n_training} descriptors: {what} needs {n_needed} at least; for so "
            "small a database take `type` flat or fp16"
        )
    if all(type(part).__name__ in TRAINED_SAFELY for part in index_parts(faiss_index)):
        return
    dim = faiss_index.d
    # Once there are twice as many rows as dimensions, more of them change nothing but the time it takes.
    with contextlib.suppress(ReaderStopped):
        in_child(require_training, factory, dim, min(n_training, 2 * dim + PROBED_ROWS), cpu_s=PROBE_S)


def require_training(factory: str, dim: int, n: int) -> None:
    """Raises what Faiss raises when an index is trained on n random rows. To be called in a child process."""
    faiss = load_faiss()
    faiss.omp_set_num_threads(1)  # threads of the parent are not there
    rows = np.random.default_rng(0).standard_normal((n, dim)).astype(np.float32)
    faiss_index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    faiss_index.train(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def bytes_per_photo(faiss_index: FaissObject, dim: int) -> float:
    """Bytes that a photo takes in the index: its code, its number in inverted lists, its links in a graph."""
    faiss = load_faiss()
    inner = behind_transforms(faiss_index)
    if isinstance(inner, faiss.IndexIVF):
        return inner.code_size + 8
    if isinstance(inner, faiss.IndexHNSW):
        return bytes_per_photo(inner.storage, dim) + 4 * (inner.hnsw.nb_neighbors(0) + 3)
    return inner.code_size if isinstance(inner, faiss.IndexFlatCodes) else 4 * dim


def behind_transforms(faiss_index: FaissObject) -> FaissObject:
    """The index that is behind rotations, as its own type."""
    faiss = load_faiss()
    inner = faiss.downcast_index(faiss_index)
    while isinstance(inner, faiss.IndexPreTransform):
        inner = faiss.downcast_index(inner.index)
    return inner


def say_memory(faiss_index: FaissObject, n: int, dim: int) -> int:
    """Logs the memory that building will need, before it starts, with a warning where the machine has less. Returns it
    in bytes."""
    sample = 0 if faiss_index.is_trained else min(n, TRAINING_ROWS, max(1, TRAINING_BYTES // (4 * dim))) * dim * 4
    stored = int(n * bytes_per_photo(faiss_index, dim))
    # Lists of codes grow by doubling, so that up to half of what they hold is room; training copies its sample once.
    block = min(n * dim * 4, BLOCK_BYTES)
    needed = max(2 * sample, 2 * stored) + 3 * block
    log.info(
        "building the index needs %.1f MiB at most: %.1f MiB of index (%.0f bytes per photo), %.1f MiB while training, "
        "blocks of %.1f MiB",
        needed / 2**20,
        stored / 2**20,
        stored / n,
        2 * sample / 2**20,
        block / 2**20,
    )
    available = available_bytes()
    if available is not None and needed > available:
        log.warning("that is more than the %.0f MiB now free; a smaller kind is ivfpq or sq8", available / 2**20)
    return needed


def training_sample(descriptors: Descriptors, step: int, rows_per_block: int) -> np.ndarray:
    """(n, D) float32: every step-th row of the file, evenly spread over it."""
    n_sampled = -(-descriptors.n // step)
    sample = np.empty((n_sampled, descriptors.dim), np.float32)
    n_done = 0
    for start, rows in descriptors.blocks(rows_per_block):
        sampled_rows = rows[-start % step :: step]
        sample[n_done : n_done + len(sampled_rows)] = sampled_rows
        n_done += len(sampled_rows)
    return sample


def train_index(faiss_index: FaissObject, sample: np.ndarray) -> None:
    """Trains on (n, D) float32 rows. Warns once where they are few. Raises RuntimeError, of Faiss, where they are too
    few."""
    faiss = load_faiss()
    parts = index_parts(faiss_index)
    rotations = [part for part in parts if isinstance(part, faiss.OPQMatrix)]
    n_bits = next((part.pq.nbits for part in parts if hasattr(part, "pq") and part not in rotations), 8)
    codebooks = [faiss.ProductQuantizer(part.d_out, part.M, n_bits) for part in rotations]
    for part, codebook in zip(rotations, codebooks, strict=True):
        # Left alone a rotation trains a codebook of 8 bits, which fewer than 256 rows cannot, and Faiss warns of it.
        part.pq = codebook
    codebooks += [part.pq for part in parts if hasattr(part, "pq") and part not in rotations]
    clusterings = [(codebook.cp, codebook.ksub) for codebook in codebooks] + [
        (part.cp, part.nlist) for part in parts if isinstance(part, faiss.IndexIVF)
    ]
    n_centroids = max((n for _, n in clusterings), default=0)
    if len(sample) < POINTS_PER_CELL * n_centroids:
        log.warning(
            "%d descriptors are few to learn %d centroids from, Faiss advises %d of each codebook or more: "
            "without re-scoring results are rough; for so small a database use `type` flat or fp16",
            len(sample),
            n_centroids,
            POINTS_PER_CELL * n_centroids,
        )
    for parameters, _ in clusterings:
        parameters.min_points_per_centroid = 1  # Faiss would say it of each codebook, and of each round of a rotation
    try:
        faiss_index.train(sample)
    finally:
        for part in rotations:
            part.pq = None  # it only points to the codebook, which ends here


def index_parts(faiss_index: FaissObject) -> list[FaissObject]:
    """The index and what is behind it, each as its own type: transforms, the index after them, quantizers of cells,
    storage."""
    faiss = load_faiss()
    whole = faiss.downcast_index(faiss_index)
    parts = [whole]
    if isinstance(whole, faiss.IndexPreTransform):
        parts += [faiss.downcast_VectorTransform(whole.chain.at(i)) for i in range(whole.chain.size())]
    for name in ("index", "quantizer", "storage", "base_index", "refine_index"):
        if isinstance(getattr(whole, name, None), faiss.Index):
            parts += index_parts(getattr(whole, name))
    return parts
