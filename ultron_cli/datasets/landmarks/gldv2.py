"""Google Landmarks v2 as published (Weyand et al., CVPR 2020): train.csv, train_clean.csv, and photos
a/b/c/abc....jpg."""

from pathlib import Path

from ultron_cli.datasets.landmarks.lists import PATHS, ListedPaths, read_rows
from ultron_cli.errors import UltronError

LISTS = ("train_clean.csv", "train.csv")  # the clean list, where there is one, is the one to train on


def find_gldv2(folder: Path) -> Path | None:
    """The list in a folder laid out as published, or None."""
    return next((folder / name for name in LISTS if (folder / name).is_file()), None)


def open_gldv2(list_file: Path) -> tuple[ListedPaths, list[str]]:
    """The photos of a list, which lie in train/ beside it or beside it, and the landmark of each. Raises UltronError if
    they do not."""
    ids: list[str] = []
    landmarks: list[str] = []
    for landmark, photo in read_rows(list_file):
        ids.append(photo)
        landmarks.append(landmark)
    if not ids:
        raise UltronError(f"{list_file} names no photo; download it again")
    folder = list_file.parent
    first = PATHS["gldv2"](ids[0])
    root = next((place for place in (folder / "train", folder) if (place / first[0]).is_dir()), None)
    if root is None:
        raise UltronError(
            f"the photos of {list_file} must lie in {folder / 'train'} or {folder} as {first}; neither has a "
            f"folder {first[0]}/"
        )
    return ListedPaths(root, ids, PATHS["gldv2"]), landmarks
