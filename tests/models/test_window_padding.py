"""Swin's windows as they are traced give timm's numbers, up to the order of sums; outside of tracing, its very bits."""

import contextlib
import copy

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
    timms = copy.deepcopy(network.eval())
    timms.patch_embed.dynamic_img_pad = True
    backbone = Backbone(network, "small")
    attributes = [{*vars(module)} for module in network.modules()]
    for sides in SIDES_PX:
        images = torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(1))
        right = backbone(images)
        assert torch.equal(right, timms.forward_features(images).permute(0, 3, 1, 2))
        with contextlib.suppress(KeyboardInterrupt), counted_windows(backbone):
            torch.testing.assert_close(backbone(images), right, rtol=0, atol=1e-5)
            grid = network.patch_embed.dynamic_feat_size(sides)
            raise KeyboardInterrupt  # a tracing that was stopped leaves nothing behind either
        assert grid == network.patch_embed.dynamic_feat_size(sides)
        assert torch.equal(backbone(images), right)
    assert [vars(module).keys() for module in network.modules()] == attributes
