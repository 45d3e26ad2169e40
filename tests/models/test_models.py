"""The model core: any backbone, GeM as defined, weights files that fit or are refused."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from ultron_cli.errors import UltronError
from ultron_cli.models import create_model, list_models
from ultron_cli.models.core import normalise_images
from ultron_cli.models.parts.pooling import GeM
from ultron_cli.models.weights.checkpoints import load_checkpoint, load_weights, save_checkpoint, sha256_of_weights
from ultron_cli.models.weights.model_choice import ModelChoice, untrained_model

SMALL = "test_resnet"
FIRST = "conv1.0.weight"  # its first convolution


def literal_gem(feature_map: np.ndarray, p: float, eps: float = 1e-6) -> np.ndarray:
    """Equation 3 of Radenovic et al. (TPAMI 2019), position by position."""
    n, channels, height, width = feature_map.shape
    pooled = np.zeros((n, channels))
    for b in range(n):
        for c in range(channels):
            total = 0.0
            for y in range(height):
                for x in range(width):
                    total += max(float(feature_map[b, c, y, x]), eps) ** p
            pooled[b, c] = (total / (height * width)) ** (1.0 / p)
    return pooled


@pytest.mark.parametrize("p", [1.0, 3.0, 4.5])
def test_gem_equals_its_equation(p: float) -> None:
    feature_map = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(GeM(p).double()(feature_map).numpy(), literal_gem(feature_map.numpy(), p), rtol=1e-10)


def test_gem_does_not_overflow_in_half_precision() -> None:
    feature_map = torch.full((1, 2, 3, 3), 300.0, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.allclose(GeM()(feature_map), torch.full((1, 2), 300.0), rtol=1e-4)


def test_learnable_exponent_has_a_gradient() -> None:
    pooling = GeM(learnable=True)
    pooling(torch.rand(1, 2, 3, 3)).sum().backward()
    assert pooling.p.grad is not None
    assert float(pooling.p.grad.abs()) > 0


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_efficientnet", "swin_tiny_patch4_window7_224"])
@pytest.mark.parametrize("size", [(32, 32), (75, 90), (100, 333)])
def test_any_backbone_and_size_gives_unit_descriptors(backbone: str, size: tuple[int, int]) -> None:
    model = create_model("gem", backbone=backbone)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        feature_map, descriptors = model.feature_map(images), model(images)
    assert feature_map.ndim == 4
    assert descriptors.shape == (2, model.descriptor_dim)
    torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(2))


def test_token_grid_keeps_rows_and_columns() -> None:
    """A ViT's map of a wide photo: a bright patch at the right must show at the right."""
    model = create_model("gem", backbone="test_vit")
    side = model.backbone.network.patch_embed.patch_size[0]
    images = torch.zeros(1, 3, 2 * side, 6 * side)
    with torch.inference_mode():
        dark = model.feature_map(images)
        images[..., -side:] = 5.0
        change = (model.feature_map(images) - dark).abs().sum(1)[0]
    assert change.shape == (2, 6)
    assert change[:, -1].sum() > change[:, 0].sum()


def test_preprocessing_is_the_backbones_own() -> None:
    model = create_model("gem", backbone="tf_efficientnet_lite0")
    assert model.preprocessing.to_dict() == {
        "mean": [0.5] * 3,
        "sd": [0.5] * 3,
        "interpolation": "bicubic",
        "scaling": "bilinear",
    }
    pixels = torch.tensor([[[[0, 127, 255]]]], dtype=torch.uint8)
    torch.testing.assert_close(
        normalise_images(pixels, model.preprocessing)[0, :, 0, 0], torch.tensor([-1.0, -1 / 255, 1.0])
    )


def test_whitening_layer_sets_the_dimension() -> None:
    model = create_model("gem", backbone=SMALL, descriptor_dim=24)
    with torch.inference_mode():
        descriptors = model(torch.randn(1, 3, 64, 64))
    assert descriptors.shape == (1, 24)
    assert model.whitening is not None


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("gme", {}, "unknown model 'gme'; did you mean gem"),
        ("gem", {"backbone": "resnet5"}, "unknown backbone 'resnet5'; did you mean resnet5"),
        ("gem", {"bakbone": "resnet50"}, r"unknown setting model\.bakbone; did you mean backbone"),
        ("gem", {"backbone": SMALL, "p": "big"}, r"model\.p must be a number"),
        ("gem", {"backbone": SMALL, "p": -1.0}, "p must lie between"),
        ("gem", {"backbone": SMALL, "pooling": "gen"}, "pooling must be one of gem, avg, max"),
        ("gem", {"backbone": "levit_128s"}, "one fixed size only"),
    ],
)
def test_wrong_names_and_settings(name: str, settings: dict[str, object], words: str) -> None:
    with pytest.raises(UltronError, match=words):
        create_model(name, **settings)
    assert {"gem", "ultron-b", "ultron-s", "ultron-t"} <= set(list_models())


def test_pretrained_without_network_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UltronError, match=r"pretrained weights of resnet18 could not be downloaded.*--weights"):
        create_model("gem", backbone="resnet18", pretrained=True)


def timm_state(**options: object) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    return timm.create_model(SMALL, **options).state_dict()


def test_timm_state_dict_with_its_classifier_loads(tmp_path: Path) -> None:
    state = timm_state()
    for content in (
        state,
        {"state_dict": state, "epoch": 3},
        {f"module.{name}": value for name, value in state.items()},
    ):
        torch.save(content, tmp_path / "w.pth")
        loaded = load_weights(tmp_path / "w.pth", "gem", {"backbone": SMALL})
        torch.testing.assert_close(loaded.model.backbone.network.state_dict()[FIRST], state[FIRST])


def test_weights_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    state = timm_state(num_classes=0)
    path = tmp_path / "w.pth"
    del state[FIRST]
    state["extra.weight"] = torch.zeros(1)
    state["layer1.0.conv1.weight"] = torch.zeros(3)
    torch.save(state, path)
    with pytest.raises(UltronError) as raised:
        load_weights(path, "gem", {"backbone": SMALL})
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
        load_weights(tmp_path / "w.pth", "gem", {"backbone": SMALL})
    assert not witness.exists()


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "truncated or not"), (b"rubbish", "truncated or not"), (None, "does not exist")]
)
def test_unreadable_weights(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "w.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UltronError, match=words):
        load_weights(path, "gem", {"backbone": SMALL})


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    loaded = untrained_model("gem", {"backbone": SMALL, "descriptor_dim": 16, "p": 2.5}, seed=1)
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


def test_untrained_weights_depend_on_the_seed_alone() -> None:
    hashes = []
    for seed in (1, 1, 2):
        torch.rand(3)
        hashes.append(untrained_model("gem", {"backbone": SMALL}, seed).weights_sha256)
    assert hashes[0] == hashes[1] != hashes[2]


def test_flags_that_exclude_each_other() -> None:
    with pytest.raises(UltronError, match="--pretrained and --untrained exclude each other"):
        ModelChoice(pretrained=True, untrained=True).load()
    with pytest.raises(UltronError, match="name a network, not its weights"):
        ModelChoice(model="gem", settings={"backbone": SMALL}).load()
