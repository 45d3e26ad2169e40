"""A stored search with its ground truth: scores and ranks of single queries."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ultron_cli.datasets.protocols import load_ground_truth
from ultron_cli.retrieval.origin import ExtractionRecord, Origin
from ultron_cli.retrieval.rankings import Ranking
from ultron_cli.visualization.scene import open_scene


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
    assert scene.title(0, "hard") == f"{scene.model} on toy, hard protocol"
    unlabelled = dataclasses.replace(scene, queries=None)
    assert unlabelled.title(0, "hard") == f"{scene.model} on toy" and unlabelled.typical_rows(2, "hard") == [0]
    assert scene.ranks_of(0, [names[positives[0]], names[-1], "unknown"]) == [2, 1, None]


def test_the_query_of_median_ap_is_drawn_where_none_is_named(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AP 100, 30, none, 50, 80 percent: the median of the four is 50 or 80, the lower is taken; 2 are at a quarter and
    three quarters."""
    origin = Origin(dataset="toy", dataset_folder=str(toy), ground_truth=str(toy / "gnd_toy.json"))
    ranking = Ranking(
        query_names=list("abcde"),
        database_names=["x"],
        rows=np.zeros((5, 1), np.int64),
        scores=None,
        origin=origin,
    )
    scene = open_scene(ranking)
    precisions = [1.0, 0.3, None, 0.5, 0.8]
    monkeypatch.setattr(type(scene), "average_precision", lambda self, row, protocol: precisions[row])
    assert scene.query_row(None) == 3 and scene.query_row("b") == 1
    assert scene.typical_rows(2, "medium") == [1, 4] and scene.typical_rows(4, "medium") == [1, 3, 4, 0]
    assert scene.typical_rows(9, "medium") == [0, 1, 2, 3, 4]
