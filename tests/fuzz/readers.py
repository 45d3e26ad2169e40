"""The table of readers: what is damaged, what is sound, and what reads it. A new reader is an entry of READERS."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.fuzz.binary_readers import BINARY_READERS
from tests.fuzz.mutations import mutate_bytes, mutate_json
from tests.fuzz.running import Reader

ENTRIES = [
    {"bbx": [0, 0.5, 5, 5], "easy": [0, 1], "hard": [2], "junk": [3]},
    {"bbx": None, "easy": [], "hard": [4], "junk": []},
]
GROUND_TRUTH = {"imlist": ["i0", "i1", "i2", "i3", "i4", "i5"], "qimlist": ["q0", "q1"], "gnd": ENTRIES}


def text_file(name: str, content: object) -> Callable[[Path], object]:
    """Makes a file of JSON, or of the text itself."""
    text = content if isinstance(content, str) else json.dumps(content)
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def json_reader(file: str, *contents: object, read: Callable[[Path], object]) -> Reader:
    """A reader of a JSON file, whose values are changed as well as its bytes."""
    seeds = tuple(text_file(file, content) for content in contents)
    return Reader(file=file, seeds=seeds, read=read, mutations=(mutate_bytes, mutate_json, mutate_json))


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


# Evaluations

SCORES = {"mAP": 0.5, "mP": {"1": 0.5, "10": None}, "queries_used": 2, "ap": {"a": 0.25, "b": 0.75, "c": None}}
ORIGIN = {
    "dataset": "t",
    "model": "gem-resnet50",
    "config": {
        "model": {"name": "gem", "settings": {"p": 3.0}},
        "scales": [0.7071, 1, 1.4142],
        "crop": "bbx",
        "max_side_px": 1024,
        "whitening": {"method": "lw", "dim": 8, "sha256": "0" * 64},
    },
    "weights": {"kind": "checkpoint", "path": "w.pt"},
    "search": {"method": "index", "kind": "ivf", "index": "i", "rerank": [{"name": "aqe", "n": 10, "ms_per_query": 1}]},
    "distractors": [{"path": "d.h5", "n": 1000, "dataset": "d"}],
    "skipped": [{"name": "x", "reason": "y"}],
    "k": 10,
}
EVALUATION = {
    "dataset": "t",
    "n_queries": 3,
    "n_database": 9,
    "protocols": {"easy": SCORES, "hard": SCORES},
    "provenance": ORIGIN,
}


def _compare(folder: Path) -> None:
    from ultron_cli.evaluation.result import Evaluation, read_evaluation
    from ultron_cli.evaluation.significance import compare_evaluations

    a, b = read_evaluation(folder / "a.json"), Evaluation.from_json(EVALUATION)
    for protocol in a.protocols:
        if protocol in b.protocols:
            compare_evaluations(a, b, protocol)
    a.origin.extraction.differences(b.origin.extraction)
    json.dumps(a.to_json())
    a.origin.search_text() + a.origin.extraction.protocol_text()


# Indexes

INDEX = {
    "format": "ultron-index",
    "version": 1,
    "kind": "flat",
    "factory": "Flat",
    "n": 3,
    "dim": 4,
    "search": {"nprobe": 0, "ef_search": 0, "rescore": 0},
    "whitening": None,
    "config": {"crop": "bbx"},
    "descriptors": {"path": "gone.h5", "size": 1, "mtime_ns": 2, "sha256": "0" * 64},
}
REPORT = {
    "kind": "ivf",
    "n": 10,
    "dim": 4,
    "n_queries": 2,
    "k": 10,
    "bytes_per_photo": 16.5,
    "exact_queries_per_s": 100.0,
    "model": "gem",
    "dataset": "toy",
    "rows": [{"nprobe": 1, "ef_search": 0, "rescore": 2, "recall": {"1": 0.5, "10": 1}, "queries_per_s": 10.5}],
}


def _index(folder: Path) -> None:
    import faiss

    index = faiss.index_factory(4, "Flat", faiss.METRIC_INNER_PRODUCT)
    index.add(np.eye(3, 4, dtype=np.float32))
    faiss.write_index(index, str(folder / "index.faiss"))
    text_file("index.json", INDEX)(folder)
    text_file("names.json", ["a", "b", "c"])(folder)


def _open_index(folder: Path) -> None:
    from ultron_cli.retrieval.index.opening import open_index

    open_index(folder).record()


def _recall_speed(folder: Path) -> None:
    from ultron_cli.visualization.curves.recall_speed import common_cut, lines_of, read_report

    report = read_report(folder / "report.json")
    lines_of(report, common_cut([report], None), "x")


# Runs

RUN = {
    "config": {
        "dataset": "toy",
        "epochs": 2,
        "model": {"name": "gem", "backbone": "resnet50"},
        "loss": {"name": "arcface"},
    },
    "provenance": {"created": "2026-01-01"},
}
LINES = "".join(json.dumps({"epoch": i, "step": i, "loss": 0.5, "accuracy": None, "lr": 0.1}) + "\n" for i in range(3))
CONFIG = """epochs = 5
batch_size = 8
weight_decay = 1e-4
step_epochs = [2, 4]
schedule = "steps"
[model]
name = "gem"
backbone = "resnet50"
[loss]
name = "arcface"
margin = 0.3
"""


def _run_folder(folder: Path) -> None:
    text_file("config.json", RUN)(folder)
    text_file("metrics.jsonl", LINES)(folder)
    text_file("steps.jsonl", LINES)(folder)


def _read_run(folder: Path) -> None:
    from ultron_cli.training.run.folder import describe_run
    from ultron_cli.training.run.journal import lines_up_to
    from ultron_cli.visualization.curves.run_curves import read_run

    describe_run(folder)
    lines_up_to(folder / "steps.jsonl", "step", 1)
    run = read_run(folder)
    run.points("loss"), run.points("lr", by_step=True)


def _load_config(folder: Path) -> None:
    from ultron_cli.training.presets import explain_config, load_config

    load_config("quickstart", folder / "f.toml", [])
    explain_config("quickstart", folder / "f.toml", [])


# Tables and lists

LABELS = "photo,landmark,label,role,x1,y1,x2,y2\na.jpg,tower,easy,query,1,2,3,4\nb.jpg,tower,hard,,,,,\nc.jpg,,,,,,,\n"
MEASUREMENTS = "group,setting,seed,metric,value\ng,a,0,mAP,0.5\ng,a,1,mAP,0.25\n,b,0,mAP,0.5\n"


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


def _split(folder: Path) -> None:
    from types import SimpleNamespace
    from typing import Any, cast

    from ultron_cli.datasets.landmarks.split import require_same_photos

    require_same_photos(folder / "split.json", cast(Any, SimpleNamespace(sha256=lambda: "0" * 64, folder=folder)))


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


def _lazily(module: str, name: str, file: str | None = None) -> Callable[[Path], object]:
    """A reader of the library by name, imported when it is first called; file: what it reads of the folder."""

    def read(folder: Path) -> object:
        from importlib import import_module

        return getattr(import_module(f"ultron_cli.{module}"), name)(folder / file if file else folder)

    return read


FINDING = {"path": "a.jpg", "kind": "truncated", "reason": "x", "n_bytes": 3, "mtime_ns": 4}
BAD_PHOTOS = {"format": "ultron-bad-photos", "version": 1, "checked": "x", "n_checked": 2, "bad": [FINDING], "odd": []}
PART = {
    "file": "a.tgz",
    "address": "https://x.org/a.tgz",
    "n_bytes": 1,
    "sha256": "c",
    "checked": "known SHA-256",
    "n_files": 1,
    "downloaded": "e",
}
SOURCE = {"format": "ultron-source", "version": 1, "dataset": "x", "photos_version": None, "parts": {"a.tgz": PART}}
SEEN = {"x/a.tgz": {"sha256": "0", "address": "https://x.org", "first_seen": "t"}}
MIRRORS = (
    'mirrors = ["https://m.example.org", "/mnt/x"]\n[addresses]\n"a/b.csv" = ["https://x.org/b.csv"]\n"c/d" = "/d"\n'
)


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


def _latest(folder: Path) -> None:
    from ultron_cli.workspace import KINDS, Workspace

    for kind in KINDS:
        Workspace(root=folder).latest(kind)


def _read_source(folder: Path) -> None:
    from ultron_cli.datasets.download.source_record import read_source

    record = read_source(folder)
    assert record is not None
    record.n_unpacked  # noqa: B018, a reading of what was read


READERS: dict[str, Reader] = {
    "ground-truth-json": json_reader("gnd_x.json", GROUND_TRUTH, read=_ground_truth("gnd_x.json")),
    "ground-truth-pickle": Reader(
        file="gnd_x.pkl",
        seeds=tuple(_pickled(protocol, arrays) for protocol in (0, 2, 3, 4, 5) for arrays in (False, True)),
        read=_ground_truth("gnd_x.pkl"),
    ),
    "evaluation": json_reader("a.json", EVALUATION, read=_compare),
    "bad-photos": json_reader("bad_photos.json", BAD_PHOTOS, read=_lazily("datasets.bad_photos", "read_bad_photos")),
    "source-record": json_reader("source.json", SOURCE, read=_read_source),
    "seen-checksums": json_reader(
        "seen_checksums.json", SEEN, read=_lazily("datasets.download.source_record", "read_seen_checksums")
    ),
    "latest": json_reader("latest.json", {"train": "train/x", "extract": "/x/y", "index": "z"}, read=_latest),
    "index-json": Reader(
        file="index.json", seeds=(_index,), read=_open_index, mutations=(mutate_bytes, mutate_json, mutate_json)
    ),
    "index-names": Reader(
        file="names.json", seeds=(_index,), read=_open_index, mutations=(mutate_bytes, mutate_json, mutate_json)
    ),
    "index-report": json_reader("report.json", REPORT, read=_recall_speed),
    "run-config": Reader(
        file="config.json", seeds=(_run_folder,), read=_read_run, mutations=(mutate_bytes, mutate_json, mutate_json)
    ),
    "run-metrics": Reader(file="metrics.jsonl", seeds=(_run_folder,), read=_read_run),
    "run-steps": Reader(file="steps.jsonl", seeds=(_run_folder,), read=_read_run),
    "run-split": json_reader("split.json", {"photos_sha256": "0" * 64, "held_out_landmarks": ["a"]}, read=_split),
    "training-config": Reader(file="f.toml", seeds=(text_file("f.toml", CONFIG),), read=_load_config),
    "mirrors": Reader(
        file="mirrors.toml",
        seeds=(text_file("mirrors.toml", MIRRORS),),
        read=_lazily("datasets.download.mirrors", "read_mirrors"),
    ),
    "labels": Reader(
        file="labels.csv",
        seeds=(text_file("labels.csv", LABELS), text_file("labels.csv", LABELS.replace(",", ";"))),
        read=_tables,
    ),
    "pairs": Reader(
        file="pairs.csv", seeds=(text_file("pairs.csv", "query,photo,label\na,b,easy\na,c,junk\n"),), read=_pairs
    ),
    "landmarks-json": Reader(
        file="landmarks.json",
        seeds=(_landmark_folder,),
        read=_landmark_list,
        mutations=(mutate_bytes, mutate_json, mutate_json),
    ),
    "landmark-list": Reader(file="train.csv", seeds=(_landmark_folder,), read=_landmark_list),
    "exclusions": Reader(
        file="x.csv",
        seeds=(text_file("x.csv", "# y\na\nb/c.jpg\n"), text_file("x.csv", "landmark_id,n\n1,2\n")),
        read=_lazily("datasets.landmarks.split", "read_exclusions", "x.csv"),
    ),
    "measurements": Reader(
        file="m.csv",
        seeds=(text_file("m.csv", MEASUREMENTS),),
        read=_lazily("visualization.curves.ablation_bars", "read_measurements", "m.csv"),
    ),
    "genotype": Reader(
        file="g.txt",
        seeds=(text_file("g.txt", "# x\nskip:0/sep_spatial:0,sep:1/cbam:0,skip:2,sep:1/sep:0,skip:1,sep:3,dil:2\n"),),
        read=_lazily("models.attentions.genotype", "load_genotype", "g.txt"),
    ),
    "photo-table": Reader(file="t.npz", seeds=(_photo_table,), read=_read_photo_table),
    "cifar-batch": Reader(
        file="data_batch_1", seeds=tuple(_cifar(protocol) for protocol in (0, 2, 4, 5)), read=_read_cifar
    ),
    "cifar-names": Reader(
        file="batches.meta", seeds=tuple(_cifar(protocol) for protocol in (0, 2, 4)), read=_read_cifar
    ),
    **BINARY_READERS,
}
