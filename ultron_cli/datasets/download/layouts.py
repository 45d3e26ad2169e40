"""Makes publishers' labels readable here: one step per dataset, run once its files are in place (and again, harmlessly,
after an interruption)."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ultron_cli.console import counted, log
from ultron_cli.datasets.download.catalog import KnownSet
from ultron_cli.datasets.folder import Dataset, describe_dataset, find_ground_truth
from ultron_cli.datasets.landmarks.lists import write_landmark_list
from ultron_cli.datasets.protocols import load_ground_truth
from ultron_cli.datasets.safe_pickle import load_plain_pickle
from ultron_cli.errors import UltronError, WorkFailed
from ultron_cli.files import write_text


def check_counts(known: KnownSet, folder: Path) -> tuple[int | None, int | None]:
    """Database and query photos by the ground truth. Raises WorkFailed if they are not the published numbers; warns of
    missing photos."""
    gnd = find_ground_truth(folder)
    if gnd is None:
        return None, None
    facts = describe_dataset(
        Dataset(name=known.name, folder=folder, ground_truth_path=gnd, ground_truth=load_ground_truth(gnd))
    )
    for key, published in (("database", known.n_database), ("queries", known.n_queries)):
        if published is not None and facts[key] != published:
            raise WorkFailed(
                f"{facts['ground_truth']} has {facts[key]:,} {key} photos where {published:,} are published; "
                f"delete {folder} and download again"
            )
    if facts["missing_photos"]:
        some = ", ".join(facts["missing"][:3])
        log.warning(
            "%s: %s of the ground truth not in the archives (%s)",
            known.name,
            counted(facts["missing_photos"], "photo"),
            some,
        )
    return facts["database"], facts["queries"]


def _gldv2_train(folder: Path) -> None:
    write_landmark_list(folder, "train.csv", "train", "gldv2")


def _gldv2_clean(folder: Path) -> None:
    write_landmark_list(folder, "train_clean.csv", "../gldv2-train/train", "gldv2")


def _rgldv2_clean(folder: Path) -> None:
    write_landmark_list(folder, "rgldv2_clean.csv", "../gldv2-train/train", "gldv2")


def _sfm120k(folder: Path) -> None:
    """The clusters (3D models) of retrieval-SfM-120k.pkl as landmarks; those of validation in a list of their own."""
    database = load_plain_pickle(folder / "retrieval-SfM-120k.pkl")
    for mode, list_file in (("train", "landmarks.csv"), ("val", "landmarks_val.csv")):
        part = database.get(mode) if isinstance(database, dict) else None
        if not isinstance(part, dict) or not {"cids", "cluster"} <= set(part):
            raise UltronError(
                f"{folder / 'retrieval-SfM-120k.pkl'} has no {mode} part with cids and cluster; download it again"
            )
        photos: dict[int, list[str]] = {}
        for photo, cluster in zip(part["cids"], part["cluster"], strict=True):
            photos.setdefault(int(cluster), []).append(str(photo))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("landmark_id", "images"))
        writer.writerows((cluster, " ".join(ids)) for cluster, ids in sorted(photos.items()))
        write_text(folder / list_file, text.getvalue())
    write_landmark_list(folder, "landmarks.csv", "ims", "sfm120k")


def _write_ground_truth(
    folder: Path, database: list[str], queries: list[str], boxes: list[list[float] | None], positives: list[list[int]]
) -> None:
    """gnd_<folder>.json with all positives as easy, so that the medium protocol scores them all."""
    gnd = [{"bbx": box, "easy": rows, "hard": [], "junk": []} for box, rows in zip(boxes, positives, strict=True)]
    write_text(folder / f"gnd_{folder.name}.json", json.dumps({"imlist": database, "qimlist": queries, "gnd": gnd}))


def _ilias(folder: Path) -> None:
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
    _write_ground_truth(
        folder, database, queries, boxes, [rows_of_object.get(name.rsplit("/", 2)[0], []) for name in queries]
    )


def _enclosing_box(path: Path) -> list[float] | None:
    """The box around all boxes of a file of `x y width height` lines, as x1, y1, x2, y2; None without file."""
    if not path.is_file():
        return None
    numbers = [float(word) for word in re.split(r"[\s,]+", path.read_text(encoding="utf-8").strip()) if word]
    if not numbers or len(numbers) % 4:
        raise UltronError(f"{path} must hold lines of x, y, width and height; found {len(numbers)} numbers")
    boxes = np.array(numbers).reshape(-1, 4)
    return [*boxes[:, :2].min(axis=0).tolist(), *(boxes[:, :2] + boxes[:, 2:]).max(axis=0).tolist()]


def _instre(folder: Path) -> None:
    """gnd_instre.mat: imlist, qimlist (paths) and per query two fields, the positives (rows, from 1) and the box."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    path = folder / "gnd_instre.mat"
    try:
        content = loadmat(path, simplify_cells=True)
        database, queries = ([str(name) for name in content[key]] for key in ("imlist", "qimlist"))
        entries: list[list[Any]] = [list(entry.values()) for entry in content["gnd"]]
        positives = [np.atleast_1d(entry[0]).astype(np.int64) - 1 for entry in entries]
        boxes = np.array([np.asarray(entry[1], dtype=np.float64).reshape(4) for entry in entries])
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        NotImplementedError,
        OSError,
        MatReadError,
    ) as error:
        raise UltronError(
            f"{path} is not the ground truth of INSTRE ({type(error).__name__}: {error}); download it again"
        ) from error
    rows = np.concatenate(positives)
    if rows.min() < 0 or rows.max() >= len(database):
        raise UltronError(
            f"{path}: rows must lie between 1 and {len(database)}, found {rows.min() + 1} to {rows.max() + 1}; "
            "download it again"
        )
    prefix = _archive_prefix(folder / "jpg", queries[0])
    named = [[prefix + name for name in names] for names in (database, queries)]
    _write_ground_truth(
        folder, named[0], named[1], _as_corners(boxes, folder / "jpg", named[1]), [row.tolist() for row in positives]
    )


def _archive_prefix(photos: Path, name: str) -> str:
    """The folder that the archive has above the names of its list, with a slash, or nothing."""
    for prefix in ("", *(f"{path.name}/" for path in sorted(photos.iterdir()) if path.is_dir())):
        if (photos / (prefix + name)).is_file():
            return prefix
    raise UltronError(f"{photos} has no {name}, which the ground truth names first; download the photos again")


def _as_corners(boxes: np.ndarray, photos: Path, names: list[str]) -> list[list[float] | None]:
    """(Q, 4) boxes as x1, y1, x2, y2. Users of INSTRE disagree on whether its list has corners or x, y, width, height:
    all boxes decide."""
    from ultron_cli.datasets.photos import photo_size

    sizes = np.array([photo_size(photos / name) for name in names])
    sizes_given = boxes[:, :2] + boxes[:, 2:]
    are_corners = bool((boxes[:, 2:] > boxes[:, :2]).all() and (boxes[:, 2:] <= sizes + 2).all())
    are_sizes = bool((boxes[:, 2:] > 0).all() and (sizes_given <= sizes + 2).all())
    if not are_corners and not are_sizes:
        raise UltronError(
            f"{photos.parent / 'gnd_instre.mat'}: the boxes fit the photos neither as corners nor as x, y, "
            "width, height; download both again"
        )
    log.info("instre: the boxes are read as %s", "corners x1, y1, x2, y2" if are_corners else "x, y, width, height")
    return (boxes if are_corners else np.concatenate([boxes[:, :2], sizes_given], axis=1)).tolist()


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "gldv2_train": _gldv2_train,
    "gldv2_clean": _gldv2_clean,
    "rgldv2_clean": _rgldv2_clean,
    "sfm120k": _sfm120k,
    "instre": _instre,
    "ilias": _ilias,
}
