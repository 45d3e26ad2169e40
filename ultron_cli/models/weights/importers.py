"""The authors' published checkpoints as checkpoints of ultron: names mapped onto our modules, BGR input folded into the
stem.

Files are read with weights_only=True. Layouts: pycls ResNets (DOLG, CVNet/SuperGlobal, SENet, CFCD), cirtorch's
networks and plain timm state dicts. Every key that could not be placed is listed; that is an error unless it is known
to serve training only.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.weights.checkpoints import bare_state_dict, load_timm_weights, read_weights_file, save_checkpoint
from ultron_cli.models.weights.cirtorch import (
    LearnedWhitening,
    cirtorch_meta,
    cirtorch_model,
    cirtorch_name,
    cirtorch_whitenings,
    numpy_parts,
)

State = dict[str, torch.Tensor]
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
class Layout:
    """One published layout. models: what it may become, by the number of blocks in the third stage. rename: a key of
    the file as our name, None if it serves training only, or itself if unknown. bgr: the network was trained on BGR
    photos. settings: those of the model that the file's tensors tell, besides descriptor_dim."""

    models: dict[int, tuple[str, dict[str, Any]]]
    rename: Callable[[str], str | None]
    bgr: bool
    scales: str
    settings: Callable[[State], dict[str, Any]] = lambda state: {}


@dataclass(frozen=True)
class Imported:
    """What came of a file: the model, the scales it is published for, and whitenings for its descriptors."""

    model: RetrievalModel
    scales: str
    whitenings: list[LearnedWhitening]


def resnet_name(name: str) -> str | None:
    """A key of a pycls ResNet as timm calls it, below `backbone.network.`; None if it is none."""
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
    """CVNet as SuperGlobal uses it: encoder_q is the network; the rest (momentum encoder, re-ranking, unused layers)
    serves other ends."""
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
    """The name with the one of the beginnings that it has replaced; itself without."""
    for old, new in places.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _dolg_settings(state: State) -> dict[str, Any]:
    return {"multi_atrous": any(".aspp." in key for key in state)}


def _senet_settings(state: State) -> dict[str, Any]:
    blocks = [tensor for key, tensor in state.items() if re.fullmatch(r"SSM\.SSE\.conv_in\.\d+\.0\.weight", key)]
    return (
        {"similarity_dim": blocks[0].shape[0], "window": 2 * len(blocks) + 1, "kernel": blocks[0].shape[-1]}
        if blocks
        else {}
    )


LAYOUTS = {
    "dolg": Layout(
        {6: ("dolg-r50", {}), 23: ("dolg-r101", {})}, dolg_name, bgr=True, scales="5", settings=_dolg_settings
    ),
    "cvnet": Layout(
        {6: ("superglobal", {"backbone": "resnet50"}), 23: ("superglobal", {"backbone": "resnet101"})},
        cvnet_name,
        bgr=True,
        scales="3",
    ),
    "senet": Layout(
        {6: ("senet-r50", {}), 23: ("senet-r101", {})}, senet_name, bgr=True, scales="3", settings=_senet_settings
    ),
    "cfcd": Layout({6: ("cfcd-r50", {}), 23: ("cfcd-r101", {})}, cfcd_name, bgr=True, scales="5"),
}
SOURCES = {name: sorted({model for model, _ in layout.models.values()}) for name, layout in LAYOUTS.items()} | {
    "cirtorch": ["gem"],
    "timm": ["gem"],
}


def import_weights(path: Path, source: str, out: Path, backbone: str | None = None) -> Imported:
    """Reads a published checkpoint, writes ours and returns it. source: one of SOURCES; `timm` goes with `backbone`.

    Raises UltronError for a file that does not fit, naming every key that could not be placed.
    """
    if source == "cirtorch":
        return _import_cirtorch(path, out)
    content = read_weights_file(path)
    state = bare_state_dict(content, path)
    if source == "timm":
        if backbone is None:
            raise UltronError("--from timm needs --backbone NAME, the timm network that the file is of")
        model = create_model("gem", backbone=backbone)
        load_timm_weights(model, state, path)
        save_checkpoint(out, model, {"imported": {"from": source, "file": path.name}})
        return Imported(model, "1", [])
    layout = LAYOUTS[source]
    model = _model_for(state, layout, path, source)
    placed = place(state, layout.rename, model, path)
    if layout.bgr:
        placed["backbone.network.conv1.weight"] = placed["backbone.network.conv1.weight"].flip(1)
    model.load_state_dict(placed, strict=False)
    order = "BGR folded into RGB" if layout.bgr else "RGB"
    save_checkpoint(
        out, model, {"imported": {"from": source, "file": path.name, "input": order, "scales": layout.scales}}
    )
    return Imported(model, layout.scales, [])


def _import_cirtorch(path: Path, out: Path) -> Imported:
    """Scales: those that cirtorch tests its networks at."""
    content = read_weights_file(path, also=numpy_parts())
    state, meta = bare_state_dict(content, path), cirtorch_meta(content, path)
    model = cirtorch_model(meta, state, path)
    whitenings, scales = cirtorch_whitenings(meta, model.descriptor_dim, path), "3"
    model.load_state_dict(place(state, partial(cirtorch_name, meta["architecture"]), model, path), strict=False)
    save_checkpoint(out, model, {"imported": {"from": "cirtorch", "file": path.name, "input": "RGB", "scales": scales}})
    return Imported(model, scales, whitenings)


def _model_for(state: State, layout: Layout, path: Path, source: str) -> RetrievalModel:
    """The model whose depth the file's third stage has, with the file's descriptor dimensions and branches."""
    blocks = {int(found[2]) for name in state if (found := BLOCK.search(name)) and found[1] == "3"}
    if len(blocks) not in layout.models:
        raise UltronError(
            f"{path} is no ResNet-50 or -101 of {source}: its third stage has {len(blocks)} blocks; check --from"
        )
    name, settings = layout.models[len(blocks)]
    heads = [tensor for key, tensor in state.items() if layout.rename(key) == "head.weight"]
    if heads:
        settings = settings | {"descriptor_dim": heads[0].shape[0]}
    return create_model(name, **settings, **layout.settings(state))


def place(state: State, rename: Callable[[str], str | None], model: RetrievalModel, path: Path) -> State:
    """The file's tensors under our names. rename: as in Layout. Raises UltronError listing keys without a place, places
    without a key and wrong shapes."""
    wanted, placed, training_only, foreign, misshapen = model.state_dict(), {}, [], [], []
    for key, tensor in state.items():
        name = rename(key)
        if name is None:
            training_only.append(key)
        elif name not in wanted:
            foreign.append(key)
        elif tensor.numel() != wanted[name].numel() or (
            tensor.ndim == wanted[name].ndim and tensor.shape != wanted[name].shape
        ):
            misshapen.append(f"{key} {tuple(tensor.shape)} for {tuple(wanted[name].shape)}")
        else:
            placed[name] = tensor.reshape(
                wanted[name].shape
            )  # an exponent is (1,) in the authors' code, a number in ours
    missing = sorted(name for name in wanted.keys() - placed.keys() if not name.endswith("num_batches_tracked"))
    problems = [
        f"{len(names)} {kind}: {', '.join(names)}"
        for kind, names in (
            ("keys without a place", foreign),
            ("places without a key", missing),
            ("of another shape", misshapen),
        )
        if names
    ]
    if problems:
        raise UltronError(f"{path} does not fit {model.name}: {'; '.join(problems)}; check --from")
    if training_only:
        log.info("%s: left out, of use in training only: %s", path.name, ", ".join(training_only))
    return placed
