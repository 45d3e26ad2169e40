"""A contact sheet of rendered landmarks, one row per landmark."""

from pathlib import Path
from typing import Any

from PIL import Image

from ultron_cli.errors import UltronError
from ultron_cli.files import whole_file
from ultron_cli.schema.texts import read_json

CELL_PX = 176
GAP_PX = 6


def contact_sheet(folder: Path, out_png: Path, n_landmarks: int = 6, n_photos: int = 8) -> Path:
    """Writes a PNG with the first photos of each landmark, and returns its path.

    Evaluation landmarks come first, each led by its query, and training landmarks after them.

    Raises UltronError if the folder holds no rendered landmarks.
    """
    if n_landmarks < 1 or n_photos < 1:
        raise UltronError(
            f"n_landmarks and n_photos must be at least 1, got {n_landmarks} and {n_photos}; ask for one photo or more"
        )
    photos = read_json(folder / "toy.json", "description of rendered landmarks", dict[str, Any])["photos"]
    rows: dict[str, list[str]] = {}
    for photo in photos:
        if photo["role"] != "distractor":
            rows.setdefault(photo["landmark"], []).append(photo["file"])
    shown = list(rows.values())[:n_landmarks]
    step = CELL_PX + GAP_PX
    sheet = Image.new("RGB", (n_photos * step + GAP_PX, len(shown) * step + GAP_PX), "white")
    for row, files in enumerate(shown):
        for column, file in enumerate(files[:n_photos]):
            with Image.open(folder / file) as image:
                picture = image.convert("RGB")
            picture.thumbnail((CELL_PX, CELL_PX), Image.Resampling.LANCZOS)
            place = (
                GAP_PX + column * step + (CELL_PX - picture.width) // 2,
                GAP_PX + row * step + (CELL_PX - picture.height) // 2,
            )
            sheet.paste(picture, place)
    with whole_file(out_png) as output:
        sheet.save(output, format="PNG")
    return out_png
