"""SuperGlobal against its literal form."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.models.literal_poolings import literal_power_mean
from tests.models.small_networks import with_statistics
from ultron_cli.models import create_model
from ultron_cli.models.core import normalise_images
from ultron_cli.models.superglobal import regional_gem
from ultron_cli.retrieval.extraction.describe import describe


@torch.no_grad()
def test_superglobal_equals_its_literal_form(images: Tensor) -> None:
    """ReLUP by hand: the blocks of a plain network are run one by one with the floor put in."""
    torch.manual_seed(0)
    model = with_statistics(create_model("superglobal", backbone="test_resnet", descriptor_dim=12))
    network = model.backbone.network
    maps = network.maxpool(network.act1(network.bn1(network.conv1(images))))
    for number, stage in enumerate((network.layer1, network.layer2, network.layer3, network.layer4), start=1):
        floor, inner = (0.014 if number <= 3 else 0.0), (0.014 if number == 1 else 0.0)
        for block in stage:
            names = [name for name in ("1", "2", "3") if hasattr(block, f"conv{name}")]
            inside = maps
            for name in names:
                inside = getattr(block, f"bn{name}")(getattr(block, f"conv{name}")(inside))
                if name != names[-1]:
                    inside = inside.clamp(min=inner)
            shortcut = block.downsample(maps) if block.downsample is not None else maps
            maps = (inside + shortcut).clamp(min=floor)
    height, width = maps.shape[-2:]
    mirrored = [[abs(i) if i < n else 2 * n - 2 - i for i in range(-2, n + 2)] for n in (height, width)]
    refined = torch.zeros_like(maps)
    for y in range(height):
        for x in range(width):
            rows, columns = mirrored[0][y : y + 5], mirrored[1][x : x + 5]
            around = torch.stack([maps[:, :, i, j] for i in rows for j in columns])
            refined[:, :, y, x] = (maps[:, :, y, x] + (around**2.5).mean(0) ** (1 / 2.5)) / 2
    pooled = F.normalize((refined.clamp(min=1e-8) ** 4.6).mean((2, 3)) ** (1 / 4.6), dim=1)
    torch.testing.assert_close(
        model(images), F.normalize(pooled @ model.head.weight.T + model.head.bias, dim=1), rtol=0, atol=1e-5
    )


@torch.no_grad()
def test_superglobal_takes_the_maximum_over_scales() -> None:
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (2, 96, 160, 3), dtype=torch.uint8)
    for scale_gem in (True, False):
        model = create_model("superglobal", backbone="test_resnet", descriptor_dim=12, scale_gem=scale_gem)
        images = normalise_images(pixels, model.preprocessing)
        sides = ((48, 80), (192, 320), (96, 160))
        stacked = torch.stack(
            [model(F.interpolate(images, size=size, mode="bilinear", antialias=True)) for size in sides]
        )
        right = F.normalize(stacked.amax(0) if scale_gem else stacked.mean(0), dim=1)
        torch.testing.assert_close(describe(model, pixels, (0.5, 2.0, 1.0)), right, rtol=0, atol=1e-6)


def test_regional_gem_of_a_map_too_small_to_reflect() -> None:
    maps = torch.rand(1, 2, 1, 2)
    assert regional_gem(maps).shape == maps.shape
    torch.testing.assert_close(regional_gem(torch.full((1, 1, 2, 2), 3.0)), torch.full((1, 1, 2, 2), 3.0))


def test_regional_gem_has_a_gradient_where_all_is_0() -> None:
    """A channel without a response anywhere: the root of 0 must not turn training into NaN."""
    maps = torch.rand(1, 2, 6, 7)
    maps[:, 1] = 0.0
    regional_gem(maps.requires_grad_()).sum().backward()
    assert maps.grad is not None and maps.grad.isfinite().all() and maps.grad[:, 0].min() > 0


@torch.no_grad()
def test_gem_plus_takes_every_exponent() -> None:
    for p_plus in (0.1, 30.0, 100.0):
        model = create_model("superglobal", backbone="test_resnet", descriptor_dim=12, p_plus=p_plus)
        maps = torch.rand(1, model.backbone.n_channels, 6, 7) * 9
        maps[:, 3] = 0.0
        right = [literal_power_mean(channel.tolist(), p_plus, 1e-8)[0] for channel in regional_gem(maps)[0].flatten(1)]
        pooled = F.normalize(torch.tensor([right]), dim=1)
        torch.testing.assert_close(model.pool(maps), model.head(pooled), rtol=0, atol=1e-5)
