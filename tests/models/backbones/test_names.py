"""Names of backbones that are read from timm's files, against timm itself."""

import subprocess
import sys

import pytest
import timm
from timm.models import _registry

from ultron_cli.errors import UltronError
from ultron_cli.models.backbones import list_backbones, require_backbone
from ultron_cli.models.backbones.names import CIFAR_NAMES, SMALL_SWIN, former_timm_names, is_timm_network, timm_names


def test_the_names_are_those_of_timm() -> None:
    assert timm_names() == set(timm.list_models())
    assert former_timm_names() == set(_registry._deprecated_models)
    assert list_backbones("resnet5*") == timm.list_models("resnet5*")
    assert list_backbones() == [*timm.list_models(), *CIFAR_NAMES, SMALL_SWIN]


@pytest.mark.parametrize("name", ["resnet50", "resnet50.a1_in1k", "tv_resnext50_32x4d"])
def test_present_and_former_names_with_and_without_tags(name: str) -> None:
    assert is_timm_network(name) and timm.is_model(name.split(".")[0])
    require_backbone(name)


@pytest.mark.parametrize("name", ["resnet5O", "", "resnet", "../resnet50"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(UltronError, match="unknown backbone"):
        require_backbone(name)


def test_a_network_that_a_script_registers_is_known() -> None:
    from timm.models import register_model

    def a_network_of_mine(pretrained: bool = False) -> None: ...

    a_network_of_mine.__module__ = "timm.models.resnet"
    register_model(a_network_of_mine)
    try:
        require_backbone("a_network_of_mine")
    finally:
        _registry._model_entrypoints.pop("a_network_of_mine")
        _registry._module_to_models["resnet"].discard("a_network_of_mine")


def test_neither_timm_nor_torch_is_loaded() -> None:
    code = (
        "import sys; from ultron_cli.models.backbones import list_backbones; assert len(list_backbones()) > 1000; "
        "print({'timm', 'torch'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
