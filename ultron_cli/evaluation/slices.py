"""Where a score is lost: average precision of slices of the queries and of the photos, each held against the rest.

A slice of queries (those with a small box, of one landmark) has the mean AP of its queries, against that of the others.
A slice of photos (those taken at night) has the AP of each query with the slice's positives alone, the query's other
positives left out as junk is, as ILIAS scores its groups of scale and clutter (Kordopatis-Zilos et al., CVPR 2025). So
few positives have another AP than all of them, wherever they rank; it is held against as many positives of the same
queries drawn at random, which is what a slice that makes no difference has.

Both have the p-value of a permutation test: the values of the attribute are dealt out anew, among the queries or among
the positives of each query. Of queries the difference of mAP is tested. Of photos it is their ranks among the query's
positives (van Elteren, On the combination of independent two sample tests of Wilcoxon, 1960): the AP of a few positives
hangs on the best of them, and tells little of those that are far behind. Holm's method corrects for the number of
slices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ultron_cli.evaluation.intervals import DRAWS_AT_ONCE, LEVEL, RESAMPLES, SEED, mean_interval
from ultron_cli.evaluation.significance import holm

AP_RESAMPLES = 1_000  # of the same draws, for the AP of positives at random, which is but a mean
FEWEST_QUERIES = 2  # of a slice; a single query is in the table of queries
NOT_RANKED = np.inf  # negatives above a positive that the ranking lacks


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A part of the queries or of the photos, and its score under one protocol; scores are fractions."""

    attribute: str
    value: str
    of: str  # queries or photos
    n_queries: int
    n_photos: int | None  # positives, counted once per query; None for a slice of queries
    mAP: float
    interval: tuple[float, float]  # 95 %, by the choice of queries
    rest: float  # mAP of the other queries; for photos what as many of the same queries' positives have on average
    p_value: float  # two-sided, of no difference
    p_holm: float  # corrected for all slices of the table
    strength: float  # what is tested, in standard deviations of what chance gives; below 0 where the rest is better

    @property
    def name(self) -> str:
        """`light night`."""
        return f"{self.attribute} {self.value}"

    @property
    def difference(self) -> float:
        """mAP minus that of the rest."""
        return self.mAP - self.rest

    @property
    def share(self) -> float:
        """mAP as a share of that of the rest."""
        return self.mAP / self.rest if self.rest else float("inf")

    @property
    def is_worse(self) -> bool:
        """Whether it is below the rest, and chance hardly explains that."""
        return self.p_holm < LEVEL and self.strength < 0 and self.difference < 0


@dataclass(frozen=True, kw_only=True)
class Positives:
    """The positives of one query as it ranks them: (P,) arrays, best first, those that the ranking lacks at the end."""

    photos: np.ndarray  # int64, rows of the database
    n_above: np.ndarray  # float64, photos above that are neither positive nor ignored; NOT_RANKED where it lacks them


@dataclass(frozen=True, kw_only=True)
class Sliced:
    """A slice before it is corrected for the others."""

    attribute: str
    value: str
    of: str
    n_photos: int | None
    scores: np.ndarray  # (n,) float64, AP of its queries
    rest: float
    observed: float  # what is tested: above 0 where the slice is better than the rest
    chance: np.ndarray = field(repr=False)  # (resamples,) float64, the same as chance gives it

    @property
    def p_value(self) -> float:
        """The share of draws that are as far from 0; the observed one is among them, so that it is never 0."""
        n_reached = int((np.abs(self.chance) >= abs(self.observed) - 1e-12).sum())
        return (1 + n_reached) / (1 + len(self.chance))

    @property
    def strength(self) -> float:
        """What was observed in standard deviations of chance; 0 where chance gives no other value."""
        spread = float(self.chance.std())
        return self.observed / spread if spread > 1e-12 else 0.0


def positives_of(ranking: np.ndarray, positives: np.ndarray, ignored: np.ndarray) -> Positives:
    """The positives of a query in its ranking. ranking: (K,) integers, rows of the database, best first; of repeats the
    first counts. positives, ignored: rows."""
    places = np.flatnonzero(np.isin(ranking, positives))
    _, first = np.unique(ranking[places], return_index=True)
    places = places[np.sort(first)]
    n_ignored = np.searchsorted(np.flatnonzero(np.isin(ranking, ignored)), places)
    photos = ranking[places].astype(np.int64)
    missing = np.setdiff1d(positives, photos)
    n_above = (places - n_ignored - np.arange(len(places))).astype(np.float64)
    return Positives(
        photos=np.concatenate([photos, missing]), n_above=np.concatenate([n_above, np.full(len(missing), NOT_RANKED)])
    )


def average_precisions(n_above: np.ndarray) -> np.ndarray:
    """(...,) AP by revisitop's trapezoid rule of (..., P) float64 positives, P at least 1: photos that are no positives
    above each, ascending."""
    n_before = np.arange(n_above.shape[-1])
    ranks = n_above + n_before
    above = np.divide(n_before, ranks, out=np.ones_like(ranks), where=ranks > 0)
    return (above + (n_before + 1) / (ranks + 1)).sum(axis=-1) / (2 * n_above.shape[-1])


def query_slices(
    attribute: str, values: Sequence[str | None], ap: np.ndarray, *, resamples: int = RESAMPLES, seed: int = SEED
) -> list[Sliced]:
    """The slices of one attribute of queries. values: (Q,), None for one that has none. ap: (Q,) float64, NaN for a
    query that has no score."""
    rows = [row for row, value in enumerate(values) if value is not None and not np.isnan(ap[row])]
    scores, labels = ap[rows], np.array([values[row] for row in rows], object)
    members_of = {value: labels == value for value in dict.fromkeys(labels.tolist())}
    masks = {
        value: members
        for value, members in members_of.items()
        if FEWEST_QUERIES <= members.sum() <= len(rows) - FEWEST_QUERIES
    }
    sizes = sorted({int(mask.sum()) for mask in masks.values()})
    sums = _sums_of_drawn(scores, sizes, resamples, seed)
    total, n = float(scores.sum()), len(rows)
    return [
        Sliced(
            attribute=attribute,
            value=value,
            of="queries",
            n_photos=None,
            scores=scores[mask],
            rest=float(scores[~mask].mean()),
            observed=float(scores[mask].mean() - scores[~mask].mean()),
            chance=sums[size] / size - (total - sums[size]) / (n - size),
        )
        for value, mask in masks.items()
        for size in [int(mask.sum())]
    ]


def _sums_of_drawn(values: np.ndarray, sizes: Sequence[int], resamples: int, seed: int) -> dict[int, np.ndarray]:
    """size -> (resamples,) sums of so many of the (n,) values, drawn without replacement."""
    if not sizes:
        return {}
    generator = np.random.default_rng(seed)
    blocks: dict[int, list[np.ndarray]] = {size: [] for size in sizes}
    block = max(1, DRAWS_AT_ONCE // len(values))
    for start in range(0, resamples, block):
        table = np.tile(values, (min(block, resamples - start), 1))
        sums = generator.permuted(table, axis=1)[:, : sizes[-1]].cumsum(axis=1)
        for size in sizes:
            blocks[size].append(sums[:, size - 1])
    return {size: np.concatenate(parts) for size, parts in blocks.items()}


def photo_slices(
    attribute: str,
    values: Mapping[int, Sequence[str | None]],
    positives: Mapping[int, Positives],
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> list[Sliced]:
    """The slices of one attribute of photos. values: of each query, (P,) of its positives, None for one that has none,
    which is left out; positives: of each query that has any."""
    parts: dict[str, list[_QueryPart]] = {}
    for query, ranked in positives.items():
        is_known = np.array([value is not None for value in values[query]], bool)
        labels = np.array([value for value in values[query] if value is not None], object)
        for name, part in _parts_of_query(labels, ranked.n_above[is_known], resamples, (seed, query)).items():
            parts.setdefault(name, []).append(part)
    n_photos = {name: sum(part.n_photos for part in parts_of_slice) for name, parts_of_slice in parts.items()}
    return [
        Sliced(
            attribute=attribute,
            value=name,
            of="photos",
            n_photos=n_photos[name],
            scores=np.array([part.ap for part in parts_of_slice]),
            rest=float(np.mean([part.ap_at_random for part in parts_of_slice])),
            observed=sum(part.observed for part in parts_of_slice),
            chance=np.sum([np.broadcast_to(part.chance, resamples) for part in parts_of_slice], axis=0),
        )
        for name, parts_of_slice in parts.items()
        if len(parts_of_slice) >= FEWEST_QUERIES and n_photos[name] < sum(n_photos.values())
    ]


@dataclass(frozen=True, kw_only=True)
class _QueryPart:
    """A slice of photos among the positives of one query."""

    n_photos: int
    ap: float
    ap_at_random: float  # of as many of the query's positives
    observed: float  # how far its ranks are ahead of the query's mean rank, in all
    chance: np.ndarray  # (resamples,) float64, the same of as many positives at random; (1,) where they are all


def _parts_of_query(
    labels: np.ndarray, n_above: np.ndarray, resamples: int, seed: tuple[int, int]
) -> dict[str, _QueryPart]:
    """The slices among the positives of one query. labels: (P,) texts; n_above: (P,) as of Positives."""
    names = sorted(set(labels.tolist()))
    codes = np.array([names.index(label) for label in labels], np.int64)
    # Positives with no photo between them rank alike. A query counts by its positives, not by their square.
    first, stop = (np.searchsorted(n_above, n_above, side=side) for side in ("left", "right"))
    lead = (len(labels) - (first + stop)) / 2 / (len(labels) + 1)
    table = np.tile(codes, (resamples if len(names) > 1 else 1, 1))
    dealt = np.random.default_rng(seed).permuted(table, axis=1)
    parts = {}
    for code, name in enumerate(names):
        is_member = codes == code
        members = np.nonzero(dealt == code)[1].reshape(len(dealt), -1)
        parts[name] = _QueryPart(
            n_photos=int(is_member.sum()),
            ap=float(average_precisions(n_above[is_member])),
            ap_at_random=float(average_precisions(n_above[members[:AP_RESAMPLES]]).mean()),
            observed=float(lead[is_member].sum()),
            chance=lead[members].sum(axis=1),
        )
    return parts


def corrected(slices: Sequence[Sliced]) -> list[Slice]:
    """The slices with p-values corrected for their number, the worst first: of those that are below the rest beyond
    chance the one with the smallest share of its mAP, then the others by strength."""
    p_values = [part.p_value for part in slices]
    complete = [
        Slice(
            attribute=part.attribute,
            value=part.value,
            of=part.of,
            n_queries=len(part.scores),
            n_photos=part.n_photos,
            mAP=float(part.scores.mean()),
            interval=mean_interval(part.scores),
            rest=part.rest,
            p_value=p_value,
            p_holm=p_holm,
            strength=part.strength,
        )
        for part, p_value, p_holm in zip(slices, p_values, holm(p_values), strict=True)
    ]
    return sorted(complete, key=lambda part: (not part.is_worse, part.share if part.is_worse else part.strength))
