"""Files written by earlier versions still read, resume and score the same: the numbers are those that the version that
wrote them gave.

Files and expected.json of a version lie in v*/ and were made by make_files.py, which also holds the questions.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compatibility.make_files import PARTS, TOY, Ask, unpack
from tests.conftest import Run

HERE = Path(__file__).parent
VERSIONS = sorted(path.parent.name for path in HERE.glob("v*/expected.json"))

# Largest difference of a float, relative to the larger of the expected value and 1. Everything that is no float is
# equal: names, ranks, steps.
STORED = 1e-12  # average precision from stored ranks: the mean's sum may take another order in another numpy
# inner products of stored unit rows in float32, whose order of summing is the processor's: a few units of 2^-24 = 6e-8
SCORES = 2e-6
TOLERANCES = {
    "descriptors": STORED,
    "rank files": STORED,
    "evaluations": STORED,
    "ground truths": STORED,
    "bad photos": STORED,
    "runs": STORED,
    "searches": SCORES,
    "indexes": SCORES,
    "milvus": SCORES,
    # Described anew: convolutions in float32, whose order is the processor's and oneDNN's.
    "checkpoints": 1e-4,
    "extractions": 1e-4,
    # Trained anew: rounding differs between processors, and every step amplifies what the one before differed by.
    # Without AVX (DNNL_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default) the losses of a resumed training moved by 1 %,
    # those of an architecture search by under 0.2 %.
    "resumed": 3e-2,
    "resumed search": 2e-3,
}
FIRST_STEP = 2e-3  # of the first step after a resumption, before anything is amplified


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the photos that the files were made from."""
    from ultron_cli.cli import main

    root = tmp_path_factory.mktemp("old-files")
    assert main(["datasets", "make-toy", *map(str, TOY), "--out", str(root / "toy")]) == 0
    return root


@pytest.fixture
def databases_closed() -> Iterator[None]:
    """milvus-lite's server, which lives on in this process, is stopped."""
    yield
    manager = pytest.importorskip("milvus_lite.server_manager").server_manager_instance
    manager.release_all()


# A comparison tells more of what differs between two results than it did; the results themselves are unchanged.
IN_OTHER_WORDS = ("settings_that_differ",)
# The interval of a comparison's difference is that of the BCa bootstrap, which was that of percentiles.
BY_ANOTHER_METHOD = ("interval",)


def differences(expected: Any, actual: Any, tolerance: float, where: str = "") -> list[str]:
    """Every place where two pieces of plain data differ."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        lacking = [f"{where}/{key} is gone" for key in expected if key not in actual]
        return lacking + [
            line
            for key in expected
            if key in actual and key not in (*IN_OTHER_WORDS, *BY_ANOTHER_METHOD)
            for line in differences(expected[key], actual[key], tolerance, f"{where}/{key}")
        ]
    if isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        return [
            line
            for i, pair in enumerate(zip(expected, actual, strict=True))
            for line in differences(*pair, tolerance, f"{where}/{i}")
        ]
    if isinstance(expected, float) and isinstance(actual, (int, float)) and not isinstance(actual, bool):
        near = math.isclose(expected, actual, rel_tol=tolerance, abs_tol=tolerance)
        return [] if near else [f"{where}: {expected} then, {actual} now"]
    return [] if type(expected) is type(actual) and expected == actual else [f"{where}: {expected} then, {actual} now"]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("version", VERSIONS)
def test_files_of_an_earlier_version_give_the_same(
    version: str, part: str, ultron: Run, data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if part == "milvus":
        pytest.importorskip("pymilvus")
        request.getfixturevalue("databases_closed")
    expected = json.loads((HERE / version / "expected.json").read_text())
    if part not in expected:
        pytest.skip(f"{version} has no {part}")
    files, scratch = unpack(HERE / version, tmp_path), tmp_path / "scratch"
    scratch.mkdir()
    actual = json.loads(json.dumps(PARTS[part](Ask(ultron), files, data, scratch)))
    assert not differences(expected[part], actual, TOLERANCES[part])
    if part == "resumed":
        first = len((files / "stopped/steps.jsonl").read_text().splitlines())
        assert not differences(expected[part]["steps"][: first + 1], actual["steps"][: first + 1], FIRST_STEP)
