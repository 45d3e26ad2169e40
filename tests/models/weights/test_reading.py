"""Weights files from anywhere: nothing runs, what is none is called what it is, and published oddities are read."""

import argparse
import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from tests.mutations import mutated
from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.weights.checkpoints import load_checkpoint, load_weights, save_checkpoint
from ultron_cli.models.weights.reading import bare_state_dict, read_weights_file, shared_prefix

SMALL_BACKBONE = "test_resnet"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return timm.create_model(SMALL_BACKBONE).state_dict()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "c.pt", create_model("gem", backbone=SMALL_BACKBONE), {})
    return tmp_path / "c.pt"


def refusal(path: Path) -> str:
    with pytest.raises(UltronError) as caught:
        read_weights_file(path)
    assert str(caught.value).isprintable()
    return str(caught.value)


def config_node(module: str, name: str) -> object:
    """An object of a configuration library that is not installed here."""
    parent = types.ModuleType(module)
    node_type = type(name, (dict,), {"__module__": module})
    setattr(parent, name, node_type)
    sys.modules[module] = sys.modules[module.split(".")[0]] = parent
    node = node_type(lr=0.1)
    node.__dict__["__immutable__"] = True
    node["model"] = node_type(depth=50)
    return node


@pytest.mark.parametrize("is_zip", [True, False])
def test_what_published_checkpoints_hold_beside_tensors(tmp_path: Path, state: dict, is_zip: bool) -> None:
    nodes = [config_node("yacs.config", "CfgNode"), config_node("easydict", "EasyDict")]
    content = {
        "args": argparse.Namespace(lr=0.1, scales=[1, 2]),
        "best": np.float64(0.5),
        "epoch": np.int64(3),
        "mean": np.arange(3.0),
        "cfg": nodes[0],
        "opt": nodes[1],
        "state_dict": OrderedDict(state),
    }
    path = tmp_path / "w.pth"
    try:
        torch.save(content, path, _use_new_zipfile_serialization=is_zip)
    finally:
        for name in ("yacs", "yacs.config", "easydict"):
            del sys.modules[name]
    content = read_weights_file(path)
    assert content["args"] == argparse.Namespace(lr=0.1, scales=[1, 2])
    assert (content["best"], content["epoch"], content["mean"].tolist()) == (0.5, 3, [0, 1, 2])
    assert content["cfg"] == content["opt"] == {"lr": 0.1, "model": {"depth": 50}}
    loaded = load_weights(path, "gem", {"backbone": SMALL_BACKBONE})
    torch.testing.assert_close(dict(loaded.model.backbone.network.state_dict()), loaded_part(state, loaded.model))


def loaded_part(state: dict, model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: state[name] for name in model.backbone.network.state_dict()}  # type: ignore[union-attr]


class Net:
    """A type of somebody's own."""


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("wrap", [lambda net: {"epoch": 1, "model_ema": net}, lambda net: {"model_ema": {"a": [net]}}])
def test_what_is_not_let_in_is_named_with_its_key(tmp_path: Path, is_zip: bool, wrap: object) -> None:
    torch.save(wrap(Net()), tmp_path / "w.pth", _use_new_zipfile_serialization=is_zip)  # type: ignore[operator]
    message = refusal(tmp_path / "w.pth")
    assert f"was refused, and nothing in it was run: it holds {Net.__module__}.Net" in message
    assert "(under the key 'model_ema')" in message or "(under the key 'a')" in message
    assert "torch.save(model.state_dict(), PATH)" in message
    assert "add_safe_globals" not in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "pointer of git-LFS"),
        (b"\n<!DOCTYPE html><html><head>", "a web page"),
        (b"<html>", "a web page"),
        ("# Facts\n\nRadenović et al.".encode(), "a text file and not weights; name the file that holds them"),
        (b"rubbish", "truncated or not"),
        (b"PK\x03\x04 broken", "truncated or not"),
        (pickle.dumps({"a": 1}), "truncated or not"),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.SAFETENSORS"])
def test_what_is_no_weights_file(tmp_path: Path, content: bytes, words: str, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert words in refusal(tmp_path / name)


def test_safetensors_by_any_name(tmp_path: Path, state: dict) -> None:
    for name in ("b.safetensors", "b.SAFETENSORS", "b.pth"):
        save_file(state, tmp_path / name)
        loaded = load_weights(tmp_path / name, "gem", {"backbone": SMALL_BACKBONE})
        torch.testing.assert_close(dict(loaded.model.backbone.network.state_dict()), loaded_part(state, loaded.model))


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "model.", "backbone.", "module._orig_mod.", "_orig_mod.module.model."]
)
def test_prefixes_of_wrappers(tmp_path: Path, state: dict, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(log, "info", lambda text, *values: lines.append(text % values))
    torch.save({prefix + name: value for name, value in state.items()}, tmp_path / "w.pth")
    loaded = load_weights(tmp_path / "w.pth", "gem", {"backbone": SMALL_BACKBONE})
    torch.testing.assert_close(dict(loaded.model.backbone.network.state_dict()), loaded_part(state, loaded.model))
    is_said = any(f"the prefix {prefix} of all names is left out" in line for line in lines)
    assert is_said == (prefix not in ("", "module."))


def test_a_prefix_that_is_part_of_the_names_stays() -> None:
    names = ["model.a", "model.b"]
    assert shared_prefix(names, ("module.", "model."), {"model.a"}.__contains__) == ""
    assert shared_prefix(names, ("module.", "model."), {"a"}.__contains__) == "model."
    assert shared_prefix(names, ("module.", "model."), {"x"}.__contains__) == ""
    assert shared_prefix(["module.model.a"], ("module.", "model."), {"x"}.__contains__) == "module."
    assert shared_prefix(["module.a", "b"], ("module.",), None) == ""
    assert list(bare_state_dict({"backbone.a": torch.zeros(1)}, Path("w"))) == ["backbone.a"]


def test_a_bomb_and_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    torch.save({"a": torch.zeros(10)}, stream)
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(stream) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in source.namelist():
            bomb.writestr(name, bytes(40 << 20) if name.endswith("data/0") else source.read(name))
    assert path.stat().st_size < 100_000
    monkeypatch.setenv("ULTRON_MAX_MEMORY", "20MiB")
    assert "would take 40.0 MiB of memory" in refusal(path)


def test_bytes_changed_at_random(tmp_path: Path, checkpoint: Path) -> None:
    n_refused = 0
    for content in mutated(checkpoint.read_bytes(), 5, 25):
        (tmp_path / "m.pt").write_bytes(content)
        try:
            load_checkpoint(tmp_path / "m.pt")
        except UltronError as error:
            n_refused += 1
            assert str(error).isprintable()
    assert n_refused > 3


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("preprocessing", None, "preprocessing: it is None"),
        ("preprocessing", {"mean": None, "sd": [1, 1, 1]}, "preprocessing.mean"),
        ("preprocessing", {"mean": [0.5, float("nan"), 0.5], "sd": [1, 1, 1]}, "mean must be three finite numbers"),
        ("preprocessing", {"mean": [0.5, 0.5, 0.5], "sd": [1, 0, 1]}, "sd must be above 0"),
        ("preprocessing", {"mean": [0.5], "sd": [1, 1, 1]}, "mean must be three finite numbers"),
        ("version", "1", "version"),
        ("version", 2, "format version 2, this ultron reads up to 1"),
        ("model", None, "model"),
        ("model", {"name": 7, "settings": {}}, "model.name"),
        ("model", {"name": "gem"}, "settings"),
        ("state_dict", [], "state_dict"),
        ("state_dict", {"a": 1}, "does not fit its own model"),
        ("train_config", {"side_px": "big"}, "side_px"),
    ],
)
def test_parts_of_other_types(checkpoint: Path, key: str, value: object, words: str) -> None:
    content = torch.load(checkpoint, weights_only=True)
    torch.save(content | {key: value}, checkpoint)
    with pytest.raises(UltronError) as caught:
        load_checkpoint(checkpoint)
    assert words in str(caught.value)


def test_weights_of_another_shape(checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    name = next(iter(content["state_dict"]))
    content["state_dict"][name] = torch.zeros(1)
    torch.save(content, checkpoint)
    with pytest.raises(UltronError, match="does not fit its own model"):
        load_checkpoint(checkpoint)
