"""From pixels to descriptors as one module, and its three parts: scaling, the network, and what joins the scales."""

import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.weights.network_record import PixelType
from ultron_cli.retrieval.extraction.describe import joined_scales
from ultron_cli.retrieval.extraction.scales import at_scale
from ultron_cli.retrieval.whitening import Whitening


class Scaled(nn.Module):
    """RGB (B, 3, H, W), uint8 or float32 from 0 to 1 -> (B, 3, scale H, scale W) float32, normalised."""

    def __init__(self, model: RetrievalModel, scale: float, pixels: PixelType) -> None:
        super().__init__()
        self.preprocessing, self.min_side_px = model.preprocessing, model.min_side_px
        self.scale, self.pixels = scale, pixels

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.permute(0, 2, 3, 1)
        if self.pixels == "float":
            pixels = pixels * 255
            if self.preprocessing.scaling == "area":  # which computes in 8 bits
                pixels = pixels.round().to(torch.uint8)
        return at_scale(pixels, self.scale, self.preprocessing, self.min_side_px)


class Joined(nn.Module):
    """(scales, B, D) unit descriptors -> (B, D') unit descriptors: joined, finished and whitened."""

    mean: torch.Tensor
    projection: torch.Tensor

    def __init__(self, model: RetrievalModel, whitening: Whitening | None) -> None:
        super().__init__()
        self.model = model
        self.is_whitened = whitening is not None
        if whitening is not None:
            self.register_buffer("mean", torch.from_numpy(whitening.mean).float())
            self.register_buffer("projection", torch.from_numpy(whitening.projection).float())

    def forward(self, of_scales: torch.Tensor) -> torch.Tensor:
        descriptors = joined_scales(self.model, of_scales)
        if not self.is_whitened:
            return descriptors
        return F.normalize(F.linear(descriptors - self.mean, self.projection), dim=1)


class PhotosToDescriptors(nn.Module):
    """RGB (B, 3, H, W), uint8 or float32 from 0 to 1 -> (B, D) float32 unit descriptors."""

    def __init__(
        self, model: RetrievalModel, scales: tuple[float, ...], whitening: Whitening | None, pixels: PixelType
    ) -> None:
        super().__init__()
        self.network = model.per_scale
        self.scaled = nn.ModuleList(Scaled(model, scale, pixels) for scale in scales)
        self.joined = Joined(model, whitening)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.joined(torch.stack([self.network(scaled(images)) for scaled in self.scaled]))
