"""What a t-SNE panel shows: the descriptors of a file with the landmarks of its ground truth."""

from pathlib import Path

import numpy as np

from ultron_cli.console import log
from ultron_cli.datasets.folder import open_folder
from ultron_cli.datasets.protocols import load_ground_truth
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.visualization.tsne import Panel, TsneConfig, embed, landmarks_of


def panel_of(path: Path, config: TsneConfig, most_others: int, title: str | None) -> tuple[Panel, str]:
    """(the panel, the dataset's name) of a descriptor file. most_others: photos of no landmark that are kept, evenly
    spread."""
    with DescriptorFile(path) as stored:
        info, names = stored.info, list(stored.names)
        gnd = info.provenance.ground_truth
        if not gnd or not Path(gnd).is_file():
            raise UltronError(
                f"{path} was made without a ground truth, which tells the landmarks (or it is gone); extract with --gnd"
            )
        labels_of_truth, landmarks = landmarks_of(load_ground_truth(Path(gnd)))
        label_of = dict(zip(load_ground_truth(Path(gnd)).database_names, labels_of_truth.tolist(), strict=True))
        labels = np.array([label_of.get(name, -1) for name in names], np.int64)
        others = np.flatnonzero(labels < 0)
        kept = np.flatnonzero(labels >= 0)
        if len(others) > most_others:
            log.info("%d of %d photos of no landmark are shown (--most)", most_others, len(others))
            others = others[np.linspace(0, len(others) - 1, most_others).astype(np.int64)]
        rows = np.sort(np.concatenate([kept, others]))
        descriptors = stored.read(0, stored.n)[rows].astype(np.float32)
    folder = info.provenance.dataset_folder
    paths = None
    if folder and Path(folder).is_dir():
        opened = open_folder(Path(folder), Path(gnd))
        paths = [opened.photo_path(names[row]) for row in rows]
    panel = Panel(
        title=title or info.model, points=embed(descriptors, config), labels=labels[rows], names=landmarks, paths=paths
    )
    return panel, info.dataset
