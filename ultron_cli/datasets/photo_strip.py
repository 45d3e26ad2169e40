"""Photos in a row, as a notebook shows them: small JPEGs inside the HTML, so that the notebook needs no file."""

import base64
import html
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ultron_cli.console import log, printable
from ultron_cli.datasets.folder import open_recorded
from ultron_cli.datasets.photo_files import decode_photo
from ultron_cli.errors import UltronError

HEIGHT_PX = 120
MOST_WIDTH_PX = 320


def photo_paths(names: Sequence[str], folder: str | None, gnd: str | None) -> list[Path | None]:
    """The files of some photos, to be shown: by the folder and the ground truth recorded with them, or where a name is
    a path; None for each that is not there."""
    try:
        files: Mapping[str, Path] = open_recorded(folder, gnd).photo_files(names).files if folder else {}
    except UltronError as error:
        log.debug("%s", error)
        files = {}
    return [files.get(name) or (Path(name) if os.path.isfile(name) else None) for name in names]


def photo_strip(photos: Sequence[tuple[Path | None, str]], title: str = "") -> str:
    """HTML of photos side by side, each over its caption. A photo without a file, or whose file cannot be read, is its
    caption alone. title: a line above."""
    figures = "".join(
        '<figure style="margin: 0 4px 8px 0; text-align: center; font-size: smaller">'
        f"{_image(path)}<figcaption>{_escaped(caption)}</figcaption></figure>"
        for path, caption in photos
    )
    heading = f"<p>{_escaped(title)}</p>" if title else ""
    return f'{heading}<div style="display: flex; flex-wrap: wrap; align-items: flex-end">{figures}</div>'


def _escaped(text: str) -> str:
    return html.escape(printable(text))


def _image(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        photo = decode_photo(path, 2 * HEIGHT_PX)
    except UltronError:
        return ""
    photo.thumbnail((MOST_WIDTH_PX, HEIGHT_PX))
    jpeg = io.BytesIO()
    photo.save(jpeg, "JPEG", quality=85)
    return f'<img src="data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}">'
