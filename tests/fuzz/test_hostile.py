"""Files that broke a reader of the first version, of shared/hostile: each ends in an answer or one line."""

from pathlib import Path

import pytest

from tests.conftest import shared_or_skip
from tests.fuzz.readers import READERS
from tests.fuzz.running import Limits, made_seeds, read_each

# what the names of files begin with -> reader
PREFIXES = {
    "json": "ground-truth-json",
    "pickle": "ground-truth-pickle",
    "eval": "evaluation",
    "bad": "bad-photos",
    "source": "source-record",
    "desc": "descriptors",
    "ranks": "ranks",
    "whitening": "whitening",
    "faiss": "index-faiss",
    "archive": "archive",
}


@pytest.mark.parametrize("prefix", PREFIXES)
def test_hostile_files_end_in_one_line(prefix: str, tmp_path: Path) -> None:
    shared = shared_or_skip("files that broke a reader of the first version end in one line")
    reader = READERS[PREFIXES[prefix]]
    made_seeds(reader, tmp_path)
    paths = sorted((shared / "hostile").glob(f"{prefix}-*"))
    files = [path.read_bytes() for path in paths]
    limits = Limits(memory_mib=256, cpu_s=5)
    outcomes = dict(read_each(reader, tmp_path, lambda number: (0, files[number]), range(len(files)), limits))
    assert len(outcomes) == len(files)
    assert {paths[number].name: problem for number, problem in outcomes.items() if problem} == {}
