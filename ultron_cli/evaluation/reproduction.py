"""Is one result a reproduction of another? From mAP down to the order of photos and the descriptors behind it.

The measures are those of Breuer et al., How to measure the reproducibility of system-oriented IR experiments, SIGIR
2020, with the settings of their program repro-eval: rankings are compared in their first 1,000 places, by rank-biased
overlap (Webber et al., A similarity measure for indefinite rankings, TOIS 2010, equation 32) with persistence 0.8, and
by Kendall's tau.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ultron_cli.blocks import chunks
from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.result import percent
from ultron_cli.evaluation.significance import paired_ap
from ultron_cli.evaluation.systems import System
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.rankings import Ranking

DEPTH = 1000  # places of a ranking that are compared
PERSISTENCE = 0.8  # of rank-biased overlap: the chance that a reader goes on to the next place
ROUNDING = 1e-6  # of AP: below it a difference comes of the order of addition
CLOSE = 0.005  # of AP: below it a difference comes of two photos with nearly equal scores
SAME_COSINE = 0.9999  # of two descriptors of one photo that other arithmetic alone tells apart
BLOCK_ROWS = 8192


@dataclass(frozen=True, kw_only=True)
class FirstDifference:
    """The first query, in the order of the ground truth, whose AP differs."""

    query: str
    ap: tuple[float, float]  # original, reproduction


@dataclass(frozen=True, kw_only=True)
class ScoreAgreement:
    """AP under one protocol; fractions."""

    mAP: tuple[float, float]  # original, reproduction
    rmse: float  # root of the mean squared difference of AP
    largest: float  # difference of AP
    n_different: int  # queries
    first: FirstDifference | None


@dataclass(frozen=True, kw_only=True)
class RankAgreement:
    """Two rankings of the same queries, means over the queries; 1 is equal."""

    rbo: float  # 0 to 1
    kendall_tau: float  # -1 to 1, of the places of the photos that both rank
    kendall_tau_union: float  # as repro-eval computes it, from the photos' numbers in their union
    first_query: str | None  # whose rankings differ
    first_rank: int | None  # at which they do, from 1


@dataclass(frozen=True, kw_only=True)
class DescriptorAgreement:
    """Cosines of the descriptors of the same photos."""

    n: int  # photos in both files
    mean: float
    lowest: float
    lowest_photo: str


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """One result held against another."""

    protocols: dict[str, ScoreAgreement]
    rankings: RankAgreement | None  # None where the rankings are not there
    descriptors: dict[str, DescriptorAgreement] = field(default_factory=dict)  # queries, database

    @property
    def verdict(self) -> str:
        """Whether it is a reproduction, and where to look if not, in a sentence or two."""
        largest = max(part.largest for part in self.protocols.values())
        cosines = [part.lowest for part in self.descriptors.values()]
        if largest <= ROUNDING:
            order = ", and every ranking has the same order" if self.rankings and self.rankings.rbo > 1 - 1e-12 else ""
            return f"reproduced: every query has the same AP{order}"
        worst = max(abs(b - a) for a, b in (part.mAP for part in self.protocols.values()))
        if largest <= CLOSE:
            return f"reproduced but for rounding: no AP differs by more than {percent(largest)} points"
        name, part = max(self.protocols.items(), key=lambda entry: entry[1].largest)
        text = (
            f"not reproduced: mAP differs by up to {percent(worst)} points, AP by up to {percent(largest, 1)} ({name})"
        )
        if part.first:
            text += f", first for query {part.first.query}"
        if cosines and min(cosines) < SAME_COSINE:
            where = min(self.descriptors.items(), key=lambda entry: entry[1].lowest)
            return (
                f"{text}. The descriptors differ already (lowest cosine {where[1].lowest:.4f}, {where[0]} photo "
                f"{where[1].lowest_photo}): look at how photos are read, resized and described"
            )
        if cosines:
            return f"{text}. The descriptors are the same: look at whitening, search, re-ranking and ground truth"
        return text

    def to_json(self) -> dict[str, object]:
        """As `ultron compare --as-reproduction --json` prints it."""
        return {**asdict(self), "verdict": self.verdict}


def as_reproduction(original: System, reproduction: System) -> Reproduction:
    """Holds the second result against the first. Raises UltronError if they are not of the same dataset and queries."""
    a, b = original.evaluation, reproduction.evaluation
    shared = [name for name in a.protocols if name in b.protocols]
    if not shared:
        raise UltronError(
            "the two evaluations have no protocol in common; run `ultron evaluate --protocol all` for both"
        )
    protocols = {}
    for protocol in shared:
        if any(value is not None for value in a.protocols[protocol].ap.values()):
            names = [name for name, value in a.protocols[protocol].ap.items() if value is not None]
            protocols[protocol] = score_agreement(names, *paired_ap(a, b, protocol))
    ranking_a, ranking_b = original.rankings[0], reproduction.rankings[0]
    rankings = rank_agreement(ranking_a, ranking_b) if ranking_a and ranking_b else None
    descriptors = {}
    for role, path_a, path_b in zip(
        ("query", "database"), a.origin.descriptors or (), b.origin.descriptors or (), strict=False
    ):
        if agreement := descriptor_agreement(Path(path_a), Path(path_b)):
            descriptors[role] = agreement
    return Reproduction(protocols=protocols, rankings=rankings, descriptors=descriptors)


def score_agreement(names: Sequence[str], ap_a: np.ndarray, ap_b: np.ndarray) -> ScoreAgreement:
    """Two (n,) float64 arrays of AP of the same queries."""
    differences = np.abs(ap_b - ap_a)
    different = np.flatnonzero(differences > ROUNDING)
    first = None
    if len(different):
        i = int(different[0])
        first = FirstDifference(query=names[i], ap=(float(ap_a[i]), float(ap_b[i])))
    return ScoreAgreement(
        mAP=(float(ap_a.mean()), float(ap_b.mean())),
        rmse=float(np.sqrt((differences**2).mean())),
        largest=float(differences.max()),
        n_different=len(different),
        first=first,
    )


def rank_agreement(a: Ranking, b: Ranking) -> RankAgreement | None:
    """The agreement of two rankings in their first DEPTH places; None if they share no query."""
    row_of = {name: row for row, name in enumerate(b.query_names)}
    overlaps, taus, unions = [], [], []
    first: tuple[str, int] | None = None
    for row, name in enumerate(a.query_names):
        if name not in row_of:
            continue
        names_a, names_b = a.names_of(row)[:DEPTH], b.names_of(row_of[name])[:DEPTH]
        n = min(len(names_a), len(names_b))
        names_a, names_b = names_a[:n], names_b[:n]
        if not n:
            continue
        overlaps.append(rank_biased_overlap(names_a, names_b))
        taus.append(kendall_tau(names_a, names_b))
        unions.append(kendall_tau_union(names_a, names_b))
        if first is None and names_a != names_b:
            first = (
                name,
                next(i for i, pair in enumerate(zip(names_a, names_b, strict=True), start=1) if len({*pair}) > 1),
            )
    if not overlaps:
        return None
    return RankAgreement(
        rbo=float(np.mean(overlaps)),
        kendall_tau=float(np.mean(taus)),
        kendall_tau_union=float(np.mean(unions)),
        first_query=first and first[0],
        first_rank=first and first[1],
    )


def rank_biased_overlap(a: Sequence[str], b: Sequence[str], persistence: float = PERSISTENCE) -> float:
    """Extrapolated rank-biased overlap of two lists of the same length without repeats, at least one long: 0 (no photo
    in common) to 1 (equal)."""
    depth = len(a)
    place_a, place_b = ({name: i for i, name in enumerate(names)} for names in (a, b))
    # A photo that both hold counts from the lower of its two places on.
    joined_at = np.bincount([max(i, place_b[name]) for name, i in place_a.items() if name in place_b], minlength=depth)
    overlap = np.cumsum(joined_at)
    depths = np.arange(1, depth + 1)
    weights = persistence**depths
    partial = (1 - persistence) / persistence * float((overlap / depths * weights).sum())
    return partial + float(overlap[-1] / depth * weights[-1])


def _tau(x: Sequence[int], y: Sequence[int]) -> float:
    """Kendall's tau of pairs of numbers, without ties within x or y."""
    from scipy.stats import kendalltau  # takes 1.2 s of the processor, which other comparisons need not wait for

    tau, _ = kendalltau(x, y)
    return float(np.asarray(tau))


def kendall_tau(a: Sequence[str], b: Sequence[str]) -> float:
    """Kendall's tau of the places of the photos that both lists hold, -1 to 1. Of fewer than two such photos it is 1
    for equal lists, else 0."""
    place_b = {name: i for i, name in enumerate(b)}
    places = [(i, place_b[name]) for i, name in enumerate(a) if name in place_b]
    if len(places) < 2:
        return float(list(a) == list(b))
    return _tau([i for i, _ in places], [j for _, j in places])


def kendall_tau_union(a: Sequence[str], b: Sequence[str]) -> float:
    """Kendall's tau Union as repro-eval computes it: of the numbers that the photos at each place have in the sorted
    union of both lists. It depends on the photos' names; for equal lists it is 1."""
    if len(a) < 2:
        return float(list(a) == list(b))
    number_of = {name: i for i, name in enumerate(sorted({*a, *b}))}
    return _tau([number_of[name] for name in a], [number_of[name] for name in b])


def descriptor_agreement(a: Path, b: Path) -> DescriptorAgreement | None:
    """The cosines of the descriptors of the photos that both files hold, by name; None, with a log line, where a file
    has gone or they have other dimensions."""
    if not (a.is_file() and b.is_file()):
        log.info("descriptors are not compared: %s is gone", a if not a.is_file() else b)
        return None
    with DescriptorFile(a) as file_a, DescriptorFile(b) as file_b:
        row_of = {name: row for row, name in enumerate(file_b.names)}
        names = file_a.names
        rows = [(i, row_of[name]) for i, name in enumerate(names) if name in row_of]
        if file_a.dim != file_b.dim or not rows:
            log.info("descriptors are not compared: %s holds %d-d ones, %s %d-d", a, file_a.dim, b, file_b.dim)
            return None
        pairs = np.array(rows, np.int64)
        cosines = np.concatenate(
            [
                np.einsum("nd,nd->n", file_a.take(pairs[start:stop, 0]), file_b.take(pairs[start:stop, 1]))
                for start, stop in chunks(len(pairs), BLOCK_ROWS)
            ]
        )
    lowest = int(cosines.argmin())
    return DescriptorAgreement(
        n=len(pairs),
        mean=float(cosines.mean()),
        lowest=float(cosines[lowest]),
        lowest_photo=names[int(pairs[lowest, 0])],
    )
