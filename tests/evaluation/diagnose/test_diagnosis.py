"""What differs from another program's descriptors is named, with what mends it."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.conftest import Run, read_json
from tests.evaluation.diagnose.conftest import (
    SIDE_PX,
    Ours,
    cropped_and_sized,
    described,
    extracted,
    write_reference,
)

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def diagnosed(ultron: Run, ours: Ours, reference: Path, *flags: object) -> dict:
    """The JSON of a diagnosis of the queries."""
    return read_json(ultron("diagnose", ours.folder / "queries.h5", "--against", reference, "--json", *flags))


def causes_of(content: dict) -> dict[str, str]:
    return {cause["setting"]: cause["reference"] for cause in content["causes"]}


def thumbnail_of_the_whole(image: Image.Image, box: tuple[float, ...]) -> np.ndarray:
    """As cirtorch sizes queries."""
    longest = max(image.size)
    image = image.crop(tuple(round(edge) for edge in box))
    side = SIDE_PX * max(image.size) / longest
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image.resize([max(32, length) for length in image.size]))


def by_opencv(image: Image.Image, box: tuple[float, ...]) -> np.ndarray:
    """As programs do that read photos by OpenCV: no antialiasing, and blue first."""
    image = image.crop(tuple(round(edge) for edge in box))
    scale = min(1.0, SIDE_PX / max(image.size))
    size = [max(32, round(side * scale)) for side in image.size]
    return cv2.resize(np.asarray(image), size, interpolation=cv2.INTER_LINEAR)[..., ::-1]


def truncated(image: Image.Image, box: tuple[float, ...]) -> np.ndarray:
    return cropped_and_sized(image, tuple(int(edge) for edge in box))


def mirrored(image: Image.Image, box: tuple[float, ...]) -> np.ndarray:
    return cropped_and_sized(image, box)[:, ::-1]


def test_the_same_descriptors(ultron: Run, ours: Ours, tmp_path: Path) -> None:
    reference = write_reference(tmp_path / "same.h5", *described(ours))
    code, out, _ = ultron("diagnose", ours.folder / "queries.h5", "--against", reference)
    assert code == 0
    assert out.splitlines()[0].startswith("8 photos: cosine 1.0000000 on average")
    assert out.splitlines()[1].startswith("the descriptors are the same: look at whitening, search")


@pytest.mark.parametrize(
    ("pixels_of", "more", "causes"),
    [
        (truncated, {}, {"edges of the box": "truncated"}),
        (mirrored, {}, {"flips": "mirrored photos"}),
        (cropped_and_sized, {"turns": False}, {"EXIF orientation": "photos as they are stored"}),
        (cropped_and_sized, {"colours": IMAGENET}, {"mean and sd": "ImageNet's"}),
        (by_opencv, {}, {"channel order": "BGR", "antialiasing when photos shrink": "without"}),
        (
            thumbnail_of_the_whole,
            {},
            {
                "side that is brought to size": "the longest of the whole photo, before the crop",
                "filter of resizing": "lanczos",
                "rounding of sides": "down",  # or as Pillow's thumbnail does, which gives these photos the same sides
            },
        ),
    ],
)
def test_another_programs_ways_are_named(
    ultron: Run, ours: Ours, tmp_path: Path, pixels_of: object, more: dict, causes: dict
) -> None:
    reference = write_reference(tmp_path / "reference.h5", *described(ours, pixels_of, **more))
    content = diagnosed(ultron, ours, reference)
    assert causes_of(content) == causes
    assert content["cosine_after"] > 0.9999 > content["cosine"]
    assert content["verdict"].startswith("that is all")


@pytest.mark.parametrize(
    ("changes", "mends"),
    [
        ({"crop": "none"}, {"--no-crop"}),
        ({"scales": (1.0,)}, {"--scales 1"}),
        ({"max_side_px": 64, "crop": "none"}, {"--max-side 64", "--no-crop"}),
        ({"resize": "always", "max_side_px": 96}, {"--resize always", "--max-side 96"}),
    ],
)
def test_the_flag_is_named(ultron: Run, ours: Ours, photos: Path, tmp_path: Path, changes: dict, mends: set) -> None:
    folder = extracted(photos, tmp_path / "theirs", **changes)
    code, out, _ = ultron("diagnose", ours.folder / "queries.h5", "--against", folder / "queries.h5")
    assert code == 0
    numbered = [line for line in out.splitlines() if line[:2] in ("1.", "2.", "3.")]
    assert {line.split("`ultron extract ")[1].rstrip("`") for line in numbered} == mends
    assert "the reference's file says otherwise of: " in out
    assert len(out.splitlines()) <= 12
