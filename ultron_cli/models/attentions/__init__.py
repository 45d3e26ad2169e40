"""Attentions by name, and how they are put into the stages of a timm ResNet."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import nn

from ultron_cli.configs import one_of
from ultron_cli.errors import UltronError
from ultron_cli.models.attentions.gates import Cbam, ChannelGate, EcaGate, Sca
from ultron_cli.models.attentions.genotype import parse_genotype
from ultron_cli.models.attentions.glam import Glam
from ultron_cli.models.attentions.hoga import Hoga
from ultron_cli.models.backbones.backbone import Backbone
from ultron_cli.models.backbones.stages import require_resnet

STAGES = (1, 2, 3, 4)


@dataclass(frozen=True)
class Attention:
    """How an attention is made, and where its paper puts it."""

    make: Callable[..., nn.Module]  # of the number of channels C and, if it takes_genotype and one is set, its text
    at: Literal["block", "stage"]  # into every block of a stage, before the shortcut is added; or once after the last
    stages: tuple[int, ...]
    takes_genotype: bool = False


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
        if settings.attention_stages is not None or settings.attention_at is not None:
            known = ", ".join(ATTENTIONS)
            raise UltronError(
                "attention_stages and attention_at say where an attention goes, and none is set; add "
                f"`model.attention=A` (one of {known})"
            )
        return
    one_of("attention", settings.attention, list(ATTENTIONS))
    if settings.attention_at is not None:
        one_of("attention_at", settings.attention_at, ["block", "stage"])
    stages = settings.attention_stages
    if stages is not None and (not stages or len(set(stages)) != len(stages) or not set(stages) <= set(STAGES)):
        raise UltronError(f"attention_stages must be different numbers from 1 to 4 ([3,4]); found {list(stages)}")


def put_attention(backbone: Backbone, settings: AttentionSettings) -> None:
    """Puts fresh attentions into the stages of a ResNet, in place. Raises UltronError for another network, and for one
    that has attentions in its blocks already."""
    if settings.attention is None:
        return
    network = require_resnet(backbone.network, backbone.name, f"attention {settings.attention}")
    attention = ATTENTIONS[settings.attention]
    genotype = () if settings.genotype is None else (settings.genotype,)
    for number in settings.attention_stages or attention.stages:
        stage: nn.Sequential = getattr(network, f"layer{number}")
        n_channels = network.feature_info[number]["num_chs"]
        if (settings.attention_at or attention.at) == "stage":
            stage.add_module("attention", attention.make(n_channels, *genotype))
            continue
        for block in stage:
            if getattr(block, "se", None) is not None:
                raise UltronError(
                    f"{backbone.name} has attentions in its blocks already; choose another backbone, or "
                    "`model.attention_at=stage`"
                )
            # timm's place for one: after the last norm, before the shortcut is added
            block.se = attention.make(n_channels, *genotype)


ATTENTIONS = {
    "se": Attention(ChannelGate, "block", STAGES),
    "eca": Attention(EcaGate, "block", STAGES),
    "cbam": Attention(Cbam, "block", STAGES),
    "hoga": Attention(Hoga, "block", STAGES, takes_genotype=True),
    "sca": Attention(Sca, "stage", (4,)),
    "glam": Attention(Glam, "stage", (4,)),
}
