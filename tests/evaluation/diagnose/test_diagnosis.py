"""What differs from another program's descriptors is named, with what mends it."""

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import Run, read_json
from tests.evaluation.diagnose.conftest import (
    SIDE_PX,
    Ours,
    Pixels,
    cropped_and_sized,
    described,
    extracted,
    write_reference,
)
from ultron_cli.evaluation.diagnose import causes
from ultron_cli.evaluation.diagnose.diagnosis import recipe_of
from ultron_cli.evaluation.diagnose.making import Maker, Photo, target_size
from ultron_cli.evaluation.diagnose.recipes import Recipe
from ultron_cli.retrieval.descriptors import DescriptorFile
from ultron_cli.retrieval.extraction.describe import ExtractConfig
from ultron_cli.retrieval.whitening import read_whitening

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
    ("pixels_of", "more", "expected"),
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
    ultron: Run, ours: Ours, tmp_path: Path, pixels_of: Pixels, more: dict, expected: dict
) -> None:
    reference = write_reference(tmp_path / "reference.h5", *described(ours, pixels_of, **more))
    content = diagnosed(ultron, ours, reference)
    assert causes_of(content) == expected
    assert content["cosine_after"] > 0.9999 > content["cosine"]
    assert content["verdict"].startswith("that is all")


@pytest.mark.parametrize(
    ("changes", "mends"),
    [
        ({"crop": "none"}, {"--no-crop"}),
        ({"scales": (1.0,), "interpolation": "lanczos"}, {"--scales 1", "--interpolation lanczos"}),
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


def test_whitening_and_its_order(ultron: Run, ours: Ours, tmp_path: Path) -> None:
    whitening = tmp_path / "whitening.h5"
    assert ultron("whiten", ours.folder / "database.h5", "--method", "pca", "--dim", 4, "--out", whitening)[0] == 0
    raw = ours.folder / "queries.h5"
    learned = read_whitening(whitening)
    with DescriptorFile(raw) as stored:
        names, rows = stored.names, stored.read()
    reference = write_reference(tmp_path / "whitened.h5", names, learned.apply(rows))
    content = diagnosed(ultron, ours, reference, "--whiten", whitening)
    (cause,) = content["causes"]
    assert (cause["setting"], cause["reference"]) == ("whitening", "after joining")
    assert "the reference has 4 dimensions" in content["notes"][0]
    assert content["cosine_after"] > 0.99999
    content = diagnosed(ultron, ours, reference)
    assert content["causes"] == [] and content["verdict"].startswith("none of what was tried explains it")
    assert content["n_passes"] == 0


def test_what_is_gone_is_one_line(ultron: Run, ours: Ours, photos: Path, tmp_path: Path) -> None:
    folder = extracted(photos, tmp_path / "theirs", crop="none")
    moved = photos.rename(photos.with_name("moved"))
    try:
        names = (ours.folder / "queries.h5", "--against", folder / "queries.h5", "--n-photos", 3)
        code, out, err = ultron("diagnose", *names)
        assert (code, out) == (2, "")
        assert err.splitlines()[-1].startswith("error: the photos were in ") and "which is gone" in err
        code, out, _ = ultron("diagnose", *names, "--dataset", moved, "--gnd", moved / "gnd_mixed.json")
        assert code == 0 and "3 photos of 8" in out and "`ultron extract --no-crop`" in out
    finally:
        moved.rename(photos)


def test_photos_that_have_changed_are_said(
    ultron: Run, ours: Ours, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(causes, "MOST_EXPANSIONS", 1)  # nothing explains it
    folder = extracted(photos, tmp_path / "theirs", crop="none")
    copy = tmp_path / "mixed"
    shutil.copytree(photos, copy)
    for path in (copy / "jpg").glob("*.jpg"):
        with Image.open(path) as image:
            image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(path)
    content = read_json(
        ultron(
            *("diagnose", ours.folder / "queries.h5", "--against", folder / "queries.h5"),
            *("--dataset", copy, "--n-photos", 2, "--json"),
        )
    )
    assert any("is not what its photos give today" in note for note in content["notes"])


def test_ours_made_again_is_ours(ours: Ours) -> None:
    """The recipe of a file gives its descriptors, to rounding, whatever the photos' shapes, tags and boxes are."""
    with DescriptorFile(ours.folder / "queries.h5") as stored:
        names, rows, info = stored.names, stored.read(), stored.info
    config = ExtractConfig.of(info.extraction, scales=tuple(info.scales))
    recipe = recipe_of(config, ours.model, is_whitened=False)
    photos = [Photo(name, ours.dataset.photo_path(name), ours.dataset.query(name).bbx) for name in names]
    maker = Maker(ours.model, photos, torch.device("cpu"))
    np.testing.assert_allclose(maker.rows(recipe, range(len(names))), rows, atol=1e-6)
    assert maker.n_passes == 2 * len(names)
    maker.rows(replace(recipe, exponent=5.0, join="max"), range(len(names)))
    assert maker.n_passes == 2 * len(names)


@pytest.mark.parametrize("limit", [320, 257, 100])
def test_sides_as_pillow_makes_thumbnails(limit: int) -> None:
    rng = np.random.default_rng(limit)
    recipe = Recipe(max_side_px=limit, rounding="thumbnail")
    for width, height in rng.integers(limit // 2, 2000, (200, 2)).tolist():
        image = Image.new("L", (width, height))
        image.thumbnail((limit, limit))
        assert target_size((width, height), (width, height), recipe, 1) == image.size
