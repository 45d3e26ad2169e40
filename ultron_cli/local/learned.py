"""Learned detectors by the kornia package, with weights of a file; nothing is downloaded: DISK (Tyszkiewicz et al.,
NeurIPS 2020), ALIKED (Zhao et al., IEEE TIM 2023) and XFeat (Potje et al., CVPR 2024).

Their descriptors are unit vectors, packed as those of a map are (local/dense.py). They know neither angle nor size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from ultron_cli.configs import within
from ultron_cli.errors import UltronError
from ultron_cli.files import sha256_of_file
from ultron_cli.local.dense import COMPARISON, DESCRIPTOR_TYPE, pack
from ultron_cli.local.detectors import Comparison, DescriptorType
from ultron_cli.local.features import LocalFeatures
from ultron_cli.models.weights.reading import load_torch_file

STEP_PX = 32  # sides that all three networks take are multiples of it
SIZE_PX = 8.0  # of a feature, nominally
STATISTICS = ("running_mean", "running_var")  # of a batch normalisation
State = dict[str, torch.Tensor]
MakeNetwork = Callable[..., nn.Module]


@dataclass(frozen=True, kw_only=True)
class LearnedSettings:
    """Of a learned detector."""

    weights: str = ""  # a file; one must be named
    least_score: float  # of a place, in the network's own measure

    def __post_init__(self) -> None:
        if not self.weights:
            raise UltronError(
                "`local.weights` must be a file of the detector's weights; found none; name it in `local_set`"
            )
        within("local.least_score", self.least_score, -1e6, 1e6)


@dataclass(frozen=True, kw_only=True)
class DiskSettings(LearnedSettings):
    """Of DISK; the default is kornia's."""

    least_score: float = 0.0


@dataclass(frozen=True, kw_only=True)
class AlikedSettings(LearnedSettings):
    """Of ALIKED; the default is the authors'."""

    least_score: float = 0.2


@dataclass(frozen=True, kw_only=True)
class XFeatSettings(LearnedSettings):
    """Of XFeat; the default is the authors'."""

    least_score: float = 0.05


class LearnedDetector:
    """A network that finds places and describes them, as a Detector."""

    name: ClassVar[str]  # of the class in kornia
    descriptor_dim: int
    descriptor_type: DescriptorType = DESCRIPTOR_TYPE
    comparison: Comparison = COMPARISON
    is_for_workers = False

    def __init__(self, settings: LearnedSettings, device: torch.device | str = "cpu") -> None:
        """Raises UltronError where kornia lacks the network, or the file holds other weights."""
        try:
            import kornia.feature

            network_type = getattr(kornia.feature, self.name)
        except (ImportError, AttributeError) as error:
            raise UltronError(
                f"{self.name} needs a kornia that has it; run `pip install -U 'ultron[matchers]'`"
            ) from error
        path = Path(settings.weights).expanduser()
        state = self.state_of(load_torch_file(path))
        self.least_score = settings.least_score
        try:
            network, part = self.made(network_type, state)
            missing = part.load_state_dict(state, strict=False).missing_keys
        except (RuntimeError, KeyError, ValueError, AttributeError) as error:
            raise self._no_weights(path, str(error).strip().split("\n")[-1].strip()) from error
        # Counts of batches, and grids that the network makes itself, are no weights.
        parameters = dict(part.named_parameters())
        if lacking := [name for name in missing if name in parameters or name.endswith(STATISTICS)]:
            raise self._no_weights(path, f"{lacking[0]} is missing")
        self._network, self._device = network.to(device).eval(), device
        self.weights_path, self.weights_sha256 = path.resolve(), sha256_of_file(path)

    def state_of(self, content: object) -> State:
        """The weights in a file's content; empty where it is no state dict."""
        if not isinstance(content, Mapping):
            return {}
        return {str(name): value for name, value in content.items() if isinstance(value, torch.Tensor)}

    def made(self, network_type: MakeNetwork, state: State) -> tuple[nn.Module, nn.Module]:
        """(the network without its weights, the part of it that they are of)."""
        network = network_type()
        return network, network

    def features_in(self, photo: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(places (n, 2) in pixels, scores (n,), unit vectors (n, D)) in a (1, 3, H, W) photo of 0 to 1, with H and W
        multiples of STEP_PX; n at least of the strongest, or all."""
        raise NotImplementedError

    def detect(self, pixels: np.ndarray, max_keypoints: int) -> LocalFeatures:
        """As Detector has it."""
        height, width = pixels.shape[:2]
        # Beyond the photo its edge goes on: no network sees an edge there, or resizes it.
        beyond = [(0, -side % STEP_PX + (STEP_PX if side <= STEP_PX else 0)) for side in (height, width)]
        padded = np.pad(pixels, (*beyond, (0, 0)), mode="edge")
        photo = torch.from_numpy(padded).to(self._device).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            parts = self.features_in(photo, max_keypoints)
        places, scores, vectors = (part.float().cpu().numpy() for part in parts)
        if not (np.isfinite(scores).all() and np.isfinite(vectors).all()):
            raise UltronError(f"{self.name} gave numbers that are not finite; take other weights")
        is_inside = (places >= -0.5).all(axis=1) & (places < np.array([width, height]) - 0.5).all(axis=1)
        n = int(is_inside.sum())
        return LocalFeatures(
            positions=places[is_inside].astype(np.float32),
            scales=np.full(n, SIZE_PX, np.float32),
            angles=np.zeros(n, np.float32),
            strengths=scores[is_inside].astype(np.float32),
            descriptors=pack(vectors[is_inside]),
            size=(width, height),
        )

    def _no_weights(self, path: Path, reason: str) -> UltronError:
        return UltronError(f"{path} holds no weights of {self.name} ({reason[:160]}); name the file of its authors")


class Disk(LearnedDetector):
    """DISK."""

    name = "DISK"
    descriptor_dim = 128

    def state_of(self, content: object) -> State:
        return super().state_of(content.get("extractor", content) if isinstance(content, Mapping) else content)

    def features_in(self, photo: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        features = self._network(photo, n=n, score_threshold=self.least_score)[0]
        return features.keypoints, features.detection_scores, features.descriptors


class Aliked(LearnedDetector):
    """ALIKED, of the size that its weights have."""

    name = "ALIKED"
    SIZES: ClassVar[Mapping[tuple[int, int], str]] = {
        (16, 64): "aliked-t16",
        (16, 128): "aliked-n16",
        (32, 128): "aliked-n32",
    }

    def made(self, network_type: MakeNetwork, state: State) -> tuple[nn.Module, nn.Module]:
        n_places, dim, _ = state["desc_head.agg_weights"].shape
        self.descriptor_dim = dim
        network = network_type(self.SIZES[n_places, dim], detection_threshold=self.least_score)
        return network, network

    def features_in(self, photo: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        features = self._network(photo)[0]
        return features.keypoints, features.keypoint_scores, features.descriptors


class XFeat(LearnedDetector):
    """XFeat."""

    name = "XFeat"
    descriptor_dim = 64

    def made(self, network_type: MakeNetwork, state: State) -> tuple[nn.Module, nn.Module]:
        network = network_type()
        return network, network.get_submodule("net")

    def features_in(self, photo: torch.Tensor, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        detect = getattr(self._network, "detectAndCompute")  # noqa: B009  # a method, which no module's type has
        features = detect(photo, top_k=n, detection_threshold=self.least_score)[0]
        return features["keypoints"], features["scores"], features["descriptors"]
