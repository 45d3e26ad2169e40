"""A photo's file becomes upright pixels: types, orientations, damaged tags, what is no file, what is too large."""

import io
import os
import re
import socket
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.datasets.photo_formats import (
    ASCII,
    FLOAT,
    FORMATS,
    LONG,
    RATIONAL,
    SHORT,
    SIGNED_RATIONAL,
    UNDEFINED,
    Tag,
    directory,
    exif,
    orientation_tag,
    photo_of,
    quarters,
    stored_as,
)
from ultron_cli.datasets import photo_files, photo_types
from ultron_cli.datasets.photo_files import decode_photo, open_photo, photo_size
from ultron_cli.datasets.photos import PhotoShape, load_photo
from ultron_cli.datasets.verify import check_photo
from ultron_cli.errors import UltronError
from ultron_cli.memory import OverBudget, set_memory_budget
from ultron_cli.training.batches.photos import Augmentation
from ultron_cli.training.config import AugmentConfig

OUTSIDE = struct.pack("<L", 0x7FFFFFF0)
# None has to do with which side is up.
DAMAGED: dict[str, list[Tag]] = {
    "a ratio of nothing": [(0x11A, RATIONAL, 1, struct.pack("<LL", 0, 0))],
    "a negative ratio of nothing": [(0x11A, SIGNED_RATIONAL, 1, struct.pack("<ll", -1, 0))],
    "a resolution that is no number": [(0x11B, FLOAT, 1, struct.pack("<f", float("nan")))],
    "text where a number belongs": [(0x11A, ASCII, 4, b"abc\0"), (0x128, ASCII, 4, b"abc\0")],
    "an offset outside": [(0x11A, RATIONAL, 1, OUTSIDE)],
    "an offset outside, before the orientation": [(0x10F, ASCII, 20, OUTSIDE)],
    "a count beyond all files": [(0x10F, ASCII, 0xFFFFFFFF, b"abcd")],
    "an unknown type": [(0x10F, 99, 4, b"abcd")],
    "places of text": [(0x8769, ASCII, 4, b"abc\0"), (0x8825, UNDEFINED, 4, b"\xff" * 4)],
    "places outside": [(0x8769, LONG, 1, OUTSIDE), (0x8825, LONG, 1, OUTSIDE)],
    "a place of itself": [(0x8769, LONG, 1, struct.pack("<L", 8))],
    "XMP of numbers": [(700, SHORT, 2, struct.pack("<HH", 1, 2))],
    "XMP of text": [(700, ASCII, 4, b"abc\0")],
}


@pytest.fixture(autouse=True)
def no_budget_left() -> object:
    """The next test begins without one."""
    yield
    set_memory_budget(None)


def assert_upright(source: Path | io.BytesIO) -> None:
    """The photo is quarters(), by its header and by its pixels."""
    decoded = decode_photo(source)
    assert photo_size(source) == decoded.size == (96, 48)
    np.testing.assert_allclose(np.array(decoded).astype(int)[4::40, 4::88], quarters()[4::40, 4::88], atol=12)


@pytest.mark.parametrize("kind", FORMATS)
def test_all_types_are_upright_in_all_orientations(kind: str, tmp_path: Path) -> None:
    for orientation in range(1, 9):
        path = tmp_path / f"{orientation}.photo"
        path.write_bytes(photo_of(kind, stored_as(quarters(), orientation), [orientation_tag(orientation)]))
        assert_upright(path)
        assert_upright(io.BytesIO(path.read_bytes()))
        # A box of the upright photo: its lower left quarter.
        part = load_photo(path, (0, 24, 48, 48), PhotoShape(max_side_px=None, min_side_px=1))
        assert part.shape == (24, 48, 3)
        np.testing.assert_allclose(part[8:16, 8:40].astype(int) - (10, 200, 40), 0, atol=12)


@pytest.mark.parametrize("kind", FORMATS)
def test_training_crops_the_upright_photo(kind: str, tmp_path: Path) -> None:
    colours = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "grey": 0.0}
    config = AugmentConfig(crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=False, **colours)
    augment = Augmentation(config, [(24, 48)])
    path = tmp_path / "photo"
    path.write_bytes(photo_of(kind, stored_as(quarters(), 6), [orientation_tag(6)]))
    pixels = augment(path, 0).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(pixels.astype(int)[2::19, 2::43], quarters()[4::40, 4::88], atol=14)


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind != "TIFF packed"])
@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_tags_do_not_matter(kind: str, damage: str) -> None:
    if kind == "AVIF":
        content = photo_of(kind, stored_as(quarters(), 6), [orientation_tag(6), (0x10F, ASCII, 8, b"ABCDEFG\0")])
        number, tag_kind, count, value = DAMAGED[damage][0]
        plain = struct.pack("<HHL", 0x10F, ASCII, 8)
        assert content.count(plain) == 1
        place = content.index(plain)
        field = value[:4] if len(value) <= 4 else content[place + 8 : place + 12]
        content = content[:place] + struct.pack("<HHL", number, tag_kind, count) + field + content[place + 12 :]
    else:
        content = photo_of(kind, stored_as(quarters(), 6), [orientation_tag(6), *DAMAGED[damage]])
    with warnings.catch_warnings(record=True) as caught:
        assert_upright(io.BytesIO(content))
    assert not caught


@pytest.mark.parametrize("order", "<>")
def test_the_tag_is_read_in_both_orders_of_bytes(order: str) -> None:
    stream = io.BytesIO()
    tags = [orientation_tag(8, order), (0x100, LONG, 1, b"\0\0\0\1")]
    Image.fromarray(stored_as(quarters(), 8)).save(stream, "JPEG", quality=95, exif=exif(tags, order))
    assert_upright(stream)


@pytest.mark.parametrize(
    "tag",
    [(0x112, SHORT, 1, b"\0\0"), (0x112, SHORT, 1, b"\x09\0"), (0x112, ASCII, 2, b"6\0"), (0x112, SHORT, 9, OUTSIDE)],
)
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_an_orientation_that_is_none_is_upright(kind: str, tag: Tag) -> None:
    assert_upright(io.BytesIO(photo_of(kind, quarters(), [tag])))


@pytest.mark.parametrize("block", [b"", b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0XX*\0\x08\0\0\0\1\0", b"nonsense"])
def test_a_block_of_exif_that_is_none_is_upright(block: bytes) -> None:
    stream = io.BytesIO()
    Image.fromarray(quarters()).save(stream, "JPEG", quality=95, exif=block)
    assert_upright(stream)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))


def test_a_png_that_tells_two_orientations_has_the_first() -> None:
    """Whether its size is asked before its pixels, after them or not at all."""
    content = photo_of("PNG", stored_as(quarters(), 6), [orientation_tag(6)])
    end = content.rindex(b"IEND") - 4
    twice = content[:end] + png_chunk(b"eXIf", directory([orientation_tag(1)])) + content[end:]
    with open_photo(io.BytesIO(twice)) as photo:
        assert photo.size == (96, 48)
        pixels = np.asarray(photo.rgb())
        assert (photo.size, photo.orientation) == ((96, 48), 6)
    assert np.array_equal(pixels, quarters()) and np.array_equal(np.asarray(decode_photo(io.BytesIO(twice))), pixels)


def test_a_png_that_tells_its_orientation_after_its_pixels_is_upright() -> None:
    content = photo_of("PNG", stored_as(quarters(), 6), [])
    end = content.index(b"IEND") - 4
    assert_upright(io.BytesIO(content[:end] + png_chunk(b"eXIf", exif([orientation_tag(6)])[6:]) + content[end:]))
    # And where only XMP tells it, as Pillow's own reader has it.
    xmp = b"XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation='1' /><tiff:Orientation>6</tiff:Orientation>"
    assert_upright(io.BytesIO(content[:end] + png_chunk(b"iTXt", xmp) + content[end:]))


def test_a_header_is_read_without_the_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        path = tmp_path / "photo"
        path.write_bytes(photo_of(kind, quarters(), []))
        with open_photo(path) as photo:
            monkeypatch.setattr(type(photo.image), "load", None)
            assert photo.size == (96, 48)


def test_decoded_photos_outlive_their_file(tmp_path: Path) -> None:
    for kind in FORMATS:
        path = tmp_path / "photo"
        path.write_bytes(photo_of(kind, quarters(), [orientation_tag(1)]))
        image = decode_photo(path)
        path.unlink()
        assert image.crop((0, 0, 8, 8)).resize((4, 4)).size == (4, 4)


def no_photos(folder: Path) -> dict[str, str]:
    """What may lie under a photo's name without being a file, with what is said of it."""
    os.mkfifo(folder / "pipe.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    (folder / "folder.jpg").mkdir()
    (folder / "broken.jpg").symlink_to(folder / "nowhere")
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(str(folder / "socket.jpg"))
    bound.close()
    return {
        "pipe.jpg": "must be a file, found a pipe or a device",
        "device.jpg": "must be a file, found a pipe or a device",
        "socket.jpg": "must be a file, found a pipe or a device",
        "folder.jpg": "must be a file, found a folder",
        "broken.jpg": "no such photo",
    }


def test_only_files_are_opened(tmp_path: Path) -> None:
    for name, text in no_photos(tmp_path).items():
        for read in (decode_photo, photo_size, lambda path: load_photo(path, None, PhotoShape())):
            with pytest.raises(UltronError, match=f"{name}.*{text}|{text}.*{name}"):
                read(tmp_path / name)
        assert check_photo(tmp_path, name).kind == "undecodable"


def test_a_file_of_more_bytes_than_the_budget_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "sparse.avif", "wb") as file:
        file.truncate(1 << 40)
    set_memory_budget(1 << 30)
    with pytest.raises(OverBudget, match=r"sparse\.avif: a photo of 1,099,511,627,776 bytes would take 1\.0 TiB"):
        decode_photo(tmp_path / "sparse.avif")
    assert check_photo(tmp_path, "sparse.avif").kind == "too-large"


def huge_png(width: int, height: int) -> bytes:
    """A PNG whose header says so; its pixels are cut off."""
    head = struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", head)
        + png_chunk(b"IDAT", zlib.compress(b""))
        + png_chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("size", "figure"),
    [((13_000, 13_000), r"1\.5 GiB"), ((1, 50_000_000), r"6\.4 GiB"), ((100_000, 100_000), r"84\.2 GiB")],
)
def test_what_does_not_fit_is_refused_with_the_figure_before_it_is_decoded(
    size: tuple[int, int], figure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(huge_png(*size))
    assert photo_size(path) == size  # the header can always be read
    set_memory_budget(1 << 30)
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(OverBudget) as caught, warnings.catch_warnings():
        warnings.simplefilter("error")
        load_photo(path, None, PhotoShape())
    assert str(caught.value).startswith(f"{path}: {size[0]:,} x {size[1]:,} pixels would take ")
    assert re.search(f"would take {figure} of memory", str(caught.value))


def test_more_pixels_than_pillow_allows_are_read_where_they_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "huge.tif"
    Image.new("1", (20_000, 10_000)).save(path, compression="group4")  # Pillow alone refuses more than 179 million
    assert photo_size(path) == (20_000, 10_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with open_photo(path) as photo:
            photo._load()
    assert photo.image.getpixel((19_999, 9_999)) == 0


def test_a_draft_needs_less(tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    Image.new("RGB", (1600, 1600), (9, 90, 200)).save(path)
    set_memory_budget(1 << 20)
    assert decode_photo(path, 200).size == (200, 200)
    with pytest.raises(OverBudget, match=r"1,600 x 1,600 pixels would take 31\.7 MiB .* to 1GiB"):
        decode_photo(path)
    assert check_photo(tmp_path, "large.jpg").kind == "too-large"  # a resized one is beside it
    set_memory_budget(20 << 20)
    assert check_photo(tmp_path, "large.jpg").kind is None
    Image.open(path).save(tmp_path / "large.png")
    checked = check_photo(tmp_path, "large.png")
    assert (checked.kind, checked.reason) == (
        "too-large",
        "1,600 x 1,600 pixels would take 41.2 MiB of memory, more than the 20.0 MiB that may be taken",
    )


def test_phone_photos_without_their_reader_name_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "IMG_1.HEIC"
    path.write_bytes(photo_of("HEIF", quarters(), [orientation_tag(1)]))
    assert_upright(path)
    monkeypatch.setattr(photo_files, "has_heif", lambda: False)
    with pytest.raises(UltronError, match=r'IMG_1\.HEIC is a HEIF photo.*: pip install "ultron\[heif\]"'):
        decode_photo(path)


def test_a_picture_of_another_size_than_its_header_is_refused() -> None:
    """A box is cut out by the size in the header: of a HEIF whose frame is said to be wider than it is, elsewhere."""
    content = photo_of("HEIF", quarters(96, 48), [orientation_tag(1)])
    frame = b"clap" + struct.pack(">2L", 96, 1)
    assert frame in content
    wider = content.replace(frame, b"clap" + struct.pack(">2L", 200, 1))
    assert photo_size(io.BytesIO(wider)) == (200, 48)
    # The second by versions of pillow-heif that look themselves.
    words = r"\(OSError: its header says 200 x 48 pixels, it has 96 x 48\); replace it|decoded dimensions: \(96, 48\)"
    with pytest.raises(UltronError, match=words):
        decode_photo(io.BytesIO(wider))


def test_pillow_says_nothing_of_its_own(tmp_path: Path) -> None:
    """Neither a warning nor a line of its log, which names no photo. In a process of its own: pytest hears logs."""
    stored = [(277, SHORT, 1, struct.pack("<H", 255))]  # samples per pixel: told to Pillow's log
    (tmp_path / "odd.tif").write_bytes(directory([*stored, (256, SHORT, 1, b"\x08\0"), (257, SHORT, 1, b"\x08\0")]))
    code = "import sys; from pathlib import Path; from ultron_cli.datasets.verify import check_photo as check;"
    code += "print(check(Path(sys.argv[1]), 'odd.tif').kind)"
    message = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert (message.stdout, message.stderr) == ("not-a-photo\n", "")


def test_types_that_nobody_photographs_in_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "program.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\n(x) print\n%%EOF\n")
    with pytest.raises(UltronError, match=r"program\.jpg: cannot be decoded \(not a photo that Pillow can read\)"):
        decode_photo(path)


def test_endings_of_names_are_one_list_in_small_and_capital_letters() -> None:
    for name in ("a.JFIF", "b.jpe", "c.AVIF", "d.jp2", "e.HEIC", "f.Jpeg", "g.mpo", "h.tif"):
        assert photo_types.is_photo(name)
    for name in ("a.txt", "jpg", "b.cr2", "c.jpg.part", "d.mov"):
        assert not photo_types.is_photo(name)
