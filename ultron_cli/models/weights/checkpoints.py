"""Our checkpoints, timm's state dicts, and the hash that names weights. Files are read with weights_only=True."""

import hashlib
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ultron_cli import __version__
from ultron_cli.configs import to_dict
from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.files import whole_file
from ultron_cli.models import create_model
from ultron_cli.models.backbones.backbone import Backbone
from ultron_cli.models.core import BackboneModel, RetrievalModel

FORMAT = "ultron-checkpoint"
VERSION = 1
CONTAINERS = ("state_dict", "model_state", "model", "state_dict_ema")  # keys under which files keep a state dict


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to use, and where its weights came from."""

    model: RetrievalModel
    weights_sha256: str  # of sha256_of_weights
    # Enough to load them again: {"kind": "checkpoint" | "weights", "path"} or {"kind": "pretrained"} or {"kind":
    # "untrained", "seed"}.
    source: dict[str, Any]
    train_side_px: int | None = None  # side of the training crops, where known


def sha256_of_weights(model: torch.nn.Module) -> str:
    """Hexadecimal SHA-256 over names, types, shapes and bytes of all parameters and buffers, in order of name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(path: Path, model: RetrievalModel, extra: Mapping[str, object]) -> None:
    """Writes our checkpoint atomically: model name, settings, preprocessing, weights, and `extra`, which holds plain
    data and tensors."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "ultron_version": __version__,
        "model": {"name": model.name, "settings": to_dict(model.settings)},
        "preprocessing": model.preprocessing.to_dict(),
        "state_dict": {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()},
        **extra,
    }
    with whole_file(path) as output:
        torch.save(content, output)


def read_weights_file(path: Path, also: Sequence[Callable | tuple[Callable, str]] = ()) -> dict[str, Any]:
    """The content of a .pth/.pt or .safetensors file. Code in it is never run; a file that needs that is refused.

    also: what the file may name besides tensors and plain data, as torch.serialization.safe_globals takes it. Raises
    UltronError for a file that cannot be read.
    """
    if not path.is_file():
        raise UltronError(f"weights {path} does not exist; name another file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals(list(also)):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both readers raise many types on damaged files; the reason is kept
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        if isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error).lower():
            raise UltronError(
                f"{path} was refused, and nothing in it was run: it holds more than tensors and plain data "
                f"({reason}); save its state dict alone"
            ) from error
        raise UltronError(f"{path} is truncated or not a weights file ({reason}); get it again") from error
    if not isinstance(content, dict):
        raise UltronError(f"{path} must hold a state dict (names to tensors), found {type(content).__name__}")
    return content


def bare_state_dict(content: dict[str, Any], path: Path) -> dict[str, torch.Tensor]:
    """The names and tensors inside usual containers, without the `module.` of data-parallel training."""
    for key in CONTAINERS:
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise UltronError(f"{path} holds no tensors by name; it must be a state dict or a checkpoint of ultron")
    prefixed = all(name.startswith("module.") for name in tensors)
    return {name.removeprefix("module.") if prefixed else name: value for name, value in tensors.items()}


def _first_names(names: list[str]) -> str:
    """The first six, and how many more there are."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def load_timm_weights(backbone: Backbone, state: dict[str, torch.Tensor], path: Path) -> None:
    """Loads a timm state dict.

    Raises UltronError listing missing, unexpected or misshapen keys; only a classifier head may be left over.
    """
    network_state = backbone.network.state_dict()
    unexpected = sorted(state.keys() - network_state.keys())
    of_head = tuple(f"{head}." for head in backbone.classifier_names)
    leftover = [name for name in unexpected if name.startswith(of_head)]
    foreign = [name for name in unexpected if name not in leftover]
    missing = sorted(name for name in network_state.keys() - state.keys() if not name.endswith("num_batches_tracked"))
    misshapen = [
        f"{name} {tuple(state[name].shape)} for {tuple(network_state[name].shape)}"
        for name in sorted(state.keys() & network_state.keys())
        if state[name].shape != network_state[name].shape
    ]
    if missing or foreign or misshapen:
        parts = [
            f"{len(names)} {kind}: {_first_names(names)}"
            for kind, names in (("missing", missing), ("unexpected", foreign), ("of another shape", misshapen))
            if names
        ]
        raise UltronError(
            f"{path} does not fit backbone {backbone.name}: {'; '.join(parts)}; check `backbone` (only a "
            "classifier head may be left over)"
        )
    if leftover:
        log.info("weights %s: left over, the classifier head (%s)", path.name, _first_names(leftover))
    backbone.network.load_state_dict(
        {name: value for name, value in state.items() if name in network_state}, strict=False
    )


def require_only_backbone(model: RetrievalModel, weights: str) -> None:
    """Raises UltronError if backbone weights alone would leave a layer of the model random. The exponents of a pooling
    are not random: their first value is a setting."""
    random_layers = {
        name.split(".")[0]
        for name, _ in model.named_parameters()
        if not name.startswith("backbone.") and name.rsplit(".", 1)[-1] != "p"
    }
    if random_layers:
        layers = ", ".join(
            "a whitening layer (descriptor_dim)" if name == "whitening" else name for name in sorted(random_layers)
        )
        raise UltronError(
            f"{weights} has backbone weights only, {layers} of {model.name} would stay random; train the "
            "model, or give a checkpoint of it"
        )


def load_checkpoint(path: Path, changes: Mapping[str, object] | None = None) -> LoadedModel:
    """Opens one of our checkpoints. Raises UltronError if it is not one, is damaged or comes from a newer ultron.

    changes: settings that are to differ from the stored ones, of the model's `switches`, which no weight depends on.
    """
    content = read_weights_file(path)
    if content.get("format") != FORMAT:
        raise UltronError(
            f"{path} is not a checkpoint of ultron; name the model with `model` and `backbone` and give the "
            "file as `weights`"
        )
    if content["version"] > VERSION:
        raise UltronError(
            f"{path} has format version {content['version']}, this ultron reads up to {VERSION}; install a newer ultron"
        )
    model = create_model(content["model"]["name"], **{**content["model"]["settings"], **(changes or {})})
    missing, unexpected = model.load_state_dict(content["state_dict"], strict=False)
    if missing or unexpected:
        raise UltronError(
            f"{path} does not fit its own model: missing {_first_names(missing) or 'none'}; unexpected "
            f"{_first_names(unexpected) or 'none'}; train it again"
        )
    side_px = content.get("train_config", {}).get("side_px")
    return LoadedModel(model, sha256_of_weights(model), {"kind": "checkpoint", "path": str(path.resolve())}, side_px)


def load_weights(path: Path, model_name: str | None, settings: dict[str, Any]) -> LoadedModel:
    """A model with the weights of `path`: our checkpoint (which names its model), or a timm state dict for
    settings["backbone"].

    Raises UltronError if the file and the settings do not fit.
    """
    content = read_weights_file(path)
    if content.get("format") == FORMAT:
        loaded = load_checkpoint(path)
        stored = to_dict(loaded.model.settings)
        changed = {key: value for key, value in settings.items() if stored.get(key) != value}
        switches = loaded.model.switches
        wrong = [
            f"{key} (checkpoint {stored.get(key)}, asked {value})"
            for key, value in changed.items()
            if key not in switches
        ]
        if model_name not in (None, loaded.model.name):
            wrong.insert(0, f"model (checkpoint {loaded.model.name}, asked {model_name})")
        if wrong:
            may = f" (of {loaded.model.name} these may differ: {', '.join(switches)})" if switches else ""
            raise UltronError(f"{path} was made with other settings: {'; '.join(wrong)}; leave these flags out{may}")
        return load_checkpoint(path, changed) if changed else loaded
    model = create_model(model_name or "gem", **settings)
    if not isinstance(model, BackboneModel):
        raise UltronError(
            f"{path} is not a checkpoint of ultron, and {model.name} takes no other weights; give a checkpoint "
            "of `ultron train`"
        )
    require_only_backbone(model, str(path))
    load_timm_weights(model.backbone, bare_state_dict(content, path), path)
    return LoadedModel(model, sha256_of_weights(model), {"kind": "weights", "path": str(path.resolve())})
