"""Hostile files that are thought out, not drawn: over twenty for every reader, each ends in an answer or one line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz.hostile_binaries import (
    hostile_archives,
    hostile_bytes,
    hostile_faiss,
    hostile_npy,
    hostile_npz,
    hostile_pickles,
    hostile_weights,
)
from tests.fuzz.hostile_hdf5 import hostile_h5
from tests.fuzz.hostile_onnx import hostile_onnx
from tests.fuzz.hostile_photos import hostile_photos
from tests.fuzz.hostile_texts import Files, hostile_json, hostile_lines, hostile_table, hostile_toml
from tests.fuzz.readers import READERS
from tests.fuzz.running import Limits, made_seeds, read_each
from tests.fuzz.sqlite_mutations import hostile_sqlite

# how the name of the damaged file ends -> what is hostile to its reader
HOSTILE: dict[str, Callable[[bytes], Files]] = {
    ".json": hostile_json,
    "-lock": hostile_json,
    ".jsonl": hostile_lines,
    ".toml": hostile_toml,
    ".csv": hostile_table,
    ".txt": hostile_table,
    "SUMS": hostile_table,
    ".pkl": hostile_pickles,
    "data_batch_1": hostile_pickles,
    "batches.meta": hostile_pickles,
    ".npz": hostile_npz,
    ".npy": hostile_npy,
    ".pth": hostile_weights,
    ".pt": hostile_weights,
    ".bin": hostile_archives,
    ".h5": hostile_h5,
    ".faiss": hostile_faiss,
    ".photo": hostile_photos,
    ".mat": hostile_bytes,
    ".parquet": hostile_bytes,
    ".hloc": hostile_bytes,
    ".db": hostile_sqlite,
    ".onnx": hostile_onnx,
}


@pytest.mark.parametrize("name", READERS)
def test_what_is_hostile_ends_in_an_answer_or_one_line(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    sound = made_seeds(reader, tmp_path)[0]
    files = next(make for end, make in HOSTILE.items() if reader.file.endswith(end))(sound)
    names, contents = list(files), list(files.values())
    assert len(names) >= 20 or reader.file.endswith((".mat", ".parquet", ".hloc"))
    outcomes = dict(read_each(reader, tmp_path, lambda number: (0, contents[number]), range(len(names)), Limits()))
    assert len(outcomes) == len(names)
    assert {names[number]: problem for number, problem in outcomes.items() if problem} == {}
