"""Heads: small layers over the unit descriptors of a frozen network.

A new head is a module made by Head(n_inputs, descriptor_dim) and keyword settings (`model.head_settings.NAME`), from
(B, n_inputs) to (B, descriptor_dim), and one entry in HEADS; or such a module by import path (`model.head=my.py:Head`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from torch import nn

from ultron_cli import user_code
from ultron_cli.configs import from_signature, one_of, within
from ultron_cli.errors import UltronError
from ultron_cli.models.parts.of_users import shape_text


@dataclass(frozen=True, kw_only=True)
class AdaptedSettings:
    """Settings of the `adapted` model."""

    # The frozen network: its name and its settings. Of a head that is trained on stored descriptors it is theirs.
    base: dict[str, object] = field(default_factory=lambda: {"name": "gem", "backbone": "resnet50"})
    head: str = "linear"  # one of HEADS, or the import path of another
    head_settings: dict[str, object] | None = None  # of the head
    descriptor_dim: int = 512
    # Of `linear`, trained on stored descriptors: begin from their PCA-whitening instead of random weights.
    start: Literal["random", "pca-whitening"] = "random"

    def __post_init__(self) -> None:
        if not user_code.is_import_path(self.head):
            one_of("model.head", self.head, HEADS)
        within("model.descriptor_dim", self.descriptor_dim, 1, 65536)
        if self.start != "random" and self.head != "linear":
            raise UltronError(f"model.start belongs to head linear, found head {self.head}; leave it out")
        if "name" not in self.base:
            raise UltronError("model.base names a network; add `model.base.name=gem`")
        if "pretrained" in self.base:
            raise UltronError(
                "model.base has no weights of its own; describe the photos (`ultron extract --pretrained`) and train "
                "on these `descriptors`"
            )


class LinearHead(nn.Linear):
    """A matrix and a bias, begun as ILIAS begins its adaptation layer (Kordopatis-Zilos et al., CVPR 2025)."""

    def __init__(self, n_inputs: int, descriptor_dim: int) -> None:
        super().__init__(n_inputs, descriptor_dim)
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)


class MlpHead(nn.Sequential):
    """Two layers with a GELU between. hidden_dim: of the first; None is twice descriptor_dim."""

    def __init__(self, n_inputs: int, descriptor_dim: int, hidden_dim: int | None = None) -> None:
        hidden_dim = hidden_dim or 2 * descriptor_dim
        within("model.head_settings.hidden_dim", hidden_dim, 1, 65536)
        super().__init__(nn.Linear(n_inputs, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, descriptor_dim))


def make_head(n_inputs: int, settings: AdaptedSettings) -> nn.Module:
    """The head that settings name: one of HEADS, or a user's by import path. Raises UltronError for settings that do
    not fit it, and for a user's that is no head."""
    values, dim = settings.head_settings or {}, settings.descriptor_dim
    prefix = "model.head_settings."
    if not user_code.is_import_path(settings.head):
        make = HEADS[settings.head]
        arguments = from_signature(make, values, prefix=prefix, n_passed=2)
        return cast(Callable[..., nn.Module], make)(n_inputs, dim, **arguments)
    part = user_code.load(settings.head, "head", HEADS)
    if not issubclass(part.target, nn.Module) or part.target.forward is nn.Module.forward:
        raise UltronError(f"{part.place()}: {part.name} needs the method forward of a torch.nn.Module; write it")
    head: nn.Module = part.made(n_inputs, dim, settings=values, prefix=prefix)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), user_code.blaming(head, "forward"):
        output = head.eval()(torch.rand(2, n_inputs))
    if not isinstance(output, torch.Tensor) or tuple(output.shape) != (2, dim):
        raise UltronError(
            f"{part.place('forward')}: {part.name} must give {(2, dim)} for descriptors of {(2, n_inputs)}; found "
            f"{shape_text(output)}"
        )
    return head.train()


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
    """gem-resnet50-linear; gem-resnet50-Head of my.py:Head."""
    return f"{base_label}-{settings.head.rpartition(':')[2]}"


HEADS: dict[str, type[LinearHead | MlpHead]] = {"linear": LinearHead, "mlp": MlpHead}
