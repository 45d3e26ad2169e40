"""A model's stages and layers by name, and their outputs as maps (B, C, h, w), whatever order the network keeps its
numbers in.

What stages a model has and in which order they keep their numbers, the model says (RetrievalModel).
Legend: B batch, N tokens, C channels, H W image size, h w map size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.models.core import RetrievalModel


@dataclass(frozen=True)
class NetworkStage:
    """A stage or layer of a model by name."""

    name: str
    module: nn.Module
    model: RetrievalModel
    channels_last: bool  # it gives (B, h, w, C); tokens (B, prefix + N, C) are told by their three axes

    def to_map(self, output: object, image_side_px: tuple[int, int]) -> torch.Tensor:
        """The layer's output as (B, C, h, w), prefix tokens left out. image_side_px: (H, W). Raises UltronError for
        other kinds of output."""
        if not isinstance(output, torch.Tensor) or output.ndim not in (3, 4):
            raise UltronError(
                f"layer {self.name!r} gives no map (B, C, h, w) or (B, tokens, C); name another with "
                f"`layer`{_stages_clause(self.model)}"
            )
        if output.ndim == 4:
            return output.permute(0, 3, 1, 2) if self.channels_last else output
        token_map = self.model.map_of_tokens(output, image_side_px)
        if token_map is None:
            raise UltronError(
                f"layer {self.name!r} gives tokens whose grid is not known; name another with "
                f"`layer`{_stages_clause(self.model)}"
            )
        return token_map

    def from_map(self, features: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) in the order of `output`, the layer's own; prefix tokens are taken from there."""
        if output.ndim == 4:
            return features.permute(0, 2, 3, 1) if self.channels_last else features
        tokens = features.flatten(2).transpose(1, 2)
        return torch.cat([output[:, : output.shape[1] - tokens.shape[1]].detach(), tokens], dim=1)


def stage_names(model: RetrievalModel) -> list[str]:
    """Names of the model's stages: stage1 to stage4 of ULTRON, layer1 to layer4 of a ResNet, else as timm names the
    ends of stages; may be empty."""
    return list(model.named_stages())


def _stages_clause(model: RetrievalModel) -> str:
    names = stage_names(model)
    return f" (stages: {', '.join(names)})" if names else ""


def find_stage(model: RetrievalModel, name: str) -> NetworkStage:
    """A stage, or any layer of the network by its module name. Raises UltronError naming the stages and near names."""
    stages = model.named_stages()
    modules = model.named_layers() | stages
    if name not in modules:
        known = [*stages, *model.named_layers()]
        raise UltronError(f"{model.label} has no layer {name!r}{nearest_names(name, known)}{_stages_clause(model)}")
    return NetworkStage(name, modules[name], model, model.is_channels_last(name))


def run_through(
    model: RetrievalModel,
    images: torch.Tensor,
    layer: str | None,
    change: Callable[[torch.Tensor], torch.Tensor],
    *,
    to_the_end: bool = True,
) -> torch.Tensor:
    """images (B, 3, H, W) -> pooled descriptors (B, D), not of unit norm, with a map (B, C, h, w) passed through
    `change` on the way.

    layer: whose output the map is; None: the last map before pooling, or the model's cam_layer on the way to the end.
    to_the_end: if False, the feature map is made but not pooled, and returned. Raises UltronError for an unknown layer
    and for one that the network did not use.
    """
    if layer is None and to_the_end:
        layer = model.cam_layer
    if layer is None:
        features = change(model.feature_map(images))
        return model.pool(features) if to_the_end else features
    stage = find_stage(model, layer)
    height, width = images.shape[-2:]
    was_used = False

    def hook(_: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
        nonlocal was_used
        was_used = True
        return stage.from_map(change(stage.to_map(output, (height, width))), output)

    handle = stage.module.register_forward_hook(hook)
    try:
        result = model.describe(images) if to_the_end else model.feature_map(images)
    finally:
        handle.remove()
    if not was_used:
        raise UltronError(
            f"layer {layer!r} was not used for this photo; name another with `layer`{_stages_clause(model)}"
        )
    return result


def map_at(model: RetrievalModel, images: torch.Tensor, layer: str | None = None) -> torch.Tensor:
    """(B, 3, H, W) -> (B, C, h, w) float32: the output of a layer, or the last map before pooling. Model in evaluation
    mode."""
    maps: list[torch.Tensor] = []

    def record(features: torch.Tensor) -> torch.Tensor:
        maps.append(features)
        return features

    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            run_through(model, images, layer, record, to_the_end=False)
    finally:
        model.train(was_training)
    return maps[-1].float()
