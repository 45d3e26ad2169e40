"""Class selectivity of the units of a network's layers (Morcos et al., ICLR 2018), as AutoLA's figure 1 compares
models.

Per unit, with mu_c its mean activation over the photos of class c: (mu_max - mu_rest) / (mu_max + mu_rest), where
mu_rest is the mean of the other classes' mu. 0: all classes excite it alike; 1: only one does. Activations are averaged
over positions first.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ultron_cli.console import log, progress
from ultron_cli.datasets.landmarks.photos import LandmarkPhotos
from ultron_cli.datasets.photos import PhotoShape, load_photo
from ultron_cli.errors import UltronError
from ultron_cli.files import write_text
from ultron_cli.models.core import RetrievalModel, normalise_images
from ultron_cli.models.layer_maps import find_stage, stage_names
from ultron_cli.visualization import plots
from ultron_cli.visualization.plots import COLOURS

EPSILON = 1e-12  # a unit that never fires has no selectivity: 0


def selectivity_index(class_means: np.ndarray) -> np.ndarray:
    """(U,) float64 in 0..1 from (K, U) mean activations, none negative, K at least 2. Raises ValueError otherwise."""
    if class_means.ndim != 2 or len(class_means) < 2 or (class_means < 0).any():
        raise ValueError(
            f"class means must be (K, U) with K at least 2 and nothing negative, found shape {class_means.shape}"
        )
    largest = class_means.max(0).astype(np.float64)
    rest = (class_means.sum(0, dtype=np.float64) - largest) / (len(class_means) - 1)
    return np.where(largest + rest > EPSILON, (largest - rest) / np.maximum(largest + rest, EPSILON), 0.0)


class ClassMeans:
    """Sums the activations of a layer's units by class while batches go through."""

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes
        self.sums: np.ndarray | None = None
        self.counts = np.zeros(n_classes, np.int64)

    def add(self, maps: torch.Tensor, labels: np.ndarray) -> None:
        """maps: (B, C, h, w); labels: (B,). Negative values count as 0."""
        values = maps.detach().float().clamp(min=0).flatten(2).mean(-1).double().cpu().numpy()
        if self.sums is None:
            self.sums = np.zeros((self.n_classes, values.shape[1]))
        np.add.at(self.sums, labels, values)
        np.add.at(self.counts, labels, 1)

    def means(self) -> np.ndarray:
        """(K, U) of the classes that had photos."""
        assert self.sums is not None  # add() comes first
        has_photos = self.counts > 0
        return self.sums[has_photos] / self.counts[has_photos, None]


@dataclass(frozen=True, kw_only=True)
class Selectivity:
    """One model's indices by layer."""

    model: str  # its label
    layers: dict[str, np.ndarray]  # name -> (U,) float64, 0..1


def chosen_photos(photos: LandmarkPhotos, n_classes: int, n_photos: int) -> np.ndarray:
    """Rows of the first n_photos photos of the first n_classes landmarks that have as many."""
    rows_by_landmark = []
    for label in range(len(photos.landmark_names)):
        landmark_rows = np.flatnonzero(photos.labels == label)
        if len(landmark_rows) >= min(n_photos, 2):
            rows_by_landmark.append(landmark_rows[:n_photos])
        if len(rows_by_landmark) == n_classes:
            break
    if len(rows_by_landmark) < 2:
        raise UltronError(f"{photos.folder} has fewer than two landmarks with two photos; selectivity compares classes")
    return np.concatenate(rows_by_landmark)


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
        raise UltronError(f"{model.label} names no stages of its own; give layers with `layer` NAME")
    stages = {name: find_stage(model, name) for name in names}
    means = {name: ClassMeans(len(photos.landmark_names)) for name in names}
    outputs: dict[str, object] = {}  # of the layers, for the photo that goes through
    hooks = [
        stage.module.register_forward_hook(lambda _, __, output, name=name: outputs.__setitem__(name, output))
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
                if name not in outputs:
                    raise UltronError(f"layer {name!r} was not used for this photo; name another with `layer`")
                maps = stages[name].to_map(outputs[name], (pixels.shape[1], pixels.shape[2]))
                means[name].add(maps, photos.labels[row : row + 1])
            outputs.clear()
    finally:
        for hook in hooks:
            hook.remove()
    log.info("%s: %d photos, layers %s", label, len(rows), ", ".join(names))
    return Selectivity(model=label, layers={name: selectivity_index(means[name].means()) for name in names})


def write_csv(results: Sequence[Selectivity], out: Path) -> None:
    """One line per unit: model, layer, unit, selectivity."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["model", "layer", "unit", "selectivity"])
    for result in results:
        for layer, values in result.layers.items():
            writer.writerows([result.model, layer, unit, f"{value:.6f}"] for unit, value in enumerate(values))
    write_text(out, text.getvalue())


def selectivity_figure(results: Sequence[Selectivity], title: str, out: Path) -> Path:
    """Histograms of the models in one axes per layer, by the layers' place. Raises UltronError for another suffix than
    png, pdf, svg."""
    n_layers = max(len(result.layers) for result in results)
    n_columns = min(2, n_layers)
    n_rows = -(-n_layers // n_columns)
    figure = plots.new_figure(6.4 * n_columns, 3.8 * n_rows + 0.5, title)
    for place in range(n_layers):
        axes = figure.add_subplot(n_rows, n_columns, place + 1)
        titles = []
        for i, result in enumerate(results):
            if place >= len(result.layers):
                continue
            layer, values = list(result.layers.items())[place]
            titles.append(layer)
            label = plots.text(f"{result.model}: mean {values.mean():.2f}, {len(values)} units")
            axes.hist(
                values,
                bins=np.linspace(0, 1, 26).tolist(),
                density=True,
                histtype="step",
                linewidth=2,
                color=COLOURS[i % len(COLOURS)],
                linestyle=("-", "--", ":", "-.")[i % 4],
                label=label,
            )
        axes.set_title(plots.text(" / ".join(dict.fromkeys(titles))), fontsize=plots.LABEL_PT)
        axes.set_xlabel("class selectivity index of a unit (0 to 1)")
        axes.set_ylabel("density of units")
        axes.set_xlim(0, 1)
        axes.legend(fontsize=plots.SMALL_PT, frameon=False)
    return plots.save_figure(figure, out)
