"""Poolings and attentions that a user named by import path, tried before they are used."""

from collections.abc import Mapping
from typing import Literal, cast

import torch
from torch import nn

from ultron_cli.errors import UltronError
from ultron_cli.models.parts.attention_pooling import AttentionPooling
from ultron_cli.models.parts.pooling import pooled_dim
from ultron_cli.user_code import UserPart, blaming


def made_layer(
    part: UserPart, n_channels: int, values: Mapping[str, object], prefix: str, *, gives: Literal["map", "vector"]
) -> nn.Module:
    """A layer for maps (B, C, H, W) of n_channels C, made of C and its settings, and tried on a map.

    values: its settings; prefix: of their names in messages. gives: a map of the same shape (an attention), or one
    vector (B, C), or (B, pooled_dim), of each map (a pooling). Raises UltronError, naming the place, for anything else.
    """
    if not issubclass(part.target, nn.Module) or part.target.forward is nn.Module.forward:
        raise UltronError(f"{part.place()}: {part.name} needs the method forward of a torch.nn.Module; write it")
    layer: nn.Module = part.made(n_channels, settings=values, prefix=prefix)
    shape = (2, n_channels, 5, 4)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), blaming(layer, "forward"):
        output = layer.eval()(torch.rand(shape))
    layer.train()
    right_shape = shape if gives == "map" else (2, pooled_dim(layer, n_channels))
    if not isinstance(output, torch.Tensor) or tuple(output.shape) != right_shape:
        raise UltronError(
            f"{part.place('forward')}: {part.name} must give {right_shape} for a map of {shape}; "
            f"found {shape_text(output)}"
        )
    if gives == "vector" and part.has_method("attention"):
        _check_attention(part, layer, shape)
    if gives == "map":
        layer.register_forward_hook(_copied)
    return layer


def _check_attention(part: UserPart, pooling: nn.Module, shape: tuple[int, ...]) -> None:
    """Raises UltronError, naming the place, unless a pooling's method `attention` gives a weight per place of a map."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]), blaming(pooling, "attention"):
        weights = cast(AttentionPooling, pooling.eval()).attention(torch.rand(shape))
    pooling.train()
    right_shape = (shape[0], *shape[2:])
    if not isinstance(weights, torch.Tensor) or tuple(weights.shape) != right_shape:
        raise UltronError(
            f"{part.place('attention')}: {part.name}.attention must give {right_shape} for a map of {shape}; found "
            f"{shape_text(weights)}"
        )


def _copied(layer: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
    """What a user's layer gives, as a map of its own: timm adds the shortcut to it in place, which the gradient of a
    layer that ends with ReLU would not stand."""
    return output.clone()


def shape_text(output: object) -> str:
    """The shape of a tensor, or the type of anything else."""
    return str(tuple(output.shape)) if isinstance(output, torch.Tensor) else type(output).__name__
