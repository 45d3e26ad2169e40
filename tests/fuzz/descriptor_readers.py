"""Readers of descriptors that other tools wrote."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.fuzz.hdf5_mutations import mutate_h5
from tests.fuzz.mutations import Mutation, mutate_bytes
from tests.fuzz.reader import Make, Reader, text_file
from tests.fuzz.structures import mutate_faiss, mutate_weights, mutate_zip

PHOTOS, QUERIES, DIM = ["a", "b", "c.jpg", "d e"], ["p", "q"], 3
TRUTH = {"imlist": PHOTOS, "qimlist": QUERIES, "gnd": [{"easy": [0], "hard": []}] * 2}
ROWS = np.random.default_rng(0).standard_normal((6, DIM)).astype(np.float32)
BY_NAME = dict(zip([*PHOTOS, *QUERIES], ROWS, strict=True))


def _import(file: str, format_name: str) -> Callable[[Path], object]:
    def read(folder: Path) -> None:
        import tempfile

        from ultron_cli.retrieval.descriptors import DescriptorFile
        from ultron_cli.retrieval.exchange.descriptors.importing import DescriptorImport, import_descriptors

        with tempfile.TemporaryDirectory(dir=folder) as out:
            request = DescriptorImport(
                paths=[folder / file],
                format=format_name,
                gnd=folder / "gnd_x.json",
                allow_missing=True,
                out=Path(out),
            )
            for role, path in import_descriptors(request).files.items():
                with DescriptorFile(path) as stored:
                    stored.read()  # which raises unless all rows are unit vectors
                    assert set(stored.names) <= set(QUERIES if role == "query" else PHOTOS)
                    assert len(set(stored.names)) == stored.n

    return read


def _reader(
    file: str,
    format_name: str,
    *makes: Make,
    mutations: tuple[Mutation, ...] = (mutate_bytes,),
    is_guarded: bool = False,
) -> Reader:
    truth = text_file("gnd_x.json", TRUTH)

    def with_truth(make: Make) -> Make:
        return lambda folder: (truth(folder), make(folder))

    return Reader(
        file=file,
        seeds=tuple(with_truth(make) for make in makes),
        read=_import(file, format_name),
        mutations=mutations,
        is_guarded=is_guarded,
    )


def _pickled(protocol: int) -> Make:
    return lambda folder: (folder / "x.pickle").write_bytes(pickle.dumps(BY_NAME, protocol))


def _npy(rows: np.ndarray) -> Make:
    return lambda folder: np.save(folder / "x.npy", rows)


def _npz(folder: Path) -> None:
    names = {"query_names": np.array(QUERIES), "database_names": np.array(PHOTOS)}
    np.savez_compressed(folder / "x.npz", queries=ROWS[4:], database=ROWS[:4], **names)


def _torch(content: Callable[[], object]) -> Make:
    def make(folder: Path) -> None:
        import torch

        torch.save(content(), folder / "x.pt")

    return make


def _tensors() -> object:
    import torch

    return {name: torch.from_numpy(row) for name, row in BY_NAME.items()}


def _matrices() -> object:
    import torch

    return {"X": torch.from_numpy(ROWS[:4]), "Q": torch.from_numpy(ROWS[4:]).half().float(), "qimlist": QUERIES}


def _matlab(folder: Path) -> None:
    from scipy.io import savemat

    savemat(folder / "x.mat", {"X": ROWS[:4].T, "Q": ROWS[4:].T.astype(np.float64)}, do_compression=True)


def _matlab_73(folder: Path) -> None:
    import h5py

    with h5py.File(folder / "x.mat", "w", userblock_size=512) as handle:
        handle.create_dataset("X", data=ROWS[:4], chunks=(2, 2), compression="gzip")
        handle["Q"] = ROWS[4:].astype(np.float64)


def _hloc(folder: Path) -> None:
    import h5py

    with h5py.File(folder / "x.h5", "w", libver="latest") as handle:
        for name, row in BY_NAME.items():
            handle[f"images/{name}/global_descriptor"] = row.astype(np.float16)


def _ilias(folder: Path) -> None:
    import h5py

    with h5py.File(folder / "x.hdf5", "w") as handle:
        handle.create_dataset("index", data=PHOTOS, dtype=h5py.string_dtype("ascii"))
        handle.create_dataset("features", data=ROWS[:4], compression="gzip", compression_opts=0)


def _parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = [("photo", pa.string()), ("embedding", pa.list_(pa.float32()))]
    columns = {"photo": list(BY_NAME), "embedding": ROWS.tolist()}
    pq.write_table(pa.table(columns, schema=pa.schema(types)), folder / "x.parquet", row_group_size=4)


def _faiss(folder: Path) -> None:
    import faiss

    index = faiss.IndexFlatIP(DIM)
    index.add(ROWS[:4])
    faiss.write_index(index, str(folder / "x.faiss"))


def _table(delimiter: str) -> Make:
    output = io.StringIO()
    for name, row in BY_NAME.items():
        output.write(delimiter.join([name, *map(str, row.tolist())]) + "\n")
    return text_file("x.csv", output.getvalue())


def _named(names: str) -> Make:
    def make(folder: Path) -> None:
        text_file("gnd_x.json", TRUTH)(folder)
        np.save(folder / "x.npy", ROWS[:4])
        (folder / "x.names.txt").write_bytes(names.encode())

    return make


H5 = (mutate_bytes, mutate_h5, mutate_h5)
DESCRIPTOR_READERS: dict[str, Reader] = {
    "descriptors-dolg": _reader("x.pickle", "dolg", *(_pickled(protocol) for protocol in (0, 2, 4, 5))),
    "descriptors-npy": _reader("x.npy", "npy", _npy(ROWS[:4]), _npy(np.asfortranarray(ROWS[:4])), _npy(ROWS[4:])),
    "descriptors-npz": _reader("x.npz", "npz", _npz, mutations=(mutate_bytes, mutate_zip)),
    "descriptors-pt": _reader("x.pt", "pt", _torch(_tensors), _torch(_matrices), mutations=(mutate_weights,)),
    "descriptors-mat": _reader("x.mat", "revisitop", _matlab, is_guarded=True),
    "descriptors-mat-73": _reader("x.mat", "revisitop", _matlab_73, is_guarded=True),
    "descriptors-hloc": _reader("x.h5", "hloc", _hloc, mutations=H5, is_guarded=True),
    "descriptors-ilias": _reader("x.hdf5", "ilias", _ilias, mutations=H5, is_guarded=True),
    "descriptors-parquet": _reader("x.parquet", "parquet", _parquet, is_guarded=True),
    "descriptors-faiss": _reader("x.faiss", "faiss", _faiss, mutations=(mutate_bytes, mutate_faiss)),
    "descriptors-csv": _reader("x.csv", "csv", _table(","), _table(";")),
    "descriptors-names": Reader(
        file="x.names.txt",
        seeds=tuple(_named(end.join(PHOTOS)) for end in ("\n", "\r\n")),
        read=_import("x.npy", "npy"),
    ),
}
