"""Photos and folders of any name go through every command: not UTF-8, as long as a name may be, with line ends, escapes
and leading dashes."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Run, read_json
from ultron_cli.console import dump_json, printable
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.rankings import read_ranks
from ultron_cli.visualization.scene import file_name as photo_file_name
from ultron_cli.workspace import MOST_NAME_BYTES, Workspace, file_name

LANDMARKS = [
    b"caf\xe9",
    b"new\nline",
    b"-dash",
    b"esc\x1b[31m",
    "\u96ea".encode(),
    b"D" * 240 + b"/" + b"E" * 240,
    b"sur\xed\xa0\x80",
]
PHOTOS = [b"n" * 251 + b".jpg", b"-x\n.jpg"]
FLAGS = ("--untrained", "--backbone", "test_resnet", "--scales", "1", "--workers", "0")


def odd_photos(folder: Path) -> list[str]:
    """Two photos of noise per landmark; their names, sorted."""
    rng = np.random.default_rng(0)
    names = sorted(os.fsdecode(landmark + b"/" + photo) for landmark in LANDMARKS for photo in PHOTOS)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 44, 3), dtype=np.uint8)).save(folder / name, "JPEG")
    return names


@pytest.mark.parametrize("folder_name", [b"d\xff\n", b"L" * 240])
def test_odd_names_are_carried_through_all_commands(tmp_path: Path, ultron: Run, folder_name: bytes) -> None:
    folder = tmp_path / os.fsdecode(folder_name)
    names = odd_photos(folder)
    assert read_json(ultron("datasets", "verify", folder, "--json"))["counts"] == {}
    built = read_json(ultron("datasets", "build-gnd", folder, "--json"))
    truth_names = {name.removesuffix(".jpg") for name in names}
    truth = json.loads(Path(built["ground_truth"]).read_text())
    assert {*truth["imlist"], *truth["qimlist"]} == truth_names
    extracted = read_json(ultron("extract", *FLAGS, folder, "--json"))
    assert read_json(ultron("extract", *FLAGS, folder, "--json"))["files"]["database"]["computed"] == 0
    with DescriptorFile(Path(extracted["files"]["database"]["path"])) as stored:
        assert stored.names == truth["imlist"]
        assert os.fsencode(stored.info.dataset) == folder_name
    answer = read_json(ultron("search", "-k", 7, "--json"))
    assert read_ranks(Path(answer["ranks"])).query_names == truth["qimlist"]
    assert {photo["name"] for result in answer["results"] for photo in result["photos"]} == set(truth["imlist"])
    scores = read_json(ultron("evaluate", "--json"))
    assert set(scores["protocols"]["medium"]["ap"]) == set(truth["qimlist"])
    index = read_json(ultron("index", "--json"))
    assert json.loads((Path(index["index"]) / "names.json").read_text()) == truth["imlist"]
    for command in ("search -k 7", "evaluate", "visualize report -k 7", "visualize ranks -k 7"):
        code, out, err = ultron(*command.split())
        assert code == 0, err
        assert "\x1b" not in out + err
    photo = folder / names[0]
    photo.write_bytes(b"broken")
    code, _, err = ultron("extract", *FLAGS, folder)
    assert (code, err.count("\nerror: "), err.count("\n")) == (2, 1, 4), err


def test_text_for_a_terminal() -> None:
    text = "caf\udce9 \ud800 a\nb\x1b[31m \u2028 \u202e \u96ea \u00e9"
    assert printable(text) == r"caf\xe9 \ud800 a\nb\x1b[31m \u2028 \u202e " + "\u96ea \u00e9"
    assert printable("a\nb\r", several_lines=True) == "a\nb\\r"


def test_json_of_names_can_be_encoded_and_read_back() -> None:
    names = ["caf\udce9", "\ud800", "\u96ea"]
    text = dump_json({"names": names})
    assert json.loads(text.encode("utf-8"))["names"] == names
    assert "\u96ea" in text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("toy-gem", "toy-gem"),
        ("my photos, 2-gem/x", "my photos, 2-gem_x"),
        ("a\nb\0c\udce9", "a_b_c_"),
        ("\u96ea", "\u96ea"),
    ],
)
def test_names_of_results(tmp_path: Path, text: str, name: str) -> None:
    assert file_name(text) == name
    assert Workspace(root=tmp_path).result_folder("search", text) == tmp_path / "search" / name


def test_names_of_results_stay_apart_and_short() -> None:
    texts = ["x" * 300, "x" * 301, "\u96ea" * 90 + "a", "\u96ea" * 90 + "b"]
    names = [file_name(text) for text in texts]
    assert len(set(names)) == 4
    assert all(len(name.encode()) <= MOST_NAME_BYTES for name in names)
    assert len(photo_file_name("\u96ea" * 300).encode()) <= 100


def test_milvus_refuses_names_that_are_no_text(tmp_path: Path) -> None:
    from ultron_cli.retrieval.milvus.building import refuse_long_names

    with pytest.raises(UltronError, match=r"names in UTF-8, row 1 has 'caf\\udce9'; rename the photo"):
        refuse_long_names(["a", "caf\udce9"], tmp_path)


def test_json_readers_take_such_names_and_nothing_worse() -> None:
    from ultron_cli.schema.texts import parse_json
    from ultron_cli.schema.values import Misfit

    assert parse_json('{"names": ["caf\\udce9"]}') == {"names": ["caf\udce9"]}
    for text in ('["\\udce9", NaN]', '["\\udce9"', '["\\udce9", 1,]'):
        with pytest.raises(Misfit):
            parse_json(text)
