"""Local features that are places of a network's map (local/dense.py), at the network's own scales and projection.

Positions are where the network's operators put the cells (models/map_places.py), to a fraction of a pixel. The
projection is learned once, of photos of the database, before any is described; the file holds it, and queries and
distractors take it from there.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch

from ultron_cli.configs import from_dict
from ultron_cli.console import counted, log
from ultron_cli.datasets.folder import Dataset
from ultron_cli.datasets.photos import PhotoShape, load_placed
from ultron_cli.errors import UltronError
from ultron_cli.local.dense import COMPARISON, DESCRIPTOR_TYPE, DenseSettings, apart, pack
from ultron_cli.local.detectors import Comparison, DescriptorType
from ultron_cli.local.features import LocalFeatures
from ultron_cli.local.projection import Projection, ProjectionLearner
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.map_places import placed_maps
from ultron_cli.models.weights.model_choice import reload_model
from ultron_cli.retrieval.extraction.scales import at_scale, pixel_steps
from ultron_cli.retrieval.extraction.shards import ExtractWork, default_workers
from ultron_cli.retrieval.local_features.extraction import LocalConfig, LocalExtraction
from ultron_cli.retrieval.local_features.files import (
    LocalFeatureFile,
    StoredNetwork,
    open_local_features,
    write_local_features,
)
from ultron_cli.retrieval.origin import WeightsSource

LEARNED_OF = 64  # photos of the database, spread evenly
PROJECTION_FILE = "projection.h5"  # beside the shards


class DenseDetector:
    """Places of a network's map, as a Detector. It gives them once it has a projection."""

    comparison: Comparison = COMPARISON
    descriptor_type: DescriptorType = DESCRIPTOR_TYPE
    is_for_workers = False

    def __init__(self, settings: DenseSettings, model: RetrievalModel, device: torch.device) -> None:
        """Raises UltronError if the network has no map, or not the layer."""
        self.settings = settings
        # As eager.py has it, so that the numbers are those of the descriptors, whichever comes first.
        self._model = model.eval().to(device).to(memory_format=torch.channels_last)
        self._device = device
        self._maps = placed_maps(self._model, settings.layer)
        self.descriptor_dim = min(settings.dim, self._maps.n_channels)
        self.projection: Projection | None = None

    @property
    def n_channels(self) -> int:
        """Of the map."""
        return self._maps.n_channels

    @property
    def layer(self) -> str:
        """Whose map it is."""
        return self._maps.layer

    @property
    def cell_px(self) -> float:
        """The side of a cell at scale 1, in pixels that the network is shown."""
        return self._maps.cell_px

    def places(self, pixels: np.ndarray, n: int) -> LocalFeatures:
        """The n strongest places of (H, W, 3) uint8 pixels over all scales; descriptors are (n, C) float32, as in the
        map. The strength of a place is its weight by the mean weight of its map."""
        height, width = pixels.shape[:2]
        photo = torch.from_numpy(pixels)[None].to(self._device)
        parts = [self._places_at(photo, scale) for scale in self.settings.scales]
        positions, sizes, strengths, vectors = (np.concatenate(values) for values in zip(*parts, strict=True))
        if not (np.isfinite(vectors).all() and np.isfinite(strengths).all()):
            raise UltronError("the model gave a map that is not finite; take other weights")
        x, y = positions.T
        is_real = (strengths > 0) & (x > -0.5) & (y > -0.5) & (x < width - 0.5) & (y < height - 0.5)
        features = LocalFeatures(
            positions=positions[is_real].astype(np.float32),
            scales=sizes[is_real].astype(np.float32),
            angles=np.zeros(is_real.sum(), np.float32),
            strengths=strengths[is_real],
            descriptors=vectors[is_real],
            size=(width, height),
        )
        return apart(features, n)

    def _places_at(self, photo: torch.Tensor, scale: float) -> tuple[np.ndarray, ...]:
        """(positions, sizes, strengths, vectors) of all cells at one scale."""
        preprocessing = self._model.preprocessing
        images = at_scale(photo, scale, preprocessing, self._model.min_side_px)
        sides, scaled_sides = (photo.shape[1], photo.shape[2]), (images.shape[2], images.shape[3])
        steps = pixel_steps(sides, scale, scaled_sides, preprocessing.scaling)
        placed = self._maps.of(images)
        n_rows, n_columns = placed.weights.shape
        y, x = (
            (grid.places(n_cells).numpy() + 0.5) * step - 0.5
            for grid, n_cells, step in zip(placed.grids, (n_rows, n_columns), steps, strict=True)
        )
        positions = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        size = float(np.sqrt(np.prod([grid.step * step for grid, step in zip(placed.grids, steps, strict=True)])))
        weights = placed.weights.flatten().cpu().numpy()
        strengths = weights / max(float(weights.mean(dtype=np.float64)), float(np.finfo(np.float32).tiny))
        vectors = placed.features.flatten(1).T.cpu().numpy()
        return positions, np.full(len(weights), size), strengths.astype(np.float32), vectors

    def detect(self, pixels: np.ndarray, max_keypoints: int) -> LocalFeatures:
        """As Detector has it."""
        assert self.projection is not None  # prepare comes first
        features = self.places(pixels, max_keypoints)
        return replace(features, descriptors=pack(self.projection.of(features.descriptors)))


def detection_like(file: LocalFeatureFile) -> tuple[PhotoShape, DenseDetector]:
    """How photos are sized, and the detector, on the CPU, that finds features as a file of dense ones has them. Raises
    UltronError if its network's weights are gone or are others by now."""
    network = cast(StoredNetwork, file.info.extraction.stored["network"])
    weights = file.info.origin.weights
    loaded = reload_model(dict(network), dict(weights.stored) if weights else {}, network["weights_sha256"])
    settings = from_dict(DenseSettings, file.info.settings, prefix="local.")
    detector = DenseDetector(replace(settings, layer=network["layer"]), loaded.model, torch.device("cpu"))
    detector.projection = projection_of(file.path)
    shape = PhotoShape(
        max_side_px=file.info.max_side_px,
        resize=network["resize"],
        interpolation=str(network["preprocessing"]["interpolation"]),
        min_side_px=loaded.model.min_side_px,
        box_edges=network["box_edges"] or "rounded",
    )
    return shape, detector


def projection_digest(path: Path) -> str:
    """SHA-256 of the projection of a file of local features. Raises UltronError if it has none."""
    projection = projection_of(path)
    return hashlib.sha256(projection.mean.tobytes() + projection.matrix.tobytes()).hexdigest()


def projection_of(path: Path) -> Projection:
    """The projection of a file of local features. Raises UltronError if it has none."""
    with open_local_features(path) as file:
        if file.projection is None:
            raise UltronError(
                f"{path} has no projection, as its features are {file.info.detector}; name a file of dense ones"
            )
        return file.projection


class DenseExtraction(LocalExtraction):
    """One file of dense features in the making."""

    def __init__(
        self,
        dataset: Dataset,
        names: list[str],
        detector: DenseDetector,
        config: LocalConfig,
        work: ExtractWork,
        *,
        shape: PhotoShape,
        weights: WeightsSource | None,
        source: Path | None,
    ) -> None:
        """shape: of photos for the network. source: the file whose projection is taken; None: it is learned of these
        photos."""
        super().__init__(dataset, names, detector, config, work, weights)
        self.dense = detector
        self.shape = shape
        self.source = source

    @property
    def n_default_workers(self) -> int:
        return default_workers(self.work.device)

    def prepare(self, parts: Path, finished: Path | None, *, is_first: bool) -> None:
        """Finds the projection, or learns it; an interrupted extraction and the other processes take it from a file
        beside the shards."""
        stored = parts / PROJECTION_FILE
        if is_first and not stored.exists():
            source = finished or self.source
            projection = projection_of(source) if source else self._learned()
            width = self.dense.descriptor_dim, np.dtype(self.dense.descriptor_type)
            write_local_features(stored, [], [], [], width, self._info(()), projection=projection)
        self.projection = projection_of(stored)
        shape = self.dense.descriptor_dim, self.dense.n_channels
        if self.projection.matrix.shape != shape:
            raise UltronError(
                f"the projection of {self.source or stored} is of {self.projection.matrix.shape}, the map's must be of "
                f"{shape}; name a file of the same network, layer and dim"
            )
        self.dense.projection = self.projection

    def _learned(self) -> Projection:
        """Of LEARNED_OF photos; those that cannot be decoded are passed over, as the extraction will say."""
        learner = ProjectionLearner(self.dense.n_channels)
        spread = np.unique(np.linspace(0, len(self.names) - 1, min(LEARNED_OF, len(self.names))).astype(np.int64))
        log.info("learning the projection of dense features from %s", counted(len(spread), "photo"))
        for row in spread.tolist():
            path = self.photo_files.files.get(self.names[row])
            if path is None or self._problem(row):
                continue
            try:
                placed = load_placed(path, self._box(self.names[row]), self.shape)
            except UltronError:
                continue
            learner.add(self.dense.places(placed.pixels, self.config.max_keypoints).descriptors)
        return learner.learned(self.dense.descriptor_dim)
