"""What every retrieval model offers to the commands, whatever is inside."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli.models.backbones import Preprocessing


class RetrievalModel(nn.Module):
    """Base of all models: images (B, 3, H, W), already normalised -> unit descriptors (B, D) float32.

    A subclass sets the attributes below and implements feature_map and pool.
    """

    name: str  # as in create_model
    settings: Any  # the frozen dataclass it was made from
    preprocessing: Preprocessing
    min_side_px: int
    descriptor_dim: int
    recommended_scales: tuple[float, ...] = (0.7071, 1.0, 1.4142)  # what extraction takes unless told otherwise
    unit_norm: bool = True  # of forward; a linear classifier is trained on descriptors of any length
    switches: tuple[
        str, ...
    ] = ()  # settings that no weight depends on, so that a trained model can be used with others
    cam_layer: str | None = (
        None  # whose map a CAM watches where the last map does not reach the descriptor (a class token)
    )

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, C, h, w), the last map before pooling."""
        raise NotImplementedError

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> (B, D), not yet of unit norm."""
        raise NotImplementedError

    def describe(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, D), not yet of unit norm."""
        return self.pool(self.feature_map(images))

    def join_scales(self, descriptors: torch.Tensor) -> torch.Tensor:
        """(scales, B, D) unit descriptors of the same photos -> (B, D), not yet of unit norm: their mean."""
        return descriptors.mean(dim=0)

    def forward(
        self, images: torch.Tensor, with_maps: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, H, W) -> (B, D) unit descriptors, or without unit_norm as they are; with_maps: and the (B, C, h, w)
        maps, for losses on local features."""
        if with_maps:
            maps = self.feature_map(images)
            return F.normalize(self.pool(maps), dim=1), maps
        described = self.describe(images)
        return F.normalize(described, dim=1) if self.unit_norm else described

    @property
    def label(self) -> str:
        """Name for files and titles, for example gem-resnet50."""
        backbone = getattr(self.settings, "backbone", "")
        says_it = bool(backbone) and self.name.endswith(f"-{backbone.replace('resnet', 'r')}")  # dolg-r50 on resnet50
        return f"{self.name}-{backbone}" if backbone and not says_it else self.name


def normalise_images(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """(B, H, W, 3) uint8 on any device -> (B, 3, H, W) float32, channels last in memory."""
    mean = torch.tensor(preprocessing.mean, device=pixels.device) * 255.0
    sd = torch.tensor(preprocessing.sd, device=pixels.device) * 255.0
    return pixels.float().sub_(mean).div_(sd).permute(0, 3, 1, 2)
