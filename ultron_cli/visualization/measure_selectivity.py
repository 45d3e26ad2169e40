"""Runs labelled photos through a model and gathers the class selectivity of its layers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ultron_cli.console import log, progress
from ultron_cli.datasets.landmarks.photos import LandmarkPhotos
from ultron_cli.datasets.photos import PhotoShape, load_photo
from ultron_cli.errors import UltronError
from ultron_cli.models.core import RetrievalModel, normalise_images
from ultron_cli.visualization.inside.stages import find_stage, stage_names
from ultron_cli.visualization.selectivity import ClassMeans, Selectivity, selectivity_index


def chosen_photos(photos: LandmarkPhotos, n_classes: int, n_photos: int) -> np.ndarray:
    """Rows of the first n_photos photos of the first n_classes landmarks that have as many."""
    rows = []
    for label in range(len(photos.landmark_names)):
        mine = np.flatnonzero(photos.labels == label)
        if len(mine) >= min(n_photos, 2):
            rows.append(mine[:n_photos])
        if len(rows) == n_classes:
            break
    if len(rows) < 2:
        raise UltronError(f"{photos.folder} has fewer than two landmarks with two photos; selectivity compares classes")
    return np.concatenate(rows)


def measure(
    model: RetrievalModel,
    label: str,
    photos: LandmarkPhotos,
    rows: np.ndarray,
    layers: Sequence[str],
    side_px: int,
    device: torch.device,
) -> Selectivity:
    """The selectivity of every unit of some layers (none named: the stages'). side_px: photos are scaled to this
    square."""
    names = list(layers) or stage_names(model)
    if not names:
        raise UltronError(f"{model.label} names no stages of its own; give layers with --layer NAME")
    stages = {name: find_stage(model, name) for name in names}
    means = {name: ClassMeans(len(photos.landmark_names)) for name in names}
    seen: dict[str, object] = {}
    hooks = [
        stage.module.register_forward_hook(lambda _, __, output, name=name: seen.__setitem__(name, output))
        for name, stage in stages.items()
    ]
    shape = PhotoShape(
        max_side_px=side_px,
        resize="always",
        interpolation=model.preprocessing.interpolation,
        min_side_px=model.min_side_px,
    )
    try:
        for row in progress(rows.tolist(), what=label):
            pixels = torch.from_numpy(load_photo(Path(photos.paths[row]), None, shape))[None].to(device)
            with torch.inference_mode():
                model.feature_map(normalise_images(pixels, model.preprocessing))
            for name in names:
                if name not in seen:
                    raise UltronError(f"layer {name!r} was not used for this photo; name another with --layer")
                means[name].add(stages[name].to_map(seen[name], tuple(pixels.shape[1:3])), photos.labels[row : row + 1])
            seen.clear()
    finally:
        for hook in hooks:
            hook.remove()
    log.info("%s: %d photos, layers %s", label, len(rows), ", ".join(names))
    return Selectivity(model=label, layers={name: selectivity_index(means[name].means()) for name in names})
