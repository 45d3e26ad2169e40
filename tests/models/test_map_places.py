"""Cells of maps lie where the operators put them: by hand, and by what of the photo a cell depends on."""

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import nn

from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.map_places import Grid, PlacedMaps, placed_maps


class Layers(RetrievalModel):
    """A map of some layers."""

    name = "layers"

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


class Padded(nn.Module):
    def __init__(self, pad: tuple[int, ...], mode: str) -> None:
        super().__init__()
        self.pad, self.mode = pad, mode

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.pad(images, self.pad, mode=self.mode)


class Merged(nn.Module):
    """Swin's: 2 x 2 cells to one, by a view alone."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        maps = F.pad(maps, (0, maps.shape[3] % 2, 0, maps.shape[2] % 2))
        batch, channels, height, width = maps.shape
        cut = maps.view(batch, channels, height // 2, 2, width // 2, 2)
        return cut.permute(0, 1, 3, 5, 2, 4).reshape(batch, 4 * channels, height // 2, width // 2)


class Enlarged(nn.Module):
    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return F.interpolate(maps, scale_factor=2, mode="bilinear")


def across(*layers: nn.Module, side_px: int = 64) -> Grid:
    return PlacedMaps(Layers(*layers)).of(torch.rand(1, 3, 48, side_px)).grids[1]


@pytest.mark.parametrize(
    ("layers", "side_px", "first", "step"),
    [
        ([nn.Conv2d(3, 2, 3, 2, 1)], 64, 0, 2),
        ([nn.Conv2d(3, 2, 16, 16)], 64, 7.5, 16),
        ([nn.Conv2d(3, 2, 3, 1, 2, 2), nn.MaxPool2d(3, 2, 1)], 64, 0, 2),
        ([nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3)], 64, 2, 1),
        ([nn.AvgPool2d(2), nn.AvgPool2d(2)], 64, 1.5, 4),
        ([Conv2dSame(3, 2, 3, 2), Conv2dSame(2, 2, 5, 2)], 64, 3, 4),  # the last side alone is padded
        ([Conv2dSame(3, 2, 3, 2), Conv2dSame(2, 2, 5, 2)], 65, 0, 4),  # both sides of an odd number
        ([Conv2dSame(3, 2, 3, 2), Conv2dSame(2, 2, 5, 2)], 62, 1, 4),
        ([Padded((1, 2, 3, 4), "reflect"), nn.AvgPool2d(2)], 64, -0.5, 2),
        ([Padded((1, 2, 3, 4), "constant")], 64, -1, 1),
        ([nn.Conv2d(3, 2, 4, 4), Merged(), Merged()], 64, 7.5, 16),
        ([nn.Conv2d(3, 2, 4, 4), Merged(), Merged()], 69, 7.5, 16),
        ([nn.AvgPool2d(4), Enlarged()], 64, 0.5, 2),
        ([nn.AdaptiveAvgPool2d(4)], 64, 7.5, 16),
    ],
)
def test_by_hand(layers: list[nn.Module], side_px: int, first: float, step: float) -> None:
    assert across(*layers, side_px=side_px) == Grid(first, step)


def test_cells_that_nothing_tells_of_are_equal_shares() -> None:
    class Fixed(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(images.detach().numpy().copy())[:, :, :6, :8]

    assert across(Fixed()) == Grid(3.5, 8)


@pytest.mark.parametrize("side_px", [96, 97, 110])
def test_a_cell_lies_in_the_middle_of_what_it_depends_on(side_px: int) -> None:
    """Of layers whose weights are even: where its gradient is balanced."""
    layers = [nn.Conv2d(3, 2, 7, 2, 3), nn.AvgPool2d(3, 2, 1), Conv2dSame(2, 2, 3, 2), nn.Conv2d(2, 2, 3, 1, 2, 2)]
    model = Layers(*layers)
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    images = torch.rand(1, 3, 64, side_px, requires_grad=True)
    maps = model.feature_map(images)
    cell = maps.shape[3] // 2
    (gradient,) = torch.autograd.grad(maps[0, :, maps.shape[2] // 2, cell].sum(), images)
    shares = gradient.sum(dim=(0, 1, 2)).double()
    middle = float((shares * torch.arange(side_px)).sum() / shares.sum())
    grid = PlacedMaps(model).of(images.detach()).grids[1]
    assert grid.step == 8 and abs(grid.places(cell + 1)[-1].item() - middle) < 1e-4


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_a_photo_shifted_by_a_cell_has_its_cells_shifted_by_one(backbone: str) -> None:
    torch.manual_seed(0)
    maps = placed_maps(create_model("gem", backbone=backbone, descriptor_dim=8))
    assert maps.cell_px == 16
    wide = torch.zeros(1, 3, 160, 400)
    wide[..., 144:240] = torch.rand(1, 3, 160, 96)
    left, right = maps.of(wide[..., 16:336]), maps.of(wide[..., :320])
    assert left.grids == right.grids
    cosines = F.cosine_similarity(left.features[:, 3:7, 8:13], right.features[:, 3:7, 9:14], dim=0)
    stayed = F.cosine_similarity(left.features[:, 3:7, 8:13], right.features[:, 3:7, 8:13], dim=0)
    assert cosines.mean() > 0.97 and stayed.mean() < cosines.mean()


def test_the_layer_is_the_last_of_16_px_unless_it_is_named() -> None:
    model = create_model("gem", backbone="test_resnet")
    assert [placed_maps(model, layer).layer for layer in ("", "last", "layer2")] == ["layer3", "last", "layer2"]
    assert [placed_maps(model, layer).cell_px for layer in ("", "last", "layer2")] == [16, 32, 8]
    assert placed_maps(create_model("ultron-t")).layer == "stage3"
    with pytest.raises(UltronError, match="has no layer 'layer9'"):
        placed_maps(model, "layer9")


@torch.inference_mode()
def test_places_count_by_attention_or_norm() -> None:
    torch.manual_seed(0)
    images = torch.rand(1, 3, 64, 96)
    model = create_model("gem", backbone="test_resnet")
    maps = model.feature_map(images)
    assert torch.equal(model.place_weights(maps), maps.norm(dim=1))
    attending = create_model("gem", backbone="test_resnet", pooling="simpool")
    weights = attending.place_weights(maps)
    assert weights.shape == (1, 2, 3) and abs(weights.sum() - 1) < 1e-5
    local = create_model("dolg-r50", backbone="test_resnet", atrous_dim=4, local_dim=6, descriptor_dim=8)
    maps = local.feature_map(images)
    weights = local.place_weights(maps)
    assert weights.shape == (1, 4, 6)
    torch.testing.assert_close(local.local(maps).norm(dim=1), weights)  # unit vectors times it
