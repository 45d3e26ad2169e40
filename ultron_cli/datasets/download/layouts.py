"""Makes publishers' labels readable here: one step per dataset, which the catalogue names as its `finish`.

A step gets the dataset's folder once all files are in place; after an interruption it runs again, harmlessly. The
catalogue imports this file for a list of names, so numpy and all that brings it are imported where they are used.
"""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ultron_cli.console import log
from ultron_cli.datasets.landmarks.lists import write_landmark_list
from ultron_cli.errors import UltronError
from ultron_cli.files import require_regular_file, write_text
from ultron_cli.guarded import ReaderDied, ReaderFailed, in_child
from ultron_cli.schema.texts import fit_file, read_text

if TYPE_CHECKING:
    import numpy as np

MAT_CPU_S = 10  # INSTRE's has 27,000 names


def gldv2_train(folder: Path) -> None:
    """The list of all photos, which lie in train/."""
    write_landmark_list(folder, "train.csv", "train", "gldv2")


def gldv2_clean(folder: Path) -> None:
    """The clean list; its photos are gldv2-train's."""
    write_landmark_list(folder, "train_clean.csv", "../gldv2-train/train", "gldv2")


def rgldv2_clean(folder: Path) -> None:
    """The clean list without the evaluation sets' landmarks; its photos are gldv2-train's."""
    write_landmark_list(folder, "rgldv2_clean.csv", "../gldv2-train/train", "gldv2")


@dataclass(frozen=True, kw_only=True)
class _SfmPart:
    """The photos of one mode in retrieval-SfM-120k.pkl, as far as they are read."""

    cids: list[str]
    cluster: list[int | float]  # of each photo


@dataclass(frozen=True, kw_only=True)
class _SfmPhotos:
    """retrieval-SfM-120k.pkl."""

    train: _SfmPart
    val: _SfmPart


def sfm120k(folder: Path) -> None:
    """The clusters (3D models) of retrieval-SfM-120k.pkl as landmarks; those of validation in a list of their own."""
    from ultron_cli.datasets.safe_pickle import load_plain_pickle

    path = folder / "retrieval-SfM-120k.pkl"
    database = fit_file(
        load_plain_pickle(path, "the photos and clusters"), _SfmPhotos, path, "file", "download it again"
    )
    for part, list_file in ((database.train, "landmarks.csv"), (database.val, "landmarks_val.csv")):
        if len(part.cids) != len(part.cluster):
            raise UltronError(f"{path} has {len(part.cids)} photos and {len(part.cluster)} clusters; download it again")
        photos: dict[int, list[str]] = {}
        for photo, cluster in zip(part.cids, part.cluster, strict=True):
            photos.setdefault(int(cluster), []).append(photo)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("landmark_id", "images"))
        writer.writerows((cluster, " ".join(ids)) for cluster, ids in sorted(photos.items()))
        write_text(folder / list_file, text.getvalue())
    write_landmark_list(folder, "landmarks.csv", "ims", "sfm120k")


def write_ground_truth(
    folder: Path,
    database: list[str],
    queries: list[str],
    boxes: Sequence[list[float] | None],
    positives: list[list[int]],
    junk: list[list[int]] | None = None,
) -> None:
    """gnd_<folder>.json with all positives as easy, so that the medium protocol scores them all."""
    gnd = [
        {"bbx": box, "easy": rows, "hard": [], "junk": left_out}
        for box, rows, left_out in zip(boxes, positives, junk or [[] for _ in queries], strict=True)
    ]
    write_text(folder / f"gnd_{folder.name}.json", json.dumps({"imlist": database, "qimlist": queries, "gnd": gnd}))


def ilias(folder: Path) -> None:
    """Objects are folders NAME/query/Q*.jpg and NAME/pos/P*.jpg; boxes are `x y width height` in *_bbox.txt, several
    for several instances."""
    photos = folder / "jpg"
    names = sorted(path.relative_to(photos).with_suffix("").as_posix() for path in photos.rglob("*.jpg"))
    database = [name for name in names if "/pos/" in f"/{name}"]
    queries = [name for name in names if "/query/" in f"/{name}"]
    rows_of_object: dict[str, list[int]] = {}
    for row, name in enumerate(database):
        rows_of_object.setdefault(name.rsplit("/", 2)[0], []).append(row)
    boxes = [_enclosing_box(photos / f"{name}_bbox.txt") for name in queries]
    write_ground_truth(
        folder, database, queries, boxes, [rows_of_object.get(name.rsplit("/", 2)[0], []) for name in queries]
    )


def _enclosing_box(path: Path) -> list[float] | None:
    """The box around all boxes of a file of `x y width height` lines, as x1, y1, x2, y2; None without file."""
    if not path.is_file():
        return None
    words = re.split(r"[\s,]+", read_text(path, "boxes").strip())
    numbers = [float(word) for word in words if re.fullmatch(r"-?\d{1,9}(\.\d*)?", word)]
    if len(numbers) < len(words) or len(numbers) % 4:
        raise UltronError(
            f"{path} must hold lines of x, y, width and height; found {len(numbers)} numbers among {len(words)} words"
        )
    left, top, width, height = (numbers[i::4] for i in range(4))
    right = [x + length for x, length in zip(left, width, strict=True)]
    bottom = [y + length for y, length in zip(top, height, strict=True)]
    return [min(left), min(top), max(right), max(bottom)]


def instre(folder: Path) -> None:
    """gnd_instre.mat: imlist, qimlist (paths) and per query two fields, the positives (rows, from 1) and the box."""
    import numpy as np
    import scipy.io  # noqa: F401  here, so that the child has it before its memory is limited

    path = folder / "gnd_instre.mat"
    require_regular_file(path, "ground truth of INSTRE")
    try:
        content = in_child(read_instre, str(path), cpu_s=MAT_CPU_S)
        stored = fit_file(content, _Instre, path, "ground truth of INSTRE", "download it again")
    except (ReaderDied, ReaderFailed) as error:
        raise UltronError(f"{path} is not the ground truth of INSTRE ({error}); download it again") from error
    database, queries = stored.database, stored.queries
    if not len(queries) == len(stored.positives) == len(stored.boxes) > 0:
        raise UltronError(
            f"{path} must have positives and a box for each of its {len(queries)} queries, found "
            f"{len(stored.positives)} and {len(stored.boxes)}; download it again"
        )
    rows = [row for positives in stored.positives for row in positives]
    if rows and not 1 <= min(rows) <= max(rows) <= len(database):
        raise UltronError(
            f"{path}: rows must lie between 1 and {len(database)}, found {min(rows)} to {max(rows)}; download it again"
        )
    prefix = _archive_prefix(folder / "jpg", queries[0])
    database = [prefix + name for name in database]
    queries = [prefix + name for name in queries]
    corners = _as_corners(np.array(stored.boxes, np.float64), folder / "jpg", queries)
    write_ground_truth(
        folder, database, queries, corners, [[row - 1 for row in positives] for positives in stored.positives]
    )


@dataclass(frozen=True, kw_only=True)
class _Instre:
    """What gnd_instre.mat holds."""

    database: list[str]
    queries: list[str]
    positives: list[list[int]]  # of each query, from 1
    boxes: list[tuple[float, float, float, float]]  # of each query


def read_instre(path_text: str) -> dict[str, object]:
    """gnd_instre.mat as plain data. To be called in a child process: SciPy crashes on some damaged files."""
    import numpy as np
    from scipy.io import loadmat

    content = loadmat(path_text, simplify_cells=True)
    entries = [list(entry.values()) for entry in content["gnd"]]
    return {
        "database": [str(name) for name in content["imlist"]],
        "queries": [str(name) for name in content["qimlist"]],
        "positives": [np.atleast_1d(entry[0]).astype(np.int64).reshape(-1).tolist() for entry in entries],
        "boxes": [np.asarray(entry[1], dtype=np.float64).reshape(4).tolist() for entry in entries],
    }


def _archive_prefix(photos: Path, name: str) -> str:
    """The folder that the archive has above the names of its list, with a slash, or nothing."""
    for prefix in ("", *(f"{path.name}/" for path in sorted(photos.iterdir()) if path.is_dir())):
        if (photos / (prefix + name)).is_file():
            return prefix
    raise UltronError(f"{photos} has no {name}, which the ground truth names first; download the photos again")


def _as_corners(boxes: "np.ndarray", photos: Path, names: list[str]) -> list[list[float] | None]:
    """(Q, 4) float64 boxes as x1, y1, x2, y2. Users of INSTRE disagree on whether its list has corners or x, y, width,
    height: all boxes decide, as they must lie within their photos."""
    import numpy as np

    from ultron_cli.datasets.photo_files import photo_size

    photo_sizes = np.array([photo_size(photos / name) for name in names])
    far_corners = boxes[:, :2] + boxes[:, 2:]  # if the last two numbers are width and height
    are_corners = bool((boxes[:, 2:] > boxes[:, :2]).all() and (boxes[:, 2:] <= photo_sizes + 2).all())
    are_sizes = bool((boxes[:, 2:] > 0).all() and (far_corners <= photo_sizes + 2).all())
    if not are_corners and not are_sizes:
        raise UltronError(
            f"{photos.parent / 'gnd_instre.mat'}: the boxes fit the photos neither as corners nor as x, y, "
            "width, height; download both again"
        )
    log.info("instre: the boxes are read as %s", "corners x1, y1, x2, y2" if are_corners else "x, y, width, height")
    return (boxes if are_corners else np.concatenate([boxes[:, :2], far_corners], axis=1)).tolist()
