"""A network of an ONNX file, ours or another tool's, which describes photos by onnxruntime."""

from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F

from ultron_cli.configs import MAX_SIDE_PX, MIN_SIDE_PX, to_dict, within
from ultron_cli.errors import UltronError
from ultron_cli.machine import n_threads
from ultron_cli.models.backbones.preprocessing import Preprocessing
from ultron_cli.models.core import RetrievalModel
from ultron_cli.models.runtimes import Threads
from ultron_cli.models.runtimes.sessions import open_session
from ultron_cli.models.weights.network_record import NetworkRecord

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from ultron_cli.models.runtimes.core import Network

NUMBERS = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(float16)": np.float16}  # of photos
AS_IT_IS = Preprocessing(mean=(0.0, 0.0, 0.0), sd=(1.0, 1.0, 1.0))  # 0..1


@dataclass(frozen=True, kw_only=True)
class OnnxSettings:
    """What a person states of another tool's file, which does not say it itself."""

    mean: tuple[float, ...] | None = None  # of red, green and blue from 0 to 1; None: ImageNet's
    sd: tuple[float, ...] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None  # None: bicubic
    size: tuple[int, ...] | None = None  # height and width of all photos; None: what the file says
    output: str | None = None  # the name of the descriptors, where it gives several values

    def __post_init__(self) -> None:
        if self.size is not None:
            if len(self.size) != 2:
                raise UltronError(f"model.size takes height and width ([224,224]); found {list(self.size)}")
            for side in self.size:
                within("model.size", side, MIN_SIDE_PX, MAX_SIDE_PX)


@dataclass(frozen=True, kw_only=True)
class OnnxSignature:
    """What goes into a file's network and what comes out."""

    input: str
    numbers: str  # a key of NUMBERS
    n_photos: int | None  # at a time; None: any number
    sides_px: tuple[int | None, int | None]  # (H, W); None: any
    output: str
    dim: int


class OnnxModel(RetrievalModel):
    """images (B, 3, H, W), as preprocessing has them -> unit descriptors (B, D) float32.

    It has no maps, and nothing in it is trained. Photos are computed on the CPU, wherever they are.
    """

    settings_type = OnnxSettings
    settings: OnnxSettings
    runtime = "onnxruntime"

    def __init__(
        self,
        settings: OnnxSettings,
        path: Path,
        signature: OnnxSignature,
        preprocessing: Preprocessing,
        record: NetworkRecord | None,
    ) -> None:
        """record: of a file of ultron."""
        super().__init__("onnx", settings)
        self.path, self.signature, self.record = path, signature, record
        self.preprocessing = preprocessing
        self.descriptor_dim = signature.dim
        height, width = signature.sides_px
        self.sides_px = (
            (settings.size[0], settings.size[1]) if settings.size else ((height, width) if height and width else None)
        )
        self.recommended_scales = (1.0,)
        if record is not None:
            self.scales_inside = self.recommended_scales = record.scales
            self.min_side_px = record.least_side_px

    @property
    def label(self) -> str:
        return self.record.label if self.record else self.path.stem

    def made_of(self) -> dict[str, object]:
        made_of = super().made_of()
        return made_of if self.record is None else {**made_of, "inside": to_dict(self.record)}

    def network(self, threads: Threads) -> "Network":
        """What describes photos, from several threads at once if need be."""
        return partial(self._describe, open_session(self.path, threads))

    @cached_property
    def _network(self) -> "Network":
        return self.network(Threads(n_at_once=1, per_call=n_threads()))

    def describe(self, images: torch.Tensor) -> torch.Tensor:
        return self._network(images)

    def _describe(self, session: "InferenceSession", images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) -> (B, D) unit descriptors."""
        signature = self.signature
        photos = images.cpu()
        photos = (photos * 255).round() if signature.numbers == "tensor(uint8)" else photos
        numbers = photos.numpy().astype(NUMBERS[signature.numbers])
        n_at_once = signature.n_photos or len(numbers)
        rows = []
        for start in range(0, len(numbers), n_at_once):
            part = numbers[start : start + n_at_once]
            n_missing = n_at_once - len(part)
            batch = np.concatenate([part, np.zeros((n_missing, *part.shape[1:]), part.dtype)]) if n_missing else part
            (descriptors,) = session.run([signature.output], {signature.input: np.ascontiguousarray(batch)})
            rows.append(np.asarray(descriptors)[: len(part)].astype(np.float32))
        return F.normalize(torch.from_numpy(np.concatenate(rows)), dim=1).to(images.device)

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        raise UltronError(
            f"{self.path} is an ONNX file, which gives descriptors and no maps; name a checkpoint with `weights`"
        )

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        return self.feature_map(feature_map)
