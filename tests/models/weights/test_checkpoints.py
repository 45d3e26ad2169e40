"""Weights files that fit or are refused with the reason, checkpoints, and the switches that no weight depends on."""

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from tests.models.small_networks import with_statistics
from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.weights.checkpoints import load_checkpoint, load_weights, save_checkpoint, sha256_of_weights
from ultron_cli.models.weights.model_choice import untrained_model

SMALL_BACKBONE = "test_resnet"
FIRST = "conv1.0.weight"  # its first convolution
SMALL_DOLG = {"backbone": "test_resnet", "atrous_dim": 6, "local_dim": 10, "descriptor_dim": 12}


def timm_state(**options: object) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return timm.create_model(SMALL_BACKBONE, **options).state_dict()


def test_timm_state_dict_with_its_classifier_loads(tmp_path: Path) -> None:
    state = timm_state()
    for content in (
        state,
        {"state_dict": state, "epoch": 3},
        {f"module.{name}": value for name, value in state.items()},
    ):
        torch.save(content, tmp_path / "w.pth")
        loaded = load_weights(tmp_path / "w.pth", "gem", {"backbone": SMALL_BACKBONE})
        torch.testing.assert_close(loaded.model.backbone.network.state_dict()[FIRST], state[FIRST])


def test_weights_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    state = timm_state(num_classes=0)
    path = tmp_path / "w.pth"
    del state[FIRST]
    state["extra.weight"] = torch.zeros(1)
    state["layer1.0.conv1.weight"] = torch.zeros(3)
    torch.save(state, path)
    with pytest.raises(UltronError) as raised:
        load_weights(path, "gem", {"backbone": SMALL_BACKBONE})
    for words in (
        f"1 missing: {FIRST}",
        "1 unexpected: extra.weight",
        "1 of another shape: layer1.0.conv1.weight (3,) for",
    ):
        assert words in str(raised.value)


def test_code_in_a_weights_file_is_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"

    class Runs:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (witness,)

    torch.save({FIRST: Runs()}, tmp_path / "w.pth")
    with pytest.raises(UltronError, match="was refused, and nothing in it was run"):
        load_weights(tmp_path / "w.pth", "gem", {"backbone": SMALL_BACKBONE})
    assert not witness.exists()


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "truncated or not"), (b"rubbish", "truncated or not"), (None, "does not exist")]
)
def test_unreadable_weights(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "w.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UltronError, match=words):
        load_weights(path, "gem", {"backbone": SMALL_BACKBONE})


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    loaded = untrained_model("gem", {"backbone": SMALL_BACKBONE, "descriptor_dim": 16, "p": 2.5}, seed=1)
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, loaded.model, {"note": "kept"})
    again = load_checkpoint(path)
    assert again.weights_sha256 == loaded.weights_sha256 == sha256_of_weights(again.model)
    assert again.model.settings == loaded.model.settings
    with pytest.raises(UltronError, match=r"other settings: p \(checkpoint 2.5, asked 3.0\)"):
        load_weights(path, "gem", {"p": 3.0})
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UltronError, match="truncated or not"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["dolg-r50", "superglobal", "cfcd-r50"])
def test_settings_travel_with_the_checkpoint(name: str, tmp_path: Path, images: Tensor) -> None:
    settings = SMALL_DOLG if name.startswith("dolg") else {"backbone": "test_resnet", "descriptor_dim": 12}
    model = with_statistics(create_model(name, **settings))
    save_checkpoint(tmp_path / "c.pt", model, {})
    loaded = load_checkpoint(tmp_path / "c.pt").model
    with torch.no_grad():
        assert torch.equal(model(images), loaded(images))
    assert loaded.settings == model.settings


@pytest.mark.parametrize(
    ("name", "layers"), [("dolg-r50", "global_layer, head, local"), ("superglobal", "head"), ("cfcd-r50", "head, norm")]
)
def test_backbone_weights_alone_are_refused(name: str, layers: str, tmp_path: Path) -> None:
    model = create_model(name, backbone="test_resnet")
    torch.save(model.backbone.network.state_dict(), tmp_path / "timm.pth")
    with pytest.raises(UltronError, match=f"has backbone weights only, {layers} of {name} would stay random"):
        load_weights(tmp_path / "timm.pth", name, {"backbone": "test_resnet"})


def test_a_trained_network_with_other_switches(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "net.pt", create_model("superglobal", backbone="test_resnet", descriptor_dim=12), {})
    same, other = (
        load_weights(tmp_path / "net.pt", "superglobal", changes)
        for changes in ({}, {"regional_gem": False, "p_plus": 2.0})
    )
    assert (other.model.settings.regional_gem, other.model.settings.p_plus, other.model.settings.gem_plus) == (
        False,
        2.0,
        True,
    )
    assert same.weights_sha256 == other.weights_sha256
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        right = create_model(
            "superglobal", backbone="test_resnet", descriptor_dim=12, regional_gem=False, p_plus=2.0
        ).eval()
        right.load_state_dict(same.model.state_dict())
        assert torch.equal(other.model.eval()(images), right(images))
        assert not torch.allclose(other.model(images), same.model.eval()(images), atol=1e-4)
    with pytest.raises(
        UltronError,
        match=r"descriptor_dim \(checkpoint 12, asked 13\); leave these settings out \(of superglobal these may "
        r"differ: gem_plus, ",
    ):
        load_weights(tmp_path / "net.pt", None, {"descriptor_dim": 13, "relup": 0.0})


def test_what_weights_were_trained_on_is_known_as_far_as_the_checkpoint_says(tmp_path: Path) -> None:
    model = create_model("gem", backbone=SMALL_BACKBONE)
    of_a_run = {
        "train_config": {"side_px": 64, "dataset": "data/gldv2-clean", "exclude": ["oxford.csv"]},
        "landmarks": ["a", "b"],
        "provenance": {"dataset_folder": "/data/gldv2-train/train", "created": "then"},
    }
    run = {"dataset": "gldv2-clean", "dataset_folder": "/data/gldv2-train/train", "n_landmarks": 2, "excluded": True}
    for extra, trained_on in (
        (of_a_run, run),
        ({"imported": {"from": "dolg", "file": "r101.pyth"}}, {"dataset": "gldv2-clean"}),
        ({"imported": {"from": "cirtorch", "file": "sfm.pth"}}, None),
        ({}, None),
    ):
        save_checkpoint(tmp_path / "c.pt", model, extra)
        assert load_checkpoint(tmp_path / "c.pt").source.get("trained_on") == trained_on
