"""Similarity maps of the pairs of a report, made by the network."""

import numpy as np
import torch

from ultron_cli.visualization.cam.similarity import similarity_cam
from ultron_cli.visualization.describers import open_describer
from ultron_cli.visualization.scene import Scene
from ultron_cli.visualization.tiles import RankedPhoto

MAP_SIDE_PX = 24


class SimilarityMaps:
    """Small similarity maps of many pairs of one search."""

    def __init__(self, scene: Scene, device_name: str, method: str) -> None:
        self.scene = scene
        self.method = method
        self.describer = open_describer(scene, device_name, None)

    def of(self, row: int, photos: list[RankedPhoto]) -> list[np.ndarray]:
        """Per photo the (h, w) float32 heat, 0..1, of its likeness to the query of that row; at most MAP_SIDE_PX a
        side."""
        query = self.scene.query_photo(row)
        descriptor = torch.from_numpy(self.describer.describe_photo(query.path, query.bbx))
        maps = []
        for photo in photos:
            pixels = self.describer.load(photo.path, None)
            maps.append(small_map(similarity_cam(self.describer.model, pixels, descriptor, method=self.method).heat))
        return maps


def small_map(heat: np.ndarray) -> np.ndarray:
    """(h, w) float32, the longer side MAP_SIDE_PX, of (H, W) float32 heat 0..1: a map is as coarse as the network's
    last features."""
    factor = MAP_SIDE_PX / max(heat.shape)
    size = [max(1, round(side * factor)) for side in heat.shape]
    return (
        torch.nn.functional.interpolate(torch.from_numpy(heat)[None, None], size=size, mode="area")[0, 0]
        .clamp(0, 1)
        .numpy()
    )
