"""Rankings joined: each method as its paper writes it and as ranx computes it, names brought together, bounded
memory."""

import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.retrieval.exchange.rankings_for_tests import ranking_of
from tests.retrieval.fusion.literal_fusion import fused
from tests.retrieval.fusion.runs_for_tests import as_mappings, fuse, write_run
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.exchange.exporting import ExportRequest, export_ranking
from ultron_cli.retrieval.fusion.methods import METHODS
from ultron_cli.retrieval.fusion.norms import NORMS
from ultron_cli.retrieval.fusion.parts import JoinedParts
from ultron_cli.retrieval.fusion.rankings import (
    FusionConfig,
    ScoreFusion,
    same_for_all,
    weight_candidates,
    write_fusion,
)
from ultron_cli.retrieval.origin import ExtractionRecord, Origin, SearchRecord, StepRecord
from ultron_cli.retrieval.rankings import Ranking, read_ranks, write_ranks

BY_PLACE = [name for name, method in METHODS.items() if method.of_places]
BY_SCORE = [name for name, method in METHODS.items() if not method.of_places]
# Ours -> that of ranx, and what it takes the weights with; "none" is ranx's None.
OF_RANX = {
    **{"rrf": "rrf", "combsum": "sum", "combmnz": "mnz", "combanz": "anz", "combmax": "max", "combmin": "min"},
    **{"combmed": "med", "isr": "isr", "logisr": "log_isr", "wmnz": "wmnz"},
}
NORM_OF_RANX = {"minmax": "min-max", "zscore": "zmuv", "max": "max", "sum": "sum", "rank": "rank", "none": None}
FUSE = """
import json, sys
from ranx import Run, fuse
runs = [Run.from_file(f"{name}.json", kind="json") for name in "abc"]
for ours, method, norm, weights in json.load(open("demands.json")):
    params = {"weights": weights} if method in ("wsum", "wmnz") else {}
    fused = fuse([run for run in runs], norm=norm, method=method, params=params)
    print(json.dumps({query: dict(scores) for query, scores in fused.run.items()}))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [write_run(folder / f"{name}.h5", seed) for seed, name in enumerate("abc")]


def cases() -> list[tuple[str, str | None, tuple[float, ...]]]:
    some = [(method, None, weights) for method in BY_PLACE for weights in ((1.0, 1.0, 1.0), (1.0, 0.5, 0.0))]
    some += [(method, norm, (1.0, 1.0, 1.0)) for method in BY_SCORE for norm in NORMS]
    return some + [(method, "zscore", (1.0, 0.5, 2.0)) for method in BY_SCORE]


def fused_mappings(joined: JoinedParts, **config: object) -> list[dict[str, float]]:
    """Photo -> score per query, best first, with nothing written."""
    fusion = ScoreFusion(joined, FusionConfig(**config))  # type: ignore[arg-type]  # a test's settings
    mappings = []
    for query in range(joined.n_queries):
        ranked = fusion.of_query(query)(fusion.weights)
        names = [joined.header.database_names[row] for row in ranked.rows.tolist()]
        mappings.append(dict(zip(names, ranked.scores.tolist(), strict=True)))
    return mappings


def test_each_method_is_that_of_its_paper(runs: list[Path]) -> None:
    """Also in order: the highest score first, equal ones by row."""
    mappings = [as_mappings(read_ranks(path)) for path in runs]
    with JoinedParts(runs) as joined:
        row_of = {name: row for row, name in enumerate(joined.header.database_names)}
        for method, norm, weights in cases():
            ours = fused_mappings(joined, method=method, norm=norm, weights=weights)
            for query in range(12):
                right = fused([part[query] for part in mappings], method, norm or "none", weights)
                assert ours[query] == pytest.approx(right, abs=1e-6, rel=1e-6), (method, norm)
                keys = [(-score, row_of[photo]) for photo, score in ours[query].items()]
                assert keys == sorted(keys)


@pytest.mark.slow
def test_ranx_computes_the_same(runs: list[Path], tmp_path: Path) -> None:
    """In a process of its own, uncompiled: compiling takes minutes."""
    pytest.importorskip("numba", reason="ranx is not installed")
    for path in runs:
        export_ranking(read_ranks(path), tmp_path / f"{path.stem}.json", ExportRequest(format="ranx", scores="stored"))
    demands, right = [], []
    with JoinedParts(runs) as joined:
        for method, norm, weights in cases():
            is_weighted = set(weights) != {1.0}
            if is_weighted and method not in ("combsum", "wmnz"):  # ranx has weights of these alone
                continue
            theirs = "wsum" if is_weighted and method == "combsum" else OF_RANX[method]
            demands.append((method, theirs, NORM_OF_RANX[norm or "none"], weights))
            right.append(fused_mappings(joined, method=method, norm=norm, weights=weights))
    assert {method for method, *_ in demands} == set(METHODS)
    (tmp_path / "demands.json").write_text(json.dumps(demands))
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "IR_DATASETS_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FUSE], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(demands)
    for case, ours, theirs in zip(demands, right, answers, strict=True):
        for query in range(12):
            of_ranx = theirs.get(f"query{query}", {})
            assert ours[query] == pytest.approx(of_ranx, abs=1e-6, rel=1e-6), case


def test_k_cuts_and_equal_scores_stand_by_row(tmp_path: Path) -> None:
    for name, rows in (("a", [5, 1, 3]), ("b", [3, 1, 5])):
        write_ranks(tmp_path / f"{name}.h5", ranking_of([rows], [[3, 2, 1]], photos=list("abcdef")))
    ranking = fuse([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "f.h5", method="combsum", norm="none")
    assert ranking.rows.tolist() == [[1, 3, 5]] and ranking.with_scores().tolist() == [[4, 4, 4]]
    cut = fuse([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "f.h5", k=2, method="rrf", rrf_k=0)
    assert cut.rows.tolist() == [[3, 5]]  # 1/3 + 1 each; 1/2 + 1/2 behind them


def test_a_photo_that_a_ranking_repeats_counts_once(tmp_path: Path) -> None:
    write_ranks(tmp_path / "a.h5", ranking_of([[0, 1, 0]], [[3, 2, 1]], photos=["x", "y"]))
    write_ranks(tmp_path / "b.h5", ranking_of([[1, 0]], [[3, 2]], photos=["x", "y"]))
    ranking = fuse([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "f.h5", method="combsum", norm="none")
    assert ranking.ranked_photos(0) == [
        {"rank": 1, "name": "x", "score": 5.0},
        {"rank": 2, "name": "y", "score": 5.0},
    ]


def reordered(ranking: Ranking, seed: int) -> Ranking:
    """The same with queries and photos in another order."""
    rng = np.random.default_rng(seed)
    queries, photos = rng.permutation(len(ranking.query_names)), rng.permutation(len(ranking.database_names))
    place_of = np.append(np.argsort(photos), -1)
    return replace(
        ranking,
        query_names=[ranking.query_names[i] for i in queries],
        database_names=[ranking.database_names[i] for i in photos],
        rows=place_of[ranking.rows[queries]],
        scores=ranking.with_scores()[queries],
    )


def test_names_bring_rankings_together(runs: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_ranks(tmp_path / "other.h5", reordered(read_ranks(runs[1]), 1))
    caplog.set_level("INFO", "ultron")
    plain = fuse(runs[:2], tmp_path / "f.h5", method="combsum")
    caplog.clear()
    again = fuse([runs[0], tmp_path / "other.h5"], tmp_path / "g.h5", method="combsum")
    assert np.array_equal(plain.rows, again.rows) and np.array_equal(plain.with_scores(), again.with_scores())
    assert [line for line in caplog.messages if "joined by name" in line] == [
        f"queries of {tmp_path}/other.h5 stand in another order: joined by name",
        f"photos of {tmp_path}/other.h5 stand in another order: joined by name",
    ]


def test_photos_of_one_ranking_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_ranks(tmp_path / "a.h5", ranking_of([[0, 1]], [[2, 1]], photos=["x", "y"]))
    write_ranks(tmp_path / "b.h5", ranking_of([[0, 1, 2]], [[3, 2, 1]], photos=["z", "y", "w"]))
    ranking = fuse([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "f.h5", method="combsum", norm="none")
    assert ranking.database_names == ["x", "y", "z", "w"]
    assert [photo["name"] for photo in ranking.ranked_photos(0)] == ["y", "z", "x", "w"]
    (line,) = [line for line in caplog.messages if "joined by name" in line]
    assert "lacks 1 photo of" in line and "has 2 photos that it lacks" in line


@pytest.mark.parametrize(
    ("queries", "photos", "words"),
    [
        (["q", "r"], ["x", "y"], r"same queries; .*b\.h5 lacks 0 of .*a\.h5 and has 1 that it lacks \(r\)"),
        (["r"], ["x", "y"], r"lacks 1 of .*a\.h5 and has 1 that it lacks \(q\)"),
        (["q"], ["v", "w"], r"same photos; .*b\.h5 has none of .*a\.h5, for example v; search the same database"),
        (["q"], ["x", "x"], r"b\.h5 names a photo twice \(x\)"),
    ],
)
def test_rankings_that_do_not_belong_together(
    tmp_path: Path, queries: list[str], photos: list[str], words: str
) -> None:
    write_ranks(tmp_path / "a.h5", ranking_of([[0, 1]], [[2, 1]], queries=["q"], photos=["x", "y"]))
    n = len(queries)
    write_ranks(tmp_path / "b.h5", ranking_of([[0, 1]] * n, [[2, 1]] * n, queries=queries, photos=photos))
    with pytest.raises(UltronError, match=words):
        JoinedParts([tmp_path / "a.h5", tmp_path / "b.h5"])


def test_empty_rankings_and_databases(tmp_path: Path) -> None:
    plain = ranking_of([[0, 1]], [[2, 1]], queries=["q"], photos=["x", "y"])
    write_ranks(tmp_path / "a.h5", plain)
    nothing = np.empty((1, 0))
    empty = replace(plain, rows=nothing.astype(np.int64), scores=nothing.astype(np.float32))
    write_ranks(tmp_path / "b.h5", empty)
    assert fuse([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "f.h5", method="combsum").rows.tolist() == [[0, 1]]
    assert fuse([tmp_path / "b.h5", tmp_path / "b.h5"], tmp_path / "f.h5").rows.shape == (1, 0)
    write_ranks(tmp_path / "b.h5", replace(empty, database_names=[]))
    with pytest.raises(UltronError, match=r"b\.h5 has none of .*a\.h5; search the same database"):
        JoinedParts([tmp_path / "a.h5", tmp_path / "b.h5"])


def test_scores_that_rise_are_said_and_infinite_ones_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_ranks(tmp_path / "a.h5", ranking_of([[0, 1]], [[1, 2]], photos=["x", "y"]))
    write_ranks(tmp_path / "b.h5", ranking_of([[0, 1]], [[np.inf, 2]], photos=["x", "y"]))
    fuse([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "f.h5")
    assert not caplog.messages  # places alone
    with pytest.raises(UltronError, match=r"b\.h5 has scores that are not finite, which combsum cannot add"):
        fuse([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "f.h5", method="combsum")
    assert "scores that rise" in caplog.messages[0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "rrf", "norm": "minmax"}, "`norm` is of scores, rrf looks at places"),
        ({"method": "combsum", "rrf_k": 3}, "`rrf_k` belongs to rrf, found combsum"),
        ({"weights": (0.0, 0.0)}, "one of the `weights` must be above 0"),
        ({"weights": (-1.0, 2.0)}, "`weights` must be at least 0"),
        ({"method": "sum"}, "must be one of rrf, combsum"),
        ({"method": "combsum", "norm": "l2"}, "must be one of minmax"),
    ],
)
def test_settings_that_mean_nothing(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UltronError, match=words):
        FusionConfig(**settings)  # type: ignore[arg-type]  # wrong on purpose


def test_weights_that_are_tried() -> None:
    for n_parts, n in ((2, 22), (3, 92), (4, 85), (5, 71), (8, 37), (20, 21)):
        candidates = weight_candidates(n_parts)
        assert candidates.shape == (n, n_parts)
        assert np.allclose(candidates.sum(axis=1), 1) and candidates.min() >= 0
        assert np.allclose(candidates[0], 1 / n_parts)
        assert all((row == unit).all(axis=1).any() for row in [candidates] for unit in np.eye(n_parts))


def test_what_made_it_is_recorded(tmp_path: Path) -> None:
    """What parts share stays, of the rest each part tells its own."""
    config = {"crop": "bbx", "scales": [1.0], "max_side_px": 1024}
    origin = Origin(dataset="set", model="gem", extraction=ExtractionRecord(stored=config), ground_truth="gnd.json")
    steps = (StepRecord(name="aqe", ms_per_query=1.5),)
    search = SearchRecord(steps=steps, ms_per_query=2.5)
    other = replace(
        origin,
        model="dolg",
        search=search,
        extraction=ExtractionRecord(stored=config | {"scales": [1.0, 2.0]}),
    )
    for name, made_by in (("a", origin), ("b", other)):
        write_ranks(tmp_path / f"{name}.h5", ranking_of([[0, 1]], [[2, 1]], photos=["x", "y"], origin=made_by))
    ranking = fuse([tmp_path / "a.h5", tmp_path / "b.h5"], tmp_path / "f.h5", method="combsum", weights=(1.0, 0.5))
    made_by = ranking.origin
    assert (made_by.dataset, made_by.model, made_by.ground_truth) == ("set", "gem + dolg", "gnd.json")
    assert not made_by.extraction and made_by.fusion is not None
    assert made_by.search_text(timed=False) == (
        "; fused by combsum of minmax scores: gem, queries cropped, 1 scale, longest side 1024 px (weight 1) and dolg, "
        "queries cropped, 2 scales, longest side 1024 px, re-ranked by aqe (weight 0.5)"
    )
    assert made_by.fusion.parts[1].ms_per_query == 2.5
    assert Origin.from_json(made_by.to_json()) == made_by
    assert made_by.facts()["search"] == "those of its parts"
    assert made_by.differences(replace(made_by, fusion=None))[0].startswith("search: A those of its parts")


def test_millions_of_photos_in_bounded_memory(tmp_path: Path) -> None:
    """A query at a time: what is in memory does not grow with the number of queries."""
    n, peaks = 20_000, []
    for n_queries in (2, 30):
        rng = np.random.default_rng(0)
        photos = [f"p{i}" for i in range(n)]
        for name in "ab":
            rows = np.stack([rng.permutation(n) for _ in range(n_queries)])
            scores = -np.sort(-rng.normal(size=(n_queries, n)).astype(np.float32), axis=1)
            queries = [f"q{i}" for i in range(n_queries)]
            ranking = Ranking(
                query_names=queries, database_names=photos, rows=rows, scores=scores, origin=Origin(dataset="set")
            )
            write_ranks(tmp_path / f"{name}.h5", ranking)
        del rows, scores, ranking
        tracemalloc.start()
        with JoinedParts([tmp_path / "a.h5", tmp_path / "b.h5"]) as joined:
            fusion = ScoreFusion(joined, FusionConfig(method="combsum"))
            write_fusion(tmp_path / "f.h5", fusion, same_for_all(fusion.weights, n_queries))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]  # 28 queries more are 6.7 MB in each of three files


def test_a_method_by_import_path(tmp_path: Path, runs: list[Path]) -> None:
    """The numbers of a method of ultron, its settings and code in the Origin; wrong ones name the place."""
    fusions = tmp_path / "fusions.py"
    fusions.write_text(
        "import numpy as np\n\nclass Share:\n    def __init__(self, share: float = 1.0): self.share = share\n"
        "    def __call__(self, values, weights):\n        return self.share * np.nansum(values.T * weights, 1)\n"
        "class ByPlace(Share):\n    of_places = True\n"
        "    def __call__(self, values, weights): return np.nansum(1 / (61 + values), 0)\n"
        "class Short(Share):\n    def __call__(self, values, weights): return values[0]\n"
        "class Nothing: ...\n"
    )
    for name, settings, same in (
        ("Share", {"share": 2.0}, {"method": "combsum", "norm": "max"}),
        ("ByPlace", {}, {"method": "rrf"}),
    ):
        norm = same.get("norm")
        ranking = fuse(runs, tmp_path / "f.h5", method=f"{fusions}:{name}", settings=settings, norm=norm)
        assert np.array_equal(ranking.rows, fuse(runs, tmp_path / "g.h5", **same).rows)
        assert ranking.origin.fusion is not None
        digest = hashlib.sha256(fusions.read_bytes()).hexdigest()
        assert ranking.origin.fusion.settings == settings | {"code_sha256": digest}
    for name, settings, words in (
        ("Short", {}, r"fusions\.py, line 11: Short must give a finite score of each photo, \(\d+,\); found float64"),
        (
            "Nothing",
            {},
            r"fusions\.py, line 12: Nothing needs the method __call__\(values, weights\), see UserFusion",
        ),
        ("Share", {"shar": 1}, r"fusions\.py, line 4: Share: unknown setting shar; did you mean share\?"),
    ):
        with pytest.raises(UltronError, match=words):
            fuse(runs, tmp_path / "h.h5", method=f"{fusions}:{name}", settings=settings)
    with pytest.raises(UltronError, match="settings are of a method by import path, found method rrf"):
        FusionConfig(settings={"k": 1})
