"""Attentions by name.

Importing this package loads no torch: an attention's file is imported when one is made. placing.py puts them into the
stages of a network.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from ultron_cli import user_code
from ultron_cli.configs import one_of
from ultron_cli.errors import UltronError
from ultron_cli.models.attentions.genotype import parse_genotype

if TYPE_CHECKING:
    from torch import nn

STAGES = (1, 2, 3, 4)


@dataclass(frozen=True)
class Attention:
    """Where an attention is defined, and where its paper puts it."""

    module: str  # below ultron_cli.models.attentions
    class_name: str  # of a torch module in it: made of the number of channels C and, if it takes_genotype, its text
    at: Literal["block", "stage"]  # into every block of a stage, before the shortcut is added; or once after the last
    stages: tuple[int, ...]
    takes_genotype: bool = False

    def make(self, n_channels: int, *genotype: str) -> nn.Module:
        """A fresh one for maps of n_channels. genotype: its text, if one is set."""
        module = importlib.import_module(f"{__name__}.{self.module}")
        return getattr(module, self.class_name)(n_channels, *genotype)


class AttentionSettings(Protocol):
    """The settings of a model that concern its attention.

    None for `attention_stages` and `attention_at` means as the attention's paper has it.
    """

    @property
    def attention(self) -> str | None: ...
    @property
    def attention_stages(self) -> tuple[int, ...] | None: ...
    @property
    def attention_at(self) -> str | None: ...
    @property
    def genotype(self) -> str | None: ...
    @property
    def attention_settings(self) -> Mapping[str, object] | None: ...


def check_attention(settings: AttentionSettings) -> None:
    """Raises UltronError for an unknown attention, place or stage, a bad genotype, or one of these without what it
    belongs to."""
    if settings.genotype is not None:
        parse_genotype(settings.genotype)
        takers = [name for name, attention in ATTENTIONS.items() if attention.takes_genotype]
        if settings.attention not in takers:
            names = " or ".join(takers)
            raise UltronError(
                f"a genotype belongs to attention {names}, found attention {settings.attention}; add "
                f"`model.attention={takers[0]}`"
            )
    if settings.attention is None:
        known = ", ".join(ATTENTIONS)
        if settings.attention_settings is not None:
            raise UltronError(
                f"attention_settings are of an attention, none is set; add `model.attention=A` (my.py:Gate; {known})"
            )
        if settings.attention_stages is not None or settings.attention_at is not None:
            raise UltronError(
                "attention_stages and attention_at say where an attention goes, and none is set; add "
                f"`model.attention=A` (one of {known})"
            )
        return
    if not user_code.is_import_path(settings.attention):
        one_of("model.attention", settings.attention, list(ATTENTIONS))
        if settings.attention_settings:
            raise UltronError(
                f"model.attention_settings are of an attention by import path, found attention {settings.attention}; "
                "leave them out"
            )
    if settings.attention_at is not None:
        one_of("model.attention_at", settings.attention_at, ["block", "stage"])
    stages = settings.attention_stages
    if stages is not None and (not stages or len(set(stages)) != len(stages) or not set(stages) <= set(STAGES)):
        raise UltronError(f"attention_stages must be different numbers from 1 to 4 ([3,4]); found {list(stages)}")


# Beside these an import path names a torch module that is made of C and keyword settings,
# `model.attention_settings.NAME`, and gives a map of the shape that it gets; it may say `at` and `stages` as its
# attributes.
ATTENTIONS = {
    "se": Attention("gates", "ChannelGate", "block", STAGES),
    "eca": Attention("gates", "EcaGate", "block", STAGES),
    "cbam": Attention("gates", "Cbam", "block", STAGES),
    "hoga": Attention("hoga", "Hoga", "block", STAGES, takes_genotype=True),
    "sca": Attention("gates", "Sca", "stage", (4,)),
    "glam": Attention("glam", "Glam", "stage", (4,)),
}
