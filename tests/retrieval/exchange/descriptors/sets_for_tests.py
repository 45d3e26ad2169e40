"""A small ground truth with vectors of its photos, and files of them as the authors' own programs write those."""

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from scipy.io import savemat

DIM = 24
PHOTOS = [f"all_souls_{i:06d}" for i in range(40)]
QUERIES = [f"query_{i}" for i in range(6)]


@dataclass(frozen=True)
class Vectors:
    """Unit vectors of the photos and queries of a ground truth, and its file."""

    folder: Path
    gnd: Path
    queries: np.ndarray  # (Q, D) float32
    database: np.ndarray  # (N, D) float32

    def by_name(self, suffix: str = "") -> dict[str, np.ndarray]:
        """All vectors by name, in the order of a walk over a folder, which is none."""
        rows = {**dict(zip(PHOTOS, self.database, strict=True)), **dict(zip(QUERIES, self.queries, strict=True))}
        names = np.random.default_rng(5).permutation([*rows]).tolist()
        return {name + suffix: rows[name] for name in names}


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def make_vectors(folder: Path) -> Vectors:
    """Labels and vectors at random, with easy, hard and junk photos."""
    rng = np.random.default_rng(0)
    entries = []
    for _ in QUERIES:
        rows = rng.permutation(len(PHOTOS))[:15].tolist()
        entries.append({"bbx": [0, 0, 9, 9], "easy": rows[:4], "hard": rows[4:9], "junk": rows[9:]})
    gnd = folder / "gnd_roxford5k.json"
    gnd.write_text(json.dumps({"imlist": PHOTOS, "qimlist": QUERIES, "gnd": entries}))
    queries, database = (rng.standard_normal((len(names), DIM)) for names in (QUERIES, PHOTOS))
    return Vectors(folder, gnd, unit(queries), unit(database))


def dolg(vectors: Vectors) -> list[Path]:
    """evaler/infer.py: {name: (1, D)} of protocol 2; its evaluation looks names up with `.jpg`."""
    path = vectors.folder / "dolg.pickle"
    features = {name: row.reshape(1, -1) for name, row in vectors.by_name(".jpg").items()}
    path.write_bytes(pickle.dumps(features, protocol=2))
    return [path]


def revisitop(vectors: Vectors) -> list[Path]:
    """X (D, N) and Q (D, 70), which its example_evaluate multiplies as X.T Q."""
    path = vectors.folder / "roxford5k_gem.mat"
    savemat(path, {"X": vectors.database.T, "Q": vectors.queries.T}, do_compression=True)
    return [path]


def revisitop_73(vectors: Vectors) -> list[Path]:
    """save -v7.3: HDF5 behind MATLAB's own 512 bytes, the axes the other way round, compressed in chunks."""
    path = vectors.folder / "v73.mat"
    with h5py.File(path, "w", userblock_size=512) as handle:
        for name, rows in (("X", vectors.database), ("Q", vectors.queries)):
            stored = handle.create_dataset(name, data=rows.astype(np.float64), chunks=(3, 5), compression="gzip")
            stored.attrs["MATLAB_class"] = np.bytes_("double")
    with open(path, "r+b") as handle:
        handle.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b"\0"))
    return [path]


def hloc(vectors: Vectors) -> list[Path]:
    """extract_features.py without as_half: a group per photo below its folder, beside its size."""
    path = vectors.folder / "global-feats-netvlad.h5"
    for name, row in vectors.by_name(".jpg").items():
        with h5py.File(path, "a", libver="latest") as handle:
            group = handle.create_group(f"images/{name}")
            group.create_dataset("global_descriptor", data=row)
            group.create_dataset("image_size", data=np.array([640, 480]))
    return [path]


def ilias(vectors: Vectors) -> list[Path]:
    """store_features of feature_extraction: index and features of each partition, gzip of level 0."""
    paths = []
    halves = np.array_split(np.arange(len(PHOTOS)), 2)
    partitions = {"image_queries": (QUERIES, vectors.queries)} | {
        f"distractors_{i:05d}": ([PHOTOS[row] for row in rows], vectors.database[rows]) for i, rows in enumerate(halves)
    }
    for partition, (names, rows) in partitions.items():
        path = vectors.folder / f"features_{partition}.hdf5"
        with h5py.File(path, "w") as handle:
            index = [f"{name}.jpg" for name in names]
            handle.create_dataset("index", data=index, dtype=h5py.string_dtype(encoding="ascii"))
            handle.create_dataset("features", data=rows, dtype=rows.dtype, compression="gzip", compression_opts=0)
        paths.append(path)
    return paths


def npy(vectors: Vectors) -> list[Path]:
    """Arrays with a list of names beside them."""
    paths = []
    for name, names, rows in (("q", QUERIES, vectors.queries), ("x", PHOTOS, vectors.database)):
        np.save(vectors.folder / f"{name}.npy", rows)
        (vectors.folder / f"{name}.names.txt").write_text("".join(f"{photo}.jpg\n" for photo in names))
        paths.append(vectors.folder / f"{name}.npy")
    return paths


def npy_in_order(vectors: Vectors) -> list[Path]:
    """Arrays alone, in the order of the ground truth; one in Fortran's order and of another machine's bytes."""
    np.save(vectors.folder / "alone_q.npy", np.asfortranarray(vectors.queries))
    np.save(vectors.folder / "alone_x.npy", vectors.database.astype(">f4"))
    return [vectors.folder / "alone_q.npy", vectors.folder / "alone_x.npy"]


def npz(vectors: Vectors) -> list[Path]:
    path = vectors.folder / "set.npz"
    names = {"query_names": np.array(QUERIES), "database_names": np.array(PHOTOS)}
    np.savez_compressed(path, queries=vectors.queries, database=vectors.database.astype(np.float64), **names)
    return [path]


def torch_dictionary(vectors: Vectors) -> list[Path]:
    import torch

    path = vectors.folder / "by_name.pt"
    torch.save({name: torch.from_numpy(row) for name, row in vectors.by_name().items()}, path)
    return [path]


def torch_matrices(vectors: Vectors) -> list[Path]:
    import torch

    path = vectors.folder / "matrices.pth"
    tensors = {"Q": torch.from_numpy(vectors.queries), "X": torch.from_numpy(vectors.database)}
    torch.save({**tensors, "qimlist": QUERIES, "imlist": PHOTOS}, path)
    return [path]


def csv(vectors: Vectors) -> list[Path]:
    path = vectors.folder / "table.csv"
    lines = [",".join([name, *map(repr, row.tolist())]) for name, row in vectors.by_name(".jpg").items()]
    path.write_text("\n".join(["name," + ",".join(map(str, range(DIM))), *lines]))
    return [path]


def parquet(vectors: Vectors) -> list[Path]:
    """As pandas and collections of embeddings write it: lists of variable length, another column beside."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = vectors.folder / "table.parquet"
    rows = vectors.by_name()
    columns = {"id": list(rows), "embedding": [row.tolist() for row in rows.values()], "width": [640] * len(rows)}
    types = {"id": pa.string(), "embedding": pa.list_(pa.float32()), "width": pa.int64()}
    pq.write_table(pa.table(columns, schema=pa.schema(types.items())), path, row_group_size=11)
    return [path]


def faiss_flat(vectors: Vectors) -> list[Path]:
    import faiss

    paths = []
    for name, names, rows in (("q", QUERIES, vectors.queries), ("x", PHOTOS, vectors.database)):
        index = faiss.IndexFlatIP(DIM) if name == "x" else faiss.IndexFlatL2(DIM)
        index.add(rows)
        faiss.write_index(index, str(vectors.folder / f"{name}.faiss"))
        (vectors.folder / f"{name}.names.txt").write_text("".join(f"{photo}\r\n" for photo in names))
        paths.append(vectors.folder / f"{name}.faiss")
    return paths


# Layout -> (its format, what writes it).
LAYOUTS: dict[str, tuple[str, Callable[[Vectors], list[Path]]]] = {
    "dolg": ("dolg", dolg),
    "revisitop": ("revisitop", revisitop),
    "revisitop 7.3": ("revisitop", revisitop_73),
    "hloc": ("hloc", hloc),
    "ilias": ("ilias", ilias),
    "npy": ("npy", npy),
    "npy in order": ("npy", npy_in_order),
    "npz": ("npz", npz),
    "pt by name": ("pt", torch_dictionary),
    "pt matrices": ("pt", torch_matrices),
    "csv": ("csv", csv),
    "parquet": ("parquet", parquet),
    "faiss": ("faiss", faiss_flat),
}
NEEDS = {"parquet": "pyarrow", "faiss": "faiss"}
