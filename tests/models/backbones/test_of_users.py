"""Backbones by import path: what they tell of themselves, and what is refused."""

from pathlib import Path

import pytest
import torch

from ultron_cli import user_code
from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.backbones import create_backbone

CODE = """
from torch import nn
class Plain(nn.Conv2d):
    def __init__(self, width: int = 6):
        super().__init__(3, width, 8, 8)
class Told(Plain):
    pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7), "interpolation": "bilinear"}
    def forward_features(self, images):
        return self.forward(images).relu()
class Vector(Plain):
    def forward(self, images):
        return super().forward(images).mean((2, 3))
class Broken(Plain):
    def forward(self, images):
        return images.map()
class Needing(Plain):
    def __init__(self, width):
        super().__init__(width)
class Silent(nn.Module):
    pass
Plain8 = 8
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(CODE)
    return path


def test_it_stands_where_networks_of_timm_do(file: Path) -> None:
    model = create_model("gem", backbone=f"{file}:Plain")
    assert model.descriptor_dim == 6 and model.preprocessing.mean == pytest.approx((0.485, 0.456, 0.406))
    assert model.feature_map(torch.rand(1, 3, 40, 64)).shape == (1, 6, 5, 8)
    assert {key.rpartition(".")[2] for key in model.state_dict() if "backbone" in key} == {"weight", "bias"}
    assert set(model.code) == {f"{file}:Plain"}
    described = create_model("gem", backbone=f"{file}:Told")
    assert described.preprocessing.sd == (0.5, 0.6, 0.7) and described.preprocessing.interpolation == "bilinear"
    assert float(described.feature_map(torch.rand(1, 3, 64, 64)).detach().min()) >= 0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Vector", r"net.py, line 11: Vector must give a map \(2, C, h, w\) for photos .*; found \(2, 6\)"),
        ("Needing", r"net.py, line 17: Needing: "),
        ("Silent", r"net.py, line 19: Silent needs the method forward"),
        ("Plain8", r"net.py, line 1: Plain8 must be a class"),
        ("Absent", r"net.py must define Absent"),
    ],
)
def test_what_is_none_is_one_line_with_its_place(file: Path, name: str, text: str) -> None:
    with pytest.raises(UltronError, match=text):
        create_model("gem", backbone=f"{file}:{name}")


def test_an_exception_in_it_is_told_with_its_line(file: Path) -> None:
    with pytest.raises(AttributeError) as fault:
        create_model("gem", backbone=f"{file}:Broken")
    assert f"{file}, line 15" in (user_code.fault_of_user(fault.value) or "")


def test_what_only_a_file_names_is_not_run_and_has_no_published_weights(file: Path) -> None:
    with pytest.raises(UltronError, match="is run only if you name it"):
        create_backbone(f"{file}:Plain")
    with pytest.raises(UltronError, match="no published weights"):
        create_model("gem", pretrained=True, backbone=f"{file}:Plain")
