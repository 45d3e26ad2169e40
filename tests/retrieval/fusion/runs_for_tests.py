"""Rank files that are joined in tests, and what joining them gives."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.retrieval.exchange.rankings_for_tests import ranking_of
from ultron_cli.retrieval.fusion.parts import JoinedParts
from ultron_cli.retrieval.fusion.rankings import FusionConfig, ScoreFusion, same_for_all, write_fusion
from ultron_cli.retrieval.origin import Origin
from ultron_cli.retrieval.rankings import Ranking, read_ranks, write_ranks

N_PHOTOS = 30


def write_run(path: Path, seed: int, *, n_queries: int = 12, most: int = 20, model: str = "") -> Path:
    """A rank file of rankings of several lengths, one of them empty, with equal scores and negative ones."""
    rng = np.random.default_rng(seed)
    rows, scores = [], []
    for query in range(n_queries):
        n = 0 if query == 3 and seed else int(rng.integers(1, most + 1))
        rows.append(rng.permutation(N_PHOTOS)[:n].tolist())
        values = rng.normal(size=n).round(1)
        values[:1] = 3.0  # ranx divides by 1e-9 where the highest score is below 0, and takes -1e9 for no score
        scores.append(np.sort(values)[::-1].tolist())
    photos = [f"photo{i}" for i in range(N_PHOTOS)]
    write_ranks(path, ranking_of(rows, scores, photos=photos, origin=Origin(dataset="set", model=model or path.stem)))
    return path


def as_mappings(ranking: Ranking) -> list[dict[str, float]]:
    """Photo -> score per query, best first."""
    return [
        {photo["name"]: photo["score"] for photo in ranking.ranked_photos(query)}
        for query in range(len(ranking.query_names))
    ]


def fuse(paths: Sequence[Path], out: Path, k: int | None = None, **config: object) -> Ranking:
    """The rank file that joining gives, read again."""
    with JoinedParts(paths) as joined:
        fusion = ScoreFusion(joined, FusionConfig(**config))  # type: ignore[arg-type]  # a test's settings
        write_fusion(out, fusion, same_for_all(fusion.weights, joined.n_queries), k=k)
    return read_ranks(out)
