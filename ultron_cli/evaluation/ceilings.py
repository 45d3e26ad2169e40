"""What stands between a score and a perfect one: what re-ranking could at best give, which landmarks are taken for
which, and photos that turn up in too many rankings."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ultron_cli.datasets.protocols import GroundTruth, Protocol
from ultron_cli.evaluation.landmarks import Landmark, landmarks_of
from ultron_cli.evaluation.metrics import RankTable, average_precision

DEPTHS = (10, 50, 100, 400, 1000)  # photos that a re-ranking may put in another order
HUB_PLACES = 10  # first places of a ranking in which a photo is counted
MOST_SHOWN = 10  # confusions, hubs
NO_LANDMARK = "no landmark"  # of photos that answer no query


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Photos of one landmark in the places of another's, over all queries that show the latter."""

    landmark: str
    taken_for: str  # whose photos they are
    n_photos: int  # wrong photos among the first places of each query, as many as it has positives
    n_queries: int  # in whose rankings they are


@dataclass(frozen=True, kw_only=True)
class Hub:
    """A photo that is among the first places of many rankings."""

    photo: str
    n_rankings: int
    n_wrong: int  # of them, those in which it is neither a positive nor ignored


@dataclass(frozen=True, kw_only=True)
class Hubness:
    """How unevenly database photos share the first places (Radovanovic et al., Hubs in space, JMLR 2010)."""

    places: int  # k
    mean: float  # rankings of a photo, were all alike: k times queries over photos
    skewness: float | None  # of the number of rankings per photo; above 1 or so is strong. None where all are alike
    hubs: tuple[Hub, ...]  # those that are wrong most often, the first MOST_SHOWN


def oracle_average_precision(ranking: np.ndarray, positives: np.ndarray, ignored: np.ndarray, depth: int) -> float:
    """The highest AP that any order of the first `depth` photos of a ranking gives: positives first, the rest behind.

    ranking: (K,) integers, rows of the database. positives: at least one row. ignored: rows that leave the ranking.
    """
    is_positive, is_ignored = np.isin(ranking, positives), np.isin(ranking, ignored)
    n_first = int(is_positive[:depth].sum())
    behind = np.flatnonzero(is_positive[depth:]) + min(depth, len(ranking))
    behind -= np.searchsorted(np.flatnonzero(is_ignored), behind)
    return average_precision(np.concatenate([np.arange(n_first), behind]), len(positives))


def ceilings(
    ranks: RankTable, truth: GroundTruth, protocol: Protocol, depths: Sequence[int] = DEPTHS
) -> dict[int, float]:
    """depth -> the mAP that re-ranking so many of the first photos could at best give, for depths below the length of
    the rankings, and for all of them. ranks: (Q, K) integers, as of revisited_map."""
    k = ranks.shape[1]
    within = [*(depth for depth in depths if depth < k), *([k] if k else [])]
    scores: dict[int, list[float]] = {depth: [] for depth in within}
    for query in range(len(truth.queries)):
        positives, ignored = truth.split(query, protocol)
        if len(positives):
            ranking = np.asarray(ranks[query])
            for depth in within:
                scores[depth].append(oracle_average_precision(ranking, positives, ignored, depth))
    return {depth: float(np.mean(values)) for depth, values in scores.items() if values}


def confusions(ranks: RankTable, truth: GroundTruth, protocol: Protocol) -> list[Confusion]:
    """The landmarks that are taken for others, the most photos first.

    Of each ranking, without its ignored photos, as many places are looked at as the query has positives: a perfect
    ranking has them all there. A photo belongs to the landmark of which it is a positive, or else junk.
    """
    landmarks = landmarks_of(truth)
    landmark_of = _landmark_of_photo(landmarks, truth)
    photos: Counter[tuple[str, str]] = Counter()
    queries: Counter[tuple[str, str]] = Counter()
    for landmark in landmarks:
        for query in landmark.queries:
            positives, ignored = truth.split(query, protocol)
            ranking = np.asarray(ranks[query])
            places = ranking[~np.isin(ranking, ignored) & (ranking >= 0)][: len(positives)]
            others = [landmark_of.get(photo, NO_LANDMARK) for photo in places[~np.isin(places, positives)].tolist()]
            pairs = Counter((landmark.name, other) for other in others if other != landmark.name)
            photos += pairs
            queries.update(pairs.keys())
    return [
        Confusion(landmark=pair[0], taken_for=pair[1], n_photos=n_photos, n_queries=queries[pair])
        for pair, n_photos in photos.most_common()
    ]


def _landmark_of_photo(landmarks: Sequence[Landmark], truth: GroundTruth) -> Mapping[int, str]:
    landmark_of = {photo: landmark.name for landmark in landmarks for photo in landmark.photos}
    for landmark in landmarks:
        for query in landmark.queries:
            for photo in truth.queries[query].junk.tolist():
                landmark_of.setdefault(photo, landmark.name)
    return landmark_of


def hubness(
    ranks: RankTable,
    truth: GroundTruth,
    protocol: Protocol,
    photo_name: Callable[[int], str],
    n_database: int,
    places: int = HUB_PLACES,
) -> Hubness:
    """How often each photo is among the first places. photo_name: of a row; n_database: photos in all."""
    rankings: Counter[int] = Counter()
    wrong: Counter[int] = Counter()
    for query in range(len(truth.queries)):
        positives, ignored = truth.split(query, protocol)
        first = np.asarray(ranks[query])[:places]
        first = np.unique(first[first >= 0])
        rankings.update(first.tolist())
        wrong.update(first[~np.isin(first, positives) & ~np.isin(first, ignored)].tolist())
    counts = np.zeros(n_database)
    counts[: len(rankings)] = list(rankings.values())
    spread = float(counts.std())
    skewness = float(((counts - counts.mean()) ** 3).mean() / spread**3) if spread > 1e-12 else None
    order = sorted(wrong, key=lambda photo: (-wrong[photo], -rankings[photo], photo))
    return Hubness(
        places=places,
        mean=float(counts.mean()),
        skewness=skewness,
        hubs=tuple(
            Hub(photo=photo_name(photo), n_rankings=rankings[photo], n_wrong=wrong[photo])
            for photo in order[:MOST_SHOWN]
            if wrong[photo] > 1
        ),
    )
