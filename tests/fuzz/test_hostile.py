"""Files that broke a reader of the first version, of shared/hostile: each ends in an answer or one line."""

from pathlib import Path

import pytest

from tests.conftest import shared_or_skip
from tests.fuzz.readers import READERS
from tests.fuzz.running import Limits, in_child, made_seeds, problem_of

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
    folder = tmp_path / "0"
    for path in sorted((shared / "hostile").glob(f"{prefix}-*")):
        (folder / reader.file).write_bytes(path.read_bytes())
        problems = [
            problem
            for _, problem in in_child(
                lambda: iter([(0, problem_of(reader.read, folder))]), Limits(memory_mib=256, cpu_s=5)
            )
        ]
        assert len(problems) == 1 and not problems[0], f"{path.name}: {problems}"
