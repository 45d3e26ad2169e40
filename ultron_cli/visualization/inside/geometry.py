"""What the geometry of a query and photos of its ranking says, as a picture: lines between inliers, and the query's box
as it appears in each photo."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import cv2
import numpy as np

from ultron_cli.configs import from_dict
from ultron_cli.errors import UltronError
from ultron_cli.local.verification import (
    MODELS,
    VerifiablePhoto,
    VerifiableQuery,
    Verification,
    VerifySettings,
    verify,
)
from ultron_cli.retrieval.local_features.files import LocalFeatureFile, local_path, open_local_features
from ultron_cli.retrieval.rerank.geometry import GeometryConfig
from ultron_cli.visualization.drawing import BOX_COLOUR, MARGIN_PX, VERDICT_COLOURS, Header, Sheet, check_size
from ultron_cli.visualization.scene import PhotoChoice, Scene
from ultron_cli.visualization.tiles import QueryPhoto, RankedPhoto, Tile, load_tile, warn_of_changed_photos

PANEL_WIDTH_PX, PANEL_HEIGHT_PX = 520, 400
GAP_PX, LABEL_PX = 28, 34
SUBPIXEL_BITS = 4  # of OpenCV's places


class VerifiedPhoto(TypedDict):
    """What the geometry of the query and one photo says."""

    rank: int
    name: str
    verdict: str
    n_matches: int
    n_inliers: int
    score: int
    transform: list[list[float]] | None  # pixels of the query to pixels of the photo


class GeometrySummary(TypedDict):
    """What was drawn."""

    query: str
    figure: str
    model: str
    photos: list[VerifiedPhoto]


@dataclass(frozen=True, eq=False)
class Panel:
    """A row of the picture."""

    photo: RankedPhoto
    features: VerifiablePhoto
    verified: Verification


def draw_geometry(scene: Scene, choice: PhotoChoice, out: Path) -> GeometrySummary:
    """The figure of the inliers of a query and photos, verified as the search verified them, else by default. Raises
    UltronError for unknown photos, or where there are no local features."""
    query = scene.query_photo(choice.query_row)
    photos = scene.photos_of(choice)
    warn_of_changed_photos((query, *photos))
    query_path, database_path = _files_of(scene)
    with open_local_features(query_path) as queries, open_local_features(database_path) as database:
        settings = _config_of(scene).verification(queries.info)
        first = VerifiableQuery.of(_verifiable(queries, scene.ranking.query_names[choice.query_row]))
        panels = []
        for photo in photos:
            second = _verifiable(database, photo.name)
            panels.append(Panel(photo, second, verify(first, second, settings)))
    title = f"Local features that one {settings.model} explains: {scene.title(choice.query_row, choice.protocol)}"
    _draw(query, first, panels, settings, title, out)
    return {
        "query": query.name,
        "figure": str(out),
        "model": settings.model,
        "photos": [
            {
                "rank": panel.photo.rank,
                "name": panel.photo.name,
                "verdict": panel.photo.verdict,
                "n_matches": panel.verified.n_matches,
                "n_inliers": panel.verified.n_inliers,
                "score": panel.verified.score,
                "transform": None if panel.verified.transform is None else panel.verified.transform.tolist(),
            }
            for panel in panels
        ],
    }


def _config_of(scene: Scene) -> GeometryConfig:
    search = scene.ranking.origin.search
    for step in search.steps if search else ():
        if step.name == "geometry":
            return from_dict(GeometryConfig, step.settings, prefix="geometry.")
    return GeometryConfig()


def _files_of(scene: Scene) -> tuple[Path, Path]:
    """The local features beside the ranking's descriptors. Raises UltronError where there are none."""
    descriptors = scene.ranking.origin.descriptors
    if descriptors is None:
        raise UltronError(
            "this ranking does not say which descriptor files it is of, beside which local features lie; search with "
            "descriptor files"
        )
    paths = [local_path(Path(path)) for path in descriptors]
    for path in paths:
        if not path.exists():
            raise UltronError(f"{path} is absent; make local features with `ultron extract --local rootsift`")
    return paths[0], paths[1]


def _verifiable(file: LocalFeatureFile, name: str) -> VerifiablePhoto:
    if name not in file.rows:
        raise UltronError(f"{file.path} has no photo {name}; make it of the same photos with `ultron extract --local`")
    is_binary = file.info.comparison == "hamming"
    return VerifiablePhoto.of(file.read(file.rows[name]), max_side_px=file.info.max_side_px, is_binary=is_binary)


def _draw(
    query: QueryPhoto,
    query_features: VerifiableQuery,
    panels: list[Panel],
    settings: VerifySettings,
    title: str,
    out: Path,
) -> None:
    query_tile = load_tile(query.path, PANEL_WIDTH_PX, PANEL_HEIGHT_PX)
    tiles = [load_tile(panel.photo.path, PANEL_WIDTH_PX, PANEL_HEIGHT_PX) for panel in panels]
    heights = [max(query_tile.pixels.shape[0], tile.pixels.shape[0]) for tile in tiles]
    width_px = 2 * (MARGIN_PX + PANEL_WIDTH_PX) + GAP_PX
    note = "Yellow: the query's box, and where the transform takes it. A green line is an inlier."
    header = Header.of(title, note, width_px)
    height_px = header.height_px + sum(height + LABEL_PX + GAP_PX for height in heights) + MARGIN_PX
    check_size(width_px, height_px, "draw fewer photos with `k`")
    sheet = Sheet(width_px, height_px)
    header.draw(sheet)
    y = header.height_px
    moves_box = MODELS[settings.model].moves_places
    for panel, tile, height in zip(panels, tiles, heights, strict=True):
        photo, verified = panel.photo, panel.verified
        sheet.text(
            MARGIN_PX,
            y + 20,
            f"rank {photo.rank}  {photo.name}: {verified.n_inliers} inliers of {verified.n_matches} matches, "
            f"{verified.score} counted",
        )
        row = np.full((height, 2 * PANEL_WIDTH_PX + GAP_PX, 3), 255, np.uint8)
        row[: query_tile.pixels.shape[0], : query_tile.pixels.shape[1]] = query_tile.pixels
        left = PANEL_WIDTH_PX + GAP_PX
        row[: tile.pixels.shape[0], left : left + tile.pixels.shape[1]] = tile.pixels
        box = _corners(query.bbx or query_features.box)
        if verified.transform is not None and moves_box:
            warped = cv2.perspectiveTransform(box[None], verified.transform)[0]
            if not tile.problem and np.isfinite(warped).all():
                part = np.ascontiguousarray(row[: tile.pixels.shape[0], left : left + tile.pixels.shape[1]])
                _outline(part, _on_tile(warped, tile))
                row[: tile.pixels.shape[0], left : left + tile.pixels.shape[1]] = part
        if query.bbx is not None:
            _outline(row, _on_tile(box, query_tile))
        starts = _on_tile(query_features.photo.features.positions[verified.inliers[:, 0]], query_tile)
        ends = _on_tile(panel.features.features.positions[verified.inliers[:, 1]], tile) + np.array([left, 0])
        for start, end in zip(_fixed(starts), _fixed(ends), strict=True):
            cv2.line(row, start, end, VERDICT_COLOURS["right"], 1, cv2.LINE_AA, SUBPIXEL_BITS)
            for place in (start, end):
                cv2.circle(row, place, 2 << SUBPIXEL_BITS, VERDICT_COLOURS["right"], -1, cv2.LINE_AA, SUBPIXEL_BITS)
        sheet.paste(MARGIN_PX, y + LABEL_PX, row)
        if photo.verdict != "unknown":
            sheet.sign(MARGIN_PX + left + PANEL_WIDTH_PX - 12, y + 16, photo.verdict)
        y += height + LABEL_PX + GAP_PX
    sheet.save(out)


def _corners(box: tuple[float, float, float, float]) -> np.ndarray:
    x1, y1, x2, y2 = box
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], np.float64)


def _on_tile(places: np.ndarray, tile: Tile) -> np.ndarray:
    """(n, 2) pixels of a photo as pixels of its tile."""
    return (places + 0.5) * tile.scale - 0.5


def _fixed(places: np.ndarray) -> list[tuple[int, int]]:
    return [(int(x), int(y)) for x, y in np.rint(np.clip(places, -1e4, 1e4) * (1 << SUBPIXEL_BITS))]


def _outline(pixels: np.ndarray, corners: np.ndarray) -> None:
    """Draws a polygon onto (h, w, 3) uint8."""
    points = [np.array(_fixed(corners), np.int32)]
    cv2.polylines(pixels, points, isClosed=True, color=BOX_COLOUR, thickness=2, lineType=cv2.LINE_AA, shift=4)
