"""Several models' maps and several searches side by side: the commands, and the words of errors."""

import dataclasses
import json
from pathlib import Path

import pytest

from tests.conftest import Run
from ultron_cli.evaluation.evaluate import evaluate_ranking
from ultron_cli.retrieval.rankings import read_ranks, write_ranks


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
    queries = json.loads(out)["queries"]
    assert [entry["search"] for entry in queries] == ["gem-test_resnet", "ultron-t"] * 2
    stored = read_ranks(searches[0])
    ap = evaluate_ranking(stored, Path(stored.origin.ground_truth or "")).protocols["medium"].ap
    assert queries[0]["ap"] == pytest.approx(ap[queries[0]["query"]])  # of 30 of 48 photos: as the evaluation counts it

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
