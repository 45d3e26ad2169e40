"""A fault that is planted in photos comes out as the worst slice, through the files of a search."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Run, read_json
from ultron_cli.datasets.protocols import load_ground_truth
from ultron_cli.datasets.toy import ToyConfig, make_toy
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.evaluate import ScoredRanking, score_ranking
from ultron_cli.evaluation.explanation import explain
from ultron_cli.retrieval.origin import Origin
from ultron_cli.retrieval.rankings import Ranking, write_ranks

pytestmark = pytest.mark.slow  # renders landmarks

CONFIG = ToyConfig(
    seed=5,
    n_train_landmarks=0,
    n_eval_landmarks=9,
    n_queries_per_landmark=2,
    n_database_photos=12,
    n_distractors=20,
    max_side_px=48,
    difficulty=0.7,
)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "toy"
    make_toy(folder, CONFIG, workers=0)
    return folder


def light_of(folder: Path) -> dict[str, str]:
    photos = json.loads((folder / "toy.json").read_text())["photos"]
    return {Path(photo["file"]).stem: photo["view"]["light"] for photo in photos}


def histogram(pixels: np.ndarray) -> np.ndarray:
    """(64,) float32 unit descriptor: how frequent each of 4 x 4 x 4 colours is, which darkness changes."""
    codes = (pixels // 64).astype(np.int64) @ [16, 4, 1]
    counts = np.sqrt(np.bincount(codes.ravel(), minlength=64)).astype(np.float32)
    return counts / np.linalg.norm(counts)


def ranking_of(folder: Path, change: Callable[[str, np.ndarray], np.ndarray]) -> Ranking:
    """The ranking by colours. change: of the pixels of a database photo, by its name."""
    truth = load_ground_truth(folder / "gnd_toy.json")

    def pixels(name: str) -> np.ndarray:
        return np.asarray(Image.open(folder / "jpg" / f"{name}.jpg"))

    queries = np.stack([histogram(pixels(name)) for name in truth.query_names])
    database = np.stack([histogram(change(name, pixels(name))) for name in truth.database_names])
    scores = queries @ database.T
    rows = np.argsort(-scores, axis=1, kind="stable")
    return Ranking(
        query_names=truth.query_names,
        database_names=truth.database_names,
        rows=rows,
        scores=np.take_along_axis(scores, rows, axis=1),
        origin=Origin(dataset="toy", dataset_folder=str(folder), ground_truth=str(folder / "gnd_toy.json")),
    )


def darkened(folder: Path, light: str) -> Ranking:
    lights = light_of(folder)
    return ranking_of(
        folder, lambda name, pixels: (pixels * 0.15).astype(np.uint8) if lights[name] == light else pixels
    )


def scored(ranking: Ranking, folder: Path) -> ScoredRanking:
    return score_ranking(ranking, folder / "gnd_toy.json", ("medium",))


@pytest.mark.parametrize("light", ["night", "noon"])
def test_photos_of_one_light_that_are_darkened_are_the_worst_slice(rendered: Path, light: str) -> None:
    slices = explain(scored(darkened(rendered, light), rendered), "medium", ["all"]).slices
    assert slices[0].name == f"light {light}"
    assert slices[0].is_worse


def test_a_search_without_a_fault_has_no_worst_slice_of_a_table_of_chance(rendered: Path, tmp_path: Path) -> None:
    truth = load_ground_truth(rendered / "gnd_toy.json")
    rng = np.random.default_rng(0)
    rows = [f"{name},{rng.choice(['a', 'b', 'c'])}" for name in (*truth.database_names, *truth.query_names)]
    (tmp_path / "chance.csv").write_text("\n".join(["photo,camera", *rows]))
    ranking = ranking_of(rendered, lambda _, pixels: pixels)
    explanation = explain(scored(ranking, rendered), "medium", [str(tmp_path / "chance.csv")])
    assert {part.attribute for part in explanation.slices} == {"camera", "query-camera"}
    assert not any(part.is_worse for part in explanation.slices)
    assert "no slice is below the rest beyond chance" in explanation.text()


def test_a_protocol_without_positives_has_no_explanation(rendered: Path) -> None:
    result = scored(ranking_of(rendered, lambda _, pixels: pixels), rendered)
    empty = replace(result, results={"medium": replace(result.results["medium"], queries_used=0)})
    with pytest.raises(UltronError, match="no query has positives under protocol medium; choose another `protocol`"):
        explain(empty, "medium", ["all"])


def test_the_command_shows_and_stores_the_explanation(ultron: Run, rendered: Path, tmp_path: Path) -> None:
    write_ranks(tmp_path / "r.h5", darkened(rendered, "night"))
    plain = read_json(ultron("evaluate", "--ranks", tmp_path / "r.h5", "--json", "--out", tmp_path / "plain.json"))
    assert not {"slices", "ceilings", "confusions", "hubness"} & set(plain)
    arguments = (
        "evaluate",
        "--ranks",
        tmp_path / "r.h5",
        "--slices",
        "all",
        "--ceilings",
        "--out",
        tmp_path / "e.json",
    )
    code, out, err = ultron(*arguments)
    assert code == 0, err
    assert "slices of medium (mAP" in out and "light night is worst, " in out
    assert "what re-ranking the first photos could at best give (medium, " in out
    content = json.loads((tmp_path / "e.json").read_text())
    assert content["protocols"] == plain["protocols"]
    assert content["slices"]["medium"][0]["value"] == "night"
    ceilings = content["ceilings"]["medium"]
    assert list(ceilings) == ["10", "50", "100", "128"] and ceilings["128"] == pytest.approx(1)
    assert content["confusions"]["medium"][0].keys() == {"landmark", "taken_for", "n_photos", "n_queries"}
    assert content["hubness"]["medium"]["places"] == 10
    code, _, err = ultron("compare", tmp_path / "plain.json", tmp_path / "e.json")
    assert code == 0, err
    hard = ultron("evaluate", "--ranks", tmp_path / "r.h5", "--slices", "light", "--protocol", "hard")
    assert "slices of hard" in hard[1] and "label" not in hard[1]
    code, _, err = ultron("evaluate", "--ranks", tmp_path / "r.h5", "--slices", "lihgt")
    assert code == 2 and "'lihgt' is neither a file nor an attribute; did you mean light" in err
