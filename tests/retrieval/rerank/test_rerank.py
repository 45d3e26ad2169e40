"""Re-ranking against literal transcriptions, also with duplicates, ties and databases smaller than the settings ask
for."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from tests.retrieval import literal_rerank
from tests.retrieval.rows_for_tests import INFO, unit_rows
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import DescriptorFile, write_descriptors
from ultron_cli.retrieval.exact import exact_search
from ultron_cli.retrieval.origin import ExtractionRecord
from ultron_cli.retrieval.rankings import PADDING, RankedRows
from ultron_cli.retrieval.rerank import RERANKERS, n_needed, parse_rerank, rerank
from ultron_cli.retrieval.rerank.diffusion import DiffusionConfig, diffusion, graph_nodes
from ultron_cli.retrieval.rerank.expansion import AlphaQEConfig, DBAConfig, alpha_qe, dba
from ultron_cli.retrieval.rerank.kreciprocal import KReciprocalConfig, kreciprocal
from ultron_cli.retrieval.rerank.state import RerankState, nearest_positions, put_in_front
from ultron_cli.retrieval.rerank.superglobal import SuperGlobalConfig, superglobal

N, DIM, QUERIES = 60, 16, 4
TOLERANCE = 3e-6  # float32 sums of a few dozen products of unit rows, in another order


def landmarks(seed: int, n: int = N, n_landmarks: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """(Q, D) queries and (N, D) rows around a few centres, a fifth of them exact duplicates of others."""
    rng = np.random.default_rng(seed)
    centres = unit_rows(seed, n_landmarks, DIM)
    rows = centres[rng.integers(0, n_landmarks, n)] + 0.2 * rng.standard_normal((n, DIM)).astype(np.float32)
    rows[rng.choice(n, n // 5, replace=False)] = rows[rng.integers(0, n, n // 5)]
    queries = centres[:QUERIES] + 0.2 * rng.standard_normal((QUERIES, DIM)).astype(np.float32)
    return tuple(
        np.ascontiguousarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32) for x in (queries, rows)
    )


def state_of(queries: np.ndarray, database: np.ndarray, k: int | None = None) -> RerankState:
    return RerankState(ranking=exact_search(queries, database, k or len(database)), queries=queries, database=database)


def assert_front(ranking: RankedRows, before: RankedRows, query: int, rows: np.ndarray, scores: np.ndarray) -> None:
    """The front holds these rows with these scores, best first and equal scores by row; the rest is as before."""
    m = len(rows)
    assert sorted(ranking.rows[query, :m].tolist()) == sorted(rows.tolist())
    expected = dict(zip(rows.tolist(), scores.tolist(), strict=True))
    np.testing.assert_allclose(
        ranking.scores[query, :m], [expected[row] for row in ranking.rows[query, :m].tolist()], atol=TOLERANCE
    )
    order = np.lexsort((ranking.rows[query, :m], -ranking.scores[query, :m]))
    assert (order == np.arange(m)).all()
    rest = [row for row in before.rows[query].tolist() if row not in expected]
    assert ranking.rows[query, m:].tolist() == rest[: before.rows.shape[1] - m]


@pytest.mark.parametrize(
    ("m", "k", "beta"), [(30, 9, 0.15), (400, 9, 0.15), (10, 20, 0.5), (1, 9, 0.15), (25, 0, 0.15), (60, 3, 0)]
)
def test_superglobal_equals_the_authors_order(m, k, beta):
    queries, database = landmarks(1)
    state = state_of(queries, database)
    ranking = superglobal(state, SuperGlobalConfig(m=m, k=k, beta=beta)).ranking
    for query in range(QUERIES):
        rows = state.ranking.rows[query, :m]
        scores = literal_rerank.superglobal(
            queries[query].astype(np.float64), database[rows].astype(np.float64), k, beta, rows
        )
        assert_front(ranking, state.ranking, query, rows, scores)


@pytest.mark.parametrize(("n", "alpha"), [(5, 3.0), (1, 0.0), (500, 1.0)])
def test_alpha_qe(n, alpha):
    queries, database = landmarks(2)
    state = state_of(queries, database, 20)
    new_state = alpha_qe(state, AlphaQEConfig(n=n, alpha=alpha))
    for query in range(QUERIES):
        expected = literal_rerank.alpha_qe(
            queries[query].astype(np.float64), database.astype(np.float64), state.ranking.rows[query], n, alpha
        )
        np.testing.assert_allclose(new_state.queries[query], expected, atol=TOLERANCE)
    again = exact_search(new_state.queries, database, 20)
    np.testing.assert_array_equal(new_state.ranking.rows, again.rows)


@pytest.mark.parametrize(("m", "n", "alpha"), [(15, 4, 3.0), (1000, 4, 1.0), (60, 1000, 2.0)])
def test_dba(m, n, alpha, monkeypatch):
    monkeypatch.setattr("ultron_cli.retrieval.rerank.expansion.BLOCK_BYTES", 8 * DIM * 5 * 7)  # several blocks
    queries, database = landmarks(3)
    state = state_of(queries, database)
    ranking = dba(state, DBAConfig(m=m, n=n, alpha=alpha)).ranking
    every = queries.astype(np.float64) @ literal_rerank.augmented(database.astype(np.float64), n, alpha).T
    for query in range(QUERIES):
        rows = state.ranking.rows[query, :m]
        assert_front(ranking, state.ranking, query, rows, every[query, rows])


@pytest.mark.parametrize("nodes", [1000, 30])
@pytest.mark.parametrize(("k", "kq"), [(8, 5), (100, 100)])
def test_diffusion_equals_a_direct_solver(nodes, k, kq, monkeypatch):
    monkeypatch.setattr("ultron_cli.retrieval.rerank.diffusion.BLOCK_BYTES", 4 * DIM * 13)
    queries, database = landmarks(4)
    state = state_of(queries, database)
    config = DiffusionConfig(nodes=nodes, k=k, kq=kq, alpha=0.9, iterations=200, tolerance=1e-12)
    ranking = diffusion(state, config).ranking
    used = graph_nodes(state.ranking.rows, nodes)
    if nodes < N:  # a query enters at its best photos of the whole database that are nodes
        inside = [np.isin(state.ranking.rows[q, :kq], used).sum() for q in range(QUERIES)]
        kqs = [int(n) for n in inside]
    else:
        kqs = [kq] * QUERIES
    for query in range(QUERIES):
        spread = literal_rerank.diffusion(
            queries[query : query + 1].astype(np.float64), database[used].astype(np.float64), k, kqs[query], 0.9, 3.0
        )[0]
        reached = spread > 1e-12
        assert_front(ranking, state.ranking, query, used[reached], spread[reached])


@pytest.mark.parametrize(
    ("m", "k1", "k2", "weight"),
    [(40, 10, 4, 0.3), (400, 20, 6, 0.3), (7, 3, 1, 0.0), (30, 100, 100, 0.5), (1, 20, 6, 0.3)],
)
def test_kreciprocal_equals_the_authors_loops(m, k1, k2, weight):
    queries, database = landmarks(5)
    state = state_of(queries, database)
    ranking = kreciprocal(state, KReciprocalConfig(m=m, k1=k1, k2=k2, weight=weight)).ranking
    for query in range(QUERIES):
        rows = state.ranking.rows[query, :m]
        assert_front(
            ranking,
            state.ranking,
            query,
            rows,
            1 - literal_rerank.kreciprocal(queries[query], database[rows], k1, k2, weight),
        )


STEPS = [superglobal, alpha_qe, dba, diffusion, kreciprocal]
CONFIGS = [SuperGlobalConfig, AlphaQEConfig, DBAConfig, DiffusionConfig, KReciprocalConfig]


@pytest.mark.parametrize(("step", "config"), zip(STEPS, CONFIGS, strict=True))
def test_tiny_databases_and_padding(step, config):
    queries, _ = landmarks(6)
    for database in (unit_rows(7, 1, DIM), unit_rows(8, 2, DIM), np.repeat(unit_rows(9, 1, DIM), 30, axis=0)):
        ranking = step(state_of(queries, database), config()).ranking
        assert np.isfinite(ranking.scores).all()
        for row in ranking.rows:
            assert sorted(row.tolist()) == list(range(len(database)))
    if step is alpha_qe:
        return
    whole = state_of(queries, unit_rows(10, 9, DIM), 6)
    padded = RankedRows(whole.ranking.rows.copy(), whole.ranking.scores.copy())
    padded.rows[1:, 3:], padded.scores[1:, 3:] = PADDING, -np.inf
    padded.rows[3], padded.scores[3] = PADDING, -np.inf
    ranking = step(dataclasses.replace(whole, ranking=padded), config()).ranking
    for query in range(QUERIES):
        known = ranking.rows[query][ranking.rows[query] != PADDING]
        assert len(set(known.tolist())) == len(known)
        assert set(padded.rows[query].tolist()) - {PADDING} <= set(known.tolist()) or step is diffusion
        assert (ranking.rows[query, len(known) :] == PADDING).all()


def test_equal_photos_stand_by_row():
    queries, database = landmarks(11)
    database[::2] = database[0]
    for step, config in ((kreciprocal, KReciprocalConfig(m=60)), (dba, DBAConfig(n=3))):
        ranking = step(state_of(queries, database), config).ranking
        for row in ranking.rows:
            equal = [value for value in row.tolist() if value % 2 == 0]
            assert equal == sorted(equal)


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize(("step", "config"), zip(STEPS, CONFIGS, strict=True))
def test_a_descriptor_file_gives_what_an_array_gives(tmp_path, step, config, storage):
    queries, database = landmarks(12)
    info = dataclasses.replace(INFO, extraction=ExtractionRecord(stored={"storage": storage}))
    write_descriptors(tmp_path / "d.h5", [str(i) for i in range(N)], [database.astype(storage)], DIM, info)
    expected = step(state_of(queries, database.astype(storage).astype(np.float32)), config()).ranking
    with DescriptorFile(tmp_path / "d.h5") as file:
        in_a_copy = step(
            RerankState(ranking=exact_search(queries, file, N), queries=queries, database=file), config()
        ).ranking
        in_place = step(
            RerankState(ranking=exact_search(queries, file, N), queries=queries, database=file, in_place=True), config()
        ).ranking
    for ranking in (in_a_copy, in_place):
        np.testing.assert_array_equal(ranking.rows, expected.rows)
        np.testing.assert_array_equal(ranking.scores, expected.scores)


def test_nearest_positions_takes_the_leftmost_of_equal_values():
    values = np.random.default_rng(13).integers(0, 4, (50, 12)).astype(np.float32)
    for n in (1, 5, 12):
        expected = [sorted(sorted(range(12), key=lambda j, row=row: (-row[j], j))[:n]) for row in values]
        assert nearest_positions(values, n).tolist() == expected


def test_put_in_front_brings_new_rows_and_cuts_to_k():
    ranking = RankedRows(np.array([[4, 2, 7, 1]]), np.array([[4, 3, 2, 1]], np.float32))
    new_ranking = put_in_front(ranking, [(np.array([9, 7, 3]), np.array([0.5, 0.9, 0.5]))])
    assert new_ranking.rows.tolist() == [[7, 3, 9, 4]]
    np.testing.assert_allclose(new_ranking.scores, [[0.9, 0.5, 0.5, 4]])
    assert ranking.rows.tolist() == [[4, 2, 7, 1]]
    assert put_in_front(ranking, [(np.array([9, 7, 3]), np.array([0.5, 0.9, 0.5]))], in_place=True).rows is ranking.rows
    assert ranking.rows.tolist() == new_ranking.rows.tolist()
    np.testing.assert_array_equal(ranking.scores, new_ranking.scores)


def test_chains_are_parsed_run_in_order_and_recorded():
    steps = parse_rerank("aqe,superglobal", ["superglobal.beta=0.2", "superglobal.m=30", "aqe.n=3"])
    assert [step.record(0.5).to_json() for step in steps] == [
        {"name": "aqe", "n": 3, "alpha": 3.0, "ms_per_query": 0.5},
        {"name": "superglobal", "m": 30, "k": 9, "beta": 0.2, "ms_per_query": 0.5},
    ]
    assert n_needed(steps) == 30
    state = state_of(*landmarks(14))
    by_hand = superglobal(alpha_qe(state, AlphaQEConfig(n=3)), SuperGlobalConfig(m=30, beta=0.2)).ranking
    new_state, records = rerank(state, steps)
    np.testing.assert_array_equal(new_state.ranking.rows, by_hand.rows)
    assert [record.name for record in records] == ["aqe", "superglobal"]
    assert all(record.ms_per_query > 0 for record in records)
    assert parse_rerank(None, []) == []


@pytest.mark.parametrize(
    ("text", "assignments", "words"),
    [
        ("superglobl", [], "`rerank` must be one of .* found 'superglobl'; did you mean superglobal"),
        ("aqe,", [], "found ''"),
        ("aqe", ["aqe.alpa=1"], "unknown setting aqe.alpa; did you mean alpha"),
        ("aqe", ["superglobal.m=1"], "of a step that does not run; add superglobal to `rerank`, found aqe"),
        (None, ["superglobal.m=1"], "found no re-ranking"),
        ("aqe", ["alpha=1"], "takes STEP.KEY=VALUE"),
        ("aqe", ["alpha"], "`rerank_set` takes key=value"),
        ("aqe", ["aqe.n=0"], "`aqe.n` must lie between 1 and"),
        ("superglobal", ["superglobal.m=many"], "superglobal.m must be a whole number"),
    ],
)
def test_bad_settings_are_refused(text, assignments, words):
    with pytest.raises(UltronError, match=words):
        parse_rerank(text, assignments)


# Geometry needs local features: test_geometry.py.
@pytest.mark.parametrize("name", [name for name in RERANKERS if name != "geometry"])
def test_every_reranker_runs_by_its_name_with_its_defaults(name):
    queries, database = landmarks(15)
    (step,) = parse_rerank(name, [])
    assert step.config.n_needed >= 1
    state, (record,) = rerank(state_of(queries, database), [step])
    assert state.ranking.rows.shape == (QUERIES, N)
    assert record.name == name and set(record.settings) == {field.name for field in dataclasses.fields(step.config)}


def test_names_are_read_without_torch():
    code = (
        "import sys; from ultron_cli.retrieval.rerank import RERANKERS; assert RERANKERS; "
        "assert not {'torch', 'numpy', 'scipy', 'h5py'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
