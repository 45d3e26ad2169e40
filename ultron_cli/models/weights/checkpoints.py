"""Our checkpoints, timm's state dicts, and the hash that names weights. Files are read with weights_only=True."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from ultron_cli import __version__, user_code
from ultron_cli.configs import from_dict, to_dict
from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.files import whole_file
from ultron_cli.guarded import one_line
from ultron_cli.models import build_model
from ultron_cli.models.adapted import AdaptedModel
from ultron_cli.models.backbones.backbone import Backbone
from ultron_cli.models.backbones.preprocessing import Preprocessing
from ultron_cli.models.core import BackboneModel, RetrievalModel
from ultron_cli.models.heads import AdaptedSettings, FreeHead
from ultron_cli.models.weights import IMPORTERS
from ultron_cli.models.weights.onnx_files import NAME as ONNX_NAME
from ultron_cli.models.weights.onnx_files import is_onnx_file, open_onnx
from ultron_cli.models.weights.reading import bare_state_dict, fit_content, read_weights_file
from ultron_cli.stops import undisturbed

FORMAT = "ultron-checkpoint"
VERSION = 1
AGAIN = "train it again"
SOURCES = ("checkpoint", "weights", "pretrained", "untrained")  # from which weights can be loaded again


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to use, and where its weights came from."""

    model: RetrievalModel
    weights_sha256: str  # of sha256_of_weights
    # Enough to load them again: {"kind": "checkpoint" | "weights", "path"} or {"kind": "pretrained"} or {"kind":
    # "untrained", "seed"}.
    source: dict[str, Any]
    train_side_px: int | None = None  # side of the training crops, where known
    # Longest side of the photos that a head was trained on, or that a network was exported for; 0 for photos as they
    # are, None for other models.
    made_for_side_px: int | None = None


def sha256_of_weights(model: torch.nn.Module) -> str:
    """Hexadecimal SHA-256 over names, types, shapes and bytes of all parameters and buffers, in order of name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(path: Path, model: RetrievalModel, extra: Mapping[str, object]) -> None:
    """Writes our checkpoint atomically: model name, settings, preprocessing, weights, scales where they are not the
    model's usual ones, and `extra`, which holds plain data and tensors."""
    code = {text: asdict(part.record()) for text, part in model.code.items()}
    content = {
        "model": {**model.made_of(), **({"code": code} if code else {})},
        "preprocessing": model.preprocessing.to_dict(),
        **extra,
    }
    if model.recommended_scales != type(model).recommended_scales:
        content["scales"] = list(model.recommended_scales)
    _write(path, model.state_dict(), content)


def save_head(path: Path, head: FreeHead, base: "FrozenBase", extra: Mapping[str, object]) -> None:
    """Writes the checkpoint of a head alone: as save_checkpoint, with the record of its network instead of that one's
    weights."""
    code = {text: asdict(part.record()) for text, part in user_code.parts_of({"head": head.settings.head}).items()}
    content = {
        "model": {"name": head.name, "settings": to_dict(head.settings), **({"code": code} if code else {})},
        **{key: base.extraction[key] for key in ("preprocessing", "scales") if key in base.extraction},
        "base": asdict(base),
        **extra,
    }
    _write(path, head.head.state_dict(), content)


def _write(path: Path, state_dict: Mapping[str, torch.Tensor], content: Mapping[str, object]) -> None:
    state = {name: tensor.detach().cpu() for name, tensor in state_dict.items()}
    version = {"format": FORMAT, "version": VERSION, "ultron_version": __version__}
    with whole_file(path) as output, undisturbed():
        torch.save({**version, **content, "state_dict": state}, output)


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
            f"{path} does not fit backbone {backbone.name}: {'; '.join(parts)}; give a file of that network "
            "(only a classifier head may be left over)",
            "name the `backbone` that the file is of",
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


@dataclass(frozen=True, kw_only=True)
class _StoredModel:
    name: str
    settings: dict[str, Any]
    code: dict[str, user_code.CodeRecord] = field(default_factory=dict)  # by import path


@dataclass(frozen=True, kw_only=True)
class _StoredTraining:
    side_px: int | None = None
    dataset: str | None = None
    exclude: tuple[str, ...] = ()  # lists of landmarks or photos


@dataclass(frozen=True, kw_only=True)
class _StoredProvenance:
    dataset_folder: str | None = None


@dataclass(frozen=True, kw_only=True)
class _BaseModel:
    """A model, as descriptor files name it."""

    name: str
    settings: dict[str, object]
    code: dict[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class FrozenBase:
    """The network under a head, as the checkpoint of the head names it: what described the head's photos."""

    label: str
    model: dict[str, object]  # its name and settings, and SHA-256 of code of a user's own, as descriptors record them
    extraction: dict[str, object]  # the whole configuration of the descriptors: scales, sides, preprocessing ...
    weights: dict[str, object]  # where they were, as LoadedModel.source
    weights_sha256: str

    def load(self, head_path: Path) -> LoadedModel:
        """The network with its weights. Raises UltronError if they are gone, or are others by now."""
        path = str(self.weights["path"]) if "path" in self.weights else None
        kind = self.weights.get("kind")
        head = f"{head_path} is a head over {self.label}"
        if kind not in SOURCES or (path is not None and not os.path.isfile(path)):
            place = f"at {path}, which is gone" if path else f"in {kind or 'no place that was recorded'}"
            raise UltronError(f"{head}, whose weights were {place}; put them back, or train the head again")
        stored = fit_content(self.model, _BaseModel, head_path, AGAIN)
        code = {text: user_code.CodeRecord(sha256=sha256) for text, sha256 in (stored.code or {}).items()}
        with user_code.stored_code(code, head_path, head_path.parent / user_code.FOLDER):
            loaded = load_again(stored.name, stored.settings, self.weights)
        if loaded.weights_sha256 != self.weights_sha256:
            raise UltronError(
                f"{head}, whose weights ({path or kind}) are others by now; put them back, or train the head again"
            )
        return loaded


@dataclass(frozen=True, kw_only=True)
class _StoredParts:
    """What a checkpoint holds beside its weights, as far as it is read."""

    version: int
    model: _StoredModel
    state_dict: dict[str, Any]
    preprocessing: Preprocessing | None = None
    scales: tuple[float, ...] | None = None
    train_config: _StoredTraining = field(default_factory=_StoredTraining)
    landmarks: tuple[str, ...] = ()  # that it was trained on
    provenance: _StoredProvenance = field(default_factory=_StoredProvenance)
    imported: dict[str, str] = field(default_factory=dict)
    base: FrozenBase | None = None  # of a head alone

    def trained_on(self) -> dict[str, object] | None:
        """The training photos, as `LearnedFrom` of retrieval/origin.py reads them; None where they are not known."""
        importer = IMPORTERS.get(self.imported.get("from", ""))
        if importer is not None and importer.trained_on is not None:
            return {"dataset": importer.trained_on}
        if self.provenance.dataset_folder is None:
            return None
        return {
            "dataset": Path(self.train_config.dataset or "").name or None,
            "dataset_folder": self.provenance.dataset_folder,
            "n_landmarks": len(self.landmarks),
            "excluded": bool(self.train_config.exclude),
        }


def _stored_parts(content: dict[str, Any], path: Path) -> _StoredParts:
    """The parts of a checkpoint. Raises UltronError, naming the place, for one of another type, and for a checkpoint of
    a newer ultron."""
    version = content.get("version")
    if isinstance(version, int) and version > VERSION:
        raise UltronError(
            f"{path} has format version {version}, this ultron reads up to {VERSION}; install a newer ultron"
        )
    stored = fit_content(content, _StoredParts, path, AGAIN)
    if "preprocessing" in content:
        fault = stored.preprocessing.fault() if stored.preprocessing else "it is None"
        if fault:
            raise UltronError(f"{path} is not sound (preprocessing: {fault}); {AGAIN}")
    return stored


def load_checkpoint(path: Path, changes: Mapping[str, object] | None = None) -> LoadedModel:
    """Opens one of our checkpoints. Raises UltronError if it is not one, is damaged or comes from a newer ultron.

    changes: settings that are to differ from the stored ones, of the model's `switches`, which no weight depends on.
    """
    content = read_weights_file(path)
    if content.get("format") != FORMAT:
        raise UltronError(
            f"{path} is not a checkpoint of ultron, which `ultron train` and `ultron weights import` write; make one "
            "of it with `ultron weights import`"
        )
    stored = _stored_parts(content, path)
    settings = {**stored.model.settings, **(changes or {})}
    made_for_side_px = None
    with user_code.stored_code(stored.model.code, path, path.parent / user_code.FOLDER):
        if stored.base is None:
            model = weighted = build_model(stored.model.name, settings)
        else:
            model = AdaptedModel(
                stored.model.name, from_dict(AdaptedSettings, settings, "model."), stored.base.load(path).model
            ).eval()
            weighted = model.head
            side_px = stored.base.extraction.get("max_side_px")
            made_for_side_px = side_px if isinstance(side_px, int) else 0
    try:
        missing, unexpected = weighted.load_state_dict(content["state_dict"], strict=False)
    except RuntimeError as error:  # of another shape
        raise UltronError(f"{path} does not fit its own model ({one_line(error, 300)}); train it again") from error
    if missing or unexpected:
        raise UltronError(
            f"{path} does not fit its own model: missing {_first_names(missing) or 'none'}; unexpected "
            f"{_first_names(unexpected) or 'none'}; train it again"
        )
    if stored.scales is not None:
        model.recommended_scales = stored.scales
    source: dict[str, Any] = {"kind": "checkpoint", "path": str(path.resolve())}
    if trained_on := stored.trained_on():
        source["trained_on"] = trained_on
    return LoadedModel(model, sha256_of_weights(model), source, stored.train_config.side_px, made_for_side_px)


def untrained_model(name: str, settings: Mapping[str, object], seed: int) -> LoadedModel:
    """Fresh weights from a seed, leaving the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_model(name, settings)
    return LoadedModel(model, sha256_of_weights(model), {"kind": "untrained", "seed": seed})


def pretrained_model(name: str, settings: dict[str, object]) -> LoadedModel:
    """timm's own weights, downloaded. Raises UltronError if a layer of the model has none."""
    model = build_model(name, settings, pretrained=True)
    require_only_backbone(model, "timm's download")
    return LoadedModel(model, sha256_of_weights(model), {"kind": "pretrained"})


def load_again(name: str, settings: dict[str, object], source: Mapping[str, object]) -> LoadedModel:
    """The model of which LoadedModel said this source, one of SOURCES. Raises UltronError."""
    kind = source.get("kind")
    if kind == "untrained":
        return untrained_model(name, settings, cast(int, source["seed"]))
    if kind == "pretrained":
        return pretrained_model(name, settings)
    return load_weights(Path(str(source["path"])), name, settings)


def load_weights(path: Path, model_name: str | None, settings: Mapping[str, object]) -> LoadedModel:
    """A model with the weights of `path`: our checkpoint or ONNX file (which names its model), another tool's ONNX
    file, a state dict of the whole model, or one of timm for settings["backbone"].

    Raises UltronError if the file and the settings do not fit.
    """
    if is_onnx_file(path):
        return _load_onnx(path, model_name, settings)
    content = read_weights_file(path)
    if content.get("format") == FORMAT:
        loaded = load_checkpoint(path)
        stored = to_dict(loaded.model.settings)
        changed = {key: value for key, value in settings.items() if not user_code.same_part(stored.get(key), value)}
        switches = loaded.model.switches
        wrong = [
            f"{key} (checkpoint {stored.get(key)}, asked {value})"
            for key, value in changed.items()
            if key not in switches
        ]
        if model_name is not None and not user_code.same_part(model_name, loaded.model.name):
            wrong.insert(0, f"model (checkpoint {loaded.model.name}, asked {model_name})")
        if wrong:
            may = f" (of {loaded.model.name} these may differ: {', '.join(switches)})" if switches else ""
            raise UltronError(f"{path} was made with other settings: {'; '.join(wrong)}; leave these settings out{may}")
        return load_checkpoint(path, changed) if changed else loaded
    model = build_model(model_name or "gem", settings)
    source = {"kind": "weights", "path": str(path.resolve())}
    state = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if state.keys() == model.state_dict().keys():  # of the whole model, as `ultron weights export` writes it
        try:
            model.load_state_dict(state)
        except RuntimeError as error:  # of another shape
            reason = one_line(error, 300)
            raise UltronError(f"{path} does not fit {model.label} ({reason}); name its settings") from error
        return LoadedModel(model, sha256_of_weights(model), source)
    if not isinstance(model, BackboneModel):
        raise UltronError(
            f"{path} is not a checkpoint of ultron, and {model.name} takes no other weights; give a checkpoint "
            "of `ultron train`"
        )
    require_only_backbone(model, str(path))
    load_timm_weights(
        model.backbone, bare_state_dict(content, path, set(model.backbone.network.state_dict()).__contains__), path
    )
    return LoadedModel(model, sha256_of_weights(model), source)


def _load_onnx(path: Path, model_name: str | None, settings: Mapping[str, object]) -> LoadedModel:
    if model_name not in (None, ONNX_NAME):
        raise UltronError(f"{path} is an ONNX file, which holds its network itself; leave out `model`")
    file = open_onnx(path, settings)
    source: dict[str, Any] = {"kind": "weights", "path": str(path.resolve())}
    record = file.model.record
    if record is None:
        return LoadedModel(file.model, file.sha256, source)
    if record.trained_on:
        source["trained_on"] = record.trained_on
    return LoadedModel(file.model, file.sha256, source, made_for_side_px=record.max_side_px or 0)
