"""The result of a sweep as tables: the scores of its cells, and what each change is worth against its baseline."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ultron_cli.console import counted, dump_json, lines, markdown_table, table
from ultron_cli.datasets.corruptions import CORRUPTIONS, MOST_SEVERE
from ultron_cli.evaluation.intervals import LEVEL
from ultron_cli.evaluation.result import percent
from ultron_cli.evaluation.significance import p_text
from ultron_cli.evaluation.summaries import comparison_content
from ultron_cli.evaluation.systems import Pair, Standing, System, compare_systems, letter_of
from ultron_cli.evaluation.tables import Notes, TableFormat, score_table
from ultron_cli.sweep.run import CellResult, Cost
from ultron_cli.visualization.curves.pareto import ParetoPoint, pareto_figure
from ultron_cli.visualization.curves.robustness import RobustnessCurve, Score, robustness_figure
from ultron_cli.workspace import file_name

SIGNIFICANT = "*"  # behind a difference that chance hardly explains


@dataclass(frozen=True, kw_only=True)
class SweepTable:
    """The cells of a sweep that were asked the same queries of the same photos."""

    dataset: str
    results: tuple[CellResult, ...]  # none that failed
    systems: tuple[System, ...]
    baselines: tuple[int, ...]  # by system, the place of the one it is compared with
    standings: tuple[Standing, ...]


def sweep_tables(results: Sequence[CellResult]) -> list[SweepTable]:
    """A table for each dataset, in the order of its first cell. Cells that failed are in none."""
    groups: dict[tuple[object, ...], list[CellResult]] = {}
    for result in results:
        if result.evaluations:
            first = result.evaluations[0]
            query_names = tuple(sorted(name for part in first.protocols.values() for name in part.ap))
            groups.setdefault((first.dataset, first.n_database, query_names), []).append(result)
    return [_table_of(group) for group in groups.values()]


def _table_of(results: Sequence[CellResult]) -> SweepTable:
    systems = tuple(
        System(letter=letter_of(i), label=result.cell.name, paths=result.paths, evaluations=result.evaluations)
        for i, result in enumerate(results)
    )
    place_of = {result.cell.name: i for i, result in enumerate(results)}
    baselines = tuple(place_of.get(result.cell.baseline, 0) for result in results)
    return SweepTable(
        dataset=results[0].evaluations[0].dataset,
        results=tuple(results),
        systems=systems,
        baselines=baselines,
        standings=tuple(compare_systems(systems, baselines)),
    )


def sweep_content(folder: Path, results: Sequence[CellResult], tables: Sequence[SweepTable]) -> dict[str, object]:
    """As --json prints it."""
    cells = [
        {
            "name": result.cell.name,
            "baseline": result.cell.baseline,
            "files": [str(path) for path in result.paths],
            "costs": [asdict(cost) for cost in result.costs],
            "failed": str(result.fault) if result.fault else None,
            "settings": asdict(result.cell.settings),
        }
        for result in results
    ]
    parts = [{"dataset": part.dataset, **comparison_content(part.systems, part.standings)} for part in tables]
    return {"sweep": str(folder), "cells": cells, "tables": parts}


def _main_standing(part: SweepTable) -> Standing:
    """That of medium, or the first where it is missing."""
    return next((standing for standing in part.standings if standing.protocol == "medium"), part.standings[0])


def pareto_points(part: SweepTable) -> tuple[str, list[ParetoPoint]]:
    """(protocol, a point per cell) for the picture of mAP against costs."""
    standing = _main_standing(part)
    points = []
    for result, system, scores in zip(part.results, part.systems, standing.systems, strict=True):
        cost = _mean_cost(result.costs)
        points.append(
            ParetoPoint(
                letter=system.letter,
                label=system.label,
                mAP=scores.mAP,
                interval=scores.interval,
                ms_per_query=cost.ms_per_query,
                bytes_per_photo=cost.bytes_per_photo,
            )
        )
    return standing.protocol, points


def robustness_curves(part: SweepTable) -> list[RobustnessCurve]:
    """Cells that differ from their baseline by a corruption alone, as curves over its severity; each baseline, which is
    severity 0, is a system."""
    standing = _main_standing(part)
    scores = [Score(mAP=system.mAP, interval=system.interval) for system in standing.systems]
    by_severity: dict[tuple[str, str], dict[int, Score]] = {}
    for i, baseline in enumerate(part.baselines):
        settings, of_baseline = (part.results[place].cell.settings for place in (i, baseline))
        extract = settings.extract
        is_same = replace(settings, extract=extract.plain()) == replace(
            of_baseline, extract=of_baseline.extract.plain()
        )
        if extract.severity and not of_baseline.extract.severity and is_same:
            system = part.systems[baseline].label.removesuffix("plain").rstrip(", ") or part.systems[baseline].label
            by_severity.setdefault((system, extract.corruption), {0: scores[baseline]})[extract.severity] = scores[i]
    return [RobustnessCurve(system=system, kind=kind, scores=values) for (system, kind), values in by_severity.items()]


def robustness_table(part: SweepTable, severities: Sequence[int] = tuple(range(MOST_SEVERE + 1))) -> str:
    """The curves as a Markdown table: mAP in % by severity."""
    columns = ["corruption", "system", *map(str, severities)]
    order = {kind: place for place, kind in enumerate(CORRUPTIONS)}  # those of users come last
    curves = sorted(robustness_curves(part), key=lambda curve: order.get(curve.kind, len(order)))
    rows = [
        [curve.kind, curve.system] + [percent(curve.scores[i].mAP, 1) if i in curve.scores else "-" for i in severities]
        for curve in curves
    ]
    return markdown_table(columns, rows)


def draw_tables(tables: Sequence[SweepTable], folder: Path) -> list[Path]:
    """The pictures of each table into the folder of the sweep."""
    paths = []
    for part in tables:
        end = f"-{file_name(part.dataset)}" if len(tables) > 1 else ""
        protocol, points = pareto_points(part)
        title = f"What mAP costs: {counted(len(points), 'cell')} on {part.dataset}"
        paths.append(pareto_figure(points, protocol, title, folder / f"pareto{end}.png"))
        if curves := robustness_curves(part):
            title = f"How much a worse query photo costs, {part.dataset}"
            paths.append(robustness_figure(curves, protocol, title, folder / f"robustness{end}.png"))
    return paths


def sweep_text(content: dict[str, object], tables: Sequence[SweepTable], style: TableFormat) -> str:
    """The tables in one of the formats. content: of sweep_content."""
    if style == "json":
        return dump_json(content, ascii_only=True)
    texts = []
    for part in tables:
        texts.append(score_table(part.systems, part.standings, style, _notes(part)))
        if style in ("text", "markdown") and len(part.systems) > 1:
            texts.append(_changes(part, style))
    return "\n\n".join(texts)


def _notes(part: SweepTable) -> Notes:
    """What holds for all cells: the settings of the first, from which the others differ by what their names say."""
    first = part.systems[0].evaluation
    of_all = f"{first.dataset}, {first.n_queries:,} queries, {first.n_database:,} photos"
    warnings = dict.fromkeys(text for system in part.systems for text in system.evaluation.warnings)
    others = "; the others differ by what their names say" if len(part.systems) > 1 else ""
    how = f"{of_all}. A: {first.protocol_text(timed=False)}{others}."
    return Notes(common=[how, *(f"{text}." for text in warnings)], numbered={}, number_of={})


def _changes(part: SweepTable, style: TableFormat) -> str:
    """The differences to the baselines with their paired intervals, and on the screen what a search costs."""
    letters = [system.letter for system in part.systems]
    columns = ["", "change", "against", *(standing.protocol.capitalize() for standing in part.standings)]
    if style == "text":
        columns += ["p", "ms per query", "bytes per photo"]
    rows = []
    for i, (system, baseline) in enumerate(zip(part.systems, part.baselines, strict=True)):
        pairs = [_pair(standing, letters[baseline], system.letter) for standing in part.standings]
        cells = [_difference(pair) if pair else "-" for pair in pairs]
        row = [system.letter, system.label, letters[baseline] if any(pairs) else "-", *cells]
        if style == "text":
            smallest = min((pair.p_holm for pair in pairs if pair), default=None)
            row += ["-" if smallest is None else p_text(smallest), *_cost(part.results[i].costs)]
        rows.append(row)
    legend = (
        "Difference of mAP in points to the cell it is compared with, and its 95 % interval (paired BCa bootstrap over "
        f"queries); {SIGNIFICANT} p < {LEVEL:.2g} after Holm's correction (paired randomisation)."
    )
    if style == "markdown":
        return f"{markdown_table(columns, rows)}\n\n{legend.replace(SIGNIFICANT, chr(92) + SIGNIFICANT)}"
    cost = (
        "p: the smallest of the protocols. ms per query: of the search with its re-ranking, without describing the "
        "photo; measured beside other work where cells run side by side."
    )
    return lines(table(columns, rows, left=3), legend, cost)


def _pair(standing: Standing, a: str, b: str) -> Pair | None:
    return next((pair for pair in standing.pairs if (pair.a, pair.b) == (a, b)), None)


def _difference(pair: Pair) -> str:
    """`+1.25* [+0.31, +2.40]`."""
    comparison = pair.comparison
    low, high = (f"{100 * side:+.1f}" for side in comparison.interval)
    return f"{100 * comparison.difference:+.2f}{SIGNIFICANT * pair.is_significant} [{low}, {high}]"


def _mean_cost(costs: Sequence[Cost]) -> Cost:
    """Over training seeds."""
    n = len(costs)
    return Cost(
        ms_per_query=sum(cost.ms_per_query for cost in costs) / n,
        bytes_per_photo=sum(cost.bytes_per_photo for cost in costs) / n,
        dim=costs[0].dim,
    )


def _cost(costs: Sequence[Cost]) -> list[str]:
    cost = _mean_cost(costs)
    ms = cost.ms_per_query
    return [f"{ms:.3f}" if ms < 1 else f"{ms:.1f}", f"{cost.bytes_per_photo:,.0f}"]


def failures_text(results: Sequence[CellResult]) -> str:
    """How many cells failed, and why, each reason once; empty for none."""
    names_by_reason: dict[str, list[str]] = {}
    for result in results:
        if result.fault:
            names_by_reason.setdefault(str(result.fault), []).append(result.cell.name)
    n_failed = sum(map(len, names_by_reason.values()))
    reasons = [
        f"{names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {reason}"
        for reason, names in names_by_reason.items()
    ]
    return f"{n_failed} of {counted(len(results), 'cell')} failed: {' | '.join(reasons)}" if n_failed else ""
