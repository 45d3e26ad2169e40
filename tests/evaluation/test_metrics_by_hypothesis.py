"""Numbers equal revisitop's on rankings that nobody thought of: random, tied, cut, padded and repeating; and each
evaluation that is written can be read."""

import json

import numpy as np
from hypothesis import given as with_values
from hypothesis import settings
from hypothesis import strategies as st

from tests.evaluation.test_metrics_against_literal import assert_literal
from tests.evaluation.truths_for_tests import assert_same, stable_ranks, truth_of
from ultron_cli.datasets.protocols import PROTOCOLS, GroundTruth
from ultron_cli.evaluation.metrics import map_from_scores, revisited_map
from ultron_cli.evaluation.result import Evaluation
from ultron_cli.retrieval.origin import Origin

N = 8  # photos of the ground truth; distractors come behind them
LABEL = st.sampled_from(["easy", "hard", "junk", ""])


@st.composite
def truths(draw: st.DrawFn) -> GroundTruth:
    """One to three queries; each photo has one label for each, or none."""
    queries = draw(st.lists(st.lists(LABEL, min_size=N, max_size=N), min_size=1, max_size=3))
    return truth_of(
        *(
            {label: [row for row in range(N) if labels[row] == label] for label in ("easy", "hard", "junk")}
            for labels in queries
        ),
        n_database=N,
    )


def tables(draw: st.DrawFn, truth: GroundTruth, values: st.SearchStrategy, width: int) -> np.ndarray:
    row = st.lists(values, min_size=width, max_size=width)
    return np.array([draw(row) for _ in truth.queries]).reshape(len(truth.queries), width)


@settings(max_examples=60, deadline=None, derandomize=True)
@with_values(truths(), st.data())
def test_any_ranking_equals_the_literal(truth: GroundTruth, data: st.DataObject) -> None:
    width = data.draw(st.integers(0, 14))
    ranks = tables(data.draw, truth, st.integers(-1, N + 3), width)
    assert_literal(ranks.astype(np.int64), truth)
    results = {protocol: revisited_map(ranks.astype(np.int64), truth, protocol) for protocol in PROTOCOLS}
    evaluation = Evaluation.of(
        results, dataset="set", query_names=truth.query_names, n_database=N, origin=Origin(duplicates="count")
    )
    assert Evaluation.from_json(json.loads(json.dumps(evaluation.to_json(), allow_nan=False))) == evaluation


@settings(max_examples=60, deadline=None, derandomize=True)
@with_values(truths(), st.data())
def test_tied_scores_equal_the_literal_of_their_ranking(truth: GroundTruth, data: st.DataObject) -> None:
    n_photos = data.draw(st.integers(N, N + 4))
    scores = tables(data.draw, truth, st.sampled_from([-1.0, 0.0, 0.5, 1.0]), n_photos).astype(np.float32)
    ranks = stable_ranks(scores)
    assert_literal(ranks, truth)
    for protocol, result in map_from_scores(scores, truth).items():
        assert_same(result, revisited_map(ranks, truth, protocol))
    assert_literal(ranks[:, : data.draw(st.integers(0, n_photos))], truth)
