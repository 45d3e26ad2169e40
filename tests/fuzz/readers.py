"""The table of readers: what is damaged, what is sound, and what reads it. A new reader is an entry of READERS."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np

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


READERS: dict[str, Reader] = {
    "ground-truth-json": json_reader("gnd_x.json", GROUND_TRUTH, read=_ground_truth("gnd_x.json")),
    "ground-truth-pickle": Reader(
        file="gnd_x.pkl",
        seeds=tuple(_pickled(protocol, arrays) for protocol in (0, 2, 3, 4, 5) for arrays in (False, True)),
        read=_ground_truth("gnd_x.pkl"),
    ),
}
