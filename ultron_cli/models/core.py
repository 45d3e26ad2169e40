"""What every retrieval model offers to the commands, whatever is inside.

A new model is one file with a frozen dataclass of settings and a subclass of RetrievalModel, or of BackboneModel if it
stands on a backbone of timm, and one entry in models/__init__.py.
Legend: B batch, C channels, H W photo size, h w map size, N tokens, D descriptor dims.
"""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from ultron_cli.configs import to_dict
from ultron_cli.models.backbones.backbone import Backbone
from ultron_cli.models.backbones.preprocessing import IMAGENET, Preprocessing
from ultron_cli.models.runtimes import RuntimeName
from ultron_cli.user_code import UserPart

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}  # of autocast, by setting


class RetrievalModel(nn.Module):
    """Base of all models: images (B, 3, H, W), already normalised -> unit descriptors (B, D) float32.

    A subclass is made by Model(name, settings), sets descriptor_dim and implements feature_map and pool; the other
    attributes below have usual values. What figures can show of it, it says by named_stages, is_channels_last,
    map_of_tokens and pooling_attention.
    """

    settings_type: ClassVar[type]  # the frozen dataclass of its settings
    name: str  # as in create_model
    settings: Any  # of settings_type; each subclass narrows it
    descriptor_dim: int
    preprocessing: Preprocessing = IMAGENET
    min_side_px: int = 32  # the shortest side of a photo that it takes
    # What it is made of that a user named by import path, by that.
    code: dict[str, UserPart]
    # What extraction takes unless told otherwise; a checkpoint may have its own.
    recommended_scales: tuple[float, ...] = (0.7071, 1.0, 1.4142)
    scales_inside: tuple[float, ...] | None = None  # which the network computes itself; None: it takes one at a time
    sides_px: tuple[int, int] | None = None  # (H, W) of the only photos that it takes; None: any
    runtime: RuntimeName | None = None  # the only one that computes it; None: torch, and others that take it
    # Settings that no weight depends on, so that a trained model can be used with others.
    switches: tuple[str, ...] = ()
    # The layer whose map a CAM watches where the last map does not reach the descriptor (a class token).
    cam_layer: str | None = None
    # Values of its setting `pooling` with which it pools by attention, so that pooling_attention is not None.
    attention_poolings: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str | None = None, settings: object = None) -> None:
        """None leaves a subclass to set them."""
        super().__init__()
        self.code = {}
        if name is not None:
            self.name, self.settings = name, settings

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, C, h, w), the last map before pooling."""
        raise NotImplementedError

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> (B, D), not yet of unit norm."""
        raise NotImplementedError

    def place_weights(self, feature_map: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) of feature_map -> (B, h, w), not below 0: how much each place counts. The attention of a model
        that pools by attention, else the norm of each place's vector."""
        attention = getattr(getattr(self, "pooling", None), "attention", None)
        return feature_map.norm(dim=1) if attention is None else attention(feature_map)

    def describe(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, D), not yet of unit norm."""
        return self.pool(self.feature_map(images))

    @property
    def per_scale(self) -> "RetrievalModel":
        """The network whose unit descriptors of each scale are joined: itself, unless `finish` follows on them."""
        return self

    def finish(self, descriptors: torch.Tensor) -> torch.Tensor:
        """(B, D) unit descriptors that per_scale gave and join_scales joined -> (B, D), not yet of unit norm. Called
        only where per_scale is another network."""
        return descriptors

    def join_scales(self, descriptors: torch.Tensor) -> torch.Tensor:
        """(scales, B, D) unit descriptors of the same photos -> (B, D), not yet of unit norm: their mean."""
        return descriptors.mean(dim=0)

    def forward(
        self, images: torch.Tensor, with_maps: bool = False, unit_norm: bool = True
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, H, W) -> (B, D) descriptors; with_maps: and the (B, C, h, w) maps, for losses on local features.

        unit_norm: False leaves descriptors of any length, on which a linear classifier is trained.
        """
        maps = self.feature_map(images) if with_maps else None
        descriptors = self.describe(images) if maps is None else self.pool(maps)
        if unit_norm:
            descriptors = F.normalize(descriptors, dim=1)
        return descriptors if maps is None else (descriptors, maps)

    @property
    def label(self) -> str:
        """Name for files and titles, for example ultron-s or gem-resnet50; Net of my.py:Net."""
        return self.name.rpartition(":")[2]

    def made_of(self) -> dict[str, object]:
        """Name and settings as files store them, and the SHA-256 of code by import path where there is some."""
        code = {text: part.sha256 for text, part in self.code.items()}
        return {"name": self.name, "settings": to_dict(self.settings), **({"code": code} if code else {})}

    def named_layers(self) -> dict[str, nn.Module]:
        """The layers whose output can be shown, by name."""
        return {name: layer for name, layer in self.named_modules() if name}

    def named_stages(self) -> dict[str, nn.Module]:
        """The last layer of each stage by the stage's name, first to last; may be empty."""
        return {}

    def stage_layers(self) -> dict[str, nn.Module]:
        """All layers of each stage by the stage's name, first to last; empty where the model does not tell."""
        return {}

    def is_channels_last(self, layer: str) -> bool:
        """Whether a stage or layer gives its maps as (B, h, w, C) instead of (B, C, h, w)."""
        return False

    def map_of_tokens(self, tokens: torch.Tensor, image_side_px: tuple[int, int]) -> torch.Tensor | None:
        """(B, prefix + N, C) tokens of a layer -> (B, C, h, w), prefix tokens left out; None where the model has no
        grid of tokens. image_side_px: (H, W)."""
        return None

    @torch.no_grad()
    def pooling_attention(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """(weights (h, w) with which the pooling gathers the places of one photo, unit descriptor (D,)).

        images: (1, 3, H, W). None for a model that does not pool by attention. Raises UltronError if it does, and the
        weights cannot be had.
        """
        attention = getattr(getattr(self, "pooling", None), "attention", None)
        if attention is None:
            return None
        features = self.feature_map(images)
        return attention(features)[0], F.normalize(self.pool(features), dim=1)[0]


class BackboneModel(RetrievalModel):
    """A model over a backbone of timm, or one of ours. It is made by Model(name, settings, backbone)."""

    def __init__(self, name: str, settings: object, backbone: Backbone) -> None:
        super().__init__(name, settings)
        self.backbone = backbone
        self.preprocessing = backbone.preprocessing
        self.min_side_px = backbone.min_side_px

    @property
    def label(self) -> str:
        """gem-resnet50; dolg-r50, and not dolg-r50-resnet50, where the name says the backbone."""
        name = super().label
        name_says_it = name.endswith(f"-{self.backbone.name.replace('resnet', 'r')}")
        return name if name_says_it else f"{name}-{self.backbone.name}"

    def named_layers(self) -> dict[str, nn.Module]:
        """Those of the backbone's network, by timm's names."""
        return {name: layer for name, layer in self.backbone.network.named_modules() if name}

    def named_stages(self) -> dict[str, nn.Module]:
        return self.backbone.named_stages()

    def is_channels_last(self, layer: str) -> bool:
        return self.backbone.channels_last_output

    def map_of_tokens(self, tokens: torch.Tensor, image_side_px: tuple[int, int]) -> torch.Tensor | None:
        return self.backbone.map_of_tokens(tokens, image_side_px)


def normalise_images(pixels: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """(B, H, W, 3) uint8 on any device -> (B, 3, H, W) float32, channels last in memory."""
    mean = torch.tensor(preprocessing.mean, device=pixels.device) * 255.0
    sd = torch.tensor(preprocessing.sd, device=pixels.device) * 255.0
    # Whole rows at once: three colours alone are too short for a processor's vectors.
    rows, width = pixels.float().flatten(2), pixels.shape[2]
    rows = rows.sub_(mean.repeat(width)).div_(sd.repeat(width))
    return rows.unflatten(2, (width, 3)).permute(0, 3, 1, 2)
