"""Retrieval on held-out landmarks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ultron_cli.datasets.landmarks.photos import LandmarkPhotos, open_landmark_photos
from ultron_cli.models import create_model
from ultron_cli.training.validation import RetrievalValidation, UnreadablePhotos, choose_photos, retrieval_map


def test_retrieval_map_by_hand() -> None:
    def at(*degrees: float) -> np.ndarray:
        radians = np.deg2rad(degrees)
        return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)

    perfect = retrieval_map(at(0, 1, 90, 91), np.array([0, 0, 1, 1]))
    assert (perfect.mAP, perfect.n_queries) == (1.0, 4)
    # The landmark's other photo comes second for both: AP = (0/1 + 1/2) / 2; landmark 1 has no second photo and asks
    # nothing.
    worse = retrieval_map(at(0, 20, 10), np.array([0, 0, 1]))
    assert (worse.mAP, worse.n_queries, worse.n_photos) == (pytest.approx(0.25), 2, 3)


def test_validation_takes_whole_landmarks_and_leaves_bad_photos_out(toy: Path, tmp_path: Path) -> None:
    photos = open_landmark_photos(toy)
    rows = choose_photos(photos, np.arange(36), 20, seed=0)
    assert len(rows) == 18
    assert len(np.unique(photos.labels[rows])) == 3
    (tmp_path / "broken.jpg").write_bytes(b"")
    paths = [tmp_path / "broken.jpg", *(photos.paths[i] for i in range(1, 12))]
    held_out = LandmarkPhotos(
        folder=photos.folder, paths=paths, labels=photos.labels[:12], landmark_names=photos.landmark_names[:2]
    )
    model, state = create_model("gem", backbone="test_resnet"), torch.get_rng_state()
    result = RetrievalValidation(held_out, 64, 0).run(model, torch.device("cpu"))
    assert (result.n_photos, result.n_queries) == (11, 11)
    assert 0.3 < result.mAP <= 1.0
    assert torch.equal(torch.get_rng_state(), state)


def test_photos_that_cannot_be_read_are_said_once_with_their_number(caplog: pytest.LogCaptureFixture) -> None:
    unreadable = UnreadablePhotos()
    for _ in range(2):  # rounds
        unreadable.add(3, "a.jpg: cannot be decoded (cut off); replace it")
        unreadable.add(5, "b.jpg: no such photo; complete the dataset")
        unreadable.warn("left out of validation", Path("photos"))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        "left out of validation: 2 photos that cannot be read (a.jpg: cannot be decoded (cut off)); `ultron datasets "
        "verify photos` lists such photos"
    )
