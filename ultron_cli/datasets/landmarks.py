"""Training photos: one folder per landmark."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ultron_cli.datasets.folder import list_photos
from ultron_cli.datasets.photos import decode_photo
from ultron_cli.errors import UltronError


@dataclass(frozen=True, kw_only=True)
class LandmarkPhotos:
    """Photo files with their landmark: labels (N,) int64 index landmark_names."""

    folder: Path
    paths: list[Path] = field(repr=False)
    labels: np.ndarray = field(repr=False)
    landmark_names: list[str] = field(repr=False)


def open_landmark_photos(folder: Path) -> LandmarkPhotos:
    """Reads DIR/train/LANDMARK/PHOTO or DIR/LANDMARK/PHOTO. Raises UltronError if there are fewer than two landmarks."""
    root = folder / "train" if (folder / "train").is_dir() else folder
    relative = [name for name in list_photos(root) if "/" in name]
    landmark_names = sorted({name.rsplit("/", 1)[0] for name in relative})
    if len(landmark_names) < 2:
        raise UltronError(f"{root} has {len(landmark_names)} folders with photos; training takes one folder per landmark, two or more (LANDMARK/PHOTO.jpg)")
    number = {name: i for i, name in enumerate(landmark_names)}
    labels = np.array([number[name.rsplit("/", 1)[0]] for name in relative], dtype=np.int64)
    return LandmarkPhotos(folder=root, paths=[root / name for name in relative], labels=labels, landmark_names=landmark_names)


class TrainingPhotos(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Item i: an augmented photo (3, side, side) uint8 and its label. A photo that cannot be decoded is an UltronError naming it."""

    def __init__(self, photos: LandmarkPhotos, augment: torch.nn.Module, longest_side_px: int) -> None:
        self.photos, self.augment, self.longest_side_px = photos, augment, longest_side_px

    def __len__(self) -> int:
        return len(self.photos.paths)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        image = decode_photo(self.photos.paths[i], self.longest_side_px)
        image.thumbnail((self.longest_side_px, self.longest_side_px), Image.BICUBIC)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return self.augment(pixels), int(self.photos.labels[i])
