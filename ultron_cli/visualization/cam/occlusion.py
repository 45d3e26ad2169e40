"""Occlusion: how much less two photos are alike when a part of one is covered (Zeiler and Fergus, ECCV 2014, section
4.2, with the cosine of descriptors where they have a class score; for retrieval as Dong et al., 2019).

It asks nothing of a network but descriptors: no map, no gradient.
"""

import numpy as np
import torch
import torch.nn.functional as F

from ultron_cli.visualization.cam.methods import MapTask, require_finite

WINDOW_SHARE = 0.25  # side of the covered square, of the photo's shorter side
STEPS_PER_WINDOW = 2  # squares begin every half of their side
PER_BATCH = 16


def starts(length: int, window: int) -> list[int]:
    """Where squares begin along a side: every half of a square, and one that ends with the side."""
    return sorted({*range(0, length - window, max(1, window // STEPS_PER_WINDOW)), length - window})


def occlusion_heat(task: MapTask) -> tuple[np.ndarray, torch.Tensor]:
    """(heat (H, W) float32, 0..1; descriptor (D,)): of each place the mean fall of the cosine over the squares that
    cover it, each filled with the mean colour of the network's photos; below 0 is 0, divided by the largest."""
    height, width = task.size_px
    window = max(1, round(WINDOW_SHARE * min(height, width)))
    corners = [(y, x) for y in starts(height, window) for x in starts(width, window)]
    with torch.no_grad():
        descriptor = F.normalize(task.model.describe(task.images), dim=1)[0]
        falls = []
        for first in range(0, len(corners), PER_BATCH):
            batch = corners[first : first + PER_BATCH]
            covered = task.images.repeat(len(batch), 1, 1, 1)
            for photo, (y, x) in zip(covered, batch, strict=True):
                photo[:, y : y + window, x : x + window] = 0.0  # normalised photos have the mean at 0
            falls.append(descriptor @ task.other - F.normalize(task.model.describe(covered), dim=1) @ task.other)
    fall_of_square = require_finite(task.model, torch.cat(falls).double().cpu().numpy())
    total, n_squares = np.zeros((height, width)), np.zeros((height, width))
    for fall, (y, x) in zip(fall_of_square, corners, strict=True):
        total[y : y + window, x : x + window] += fall
        n_squares[y : y + window, x : x + window] += 1
    heat = (total / n_squares).clip(min=0)
    return (heat / (heat.max() or 1.0)).astype(np.float32), descriptor
