"""Backbones by name: any classifier of timm, or a network of this project (own.py), as a Backbone."""

import fnmatch
import os
import socket
import urllib.parse
from typing import Any

import timm
from torch import nn

from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.models.backbones.backbone import Backbone
from ultron_cli.models.backbones.own import CIFAR_NAMES, SMALL_SWIN, make_cifar_resnet, make_small_swin
from ultron_cli.models.backbones.preprocessing import Preprocessing

__all__ = ["OWN_NETWORKS", "Backbone", "Preprocessing", "create_backbone", "list_backbones"]


def _make_timm_network(name: str, pretrained: bool) -> nn.Module:
    """The network for inputs of any size: timm names the option differently for ViT (position table) and Swin
    (windows)."""
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


def list_backbones(pattern: str = "*") -> list[str]:
    """Names that create_backbone knows and the pattern (resnet*) matches: timm's, then this project's."""
    return [*timm.list_models(pattern), *fnmatch.filter([*CIFAR_NAMES, SMALL_SWIN], pattern)]


def create_backbone(name: str, *, pretrained: bool = False) -> Backbone:
    """A backbone by name: timm's, or one of OWN_NETWORKS.

    pretrained: lets timm download its weights. Raises UltronError for an unknown name (naming near ones) and when the
    weights cannot be had.
    """
    for pattern, make in OWN_NETWORKS.items():
        if fnmatch.fnmatchcase(name, pattern):
            if pretrained:
                raise UltronError(
                    f"there are no published weights of {name}; train it (pretrained=false), or give a file with "
                    "weights"
                )
            return Backbone(make(name), name)
    if not timm.is_model(name.split(".")[0]):
        near = nearest_names(name, list_backbones())
        raise UltronError(f"unknown backbone {name!r}{near} (see `ultron doctor --backbones '*'`)")
    if pretrained:
        _skip_retries_without_network()
    try:
        return Backbone(_make_timm_network(name, pretrained), name)
    except UltronError:
        raise
    except Exception as error:
        if not pretrained:
            raise
        # Hub clients raise many types (connection, HTTP, missing file); the first line says which.
        reason = str(error).strip().split("\n")[0][:160]
        raise UltronError(
            f"timm's pretrained weights of {name} could not be downloaded ({type(error).__name__}: {reason}); "
            "check the network, or give a file with `weights`"
        ) from error


OWN_NETWORKS = {"cifar_resnet*": make_cifar_resnet, SMALL_SWIN: make_small_swin}  # by pattern of the name
