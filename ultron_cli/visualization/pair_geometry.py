"""What the geometry of a query and a photo says, for pictures: verified as their search verified them.

inside/geometry.py draws it, report/ and serve/ show it on their pages.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np

from ultron_cli.configs import from_dict
from ultron_cli.datasets.protocols import Box
from ultron_cli.errors import UltronError
from ultron_cli.local.verification import (
    MODELS,
    VerifiablePhoto,
    VerifiableQuery,
    Verification,
    VerifySettings,
    verify,
)
from ultron_cli.retrieval.local_features.detection import Detection
from ultron_cli.retrieval.local_features.files import LocalFeatureFile, local_path, open_local_features
from ultron_cli.retrieval.local_features.opened import EXTRACT, verifiable, verifiable_like
from ultron_cli.retrieval.origin import Origin, SearchRecord
from ultron_cli.retrieval.rerank.geometry import GeometryConfig
from ultron_cli.visualization.scene import Scene


@dataclass(frozen=True, kw_only=True, eq=False)
class PairGeometry:
    """A query and a photo, verified."""

    query: VerifiableQuery
    photo: VerifiablePhoto
    verified: Verification
    box: Box  # of the query, in its pixels; around all its features where it has none
    moves_places: bool  # whether the transform takes places to places

    @classmethod
    def of(cls, query: VerifiableQuery, photo: VerifiablePhoto, settings: VerifySettings, box: Box | None) -> Self:
        """Verifies them. box: of the query, where it has one."""
        return cls(
            query=query,
            photo=photo,
            verified=verify(query, photo, settings),
            box=box or query.box,
            moves_places=MODELS[settings.model].moves_places,
        )

    def places(self, n: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """((n, 2), (n, 2)) float32 pixels of inliers in the query and in the photo; n: at most so many, those of the
        query's strongest features."""
        inliers = self.verified.inliers[:n]
        return self.query.photo.features.positions[inliers[:, 0]], self.photo.features.positions[inliers[:, 1]]

    @property
    def warped_box(self) -> np.ndarray | None:
        """(4, 2) float64 corners of the query's box in pixels of the photo; None where the transform moves no places,
        or a corner behind the camera."""
        if self.verified.transform is None or not self.moves_places:
            return None
        x1, y1, x2, y2 = self.box
        corners = np.array([[x1, y1, 1], [x2, y1, 1], [x2, y2, 1], [x1, y2, 1]], np.float64)
        warped = corners @ self.verified.transform.T
        depths = warped[:, 2:]
        if not ((depths > 0).all() or (depths < 0).all()):
            return None
        places = warped[:, :2] / depths
        return places if np.isfinite(places).all() else None


class SceneGeometry:
    """The local features behind a search, opened for pictures of its pairs. A context manager."""

    def __init__(self, scene: Scene) -> None:
        """Raises UltronError where there are none."""
        self._scene = scene
        self.settings = settings_of(scene.ranking.origin)
        query_file, *database_files = files_of(scene.ranking.origin)
        with ExitStack() as stack:
            self._queries = stack.enter_context(_open_file(query_file)) if query_file else None
            self._database = [stack.enter_context(_open_file(path)) for path in database_files]
            self._stack = stack.pop_all()
        self._query = lru_cache(1)(self._query_of)  # of the latest row

    def pair(self, row: int, photo_name: str) -> PairGeometry:
        """A query by its row and a database photo. Raises UltronError if a photo has no local features."""
        file = next((file for file in self._database if photo_name in file.rows), self._database[0])
        photo = verifiable(file, _row_of(file, photo_name))
        return PairGeometry.of(self._query(row), photo, self.settings, self._scene.query_photo(row).bbx)

    def _query_of(self, row: int) -> VerifiableQuery:
        name = self._scene.ranking.query_names[row]
        if self._queries is not None:
            return VerifiableQuery.of(verifiable(self._queries, _row_of(self._queries, name)))
        photo = self._scene.query_photo(row)
        features = Detection.like(self._database[0]).of_photo(photo.path, photo.bbx)
        return VerifiableQuery.of(verifiable_like(self._database[0], features))

    def close(self) -> None:
        """Closes the files."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def settings_of(origin: Origin) -> VerifySettings:
    """How a search verified pairs; the defaults where it did not."""
    search = origin.search or SearchRecord()
    configs = [
        from_dict(GeometryConfig, step.settings, prefix="geometry.") for step in search.steps if step.name == "geometry"
    ]
    return (configs[-1] if configs else GeometryConfig()).verification


def files_of(origin: Origin) -> list[Path | None]:
    """Of the queries (None for photos by path), the database and each file of distractors: those that the search looked
    at, or those beside its descriptors. Raises UltronError where nobody knows."""
    recorded = origin.search.local_features if origin.search else ()
    if len(recorded) >= 2:
        return [Path(path) if path else None for path in recorded]
    if origin.descriptors is None:
        raise UltronError(
            "this ranking does not say which descriptor files it is of, beside which local features lie; search with "
            "descriptor files"
        )
    return [local_path(Path(path)) for path in (*origin.descriptors, *(part.path for part in origin.distractors))]


def _open_file(path: Path | None) -> LocalFeatureFile:
    if path is None or not path.exists():
        raise UltronError(f"{path} is absent; make local features with {EXTRACT}")
    return open_local_features(path)


def _row_of(file: LocalFeatureFile, name: str) -> int:
    if name not in file.rows:
        raise UltronError(f"{file.path} has no photo {name}; make it of the same photos with `ultron extract --local`")
    return file.rows[name]
