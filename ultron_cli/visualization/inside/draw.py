"""Matches of a place of a query in the photos of a stored search, as a picture."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from ultron_cli.console import progress
from ultron_cli.datasets.photo_files import photo_size
from ultron_cli.datasets.photos import PhotoShape, load_photo
from ultron_cli.datasets.protocols import Box
from ultron_cli.visualization.describers import open_describer
from ultron_cli.visualization.inside.matching import (
    Match,
    QueryRegion,
    local_features,
    match_figure,
    match_map,
    place_text,
    region_feature,
    region_of,
)
from ultron_cli.visualization.scene import PhotoChoice, Scene
from ultron_cli.visualization.tiles import warn_of_changed_photos

DRAWN = PhotoShape(max_side_px=640, min_side_px=1)  # a panel is about half as large, in a PDF larger


@dataclass(frozen=True, kw_only=True)
class MatchRequest:
    """Which place of a query is looked for, in which photos: just one of at and box is given."""

    photos: PhotoChoice
    device: str
    at: tuple[float, float] | None = None  # (x, y) in pixels of the whole query photo
    box: Box | None = None  # (x1, y1, x2, y2) in pixels of the whole query photo
    layer: str | None = None  # whose features are compared; None: the last map before pooling
    weights: Path | None = None  # where the model's weights are, if they have moved


class BestPlace(TypedDict):
    """Where a database photo matches best."""

    rank: int
    name: str
    verdict: str
    best_px: list[float]  # (x, y) in pixels of the whole photo
    cosine: float


class MatchSummary(TypedDict):
    """What was drawn."""

    query: str
    place: str
    figure: str
    grid: list[int]  # (h, w) of the query's features
    photos: list[BestPlace]


def draw_match(scene: Scene, request: MatchRequest, out: Path) -> MatchSummary:
    """The figure of which places of database photos match a place of a query. Raises UltronError for a place outside
    the photo, unknown photos or weights that are gone."""
    choice = request.photos
    query = scene.query_photo(choice.query_row)
    photos = scene.photos_of(choice)
    warn_of_changed_photos((query, *photos))
    region = region_of(request.at, request.box, query.bbx, photo_size(query.path))
    describer = open_describer(scene, request.device, request.weights)
    query_features = local_features(describer.model, describer.load(query.path, query.bbx), request.layer)
    feature = region_feature(query_features, region)
    matches = []
    places: list[BestPlace] = []
    for photo in progress(photos, what="match"):
        drawn_pixels = load_photo(photo.path, None, DRAWN)
        features = local_features(describer.model, describer.load(photo.path, None), request.layer)
        match = Match(photo, drawn_pixels, match_map(feature, features))
        matches.append(match)
        x, y, cosine = match.best
        width, height = photo_size(photo.path)
        places.append(
            {
                "rank": photo.rank,
                "name": photo.name,
                "verdict": photo.verdict,
                "best_px": [round(x * width, 1), round(y * height, 1)],
                "cosine": cosine,
            }
        )
    query_pixels = load_photo(query.path, query.bbx, DRAWN)
    query_region = QueryRegion(query.name, query_pixels, region, match_map(feature, query_features))
    title = (
        f"Matches of a {'box' if request.box else 'point'} of the query: "
        f"{scene.title(choice.query_row, choice.protocol)}"
    )
    match_figure(query_region, matches, title, out, layer=request.layer)
    return {
        "query": query.name,
        "place": place_text(request.box or request.at or ()),
        "figure": str(out),
        "grid": list(query_features.shape[1:]),
        "photos": places,
    }
