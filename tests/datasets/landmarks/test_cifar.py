"""CIFAR's published files become photos, and what they may not hold."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.datasets.landmarks.cifar_for_tests import CLASS_NAMES, write_cifar10
from ultron_cli.datasets.landmarks.cifar import LAYOUTS, cifar_photos, find_cifar
from ultron_cli.datasets.landmarks.photos import open_landmark_photos
from ultron_cli.errors import UltronError
from ultron_cli.training.validation_classes import photos_to_score


@pytest.mark.parametrize("part", ["python", "binary"])
def test_published_files_become_photos_bit_by_bit(tmp_path: Path, part: str) -> None:
    written = write_cifar10(tmp_path, part=part)
    photos = open_landmark_photos(tmp_path)  # the folder that holds the published one, as torchvision's root
    assert photos.landmark_names == CLASS_NAMES and len(photos.paths) == 40 and photos.folder.name == "train"
    data, labels = written["data_batch_2"]
    pixels = np.asarray(
        Image.open(photos.folder / CLASS_NAMES[labels[1]] / "00010.png")
    )  # the second photo of the second file
    assert pixels.shape == (32, 32, 3)
    assert pixels[3, 7].tolist() == [data[1, channel * 1024 + 3 * 32 + 7] for channel in range(3)]
    scored = photos_to_score(photos)
    assert scored is not None and len(scored.paths) == 8 and scored.landmark_names == CLASS_NAMES
    before = sorted(path.stat().st_mtime_ns for path in photos.folder.rglob("*.png"))
    open_landmark_photos(tmp_path)
    assert sorted(path.stat().st_mtime_ns for path in photos.folder.rglob("*.png")) == before  # written once


def test_cifar100_takes_the_fine_label_of_both_versions(tmp_path: Path) -> None:
    data = np.arange(2 * 3072, dtype=np.int64).reshape(2, 3072).astype(np.uint8)
    for name in ("train", "test"):
        table = {"data": data, "fine_labels": [1, 0], "coarse_labels": [0, 0]}
        for place in ("cifar-100-python", "cifar-100-binary"):
            (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / "cifar-100-python" / name).write_bytes(pickle.dumps(table, protocol=2))
        records = np.concatenate([np.array([[0, 1], [0, 0]], np.uint8), data], axis=1)
        (tmp_path / "cifar-100-binary" / f"{name}.bin").write_bytes(records.tobytes())
    (tmp_path / "cifar-100-python" / "meta").write_bytes(
        pickle.dumps({"fine_label_names": ["apple", "bee"], "coarse_label_names": ["all"]}, protocol=2)
    )
    (tmp_path / "cifar-100-binary" / "fine_label_names.txt").write_text("apple\nbee\n")
    for layout in (LAYOUTS[1], LAYOUTS[3]):
        place = cifar_photos(tmp_path / layout.folder)
        assert place is not None and find_cifar(tmp_path / layout.folder) == (tmp_path / layout.folder, layout)
        assert sorted(path.relative_to(place).as_posix() for path in place.rglob("*.png")) == [
            "test/apple/00002.png",
            "test/bee/00001.png",
            "train/apple/00002.png",
            "train/bee/00001.png",
        ]
        np.testing.assert_array_equal(
            np.asarray(Image.open(place / "train/bee/00001.png")), data[0].reshape(3, 32, 32).transpose(1, 2, 0)
        )


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    witness = tmp_path / "witness"

    class Runs:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (witness,)

    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps({"data": Runs(), "labels": [0]}))
    with pytest.raises(
        UltronError,
        match=r"data_batch_3 was refused, and nothing in it was run: a batch of CIFAR may hold only .* or take the "
        r"binary version",
    ):
        open_landmark_photos(tmp_path)
    assert not witness.exists() and not list(
        (tmp_path / "cifar-10-batches-py").glob("*photos*")
    )  # nothing half written stays


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (
            "data_batch_1",
            {"data": np.zeros((2, 10), np.uint8), "labels": [0, 1]},
            r"must hold \(N, 3072\) bytes and N labels",
        ),
        ("data_batch_1", {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 3]}, "has labels that are not 0 to 2"),
        ("data_batch_1", [1, 2], "must hold a dictionary of CIFAR, found list"),
        ("batches.meta", {"label_names": ["../up", "cat"]}, "must name the classes"),
        ("data_batch_4", None, "data_batch_4 is not there, the other files of cifar-10-batches-py are"),
    ],
)
def test_other_contents_are_told(tmp_path: Path, file: str, content: object, words: str) -> None:
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / file
    path.unlink() if content is None else path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(UltronError, match=words):
        cifar_photos(tmp_path)
    assert not (tmp_path / "cifar-10-batches-py" / "photos").exists()
