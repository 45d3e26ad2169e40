"""Checkpoints of networks over a ResNet in pycls' layout. What a network's authors published stands beside the network,
as its PUBLISHED.

Names are mapped onto our modules, and BGR input is folded into the stem.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ultron_cli.errors import UltronError
from ultron_cli.models import build_model
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.weights.checkpoints import save_checkpoint
from ultron_cli.models.weights.importers import Imported, ImportTask, State, place
from ultron_cli.models.weights.reading import bare_state_dict, read_weights_file

BLOCK_PARTS = {
    "f.a": "conv1",
    "f.a_bn": "bn1",
    "f.b": "conv2",
    "f.b_bn": "bn2",
    "f.c": "conv3",
    "f.c_bn": "bn3",
    "proj": "downsample.0",
    "bn": "downsample.1",
}
BLOCK = re.compile(r"s(\d)\.b(\d+)\.(f\.[abc](?:_bn)?|proj|bn)\.(.+)")


@dataclass(frozen=True)
class CheckpointLayout:
    """One published layout; called with a task it imports a file."""

    models: Mapping[int, tuple[str, Mapping[str, object]]]  # name and settings by the number of blocks in stage 3
    rename: Callable[[str], str | None]  # as `place` takes it
    bgr: bool  # the network was trained on BGR photos
    scales: str
    # Those that the file's tensors tell, besides descriptor_dim.
    settings: Callable[[State], dict[str, object]] = field(default=lambda state: {})

    def __call__(self, task: ImportTask) -> Imported:
        """Imports a file of this layout. Raises UltronError for a file that does not fit."""
        return _import_layout(task, self)


def _import_layout(task: ImportTask, layout: CheckpointLayout) -> Imported:
    state = bare_state_dict(
        read_weights_file(task.path), task.path, lambda name: layout.rename(name) not in (None, name)
    )
    model = _model_for(state, layout, task.path, task.source)
    placed = place(state, layout.rename, model, task.path)
    if layout.bgr:
        placed["backbone.network.conv1.weight"] = placed["backbone.network.conv1.weight"].flip(1)
    model.load_state_dict(placed, strict=False)
    imported = {
        "from": task.source,
        "file": task.path.name,
        "input": "BGR folded into RGB" if layout.bgr else "RGB",
        "scales": layout.scales,
    }
    save_checkpoint(task.out, model, {"imported": imported})
    return Imported(model, layout.scales)


def _model_for(state: State, layout: CheckpointLayout, path: Path, source: str) -> RetrievalModel:
    """The model whose depth the file's third stage has, with the file's descriptor dimensions and branches."""
    blocks = {int(match[2]) for name in state if (match := BLOCK.search(name)) and match[1] == "3"}
    if len(blocks) not in layout.models:
        raise UltronError(
            f"{path} is no ResNet-50 or -101 of {source}: its third stage has {len(blocks)} blocks; check `from`"
        )
    name, model_settings = layout.models[len(blocks)]
    settings: dict[str, Any] = {**model_settings, **layout.settings(state)}
    heads = [tensor for key, tensor in state.items() if layout.rename(key) == "head.weight"]
    if heads:
        settings["descriptor_dim"] = heads[0].shape[0]
    return build_model(name, settings)


def resnet_name(name: str) -> str | None:
    """A key of a pycls ResNet as timm calls it, below `backbone.network.`; None for any other key."""
    stem = re.fullmatch(r"stem\.(conv|bn)\.(.+)", name)
    if stem:
        return f"backbone.network.{stem[1]}1.{stem[2]}"
    block = BLOCK.fullmatch(name)
    if block is None:
        return None
    return f"backbone.network.layer{block[1]}.{int(block[2]) - 1}.{BLOCK_PARTS[block[3]]}.{block[4]}"


def renamed(name: str, places: dict[str, str]) -> str:
    """The name with its beginning replaced, if it begins with a key of `places`."""
    for old, new in places.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
