"""Where settings come from, what is refused, and the presets."""

import copy
import json
from pathlib import Path

import pytest

import ultron_cli
from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.training.config import TrainConfig
from ultron_cli.training.presets import explain_config, list_presets, load_config, make_config, resumed_config


def test_settings_come_from_preset_then_file_then_flags(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("epochs = 7\nlr = 0.5\n[augment]\nhue = 0.2\n")
    config = load_config("quickstart", tmp_path / "mine.toml", ["lr=0.25", "model.window=5", "augment.flip=false"])
    assert (config.epochs, config.lr, config.augment.hue, config.augment.flip) == (7, 0.25, 0.2, False)
    assert config.model == {"name": "ultron-t", "window": 5}
    assert config.augment.crop_area == (0.5, 1.0)
    explained = {
        key: (value, origin)
        for key, value, origin in explain_config("quickstart", tmp_path / "mine.toml", ["lr=0.25", "switch.epoch=3"])
    }
    assert explained["lr"] == (0.25, "set")
    assert explained["epochs"] == (7, str(tmp_path / "mine.toml"))
    assert explained["side_px"] == (80, "preset quickstart")
    assert explained["augment.contrast"] == (0.3, "default")
    assert explained["switch.epoch"] == (3, "set")


def test_another_model_or_loss_does_not_inherit_the_settings_of_the_old_one(tmp_path: Path) -> None:
    config = load_config(
        "quickstart", None, ["loss.rho=0.1", "loss.name=madacos", "model.name=ultron-s", "model.descriptor_dim=128"]
    )
    assert config.loss == {"name": "madacos", "rho": 0.1}
    assert config.model == {"name": "ultron-s", "descriptor_dim": 128}
    (tmp_path / "mine.toml").write_text('[loss]\nname = "cosface"\n')
    assert load_config("quickstart", tmp_path / "mine.toml", []).loss == {"name": "cosface"}


def test_presets_that_the_project_promises_are_there() -> None:
    promised = {
        "quickstart",
        "ultron-s",
        "ultron-b",
        "gem-r50-arcface",
        "gem-r101-arcface",
        "dolg-r50",
        "dolg-r101",
        "cfcd-r50",
        "cfcd-r101",
    }
    assert promised <= set(list_presets())


@pytest.mark.parametrize("name", list_presets())
def test_presets_load_and_say_their_source(name: str) -> None:
    config = load_config(name, None, [])
    assert make_config(json.loads(json.dumps(config.to_plain()))) == config
    assert (Path(ultron_cli.__file__).parent / "training/presets" / f"{name}.toml").read_text().startswith("# ")


def test_ultron_recipe_as_the_facts_have_it() -> None:
    config = load_config("ultron-b", None, [])
    assert (config.optimizer, config.lr, config.epochs, config.warmup_epochs, config.batch_size, config.side_px) == (
        "adamw",
        1e-3,
        40,
        5,
        128,
        512,
    )
    assert config.switch is not None
    assert (
        config.switch.epoch,
        config.switch.optimizer,
        config.switch.lr,
        config.switch.momentum,
        config.switch.weight_decay,
    ) == (10, "sgd", 1e-2, 0.9, 1e-4)
    assert config.loss == {"name": "madacos", "rho": 0.04}


@pytest.mark.parametrize(
    "preset", ["autola-cifar10", "autola-cifar100", "autola-imagenet", "ggem-vit-b", "autola-search"]
)
def test_presets_are_whole(preset: str) -> None:
    config = load_config(preset, None, [])
    if preset == "autola-search":
        assert (config.epochs, config.lr, config.architecture_lr, config.augment.pad_px) == (50, 0.025, 3e-3, 4)
        return
    assert isinstance(config, TrainConfig)
    if preset == "ggem-vit-b":
        assert config.model["pooling"] == "ggem" and config.model["backbone"] == "vit_base_patch16_224"
        return
    assert (
        config.loss["name"] == "linear"
        and config.validation.kind == "classification"
        and config.model["attention"] == "hoga"
    )
    expected = {"autola-cifar10": (500, 256), "autola-cifar100": (500, 128), "autola-imagenet": (100, 256)}[preset]
    assert (config.epochs, config.batch_size) == expected
    if preset == "autola-imagenet":
        assert config.schedule == "steps" and config.step_epochs == (30, 60, 90) and config.step_factor == 0.1
    else:
        model = create_model("gem", **{key: value for key, value in config.model.items() if key != "name"})
        assert (
            model.backbone.network.layer1[0].conv1.out_channels == {"autola-cifar10": 16, "autola-cifar100": 64}[preset]
        )


@pytest.mark.parametrize(
    "name", ["dolg-r50", "dolg-r101", "cfcd-r50", "cfcd-r101", "cfcd-r50-stage2", "cfcd-r101-stage2"]
)
def test_augmentation_and_decay_as_in_the_authors_code(name: str) -> None:
    """datasets/transforms.py (random_sized_crop, horizontal_flip) and core/optimizer.py of both repositories."""
    config = load_config(name, None, [])
    assert isinstance(config, TrainConfig)
    assert config.augment.crop_area == (0.08, 1.0) and config.augment.crop_aspect == (0.75, 1.3333)
    assert config.augment.flip and config.decay_norms_and_biases and config.weight_decay == 1e-4
    assert config.warmup_epochs == (0.0 if name.endswith("stage2") else 5.0)


def test_no_preset_calls_a_published_value_its_own() -> None:
    """autola-*, cfcd-* and DOLG have sources for every value."""
    folder = Path(ultron_cli.__file__).parent / "training/presets"
    for name in ("autola-cifar100", "autola-imagenet", "cfcd-r50", "cfcd-r101", "dolg-r50", "dolg-r101"):
        text = (folder / f"{name}.toml").read_text().lower()
        assert not any(phrase in text for phrase in ("ours", "not said", "this project's choice")), name


@pytest.mark.parametrize("name", ["cfcd-r50", "cfcd-r101"])
def test_presets_go_on_from_the_first_stage(name: str) -> None:
    first, second = load_config(name, None, []), load_config(f"{name}-stage2", None, ["weights=run/checkpoint.pt"])
    assert second.model == first.model and second.loss == {
        "name": "cfcd-stage2",
        "rho": 0.02,
        "tuple_size": 8,
        "local_weight": 0.05,
        "local_margin": 0.1,
    }
    changed = {"pretrained", "weights", "loss", "warmup_epochs"}
    before, after = copy.deepcopy(first.to_plain()), second.to_plain()
    assert {key for key in before if before[key] != after[key]} == changed


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("optimiser=sgd", "unknown setting optimiser; did you mean optimizer"),
        ("loss.margn=0.2", r"unknown setting loss\.margn; did you mean margin"),
        ("validation.shared=0.2", r"unknown setting validation\.shared; did you mean share"),
        ("switch.epochs=3", r"unknown setting switch\.epochs; did you mean epoch"),
        ("switch.epoch=7", "must lie before the end of 7 epochs"),
        ("accumulate=5", "batch_size must be a multiple of accumulate"),
        ("schedule=steps", "step_epochs goes with"),
        ("schedule=cosin", "`schedule` must be one of cosine.*did you mean cosine"),
        ("ema=1.5", "ema must lie between 0 and 1"),
        ("augment.crop_area=[0.9,0.2]", r"augment\.crop_area must be two numbers, ascending"),
        ("precision=float8", "`precision` must be one of"),
        ("lr=0", "lr must lie between"),
    ],
)
def test_wrong_settings(assignment: str, words: str) -> None:
    with pytest.raises(UltronError, match=words):
        load_config("quickstart", None, [assignment])


def test_resume_only_with_the_same_settings(tmp_path: Path) -> None:
    config = load_config("quickstart", None, ["epochs=3", "switch.epoch=1"])
    stored = tmp_path / "config.json"
    stored.write_text(json.dumps({"config": config.to_plain()}))
    assert resumed_config(stored, None, None, []) == config
    assert resumed_config(stored, "quickstart", None, ["epochs=3", "switch.epoch=1"]) == config
    assert resumed_config(stored, None, None, ["workers=0", "log_every=1"]).workers == 0  # how, not what
    with pytest.raises(UltronError, match=r"another configuration: lr \(stored 0.01, asked 0.2\)"):
        resumed_config(stored, None, None, ["lr=0.2"])
    with pytest.raises(UltronError, match=r"was started with epochs=3, over which the cosine of its rate falls to 0"):
        resumed_config(stored, "quickstart", None, [])
    (tmp_path / "mine.toml").write_text("epochs = 'many'\n")
    with pytest.raises(UltronError, match=r"mine\.toml: epochs must be a whole number; found 'many'"):
        resumed_config(stored, None, tmp_path / "mine.toml", [])
    stored.write_text(json.dumps({"config": config.to_plain() | {"lr": -1}}))
    with pytest.raises(UltronError, match=r"config\.json: lr must lie between"):
        resumed_config(stored, None, None, [])
