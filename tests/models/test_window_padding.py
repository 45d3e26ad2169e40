"""Swin's windows as they are traced give timm's numbers, bit for bit."""

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import nn

from ultron_cli.models.backbones.backbone import Backbone
from ultron_cli.models.runtimes.window_padding import counted_windows

SIDES_PX = [(32, 32), (61, 90), (64, 128)]  # (H, W): one window, none of them whole, all whole
SMALL = {"img_size": 64, "embed_dim": 8, "depths": (2, 2, 1), "num_heads": (1, 2, 2), "strict_img_size": False}


@pytest.mark.parametrize("kind", [SwinTransformer, SwinTransformerV2])
@torch.no_grad()
def test_the_numbers_are_timms(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = kind(**SMALL, window_size=3, num_classes=0)
    network.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "classifier": "head.fc"}
    backbone = Backbone(network.eval(), "small")
    for sides in SIDES_PX:
        images = torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(1))
        right = backbone(images)
        with counted_windows(backbone):
            assert torch.equal(backbone(images), right)
            grid = network.patch_embed.dynamic_feat_size(sides)
        assert grid == network.patch_embed.dynamic_feat_size(sides)
    assert not any("_attn" in vars(module) or "forward" in vars(module) for module in network.modules())
