"""From photos of one shape to descriptors, and the settings that shape them."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F

from ultron_cli.configs import within
from ultron_cli.datasets.photos import LoadedPhoto
from ultron_cli.models.core import PRECISIONS, RetrievalModel
from ultron_cli.retrieval.extraction.scales import at_scale


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """Everything that shapes the numbers of a descriptor file; stored whole in it, and compared before continuing
    one."""

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


def describe(model: RetrievalModel, pixels: torch.Tensor, scales: tuple[float, ...]) -> torch.Tensor:
    """(B, H, W, 3) uint8 -> (B, D) float32: the unit descriptor of every scale, joined as the model does it (most by
    their mean) and made unit again."""
    described = [model(at_scale(pixels, scale, model.preprocessing, model.min_side_px)).float() for scale in scales]
    return F.normalize(model.join_scales(torch.stack(described)) if len(described) > 1 else described[0], dim=1)


def describe_batch(
    model: RetrievalModel, photos: list[LoadedPhoto], config: ExtractConfig, device: torch.device
) -> np.ndarray:
    """(B, D) descriptors, in the storage type, of photos of one shape."""
    pixels = torch.stack([photo.pixels for photo in photos if photo.pixels is not None]).to(device)
    dtype = PRECISIONS[config.precision]
    with torch.inference_mode(), torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
        descriptors = describe(model, pixels, config.scales)
    return descriptors.cpu().numpy().astype(config.storage)
