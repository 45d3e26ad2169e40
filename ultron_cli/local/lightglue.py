"""LightGlue (Lindenberger et al., ICCV 2023) by the kornia package, with weights of a file.

The network's shape is read off its weights, so that any published ones fit: of SIFT, DISK, ALIKED or SuperPoint
features. They were learned of one kind of features, and match no other well.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ultron_cli.configs import within
from ultron_cli.errors import UltronError
from ultron_cli.files import sha256_of_file
from ultron_cli.local.dense import MIDDLE
from ultron_cli.local.features import LocalFeatures
from ultron_cli.machine import resolve_device
from ultron_cli.models.weights.reading import load_torch_file

LAYER_NAMES = ("self_attn", "cross_attn")  # as published, before kornia put both below `transformers`
OF_PAIRS = 2  # numbers of a place, x and y


@dataclass(frozen=True, kw_only=True)
class LightGlueSettings:
    """Of LightGlue; the defaults are the authors'."""

    weights: str  # a file, for example sift_lightglue.pth
    least_score: float = 0.1  # of a match
    depth_confidence: float = 0.95  # at which layers after are left out; -1 computes all
    width_confidence: float = 0.99  # at which features are left out; -1 keeps all
    device: str = "cpu"

    def __post_init__(self) -> None:
        within("geometry.matching.least_score", self.least_score, 0, 1)
        within("geometry.matching.depth_confidence", self.depth_confidence, -1, 1)
        within("geometry.matching.width_confidence", self.width_confidence, -1, 1)


class LightGlue:
    """The network, ready to match."""

    def __init__(self, settings: LightGlueSettings) -> None:
        """Raises UltronError where kornia is missing, or the file holds other weights."""
        try:
            from kornia.feature import LightGlue as Network  # an optional package
        except ImportError as error:
            raise UltronError("matcher lightglue needs kornia; run `pip install 'ultron[matchers]'`") from error
        path = Path(settings.weights).expanduser()
        state = _renamed(load_torch_file(path), path)
        shape = _shape_of(state, path)
        self._takes_scales = shape["add_scale_ori"]
        self._dim = int(shape["input_dim"])
        self._device = resolve_device(settings.device)
        # Without a name of features kornia downloads nothing.
        network = Network(
            features=None,  # pyright: ignore[reportArgumentType] - as its own check has it
            **shape,
            filter_threshold=settings.least_score,
            depth_confidence=settings.depth_confidence,
            width_confidence=settings.width_confidence,
            flash=self._device.type == "cuda",
        )
        missing = [name for name in dict(network.named_parameters()) if name not in state]
        try:
            surplus = network.load_state_dict(state, strict=False).unexpected_keys
        except RuntimeError as error:
            raise _no_weights(path, str(error).strip().split("\n")[-1].strip()) from error
        if missing or surplus:
            raise _no_weights(path, f"{', '.join((missing or surplus)[:3])} {'lacks' if missing else 'is surplus'}")
        self._network = network.to(self._device).eval()
        self.weights_sha256 = sha256_of_file(path)

    def match(self, query: LocalFeatures, photo: LocalFeatures) -> np.ndarray:
        """(m, 2) int64. Raises UltronError for features of another width than the weights are of."""
        if min(len(query), len(photo)) == 0:
            return np.empty((0, 2), np.int64)
        with torch.inference_mode():
            result = self._network({"image0": self._input(query), "image1": self._input(photo)})
        return result["matches"][0].cpu().numpy().astype(np.int64)

    def _input(self, features: LocalFeatures) -> dict[str, torch.Tensor]:
        """As kornia takes them, a batch of one."""
        descriptors = features.descriptors.astype(np.float32)
        if descriptors.shape[1] != self._dim:
            raise UltronError(
                f"these weights of lightglue match descriptors of {self._dim} values, and the local features have "
                f"{descriptors.shape[1]}; name weights of such features with geometry.matching.weights"
            )
        # Features that have scales are SIFT's; descriptors of learned ones are packed around the middle of a byte.
        if not self._takes_scales and features.descriptors.dtype == np.uint8:
            descriptors -= MIDDLE
        norms = np.linalg.norm(descriptors, axis=1, keepdims=True)
        parts = {
            "keypoints": features.positions,
            "descriptors": descriptors / np.maximum(norms, 1e-12),
            "image_size": np.array(features.size, np.float32),
        }
        if self._takes_scales:
            parts |= {"scales": features.scales, "oris": np.deg2rad(features.angles)}
        return {
            name: torch.from_numpy(values.astype(np.float32))[None].to(self._device) for name, values in parts.items()
        }


def _renamed(content: object, path: Path) -> dict[str, torch.Tensor]:
    """Weights under kornia's names; buffers that it computes itself are left out."""
    if not isinstance(content, Mapping) or not content:
        raise _no_weights(path, "it is no state dict")
    state = {}
    for key, value in content.items():
        name = str(key).removeprefix("matcher.")
        kind, _, rest = name.partition(".")
        if kind in LAYER_NAMES:
            number, _, rest = rest.partition(".")
            name = f"transformers.{number}.{kind}.{rest}"
        if isinstance(value, torch.Tensor) and name != "confidence_thresholds":
            state[name] = value
    return state


def _shape_of(state: Mapping[str, torch.Tensor], path: Path) -> dict[str, int | bool]:
    """The settings of kornia's network that has such weights. Raises UltronError if none has."""
    encoding, score = state.get("posenc.Wr.weight"), state.get("log_assignment.0.matchability.weight")
    n_layers = sum(name.endswith(".matchability.weight") for name in state)
    if encoding is None or score is None or encoding.ndim != 2 or score.ndim != 2 or n_layers < 1:
        raise _no_weights(path, "posenc.Wr.weight or log_assignment.0.matchability.weight is missing")
    dim, half_head = score.shape[1], encoding.shape[0]
    if encoding.shape[1] not in (OF_PAIRS, OF_PAIRS + 2) or half_head < 1 or dim % (2 * half_head):
        raise _no_weights(path, f"posenc.Wr.weight is {tuple(encoding.shape)}")
    projection = state.get("input_proj.weight")
    return {
        "input_dim": dim if projection is None or projection.ndim != 2 else projection.shape[1],
        "descriptor_dim": dim,
        "add_scale_ori": encoding.shape[1] == OF_PAIRS + 2,
        "n_layers": n_layers,
        "num_heads": dim // (2 * half_head),
    }


def _no_weights(path: Path, reason: str) -> UltronError:
    return UltronError(f"{path} holds no weights of LightGlue ({reason[:160]}); name a file such as sift_lightglue.pth")
