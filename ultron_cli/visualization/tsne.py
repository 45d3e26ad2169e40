"""Barnes-Hut t-SNE of descriptors, coloured by landmark, one panel per model (van der Maaten, JMLR 2014;
scikit-learn's)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from ultron_cli.configs import within
from ultron_cli.console import log
from ultron_cli.datasets.folder import open_folder
from ultron_cli.datasets.protocols import GroundTruth, load_ground_truth
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.visualization import plots, tiles
from ultron_cli.visualization.plots import COLOURS
from ultron_cli.visualization.tiles import QueryPhoto

SHAPES = (
    "o",
    "s",
    "^",
    "D",
    "v",
    "P",
    "X",
    "*",
)  # with the colours, which change with them, 56 landmarks are told apart
MOST_IN_LEGEND, LEGEND_COLUMNS = 24, 6
PANEL_INCHES, PHOTO_PANEL_INCHES = 6.0, 9.0
THUMBNAIL_PX = 34
OTHER = "#a8a8a8"


@dataclass(frozen=True, kw_only=True)
class TsneConfig:
    """How descriptors are embedded."""

    perplexity: float = 30.0  # about the number of neighbours that count; lowered for few photos
    seed: int = 0

    def __post_init__(self) -> None:
        within("perplexity", self.perplexity, 1.0, 1000.0)
        within("seed", self.seed, 0, 2**32 - 1)  # what scikit-learn takes


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One model's points."""

    title: str
    points: np.ndarray  # (N, 2)
    labels: np.ndarray  # (N,) int64 into names, -1 for photos of no landmark
    names: list[str]  # of the landmarks
    photos: list[QueryPhoto] | None = None  # as they were described, for thumbnails


def landmarks_of(truth: GroundTruth) -> tuple[np.ndarray, list[str]]:
    """(labels (N,) int64 by database row, -1 where no query finds the photo; names): queries that share a positive are
    one landmark."""
    parent = list(range(len(truth.queries)))

    def root(query: int) -> int:
        while parent[query] != query:
            query = parent[query]
        return query

    first_query: dict[int, int] = {}  # by database row
    for i, query in enumerate(truth.queries):
        for row in query.rows(("easy", "hard")).tolist():
            parent[root(i)] = root(first_query.setdefault(row, i))
    roots = sorted({root(i) for i in range(len(truth.queries))})
    label_of_root = {query: label for label, query in enumerate(roots)}
    labels = np.full(len(truth.database_names), -1, np.int64)
    for row, query in first_query.items():
        labels[row] = label_of_root[root(query)]
    return labels, [truth.query_names[query] for query in roots]


def embed(descriptors: np.ndarray, config: TsneConfig) -> np.ndarray:
    """(N, D) -> (N, 2) float32; the same seed gives the same points. Raises UltronError for fewer than 4 photos."""
    from sklearn.manifold import TSNE

    if len(descriptors) < 4:
        raise UltronError(
            f"t-SNE needs at least 4 photos of landmarks, found {len(descriptors)}; show a larger database"
        )
    perplexity = min(config.perplexity, (len(descriptors) - 1) / 3)
    if perplexity < config.perplexity:
        log.info(
            "perplexity %.1f instead of %.1f: there are %d photos", perplexity, config.perplexity, len(descriptors)
        )
    method = TSNE(
        n_components=2, perplexity=perplexity, init="pca", method="barnes_hut", random_state=config.seed, n_jobs=1
    )
    return method.fit_transform(np.asarray(descriptors, np.float32))


def knn_purity(points: np.ndarray, labels: np.ndarray, k: int = 5) -> float:
    """Share of the k nearest labelled neighbours of labelled points that are of the same landmark; NaN with fewer than
    two points."""
    has_landmark = labels >= 0
    points = points[has_landmark].astype(np.float64)
    labels = labels[has_landmark]
    k = min(k, len(points) - 1)
    if k < 1:
        return float("nan")
    distance = np.square(points[:, None] - points[None]).sum(-1)
    np.fill_diagonal(distance, np.inf)
    return float((labels[np.argsort(distance, axis=1, kind="stable")[:, :k]] == labels[:, None]).mean())


def panel_of(path: Path, config: TsneConfig, most_others: int, title: str | None) -> tuple[Panel, str]:
    """(the panel, the dataset's name) of a descriptor file. most_others: photos of no landmark that are kept, evenly
    spread."""
    with DescriptorFile(path) as stored:
        info, names = stored.info, list(stored.names)
        gnd = info.provenance.ground_truth
        if not gnd or not os.path.isfile(gnd):
            fault = f"the ground truth of {path} was at {gnd}, which is gone" if gnd else f"{path} has no ground truth"
            raise UltronError(f"{fault}, which tells the landmarks; extract with one (`ultron extract --gnd FILE`)")
        truth = load_ground_truth(Path(gnd))
        labels_of_truth, landmarks = landmarks_of(truth)
        label_of = dict(zip(truth.database_names, labels_of_truth.tolist(), strict=True))
        labels = np.array([label_of.get(name, -1) for name in names], np.int64)
        others = np.flatnonzero(labels < 0)
        if len(others) > most_others:
            log.info("%d of %d photos of no landmark are shown (`most`)", most_others, len(others))
            others = others[np.linspace(0, len(others) - 1, most_others).astype(np.int64)]
        rows = np.sort(np.concatenate([np.flatnonzero(labels >= 0), others]))
        descriptors = stored.read(0, stored.n)[rows].astype(np.float32)
        marks = stored.marks
    folder = info.provenance.dataset_folder
    photos = None
    if folder and Path(folder).is_dir():
        dataset = open_folder(Path(folder), Path(gnd))
        photos = [
            QueryPhoto(dataset.photo_path(names[row]), names[row], mark=marks[row] if marks is not None else None)
            for row in rows
        ]
    points = embed(descriptors, config)
    return Panel(
        title=title or info.model, points=points, labels=labels[rows], names=landmarks, photos=photos
    ), info.dataset


def tsne_figure(panels: list[Panel], title: str, out: Path, *, thumbnails: bool = False) -> Path:
    """Draws the panels in a grid. thumbnails: photos instead of marks. Raises UltronError for another suffix than png,
    pdf, svg."""
    n_columns = min(3, len(panels))
    n_rows = -(-len(panels) // n_columns)
    side_inches = PHOTO_PANEL_INCHES if thumbnails else PANEL_INCHES
    legend = _legend(panels) if not thumbnails else []
    height_inches = (side_inches + 0.3) * n_rows + 0.09 * len(legend)
    note = "Near points are alike; the axes of an embedding have no meaning."
    figure = plots.new_figure(side_inches * n_columns, height_inches, title, note)
    if legend:
        plots.legend_below_header(figure, legend, most_columns=LEGEND_COLUMNS)
    for i, panel in enumerate(panels):
        axes = figure.add_subplot(n_rows, n_columns, i + 1)
        axes.set_title(
            f"{plots.text(panel.title)}\n"
            f"5 nearest of the same landmark: {100 * knn_purity(panel.points, panel.labels):.0f} %",
            fontsize=plots.LABEL_PT,
        )
        plots.no_ticks(axes)
        _draw_photos(axes, panel) if thumbnails and panel.photos else _draw_marks(axes, panel)
    return plots.save_figure(figure, out)


def _style(label: int) -> tuple[str, str]:
    return COLOURS[label % len(COLOURS)], SHAPES[label % len(SHAPES)]


def _legend(panels: Sequence[Panel]) -> list[Line2D]:
    """A mark per landmark; none where they are too many, or the panels' landmarks are others."""
    names = panels[0].names
    if len(names) > MOST_IN_LEGEND or any(panel.names != names for panel in panels):
        return []
    marks = [(*_style(label), 6.0, name) for label, name in enumerate(names)]
    if any((panel.labels < 0).any() for panel in panels):
        marks.append((OTHER, ".", 7.0, "no landmark"))
    return [
        Line2D(
            [],
            [],
            color=colour,
            marker=shape,
            markersize=size_pt,
            markeredgecolor="white",
            markeredgewidth=0.4,
            linestyle="none",
            label=plots.shortened(name, 170, plots.LABEL_PT),
        )
        for colour, shape, size_pt, name in marks
    ]


def _draw_marks(axes: Axes, panel: Panel) -> None:
    others = panel.labels < 0
    if others.any():
        axes.scatter(*panel.points[others].T, s=30, c=OTHER, marker=".", linewidths=0)
    for label in range(len(panel.names)):
        of_landmark = panel.labels == label
        if of_landmark.any():
            colour, shape = _style(label)
            axes.scatter(
                *panel.points[of_landmark].T,
                s=34,
                c=colour,
                marker=shape,
                linewidths=0.4,
                edgecolors="white",
            )


def free_cells(shares: np.ndarray, n_columns: int, n_rows: int) -> np.ndarray | None:
    """(N, 2) int64: for each point, the nearest cell (column, row) of a grid that no earlier point took; None where
    cells are too few.

    shares: (N, 2) of the grid's width and height. Points are taken from the middle of the crowd outwards, so that
    clusters stay whole.
    """
    if len(shares) > 0.8 * n_columns * n_rows:
        return None
    columns, rows = np.meshgrid(np.arange(n_columns), np.arange(n_rows), indexing="ij")
    cells = np.stack([columns.ravel(), rows.ravel()], axis=1)
    targets = shares * (n_columns, n_rows) - 0.5
    is_taken = np.zeros(len(cells), bool)
    cell_of_point = np.empty((len(shares), 2), np.int64)
    for point in np.argsort(np.square(shares - np.median(shares, axis=0)).sum(axis=1), kind="stable"):
        distances = np.square(cells - targets[point]).sum(axis=1)
        nearest = int(np.argmin(np.where(is_taken, np.inf, distances)))
        is_taken[nearest] = True
        cell_of_point[point] = cells[nearest]
    return cell_of_point


def _draw_photos(axes: Axes, panel: Panel) -> None:
    """Photos framed in their landmark's colour, each beside its point so that none lies over another; over their points
    where they are too many."""
    axes.set_xlim(*_widened(panel.points[:, 0]))
    axes.set_ylim(*_widened(panel.points[:, 1]))
    low, high = (np.array(limits) for limits in zip(axes.get_xlim(), axes.get_ylim(), strict=True))
    shares = (panel.points - low) / (high - low)
    per_side = int(PHOTO_PANEL_INCHES * 72 / (THUMBNAIL_PX + 7))  # an OffsetImage draws a pixel as a point
    cells = free_cells(shares, per_side, per_side)
    places = shares if cells is None else (cells + 0.5) / per_side
    if cells is not None:
        axes.set_xlabel("photos in the nearest free place, lines lead to their points", fontsize=plots.LABEL_PT)
    photos = panel.photos or []
    tiles.warn_of_changed_photos(photos)
    for share, place, label, photo in zip(shares, places, panel.labels, photos, strict=True):
        tile = tiles.load_tile(photo.path, THUMBNAIL_PX, THUMBNAIL_PX)
        colour = _style(int(label))[0] if label >= 0 else OTHER
        axes.plot(
            *np.stack([share, place]).T, color=colour, linewidth=0.7, alpha=0.6, transform=axes.transAxes, zorder=1
        )
        frame = {"edgecolor": colour, "linewidth": 2.0, "boxstyle": "square,pad=0.05"}
        axes.add_artist(
            AnnotationBbox(
                OffsetImage(tile.pixels), tuple(place), xycoords="axes fraction", bboxprops=frame, pad=0.0, zorder=2
            )
        )


def _widened(values: np.ndarray) -> tuple[float, float]:
    """Limits with room for thumbnails at the rim."""
    room = 0.06 * max(float(np.ptp(values)), 1e-6)
    return float(values.min()) - room, float(values.max()) + room
