"""Heads: small layers over the unit descriptors of a frozen network.

A new head is a module made by Head(n_inputs, settings), from (B, n_inputs) to (B, settings.descriptor_dim), and one
entry in HEADS.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from ultron_cli.configs import one_of, within
from ultron_cli.errors import UltronError


@dataclass(frozen=True, kw_only=True)
class AdaptedSettings:
    """Settings of the `adapted` model."""

    # The frozen network: its name and its settings. Of a head that is trained on stored descriptors it is theirs.
    base: dict[str, object] = field(default_factory=lambda: {"name": "gem", "backbone": "resnet50"})
    head: str = "linear"  # one of HEADS
    descriptor_dim: int = 512
    hidden_dim: int | None = None  # of `mlp`; None is twice descriptor_dim
    # Of `linear`, trained on stored descriptors: begin from their PCA-whitening instead of random weights.
    start: Literal["random", "pca-whitening"] = "random"

    def __post_init__(self) -> None:
        one_of("model.head", self.head, HEADS)
        within("model.descriptor_dim", self.descriptor_dim, 1, 65536)
        if self.hidden_dim is not None:
            within("model.hidden_dim", self.hidden_dim, 1, 65536)
        for name, value, head in (("hidden_dim", self.hidden_dim, "mlp"), ("start", self.start != "random", "linear")):
            if value and self.head != head:
                raise UltronError(f"model.{name} belongs to head {head}, found head {self.head}; leave it out")
        if "name" not in self.base:
            raise UltronError("model.base names a network; add `model.base.name=gem`")
        if "pretrained" in self.base:
            raise UltronError(
                "model.base has no weights of its own; describe the photos (`ultron extract --pretrained`) and train "
                "on these `descriptors`"
            )


class LinearHead(nn.Linear):
    """A matrix and a bias, begun as ILIAS begins its adaptation layer (Kordopatis-Zilos et al., CVPR 2025)."""

    def __init__(self, n_inputs: int, settings: AdaptedSettings) -> None:
        super().__init__(n_inputs, settings.descriptor_dim)
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)


class MlpHead(nn.Sequential):
    """Two layers with a GELU between."""

    def __init__(self, n_inputs: int, settings: AdaptedSettings) -> None:
        hidden_dim = settings.hidden_dim or 2 * settings.descriptor_dim
        super().__init__(nn.Linear(n_inputs, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, settings.descriptor_dim))


def make_head(n_inputs: int, settings: AdaptedSettings) -> nn.Module:
    """A head by its settings."""
    return HEADS[settings.head](n_inputs, settings)


class FreeHead(nn.Module):
    """A head without its network, as it is trained on stored descriptors."""

    name = "adapted"

    def __init__(self, n_inputs: int, settings: AdaptedSettings, base_label: str) -> None:
        super().__init__()
        self.settings = settings
        self.descriptor_dim = settings.descriptor_dim
        self.label = adapted_label(base_label, settings)
        self.head = make_head(n_inputs, settings)

    def forward(self, descriptors: torch.Tensor, unit_norm: bool = True) -> torch.Tensor:
        """(B, n_inputs) unit descriptors -> (B, D), of unit norm or as they are."""
        adapted = self.head(descriptors)
        return nn.functional.normalize(adapted, dim=1) if unit_norm else adapted


def adapted_label(base_label: str, settings: AdaptedSettings) -> str:
    """gem-resnet50-linear."""
    return f"{base_label}-{settings.head}"


HEADS: dict[str, type[LinearHead | MlpHead]] = {"linear": LinearHead, "mlp": MlpHead}
