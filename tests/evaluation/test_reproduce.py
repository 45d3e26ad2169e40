"""Published rows run again: from the files that their authors publish, from descriptors that are there, and what is
missing told."""

import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Run, read_json
from ultron_cli.datasets.download.catalog import KNOWN_SETS
from ultron_cli.evaluation.published import PUBLISHED
from ultron_cli.models.weights import IMPORTERS
from ultron_cli.retrieval.descriptors import DescriptorInfo, Role, write_descriptors
from ultron_cli.retrieval.exchange.descriptors import DESCRIPTOR_FORMATS
from ultron_cli.retrieval.origin import ExtractionRecord

PHOTOS, QUERIES = [f"photo{i}" for i in range(12)], ["query0", "query1"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data root of the command `ultron`, with a small ground truth in place of Oxford's."""
    root = tmp_path / "data"
    (root / "roxford5k").mkdir(parents=True)
    boxes = [{"bbx": [0, 0, 9, 9], "easy": [0, 1], "hard": [2], "junk": [3]}] * 2
    content = {"imlist": PHOTOS, "qimlist": QUERIES, "gnd": boxes}
    (root / "roxford5k" / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(content))
    return root


def vectors(seed: int = 0) -> dict[str, np.ndarray]:
    """Photo -> vector, in which the queries' positives are near them."""
    rng = np.random.default_rng(seed)
    rows = {name: rng.normal(size=16).astype(np.float32) for name in (*QUERIES, *PHOTOS)}
    for name in (QUERIES[1], "photo0", "photo2"):
        rows[name] = rows[name] + 2 * rows["query0"]
    return rows


def put_dolg(data: Path, file: str = "roxford_R101_512_crop_test5.pickle") -> Path:
    path = data / "dolg-descriptors" / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(vectors()))
    return path


def put_descriptors(folder: Path, model: str, crop: str = "bbx", scales: Sequence[float] = (1.0,)) -> None:
    folder.mkdir(parents=True)
    rows = vectors()
    roles: tuple[tuple[Role, str, list[str]], ...] = (
        ("query", "queries.h5", QUERIES),
        ("database", "database.h5", PHOTOS),
    )
    for role, file, names in roles:
        table = np.stack([rows[name] / np.linalg.norm(rows[name]) for name in names])
        stored = {"crop": crop, "scales": list(scales), "role": role, "model": {"name": model, "settings": {}}}
        info = DescriptorInfo(
            model=model,
            weights_sha256="",
            extraction=ExtractionRecord(stored=stored),
            dataset="roxford5k",
            role=role,
            crop="bbx" if crop == "bbx" else "none",
            scales=list(scales),
        )
        write_descriptors(folder / file, names, [table], 16, info)


def test_from_the_file_that_its_authors_publish(ultron: Run, data: Path, tmp_path: Path) -> None:
    file = put_dolg(data)
    out = tmp_path / "r.json"
    content = read_json(ultron("reproduce", "dolg-r101/roxford5k", "--out", out, "--json"))
    (row,) = content["rows"]
    assert row["published"] == {"medium": 82.37, "hard": 64.93} and row["missing"] == []
    assert row["made_of"] == str(file)
    n_photos, imported = row["differs"]
    assert n_photos.endswith("photos searched where the dataset has 4,993")
    assert imported == f"descriptors were imported from {file}: what made them only you know"
    assert json.loads(out.read_text())["rows"] == content["rows"]
    folder = next((tmp_path / "runs" / "reproduce").glob("dolg-r101_roxford5k*"))
    files = ("--queries", folder / "queries.h5", "--database", folder / "database.h5")
    evaluated = read_json(ultron("evaluate", *files, "--expected", "--json"))
    assert row["ours"] == {
        name: pytest.approx(100 * evaluated["protocols"][name]["mAP"]) for name in ("medium", "hard")
    }
    assert evaluated["expected"]["row"] == "dolg-r101/roxford5k"
    text = out.with_suffix(".md").read_text()
    ours = f"{row['ours']['medium']:.2f}"
    assert f"| dolg-r101/roxford5k | medium | {ours} | 82.37 | - | {row['ours']['medium'] - 82.37:+.2f} |" in text
    assert ours in ultron("reproduce", "dolg-r101/roxford5k")[1]  # again: its import is replaced


def test_from_descriptors_that_are_there(ultron: Run, data: Path, tmp_path: Path) -> None:
    """In the workspace or named; of several, those made most alike; those of other crops are none."""
    put_descriptors(tmp_path / "runs" / "extract" / "one", "dolg-r50")
    put_descriptors(tmp_path / "five", "dolg-r50", scales=(0.3535, 0.5, 0.7071, 1.0, 1.4142))
    (row,) = read_json(ultron("reproduce", "dolg-r50/roxford5k", "--json"))["rows"]
    assert row["made_of"].endswith("extract/one") and "1 scale where 5 are published" in row["differs"]
    named = ("--descriptors", tmp_path / "five")
    (row,) = read_json(ultron("reproduce", "dolg-r50/roxford5k", *named, "--json"))["rows"]
    assert row["made_of"].endswith("five") and len(row["differs"]) == 2
    rows = read_json(ultron("reproduce", *named, "--json"))["rows"]
    assert [row["row"] for row in rows if row["ours"]] == ["dolg-r50/roxford5k"] and len(rows) == len(PUBLISHED)


def test_the_ground_truth_of_the_extraction_or_a_named_one(ultron: Run, data: Path, tmp_path: Path) -> None:
    put_descriptors(tmp_path / "one", "dolg-r50")
    (data / "roxford5k" / "gnd_roxford5k.pkl").rename(tmp_path / "gnd_roxford5k.pkl")
    named = ("--descriptors", tmp_path / "one")
    assert ultron("reproduce", "dolg-r50/roxford5k", *named)[0] == 1
    assert ultron("reproduce", "dolg-r50/roxford5k", *named, "--gnd", tmp_path / "gnd_roxford5k.pkl")[0] == 0


def test_descriptors_of_no_row_are_said(ultron: Run, data: Path, tmp_path: Path) -> None:
    put_descriptors(tmp_path / "one", "gem-resnet18")
    _, _, err = ultron("reproduce", "dolg-r50/roxford5k", "--descriptors", tmp_path / "one")
    assert "holds descriptors by gem-resnet18 on roxford5k, of which no row is known" in err


def test_descriptors_by_the_name_of_a_row_and_distractors(ultron: Run, data: Path, tmp_path: Path) -> None:
    put_descriptors(tmp_path / "delg", "delg-r101")
    put_descriptors(tmp_path / "million", "delg-r101")
    named = ("--descriptors", tmp_path / "delg", "--distractors", tmp_path / "million" / "database.h5")
    content = read_json(ultron("reproduce", "delg-r101/roxford5k*", *named, "--json"))
    plain, million = content["rows"]
    assert million["distractors"] and million["ours"]["medium"] < plain["ours"]["medium"]
    assert million["published"] == {"medium": 63.7, "hard": 37.5}


def test_what_is_missing_and_what_gets_it(ultron: Run, data: Path) -> None:
    (data / "roxford5k" / "gnd_roxford5k.pkl").unlink()
    code, out, err = ultron("reproduce", "dolg-r50/roxford5k")
    assert code == 1 and "none of 1 row could run" in err
    lines = out.splitlines()
    place = lines.index("missing for dolg-r50/roxford5k; get it: ultron datasets download dolg-descriptors")
    assert lines[place + 1 : place + 3] == [
        "  roxford_R50_512_crop_test5.pickle, the descriptors that its authors publish: https://raw.githubusercontent."
        "com/feymanpriv/DOLG/63b117d76f660db9617c2081ec771e3cbdf4bcc8/revisitop/features/"
        "roxford_R50_512_crop_test5.pickle (size not published)",
        "  ground truth of roxford5k: http://cmp.felk.cvut.cz/revisitop/data/datasets/roxford5k/gnd_roxford5k.pkl "
        "(149,871 bytes)",
    ]
    code, out, _ = ultron("reproduce")
    assert code == 0 and "missing for token-r101/roxford5k+1m" in out
    code, out, _ = ultron("reproduce", "superglobal-r50-reranked")
    assert code == 1 and "--from cvnet" in out and "62.36" in out
    code, out, _ = ultron("reproduce", "delg-r101-reranked/roxford5k")
    assert code == 1 and "  re-ranking by local features\n" in out and "get it: its authors' program" in out


def test_a_file_that_is_no_pickle_of_descriptors(ultron: Run, data: Path) -> None:
    path = put_dolg(data)
    path.write_bytes(path.read_bytes()[:100])
    code, out, _ = ultron("reproduce", "dolg-r101/roxford5k")
    assert code == 1 and "dolg-r101/roxford5k could not run: " in out and str(path) in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("dolg-r102",), "no row is named 'dolg-r102'; see `ultron reproduce`; did you mean dolg-r101"),
        (("--distractors", "x.h5"), "--distractors are of one network; name the rows of one system"),
        (("--weights", "x.pt"), "--weights and --run are of one network"),
        (("dolg-r50", "--out", "x.md"), "--out names the JSON file"),
        (("--descriptors", "nowhere"), "nowhere/queries.h5"),
    ],
)
def test_wrong_values(ultron: Run, arguments: tuple[str, ...], words: str) -> None:
    code, _, err = ultron("reproduce", *arguments)
    assert code == 2 and words in err


def test_every_source_is_one_that_is_known() -> None:
    for row in PUBLISHED:
        if row.descriptors:
            assert row.descriptors.file in [part.file for part in KNOWN_SETS[row.descriptors.known_set].parts]
            assert row.descriptors.format in DESCRIPTOR_FORMATS
            # What a row is told to get brings its ground truth too.
            files = [part.file for part in KNOWN_SETS[row.descriptors.known_set].parts]
            assert f"gnd_{row.dataset}.pkl" in files
        if row.weights:
            assert row.weights.importer in IMPORTERS
