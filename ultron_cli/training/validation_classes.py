"""Classification of held-out photos during training: top-1 and top-5 with the class weights of the loss."""

from dataclasses import dataclass

import numpy as np
import torch

from ultron_cli.console import counted
from ultron_cli.datasets.landmarks.photos import LandmarkPhotos, open_landmark_photos
from ultron_cli.datasets.photo_files import open_photo
from ultron_cli.datasets.photos import (
    INTERPOLATIONS,
    LoadedPhoto,
    PhotoReader,
    PhotoShape,
    batches_by_shape,
    read_photos,
    resizing_bytes,
)
from ultron_cli.errors import UltronError
from ultron_cli.models.core import RetrievalModel, normalise_images
from ultron_cli.training.losses.base import MarginLoss
from ultron_cli.training.validation import UnreadablePhotos

BATCH_SIZE = 64
FOLDERS = ("val", "test")  # of the photos to score, beside train/


@dataclass(frozen=True, kw_only=True)
class ClassificationResult:
    """Shares of the photos, 0..1, whose class is the first, or among the first five."""

    top1: float
    top5: float
    n_photos: int


def photos_to_score(photos: LandmarkPhotos) -> LandmarkPhotos | None:
    """The photos of val/ or test/ beside the training folder train/, labelled as `photos`; None if there is no such
    folder.

    Raises UltronError if a class of theirs is not trained on.
    """
    if photos.folder.name != "train":
        return None
    folders = [photos.folder.parent / name for name in FOLDERS]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        return None
    scored = open_landmark_photos(folder)
    number = {name: i for i, name in enumerate(photos.landmark_names)}
    unknown = [name for name in scored.landmark_names if name not in number]
    if unknown:
        names = ", ".join(unknown[:3])
        raise UltronError(
            f"{folder} has {counted(len(unknown), 'class', 'classes')} that {photos.folder} has not ({names}); "
            "name the folders alike in both"
        )
    labels = np.array([number[name] for name in scored.landmark_names], np.int64)[scored.labels]
    return LandmarkPhotos(folder=scored.folder, paths=scored.paths, labels=labels, landmark_names=photos.landmark_names)


class MiddleReader(PhotoReader):
    """Item i: the middle square of photo rows[i], side_px wide: its side is crop_share of the photo's shorter side."""

    def __init__(
        self, rows: list[int], photos: LandmarkPhotos, side_px: int, crop_share: float, interpolation: str
    ) -> None:
        super().__init__(
            rows, [photos.paths[row] for row in rows], [None] * len(rows), PhotoShape(interpolation=interpolation)
        )
        self.side_px = side_px
        self.crop_share = crop_share

    def __getitem__(self, i: int) -> LoadedPhoto:
        shorter_px = round(self.side_px / self.crop_share)
        try:
            with open_photo(self.paths[i]) as photo:
                width, height = photo.size
                scale = shorter_px / min(width, height)
                size = (max(self.side_px, round(width * scale)), max(self.side_px, round(height * scale)))
                image = photo.rgb(resizing_bytes((width, height), size))
        except UltronError as error:
            return LoadedPhoto(self.rows[i], None, error.message)
        if size != image.size:
            image = image.resize(size, INTERPOLATIONS[self.shape.interpolation])
        left, top = (size[0] - self.side_px) // 2, (size[1] - self.side_px) // 2
        return LoadedPhoto(
            self.rows[i], torch.from_numpy(np.array(image.crop((left, top, left + self.side_px, top + self.side_px))))
        )


class ClassificationValidation:
    """Photos of a run, classified again and again. A photo that cannot be read counts as wrong and is said once."""

    def __init__(self, photos: LandmarkPhotos, side_px: int, crop_share: float, n_workers: int) -> None:
        self.photos = photos
        self.side_px = side_px
        self.crop_share = crop_share
        self.n_workers = n_workers
        self._unreadable = UnreadablePhotos()

    def run(self, model: RetrievalModel, loss: MarginLoss, device: torch.device) -> ClassificationResult:
        """Scores a model in evaluation mode; the random state stays as it was."""
        labels = self.photos.labels
        reader = MiddleReader(
            list(range(len(labels))), self.photos, self.side_px, self.crop_share, model.preprocessing.interpolation
        )
        n_first = n_five = 0
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            for batch in batches_by_shape(read_photos(reader, self.n_workers), BATCH_SIZE, 2 * BATCH_SIZE):
                if batch[0].pixels is None:
                    self._unreadable.add(batch[0].row, batch[0].problem)
                    continue
                pixels = torch.stack([photo.pixels for photo in batch if photo.pixels is not None]).to(device)
                images = normalise_images(pixels, model.preprocessing)
                scores = loss.cosines(model(images, unit_norm=loss.takes_unit).float())
                best = scores.topk(min(5, scores.shape[1]), dim=1).indices.cpu().numpy()
                is_right = best == labels[[photo.row for photo in batch], None]
                n_first += int(is_right[:, 0].sum())
                n_five += int(is_right.any(axis=1).sum())
        self._unreadable.warn("classified wrong", self.photos.folder)
        return ClassificationResult(top1=n_first / len(labels), top5=n_five / len(labels), n_photos=len(labels))
