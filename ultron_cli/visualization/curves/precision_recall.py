"""Mean interpolated precision over recall of several searches, one axes per protocol, all searches in it.

Interpolated precision at recall r is the highest precision at any recall of r or more (Salton and McGill 1983; as in
TREC and PASCAL VOC), here at 101 recalls from 0 to 1, averaged over queries. As in the evaluation, ignored photos leave
the ranking first and recall counts all positives, found or not; what a ranking does not reach has precision 0. mAP in
the legend is the evaluation's own, by the trapezoid rule.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.lines import Line2D

from ultron_cli.datasets.protocols import GroundTruth, Protocol
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.evaluate import dataset_name, find_gnd, ranking_against
from ultron_cli.evaluation.metrics import RankTable, revisited_map
from ultron_cli.retrieval.rankings import Ranking
from ultron_cli.visualization import plots
from ultron_cli.visualization.plots import MOST_LINES, look

RECALLS = np.linspace(0.0, 1.0, 101)
MOST_SEARCHES = MOST_LINES


@dataclass(frozen=True, kw_only=True)
class PrecisionRecall:
    """The curves of one search."""

    label: str
    dataset: str
    n_database: int
    curves: dict[str, np.ndarray]  # protocol -> (101,) float64 mean precision, 0..1, at RECALLS
    mAP: dict[str, float]  # protocol -> 0..1
    n_queries: dict[str, int]  # protocol -> how many had positives


def interpolated_precision(positive_ranks: np.ndarray, n_positives: int, recalls: np.ndarray = RECALLS) -> np.ndarray:
    """(len(recalls),) float64: the highest precision at each recall or more, 0 beyond what was found.

    positive_ranks: (P,) integers, ascending, from 0, ignored photos already taken out. n_positives: at least 1, found
    or not.
    """
    n_found = np.arange(1, len(positive_ranks) + 1)  # up to and with each positive
    precision = n_found / (np.asarray(positive_ranks, np.float64) + 1)
    highest = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    # The first place at which recall reaches r; a hair less, so that 3/10 reaches 0.3.
    return highest[np.searchsorted(n_found / n_positives, recalls - 1e-9)]


def mean_curve(rows: RankTable, truth: GroundTruth, protocol: Protocol) -> np.ndarray:
    """(101,) float64: the mean over the queries that have positives; a photo that a ranking repeats counts where it
    first stands.

    rows: (Q, K) database rows of the ground truth's queries, best first, -1 for none. Raises UltronError if no query
    has positives.
    """
    curves = []
    for query in range(len(truth.queries)):
        positives, ignored = truth.split(query, protocol)
        if len(positives):
            ranked_rows = rows[query]
            counted_rows = ranked_rows[~np.isin(ranked_rows, ignored)]
            first = np.sort(np.unique(counted_rows, return_index=True)[1])
            positive_ranks = np.flatnonzero(np.isin(counted_rows[first], positives))
            curves.append(interpolated_precision(positive_ranks, len(positives)))
    if not curves:
        raise UltronError(f"no query has positives under protocol {protocol}; choose another with `protocol`")
    return np.mean(curves, axis=0)


def measure(ranking: Ranking, label: str, protocols: Sequence[Protocol]) -> PrecisionRecall:
    """The curves of one search. Raises UltronError if its ground truth is gone or does not fit."""
    gnd = find_gnd(None, ranking.origin)
    truth, rows = ranking_against(ranking, gnd)
    results = {protocol: revisited_map(rows, truth, protocol) for protocol in protocols}
    return PrecisionRecall(
        label=label,
        dataset=dataset_name(ranking.origin, gnd),
        n_database=len(ranking.database_names),
        curves={protocol: mean_curve(rows, truth, protocol) for protocol in protocols},
        mAP={protocol: result.mAP for protocol, result in results.items()},
        n_queries={protocol: result.queries_used for protocol, result in results.items()},
    )


def precision_recall_figure(searches: Sequence[PrecisionRecall], title: str, out: Path) -> Path:
    """One axes per protocol, all searches in it, told apart by colour, dash and mark. PNG, PDF or SVG.

    Raises UltronError for no or too many searches, or searches of different datasets.
    """
    if not 1 <= len(searches) <= MOST_SEARCHES:
        raise UltronError(f"one figure takes 1 to {MOST_SEARCHES} searches, found {len(searches)}; draw fewer")
    datasets = list(dict.fromkeys((search.dataset, search.n_database) for search in searches))
    if len(datasets) > 1:
        different = " and ".join(f"{name} with {n:,} photos" for name, n in datasets)
        raise UltronError(
            f"searches in one figure must be of one dataset and as many photos, found {different}; draw them apart"
        )
    protocols = list(searches[0].curves)
    figure = plots.new_figure(max(6.4, 4.6 * len(protocols)), 4.3 + 0.25 * len(searches), title)
    grid = figure.subplots(1, len(protocols), squeeze=False, sharey=True)[0]
    for axes, protocol in zip(grid, protocols, strict=True):
        for i, search in enumerate(searches):
            style = {**look(i), "markersize": 5.5, "markevery": (4 * i % 20, 20)}
            axes.plot(100 * RECALLS, 100 * search.curves[protocol], **style)
        axes.set_title(f"{protocol}, {searches[0].n_queries[protocol]} queries", fontsize=plots.LABEL_PT)
        axes.set_xlabel("recall (%)", fontsize=plots.LABEL_PT)
        axes.set_xlim(-3, 103)
        axes.set_ylim(0, 102)
        axes.grid(visible=True)
        if protocol == protocols[0]:
            axes.set_ylabel("mean interpolated precision (%)", fontsize=plots.LABEL_PT)
    handles = [Line2D([], [], **look(i), label=_legend(search)) for i, search in enumerate(searches)]
    plots.legend_below_header(figure, handles)
    return plots.save_figure(figure, out)


def _legend(search: PrecisionRecall) -> str:
    scores = ", ".join(f"{protocol} {100 * value:.1f}" for protocol, value in search.mAP.items())
    return plots.shortened(f"{search.label}: mAP {scores} %", 1000, plots.LABEL_PT)
