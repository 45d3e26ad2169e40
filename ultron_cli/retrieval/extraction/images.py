"""Descriptors of pixels in memory, which a program has decoded or made: no files are read or written."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image as Pillow

from ultron_cli.configs import to_dict
from ultron_cli.console import progress
from ultron_cli.datasets.listed import ListedPhotos
from ultron_cli.datasets.photos import sized
from ultron_cli.errors import UltronError
from ultron_cli.models.weights.checkpoints import LoadedModel
from ultron_cli.provenance import provenance
from ultron_cli.retrieval.arrays import is_array, to_numpy
from ultron_cli.retrieval.descriptors import DescriptorInfo, MemoryDescriptors
from ultron_cli.retrieval.extraction.dataset import ExtractRequest, extraction_config
from ultron_cli.retrieval.extraction.describe import Describer
from ultron_cli.retrieval.origin import DescriptorProvenance, ExtractionRecord, WeightsSource

if TYPE_CHECKING:
    from ultron_cli.retrieval.arrays import Array

    Image = Array | Pillow.Image


def describe_images(
    images: Sequence[object],
    names: Sequence[str] | None,
    loaded: LoadedModel,
    request: ExtractRequest,
    device: torch.device,
) -> MemoryDescriptors:
    """The descriptors of arrays (H, W, 3) uint8 and Pillow images, as those of photo files are computed.

    names: None is `image 0`, `image 1` ... request: scales, sides and arithmetic. Raises UltronError for what is no
    image.
    """
    if names is None:
        names = [f"image {i}" for i in range(len(images))]
    if not len(images) or len(names) != len(images):
        raise UltronError(f"one image or more with one name each; found {len(images)} images and {len(names)} names")
    photos = ListedPhotos(name="images", folder=Path(), paths=tuple(names))
    config = extraction_config(request, photos, "database", list(names), loaded)
    describer = Describer(loaded.model.to(device), config, device)
    rows = [
        describer.describe(sized(_image(image, name), describer.shape))
        for image, name in progress(zip(images, names, strict=True), total=len(images), what="extract")
    ]
    info = DescriptorInfo(
        model=loaded.model.label,
        weights_sha256=loaded.weights_sha256,
        extraction=ExtractionRecord(stored=to_dict(config)),
        dataset=config.dataset,
        role="database",
        crop="none",
        scales=list(config.scales),
        provenance=DescriptorProvenance(
            weights=WeightsSource.from_json(loaded.source), other=provenance() | {"device": str(device)}
        ),
    )
    return MemoryDescriptors(np.stack(rows), names, info)


def _image(image: object, name: str) -> Pillow.Image:
    """An RGB image of Pillow. Raises UltronError."""
    if isinstance(image, Pillow.Image):
        return image.convert("RGB")
    array = to_numpy(image) if is_array(image) else np.empty((0,))
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or not array.size:
        of_kind = f"{array.shape} {array.dtype}" if is_array(image) else type(image).__name__
        raise UltronError(f"{name}: an image is (H, W, 3) uint8, or of Pillow; found {of_kind}")
    return Pillow.fromarray(array)
