"""From photos to descriptors, and the settings that shape them."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import torch
import torch.nn.functional as F

from ultron_cli.configs import from_dict
from ultron_cli.console import log
from ultron_cli.datasets.corruptions import Corruption
from ultron_cli.datasets.photos import LoadedPhoto, PhotoShape, load_photo
from ultron_cli.datasets.protocols import Box
from ultron_cli.errors import UltronError
from ultron_cli.machine import n_threads
from ultron_cli.models.core import PRECISIONS, RetrievalModel
from ultron_cli.models.runtimes import RUNTIMES, RuntimeName, Threads, open_network
from ultron_cli.models.runtimes.core import Network
from ultron_cli.models.weights.checkpoints import LoadedModel
from ultron_cli.models.weights.model_choice import reload_model
from ultron_cli.retrieval.extraction.scales import at_scale
from ultron_cli.retrieval.origin import ExtractionRecord, WeightsSource


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """Everything that shapes the numbers of a descriptor file; stored whole in it, and compared before continuing
    one."""

    dataset: str
    photos_sha256: str  # of names and boxes
    role: Literal["query", "database"]
    crop: Literal["bbx", "none"]
    # None: rounded to the nearest pixel, or not cropped; files of before say nothing.
    box_edges: Literal["truncated"] | None = None
    corruption: Corruption | None = None  # of query photos, made worse on purpose
    scales: tuple[float, ...]
    max_side_px: int | None
    resize: Literal["down", "always"]
    runtime: RuntimeName = "torch"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    storage: Literal["float32", "float16"] = "float32"
    model: dict[str, object] = field(default_factory=dict)  # name and settings
    preprocessing: dict[str, object] = field(default_factory=dict)
    weights_sha256: str

    def __post_init__(self) -> None:
        if self.max_side_px is not None and not 32 <= self.max_side_px <= 16384:
            raise UltronError(
                f"`max_side_px` must lie between 32 and 16384, or be 0 for photos as they are; found {self.max_side_px}"
            )

    def cropped_for(self, model: RetrievalModel) -> "ExtractConfig":
        """The same, with the edges of boxes as the model has them."""
        is_truncated = self.crop == "bbx" and model.preprocessing.box_edges == "truncated"
        return replace(self, box_edges="truncated" if is_truncated else None)

    @classmethod
    def of(
        cls,
        extraction: ExtractionRecord,
        *,
        scales: tuple[float, ...],
        role: Literal["query", "database"] | None = None,
        crop: Literal["bbx", "none"] | None = None,
    ) -> "ExtractConfig":
        """The network's part of how stored descriptors were made, at other scales; a whitening came after it.

        role, crop: None are those of the stored descriptors. Raises UltronError for a setting of a newer ultron.
        """
        stored = {key: value for key, value in extraction.stored.items() if key != "whitening"}
        config = from_dict(cls, stored, prefix="config.")
        return replace(config, scales=scales, role=role or config.role, crop=crop or config.crop)


def photo_shape(config: ExtractConfig, model: RetrievalModel) -> PhotoShape:
    """How photos are sized for the model; by the filter that the configuration records, if it records its own."""
    return PhotoShape(
        max_side_px=config.max_side_px,
        resize=config.resize,
        interpolation=str(config.preprocessing.get("interpolation", model.preprocessing.interpolation)),
        min_side_px=model.min_side_px,
        sides_px=model.sides_px,
        box_edges=config.box_edges or "rounded",
    )


def describe(
    model: RetrievalModel,
    pixels: torch.Tensor,
    scales: tuple[float, ...],
    network: Network | None = None,
    *,
    is_planar: bool = False,
) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, D) float32: the unit descriptor of every scale, joined as the model does it (most by
    their mean), finished as it does it (most do no more) and made unit again. network: model.per_scale, made ready by a
    runtime; None is that itself. is_planar: whether it takes photos colour after colour in memory as well."""
    network = network or model.per_scale
    computed = scales if model.scales_inside is None else (1.0,)
    images = (
        at_scale(pixels, scale, model.preprocessing, model.min_side_px, is_planar=is_planar) for scale in computed
    )
    of_scales = [network(image).float() for image in images]
    return joined_scales(model, torch.stack(of_scales))


def joined_scales(model: RetrievalModel, of_scales: torch.Tensor) -> torch.Tensor:
    """(scales, B, D) unit descriptors of model.per_scale -> (B, D') of the model."""
    joined = model.join_scales(of_scales) if len(of_scales) > 1 else of_scales[0]
    descriptors = F.normalize(joined, dim=1)
    return descriptors if model.per_scale is model else F.normalize(model.finish(descriptors), dim=1)


def describe_batch(
    model: RetrievalModel,
    photos: list[LoadedPhoto],
    config: ExtractConfig,
    device: torch.device,
    network: Network | None = None,
) -> np.ndarray:
    """(B, D) descriptors, in the storage type, of photos of one shape. network: as in `describe`, of config.runtime."""
    pixels = torch.stack([photo.pixels for photo in photos if photo.pixels is not None]).to(device)
    dtype = PRECISIONS[config.precision]
    uses_autocast = dtype != torch.float32 and config.runtime in ("torch", "compile")
    with torch.inference_mode(), torch.autocast(device.type, dtype=dtype, enabled=uses_autocast):
        if RUNTIMES[config.runtime].is_per_photo:
            each = (describe(model, photo[None], config.scales, network, is_planar=True) for photo in pixels)
            descriptors = torch.cat(list(each))
        else:
            descriptors = describe(model, pixels, config.scales, network)
    return descriptors.cpu().numpy().astype(config.storage)


@dataclass(frozen=True)
class Describer:
    """A model and how photos are brought to it."""

    model: RetrievalModel
    config: ExtractConfig
    device: torch.device
    network: Network | None = None  # the model, made ready by config.runtime; None is the model itself

    @classmethod
    def reopened(
        cls,
        extraction: ExtractionRecord,
        weights: WeightsSource | None,
        weights_sha256: str,
        device: torch.device,
        *,
        scales: tuple[float, ...],
        role: Literal["query", "database"] | None = None,
        crop: Literal["bbx", "none"] | None = None,
        weights_path: Path | None = None,
    ) -> "Describer":
        """The model that made stored descriptors, describing as it did but for scales, role and crop.

        role, crop: None are those of the stored descriptors. weights_path: where the weights are, if they have moved.
        Raises UltronError if they are gone or are others by now.
        """
        source = dict(weights.stored) if weights else {}
        loaded = reload_model(dict(extraction.stored), source, weights_sha256, weights_path)
        config = ExtractConfig.of(extraction, scales=scales, role=role, crop=crop)
        if config.crop != extraction.crop:
            config = config.cropped_for(loaded.model)
        config, network = _network_of_few(loaded, config, device)
        return cls(loaded.model.to(device), config, device, network)

    @cached_property
    def shape(self) -> PhotoShape:
        """How photos are sized."""
        return photo_shape(self.config, self.model)

    def load(self, photo: Path | BinaryIO, box: Box | None) -> np.ndarray:
        """(H, W, 3) uint8, sized as at extraction. box: the part that is kept, in pixels of the upright photo."""
        return load_photo(photo, box, self.shape)

    def describe(self, pixels: np.ndarray) -> np.ndarray:
        """(D,) float32 descriptor of (H, W, 3) uint8 pixels, not whitened."""
        photo = LoadedPhoto(0, torch.from_numpy(pixels))
        return describe_batch(self.model, [photo], self.config, self.device, self.network)[0].astype(np.float32)

    def describe_photo(self, photo: Path | BinaryIO, box: Box | None = None) -> np.ndarray:
        """(D,) float32 descriptor of a photo file, not whitened."""
        return self.describe(self.load(photo, box))


def _network_of_few(
    loaded: LoadedModel, config: ExtractConfig, device: torch.device
) -> tuple[ExtractConfig, Network | None]:
    """What describes single photos as stored ones were described. It is torch where compiling would take longer than
    the photos, and where the stored runtime cannot be had, which is said."""
    if config.runtime not in ("torch", "compile"):
        try:
            threads = Threads(n_at_once=1, per_call=n_threads())
            return config, open_network(config.runtime, loaded, device, config.precision, threads)
        except UltronError as error:
            log.warning("torch describes photos here, which agrees but for rounding: %s", error.message)
    return replace(config, runtime="torch"), None
