"""A network of timm as one that gives a feature map (B, C, H, W), whatever order it keeps its numbers in."""

from typing import cast

import torch
from torch import nn

from ultron_cli.errors import UltronError
from ultron_cli.models.backbones.narrow import guard_narrow_convolutions
from ultron_cli.models.backbones.preprocessing import Preprocessing
from ultron_cli.models.backbones.stages import TimmNetwork, named_stages


class Backbone(nn.Module):
    """A timm network without its classifier. forward: (B, 3, H, W) -> (B, C, h, w), for convolutional nets, Swin and
    ViT alike."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.name = name
        self.network = cast(TimmNetwork, network)
        guard_narrow_convolutions(network)
        config = self.network.pretrained_cfg
        self.n_channels = self.network.num_features
        self.n_prefix_tokens: int = getattr(network, "num_prefix_tokens", 0)
        # The class token is then the first of the prefix tokens.
        self.has_class_token = self.n_prefix_tokens > 0 and getattr(network, "cls_token", None) is not None
        self.channels_last_output = getattr(network, "output_fmt", "NCHW") == "NHWC"
        embedding = getattr(network, "patch_embed", None)
        if embedding is not None and hasattr(embedding, "dynamic_img_pad"):
            embedding.dynamic_img_pad = True  # sides that are no multiple of the patch are padded, not refused
        self.min_side_px = _min_side_px(self.network, name)
        self.preprocessing = Preprocessing(
            mean=tuple(config["mean"]),
            sd=tuple(config["std"]),
            interpolation=str(config.get("interpolation") or "bicubic"),
        )
        self.classifier_names = _classifier_names(config.get("classifier"))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.network.forward_features(images)
        if features.ndim == 4:
            return features.permute(0, 3, 1, 2) if self.channels_last_output else features
        height, width = images.shape[-2:]
        return self.map_of_tokens(features, (height, width))

    def map_of_tokens(self, tokens: torch.Tensor, image_side_px: tuple[int, int]) -> torch.Tensor:
        """(B, prefix + N, C) -> (B, C, h, w): class and register tokens, which have no place in the photo, are left
        out. image_side_px: (H, W)."""
        patches = tokens[:, self.n_prefix_tokens :]
        height, width = self.grid(image_side_px, patches.shape[1])
        return patches.transpose(1, 2).reshape(patches.shape[0], patches.shape[2], height, width)

    def class_token(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, C); only where has_class_token."""
        return self.network.forward_features(images)[:, 0]

    def grid(self, image_side_px: tuple[int, int], n_tokens: int) -> tuple[int, int]:
        """Rows and columns of the token grid. image_side_px: (H, W)."""
        embedding = getattr(self.network, "patch_embed", None)
        if embedding is not None and hasattr(embedding, "dynamic_feat_size"):
            height, width = embedding.dynamic_feat_size(image_side_px)
            if height * width == n_tokens:
                return height, width
        height = round((n_tokens * image_side_px[0] / image_side_px[1]) ** 0.5)
        if height == 0 or n_tokens % height:
            raise UltronError(
                f"backbone {self.name}: {n_tokens} tokens do not form a grid for {tuple(image_side_px)} px; "
                "choose another backbone"
            )
        return height, n_tokens // height

    def named_stages(self) -> dict[str, nn.Module]:
        """The network's stages by name, first to last; may be empty."""
        return named_stages(self.network)

    @property
    def n_heads(self) -> int | None:
        """Heads of the last attention layer of a ViT or Swin; None for other networks."""
        n_heads_of_layers = [getattr(module, "num_heads", None) for module in self.network.modules()]
        numbers = [n_heads for n_heads in n_heads_of_layers if isinstance(n_heads, int)]
        return numbers[-1] if numbers else None


def _min_side_px(network: TimmNetwork, name: str) -> int:
    """The smallest square side, from 32 px up, that passes the network (inception needs 75); determined by trying."""
    was_training = network.training
    network.eval()
    reason: Exception | None = None
    try:
        for side_px in (32, 48, 75, 96, 128, 160, 224, 299, 384):
            try:
                with torch.inference_mode():
                    network.forward_features(torch.zeros(1, 3, side_px, side_px))
                return side_px
            except (RuntimeError, AssertionError) as error:
                reason = error
    finally:
        network.train(was_training)
    raise UltronError(f"backbone {name} takes no photo of up to 384 px ({str(reason)[:100]}); choose another")


def _classifier_names(names: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if names is None:
        return ()
    return (names,) if isinstance(names, str) else tuple(names)
