"""Readers of data sets: ground truths, lists of photos and labels, and what is cached of them."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from tests.fuzz.mutations import mutate_bytes, mutate_json
from tests.fuzz.reader import Reader, bytes_file, json_part, json_reader, lazily, text_file
from tests.fuzz.structures import mutate_zip

ENTRIES = [
    {"bbx": [0, 0.5, 5, 5], "easy": [0, 1], "hard": [2], "junk": [3]},
    {"bbx": None, "easy": [], "hard": [4], "junk": []},
]
GROUND_TRUTH = {"imlist": ["i0", "i1", "i2", "i3", "i4", "i5"], "qimlist": ["q0", "q1"], "gnd": ENTRIES}


def _pickled(protocol: int, with_arrays: bool) -> Callable[[Path], object]:
    content: dict[str, object] = GROUND_TRUTH
    if with_arrays:
        gnd = [
            {key: rows if key == "bbx" else np.array(rows, np.int64) for key, rows in entry.items()}
            for entry in ENTRIES
        ]
        content = {**GROUND_TRUTH, "gnd": gnd, "imlist": np.array(GROUND_TRUTH["imlist"])}
    return lambda folder: (folder / "gnd_x.pkl").write_bytes(pickle.dumps(content, protocol=protocol))


def _ground_truth(name: str) -> Callable[[Path], object]:
    from ultron_cli.datasets.protocols import load_ground_truth

    return lambda folder: load_ground_truth(folder / name)


LABELS = "photo,landmark,label,role,x1,y1,x2,y2\na.jpg,tower,easy,query,1,2,3,4\nb.jpg,tower,hard,,,,,\nc.jpg,,,,,,,\n"


def _tables(folder: Path) -> None:
    from ultron_cli.datasets.label_tables import Spelled, read_labels

    read_labels(folder / "labels.csv", Spelled({"a.jpg": "a.jpg", "b.jpg": "b.jpg"}, may_lack=True))


def _pairs(folder: Path) -> None:
    from ultron_cli.datasets.label_tables import Spelled, read_pairs

    read_pairs(folder / "pairs.csv", Spelled({"a": "a", "b": "b", "c": "c"}))


def _landmark_list(folder: Path) -> None:
    from ultron_cli.datasets.landmarks.lists import open_landmark_list

    photos = open_landmark_list(folder)
    [photos.paths.relative(i) for i in range(len(photos.landmarks))]


def _landmark_folder(folder: Path) -> None:
    description = {"format": "ultron-landmarks", "version": 1, "list": "train.csv", "photos": ".", "paths": "gldv2"}
    text_file("landmarks.json", description)(folder)
    text_file("train.csv", "landmark_id,images\n1,a1b2 c3d4\n2,e5f6\n")(folder)


def _cifar(protocol: int) -> Callable[[Path], object]:
    table = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 9], "batch_label": "x", "filenames": ["a", "b"]}
    names = {"label_names": [f"class {i}" for i in range(10)]}

    def make(folder: Path) -> None:
        (folder / "data_batch_1").write_bytes(pickle.dumps(table, protocol))
        (folder / "batches.meta").write_bytes(pickle.dumps(names, protocol))

    return make


def _read_cifar(folder: Path) -> None:
    from ultron_cli.datasets.landmarks.cifar import LAYOUTS, _class_names, read_batch

    _class_names(folder / "batches.meta", LAYOUTS[0])
    list(read_batch(folder / "data_batch_1", LAYOUTS[0], 10))


FINDING = {"path": "a.jpg", "kind": "truncated", "reason": "x", "n_bytes": 3, "mtime_ns": 4}
BAD_PHOTOS = {"format": "ultron-bad-photos", "version": 1, "checked": "x", "n_checked": 2, "bad": [FINDING], "odd": []}


def _photo_table(folder: Path) -> None:
    from ultron_cli.datasets.landmarks.path_table import PathTable, Texts, write_table

    photos = PathTable(folder, Texts.of(["1/a.jpg", "2/b.jpg", "2/c.jpg"]))
    write_table(folder / "t.npz", photos, np.array([0, 1, 1]), ["1", "2"], [folder / "1", folder / "2"])


def _read_photo_table(folder: Path) -> None:
    from ultron_cli.datasets.landmarks.path_table import read_table

    table = read_table(folder / "t.npz")
    if table is not None:
        photos, labels, names = table
        [(photos[i], names[label]) for i, label in enumerate(labels)]
        photos.relative.sha256()


def _read_aspects(folder: Path) -> None:
    from types import SimpleNamespace

    from ultron_cli.datasets.landmarks.aspects import photo_aspects

    photos = SimpleNamespace(folder=folder, sha256=lambda: "0" * 64, labels=[0, 1, 2], paths=[folder / "gone.jpg"] * 3)
    aspects = photo_aspects(cast(Any, photos))
    assert aspects.shape == (3,) and (aspects > 0).all() and np.isfinite(aspects).all()


def _aspects() -> bytes:
    output = io.BytesIO()
    np.savez(output, photos=np.frombuffer(b"0" * 64, np.uint8), aspects=np.array([1.5, 1, 0.75], np.float32))
    return output.getvalue()


def _sfm() -> bytes:
    part = {"cids": ["a" * 32, "b" * 32], "cluster": [3, 3], "bbxs": None, "qidxs": [0], "pidxs": [1]}
    return pickle.dumps({"train": part, "val": part}, 2)


def _instre(folder: Path) -> None:
    from scipy.io import savemat

    entries = np.array([([1, 2], [1, 2, 3, 4]), ([3], [1, 1, 2, 2])], dtype=[("ok", "O"), ("bbx", "O")])
    names = np.array(["a.jpg", "b.jpg", "c.jpg"], dtype=object)
    savemat(folder / "gnd_instre.mat", {"imlist": names, "qimlist": names[:2], "gnd": entries})
    (folder / "jpg").mkdir()
    from PIL import Image

    for name in names:
        Image.new("RGB", (9, 9)).save(folder / "jpg" / name)


def _toy(folder: Path) -> None:
    from dataclasses import asdict

    from ultron_cli.datasets.toy.dataset import FORMAT, VERSION, ToyConfig

    photos = [{"file": "toy.json", "landmark": "x", "label": {}}]
    content = {"format": FORMAT, "version": VERSION, "config": asdict(ToyConfig()), "photos": photos}
    text_file("toy.json", content)(folder)
    entry = {"bbx": [0, 1, 2, 3], "easy": [0], "hard": [], "junk": [1]}
    text_file("gnd_toy.json", {"imlist": ["a", "b"], "qimlist": ["c"], "gnd": [entry]})(folder)


def _read_toy(folder: Path) -> None:
    from ultron_cli.datasets.toy.dataset import ToyConfig, make_toy

    make_toy(folder, ToyConfig())


DATASET_READERS: dict[str, Reader] = {
    "ground-truth-json": json_reader("gnd_x.json", GROUND_TRUTH, read=_ground_truth("gnd_x.json")),
    "ground-truth-pickle": Reader(
        file="gnd_x.pkl",
        seeds=tuple(_pickled(protocol, arrays) for protocol in (0, 2, 3, 4, 5) for arrays in (False, True)),
        read=_ground_truth("gnd_x.pkl"),
    ),
    "bad-photos": json_reader("bad_photos.json", BAD_PHOTOS, read=lazily("datasets.bad_photos", "read_bad_photos")),
    "labels": Reader(
        file="labels.csv",
        seeds=(text_file("labels.csv", LABELS), text_file("labels.csv", LABELS.replace(",", ";"))),
        read=_tables,
    ),
    "pairs": Reader(
        file="pairs.csv", seeds=(text_file("pairs.csv", "query,photo,label\na,b,easy\na,c,junk\n"),), read=_pairs
    ),
    "landmarks-json": json_part("landmarks.json", _landmark_folder, read=_landmark_list),
    "landmark-list": Reader(file="train.csv", seeds=(_landmark_folder,), read=_landmark_list),
    "exclusions": Reader(
        file="x.csv",
        seeds=(text_file("x.csv", "# y\na\nb/c.jpg\n"), text_file("x.csv", "landmark_id,n\n1,2\n")),
        read=lazily("datasets.landmarks.exclusions", "read_exclusions", "x.csv"),
    ),
    "photo-table": Reader(
        file="t.npz", seeds=(_photo_table,), read=_read_photo_table, mutations=(mutate_bytes, mutate_zip)
    ),
    "photo-aspects": Reader(
        file=".ultron-aspects.npz",
        seeds=(bytes_file(".ultron-aspects.npz", _aspects),),
        read=_read_aspects,
        mutations=(mutate_bytes, mutate_zip),
    ),
    "cifar-batch": Reader(
        file="data_batch_1", seeds=tuple(_cifar(protocol) for protocol in (0, 2, 4, 5)), read=_read_cifar
    ),
    "cifar-names": Reader(
        file="batches.meta", seeds=tuple(_cifar(protocol) for protocol in (0, 2, 4)), read=_read_cifar
    ),
    "sfm-pickle": Reader(
        file="retrieval-SfM-120k.pkl",
        seeds=(bytes_file("retrieval-SfM-120k.pkl", _sfm),),
        read=lazily("datasets.download.layouts", "sfm120k"),
    ),
    "instre-mat": Reader(
        file="gnd_instre.mat",
        seeds=(_instre,),
        read=lazily("datasets.download.layouts", "instre"),
        is_guarded=True,
    ),
    "ilias-boxes": Reader(
        file="a_bbox.txt",
        seeds=(text_file("a_bbox.txt", "1 2 30 40\n5,6,7.5,8\n"),),
        read=lazily("datasets.download.layouts", "_enclosing_box", "a_bbox.txt"),
    ),
    "toy-description": Reader(
        file="toy.json", seeds=(_toy,), read=_read_toy, mutations=(mutate_bytes, mutate_json, mutate_json)
    ),
}
