"""Checkpoints of ResNets in pycls' layout: DOLG, CVNet as SuperGlobal uses it, SENet and CFCD.

Names are mapped onto our modules, and BGR input is folded into the stem.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
    """One published layout."""

    models: Mapping[int, tuple[str, Mapping[str, object]]]  # name and settings by the number of blocks in stage 3
    rename: Callable[[str], str | None]  # as `place` takes it
    bgr: bool  # the network was trained on BGR photos
    scales: str
    settings: Callable[[State], dict[str, object]]  # those that the file's tensors tell, besides descriptor_dim


def import_layout(task: ImportTask) -> Imported:
    """A file of one of LAYOUTS. Raises UltronError for a file that does not fit."""
    layout = LAYOUTS[task.source]
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


def dolg_name(name: str) -> str | None:
    """DOLG (github.com/feymanpriv/DOLG): globalmodel, localmodel, pool_g, fc_t, fc; desc_cls is the classifier."""
    if name.startswith("desc_cls."):
        return None
    if name.startswith("globalmodel."):
        return resnet_name(name.removeprefix("globalmodel.")) or name
    if name == "pool_g.p":
        return "global_pooling.p"
    return _renamed(
        name,
        {
            "localmodel.aspp.aspp.": "local.atrous.branches.",
            "localmodel.aspp.im_pool.1.": "local.atrous.whole.",
            "localmodel.aspp.conv_after.0.": "local.atrous.join.",
            "localmodel.conv1.": "local.reduce.",
            "localmodel.bn.": "local.norm.",
            "localmodel.conv2.": "local.attention.",
            "fc_t.": "global_layer.",
            "fc.": "head.",
        },
    )


def cvnet_name(name: str) -> str | None:
    """CVNet as SuperGlobal uses it: encoder_q is the network; the rest (momentum encoder, re-ranking, unused layers) is
    not part of it."""
    if not name.startswith("encoder_q."):
        return None
    inner = name.removeprefix("encoder_q.")
    if inner.startswith(("seb1.", "seb2.", "sefc.")):
        return None  # layers of the authors' class that its forward pass never uses
    if inner == "head.pool.p":
        return "pooling.p"
    if inner.startswith("head.fc."):
        return f"head.{inner.removeprefix('head.fc.')}"
    return resnet_name(inner) or name


def cfcd_name(name: str) -> str | None:
    """CFCD (github.com/bassyess/CFCD), either stage: globalmodel, fc, bn; desc_cls is the classifier."""
    if name.startswith("desc_cls."):
        return None
    if name.startswith("globalmodel."):
        return resnet_name(name.removeprefix("globalmodel.")) or name
    return _renamed(name, {"fc.": "head.", "bn.": "norm."})


def senet_name(name: str) -> str | None:
    """SENet (github.com/sungonce/SENet): a ResNet, SSM, head.fc."""
    encoding = re.fullmatch(r"SSM\.SSE\.conv_in\.(\d+)\.([01])\.(.+)", name)
    if encoding:  # blocks of convolution, norm and ReLU; ours stand in one row
        return f"similarity.encode.{3 * int(encoding[1]) + int(encoding[2])}.{encoding[3]}"
    return resnet_name(name) or _renamed(
        name,
        {
            "SSM.ch_reduction_encoder.": "similarity.reduce.",
            "SSM.SSE.conv1x1_out.": "similarity.widen.",
            "SSM.FFN.": "similarity.join.",
            "head.fc.": "head.",
        },
    )


def _renamed(name: str, places: dict[str, str]) -> str:
    """The name with its beginning replaced, if it begins with a key of `places`."""
    for old, new in places.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _dolg_settings(state: State) -> dict[str, object]:
    return {"multi_atrous": any(".aspp." in key for key in state)}


def _senet_settings(state: State) -> dict[str, object]:
    blocks = [tensor for key, tensor in state.items() if re.fullmatch(r"SSM\.SSE\.conv_in\.\d+\.0\.weight", key)]
    if not blocks:
        return {}
    return {"similarity_dim": blocks[0].shape[0], "window": 2 * len(blocks) + 1, "kernel": blocks[0].shape[-1]}


def _no_settings(state: State) -> dict[str, object]:
    return {}


LAYOUTS = {
    "dolg": CheckpointLayout(
        {6: ("dolg-r50", {}), 23: ("dolg-r101", {})}, dolg_name, bgr=True, scales="5", settings=_dolg_settings
    ),
    "cvnet": CheckpointLayout(
        {6: ("superglobal", {"backbone": "resnet50"}), 23: ("superglobal", {"backbone": "resnet101"})},
        cvnet_name,
        bgr=True,
        scales="3",
        settings=_no_settings,
    ),
    "senet": CheckpointLayout(
        {6: ("senet-r50", {}), 23: ("senet-r101", {})}, senet_name, bgr=True, scales="3", settings=_senet_settings
    ),
    "cfcd": CheckpointLayout(
        {6: ("cfcd-r50", {}), 23: ("cfcd-r101", {})}, cfcd_name, bgr=True, scales="5", settings=_no_settings
    ),
}
