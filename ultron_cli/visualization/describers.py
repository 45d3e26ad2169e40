"""The models behind a scene, for pictures of what a network does with its photos."""

from dataclasses import replace
from pathlib import Path

from ultron_cli.machine import resolve_device
from ultron_cli.models.core import RetrievalModel
from ultron_cli.retrieval.extraction.describe import Describer, ExtractConfig
from ultron_cli.visualization.scene import Scene


def open_describer(scene: Scene, device_name: str, weights: Path | None) -> Describer:
    """The model that made a search's descriptors, at scale 1. Raises UltronError if its weights are gone."""
    origin = scene.ranking.origin
    return Describer.reopened(
        origin.extraction,
        origin.weights,
        origin.weights_sha256 or "",
        resolve_device(device_name),
        weights_path=weights,
        scales=(1.0,),
    )


def describer_with(scene: Scene, model: RetrievalModel, device_name: str) -> Describer:
    """Another model, at scale 1, to which photos are brought as large as a search had them."""
    device = resolve_device(device_name)
    config = ExtractConfig.of(scene.ranking.origin.extraction, scales=(1.0,)).cropped_for(model)
    config = replace(config, preprocessing=model.preprocessing.to_dict())
    return Describer(model.to(device), config, device)
