"""Photos made worse on purpose, to see how much a system bears: five severities of each kind, in the manner of
Hendrycks and Dietterich (ICLR 2019).

A photo is changed at the size at which the network gets it, so that a severity means the same for photos of any size; a
box is moved before the photo is cropped to it. Pillow does the work. What is drawn at random (a direction, a place) is
drawn from the seed, the kind and the photo's name: the same at every severity, on every machine, in every order.
"""

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from ultron_cli import user_code
from ultron_cli.configs import LATER, one_of, to_dict, within
from ultron_cli.datasets.protocols import Box
from ultron_cli.errors import UltronError

MOST_SEVERE = 5
GREY = (127, 127, 127)  # of what is covered, and of the corners behind a turned photo
BOX = "box"

Change = Callable[[Image.Image, float, np.random.Generator], Image.Image]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of corruption."""

    what: str  # the amounts are of
    amounts: Sequence[float]  # by severity, from 1 to MOST_SEVERE
    change: Change | None = None  # (photo, amount, draws) -> photo; None: the box is moved


class UserCorruption(Protocol):
    """A kind that a user names by import path: an object of a class that is made without arguments. Its attribute
    `amounts` has MOST_SEVERE numbers, by severity from 1; where it has none they are the severities themselves."""

    def __call__(self, photo: Image.Image, amount: float, draws: np.random.Generator) -> Image.Image:
        """The photo, made worse. draws: whatever is random is drawn from it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """One kind at one severity."""

    kind: str  # of CORRUPTIONS, or an import path
    severity: int
    seed: int = 0
    code_sha256: str | None = field(default=None, metadata=LATER)  # of a kind by import path

    def __post_init__(self) -> None:
        if not user_code.is_import_path(self.kind):
            one_of("corruption", self.kind, tuple(CORRUPTIONS))
        within("severity", self.severity, 1, MOST_SEVERE)
        within("seed", self.seed, 0)

    def __getstate__(self) -> dict[str, object]:
        """Its fields alone, for processes that read photos: code of a user's is loaded there."""
        return to_dict(self)

    @cached_property
    def what_it_does(self) -> Kind:
        """The kind. Raises UltronError where it is code that nobody has named."""
        if not user_code.is_import_path(self.kind):
            return CORRUPTIONS[self.kind]
        record = user_code.CodeRecord(sha256=self.code_sha256 or "")
        with user_code.stored_code({self.kind: record}, "these descriptors"):
            return _user_kind(user_code.load(self.kind, "corruption", CORRUPTIONS))

    @property
    def amount(self) -> float:
        """In the unit of the kind."""
        return self.what_it_does.amounts[self.severity - 1]

    def draws(self, name: str) -> np.random.Generator:
        """What is random for a photo of this name."""
        text = f"{self.seed}\0{self.kind}\0{name}"
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big"))

    def photo(self, image: Image.Image, name: str) -> Image.Image:
        """An RGB photo, changed; its size is another where the kind is `resolution`."""
        change = self.what_it_does.change
        return image if change is None else change(image, self.amount, self.draws(name))

    def box(self, box: Box, width: int, height: int, name: str) -> Box:
        """A box inside a photo of this size, its edges moved where the kind is `box`; it stays inside."""
        if self.what_it_does.change is not None:
            return box
        x1, y1, x2, y2 = box
        left, top, right, bottom = self.amount * self.draws(name).uniform(-1, 1, 4)
        wide, high = x2 - x1, y2 - y1
        return (
            float(np.clip(x1 + left * wide, 0, width - 1)),
            float(np.clip(y1 + top * high, 0, height - 1)),
            float(np.clip(x2 + right * wide, 1, width)),
            float(np.clip(y2 + bottom * high, 1, height)),
        )


def parse_corruption(text: str, seed: int = 0) -> Corruption | None:
    """`jpeg:3`; severity 0, or `none`, is no corruption. Raises UltronError for anything else."""
    kind, _, severity = text.rpartition(":")
    if text == "none":
        return None
    if not severity.isascii() or not severity.isdecimal() or len(severity) > 3:
        raise UltronError(
            f"`corruption` takes KIND:SEVERITY, for example jpeg:3, of the kinds {', '.join(CORRUPTIONS)}, or "
            f"my.py:Fog of yours, and the severities 0 to {MOST_SEVERE}; found {text[:60]!r}"
        )
    corruption = named_corruption(kind, max(1, int(severity)), seed)
    return corruption if int(severity) else None


def named_corruption(kind: str, severity: int, seed: int = 0) -> Corruption:
    """A corruption that a person names. Code that the kind is an import path of is run. Raises UltronError for an
    unknown kind, and for a class that is none."""
    if not user_code.is_import_path(kind):
        return Corruption(kind=kind, severity=severity, seed=seed)
    user_code.permit(kind)
    part = user_code.load(kind, "corruption", CORRUPTIONS)
    corruption = Corruption(kind=kind, severity=severity, seed=seed, code_sha256=part.sha256)
    _ = corruption.what_it_does  # at once, before anything is computed
    return corruption


def _user_kind(part: user_code.UserPart) -> Kind:
    """A class by import path as a kind. Raises UltronError, naming the place, if it is none."""
    part.require_method("__call__(photo, amount, draws)", UserCorruption)
    part.require_made_of()
    change: UserCorruption = part.target()
    amounts = getattr(change, "amounts", tuple(range(1, MOST_SEVERE + 1)))
    is_right = isinstance(amounts, (tuple, list)) and len(amounts) == MOST_SEVERE
    if not is_right or not all(isinstance(amount, (int, float)) for amount in amounts):
        raise UltronError(
            f"{part.place()}: amounts of {part.name} must be {MOST_SEVERE} numbers, by severity; found {amounts!r}"
        )

    def changed(image: Image.Image, amount: float, draws: np.random.Generator) -> Image.Image:
        with user_code.blaming(change, "__call__"):
            photo = change(image, amount, draws)
        if not isinstance(photo, Image.Image) or photo.mode != "RGB" or not all(photo.size):
            what = f"a photo of mode {photo.mode}" if isinstance(photo, Image.Image) else type(photo).__name__
            raise UltronError(f"{part.place('__call__')}: {part.name} must give an RGB photo of Pillow; found {what}")
        return photo

    probe = Image.linear_gradient("L").convert("RGB")
    changed(probe, amounts[0], np.random.default_rng(0))
    return Kind(what=part.name, amounts=tuple(amounts), change=changed)


def _smaller(image: Image.Image, factor: float, draws: np.random.Generator) -> Image.Image:
    return image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))


def _jpeg(image: Image.Image, quality: float, draws: np.random.Generator) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=int(quality))
    return Image.open(stream).convert("RGB")


def _blurred(image: Image.Image, thousandths: float, draws: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(thousandths * max(image.size) / 1000))


def _noisy(image: Image.Image, sd: float, draws: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image).astype(np.float32)
    noise = draws.standard_normal(pixels.shape, np.float32)
    return Image.fromarray(np.clip(np.rint(pixels + sd * noise), 0, 255).astype(np.uint8))


def _turned(image: Image.Image, degrees: float, draws: np.random.Generator) -> Image.Image:
    angle = degrees if draws.random() < 0.5 else -degrees
    return image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=GREY)


def _covered(image: Image.Image, share: float, draws: np.random.Generator) -> Image.Image:
    """A rectangle of the photo's shape is grey."""
    width, height = (max(1, round(share**0.5 * side)) for side in image.size)
    x, y = draws.random(2)
    image = image.copy()
    left, top = round(x * (image.width - width)), round(y * (image.height - height))
    image.paste(GREY, (left, top, left + width, top + height))
    return image


def _darker(image: Image.Image, factor: float, draws: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


CORRUPTIONS = {
    "resolution": Kind(what="times the longest side", amounts=(0.75, 0.5, 0.35, 0.25, 0.15), change=_smaller),
    "jpeg": Kind(what="JPEG quality", amounts=(50, 25, 15, 10, 5), change=_jpeg),
    "blur": Kind(what="thousandths of the longest side, sd", amounts=(1.5, 3, 6, 9, 15), change=_blurred),
    "noise": Kind(what="of 255, sd", amounts=(10, 20, 35, 50, 80), change=_noisy),
    "rotation": Kind(what="degrees", amounts=(5, 10, 20, 30, 45), change=_turned),
    "occlusion": Kind(what="of the area", amounts=(0.05, 0.1, 0.2, 0.3, 0.5), change=_covered),
    "light": Kind(what="times the brightness", amounts=(0.7, 0.5, 0.35, 0.2, 0.1), change=_darker),
    BOX: Kind(what="of a side, by which each edge moves at most", amounts=(0.05, 0.1, 0.15, 0.2, 0.3)),
}
