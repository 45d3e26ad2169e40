"""Recall against queries per second of several indexes in one axes, from the measurements that `ultron index --report`
wrote."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from ultron_cli.console import counted
from ultron_cli.errors import UltronError
from ultron_cli.files import read_json
from ultron_cli.visualization import drawing, plots
from ultron_cli.visualization.curves.run_curves import look

MOST_REPORTS = 14
KNOBS = {"nprobe": "nprobe", "ef_search": "efSearch"}


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One line: an index with or without re-scoring. points: (recall 0..1, queries per second, what was set or "")."""

    label: str
    points: list[tuple[float, float, str]]


def read_report(path: Path) -> dict[str, Any]:
    """The measurements of one index. Raises UltronError if the file holds none."""
    content = read_json(path, "index report")
    try:
        complete = (
            all(row["queries_per_s"] > 0 and row["recall"] and "rescore" in row for row in content["rows"])
            and content["rows"]
        )
        numbers = (
            all(content[key] > 0 for key in ("n", "dim", "k", "n_queries", "exact_queries_per_s", "bytes_per_photo"))
            and content["kind"]
        )
    except (KeyError, TypeError):
        complete = numbers = False
    if not complete or not numbers:
        raise UltronError(
            f"{path} is not a report of an index; make one with `ultron index --report`, which names its JSON file"
        )
    return content


def common_cut(reports: Sequence[dict[str, Any]], asked: int | None) -> str:
    """The k of recall@k: as asked, else the largest that all reports have. Raises UltronError if one lacks it."""
    common = set.intersection(*(set(row["recall"]) for report in reports for row in report["rows"]))
    if asked is not None and str(asked) not in common:
        raise UltronError(
            f"--at must be one of {', '.join(sorted(common, key=int)) or 'none in common'}, which every report "
            f"has; found {asked}"
        )
    if not common:
        raise UltronError("the reports have no recall@k in common; measure indexes of as many photos")
    return str(asked) if asked is not None else max(common, key=int)


def lines_of(report: dict[str, Any], cut: str, label: str) -> list[Speed]:
    """One line per way of scoring, its points in the order of the setting that was swept."""
    rescored = sorted({row["rescore"] for row in report["rows"]})
    knob = next((name for name in KNOBS if len({row.get(name) for row in report["rows"]}) > 1), None)
    found = []
    for rescore in rescored:
        rows = [row for row in report["rows"] if row["rescore"] == rescore]
        how = f", re-scored {rescore} x k" if rescore else ", as the index scores" if len(rescored) > 1 else ""
        points = [(row["recall"][cut], row["queries_per_s"], str(row[knob]) if knob else "") for row in rows]
        setting = f" ({KNOBS[knob]} written at the points)" if knob else ""
        found.append(
            Speed(label=f"{label}{how}, {report['bytes_per_photo']:.0f} bytes per photo{setting}", points=points)
        )
    return found


def recall_speed_figure(
    reports: Sequence[dict[str, Any]], labels: Sequence[str], title: str, out: Path, *, at: int | None = None
) -> Path:
    """Queries per second (logarithmic) over recall@k against exact search; the exact searches of the reports are stars.
    PNG, PDF or SVG.

    at: k; None takes the largest that all reports have. Raises UltronError for reports of databases that differ in size
    or dimensions.
    """
    if not 1 <= len(reports) <= MOST_REPORTS:
        raise UltronError(f"one figure takes 1 to {MOST_REPORTS} reports, found {len(reports)}; draw fewer")
    sizes = list(dict.fromkeys((report["n"], report["dim"], report["n_queries"]) for report in reports))
    if len(sizes) > 1:
        found = " and ".join(f"{n:,} x {dim} with {n_queries} queries" for n, dim, n_queries in sizes)
        raise UltronError(f"reports in one figure must be of the same descriptors, found {found}; draw them apart")
    cut = common_cut(reports, at)
    lines = [line for report, label in zip(reports, labels, strict=True) for line in lines_of(report, cut, label)]
    if len(lines) > MOST_REPORTS:
        raise UltronError(f"one figure takes up to {MOST_REPORTS} lines, found {len(lines)}; draw fewer reports")
    figure = plots.new_figure(9.0, 5.4 + 0.25 * len(lines), title)
    axes: Axes = figure.add_subplot()
    for i, line in enumerate(lines):
        axes.plot(
            [100 * x for x, _, _ in line.points],
            [y for _, y, _ in line.points],
            **look(i),
            label=plots.shortened(line.label, 800, plots.LABEL_PT),
        )
    exact = [report["exact_queries_per_s"] for report in reports]
    axes.plot(
        [100] * len(exact),
        exact,
        "*",
        color="#1a1a1a",
        markersize=13,
        label="exact search, timed with each index",
        zorder=1,
        clip_on=False,
    )
    n, dim, n_queries = sizes[0]
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"recall@{cut} against exact search (%)", fontsize=plots.LABEL_PT)
    axes.set_ylabel("queries per second", fontsize=plots.LABEL_PT)
    axes.set_title(
        f"{n:,} descriptors of {dim} dimensions, {counted(n_queries, 'query', 'queries')}", fontsize=plots.LABEL_PT
    )
    axes.margins(x=0.06, y=0.12)
    axes.grid(visible=True, which="both", alpha=0.3)
    figure.legend(loc="outside lower center", frameon=False, fontsize=plots.LABEL_PT)
    figure.draw_without_rendering()  # where points come to lie
    _write_settings(axes, lines)
    return plots.save_figure(figure, out)


def _write_settings(axes: Axes, lines: Sequence[Speed]) -> None:
    """The swept setting beside each point, where there is room for it: no two of them overlap."""
    marks = [axes.transData.transform((100 * x, y)) for line in lines for x, y, _ in line.points]
    boxes: list[tuple[float, float, float, float]] = [(x - 5, y - 5, x + 5, y + 5) for x, y in marks]
    height_px = plots.SMALL_PT * drawing.DPI / 72
    for i, line in enumerate(lines):
        for x, y, value in line.points:
            width_px = drawing.text_width_px(value, round(height_px))
            at_x, at_y = axes.transData.transform((100 * x, y))
            for dx, dy, align in (
                (7, 6, "left"),
                (7, -6 - height_px, "left"),
                (-7, 6, "right"),
                (-7, -6 - height_px, "right"),
            ):
                left = at_x + dx - (width_px if align == "right" else 0.0)
                box = (left, at_y + dy, left + width_px, at_y + dy + height_px)
                if value and not any(
                    box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in boxes
                ):
                    boxes.append(box)
                    offset = (dx * 72 / drawing.DPI, dy * 72 / drawing.DPI)
                    style = {
                        "fontsize": plots.SMALL_PT,
                        "color": look(i)["color"],
                        "ha": align,
                        "va": "bottom",
                        "fontweight": "bold",
                    }
                    axes.annotate(value, (100 * x, y), textcoords="offset points", xytext=offset, **style)
                    break
