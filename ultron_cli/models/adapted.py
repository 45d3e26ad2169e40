"""A head over a frozen network: linear adaptation of foundation models as ILIAS does it (Kordopatis-Zilos et al., CVPR
2025), or another of HEADS.

The head takes the network's finished descriptors, joined over the scales, so that it can be trained on stored ones
(training/heads/) and gives at extraction what it was trained to give.
"""

from typing import Self

import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli import user_code
from ultron_cli.models import build_model
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.heads import AdaptedSettings, adapted_label, make_head


class AdaptedModel(RetrievalModel):
    """network (frozen) -> L2 -> head -> L2. Descriptors are (B, descriptor_dim)."""

    settings_type = AdaptedSettings
    settings: AdaptedSettings

    def __init__(self, name: str, settings: AdaptedSettings, base: RetrievalModel | None = None) -> None:
        """base: the network with its weights; None makes it anew by the settings."""
        super().__init__(name, settings)
        if base is None:
            of_base = {key: value for key, value in settings.base.items() if key != "name"}
            base = build_model(str(settings.base["name"]), of_base)
        self.base = base.requires_grad_(False).eval()
        self.head = make_head(base.descriptor_dim, settings)
        self.code = {**base.code, **user_code.parts_of({"head": settings.head})}
        self.descriptor_dim = settings.descriptor_dim
        self.preprocessing = base.preprocessing
        self.min_side_px = base.min_side_px
        self.recommended_scales = base.recommended_scales
        self.cam_layer = base.cam_layer

    def train(self, mode: bool = True) -> Self:
        """The head; the network stays in evaluation mode."""
        super().train(mode)
        self.base.eval()
        return self

    @property
    def per_scale(self) -> RetrievalModel:
        return self.base.per_scale

    def join_scales(self, descriptors: torch.Tensor) -> torch.Tensor:
        return self.base.join_scales(descriptors)

    def finish(self, descriptors: torch.Tensor) -> torch.Tensor:
        if self.base.per_scale is not self.base:
            descriptors = F.normalize(self.base.finish(descriptors), dim=1)
        return self.head(descriptors)

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        return self.base.feature_map(images)

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        return self.head(F.normalize(self.base.pool(feature_map), dim=1))

    def place_weights(self, feature_map: torch.Tensor) -> torch.Tensor:
        return self.base.place_weights(feature_map)

    def describe(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(F.normalize(self.base.describe(images), dim=1))

    @property
    def label(self) -> str:
        """gem-resnet50-linear."""
        return adapted_label(self.base.label, self.settings)

    def named_layers(self) -> dict[str, nn.Module]:
        return self.base.named_layers()

    def named_stages(self) -> dict[str, nn.Module]:
        return self.base.named_stages()

    def is_channels_last(self, layer: str) -> bool:
        return self.base.is_channels_last(layer)

    def map_of_tokens(self, tokens: torch.Tensor, image_side_px: tuple[int, int]) -> torch.Tensor | None:
        return self.base.map_of_tokens(tokens, image_side_px)
