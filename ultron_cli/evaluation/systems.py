"""Several systems side by side: the mAP of each with its intervals, who beats whom, and the queries that tell them
apart.

A system is one evaluation, or several of its training seeds: then the AP of a query is the mean over the seeds, and the
spread of the seeds stands apart from that of the queries.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.evaluate import evaluate_ranking, find_gnd
from ultron_cli.evaluation.intervals import LEVEL, mean_interval
from ultron_cli.evaluation.result import Evaluation, read_evaluation
from ultron_cli.evaluation.significance import Comparison, compare_ap, holm, paired_ap
from ultron_cli.retrieval.rankings import Ranking, read_ranks

N_MOVED = 5  # queries that are shown
RANK_FILES = (".h5", ".hdf5")


@dataclass(frozen=True, kw_only=True)
class System:
    """What is compared: the evaluations of one system, one per training seed."""

    letter: str  # A, B, ...
    label: str
    paths: tuple[Path, ...]
    evaluations: tuple[Evaluation, ...] = field(repr=False)
    rankings: tuple[Ranking | None, ...] = field(
        default=(), repr=False
    )  # of each evaluation; None for an Evaluation JSON

    @property
    def evaluation(self) -> Evaluation:
        """The first, whose settings stand for all."""
        return self.evaluations[0]


@dataclass(frozen=True, kw_only=True)
class SystemScores:
    """One system under one protocol; scores are fractions."""

    letter: str
    mAP: float  # mean over the seeds
    interval: tuple[float, float]  # 95 %, by the choice of queries
    n_seeds: int
    seeds_sd: float | None  # standard deviation of mAP over the seeds; None for one
    beats: tuple[str, ...]  # letters of the systems that are worse beyond chance


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two systems under one protocol."""

    a: str  # letter
    b: str
    comparison: Comparison  # b against a
    p_holm: float  # corrected for all pairs of the protocol

    @property
    def is_significant(self) -> bool:
        """Whether one is better beyond chance."""
        return self.p_holm < LEVEL and self.comparison.difference != 0


@dataclass(frozen=True, kw_only=True)
class MovedQuery:
    """A query on which systems differ."""

    query: str
    ap: tuple[float, ...]  # by system


@dataclass(frozen=True, kw_only=True)
class Standing:
    """All systems under one protocol."""

    protocol: str
    n_queries: int  # with positives
    systems: tuple[SystemScores, ...]
    pairs: tuple[Pair, ...]
    moved: tuple[MovedQuery, ...]  # those that differ most, the most first

    @property
    def last_against_first(self) -> Pair:
        """The last system held against the first. Raises ValueError for a single one."""
        if len(self.systems) < 2:
            raise ValueError("a single system is held against no other")
        return next(
            pair for pair in self.pairs if (pair.a, pair.b) == (self.systems[0].letter, self.systems[-1].letter)
        )

    @property
    def difference(self) -> float:
        """mAP of the last system minus that of the first, a fraction."""
        return self.last_against_first.comparison.difference

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the difference, fractions."""
        return self.last_against_first.comparison.interval

    @property
    def p_value(self) -> float:
        """Of no difference, two-sided, corrected for all pairs."""
        return self.last_against_first.p_holm

    def verdict(self, systems: Sequence[System]) -> str:
        """Which is best, and over which of the others beyond chance, in one sentence."""
        scores = sorted(self.systems, key=lambda system: -system.mAP)
        best = scores[0]
        name = {system.letter: f"{system.letter} ({system.label})" for system in systems}
        others = [system.letter for system in scores[1:]]
        tied = [letter for letter in others if letter not in best.beats]
        if not tied:
            return f"{name[best.letter]} is best, beyond chance"
        text = f"{name[best.letter]} is best, but chance explains its lead over {', '.join(tied)}"
        return f"{text}; it beats {', '.join(best.beats)}" if best.beats else text


def systems_of(
    evaluations: Sequence[Evaluation | Path | Sequence[Evaluation | Path]], labels: Sequence[str] | None = None
) -> list[System]:
    """Systems to compare, of a program: each an evaluation or a file as open_systems takes it, or several training
    seeds of one. labels: their names; None takes the model's, or the file's. Raises UltronError."""
    groups = [[part] if isinstance(part, (Evaluation, Path)) else list(part) for part in evaluations]
    if not all(groups):
        raise UltronError(f"each system has one evaluation or more; that of place {groups.index([])} has none")
    if labels is not None and len(labels) != len(groups):
        raise UltronError(f"each system has one of `labels`; found {len(labels)} for {len(groups)} systems")
    results = [
        [(part, None) if isinstance(part, Evaluation) else _open_result(part) for part in group] for group in groups
    ]
    paths = [tuple(part for part in group if isinstance(part, Path)) for group in groups]
    return _systems(paths, results, labels)


def open_systems(arguments: Sequence[str], metric: str | None = None) -> list[System]:
    """The systems that a command line names: an evaluation or rank file each, or several training seeds of one with
    commas between them; a folder stands for all evaluations below it. metric: by which they are compared, one that
    they were evaluated with; None is mAP. Raises UltronError."""
    groups: list[tuple[Path, ...]] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            groups += [(file,) for file in _evaluations_below(path)]
        elif path.exists() or "," not in argument:
            groups.append((path,))
        else:
            groups.append(tuple(Path(part) for part in argument.split(",") if part))
    return _systems(groups, [[_open_result(path, metric) for path in paths] for paths in groups])


def _systems(
    groups: Sequence[tuple[Path, ...]],
    results_by_system: Sequence[Sequence[tuple[Evaluation, Ranking | None]]],
    labels: Sequence[str] | None = None,
) -> list[System]:
    """groups: the files of each system, none of evaluations in memory."""
    labels = labels or _labels(groups, [[evaluation for evaluation, _ in results] for results in results_by_system])
    return [
        System(
            letter=letter_of(i),
            label=label,
            paths=paths,
            evaluations=tuple(evaluation for evaluation, _ in results),
            rankings=tuple(ranking for _, ranking in results),
        )
        for i, (paths, results, label) in enumerate(zip(groups, results_by_system, labels, strict=True))
    ]


def _evaluations_below(folder: Path) -> list[Path]:
    """The evaluations below a folder, in order of path: JSON files that hold protocols. Raises UltronError if there is
    none."""
    files = []
    for path in sorted(folder.rglob("*.json")):
        try:
            read_evaluation(path)
        except UltronError as error:
            log.debug("%s", error)
            continue
        files.append(path)
    if not files:
        raise UltronError(f"{folder} has no evaluation; name a folder of files that `ultron evaluate --out` made")
    return files


def _open_result(path: Path, metric: str | None = None) -> tuple[Evaluation, Ranking | None]:
    """An evaluation, and the ranking where the file is one. Raises UltronError."""
    ranking = None
    if path.suffix in RANK_FILES:
        ranking = read_ranks(path)
        metrics = [metric] if metric else []
        evaluation = evaluate_ranking(ranking, find_gnd(None, ranking.origin), metrics=metrics)
    else:
        evaluation = read_evaluation(path)
    if metric:
        try:
            evaluation = evaluation.by_metric(metric)
        except UltronError as error:
            raise UltronError(f"{path}: {error.message}") from None
    return evaluation, ranking


def _labels(groups: Sequence[Sequence[Path]], evaluations: Sequence[Sequence[Evaluation]]) -> list[str]:
    """A short name per system: its model, or where those are equal its file, its folder and file, or its path."""
    models = [group[0].origin.model or "" for group in evaluations]
    if not all(groups):
        return [label or f"system {letter_of(i)}" for i, label in enumerate(models)]
    choices = (
        models,
        [paths[0].stem for paths in groups],
        [paths[0].parent.name for paths in groups],
        [f"{paths[0].parent.name}/{paths[0].stem}" for paths in groups],
    )
    for labels in choices:
        if len(set(labels)) == len(labels) and all(labels):
            return labels
    return [str(paths[0]) for paths in groups]


def letter_of(i: int) -> str:
    """A, B ... Z, AA, AB ... as spreadsheets name columns."""
    letters = ""
    i += 1
    while i:
        i, rest = divmod(i - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def compare_systems(systems: Sequence[System], baselines: Sequence[int] | None = None) -> list[Standing]:
    """How the systems stand under each protocol that all have.

    baselines: the place of the system that each is compared with, which may be itself; None compares every pair.
    Raises UltronError if they are not of the same dataset, queries and number of photos, or have no protocol in common.
    """
    evaluations = [evaluation for system in systems for evaluation in system.evaluations]
    first = evaluations[0]
    shared = [name for name in first.protocols if all(name in other.protocols for other in evaluations)]
    if not shared:
        are_files = len(systems) == 2 and all(system.paths for system in systems)
        places = f"{systems[0].paths[0]} and {systems[-1].paths[-1]}" if are_files else "the evaluations"
        raise UltronError(f"{places} have no protocol in common; run `ultron evaluate --protocol all` for each")
    left_out = dict.fromkeys(name for other in evaluations for name in other.protocols if name not in shared)
    if left_out:
        log.warning("protocol %s is not in every evaluation, and left out", ", ".join(left_out))
    used = [name for name in shared if any(value is not None for value in first.protocols[name].ap.values())]
    if baselines is None:
        numbers = list(itertools.combinations(range(len(systems)), 2))
    else:
        numbers = [(baseline, i) for i, baseline in enumerate(baselines) if i != baseline]
    return [_standing(systems, numbers, protocol) for protocol in used or shared]


def _standing(systems: Sequence[System], numbers: Sequence[tuple[int, int]], protocol: str) -> Standing:
    """numbers: the pairs, as places of systems."""
    first = systems[0].evaluation
    rows, seeds_sd = [], []
    for system in systems:
        ap = np.array([paired_ap(first, evaluation, protocol)[1] for evaluation in system.evaluations])  # (seeds, n)
        rows.append(ap.mean(axis=0))
        seeds_sd.append(float(ap.mean(axis=1).std(ddof=1)) if len(ap) > 1 else None)
    ap = np.array(rows)  # (systems, n)
    names = [name for name, value in first.protocols[protocol].ap.items() if value is not None]
    comparisons = [compare_ap(ap[a], ap[b], protocol, metric=first.metric) for a, b in numbers]
    pairs = [
        Pair(a=systems[a].letter, b=systems[b].letter, comparison=comparison, p_holm=p_value)
        for (a, b), comparison, p_value in zip(
            numbers, comparisons, holm([part.p_value for part in comparisons]), strict=True
        )
    ]
    beats: dict[str, list[str]] = {system.letter: [] for system in systems}
    for pair in pairs:
        if pair.is_significant:
            better, worse = (pair.b, pair.a) if pair.comparison.difference > 0 else (pair.a, pair.b)
            beats[better].append(worse)
    spread = ap.max(axis=0) - ap.min(axis=0)
    order = [int(i) for i in np.argsort(-spread, kind="stable") if spread[i] > 0]
    return Standing(
        protocol=protocol,
        n_queries=ap.shape[1],
        systems=tuple(
            SystemScores(
                letter=system.letter,
                mAP=float(row.mean()),
                interval=mean_interval(row),
                n_seeds=len(system.evaluations),
                seeds_sd=sd,
                beats=tuple(beats[system.letter]),
            )
            for system, row, sd in zip(systems, ap, seeds_sd, strict=True)
        ),
        pairs=tuple(pairs),
        moved=tuple(MovedQuery(query=names[i], ap=tuple(ap[:, i].tolist())) for i in order[:N_MOVED]),
    )
