"""Makes a folder of photos per class of CIFAR-10's or CIFAR-100's published files (Krizhevsky 2009).

The python version is pickles of {data: (N, 3072) uint8, labels or fine_labels}, which are read without running anything
in them. The binary version is records of one label byte (CIFAR-100: two, coarse and fine) and 3,072 bytes. A photo's
bytes are red, green and blue, each 32 x 32 row by row.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from msgspec import Meta
from PIL import Image

from ultron_cli.console import log, progress
from ultron_cli.datasets.safe_pickle import load_plain_pickle
from ultron_cli.errors import UltronError
from ultron_cli.files import whole_folder
from ultron_cli.locks import only_writer
from ultron_cli.output_files import require_space
from ultron_cli.schema.texts import fit_file, read_text

SIDE_PX = 32
N_BYTES = 3 * SIDE_PX * SIDE_PX  # of a photo
BYTES_ON_DISK = 60_000 * 4096  # a photo takes a block of the file system
PHOTOS = "photos"  # the folder that is made beside the published files: photos/train/CLASS/00001.png, photos/test/...
Label = Annotated[int, Meta(ge=0, le=999)]
_CLASS = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Files of one published version."""

    folder: str
    train: tuple[str, ...]  # files of the photos to train on
    test: str
    names: str  # file of the classes' names
    names_key: str = ""  # of the names in their pickle; empty: a binary version, with one name per line
    label_key: str = ""  # of the labels in a pickle of photos; empty: a binary version
    n_labels: int = 1  # bytes of labels before each photo of a binary version; the last one counts


LAYOUTS = (
    Layout(
        folder="cifar-10-batches-py",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test="test_batch",
        names="batches.meta",
        names_key="label_names",
        label_key="labels",
    ),
    Layout(
        folder="cifar-100-python",
        train=("train",),
        test="test",
        names="meta",
        names_key="fine_label_names",
        label_key="fine_labels",
    ),
    Layout(
        folder="cifar-10-batches-bin",
        train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        test="test_batch.bin",
        names="batches.meta.txt",
    ),
    Layout(
        folder="cifar-100-binary",
        train=("train.bin",),
        test="test.bin",
        names="fine_label_names.txt",
        n_labels=2,
    ),
)


def find_cifar(folder: Path) -> tuple[Path, Layout] | None:
    """The folder with the published files, `folder` itself or the one in it that bears the published name; None if
    there is none."""
    for layout in LAYOUTS:
        for place in (folder, folder / layout.folder):
            if all((place / name).is_file() for name in (layout.names, layout.test, layout.train[0])):
                return place, layout
    return None


def cifar_photos(folder: Path) -> Path | None:
    """The folder of photos of CIFAR's files, written beside them when it is first asked for; None if `folder` holds no
    CIFAR."""
    published = find_cifar(folder)
    if published is None:
        return None
    place, layout = published
    photos = place / PHOTOS
    if photos.is_dir():
        return photos
    log.info("writing the photos of %s into %s (once)", place.name, photos)
    with only_writer(photos, f"another process is writing {photos}", beside=True, wait=True):
        if not photos.is_dir():
            require_space(place, BYTES_ON_DISK, "writing the photos of CIFAR")
            with whole_folder(photos) as temporary:
                _write_all(place, layout, temporary)
    return photos


def _write_all(place: Path, layout: Layout, folder: Path) -> None:
    """Writes train/CLASS/NUMBER.png and test/CLASS/NUMBER.png below `folder`; numbers count from 1 in either."""
    names = _class_names(place / layout.names, layout)
    with progress(total=None, what="unpack") as bar:
        for part, files in (("train", layout.train), ("test", (layout.test,))):
            for name in names:
                (folder / part / name).mkdir(parents=True)
            number = 0
            for file in files:
                for pixels, label in read_batch(place / file, layout, len(names)):
                    number += 1
                    Image.fromarray(pixels).save(folder / part / names[label] / f"{number:05d}.png", compress_level=1)
                    bar.update()


def _class_names(path: Path, layout: Layout) -> list[str]:
    """Names of the classes in the order of their numbers; they become folders. Raises UltronError."""
    if layout.names_key:
        names = _table(path).get(layout.names_key)
    else:
        names = [line.strip() for line in read_text(path, "the names of the classes").splitlines() if line.strip()]
    if (
        not isinstance(names, list)
        or not all(isinstance(name, str) and _CLASS.fullmatch(name) for name in names)
        or len(set(names)) < max(2, len(names))
    ):
        raise UltronError(
            f"{path} must name the classes, two or more, each in letters, digits, space, _, . or -; get it "
            "from its publisher"
        )
    return names


def _table(path: Path) -> dict[str, object]:
    """A pickled dictionary, its keys as text: Python 2 wrote bytes. Raises UltronError."""
    content = load_plain_pickle(path, "a batch of CIFAR", "get it from its publisher, or take the binary version")
    if not isinstance(content, dict):
        raise UltronError(
            f"{path} must hold a dictionary of CIFAR, found {type(content).__name__}; get it from its publisher"
        )
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}


def read_batch(path: Path, layout: Layout, n_classes: int) -> Iterator[tuple[np.ndarray, int]]:
    """(32, 32, 3) uint8 and class of every photo of a file. Raises UltronError if the file has another layout."""
    if not path.is_file():
        raise UltronError(
            f"{path} is not there, the other files of {layout.folder} are; unpack the publisher's archive again"
        )
    if layout.label_key:
        table = _table(path)
        data = table.get("data")
        stored = table.get(layout.label_key, [])
        stored = stored.tolist() if isinstance(stored, np.ndarray) else stored
        labels = np.array(fit_file(stored, list[Label], path, "labels of", "get it again"), np.int64)
    else:
        content = np.fromfile(path, np.uint8)
        if len(content) % (layout.n_labels + N_BYTES):
            raise UltronError(
                f"{path} is no whole number of records of {layout.n_labels + N_BYTES} bytes; get it again"
            )
        records = content.reshape(-1, layout.n_labels + N_BYTES)
        data = records[:, layout.n_labels :]
        labels = records[:, layout.n_labels - 1]
    if (
        not isinstance(data, np.ndarray)
        or data.dtype != np.uint8
        or data.ndim != 2
        or data.shape[1] != N_BYTES
        or labels.shape != data.shape[:1]
    ):
        raise UltronError(f"{path} must hold (N, {N_BYTES}) bytes and N labels, as published; get it again")
    if labels.dtype.kind not in "iu" or (len(labels) and not 0 <= labels.min() <= labels.max() < n_classes):
        raise UltronError(f"{path} has labels that are not 0 to {n_classes - 1}; get it again")
    for row, label in zip(data, labels.tolist(), strict=True):
        yield np.ascontiguousarray(row.reshape(3, SIDE_PX, SIDE_PX).transpose(1, 2, 0)), label
