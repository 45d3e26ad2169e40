"""Backbones that a user named by import path, tried before they are used."""

from typing import cast

import timm
import torch
from torch import nn

from ultron_cli import user_code
from ultron_cli.errors import UltronError
from ultron_cli.models.backbones.preprocessing import IMAGENET
from ultron_cli.models.backbones.stages import TimmNetwork
from ultron_cli.models.parts.of_users import shape_text

TRIED_SIDE_PX = 224


def make_user_network(name: str) -> nn.Module:
    """The network that an import path names, with what a network of timm says of itself.

    It is a torch.nn.Module, made without arguments, of normalised photos (B, 3, H, W), that gives a map (B, C, h, w):
    by `forward_features` where it has that, else by `forward`. `pretrained_cfg` tells mean and standard deviation of
    its input as timm's networks do, else ImageNet's are taken. Raises UltronError, naming the place, for anything else.
    """
    part = user_code.load(name, "backbone", timm.list_models())
    method = "forward_features" if part.has_method("forward_features") else "forward"
    if not issubclass(part.target, nn.Module) or getattr(part.target, method) is nn.Module.forward:
        raise UltronError(f"{part.place()}: {part.name} needs the method forward of a torch.nn.Module; write it")
    network = cast(TimmNetwork, part.made(settings=None, prefix="model.backbone."))
    if method == "forward":
        network.forward_features = network.forward
    if not hasattr(network, "pretrained_cfg"):
        network.pretrained_cfg = {"mean": IMAGENET.mean, "std": IMAGENET.sd}
    network.eval()
    images = torch.zeros(2, 3, TRIED_SIDE_PX, TRIED_SIDE_PX)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), user_code.blaming(network, method):
        maps = network.forward_features(images)
    if not isinstance(maps, torch.Tensor) or maps.ndim != 4 or len(maps) != 2:
        raise UltronError(
            f"{part.place(method)}: {part.name} must give a map (2, C, h, w) for photos {tuple(images.shape)}; found "
            f"{shape_text(maps)}"
        )
    network.num_features = maps.shape[1]
    return network.train()
