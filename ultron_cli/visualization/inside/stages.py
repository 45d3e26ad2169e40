"""A model's stages and layers by name, and their outputs as maps (B, C, h, w), whatever order the network keeps its
numbers in.

Legend: B batch, N tokens, C channels, H W image size, h w map size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.ultron import UltronModel

# ULTRON's stages 3 and 4, their entries and all in them keep (B, h, w, C).
_ULTRON_CHANNELS_LAST = ("entries.2", "entries.3", "stages.2", "stages.3")


@dataclass(frozen=True)
class Stage:
    """A layer of `model` by name. channels_last: it gives (B, h, w, C). Tokens (B, prefix + N, C) are told by their
    three axes."""

    name: str
    module: nn.Module
    model: RetrievalModel
    channels_last: bool

    def to_map(self, output: object, image_side_px: tuple[int, int]) -> torch.Tensor:
        """The layer's output as (B, C, h, w), prefix tokens left out. image_side_px: (H, W). Raises UltronError for
        other kinds of output."""
        if not isinstance(output, torch.Tensor) or output.ndim not in (3, 4):
            raise UltronError(
                f"layer {self.name!r} gives no map (B, C, h, w) or (B, tokens, C); name another with "
                f"--layer{_stages_clause(self.model)}"
            )
        if output.ndim == 4:
            return output.permute(0, 3, 1, 2) if self.channels_last else output
        backbone = getattr(self.model, "backbone", None)
        if backbone is None:
            raise UltronError(
                f"layer {self.name!r} gives tokens whose grid is not known; name another with "
                f"--layer{_stages_clause(self.model)}"
            )
        tokens = output[:, backbone.n_prefix_tokens :]
        height, width = backbone.grid(image_side_px, tokens.shape[1])
        return tokens.transpose(1, 2).unflatten(2, (height, width))

    def from_map(self, features: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) in the order of `output`, the layer's own; prefix tokens are taken from there."""
        if output.ndim == 4:
            return features.permute(0, 2, 3, 1) if self.channels_last else features
        tokens = features.flatten(2).transpose(1, 2)
        return torch.cat([output[:, : output.shape[1] - tokens.shape[1]].detach(), tokens], dim=1)


def network_of(model: RetrievalModel) -> nn.Module:
    """timm's network inside a model, else the model itself."""
    return getattr(getattr(model, "backbone", None), "network", model)


def named_stages(network: nn.Module) -> list[str]:
    """layer1 to layer4 of a ResNet, else the modules that timm names as the ends of stages; may be empty."""
    modules = dict(network.named_modules())
    found = [name for name in ("layer1", "layer2", "layer3", "layer4") if name in modules]
    info = getattr(network, "feature_info", None) or []
    return found or list(
        dict.fromkeys(entry["module"] for entry in info if isinstance(entry, dict) and entry.get("module") in modules)
    )


def stage_names(model: RetrievalModel) -> list[str]:
    """Names of the stages: stage1 to stage4 of ULTRON, else named_stages of the network; may be empty."""
    if isinstance(model, UltronModel):
        return [f"stage{i + 1}" for i in range(len(model.stages))]
    return named_stages(network_of(model))


def _stages_clause(model: RetrievalModel) -> str:
    names = stage_names(model)
    return f" (stages: {', '.join(names)})" if names else ""


def find_stage(model: RetrievalModel, name: str) -> Stage:
    """A stage, or any layer of the network by its module name. Raises UltronError naming the stages and near names."""
    network = network_of(model)
    modules = {key: module for key, module in network.named_modules() if key}
    if isinstance(model, UltronModel):
        if name in stage_names(model):
            i = int(name.removeprefix("stage")) - 1
            return Stage(name, model.stages[i][-1], model, i >= 2)
        if name in modules:
            return Stage(name, modules[name], model, name.startswith(_ULTRON_CHANNELS_LAST))
    elif name in modules:
        return Stage(
            name, modules[name], model, bool(getattr(getattr(model, "backbone", None), "channels_last_output", False))
        )
    raise UltronError(
        f"{model.label} has no layer "
        f"{name!r}{nearest_names(name, [*stage_names(model), *modules])}{_stages_clause(model)}"
    )


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

    layer: whose output it is; None: the last map before pooling, or the model's cam_layer on the way to the end.
    to_the_end: else the feature map is made but not pooled. Raises UltronError for an unknown layer and for one that
    the network did not use.
    """
    if layer is None and to_the_end:
        layer = model.cam_layer
    if layer is None:
        features = change(model.feature_map(images))
        return model.pool(features) if to_the_end else features
    stage, used = find_stage(model, layer), []

    def hook(_: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
        used.append(stage.name)
        return stage.from_map(change(stage.to_map(output, tuple(images.shape[-2:]))), output)

    handle = stage.module.register_forward_hook(hook)
    try:
        result = model.describe(images) if to_the_end else model.feature_map(images)
    finally:
        handle.remove()
    if not used:
        raise UltronError(
            f"layer {layer!r} was not used for this photo; name another with --layer{_stages_clause(model)}"
        )
    return result


def map_at(model: RetrievalModel, images: torch.Tensor, layer: str | None = None) -> torch.Tensor:
    """(B, 3, H, W) -> (B, C, h, w) float32: the output of a layer, or the last map before pooling. Model in evaluation
    mode."""
    kept: list[torch.Tensor] = []

    def keep(features: torch.Tensor) -> torch.Tensor:
        kept.append(features)
        return features

    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            run_through(model, images, layer, keep, to_the_end=False)
    finally:
        model.train(was_training)
    return kept[-1].float()
