"""`ultron ranks`: out to another tool and in again, and the commands that work on what came in."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Run, read_json
from ultron_cli.datasets.folder import open_folder
from ultron_cli.retrieval.descriptors import DescriptorInfo, write_descriptors
from ultron_cli.retrieval.origin import DescriptorProvenance


@pytest.fixture(scope="module")
def described(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with made-up descriptors of the rendered landmarks."""
    folder = tmp_path_factory.mktemp("described")
    dataset = open_folder(toy)
    rng = np.random.default_rng(0)
    for role, names in (("query", dataset.query_names), ("database", dataset.database_names)):
        rows = rng.standard_normal((len(names), 8)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        provenance = DescriptorProvenance(dataset_folder=str(toy), ground_truth=str(dataset.ground_truth_path))
        info = DescriptorInfo(
            model="m",
            weights_sha256="",
            dataset=dataset.name,
            role=role,  # type: ignore[arg-type]
            crop="none",
            scales=[1.0],
            provenance=provenance,
        )
        write_descriptors(folder / f"{role}.h5", names, [rows], 8, info)
    return folder


@pytest.fixture
def ranks(described: Path, tmp_path: Path, ultron: Run) -> Path:
    out = tmp_path / "ranks.h5"
    files = ("--queries", described / "query.h5", "--database", described / "database.h5")
    code, _, err = ultron("search", *files, "-k", 10, "--out", out)
    assert code == 0, err
    return out


def test_there_and_back(ranks: Path, toy: Path, tmp_path: Path, ultron: Run) -> None:
    gnd = open_folder(toy).ground_truth_path
    run, back = tmp_path / "run.trec", tmp_path / "back.h5"
    exported = read_json(ultron("ranks", "export", ranks, "--format", "trec", "--out", run, "--json"))
    assert exported["photos"] == len(run.read_text().splitlines()) == 10 * exported["queries"]
    imported = read_json(ultron("ranks", "import", run, "--gnd", gnd, "--out", back, "--json"))
    assert imported["made_by"]["imported"] == f"{run} (trec)" and imported["ranked_per_query"] == "10"
    scores = [
        read_json(ultron("evaluate", "--ranks", path, "--json"))["protocols"]["medium"]["ap"] for path in (ranks, back)
    ]
    assert scores[0] == scores[1]
    code, out, err = ultron("compare", ranks, back)
    assert code == 0 and "imported: A none, B " in out, err
    code, out, err = ultron("visualize", "ranks", "--ranks", back, "-k", 3, "--out", tmp_path / "x.png")
    assert code == 0, err
    code, out, err = ultron("visualize", "report", "--ranks", back, "--out", tmp_path / "report.html")
    assert code == 0, err
    code, out, _ = ultron("ranks", "info", back)
    assert code == 0 and "that of another tool" in out and "ranked per query" in out


def test_a_reranker_comes_in(ranks: Path, tmp_path: Path, ultron: Run) -> None:
    query, *_ = json.loads(
        ultron("ranks", "export", ranks, "--format", "ranx", "--out", "/dev/stdout", "-q")[1]
    ).items()
    name, photos = query
    last = list(photos)[-1]
    (tmp_path / "new.csv").write_text(f"query,photo,score\n{name},{last},1\n")
    arguments = ("ranks", "import", tmp_path / "new.csv", "--onto", ranks, "--out", tmp_path / "new.h5")
    assert ultron(*arguments)[0] == 0
    out = json.loads(
        ultron("ranks", "export", tmp_path / "new.h5", "--format", "json", "--out", "/dev/stdout", "-q")[1]
    )
    (of_query,) = [result for result in out["results"] if result["query"] == name]
    assert [photo["name"] for photo in of_query["photos"]] == [last, *list(photos)[:-1]]
    code, _, err = ultron(*arguments, "--gnd", ranks)
    assert code == 2 and "--onto knows photos and queries; leave out --gnd" in err
    code, out, err = ultron("evaluate", "--ranks", tmp_path / "new.h5")
    assert code == 0 and f"ordered anew by {tmp_path / 'new.csv'}" in out, err


def test_a_collection_in_itself(described: Path, toy: Path, tmp_path: Path, ultron: Run) -> None:
    database, out = described / "database.h5", tmp_path / "self.h5"
    assert ultron("search", "--queries", database, "--database", database, "-k", 6, "--out", out)[0] == 0
    arguments = ("--format", "colmap", "--self", "-k", 5, "--out", tmp_path / "pairs.txt")
    code, _, err = ultron("ranks", "export", out, *arguments)
    assert code == 0, err
    pairs = [line.split(" ") for line in (tmp_path / "pairs.txt").read_text().splitlines()]
    assert all(len(pair) == 2 and pair[0] != pair[1] for pair in pairs)
    assert len({frozenset(pair) for pair in pairs}) == len(pairs) > 50
    photo_folder = open_folder(toy).photo_folder
    assert all(os.path.isfile(photo_folder / name) for pair in pairs for name in pair)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("export", "--format", "qrels"),
            "which photos are positives depends on the protocol; name one with --protocol",
        ),
        (
            ("export", "--format", "qrels", "--protocol", "easy", "-k", 3, "--self", "--scores", "stored"),
            "qrels hold positives and no ranking; leave out -k and --self and --scores",
        ),
        (("export", "--format", "trec", "--gnd", "g.json"), "and none is named; leave out --gnd"),
        (("export", "--format", "hloc", "--self"), "--self is for photos that are searched among themselves; "),
        (("export", "--format", "tre"), "--format must be one of trec, csv"),
        (("import",), "does not tell its format by its suffix; name its --format, one of trec"),
        (("import", "--format", "trec"), "name their --gnd, their descriptors with --database, or with --onto the"),
        (("import", "--format", "hloc"), "--format must be one of trec, csv, ranx, json, ilias, kapture"),
    ],
)
def test_what_is_refused(ranks: Path, tmp_path: Path, ultron: Run, arguments: tuple[object, ...], words: str) -> None:
    command, *flags = arguments
    code, _, err = ultron("ranks", command, ranks, *flags, "--out", tmp_path / "out")
    assert code == 2 and words in err, err
    assert not (tmp_path / "out").exists()
