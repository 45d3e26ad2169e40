"""What a request to `ultron serve` may ask for: limits, the photo of a search, and the check of uploads before they are
decoded."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ultron_cli.configs import one_of, within
from ultron_cli.datasets.photo_files import open_photo, photo_size
from ultron_cli.datasets.photo_types import SUFFIXES_OF_FORMAT
from ultron_cli.errors import UltronError
from ultron_cli.retrieval.rerank import parse_rerank
from ultron_cli.visualization.cam.method_table import METHODS

FORMATS = tuple(SUFFIXES_OF_FORMAT)  # others are refused before they are decoded
# Thinner photos count as so wide: they are made so before the network sees them, which takes memory and time.
LEAST_SIDE_PX = 32
MOST_PHOTOS = 500  # per search
Kind = Literal["query", "photo"]


class Refused(Exception):
    """A request that cannot be answered: an HTTP status, and the reason in one line for the caller."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """How photos are searched for, unless a request says otherwise, and what is too large."""

    k: int = 20  # photos per search
    rerank: str = ""  # steps, joined by commas
    rerank_set: Sequence[str] = ()  # STEP.NAME=VALUE for the steps
    method: str = "gradcam"  # of similarity maps
    max_upload_mib: float = 32
    max_megapixels: float = 50

    def __post_init__(self) -> None:
        within("-k", self.k, 1, MOST_PHOTOS)
        within("max_upload_mib", self.max_upload_mib, 0.01, 1024)
        within("max_megapixels", self.max_megapixels, 0.001, 10_000)
        one_of("method", self.method, tuple(METHODS))
        parse_rerank(self.rerank or None, self.rerank_set)

    @property
    def max_upload_bytes(self) -> int:
        """The largest body of a request."""
        return int(self.max_upload_mib * 2**20)


class Upload(io.BytesIO):
    """The bytes of a photo that was sent, never written to disk."""

    # Messages about a photo name it; the sender's name for it is not known.
    def __str__(self) -> str:
        return "the photo"


@dataclass(frozen=True, kw_only=True)
class SoughtPhoto:
    """A photo to search for."""

    kind: Literal["query", "photo", "upload"]
    file: Path | Upload
    width: int  # pixels, upright
    height: int
    row: int | None = None  # among queries or database photos; None for an upload
    name: str | None = None  # of a query or database photo


def read_upload(content: bytes, config: ServeConfig) -> SoughtPhoto:
    """A photo that was sent, its kind and pixel count checked by its header. Raises Refused."""
    most = config.max_megapixels
    try:
        with open_photo(Upload(content)) as photo:
            n_pixels = math.prod(max(side_px, LEAST_SIDE_PX) for side_px in photo.image.size)
    except UltronError:
        raise Refused(415, f"the upload is not a photo that can be read; send one of {', '.join(FORMATS)}") from None
    if n_pixels > most * 1e6:
        raise Refused(413, f"the photo has {n_pixels / 1e6:,.1f} million pixels; at most {most:g}")
    try:
        width, height = photo_size(Upload(content))
    except UltronError:
        raise Refused(415, "the photo is damaged; send it in whole") from None
    return SoughtPhoto(kind="upload", file=Upload(content), width=width, height=height)
