"""Recall against queries per second of several indexes in one axes, from the measurements that `ultron index --report`
wrote."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter
from msgspec import Meta

from ultron_cli.console import counted
from ultron_cli.errors import UltronError
from ultron_cli.schema.texts import in_file, read_json
from ultron_cli.schema.values import fit
from ultron_cli.visualization import drawing, lettering, plots
from ultron_cli.visualization.plots import MOST_LINES, look

LEAST_SPAN = 5.0  # of the axis of recall, in points
MOST_REPORTS = MOST_LINES
KNOBS = {"nprobe": "nprobe", "ef_search": "efSearch"}  # key of the report -> as Faiss calls the setting


Count = Annotated[int, Meta(gt=0)]
Rate = Annotated[float, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class _StoredRow:
    """A row of a report: one setting of the index."""

    rescore: Annotated[int, Meta(ge=0)]
    recall: Annotated[dict[Count, Fraction], Meta(min_length=1)]
    queries_per_s: Rate
    nprobe: int = 0
    ef_search: int = 0


@dataclass(frozen=True, kw_only=True)
class _StoredReport:
    """A report as `ultron index --report` writes it."""

    kind: Annotated[str, Meta(min_length=1)]
    n: Count
    dim: Count
    n_queries: Count
    k: Count
    bytes_per_photo: Rate
    exact_queries_per_s: Rate
    rows: Annotated[list[_StoredRow], Meta(min_length=1)]
    model: str | None = None
    dataset: str | None = None


@dataclass(frozen=True, kw_only=True)
class SpeedPoint:
    """One setting of an index as it was measured."""

    knobs: dict[str, int]  # of KNOBS; 0 where the index has no such setting
    rescore: int  # so many times k candidates are scored again; 0: none
    recall: dict[str, float]  # k as text -> recall@k against exact search, 0..1
    queries_per_s: float


@dataclass(frozen=True, kw_only=True)
class IndexSpeed:
    """What `ultron index --report` measured of one index."""

    kind: str
    n: int  # descriptors
    dim: int
    n_queries: int
    bytes_per_photo: float
    exact_queries_per_s: float  # of exact search, timed in the same run
    points: list[SpeedPoint]
    source: str = ""  # `gem-resnet50 on roxford5k`; "" where not recorded

    @classmethod
    def of(cls, content: object) -> "IndexSpeed":
        """From what a report file holds. Raises Misfit, naming the place, if that is no report."""
        report = fit(content, _StoredReport)
        return cls(
            kind=report.kind,
            n=report.n,
            dim=report.dim,
            n_queries=report.n_queries,
            bytes_per_photo=report.bytes_per_photo,
            exact_queries_per_s=report.exact_queries_per_s,
            points=[
                SpeedPoint(
                    knobs={name: getattr(row, name) for name in KNOBS},
                    rescore=row.rescore,
                    recall={str(cut): recall for cut, recall in row.recall.items()},
                    queries_per_s=row.queries_per_s,
                )
                for row in report.rows
            ],
            source=f"{report.model} on {report.dataset}" if report.model and report.dataset else "",
        )


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One line: an index with or without re-scoring."""

    label: str
    points: list[tuple[float, float, str]]  # recall 0..1, queries per second, what was set or ""


def read_report(path: Path) -> IndexSpeed:
    """The measurements of one index. Raises UltronError if the file holds none."""
    advice = "make a report with `ultron index --report`, which names its JSON file"
    content = read_json(path, "index report", advice=advice)
    with in_file(path, "index report", advice):
        return IndexSpeed.of(content)


def title_of_reports(reports: Sequence[IndexSpeed]) -> str:
    """`Recall and speed: gem-resnet50 on roxford5k`."""
    sources = list(dict.fromkeys(report.source for report in reports if report.source))
    return f"Recall and speed: {' and '.join(sources)}" if sources else "Recall and speed of indexes"


def common_cut(reports: Sequence[IndexSpeed], at: int | None) -> str:
    """The k of recall@k: `at`, else the largest that all reports have. Raises UltronError if one lacks it."""
    common = set.intersection(*(set(point.recall) for report in reports for point in report.points))
    if at is not None and str(at) not in common:
        raise UltronError(
            f"`at` must be one of {', '.join(sorted(common, key=int)) or 'none in common'}, which every report "
            f"has; found {at}"
        )
    if not common:
        raise UltronError("the reports have no recall@k in common; measure indexes of as many photos")
    return str(at) if at is not None else max(common, key=int)


def lines_of(report: IndexSpeed, cut: str, label: str) -> list[Speed]:
    """One line per way of scoring, its points in the order of the setting that was swept."""
    rescored = sorted({point.rescore for point in report.points})
    knob = next((name for name in KNOBS if len({point.knobs[name] for point in report.points}) > 1), None)
    setting = f" ({KNOBS[knob]} written at the points)" if knob else ""
    lines = []
    for rescore in rescored:
        how = ""
        if rescore:
            how = f", re-scored {rescore} x k"
        elif len(rescored) > 1:
            how = ", as the index scores"
        points = [
            (point.recall[cut], point.queries_per_s, str(point.knobs[knob]) if knob else "")
            for point in report.points
            if point.rescore == rescore
        ]
        lines.append(Speed(label=f"{label}{how}, {report.bytes_per_photo:.0f} bytes per photo{setting}", points=points))
    return lines


def recall_speed_figure(
    reports: Sequence[IndexSpeed], labels: Sequence[str], title: str, out: Path, *, at: int | None = None
) -> Path:
    """Queries per second (logarithmic) over recall@k against exact search; the exact searches of the reports are stars.
    PNG, PDF or SVG.

    at: k; None takes the largest that all reports have. Raises UltronError for reports of databases that differ in size
    or dimensions.
    """
    if not 1 <= len(reports) <= MOST_REPORTS:
        raise UltronError(f"one figure takes 1 to {MOST_REPORTS} reports, found {len(reports)}; draw fewer")
    sizes = list(dict.fromkeys((report.n, report.dim, report.n_queries) for report in reports))
    if len(sizes) > 1:
        different = " and ".join(f"{n:,} x {dim} with {n_queries} queries" for n, dim, n_queries in sizes)
        raise UltronError(f"reports in one figure must be of the same descriptors, found {different}; draw them apart")
    cut = common_cut(reports, at)
    lines = [line for report, label in zip(reports, labels, strict=True) for line in lines_of(report, cut, label)]
    if len(lines) > MOST_REPORTS:
        raise UltronError(f"one figure takes up to {MOST_REPORTS} lines, found {len(lines)}; draw fewer reports")
    n, dim, n_queries = sizes[0]
    note = f"{n:,} descriptors of {dim} dimensions, {counted(n_queries, 'query', 'queries')}"
    figure = plots.new_figure(9.0, 5.2 + 0.25 * len(lines), title, note)
    axes: Axes = figure.add_subplot()
    for i, line in enumerate(lines):
        axes.plot(
            [100 * x for x, _, _ in line.points],
            [y for _, y, _ in line.points],
            **look(i),
            label=plots.shortened(line.label, 800, plots.LABEL_PT),
        )
    exact_speeds = [report.exact_queries_per_s for report in reports]
    axes.plot(
        [100] * len(exact_speeds),
        exact_speeds,
        "*",
        color="#1a1a1a",
        markersize=13,
        label="exact search, timed with each index",
        zorder=1,
        clip_on=False,
    )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"recall@{cut} against exact search (%)", fontsize=plots.LABEL_PT)
    axes.set_ylabel("queries per second", fontsize=plots.LABEL_PT)
    span = max(LEAST_SPAN, 100 - min(100 * recall for line in lines for recall, _, _ in line.points))
    axes.set_xlim(100 - 1.06 * span, 100 + 0.06 * span)  # no tick stands above 100 %
    axes.margins(y=0.12)
    axes.grid(visible=True, which="both")
    plots.legend_below_header(figure, axes.get_legend_handles_labels()[0])
    figure.draw_without_rendering()  # where points come to lie
    _write_settings(axes, lines)
    return plots.save_figure(figure, out)


def draw_index_report(content: Mapping[str, object], out: Path) -> Path:
    """The figure beside a report of `ultron index --report`. content: what the report file holds."""
    report = IndexSpeed.of(content)
    return recall_speed_figure([report], [str(content["factory"])], title_of_reports([report]), out)


_Span = tuple[float, float, float, float]  # left, bottom, right, top in pixels


def _overlaps(a: _Span, b: _Span) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _write_settings(axes: Axes, lines: Sequence[Speed]) -> None:
    """The swept setting beside each point, where there is room for it: no two of them overlap."""
    marks = [axes.transData.transform((100 * x, y)) for line in lines for x, y, _ in line.points]
    occupied: list[_Span] = [(x - 5, y - 5, x + 5, y + 5) for x, y in marks]
    height_px = plots.SMALL_PT * drawing.DPI / 72
    above, below = 6.0, -6 - height_px
    for i, line in enumerate(lines):
        for x, y, setting in line.points:
            if not setting:
                continue
            width_px = lettering.text_width_px(setting, round(height_px))
            at_x, at_y = axes.transData.transform((100 * x, y))
            for dx, dy, align in ((7, above, "left"), (7, below, "left"), (-7, above, "right"), (-7, below, "right")):
                left = at_x + dx - (width_px if align == "right" else 0.0)
                span = (left, at_y + dy, left + width_px, at_y + dy + height_px)
                if any(_overlaps(span, other) for other in occupied):
                    continue
                occupied.append(span)
                axes.annotate(
                    setting,
                    (100 * x, y),
                    textcoords="offset points",
                    xytext=(dx * 72 / drawing.DPI, dy * 72 / drawing.DPI),
                    fontsize=plots.SMALL_PT,
                    color=look(i)["color"],
                    ha=align,
                    va="bottom",
                    fontweight="bold",
                )
                break
