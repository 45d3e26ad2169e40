"""Backbones by name: any classifier of timm, a network of this project (own.py) or of a user (of_users.py), as a
Backbone (backbone.py).

Importing this package loads neither torch nor timm, and names.py knows the names without them; a network's file is
imported when the network is made.
"""

from __future__ import annotations

import fnmatch
import importlib
import os
import socket
import urllib.parse
from typing import TYPE_CHECKING, Any

from ultron_cli import user_code
from ultron_cli.errors import UltronError
from ultron_cli.models.backbones.names import SMALL_SWIN, list_backbones, require_backbone

if TYPE_CHECKING:
    from torch import nn

    from ultron_cli.models.backbones.backbone import Backbone

__all__ = ["OWN_NETWORKS", "create_backbone", "list_backbones", "require_backbone"]


def _make_timm_network(name: str, pretrained: bool) -> nn.Module:
    """The network for inputs of any size: timm names the option differently for ViT (position table) and Swin
    (windows)."""
    import timm

    options: list[dict[str, Any]] = [{}]
    config = timm.get_pretrained_cfg(name)
    if config is None or getattr(config, "fixed_input_size", False):
        options = [{"dynamic_img_size": True, "dynamic_img_pad": True}, {"strict_img_size": False}]
    for option in options:
        try:
            return timm.create_model(name, pretrained=pretrained, num_classes=0, **option)
        except TypeError as error:
            if not any(key in str(error) for key in option):
                raise
    raise UltronError(
        f"backbone {name} takes photos of one fixed size only; choose a convolutional one, a Swin or a ViT"
    )


def _skip_retries_without_network() -> None:
    """Where the hub's name does not resolve, look in its cache at once instead of after a minute of retries."""
    import huggingface_hub.constants as hub

    if any(key.lower() in ("https_proxy", "all_proxy") for key in os.environ):
        return  # a proxy resolves names itself
    try:
        socket.getaddrinfo(urllib.parse.urlsplit(hub.ENDPOINT).hostname, 443)
    except OSError:
        hub.HF_HUB_OFFLINE = True


def _imported(file: str, name: str) -> Any:
    """What a file of this package defines under a name."""
    return getattr(importlib.import_module(f"{__name__}.{file}"), name)


def create_backbone(name: str, *, pretrained: bool = False) -> Backbone:
    """A backbone by name: timm's, one of OWN_NETWORKS, or a user's by import path (of_users.py).

    pretrained: lets timm download its weights. Raises UltronError for an unknown name (naming near ones) and when the
    weights cannot be had.
    """
    require_backbone(name)
    backbone_class: type[Backbone] = _imported("backbone", "Backbone")
    if user_code.is_import_path(name):
        _refuse_pretrained(name, pretrained)
        return backbone_class(_imported("of_users", "make_user_network")(name), name)
    for pattern, function_name in OWN_NETWORKS.items():
        if fnmatch.fnmatchcase(name, pattern):
            _refuse_pretrained(name, pretrained)
            return backbone_class(_imported("own", function_name)(name), name)
    if pretrained:
        _skip_retries_without_network()
    try:
        return backbone_class(_make_timm_network(name, pretrained), name)
    except UltronError:
        raise
    except Exception as error:
        if not pretrained:
            raise
        # Hub clients raise many types (connection, HTTP, missing file); the first line says which.
        reason = str(error).strip().split("\n")[0][:160]
        raise UltronError(
            f"timm's pretrained weights of {name} could not be downloaded ({type(error).__name__}: {reason}); "
            "check the network, or train without them (`ultron train --set pretrained=false`)",
            "give a file with `weights`",
        ) from error


def _refuse_pretrained(name: str, pretrained: bool) -> None:
    if pretrained:
        raise UltronError(
            f"there are no published weights of {name}; train it (`ultron train --set model.backbone={name} "
            "--set pretrained=false`)",
            "give a checkpoint with `weights`",
        )


# Pattern of the name -> the function of own.py that makes the network.
OWN_NETWORKS = {"cifar_resnet*": "make_cifar_resnet", SMALL_SWIN: "make_small_swin"}
