"""Weights tuned by mAP: on other queries noise does not help, on the evaluated ones it seems to."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Run, read_json
from tests.evaluation.truths_for_tests import stable_ranks
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.evaluate import evaluate_ranking
from ultron_cli.evaluation.fusion_tuning import TuningConfig, tune
from ultron_cli.retrieval.fusion.parts import JoinedParts
from ultron_cli.retrieval.fusion.rankings import FusionConfig, ScoreFusion, same_for_all
from ultron_cli.retrieval.origin import Origin
from ultron_cli.retrieval.rankings import Ranking, read_ranks, write_ranks

N_LANDMARKS, N_QUERIES, N_PHOTOS = 20, 60, 120
QUERIES = [f"landmark{i % N_LANDMARKS}_{i}" for i in range(N_QUERIES)]
PHOTOS = [f"photo{i}" for i in range(N_PHOTOS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ranking that knows something, another that knows more, and 4 of noise; queries of twenty landmarks."""
    path = tmp_path_factory.mktemp("fused")
    entries = []
    for i in range(N_QUERIES):
        first = 5 * (i % N_LANDMARKS)
        entries.append({"bbx": None, "easy": [first, first + 1], "hard": [first + 2, first + 3], "junk": [first + 4]})
    (path / "gnd_set.json").write_text(json.dumps({"imlist": PHOTOS, "qimlist": QUERIES, "gnd": entries}))
    rng = np.random.default_rng(3)
    signal = np.zeros((N_QUERIES, N_PHOTOS))
    for i in range(N_QUERIES):
        signal[i, 5 * (i % N_LANDMARKS) : 5 * (i % N_LANDMARKS) + 4] = 1
    for name, strength in (("plain", 1.2), ("better", 1.8), *((f"noise{i}", 0.0) for i in range(4))):
        scores = (strength * signal + rng.normal(size=signal.shape)).astype(np.float32)
        rows = stable_ranks(scores)
        ranking = Ranking(
            query_names=QUERIES,
            database_names=PHOTOS,
            rows=rows,
            scores=np.take_along_axis(scores, rows, axis=1),
            origin=Origin(dataset="set", model=name, ground_truth=str(path / "gnd_set.json")),
        )
        write_ranks(path / f"{name}.h5", ranking)
    return path


def in_memory(fusion: ScoreFusion, settings: np.ndarray) -> Ranking:
    """The joined ranking of every query."""
    ranked = [fusion.of_query(query)(settings[query]) for query in range(N_QUERIES)]
    rows, scores = np.stack([part.rows for part in ranked]), np.stack([part.scores for part in ranked])
    return replace(fusion.header, rows=rows, scores=scores)


def tuned_map(folder: Path, *names: str, **config: object) -> float:
    """mAP (medium) of what tuned weights give."""
    with JoinedParts([folder / f"{name}.h5" for name in names]) as joined:
        fusion = ScoreFusion(joined, FusionConfig(method="combsum", norm="zscore"))
        tuning = TuningConfig(protocol="medium", **config)  # type: ignore[arg-type]  # a test's settings
        tuned = tune(fusion, folder / "gnd_set.json", tuning)
        ranking = in_memory(fusion, tuned.settings)
    return evaluate_ranking(ranking, folder / "gnd_set.json", ["medium"]).protocols["medium"].mAP or 0


def plain_map(folder: Path) -> float:
    evaluation = evaluate_ranking(read_ranks(folder / "plain.h5"), folder / "gnd_set.json", ["medium"])
    return evaluation.protocols["medium"].mAP or 0


def test_planted_overfit(folder: Path) -> None:
    """Noise beats the plain ranking where its weights are tuned on the evaluated queries, and only there."""
    plain = plain_map(folder)
    noise = [f"noise{i}" for i in range(4)]
    optimistic = [tuned_map(folder, "plain", name, optimistic=True) for name in noise]
    honest = [tuned_map(folder, "plain", name) for name in noise]
    assert min(optimistic) >= plain and np.mean(optimistic) > plain + 0.002
    assert np.mean(honest) < plain - 0.002


def test_a_ranking_that_knows_more_helps_on_other_queries(folder: Path) -> None:
    assert tuned_map(folder, "plain", "better") > plain_map(folder) + 0.1


def test_each_query_gets_what_was_tuned_without_its_landmark(folder: Path) -> None:
    """By hand: the best mean AP over the queries of the other folds."""
    with JoinedParts([folder / "plain.h5", folder / "better.h5"]) as joined:
        fusion = ScoreFusion(joined, FusionConfig(method="rrf"))
        tuned = tune(fusion, folder / "gnd_set.json", TuningConfig(protocol="hard", folds=3, seed=4))
        ap = []
        for candidate in fusion.candidates():
            ranking = in_memory(fusion, same_for_all(candidate, N_QUERIES))
            scores = evaluate_ranking(ranking, folder / "gnd_set.json", ["hard"]).protocols["hard"]
            ap.append([scores.ap[name] for name in QUERIES])
        table = np.array(ap).T
        candidates = fusion.candidates()
    assert sorted(name for fold in tuned.folds for name in fold.queries) == sorted(QUERIES)
    assert len(tuned.folds) == 3 == len(tuned.record.settings)
    for fold in tuned.folds:
        landmarks = {name.partition("_")[0] for name in fold.queries}
        assert len(fold.queries) == 3 * len(landmarks)  # whole landmarks
        others = [i for i, name in enumerate(QUERIES) if name not in fold.queries]
        best = int(table[others].mean(axis=0).round(12).argmax())
        assert fold.settings == tuple(candidates[best])
        assert fold.mAP == pytest.approx(table[others, best].mean())
        for name in fold.queries:
            assert tuple(tuned.settings[QUERIES.index(name)]) == fold.settings


def test_too_few_landmarks_or_folds(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UltronError, match="`folds` must be at least 2, found 1, or have them all the same"):
        TuningConfig(protocol="hard", folds=1)
    entries = [{"bbx": None, "easy": [0], "hard": [], "junk": []}] * N_QUERIES
    (tmp_path / "gnd_one.json").write_text(json.dumps({"imlist": PHOTOS, "qimlist": QUERIES, "gnd": entries}))
    with JoinedParts([folder / "plain.h5", folder / "better.h5"]) as joined:
        fusion = ScoreFusion(joined, FusionConfig())
        with pytest.raises(UltronError, match="found 1 landmark among 60 queries; give `weights`"):
            tune(fusion, tmp_path / "gnd_one.json", TuningConfig(protocol="easy"))
        with pytest.raises(UltronError, match="no query to tune on has positives under this protocol"):
            tune(fusion, tmp_path / "gnd_one.json", TuningConfig(protocol="hard", optimistic=True))


def test_optimistic_tuning_is_said_everywhere(ultron: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.h5"
    files = [folder / "plain.h5", folder / "noise0.h5"]
    said = "tuned on the queries that are evaluated"
    code, text, _ = ultron("fuse", *files, "--method", "combsum", "--tune", "medium", "--optimistic", "--out", out)
    assert code == 0 and said in text
    assert read_ranks(out).origin.to_json()["fusion"]["tuning"]["optimistic"] is True  # type: ignore[index]
    evaluated = read_json(ultron("evaluate", "--ranks", out, "--out", tmp_path / "e.json", "--json"))
    assert any(said in warning for warning in evaluated["warnings"])
    assert evaluated["provenance"]["fusion"]["tuning"]["optimistic"] is True
    assert said in ultron("evaluate", "--ranks", out)[1]
    for style in ("markdown", "latex", "csv"):
        assert said in ultron("evaluate", "--ranks", out, "--format", style)[1]
    assert said in ultron("compare", folder / "plain.h5", out)[1]
    assert said in ultron("compare", folder / "plain.h5", tmp_path / "e.json", folder / "better.h5")[1]
    content = read_json(ultron("compare", tmp_path / "e.json", tmp_path / "e.json", "--json"))
    assert len(content["cautions"]) == 2 and said in content["cautions"][0]


def test_queries_that_the_ground_truth_lacks_get_what_is_best_overall(folder: Path, tmp_path: Path) -> None:
    for name in ("plain", "better"):
        ranking = read_ranks(folder / f"{name}.h5")
        longer = replace(
            ranking,
            query_names=[*QUERIES, "other"],
            rows=np.concatenate([ranking.rows, ranking.rows[:1]]),
            scores=np.concatenate([ranking.with_scores(), ranking.with_scores()[:1]]),
        )
        write_ranks(tmp_path / f"{name}.h5", longer)
    with JoinedParts([tmp_path / "plain.h5", tmp_path / "better.h5"]) as joined:
        fusion = ScoreFusion(joined, FusionConfig())
        tuned = tune(fusion, folder / "gnd_set.json", TuningConfig(protocol="medium"))
        plain = tune(fusion, folder / "gnd_set.json", TuningConfig(protocol="medium", optimistic=True))
    assert np.array_equal(tuned.settings[-1], plain.settings[0])
