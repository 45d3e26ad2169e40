"""What makes a score worth little is told with it, and what does not is not."""

from dataclasses import replace

import numpy as np
import pytest

from tests.conftest import shared_or_skip
from ultron_cli.datasets.protocols import GroundTruth, QueryTruth, load_ground_truth
from ultron_cli.evaluation.metrics import RevisitedResult, revisited_map
from ultron_cli.evaluation.soundness import weaknesses
from ultron_cli.retrieval.origin import LearnedFrom, Origin, WeightsSource

ORIGIN = Origin(dataset_folder="/data/set", database_folder="/data/set")


def truth_of(sizes: list[int], n_shared: int = 0) -> GroundTruth:
    """A query per landmark with so many positives of its own; neighbours share n_shared photos."""
    queries, first = [], 0
    for size in sizes:
        rows = np.arange(first, first + size + n_shared)
        queries.append(QueryTruth(bbx=None, easy=rows, hard=np.array([], np.int64), junk=np.array([], np.int64)))
        first += size
    names = [f"p{i}" for i in range(first + n_shared)]
    return GroundTruth(database_names=names, query_names=[f"q{i}" for i in range(len(sizes))], queries=queries)


def result(n: int) -> RevisitedResult:
    return RevisitedResult(mAP=0.5, mP={}, queries_used=n, ap=np.zeros(n), precision=np.zeros((n, 3)))


def warnings_of(truth: GroundTruth, origin: Origin = ORIGIN, dataset: str = "set", n: int = 20) -> list[str]:
    return weaknesses(truth, {"easy": result(n), "hard": result(20)}, dataset, origin)


EVEN = truth_of([4] * 20)


def test_a_sound_score_is_told_as_it_is() -> None:
    assert warnings_of(EVEN) == []


def test_few_queries_are_told() -> None:
    (text,) = warnings_of(EVEN, n=19)
    assert text.startswith("fewer than 20 queries have positives (easy 19)")
    assert warnings_of(EVEN, n=0) == []  # the protocol has no score


@pytest.mark.parametrize(
    ("sizes", "shared", "phrase"),
    [
        ([10, 5, 5], 0, "one landmark has 50 % of all positives (query q0)"),
        ([9, 5, 5], 0, ""),
        ([10, 10], 2, "one landmark has 55 % of all positives (query q0)"),
        ([5, 5, 5, 5], 2, ""),  # neighbours that share less than half are not one landmark
        ([10], 0, ""),
    ],
)
def test_a_landmark_that_outweighs_the_others_is_told(sizes: list[int], shared: int, phrase: str) -> None:
    texts = warnings_of(truth_of(sizes, shared))
    assert (texts[0].startswith(phrase) if phrase else texts == []) and len(texts) == bool(phrase)


def test_queries_of_one_landmark_are_joined() -> None:
    truth = truth_of([6, 3, 3])
    again = replace(
        truth, query_names=[*truth.query_names, "q0b", "q0c"], queries=[*truth.queries, *[truth.queries[0]] * 2]
    )
    assert warnings_of(again)[0].startswith("one landmark has 50 % of all positives (query q0 and 2 more queries)")


SEEN = "whose landmarks are evaluated: scores are too high"
GLDV2 = "which shows the landmarks of 36 of the 70 queries of roxford5k"


@pytest.mark.parametrize(
    ("learned", "dataset", "phrase"),
    [
        (LearnedFrom(dataset="set", folder="/data/set"), "set", SEEN),
        (LearnedFrom(dataset="other", folder="/data/set"), "set", SEEN),
        (LearnedFrom(dataset="set"), "set", SEEN),
        (LearnedFrom(dataset="toy", folder="/data/set/train"), "toy", ""),  # other photos of the dataset, to train on
        (LearnedFrom(dataset="oxford5k", folder="/x"), "roxford5k", SEEN),
        (LearnedFrom(dataset="rparis6k", folder="/x"), "roxford5k", ""),
        (LearnedFrom(dataset="gldv2-clean"), "roxford5k", GLDV2),
        (LearnedFrom(dataset="gldv2-train"), "rparis6k", "which shows the landmarks of 38 of the 70 queries"),
        (LearnedFrom(dataset="copy", folder="/x", n_landmarks=81_313), "roxford5k", GLDV2),
        (LearnedFrom(dataset="gldv2-clean", excluded=True), "roxford5k", ""),
        (LearnedFrom(dataset="rgldv2-clean", n_landmarks=81_296), "roxford5k", ""),
        (LearnedFrom(dataset="sfm120k"), "roxford5k", ""),
        (LearnedFrom(dataset="gldv2-clean"), "instre", ""),
    ],
)
def test_landmarks_seen_in_training_are_told(learned: LearnedFrom, dataset: str, phrase: str) -> None:
    trained = WeightsSource.from_json({"kind": "checkpoint", "trained_on": learned.to_json()})
    for origin, what in (
        (replace(ORIGIN, weights=trained), "the weights were trained on "),
        (replace(ORIGIN, whitening_learned_from=learned), "the whitening was learned on "),
    ):
        stored = Origin.from_json(origin.to_json())
        assert stored == origin
        texts = warnings_of(EVEN, stored, dataset)
        assert len(texts) == bool(phrase)
        if phrase:
            assert texts[0].startswith(what) and phrase in texts[0]


@pytest.mark.parametrize("name", ["roxford5k", "rparis6k"])
def test_the_published_ground_truths_are_sound(name: str) -> None:
    truth = load_ground_truth(shared_or_skip("published sets are sound") / "groundtruth" / f"gnd_{name}.pkl")
    rows = np.tile(np.arange(50), (70, 1))
    assert weaknesses(truth, {"hard": revisited_map(rows, truth, "hard")}, name, Origin()) == []
