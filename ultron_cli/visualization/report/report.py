"""One self-contained HTML file about one search or two: summary, per-query results, ranked photos, pairs with
similarity maps.

Everything is inside the file, thumbnails included: it opens without a server or a network, and can be sent to somebody.
The page itself is page.html with its style and script beside it; names are only ever set as text, so a photo may be
called anything.
"""

import base64
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict

import numpy as np
from PIL import Image

from ultron_cli.console import counted, log, progress, without_surrogates
from ultron_cli.datasets.protocols import LABELS, PROTOCOLS, Box
from ultron_cli.errors import UltronError
from ultron_cli.evaluation.evaluate import evaluate_ranking
from ultron_cli.evaluation.result import Evaluation
from ultron_cli.evaluation.significance import compare_evaluations
from ultron_cli.files import write_text
from ultron_cli.provenance import provenance
from ultron_cli.retrieval.origin import Origin, SearchRecord
from ultron_cli.visualization import tiles
from ultron_cli.visualization.report.maps import PackedMap, packed_map
from ultron_cli.visualization.scene import Scene
from ultron_cli.visualization.tiles import QueryPhoto, RankedPhoto, Tile

if TYPE_CHECKING:
    from ultron_cli.visualization.report.inliers import PackedInliers

LARGEST_MIB = 30
THUMBNAIL_QUALITY = 72
PAGE = Path(__file__).with_name("page.html")
INLIERS = PAGE.with_name("inliers.js")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """How much the page shows."""

    k: int = 10  # photos per query
    thumbnail_px: int = 200  # longest side
    n_maps: int = 0  # pairs per query that get a similarity map; 0 needs no model
    method: str = "gradcam"  # of the maps

    def __post_init__(self) -> None:
        if not 1 <= self.k <= 200:
            raise UltronError(f"`k` must be 1 to 200 photos per query, found {self.k}")
        if not 60 <= self.thumbnail_px <= 600:
            raise UltronError(f"`thumbnail_px` must be 60 to 600 pixels, found {self.thumbnail_px}")


@dataclass
class Thumbnails:
    """JPEG thumbnails as data addresses, each photo (with its box) once."""

    side_px: int
    sources: list[str] = field(default_factory=list)
    problems: list[tuple[str, Tile]] = field(default_factory=list)
    _number: dict[tuple[str, Box | None], int] = field(default_factory=dict)

    def add(self, photo: QueryPhoto) -> int:
        """The number of a photo's thumbnail."""
        key = (str(photo.path), photo.bbx)
        if key not in self._number:
            tile = tiles.load_tile(photo.path, self.side_px, self.side_px)
            if tile.problem:
                self.problems.append((photo.name, tile))
            pixels = tiles.with_box(tile, photo.bbx) if photo.bbx and not tile.problem else tile.pixels
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG", quality=THUMBNAIL_QUALITY, optimize=True)
            self._number[key] = len(self.sources)
            self.sources.append("data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode())
        return self._number[key]


def label_of(scene: Scene) -> list[dict[str, str]]:
    """Per query of the search, the label (easy, hard, junk) of each database photo that has one; empty without a ground
    truth."""
    truth = scene.queries.ground_truth if scene.queries else None
    if truth is None:
        return [{} for _ in scene.ranking.query_names]
    row_of = {name: row for row, name in enumerate(truth.query_names)}
    labels = []
    for name in scene.ranking.query_names:
        query = truth.queries[row_of[name]] if name in row_of else None
        labels.append(
            {truth.database_names[row]: label for label in LABELS for row in getattr(query, label)} if query else {}
        )
    return labels


def _with_settings(name: str, settings: Mapping[str, object]) -> str:
    """`superglobal (m 400, k 9, beta 0.15)`."""
    return f"{name} ({', '.join(f'{key} {value}' for key, value in settings.items())})" if settings else name


def settings_of(origin: Origin) -> list[tuple[str, str]]:
    """The protocol of a search, in words: a score without it says nothing."""
    extraction, search = origin.extraction, origin.search or SearchRecord()
    crop = {"bbx": "cropped to their box", "none": "whole photos, not cropped"}.get(extraction.crop or "", "")
    side = f"{extraction.max_side_px} px" if extraction.max_side_px else "no limit"
    searched_by = origin.searched_by or provenance()
    facts = [
        ("model", origin.model or ""),
        ("weights", str(origin.weights or "")),
        ("weights sha256", (origin.weights_sha256 or "")[:16]),
        ("queries", crop),
        ("scales", ", ".join(f"{scale:g}" for scale in extraction.scales)),
        ("longest side", side if extraction else ""),
        ("whitening", str(extraction.whitening or "")),
        ("search", _with_settings(search.engine, search.settings)),
        ("re-ranking", ", then ".join(_with_settings(step.name, step.settings) for step in search.steps) or "none"),
        ("ultron", str(searched_by.get("ultron_version", ""))),
    ]
    return [(key, value) for key, value in facts if value]


class PhotoEntry(TypedDict):
    """A ranked photo as the page reads it."""

    name: str
    score: float
    label: str  # easy, hard, junk or ""
    thumbnail: int  # number of it
    map: NotRequired[PackedMap]
    inliers: NotRequired[int]  # that count, where geometry verified the photo
    promoted: NotRequired[bool]  # by them
    geometry: NotRequired["PackedInliers"]


class QueryEntry(TypedDict):
    """A query as the page reads it."""

    name: str
    thumbnail: int
    ap: dict[str, float | None]  # protocol -> 0..1; empty without a ground truth
    photos: list[PhotoEntry]
    ranks: dict[str, int]  # photo with a label -> its rank


class ResultEntry(TypedDict):
    """One search as the page reads it."""

    label: str
    settings: list[tuple[str, str]]
    scores: dict[str, dict[str, object]]  # protocol -> mAP, its interval, mP and the number of queries
    warnings: list[str]  # what takes worth from the scores
    queries: list[QueryEntry]
    n_database: int


def _photo_entries(
    photos: Sequence[RankedPhoto], maps: Sequence[np.ndarray], labels: dict[str, str], thumbnails: Thumbnails
) -> list[PhotoEntry]:
    """maps: of the first photos. labels: by name."""
    entries: list[PhotoEntry] = []
    for photo in photos:
        entries.append(
            {
                "name": photo.name,
                "score": round(photo.score, 5),
                "label": labels.get(photo.name, ""),
                "thumbnail": thumbnails.add(QueryPhoto(photo.path, photo.name)),
            }
        )
    for entry, photo in zip(entries, photos, strict=True):
        if photo.n_inliers is not None:
            entry["inliers"], entry["promoted"] = photo.n_inliers, photo.is_promoted
    for entry, heat in zip(entries, maps, strict=False):
        entry["map"] = packed_map(heat)
    return entries


@contextmanager
def _pairs_of(scene: Scene) -> "Iterator[Callable[[int, str], PackedInliers] | None]":
    """What packs the geometry of a query's row and a photo of a search that verified photos; None where it did not, or
    where its local features are gone. OpenCV and torch are loaded for it alone."""
    if scene.ranking.inliers is None:
        yield None
        return
    with import_module(f"{__package__}.inliers").packed_pairs(scene) as pack:
        yield pack


class ComparisonEntry(TypedDict):
    """The second search against the first under one protocol, as the page reads it; mAP as fractions."""

    protocol: str
    difference: float  # second minus first
    interval: tuple[float, float]  # 95 %, by bootstrap over queries
    p: str  # in words, of no difference
    smallest: float | None  # the smallest true difference that so many queries show
    verdict: str  # in words, of A, the first, and B
    n_better: int  # queries
    n_worse: int


def evaluation_of(scene: Scene) -> Evaluation | None:
    """The scores of a search; None without a ground truth."""
    gnd = scene.ranking.origin.ground_truth
    return evaluate_ranking(scene.ranking, Path(gnd)) if gnd and os.path.isfile(gnd) and scene.queries else None


def comparison_entries(evaluations: Sequence[Evaluation | None]) -> list[ComparisonEntry]:
    """Per protocol that has positives; none unless there are two searches with scores of as many photos."""
    scored = [evaluation for evaluation in evaluations if evaluation is not None]
    if len(scored) < 2 or scored[0].n_database != scored[1].n_database:
        return []
    entries: list[ComparisonEntry] = []
    for protocol in PROTOCOLS:
        if not scored[0].protocols[protocol].queries_used:
            continue
        comparison = compare_evaluations(scored[0], scored[1], protocol)
        entries.append(
            {
                "protocol": protocol,
                "difference": comparison.difference,
                "interval": comparison.interval,
                "p": comparison.p_text,
                "smallest": comparison.smallest,
                "verdict": comparison.verdict,
                "n_better": comparison.n_better,
                "n_worse": comparison.n_worse,
            }
        )
    return entries


def result_entry(
    scene: Scene,
    label: str,
    evaluation: Evaluation | None,
    config: ReportConfig,
    thumbnails: Thumbnails,
    device: str,
) -> ResultEntry:
    """One search as the page reads it. evaluation: its scores."""
    ranking = scene.ranking
    labels = label_of(scene)
    maker = None
    if config.n_maps:  # only then is torch loaded
        from ultron_cli.visualization.report.similarity_maps import SimilarityMaps

        maker = SimilarityMaps(scene, device, config.method)
    queries: list[QueryEntry] = []
    with _pairs_of(scene) as pack:
        for row, name in enumerate(progress(ranking.query_names, what="report")):
            photos = scene.ranked(row, config.k, "medium")
            maps = maker.of(row, photos[: config.n_maps]) if maker else []
            entries = _photo_entries(photos, maps, labels[row], thumbnails)
            for entry in entries:
                if pack and entry.get("inliers"):
                    entry["geometry"] = pack(row, entry["name"])
            queries.append(
                {
                    "name": name,
                    "thumbnail": thumbnails.add(scene.query_photo(row)),
                    "ap": {p: evaluation.protocols[p].ap.get(name) for p in PROTOCOLS} if evaluation else {},
                    "photos": entries,
                    "ranks": positive_ranks(scene, row, labels[row]),
                }
            )
    scores: dict[str, dict[str, object]] = {}
    if evaluation:
        scores = {
            p: {"mAP": part.mAP, "interval": part.interval, "mP": part.mP, "queries": part.queries_used}
            for p, part in evaluation.protocols.items()
        }
    return {
        "label": label,
        "settings": settings_of(ranking.origin),
        "scores": scores,
        "warnings": list(evaluation.warnings) if evaluation else [],
        "queries": queries,
        "n_database": len(ranking.database_names),
    }


def positive_ranks(scene: Scene, row: int, labels: dict[str, str]) -> dict[str, int]:
    """Rank (from 1) of every labelled photo in one query's ranking, for the movements between two searches."""
    names, rows = scene.ranking.database_names, scene.ranking.rows[row]
    return {names[r]: rank for rank, r in enumerate(rows.tolist(), start=1) if r >= 0 and names[r] in labels}


def write_report(scenes: Sequence[tuple[str, Scene]], config: ReportConfig, title: str, out: Path, device: str) -> Path:
    """Writes the page. scenes: one search or two with a label each; the second is compared with the first.

    Raises UltronError if there are more than two, if they are of other queries, or if the file would be over 30 MiB.
    """
    if not 1 <= len(scenes) <= 2:
        raise UltronError(f"a report shows one search or compares two, found {len(scenes)}; give one or two")
    names = [scene.ranking.query_names for _, scene in scenes]
    if len(scenes) == 2 and set(names[0]) != set(names[1]):
        raise UltronError(
            "the two searches must be of the same queries; search with one set of queries under both models"
        )
    tiles.warn_of_changed_photos(
        photo
        for _, scene in scenes
        for row in range(len(scene.ranking.query_names))
        for photo in (scene.query_photo(row), *scene.ranked(row, config.k, "medium"))
    )
    thumbnails = Thumbnails(config.thumbnail_px)
    evaluations = [evaluation_of(scene) for _, scene in scenes]
    results = [
        result_entry(scene, label, evaluation, config, thumbnails, device)
        for (label, scene), evaluation in zip(scenes, evaluations, strict=True)
    ]
    data = {
        "title": title,
        "dataset": scenes[0][1].ranking.origin.dataset or "",
        "protocols": {
            name: {"positive": list(positive), "ignored": list(ignored)}
            for name, (positive, ignored) in PROTOCOLS.items()
        },
        "results": results,
        "comparison": comparison_entries(evaluations),
        "thumbnails": thumbnails.sources,
        "made_by": provenance(),
    }
    text = page(data)
    size_mib = len(text.encode()) / 2**20
    if size_mib > LARGEST_MIB:
        raise UltronError(
            f"the report would be {size_mib:.0f} MiB, more than {LARGEST_MIB}; show fewer photos with `k`, or "
            "smaller ones with `thumbnail_px`"
        )
    tiles.log_problems(thumbnails.problems)
    write_text(out, text)
    log.info(
        "%s: %.1f MiB, %s, %s",
        out,
        size_mib,
        counted(len(results[0]["queries"]), "query", "queries"),
        counted(len(thumbnails.sources), "thumbnail"),
    )
    return out


def page(data: Mapping[str, object]) -> str:
    """The whole page with its style, script and data inside. Raises ValueError for data that is not JSON."""
    # "<" cannot stand in a script element's text as it could end it; in JSON it can be written so everywhere.
    encoded = (
        without_surrogates(json.dumps(data, allow_nan=False, ensure_ascii=False))
        .replace("<", "\\u003c")
        .replace("\u2028", "\\u2028")
        .replace("\u2029", "\\u2029")
    )
    text = PAGE.read_text(encoding="utf-8")
    for mark, suffix in (("/*STYLE*/", ".css"), ("/*SCRIPT*/", ".js")):
        parts = (path.with_suffix(suffix).read_text("utf-8") for path in (INLIERS, PAGE))
        text = text.replace(mark, "\n".join(parts))
    return text.replace("/*DATA*/", encoded)
