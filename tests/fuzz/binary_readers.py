"""Readers of binary files for the table: HDF5, Faiss, weights, archives."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.fuzz.running import Reader

N, DIM = 40, 8


def _unit_rows() -> np.ndarray:
    rows = np.random.default_rng(1).standard_normal((N, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _write_descriptors(folder: Path) -> None:
    from ultron_cli.retrieval.descriptors import DescriptorInfo, write_descriptors

    info = DescriptorInfo(
        model="m", weights_sha256="", dataset="toy", role="database", crop="none", scales=[1.0], skipped=()
    )
    write_descriptors(folder / "x.h5", [f"Dom {i}" for i in range(N)], [_unit_rows()], DIM, info)


def _read_descriptors(folder: Path) -> None:
    from ultron_cli.retrieval.descriptors import DescriptorFile

    with DescriptorFile(folder / "x.h5") as stored:
        assert len(stored.names) == stored.n
        stored.take(np.arange(stored.n))
        stored.read()


def _write_ranks(folder: Path) -> None:
    from ultron_cli.retrieval.origin import Origin
    from ultron_cli.retrieval.rankings import Ranking, write_ranks

    rows = np.tile(np.arange(5), (3, 1))
    scores = -rows.astype(np.float32)
    ranking = Ranking(
        query_names=list("abc"), database_names=list("defgh"), rows=rows, scores=scores, origin=Origin(dataset="toy")
    )
    write_ranks(folder / "x.h5", ranking)


def _read_ranks(folder: Path) -> None:
    from ultron_cli.retrieval.rankings import read_ranks

    read_ranks(folder / "x.h5").names_of(0)


def _write_whitening(folder: Path) -> None:
    from ultron_cli.retrieval.whitening import Whitening, write_whitening

    whitening = Whitening(method="pca-whitening", mean=np.zeros(4), projection=np.eye(4), eigenvalues=np.ones(4))
    write_whitening(folder / "x.h5", whitening)


def _read_whitening(folder: Path) -> None:
    from ultron_cli.retrieval.whitening import read_whitening

    read_whitening(folder / "x.h5")


def _write_index(kind: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        from ultron_cli.retrieval.index.building import build_index

        _write_descriptors(folder)
        build_index(folder / "x.h5", folder / "x.index", kind=kind)
        for path in (folder / "x.index").iterdir():
            path.rename(folder / path.name)
        (folder / "x.index").rmdir()
        (folder / "x.h5").unlink()

    return write


def _search_index(folder: Path) -> None:
    from ultron_cli.retrieval.index.opening import open_index

    open_index(folder).search(_unit_rows()[:3], 5)


def _write_weights(is_zip: bool) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        import torch

        content = {"state_dict": {"a.weight": torch.ones(3, 4), "a.bias": torch.zeros(3)}, "epoch": 3, "best": 0.5}
        torch.save(content, folder / "w.pth", _use_new_zipfile_serialization=is_zip)

    return write


def _write_safetensors(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"a.weight": torch.ones(3, 4), "a.bias": torch.zeros(3)}, folder / "w.pth")


def _read_weights(folder: Path) -> None:
    from ultron_cli.models.weights.reading import bare_state_dict, read_weights_file

    bare_state_dict(read_weights_file(folder / "w.pth"), folder / "w.pth")


FILES = {f"paris/{i}.jpg": bytes(i * j % 251 for j in range(700)) for i in range(4)} | {"paris/._x": b"y" * 600}


def _write_tar(compression: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        with tarfile.open(folder / "a.bin", f"w{compression}") as archive:
            for name, content in FILES.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))

    return write


def _write_zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "a.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in FILES.items():
            archive.writestr(name, content)


def _unpack(folder: Path) -> None:
    import shutil

    from ultron_cli.datasets.download.unpacking import unpack

    try:
        unpack(folder / "a.bin", folder / "out")
    finally:
        shutil.rmtree(folder / "out", ignore_errors=True)


BINARY_READERS: dict[str, Reader] = {
    "descriptors": Reader(file="x.h5", seeds=(_write_descriptors,), read=_read_descriptors),
    "ranks": Reader(file="x.h5", seeds=(_write_ranks,), read=_read_ranks),
    "whitening": Reader(file="x.h5", seeds=(_write_whitening,), read=_read_whitening),
    "index-faiss": Reader(
        file="index.faiss",
        seeds=tuple(_write_index(kind) for kind in ("flat", "sq8", "IVF4,PQ4x3np", "HNSW8,SQ8", "IDMap,Flat")),
        read=_search_index,
    ),
    "weights": Reader(
        file="w.pth", seeds=(_write_weights(True), _write_weights(False), _write_safetensors), read=_read_weights
    ),
    "archive": Reader(
        file="a.bin", seeds=(*(_write_tar(kind) for kind in ("", ":gz", ":bz2", ":xz")), _write_zip), read=_unpack
    ),
}
