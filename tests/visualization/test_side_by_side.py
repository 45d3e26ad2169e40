"""Several models' maps in columns, several searches in rows with moves: at known places, through the commands, and the
words of errors."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Run
from tests.visualization.pictures import before_after
from ultron_cli.datasets.protocols import load_ground_truth
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.evaluate import evaluate_ranking
from ultron_cli.retrieval.origin import ExtractionRecord, Origin
from ultron_cli.retrieval.rankings import Ranking, read_ranks, write_ranks
from ultron_cli.visualization import drawing
from ultron_cli.visualization.cam.columns import CamColumn, columns_figure
from ultron_cli.visualization.cam.similarity import Cam, overlay
from ultron_cli.visualization.drawing import QueryPhoto, RankedPhoto
from ultron_cli.visualization.ranked.systems import (
    DOWN,
    SAME,
    UP,
    QueryBlock,
    SystemRow,
    leaving_text,
    move_text,
    systems_figure,
)
from ultron_cli.visualization.scene import open_scene


def plain(value: int) -> np.ndarray:
    return np.full((100, 100, 3), value, np.uint8)


def colour(text: str) -> list[int]:
    return [int(text[i : i + 2], 16) for i in (1, 3, 5)]


def test_how_far_a_photo_moved() -> None:
    """Five are shown above."""
    assert move_text(1, 5, 5) == ("\u25b2 up 4", UP) and move_text(4, 2, 5) == ("\u25bc down 2", DOWN)
    assert move_text(3, 3, 5) == ("= same place", SAME) and move_text(2, 37, 5) == ("\u25b2 from 37", UP)
    assert move_text(9, 7, 5) == ("\u25bc from 7", DOWN) and move_text(1, None, 5) == ("\u25b2 newly found", UP)
    assert leaving_text(24) == "\u25bc to 24" and leaving_text(None) == "\u25bc not found"


def test_arrows_lie_between_the_rows(tmp_path: Path) -> None:
    """Blue ink of arrows right above the photos that came up, none above one that stayed or where moves are not
    drawn."""
    block = before_after()
    moved = np.asarray(Image.open(systems_figure([block], "t", tmp_path / "moves.png")))
    still = [SystemRow(row.name, row.photos, row.subtitle) for row in block.systems]
    apart = np.asarray(Image.open(systems_figure([QueryBlock(block.query, still)], "t", tmp_path / "still.png")))
    assert moved.shape[0] > apart.shape[0]
    blue = (np.abs(moved.astype(int) - colour(UP)).sum(axis=2) < 20).sum(axis=0)
    brown = (np.abs(moved.astype(int) - colour(DOWN)).sum(axis=2) < 20).sum(axis=0)
    assert not (np.abs(apart.astype(int) - colour(UP)).sum(axis=2) < 20).any()
    first = drawing.MARGIN_PX + 3 * drawing.FRAME_PX + 240 + 34 + 170
    places = [first + i * (240 + 10 + 14) for i in range(5)]  # of photos 240 px wide
    inked = [(blue[x + 100 : x + 140].sum() > 20, brown[x + 100 : x + 140].sum() > 20) for x in places]
    assert [pair[0] for pair in inked] == [
        True,
        True,
        True,
        False,
        True,
    ]  # the arrow to the first crosses over the second
    assert inked[1][1] and not inked[3][1]


def test_columns_hold_each_models_heat(tmp_path: Path) -> None:
    """Maps of other sizes than the photo, all hot in one model and all cold in the other."""
    photos = [RankedPhoto(plain(128), 1, 0.9, "right", "a")]
    hot = CamColumn("hot", Cam(np.ones((5, 5), np.float32), 0.9), [Cam(np.ones((7, 9), np.float32), 0.9)], None, [3])
    cold = CamColumn(
        "cold", Cam(np.zeros((50, 50), np.float32), 0.9, True), [Cam(np.zeros((3, 3), np.float32), 0.9, True)]
    )
    path = columns_figure(
        QueryPhoto(plain(60), "q"), photos, [hot, cold], "model on data", tmp_path / "c.png", searched="model"
    )
    picture = np.asarray(Image.open(path))
    step, first = 280 + 10 + 14, drawing.MARGIN_PX + drawing.FRAME_PX
    bottom = picture.shape[0] - drawing.MARGIN_PX - drawing.LABEL_HEIGHT_PX - drawing.FRAME_PX - 20
    grey = np.full((1, 1, 3), 128, np.uint8)
    assert picture[bottom, first + 140].tolist() == [128] * 3
    assert (
        picture[bottom, first + 20 + step + 140].tolist() == overlay(grey, np.ones((1, 1), np.float32))[0, 0].tolist()
    )
    assert (
        picture[bottom, first + 20 + 2 * step + 140].tolist()
        == overlay(grey, np.zeros((1, 1), np.float32))[0, 0].tolist()
    )
    for columns, message in (([hot], "of 2 to 8 models, found 1"), ([hot] * 9, "of 2 to 8 models, found 9")):
        with pytest.raises(UltronError, match=message):
            columns_figure(QueryPhoto(plain(60), "q"), photos, columns, "t", tmp_path / "no.png", searched="model")
    with pytest.raises(UltronError, match="at least one database photo"):
        columns_figure(QueryPhoto(plain(60), "q"), [], [hot, cold], "t", tmp_path / "no.png", searched="model")
    with pytest.raises(UltronError, match="at most 10 photos a row, found 11; lower -k"):
        systems_figure(
            [QueryBlock(QueryPhoto(plain(60), "q"), [SystemRow("s", photos * 11)])], "t", tmp_path / "no.png"
        )


@pytest.fixture
def searches(ultron: Run, toy: Path, tmp_path: Path) -> list[Path]:
    """Rank files of two untrained models of other kinds, sizes and preprocessing on rendered landmarks."""
    files = []
    for name, network, side in (("a", ("--backbone", "test_resnet"), 96), ("b", ("--model", "ultron-t"), 64)):
        where = tmp_path / name
        assert (
            ultron(
                "extract",
                "--dataset",
                toy,
                *network,
                "--untrained",
                "--scales",
                1,
                "--workers",
                0,
                "--max-side",
                side,
                "--out",
                where,
            )[0]
            == 0
        )
        files.append(tmp_path / f"{name}.h5")
        code, _, error = ultron(
            "search",
            "--queries",
            where / "queries.h5",
            "--database",
            where / "database.h5",
            "-k",
            30,
            "--out",
            files[-1],
        )
        assert code == 0, error
    return files


def test_commands(searches: list[Path], ultron: Run, toy: Path, tmp_path: Path) -> None:
    both = ("--ranks", searches[0], "--ranks", searches[1])
    code, out, error = ultron(
        "visualize",
        "cam",
        *both,
        "--label",
        "NA",
        "--label",
        "SCALA",
        "--layer",
        "layer3",
        "--layer",
        "stage3",
        "-k",
        2,
        "--json",
    )
    assert code == 0, error
    result = json.loads(out)
    assert Path(result["figure"]).is_file() and [(part["model"], part["layer"]) for part in result["models"]] == [
        ("NA", "layer3"),
        ("SCALA", "stage3"),
    ]
    first, second = (part["photos"] for part in result["models"])
    assert [photo["name"] for photo in first] == [photo["name"] for photo in second] and first[0]["cosine"] != second[
        0
    ]["cosine"]
    assert {path.name for path in Path(result["models"][1]["overlays"]).iterdir()} == {
        "query.png",
        *(f"{p['rank']:03d}-{p['name']}.png" for p in first),
    }

    code, out, error = ultron(
        "visualize", "ranks", *both, "--moves", "-k", 4, "--queries-shown", 2, "--out", tmp_path / "r.png", "--json"
    )
    assert code == 0, error
    found = json.loads(out)["queries"]
    assert [entry["search"] for entry in found] == ["gem-test_resnet", "ultron-t"] * 2
    stored = read_ranks(searches[0])
    ap = evaluate_ranking(stored, Path(stored.origin.ground_truth or "")).protocols["medium"].ap
    assert found[0]["ap"] == pytest.approx(ap[found[0]["query"]])  # of 30 of 48 photos: as the evaluation counts it

    for command, message in (
        (("ranks", "--ranks", searches[0], "--moves"), "--moves compares searches; give --ranks twice"),
        (("ranks", *both, "--label", "a"), "--label must be given once per search, found 1 for 2"),
        (("cam", *both, "--run", "x"), "several --ranks bring their own models; leave out --run and --weights"),
        (
            ("cam", *both, "--layer", "a", "--layer", "b", "--layer", "c"),
            "--layer must be given once per model, found 3 for 2",
        ),
        (("cam", "--ranks", searches[0], "--run", "x"), "maps side by side need two models or more"),
        (("ranks", *both, "-k", 11), "at most 10 photos a row, found 11; lower -k"),
        (("cam", *both, "--query", "nobody"), "query 'nobody' is not in the search"),
    ):
        code, _, error = ultron("visualize", *command)
        assert code == 2 and message in error, error
    other = read_ranks(searches[1])
    another = dataclasses.replace(other.origin, dataset="another")
    write_ranks(tmp_path / "o.h5", dataclasses.replace(other, origin=another))
    code, _, error = ultron("visualize", "ranks", "--ranks", searches[0], "--ranks", tmp_path / "o.h5")
    assert code == 2 and "searches side by side must be of one dataset, found toy and another" in error


def test_checkpoints_in_columns(searches: list[Path], ultron: Run, tmp_path: Path) -> None:
    """Two checkpoints beside the photos of a search by another model, with its photo size."""
    import torch

    from ultron_cli.models import create_model
    from ultron_cli.models.weights.checkpoints import save_checkpoint

    for seed in (1, 2):
        torch.manual_seed(seed)
        save_checkpoint(tmp_path / f"m{seed}.pt", create_model("gem", backbone="test_resnet"), {})
    files = ("--weights", tmp_path / "m1.pt", "--weights", tmp_path / "m2.pt")
    code, out, error = ultron("visualize-cam", "--ranks", searches[1], *files, "-k", 1, "--json")
    assert code == 0, error
    assert [part["model"] for part in json.loads(out)["models"]] == ["m1", "m2"]


def test_average_precision_of_partial_rankings(toy: Path) -> None:
    """Two positives, the first found at rank 2 behind a distractor: as the evaluation, (0 + 1/2) / 2 / 2 of the
    area."""
    truth = load_ground_truth(toy / "gnd_toy.json")
    positives = truth.split(0, "medium")[0][:1]
    names = [*truth.database_names, "distractor:x"]
    rows = np.array([[len(names) - 1, positives[0]]])
    origin = Origin(
        dataset="toy",
        dataset_folder=str(toy),
        database_folder=str(toy),
        ground_truth=str(toy / "gnd_toy.json"),
        extraction=ExtractionRecord(stored={"crop": "bbx"}),
    )
    ranking = Ranking(
        query_names=truth.query_names[:1],
        database_names=names,
        rows=rows.astype(np.int64),
        scores=np.array([[0.9, 0.8]], np.float32),
        origin=origin,
    )
    scene = open_scene(ranking)
    n_positives = len(truth.split(0, "medium")[0])
    assert scene.average_precision(0, "medium") == pytest.approx((0 + 1 / 2) / 2 / n_positives)
    assert scene.subtitle(0, "medium") == f"AP {100 * 0.25 / n_positives:.1f} in the first 2"
    assert scene.ranks_of(0, [names[positives[0]], names[-1], "unknown"]) == [2, 1, None]
