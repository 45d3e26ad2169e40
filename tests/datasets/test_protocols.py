"""Ground truth: what is accepted, what is refused, and that no pickle runs code."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import shared_or_skip
from ultron_cli.datasets.protocols import PROTOCOLS, load_ground_truth, parse_ground_truth
from ultron_cli.datasets.safe_pickle import load_plain_pickle
from ultron_cli.errors import UltronError

SOUND = {
    "imlist": ["a", "b", "c", "d"],
    "qimlist": ["q"],
    "gnd": [{"bbx": [1, 2, 30, 40], "easy": [0], "hard": [2], "junk": [3]}],
}


def changed(**entry: object) -> dict[str, object]:
    return SOUND | {"gnd": [SOUND["gnd"][0] | entry]}


def test_protocols_split_labels_as_published() -> None:
    truth = parse_ground_truth(SOUND, Path("gnd.json"))
    split = {name: tuple(part.tolist() for part in truth.split(0, name)) for name in PROTOCOLS}
    assert split == {"easy": ([0], [3, 2]), "medium": ([0, 2], [3]), "hard": ([2], [3, 0])}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (changed(easy=[4]), "index 4, but imlist has 4 photos"),
        (changed(hard=[-1]), "index -1"),
        (changed(junk=[0.5]), r"gnd\[0\].junk\[0\] must be a whole number, found a number with a fraction; correct"),
        (changed(easy=None, hard="2"), r"gnd\[0\].hard must be a list or nothing, found text"),
        (changed(easy=[True]), r"gnd\[0\].easy\[0\] must be a whole number, found true or false"),
        (changed(easy=[[0]]), r"gnd\[0\].easy\[0\] must be a whole number, found a list"),
        (changed(easy=[1 << 70]), r"gnd\[0\].easy holds index"),
        (changed(bbx=[30, 2, 1, 40]), "inverted"),
        (changed(bbx=[1, 2, 30]), r"gnd\[0\].bbx must be a list of length 4, found 3"),
        (changed(bbx=[[1], [1, 2]]), r"gnd\[0\].bbx must be a list of length 4"),
        (changed(bbx=7), r"gnd\[0\].bbx must be a list or nothing, found a whole number"),
        (changed(bbx=[1, 2, float("nan"), 40]), "four numbers"),
        (SOUND | {"imlist": ["a", "b", "a"]}, "imlist names 'a' 2 times"),
        (SOUND | {"gnd": None}, "gnd must be a list, found nothing"),
        (SOUND | {"gnd": 7}, "gnd must be a list, found a whole number"),
        (SOUND | {"gnd": [7]}, r"gnd\[0\] must be an object, found a whole number"),
        (SOUND | {"gnd": [{"easy": []}]}, r"gnd\[0\] lacks hard"),
        (SOUND | {"qimlist": ["q", "r"]}, "1 entries for 2 queries"),
        (SOUND | {"imlist": [1, 2]}, r"imlist\[0\] must be text, found a whole number"),
        (SOUND | {"imlist": "ab"}, "imlist must be a list, found text"),
        ({"imlist": []}, "lacks qimlist, gnd"),
        ([], "lacks"),
    ],
)
def test_unsound_ground_truth_is_refused(content: object, words: str) -> None:
    with pytest.raises(UltronError, match=words):
        parse_ground_truth(content, Path("gnd.json"))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_of_every_protocol_are_read(tmp_path: Path, protocol: int) -> None:
    content = {
        "list": [1, 2.5, "text", None, True, (1, 2), {3}, b"bytes"],
        "array": np.arange(6).reshape(2, 3),
        "names": np.array(["a", "bc"]),
        "number": np.float32(0.25),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    }
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    read = load_plain_pickle(path)
    assert read["list"] == content["list"]
    assert read["number"] == content["number"]
    for key in ("array", "names", "fortran"):
        np.testing.assert_array_equal(read[key], content[key])


class Runs:
    """A pickle of it would create the file when loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


class Calls:
    """A pickle of it would call any function by name."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call  # type: ignore[return-value]


@pytest.mark.parametrize(
    "function", [eval, exec, open, __import__, getattr, pickle.loads, np.load, np.frombuffer, io.open]
)
def test_a_pickle_that_calls_something_is_refused_and_runs_nothing(tmp_path: Path, function: object) -> None:
    path, witness = tmp_path / "gnd_bad.pkl", tmp_path / "witness"
    path.write_bytes(pickle.dumps({"imlist": Calls(function, f"open({str(witness)!r}, 'w')")}))
    with pytest.raises(UltronError, match="was refused, and nothing in it was run"):
        load_ground_truth(path)
    assert not witness.exists()


def test_a_pickle_that_touches_a_file_is_refused(tmp_path: Path) -> None:
    path, witness = tmp_path / "gnd_bad.pkl", tmp_path / "witness"
    path.write_bytes(pickle.dumps(Runs(witness)))
    with pytest.raises(UltronError, match="refused"):
        load_ground_truth(path)
    assert not witness.exists()


def test_object_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "gnd_objects.pkl"
    path.write_bytes(pickle.dumps(np.array([{"a": 1}], dtype=object)))
    with pytest.raises(UltronError, match="array of type object"):
        load_ground_truth(path)


def test_object_arrays_of_text_alone_are_read(tmp_path: Path) -> None:
    """h5py gives names so."""
    path = tmp_path / "names.pkl"
    for protocol in (0, 2, 4, 5):
        path.write_bytes(pickle.dumps({"names": np.array(["a", "bé"], object)}, protocol))
        names = load_plain_pickle(path)["names"]
        assert (names.tolist(), names.dtype) == (["a", "bé"], object)
    for content in (np.array([["a"]], object), np.array(["a", 1], object), np.array([None], object)):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(UltronError, match="array of type object that is no list of texts"):
            load_plain_pickle(path)


def test_truncated_pickle_is_an_error_not_a_crash(tmp_path: Path) -> None:
    whole = pickle.dumps(SOUND)
    path = tmp_path / "gnd_cut.pkl"
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        with pytest.raises(UltronError):
            load_ground_truth(path)


def test_json_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "gnd_x.json"
    with pytest.raises(UltronError, match="does not exist"):
        load_ground_truth(path)
    path.write_text("{")
    with pytest.raises(UltronError, match="not readable JSON"):
        load_ground_truth(path)
    path.write_text(json.dumps(SOUND))
    assert load_ground_truth(path).query_names == ["q"]


def test_published_ground_truth_is_read_whole() -> None:
    shared = shared_or_skip("the published ground truth of ROxford5k and RParis6k is read whole")
    for name, n_database, easy, hard in (("roxford5k", 4993, 68, 70), ("rparis6k", 6322, 70, 70)):
        truth = load_ground_truth(shared / "groundtruth" / f"gnd_{name}.pkl")
        assert (len(truth.query_names), len(truth.database_names)) == (70, n_database)
        used = [sum(len(truth.split(q, protocol)[0]) > 0 for q in range(70)) for protocol in ("easy", "hard")]
        assert used == [easy, hard]
        assert all(query.bbx for query in truth.queries)
