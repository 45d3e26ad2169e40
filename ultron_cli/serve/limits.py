"""What a request to `ultron serve` may ask for: limits, the photo of a search, and the check and decoding of
uploads."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ultron_cli.configs import within
from ultron_cli.console import log
from ultron_cli.datasets.photo_files import open_photo, photo_size
from ultron_cli.datasets.photo_types import SUFFIXES_OF_FORMAT
from ultron_cli.datasets.photos import PhotoShape, PlacedPixels, load_placed
from ultron_cli.datasets.protocols import Box
from ultron_cli.errors import UltronError
from ultron_cli.guarded import ReaderDied, ReaderFailed, ReaderStopped, in_child
from ultron_cli.memory import OverBudget
from ultron_cli.retrieval.rerank import Step, parse_rerank
from ultron_cli.visualization.cam.method_table import map_method

FORMATS = tuple(SUFFIXES_OF_FORMAT)  # others are refused before they are decoded
# Thinner photos count as so wide: they are made so before the network sees them, which takes memory and time.
LEAST_SIDE_PX = 32
MOST_PHOTOS = 500  # per search
DECODE_S = 5  # of computing. A JPEG of kilobytes may ask for hours: each of its many passes goes over all pixels.
DAMAGED = "the photo cannot be decoded; it is damaged or cut off"
Kind = Literal["query", "photo"]


class Refused(Exception):
    """A request that cannot be answered: an HTTP status, and the reason in one line for the caller.

    retry_s: the seconds after which the same request may be answered.
    """

    def __init__(self, status: int, message: str, retry_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_s = retry_s


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
        within("k", self.k, 1, MOST_PHOTOS)
        within("max_upload_mib", self.max_upload_mib, 0.01, 1024)
        within("max_megapixels", self.max_megapixels, 0.001, 10_000)
        map_method(self.method)
        _ = self.steps

    @property
    def steps(self) -> list[Step]:
        """The re-ranking of a request that does not say its own."""
        return parse_rerank(self.rerank or None, self.rerank_set)

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
    width, height = _in_child(_upload_size, content, config.max_megapixels)
    return SoughtPhoto(kind="upload", file=Upload(content), width=width, height=height)


def decode_upload(upload: Upload, box: Box | None, shape: PhotoShape) -> PlacedPixels:
    """As datasets.photos.load_placed, of a photo that was sent. Raises Refused."""
    height, width, pixels, *places = _in_child(_upload_pixels, upload.getvalue(), box, shape)
    left, top, part_width, part_height, photo_width, photo_height = places
    return PlacedPixels(
        pixels=np.frombuffer(bytearray(pixels), np.uint8).reshape(height, width, 3),
        left_top=(left, top),
        part_size=(part_width, part_height),
        photo_size=(photo_width, photo_height),
    )


def _in_child(work: Callable[..., list[Any]], content: bytes, *arguments: object) -> list[Any]:
    """What `work` answers, computed where a stranger's photo can crash nothing and is stopped after DECODE_S."""
    try:
        status, answer = in_child(_answer_of, work, content, *arguments, cpu_s=DECODE_S)
    except ReaderStopped:
        raise Refused(413, f"the photo takes more than {DECODE_S} s to decode; save it anew, or smaller") from None
    except (ReaderDied, ReaderFailed) as error:
        log.warning("an upload cannot be decoded: %s", error)
        raise Refused(415, DAMAGED) from None
    if status != 200:
        raise Refused(status, answer)
    return answer


def _answer_of(work: Callable[..., list[Any]], content: bytes, *arguments: object) -> tuple[int, object]:
    """(status, answer) of `work`; (status, reason) if it refuses. An answer of a child is plain data."""
    try:
        return 200, work(content, *arguments)
    except Refused as refusal:
        return refusal.status, str(refusal)


def _upload_size(content: bytes, max_megapixels: float) -> list[int]:
    try:
        with open_photo(Upload(content)) as photo:
            n_pixels = math.prod(max(side_px, LEAST_SIDE_PX) for side_px in photo.image.size)
    except UltronError:
        raise Refused(415, f"the upload is not a photo that can be read; send one of {', '.join(FORMATS)}") from None
    if n_pixels > max_megapixels * 1e6:
        raise Refused(413, f"the photo has {n_pixels / 1e6:,.1f} million pixels; at most {max_megapixels:g}")
    try:
        return list(photo_size(Upload(content)))
    except UltronError:
        raise Refused(415, "the photo is damaged; send it in whole") from None


def _upload_pixels(content: bytes, box: Box | None, shape: PhotoShape) -> list[object]:
    try:
        placed = load_placed(Upload(content), box, shape)
    except OverBudget as error:
        raise Refused(413, error.message) from None
    except UltronError:
        raise Refused(415, DAMAGED) from None
    places = (*placed.left_top, *placed.part_size, *placed.photo_size)
    return [*placed.pixels.shape[:2], placed.pixels.tobytes(), *map(int, places)]
