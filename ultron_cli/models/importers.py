"""The authors' published checkpoints as checkpoints of ultron: names mapped onto our modules, BGR input folded into the stem.

Files are read with weights_only=True. Layouts: pycls ResNets (DOLG, CVNet/SuperGlobal, CFCD) and plain timm state dicts. Every key
that could not be placed is listed; that is an error unless it is known to serve training only.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ultron_cli.console import log
from ultron_cli.errors import UltronError
from ultron_cli.models import create_model
from ultron_cli.models.checkpoints import bare_state_dict, load_timm_weights, read_weights_file, save_checkpoint
from ultron_cli.models.core import RetrievalModel

State = dict[str, torch.Tensor]
BLOCK_PARTS = {
    "f.a": "conv1", "f.a_bn": "bn1", "f.b": "conv2", "f.b_bn": "bn2", "f.c": "conv3", "f.c_bn": "bn3", "proj": "downsample.0", "bn": "downsample.1",
}  # fmt: skip
BLOCK = re.compile(r"s(\d)\.b(\d+)\.(f\.[abc](?:_bn)?|proj|bn)\.(.+)")


@dataclass(frozen=True)
class Layout:
    """One published layout. models: what it may become, by the number of blocks in the third stage. rename: a key of the file as our
    name, None if it serves training only, or itself if unknown. bgr: the network was trained on BGR photos."""

    models: dict[int, tuple[str, dict[str, object]]]
    rename: Callable[[str], str | None]
    bgr: bool
    scales: str


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
    for old, new in (
        ("localmodel.aspp.aspp.", "local.atrous.branches."), ("localmodel.aspp.im_pool.1.", "local.atrous.whole."),
        ("localmodel.aspp.conv_after.0.", "local.atrous.join."), ("localmodel.conv1.", "local.reduce."), ("localmodel.bn.", "local.norm."),
        ("localmodel.conv2.", "local.attention."), ("fc_t.", "global_layer."), ("fc.", "head."),
    ):  # fmt: skip
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def cvnet_name(name: str) -> str | None:
    """CVNet as SuperGlobal uses it: encoder_q is the network; the rest (momentum encoder, re-ranking, unused layers) serves other ends."""
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


LAYOUTS = {
    "dolg": Layout({6: ("dolg-r50", {}), 23: ("dolg-r101", {})}, dolg_name, bgr=True, scales="5"),
    "cvnet": Layout({6: ("superglobal", {"backbone": "resnet50"}), 23: ("superglobal", {"backbone": "resnet101"})}, cvnet_name, bgr=True, scales="3"),
}


def import_weights(path: Path, source: str, out: Path, backbone: str | None = None) -> RetrievalModel:
    """Reads a published checkpoint, writes ours and returns the model. source: a layout's name, or `timm` with `backbone`.

    Raises UltronError for a file that does not fit, naming every key that could not be placed.
    """
    content = read_weights_file(path)
    state = bare_state_dict(content, path)
    if source == "timm":
        if backbone is None:
            raise UltronError("--from timm needs --backbone NAME, the timm network that the file is of")
        model = create_model("gem", backbone=backbone)
        load_timm_weights(model, state, path)
        save_checkpoint(out, model, {"imported": {"from": source, "file": path.name}})
        return model
    layout = LAYOUTS[source]
    model = _model_for(state, layout, path, source)
    placed = place(state, layout, model, path)
    if layout.bgr:
        placed["backbone.network.conv1.weight"] = placed["backbone.network.conv1.weight"].flip(1)
    model.load_state_dict(placed, strict=False)
    order = "BGR folded into RGB" if layout.bgr else "RGB"
    save_checkpoint(out, model, {"imported": {"from": source, "file": path.name, "input": order, "scales": layout.scales}})
    return model


def _model_for(state: State, layout: Layout, path: Path, source: str) -> RetrievalModel:
    """The model whose depth the file's third stage has, with the file's descriptor dimensions and branches."""
    blocks = {int(found[2]) for name in state if (found := BLOCK.search(name)) and found[1] == "3"}
    if len(blocks) not in layout.models:
        raise UltronError(f"{path} is no ResNet-50 or -101 of {source}: its third stage has {len(blocks)} blocks; check --from")
    name, settings = layout.models[len(blocks)]
    heads = [tensor for key, tensor in state.items() if layout.rename(key) == "head.weight"]
    if heads:
        settings = settings | {"descriptor_dim": heads[0].shape[0]}
    if name.startswith("dolg"):
        settings = settings | {"multi_atrous": any(".aspp." in key for key in state)}
    return create_model(name, **settings)


def place(state: State, layout: Layout, model: RetrievalModel, path: Path) -> State:
    """The file's tensors under our names. Raises UltronError listing keys without a place, places without a key and wrong shapes."""
    wanted, placed, training_only, foreign, misshapen = model.state_dict(), {}, [], [], []
    for key, tensor in state.items():
        name = layout.rename(key)
        if name is None:
            training_only.append(key)
        elif name not in wanted:
            foreign.append(key)
        elif tensor.numel() != wanted[name].numel() or (tensor.ndim == wanted[name].ndim and tensor.shape != wanted[name].shape):
            misshapen.append(f"{key} {tuple(tensor.shape)} for {tuple(wanted[name].shape)}")
        else:
            placed[name] = tensor.reshape(wanted[name].shape)  # an exponent is (1,) in the authors' code, a number in ours
    missing = sorted(name for name in wanted.keys() - placed.keys() if not name.endswith("num_batches_tracked"))
    problems = [f"{len(names)} {kind}: {', '.join(names)}" for kind, names in
                (("keys without a place", foreign), ("places without a key", missing), ("of another shape", misshapen)) if names]  # fmt: skip
    if problems:
        raise UltronError(f"{path} does not fit {model.name}: {'; '.join(problems)}; check --from")
    if training_only:
        log.info("%s: left out, of use in training only: %s", path.name, ", ".join(training_only))
    return placed
