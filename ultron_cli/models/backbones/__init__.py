"""Backbones from timm: any of its classifiers as a network that gives one feature map (B, C, H, W)."""

import fnmatch
import os
import socket
import urllib.parse
from dataclasses import asdict, dataclass
from typing import Any, Literal

import timm
import torch
from torch import nn

from ultron_cli.errors import UltronError, nearest_names
from ultron_cli.models.backbones.cifar_resnets import NAMES, is_cifar_resnet, make_cifar_resnet
from ultron_cli.models.backbones.small_swin import NAME as SMALL_SWIN
from ultron_cli.models.backbones.small_swin import make_small_swin


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What a network expects: RGB scaled to 0..1, minus `mean`, divided by `sd`; the filter that brings photos to size;
    and `scaling`, how they are brought to further scales (retrieval/extraction/scales.py), which a method's published
    code decides."""

    mean: tuple[float, ...]
    sd: tuple[float, ...]
    interpolation: str = "bicubic"
    scaling: Literal["bilinear", "bilinear-rounded", "antialias", "area"] = "bilinear"

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as stored in results."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


class Backbone(nn.Module):
    """A timm network without its classifier. forward: (B, 3, H, W) -> (B, C, h, w), for convolutional nets, Swin and
    ViT alike."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        config = network.pretrained_cfg
        self.name = name
        self.network = network
        self.n_channels: int = network.num_features
        self.n_prefix_tokens: int = getattr(network, "num_prefix_tokens", 0)
        self.has_class_token = (
            self.n_prefix_tokens > 0 and getattr(network, "cls_token", None) is not None
        )  # the first prefix token then
        self.channels_last_output = getattr(network, "output_fmt", "NCHW") == "NHWC"
        if hasattr(getattr(network, "patch_embed", None), "dynamic_img_pad"):
            network.patch_embed.dynamic_img_pad = (
                True  # sides that are no multiple of the patch are padded, not refused
            )
        self.min_side_px = _min_side_px(network, name)
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
        tokens = features[:, self.n_prefix_tokens :]  # class and register tokens have no place in the photo
        height, width = self.grid(images.shape[-2:], tokens.shape[1])
        return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], height, width)

    def class_token(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, C); only where has_class_token."""
        return self.network.forward_features(images)[:, 0]

    def grid(self, image_side_px: tuple[int, int], n_tokens: int) -> tuple[int, int]:
        """Rows and columns of the token grid."""
        embedding = getattr(self.network, "patch_embed", None)
        if hasattr(embedding, "dynamic_feat_size"):
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


def _min_side_px(network: nn.Module, name: str) -> int:
    """The smallest square side, from 32 px up, that passes the network (inception needs 75); found by trying."""
    was_training = network.training
    network.eval()
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


def _make_network(name: str, pretrained: bool) -> nn.Module:
    """The network for inputs of any size: timm names the option differently for ViT (position table) and Swin
    (windows)."""
    options: list[dict[str, Any]] = [{}]
    if timm.get_pretrained_cfg(name) is None or getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
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
    return [*timm.list_models(pattern), *fnmatch.filter([*NAMES, SMALL_SWIN], pattern)]


def create_backbone(name: str, *, pretrained: bool = False) -> Backbone:
    """A backbone by name: timm's, a ResNet for photos of 32 px (cifar_resnets.py), or a small Swin (small_swin.py).

    pretrained: lets timm download its weights. Raises UltronError for an unknown name (naming near ones) and when the
    weights cannot be had.
    """
    if is_cifar_resnet(name) or name == SMALL_SWIN:
        if pretrained:
            raise UltronError(
                f"there are no published weights of {name}; train it (pretrained=false), or give a file with --weights"
            )
        return Backbone(make_small_swin() if name == SMALL_SWIN else make_cifar_resnet(name), name)
    if not timm.is_model(name.split(".")[0]):
        near = nearest_names(name, list_backbones())
        raise UltronError(f"unknown backbone {name!r}{near} (see `ultron doctor --backbones '*'`)")
    if pretrained:
        _skip_retries_without_network()
    try:
        return Backbone(_make_network(name, pretrained), name)
    except UltronError:
        raise
    except Exception as error:
        if not pretrained:
            raise
        # Hub clients raise many types (connection, HTTP, missing file); the first line says which.
        reason = str(error).strip().split("\n")[0][:160]
        raise UltronError(
            f"timm's pretrained weights of {name} could not be downloaded ({type(error).__name__}: {reason}); "
            "check the network, or give a file with --weights"
        ) from error
