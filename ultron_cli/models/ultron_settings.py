"""Settings of the ULTRON network and its three sizes."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from ultron_cli.configs import within
from ultron_cli.errors import UltronError


@dataclass(frozen=True, kw_only=True)
class UltronSettings:
    """Every choice in the network. Defaults are size S.

    Sources: [P] ULTRON (Kweon & Park, ACCV 2024); [T] a third party's reading of it, unverified; [O] ours, where
    neither says.

    depths, widths: blocks and channels of the four stages [T]. heads: of stages 3 and 4, 32 channels each [T].
    expansion: of the MobileNet blocks; 6 as in MobileNetV2 [O]. mlp_ratio: of the SCALA blocks; 3 as in NAT-Tiny, the
    NA of Fig. 1 [O]. depthwise: "cdconv" [P, Algorithm 1], or "plain" for an ordinary depthwise convolution.
    thresholds, deltas: tau1 and tau2, delta1 and delta2 of CDConv [T]. threshold: whether the taus are values of the
    importance, as Algorithm 1 is written [P], or quantiles of it. gate: "none" is Algorithm 1 to the letter [P];
    "multiply" lets a gradient reach the importance. On rendered landmarks they give the same within the spread of seeds
    (docs/models.md), so the paper's stands. attention: "scala" [P, Algorithm 2], or "na" for plain neighbourhood
    attention, the baseline of Fig. 1 [P]; then mck_on has no effect. mck_on: what the multiscale context enhances:
    "key" by the paper's text, "query" by its pseudo-code [P], or "none". window: side of the neighbourhood, odd, 3 to
    13; 7 as in NAT [O]. attention_dropout, projection_dropout: in Algorithm 2 [P], their values are not in our sources,
    so 0 [O]. drop_path: of the last block, rising from 0 at the first; 0.2 as in NAT-Tiny [O]. pooling: "attention"
    [T], or "gem". gem_p: exponent of GeM, for the pooling's query and for pooling="gem"; 3 (Radenovic et al.) [O].
    pooling_exponent: of attention pooling's power mean [T]. pooling_shift: "undone" is the power mean's inverse to the
    letter [T], "left" SimPool's public code; see AttentionPooling. descriptor_dim: D [T]. exact_dilations: stages 1 and
    2 stay in float32 under autocast [O]. In bfloat16 up to 1.6 % of the channels change their dilation, and descriptors
    of random weights differ by 1 - cosine up to 8e-3 instead of 1e-5 (ultron-t); switched off, these stages need half
    the memory. checkpointing: compute activations anew in the backward pass of training, for memory; changes no number.
    """

    depths: tuple[int, ...] = (3, 5, 9, 5)
    widths: tuple[int, ...] = (64, 128, 320, 512)
    heads: tuple[int, ...] = (10, 16)
    expansion: int = 6
    mlp_ratio: float = 3.0
    depthwise: Literal["cdconv", "plain"] = "cdconv"
    thresholds: tuple[float, ...] = (0.75, 0.50)
    threshold: Literal["value", "quantile"] = "value"
    deltas: tuple[int, ...] = (3, 6)
    gate: Literal["none", "multiply"] = "none"
    attention: Literal["scala", "na"] = "scala"
    mck_on: Literal["key", "query", "none"] = "key"
    window: int = 7
    attention_dropout: float = 0.0
    projection_dropout: float = 0.0
    drop_path: float = 0.2
    pooling: Literal["attention", "gem"] = "attention"
    gem_p: float = 3.0
    pooling_exponent: float = 2.0
    pooling_shift: Literal["undone", "left"] = "undone"
    descriptor_dim: int = 512
    exact_dilations: bool = True
    checkpointing: bool = False

    def __post_init__(self) -> None:
        for name, n_values in (("depths", 4), ("widths", 4), ("heads", 2), ("thresholds", 2), ("deltas", 2)):
            if len(getattr(self, name)) != n_values:
                raise UltronError(f"{name} takes {n_values} values; found {list(getattr(self, name))}")
        for name, low, high in (
            ("depths", 1, 200),
            ("widths", 8, 8192),
            ("heads", 1, 256),
            ("deltas", 1, 64),
            ("thresholds", 0.0, 1.0),
        ):
            for value in getattr(self, name):
                within(name, value, low, high)
        for name, low, high in (
            ("expansion", 1, 16),
            ("mlp_ratio", 0.25, 16.0),
            ("attention_dropout", 0.0, 0.95),
            ("projection_dropout", 0.0, 0.95),
            ("drop_path", 0.0, 0.95),
            ("gem_p", 0.1, 100.0),
            ("pooling_exponent", 0.1, 100.0),
            ("descriptor_dim", 1, 65536),
        ):
            within(name, getattr(self, name), low, high)
        if self.thresholds[0] <= self.thresholds[1]:
            raise UltronError(
                f"thresholds are tau1 and tau2 with tau1 above tau2 (0.75,0.5); found {list(self.thresholds)}"
            )
        if self.window % 2 == 0 or not 3 <= self.window <= 13:
            raise UltronError(f"window must be odd and between 3 and 13; found {self.window}")
        self._check_heads()

    def _check_heads(self) -> None:
        for stage, width, n_heads in zip((3, 4), self.widths[2:], self.heads, strict=True):
            if width % (8 * n_heads) or not 8 <= width // n_heads <= 128:
                raise UltronError(
                    f"stage {stage} has {width} channels (widths) for {n_heads} heads; channels per head must "
                    "be a multiple of 8, 8 to 128: "
                    f"try heads of 32 channels, {math.ceil(width / 32)}"
                )

    @property
    def context_on(self) -> Literal["key", "query", "none"]:
        """What MCK enhances; "none" under attention="na"."""
        return "none" if self.attention == "na" else self.mck_on

    def drop_paths(self) -> list[list[float]]:
        """Per stage and block: from 0 at the first block of the network to drop_path at the last."""
        n_blocks = sum(self.depths)
        rates = iter([self.drop_path * i / max(1, n_blocks - 1) for i in range(n_blocks)])
        return [[next(rates) for _ in range(depth)] for depth in self.depths]


# Sizes S and B are [T]; T is ours: under 2 million parameters, for laptops and tests.
SIZES: dict[str, dict[str, Any]] = {
    "ultron-s": {},
    "ultron-b": {"depths": (5, 7, 18, 5), "widths": (96, 192, 384, 768), "heads": (12, 24), "drop_path": 0.3},
    "ultron-t": {
        "depths": (1, 2, 2, 2),
        "widths": (16, 32, 64, 128),
        "heads": (2, 4),
        "expansion": 2,
        "drop_path": 0.0,
        "descriptor_dim": 256,
    },
}
