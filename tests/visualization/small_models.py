"""Models that are small enough for answers worked by hand."""

import numpy as np
import torch
from torch import nn

from ultron_cli.models.backbones.preprocessing import Preprocessing
from ultron_cli.models.core import RetrievalModel, normalise_images


class Colours(RetrievalModel):
    """Pixels are the feature map, their mean (plus a bias) the descriptor: small enough for answers worked by hand."""

    name, settings, min_side_px, descriptor_dim = "colours", None, 1, 3
    preprocessing = Preprocessing(mean=(0.0, 0.0, 0.0), sd=(1 / 255, 1 / 255, 1 / 255))  # pixels stay as they are

    def __init__(self, bias: tuple[float, float, float] = (0.0, 0.0, 0.0), scale: float = 1.0) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(bias))
        self.scale = scale

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        return images * self.scale

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        return feature_map.mean(dim=(2, 3)) + self.bias


class Small(RetrievalModel):
    """A convolution, a batch norm and a linear layer with weights drawn from a seed; features may be negative."""

    name, settings, min_side_px, descriptor_dim = "small", None, 8, 6
    preprocessing = Preprocessing(mean=(0.5, 0.5, 0.5), sd=(0.5, 0.5, 0.5))

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Conv2d(3, 12, 5, stride=4, padding=2), nn.BatchNorm2d(12), nn.Tanh())
        self.projection = nn.Linear(12, 6)
        self.eval()

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)

    def pool(self, feature_map: torch.Tensor) -> torch.Tensor:
        return self.projection(feature_map.mean(dim=(2, 3)))


def descriptor_of(model: RetrievalModel, photo: np.ndarray) -> torch.Tensor:
    with torch.inference_mode():
        return model(normalise_images(torch.from_numpy(photo)[None], model.preprocessing))[0]
