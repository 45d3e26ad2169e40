"""Descriptors made one: unit vectors side by side, each times its weight, again a unit vector, then perhaps whitened.

With weights a and b, the similarity of two photos is (a^2 s_A + b^2 s_B) / (a^2 + b^2) of the parts' similarities.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from ultron_cli.blocks import chunks
from ultron_cli.console import counted, log, named
from ultron_cli.errors import UltronError
from ultron_cli.files import make_folder, sha256_of_file
from ultron_cli.provenance import provenance
from ultron_cli.retrieval.descriptors import DescriptorFile, DescriptorInfo, write_descriptors
from ultron_cli.retrieval.fusion.parts import PROTOCOL
from ultron_cli.retrieval.origin import (
    FUSED_MODEL,
    DescriptorProvenance,
    ExtractionRecord,
    FusedPart,
    FusionRecord,
    Json,
)
from ultron_cli.retrieval.whitening import Whitening, whitened_info

BLOCK_ROWS = 4096
QUERIES, DATABASE = "queries.h5", "database.h5"  # of a folder
OF_THE_MODEL = ("model", "weights_sha256", "preprocessing")


def fuse_descriptors(
    paths: Sequence[Path], out: Path, weights: Sequence[float] | None = None, whitening: Whitening | None = None
) -> DescriptorInfo:
    """Writes the joined descriptors of files, or of folders of queries.h5 and database.h5, whose names are the same.
    Gives what is said of the (database's) descriptors.

    weights: one per part; None: 1 each. Raises UltronError if the parts are not all files or all folders, or are not
    of the same photos.
    """
    weights = tuple(weights or (1.0,) * len(paths))
    are_folders = {path.is_dir() for path in paths}
    if len(are_folders) > 1:
        raise UltronError("descriptors that are joined must be all files, or all folders of queries.h5 and database.h5")
    if not paths[0].is_dir():
        return _fuse_files(paths, out, weights, whitening)
    folder = make_folder(out)
    if any(folder.samefile(path) for path in paths):
        raise UltronError(f"{out} holds descriptors that are joined; name another folder with `out`")
    _fuse_files([path / QUERIES for path in paths], folder / QUERIES, weights, whitening)
    return _fuse_files([path / DATABASE for path in paths], folder / DATABASE, weights, whitening)


def _fuse_files(
    paths: Sequence[Path], out: Path, weights: Sequence[float], whitening: Whitening | None
) -> DescriptorInfo:
    with ExitStack() as stack:
        files = [stack.enter_context(DescriptorFile(path)) for path in paths]
        rows = [_rows_of(files[0], file) for file in files]
        dim = sum(file.dim for file in files)
        if whitening is not None and whitening.mean.size != dim:
            raise UltronError(
                f"{whitening.path} whitens {whitening.mean.size}-d descriptors, joined ones have {dim}-d; learn one of "
                "joined ones: ultron whiten"
            )

        def blocks() -> Iterator[np.ndarray]:
            for start, stop in chunks(files[0].n, BLOCK_ROWS):
                parts = [
                    weight * (file.read(start, stop) if of_file is None else file.take(of_file[start:stop]))
                    for weight, file, of_file in zip(weights, files, rows, strict=True)
                ]
                joined = np.concatenate(parts, axis=1).astype(np.float64)
                joined /= np.linalg.norm(joined, axis=1, keepdims=True)
                unit = joined.astype(np.float32)
                yield unit if whitening is None else whitening.apply(unit)

        info = _info(files, weights, dim if whitening is None else whitening.dim)
        if whitening is not None:
            info = whitened_info(info, whitening)
        final_dim = dim if whitening is None else whitening.dim
        write_descriptors(out, files[0].names, blocks(), final_dim, info, files[0].marks)
    return info


def _rows_of(first: DescriptorFile, other: DescriptorFile) -> np.ndarray | None:
    """(N,) int64 rows of the first file's photos in another; None where both have the same order. Raises UltronError
    unless both have the same photos."""
    names, other_names = first.names, other.names
    if names == other_names:
        return None
    row_of = {name: row for row, name in enumerate(other_names)}
    missing = [name for name in names if name not in row_of]
    n_surplus = len(row_of.keys() - set(names))
    if missing or n_surplus or len(row_of) < len(other_names):
        example = f" ({named(missing, most=2)})" if missing else ""
        raise UltronError(
            f"descriptors that are joined must be of the same photos, each once; {other.path} lacks {len(missing)} of "
            f"{first.path}{example} and has {n_surplus} that it lacks; extract both from the same photos"
        )
    log.info("photos of %s stand in another order: %s joined by name", other.path, counted(len(names), "photo"))
    return np.array([row_of[name] for name in names], np.int64)


def _info(files: Sequence[DescriptorFile], weights: Sequence[float], dim: int) -> DescriptorInfo:
    """What is said of joined descriptors: what all parts share, and as the model the parts with their weights."""
    infos = [file.info for file in files]
    first = infos[0]
    for info, file in zip(infos, files, strict=True):
        if (info.dataset, info.role) != (first.dataset, first.role):
            raise UltronError(
                f"descriptors that are joined must be of the same photos; {files[0].path} has {first.role} photos of "
                f"{first.dataset}, {file.path} {info.role} photos of {info.dataset}"
            )
    models = [{key: info.extraction.stored.get(key) for key in OF_THE_MODEL} for info in infos]
    stored: dict[str, object] = {
        key: value
        for key, value in first.extraction.stored.items()
        if key not in ("storage", *OF_THE_MODEL)
        if all(key in other.extraction.stored and other.extraction.stored[key] == value for other in infos[1:])
    }
    settings: Json = {"parts": models, "weights": [float(weight) for weight in weights]}
    stored["model"] = {"name": FUSED_MODEL, "settings": settings}
    parts = tuple(
        FusedPart(
            path=str(file.path.resolve()),
            sha256=sha256_of_file(file.path),
            label=info.model + _how(info.extraction, stored),
            weight=float(weight),
            bytes_per_photo=float(file.dim * (2 if info.extraction.storage == "float16" else 4)),
            origin={
                "config": dict(info.extraction.stored),
                "model": info.model,
                "provenance": info.provenance.to_json(),
            },
        )
        for file, info, weight in zip(files, infos, weights, strict=True)
    )
    fusion = FusionRecord(kind="descriptors", method="concatenation", parts=parts, settings={"dim": dim})
    return replace(
        first,
        model=" + ".join(dict.fromkeys(info.model or "unknown model" for info in infos)),
        weights_sha256="",
        extraction=ExtractionRecord(stored=stored),
        scales=first.scales if all(info.scales == first.scales for info in infos) else [],
        skipped=tuple({photo.name: photo for info in infos for photo in info.skipped}.values()),
        provenance=DescriptorProvenance(
            dataset_folder=first.provenance.dataset_folder,
            ground_truth=first.provenance.ground_truth,
            fusion=fusion,
            other=provenance(),
        ),
    )


def _how(extraction: ExtractionRecord, shared: Json) -> str:
    """How a part's photos were described, where the parts differ in what stands beside every score."""
    is_shared = all(extraction.stored.get(key) == shared.get(key) for key in PROTOCOL)
    return "" if is_shared else f", {extraction.protocol_text()}"
