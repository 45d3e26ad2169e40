"""Runs labelled photos through a model and gathers the class selectivity of its layers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ultron_cli.console import log, progress
from ultron_cli.datasets.landmarks import LandmarkPhotos
from ultron_cli.datasets.photos import PhotoShape, load_photo
from ultron_cli.errors import UltronError
from ultron_cli.models.core import RetrievalModel, normalise_images
from ultron_cli.visualization.selectivity import ClassMeans, Selectivity, default_layers, find_layers, selectivity_index


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
    model: RetrievalModel, label: str, photos: LandmarkPhotos, rows: np.ndarray, layers: Sequence[str], side_px: int, device: torch.device
) -> Selectivity:
    """The selectivity of every unit of some layers (none named: the stages'). side_px: photos are scaled to this square."""
    network = getattr(getattr(model, "backbone", None), "network", model)
    names = list(layers) or default_layers(network)
    means = {name: ClassMeans(len(photos.landmark_names)) for name in names}
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: seen.__setitem__(name, channels_second(output, model)))
        for name, module in find_layers(network, names).items()
    ]
    shape = PhotoShape(max_side_px=side_px, resize="always", interpolation=model.preprocessing.interpolation, min_side_px=model.min_side_px)
    try:
        for row in progress(rows.tolist(), what=label):
            pixels = torch.from_numpy(load_photo(Path(photos.paths[row]), None, shape))[None].to(device)
            with torch.inference_mode():
                model.feature_map(normalise_images(pixels, model.preprocessing))
            for name in names:
                if name not in seen:
                    raise UltronError(f"layer {name!r} was not used for this photo; name another with --layer")
                means[name].add(seen[name], photos.labels[row : row + 1])
            seen.clear()
    finally:
        for hook in hooks:
            hook.remove()
    log.info("%s: %d photos, layers %s", label, len(rows), ", ".join(names))
    return Selectivity(model=label, layers={name: selectivity_index(means[name].means()) for name in names})


def channels_second(output: object, model: RetrievalModel) -> torch.Tensor:
    """A layer's output with its units at axis 1. Tokens (B, N, C) and Swin's (B, h, w, C) are turned."""
    if not isinstance(output, torch.Tensor) or output.ndim not in (3, 4):
        raise UltronError("a layer must give one tensor (B, C, h, w) or (B, tokens, C); name another with --layer")
    if output.ndim == 3:
        return output.transpose(1, 2)
    turned = getattr(getattr(model, "backbone", None), "channels_last_output", False)
    return output.permute(0, 3, 1, 2) if turned else output
