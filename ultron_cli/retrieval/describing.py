"""From photos of one shape to descriptors, and the settings that shape them."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from ultron_cli.configs import within
from ultron_cli.datasets.photos import LoadedPhoto
from ultron_cli.models.core import RetrievalModel, normalise_images

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """Everything that shapes the numbers of a descriptor file; stored whole in it, and compared before continuing one."""

    dataset: str
    photos_sha256: str  # names and boxes
    role: Literal["query", "database"]
    crop: Literal["bbx", "none"]
    scales: tuple[float, ...]
    max_side_px: int | None
    resize: Literal["down", "always"]
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    storage: Literal["float32", "float16"] = "float32"
    model: dict[str, Any] = field(default_factory=dict)  # name and settings
    preprocessing: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str

    def __post_init__(self) -> None:
        if self.max_side_px is not None:
            within("--max-side", self.max_side_px, 32, 16384)


def describe(model: RetrievalModel, images: torch.Tensor, scales: tuple[float, ...]) -> torch.Tensor:
    """(B, 3, H, W) normalised images -> (B, D) float32: per scale the unit descriptor, their mean (or, for models that say so,
    their maximum per dimension), made unit again.

    Images are resampled bilinearly to each scale (as in cirtorch and DOLG), no side below the network's minimum.
    """
    total: torch.Tensor | None = None
    for scale in scales:
        height, width = (max(model.min_side_px, int(side * scale)) for side in images.shape[-2:])
        if scale == 1.0:
            scaled = images
        elif (height, width) == (int(images.shape[-2] * scale), int(images.shape[-1] * scale)):
            scaled = F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
        else:
            scaled = F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)
        descriptors = model(scaled).float()
        if total is None:
            total = descriptors
        else:
            total = torch.maximum(total, descriptors) if model.scale_aggregation == "max" else total + descriptors
    assert total is not None  # parse_scales gives at least one
    return F.normalize(total, dim=1)


def describe_batch(model: RetrievalModel, photos: list[LoadedPhoto], config: ExtractConfig, device: torch.device) -> np.ndarray:
    """(B, D) descriptors, in the storage type, of photos of one shape."""
    pixels = torch.stack([photo.pixels for photo in photos if photo.pixels is not None]).to(device)
    dtype = PRECISIONS[config.precision]
    with torch.inference_mode(), torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        descriptors = describe(model, normalise_images(pixels, model.preprocessing), config.scales)
    return descriptors.cpu().numpy().astype(config.storage)
