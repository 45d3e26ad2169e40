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
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ultron_cli.files import whole_file, write_text
from ultron_cli.visualization import drawing
from ultron_cli.visualization.tsne import COLOURS, check_suffix

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
        assert self.sums is not None
        kept = self.counts > 0
        return self.sums[kept] / self.counts[kept, None]


@dataclass(frozen=True, kw_only=True)
class Selectivity:
    """One model's indices by layer."""

    model: str
    layers: dict[str, np.ndarray]


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
    check_suffix(out)
    n_layers = max(len(result.layers) for result in results)
    n_columns = min(2, n_layers)
    n_rows = -(-n_layers // n_columns)
    figure = Figure(figsize=(6.4 * n_columns, 3.8 * n_rows + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=14)
    for place in range(n_layers):
        axes = figure.add_subplot(n_rows, n_columns, place + 1)
        titles = []
        for i, result in enumerate(results):
            if place >= len(result.layers):
                continue
            layer, values = list(result.layers.items())[place]
            titles.append(layer)
            colour, style = COLOURS[i % len(COLOURS)], ("-", "--", ":", "-.")[i % 4]
            label = f"{result.model}: mean {values.mean():.2f}, {len(values)} units"
            axes.hist(
                values,
                bins=np.linspace(0, 1, 26),
                density=True,
                histtype="step",
                linewidth=2,
                color=colour,
                linestyle=style,
                label=label,
            )
        axes.set_title(" / ".join(dict.fromkeys(titles)))
        axes.set_xlabel("class selectivity index of a unit (0 to 1)")
        axes.set_ylabel("density of units")
        axes.set_xlim(0, 1)
        axes.legend(fontsize=9)
    with whole_file(out) as temporary:
        figure.savefig(temporary, format=out.suffix[1:].lower(), dpi=drawing.DPI)
    return out
